//! Probes: upstreams really called, by operators alone, and never more often than stated.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_gateway::platform::Clock;

use crate::world::{Ask, Said, Script, Setup, Told, World, complete};

const OPERATOR: &str = "an operator's key, long enough to be one";
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_probe_tells_well_from_slow_from_ill() {
    let failing = json!({ "resultType": "complete", "content": [], "isError": true });
    let slow = |by| move |_: &_| Said::After(by, Box::new(Said::Result(complete("pong"))));
    type Habit = Box<dyn Fn(&crate::world::Heard) -> Said>;
    let cases: Vec<(Habit, &str, Option<&str>, u16)> = vec![
        (Box::new(slow(Duration::ZERO)), "healthy", None, 200),
        (Box::new(slow(SECOND * 2)), "degraded", Some("slow"), 200),
        (
            Box::new(slow(SECOND * 9)),
            "unhealthy",
            Some("upstream_timeout"),
            503,
        ),
        (
            Box::new(move |_| Said::Result(failing.clone())),
            "unhealthy",
            Some("tool_error"),
            503,
        ),
        (
            Box::new(|_| Said::Error(-32603)),
            "unhealthy",
            Some("protocol_error"),
            503,
        ),
        (
            Box::new(|_| Said::Raw(200, "text/plain", b"pong".to_vec())),
            "unhealthy",
            Some("upstream_invalid"),
            503,
        ),
    ];
    for (habit, status, reason, code) in cases {
        let script = Script::modern(&["ping"]);
        script.on("tools/call", habit);
        let world = probed(&script);
        let told = deep(&world, OPERATOR);
        let upstream = &told.json()["upstreams"][0];
        assert_eq!(upstream["status"], status, "{told:?}");
        assert_eq!(upstream.get("reason").and_then(Value::as_str), reason);
        assert_eq!(upstream["tool"], "ping");
        assert_eq!(
            (told.status.as_u16(), &told.json()["status"]),
            (code, &json!(status))
        );
    }
}

#[test]
fn the_tool_is_called_with_what_the_configuration_says() {
    let world = probed(&Script::modern(&["ping"]));
    deep(&world, OPERATOR);
    let sent = world.bodies("up", "tools/call").pop().unwrap();
    assert_eq!(sent["params"]["arguments"], json!({ "q": "are you well?" }));
}

#[test]
fn one_that_is_ill_among_others_degrades_the_whole() {
    let ill = Script::modern(&["ping"]);
    ill.on("tools/call", |_| Said::Error(-32603));
    let world = Setup::new()
        .upstream_with("up", &ill, &probe())
        .upstream("two", &Script::modern(&["a"]))
        .secret("TIDEGATE_ADMIN_TOKEN", OPERATOR)
        .start();
    let told = deep(&world, OPERATOR);
    assert_eq!(
        (told.status.as_u16(), &told.json()["status"]),
        (200, &json!("degraded"))
    );
    assert_eq!(told.json()["healthyUpstreams"], 1);
    let names: Vec<&Value> = told.json()["upstreams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|upstream| &upstream["name"])
        .collect();
    assert_eq!(names, ["up", "two"], "in configured order");
}

#[test]
fn only_operators_have_tools_called_and_what_came_of_it_is_told_to_all() {
    let script = Script::modern(&["ping"]);
    script.on("tools/call", |_| Said::Error(-32603));
    let world = probed(&script);
    let client = world.token(&json!({}));
    for _ in 0..2 {
        assert_eq!(deep(&world, &client).json()["status"], "healthy");
        let told = world.ask(Ask::http("GET", "/health/deep").anonymous());
        assert_eq!(told.json()["status"], "healthy");
    }
    for wrong in [&OPERATOR[1..], "wrong"] {
        assert!(deep(&world, wrong).json().get("upstreams").is_none());
    }
    assert_eq!(world.count("up", "tools/call"), 0);
    assert_eq!(deep(&world, OPERATOR).json()["status"], "unhealthy");
    assert_eq!(deep(&world, &client).json()["status"], "unhealthy");
    let told = world.ask(Ask::http("GET", "/health/deep").anonymous());
    assert_eq!(told.status, 503);
    assert!(told.json().get("upstreams").is_none());
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn however_many_ask_at_once_the_upstream_is_called_once() {
    let script = Script::modern(&["ping"]);
    script.on("tools/call", |_| {
        Said::After(SECOND, Box::new(Said::Result(complete("pong"))))
    });
    let world = probed(&script);
    let asks = (0..20).map(|_| {
        let ask = Ask::http("GET", "/health/deep").token(OPERATOR);
        world.answering(ask)
    });
    let told: Vec<Told> = world.sim.run(join_all(asks));
    assert!(told.iter().all(|told| told.status == 200));
    assert_eq!(world.count("up", "tools/call"), 1);
    world.sim.clock.advance(SECOND * 8);
    deep(&world, OPERATOR);
    assert_eq!(world.count("up", "tools/call"), 1);
    world.sim.clock.advance(SECOND * 2);
    deep(&world, OPERATOR);
    assert_eq!(world.count("up", "tools/call"), 2);
}

#[test]
fn a_check_of_many_dead_upstreams_is_bounded_and_asks_few_at_once() {
    let mut setup = Setup::new().secret("TIDEGATE_ADMIN_TOKEN", OPERATOR);
    for number in 0..60 {
        let script = Script::modern(&["ping"]);
        script.on("server/discover", |_| {
            Said::After(SECOND * 3600, Box::new(Said::Error(-32603)))
        });
        setup = setup.upstream(&format!("u{number}"), &script);
    }
    let world = setup.start();
    let started = world.sim.clock.now();
    let told = deep(&world, OPERATOR);
    assert_eq!(told.status, 503);
    assert!(world.sim.clock.now().since(started) <= SECOND * 25);
    let upstreams = told.json()["upstreams"].as_array().unwrap();
    assert_eq!(upstreams.len(), 60);
    assert_eq!(upstreams[59]["reason"], "not_asked_in_time");
    let asked = (0..60).filter(|number| !world.exchanges(&format!("u{number}")).is_empty());
    assert_eq!(asked.count(), 40, "eight at once, for five seconds each");
}

#[test]
fn what_is_killed_is_not_asked_and_degrades_the_whole() {
    for (switch, asked, killed) in [
        (json!({ "kind": "upstream", "value": "up" }), false, 1),
        (json!({ "kind": "all" }), false, 2),
        // It may be asked what it is; its tool is not called.
        (json!({ "kind": "tool", "value": "up__ping" }), true, 1),
    ] {
        let world = Setup::new()
            .upstream_with("up", &Script::modern(&["ping"]), &probe())
            .upstream("two", &Script::modern(&["a"]))
            .secret("TIDEGATE_ADMIN_TOKEN", OPERATOR)
            .start();
        let mut kill = switch.clone();
        kill["reason"] = "broken".into();
        let door = Ask::http("POST", "/admin/switches").body(kill.to_string());
        assert_eq!(world.ask(door.token(OPERATOR)).status, 200);
        let told = deep(&world, OPERATOR);
        let upstreams = told.json()["upstreams"].as_array().unwrap().clone();
        for upstream in &upstreams[..killed] {
            assert_eq!(
                (&upstream["status"], &upstream["reason"]),
                (&json!("degraded"), &json!("killed")),
                "{switch}"
            );
        }
        assert_eq!(told.json()["status"], "degraded", "{switch}");
        assert_eq!(world.exchanges("up").is_empty(), !asked, "{switch}");
        assert_eq!(world.count("up", "tools/call"), 0, "{switch}");
    }
}

fn probe() -> Value {
    json!({ "probe": { "tool": "ping", "arguments": { "q": "are you well?" }, "slowMs": 1000, "timeoutMs": 5000 } })
}

fn probed(script: &Script) -> World {
    Setup::new()
        .upstream_with("up", script, &probe())
        .secret("TIDEGATE_ADMIN_TOKEN", OPERATOR)
        .start()
}

fn deep(world: &World, token: &str) -> Told {
    world.ask(Ask::http("GET", "/health/deep").token(token))
}
