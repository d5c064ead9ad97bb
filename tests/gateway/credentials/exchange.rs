//! Tokens in exchange for the caller's own (RFC 8693).

use std::cell::Cell;

use serde_json::json;
use tidegate_gateway::auth::NewKey;
use tidegate_gateway::platform::Clock;

use super::server::{Granter, SECRET, credentials, world, world_of};
use super::{LIFETIME, SECOND};
use crate::world::{Said, Script, Setup, World, modern, tool};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

#[test]
fn each_caller_gets_a_token_of_their_own_and_theirs_goes_nowhere_else() {
    let mut members = credentials("exchange");
    members["credentials"]["audience"] = "files-api".into();
    let (world, granter) = world_of(&Script::modern(&["read"]), &members);
    for (subject, asked) in [("ada", 1), ("ada", 1), ("eve", 2), ("ada", 2), ("eve", 2)] {
        assert_eq!(world.call(tool("files__read").by(subject)).status, 200);
        assert_eq!(granter.subject_at(&world, "files"), subject);
        assert_eq!(granter.asked_for(EXCHANGE), asked);
    }
    let asked = granter.asked.borrow();
    let form = &asked[0];
    assert_eq!(form["subject_token_type"], ACCESS_TOKEN);
    assert_eq!(form["requested_token_type"], ACCESS_TOKEN);
    assert_eq!(form["audience"], "files-api");
    assert_eq!(form["resource"], "https://files.example.com/mcp");
    assert!(
        world
            .shared
            .secrets
            .borrow()
            .contains(&form["subject_token"])
    );
    granter.is_nowhere_stored(&world);
}

#[test]
fn another_token_of_the_same_caller_is_exchanged_by_itself() {
    let (world, granter) = world("exchange");
    let (full, less) = (
        world.token(&json!({})),
        world.token(&json!({ "scope": "less" })),
    );
    for (token, asked) in [(&full, 1), (&less, 2), (&full, 2)] {
        assert_eq!(world.call(tool("files__read").token(token)).status, 200);
        assert_eq!(granter.asked_for(EXCHANGE), asked);
    }
    world.later(LIFETIME - SECOND * 30);
    assert_eq!(world.call(tool("files__read").token(&full)).status, 200);
    assert_eq!(granter.asked_for(EXCHANGE), 3, "before it ends");
}

#[test]
fn what_one_caller_was_listed_is_not_shown_to_another() {
    let script = Script::modern(&["read"]);
    script.hints(60_000, "public");
    let (world, granter) = world_of(&script, &credentials("exchange"));
    for subject in ["ada", "eve"] {
        let told = world.call(modern("tools/list", json!({})).by(subject));
        assert_eq!(told.names(), ["files__read"]);
        assert_eq!(granter.subject_at(&world, "files"), subject);
        world.settle();
    }
    assert!(
        world
            .sim
            .kv
            .keys()
            .iter()
            .all(|key| !key.starts_with("catalog/"))
    );
}

#[test]
fn what_an_upstream_says_of_itself_to_one_caller_is_not_told_another() {
    let script = Script::modern(&["read"]);
    let asked = Cell::new(0);
    script.on("server/discover", move |_| {
        asked.set(asked.get() + 1);
        Said::Result(json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"],
            "instructions": format!("Account {}.", asked.get()),
            "capabilities": { "tools": {} }, "serverInfo": { "name": "files", "version": "1" },
            "ttlMs": 60_000, "cacheScope": "private",
        }))
    });
    let (world, _granter) = world_of(&script, &credentials("exchange"));
    let tokens = [
        world.token(&json!({})),
        world.token(&json!({ "sub": "eve" })),
        world.token(&json!({ "scope": "less" })),
    ];
    let told = |token: &String| {
        let told = world.call(modern("server/discover", json!({})).token(token));
        world.settle();
        told.result()["instructions"].as_str().unwrap().to_owned()
    };
    for _ in 0..2 {
        for (token, account) in tokens.iter().zip(1..) {
            assert_eq!(told(token), format!("Account {account}."));
        }
    }
    let keys = world.sim.kv.keys();
    assert!(
        keys.iter().all(|key| !key.starts_with("upstream/")),
        "{keys:?}"
    );
}

#[test]
fn what_one_token_was_listed_is_not_shown_to_another_of_the_same_caller() {
    let script = Script::modern(&["read"]);
    script.hints(60_000, "private");
    let (world, _granter) = world_of(&script, &credentials("exchange"));
    let (full, less) = (
        world.token(&json!({})),
        world.token(&json!({ "scope": "less" })),
    );
    for (token, asked) in [(&full, 1), (&full, 1), (&less, 2), (&full, 2)] {
        let told = world.call(modern("tools/list", json!({})).token(token));
        assert_eq!(told.names(), ["files__read"]);
        assert_eq!(world.count("files", "tools/list"), asked);
    }
}

#[test]
fn a_gateway_key_cannot_be_exchanged_and_says_so() {
    let world = Setup::new()
        .upstream_with(
            "files",
            &Script::modern(&["read"]),
            &credentials("exchange"),
        )
        .config(&json!({ "authentication": { "gatewayKeys": true } }))
        .secret("GRANTS_SECRET", SECRET)
        .start();
    let granter = Granter::serve(&world, &[]);
    let key = key(&world);
    let told = world.call(tool("files__read").token(&key));
    assert_eq!(told.reason(), "no_credentials");
    assert!(
        told.error()["message"]
            .as_str()
            .unwrap()
            .contains("gateway keys cannot be exchanged")
    );
    assert!(world.exchanges("files").is_empty() && granter.asked.borrow().is_empty());
}

#[test]
fn a_task_goes_on_with_what_was_exchanged_for_as_long_as_that_lasts() {
    let rule = json!({ "name": "files__read", "execution": "task" });
    for (late, status) in [(SECOND, "completed"), (LIFETIME + SECOND, "failed")] {
        let script = Script::modern(&["read"]);
        let world = Setup::new()
            .upstream_with("files", &script, &credentials("exchange"))
            .rule(rule.clone())
            .secret("GRANTS_SECRET", SECRET)
            .start();
        let granter = Granter::serve(&world, &[("files", &script)]);
        let told = world.call(tool("files__read").with_tasks());
        let id = told.result()["taskId"].as_str().unwrap().to_owned();
        world.sim.clock.advance(late);
        let other = world.isolate();
        other.deliver();
        other.settle();
        let get = modern("tasks/get", json!({ "taskId": id })).with_tasks();
        assert_eq!(world.call(get).result()["status"], status);
        assert_eq!(granter.asked_for(EXCHANGE), 1);
        granter.is_nowhere_stored(&world);
    }
}

/// Publishes a gateway key.
pub fn key(world: &World) -> String {
    let key = NewKey::of(&[7; NewKey::RANDOM]);
    let now = world.sim.clock.now().0;
    let record = json!({
        "v": 1, "id": key.id, "name": "test", "hashes": [key.hash], "createdAtMs": now,
        "expiresAtMs": now + 3_600_000, "audiences": ["https://gw.example.com/mcp"],
    });
    let path = format!("key/{}", key.id);
    world.sim.kv.publish(&path, record.to_string());
    world.shared.secrets.borrow_mut().insert(key.text.clone());
    key.text
}
