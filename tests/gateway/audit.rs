//! One line for each call, whatever came of it, and nothing in it that was said.
//!
//! That no line ever holds an argument, a result, a token or a secret is checked of every
//! world when it ends; here is what the lines do hold.

use serde_json::{Value, json};

use crate::world::{Ask, RESULT, Said, Script, Setup, World, complete, legacy, modern, tool};

#[test]
fn a_line_says_who_asked_what_and_what_came_of_it() {
    let world = world();
    let token =
        world.token(&json!({ "sub": "ada@example.com", "client_id": "agent-7", "tid": "north" }));
    world.call(tool("search__query").token(&token));
    let line = world.audits().pop().unwrap();
    for (member, expected) in [
        ("issuer", json!("https://login.example.com")),
        ("subject", json!("ada@example.com")),
        ("clientId", json!("agent-7")),
        ("tenant", json!("north")),
        ("address", json!("203.0.113.7")),
        ("endpoint", json!("/mcp")),
        ("protocolVersion", json!("2026-07-28")),
        ("method", json!("tools/call")),
        ("name", json!("search__query")),
        ("upstream", json!("search")),
        ("rule", json!("search__*")),
        ("outcome", json!("ok")),
    ] {
        assert_eq!(line[member], expected, "{member}");
    }
    assert!(line["atMs"].is_u64() && line["durationMs"].is_u64());
    assert_eq!(line["correlationId"].as_str().unwrap().len(), 32);
    assert_eq!(line["config"].as_str().unwrap().len(), 16);
}

#[test]
fn whatever_a_rule_refuses_is_recorded_with_the_rule() {
    let world = Setup::new()
        .upstream("up", &Script::modern(&["scoped", "closed", "job"]))
        .rule(json!({ "name": "up__scoped", "requiredScopes": ["more"] }))
        .rule(json!({ "name": "up__closed", "requiredRoles": ["admin"] }))
        .rule(json!({ "name": "up__job", "execution": "task", "requiredScopes": ["jobs"] }))
        .start();
    let token = |scope: &str| world.token(&json!({ "scope": scope, "roles": ["admin"] }));
    let rules = || {
        let line = world.audits().pop().unwrap();
        [&line["outcome"], &line["rule"], &line["policyRule"]]
            .map(|text| text.as_str().map(str::to_owned))
    };
    let named = |outcome: &str, rule: Option<&str>, policy_rule: Option<&str>| {
        [Some(outcome), rule, policy_rule].map(|text| text.map(str::to_owned))
    };
    for (name, outcome) in [
        ("up__scoped", "insufficient_scope"),
        ("up__closed", "denied"),
    ] {
        world.tool(name);
        assert_eq!(rules(), named(outcome, Some(name), Some(name)));
    }
    world.call(tool("up__closed").token(&token("")));
    assert_eq!(rules(), named("ok", Some("up__closed"), None));
    // What was begun, by who may no longer.
    let task =
        crate::tasks::handle(&world.call(tool("up__job").with_tasks().token(&token("jobs"))));
    world.call(crate::tasks::get(&task).token(&token("")));
    assert_eq!(rules(), named("insufficient_scope", None, Some("up__job")));
}

#[test]
fn every_outcome_has_one_line_with_its_label() {
    let script = Script::modern(&["query", "closed", "scoped"]);
    script.on("tools/call", |heard| match heard.params()["arguments"]["do"].as_str() {
        Some("error") => Said::Error(-32603),
        Some("tool_error") => Said::Result(json!({ "resultType": "complete", "content": [{ "type": "text", "text": RESULT }], "isError": true })),
        Some("input") => Said::Result(json!({ "resultType": "input_required", "requestState": RESULT })),
        Some("nonsense") => Said::Raw(200, "text/html", RESULT.into()),
        Some("silence") => Said::After(std::time::Duration::from_secs(3600), Box::new(Said::Error(1))),
        Some("401") => Said::Raw(401, "text/plain", RESULT.into()),
        _ => Said::Result(complete(RESULT)),
    });
    let world = Setup::new()
        .upstream("search", &script)
        .rule(json!({ "name": "search__closed", "requiredRoles": ["admin"] }))
        .rule(json!({ "name": "search__scoped", "requiredScopes": ["more"] }))
        .config(&json!({ "limits": { "requestBodyBytes": 2048 } }))
        .start();
    let doing = |what: &str| {
        tool("search__query").param(
            "arguments",
            json!({ "do": what, "q": crate::world::ARGUMENT }),
        )
    };
    let cases: Vec<(Ask, &str, Option<i64>)> = vec![
        (tool("search__query"), "ok", None),
        (modern("tools/list", json!({})), "ok", None),
        (legacy("2025-06-18", "ping", json!({})), "ok", None),
        (doing("tool_error"), "tool_error", None),
        (doing("input"), "input_required", None),
        (doing("error"), "protocol_error", Some(-32603)),
        (doing("nonsense"), "upstream_invalid", Some(-31001)),
        (doing("silence"), "upstream_timeout", Some(-31001)),
        (doing("401"), "upstream_unauthorized", Some(-31001)),
        (tool("search__closed"), "denied", Some(-31000)),
        (tool("search__scoped"), "insufficient_scope", Some(-31000)),
        (tool("nobody__x"), "protocol_error", Some(-32602)),
        (
            tool("search__query").anonymous(),
            "unauthenticated",
            Some(-31000),
        ),
        (
            tool("search__query").header("origin", "https://evil.example.net"),
            "origin_not_allowed",
            Some(-31000),
        ),
        (
            tool("search__query").using("PUT"),
            "method_not_allowed",
            Some(-31000),
        ),
        (
            tool("search__query").header("content-type", "text/plain"),
            "unsupported_media_type",
            Some(-31000),
        ),
        (
            tool("search__query").header("accept", "text/plain"),
            "not_acceptable",
            Some(-31000),
        ),
        (
            tool("search__query").body("x".repeat(3000)),
            "body_too_large",
            Some(-31000),
        ),
        (
            tool("search__query").body(crate::world::ARGUMENT),
            "protocol_error",
            Some(-32700),
        ),
        (
            tool("search__query").without("mcp-name"),
            "protocol_error",
            Some(-32020),
        ),
        (
            modern("nothing/known", json!({})),
            "protocol_error",
            Some(-32601),
        ),
    ];
    for (ask, outcome, code) in cases {
        world.forget_log();
        let told = world.call(ask);
        let line = world.audits().pop().unwrap();
        assert_eq!(line["outcome"], outcome, "{told:?}");
        assert_eq!(
            line.get("errorCode").and_then(Value::as_i64),
            code,
            "{told:?}"
        );
    }
}

#[test]
fn equal_arguments_have_equal_fingerprints_and_those_say_nothing() {
    let world = world();
    let print = |q: &str| {
        world.call(modern(
            "tools/call",
            json!({ "name": "search__query", "arguments": { "q": q } }),
        ));
        world.audits().pop().unwrap()["argumentFingerprint"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(print("a"), print("a"));
    assert_ne!(print("a"), print("b"));
    assert_eq!(print("a").len(), 32);
    let other = Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .secret(
            "TIDEGATE_SEALING_KEY",
            "ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg=",
        )
        .start();
    other.call(modern(
        "tools/call",
        json!({ "name": "search__query", "arguments": { "q": "a" } }),
    ));
    assert_ne!(
        other.audits()[0]["argumentFingerprint"].as_str().unwrap(),
        print("a"),
        "keyed"
    );
}

#[test]
fn fingerprints_can_be_turned_off() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(&json!({ "audit": { "argumentFingerprint": false } }))
        .start();
    world.tool("search__query");
    assert!(world.audits()[0].get("argumentFingerprint").is_none());
}

#[test]
fn lines_are_written_whatever_the_log_level() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(&json!({ "telemetry": { "logLevel": "error" } }))
        .start();
    world.tool("search__query");
    assert_eq!(world.audits().len(), 1);
}

#[test]
fn the_query_of_a_uri_is_not_recorded() {
    let script = Script::modern(&[]);
    script.listing(
        "resources",
        json!({ "uri": "https://x.example.com/a", "name": "a" }),
    );
    let world = Setup::new().upstream("files", &script).start();
    let uri = format!(
        "files+https://x.example.com/a?token={}#{}",
        crate::world::ARGUMENT,
        crate::world::ARGUMENT
    );
    world.call(modern("resources/read", json!({ "uri": uri })));
    assert_eq!(world.audits()[0]["name"], "files+https://x.example.com/a");
}

#[test]
fn names_that_go_on_for_ever_are_cut() {
    let world = world();
    world.tool(&format!("search__{}", "x".repeat(5000)));
    let line = world.audits().pop().unwrap();
    assert!(line.to_string().len() < 2000, "{line}");
}

#[test]
fn nothing_a_client_writes_can_make_a_line_of_its_own() {
    let world = world();
    let subject = "x\n{\"event\":\"audit\",\"outcome\":\"ok\"}";
    world.call(tool("search__query").token(&world.token(&json!({ "sub": subject }))));
    assert!(world.lines().iter().all(|line| !line.contains('\n')));
    assert_eq!(world.audits()[0]["subject"], subject);
}

fn world() -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .rule(json!({ "name": "search__*" }))
        .config(&json!({ "authentication": { "issuers": [{
            "issuer": "https://login.example.com", "jwksUri": "https://login.example.com/keys", "tenantClaim": "tid",
        }] } }))
        .start()
}
