//! Operators look after tasks with the command line, on the real runtime.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::call::{Call, send};
use crate::client::{root, tidegate};
use crate::gateway::ADMIN_TOKEN;
use crate::stopwatch::wait_for;
use crate::work::trial;
use crate::world::{AUTO_TASK, TASK_ONLY, World, text};

/// Longest a task may take to come to what a claim waits for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Longer than a call may run before it becomes a task.
const LONG: &str = r#"{"duration":60,"steps":2}"#;
/// In milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    vec![
        trial(
            world,
            "operator::finds a task that has completed and is not let run it again".to_owned(),
            finds_a_completed_task,
        ),
        trial(
            world,
            "operator::cancels a running task and has its call made anew".to_owned(),
            cancels_and_retries,
        ),
        trial(
            world,
            "operator::is not let in with another token".to_owned(),
            another_token,
        ),
    ]
}

/// What a command came to: whether it did what it was asked, its output, its complaint.
fn tasks(world: &World, token: &str, arguments: &[&str]) -> (bool, String, String) {
    let gateway = world.ordinary().at("");
    let output = Command::new(tidegate())
        .arg("tasks")
        .args(arguments)
        .args(["--gateway", &gateway])
        .env("TIDEGATE_ADMIN_TOKEN", token)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The tasks of one tool in one state.
fn listed(world: &World, state: &str, tool: &str) -> Vec<Value> {
    let (done, out, complaint) = tasks(world, ADMIN_TOKEN, &["list", "--state", state, "--json"]);
    assert!(done, "{complaint}");
    let list: Value = serde_json::from_str(&out).expect("JSON");
    let mut tasks = list["tasks"].as_array().expect("a list").clone();
    tasks.retain(|task| tool.ends_with(&format!("__{}", text(task, "/tool"))));
    tasks
}

fn create(world: &World, tool: &str, arguments: &str, subject: &str) -> String {
    let gateway = world.ordinary();
    let call = Call::tool(tool).with_arguments(arguments).declaring_tasks();
    let token = gateway.mint_for(subject);
    let created = send(&gateway.mcp(), &call.with_token(token)).json();
    text(&created, "/result/taskId").to_owned()
}

/// What the client is told of its task.
fn told(world: &World, handle: &str, subject: &str) -> Value {
    let gateway = world.ordinary();
    let get = Call::modern("tasks/get", json!({ "taskId": handle })).declaring_tasks();
    let token = gateway.mint_for(subject);
    send(&gateway.mcp(), &get.with_token(token)).json()
}

fn status(world: &World, handle: &str, subject: &str) -> String {
    text(&told(world, handle, subject), "/result/status").to_owned()
}

/// When on its day a task was created, in milliseconds: all that an operator and the client
/// are both told of one among others.
fn created(world: &World, handle: &str, subject: &str) -> u64 {
    let told = told(world, handle, subject);
    let (_, time) = text(&told, "/result/createdAt")
        .split_once('T')
        .expect("a date and a time");
    let mut parts = time
        .split([':', '.', 'Z'])
        .map_while(|part| part.parse::<u64>().ok());
    let mut next = || parts.next().expect("hours, minutes, seconds, milliseconds");
    ((next() * 60 + next()) * 60 + next()) * 1_000 + next()
}

fn finds_a_completed_task(world: &World) {
    // A result that no identifier has in it by chance.
    let handle = create(world, TASK_ONLY, r#"{"a":700000042,"b":0.25}"#, "operated");
    wait_for("a completed task", WAIT_MAX, || {
        (status(world, &handle, "operated") == "completed").then_some(())
    });
    let completed = listed(world, "completed", TASK_ONLY);
    let id = text(&completed[0], "/id");
    let (done, shown, _) = tasks(world, ADMIN_TOKEN, &["show", id]);
    assert!(done && shown.contains("completed"), "{shown}");
    assert!(
        !shown.contains(&handle) && !shown.contains("700000042"),
        "{shown}"
    );
    let (done, _, complaint) = tasks(world, ADMIN_TOKEN, &["retry", id]);
    assert!(!done && complaint.contains("has completed"), "{complaint}");
}

fn cancels_and_retries(world: &World) {
    let handle = create(world, AUTO_TASK, LONG, "impatient");
    // Other clients have tasks of the same tool meanwhile.
    let created = created(world, &handle, "impatient");
    let running = listed(world, "working", AUTO_TASK);
    let mine = running
        .iter()
        .find(|task| task["createdAtMs"].as_u64().map(|ms| ms % DAY_MS) == Some(created))
        .unwrap_or_else(|| panic!("none was created at {created}: {running:?}"));
    let of_mine = running.iter().filter(|task| task["owner"] == mine["owner"]);
    assert_eq!(of_mine.count(), 1, "{running:?}");
    let id = text(mine, "/id");
    let (done, out, complaint) = tasks(world, ADMIN_TOKEN, &["cancel", id]);
    assert!(done && out == format!("cancelled {id}\n"), "{complaint}");
    assert_eq!(status(world, &handle, "impatient"), "cancelled");
    let (done, out, complaint) = tasks(world, ADMIN_TOKEN, &["retry", id]);
    assert!(done && out.starts_with("made "), "{out} {complaint}");
    let anew = wait_for("a new run", WAIT_MAX, || {
        let running = listed(world, "working", AUTO_TASK);
        let begun = running
            .into_iter()
            .find(|task| task["owner"] == mine["owner"] && task["attempts"] == 1);
        begun.map(|task| text(&task, "/id").to_owned())
    });
    assert_ne!(anew, id);
    let (done, _, complaint) = tasks(world, ADMIN_TOKEN, &["cancel", &anew]);
    assert!(done, "{complaint}");
    assert_eq!(status(world, &handle, "impatient"), "cancelled");
}

fn another_token(world: &World) {
    let (done, out, complaint) = tasks(world, "a-token-of-nobody-in-particular", &["list"]);
    assert!(!done && out.is_empty(), "{out}");
    assert!(
        complaint.contains("does not accept this token"),
        "{complaint}"
    );
}
