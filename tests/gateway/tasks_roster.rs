//! Which tasks a principal has, and how many it may have.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_simulator::Fault;

use crate::tasks::{cancel, create, handle};
use crate::world::{Ask, Script, Setup, World, tool};

#[test]
fn fifty_clients_of_one_principal_may_create_at_once() {
    for isolates in [1, 5, 50] {
        let world = limited(100);
        let others: Vec<World> = (0..isolates).map(|_| world.isolate()).collect();
        let asks = (0..50).map(|client| others[client % isolates].answering(ask()));
        for told in &world.sim.run(join_all(asks)) {
            assert_eq!(told.result()["status"], "working", "{isolates}: {told:?}");
        }
        assert_eq!(open(&world).len(), 50, "{isolates} isolates");
    }
}

#[test]
fn a_principal_has_as_many_open_tasks_as_it_may() {
    let world = limited(2);
    let first = handle(&create(&world));
    create(&world);
    let refused = world.call(ask());
    assert_eq!(refused.refusal(), (429, -31002));
    assert_eq!(refused.header("retry-after"), "5");
    let data = &refused.error()["data"];
    assert_eq!(
        *data,
        json!({ "reason": "too_many_tasks", "limit": "tasks.maxOpenPerPrincipal", "max": 2, "retryAfterMs": 5000 })
    );
    assert_eq!(world.sim.queue.sent(), 2);
    let other = ask().by("somebody else");
    assert_eq!(
        world.call(other).result()["status"],
        "working",
        "whose limit is their own"
    );
    world.call(cancel(&first));
    assert_eq!(world.call(ask()).result()["status"], "working");
}

#[test]
fn a_task_that_has_ended_is_not_in_the_way_though_nobody_noted_it() {
    let world = limited(2);
    create(&world);
    create(&world);
    world.sim.clock.advance(Duration::from_secs(1));
    assert_eq!(world.deliver(), [Consumed::Done, Consumed::Done]);
    assert_eq!(open(&world).len(), 2, "not noted yet");
    assert_eq!(world.isolate().call(ask()).result()["status"], "working");
    assert_eq!(open(&world).len(), 1);
}

#[test]
fn what_never_became_a_task_is_not_in_the_way_for_long() {
    let world = limited(1);
    // The roster is written, the record is not.
    world.sim.atomic.faults.arrange("task/", 1, Fault::Fail);
    assert_eq!(world.call(ask()).status, 500);
    assert_eq!(open(&world).len(), 1);
    assert_eq!(world.call(ask()).status, 429);
    world.sim.clock.advance(Duration::from_secs(120));
    assert_eq!(world.call(ask()).result()["status"], "working");
}

#[test]
fn an_expired_task_is_not_in_the_way() {
    let world = limited(1);
    create(&world);
    world.sim.clock.advance(Duration::from_secs(3_600));
    create(&world);
    assert_eq!(open(&world).len(), 1);
}

#[test]
fn a_principal_at_its_limit_does_not_cost_a_read_of_every_task_each_time() {
    let world = limited(50);
    for _ in 0..50 {
        create(&world);
    }
    let reads = || world.sim.atomic.operations("task/");
    let before = reads();
    for _ in 0..20 {
        assert_eq!(world.call(ask()).status, 429);
    }
    assert_eq!(reads() - before, 50);
    world.sim.clock.advance(Duration::from_secs(5));
    assert_eq!(world.call(ask()).status, 429);
    assert_eq!(reads() - before, 100);
}

#[test]
fn a_task_costs_one_or_two_operations_of_the_roster() {
    let world = limited(100);
    let cost = || world.sim.atomic.operations("roster/");
    create(&world);
    assert_eq!(cost(), 2, "the first is read and written");
    for _ in 0..10 {
        create(&world);
    }
    assert_eq!(cost(), 12, "the next in the same isolate only written");
}

#[test]
fn a_roster_whose_write_has_an_unknown_outcome_is_read_again() {
    for fault in [Fault::Fail, Fault::FailButPersist, Fault::Conflict] {
        let world = limited(100);
        world.sim.atomic.faults.arrange("roster/", 1, fault);
        create(&world);
        assert_eq!(open(&world).len(), 1, "{fault:?}");
    }
}

#[test]
fn a_store_that_is_down_refuses_new_tasks_but_no_call_that_may_do_without() {
    for (execution, status) in [("task", 500), ("auto", 200)] {
        let world = world(execution, &json!({ "afterMs": 100 }));
        world.list("tools/list");
        world.sim.keeper.missing(true);
        world.sim.atomic.faults.outage(true);
        world.server("up").head_delay.set(Duration::from_secs(5));
        let told = world.call(ask());
        assert_eq!(told.status, status, "{execution}: {told:?}");
        assert_eq!(
            world.count("up", "tools/call"),
            usize::from(status == 200),
            "{told:?}"
        );
    }
}

#[test]
fn an_auto_call_at_the_limit_is_answered_when_it_is_done() {
    let world = world("auto", &json!({ "afterMs": 100, "maxOpenPerPrincipal": 1 }));
    world.server("up").head_delay.set(Duration::from_secs(5));
    assert_eq!(world.call(ask()).result()["resultType"], "task");
    assert_eq!(world.call(ask()).result()["resultType"], "complete");
}

fn limited(max: u32) -> World {
    world("task", &json!({ "maxOpenPerPrincipal": max }))
}

fn world(execution: &str, tasks: &Value) -> World {
    Setup::new()
        .upstream("up", &Script::modern(&["a"]))
        .rule(json!({ "name": "up__a", "execution": execution }))
        .config(&json!({ "tasks": tasks }))
        .start()
}

fn ask() -> Ask {
    tool("up__a").with_tasks()
}

/// The ids in all rosters that are not known to have ended.
pub fn open(world: &World) -> Vec<String> {
    let keys = world.sim.atomic.keys().into_iter();
    let rosters = keys
        .filter(|key| key.starts_with("roster/"))
        .filter_map(|key| world.sim.atomic.stored(&key));
    rosters
        .flat_map(|roster| {
            let roster: Value = serde_json::from_slice(&roster).unwrap();
            roster["tasks"].as_array().unwrap().clone()
        })
        .filter(|task| task["ended"] != true)
        .map(|task| task["id"].as_str().unwrap().to_owned())
        .collect()
}
