//! Raw HTTP: what no well-behaved client would send, and what it must be answered.

use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::json;

use crate::call::{Answer, Call, get, get_with, send};
use crate::probe;
use crate::work::{Check, trial};
use crate::world::World;

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let probes = probe::envelopes().into_iter().chain(probe::requests());
    let mut trials: Vec<_> = probes
        .map(|(name, call, status, code)| {
            trial(
                world,
                format!("wire::{name} is answered {status}"),
                move |world| probe(world, call, status, code),
            )
        })
        .collect();
    let others: [(&str, Check); 11] = [
        (
            "an unknown tool of a known upstream is an error in its words",
            unknown_tool,
        ),
        ("a bare call as the README shows it is answered", bare_call),
        (
            "an unsupported version is answered with the supported ones",
            tells_versions,
        ),
        ("a GET is told the method to use", tells_allowed_methods),
        ("an unknown server is not found", unknown_server),
        ("a token in the query is no token", token_in_query),
        (
            "every result of the modern era says its type",
            results_are_typed,
        ),
        (
            "a legacy client is served without a session",
            legacy_opening,
        ),
        (
            "a notification is accepted without a body",
            notification_accepted,
        ),
        ("liveness needs no token", liveness),
        (
            "deep health names upstreams to those with a token",
            deep_health,
        ),
    ];
    trials.extend(others.map(|(name, claim)| trial(world, format!("wire::{name}"), claim)));
    trials
}

/// `call` with a good token, unless it says itself what to show.
fn authorized(world: &World, call: Call) -> Call {
    match call.header("authorization") {
        None => call.with_token(world.ordinary().token()),
        Some("") => call.without("authorization"),
        Some(_) => call,
    }
}

fn probe(world: &World, call: Call, status: u16, code: Option<i64>) {
    let answer = send(&world.ordinary().mcp(), &authorized(world, call));
    assert_eq!(answer.status, status, "{answer:?}");
    if let Some(code) = code {
        let body = answer.json();
        assert_eq!(body["error"]["code"], code, "{body}");
        assert!(
            body["error"]["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{body}"
        );
        assert_ne!(body["id"], json!(0), "{body}");
    }
    let token = world.ordinary().token();
    assert!(
        !answer.body.contains(token),
        "the token is echoed: {answer:?}"
    );
}

fn ask(world: &World, call: Call) -> Answer {
    send(&world.ordinary().mcp(), &authorized(world, call))
}

fn tells_versions(world: &World) {
    let version = "/params/_meta/io.modelcontextprotocol~1protocolVersion";
    let call = Call::modern("server/discover", json!({})).at(version, json!("2999-01-01"));
    let body = ask(world, call.with("mcp-protocol-version", "2999-01-01")).json();
    assert_eq!(body["error"]["data"]["requested"], "2999-01-01", "{body}");
    let told = body["error"]["data"]["supported"]
        .as_array()
        .expect("supported versions")
        .clone();
    let discovered = ask(world, Call::modern("server/discover", json!({}))).json();
    let supported = discovered["result"]["supportedVersions"]
        .as_array()
        .expect("supportedVersions");
    assert!(told.contains(&json!("2026-07-28")), "{told:?}");
    assert!(
        told.iter().all(|version| supported.contains(version)),
        "{told:?} against {supported:?}"
    );
}

fn tells_allowed_methods(world: &World) {
    let answer = ask(world, Call::modern("tools/list", json!({})).by("GET"));
    assert!(answer.header("allow").contains("POST"), "{answer:?}");
}

fn unknown_server(world: &World) {
    let url = world.ordinary().server("nobody");
    let answer = send(&url, &authorized(world, Call::tool("echo")));
    // Whether it is missing or merely not this token's: neither tells which servers exist.
    assert!([401, 404].contains(&answer.status), "{answer:?}");
}

fn token_in_query(world: &World) {
    let url = format!(
        "{}?access_token={}",
        world.ordinary().mcp(),
        world.ordinary().token()
    );
    assert_eq!(
        send(&url, &Call::modern("tools/list", json!({}))).status,
        401
    );
}

fn results_are_typed(world: &World) {
    for method in [
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
    ] {
        let answer = ask(world, Call::modern(method, json!({})));
        let result = &answer.json()["result"];
        assert_eq!(result["resultType"], "complete", "{method}: {answer:?}");
        assert!(result["ttlMs"].as_u64().is_some(), "{method}: {answer:?}");
        assert!(
            ["public", "private"].contains(&result["cacheScope"].as_str().unwrap_or_default()),
            "{method}: {answer:?}"
        );
        assert!(
            result["_meta"]["io.modelcontextprotocol/serverInfo"].is_object(),
            "{method}: {answer:?}"
        );
        assert_eq!(
            answer.header("mcp-session-id"),
            "",
            "{method}: a modern answer mints no session"
        );
    }
}

fn legacy_opening(world: &World) {
    for version in ["2025-11-25", "2025-06-18", "2025-03-26"] {
        let client = json!({ "name": "probe", "version": "1" });
        let params =
            json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client });
        let opening = Call::legacy("initialize", params).without("mcp-protocol-version");
        let opened = ask(world, opening);
        assert_eq!(
            opened.json()["result"]["protocolVersion"],
            version,
            "{opened:?}"
        );
        let ping = Call::legacy("ping", json!({})).with("mcp-protocol-version", version);
        assert_eq!(ask(world, ping).json()["result"], json!({}), "{version}");
        let echo = json!({ "name": "everything__echo", "arguments": { "message": "tide" } });
        let call = Call::legacy("tools/call", echo).with("mcp-protocol-version", version);
        let answer = ask(world, call).json();
        assert_eq!(
            answer["result"]["content"][0]["text"], "Echo: tide",
            "{answer}"
        );
        assert!(
            answer["result"].get("resultType").is_none(),
            "a member of a later revision: {answer}"
        );
    }
}

fn unknown_tool(world: &World) {
    for upstream in ["everything", "reference"] {
        let tool = format!("{upstream}__nothing-here");
        let answer = ask(world, Call::tool(&tool));
        // Servers disagree on which kind of error this is; none of them calls it a success.
        let refused = answer.json()["error"]["code"] == -32602;
        let failed = answer.json()["result"]["isError"] == true;
        assert!(refused || failed, "{answer:?}");
        assert!(answer.body.contains("nothing-here"), "{answer:?}");
        if !world.starts_its_own() {
            return;
        }
    }
}

fn bare_call(world: &World) {
    let echo = json!({ "name": "everything__echo", "arguments": { "message": "hello" } });
    let answer = ask(
        world,
        Call::legacy("tools/call", echo)
            .without("mcp-protocol-version")
            .without("mcp-name"),
    );
    assert_eq!(
        answer.json()["result"]["content"][0]["text"],
        "Echo: hello",
        "{answer:?}"
    );
}

fn notification_accepted(world: &World) {
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let answer = ask(
        world,
        Call::legacy("notifications/initialized", json!({})).raw(notification),
    );
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (202, ""),
        "{answer:?}"
    );
}

fn liveness(world: &World) {
    let answer = get(&world.ordinary().at("/health"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn deep_health(world: &World) {
    let gateway = world.ordinary();
    let known = get_with(&gateway.at("/health/deep"), Some(gateway.token()));
    assert_eq!(known.status, 200, "{known:?}");
    assert_eq!(known.json()["status"], "healthy", "{known:?}");
    assert_eq!(
        known.json()["upstreams"][0]["name"],
        "everything",
        "{known:?}"
    );
    let unknown = get(&gateway.at("/health/deep"));
    assert_eq!(unknown.status, 200, "{unknown:?}");
    assert!(!unknown.body.contains("everything"), "{unknown:?}");
}
