//! By which calls a canary is judged, and by which it is not.

use std::cell::Cell;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::canary::LOOK_EVERY;

use super::{Scripts, health, said, setup, world};
use crate::world::{Answer, Said, World, complete, tool};

const BAD: Answer = |_| Said::Raw(500, "text/plain", Vec::new());
const WELL: Answer = |_| Said::Result(complete("new"));
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn what_an_earlier_release_did_does_not_speak_against_the_next() {
    let (world, scripts) = long(&Value::Null);
    let other = world.isolate();
    scripts.new.on("tools/call", BAD);
    for _ in 0..8 {
        other.tool("up__a");
    }
    publish(&world, &scripts, "2.0.1");
    other.later(MINUTE);
    scripts.new.on("tools/call", WELL);
    assert_eq!(said(&other, "ada"), "new", "under the old configuration");
    other.settle();
    scripts.new.on("tools/call", BAD);
    other.tool("up__a");
    let canary = health(&other);
    assert_eq!(canary["state"], "serving", "{canary}");
    assert_eq!(canary["canary"]["errors"], 1, "{canary}");
}

#[test]
fn a_canary_that_is_tried_again_begins_anew_for_those_who_heard_of_its_rollback_too() {
    let (world, scripts) = long(&json!(MINUTE.as_millis()));
    let other = world.isolate();
    scripts.new.on("tools/call", BAD);
    for _ in 0..8 {
        other.tool("up__a");
    }
    for _ in 0..10 {
        world.tool("up__a");
    }
    world.later(LOOK_EVERY);
    other.tool("up__a");
    other.settle();
    assert_eq!(health(&other)["state"], "rolledBack");
    other.later(MINUTE);
    for _ in 0..3 {
        other.tool("up__a");
    }
    assert_eq!(health(&other)["state"], "serving");
    assert!(other.events("canary_rolled_back").is_empty());
}

#[test]
fn an_old_copy_of_what_others_found_out_revives_no_canary() {
    let (world, scripts) = world(100);
    scripts.new.on("tools/call", BAD);
    for _ in 0..10 {
        world.tool("up__a");
    }
    world.settle();
    scripts.new.on("tools/call", WELL);
    let record = world.sim.kv.stored("canary/up").unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let (mut earlier, mut over) = (record.clone(), record.clone());
    earlier["canary"] = "0123456789abcdef".into();
    over["atMs"] = (record["atMs"].as_u64().unwrap() - 2).into();
    over["untilMs"] = (record["atMs"].as_u64().unwrap() - 1).into();
    for stale in [earlier, over] {
        world.sim.kv.publish("canary/up", stale.to_string());
        world.sim.clock.advance(LOOK_EVERY);
        assert_eq!(said(&world, "ada"), "old");
        world.settle();
        assert_eq!(said(&world, "ada"), "old", "{stale}");
    }
}

#[test]
fn one_call_in_twenty_may_take_as_long_as_it_likes_and_not_two() {
    // In the mean it is the first that takes too long.
    for (each, takes, state) in [(20, 12_000, "serving"), (10, 600, "rolledBack")] {
        let scripts = Scripts::new();
        let rule = json!({ "canary": { "rollback": { "maxP95Ms": 500, "minimumCalls": 40 } } });
        let world = setup(100, &scripts, &Value::Null, &rule).start();
        scripts.serve(&world);
        let made = Cell::new(0);
        scripts.new.on("tools/call", move |_| {
            made.set(made.get() + 1);
            let well = Said::Result(complete("new"));
            match made.get() % each {
                0 => Said::After(Duration::from_millis(takes), Box::new(well)),
                _ => well,
            }
        });
        for _ in 0..60 {
            let ask = tool("up__a").header("accept", "application/json");
            assert_eq!(world.call(ask).status, 200);
        }
        let canary = health(&world);
        assert_eq!(canary["state"], state, "{canary}");
    }
}

#[test]
fn calls_whose_clients_lost_patience_count_if_they_had_reason_to() {
    for (waited, state) in [(400, "serving"), (600, "rolledBack")] {
        let (world, scripts) = world(100);
        assert_eq!(said(&world, "ada"), "new");
        scripts.new.on("tools/call", |_| {
            Said::After(Duration::from_secs(60), Box::new(Said::Error(1)))
        });
        for _ in 0..9 {
            let mut call = world.start(tool("up__a"));
            assert!(call.step().is_none());
            world.sim.clock.advance(Duration::from_millis(waited));
            drop(call);
        }
        assert_eq!(health(&world)["state"], state, "after {waited} ms");
    }
}

#[test]
fn calls_it_was_not_asked_are_none_of_its_own() {
    let scripts = Scripts::new();
    let over = json!({ "bulkhead": { "maxCalls": 1 } });
    let world = setup(100, &scripts, &Value::Null, &over).start();
    scripts.serve(&world);
    assert_eq!(said(&world, "ada"), "new");
    scripts.new.on("tools/call", |_| {
        Said::After(Duration::from_secs(60), Box::new(Said::Error(1)))
    });
    let mut first = world.start(tool("up__a"));
    assert!(first.step().is_none());
    for _ in 0..20 {
        assert_eq!(world.tool("up__a").reason(), "upstream_full");
    }
    assert_eq!(health(&world)["canary"]["calls"], 1);
}

#[test]
fn short_lived_instances_judge_a_canary_together() {
    let (world, scripts) = world(100);
    world.sim.make_short_lived();
    scripts.new.on("tools/call", BAD);
    let mut failed = 0;
    for _ in 0..30 {
        // One call each, as many as a bad day leaves an instance.
        let instance = world.isolate();
        let told = instance.tool("up__a");
        failed += usize::from(told.status != 200);
        instance.settle();
    }
    assert_eq!(failed, 10, "and then all are put back");
    assert!(world.sim.kv.stored("canary/up").is_some());
    assert_eq!(world.sim.atomic.operations("tally/"), 10);
}

#[test]
fn what_short_lived_instances_count_of_a_good_canary_gives_nothing_up() {
    let (world, _) = world(50);
    world.sim.make_short_lived();
    for n in 0..60 {
        let instance = world.isolate();
        instance.call(tool("up__a").by(&format!("subject-{}", n % 20)));
        instance.settle();
    }
    assert!(world.sim.kv.stored("canary/up").is_none());
    let counted = world.sim.atomic.operations("tally/");
    assert!((1..60).contains(&counted), "{counted}: the canary's alone");
    world.sim.atomic.faults.outage(true);
    let told = world.call(tool("up__a"));
    assert_eq!(told.status, 200, "it waits for no store");
    world.settle();
}

/// A canary of release 2.0.0 for all, judged by ten calls in ten minutes.
fn long(hold: &Value) -> (World, Scripts) {
    let scripts = Scripts::new();
    let world = setup(100, &scripts, hold, &window("2.0.0", hold)).start();
    scripts.serve(&world);
    (world, scripts)
}

fn window(release: &str, hold: &Value) -> Value {
    let mut rollback = json!({ "maxErrorPercent": 20, "windowMs": 600_000, "minimumCalls": 10 });
    if !hold.is_null() {
        rollback["holdMs"] = hold.clone();
    }
    json!({ "canary": { "release": release, "rollback": rollback } })
}

fn publish(world: &World, scripts: &Scripts, release: &str) {
    let next = setup(100, scripts, &Value::Null, &window(release, &Value::Null));
    world.sim.kv.publish("config", next.snapshot());
}
