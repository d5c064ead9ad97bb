//! Tasks when stores, queue, workers and upstreams fail.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_simulator::Fault;

use crate::tasks::{cancel, create, get, handle, world};
use crate::world::{Blow, RESULT, Said, Script, Setup, World, complete, tool};

#[test]
fn no_handle_is_given_for_a_record_that_is_not_known_to_be_there() {
    for fault in [Fault::Fail, Fault::FailButPersist, Fault::Conflict] {
        let (world, _) = world("task");
        world.sim.atomic.faults.arrange("task/", 1, fault);
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
        let record = only_record(&world);
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
fn a_message_delivered_twice_runs_the_tool_once() {
    let (world, _) = world("task");
    world.sim.queue.deliver_times(3);
    let handle = handle(&create(&world));
    assert_eq!(world.deliver(), [Consumed::Done; 3]);
    assert_eq!(world.count("up", "tools/call"), 1);
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
}

#[test]
fn two_workers_at_the_same_time_run_the_tool_once() {
    let (world, script) = world("task");
    script.on("tools/call", |_| {
        Said::After(
            Duration::from_secs(1),
            Box::new(Said::Result(complete(RESULT))),
        )
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
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
}

#[test]
fn a_lost_worker_fails_its_task_and_the_tool_is_not_run_again() {
    let (world, script) = world("task");
    script.on("tools/call", |_| {
        Said::After(
            Duration::from_secs(20),
            Box::new(Said::Result(complete("late"))),
        )
    });
    let handle = handle(&create(&world));
    let message = world.sim.queue.take().remove(0);
    let mut running = world.start_consuming(message.clone());
    assert!(running.step().is_none());
    drop(running);
    assert_eq!(world.call(get(&handle)).result()["status"], "working");
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

#[test]
fn a_poll_finds_out_that_a_worker_was_lost() {
    let (world, script) = world("task");
    script.on("tools/call", |_| {
        Said::After(
            Duration::from_secs(20),
            Box::new(Said::Result(complete("late"))),
        )
    });
    let handle = handle(&create(&world));
    let message = world.sim.queue.take().remove(0);
    let mut running = world.start_consuming(message);
    assert!(running.step().is_none());
    drop(running);
    world.sim.clock.advance(Duration::from_secs(120));
    assert_eq!(world.call(get(&handle)).result()["status"], "working");
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(world.call(get(&handle)).result()["status"], "failed");
    assert_eq!(world.count("up", "tools/call"), 1);
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
fn an_upstream_that_cannot_be_reached_is_tried_again_with_growing_pauses_and_then_the_task_fails() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.server("up").down.set(true);
    let mut pauses = Vec::new();
    for attempt in 1..=10 {
        let [consumed] = world.deliver()[..] else {
            panic!("one message")
        };
        match consumed {
            Consumed::Done => break,
            Consumed::Retry { after } => {
                pauses.push(after.as_secs());
                assert_eq!(world.call(get(&handle)).result()["status"], "working");
                world.sim.clock.advance(after);
            }
        }
    }
    assert_eq!(pauses, [2, 4, 8, 16]);
    let told = world.call(get(&handle));
    assert_eq!(told.result()["status"], "failed");
    assert_eq!(
        told.result()["error"]["data"]["reason"],
        "upstream_unavailable"
    );
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
fn a_call_that_may_have_reached_the_upstream_is_never_repeated() {
    let faults: [(&str, Blow); 3] = [
        ("cut before the head", |world| {
            world.server("up").cut_before_head.set(true)
        }),
        ("cut in the body", |world| {
            world.server("up").cut_after.set(Some(10))
        }),
        ("too slow", |world| {
            world.server("up").head_delay.set(Duration::from_secs(3600))
        }),
    ];
    for (what, fail) in faults {
        let (world, _) = world("task");
        assert_eq!(world.list("tools/list"), ["up__a"]);
        let handle = handle(&create(&world));
        fail(&world);
        assert_eq!(world.deliver(), [Consumed::Done], "{what}");
        world.sim.queue.deliver_times(2);
        world.deliver();
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "failed", "{what}");
        assert_eq!(world.count("up", "tools/call"), 1, "{what}");
    }
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
fn a_store_that_fails_under_a_run_costs_no_second_run() {
    for (fault, times) in [
        (Fault::Fail, 1),
        (Fault::FailButPersist, 1),
        (Fault::Conflict, 1),
        (Fault::Fail, 3),
    ] {
        let (world, script) = world("task");
        let (sim, asked) = (std::rc::Rc::clone(&world.sim), std::cell::Cell::new(0));
        script.on("tools/call", move |_| {
            asked.set(asked.get() + 1);
            assert_eq!(asked.get(), 1);
            // From now on the store fails: the result is what cannot be written.
            sim.atomic.faults.arrange("task/", times, fault);
            Said::Result(complete(RESULT))
        });
        let handle = handle(&create(&world));
        assert_eq!(world.deliver(), [Consumed::Done], "{fault:?}");
        assert_eq!(
            world.call(get(&handle)).result()["status"],
            "completed",
            "{fault:?}"
        );
    }
}

#[test]
fn a_result_that_cannot_be_stored_at_all_is_reported_and_the_task_fails() {
    let (world, script) = world("task");
    let sim = std::rc::Rc::clone(&world.sim);
    script.on("tools/call", move |_| {
        sim.atomic.faults.outage(true);
        Said::Result(complete(RESULT))
    });
    let handle = handle(&create(&world));
    let Consumed::Retry { after } = world.deliver()[0] else {
        panic!("its outcome is not stored")
    };
    assert_eq!(world.events("task_outcome_lost").len(), 1);
    world.sim.atomic.faults.outage(false);
    script.on("tools/call", |_| panic!("run again"));
    world.sim.clock.advance(after);
    while let [Consumed::Retry { after }] = world.deliver()[..] {
        world.sim.clock.advance(after);
    }
    assert_eq!(world.call(get(&handle)).result()["status"], "failed");
}

#[test]
fn a_lease_that_may_have_been_written_is_respected() {
    let (world, script) = world("task");
    script.on("tools/call", |_| panic!("who holds the lease is not known"));
    let handle = handle(&create(&world));
    world
        .sim
        .atomic
        .faults
        .arrange("task/", 1, Fault::FailButPersist);
    let mut attempt = 1;
    while let [Consumed::Retry { after }] = world.deliver()[..] {
        world.sim.clock.advance(after);
        attempt += 1;
    }
    assert_eq!(world.call(get(&handle)).result()["status"], "failed");
}

#[test]
fn a_lease_that_was_not_written_is_taken_again() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.sim.atomic.faults.arrange("task/", 1, Fault::Fail);
    let Consumed::Retry { after } = world.deliver()[0] else {
        panic!("the store failed")
    };
    world.sim.clock.advance(after);
    assert_eq!(world.deliver(), [Consumed::Done]);
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

fn only_record(world: &World) -> Value {
    let mut keys = world.sim.atomic.keys();
    keys.retain(|key| key.starts_with("task/"));
    assert_eq!(keys.len(), 1);
    serde_json::from_slice(&world.sim.atomic.stored(&keys[0]).unwrap()).unwrap()
}
