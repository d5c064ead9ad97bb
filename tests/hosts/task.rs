//! Long-running calls: who gets a task, who an answer, and who neither.

use std::sync::Arc;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::call::{Call, send, send_until};
use crate::client::{CLIENTS, Client, MODERN, Request};
use crate::work::trial;
use crate::world::{AUTO_TASK, Fixture, TASK_ONLY, World, text, texts};

pub fn trials(world: &Arc<World>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for client in MODERN {
        let title = format!("task::{}: polls a task to its end", client.label());
        trials.push(trial(world, title, move |world| {
            polls_a_task(world, client)
        }));
        let title = format!(
            "task::{}: is refused a task-only tool while it does not declare tasks",
            client.label()
        );
        trials.push(trial(world, title, move |world| {
            refused_undeclared(world, client)
        }));
    }
    for client in CLIENTS {
        let title = format!(
            "task::{}: is answered directly by an `auto` tool without declaring tasks",
            client.label()
        );
        trials.push(trial(world, title, move |world| {
            answered_directly(world, client)
        }));
    }
    let title = "task::a task is unknown to every other client".to_owned();
    trials.push(trial(world, title, task_is_private));
    let title = "task::a listener hears of its task until its end".to_owned();
    trials.push(trial(world, title, is_listened_to));
    trials
}

pub fn call_on<'a>(
    world: &'a World,
    scenario: &'a str,
    tool: &'a str,
    arguments: &'a str,
) -> Request<'a> {
    let gateway = world.ordinary();
    Request {
        url: gateway.mcp(),
        token: Some(gateway.token()),
        prefix: Fixture::Everything.prefix(),
        scenarios: scenario,
        tool: Some((tool, arguments)),
        ..Request::default()
    }
}

const TWO_SECONDS: &str = r#"{"duration":2,"steps":2}"#;
pub const SUM: &str = r#"{"a":20,"b":22}"#;

fn polls_a_task(world: &World, client: Client) {
    let seen = client.run_one(&call_on(world, "task", AUTO_TASK, TWO_SECONDS));
    let task = seen.ok();
    assert_eq!(task["kind"], "task", "{task}");
    let states = texts(task, "/states");
    assert_eq!(states.first(), Some(&"working"), "{states:?}");
    assert_eq!(task["status"], "completed", "{task}");
    assert_eq!(
        task["again"], "completed",
        "a finished task stays readable: {task}"
    );
    assert!(
        text(task, "/text").starts_with("Long running operation completed."),
        "{task}"
    );
    let seen = client.run_one(&call_on(world, "task", TASK_ONLY, SUM));
    assert_eq!(seen.ok()["kind"], "task", "{}", seen.0);
    assert!(text(seen.ok(), "/text").contains("42"), "{}", seen.0);
}

fn refused_undeclared(world: &World, client: Client) {
    let seen = client.run_one(&call_on(world, "call", TASK_ONLY, SUM));
    assert_eq!(seen.failed()["code"], -32021, "{}", seen.0);
    let required = "/data/requiredCapabilities/extensions/io.modelcontextprotocol~1tasks";
    assert!(
        seen.failed()
            .pointer(required)
            .is_some_and(Value::is_object),
        "{}",
        seen.0
    );
}

fn answered_directly(world: &World, client: Client) {
    let seen = client.run_one(&call_on(
        world,
        "call",
        AUTO_TASK,
        r#"{"duration":0.2,"steps":1}"#,
    ));
    assert!(
        text(seen.ok(), "/text").starts_with("Long running operation completed."),
        "{}",
        seen.0
    );
}

fn task_is_private(world: &World) {
    let gateway = world.ordinary();
    let (owner, stranger) = (gateway.mint_for("owner"), gateway.mint_for("stranger"));
    let call = Call::tool(TASK_ONLY)
        .with_arguments(r#"{"a":20,"b":22}"#)
        .declaring_tasks();
    let created = send(&gateway.mcp(), &call.with_token(owner)).json();
    let id = text(&created, "/result/taskId");
    let get = |id: &str, token| {
        let get = Call::modern("tasks/get", json!({ "taskId": id })).declaring_tasks();
        send(&gateway.mcp(), &get.with_token(token)).json()
    };
    assert_eq!(get(id, owner)["result"]["taskId"], id);
    let foreign = get(id, stranger);
    assert_eq!(foreign["error"]["code"], -32602, "{foreign}");
    // The same words, so that a stranger learns nothing from asking.
    assert_eq!(foreign["error"], get("never-made", stranger)["error"]);
}

fn is_listened_to(world: &World) {
    let gateway = world.ordinary();
    let token = gateway.mint_for("listener");
    let call = Call::tool(AUTO_TASK).with_arguments(TWO_SECONDS);
    let call = call.declaring_tasks().with_token(token);
    let created = send(&gateway.mcp(), &call).json();
    assert_eq!(created["result"]["resultType"], "task", "{created}");
    let id = text(&created, "/result/taskId");

    let filter = json!({ "taskIds": [id] });
    let listen = Call::modern("subscriptions/listen", json!({ "notifications": filter }));
    let listen = listen.declaring_tasks().with_token(token);
    let is_over = |message: &Value| message["params"]["status"] == "completed";
    let heard = send_until(&gateway.mcp(), &listen, is_over);

    let (first, rest) = heard.split_first().expect("one at least");
    assert_eq!(
        first["method"], "notifications/subscriptions/acknowledged",
        "{heard:?}"
    );
    assert_eq!(first["params"]["notifications"], filter, "{heard:?}");
    for told in rest {
        assert_eq!(told["method"], "notifications/tasks", "{heard:?}");
        assert_eq!(text(told, "/params/taskId"), id, "{heard:?}");
    }
    let last = rest.last().expect("its end");
    let said = text(last, "/params/result/content/0/text");
    assert!(
        said.starts_with("Long running operation completed."),
        "{heard:?}"
    );
}
