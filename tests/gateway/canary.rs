//! Canaries: who is on them, what stays with them, and how a bad one is given up by itself.

mod judged;
mod kept;

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::canary::LOOK_EVERY;
use tidegate_gateway::platform::Clock;

use crate::world::{Said, Script, Setup, Told, World, authority, complete, modern, tool};

/// Seconds a rolled back canary is left alone.
const HOLD: Duration = Duration::from_secs(600);

#[test]
fn a_principal_is_on_the_same_version_in_every_isolate_and_with_every_request() {
    let (world, _) = world(30);
    let mut on_canary = 0;
    for n in 0..200 {
        let subject = format!("subject-{n}");
        let version = said(&world, &subject);
        for other in [&world, &world.isolate()] {
            assert_eq!(said(other, &subject), version, "{subject}");
        }
        on_canary += usize::from(version == "new");
    }
    assert!((40..=80).contains(&on_canary), "{on_canary} of 200 at 30 %");
}

#[test]
fn a_higher_weight_moves_nobody_back() {
    let at = |weight| {
        let (world, _) = world(weight);
        let subjects = (0..100).map(|n| format!("subject-{n}"));
        subjects
            .filter(|subject| said(&world, subject) == "new")
            .collect::<Vec<_>>()
    };
    assert!(at(0).is_empty());
    let (some, more) = (at(20), at(60));
    assert!(some.iter().all(|subject| more.contains(subject)));
    assert!(more.len() > some.len());
    assert_eq!(at(100).len(), 100);
}

#[test]
fn lists_are_those_of_the_version_a_principal_is_on() {
    let (world, scripts) = world(50);
    scripts.new.listing(
        "tools",
        json!({ "name": "fresh", "inputSchema": { "type": "object" } }),
    );
    scripts.old.hints(60_000, "public");
    scripts.new.hints(60_000, "public");
    for n in 0..20 {
        let subject = format!("subject-{n}");
        let on_canary = said(&world, &subject) == "new";
        let listed = world
            .call(modern("tools/list", json!({})).by(&subject))
            .names();
        assert_eq!(
            listed.contains(&"up__fresh".to_owned()),
            on_canary,
            "{subject}"
        );
        world.settle();
        // From KV, too, each gets its own.
        let listed = world
            .isolate()
            .call(modern("tools/list", json!({})).by(&subject));
        assert_eq!(listed.names().contains(&"up__fresh".to_owned()), on_canary);
    }
}

#[test]
fn nobody_can_ask_for_a_version() {
    let (world, _) = world(0);
    for name in ["up@canary__a", "up@mirror__a"] {
        let told = world.call(tool(name));
        assert_eq!(told.code(), -32602, "{told:?}");
    }
    let told = world.ask(tool("a").to("/servers/up@canary/mcp"));
    assert_eq!(told.status, 404, "{told:?}");
    assert!(world.exchanges("new").is_empty());
}

/// The transcript of a canary that turns bad, as an operator would see it.
#[test]
fn a_canary_that_turns_bad_is_rolled_back_by_itself_within_its_window() {
    let (world, scripts) = world(50);
    let subjects = (0..20).map(|n| format!("subject-{n}"));
    let all: Vec<String> = subjects.collect();
    let (begin, mut transcript) = (world.sim.clock.now(), String::new());
    let (mut bad_since, mut rolled_back_at, mut failed) = (None, None, 0);
    for second in 0..40_u64 {
        if second == 10 {
            scripts
                .new
                .on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
            bad_since = Some(world.sim.clock.now());
        }
        let (mut old, mut new, mut errors) = (0, 0, 0);
        for subject in &all {
            let told = world.call(tool("up__a").by(subject));
            match told.status.as_u16() {
                200 if told.said() == "new" => new += 1,
                200 => old += 1,
                _ => errors += 1,
            }
        }
        failed += errors;
        let state = health(&world)["state"].clone();
        let _ = writeln!(
            transcript,
            "t={second:>2} s  stable {old:>2}  canary {new:>2}  failed {errors:>2}  canary is {state}"
        );
        if state == "rolledBack" && rolled_back_at.is_none() {
            rolled_back_at = Some(world.sim.clock.now());
            assert_eq!(world.events("canary_rolled_back").len(), 1);
            let _ = writeln!(
                transcript,
                "        {}",
                world.events("canary_rolled_back")[0]
            );
        }
        world.sim.clock.advance(Duration::from_secs(1));
    }
    println!("{transcript}");
    let took = rolled_back_at
        .expect("a rollback")
        .since(bad_since.unwrap());
    assert!(took <= Duration::from_secs(20), "{took:?}\n{transcript}");
    assert!(failed < 25, "{failed} calls failed\n{transcript}");
    assert!(
        world.sim.clock.now().since(begin) < HOLD,
        "it is rolled back for the rest"
    );
    let last = all.iter().map(|subject| said(&world, subject));
    assert!(
        last.into_iter().all(|version| version == "old"),
        "{transcript}"
    );
    let line = world.audits().pop().unwrap();
    assert_eq!(line["version"], "rolledBack", "{line}");
    // When its time is over it is tried again, and works by then.
    scripts.new.off("tools/call");
    scripts
        .new
        .on("tools/call", |_| Said::Result(complete("new")));
    world.later(HOLD);
    assert!(all.iter().any(|subject| said(&world, subject) == "new"));
    assert_eq!(health(&world)["state"], "serving");
}

#[test]
fn a_canary_that_is_too_slow_is_rolled_back() {
    let (world, scripts) = world(100);
    scripts.new.on("tools/call", |_| {
        Said::After(
            Duration::from_millis(900),
            Box::new(Said::Result(complete("new"))),
        )
    });
    let mut slow = 0;
    while said(&world, "ada") == "new" {
        slow += 1;
        assert!(slow <= 10, "as many as it is judged by");
    }
    let line = &world.events("canary_rolled_back")[0];
    assert_eq!(
        (&line["reason"], &line["slow"]),
        (&json!("latency"), &json!(10))
    );
}

#[test]
fn what_a_tool_itself_calls_an_error_is_none_of_the_canary() {
    let (world, scripts) = world(100);
    scripts.new.on(
        "tools/call",
        |heard| match heard.params()["arguments"]["q"].is_null() {
            true => Said::Error(-32602),
            false => {
                Said::Result(json!({ "resultType": "complete", "content": [], "isError": true }))
            }
        },
    );
    for _ in 0..50 {
        world.tool("up__a");
    }
    assert_eq!(health(&world)["state"], "serving");
}

#[test]
fn the_upstream_itself_is_never_given_up_for_its_canary() {
    let (world, scripts) = world(50);
    scripts
        .old
        .on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
    for n in 0..60 {
        world.call(tool("up__a").by(&format!("subject-{}", n % 20)));
    }
    assert_eq!(health(&world)["state"], "serving");
    assert!(world.events("canary_rolled_back").is_empty());
}

#[test]
fn a_bad_canarys_circuit_is_its_own() {
    let patient = json!({ "canary": { "rollback": { "minimumCalls": 1000 } } });
    let scripts = Scripts::new();
    let world = setup(50, &scripts, &Value::Null, &patient)
        .config(&json!({ "circuitBreaker": { "failureThreshold": 3 } }))
        .start();
    scripts.serve(&world);
    scripts
        .new
        .on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
    let mut statuses = Vec::new();
    for n in 0..60 {
        let told = world.call(tool("up__a").by(&format!("subject-{}", n % 20)));
        statuses.push(told.status.as_u16());
    }
    assert!(statuses.contains(&502));
    assert!(statuses[40..].contains(&503), "the canary's is open");
    assert!(statuses[40..].contains(&200), "the upstream's own is not");
    assert_eq!(world.events("circuit_opened").len(), 1);
}

#[test]
fn other_isolates_hear_of_a_rollback_and_one_of_them_writes_it() {
    let (world, scripts) = world(100);
    let others: Vec<World> = (0..5).map(|_| world.isolate()).collect();
    for other in &others {
        assert_eq!(said(other, "ada"), "new");
    }
    scripts
        .new
        .on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
    for _ in 0..10 {
        world.tool("up__a");
    }
    assert_eq!(world.events("canary_rolled_back").len(), 1);
    world.settle();
    let record = world.sim.kv.stored("canary/up").expect("it is published");
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(
        (&record["reason"], &record["errors"]),
        (&json!("errors"), &json!(10))
    );
    // One that has not looked yet knows at once; the others after their next look.
    assert_eq!(said(&world.isolate(), "ada"), "old");
    world.sim.clock.advance(LOOK_EVERY);
    for other in &others {
        other.tool("up__a");
        other.settle();
        assert_eq!(said(other, "ada"), "old");
        assert!(
            other.events("canary_rolled_back").is_empty(),
            "heard, not found out"
        );
    }
}

#[test]
fn a_rollback_without_an_end_holds_until_the_canary_is_another() {
    let (world, scripts) = held(100, &Value::Null);
    scripts
        .new
        .on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
    for _ in 0..10 {
        world.tool("up__a");
    }
    scripts
        .new
        .on("tools/call", |_| Said::Result(complete("new")));
    world.later(HOLD * 1000);
    assert_eq!(said(&world, "ada"), "old");
    assert_eq!(said(&world.isolate(), "ada"), "old");
    let next = json!({ "canary": { "release": "2.0.1" } });
    let setup = setup(100, &scripts, &Value::Null, &next);
    world.sim.kv.publish("config", setup.snapshot());
    world.later(Duration::from_secs(31));
    said(&world, "ada");
    world.settle();
    assert_eq!(said(&world, "ada"), "new", "which begins anew");
}

#[test]
fn without_kv_each_isolate_finds_out_alone() {
    let (world, scripts) = world(100);
    let other = world.isolate();
    for each in [&world, &other] {
        assert_eq!(said(each, "ada"), "new");
        each.settle();
        each.sim.kv.faults.outage(true);
    }
    scripts
        .new
        .on("tools/call", |_| Said::Raw(500, "text/plain", Vec::new()));
    for each in [&world, &other] {
        for _ in 0..9 {
            assert_ne!(each.tool("up__a").status, 200);
        }
        assert_eq!(said(each, "ada"), "old");
        each.settle();
    }
}

struct Scripts {
    old: Script,
    new: Script,
}

impl Scripts {
    fn new() -> Self {
        let scripts = Self {
            old: Script::modern(&["a"]),
            new: Script::modern(&["a"]),
        };
        scripts.answer();
        scripts
    }

    fn answer(&self) {
        self.old.on("tools/call", |_| Said::Result(complete("old")));
        self.new.on("tools/call", |_| Said::Result(complete("new")));
    }

    fn serve(&self, world: &World) {
        let server = self.new.serve(&world.sim, &authority("new"));
        world
            .shared
            .servers
            .borrow_mut()
            .insert("new".to_owned(), server);
    }
}

fn setup(weight: u32, scripts: &Scripts, hold: &Value, over: &Value) -> Setup {
    let mut rollback = json!({
        "maxErrorPercent": 20, "maxP95Ms": 500, "windowMs": 20_000, "minimumCalls": 10,
    });
    if !hold.is_null() {
        rollback["holdMs"] = hold.clone();
    }
    let canary = json!({
        "url": format!("https://{}/mcp", authority("new")), "release": "2.0.0",
        "weightPercent": weight, "rollback": rollback,
    });
    let mut members = over.clone();
    members["canary"] = canary;
    for (name, value) in over["canary"].as_object().into_iter().flatten() {
        members["canary"][name] = value.clone();
    }
    Setup::new()
        .upstream_with("up", &scripts.old, &members)
        .config(&json!({ "circuitBreaker": { "failureThreshold": 50 } }))
}

fn held(weight: u32, hold: &Value) -> (World, Scripts) {
    let scripts = Scripts::new();
    let world = setup(weight, &scripts, hold, &json!({})).start();
    scripts.serve(&world);
    (world, scripts)
}

fn world(weight: u32) -> (World, Scripts) {
    held(weight, &json!(HOLD.as_millis()))
}

/// Which version answers a principal.
#[track_caller]
fn said(world: &World, subject: &str) -> String {
    let told: Told = world.call(tool("up__a").by(subject));
    told.said().to_owned()
}

/// What deep health says of the only canary.
fn health(world: &World) -> Value {
    let told = world.ask(crate::world::Ask::http("GET", "/health/deep"));
    told.json()["canaries"][0].clone()
}
