//! Long-running calls of clients of 2025-11-25, by their SDKs' own support for its tasks.

use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::json;

use crate::client::{Client, LEGACY};
use crate::task::{SUM, call_on};
use crate::work::trial;
use crate::world::{ASKS, AUTO_TASK, TASK_ONLY, World, text, texts};

/// How long the slow tool takes.
const SLOW_SECONDS: u32 = 60;

type Claim = fn(&World, Client);

const CLAIMS: [(&str, Claim); 5] = [
    ("waits a minute for a task's result", waits_for_a_result),
    ("polls a task to its end", polls),
    ("answers what a task asks, where it waits for it", answers),
    ("cancels a task at once and for good", cancels),
    (
        "is refused a task-only tool that it does not call as a task",
        refused_untasked,
    ),
];

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for client in LEGACY {
        for (name, claim) in CLAIMS {
            let title = format!("task::{}: {name}", client.label());
            trials.push(trial(world, title, move |world| claim(world, client)));
        }
    }
    trials
}

fn slow(seconds: u32) -> String {
    json!({ "duration": seconds, "steps": seconds }).to_string()
}

fn waits_for_a_result(world: &World, client: Client) {
    let arguments = slow(SLOW_SECONDS);
    let seen = client.run_one(&call_on(world, "task", AUTO_TASK, &arguments));
    let task = seen.ok();
    assert!(
        seen.elapsed_ms() >= u64::from(SLOW_SECONDS) * 1_000,
        "{task}"
    );
    assert_eq!(texts(task, "/states"), ["working", "working"], "{task}");
    assert_eq!(task["again"], "completed", "{task}");
    assert_eq!(texts(task, "/listed"), ["completed"], "{task}");
    assert_eq!(
        (&task["ttl"], &task["related"]),
        (&json!(600_000), &task["id"]),
        "{task}"
    );
    let said = text(task, "/text");
    assert!(
        said.starts_with("Long running operation completed."),
        "{task}"
    );
}

fn polls(world: &World, client: Client) {
    let arguments = slow(2);
    let seen = client.run_one(&call_on(world, "task_stream", AUTO_TASK, &arguments));
    let told = texts(seen.ok(), "/told");
    assert_eq!(told.first(), Some(&"taskCreated"), "{told:?}");
    assert_eq!(told.last(), Some(&"result"), "{told:?}");
    assert!(told.len() > 3, "{told:?}");
    let said = text(seen.ok(), "/text");
    assert!(
        said.starts_with("Long running operation completed."),
        "{}",
        seen.0
    );
    let seen = client.run_one(&call_on(world, "task_stream", TASK_ONLY, SUM));
    assert!(text(seen.ok(), "/text").contains("42"), "{}", seen.0);
}

fn answers(world: &World, client: Client) {
    let seen = client.run_one(&call_on(world, "task", ASKS, "{}"));
    let task = seen.ok();
    let asked = task["asked"].as_array().expect("a list");
    assert_eq!(asked.len(), 1, "{task}");
    assert_eq!(asked[0]["task"], task["id"], "{task}");
    assert_eq!(task["again"], "completed", "{task}");
}

fn cancels(world: &World, client: Client) {
    let arguments = slow(20);
    let seen = client.run_one(&call_on(world, "task_cancel", AUTO_TASK, &arguments));
    let expected = json!({ "status": "cancelled", "again": "cancelled", "twice": -32602 });
    assert_eq!(*seen.ok(), expected, "{}", seen.0);
}

fn refused_untasked(world: &World, client: Client) {
    let seen = client.run_one(&call_on(world, "call", TASK_ONLY, SUM));
    assert_eq!(seen.failed()["code"], -32601, "{}", seen.0);
}
