//! How many tasks a tenant may have, and how often a principal may ask about its own.

use std::time::Duration;

use serde_json::json;
use tidegate_gateway::Consumed;
use tidegate_simulator::Fault;

use crate::tasks::{cancel, get, handle};
use crate::world::issuer::ISSUER;
use crate::world::{Ask, Script, Setup, World, legacy, modern, tool};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_principals_of_a_tenant_share_its_limit() {
    let world = limited(2);
    let first = world.call(ask(&world, "ada", "north"));
    assert_eq!(world.call(ask(&world, "ben", "north")).status, 200);
    let refused = world.call(ask(&world, "eve", "north"));
    assert_eq!(refused.refusal(), (429, -31002));
    assert_eq!(refused.error()["data"]["limit"], "tasks.maxOpenPerTenant");
    assert_eq!(refused.header("retry-after"), "5");
    assert_eq!(world.call(ask(&world, "eve", "south")).status, 200);
    let ada = token(&world, "ada", "north");
    world.call(cancel(&handle(&first)).token(&ada));
    world.settle();
    assert_eq!(world.call(ask(&world, "eve", "north")).status, 200);
}

#[test]
fn tasks_of_a_while_ago_count_until_they_end_or_expire() {
    let world = limited(2);
    world.call(ask(&world, "ada", "north"));
    world.sim.clock.advance(20 * MINUTE);
    world.call(ask(&world, "ada", "north"));
    world.sim.clock.advance(20 * MINUTE);
    assert_eq!(world.call(ask(&world, "ada", "north")).status, 429);
    // The hour of the first, and the stretch it was counted in, are over.
    world.sim.clock.advance(28 * MINUTE);
    assert_eq!(world.call(ask(&world, "ada", "north")).status, 200);
}

#[test]
fn a_task_that_ends_anywhere_makes_room() {
    let world = limited(1);
    world.sim.keeper.missing(true);
    for _ in 0..5 {
        assert_eq!(world.call(ask(&world, "ada", "north")).status, 200);
        assert_eq!(world.deliver(), [Consumed::Done]);
        world.settle();
    }
}

#[test]
fn what_was_not_counted_is_forgotten_with_its_time() {
    let world = limited(1);
    let made = world.call(ask(&world, "ada", "north"));
    let ada = token(&world, "ada", "north");
    world.sim.atomic.faults.arrange("tenant/", 1, Fault::Fail);
    world.call(cancel(&handle(&made)).token(&ada));
    world.settle();
    assert_eq!(world.call(ask(&world, "ada", "north")).status, 429);
    world.sim.clock.advance(68 * MINUTE);
    assert_eq!(world.call(ask(&world, "ada", "north")).status, 200);
}

#[test]
fn an_end_whose_answer_was_lost_makes_room() {
    let world = limited(1);
    let made = world.call(ask(&world, "ada", "north"));
    let ada = token(&world, "ada", "north");
    let faults = &world.sim.atomic.faults;
    faults.arrange("task/", 1, Fault::FailButPersist);
    assert_eq!(world.call(cancel(&handle(&made)).token(&ada)).status, 200);
    world.settle();
    assert_eq!(faults.pending(), 0);
    assert_eq!(world.call(ask(&world, "ada", "north")).status, 200);
    assert_eq!(world.call(ask(&world, "ada", "north")).status, 429);
}

#[test]
fn a_task_that_had_ended_before_it_was_made_makes_no_room() {
    const VERSION: &str = "2025-11-25";
    let tasks = json!({ "maxOpenPerTenant": 1 });
    let world = tenants_with("auto", &tasks);
    let ada = token(&world, "ada", "north");
    let hello = json!({ "protocolVersion": VERSION, "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
    let opened = world.call(legacy(VERSION, "initialize", hello).token(&ada));
    let session = opened.header("mcp-session-id").to_owned();
    let call = |arguments| {
        let params = json!({ "name": "up__a", "arguments": arguments, "task": {} });
        let ask = legacy(VERSION, "tools/call", params).header("mcp-session-id", &session);
        world.call(ask.token(&ada))
    };
    assert!(call(json!({})).result()["task"].is_object());
    for _ in 0..3 {
        // Refused by the tool's schema, which its client hears where it waits for the result.
        assert!(call(json!({ "q": 5 })).result()["task"].is_object());
        world.settle();
        assert_eq!(call(json!({})).code(), -31002);
    }
    assert_eq!(world.count("up", "tools/call"), 0);
}

#[test]
fn a_refused_task_is_not_counted() {
    let world = limited(1);
    let made = world.call(ask(&world, "ada", "north"));
    for _ in 0..5 {
        assert_eq!(world.call(ask(&world, "ben", "north")).status, 429);
    }
    let ada = token(&world, "ada", "north");
    world.call(cancel(&handle(&made)).token(&ada));
    world.settle();
    assert_eq!(world.call(ask(&world, "ben", "north")).status, 200);
}

#[test]
fn without_a_limit_nothing_is_counted() {
    let world = tenants(&json!({}));
    world.call(ask(&world, "ada", "north"));
    world.deliver();
    world.settle();
    assert_eq!(world.sim.atomic.operations("tenant/"), 0);
}

#[test]
fn asking_too_often_is_refused_with_the_time_to_come_back() {
    let world = tenants(&json!({ "pollLimit": { "requests": 3 } }));
    let ada = token(&world, "ada", "north");
    let made = handle(&world.call(ask(&world, "ada", "north")));
    let update = modern(
        "tasks/update",
        json!({ "taskId": made, "inputResponses": {} }),
    );
    let asks = [get(&made), update.with_tasks(), get(&made)];
    for ask in asks {
        assert_eq!(world.call(ask.token(&ada)).status, 200);
    }
    for ask in [get(&made), cancel(&made)] {
        let told = world.call(ask.token(&ada));
        assert_eq!(told.refusal(), (429, -31002));
        assert_eq!(told.error()["data"]["limit"], "tasks.pollLimit");
        assert_ne!(told.header("retry-after"), "");
    }
    let told = world.call(get("unknown").by("somebody else"));
    assert_eq!(told.code(), -32602, "whose limit is their own");
    world.sim.clock.advance(2 * MINUTE);
    assert_eq!(world.call(get(&made).token(&ada)).status, 200);
}

fn limited(max: u32) -> World {
    tenants(&json!({ "maxOpenPerTenant": max }))
}

fn tenants(tasks: &serde_json::Value) -> World {
    tenants_with("task", tasks)
}

fn tenants_with(execution: &str, tasks: &serde_json::Value) -> World {
    let issuer =
        json!({ "issuer": ISSUER, "jwksUri": format!("{ISSUER}/keys"), "tenantClaim": "tid" });
    Setup::new()
        .upstream("up", &Script::modern(&["a"]))
        .rule(json!({ "name": "up__a", "execution": execution }))
        .config(&json!({ "authentication": { "issuers": [issuer] }, "tasks": tasks }))
        .start()
}

fn token(world: &World, subject: &str, tenant: &str) -> String {
    world.token(&json!({ "sub": subject, "tid": tenant, "exp": 4_000_000_000_u64 }))
}

fn ask(world: &World, subject: &str, tenant: &str) -> Ask {
    tool("up__a")
        .with_tasks()
        .token(&token(world, subject, tenant))
}
