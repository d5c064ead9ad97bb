//! How long a call may take in all, and how much is under way at once.

use std::time::Duration;

use futures_util::future::join;
use serde_json::{Value, json};
use tidegate_gateway::platform::Clock;

use crate::tasks_passed::Minting;
use crate::world::{Answer, Said, Script, Setup, Step, World, complete, legacy, modern, tool};

/// Answers after three seconds.
const SLOW: Answer = |_| {
    let answer = Said::Result(complete("at last"));
    Said::After(Duration::from_secs(3), Box::new(answer))
};

#[test]
fn a_call_takes_no_longer_than_the_total_whatever_its_upstream_may_take() {
    let (world, script) = world(&json!({}), &json!({ "requestTimeoutMs": 2_000 }));
    script.on("tools/call", SLOW);
    let started = world.sim.clock.now();
    let told = world.tool("up__a");
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (504, "upstream_timeout")
    );
    let took = world.sim.clock.now().since(started);
    assert_eq!(took, Duration::from_secs(2));
}

#[test]
fn what_was_asked_before_the_call_counts_in_its_total() {
    let (world, script) = world(&json!({}), &json!({ "requestTimeoutMs": 4_000 }));
    // The upstream is asked what it is, for its tools, and then called.
    world
        .server("up")
        .head_delay
        .set(Duration::from_millis(1_500));
    script.on("tools/call", SLOW);
    let started = world.sim.clock.now();
    assert_eq!(world.tool("up__a").status, 504);
    let took = world.sim.clock.now().since(started);
    assert_eq!(took, Duration::from_secs(4));
}

#[test]
fn a_tools_own_time_holds_within_the_total() {
    let script = Script::modern(&["a"]);
    script.on("tools/call", SLOW);
    let world = Setup::new()
        .upstream("up", &script)
        .rule(json!({ "name": "up__a", "timeoutMs": 1_000 }))
        .config(&json!({ "limits": { "requestTimeoutMs": 60_000 } }))
        .start();
    let started = world.sim.clock.now();
    assert_eq!(world.tool("up__a").status, 504);
    assert_eq!(world.sim.clock.now().since(started), Duration::from_secs(1));
}

#[test]
fn a_task_an_upstream_made_of_the_call_is_cancelled_when_the_total_is_over() {
    let minting = Minting::insisting();
    let world = Setup::new()
        .upstream("up", &minting.script)
        .config(&json!({ "limits": { "requestTimeoutMs": 4_000 } }))
        .start();
    let started = world.sim.clock.now();
    let call = legacy("2025-11-25", "tools/call", json!({ "name": "up__a" }));
    assert_eq!(world.call(call).result()["isError"], true);
    let took = world.sim.clock.now().since(started);
    assert!(took <= Duration::from_secs(5), "{took:?}");
    world.settle();
    assert_eq!(world.count("up", "tasks/cancel"), 1);
}

#[test]
fn a_list_has_what_came_within_the_total() {
    let (slow, quick) = (Script::modern(&["a"]), Script::modern(&["b"]));
    slow.on("tools/list", |_| {
        Said::After(Duration::from_secs(60), Box::new(Said::Error(1)))
    });
    let world = Setup::new()
        .upstream("slow", &slow)
        .upstream("quick", &quick)
        .config(&json!({ "limits": { "requestTimeoutMs": 2_000 } }))
        .start();
    let started = world.sim.clock.now();
    assert_eq!(world.list("tools/list"), ["quick__b"]);
    assert_eq!(world.sim.clock.now().since(started), Duration::from_secs(2));
}

#[test]
fn no_more_calls_are_under_way_than_the_bulkhead_holds() {
    let (world, script) = world(&json!({ "bulkhead": { "maxCalls": 2 } }), &json!({}));
    world.tool("up__a");
    script.on("tools/call", SLOW);
    let mut running: Vec<_> = (0..2).map(|_| world.start(tool("up__a"))).collect();
    for call in &mut running {
        assert!(call.step().is_none());
    }
    let asked = world.count("up", "tools/call");
    let told = world.tool("up__a");
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (503, "upstream_full")
    );
    assert_eq!(told.header("retry-after"), "1");
    assert_eq!(world.count("up", "tools/call"), asked, "it was not asked");
    assert_eq!(world.tool("other__b").status, 200, "others have their own");
    for call in running {
        assert_eq!(call.finish().unwrap().status(), 200);
    }
    assert_eq!(world.call(json_only()).status, 200);
}

#[test]
fn one_more_call_waits_for_its_turn_where_it_may() {
    let members = json!({ "bulkhead": { "maxCalls": 1, "waitMs": 5_000 } });
    let (world, script) = world(&members, &json!({}));
    world.tool("up__a");
    script.on("tools/call", SLOW);
    let started = world.sim.clock.now();
    let calls = join(world.answering(json_only()), world.answering(json_only()));
    let (first, second) = world.sim.run(calls);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    let took = world.sim.clock.now().since(started);
    let least = Duration::from_secs(6);
    assert!(
        took >= least && took <= least + Duration::from_millis(25),
        "{took:?}"
    );
}

#[test]
fn a_wait_that_was_in_vain_ends_in_time() {
    let members = json!({ "bulkhead": { "maxCalls": 1, "waitMs": 1_000 } });
    let (world, script) = world(&members, &json!({}));
    world.tool("up__a");
    script.on("tools/call", SLOW);
    let mut first = world.start(tool("up__a"));
    assert!(first.step().is_none());
    let started = world.sim.clock.now();
    assert_eq!(world.tool("up__a").reason(), "upstream_full");
    assert_eq!(world.sim.clock.now().since(started), Duration::from_secs(1));
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let (world, script) = world(&json!({ "bulkhead": { "maxCalls": 1 } }), &json!({}));
    world.tool("up__a");
    script.on("tools/call", |heard| {
        let steps = vec![
            Step::Send(heard.progress(1)),
            Step::Wait(Duration::from_secs(10)),
            Step::Send(heard.response(&complete("x"))),
        ];
        Said::Stream(steps)
    });
    let ask = || tool("up__a").meta("progressToken", json!(1));
    let response = world.start(ask()).finish().unwrap();
    assert_eq!(
        world.call(ask()).reason(),
        "upstream_full",
        "its stream goes on"
    );
    drop(response);
    assert_eq!(world.call(ask()).status, 200);
}

#[test]
fn a_full_bulkhead_opens_no_circuit() {
    let members = json!({ "bulkhead": { "maxCalls": 1 } });
    let (world, script) = world(&members, &json!({}));
    world.tool("up__a");
    script.on("tools/call", SLOW);
    let mut first = world.start(tool("up__a"));
    assert!(first.step().is_none());
    for _ in 0..20 {
        assert_eq!(world.tool("up__a").reason(), "upstream_full");
    }
    drop(first);
    script.off("tools/call");
    assert_eq!(world.tool("up__a").status, 200);
    assert_eq!(world.events("circuit_opened").len(), 0);
}

#[test]
fn an_upstreams_time_begins_when_its_call_has_a_place() {
    let members = json!({ "bulkhead": { "maxCalls": 1, "waitMs": 5_000 }, "timeoutMs": 4_000 });
    let (world, script) = world_with(&members, &json!({}), &json!({ "failureThreshold": 1 }));
    world.tool("up__a");
    script.on("tools/call", SLOW);
    let calls = join(world.answering(json_only()), world.answering(json_only()));
    let (first, second) = world.sim.run(calls);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    assert_eq!(world.events("circuit_opened").len(), 0);
}

#[test]
fn what_a_wait_took_of_a_calls_time_is_no_failure_of_its_upstream() {
    let members = json!({ "bulkhead": { "maxCalls": 1, "waitMs": 10_000 } });
    let scene = |total: u64| {
        let limits = json!({ "requestTimeoutMs": total });
        let (world, script) = world_with(&members, &limits, &json!({ "failureThreshold": 1 }));
        world.tool("up__a");
        script.on("tools/call", SLOW);
        world
    };
    // The second has two seconds left when the first has ended.
    let world = scene(5_000);
    let calls = join(world.answering(json_only()), world.answering(json_only()));
    let (first, second) = world.sim.run(calls);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 504));
    assert_eq!(world.events("circuit_opened").len(), 0);
    // And here none.
    let world = scene(2_000);
    let mut first = world.start(json_only());
    assert!(first.step().is_none());
    let asked = world.count("up", "tools/call");
    assert_eq!(world.call(json_only()).reason(), "upstream_full");
    assert_eq!(world.count("up", "tools/call"), asked);
}

#[test]
fn one_request_too_many_is_told_when_to_come_back() {
    let (world, script) = world(&json!({}), &json!({ "maxRequestsAtOnce": 2 }));
    script.on("tools/call", SLOW);
    let mut running: Vec<_> = (0..2).map(|_| world.start(tool("up__a"))).collect();
    for call in &mut running {
        assert!(call.step().is_none());
    }
    let told = world.ask(modern("tools/list", json!({})));
    assert_eq!((told.status.as_u16(), told.reason()), (503, "overloaded"));
    assert_eq!(told.header("retry-after"), "1");
    let error = &told.json()["error"];
    assert_eq!(error["data"]["retryAfterMs"], 1_000);
    assert!(error["message"].as_str().unwrap().contains("Retry-After"));
    assert_eq!(world.events("overloaded").len(), 1);
    for call in running {
        assert_eq!(call.finish().unwrap().status(), 200);
    }
    assert_eq!(world.list("tools/list").len(), 2);
}

#[test]
fn a_stream_counts_until_it_ends_and_a_lost_request_for_two_minutes() {
    let (world, script) = world(&json!({}), &json!({ "maxRequestsAtOnce": 1 }));
    script.on("tools/call", |heard| {
        Said::Stream(vec![
            Step::Send(heard.progress(1)),
            Step::Wait(Duration::from_secs(600)),
        ])
    });
    let ask = || tool("up__a").meta("progressToken", json!(1));
    let response = world.start(ask()).finish().unwrap();
    assert_eq!(
        world.ask(modern("tools/list", json!({}))).reason(),
        "overloaded"
    );
    world.sim.clock.advance(Duration::from_secs(120));
    assert_eq!(world.list("tools/list").len(), 2);
    drop(response);
}

#[test]
fn whoever_listens_does_not_count() {
    let (world, _) = world(&json!({}), &json!({ "maxRequestsAtOnce": 1 }));
    let filter = json!({ "notifications": { "toolsListChanged": true } });
    let ask = || modern("subscriptions/listen", filter.clone());
    let listening = [world.open(ask()), world.open(ask())];
    assert_eq!(world.list("tools/list").len(), 2);
    drop(listening);
}

#[test]
fn whoever_only_says_that_it_listens_counts() {
    let (world, script) = world(&json!({}), &json!({ "maxRequestsAtOnce": 1 }));
    script.on("tools/call", SLOW);
    let mut running = world.start(tool("up__a"));
    assert!(running.step().is_none());
    let params = json!({ "name": "up__a", "arguments": {} });
    for ask in [legacy("2025-06-18", "tools/call", params), tool("up__a")] {
        let told = world.ask(ask.header("mcp-method", "subscriptions/listen"));
        assert_eq!(told.reason(), "overloaded");
    }
}

/// A call whose client takes no stream.
fn json_only() -> crate::world::Ask {
    tool("up__a").header("accept", "application/json")
}

fn world(members: &Value, limits: &Value) -> (World, Script) {
    world_with(members, limits, &json!({}))
}

fn world_with(members: &Value, limits: &Value, breaker: &Value) -> (World, Script) {
    let script = Script::modern(&["a"]);
    let world = Setup::new()
        .upstream_with("up", &script, members)
        .upstream("other", &Script::modern(&["b"]))
        .config(&json!({ "limits": limits, "circuitBreaker": breaker }))
        .start();
    (world, script)
}
