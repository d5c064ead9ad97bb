//! Liveness, and health of what is behind.

use std::time::Duration;

use serde_json::json;
use tidegate_gateway::platform::Clock;

use crate::world::issuer::ISSUER;
use crate::world::{Ask, Script, Setup, Told, World};

const OPERATOR: &str = "an operator's key, long enough to be one";

#[test]
fn liveness_needs_nothing() {
    let world = Setup::new()
        .upstream("up", &Script::modern(&["a"]))
        .unpublished()
        .start();
    world.sim.kv.faults.outage(true);
    let told = world.ask(Ask::http("GET", "/health").anonymous());
    assert_eq!(
        (told.status.as_u16(), &told.json()["status"]),
        (200, &json!("ok"))
    );
    assert_eq!(world.sim.kv.reads(""), 0);
}

#[test]
fn each_upstream_is_really_asked() {
    let world = two();
    let told = deep(&world);
    assert_eq!(
        (told.status.as_u16(), &told.json()["status"]),
        (200, &json!("healthy"))
    );
    let upstreams = told.json()["upstreams"].as_array().unwrap();
    let versions: Vec<&str> = upstreams
        .iter()
        .map(|upstream| upstream["protocolVersion"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["2026-07-28", "2025-06-18"]);
    world.server("one").down.set(true);
    world.sim.clock.advance(Duration::from_secs(10));
    let told = deep(&world);
    assert_eq!(
        (told.status.as_u16(), &told.json()["status"]),
        (200, &json!("degraded"))
    );
    assert_eq!(
        told.json()["upstreams"][0]["reason"],
        "upstream_unavailable"
    );
    world
        .server("two")
        .head_delay
        .set(Duration::from_secs(3600));
    world.sim.clock.advance(Duration::from_secs(10));
    let started = world.sim.clock.now();
    let told = deep(&world);
    assert_eq!(
        (told.status.as_u16(), &told.json()["status"]),
        (503, &json!("unhealthy"))
    );
    assert_eq!(
        world.sim.clock.now().since(started),
        Duration::from_secs(5),
        "bounded"
    );
}

#[test]
fn nobody_can_make_it_ask_more_than_every_ten_seconds() {
    let world = two();
    for _ in 0..20 {
        deep(&world);
        world.ask(Ask::http("GET", "/health/deep").anonymous());
    }
    assert_eq!(world.count("one", "server/discover"), 1);
}

#[test]
fn without_a_good_token_upstreams_are_neither_counted_nor_named() {
    let world = two();
    for ask in [
        Ask::http("GET", "/health/deep").anonymous(),
        Ask::http("GET", "/health/deep").token("x"),
    ] {
        let told = world.ask(ask);
        let said = told.json().as_object().unwrap().clone();
        let members: Vec<&String> = said.keys().collect();
        assert_eq!(members, ["status", "checkedAtMs"]);
        assert!(
            !told.text.contains("one") && !told.text.contains("example.com"),
            "{told:?}"
        );
    }
}

#[test]
fn a_caller_is_told_of_the_upstreams_it_may_know_of_and_nothing_depends_on_others() {
    let scripts = ["all", "north", "held"].map(|_| Script::modern(&["a"]));
    let issuers =
        json!([{ "issuer": ISSUER, "jwksUri": format!("{ISSUER}/keys"), "tenantClaim": "tid" }]);
    let world = Setup::new()
        .upstream("all", &scripts[0])
        .upstream_with("north", &scripts[1], &json!({ "tenants": ["north"] }))
        .upstream_with("held", &scripts[2], &json!({ "classification": "restricted" }))
        .secret("TIDEGATE_ADMIN_TOKEN", OPERATOR)
        .config(&json!({
            "authentication": { "issuers": issuers },
            "tenants": [{ "name": "north" }],
            "policy": { "roles": ["auditor"], "clearance": { "roles": { "auditor": "restricted" } } },
        }))
        .start();
    let asks = || {
        let client = |claims| Ask::http("GET", "/health/deep").token(&world.token(&claims));
        [
            Ask::http("GET", "/health/deep").anonymous(),
            client(json!({})),
            client(json!({ "tid": "north" })),
            client(json!({ "roles": ["auditor"] })),
            Ask::http("GET", "/health/deep").token(OPERATOR),
        ]
    };
    let told = |ask: Ask| {
        let told = world.ask(ask).json().clone();
        let names = told["upstreams"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> = names
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect();
        let (healthy, all) = (&told["healthyUpstreams"], &told["configuredUpstreams"]);
        let counts = (healthy.as_u64(), all.as_u64());
        (told["status"].as_str().unwrap().to_owned(), counts, names)
    };
    let counted = |status: &str, healthy, names: &[&str]| {
        let all = u64::try_from(names.len()).unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        (status.to_owned(), (Some(healthy), Some(all)), names)
    };
    let bare = |status: &str| (status.to_owned(), (None, None), Vec::new());
    assert_eq!(
        asks().map(told),
        [
            bare("healthy"),
            counted("healthy", 1, &["all"]),
            counted("healthy", 2, &["all", "north"]),
            counted("healthy", 2, &["all", "held"]),
            counted("healthy", 3, &["all", "north", "held"]),
        ]
    );
    world.server("north").down.set(true);
    world.sim.clock.advance(Duration::from_secs(10));
    assert_eq!(
        asks().map(told),
        [
            bare("healthy"),
            counted("healthy", 1, &["all"]),
            counted("degraded", 1, &["all", "north"]),
            counted("healthy", 2, &["all", "held"]),
            counted("degraded", 2, &["all", "north", "held"]),
        ]
    );
}

#[test]
fn a_probe_finds_out_that_an_upstream_is_back() {
    let world = two();
    world.server("one").down.set(true);
    for _ in 0..6 {
        world.tool("one__a");
    }
    assert_eq!(world.tool("one__a").status, 503, "its circuit is open");
    world.server("one").down.set(false);
    let told = deep(&world);
    assert_eq!(told.json()["status"], "healthy");
}

fn two() -> World {
    Setup::new()
        .upstream("one", &Script::modern(&["a"]))
        .upstream("two", &Script::legacy("2025-06-18", &["b"]))
        .start()
}

fn deep(world: &World) -> Told {
    world.ask(Ask::http("GET", "/health/deep"))
}
