//! Lists while upstreams are away: the others' entries stand, and nobody waits too long.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::platform::Clock;

use crate::world::{Said, Script, Setup, World, modern};

const UNAVAILABLE: &str = "io.tidegate/unavailableUpstreams";

#[test]
fn an_upstream_with_endless_slow_pages_delays_the_others_by_its_own_time_alone() {
    let (world, slow) = world();
    slow.on("tools/list", |heard| {
        let mut page = heard.response(&json!({ "resultType": "complete", "tools": [] }));
        page["result"]["nextCursor"] = json!("more");
        let page = Said::Result(page["result"].clone());
        Said::After(Duration::from_secs(2), Box::new(page))
    });
    let (told, took) = listed(&world);
    assert_eq!(told, (vec!["quick__b".to_owned()], json!(["slow"])));
    assert_eq!(took, Duration::from_secs(5));
}

#[test]
fn finding_out_what_an_upstream_is_counts_in_its_time() {
    let (world, _) = world();
    world.server("slow").head_delay.set(Duration::from_secs(3));
    let (told, took) = listed(&world);
    assert_eq!(told, (vec!["quick__b".to_owned()], json!(["slow"])));
    assert_eq!(took, Duration::from_secs(5));
}

#[test]
fn with_its_circuit_open_an_upstream_delays_nobody() {
    let (world, _) = world();
    world
        .server("slow")
        .head_delay
        .set(Duration::from_secs(3_600));
    for _ in 0..3 {
        listed(&world);
    }
    let (told, took) = listed(&world);
    assert_eq!(told, (vec!["quick__b".to_owned()], json!(["slow"])));
    assert_eq!(took, Duration::ZERO);
    world.server("slow").head_delay.set(Duration::ZERO);
    world.sim.clock.advance(Duration::from_secs(30));
    let (told, _) = listed(&world);
    assert_eq!(told.0, ["slow__a", "quick__b"]);
    assert_eq!(told.1, Value::Null);
}

#[test]
fn an_upstream_that_is_busy_or_broken_leaves_the_others_standing() {
    let (world, slow) = world();
    for failure in [
        || Said::Later(503, "30"),
        || Said::Later(429, "30"),
        || Said::Raw(500, "text/plain", Vec::new()),
    ] {
        slow.on("tools/list", move |_| failure());
        let (told, _) = listed(&world);
        assert_eq!(told, (vec!["quick__b".to_owned()], json!(["slow"])));
    }
}

/// What is listed and who is missing, and how long that took.
fn listed(world: &World) -> ((Vec<String>, Value), Duration) {
    let started = world.sim.clock.now();
    let ask = modern("tools/list", json!({})).header("accept", "application/json");
    let told = world.call(ask);
    let took = world.sim.clock.now().since(started);
    let missing = told.result()["_meta"][UNAVAILABLE].clone();
    ((told.names(), missing), took)
}

fn world() -> (World, Script) {
    let slow = Script::modern(&["a"]);
    let world = Setup::new()
        .upstream_with("slow", &slow, &json!({ "timeoutMs": 5_000 }))
        .upstream("quick", &Script::modern(&["b"]))
        .config(&json!({ "circuitBreaker": { "failureThreshold": 3 } }))
        .start();
    (world, slow)
}
