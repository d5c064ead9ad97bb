//! What a client of 2025-11-25 lists: its own tasks, newest first, as they stand.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::tasks::legacy::LIST_PAGE_MAX;

use super::{get, id, offering, task};
use crate::converse::talk::{Client, everything};

#[test]
fn a_list_has_the_callers_own_tasks_as_they_stand_newest_first() {
    let (world, _) = offering("task");
    let (ada, ben) = (
        Client::of(&world, everything()),
        Client::by(&world, "ben", everything()),
    );
    assert_eq!(page(&ada, None), (Vec::new(), None));
    let mut made = Vec::new();
    for _ in 0..3 {
        made.insert(0, id(&world.call(task(&ada, json!({})))));
        world.call(task(&ben, json!({})));
        world.sim.clock.advance(Duration::from_secs(1));
    }
    world.call(ada.ask("tasks/cancel", json!({ "taskId": made[1] })));
    world.deliver();
    // Another session, another isolate: it is the principal's list.
    let elsewhere = world.isolate();
    let (tasks, next) = page(&Client::of(&elsewhere, json!({})), None);
    assert_eq!(next, None);
    let ids: Vec<_> = tasks
        .iter()
        .map(|task| task["taskId"].as_str().unwrap())
        .collect();
    assert_eq!(ids, made);
    for (task, status) in tasks.iter().zip(["completed", "cancelled", "completed"]) {
        assert_eq!(task["status"], status);
        assert_eq!(*task, get(&ada, task["taskId"].as_str().unwrap()));
    }
}

#[test]
fn a_task_is_in_the_list_of_whoever_asks_next_wherever() {
    let (world, _) = offering("task");
    let client = Client::of(&world, everything());
    for made in 1..5 {
        world.call(task(&client, json!({})));
        let elsewhere = world.isolate();
        assert_eq!(page(&client.at(&elsewhere), None).0.len(), made);
    }
    world.sim.clock.advance(Duration::from_secs(3_600));
    let client = Client::of(&world, everything());
    assert_eq!(page(&client, None).0.len(), 0, "their time is over");
}

#[test]
fn long_lists_come_in_pages_that_skip_and_repeat_nothing() {
    let (world, _) = offering("task");
    let client = Client::of(&world, everything());
    let many = LIST_PAGE_MAX * 2 + 3;
    let mut made = BTreeSet::new();
    for _ in 0..many {
        made.insert(id(&world.call(task(&client, json!({})))));
    }
    let (mut listed, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let (tasks, next) = page(&client, cursor.as_deref());
        assert!(tasks.len() <= LIST_PAGE_MAX);
        listed.extend(
            tasks
                .iter()
                .map(|task| task["taskId"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        // Newer tasks push nothing onto the next page.
        world.call(task(&client, json!({})));
        match next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!((pages, listed.len()), (3, many));
    assert_eq!(BTreeSet::from_iter(listed), made);
}

#[test]
fn a_cursor_is_for_the_one_it_was_given_to() {
    let (world, _) = offering("task");
    let client = Client::of(&world, everything());
    for _ in 0..=LIST_PAGE_MAX {
        world.call(task(&client, json!({})));
    }
    let (_, cursor) = page(&client, None);
    let ben = Client::by(&world, "ben", everything());
    for (who, cursor) in [
        (&ben, json!(cursor)),
        (&client, json!("x")),
        (&client, json!("")),
        (&client, json!(7)),
    ] {
        let told = world.call(who.ask("tasks/list", json!({ "cursor": cursor })));
        assert_eq!(told.refusal(), (200, -32602), "{cursor}");
    }
}

#[track_caller]
fn page(client: &Client, cursor: Option<&str>) -> (Vec<Value>, Option<String>) {
    let params = cursor.map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
    let told = client.world.call(client.ask("tasks/list", params));
    let result = told.result();
    let tasks = result["tasks"].as_array().unwrap().clone();
    (tasks, result["nextCursor"].as_str().map(str::to_owned))
}
