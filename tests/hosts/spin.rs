//! The Spin component on a running host: what a client of it sees, and that the host
//! outlives a client that misbehaves.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::call::{Call, get, send};
use crate::gateway::end_later;
use crate::stopwatch::wait_for;

/// How long the host may take to end.
const END_MAX: Duration = Duration::from_secs(10);

/// How long a raw exchange may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);

/// What no HTTP client sends.
const MALFORMED: [&str; 5] = [
    "\u{16}\u{3}\u{1}tide",
    "tide\r\n\r\n",
    "GET /health HTTP/1.1\r\nconnection: close\r\n\r\n",
    "GET /health HTTP/1.1\r\nhost: two words\r\nconnection: close\r\n\r\n",
    "POST /mcp HTTP/1.1\r\nhost: here\r\ncontent-length: tide\r\n\r\n",
];

/// The program that runs a component, and the component.
struct Programs {
    host: OsString,
    component: OsString,
}

/// What must hold at this address.
type Claim = fn(&str);

/// Started by the first claim that needs it and shared by the others.
type Shared = Arc<Mutex<Option<String>>>;

/// None unless the environment names the programs.
pub fn trials() -> Vec<Trial> {
    let (Some(host), Some(component)) = (
        std::env::var_os("TIDEGATE_SPIN_HOST"),
        std::env::var_os("TIDEGATE_SPIN_COMPONENT"),
    ) else {
        return Vec::new();
    };
    let programs = Arc::new(Programs { host, component });
    let shared = Shared::default();
    let claims: [(&str, Claim); 5] = [
        ("liveness is answered whole", liveness),
        ("MCP is refused in plain words", refuses_mcp),
        ("an unknown path is refused like MCP", refuses_unknown_paths),
        (
            "a malformed request is answered 400 and ends nothing",
            outlives_malformed_requests,
        ),
        ("one connection carries several requests", keeps_alive),
    ];
    let mut trials: Vec<_> = claims
        .map(|(name, claim)| {
            let (programs, shared) = (Arc::clone(&programs), Arc::clone(&shared));
            trial(name, move || claim(&url(&programs, &shared)))
        })
        .into();
    trials.push(trial("it stops when it is told to", move || {
        stops(&programs)
    }));
    trials
}

fn trial(name: &str, claim: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(format!("spin::{name}"), move || {
        claim();
        Ok::<(), Failed>(())
    })
}

/// Starts the host; gives where it listens.
fn start(programs: &Programs) -> (Child, String) {
    let mut child = Command::new(&programs.host)
        .args(["--listen", "127.0.0.1:0"])
        .arg(&programs.component)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the host starts");
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("its output"))
        .read_line(&mut said)
        .expect("a line it prints");
    let url = said.trim().strip_prefix("listening on ");
    let url = url.unwrap_or_else(|| panic!("the host said {said:?}"));
    (child, url.to_owned())
}

fn url(programs: &Programs, shared: &Shared) -> String {
    let mut shared = shared
        .lock()
        .expect("a host that started for an earlier claim");
    shared
        .get_or_insert_with(|| {
            let (child, url) = start(programs);
            end_later(child);
            url
        })
        .clone()
}

fn liveness(url: &str) {
    let answer = get(&format!("{url}/health"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body, r#"{"status":"ok","host":"spin"}"#);
    assert_eq!(answer.header("content-type"), "application/json");
    // Chunked, it would cost a client on a kept connection a round trip of delay.
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    assert_eq!(answer.header("transfer-encoding"), "", "{answer:?}");
}

fn refuses_mcp(url: &str) {
    refused(url, &Call::modern("tools/list", json!({})), "/mcp");
}

fn refuses_unknown_paths(url: &str) {
    for path in ["/", "/tide", "/health/deep", "/servers/tide/mcp"] {
        refused(url, &Call::modern("tools/list", json!({})).by("GET"), path);
    }
}

fn refused(url: &str, call: &Call, path: &str) {
    let answer = send(&format!("{url}{path}"), call);
    assert_eq!(answer.status, 501, "{path}: {answer:?}");
    assert_eq!(answer.json()["error"], "not_implemented", "{answer:?}");
    let message = answer.json()["message"].as_str().map(str::to_owned);
    assert!(
        message.is_some_and(|text| text.contains("GET /health")),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
}

fn outlives_malformed_requests(url: &str) {
    for request in MALFORMED {
        let answer = exchange(url, request);
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{request:?}: {answer:?}"
        );
    }
    // Half a request, and then nobody.
    drop(connect(
        url,
        "POST /mcp HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\nti",
    ));
    liveness(url);
}

fn keeps_alive(url: &str) {
    const TIMES: usize = 3;
    let kept = "GET /health HTTP/1.1\r\nhost: here\r\n\r\n".repeat(TIMES - 1);
    let last = "GET /health HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    let answers = exchange(url, &(kept + last));
    assert_eq!(
        answers.matches("HTTP/1.1 200 OK").count(),
        TIMES,
        "{answers:?}"
    );
}

fn stops(programs: &Programs) {
    let (mut child, url) = start(programs);
    liveness(&url);
    // A connection nobody uses does not keep it.
    let _idle = connect(&url, "");
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(process.expect("a process"), Signal::TERM).expect("a signal sent");
    let ended = wait_for("the end of the host", END_MAX, || {
        child.try_wait().expect("a child of ours")
    });
    assert!(ended.success(), "{ended}");
}

fn connect(url: &str, request: &str) -> TcpStream {
    let address = url.strip_prefix("http://").expect("an HTTP address");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(EXCHANGE_MAX))
        .expect("a timeout");
    stream
        .write_all(request.as_bytes())
        .expect("a request sent");
    stream
}

/// Sends text as it is and reads until the host closes the connection.
fn exchange(url: &str, request: &str) -> String {
    let mut stream = connect(url, request);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
