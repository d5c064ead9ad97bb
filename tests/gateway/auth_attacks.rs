//! The table of attacks on the gateway in the simulator, with all it can be made to accept
//! switched on.

use std::sync::Arc;

use http::{HeaderValue, Request, Response};
use serde_json::json;
use tidegate_gateway::body::Body;
use tidegate_gateway::ingress::Peer;
use tidegate_gateway::platform::Clock;

use crate::attacks::{Authority, Sent, Stage, authority, controls, edge, table, tenants};
use crate::world::{Script, Setup, Told, World};

const ISSUER: &str = "https://a.example.com";
const OTHER: &str = "https://b.example.com";

#[test]
fn what_is_good_is_let_in() {
    let (world, stage) = stage();
    for (name, sent) in controls(&stage) {
        let told = send(&world, &sent);
        assert_eq!(told.status, 200, "{name}: {told:?}");
    }
}

#[test]
fn every_attack_is_answered_exactly_so_and_reaches_no_upstream() {
    let (world, stage) = stage();
    let rows = table(&stage);
    assert!(rows.len() >= 60, "{} rows", rows.len());
    for row in rows {
        if let Some(before) = &row.before {
            assert_eq!(send(&world, before).status, 200, "before {}", row.name);
        }
        let seen = world.exchanges("search").len();
        let told = send(&world, &row.sent);
        assert_eq!(told.status, row.status, "{}: {told:?}", row.name);
        let challenge = told.headers.get("www-authenticate");
        let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(challenge, row.challenge, "{}", row.name);
        assert_eq!(world.exchanges("search").len(), seen, "{}", row.name);
    }
}

fn stage() -> (World, Stage) {
    let introspection = json!({
        "endpoint": format!("{ISSUER}/introspect"),
        "clientId": authority::CLIENT,
        "clientSecret": format!("${{secret:{}}}", authority::SECRET_NAME),
    });
    let issuers = json!([
        { "issuer": ISSUER, "dpop": "accept", "mtls": "accept", "introspection": introspection },
        { "issuer": OTHER, "jwksUri": format!("{OTHER}/other-keys"), "algorithms": ["RS256"] },
    ]);
    let world = Setup::new()
        .upstream("search", &Script::modern(&["echo", "scoped"]))
        .rule(json!({ "name": "search__scoped", "requiredScopes": ["harbour:write", "harbour:read"] }))
        .config(&json!({ "authentication": { "issuers": issuers, "gatewayKeys": true }, "edge": edge(), "tenants": tenants() }))
        .secret(authority::SECRET_NAME, authority::SECRET)
        .start();
    let keys = Arc::new(Authority::new());
    for issuer in [ISSUER, OTHER] {
        let keys = Arc::clone(&keys);
        let host = issuer.strip_prefix("https://").unwrap();
        world.sim.http.serve(host, move |request: Request<Body>| {
            let keys = Arc::clone(&keys);
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().read(64 * 1024).await.unwrap();
                let body = String::from_utf8_lossy(&body);
                let (status, answer) =
                    keys.answer(issuer, "https://gw.example.com/mcp", &path, &body);
                let response = Response::builder().status(status);
                Ok(response.body(Body::from(answer)).unwrap())
            }
        });
    }
    let stage = Stage {
        origin: "https://gw.example.com".to_owned(),
        issuer: ISSUER.to_owned(),
        other: OTHER.to_owned(),
        tool: "search__echo",
        scoped: "search__scoped",
        alone: "/servers/search/mcp",
        now: world.sim.clock.now().as_secs(),
        keys,
    };
    (world, stage)
}

fn send(world: &World, sent: &Sent) -> Told {
    let mut request = Request::new(Body::from(sent.body.clone()));
    *request.method_mut() = sent.method.parse().unwrap();
    *request.uri_mut() = format!("https://gw.example.com{}", sent.target)
        .parse()
        .unwrap();
    for (name, value) in &sent.headers {
        let value = HeaderValue::from_bytes(value).unwrap();
        request.headers_mut().append(*name, value);
    }
    request.extensions_mut().insert(Peer::default());
    world.serve(request)
}
