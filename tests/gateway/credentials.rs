//! What the gateway shows upstreams: tokens of its own, tokens in exchange for the caller's,
//! and what a user has granted.

mod exchange;
mod races;
mod server;
mod sign_in;
mod user;

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tidegate_simulator::Running;

use crate::world::{Script, tool};
use server::{ISSUER, LIFETIME, credentials, world, world_of};

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: &str = "client_credentials";

#[test]
fn the_gateways_own_token_is_got_once_for_all_and_anew_before_it_ends() {
    let (world, granter) = world("client");
    assert_eq!(world.tool("files__read").status, 200);
    assert_eq!(world.call(tool("files__read").by("eve")).status, 200);
    assert_eq!(granter.asked_for(CLIENT), 1);
    assert_eq!(granter.subject_at(&world, "files"), "gateway");
    {
        let asked = granter.asked.borrow();
        assert_eq!(asked[0]["resource"], "https://files.example.com/mcp");
        assert_eq!(asked[0]["scope"], "files");
        assert!(
            asked[0]["authorization"].starts_with("Basic ") && !asked[0].contains_key("client_id")
        );
    }
    world.later(LIFETIME - SECOND * 61);
    assert_eq!(world.tool("files__read").status, 200);
    assert_eq!(granter.asked_for(CLIENT), 1, "it lasts for another minute");
    world.later(SECOND * 2);
    assert_eq!(world.tool("files__read").status, 200);
    assert_eq!(granter.asked_for(CLIENT), 2);
    granter.is_nowhere_stored(&world);
}

#[test]
fn of_many_calls_at_once_one_asks_for_a_token() {
    let (world, granter) = world("client");
    granter
        .server
        .borrow()
        .as_ref()
        .unwrap()
        .head_delay
        .set(SECOND);
    let mut calls: Vec<_> = (0..8)
        .map(|_| world.start_call(tool("files__read")))
        .collect();
    calls.iter_mut().for_each(|call| drop(call.step()));
    for call in calls {
        assert_eq!(call.finish().unwrap().status, 200);
    }
    assert_eq!(granter.asked_for(CLIENT), 1);
}

#[test]
fn whoever_asked_and_left_does_not_keep_others_waiting() {
    let (world, granter) = world("client");
    granter
        .server
        .borrow()
        .as_ref()
        .unwrap()
        .head_delay
        .set(SECOND);
    let mut left: Running<'_, _> = world.start_call(tool("files__read"));
    assert!(left.step().is_none());
    drop(left);
    assert_eq!(world.tool("files__read").status, 200);
    assert_eq!(
        granter.asked_for(CLIENT),
        1,
        "the first was dropped before it was heard"
    );
}

#[test]
fn a_token_the_upstream_refuses_is_replaced_once() {
    let (world, granter) = world("client");
    assert_eq!(world.tool("files__read").status, 200);
    world.later(SECOND * 30);
    granter.withdraw_access();
    assert_eq!(world.tool("files__read").status, 200);
    assert_eq!(granter.asked_for(CLIENT), 2);
    // One that takes nothing does not make the gateway ask without end.
    let script = Script::modern(&["read"]);
    let (world, granter) = world_of(&script, &{
        let mut members = credentials("client");
        members["credentials"]["resource"] = "https://other.example.com/".into();
        members
    });
    for _ in 0..10 {
        let told = world.tool("files__read");
        assert_eq!(
            (told.status, told.reason()),
            (StatusCode::BAD_GATEWAY, "upstream_unauthorized")
        );
        world.later(SECOND);
    }
    assert!(
        granter.asked_for(CLIENT) <= 2,
        "{}",
        granter.asked_for(CLIENT)
    );
}

#[test]
fn without_a_token_nothing_is_sent_and_the_error_names_the_upstream_and_nothing_secret() {
    for (says, reason) in [
        (
            Some((400, r#"{"error":"invalid_scope"}"#)),
            "its authorization server refuses: invalid_scope",
        ),
        (
            Some((400, r#"{"error":"CANARY-CODE"}"#)),
            "its authorization server answers with an error",
        ),
        (
            Some((500, "CANARY-WORDS")),
            "its authorization server answers with an error",
        ),
        (
            Some((302, "")),
            "its authorization server answers with an error",
        ),
        (
            Some((200, "CANARY-WORDS")),
            "its authorization server's answer is no bearer token",
        ),
        (
            None,
            "the metadata of its authorization server cannot be had",
        ),
    ] {
        let (world, granter) = world("client");
        *granter.says.borrow_mut() = says.map(|(code, text)| (code, text.to_owned()));
        let server = granter.server.borrow().clone().unwrap();
        server.down.set(says.is_none());
        let told = world.tool("files__read");
        assert_eq!(
            (told.status, told.reason()),
            (StatusCode::BAD_GATEWAY, "no_credentials")
        );
        assert_eq!(
            told.error()["message"],
            format!("The gateway has no token for upstream `files`: {reason}.")
        );
        assert!(!told.text.contains("CANARY"), "{told:?}");
        assert!(world.exchanges("files").is_empty());
        for line in world.lines() {
            assert!(!line.contains("CANARY"), "{line}");
        }
        // It is not asked again at once, and then it is.
        let asked = granter.asked.borrow().len();
        assert_eq!(world.tool("files__read").reason(), "no_credentials");
        assert_eq!(granter.asked.borrow().len(), asked);
        *granter.says.borrow_mut() = None;
        server.down.set(false);
        world.later(SECOND * 5);
        assert_eq!(world.tool("files__read").status, 200, "{reason}");
    }
}

#[test]
fn an_authorization_server_that_is_slow_or_speaks_for_another_gives_nothing() {
    let (world, granter) = world("client");
    let server = granter.server.borrow().clone().unwrap();
    server.head_delay.set(SECOND * 3600);
    assert_eq!(world.tool("files__read").reason(), "no_credentials");
    server.head_delay.set(Duration::ZERO);
    for document in [
        json!({ "issuer": "https://evil.example" }),
        json!({ "issuer": format!("{ISSUER}/") }),
        json!({ "token_endpoint": "https://169.254.169.254/token" }),
        json!({ "token_endpoint": "http://grants.example.com/token" }),
        json!({ "token_endpoint": null }),
    ] {
        *granter.metadata.borrow_mut() = document.clone();
        world.later(SECOND * 10);
        assert_eq!(
            world.tool("files__read").reason(),
            "no_credentials",
            "{document}"
        );
        assert!(granter.asked.borrow().is_empty(), "{document}");
    }
    *granter.metadata.borrow_mut() = json!({});
    world.later(SECOND * 10);
    assert_eq!(world.tool("files__read").status, 200);
}

#[test]
fn endpoints_that_are_configured_are_not_asked_for() {
    let mut members = credentials("client");
    members["credentials"]["tokenEndpoint"] = format!("{ISSUER}/token").into();
    let (world, granter) = world_of(&Script::legacy("2025-06-18", &["read"]), &members);
    *granter.metadata.borrow_mut() = json!({ "issuer": "https://evil.example" });
    assert_eq!(world.tool("files__read").status, 200);
}

#[test]
fn a_failing_authorization_server_says_nothing_of_the_upstreams_health() {
    let (world, granter) = world("client");
    *granter.says.borrow_mut() = Some((500, String::new()));
    for _ in 0..20 {
        assert_eq!(world.tool("files__read").reason(), "no_credentials");
        world.later(SECOND);
    }
    assert!(world.events("circuit_opened").is_empty());
}
