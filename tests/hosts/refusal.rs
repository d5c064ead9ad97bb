//! Who is kept out, and how each client is told: tokens, scopes, limits.

use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::call::{Call, get, send};
use crate::client::{CLIENTS, Client, Request, Seen};
use crate::work::{Check, trial};
use crate::world::{Fixture, LIMIT, LIMITED, ROLE, SCOPE, TASK_ONLY, World, text, texts};

type Claim = fn(&World, Client);

const CLAIMS: [(&str, Claim); 7] = [
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
    ("is told when to return to a limited tool", limited_tool),
    (
        "is told when to return to a limited gateway",
        limited_gateway,
    ),
];

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for client in CLIENTS {
        for (name, claim) in CLAIMS {
            let title = format!("refusal::{}: {name}", client.label());
            trials.push(trial(world, title, move |world| claim(world, client)));
        }
    }
    let alone: [(&str, Check); 5] = [
        ("a limit counts each client alone", limits_are_per_client),
        (
            "a server alone is discovered under its own resource",
            server_metadata,
        ),
        (
            "a tool's scope is asked for in a challenge",
            scope_is_challenged,
        ),
        ("a tool's role opens it, and only that", role_opens),
        ("a task is unknown to every other client", task_is_private),
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

/// Calls `tool` until the limit is passed and returns what the client saw.
fn pass_the_limit(url: String, token: &str, client: Client, tool: (&str, &str)) -> Seen {
    client.run_one(&Request {
        url,
        token: Some(token),
        prefix: Fixture::Everything.prefix(),
        scenarios: "burst",
        tool: Some(tool),
        times: LIMIT + 3,
        ..Request::default()
    })
}

/// Longest a client is sent away: the limit's window, and while calls of the one before it
/// still count, part of another.
const RETURN_MAX_SECONDS: u64 = 2 * 60;

fn told_when_to_return(response: &Value) {
    let seconds = response["retry_after"]
        .as_str()
        .and_then(|text| text.parse::<u64>().ok());
    assert!(
        seconds.is_some_and(|seconds| (1..=RETURN_MAX_SECONDS).contains(&seconds)),
        "Retry-After in {response}"
    );
    assert_eq!(
        response["content_type"], "application/json",
        "an error a client can read: {response}"
    );
}

fn limited_tool(world: &World, client: Client) {
    let gateway = world.ordinary();
    let token = gateway.mint_for(&format!("tool-limit-{client:?}"));
    let seen = pass_the_limit(gateway.mcp(), token, client, (LIMITED, "{}"));
    told_when_to_return(seen.response(429));
    // A client that gives up at the first refusal reports no outcomes; the admitted calls
    // are then the responses before it.
    if let Some(outcomes) = seen.0.pointer("/ok/outcomes").and_then(Value::as_array) {
        let admitted = outcomes
            .iter()
            .filter(|outcome| outcome.get("text").is_some())
            .count();
        assert_eq!(admitted, LIMIT as usize, "{}", seen.0);
    }
}

fn limited_gateway(world: &World, client: Client) {
    let gateway = world.limited();
    let token = gateway.mint_for(&format!("limit-{client:?}"));
    let echo = ("everything__echo", r#"{"message":"tide"}"#);
    let seen = pass_the_limit(gateway.mcp(), token, client, echo);
    told_when_to_return(seen.response(429));
}

fn limits_are_per_client(world: &World) {
    let gateway = world.limited();
    let (spent, fresh) = (gateway.mint_for("spender"), gateway.mint_for("saver"));
    let call = |token| {
        send(
            &gateway.mcp(),
            &Call::tool("everything__echo").with_token(token),
        )
    };
    let statuses: Vec<_> = (0..LIMIT + 2).map(|_| call(spent).status).collect();
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        LIMIT as usize,
        "{statuses:?}"
    );
    assert_eq!(call(fresh).status, 200);
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

fn task_is_private(world: &World) {
    let gateway = world.ordinary();
    let (owner, stranger) = (gateway.mint_for("owner"), gateway.mint_for("stranger"));
    let call = Call::tool(TASK_ONLY)
        .with_arguments(r#"{"a":20,"b":22}"#)
        .declaring_tasks();
    let created = send(&gateway.mcp(), &call.with_token(owner)).json();
    let id = text(&created, "/result/taskId");
    let get = |id: &str, token| {
        let get = Call::modern("tasks/get", json!({ "taskId": id })).declaring_tasks();
        send(&gateway.mcp(), &get.with_token(token)).json()
    };
    assert_eq!(get(id, owner)["result"]["taskId"], id);
    let foreign = get(id, stranger);
    assert_eq!(foreign["error"]["code"], -32602, "{foreign}");
    // The same words, so that a stranger learns nothing from asking.
    assert_eq!(foreign["error"], get("never-made", stranger)["error"]);
}
