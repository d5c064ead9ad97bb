//! The sweep: tasks nobody runs and nobody polls are found all the same.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use serde_json::json;
use tidegate_gateway::Consumed;
use tidegate_gateway::tasks::sweep::UNBEGUN_FOR;

use crate::tasks::{create, get, handle, record, world};
use crate::tasks_roster::open;
use crate::world::{RESULT, Said, Script, Setup, World, complete, tool};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_task_whose_maker_died_before_the_queue_had_it_is_ended_and_never_run() {
    let (world, script) = world("task");
    script.on("tools/call", |_| panic!("nobody was told of it"));
    let mut making = pin!(world.answering(tool("up__a").with_tasks()));
    let mut context = Context::from_waker(Waker::noop());
    while stored(&world) == 0 {
        assert!(making.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(world.sim.queue.sent(), 0);
    making.set(world.answering(tool("up__a")));
    assert_eq!(stored(&world), 1);
    world.sim.clock.advance(UNBEGUN_FOR - MINUTE);
    world.tick();
    assert_eq!(record(&world)["status"], "working");
    world.sim.clock.advance(MINUTE);
    world.isolate().tick();
    assert_eq!(record(&world)["status"], "failed");
    assert_eq!(world.sim.queue.waiting(), 0);
}

#[test]
fn a_task_whose_first_message_was_lost_is_begun_by_a_poll_or_ended() {
    for polled in [true, false] {
        let (world, _) = world("task");
        let handle = handle(&create(&world));
        assert_eq!(world.sim.queue.take().len(), 1);
        world.sim.clock.advance(UNBEGUN_FOR);
        if polled {
            world.call(get(&handle));
            assert_eq!(world.deliver(), [Consumed::Done]);
        }
        world.tick();
        let told = world.call(get(&handle));
        let status = if polled { "completed" } else { "failed" };
        assert_eq!(told.result()["status"], status);
        assert_eq!(world.count("up", "tools/call"), usize::from(polled));
    }
}

#[test]
fn a_task_given_back_whose_message_was_lost_is_found() {
    let (world, _) = world("task");
    let handle = given_back(&world);
    sweep_completes(&world);
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
}

#[test]
fn a_task_whose_worker_was_lost_ends_though_nobody_polls() {
    for (idempotent, status) in [(true, "completed"), (false, "failed")] {
        let script = Script::modern(&["a"]);
        let world = Setup::new()
            .upstream("up", &script)
            .rule(json!({ "name": "up__a", "execution": "task", "idempotent": idempotent }))
            .start();
        script.on("tools/call", |_| {
            Said::After(20 * MINUTE, Box::new(Said::Result(complete("late"))))
        });
        let handle = handle(&create(&world));
        let message = world.sim.queue.take().remove(0);
        let mut running = world.start_consuming(message);
        assert!(running.step().is_none());
        drop(running);
        for name in world.sim.keeper.names() {
            world.sim.keeper.kill(&name);
        }
        script.on("tools/call", |_| Said::Result(complete(RESULT)));
        world.tick();
        assert_eq!(world.sim.queue.waiting(), 0, "its lease may still be good");
        world.sim.clock.advance(2 * MINUTE);
        world.tick();
        assert_eq!(world.deliver(), [Consumed::Done]);
        assert_eq!(world.call(get(&handle)).result()["status"], status);
        let calls = world.count("up", "tools/call");
        assert_eq!(calls, 1 + usize::from(idempotent));
    }
}

#[test]
fn what_is_well_is_left_alone_and_what_has_ended_is_noted() {
    let (world, _) = world("task");
    create(&world);
    world.deliver();
    create(&world);
    world.tick();
    assert_eq!(open(&world).len(), 2, "too young to be looked at");
    world.sim.clock.advance(MINUTE);
    world.forget_log();
    world.deliver();
    world.tick();
    assert_eq!(open(&world).len(), 0);
    let swept = &world.events("task_swept")[0];
    assert_eq!(
        *swept,
        json!({ "event": "task_swept", "principals": 1, "read": 2, "queued": 0, "notQueued": 0, "ended": 2 })
    );
    let reads = world.sim.atomic.operations("task/");
    world.tick();
    assert_eq!(
        world.sim.atomic.operations("task/"),
        reads,
        "noted, not asked again"
    );
    assert_eq!(world.sim.queue.waiting(), 0);
}

#[test]
fn a_principal_is_entered_once_in_the_lifetime_of_a_task() {
    let (world, _) = world("task");
    let cost = || world.sim.atomic.operations("directory/");
    create(&world);
    assert_eq!(cost(), 2, "read and written");
    for _ in 0..10 {
        world.sim.clock.advance(MINUTE);
        create(&world);
    }
    assert_eq!(cost(), 2);
    let other = world.isolate();
    create(&other);
    assert_eq!(cost(), 3, "another isolate reads");
    world.sim.clock.advance(61 * MINUTE);
    create(&world);
    assert_eq!(cost(), 5);
}

#[test]
fn many_principals_are_swept_in_portions_one_after_the_other() {
    let (world, _) = world("task");
    for client in 0..450 {
        let ask = tool("up__a").with_tasks().by(&format!("client {client}"));
        assert_eq!(world.call(ask).status, 200);
    }
    world.server("up").down.set(true);
    assert_eq!(world.deliver().len(), 450);
    world.sim.clock.advance(MINUTE);
    assert_eq!(world.sim.queue.take().len(), 450, "all lost");
    let portions: Vec<usize> = (0..3)
        .map(|_| {
            // Any isolate may be the next.
            world.isolate().tick();
            world.sim.queue.waiting()
        })
        .collect();
    assert_eq!(portions, [200, 400, 450]);
}

#[test]
fn a_sweep_without_its_store_or_queue_is_reported_and_the_next_one_goes_on() {
    let (world, _) = world("task");
    given_back(&world);
    world.sim.atomic.faults.outage(true);
    world.tick();
    assert_eq!(world.events("task_sweep_failed").len(), 1);
    world.sim.atomic.faults.outage(false);
    world.sim.queue.faults.outage(true);
    world.tick();
    assert_eq!(world.events("task_swept")[0]["notQueued"], 1);
    world.sim.queue.faults.outage(false);
    sweep_completes(&world);
}

#[test]
fn without_tasks_a_sweep_costs_seventeen_reads() {
    let (world, _) = world("task");
    world.tick();
    assert_eq!(world.sim.atomic.operations(""), 17);
    assert_eq!(world.events("task_swept").len(), 0);
}

/// A task whose run was given back, the upstream being down, and whose message is lost.
#[track_caller]
fn given_back(world: &World) -> String {
    let handle = handle(&create(world));
    world.server("up").down.set(true);
    assert!(matches!(world.deliver()[..], [Consumed::Retry { .. }]));
    world.server("up").down.set(false);
    world.sim.clock.advance(MINUTE);
    assert_eq!(world.sim.queue.take().len(), 1);
    handle
}

/// After a while and a sweep the one task runs to its end.
#[track_caller]
fn sweep_completes(world: &World) {
    world.sim.clock.advance(MINUTE);
    world.forget_log();
    world.isolate().tick();
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(world.count("up", "tools/call"), 1);
}

fn stored(world: &World) -> usize {
    let keys = world.sim.atomic.keys().into_iter();
    keys.filter(|key| key.starts_with("task/")).count()
}
