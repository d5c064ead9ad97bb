//! Tasks: a durable handle first, the work from the queue, the result by polling.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_simulator::End;

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
        ("auto", true, true),
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
fn a_result_too_large_to_keep_is_a_failure_in_words() {
    let (world, script) = world("task");
    script.on("tools/call", |_| {
        Said::Result(crate::world::complete(&"x".repeat(1024 * 1024)))
    });
    let handle = handle(&create(&world));
    assert_eq!(world.deliver(), [Consumed::Done]);
    let told = world.call(get(&handle));
    assert_eq!(told.result()["status"], "failed");
    assert!(
        told.result()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("larger")
    );
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
}

#[test]
fn a_task_cancelled_while_it_runs_does_not_complete() {
    let (world, script) = world("task");
    script.on("tools/call", |_| {
        Said::After(
            Duration::from_secs(5),
            Box::new(Said::Result(complete("late"))),
        )
    });
    let handle = handle(&create(&world));
    let message = world.sim.queue.take().remove(0);
    let mut running = world.start_consuming(message);
    assert!(running.step().is_none());
    assert_eq!(world.count("up", "tools/call"), 1);
    assert_eq!(world.call(cancel(&handle)).status, 200);
    assert_eq!(world.call(get(&handle)).result()["status"], "cancelled");
    assert_eq!(running.finish().unwrap(), Consumed::Done);
    assert_eq!(
        world.call(get(&handle)).result()["status"],
        "cancelled",
        "sticky"
    );
}

#[test]
fn a_cancelled_task_lets_go_of_its_upstream_and_of_the_queue() {
    for version in ["2026-07-28", "2025-11-25"] {
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
fn a_tool_that_asks_for_input_in_a_task_fails_it_in_words() {
    let (world, script) = world("task");
    script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "input_required", "requestState": "s" }))
    });
    let handle = handle(&create(&world));
    world.deliver();
    let told = world.call(get(&handle));
    assert_eq!(told.result()["status"], "failed", "{told:?}");
}

#[test]
fn a_task_on_a_legacy_upstream_runs_in_its_owners_session() {
    let script = Script::legacy("2025-06-18", &["a"]);
    let world = Setup::new()
        .upstream("up", &script)
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .start();
    let handle = handle(&create(&world));
    world.deliver();
    assert_eq!(world.call(get(&handle)).result()["status"], "completed");
    assert_eq!(world.count("up", "initialize"), 1);
}

pub fn world(execution: &str) -> (World, Script) {
    let script = Script::modern(&["a"]);
    let world = Setup::new()
        .upstream("up", &script)
        .rule(json!({ "name": "up__a", "execution": execution }))
        .start();
    (world, script)
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
