//! Handles of tasks: readable at once, by their owner alone, until their time is over.

use std::time::Duration;

use serde_json::json;

use crate::tasks::{TASKS, create, get, handle, world};
use crate::world::modern;

#[test]
fn a_handle_can_be_read_anywhere_at_once_and_fits_a_header() {
    let (world, _) = world("task");
    let created = create(&world);
    let handle = handle(&created);
    assert!(
        handle.len() <= 512
            && handle
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    );
    assert_eq!(
        world.isolate().call(get(&handle)).result()["status"],
        "working"
    );
    assert!(
        !handle.contains("up") || !world.sim.atomic.keys()[0].contains(&handle),
        "the key is not in the open"
    );
}

#[test]
fn without_the_extension_a_task_method_is_refused_before_its_id_is_looked_at() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    let before = world.sim.atomic.operations("");
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        for id in [handle.as_str(), "nonsense"] {
            let told = world.call(modern(
                method,
                json!({ "taskId": id, "inputResponses": {} }),
            ));
            assert_eq!(told.refusal(), (400, -32021), "{method}");
            assert!(told.error()["data"]["requiredCapabilities"]["extensions"][TASKS].is_object());
        }
    }
    assert_eq!(world.sim.atomic.operations(""), before);
}

#[test]
fn a_handle_that_is_not_yours_is_as_unknown_as_any_and_costs_no_read() {
    let (world, _) = world("task");
    let other = {
        let (other, _) = crate::tasks::world("task");
        create(&other);
        handle(&create(&other))
    };
    let handle = handle(&create(&world));
    let changed = |at: usize| {
        let mut bytes = handle.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let unknown = [
        get("nonsense"),
        get(""),
        get(&"A".repeat(513)),
        get(&handle).by("ben"),
        get(&changed(handle.len() - 1)),
        get(&changed(handle.len() / 2)),
        get(&changed(0)),
        get(&handle[1..]),
        get(&format!("{handle}A")),
    ];
    let before = world.sim.atomic.operations("");
    let mut answers: Vec<String> = Vec::new();
    for ask in unknown {
        for method in ["tasks/get", "tasks/cancel", "tasks/update"] {
            let told = world.call(
                ask.clone()
                    .method(method)
                    .param("inputResponses", json!({})),
            );
            assert_eq!(told.code(), -32602, "{told:?}");
            answers.push(told.error().to_string());
        }
    }
    assert_eq!(
        world.sim.atomic.operations(""),
        before,
        "refused without a read"
    );
    // Sealed with the same key by another deployment: a good handle of a task that is not there.
    let told = world.call(get(&other));
    assert_eq!(told.code(), -32602);
    answers.push(told.error().to_string());
    answers.dedup();
    assert_eq!(answers.len(), 1, "all in the same words: {answers:?}");
    assert_eq!(world.call(get(&handle)).status, 200);
}

#[test]
fn the_header_must_name_the_task() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    assert_eq!(
        world.call(get(&handle).without("mcp-name")).refusal(),
        (400, -32020)
    );
    assert_eq!(
        world
            .call(get(&handle).header("mcp-name", "other"))
            .refusal(),
        (400, -32020)
    );
}

#[test]
fn a_task_is_gone_when_its_time_is_over() {
    let (world, _) = world("task");
    let handle = handle(&create(&world));
    world.deliver();
    world
        .sim
        .clock
        .advance(Duration::from_millis(3_600_000) - Duration::from_secs(1));
    let token = || get(&handle);
    assert_eq!(world.call(token()).result()["status"], "completed");
    world.sim.clock.advance(Duration::from_secs(1));
    let before = world.sim.atomic.operations("");
    assert_eq!(world.call(token()).code(), -32602);
    assert_eq!(world.sim.atomic.operations(""), before);
    let mut keys = world.sim.atomic.keys().into_iter();
    assert_eq!(keys.find(|key| key.starts_with("task/")), None);
}
