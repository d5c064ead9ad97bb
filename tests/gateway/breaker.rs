//! The circuit of an upstream: opens, refuses, probes once, recovers.

use std::time::Duration;

use serde_json::json;

use crate::world::{Answer, Said, Script, Setup, Step, World, complete, modern, tool};

const RESET: Duration = Duration::from_secs(10);

#[test]
fn consecutive_failures_open_it_and_then_nobody_is_asked() {
    let (world, script) = tripped();
    script.on("tools/call", |_| panic!("asked though the circuit is open"));
    let told = world.tool("up__a");
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (503, "upstream_unavailable")
    );
    assert_eq!(told.header("retry-after"), "10");
    assert_eq!(world.events("circuit_opened").len(), 1);
    world.sim.clock.advance(RESET - Duration::from_millis(1));
    assert_eq!(world.tool("up__a").header("retry-after"), "1");
}

#[test]
fn after_its_time_one_probe_decides() {
    let (world, script) = tripped();
    world.sim.clock.advance(RESET);
    let before = world.count("up", "tools/call");
    assert_eq!(world.tool("up__a").status, 502, "the probe fails");
    assert_eq!(
        world.tool("up__a").status,
        503,
        "and the circuit is open again"
    );
    assert_eq!(world.count("up", "tools/call") - before, 1);
    script.off("tools/call");
    world.sim.clock.advance(RESET);
    assert_eq!(world.tool("up__a").status, 200, "the probe succeeds");
    assert_eq!(world.tool("up__a").status, 200);
}

#[test]
fn while_a_probe_is_out_others_wait_for_its_outcome() {
    let (world, script) = tripped();
    script.on("tools/call", |_| {
        Said::After(
            Duration::from_millis(500),
            Box::new(Said::Result(complete("back"))),
        )
    });
    world.sim.clock.advance(RESET);
    let mut probe = world.start(tool("up__a"));
    assert!(probe.step().is_none());
    assert_eq!(world.tool("up__a").status, 503);
    assert_eq!(probe.finish().unwrap().status(), 200);
    assert_eq!(
        world
            .call(tool("up__a").header("accept", "application/json"))
            .status,
        200
    );
}

#[test]
fn a_probe_whose_client_left_does_not_keep_it_shut() {
    let (world, script) = tripped();
    script.on("tools/call", |_| {
        Said::After(
            Duration::from_secs(4),
            Box::new(Said::Result(complete("back"))),
        )
    });
    world.sim.clock.advance(RESET);
    let mut probe = world.start(tool("up__a"));
    assert!(probe.step().is_none());
    drop(probe);
    script.off("tools/call");
    world.sim.clock.advance(RESET);
    assert_eq!(world.tool("up__a").status, 200);
}

#[test]
fn lists_probe_and_recover_it_too() {
    let (world, script) = tripped();
    script.off("tools/call");
    assert_eq!(world.tool("up__a").status, 503);
    world.sim.clock.advance(RESET);
    assert_eq!(world.list("tools/list"), ["up__a"]);
    assert_eq!(world.tool("up__a").status, 200);
}

#[test]
fn discovery_takes_nobodys_probe() {
    let (world, script) = tripped();
    script.off("tools/call");
    world.sim.clock.advance(RESET);
    for _ in 0..3 {
        world.call(modern("server/discover", json!({})));
    }
    assert_eq!(world.tool("up__a").status, 200);
}

#[test]
fn one_upstreams_circuit_is_not_anothers() {
    let broken = Script::modern(&["a"]);
    broken.on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
    let world = Setup::new()
        .upstream("up", &broken)
        .upstream("other", &Script::modern(&["b"]))
        .config(&json!({ "circuitBreaker": { "failureThreshold": 3, "resetIntervalMs": 10_000 } }))
        .start();
    for _ in 0..4 {
        world.tool("up__a");
    }
    assert_eq!(world.tool("up__a").status, 503);
    assert_eq!(world.tool("other__b").status, 200);
    let told = world.call(modern("tools/list", json!({})));
    assert_eq!(
        told.names(),
        ["other__b"],
        "an open circuit leaves its upstream out"
    );
}

#[test]
fn only_failures_of_the_upstream_itself_count() {
    let answers: [(&str, Answer); 6] = [
        ("an error", |_| Said::Error(-32602)),
        ("an internal error", |_| Said::Error(-32603)),
        ("a quarrel over headers", |_| Said::Error(-32020)),
        ("a tool error", |_| {
            Said::Result(json!({ "resultType": "complete", "content": [], "isError": true }))
        }),
        ("401", |_| Said::Raw(401, "text/plain", Vec::new())),
        ("a good answer", |_| Said::Result(complete("x"))),
    ];
    for (what, answer) in answers {
        let (world, script) = world();
        script.on("tools/call", answer);
        for _ in 0..10 {
            world.tool("up__a");
        }
        assert_eq!(world.count("up", "tools/call"), 10, "{what}");
    }
}

#[test]
fn every_failure_of_the_upstream_counts() {
    let answers: [(&str, Answer); 5] = [
        ("500", |_| Said::Raw(500, "text/plain", Vec::new())),
        ("HTML", |_| Said::Raw(200, "text/html", b"<html>".to_vec())),
        ("a reset", |_| {
            Said::NoAnswer(tidegate_gateway::platform::HttpError::MaybeSent(
                "reset".to_owned(),
            ))
        }),
        ("silence", |_| {
            Said::After(Duration::from_secs(3600), Box::new(Said::Error(1)))
        }),
        ("a stream that breaks off", |heard| {
            Said::Stream(vec![Step::Send(heard.progress(1)), Step::Reset])
        }),
    ];
    for (what, answer) in answers {
        let (world, script) = world();
        script.on("tools/call", answer);
        for _ in 0..6 {
            world.call(tool("up__a").meta("progressToken", json!(1)));
        }
        assert_eq!(world.count("up", "tools/call"), 3, "{what}");
    }
}

#[test]
fn a_success_in_between_forgets_the_failures() {
    let (world, script) = world();
    for round in 0..12 {
        if round % 3 == 2 {
            script.off("tools/call");
        } else {
            script.on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
        }
        assert_ne!(world.tool("up__a").status, 503, "round {round}");
    }
}

fn world() -> (World, Script) {
    let script = Script::modern(&["a"]);
    let world = Setup::new()
        .upstream_with("up", &script, &json!({ "timeoutMs": 1000 }))
        .config(&json!({ "circuitBreaker": { "failureThreshold": 3, "resetIntervalMs": 10_000 } }))
        .start();
    assert_eq!(world.list("tools/list"), ["up__a"]);
    (world, script)
}

/// An upstream that answers nonsense, with its circuit just opened.
fn tripped() -> (World, Script) {
    let (world, script) = world();
    script.on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
    for _ in 0..3 {
        assert_eq!(world.tool("up__a").status, 502);
    }
    (world, script)
}
