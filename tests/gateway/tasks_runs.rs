//! What a run does while its tool works, and what becomes of large results, of rules that
//! allow a second run, and of what changes meanwhile.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_gateway::platform::{Clock, HttpError};

use crate::tasks::{
    HOSTS, create, finish, get, go_on, handle, lose, lose_keepers, record, slow, status, take_up,
    world, world_on, world_with,
};
use crate::world::{RESULT, Said, Script, Setup, Step, World, complete, tool};

const KIB: usize = 1024;

#[test]
fn a_large_result_is_kept_in_parts_and_read_as_it_was() {
    for (kept, (size, parts)) in HOSTS
        .into_iter()
        .flat_map(|kept| [(KIB, 0), (600 * KIB, 2), (7 * KIB * KIB, 15)].map(|case| (kept, case)))
    {
        let (world, script) = world_on(kept, "task");
        // Characters of several bytes, so that parts cannot end anywhere, and escapes.
        let text: String = "\u{1f30a}\"a".chars().cycle().take(size / 7 * 3).collect();
        let said = text.clone();
        script.on("tools/call", move |_| Said::Result(complete(&said)));
        let handle = handle(&create(&world));
        finish(&world);
        let told = world.isolate().call(get(&handle));
        assert_eq!(told.result()["status"], "completed");
        assert!(
            told.result()["result"]["content"][0]["text"] == text.as_str(),
            "{size}"
        );
        let stored = || {
            let mut keys = world.sim.atomic.keys();
            keys.retain(|key| key.starts_with("result/"));
            keys.len()
        };
        assert_eq!(stored(), parts, "{size}");
        world.sim.clock.advance(Duration::from_secs(3600));
        assert_eq!(stored(), 0, "gone with its task");
    }
}

#[test]
fn parts_that_cannot_be_written_at_once_are_written_later() {
    for fault in [
        tidegate_simulator::Fault::Fail,
        tidegate_simulator::Fault::FailButPersist,
    ] {
        let (world, script) = world_on(false, "task");
        let text = "x".repeat(1200 * KIB);
        let said = text.clone();
        script.on("tools/call", move |_| Said::Result(complete(&said)));
        world.sim.atomic.faults.arrange("result/", 5, fault);
        let handle = handle(&create(&world));
        assert_eq!(world.deliver(), [Consumed::Done]);
        let told = world.call(get(&handle));
        assert!(told.result()["result"]["content"][0]["text"] == text.as_str());
    }
}

#[test]
fn a_result_too_large_to_keep_is_a_failure_in_words() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| {
            Said::Result(complete(&"x".repeat(9 * KIB * KIB)))
        });
        let handle = handle(&create(&world));
        finish(&world);
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "failed");
        let reason = told.result()["error"].to_string();
        assert!(
            reason.contains("larger") || reason.contains("large"),
            "{reason}"
        );
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

#[test]
fn progress_becomes_a_status_message_now_and_then() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |heard| {
            let mut steps = Vec::new();
            for number in 1..=100 {
                let mut progress = heard.progress(number);
                progress["params"]["total"] = json!(100);
                progress["params"]["message"] = json!("copying");
                steps.push(Step::Send(progress));
                steps.push(Step::Wait(Duration::from_millis(100)));
            }
            steps.push(Step::Wait(Duration::from_secs(5)));
            steps.push(Step::Send(heard.response(&complete(RESULT))));
            Said::Stream(steps)
        });
        let handle = handle(&create(&world));
        let mut worker = Some(take_up(&world));
        let mut seen = BTreeSet::new();
        for _ in 0..120 {
            go_on(&world, &mut worker, Duration::from_millis(100));
            let message = record(&world)["statusMessage"].as_str().map(str::to_owned);
            seen.extend(message);
        }
        assert!(
            (3..=6).contains(&seen.len()),
            "one every two seconds: {seen:?}"
        );
        let told = world.call(get(&handle));
        assert_eq!(told.result()["statusMessage"], "copying (100/100)");
        assert_eq!(told.result()["status"], "working");
        go_on(&world, &mut worker, Duration::from_secs(10));
        assert_eq!(status(&world, &handle), "completed");
    }
}

#[test]
fn a_lease_is_renewed_for_as_long_as_the_tool_works() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| slow(600, RESULT));
        let handle = handle(&create(&world));
        let message = world.sim.queue.take().remove(0);
        let mut worker = Some(world.start_consuming(message.clone()));
        go_on(&world, &mut worker, Duration::from_secs(1));
        let other = world.isolate();
        for _ in 0..59 {
            go_on(&world, &mut worker, Duration::from_secs(10));
            let now = world.sim.clock.now().0;
            let until = record(&world)["lease"]["untilMs"].as_u64().unwrap();
            assert!(
                (now + 35_000..=now + 60_000).contains(&until),
                "{until} at {now}"
            );
            // A message that is delivered again is put off until the lease would lapse.
            let again = other.consume(&message);
            assert!(matches!(again, Consumed::Retry { .. }), "{again:?}");
        }
        go_on(&world, &mut worker, Duration::from_secs(20));
        assert_eq!(status(&world, &handle), "completed");
        assert_eq!(other.consume(&message), Consumed::Done);
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

#[test]
fn a_run_looks_at_its_record_now_and_then_where_too_many_wait() {
    let (world, script) = world_on(false, "task");
    world.sim.atomic.crowded.set(true);
    script.on("tools/call", |_| slow(60, RESULT));
    let handle = handle(&create(&world));
    let before = world.sim.atomic.operations("");
    assert_eq!(world.deliver(), [Consumed::Done]);
    let asked = world.sim.atomic.operations("") - before;
    assert!(asked < 100, "{asked} operations in a minute");
    assert_eq!(status(&world, &handle), "completed");
}

#[test]
fn a_slow_tool_does_not_hold_up_the_messages_behind_it() {
    let (world, script) = world_on(true, "task");
    script.on("tools/call", |_| slow(120, RESULT));
    let handles: Vec<String> = (0..3).map(|_| handle(&create(&world))).collect();
    let begun = world.sim.clock.now();
    let consumed = world.deliver();
    assert_eq!(consumed.len(), 3);
    assert!(
        world.sim.clock.now().since(begun) <= Duration::from_secs(3) + Duration::from_millis(100)
    );
    finish(&world);
    for handle in handles {
        assert_eq!(status(&world, &handle), "completed");
    }
    assert_eq!(world.count("up", "tools/call"), 3);
}

#[test]
fn a_tool_that_does_no_harm_twice_is_run_again_when_its_worker_was_lost() {
    for (kept, idempotent) in HOSTS
        .into_iter()
        .flat_map(|kept| [(kept, true), (kept, false)])
    {
        let (world, script) = world_with(kept, rule(idempotent));
        script.on("tools/call", |_| slow(20, RESULT));
        let handle = handle(&create(&world));
        let message = world.sim.queue.take().remove(0);
        let mut running = world.start_consuming(message.clone());
        assert!(running.step().is_none());
        lose(&world, running);
        world.sim.queue.put_back(message, Duration::ZERO);
        finish(&world);
        let (ended, times) = if idempotent {
            ("completed", 2)
        } else {
            ("failed", 1)
        };
        assert_eq!(status(&world, &handle), ended, "kept: {kept}");
        assert_eq!(world.count("up", "tools/call"), times, "kept: {kept}");
    }
}

#[test]
fn an_upstream_that_knows_a_call_again_gets_a_lost_one_again_under_the_same_key() {
    for (version, kept) in [
        ("2026-07-28", true),
        ("2025-11-25", true),
        ("2026-07-28", false),
    ] {
        let script = match version {
            "2026-07-28" => Script::modern(&["a"]),
            _ => Script::legacy(version, &["a"]),
        };
        script.on("tools/call", |_| slow(20, RESULT));
        let world = Setup::new()
            .upstream_with("up", &script, &json!({ "idempotencyKeys": true }))
            .rule(json!({ "name": "up__a", "execution": "task" }))
            .start();
        world.sim.keeper.missing(!kept);
        let first = handle(&create(&world));
        let message = world.sim.queue.take().remove(0);
        let mut running = world.start_consuming(message.clone());
        assert!(running.step().is_none());
        lose(&world, running);
        world.sim.queue.put_back(message, Duration::ZERO);
        finish(&world);
        assert_eq!(status(&world, &first), "completed", "{version}");
        create(&world);
        finish(&world);
        let calls = world.bodies("up", "tools/call");
        let keys: Vec<&Value> = calls
            .iter()
            .map(|call| &call["params"]["_meta"]["io.tidegate/idempotencyKey"])
            .collect();
        assert_eq!(keys.len(), 3, "{version}: one was made again");
        assert!(keys[0].is_string() && keys[0] == keys[1], "{keys:?}");
        assert_ne!(keys[1], keys[2], "another task is another call");
    }
}

#[test]
fn an_answer_that_was_lost_is_asked_for_again_where_that_does_no_harm_and_not_for_ever() {
    for (kept, idempotent) in HOSTS
        .into_iter()
        .flat_map(|kept| [(kept, true), (kept, false)])
    {
        let (world, script) = world_with(kept, rule(idempotent));
        script.on("tools/call", |_| {
            Said::NoAnswer(HttpError::MaybeSent("cut".to_owned()))
        });
        let handle = handle(&create(&world));
        finish(&world);
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "failed");
        assert_eq!(told.result()["error"]["data"]["reason"], "upstream_lost");
        let times = if idempotent { 5 } else { 1 };
        assert_eq!(world.count("up", "tools/call"), times, "kept: {kept}");
    }
}

#[test]
fn a_configuration_pushed_meanwhile_concerns_only_what_it_changes() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| slow(200, RESULT));
        let running = handle(&create(&world));
        let mut worker = Some(take_up(&world));
        go_on(&world, &mut worker, Duration::from_secs(5));
        let waiting = handle(&create(&world));
        // Its tool is no task any more, and it has another neighbour.
        let pushed = Setup::new()
            .upstream("up", &script)
            .upstream("other", &Script::modern(&["b"]))
            .rule(json!({ "name": "up__a", "execution": "sync", "timeoutMs": 1000 }))
            .snapshot();
        world.sim.kv.publish("config", pushed);
        world.sim.clock.advance(Duration::from_secs(31));
        go_on(&world, &mut worker, Duration::from_secs(180));
        let fresh = world.isolate();
        assert_eq!(status(&fresh, &running), "completed");
        finish(&fresh);
        assert_eq!(
            status(&fresh, &waiting),
            "completed",
            "as it was when it was made"
        );
        assert_eq!(world.count("up", "tools/call"), 2);
    }
}

#[test]
fn a_task_whose_upstream_goes_while_it_waits_for_answers_fails_in_words() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| {
            Said::Result(json!({ "resultType": "input_required", "requestState": "s" }))
        });
        let handle = handle(&create(&world));
        assert!(matches!(world.deliver()[..], [Consumed::Retry { .. }]));
        let other = Setup::new()
            .upstream("other", &Script::modern(&["b"]))
            .rule(json!({ "name": "other__b", "execution": "task" }));
        world.sim.kv.publish("config", other.snapshot());
        lose_keepers(&world);
        let fresh = world.isolate();
        finish(&fresh);
        let told = fresh.call(get(&handle));
        assert_eq!(told.result()["status"], "failed");
        let reason = told.result()["error"]["message"].as_str().unwrap();
        assert!(reason.contains("no longer configured"), "{reason}");
    }
}

#[test]
fn a_message_given_up_on_while_its_task_runs_is_sent_again_to_watch_it() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| slow(20, RESULT));
        let handle = handle(&create(&world));
        let message = world.sim.queue.take().remove(0);
        let mut running = world.start_consuming(message.clone());
        assert!(running.step().is_none());
        world.sim.queue.put_back(message, Duration::ZERO);
        world.give_up();
        assert_eq!(status(&world, &handle), "working", "it is");
        assert_eq!(world.sim.queue.waiting(), 1);
        lose(&world, running);
        finish(&world);
        assert_eq!(status(&world, &handle), "failed");
    }
}

#[test]
fn a_run_that_failed_before_the_call_was_sent_is_not_the_last() {
    for (kept, code) in HOSTS
        .into_iter()
        .flat_map(|kept| [(kept, 502), (kept, 503)])
    {
        let script = Script::legacy("2025-06-18", &["a"]);
        let runs: Rc<Cell<usize>> = Rc::default();
        let counted = Rc::clone(&runs);
        script.on("tools/call", move |_| {
            counted.set(counted.get() + 1);
            Said::Result(complete(RESULT))
        });
        let world = Setup::new()
            .upstream("up", &script)
            .rule(json!({ "name": "up__a", "execution": "task" }))
            .start();
        world.sim.keeper.missing(!kept);
        let handle = handle(&create(&world));
        script.lose_sessions();
        script.on("initialize", move |_| {
            Said::Raw(code, "text/plain", Vec::new())
        });
        world.deliver();
        world.wait(Duration::from_secs(1));
        assert_eq!(status(&world, &handle), "working");
        assert_eq!(script.sessions(), 0);
        script.off("initialize");
        finish(&world);
        assert_eq!(status(&world, &handle), "completed");
        assert_eq!(runs.get(), 1);
    }
}

#[test]
fn a_message_given_up_on_while_the_store_is_away_is_not_the_last() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.sim.atomic.faults.outage(true);
    world.give_up();
    world.sim.atomic.faults.outage(false);
    assert_eq!(world.sim.queue.waiting(), 1);
    finish(&world);
    assert_eq!(status(&world, &handle), "completed");
}

#[test]
fn a_call_takes_along_only_extensions_that_can_be_carried() {
    let world = Setup::new()
        .upstream("up", &Script::modern(&["a"]))
        .upstream("other", &Script::modern(&["b"]))
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .start();
    let extensions = json!({ crate::tasks::TASKS: {}, "com.example/x": {} });
    let told =
        world.call(tool("up__a").meta("clientCapabilities", json!({ "extensions": extensions })));
    let handle = handle(&told);
    finish(&world);
    assert_eq!(status(&world, &handle), "completed");
    assert!(!declared(&world).to_string().contains("com.example/x"));
}

fn declared(world: &World) -> Value {
    let body = world.bodies("up", "tools/call").pop().unwrap();
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"].clone()
}

fn rule(idempotent: bool) -> Value {
    json!({ "execution": "task", "idempotent": idempotent })
}
