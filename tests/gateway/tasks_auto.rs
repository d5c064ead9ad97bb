//! `execution: auto`: a call that is answered directly if it is quick, and else becomes a
//! task without being made twice.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::platform::{Clock, Platform};
use tidegate_simulator::{End, Faults};

use crate::tasks::{
    HOSTS, finish, get, handle, inner_faults, logged, lose_keepers, record, slow, status, world_on,
    world_with,
};
use crate::world::{RESULT, Said, Step, Told, World, complete, tool};

#[test]
fn a_quick_call_is_answered_directly_and_leaves_nothing() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "auto");
        script.on("tools/call", |_| slow(9, RESULT));
        let told = world.call(tool("up__a").with_tasks());
        assert_eq!(told.result()["resultType"], "complete");
        assert_eq!(told.said(), RESULT);
        world.settle();
        assert_eq!(world.sim.atomic.operations("task"), 0);
        assert_eq!(world.sim.queue.sent(), 0);
        assert_eq!(world.count("up", "tools/call"), 1);
        assert!(
            world
                .sim
                .keeper
                .names()
                .iter()
                .all(|n| !world.sim.keeper.is_busy(n))
        );
    }
}

#[test]
fn a_slow_call_becomes_a_task_when_its_time_is_over_and_the_tool_runs_once() {
    for (kept, after) in HOSTS
        .into_iter()
        .flat_map(|kept| [(kept, None), (kept, Some(2000))])
    {
        let (world, script) = world_with(kept, rule(after));
        script.on("tools/call", |_| slow(30, RESULT));
        let begun = world.sim.clock.now();
        let created = world.call(tool("up__a").with_tasks());
        let took = world.sim.clock.now().since(begun).as_millis();
        let threshold = u128::from(after.unwrap_or(10_000));
        assert!((threshold..threshold + 100).contains(&took), "{took} ms");
        assert_eq!(created.result()["resultType"], "task");
        let handle = handle(&created);
        assert_eq!(status(&world.isolate(), &handle), "working");
        world.wait(Duration::from_secs(30));
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "completed");
        assert_eq!(told.result()["result"]["content"][0]["text"], RESULT);
        finish(&world);
        assert_eq!(status(&world, &handle), "completed");
        assert_eq!(world.count("up", "tools/call"), 1);
        assert_eq!(logged(&world, "task_ended"), 1);
    }
}

#[test]
fn whoever_does_not_take_tasks_waits_for_the_answer() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "auto");
        script.on("tools/call", |_| slow(20, RESULT));
        assert_eq!(world.call(tool("up__a")).said(), RESULT);
        assert_eq!(world.sim.queue.sent(), 0);
    }
}

#[test]
fn a_task_that_cannot_be_made_costs_nothing_but_the_task() {
    for (kept, queue) in HOSTS
        .into_iter()
        .flat_map(|kept| [(kept, true), (kept, false)])
    {
        let (world, script) = world_on(kept, "auto");
        script.on("tools/call", |_| slow(30, RESULT));
        match queue {
            true => queue_faults(&world).outage(true),
            false => inner_faults(&world).outage(true),
        }
        let told = world.call(tool("up__a").with_tasks());
        assert_eq!(told.said(), RESULT, "kept: {kept}, queue: {queue}");
        assert_eq!(world.count("up", "tools/call"), 1);
        assert_eq!(logged(&world, "task_not_made"), 1);
        if queue {
            assert_eq!(record(&world)["status"], "failed", "nobody runs it again");
        }
    }
}

#[test]
fn a_keeper_that_dies_before_it_is_a_task_is_an_error_and_the_tool_is_not_run_again() {
    let (world, script) = world_on(true, "auto");
    script.on("tools/call", |_| slow(30, RESULT));
    let mut answer = world.start(tool("up__a").with_tasks());
    assert!(answer.step().is_none());
    world.sim.clock.advance(Duration::from_secs(3));
    assert!(answer.step().is_none());
    lose_keepers(&world);
    let told = world.sim.run(Told::read(answer.finish().unwrap()));
    assert_eq!(told.refusal(), (500, -32603));
    world.wait(Duration::from_secs(100));
    assert_eq!(world.count("up", "tools/call"), 1);
    assert_eq!(
        (world.sim.queue.sent(), world.sim.atomic.operations("task")),
        (0, 0)
    );
}

#[test]
fn a_keeper_that_cannot_be_reached_is_an_error_and_the_tool_is_not_run_here() {
    let (world, script) = world_on(true, "auto");
    script.on("tools/call", |_| panic!("it may be run already"));
    world.sim.keeper.faults.outage(true);
    let told = world.call(tool("up__a").with_tasks());
    assert_eq!(told.refusal(), (500, -32603));
}

#[test]
fn a_worker_lost_after_it_became_a_task_fails_it() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "auto");
        script.on("tools/call", |_| slow(30, RESULT));
        let handle = handle(&world.call(tool("up__a").with_tasks()));
        world.wait(Duration::from_secs(5));
        lose_keepers(&world);
        world.lose_deferred();
        assert_eq!(status(&world, &handle), "working");
        finish(&world);
        assert_eq!(status(&world, &handle), "failed");
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

#[test]
fn progress_reaches_the_client_until_it_is_a_task_and_whoever_polls_after_that() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "auto");
        script.on("tools/call", |heard| {
            Said::Stream(vec![
                Step::Wait(Duration::from_secs(1)),
                Step::Send(heard.progress(1)),
                Step::Wait(Duration::from_secs(15)),
                Step::Send(heard.progress(2)),
                Step::Wait(Duration::from_secs(15)),
                Step::Send(heard.response(&complete(RESULT))),
            ])
        });
        let told = world.call(
            tool("up__a")
                .with_tasks()
                .meta("progressToken", json!("mine")),
        );
        assert_eq!(told.notifications(), ["notifications/progress"]);
        assert_eq!(
            told.messages[0]["params"],
            json!({ "progressToken": "mine", "progress": 1 })
        );
        let handle = handle(&told);
        world.wait(Duration::from_secs(10));
        assert_eq!(world.call(get(&handle)).result()["statusMessage"], "2");
        world.wait(Duration::from_secs(20));
        assert_eq!(status(&world, &handle), "completed");
    }
}

#[test]
fn a_client_that_goes_before_it_is_a_task_ends_the_call_and_after_that_it_goes_on() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "auto");
        script.on("tools/call", |_| slow(30, RESULT));
        let mut answer = world.start(tool("up__a").with_tasks());
        assert!(answer.step().is_none());
        world.sim.clock.advance(Duration::from_secs(3));
        assert!(answer.step().is_none());
        drop(answer);
        world.wait(Duration::from_secs(60));
        assert_eq!(ends(&world), [End::Cancelled]);
        assert_eq!(
            (world.sim.queue.sent(), world.sim.atomic.operations("task")),
            (0, 0)
        );

        let handle = handle(&world.call(tool("up__a").with_tasks()));
        world.wait(Duration::from_secs(60));
        assert_eq!(ends(&world), [End::Cancelled, End::Complete]);
        assert_eq!(status(&world.isolate(), &handle), "completed");
    }
}

fn rule(after: Option<u64>) -> Value {
    let mut rule = json!({ "execution": "auto" });
    if let Some(after) = after {
        rule["taskAfterMs"] = after.into();
    }
    rule
}

/// What goes wrong when whoever runs tasks sends a message.
fn queue_faults(world: &World) -> Faults {
    match world.sim.keeper().is_some() {
        true => world.sim.keeper.inner_faults().1,
        false => world.sim.queue.faults.clone(),
    }
}

/// How the calls ended.
fn ends(world: &World) -> Vec<End> {
    let calls = world.exchanges("up").into_iter();
    let calls = calls.filter(|e| String::from_utf8_lossy(&e.body()).contains("tools/call"));
    calls.map(|call| call.end()).collect()
}
