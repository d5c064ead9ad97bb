//! What is left behind: the audit lines of the gateway, and what upstreams could learn.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::call::{Call, send};
use crate::client::CLIENTS;
use crate::gateway::Gateway;
use crate::stopwatch::wait_for;
use crate::work::{Check, trial};
use crate::world::{Fixture, World, text};

/// How long a line may take from the response to the log.
const WRITTEN_MAX: Duration = Duration::from_secs(10);

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let claims: [(&str, Check); 3] = [
        (
            "every call leaves exactly one line, and a refused one too",
            one_line_per_call,
        ),
        (
            "no line holds an argument or a token",
            nothing_secret_is_logged,
        ),
        (
            "upstreams never see a client's token or cookie",
            nothing_leaks_upstream,
        ),
    ];
    claims
        .map(|(name, claim)| trial(world, format!("audit::{name}"), claim))
        .into()
}

fn audit_lines(gateway: &Gateway, subject: &str) -> Vec<Value> {
    let logged = gateway.logged();
    // The runtime may put something before the line.
    let json = logged
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.get(line.find('{')?..)?).ok());
    json.filter(|line| line["event"] == "audit" && line["subject"] == subject)
        .collect()
}

fn one_line_per_call(world: &World) {
    let gateway = world.ordinary();
    let subject = "audited";
    let token = gateway.mint_for(subject);
    let calls = [
        ("everything__echo", "ok"),
        ("everything__get-sum", "insufficient_scope"),
        ("reference__test_error_handling", "tool_error"),
    ];
    for (tool, _) in calls {
        send(
            &gateway.mcp(),
            &Call::tool(tool)
                .with_arguments(r#"{"message":"tide"}"#)
                .with_token(token),
        );
    }
    wait_for("an audit line for each call", WRITTEN_MAX, || {
        (audit_lines(gateway, subject).len() >= calls.len()).then_some(())
    });
    let lines = audit_lines(gateway, subject);
    assert_eq!(lines.len(), calls.len(), "{lines:#?}");
    for (tool, outcome) in calls {
        let about: Vec<_> = lines.iter().filter(|line| line["name"] == tool).collect();
        let [line] = about[..] else {
            panic!("lines about {tool} in {lines:#?}")
        };
        assert_eq!(line["outcome"], outcome, "{line}");
        assert_eq!(line["method"], "tools/call", "{line}");
        for member in [
            "atMs",
            "correlationId",
            "issuer",
            "endpoint",
            "argumentFingerprint",
            "durationMs",
        ] {
            assert!(line.get(member).is_some(), "{member} is missing in {line}");
        }
    }
}

fn nothing_secret_is_logged(world: &World) {
    let gateway = world.ordinary();
    let token = gateway.mint_for("discreet");
    let phrase = "the cargo is under the third plank";
    let arguments = format!(r#"{{"message":"{phrase}"}}"#);
    let answer = send(
        &gateway.mcp(),
        &Call::tool("everything__echo")
            .with_arguments(&arguments)
            .with_token(token),
    );
    assert!(answer.body.contains(phrase), "{answer:?}");
    wait_for("the call's line", WRITTEN_MAX, || {
        (!audit_lines(gateway, "discreet").is_empty()).then_some(())
    });
    let logged = gateway.logged();
    assert!(!logged.contains(phrase), "an argument was logged");
    for token in [token, gateway.token()] {
        let signature = token.rsplit('.').next().expect("a signature");
        assert!(
            !logged.contains(token) && !logged.contains(signature),
            "a token was logged"
        );
    }
}

fn nothing_leaks_upstream(world: &World) {
    // Every client does its day's work first: what follows is about all of it.
    for client in CLIENTS {
        for fixture in [Fixture::Everything, Fixture::Reference] {
            world.seen(client, fixture, "call");
        }
    }
    let token = world.ordinary().token();
    let signature = token.rsplit('.').next().expect("a signature");
    let (legacy, modern) = world.recorders();
    let heads = [legacy.recorded(), modern.recorded()];
    assert!(
        heads.iter().all(|heads| !heads.is_empty()),
        "both upstreams were really asked"
    );
    for head in heads.into_iter().flatten() {
        let headers = head["headers"].as_object().expect("headers");
        for name in [
            "authorization",
            "cookie",
            "proxy-authorization",
            "dpop",
            "forwarded",
            "x-forwarded-for",
        ] {
            assert!(
                !headers.contains_key(name),
                "{name} reached an upstream: {head}"
            );
        }
        let everything = head.to_string();
        assert!(
            !everything.contains(signature) && !everything.contains("harbour=private"),
            "{head}"
        );
        assert_eq!(text(&head, "/path"), "/mcp");
    }
}
