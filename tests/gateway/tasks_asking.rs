//! Tasks that ask their clients: `input_required`, answered by `tasks/update`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_simulator::{End, Running};

use crate::tasks::{
    HOSTS, TASKS, cancel, finish, get, go_on, handle, lose_keepers, record, status, take_up,
};
use crate::world::{Ask, Heard, Said, Script, Setup, Step, World, complete, modern};

const SECOND: Duration = Duration::from_secs(1);
/// What a modern upstream keeps to itself between two rounds.
const STATE: &str = "CANARY-STATE";

#[test]
fn a_legacy_upstream_is_kept_waiting_while_its_client_is_asked() {
    for (kept, execution) in HOSTS
        .into_iter()
        .flat_map(|kept| [(kept, "task"), (kept, "auto")])
    {
        let (world, answers) = legacy_world(kept, json!({ "execution": execution }), 2);
        let (handle, mut worker) = begin(&world, execution);
        go_on(&world, &mut worker, SECOND);
        let mut keys = BTreeSet::new();
        for number in 0..2 {
            let told = world.call(get(&handle));
            assert_eq!(
                told.result()["status"],
                "input_required",
                "{execution}, kept: {kept}"
            );
            let (key, request) = only(&told.result()["inputRequests"]);
            assert!(keys.insert(key.clone()), "{key} was used before");
            assert_eq!(request["method"], "elicitation/create");
            assert_eq!(
                request["params"]["message"],
                format!("up: Question {number}?")
            );
            // What nobody asked is acknowledged, and ignored.
            let earlier = keys.iter().filter(|used| **used != key);
            for other in earlier.map(String::as_str).chain(["unknown"]) {
                assert_eq!(
                    world
                        .call(update(&handle, json!({ other: name("x") })))
                        .status,
                    200
                );
            }
            go_on(&world, &mut worker, SECOND * 30);
            assert_eq!(status(&world, &handle), "input_required");
            let update = update(&handle, json!({ key: name(&number.to_string()) }));
            assert_eq!(
                world.isolate().call(update).result()["resultType"],
                "complete"
            );
            go_on(&world, &mut worker, SECOND * 3);
        }
        let told = world.call(get(&handle));
        assert_eq!(
            told.result()["status"],
            "completed",
            "{execution}, kept: {kept}"
        );
        assert_eq!(told.result()["result"]["content"][0]["text"], "thanks");
        let answered: Vec<Value> = answers
            .borrow()
            .iter()
            .map(|a| a["result"].clone())
            .collect();
        assert_eq!(answered, [name("0"), name("1")], "each once");
        drop(worker);
        finish(&world);
        assert_eq!(status(&world, &handle), "completed");
        assert_eq!(world.count("up", "tools/call"), 1);
        let opened = world.bodies("up", "initialize");
        let capable = json!({ "elicitation": { "form": {} } });
        assert!(
            opened
                .iter()
                .any(|body| body["params"]["capabilities"] == capable)
        );
    }
}

#[test]
fn what_a_modern_upstream_asks_ends_the_run_and_the_answers_begin_the_next() {
    for kept in HOSTS {
        let world = modern_world(kept, json!({ "execution": "task" }));
        let (handle, mut worker) = begin(&world, "task");
        go_on(&world, &mut worker, SECOND);
        assert!(worker.is_none(), "the message is done with");
        let first = world.call(get(&handle));
        assert_eq!(first.result()["status"], "input_required");
        let first = first.result()["inputRequests"].as_object().unwrap().clone();
        assert_eq!(first.len(), 2);
        let stored = record(&world);
        assert!(stored.get("lease").is_none() && !stored.to_string().contains(STATE));
        assert_eq!(world.sim.queue.waiting(), 0, "nothing is held meanwhile");
        assert!(
            world
                .sim
                .keeper
                .names()
                .iter()
                .all(|n| !world.sim.keeper.is_busy(n))
        );

        let mut keys = first.keys();
        let (one, two) = (keys.next().unwrap(), keys.next().unwrap());
        world.call(update(
            &handle,
            json!({ one: name("1"), "other": name("x") }),
        ));
        let told = world.call(get(&handle));
        assert_eq!(
            told.result()["status"],
            "input_required",
            "one is still open"
        );
        assert_eq!(only(&told.result()["inputRequests"]).0, *two);
        world.call(update(&handle, json!({ one: name("again") })));
        assert_eq!(world.sim.queue.waiting(), 0, "not before all is answered");
        world.call(update(&handle, json!({ two: name("2") })));
        assert_eq!(status(&world, &handle), "working");
        world.call(update(&handle, json!({ two: name("again") })));
        assert_eq!(world.sim.queue.waiting(), 1, "once");

        assert_eq!(world.isolate().deliver(), [Consumed::Done]);
        let told = world.call(get(&handle));
        let (key, _) = only(&told.result()["inputRequests"]);
        assert!(!first.contains_key(&key), "{key} was used before");
        world.call(update(&handle, json!({ key: name("3") })));
        assert_eq!(world.isolate().deliver(), [Consumed::Done]);
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "completed");
        assert!(told.result().get("inputRequests").is_none());

        let sent = world.bodies("up", "tools/call");
        assert_eq!(sent.len(), 3, "one call a round");
        let round = |n: usize| {
            [
                &sent[n]["params"]["requestState"],
                &sent[n]["params"]["inputResponses"],
            ]
        };
        assert_eq!(round(0), [&Value::Null, &Value::Null]);
        assert_eq!(
            round(1),
            [
                &json!(format!("{STATE} 1")),
                &json!({ "a": name("1"), "b": name("2") })
            ]
        );
        assert_eq!(
            round(2),
            [&json!(format!("{STATE} 2")), &json!({ "a": name("3") })]
        );
    }
}

#[test]
fn a_tool_that_only_wants_to_be_asked_again_is_and_not_for_ever() {
    let (world, script) = crate::tasks::world("task");
    script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "input_required", "requestState": "s" }))
    });
    let begun = handle(&world.call(ask()));
    finish(&world);
    let told = world.call(get(&begun));
    assert_eq!(told.result()["status"], "failed");
    let reason = told.result()["error"]["message"].as_str().unwrap();
    assert!(reason.contains("more than 32 times"), "{reason}");
    assert_eq!(world.count("up", "tools/call"), 33);

    script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "input_required" }))
    });
    let begun = handle(&world.call(ask()));
    finish(&world);
    assert_eq!(status(&world, &begun), "failed");
}

#[test]
fn a_task_cancelled_while_it_asks_lets_go_and_stays_cancelled() {
    for (kept, legacy) in HOSTS
        .into_iter()
        .flat_map(|kept| [(kept, true), (kept, false)])
    {
        let world = world(kept, legacy);
        let (handle, mut worker) = begin(&world, "task");
        go_on(&world, &mut worker, SECOND * 2);
        let told = world.call(get(&handle));
        let requests = told.result()["inputRequests"].as_object().unwrap();
        let key = requests.keys().next().unwrap();
        world.call(cancel(&handle));
        go_on(&world, &mut worker, SECOND * 2);
        let told = world.call(update(&handle, json!({ key: name("late") })));
        assert_eq!(told.status, 200);
        drop(worker);
        finish(&world);
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "cancelled");
        assert!(told.result().get("inputRequests").is_none());
        assert_eq!(world.count("up", "tools/call"), 1);
        if legacy {
            assert_eq!(calls(&world), [End::Cancelled], "kept: {kept}");
            assert_eq!(world.count("up", "response"), 0, "no answer came of it");
        }
    }
}

#[test]
fn what_nobody_answers_in_ten_minutes_is_refused_and_nothing_is_wrong_with_the_upstream() {
    for kept in HOSTS {
        let (world, answers) = legacy_world(kept, json!({ "execution": "task" }), 1);
        let (handle, mut worker) = begin(&world, "task");
        for _ in 0..19 {
            go_on(&world, &mut worker, SECOND * 30);
        }
        assert_eq!(status(&world, &handle), "input_required");
        assert_eq!(answers.borrow().len(), 0);
        for _ in 0..3 {
            go_on(&world, &mut worker, SECOND * 30);
        }
        assert_eq!(answers.borrow()[0]["error"]["code"], -32601, "kept: {kept}");
        assert_eq!(status(&world, &handle), "completed", "kept: {kept}");
        assert_eq!(answers.borrow().len(), 1);
    }
}

#[test]
fn a_task_whose_time_is_over_while_it_asks_is_gone_and_its_call_with_it() {
    for (kept, legacy) in HOSTS
        .into_iter()
        .flat_map(|kept| [(kept, true), (kept, false)])
    {
        let world = world(kept, legacy);
        let (handle, mut worker) = begin(&world, "task");
        go_on(&world, &mut worker, SECOND * 2);
        assert_eq!(status(&world, &handle), "input_required");
        world.sim.clock.advance(Duration::from_secs(3600));
        go_on(&world, &mut worker, SECOND * 2);
        assert_eq!(world.call(get(&handle)).code(), -32602);
        assert_eq!(
            world.call(update(&handle, json!({ "k": {} }))).code(),
            -32602
        );
        assert!(worker.is_none());
        finish(&world);
        if legacy {
            assert_eq!(calls(&world), [End::Cancelled], "kept: {kept}");
        }
        let keys = world.sim.atomic.keys();
        assert!(keys.iter().all(|key| !key.starts_with("task/")));
    }
}

#[test]
fn a_worker_lost_while_its_client_is_asked_fails_the_task_unless_the_tool_may_run_again() {
    for (kept, idempotent) in HOSTS
        .into_iter()
        .flat_map(|kept| [(kept, false), (kept, true)])
    {
        let rule = json!({ "execution": "auto", "idempotent": idempotent });
        let (world, answers) = legacy_world(kept, rule, 1);
        let (handle, mut worker) = begin(&world, "auto");
        go_on(&world, &mut worker, SECOND);
        let told = world.call(get(&handle));
        let (key, _) = only(&told.result()["inputRequests"]);
        lose_keepers(&world);
        world.lose_deferred();
        // Nobody hears it; it is acknowledged all the same.
        assert_eq!(
            world
                .call(update(&handle, json!({ &key: name("x") })))
                .status,
            200
        );
        world.wait(Duration::from_secs(70));
        if !idempotent {
            finish(&world);
            assert_eq!(status(&world, &handle), "failed");
            assert_eq!(world.count("up", "tools/call"), 1);
            continue;
        }
        let mut worker = Some(take_up(&world));
        go_on(&world, &mut worker, SECOND);
        let told = world.call(get(&handle));
        assert_eq!(told.result()["status"], "input_required");
        let (again, _) = only(&told.result()["inputRequests"]);
        assert_ne!(again, key, "asked anew");
        world.call(update(&handle, json!({ again: name("y") })));
        go_on(&world, &mut worker, SECOND * 3);
        assert_eq!(status(&world, &handle), "completed");
        assert_eq!(world.count("up", "tools/call"), 2);
        assert_eq!(answers.borrow().len(), 1);
    }
}

#[test]
fn answers_that_come_after_the_upstreams_state_has_lapsed_fail_the_task_in_words() {
    let world = modern_setup(json!({ "execution": "task" }))
        .config(&json!({ "tasks": { "ttlMs": 7_200_000 } }))
        .start();
    let (handle, mut worker) = begin(&world, "task");
    go_on(&world, &mut worker, SECOND);
    let told = world.call(get(&handle));
    let keys = told.result()["inputRequests"].as_object().unwrap().keys();
    let answers: serde_json::Map<_, _> = keys.map(|key| (key.clone(), name("late"))).collect();
    world.sim.clock.advance(Duration::from_secs(3700));
    world.call(update(&handle, Value::Object(answers)));
    finish(&world);
    let told = world.call(get(&handle));
    assert_eq!(told.result()["status"], "failed");
    let reason = told.result()["error"]["message"].as_str().unwrap();
    assert!(reason.contains("too late"), "{reason}");
}

#[test]
fn answers_too_large_to_keep_are_refused_and_the_question_stays() {
    let (world, _) = legacy_world(true, json!({ "execution": "auto" }), 1);
    let (handle, _) = begin(&world, "auto");
    world.wait(SECOND);
    let (key, _) = only(&world.call(get(&handle)).result()["inputRequests"]);
    let long = name(&"x".repeat(600 * 1024));
    assert_eq!(
        world.call(update(&handle, json!({ &key: long }))).status,
        413
    );
    assert_eq!(status(&world, &handle), "input_required");
}

#[test]
fn where_nothing_can_be_parked_a_call_that_is_asked_something_becomes_a_task() {
    let (world, answers) = legacy_world(false, Value::Null, 1);
    let (handle, mut worker) = begin(&world, "auto");
    go_on(&world, &mut worker, SECOND);
    let told = world.call(get(&handle));
    assert_eq!(told.result()["status"], "input_required");
    let (key, _) = only(&told.result()["inputRequests"]);
    world.call(update(&handle, json!({ key: name("Ada") })));
    go_on(&world, &mut worker, SECOND * 3);
    assert_eq!(status(&world, &handle), "completed");
    assert_eq!(answers.borrow()[0]["result"], name("Ada"));
    assert_eq!(world.count("up", "tools/call"), 1);
    // One that is asked nothing is answered, however long it takes.
    let told = world.call(
        ask()
            .param("name", json!("up__b"))
            .header("mcp-name", "up__b"),
    );
    assert_eq!(told.result()["resultType"], "complete");
}

#[test]
fn where_nothing_can_be_parked_whoever_cannot_be_given_a_task_is_not_asked() {
    let undeclared = json!({ "elicitation": { "form": {} } });
    for (rule, ask) in [
        (json!({ "execution": "sync" }), ask()),
        (Value::Null, ask().meta("clientCapabilities", undeclared)),
    ] {
        let (world, answers) = legacy_world(false, rule, 1);
        assert_eq!(world.call(ask).said(), "thanks");
        assert_eq!(answers.borrow()[0]["error"]["code"], -32601);
        let opened = world.bodies("up", "initialize").pop().unwrap();
        assert_eq!(
            opened["params"]["capabilities"],
            json!({}),
            "and told so at once"
        );
    }
}

fn ask() -> Ask {
    let capabilities = json!({ "elicitation": { "form": {} }, "extensions": { TASKS: {} } });
    modern("tools/call", json!({ "name": "up__a", "arguments": {} }))
        .meta("clientCapabilities", capabilities)
}

fn update(handle: &str, responses: Value) -> Ask {
    let params = json!({ "taskId": handle, "inputResponses": responses });
    modern("tasks/update", params).with_tasks()
}

fn name(name: &str) -> Value {
    json!({ "action": "accept", "content": { "name": name } })
}

#[track_caller]
fn only(requests: &Value) -> (String, &Value) {
    let requests = requests.as_object().unwrap();
    assert_eq!(requests.len(), 1);
    let (key, request) = requests.iter().next().unwrap();
    (key.clone(), request)
}

/// How the calls ended.
fn calls(world: &World) -> Vec<End> {
    let calls = world.exchanges("up").into_iter();
    let calls = calls.filter(|e| String::from_utf8_lossy(&e.body()).contains("tools/call"));
    calls.map(|call| call.end()).collect()
}

/// A task, and whoever works on it beside keepers and deferred work.
#[track_caller]
fn begin(world: &World, execution: &str) -> (String, Option<Running<'static, Consumed>>) {
    let created = world.call(ask());
    assert_eq!(created.result()["resultType"], "task", "{created:?}");
    let worker = (execution == "task").then(|| {
        let message = world.sim.queue.take().remove(0);
        world.start_consuming(message)
    });
    (handle(&created), worker)
}

fn world(kept: bool, legacy: bool) -> World {
    let rule = json!({ "execution": "task" });
    match legacy {
        true => legacy_world(kept, rule, 1).0,
        false => modern_world(kept, rule),
    }
}

/// An upstream of 2025-11-25 that asks so many things, one after the other, and what it was
/// answered. `up__b` asks nothing.
fn legacy_world(kept: bool, rule: Value, questions: usize) -> (World, Rc<RefCell<Vec<Value>>>) {
    let script = Script::legacy("2025-11-25", &["a", "b", "c"]);
    let answers: Rc<RefCell<Vec<Value>>> = Rc::default();
    let heard_answers = Rc::clone(&answers);
    script.on("", move |heard| {
        heard_answers.borrow_mut().push(heard.message.clone());
        Said::Raw(202, "text/plain", Vec::new())
    });
    let heard_answers = Rc::clone(&answers);
    script.on("tools/call", move |heard: &Heard| {
        let mut steps = Vec::new();
        if heard.params()["name"] == "a" {
            for number in 0..questions {
                let answers = Rc::clone(&heard_answers);
                steps.push(Step::Send(question(number)));
                steps.push(Step::Until(Rc::new(move || {
                    answers.borrow().len() > number
                })));
            }
        } else {
            steps.push(Step::Wait(Duration::from_secs(20)));
        }
        steps.push(Step::Send(heard.response(&complete("thanks"))));
        Said::Stream(steps)
    });
    let mut setup = Setup::new()
        .upstream("up", &script)
        // So that the extension is declared.
        .rule(json!({ "name": "up__c", "execution": "task" }));
    if let Value::Object(mut rule) = rule {
        rule.insert("name".to_owned(), json!("up__a"));
        setup = setup.rule(Value::Object(rule));
    }
    let world = setup.start();
    world.sim.keeper.missing(!kept);
    (world, answers)
}

fn question(number: usize) -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": format!("theirs-{number}"),
        "method": "elicitation/create",
        "params": { "message": format!("Question {number}?"), "requestedSchema": schema() },
    })
}

fn schema() -> Value {
    json!({ "type": "object", "properties": { "name": { "type": "string" } } })
}

/// An upstream of 2026-07-28 that asks two things, then one.
fn modern_world(kept: bool, rule: Value) -> World {
    let world = modern_setup(rule).start();
    world.sim.keeper.missing(!kept);
    world
}

fn modern_setup(mut rule: Value) -> Setup {
    let script = Script::modern(&["a"]);
    script.on("tools/call", |heard: &Heard| {
        let request = json!({
            "method": "elicitation/create",
            "params": { "mode": "form", "message": "Who?", "requestedSchema": schema() },
        });
        let (requests, state) = match heard.params()["requestState"].as_str() {
            None => (json!({ "a": request, "b": request }), 1),
            Some("CANARY-STATE 1") => (json!({ "a": request }), 2),
            Some(_) => return Said::Result(complete("thanks")),
        };
        Said::Result(json!({
            "resultType": "input_required",
            "inputRequests": requests,
            "requestState": format!("{STATE} {state}"),
        }))
    });
    rule["name"] = json!("up__a");
    Setup::new().upstream("up", &script).rule(rule)
}
