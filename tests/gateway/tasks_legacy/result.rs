//! What `tasks/result` waits for, what is asked meanwhile, and what it gives in the end.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_gateway::converse::OPEN_MAX;
use tidegate_gateway::listen::LISTENS_PER_PRINCIPAL_MAX;
use tidegate_gateway::tasks::legacy::RESULT_WITHIN;

use super::{RELATED, get, id, offering, setup, task, wait};
use crate::converse::talk::{Client, VERSION, asking, everything, form, name, requiring};
use crate::tasks;
use crate::tasks_passed::{self, Minting, THEIRS};
use crate::world::{RESULT, Said, Script, Setup, World, complete};

#[test]
fn a_result_is_waited_for_and_is_what_the_call_would_have_given() {
    let (world, script) = offering("auto");
    script.on("tools/call", |_| {
        Said::After(
            Duration::from_secs(60),
            Box::new(Said::Result(complete(RESULT))),
        )
    });
    let client = Client::of(&world, everything());
    let created = id(&world.call(task(&client, json!({}))));
    let mut waiting = client.open(wait(&client, &created));
    assert!(
        matches!(world.deliver()[..], [Consumed::Retry { .. }]),
        "it is being run"
    );
    waiting.wait(Duration::from_secs(40));
    assert_eq!(waiting.message(), None);
    let end = waiting.end();
    let mut expected = complete(RESULT);
    expected.as_object_mut().unwrap().shift_remove("resultType");
    expected["_meta"] = json!({ RELATED: { "taskId": created } });
    assert_eq!(end["result"], expected);
    assert_eq!(end["id"], 1);
    // It can be had again, at once, anywhere.
    let elsewhere = world.isolate();
    let told = elsewhere.call(wait(&client, &created));
    assert_eq!((told.result(), told.streamed()), (&expected, false));
}

#[test]
fn a_quiet_stream_is_kept_alive() {
    let (world, _) = offering("task");
    let client = Client::of(&world, everything());
    let created = id(&world.call(task(&client, json!({ "ttl": 120_000 }))));
    let told = world.call(wait(&client, &created));
    assert_eq!(told.refusal(), (200, -32602), "nobody ran it");
    assert!(told.streamed() && told.comments >= 6, "{told:?}");
}

#[test]
fn an_error_is_what_the_call_would_have_given() {
    let (world, script) = offering("task");
    let client = Client::of(&world, everything());
    script.on("tools/call", |_| Said::Error(-32602));
    let created = id(&world.call(task(&client, json!({}))));
    world.deliver();
    let told = world.call(wait(&client, &created));
    assert_eq!(told.refusal(), (200, -32602));
    assert_eq!(told.error()["message"], "said the upstream");
    script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "complete", "content": [], "isError": true, "_meta": { "x": 1 } }))
    });
    let created = id(&world.call(task(&client, json!({}))));
    world.deliver();
    let told = world.call(wait(&client, &created));
    let meta = json!({ "x": 1, RELATED: { "taskId": created } });
    assert_eq!(
        *told.result(),
        json!({ "content": [], "isError": true, "_meta": meta })
    );
}

#[test]
fn a_result_kept_in_parts_is_whole() {
    let (world, script) = offering("task");
    let client = Client::of(&world, everything());
    let long = "x".repeat(3 * 1024 * 1024);
    let said = complete(&long);
    script.on("tools/call", move |_| Said::Result(said.clone()));
    let created = id(&world.call(task(&client, json!({}))));
    world.deliver();
    assert_eq!(world.call(wait(&client, &created)).said(), long);
}

#[test]
fn a_cancelled_task_has_no_result_and_whoever_waits_is_told() {
    let (world, _) = offering("task");
    let client = Client::of(&world, everything());
    let created = id(&world.call(task(&client, json!({}))));
    let mut waiting = client.open(wait(&client, &created));
    waiting.wait(Duration::from_secs(7));
    let elsewhere = world.isolate();
    let cancel = client.ask("tasks/cancel", json!({ "taskId": created }));
    assert_eq!(elsewhere.call(cancel).result()["status"], "cancelled");
    assert_eq!(waiting.end()["error"]["code"], -32602);
}

#[test]
fn a_result_is_not_given_to_who_may_no_longer_call_the_tool() {
    for ends in [true, false] {
        let (world, script) = offering("task");
        let client = Client::of(&world, everything());
        let created = id(&world.call(task(&client, json!({}))));
        let mut waiting = client.open(wait(&client, &created));
        waiting.wait(Duration::from_secs(7));
        let deny = json!({ "name": "nobody", "effect": "deny", "tools": ["up__ask"] });
        let denying = setup(&script, "task").config(&json!({ "policy": { "rules": [deny] } }));
        world.sim.kv.publish("config", denying.snapshot());
        waiting.wait(Duration::from_secs(60));
        if ends {
            world.isolate().deliver();
        }
        let end = waiting.end();
        assert_eq!(end["error"]["data"]["reason"], "denied", "{end}");
    }
}

#[test]
fn waiting_ends_with_the_task_and_after_a_bound() {
    let (world, _) = offering("task");
    let client = Client::of(&world, everything());
    let short = id(&world.call(task(&client, json!({ "ttl": 90_000 }))));
    let mut waiting = client.open(wait(&client, &short));
    waiting.wait(Duration::from_secs(89));
    assert_eq!(waiting.message(), None);
    waiting.wait(Duration::from_secs(5));
    assert_eq!(
        waiting.end()["error"]["code"],
        -32602,
        "it is known no longer"
    );

    let script = Script::modern(&["ask"]);
    let hours = json!({ "tasks": { "ttlMs": 3 * 3_600_000 } });
    let world = setup(&script, "task").config(&hours).start();
    script.on("tools/call", |_| Said::Result(complete(RESULT)));
    let client = Client::of(&world, everything());
    let long = id(&world.call(task(&client, json!({}))));
    let mut waiting = client.open(wait(&client, &long));
    waiting.wait(RESULT_WITHIN - Duration::from_secs(1));
    assert_eq!(waiting.message(), None);
    assert_eq!(waiting.end()["error"]["code"], -32603);
    assert_eq!(get(&client, &long)["status"], "working", "the task goes on");
}

#[test]
fn only_so_many_wait_at_a_time_and_what_has_ended_is_not_waited_for() {
    let (world, _) = offering("task");
    let client = Client::of(&world, everything());
    let done = id(&world.call(task(&client, json!({}))));
    world.deliver();
    let open = id(&world.call(task(&client, json!({}))));
    let mut waiting = Vec::new();
    for _ in 0..LISTENS_PER_PRINCIPAL_MAX {
        let mut one = client.open(wait(&client, &open));
        one.step();
        waiting.push(one);
    }
    let refused = world.call(wait(&client, &open));
    assert_eq!(refused.refusal(), (429, -31002));
    assert_eq!(world.call(wait(&client, &done)).status, 200);
    waiting.pop();
    let mut one = client.open(wait(&client, &open));
    one.wait(Duration::from_secs(6));
    assert_eq!(one.status.map(|status| status.as_u16()), Some(200));
}

#[test]
fn what_a_task_asks_is_asked_where_its_result_is_waited_for() {
    let (theirs, _) = asking(&[("elicitation/create", form())]);
    let ours = requiring(json!({ "k": { "method": "elicitation/create", "params": form() } }));
    for script in [theirs, ours] {
        let world = setup(&script, "task").start();
        let client = Client::of(&world, everything());
        let created = id(&world.call(task(&client, json!({}))));
        let mut waiting = client.open(wait(&client, &created));
        waiting.wait(Duration::from_secs(1));
        world.deliver();
        let question = waiting.question();
        assert_eq!(question["method"], "elicitation/create");
        assert_eq!(
            question["params"]["_meta"],
            json!({ RELATED: { "taskId": created } })
        );
        let asked = question["params"]["message"].as_str().unwrap();
        assert!(asked.starts_with("up: Who are you?"), "{asked}");
        assert_eq!(get(&client, &created)["status"], "input_required");
        client.at(&world.isolate()).answer(&question, name("Ada"));
        let end = until_done(&world, &mut waiting);
        let text = end["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text == "thanks" || text.contains("Ada"), "{text}");
        assert_eq!(end["result"]["_meta"][RELATED]["taskId"], created);
        assert_eq!(get(&client, &created)["status"], "completed");
    }
}

#[test]
fn whoever_waits_next_is_asked_what_is_still_open() {
    let script = requiring(json!({
        "a": { "method": "elicitation/create", "params": form() },
        "b": { "method": "roots/list", "params": {} },
    }));
    let world = setup(&script, "task").start();
    let client = Client::of(&world, everything());
    let created = id(&world.call(task(&client, json!({}))));
    world.deliver();
    let mut first = client.open(wait(&client, &created));
    let (one, two) = (first.question(), first.question());
    let (form, roots) = match one["method"] == "elicitation/create" {
        true => (one, two),
        false => (two, one),
    };
    client.answer(&roots, json!({ "roots": [] }));
    first.wait(Duration::from_secs(1));
    drop(first);
    world.settle();
    // An answer to a stream that is gone is none.
    client.answer(&form, name("nobody"));
    let mut second = client.open(wait(&client, &created));
    let again = second.question();
    assert_eq!(again["method"], "elicitation/create");
    assert_ne!(again["id"], form["id"]);
    second.wait(Duration::from_secs(1));
    assert_eq!(second.message(), None, "the other is answered");
    client.answer(&again, name("Ada"));
    let end = until_done(&world, &mut second);
    let text = end["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("Ada") && !text.contains("nobody"), "{text}");
}

#[test]
fn a_question_the_client_refuses_goes_back_to_who_asked_or_ends_the_call() {
    let (theirs, answers) = asking(&[("elicitation/create", form())]);
    let world = setup(&theirs, "task").start();
    let client = Client::of(&world, everything());
    let created = id(&world.call(task(&client, json!({}))));
    world.deliver();
    let mut waiting = client.open(wait(&client, &created));
    client.refuse(&waiting.question());
    let end = until_done(&world, &mut waiting);
    assert_eq!(end["result"]["content"][0]["text"], "thanks");
    assert_eq!(answers.borrow()[0]["error"]["code"], -1);

    let ours = requiring(json!({ "k": { "method": "elicitation/create", "params": form() } }));
    let world = setup(&ours, "task").start();
    let client = Client::of(&world, everything());
    let created = id(&world.call(task(&client, json!({}))));
    world.deliver();
    let mut waiting = client.open(wait(&client, &created));
    client.refuse(&waiting.question());
    let end = waiting.end();
    assert_eq!(end["result"]["isError"], true);
    assert_eq!(get(&client, &created)["status"], "failed");
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn a_task_its_upstream_makes_is_followed_to_its_result() {
    let minting = Minting::new();
    let world = minting.world(&json!({ "execution": "task" }));
    let client = Client::of(&world, everything());
    let call = client.ask("tools/call", json!({ "name": "up__a", "task": {} }));
    let created = id(&world.call(call));
    let mut waiting = client.open(wait(&client, &created));
    waiting.wait(Duration::from_secs(1));
    assert!(matches!(world.deliver()[..], [Consumed::Retry { .. }]));
    let requests = json!({ "k": { "method": "elicitation/create", "params": form() } });
    minting.shows(json!({ "status": "input_required", "inputRequests": requests }));
    let question = waiting.question();
    let related = &question["params"]["_meta"][RELATED]["taskId"];
    assert_eq!(*related, created);
    client.answer(&question, name("Ada"));
    waiting.wait(Duration::from_secs(3));
    let update = &world.bodies("up", "tasks/update")[0]["params"];
    assert_eq!(update["inputResponses"]["k"], name("Ada"));
    minting.shows(json!({ "status": "completed", "result": complete("done") }));
    let end = waiting.end();
    assert_eq!(end["result"]["content"][0]["text"], "done");
    assert!(!end.to_string().contains(THEIRS));
}

#[test]
fn a_task_that_was_passed_on_is_for_clients_of_the_extension() {
    let minting = Minting::new();
    let world = Setup::new()
        .upstream("up", &minting.script)
        .rule(json!({ "name": "up__b", "execution": "auto" }))
        .start();
    let passed = tasks::handle(&tasks_passed::made(&world));
    let client = Client::of(&world, everything());
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        let told = world.call(client.ask(method, json!({ "taskId": passed })));
        assert_eq!(told.refusal(), (200, -32602), "{method}");
    }
    let listed = world.call(client.ask("tasks/list", json!({})));
    assert_eq!(listed.result()["tasks"], json!([]));
    assert_eq!(world.count("up", "tasks/get"), 0);
}

#[test]
fn only_what_the_session_declared_is_asked() {
    let script = Script::legacy(VERSION, &["ask"]);
    let world = setup(&script, "task").start();
    let client = Client::of(&world, json!({ "roots": {} }));
    world.call(task(&client, json!({})).header("accept", "application/json"));
    world.call(task(&client, json!({})).without("mcp-session-id"));
    world.deliver();
    let declared: Vec<Value> = world
        .bodies("up", "initialize")
        .iter()
        .map(|opened| opened["params"]["capabilities"].clone())
        .collect();
    assert!(declared.contains(&json!({ "roots": {} })), "{declared:?}");
    assert!(declared.contains(&json!({})), "{declared:?}");
}

#[test]
fn who_declared_less_than_a_tasks_maker_is_not_asked_the_rest_and_ends_nothing() {
    let (theirs, answers) = asking(&[("elicitation/create", form())]);
    let ours = requiring(json!({ "k": { "method": "elicitation/create", "params": form() } }));
    for script in [theirs, ours] {
        let world = setup(&script, "task").start();
        let client = Client::of(&world, everything());
        let created = id(&world.call(task(&client, json!({}))));
        world.deliver();
        let less = Client::of(&world, json!({ "roots": {} }));
        let mut other = less.open(wait(&less, &created));
        other.wait(Duration::from_secs(60));
        assert_eq!(other.message(), None);
        assert_eq!(get(&client, &created)["status"], "input_required");
        let mut waiting = client.open(wait(&client, &created));
        client.answer(&waiting.question(), name("Ada"));
        let end = until_done(&world, &mut waiting);
        let text = end["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text == "thanks" || text.contains("Ada"), "{text}");
        assert_eq!(until_done(&world, &mut other)["result"], end["result"]);
    }
    assert!(answers.borrow()[0]["error"].is_null());
}

#[test]
fn an_answer_the_store_would_not_take_is_asked_for_again() {
    let script = requiring(json!({ "k": { "method": "elicitation/create", "params": form() } }));
    let world = setup(&script, "task").start();
    let client = Client::of(&world, everything());
    let created = id(&world.call(task(&client, json!({}))));
    world.deliver();
    let mut waiting = client.open(wait(&client, &created));
    let question = waiting.question();
    world
        .sim
        .atomic
        .faults
        .arrange("task/", 8, tidegate_simulator::Fault::Fail);
    client.answer(&question, name("lost"));
    let again = waiting.question();
    assert_ne!(again["id"], question["id"]);
    client.answer(&again, name("Ada"));
    let end = until_done(&world, &mut waiting);
    let text = end["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("Ada"), "{text}");
}

#[test]
fn a_question_that_cannot_be_asked_now_is_asked_later() {
    let script = requiring(json!({ "k": { "method": "elicitation/create", "params": form() } }));
    let world = setup(&script, "task").start();
    let client = Client::of(&world, everything());
    let created = id(&world.call(task(&client, json!({}))));
    world.deliver();
    let faults = &world.sim.atomic.faults;
    faults.arrange("mail/", 1, tidegate_simulator::Fault::Fail);
    let mut waiting = client.open(wait(&client, &created));
    let question = waiting.question();
    assert_eq!(faults.pending(), 0);
    client.answer(&question, name("Ada"));
    let end = until_done(&world, &mut waiting);
    let text = end["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("Ada"), "{text}");
}

#[test]
fn what_is_asked_beyond_what_may_be_open_waits_for_its_turn() {
    let one = json!({ "method": "elicitation/create", "params": form() });
    let all: Vec<String> = (0..=OPEN_MAX).map(|number| format!("k{number}")).collect();
    let requests: Value = all.iter().map(|key| (key.clone(), one.clone())).collect();
    let script = requiring(requests);
    let world = setup(&script, "task").start();
    let client = Client::of(&world, everything());
    let created = id(&world.call(task(&client, json!({}))));
    world.deliver();
    let mut waiting = client.open(wait(&client, &created));
    let open: Vec<Value> = (0..OPEN_MAX).map(|_| waiting.question()).collect();
    waiting.wait(Duration::from_secs(60));
    assert_eq!(waiting.message(), None);
    assert_eq!(get(&client, &created)["status"], "input_required");
    client.answer(&open[0], name("Ada"));
    let last = waiting.question();
    for question in open[1..].iter().chain([&last]) {
        client.answer(question, name("Ada"));
    }
    let end = until_done(&world, &mut waiting);
    let text = end["result"]["content"][0]["text"].as_str().unwrap();
    assert!(all.iter().all(|key| text.contains(key)), "{text}");
}

#[test]
fn a_question_nobody_answers_outlasts_who_was_asked() {
    let script = requiring(json!({ "k": { "method": "elicitation/create", "params": form() } }));
    let hours = json!({ "tasks": { "ttlMs": 3 * 3_600_000 } });
    let world = setup(&script, "task").config(&hours).start();
    let client = Client::of(&world, everything());
    let created = id(&world.call(task(&client, json!({}))));
    world.deliver();
    let mut waiting = client.open(wait(&client, &created));
    waiting.question();
    waiting.wait(RESULT_WITHIN - Duration::from_secs(1));
    assert_eq!(waiting.end()["error"]["code"], -32603);
    assert_eq!(get(&client, &created)["status"], "input_required");
}

/// Delivers what the queue has until the waiting is over.
#[track_caller]
fn until_done(world: &World, waiting: &mut crate::converse::talk::Talk<'_>) -> Value {
    for _ in 0..100 {
        waiting.wait(Duration::from_millis(500));
        world.deliver();
        if let Some(message) = waiting.message() {
            assert!(message.get("method").is_none(), "{message}");
            return message;
        }
    }
    panic!("the task does not end")
}
