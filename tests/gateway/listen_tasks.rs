//! Listening to tasks: whose are acknowledged, what is told of them, and until when.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_gateway::tasks::watch::WATCHED_MAX;

use crate::converse::talk::{VERSION, asking, form, name, requiring};
use crate::listen::{ACKNOWLEDGED, ID, Listener, listen};
use crate::tasks::{cancel, create, get, handle, world};
use crate::tasks_passed::{Minting, made};
use crate::world::{Ask, RESULT, Said, Script, Setup, Step, complete, modern, tool};

const CHANGED: &str = "notifications/tasks";

#[test]
fn a_listener_hears_its_task_out_as_a_get_would_show_it() {
    for (said, status) in [
        (Said::Result as fn(Value) -> Said, "completed"),
        (|_| Said::Error(-32603), "failed"),
    ] {
        let (world, script) = world("task");
        script.on("tools/call", move |_| said(complete(RESULT)));
        let task = handle(&create(&world));
        let mut live = Listener::open(&world, tasks(&[&task]).id(json!("mine")));
        let honoured = json!({ "taskIds": [task] });
        let acknowledged = json!({ "notifications": honoured, "_meta": { ID: "mine" } });
        assert_eq!(live.heard(), [(ACKNOWLEDGED.to_owned(), acknowledged)]);
        world.sim.clock.advance(Duration::from_secs(2));
        assert_eq!(world.isolate().deliver(), [Consumed::Done]);
        let [(method, told)] = &live.heard()[..] else {
            panic!("it ends once");
        };
        assert_eq!(method, CHANGED);
        let mut shown = world.call(get(&task)).result().clone();
        shown.as_object_mut().unwrap().shift_remove("resultType");
        shown["_meta"] = json!({ ID: "mine" });
        assert_eq!((told, &told["status"]), (&shown, &json!(status)));
        world.sim.clock.advance(Duration::from_secs(120));
        assert_eq!(live.methods(), [""; 0], "nothing follows the end");
    }
}

#[test]
fn every_change_is_told_and_who_runs_the_task_is_not() {
    let (script, _) = asking(&[("elicitation/create", form())]);
    let world = Setup::new()
        .upstream("up", &script)
        .rule(json!({ "name": "up__ask", "execution": "task" }))
        .start();
    let declared = json!({ "elicitation": {}, "extensions": { crate::tasks::TASKS: {} } });
    let task = handle(&world.call(tool("up__ask").meta("clientCapabilities", declared)));
    let mut live = Listener::open(&world, tasks(&[&task]));
    live.acknowledged();
    world.deliver();
    let asked = told(&mut live);
    let asked = asked.last().unwrap().clone();
    assert_eq!(asked["status"], "input_required");
    let (key, request) = asked["inputRequests"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    assert_eq!(request["method"], "elicitation/create");
    // The run renews its lease meanwhile.
    for _ in 0..12 {
        world.sim.clock.advance(Duration::from_secs(10));
        assert!(told(&mut live).is_empty());
    }
    let answers = json!({ "taskId": task, "inputResponses": { key: name("Ada") } });
    world
        .isolate()
        .call(modern("tasks/update", answers).with_tasks());
    let mut last = Vec::new();
    for _ in 0..20 {
        last.extend(told(&mut live));
        world.sim.clock.advance(Duration::from_millis(500));
    }
    let statuses: Vec<_> = last
        .iter()
        .map(|told| told["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses.last(), Some(&"completed"), "{statuses:?}");
    assert!(
        statuses
            .iter()
            .rev()
            .skip(1)
            .all(|status| *status == "working"),
        "{statuses:?}"
    );
}

#[test]
fn progress_is_told_as_the_status_message() {
    let (world, script) = world("task");
    script.on("tools/call", |heard| {
        Said::Stream(vec![
            Step::Send(heard.progress(1)),
            Step::Wait(Duration::from_secs(5)),
            Step::Send(heard.progress(2)),
            Step::Wait(Duration::from_secs(5)),
            Step::Send(heard.response(&complete("done"))),
        ])
    });
    let task = handle(&create(&world));
    let mut live = Listener::open(&world, tasks(&[&task]));
    live.acknowledged();
    world.deliver();
    let mut messages = Vec::new();
    for _ in 0..30 {
        messages.extend(told(&mut live));
        world.sim.clock.advance(Duration::from_millis(500));
    }
    let notes: Vec<_> = messages
        .iter()
        .map(|told| told["statusMessage"].as_str().unwrap_or(""))
        .collect();
    assert!(notes.contains(&"1") && notes.contains(&"2"), "{notes:?}");
    assert_eq!(messages.last().unwrap()["status"], "completed");
}

#[test]
fn what_can_no_longer_be_missed_is_told_at_once() {
    let (world, _) = world("task");
    let (done, cancelled) = (handle(&create(&world)), handle(&create(&world)));
    world.call(cancel(&cancelled));
    world.deliver();
    let mut live = Listener::open(&world, tasks(&[&done, &cancelled]));
    let heard = live.heard();
    assert_eq!(heard[0].0, ACKNOWLEDGED, "first");
    let mut statuses: Vec<_> = heard[1..]
        .iter()
        .map(|(_, told)| told["status"].clone())
        .collect();
    statuses.sort_by_key(ToString::to_string);
    assert_eq!(statuses, ["cancelled", "completed"]);

    let script = requiring(json!({ "k": { "method": "elicitation/create", "params": form() } }));
    let world = Setup::new()
        .upstream("up", &script)
        .rule(json!({ "name": "up__ask", "execution": "task" }))
        .start();
    let declared = json!({ "elicitation": {}, "extensions": { crate::tasks::TASKS: {} } });
    let asks = handle(&world.call(tool("up__ask").meta("clientCapabilities", declared)));
    world.deliver();
    let mut live = Listener::open(&world, tasks(&[&asks]));
    let heard = live.heard();
    assert_eq!(
        heard[1].1["status"], "input_required",
        "its client may not know yet"
    );
}

#[test]
fn only_tasks_of_the_listeners_own_are_acknowledged() {
    let (world, _) = world("task");
    let own = handle(&create(&world));
    let foreign = handle(&world.call(tool("up__a").with_tasks().by("ben")));
    let ids = [own.as_str(), foreign.as_str(), "forged", ""];
    let mut live = Listener::open(&world, tasks(&ids));
    assert_eq!(live.acknowledged(), json!({ "taskIds": [own] }));
    let mut live = Listener::open(&world, tasks(&[&foreign, "forged"]));
    assert_eq!(live.acknowledged(), json!({}));
    world.deliver();
    assert_eq!(live.methods(), [""; 0]);
    world.sim.clock.advance(Duration::from_secs(3_600));
    let mut live = Listener::open(&world, tasks(&[&own]));
    assert_eq!(live.acknowledged(), json!({}), "its time is over");
}

#[test]
fn tasks_of_upstreams_have_to_be_polled() {
    let world = Minting::new().world(&json!({}));
    let passed = handle(&made(&world));
    let mut live = Listener::open(&world, tasks(&[&passed]));
    assert_eq!(live.acknowledged(), json!({}));
}

#[test]
fn one_listener_is_told_of_so_many_tasks_and_no_more() {
    let (world, _) = world("task");
    let made: Vec<String> = (0..WATCHED_MAX + 2)
        .map(|_| handle(&create(&world)))
        .collect();
    let ids: Vec<&str> = made.iter().map(String::as_str).collect();
    let mut live = Listener::open(&world, tasks(&ids));
    let honoured = live.acknowledged()["taskIds"].as_array().unwrap().clone();
    assert_eq!(honoured.len(), WATCHED_MAX);
    world.deliver();
    let told = told(&mut live);
    assert_eq!(told.len(), WATCHED_MAX, "each once");
    assert!(told.iter().all(|told| honoured.contains(&told["taskId"])));
}

#[test]
fn tasks_and_lists_are_listened_to_on_one_stream() {
    let script = Script::modern(&["a"]);
    let bell = crate::world::Bell::modern(&script);
    let world = Setup::new()
        .upstream("up", &script)
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .start();
    let task = handle(&create(&world));
    let filter = json!({ "toolsListChanged": true, "taskIds": [task] });
    let mut live = Listener::open(&world, listen(filter.clone()).with_tasks());
    assert_eq!(live.acknowledged(), filter);
    let theirs = &world.bodies("up", "subscriptions/listen")[0]["params"]["notifications"];
    assert_eq!(
        *theirs,
        json!({ "toolsListChanged": true }),
        "the task is the gateway's"
    );
    bell.ring("notifications/tools/list_changed", json!({}));
    assert_eq!(live.methods(), ["notifications/tools/list_changed"]);
    world.deliver();
    assert_eq!(live.methods(), [CHANGED]);
    bell.ring("notifications/tools/list_changed", json!({}));
    assert_eq!(live.methods(), ["notifications/tools/list_changed"]);
}

#[test]
fn a_task_that_cannot_be_read_is_not_acknowledged() {
    let (world, _) = world("task");
    let task = handle(&create(&world));
    world.sim.atomic.faults.outage(true);
    let mut live = Listener::open(&world, tasks(&[&task]));
    assert_eq!(live.acknowledged(), json!({}));
}

#[test]
fn a_store_that_fails_for_a_while_costs_a_listener_nothing() {
    let (world, _) = world("task");
    let task = handle(&create(&world));
    let mut live = Listener::open(&world, tasks(&[&task]));
    live.acknowledged();
    world.sim.clock.advance(Duration::from_secs(24));
    live.step();
    let other = world.isolate();
    world.sim.atomic.faults.outage(true);
    world.sim.clock.advance(Duration::from_secs(2));
    live.step();
    assert_eq!(other.deliver(), [Consumed::Done]);
    world.sim.atomic.faults.outage(false);
    let mut heard = Vec::new();
    for _ in 0..20 {
        heard.extend(told(&mut live));
        world.sim.clock.advance(Duration::from_millis(500));
    }
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0]["status"], "completed");
}

#[test]
fn legacy_clients_are_told_of_no_tasks() {
    let (world, _) = world("task");
    let params = json!({ "protocolVersion": VERSION, "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
    let told = world.call(crate::world::legacy(VERSION, "initialize", params));
    let session = told.header("mcp-session-id").to_owned();
    let get = Ask::http("GET", "/mcp").header("mcp-session-id", &session);
    let mut live = Listener::open(&world, get);
    create(&world);
    world.deliver();
    assert_eq!(live.methods(), [""; 0]);
}

fn tasks(ids: &[&str]) -> Ask {
    listen(json!({ "taskIds": ids })).with_tasks()
}

/// What has been told of tasks by now.
#[track_caller]
fn told(live: &mut Listener) -> Vec<Value> {
    let heard = live.heard().into_iter();
    heard
        .map(|(method, params)| {
            assert_eq!(method, CHANGED);
            params
        })
        .collect()
}
