//! Tasks when stores, queue, workers and upstreams fail.

use std::time::Duration;

use serde_json::json;
use tidegate_gateway::Consumed;
use tidegate_gateway::platform::HttpError;
use tidegate_gateway::tasks::START_WITHIN;
use tidegate_gateway::tasks::record::FAILURE_MAX;
use tidegate_simulator::Fault;

use crate::tasks::{
    HOSTS, cancel, create, finish, get, go_on, handle, inner_faults, logged, lose, lose_keepers,
    record, slow, status, take_up, world, world_on,
};
use crate::world::{Answer, RESULT, Said, Script, Setup, Step, World, complete, tool};

#[test]
fn no_handle_is_given_for_a_record_that_is_not_known_to_be_there() {
    for (fault, outage) in [
        (Fault::Fail, false),
        (Fault::Conflict, false),
        (Fault::FailButPersist, true),
    ] {
        let (world, _) = world("task");
        let faults = world.sim.atomic.faults.clone();
        let down = faults.clone();
        // Whether it was written cannot be read either.
        faults.decide(move |key| {
            let record = key.starts_with("task/");
            down.outage(outage && record);
            record.then_some(fault)
        });
        let told = world.call(tool("up__a").with_tasks());
        assert_eq!(told.refusal(), (500, -32603), "{fault:?}");
        assert_eq!(
            world.sim.queue.sent(),
            0,
            "{fault:?}: nothing is queued for it"
        );
        assert_eq!(world.audits().pop().unwrap()["outcome"], "fault");
        assert_eq!(world.events("fault").len(), 1);
    }
}

#[test]
fn a_record_that_may_be_there_is_looked_for_and_its_task_made() {
    let (world, _) = world("task");
    let faults = &world.sim.atomic.faults;
    faults.arrange("task/", 1, Fault::FailButPersist);
    let handle = handle(&create(&world));
    assert_eq!(status(&world.isolate(), &handle), "working");
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(status(&world, &handle), "completed");
}

#[test]
fn no_handle_is_given_for_work_the_queue_did_not_take() {
    for fault in [Fault::Fail, Fault::FailButPersist] {
        let (world, script) = world("task");
        script.on("tools/call", |_| {
            panic!("run though its client was told it failed")
        });
        world.sim.queue.faults.arrange("", 1, fault);
        assert_eq!(
            world.call(tool("up__a").with_tasks()).refusal(),
            (500, -32603),
            "{fault:?}"
        );
        let record = record(&world);
        assert_eq!(
            record["status"], "failed",
            "{fault:?}: and the record says so"
        );
        // The message may be there after all; the record decides.
        assert!(
            world
                .deliver()
                .iter()
                .all(|consumed| *consumed == Consumed::Done)
        );
    }
}

#[test]
fn a_client_is_told_when_nobody_knows_whether_its_task_was_made() {
    for written in [true, false] {
        let (world, _) = world("task");
        let faults = world.sim.atomic.faults.clone();
        let down = faults.clone();
        faults.decide(move |key| {
            let record = key.starts_with("task/");
            down.outage(record);
            let fault = if written {
                Fault::FailButPersist
            } else {
                Fault::Fail
            };
            record.then_some(fault)
        });
        let told = world.call(tool("up__a").with_tasks());
        assert_eq!(told.refusal(), (500, -32603));
        assert_eq!(told.reason(), "task_unsettled");
        faults.decide(|_| None);
        faults.outage(false);
        world.sim.clock.advance(START_WITHIN);
        world.tick();
        world.deliver();
        let runs = usize::from(written);
        assert_eq!(world.count("up", "tools/call"), runs, "written: {written}");
    }
}

#[test]
fn a_store_that_is_away_for_a_moment_makes_no_task_unsettled() {
    for (fault, made) in [(Fault::FailButPersist, true), (Fault::Fail, false)] {
        let (world, _) = world("task");
        world.sim.atomic.faults.arrange("task/", 1, fault);
        let told = world.call(tool("up__a").with_tasks());
        assert_eq!(told.status == 200, made, "{told:?}");
        if !made {
            assert_eq!(told.reason(), "", "there certainly is none");
        }
    }
}

#[test]
fn a_task_that_cannot_be_called_off_is_its_clients() {
    for fault in [Fault::Fail, Fault::FailButPersist] {
        let (world, _) = world("task");
        world.sim.queue.faults.arrange("", 1, fault);
        let written = std::cell::Cell::new(0);
        world.sim.atomic.faults.decide(move |key| {
            // The record is made; nothing can be changed in it.
            let writes = written.get() + u32::from(key.starts_with("task/"));
            written.set(writes);
            (key.starts_with("task/") && writes > 1).then_some(Fault::Fail)
        });
        let handle = handle(&create(&world));
        world.sim.atomic.faults.decide(|_| None);
        world.sim.clock.advance(START_WITHIN);
        assert_eq!(status(&world, &handle), "working", "{fault:?}");
        world.deliver();
        assert_eq!(status(&world, &handle), "completed", "{fault:?}");
        assert_eq!(world.count("up", "tools/call"), 1, "{fault:?}");
    }
}

#[test]
fn a_task_begun_before_it_could_be_called_off_is_its_clients() {
    let (world, _) = world("task");
    world.sim.queue.faults.arrange("", 1, Fault::FailButPersist);
    let mut making = world.start_call(tool("up__a").with_tasks());
    while world.sim.queue.waiting() == 0 {
        assert!(making.poll_once().is_none());
    }
    assert_eq!(world.isolate().deliver(), [Consumed::Done]);
    let handle = handle(&making.finish().unwrap());
    assert_eq!(status(&world, &handle), "completed");
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn an_error_too_long_to_keep_is_cut_and_its_task_fails() {
    let long = "x".repeat(3 * 1024 * 1024);
    for (message, data) in [("broke", long.as_str()), (long.as_str(), "why")] {
        for kept in HOSTS {
            let (world, script) = world_on(kept, "task");
            let (message, data) = (message.to_owned(), data.to_owned());
            let error = json!({ "code": -32050, "message": message, "data": data });
            script.on("tools/call", move |heard| {
                let id = &heard.message["id"];
                Said::Refusal(200, json!({ "jsonrpc": "2.0", "id": id, "error": error }))
            });
            let handle = handle(&create(&world));
            finish(&world);
            let told = world.call(get(&handle));
            assert_eq!(told.result()["status"], "failed");
            let error = &told.result()["error"];
            assert_eq!(error["code"], -32050);
            let said = error["message"].as_str().unwrap();
            assert_eq!(said[..5], message[..5]);
            let (cut, dropped) = (said.contains("(cut)"), said.contains("was not kept"));
            assert_eq!((cut, dropped), (message == long, data == long));
            assert_eq!(error["data"].is_null(), data == long);
            assert!(said.len() < 2 * FAILURE_MAX);
        }
    }
}

#[test]
fn a_task_whose_message_was_lost_is_queued_again_by_a_poll() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.sim.queue.take();
    assert_eq!(world.call(get(&handle)).result()["status"], "working");
    assert_eq!(world.sim.queue.waiting(), 0, "not before it had its time");
    world.sim.clock.advance(Duration::from_secs(60));
    assert_eq!(world.call(get(&handle)).result()["status"], "working");
    assert_eq!(world.events("task_abandoned").len(), 1);
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
}

#[test]
fn polling_does_not_flood_the_queue() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.sim.queue.take();
    for _ in 0..100 {
        world.sim.clock.advance(Duration::from_secs(3));
        world.call(get(&handle));
    }
    assert!(
        world.sim.queue.sent() <= 1 + 5,
        "{} messages in five minutes",
        world.sim.queue.sent()
    );
}

#[test]
fn a_poll_is_answered_also_when_the_queue_is_down() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.sim.queue.take();
    world.sim.queue.faults.outage(true);
    world.sim.clock.advance(Duration::from_secs(60));
    assert_eq!(world.call(get(&handle)).result()["status"], "working");
}

#[test]
fn an_upstream_that_comes_back_gets_its_call() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.server("up").down.set(true);
    let Consumed::Retry { after } = world.deliver()[0] else {
        panic!("down")
    };
    world.server("up").down.set(false);
    world.sim.clock.advance(after);
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
}

#[test]
fn a_message_the_queue_gave_up_on_fails_its_task() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.give_up();
    let told = world.call(get(&handle));
    assert_eq!(told.result()["status"], "failed");
    assert!(
        told.result()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("every attempt failed")
    );
    assert_eq!(world.events("task_dead_lettered").len(), 1);
}

#[test]
fn a_message_the_queue_gave_up_on_is_kept_until_it_is_dealt_with() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    let message = world.sim.queue.take().remove(0);
    let give_up = |at: &World| {
        let sent = message.clone();
        at.sim.queue.put_back(sent, Duration::ZERO);
        at.give_up()
    };
    let other = world.isolate();
    other.sim.kv.faults.outage(true);
    let waits = give_up(&other);
    assert!(matches!(waits[..], [Consumed::Retry { .. }]), "{waits:?}");
    other.sim.kv.faults.outage(false);
    // Neither can its record be read, nor another message be sent in place of this one.
    world.sim.atomic.faults.outage(true);
    world.sim.queue.faults.outage(true);
    let waits = give_up(&world);
    assert!(matches!(waits[..], [Consumed::Retry { .. }]), "{waits:?}");
    world.sim.atomic.faults.outage(false);
    world.sim.queue.faults.outage(false);
    assert_eq!(give_up(&world), [Consumed::Done]);
    assert_eq!(world.call(get(&handle)).result()["status"], "failed");
}

#[test]
fn a_dead_letter_does_not_touch_what_has_ended() {
    let (world, _) = world("task");
    world.sim.queue.deliver_times(2);
    let handle = handle(&create(&world));
    let messages = world.sim.queue.take();
    world.consume(&messages[0]);
    world
        .sim
        .queue
        .put_back(messages[1].clone(), Duration::ZERO);
    world.give_up();
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
}

#[test]
fn a_store_out_of_reach_is_said_to_the_client_and_waited_for_by_the_worker() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.sim.atomic.faults.outage(true);
    for ask in [get(&handle), cancel(&handle)] {
        let told = world.call(ask);
        assert_eq!(told.refusal(), (500, -32603));
        assert!(told.error()["data"]["correlationId"].is_string());
    }
    assert!(matches!(world.deliver()[..], [Consumed::Retry { .. }]));
    world.sim.atomic.faults.outage(false);
    world.sim.clock.advance(Duration::from_secs(5));
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
}

#[test]
fn a_cancellation_that_loses_a_race_tries_again() {
    for (fault, times) in [(Fault::Conflict, 3), (Fault::Conflict, 7)] {
        let (world, _) = world("task");
        let handle = handle(&create(&world));
        world.sim.atomic.faults.arrange("task/", times, fault);
        assert_eq!(world.call(cancel(&handle)).status, 200);
        assert_eq!(world.call(get(&handle)).result()["status"], "cancelled");
    }
}

#[test]
fn a_message_that_is_not_ours_is_reported_and_dropped() {
    let (world, _) = world("task");
    for message in [
        &b""[..],
        b"{}",
        b"[]",
        b"\xff",
        br#"{"type":"runTaskV9","task":"x"}"#,
    ] {
        world.forget_log();
        assert_eq!(world.consume(message), Consumed::Done);
        assert_eq!(world.events("message_unreadable").len(), 1);
        world
            .sim
            .queue
            .put_back(message.to_vec().into(), Duration::ZERO);
        world.give_up();
    }
    assert_eq!(
        world.consume(br#"{"type":"runTaskV1","task":"0123"}"#),
        Consumed::Done,
        "of a task long gone"
    );
}

#[test]
fn without_a_configuration_a_message_waits() {
    let (world, _) = world("task");
    create(&world);
    let message = world.sim.queue.take().remove(0);
    let other = world.isolate();
    other.sim.kv.faults.outage(true);
    assert!(matches!(other.consume(&message), Consumed::Retry { .. }));
}

#[test]
fn a_task_of_an_upstream_that_is_no_longer_there_fails_in_words() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    let other = Setup::new()
        .upstream("other", &Script::modern(&["b"]))
        .rule(json!({ "name": "other__b", "execution": "task" }));
    world.sim.kv.publish("config", other.snapshot());
    let fresh = world.isolate();
    assert_eq!(fresh.deliver(), [Consumed::Done]);
    let told = fresh.call(get(&handle));
    assert_eq!(told.result()["status"], "failed");
    assert!(
        told.result()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no longer configured")
    );
}

#[test]
fn a_message_delivered_twice_runs_the_tool_once() {
    for kept in HOSTS {
        let (world, _) = world_on(kept, "task");
        world.sim.queue.deliver_times(3);
        let handle = handle(&create(&world));
        assert_eq!(world.deliver(), [Consumed::Done; 3]);
        assert_eq!(world.count("up", "tools/call"), 1);
        assert_eq!(status(&world, &handle), "completed");
    }
}

#[test]
fn two_workers_at_the_same_time_run_the_tool_once() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| {
            let said = Said::Result(complete(RESULT));
            Said::After(Duration::from_millis(500), Box::new(said))
        });
        let handle = handle(&create(&world));
        let message = world.sim.queue.take().remove(0);
        let other = world.isolate();
        let (mut one, mut two) = (
            world.start_consuming(message.clone()),
            other.start_consuming(message),
        );
        assert!(one.step().is_none());
        let second = two.step();
        assert!(
            matches!(second, Some(Consumed::Retry { .. })),
            "one runs it, the other waits to see: {second:?}"
        );
        assert_eq!(one.finish().unwrap(), Consumed::Done);
        assert_eq!(world.count("up", "tools/call"), 1);
        assert_eq!(status(&world, &handle), "completed");
    }
}

#[test]
fn a_lost_worker_fails_its_task_and_the_tool_is_not_run_again() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| slow(20, "late"));
        let handle = handle(&create(&world));
        let message = world.sim.queue.take().remove(0);
        let mut running = world.start_consuming(message.clone());
        assert!(running.step().is_none());
        lose(&world, running);
        assert_eq!(status(&world, &handle), "working");
        let Consumed::Retry { after } = world.consume(&message) else {
            panic!("the lease is still good")
        };
        world.sim.clock.advance(after);
        assert_eq!(world.consume(&message), Consumed::Done);
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "failed");
        assert!(
            told.result()["error"]["message"]
                .as_str()
                .unwrap()
                .contains("not run again")
        );
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

#[test]
fn a_keeper_lost_after_its_message_was_put_off_is_found_out_by_that_message() {
    let (world, script) = world("task");
    script.on("tools/call", |_| slow(20, "late"));
    let handle = handle(&create(&world));
    assert!(matches!(world.deliver()[..], [Consumed::Retry { .. }]));
    lose_keepers(&world);
    finish(&world);
    assert_eq!(status(&world, &handle), "failed");
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn a_poll_finds_out_that_a_worker_was_lost() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| slow(20, "late"));
        let handle = handle(&create(&world));
        let message = world.sim.queue.take().remove(0);
        let mut running = world.start_consuming(message);
        assert!(running.step().is_none());
        lose(&world, running);
        world.sim.clock.advance(Duration::from_secs(120));
        assert_eq!(status(&world, &handle), "working");
        assert_eq!(world.deliver(), [Consumed::Done]);
        assert_eq!(status(&world, &handle), "failed");
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

#[test]
fn an_upstream_that_cannot_be_reached_is_tried_again_with_growing_pauses_and_then_the_task_fails() {
    for kept in HOSTS {
        let (world, _) = world_on(kept, "task");
        let handle = handle(&create(&world));
        world.server("up").down.set(true);
        let mut pauses = Vec::new();
        while let [Consumed::Retry { after }] = world.deliver()[..] {
            pauses.push(after.as_secs());
            assert!(pauses.len() < 10);
            assert_eq!(status(&world, &handle), "working");
            world.sim.clock.advance(after);
        }
        assert_eq!(pauses, [2, 4, 8, 16], "kept: {kept}");
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "failed");
        let error = &told.result()["error"];
        assert_eq!(error["data"]["reason"], "upstream_unavailable");
    }
}

#[test]
fn an_upstream_that_says_how_long_to_wait_has_that_time_whoever_looks_meanwhile() {
    let wait = Duration::from_secs(300);
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| Said::Later(429, "300"));
        world.sim.queue.deliver_times(2);
        let handle = handle(&create(&world));
        assert_eq!(world.deliver(), [Consumed::Retry { after: wait }; 2]);
        world.sim.queue.deliver_times(1);
        for _ in 1..10 {
            world.sim.clock.advance(wait / 10);
            assert_eq!(status(&world, &handle), "working");
            world.tick();
            assert!(world.deliver().is_empty());
        }
        assert_eq!(logged(&world, "task_abandoned"), 0);
        assert_eq!(world.count("up", "tools/call"), 1, "kept: {kept}");
        script.off("tools/call");
        world.sim.clock.advance(wait / 10);
        assert_eq!(world.deliver(), [Consumed::Done; 2]);
        assert_eq!(status(&world, &handle), "completed");
    }
}

#[test]
fn a_task_whose_put_off_message_was_lost_is_found_once_it_has_been_due_for_a_while() {
    let (world, script) = world("task");
    script.on("tools/call", |_| Said::Later(429, "300"));
    let handle = handle(&create(&world));
    assert!(matches!(world.deliver()[..], [Consumed::Retry { .. }]));
    world.sim.clock.advance(Duration::from_secs(300));
    world.sim.queue.take();
    script.off("tools/call");
    assert_eq!(status(&world, &handle), "working");
    assert_eq!(logged(&world, "task_abandoned"), 0);
    world.sim.clock.advance(START_WITHIN);
    assert_eq!(status(&world, &handle), "working");
    assert_eq!(logged(&world, "task_abandoned"), 1);
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(status(&world, &handle), "completed");
}

#[test]
fn a_call_that_may_have_reached_the_upstream_is_never_repeated() {
    let faults: [(&str, Answer); 3] = [
        ("cut before the head", |_| {
            Said::NoAnswer(HttpError::MaybeSent("cut".to_owned()))
        }),
        ("cut in the body", |_| {
            Said::Stream(vec![Step::Bytes(b"event: mess".to_vec()), Step::Reset])
        }),
        ("too slow", |_| slow(3600, "late")),
    ];
    for (kept, (what, fail)) in HOSTS.into_iter().flat_map(|kept| faults.map(|f| (kept, f))) {
        let (world, script) = world_on(kept, "task");
        let handle = handle(&create(&world));
        script.on("tools/call", fail);
        world.deliver();
        world.sim.queue.deliver_times(2);
        finish(&world);
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "failed", "{what}, kept: {kept}");
        assert_eq!(world.count("up", "tools/call"), 1, "{what}, kept: {kept}");
    }
}

#[test]
fn a_store_that_fails_under_a_run_costs_no_second_run() {
    let faults = [
        (Fault::Fail, 1),
        (Fault::FailButPersist, 1),
        (Fault::Conflict, 1),
        (Fault::Fail, 3),
        (Fault::Fail, 20),
    ];
    for (kept, (fault, times)) in HOSTS.into_iter().flat_map(|kept| faults.map(|f| (kept, f))) {
        let (world, script) = world_on(kept, "task");
        let (faults, asked) = (inner_faults(&world), std::cell::Cell::new(0));
        let pending = faults.clone();
        script.on("tools/call", move |_| {
            asked.set(asked.get() + 1);
            assert_eq!(asked.get(), 1);
            // From now on the store fails: the result is what cannot be written.
            faults.arrange("task/", times, fault);
            Said::Result(complete(RESULT))
        });
        let handle = handle(&create(&world));
        world.deliver();
        world.wait(Duration::from_secs(20));
        assert_eq!(status(&world, &handle), "completed", "{fault:?}");
        assert_eq!(pending.pending(), 0, "{fault:?}: they happened");
        finish(&world);
        assert_eq!(status(&world, &handle), "completed", "{fault:?}");
    }
}

#[test]
fn a_cancellation_while_an_end_cannot_be_written_is_the_only_end_that_is_told() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        let faults = inner_faults(&world);
        script.on("tools/call", move |_| {
            faults.arrange("task/", 3, Fault::Fail);
            Said::Result(complete(RESULT))
        });
        let handle = handle(&create(&world));
        let mut worker = Some(take_up(&world));
        go_on(&world, &mut worker, Duration::from_millis(100));
        assert_eq!(inner_faults(&world).pending(), 1, "it tries again");
        let other = world.isolate();
        assert_eq!(other.call(cancel(&handle)).status, 200);
        go_on(&world, &mut worker, Duration::from_secs(5));
        assert_eq!(status(&world, &handle), "cancelled");
        assert_eq!(other.events("task_ended").len(), 1);
        assert_eq!(logged(&world, "task_ended"), 0, "kept: {kept}");
    }
}

#[test]
fn a_result_that_cannot_be_stored_at_all_is_reported_and_the_task_fails() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        let faults = inner_faults(&world);
        let down = faults.clone();
        script.on("tools/call", move |_| {
            down.outage(true);
            Said::Result(complete(RESULT))
        });
        let handle = handle(&create(&world));
        assert!(
            matches!(world.deliver()[..], [Consumed::Retry { .. }]),
            "its outcome is not stored"
        );
        world.wait(Duration::from_secs(70));
        assert_eq!(logged(&world, "task_outcome_lost"), 1, "kept: {kept}");
        faults.outage(false);
        script.on("tools/call", |_| panic!("run again"));
        finish(&world);
        assert_eq!(status(&world, &handle), "failed");
    }
}

#[test]
fn a_lease_that_may_have_been_written_is_known_by_its_name() {
    for kept in HOSTS {
        let (world, _) = world_on(kept, "task");
        let handle = handle(&create(&world));
        inner_faults(&world).arrange("task/", 1, Fault::FailButPersist);
        assert_eq!(world.deliver(), [Consumed::Done]);
        assert_eq!(inner_faults(&world).pending(), 0);
        assert_eq!(status(&world, &handle), "completed");
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

#[test]
fn a_lease_nobody_knows_of_lapses_and_the_tool_is_not_run() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| panic!("who holds the lease is not known"));
        let handle = handle(&create(&world));
        let faults = inner_faults(&world);
        let down = faults.clone();
        let first = std::cell::Cell::new(true);
        faults.decide(move |_| {
            down.outage(first.get());
            first.replace(false).then_some(Fault::FailButPersist)
        });
        assert!(matches!(world.deliver()[..], [Consumed::Retry { .. }]));
        faults.outage(false);
        finish(&world);
        assert_eq!(status(&world, &handle), "failed");
    }
}

#[test]
fn a_lease_that_was_not_written_is_taken_again() {
    for (kept, times) in HOSTS.into_iter().flat_map(|kept| [(kept, 1), (kept, 8)]) {
        let (world, _) = world_on(kept, "task");
        let handle = handle(&create(&world));
        inner_faults(&world).arrange("task/", times, Fault::Fail);
        match (times, &world.deliver()[..]) {
            (1, [Consumed::Done]) => {}
            (8, [Consumed::Retry { after }]) => {
                world.sim.clock.advance(*after);
                assert_eq!(world.deliver(), [Consumed::Done]);
            }
            (_, consumed) => panic!("{times}: {consumed:?}"),
        }
        assert_eq!(status(&world, &handle), "completed");
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}
