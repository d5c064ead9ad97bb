//! The tasks of 2025-11-25: who is offered them, how a call becomes one, and what its client
//! sees. What it waits for and is asked is claimed in `result`, what it lists in `list`.

mod list;
mod result;

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_gateway::tasks::legacy::TTL_MIN;

use crate::converse::talk::{Client, VERSION, everything};
use crate::tasks;
use crate::world::{ARGUMENT, Ask, RESULT, Said, Script, Setup, Told, World};
use crate::world::{complete, legacy, modern};

const RELATED: &str = "io.modelcontextprotocol/related-task";
const OLDER: [&str; 3] = ["2024-11-05", "2025-03-26", "2025-06-18"];

#[test]
fn tasks_are_declared_to_clients_of_one_revision_where_a_tool_may_become_one() {
    let here = Some("127.0.0.1");
    let declared = |world: &World, version: &str| {
        let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
        let ask = legacy(version, "initialize", params).header("host", "localhost");
        world.call(ask.from(here, None)).result()["capabilities"]["tasks"].clone()
    };
    let cancel = json!({ "cancel": {}, "requests": { "tools": { "call": {} } } });
    let mut all = cancel.clone();
    all["list"] = json!({});
    let (world, _) = offering("auto");
    assert_eq!(declared(&world, VERSION), all);
    for version in OLDER {
        assert_eq!(declared(&world, version), Value::Null, "{version}");
    }
    let (world, _) = offering("sync");
    assert_eq!(declared(&world, VERSION), Value::Null);
    let script = Script::modern(&["ask"]);
    let world = setup(&script, "task").config(&json!({ "publicUrl": "http://localhost:8787", "metadata": { "environment": "dev" }, "authentication": { "type": "none" } }));
    let world = world.start();
    assert_eq!(
        declared(&world, VERSION),
        cancel,
        "nobody can be told apart"
    );
    let list = legacy(VERSION, "tasks/list", json!({})).anonymous();
    let told = world.call(list.header("host", "localhost").from(here, None));
    assert_eq!(told.refusal(), (200, -32601));
    // The two eras' tasks are declared each in its own way.
    let told = world.call(
        modern("server/discover", json!({}))
            .anonymous()
            .header("host", "localhost")
            .from(here, None),
    );
    assert!(told.result()["capabilities"].get("tasks").is_none());
}

#[test]
fn tool_lists_say_what_the_rules_say_whatever_the_upstream_does() {
    let script = Script::modern(&[]);
    for (name, theirs) in [
        ("s", "required"),
        ("a", "forbidden"),
        ("t", "optional"),
        ("n", "required"),
    ] {
        let schema = json!({ "type": "object" });
        let execution = json!({ "taskSupport": theirs });
        script.listing(
            "tools",
            json!({ "name": name, "inputSchema": schema, "execution": execution }),
        );
    }
    let world = Setup::new()
        .upstream("up", &script)
        .rule(json!({ "name": "up__s", "execution": "sync" }))
        .rule(json!({ "name": "up__a", "execution": "auto" }))
        .rule(json!({ "name": "up__t", "execution": "task" }))
        .start();
    let supports = |told: Told| -> Vec<Value> {
        let tools = told.result()["tools"].as_array().unwrap().clone();
        tools
            .iter()
            .map(|tool| tool["execution"]["taskSupport"].clone())
            .collect()
    };
    let told = world.call(legacy(VERSION, "tools/list", json!({})));
    assert_eq!(
        supports(told),
        ["forbidden", "optional", "required", "forbidden"]
    );
    for version in OLDER {
        let told = world.call(legacy(version, "tools/list", json!({})));
        assert_eq!(supports(told), [const { Value::Null }; 4], "{version}");
    }
    let told = world.call(modern("tools/list", json!({})));
    assert_eq!(supports(told), [const { Value::Null }; 4]);
    let world = Setup::new().upstream("up", &script).start();
    let told = world.call(legacy(VERSION, "tools/list", json!({})));
    assert_eq!(
        supports(told),
        [const { Value::Null }; 4],
        "tasks are not offered"
    );
}

#[test]
fn a_call_that_asks_for_it_becomes_a_task_at_once() {
    for execution in ["auto", "task"] {
        let (world, script) = offering(execution);
        let client = Client::of(&world, everything());
        let created = world.call(task(&client, json!({})));
        let result = created.result();
        assert_eq!(result.as_object().unwrap().len(), 1, "{result}");
        let task = &result["task"];
        assert_eq!(
            (&task["status"], &task["ttl"]),
            (&json!("working"), &json!(3_600_000))
        );
        assert!(task["pollInterval"].is_u64() && task["createdAt"].is_string());
        assert_eq!(task["createdAt"], task["lastUpdatedAt"]);
        for absent in ["ttlMs", "pollIntervalMs", "result", "resultType"] {
            assert!(task.get(absent).is_none(), "{absent}");
        }
        assert_eq!(world.audits().pop().unwrap()["outcome"], "task");
        assert_eq!(world.count("up", "tools/call"), 0, "nothing ran yet");
        script.on("tools/call", |heard| {
            assert!(heard.params().get("task").is_none());
            assert_eq!(heard.params()["arguments"]["q"], ARGUMENT);
            Said::Result(complete(RESULT))
        });
        world.deliver();
        assert_eq!(get(&client, &id(&created))["status"], "completed");
    }
}

#[test]
fn a_task_is_kept_as_long_as_asked_within_bounds() {
    let (world, _) = offering("auto");
    let client = Client::of(&world, everything());
    let ttl = |asked: Value| world.call(task(&client, asked)).result()["task"]["ttl"].clone();
    let least = u64::try_from(TTL_MIN.as_millis()).unwrap();
    for (asked, granted) in [
        (json!({}), 3_600_000),
        (json!({ "ttl": 120_000 }), 120_000),
        (json!({ "ttl": 1 }), least),
        (json!({ "ttl": 0 }), least),
        (json!({ "ttl": u64::MAX }), 3_600_000),
        (json!({ "ttl": null }), 3_600_000),
    ] {
        assert_eq!(ttl(asked.clone()), granted, "{asked}");
    }
    for asked in [
        json!(null),
        json!(7),
        json!("x"),
        json!([1]),
        json!({ "ttl": -1 }),
        json!({ "ttl": "1" }),
    ] {
        let told = world.call(task(&client, asked.clone()));
        assert_eq!(told.refusal(), (200, -32602), "{asked}");
    }
    let created = world.call(task(&client, json!({ "ttl": 120_000 })));
    world.sim.clock.advance(Duration::from_secs(119));
    assert_eq!(get(&client, &id(&created))["ttl"], 120_000);
    world.sim.clock.advance(Duration::from_secs(1));
    let told = world.call(client.ask("tasks/get", json!({ "taskId": id(&created) })));
    assert_eq!(told.code(), -32602);
}

#[test]
fn the_rule_forbids_or_requires_a_task() {
    let (world, _) = offering_also("sync");
    let client = Client::of(&world, everything());
    assert_eq!(
        world.call(task(&client, json!({}))).refusal(),
        (200, -32601)
    );
    assert_eq!(world.call(client.tool()).said(), format!("{RESULT} ask"));
    let (world, _) = offering("task");
    let client = Client::of(&world, everything());
    assert_eq!(world.call(client.tool()).refusal(), (200, -32601));
    assert_eq!(world.count("up", "tools/call"), 0);
    let (world, _) = offering("auto");
    let client = Client::of(&world, everything());
    assert_eq!(world.call(client.tool()).said(), format!("{RESULT} ask"));
    assert_eq!(world.sim.queue.sent(), 0);
}

#[test]
fn to_other_revisions_the_param_means_nothing_and_the_methods_do_not_exist() {
    for execution in ["auto", "task"] {
        let (world, script) = offering(execution);
        script.on("tools/call", |heard| {
            assert!(
                heard.params().get("task").is_none(),
                "it is not the upstream's either"
            );
            Said::Result(complete("direct"))
        });
        let params = json!({ "name": "up__ask", "task": { "ttl": 1000 }, "arguments": {} });
        for version in OLDER {
            let told = world.call(legacy(version, "tools/call", params.clone()));
            assert_eq!(told.said(), "direct", "{version}");
            for method in ["tasks/get", "tasks/result", "tasks/list", "tasks/cancel"] {
                let told = world.call(legacy(version, method, json!({ "taskId": "x" })));
                assert_eq!(told.refusal(), (200, -32601), "{version} {method}");
            }
        }
        for method in ["tasks/result", "tasks/list"] {
            let told = world.call(modern(method, json!({ "taskId": "x" })).with_tasks());
            assert_eq!(told.refusal(), (404, -32601), "{method}");
        }
    }
    // Nor to clients that are not offered tasks at all.
    let (world, _) = offering("sync");
    let client = Client::of(&world, everything());
    assert_eq!(
        world.call(task(&client, json!({}))).said(),
        format!("{RESULT} ask")
    );
    for method in ["tasks/get", "tasks/result", "tasks/list", "tasks/cancel"] {
        let told = world.call(client.ask(method, json!({ "taskId": "x" })));
        assert_eq!(told.refusal(), (200, -32601), "{method}");
    }
    assert_eq!(world.sim.queue.sent(), 0);
}

#[test]
fn a_client_without_a_session_has_tasks_too() {
    let (world, _) = offering("task");
    let params = json!({ "name": "up__ask", "arguments": {}, "task": {} });
    let created = world.call(legacy(VERSION, "tools/call", params));
    world.deliver();
    let ask = |method: &str| legacy(VERSION, method, json!({ "taskId": id(&created) }));
    assert_eq!(world.call(ask("tasks/get")).result()["status"], "completed");
    assert_eq!(
        world.call(ask("tasks/result")).said(),
        format!("{RESULT} ask")
    );
    let quiet = ask("tasks/result").header("accept", "application/json");
    assert_eq!(world.call(quiet).said(), format!("{RESULT} ask"));
}

#[test]
fn one_task_has_two_views() {
    // Rows of the digest: status of a tool's error, of a protocol error, and of a result.
    for (said, modern_status, legacy_status) in [
        (
            json!({ "result": complete("fine") }),
            "completed",
            "completed",
        ),
        (
            json!({ "result": { "resultType": "complete", "content": [], "isError": true } }),
            "completed",
            "failed",
        ),
        (
            json!({ "error": { "code": -32603, "message": "x" } }),
            "failed",
            "failed",
        ),
    ] {
        let (world, script) = offering("task");
        let client = Client::of(&world, everything());
        script.on("tools/call", move |heard| {
            let mut message = said.clone();
            message["jsonrpc"] = "2.0".into();
            message["id"] = heard.message["id"].clone();
            Said::Refusal(200, message)
        });
        let created = world.call(task(&client, json!({ "ttl": 600_000 })));
        world.sim.clock.advance(Duration::from_secs(1));
        assert_eq!(world.deliver(), [Consumed::Done]);
        let ours = get(&client, &id(&created));
        let theirs = world.call(tasks::get(&id(&created))).result().clone();
        assert_eq!(
            (&ours["status"], &theirs["status"]),
            (&legacy_status.into(), &modern_status.into())
        );
        for (old, new) in [
            ("ttl", "ttlMs"),
            ("pollInterval", "pollIntervalMs"),
            ("taskId", "taskId"),
            ("createdAt", "createdAt"),
            ("lastUpdatedAt", "lastUpdatedAt"),
        ] {
            assert_eq!(ours[old], theirs[new]);
        }
        for absent in [
            "result",
            "error",
            "inputRequests",
            "resultType",
            "ttlMs",
            "_meta",
        ] {
            assert!(ours.get(absent).is_none(), "{absent}");
        }
    }
}

#[test]
fn a_task_is_cancelled_at_once_and_for_good_and_an_ended_one_is_not() {
    let (world, script) = offering("task");
    let client = Client::of(&world, everything());
    let created = world.call(task(&client, json!({})));
    let cancel = || client.ask("tasks/cancel", json!({ "taskId": id(&created) }));
    let told = world.call(cancel());
    assert_eq!(
        (&told.result()["status"], &told.result()["taskId"]),
        (&json!("cancelled"), &json!(id(&created)))
    );
    assert!(told.result()["ttl"].is_u64() && told.result().get("_meta").is_none());
    script.on("tools/call", |_| panic!("a cancelled task was run"));
    assert_eq!(world.deliver(), [Consumed::Done]);
    assert_eq!(get(&client, &id(&created))["status"], "cancelled");
    assert_eq!(
        world.call(cancel()).refusal(),
        (200, -32602),
        "it has ended"
    );
    // For a modern client it stays an acknowledgement.
    assert_eq!(
        world.call(tasks::cancel(&id(&created))).result()["resultType"],
        "complete"
    );

    script.off("tools/call");
    let done = world.call(task(&client, json!({})));
    world.deliver();
    let told = world.call(client.ask("tasks/cancel", json!({ "taskId": id(&done) })));
    assert_eq!(told.refusal(), (200, -32602));
    assert!(
        told.error()["message"]
            .as_str()
            .unwrap()
            .contains("completed")
    );
}

#[test]
fn a_cancellation_of_a_request_cancels_no_task() {
    let (world, _) = offering("task");
    let client = Client::of(&world, everything());
    let created = world.call(task(&client, json!({})).id(json!("call")));
    client.cancel(json!("call"));
    assert_eq!(get(&client, &id(&created))["status"], "working");
    let mut waiting = client.open(wait(&client, &id(&created)).id(json!("wait")));
    waiting.wait(Duration::from_secs(10));
    client.cancel(json!("wait"));
    assert_eq!(waiting.next(), None, "nobody waits any more");
    assert_eq!(get(&client, &id(&created))["status"], "working");
    world.deliver();
    assert_eq!(get(&client, &id(&created))["status"], "completed");
}

#[test]
fn foreign_forged_and_expired_ids_are_unknown_in_the_same_words() {
    let (world, _) = offering("task");
    let client = Client::of(&world, everything());
    let ben = Client::by(&world, "ben", everything());
    let created = world.call(task(&client, json!({})));
    let expired = id(&world.call(task(&client, json!({ "ttl": 60_000 }))));
    world.sim.clock.advance(Duration::from_secs(61));
    let foreign = id(&created);
    let mut words = Vec::new();
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        for (who, id) in [
            (&ben, &foreign),
            (&client, &expired),
            (&client, &"forged".to_owned()),
        ] {
            let told = world.call(who.ask(method, json!({ "taskId": id })));
            assert_eq!(told.refusal(), (200, -32602), "{method}");
            words.push(told.error().clone());
        }
        let told = world.call(client.ask(method, json!({ "taskId": 7 })));
        assert_eq!(told.refusal(), (200, -32602));
    }
    words.dedup();
    assert_eq!(words.len(), 1, "{words:?}");
}

#[test]
fn a_call_that_is_refused_for_its_arguments_is_a_task_that_has_failed() {
    let script = Script::modern(&[]);
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] });
    script.listing("tools", json!({ "name": "ask", "inputSchema": schema }));
    let world = setup(&script, "auto").start();
    let client = Client::of(&world, everything());
    let refused = world.call(client.tool()).result().clone();
    assert_eq!(refused["isError"], true);
    let created = world.call(task(&client, json!({})));
    assert_eq!(
        created.result()["task"]["status"],
        "working",
        "as every task begins"
    );
    assert_eq!(get(&client, &id(&created))["status"], "failed");
    let told = world.call(wait(&client, &id(&created)));
    assert_eq!(told.result()["content"], refused["content"]);
    assert_eq!(told.result()["isError"], true);
    assert_eq!(
        (world.sim.queue.sent(), world.count("up", "tools/call")),
        (0, 0)
    );
}

/// A gateway whose tool `up__ask` has this execution.
fn offering(execution: &str) -> (World, Script) {
    let script = Script::modern(&["ask"]);
    (setup(&script, execution).start(), script)
}

/// The same, and another tool may become a task.
fn offering_also(execution: &str) -> (World, Script) {
    let script = Script::modern(&["ask", "other"]);
    let other = json!({ "name": "up__other", "execution": "auto" });
    (setup(&script, execution).rule(other).start(), script)
}

fn setup(script: &Script, execution: &str) -> Setup {
    let rule = json!({ "name": "up__ask", "execution": execution });
    Setup::new().upstream("up", script).rule(rule)
}

/// Calls `up__ask` as a task.
fn task(client: &Client, task: Value) -> Ask {
    client.tool().param("task", task)
}

fn wait(client: &Client, id: &str) -> Ask {
    client.ask("tasks/result", json!({ "taskId": id }))
}

#[track_caller]
fn get(client: &Client, id: &str) -> Value {
    let told = client
        .world
        .call(client.ask("tasks/get", json!({ "taskId": id })));
    assert_eq!(told.result()["taskId"], id);
    told.result().clone()
}

#[track_caller]
fn id(created: &Told) -> String {
    created.result()["task"]["taskId"]
        .as_str()
        .unwrap()
        .to_owned()
}
