//! Who is kept out, and how each client is told: tokens, scopes, roles.

use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::call::{Call, get, send};
use crate::client::{CLIENTS, Client, Request, Seen};
use crate::work::{Check, trial};
use crate::world::{ROLE, SCOPE, World, text, texts};

type Claim = fn(&World, Client);

const CLAIMS: [(&str, Claim); 5] = [
    (
        "discovers where to get a token from the challenge",
        discovers_the_issuer,
    ),
    ("signs in by itself, knowing only the URL", signs_in),
    (
        "is refused with a token for another audience",
        refused_wrong_audience,
    ),
    ("is refused with an expired token", refused_expired),
    ("is refused with a token of another signer", refused_forged),
];

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for client in CLIENTS {
        for (name, claim) in CLAIMS {
            let title = format!("refusal::{}: {name}", client.label());
            trials.push(trial(world, title, move |world| claim(world, client)));
        }
    }
    let alone: [(&str, Check); 3] = [
        (
            "a server alone is discovered under its own resource",
            server_metadata,
        ),
        (
            "a tool's scope is asked for in a challenge",
            scope_is_challenged,
        ),
        ("a tool's role opens it, and only that", role_opens),
    ];
    for (name, claim) in alone {
        trials.push(trial(world, format!("refusal::{name}"), claim));
    }
    trials
}

fn discovers_the_issuer(world: &World, client: Client) {
    let gateway = world.ordinary();
    let seen = client.run_one(&Request {
        url: gateway.mcp(),
        scenarios: "discovery",
        ..Request::default()
    });
    let found = seen.ok();
    assert_eq!(found["status"], 401);
    assert_eq!(
        found["announced"],
        gateway.at("/.well-known/oauth-protected-resource/mcp")
    );
    assert_eq!(found["resource"], gateway.mcp());
    assert_eq!(found["fallback_resource"], gateway.mcp());
    assert_eq!(
        found["selected"],
        gateway.mcp(),
        "the SDK accepts the resource for this endpoint"
    );
    assert_eq!(
        found["issuer"].as_str().map(bare),
        texts(found, "/authorization_servers")
            .first()
            .copied()
            .map(bare)
    );
    let challenge = text(seen.response(401), "/challenge");
    assert!(challenge.starts_with("Bearer "), "{challenge}");
    assert!(
        !challenge.contains("error="),
        "no token was shown, so none was wrong: {challenge}"
    );
}

fn signs_in(world: &World, client: Client) {
    let gateway = world.ordinary();
    let seen = client.run_one(&Request {
        url: gateway.mcp(),
        scenarios: "sign_in",
        ..Request::default()
    });
    assert_eq!(
        seen.ok()["resource"],
        gateway.mcp(),
        "the token is asked for this resource"
    );
    assert_eq!(
        seen.http().first().map(|first| &first["status"]),
        Some(&Value::from(401)),
        "{}",
        seen.0
    );
    let names = texts(seen.ok(), "/names");
    assert!(names.contains(&"everything__echo"), "{names:?}");
}

/// Some SDKs print an origin with a trailing slash.
fn bare(url: &str) -> &str {
    url.trim_end_matches('/')
}

fn refused(world: &World, client: Client, token: &str) -> Seen {
    let url = world.ordinary().mcp();
    let seen = client.run_one(&Request {
        url,
        token: Some(token),
        scenarios: "tools",
        ..Request::default()
    });
    seen.failed();
    let statuses: Vec<_> = seen
        .http()
        .iter()
        .filter_map(|each| each["status"].as_u64())
        .collect();
    assert!(
        !statuses.is_empty() && statuses.iter().all(|status| *status == 401),
        "{}",
        seen.0
    );
    let challenge = text(seen.response(401), "/challenge");
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert!(challenge.contains("resource_metadata=\""), "{challenge}");
    assert!(!challenge.contains(token), "a token is never echoed");
    seen
}

fn refused_wrong_audience(world: &World, client: Client) {
    let gateway = world.ordinary();
    refused(
        world,
        client,
        gateway.mint(&["--audience", "https://elsewhere.example/mcp"]),
    );
    // Of this gateway, but for one server of it alone.
    refused(
        world,
        client,
        gateway.mint(&["--audience", &gateway.server("everything")]),
    );
}

fn refused_expired(world: &World, client: Client) {
    refused(world, client, world.ordinary().mint(&["--expired"]));
}

fn refused_forged(world: &World, client: Client) {
    let token = world.ordinary().token();
    let (signed, signature) = token.rsplit_once('.').expect("a signed token");
    let flipped = if signature.starts_with('A') { 'B' } else { 'A' };
    refused(
        world,
        client,
        &format!("{signed}.{flipped}{}", &signature[1..]),
    );
    // `{"alg":"none"}`, the same claims, no signature.
    let claims = signed.split_once('.').expect("claims").1;
    refused(world, client, &format!("eyJhbGciOiJub25lIn0.{claims}."));
}

fn server_metadata(world: &World) {
    let gateway = world.ordinary();
    let answer = send(
        &gateway.server("reference"),
        &Call::tool("test_simple_text"),
    );
    assert_eq!(answer.status, 401);
    let announced = gateway.at("/.well-known/oauth-protected-resource/servers/reference/mcp");
    assert!(
        answer.header("www-authenticate").contains(&announced),
        "{answer:?}"
    );
    let metadata = get(&announced);
    assert_eq!(metadata.status, 200);
    assert_eq!(metadata.json()["resource"], gateway.server("reference"));
}

fn scope_is_challenged(world: &World) {
    let gateway = world.ordinary();
    let call = Call::tool("everything__get-sum").with_arguments(r#"{"a":1,"b":2}"#);
    let without = send(
        &gateway.mcp(),
        &call.clone().with_token(gateway.mint_for("sailor")),
    );
    assert_eq!(without.status, 403, "{without:?}");
    let challenge = without.header("www-authenticate");
    assert!(
        challenge.contains("error=\"insufficient_scope\""),
        "{challenge}"
    );
    assert!(challenge.contains(SCOPE), "{challenge}");
    let token = gateway.mint(&[
        "--claims",
        &format!(r#"{{"sub":"captain","scope":"{SCOPE}"}}"#),
    ]);
    let with = send(&gateway.mcp(), &call.with_token(token));
    assert_eq!(with.status, 200, "{with:?}");
    assert!(with.body.contains('3'), "{with:?}");
}

fn role_opens(world: &World) {
    let gateway = world.ordinary();
    let call = Call::tool("reference__test_image_content");
    let without = send(
        &gateway.mcp(),
        &call.clone().with_token(gateway.mint_for("sailor")),
    );
    assert_eq!(without.status, 403, "{without:?}");
    let token = gateway.mint(&[
        "--claims",
        &format!(r#"{{"sub":"guide","roles":["{ROLE}"]}}"#),
    ]);
    let with = send(&gateway.mcp(), &call.with_token(token));
    assert_eq!(with.status, 200, "{with:?}");
    assert!(with.body.contains("image/png"), "{with:?}");
}
