//! Tasks: a durable handle first, the work from the queue, the result by polling.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_gateway::platform::{Clock, Platform};
use tidegate_simulator::{End, Faults, Running};

use crate::world::{
    ARGUMENT, Ask, RESULT, Said, Script, Setup, Told, World, complete, legacy, modern, tool,
};

pub const TASKS: &str = "io.modelcontextprotocol/tasks";

#[test]
fn a_call_becomes_a_task_that_is_worked_on_and_completed() {
    let (world, _) = world("task");
    let created = create(&world);
    let result = created.result();
    assert_eq!(
        (&result["resultType"], &result["status"]),
        (&json!("task"), &json!("working"))
    );
    assert_eq!(result["ttlMs"], 3_600_000);
    assert!(result["pollIntervalMs"].is_u64());
    assert_eq!(
        result["createdAt"],
        "2026-07-28T00:00:00.000Z".replace(".000Z", &result["createdAt"].as_str().unwrap()[19..])
    );
    for absent in [
        "result",
        "error",
        "inputRequests",
        "requestState",
        "task",
        "content",
    ] {
        assert!(result.get(absent).is_none(), "{absent}");
    }
    assert_eq!(world.count("up", "tools/call"), 0, "nothing ran yet");
    assert_eq!(world.audits().pop().unwrap()["outcome"], "task");

    let working = world.call(get(&handle(&created)));
    assert_eq!(
        (&working.result()["resultType"], &working.result()["status"]),
        (&json!("complete"), &json!("working"))
    );
    world.sim.clock.advance(Duration::from_secs(2));
    assert_eq!(world.deliver(), [Consumed::Done]);
    let done = world.call(get(&handle(&created)));
    assert_eq!(done.result()["status"], "completed");
    assert_eq!(
        done.result()["result"]["content"][0]["text"],
        format!("{RESULT} a")
    );
    assert_eq!(done.result()["result"]["resultType"], "complete");
    assert_eq!(done.result()["taskId"], created.result()["taskId"]);
    assert_ne!(done.result()["lastUpdatedAt"], done.result()["createdAt"]);
    assert_eq!(
        world.bodies("up", "tools/call")[0]["params"]["arguments"]["q"],
        ARGUMENT
    );
}

#[test]
fn the_rule_and_the_client_decide_together() {
    for (execution, declared, became) in [
        ("sync", true, false),
        ("sync", false, false),
        ("auto", true, false),
        ("auto", false, false),
        ("task", true, true),
    ] {
        let (world, _) = world(execution);
        let told = world.call(if declared {
            tool("up__a").with_tasks()
        } else {
            tool("up__a")
        });
        let kind = if became { "task" } else { "complete" };
        assert_eq!(
            told.result()["resultType"],
            kind,
            "{execution}, declared: {declared}"
        );
    }
    let (world, _) = world("task");
    let told = world.tool("up__a");
    assert_eq!(told.refusal(), (400, -32021));
    assert_eq!(
        told.error()["data"],
        json!({ "requiredCapabilities": { "extensions": { TASKS: {} } } })
    );
    assert_eq!(world.count("up", "tools/call"), 0);
}

#[test]
fn other_ways_of_asking_for_a_task_ask_for_nothing() {
    let (world, _) = world("auto");
    let asks = [
        tool("up__a").meta(
            "clientCapabilities",
            json!({ "tasks": { "requests": { "tools": { "call": {} } } } }),
        ),
        tool("up__a").meta(
            "clientCapabilities",
            json!({ "extensions": { TASKS: null } }),
        ),
        tool("up__a").meta(
            "clientCapabilities",
            json!({ "extensions": { "io.modelcontextprotocol/Tasks": {} } }),
        ),
        tool("up__a").param("task", json!({ "ttl": 1000 })),
        legacy(
            "2025-06-18",
            "tools/call",
            json!({ "name": "up__a", "task": { "ttl": 1000 } }),
        ),
    ];
    for ask in asks {
        assert_eq!(world.call(ask).said(), format!("{RESULT} a"));
    }
    assert_eq!(world.sim.queue.sent(), 0);
}

#[test]
fn a_tool_error_completes_and_a_protocol_error_fails() {
    let (world, script) = world("task");
    script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "complete", "content": [], "isError": true }))
    });
    let first = handle(&create(&world));
    world.deliver();
    let told = world.call(get(&first));
    assert_eq!(
        (
            &told.result()["status"],
            &told.result()["result"]["isError"]
        ),
        (&json!("completed"), &json!(true))
    );
    script.on("tools/call", |_| Said::Error(-32603));
    let second = handle(&create(&world));
    world.deliver();
    let told = world.call(get(&second));
    assert_eq!(told.result()["status"], "failed");
    assert_eq!(
        told.result()["error"],
        json!({ "code": -32603, "message": "said the upstream" })
    );
    assert!(told.result().get("result").is_none());
}

#[test]
fn a_result_is_kept_as_it_was_with_uris_as_the_client_knows_them() {
    let (world, script) = world("task");
    script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "complete", "content": [{ "type": "resource_link", "uri": "test://a", "name": "a" }], "structuredContent": { "n": 1.0 } }))
    });
    let handle = handle(&create(&world));
    world.deliver();
    let told = world.call(get(&handle));
    assert_eq!(told.result()["result"]["content"][0]["uri"], "up+test://a");
    assert!(told.text.contains(r#""structuredContent":{"n":1.0}"#));
}

#[test]
fn arguments_too_large_to_keep_make_no_task() {
    let (world, _) = world("task");
    let ask = tool("up__a")
        .with_tasks()
        .param("arguments", json!({ "q": "x".repeat(300 * 1024) }));
    let told = world.call(ask);
    assert_eq!(told.status, 413);
    assert_eq!(
        (world.sim.queue.sent(), world.sim.atomic.keys().len()),
        (0, 0)
    );
}

#[test]
fn cancelling_is_acknowledged_and_stays() {
    let (world, script) = world("task");
    let handle = handle(&create(&world));
    let acknowledged = world.call(cancel(&handle));
    assert_eq!(acknowledged.result()["resultType"], "complete");
    assert!(acknowledged.result().get("status").is_none());
    assert_eq!(world.call(get(&handle)).result()["status"], "cancelled");
    script.on("tools/call", |_| panic!("a cancelled task was run"));
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(world.call(get(&handle)).result()["status"], "cancelled");
    assert_eq!(world.call(cancel(&handle)).status, 200, "again is no error");
    let ends = world.events("task_ended");
    assert_eq!((ends.len(), &ends[0]["outcome"]), (1, &json!("cancelled")));
}

#[test]
fn a_task_cancelled_while_it_runs_does_not_complete() {
    for kept in HOSTS {
        let (world, script) = world_on(kept, "task");
        script.on("tools/call", |_| slow(5, "late"));
        let handle = handle(&create(&world));
        let message = world.sim.queue.take().remove(0);
        let mut running = world.start_consuming(message);
        assert!(running.step().is_none());
        assert_eq!(world.count("up", "tools/call"), 1);
        assert_eq!(world.call(cancel(&handle)).status, 200);
        assert_eq!(world.call(get(&handle)).result()["status"], "cancelled");
        assert_eq!(running.finish().unwrap(), Consumed::Done);
        world.wait(Duration::from_secs(10));
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "cancelled", "sticky");
    }
}

#[test]
fn a_cancelled_task_lets_go_of_its_upstream_and_of_the_queue() {
    let hosts = HOSTS.into_iter();
    for (kept, version) in hosts.flat_map(|kept| [(kept, "2026-07-28"), (kept, "2025-11-25")]) {
        let script = match version {
            "2026-07-28" => Script::modern(&["a"]),
            _ => Script::legacy(version, &["a"]),
        };
        script.on("tools/call", |_| {
            Said::After(
                Duration::from_secs(25),
                Box::new(Said::Result(complete("late"))),
            )
        });
        let world = Setup::new()
            .upstream("up", &script)
            .rule(json!({ "name": "up__a", "execution": "task" }))
            .start();
        world.sim.keeper.missing(!kept);
        let handle = handle(&world.call(tool("up__a").with_tasks()));
        let message = world.sim.queue.take().remove(0);
        let mut run = world.start_consuming(message);
        assert!(run.step().is_none(), "it waits for the tool");
        world.sim.clock.advance(Duration::from_secs(5));
        assert_eq!(world.isolate().call(cancel(&handle)).status, 200);
        let mut taken = 0;
        let consumed = loop {
            if let Some(consumed) = run.step() {
                break consumed;
            }
            taken += 1;
            assert!(
                taken < 30,
                "{version}: the queue waits for a tool nobody wants"
            );
            world.sim.clock.advance(Duration::from_millis(100));
        };
        assert_eq!(consumed, Consumed::Done);
        world.settle();
        let cancelled = world.count("up", "notifications/cancelled");
        let call = world.exchanges("up").into_iter();
        let mut call = call.filter(|e| String::from_utf8_lossy(&e.body()).contains("tools/call"));
        assert_eq!(
            call.next().map(|e| e.end()),
            Some(End::Cancelled),
            "{version}"
        );
        assert_eq!(cancelled, usize::from(version == "2025-11-25"), "{version}");
        assert_eq!(world.call(get(&handle)).result()["status"], "cancelled");
    }
}

#[test]
fn a_finished_task_cannot_be_cancelled_and_nobody_minds() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.deliver();
    assert_eq!(world.call(cancel(&handle)).status, 200);
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
}

#[test]
fn answers_nobody_asked_for_are_acknowledged() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    let update = |responses: Value| {
        let params = json!({ "taskId": handle, "inputResponses": responses });
        world.call(modern("tasks/update", params).with_tasks())
    };
    assert_eq!(
        update(json!({ "k": {} })).result()["resultType"],
        "complete"
    );
    assert_eq!(update(json!([])).code(), -32602);
    assert_eq!(update(Value::Null).code(), -32602);
}

#[test]
fn a_posted_cancellation_of_a_request_cancels_no_task() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    let mut note = modern(
        "notifications/cancelled",
        json!({ "requestId": 1, "taskId": handle }),
    );
    note.message.as_object_mut().unwrap().shift_remove("id");
    assert_eq!(world.ask(note).status, 202);
    assert_eq!(world.call(get(&handle)).result()["status"], "working");
}

#[test]
fn policy_and_limits_hold_when_a_task_is_made() {
    let world = Setup::new()
        .upstream("up", &Script::modern(&["a"]))
        .rule(json!({ "name": "up__a", "execution": "task", "requiredRoles": ["admin"], "rateLimit": { "requests": 1 } }))
        .start();
    assert_eq!(world.call(tool("up__a").with_tasks()).status, 403);
    let admin = world.token(&json!({ "roles": ["admin"] }));
    let statuses: Vec<u16> = (0..2)
        .map(|_| {
            world
                .call(tool("up__a").with_tasks().token(&admin))
                .status
                .as_u16()
        })
        .collect();
    assert_eq!(statuses, [200, 429]);
}

#[test]
fn a_task_on_a_legacy_upstream_runs_in_its_owners_session() {
    for kept in HOSTS {
        let script = Script::legacy("2025-06-18", &["a"]);
        let world = Setup::new()
            .upstream("up", &script)
            .rule(json!({ "name": "up__a", "execution": "task" }))
            .start();
        world.sim.keeper.missing(!kept);
        for owner in ["ada", "ben"] {
            let told = world.call(tool("up__a").with_tasks().by(owner));
            let handle = handle(&told);
            world.deliver();
            let told = world.call(get(&handle).by(owner));
            assert_eq!(told.result()["status"], "completed");
        }
        let calls = world.exchanges("up").into_iter();
        let calls = calls.filter(|e| String::from_utf8_lossy(&e.body()).contains("tools/call"));
        let sessions: Vec<_> = calls.map(|e| e.headers["mcp-session-id"].clone()).collect();
        assert_eq!(sessions.len(), 2);
        assert_ne!(sessions[0], sessions[1], "each in its own");
        let known = |session: &http::HeaderValue| script.knows(session.to_str().unwrap());
        assert!(sessions.iter().all(known));
        if !kept {
            assert_eq!(world.count("up", "initialize"), 2, "an isolate keeps them");
        }
    }
}

/// Hosts with keepers, where tasks run in one each, and hosts without, where whoever has the
/// message runs them.
pub const HOSTS: [bool; 2] = [true, false];

pub fn world(execution: &str) -> (World, Script) {
    world_on(true, execution)
}

pub fn world_on(kept: bool, execution: &str) -> (World, Script) {
    world_with(kept, json!({ "execution": execution }))
}

/// A world with one tool under this rule.
pub fn world_with(kept: bool, mut rule: Value) -> (World, Script) {
    let script = Script::modern(&["a"]);
    rule["name"] = "up__a".into();
    let world = Setup::new().upstream("up", &script).rule(rule).start();
    world.sim.keeper.missing(!kept);
    (world, script)
}

/// A result that takes so many seconds.
pub fn slow(secs: u64, text: &str) -> Said {
    Said::After(
        Duration::from_secs(secs),
        Box::new(Said::Result(complete(text))),
    )
}

/// Loses whoever works on a task: the isolate that has its message, and all keepers.
pub fn lose(world: &World, worker: Running<'_, Consumed>) {
    drop(worker);
    lose_keepers(world);
}

pub fn lose_keepers(world: &World) {
    for name in world.sim.keeper.names() {
        world.sim.keeper.kill(&name);
    }
}

/// What goes wrong for whoever runs tasks.
pub fn inner_faults(world: &World) -> Faults {
    match world.sim.keeper().is_some() {
        true => world.sim.keeper.inner_faults().0,
        false => world.sim.atomic.faults.clone(),
    }
}

/// Log lines of one event, of this isolate and of all keepers.
pub fn logged(world: &World, event: &str) -> usize {
    let begin = format!(r#"{{"event":"{event}""#);
    let kept = world.sim.keeper.log_lines().into_iter();
    world.events(event).len() + kept.filter(|(_, line)| line.starts_with(&begin)).count()
}

/// Delivers messages and lets time pass until the queue has none left.
#[track_caller]
pub fn finish(world: &World) {
    for _ in 0..400 {
        world.deliver();
        if world.sim.queue.waiting() == 0 {
            return;
        }
        world.wait(Duration::from_secs(5));
    }
    panic!("the queue is never empty");
}

/// Takes a message from the queue and begins to consume it.
#[track_caller]
pub fn take_up(world: &World) -> Running<'static, Consumed> {
    let mut worker = world.start_consuming(world.sim.queue.take().remove(0));
    assert!(worker.step().is_none(), "it waits for the tool");
    worker
}

/// Lets time pass for whoever works on a task.
pub fn go_on(world: &World, worker: &mut Option<Running<'static, Consumed>>, by: Duration) {
    let until = world.sim.clock.now() + by;
    while world.sim.clock.now() < until {
        world.sim.clock.advance(Duration::from_millis(100));
        world.step_deferred();
        if let Some(running) = worker
            && running.step().is_some()
        {
            *worker = None;
        }
    }
}

/// The only task's record.
#[track_caller]
pub fn record(world: &World) -> Value {
    let mut keys = world.sim.atomic.keys();
    keys.retain(|key| key.starts_with("task/"));
    assert_eq!(keys.len(), 1);
    serde_json::from_slice(&world.sim.atomic.stored(&keys[0]).unwrap()).unwrap()
}

/// What a poll says of the task.
#[track_caller]
pub fn status(world: &World, handle: &str) -> String {
    let told = world.call(get(handle));
    told.result()["status"].as_str().unwrap().to_owned()
}

#[track_caller]
pub fn create(world: &World) -> Told {
    let told = world.call(tool("up__a").with_tasks());
    assert_eq!(told.result()["resultType"], "task", "{told:?}");
    told
}

#[track_caller]
pub fn handle(created: &Told) -> String {
    created.result()["taskId"].as_str().unwrap().to_owned()
}

pub fn get(handle: &str) -> Ask {
    modern("tasks/get", json!({ "taskId": handle })).with_tasks()
}

pub fn cancel(handle: &str) -> Ask {
    modern("tasks/cancel", json!({ "taskId": handle })).with_tasks()
}
