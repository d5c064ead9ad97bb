//! The table of attacks on the function in its real runtime, byte for byte, with all it can
//! be made to accept switched on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libtest_mimic::Trial;
use serde_json::json;

use crate::attacks::{Authority, Sent, Stage, authority, controls, edge, table, tenants};
use crate::gateway::Gateway;
use crate::work::trial;
use crate::world::World;

/// Longest any answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let claim = |world: &World| {
        let scene = Scene::set(world);
        scene.what_is_good_is_let_in();
        scene.every_attack_is_answered_exactly_so();
    };
    let name = "attack::every attack is answered exactly so, and what is good is let in";
    vec![trial(world, name.to_owned(), claim)]
}

struct Scene {
    gateway: Gateway,
    stage: Stage,
}

impl Scene {
    fn set(world: &World) -> Self {
        let audience = Arc::new(OnceLock::new());
        let (keys, asked) = (Arc::new(Authority::new()), Arc::clone(&audience));
        // One server is both issuers: they differ by path.
        let base = serve(Arc::clone(&keys), asked);
        let (issuer, other) = (base.clone(), format!("{base}/other"));
        let introspection = json!({
            "endpoint": format!("{issuer}/introspect"),
            "clientId": authority::CLIENT,
            "clientSecret": format!("${{secret:{}}}", authority::SECRET_NAME),
        });
        let settings = json!({
            "authentication": { "type": "jwt", "gatewayKeys": true, "issuers": [
                { "issuer": issuer, "dpop": "accept", "mtls": "accept", "introspection": introspection },
                { "issuer": other, "jwksUri": format!("{base}/other-keys"), "algorithms": ["RS256"] },
            ] },
            "edge": edge(), "tenants": tenants(),
            "upstreams": [{ "name": "everything", "url": world.recorders().0.url() }],
            "tools": [{ "name": "everything__get-sum", "requiredScopes": ["harbour:write", "harbour:read"] }],
        });
        let secret = format!("{}={}", authority::SECRET_NAME, authority::SECRET);
        let flags = ["--own-issuers", "--secret", &secret];
        let gateway = Gateway::start_with("attacked", settings, &flags);
        audience.set(gateway.mcp()).expect("told once");
        #[expect(clippy::disallowed_methods, reason = "the attacks happen now")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let stage = Stage {
            origin: gateway.at(""),
            issuer,
            other,
            tool: "everything__echo",
            scoped: "everything__get-sum",
            alone: "/servers/everything/mcp",
            now: now.as_secs(),
            keys,
        };
        Self { gateway, stage }
    }

    fn what_is_good_is_let_in(&self) {
        for (name, sent) in controls(&self.stage) {
            let (status, _) = self.send(&sent);
            assert_eq!(status, 200, "{name}");
        }
    }

    fn every_attack_is_answered_exactly_so(&self) {
        let rows = table(&self.stage);
        assert!(rows.len() >= 60, "{} rows", rows.len());
        let mut wrong = Vec::new();
        for row in rows {
            if let Some(before) = &row.before {
                let (status, _) = self.send(before);
                assert_eq!(status, 200, "before {}", row.name);
            }
            let answer = self.send(&row.sent);
            let expected = (row.status, row.challenge);
            if answer != expected {
                wrong.push(format!("{}: {answer:?} and not {expected:?}", row.name));
            }
        }
        assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
    }

    /// Status and challenge of the answer to these very bytes.
    fn send(&self, sent: &Sent) -> (u16, Option<String>) {
        let authority = self.gateway.at("");
        let authority = authority.strip_prefix("http://").unwrap();
        let mut bytes = format!(
            "{} {} HTTP/1.1\r\nhost: {authority}\r\ncontent-length: {}\r\nconnection: close\r\n",
            sent.method,
            sent.target,
            sent.body.len()
        )
        .into_bytes();
        for (name, value) in &sent.headers {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes.extend([b"\r\n", sent.body.as_bytes()].concat());
        let mut stream = TcpStream::connect(authority).unwrap();
        stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let status = lines.next().expect("a status line");
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut challenge = None;
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("a header");
            if name.eq_ignore_ascii_case("www-authenticate") {
                assert!(challenge.is_none(), "one challenge");
                challenge = Some(value.trim().to_owned());
            }
        }
        (status.expect("a status"), challenge)
    }
}

/// Serves both issuers; gives their URL.
fn serve(keys: Arc<Authority>, audience: Arc<OnceLock<String>>) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
    let port = listener.local_addr().expect("a bound address").port();
    let base = format!("http://127.0.0.1:{port}");
    let issuer = base.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let audience = audience.get().map_or("", String::as_str);
            let _ = answer(&keys, &issuer, audience, stream);
        }
    });
    base
}

fn answer(
    keys: &Authority,
    base: &str,
    audience: &str,
    mut stream: TcpStream,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body);
    let (status, said) = keys.answer(base, audience, &path, &body);
    let head = format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        said.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(said.as_bytes())
}
