//! Circuits that go by the share of failures, of tools, and shared between isolates.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Answer, Ask, Said, Script, Setup, World, tool};

const BAD: Answer = |_| Said::Raw(500, "text/plain", Vec::new());

#[test]
fn a_share_of_failures_opens_a_circuit_that_consecutive_ones_would_not() {
    let (world, script) = world(&json!({
        "failureThreshold": 100,
        "failureRate": { "percent": 40, "windowMs": 10_000, "minimumCalls": 10 },
    }));
    // Two calls came before these: the first one, and the list it wanted.
    for n in 0..8 {
        match n % 2 {
            0 => script.off("tools/call"),
            _ => script.on("tools/call", BAD),
        };
        assert_ne!(world.tool("up__a").status, 503, "call {n}");
    }
    assert_eq!(world.tool("up__a").status, 503);
    assert_eq!(world.events("circuit_opened").len(), 1);
}

#[test]
fn failures_that_are_long_over_count_no_more() {
    let (world, script) = world(&json!({
        "failureThreshold": 100,
        "failureRate": { "percent": 50, "windowMs": 10_000, "minimumCalls": 10 },
    }));
    script.on("tools/call", BAD);
    for n in 0..40 {
        assert_eq!(world.tool("up__a").status, 502, "call {n}");
        world.sim.clock.advance(Duration::from_secs(2));
    }
}

#[test]
fn a_tool_that_fails_is_left_alone_and_its_upstreams_others_are_not() {
    let (world, script) = world(&json!({ "failureThreshold": 3, "perTool": true }));
    script.on("tools/call", |heard| match heard.params()["name"] == "a" {
        true => BAD(heard),
        false => Said::Result(crate::world::complete("fine")),
    });
    for _ in 0..3 {
        assert_eq!(world.tool("up__a").status, 502);
    }
    assert_eq!(world.tool("up__a").status, 503);
    assert_eq!(world.events("circuit_opened")[0]["tool"], "a");
    for _ in 0..10 {
        assert_eq!(world.tool("up__b").status, 200);
    }
    assert_eq!(world.list("tools/list"), ["up__a", "up__b"]);
    script.off("tools/call");
    world.sim.clock.advance(Duration::from_secs(30));
    assert_eq!(world.tool("up__a").status, 200, "its probe decides");
}

#[test]
fn a_tools_probe_ends_also_with_an_error_of_the_protocol() {
    let (world, script) = world(&json!({ "failureThreshold": 3, "perTool": true }));
    script.on("tools/call", BAD);
    for _ in 0..3 {
        world.tool("up__a");
    }
    script.on("tools/call", |_| Said::Error(-32602));
    world.sim.clock.advance(Duration::from_secs(30));
    assert_eq!(world.tool("up__a").status, 200, "it answers");
    assert_eq!(world.tool("up__a").status, 200, "the circuit is closed");
}

#[test]
fn failed_connections_count_against_the_upstream_whichever_tool_is_called() {
    let (world, _) = world(&json!({ "failureThreshold": 4, "perTool": true }));
    world.server("up").down.set(true);
    for name in ["up__a", "up__b", "up__a", "up__b"] {
        assert_eq!(world.tool(name).status, 502);
    }
    assert_eq!(world.tool("up__a").status, 503);
    assert_eq!(world.events("circuit_opened")[0]["tool"], Value::Null);
}

#[test]
fn an_isolate_that_met_no_failure_hears_of_a_trip() {
    let (world, script) = shared();
    let other = world.isolate();
    assert_eq!(other.tool("up__a").status, 200);
    world.sim.clock.advance(Duration::from_secs(1));
    script.on("tools/call", BAD);
    for _ in 0..3 {
        assert_eq!(world.tool("up__a").status, 502);
    }
    world.settle();
    assert_eq!(world.sim.kv.writes("circuit/"), 1);
    // A call of the other's, after which it looks.
    other.sim.clock.advance(Duration::from_secs(10));
    assert_eq!(other.tool("up__a").status, 502);
    other.settle();
    let asked = other.count("up", "tools/call");
    let told = other.tool("up__a");
    assert_eq!(
        (told.status.as_u16(), told.header("retry-after")),
        (503, "20")
    );
    assert_eq!(other.count("up", "tools/call"), asked);
    assert_eq!(other.events("circuit_opened_elsewhere").len(), 1);
    // It is over when it is over at the one that told of it.
    script.off("tools/call");
    other.sim.clock.advance(Duration::from_secs(20));
    assert_eq!(other.tool("up__a").status, 200);
    other.settle();
    assert_eq!(other.tool("up__a").status, 200);
}

#[test]
fn looking_costs_a_read_in_ten_seconds_however_many_calls_there_are() {
    let (world, _) = shared();
    let before = world.sim.kv.reads("circuit/");
    for _ in 0..200 {
        world.tool("up__a");
        world.settle();
        world.sim.clock.advance(Duration::from_millis(500));
    }
    let reads = world.sim.kv.reads("circuit/") - before;
    assert!((9..=10).contains(&reads), "{reads} reads in 100 s");
    assert_eq!(world.sim.kv.writes("circuit/"), 0);
}

#[test]
fn isolates_that_trip_together_write_once() {
    let (world, script) = shared();
    let isolates: Vec<World> = (0..20).map(|_| world.isolate()).collect();
    script.on("tools/call", BAD);
    for _ in 0..3 {
        for isolate in &isolates {
            isolate.tool("up__a");
        }
    }
    for isolate in &isolates {
        assert_eq!(isolate.events("circuit_opened").len(), 1);
        isolate.settle();
    }
    assert_eq!(world.sim.kv.writes("circuit/"), 1);
    assert!(world.sim.kv.too_fast().is_empty());
}

#[test]
fn without_its_stores_each_isolate_goes_by_what_it_sees() {
    let (world, script) = shared();
    script.on("tools/call", BAD);
    world.sim.atomic.faults.outage(true);
    for _ in 0..3 {
        assert_eq!(world.tool("up__a").status, 502);
    }
    world.settle();
    assert_eq!(world.tool("up__a").status, 503);
    assert_eq!(world.sim.kv.writes("circuit/"), 0);
}

#[test]
fn where_nothing_is_shared_nothing_is_read_or_written() {
    let (world, script) = world(&json!({ "failureThreshold": 3 }));
    script.on("tools/call", BAD);
    for _ in 0..10 {
        world.tool("up__a");
        world.settle();
        world.sim.clock.advance(Duration::from_secs(20));
    }
    let operations = world.sim.kv.reads("circuit/")
        + world.sim.kv.writes("circuit/")
        + world.sim.atomic.operations("turn/");
    assert_eq!(operations, 0);
}

#[test]
fn health_shows_each_circuit() {
    let (world, script) = world(&json!({ "failureThreshold": 3 }));
    script.on("tools/call", BAD);
    let circuit = || {
        let told = world.ask(Ask::http("GET", "/health/deep"));
        told.json()["upstreams"][0]["circuit"].clone()
    };
    assert_eq!(circuit(), "closed");
    for _ in 0..3 {
        world.tool("up__a");
    }
    world.sim.clock.advance(Duration::from_secs(10));
    assert_eq!(circuit(), "open");
    world.sim.clock.advance(Duration::from_secs(20));
    assert_eq!(circuit(), "half-open");
}

fn shared() -> (World, Script) {
    world(&json!({ "failureThreshold": 3, "shared": true }))
}

fn world(breaker: &Value) -> (World, Script) {
    let script = Script::modern(&["a", "b"]);
    let world = Setup::new()
        .upstream("up", &script)
        .config(&json!({ "circuitBreaker": breaker }))
        .start();
    assert_eq!(world.call(tool("up__a")).status, 200);
    (world, script)
}
