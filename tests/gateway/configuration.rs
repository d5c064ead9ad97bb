//! Which configuration is in force: the last good one, renewed beside requests.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::settings::REFRESH;

use crate::world::{Ask, Script, Setup, World, tool};

#[test]
fn without_a_configuration_every_endpoint_says_what_to_do() {
    let world = Setup::new()
        .upstream("up", &Script::modern(&["a"]))
        .unpublished()
        .start();
    for path in [
        "/mcp",
        "/servers/up/mcp",
        "/health/deep",
        "/.well-known/oauth-protected-resource",
        "/other",
    ] {
        let told = world.ask(tool("up__a").to(path));
        assert_eq!(told.refusal(), (503, -32603), "{path}");
        assert!(
            told.error()["message"]
                .as_str()
                .unwrap()
                .contains("tidegate push")
        );
        let correlation = told.error()["data"]["correlationId"].clone();
        assert_eq!(
            world.events("fault").pop().unwrap()["correlationId"],
            correlation
        );
    }
}

#[test]
fn a_first_push_is_in_force_at_once() {
    let setup = || Setup::new().upstream("up", &Script::modern(&["a"]));
    let world = setup().unpublished().start();
    assert_eq!(world.ask(tool("up__a")).status, 503);
    world.sim.kv.publish("config", setup().snapshot());
    assert_eq!(world.tool("up__a").status, 200);
}

#[test]
fn a_bad_snapshot_never_replaces_a_good_one() {
    let script = Script::modern(&["a"]);
    let good = Setup::new().upstream("up", &script).snapshot();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut snapshot: Value = serde_json::from_slice(&good).unwrap();
        change(&mut snapshot);
        serde_json::to_vec(&snapshot).unwrap()
    };
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("garbage", b"\xff\xfe".to_vec()),
        ("HTML", b"<html>".to_vec()),
        ("cut", good[..good.len() / 2].to_vec()),
        ("null", b"null".to_vec()),
        (
            "of a later version",
            with(&|snapshot| snapshot["v"] = 2.into()),
        ),
        (
            "changed by hand",
            with(&|snapshot| snapshot["config"]["naming"] = "bare".into()),
        ),
        (
            "without a digest",
            with(&|snapshot| snapshot["digest"] = Value::Null),
        ),
        ("oversized", vec![b' '; 5 * 1024 * 1024]),
    ];
    let world = Setup::new().upstream("up", &script).start();
    assert_eq!(world.tool("up__a").status, 200);
    for (what, snapshot) in bad {
        world.sim.kv.publish("config", snapshot.clone());
        world.later(REFRESH);
        assert_eq!(world.tool("up__a").status, 200, "{what}");
        world.settle();
        assert_eq!(world.tool("up__a").status, 200, "{what}");
        assert!(!world.events("config_kept").is_empty(), "{what}: reported");
        world.forget_log();
        let fresh = Setup::new().upstream("up", &script).unpublished().start();
        fresh.sim.kv.publish("config", snapshot);
        assert_eq!(
            fresh.ask(tool("up__a")).status,
            503,
            "{what}: and is never the first"
        );
    }
    world.sim.kv.publish(
        "config",
        Setup::new()
            .upstream("up", &script)
            .config(&json!({ "naming": "bare" }))
            .snapshot(),
    );
    world.later(REFRESH);
    world.tool("up__a");
    world.settle();
    assert_eq!(world.tool("a").status, 200, "a good one does");
}

#[test]
fn a_push_is_in_force_within_the_refresh_time_and_delays_nobody() {
    let script = Script::modern(&["a"]);
    let world = Setup::new().upstream("up", &script).start();
    assert_eq!(world.tool("up__a").status, 200);
    world.sim.kv.publish(
        "config",
        Setup::new()
            .upstream("up", &script)
            .config(&json!({ "naming": "bare" }))
            .snapshot(),
    );
    world.later(REFRESH - Duration::from_millis(1));
    let reads = world.sim.kv.reads("config");
    assert_eq!(world.tool("up__a").status, 200);
    world.settle();
    assert_eq!(
        world.sim.kv.reads("config"),
        reads,
        "not asked before its time"
    );
    world.sim.clock.advance(Duration::from_millis(1));
    assert_eq!(
        world.tool("up__a").status,
        200,
        "this one is answered by what is in memory"
    );
    assert_eq!(
        world.sim.kv.reads("config"),
        reads,
        "and before KV was asked"
    );
    world.settle();
    assert_eq!(world.tool("a").status, 200);
}

#[test]
fn kv_out_of_reach_leaves_the_configuration_in_force() {
    let world = Setup::new().upstream("up", &Script::modern(&["a"])).start();
    assert_eq!(world.tool("up__a").status, 200);
    world.sim.kv.faults.outage(true);
    for _ in 0..5 {
        world.later(REFRESH);
        assert_eq!(world.tool("up__a").status, 200);
    }
}

#[test]
fn a_withdrawn_configuration_stays_until_the_isolate_ends() {
    let world = Setup::new().upstream("up", &Script::modern(&["a"])).start();
    assert_eq!(world.tool("up__a").status, 200);
    world.sim.kv.dropped_reads.set(1000);
    world.later(REFRESH);
    world.tool("up__a");
    world.settle();
    assert_eq!(world.tool("up__a").status, 200, "absence may be stale");
}

#[test]
fn a_timer_renews_without_traffic_and_reports_what_is_broken() {
    let script = Script::modern(&["a"]);
    let world = Setup::new().upstream("up", &script).start();
    world.tool("up__a");
    world.sim.kv.publish("config", "broken");
    world.sim.clock.advance(REFRESH);
    world.tick();
    assert_eq!(world.events("config_kept").len(), 1);
    world.sim.kv.publish(
        "config",
        Setup::new()
            .upstream("up", &script)
            .config(&json!({ "naming": "bare" }))
            .snapshot(),
    );
    world.sim.clock.advance(REFRESH);
    world.tick();
    assert_eq!(world.tool("a").status, 200);
}

#[test]
fn without_a_sealing_key_nothing_is_served() {
    for key in ["", "short", "not base64!", "AAAA"] {
        let world: World = Setup::new()
            .upstream("up", &Script::modern(&["a"]))
            .secret("TIDEGATE_SEALING_KEY", key)
            .start();
        let told = world.ask(Ask::http("GET", "/health/deep"));
        assert_eq!(told.status, 500, "{key:?}");
        assert!(!told.text.contains("SEALING"), "{told:?}");
        let reason = world.events("fault")[0]["reason"].clone();
        assert!(
            reason.as_str().unwrap().contains("TIDEGATE_SEALING_KEY"),
            "the operator is told: {reason}"
        );
    }
}

#[test]
fn a_sealing_key_that_cannot_be_read_is_neither_missing_nor_left_out() {
    let (current, previous) = ("TIDEGATE_SEALING_KEY", "TIDEGATE_SEALING_KEY_PREVIOUS");
    let old = "Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc=";
    let new = "ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg=";
    let names: Vec<String> = (0..300).map(|n| format!("t{n}")).collect();
    let script = Script::modern(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let world = Setup::new().upstream("up", &script).start();
    let list = || crate::world::modern("tools/list", json!({}));
    let cursor = world.call(list()).result()["nextCursor"].clone();
    for hidden in [current, previous] {
        world.sim.set_secret(current, new);
        world.sim.set_secret(previous, old);
        world.sim.hide_secret(hidden);
        let isolate = world.isolate();
        let told = isolate.ask(Ask::http("GET", "/health/deep"));
        assert_eq!(told.status, 500, "{hidden}");
        let faults = isolate.events("fault");
        let reason = faults.last().unwrap()["reason"].as_str().unwrap();
        assert!(
            reason.starts_with("secret_unread") && reason.contains(hidden),
            "{reason}"
        );
        assert!(!reason.contains("openssl"), "{reason}");
        // The same instance, once the secret can be read.
        world.sim.set_secret(current, new);
        world.sim.set_secret(previous, old);
        isolate.sim.clock.advance(REFRESH);
        let page = isolate.call(list().param("cursor", cursor.clone()));
        assert_eq!(page.names().len(), 50, "{hidden}");
    }
}

#[test]
fn a_key_that_was_replaced_still_opens_what_it_sealed() {
    let names: Vec<String> = (0..300).map(|n| format!("t{n}")).collect();
    let script = Script::modern(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let world = Setup::new().upstream("up", &script).start();
    let list = || crate::world::modern("tools/list", json!({}));
    let cursor = world.call(list()).result()["nextCursor"].clone();
    let old = "Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc=";
    let new = "ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg4ODg=";
    world.sim.set_secret("TIDEGATE_SEALING_KEY", new);
    world.sim.set_secret("TIDEGATE_SEALING_KEY_PREVIOUS", old);
    assert_eq!(
        world
            .isolate()
            .call(list().param("cursor", cursor.clone()))
            .names()
            .len(),
        50
    );
    world.sim.set_secret("TIDEGATE_SEALING_KEY_PREVIOUS", new);
    assert_eq!(
        world.isolate().call(list().param("cursor", cursor)).code(),
        -32602
    );
}
