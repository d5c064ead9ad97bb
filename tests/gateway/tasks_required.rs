//! Servers of 2025-11-25 with tools they call only as tasks (`taskSupport: required`).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::tasks::{TASKS, create, get, handle};
use crate::world::{
    Ask, Heard, RESULT, Said, Script, Setup, Step, World, complete, legacy, modern, tool,
};

const VERSION: &str = "2025-11-25";
const THEIRS: &str = "their-task";

/// A server whose only tool must be a task, and what it says when asked for the result.
fn insisting(result: impl Fn(&Heard) -> Said + 'static) -> Script {
    let script = Script::legacy(VERSION, &[]);
    script.listing(
        "tools",
        json!({ "name": "a", "inputSchema": { "type": "object" }, "execution": { "taskSupport": "required" } }),
    );
    script.capability(
        "tasks",
        json!({ "requests": { "tools": { "call": {} } }, "cancel": {} }),
    );
    script.on("tools/call", |heard| {
        match heard.params()["task"].is_object() {
            true => Said::Result(json!({ "task": {
            "taskId": THEIRS, "status": "working", "ttl": 60_000,
            "createdAt": "2026-11-30T00:00:00Z", "lastUpdatedAt": "2026-11-30T00:00:00Z",
        } })),
            false => Said::Error(-32601),
        }
    });
    script.on("tasks/result", result);
    script.on("tasks/cancel", |_| Said::Result(json!({})));
    script
}

fn answering(script: &Script, rule: &Value) -> World {
    let mut named = json!({ "name": "up__a" });
    named
        .as_object_mut()
        .unwrap()
        .extend(rule.as_object().unwrap().clone());
    Setup::new().upstream("up", script).rule(named).start()
}

fn done(heard: &Heard) -> Said {
    assert_eq!(heard.params()["taskId"], THEIRS);
    let mut result = complete(RESULT);
    result.as_object_mut().unwrap().remove("resultType");
    result["_meta"] = json!({ "io.modelcontextprotocol/related-task": { "taskId": THEIRS } });
    Said::Result(result)
}

fn calls() -> [Ask; 2] {
    let old = legacy(
        VERSION,
        "tools/call",
        json!({ "name": "up__a", "arguments": {} }),
    );
    [tool("up__a"), old]
}

#[test]
fn a_tool_that_must_be_a_task_is_called_as_one_for_clients_that_know_none() {
    for call in calls() {
        let world = answering(&insisting(done), &json!({}));
        let told = world.call(call);
        assert_eq!(told.said(), RESULT, "{told:?}");
        assert!(!told.text.contains(THEIRS), "{told:?}");
        assert_eq!(
            world.count("up", "tools/call"),
            2,
            "refused, and made as a task"
        );
        let told = world.tool("up__a");
        assert_eq!(told.said(), RESULT);
        assert_eq!(
            world.count("up", "tools/call"),
            3,
            "the session knows by now"
        );
        world.settle();
        assert_eq!(world.count("up", "tasks/cancel"), 0);
        assert_eq!(world.count("up", "notifications/cancelled"), 0);
    }
}

#[test]
fn the_gateways_own_tasks_are_made_of_such_calls_too() {
    let world = answering(&insisting(done), &json!({ "execution": "task" }));
    let handle = handle(&create(&world));
    world.deliver();
    let told = world.call(get(&handle));
    assert_eq!(told.result()["status"], "completed", "{told:?}");
    assert!(!told.text.contains(THEIRS), "{told:?}");
}

#[test]
fn progress_and_questions_come_on_the_stream_of_the_result() {
    let script = insisting(|heard| {
        let question = json!({ "jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": {
            "message": "Which?", "requestedSchema": { "type": "object", "properties": {} },
            "_meta": { "io.modelcontextprotocol/related-task": { "taskId": THEIRS } },
        } });
        let Said::Result(result) = done(heard) else {
            return Said::Error(-32603);
        };
        Said::Stream(vec![
            Step::Send(question),
            Step::Wait(Duration::from_secs(5)),
            Step::Send(heard.response(&result)),
        ])
    });
    let world = answering(&script, &json!({ "execution": "auto" }));
    let ask = modern("tools/call", json!({ "name": "up__a", "arguments": {} }));
    let told = world.call(ask.meta(
        "io.modelcontextprotocol/clientCapabilities",
        json!({ "elicitation": { "form": {} } }),
    ));
    let asked = &told.result()["inputRequests"];
    assert_eq!(told.result()["resultType"], "input_required", "{told:?}");
    assert!(asked.to_string().contains("Which?"), "{told:?}");
    assert!(!told.text.contains(THEIRS), "{told:?}");
}

#[test]
fn a_task_nobody_waits_for_any_longer_is_cancelled_at_its_server() {
    let script = insisting(|_| Said::Stream(vec![Step::Wait(Duration::from_secs(3600))]));
    let world = answering(&script, &json!({ "timeoutMs": 1_000 }));
    let told = world.tool("up__a");
    assert_eq!(told.reason(), "upstream_timeout", "{told:?}");
    world.settle();
    assert_eq!(world.count("up", "tasks/cancel"), 1);
    assert_eq!(
        world.bodies("up", "tasks/cancel")[0]["params"]["taskId"],
        THEIRS
    );
    assert_eq!(world.count("up", "notifications/cancelled"), 0);
}

#[test]
fn a_server_that_makes_no_tasks_is_not_asked_for_any() {
    let script = Script::legacy(VERSION, &["a"]);
    let asked = Rc::new(Cell::new(0));
    let counted = Rc::clone(&asked);
    script.on("tools/call", move |heard| {
        assert!(heard.params()["task"].is_null());
        counted.set(counted.get() + 1);
        Said::Error(-32601)
    });
    let world = answering(&script, &json!({}));
    assert_eq!(world.tool("up__a").error()["code"], -32601);
    assert_eq!(asked.get(), 1);
}

#[test]
fn what_its_task_fails_with_is_the_calls_error() {
    let script = insisting(|_| Said::Error(4711));
    let world = answering(&script, &json!({}));
    let told = world.call(tool("up__a").with_tasks());
    assert_eq!(told.error()["code"], 4711, "{told:?}");
    assert!(
        !told.text.contains(TASKS) && !told.text.contains(THEIRS),
        "{told:?}"
    );
}
