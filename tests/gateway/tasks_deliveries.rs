//! What becomes of tasks whose messages are late or out of order, and of those whose makers
//! and workers die at any of their writes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tidegate_gateway::Consumed;
use tidegate_simulator::{Fault, Faults};

use crate::tasks::{HOSTS, create, finish, get, handle, lose_keepers, status, world_on};
use crate::tasks_passed::Minting;
use crate::world::{RESULT, Said, Script, Step, Told, World, complete, tool};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_message_that_comes_late_runs_its_task_all_the_same() {
    for kept in HOSTS {
        let (world, _) = world_on(kept, "task");
        world.sim.queue.delay(10 * MINUTE);
        let handle = handle(&create(&world));
        for _ in 0..9 {
            world.sim.clock.advance(MINUTE);
            assert_eq!(world.deliver(), []);
        }
        world.sim.clock.advance(MINUTE);
        assert_eq!(world.deliver(), [Consumed::Done]);
        assert_eq!(status(&world, &handle), "completed");
    }
}

#[test]
fn a_late_message_and_those_of_polls_run_the_tool_once() {
    for kept in HOSTS {
        let (world, _) = world_on(kept, "task");
        world.sim.queue.delay(10 * MINUTE);
        let handle = handle(&create(&world));
        for _ in 0..9 {
            world.sim.clock.advance(MINUTE);
            assert_eq!(status(&world, &handle), "working");
        }
        assert!(world.sim.queue.waiting() > 1, "a poll cannot know");
        world.sim.clock.advance(20 * MINUTE);
        finish(&world);
        assert_eq!(status(&world, &handle), "completed");
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

#[test]
fn messages_in_any_order_run_each_tool_once() {
    for kept in HOSTS {
        let (world, _) = world_on(kept, "task");
        world.sim.queue.reverse(true);
        world.sim.queue.deliver_times(2);
        let made: Vec<_> = (0..5).map(|_| handle(&create(&world))).collect();
        let mut messages = world.sim.queue.take();
        messages.rotate_left(3);
        for message in &messages {
            assert_eq!(world.consume(message), Consumed::Done);
        }
        assert!(made.iter().all(|made| status(&world, made) == "completed"));
        assert_eq!(world.count("up", "tools/call"), 5);
    }
}

/// What the tool does.
type Habit = fn() -> Script;

const HABITS: [(&str, Habit); 3] = [
    ("quick", || Script::modern(&["a"])),
    ("with progress", || {
        let script = Script::modern(&["a"]);
        script.on("tools/call", |heard| {
            Said::Stream(vec![
                Step::Send(heard.progress(1)),
                Step::Wait(Duration::from_secs(30)),
                Step::Send(heard.response(&complete(RESULT))),
            ])
        });
        script
    }),
    ("a task of its own", || {
        let minting = Minting::new();
        minting.shows(json!({ "status": "completed", "result": complete(RESULT) }));
        minting.script
    }),
];

#[test]
fn a_crash_before_or_after_any_write_loses_no_task_and_runs_no_tool_twice() {
    for kept in HOSTS {
        for (name, habit) in HABITS {
            for fault in [Fault::Silent, Fault::SilentButPersist] {
                let lives = (1..).take_while(|at| {
                    let what = format!("{name}, kept: {kept}, {fault:?} {at}");
                    live(kept, habit, (*at, fault), &what)
                });
                // Roster, directory, record, message; lease and outcome.
                assert!(lives.count() >= 6, "{name}, kept: {kept}");
            }
        }
    }
}

/// The life of a task in which whoever does the numbered write dies of it. Gives whether there
/// was such a write.
fn live(kept: bool, habit: Habit, (at, fault): (usize, Fault), what: &str) -> bool {
    let world = crate::world::Setup::new()
        .upstream("up", &habit())
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .start();
    world.sim.keeper.missing(!kept);
    let worker = world.isolate();
    let written = Rc::new(Cell::new(0));
    let faults = all_faults(&world, &worker);
    for faults in &faults {
        let written = Rc::clone(&written);
        faults.decide(move |_| {
            written.set(written.get() + 1);
            (written.get() == at).then_some(fault)
        });
    }
    let mut making = world.start_call(tool("up__a").with_tasks());
    let made = making.step();
    drop(making);
    let handle = made.as_ref().map(handle);
    if handle.is_some() {
        work(&worker, || written.get() >= at);
    }
    let died = written.get() >= at;
    lose_keepers(&world);
    world.lose_deferred();
    worker.lose_deferred();
    for faults in &faults {
        faults.decide(|_| None);
    }
    recover(&world);
    let ran = world.count("up", "tools/call");
    assert!(ran <= 1, "{what}: the tool ran {ran} times");
    if let Some(handle) = &handle {
        let told: Told = world.isolate().call(get(handle));
        let status = told.result()["status"].as_str().unwrap();
        assert!(
            ["completed", "failed"].contains(&status),
            "{what}: {told:?}"
        );
        assert!(died || status == "completed", "{what}: {told:?}");
    }
    died
}

fn all_faults(world: &World, worker: &World) -> Vec<Faults> {
    let (atomic, queue) = world.sim.keeper.inner_faults();
    let own = [world, worker].into_iter();
    let own = own.flat_map(|of| [&of.sim.atomic.faults, &of.sim.queue.faults]);
    own.cloned().chain([atomic, queue]).collect()
}

/// Works on what the queue has until that is done or the worker dies.
fn work(worker: &World, dead: impl Fn() -> bool) {
    for message in worker.sim.queue.take() {
        let mut run = worker.start_consuming(message.clone());
        for _ in 0..800 {
            match run.step() {
                Some(Consumed::Done) => return,
                Some(Consumed::Retry { after }) => {
                    worker.sim.queue.put_back(message, after);
                    break;
                }
                None if dead() => {
                    worker.sim.queue.put_back(message, MINUTE);
                    return;
                }
                None => worker.sim.clock.advance(Duration::from_millis(100)),
            }
        }
    }
    // Its keeper goes on.
    for _ in 0..800 {
        if dead() {
            return;
        }
        worker.step_deferred();
        worker.sim.clock.advance(Duration::from_millis(100));
    }
}

/// Whatever is left is found by messages and sweeps, though nobody polls.
fn recover(world: &World) {
    for _ in 0..5 {
        world.sim.clock.advance(MINUTE * 2);
        world.isolate().tick();
        finish(world);
    }
}
