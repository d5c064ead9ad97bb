//! The gateway's own tasks, once their owner may no longer call the tool: nothing is told of
//! what came of them, nobody goes on with them, and they can still be called off.

use serde_json::{Value, json};

use crate::listen::{Listener, listen};
use crate::tasks::{cancel, create, get, handle};
use crate::world::{Ask, RESULT, Script, Setup, Told, World, legacy, modern, tool};

/// A world in which only runners may call the tool, and a token of one.
fn world(config: &Value, rule: &Value) -> World {
    let mut whole = json!({ "name": "up__a", "execution": "task" });
    whole
        .as_object_mut()
        .unwrap()
        .extend(rule.as_object().unwrap().clone());
    Setup::new()
        .upstream("up", &Script::modern(&["a"]))
        .rule(whole)
        .config(config)
        .start()
}

fn by_role() -> World {
    world(&json!({}), &json!({ "requiredRoles": ["runner"] }))
}

/// Ada's token, with the role and without.
fn tokens(world: &World) -> (String, String) {
    let runner = world.token(&json!({ "sub": "ada", "roles": ["runner"] }));
    (runner, world.token(&json!({ "sub": "ada" })))
}

fn made(world: &World, token: &str) -> String {
    handle(&world.call(tool("up__a").with_tasks().token(token)))
}

fn update(handle: &str) -> Ask {
    modern(
        "tasks/update",
        json!({ "taskId": handle, "inputResponses": {} }),
    )
    .with_tasks()
}

#[track_caller]
fn denied(told: &Told) {
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (403, "denied"),
        "{told:?}"
    );
    assert!(!told.text.contains(RESULT));
}

#[test]
fn who_may_no_longer_call_the_tool_reads_no_result_and_may_call_its_task_off() {
    let world = by_role();
    let (runner, other) = tokens(&world);
    let (done, open) = (made(&world, &runner), made(&world, &runner));
    for handle in [&done, &open] {
        denied(&world.call(get(handle).token(&other)));
        denied(&world.call(update(handle).token(&other)));
    }
    let told = world.call(cancel(&open).token(&other));
    assert_eq!(
        (told.status.as_u16(), &told.result()["resultType"]),
        (200, &json!("complete"))
    );
    world.deliver();
    denied(&world.call(get(&done).token(&other)));
    let told = world.call(get(&done).token(&runner));
    assert_eq!(told.result()["status"], "completed");
    assert!(told.text.contains(RESULT));
    assert_eq!(
        world.call(get(&open).token(&runner)).result()["status"],
        "cancelled"
    );
}

#[test]
fn another_principal_is_told_the_same_whatever_it_may_call() {
    let world = by_role();
    let (runner, _) = tokens(&world);
    let task = made(&world, &runner);
    let told = |claims: Value| {
        let token = world.token(&claims);
        let of = |handle: &str| world.call(get(handle).token(&token)).text;
        (of(&task), of("AQIDBAUGBwg"))
    };
    for claims in [
        json!({ "sub": "ben", "roles": ["runner"] }),
        json!({ "sub": "ben" }),
    ] {
        let (theirs, invented) = told(claims);
        assert_eq!(theirs, invented);
    }
}

#[test]
fn a_scope_that_is_missing_is_asked_for_when_the_result_is_read() {
    let world = world(&json!({}), &json!({ "requiredScopes": ["jobs:run"] }));
    let token = |scope: &str| world.token(&json!({ "sub": "ada", "scope": scope }));
    let task = made(&world, &token("jobs:run"));
    world.deliver();
    let told = world.call(get(&task).token(&token("jobs:see")));
    assert_eq!(told.status, 403);
    let challenge = told.header("www-authenticate");
    assert!(
        challenge.starts_with(r#"Bearer error="insufficient_scope", scope="jobs:run""#),
        "{challenge}"
    );
    assert_eq!(world.call(get(&task).token(&token("jobs:run"))).status, 200);
}

#[test]
fn a_published_rule_holds_for_tasks_that_were_there_before() {
    let (script, rule) = (
        Script::modern(&["a"]),
        json!({ "name": "up__a", "execution": "task" }),
    );
    let setup = |members: &Value| {
        Setup::new()
            .upstream("up", &script)
            .rule(rule.clone())
            .config(members)
    };
    let world = setup(&json!({})).start();
    let task = handle(&create(&world));
    world.deliver();
    assert_eq!(world.call(get(&task)).status, 200);
    let deny = json!({ "name": "nobody", "effect": "deny", "tools": ["up__a"] });
    let denying = setup(&json!({ "policy": { "rules": [deny] } })).snapshot();
    world.sim.kv.publish("config", denying);
    denied(&world.isolate().call(get(&task)));
    assert_eq!(world.isolate().call(cancel(&task)).status, 200);
}

#[test]
fn what_an_upstream_said_is_not_told_once_it_is_no_longer_configured() {
    let (up, other) = (Script::modern(&["a"]), Script::modern(&["b"]));
    let setup = || Setup::new().upstream("other", &other);
    let rule = json!({ "name": "up__a", "execution": "task" });
    let world = setup().upstream("up", &up).rule(rule).start();
    let task = handle(&create(&world));
    world.deliver();
    assert!(world.call(get(&task)).text.contains(RESULT));
    world.sim.kv.publish("config", setup().snapshot());
    let told = world.isolate().call(get(&task));
    assert_eq!(told.refusal(), (200, -32602));
    assert!(!told.text.contains(RESULT));
}

#[test]
fn nobody_listens_to_what_they_may_not_read() {
    let world = by_role();
    let (runner, other) = tokens(&world);
    let task = made(&world, &runner);
    let ask = |token: &str| {
        listen(json!({ "taskIds": [task] }))
            .with_tasks()
            .token(token)
    };
    assert_eq!(
        Listener::open(&world, ask(&runner)).acknowledged(),
        json!({ "taskIds": [task] })
    );
    assert_eq!(
        Listener::open(&world, ask(&other)).acknowledged(),
        json!({})
    );
}

#[test]
fn the_same_holds_for_the_tasks_of_2025_11_25() {
    let world = by_role();
    let (runner, other) = tokens(&world);
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
    let opened = world.call(legacy("2025-11-25", "initialize", hello).token(&runner));
    let session = opened.header("mcp-session-id").to_owned();
    let ask = |method: &str, params: Value, token: &str| {
        let ask = legacy("2025-11-25", method, params).header("mcp-session-id", &session);
        world.call(ask.token(token))
    };
    let task = |token: &str| {
        let made = ask(
            "tools/call",
            json!({ "name": "up__a", "arguments": {}, "task": {} }),
            token,
        );
        made.result()["task"]["taskId"].as_str().unwrap().to_owned()
    };
    let (done, open) = (task(&runner), task(&runner));
    let cancelled = ask("tasks/cancel", json!({ "taskId": open }), &other);
    assert_eq!(cancelled.result()["status"], "cancelled");
    world.deliver();
    for method in ["tasks/get", "tasks/result"] {
        denied(&ask(method, json!({ "taskId": done }), &other));
        let told = ask(method, json!({ "taskId": done }), &runner);
        assert_eq!(told.status, 200, "{method}: {told:?}");
    }
    let listed = |token: &str| {
        ask("tasks/list", json!({}), token).result()["tasks"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!((listed(&runner), listed(&other)), (2, 0));
}
