//! How a call ends in which somebody is asked: too late, lost, or never with enough.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tidegate_gateway::converse::{OPEN_MAX, ROUNDS_MAX};
use tidegate_gateway::platform::Clock;

use crate::world::{Said, Script, Setup, Step, complete};

use super::talk::{Client, VERSION, asking, everything, form, name, required, requiring};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn nobody_who_does_not_answer_keeps_a_call_for_ever() {
    let question = json!({ "jsonrpc": "2.0", "id": 1, "method": "roots/list" });
    for seconds in [0, 3, 14] {
        let (script, answers) = asking(&[]);
        let (question, heard) = (question.clone(), Rc::clone(&answers));
        script.on("tools/call", move |call| {
            let heard = Rc::clone(&heard);
            Said::Stream(vec![
                Step::Wait(seconds * SECOND),
                Step::Send(question.clone()),
                Step::Until(Rc::new(move || !heard.borrow().is_empty())),
                Step::Send(call.response(&complete("thanks"))),
            ])
        });
        let brief = json!({ "timeoutMs": 1_000 * (seconds + 1) });
        let world = Setup::new().upstream_with("up", &script, &brief).start();
        let mut call = Client::of(&world, everything()).call();
        call.question();
        let asked = world.sim.clock.now();
        let end = call.end();
        assert_eq!(
            end["result"]["content"][0]["text"], "thanks",
            "{seconds}: {end}"
        );
        let waited = world.sim.clock.now().since(asked);
        assert_eq!(waited.as_secs(), 600, "{seconds}");
        assert_eq!(answers.borrow()[0]["error"]["code"], -32603);
    }
    let script = requiring(json!({ "k": { "method": "elicitation/create", "params": form() } }));
    let world = Setup::new().upstream("up", &script).start();
    let mut call = Client::of(&world, everything()).call();
    call.question();
    assert_eq!(call.end()["result"]["isError"], true);
}

#[test]
fn an_upstreams_time_stands_still_only_while_a_person_is_asked() {
    let question =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": form() });
    for (before, after, ends_well) in [(3, 3, true), (8, 0, false), (3, 8, false)] {
        let (script, answers) = asking(&[]);
        let question = question.clone();
        script.on("tools/call", move |heard| {
            let answers = Rc::clone(&answers);
            Said::Stream(vec![
                Step::Bytes(b": begun\n\n".to_vec()),
                Step::Wait(before * SECOND),
                Step::Send(question.clone()),
                Step::Until(Rc::new(move || !answers.borrow().is_empty())),
                Step::Wait(after * SECOND),
                Step::Send(heard.response(&complete("done"))),
            ])
        });
        let world = Setup::new()
            .upstream_with("up", &script, &json!({ "timeoutMs": 5_000 }))
            .start();
        let client = Client::of(&world, everything());
        let mut call = client.call();
        let first = call.next().unwrap();
        if first["method"].is_string() {
            call.wait(5 * MINUTE);
            assert_eq!(call.message(), None);
            client.answer(&first, name("Ada"));
        }
        let end = if first["method"].is_string() {
            call.end()
        } else {
            first
        };
        assert_eq!(
            end["result"].is_object(),
            ends_well,
            "{before} {after}: {end}"
        );
        if !ends_well {
            assert_eq!(end["error"]["data"]["reason"], "upstream_timeout");
        }
    }
}

#[test]
fn an_upstream_that_dies_while_it_asks_ends_the_call() {
    let question =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": form() });
    let steps: [&[Step]; 2] = [&[Step::Reset], &[]];
    for last in steps {
        let script = Script::legacy(VERSION, &["ask"]);
        let (question, last) = (question.clone(), last.to_vec());
        script.on("tools/call", move |_| {
            let mut steps = vec![Step::Send(question.clone()), Step::Wait(SECOND)];
            steps.extend(last.clone());
            Said::Stream(steps)
        });
        let world = Setup::new().upstream("up", &script).start();
        let client = Client::of(&world, everything());
        let mut call = client.call();
        let question = call.question();
        let end = call.end();
        assert_eq!(end["error"]["data"]["reason"], "upstream_invalid", "{end}");
        client.answer(&question, name("Late"));
        assert_eq!(world.count("up", "response"), 0);
        assert_eq!(
            world.audits().last().unwrap()["outcome"],
            "upstream_invalid"
        );
    }
}

#[test]
fn without_a_store_nobody_is_asked_and_the_call_still_ends() {
    let (ours, answers) = asking(&[("elicitation/create", form())]);
    let requests = json!({ "k": { "method": "elicitation/create", "params": form() } });
    for script in [ours, requiring(requests)] {
        let world = Setup::new().upstream("up", &script).start();
        let client = Client::of(&world, everything());
        world.sim.atomic.faults.outage(true);
        let before = world.sim.clock.now();
        let end = client.call().end();
        assert!(world.sim.clock.now().since(before) < SECOND);
        if script.is_modern() {
            assert_eq!(end["result"]["isError"], true, "{end}");
            assert_eq!(world.count("up", "tools/call"), 1);
        } else {
            assert_eq!(end["result"]["content"][0]["text"], "thanks");
            assert_eq!(answers.borrow()[0]["error"]["code"], -32601);
        }
    }
}

#[test]
fn a_store_that_is_away_for_a_while_keeps_no_progress_back() {
    let script = Script::legacy(VERSION, &["ask"]);
    script.on("tools/call", |heard| {
        let mut steps = vec![Step::Bytes(b": begun\n\n".to_vec()), Step::Wait(2 * SECOND)];
        for progress in 1..=5 {
            steps.push(Step::Send(heard.progress(progress)));
            steps.push(Step::Wait(Duration::from_millis(100)));
        }
        steps.push(Step::Send(heard.response(&complete("done"))));
        Said::Stream(steps)
    });
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    let mut call = client.open(client.tool().meta("progressToken", json!(1)));
    call.wait(Duration::from_millis(1_500));
    world.sim.atomic.faults.outage(true);
    for _ in 1..=5 {
        assert_eq!(call.next().unwrap()["method"], "notifications/progress");
    }
    call.end();
    assert!(
        world.audits().last().unwrap()["durationMs"]
            .as_u64()
            .unwrap()
            < 3_500
    );
}

#[test]
fn an_upstream_that_never_has_enough_is_given_up_on() {
    let asks = json!({ "resultType": "input_required", "inputRequests": { "k": { "method": "roots/list" } } });
    let waits = json!({ "resultType": "input_required", "requestState": "s" });
    for (result, questions, at_least) in [(asks, ROUNDS_MAX, 0), (waits, 0, 2_000)] {
        let script = Script::modern(&["ask"]);
        script.on("tools/call", move |_| Said::Result(result.clone()));
        let world = Setup::new().upstream("up", &script).start();
        let client = Client::of(&world, everything());
        let mut call = client.call();
        for _ in 0..questions {
            client.answer(&call.question(), json!({ "roots": [] }));
        }
        assert_eq!(call.end()["error"]["data"]["reason"], "upstream_invalid");
        assert_eq!(world.count("up", "tools/call"), ROUNDS_MAX);
        let took = world.audits().last().unwrap()["durationMs"]
            .as_u64()
            .unwrap();
        assert!(
            took >= at_least,
            "rounds without a question are paced: {took}"
        );
        for call in &world.bodies("up", "tools/call")[1..] {
            let brings = call["params"].get("inputResponses").is_some();
            assert_eq!(brings, questions > 0, "only answers to what was asked");
        }
    }
}

#[test]
fn a_malformed_requirement_ends_the_call_and_shows_the_client_nothing() {
    let many: serde_json::Map<_, _> = (0..=OPEN_MAX)
        .map(|key| (key.to_string(), json!({ "method": "roots/list" })))
        .collect();
    for (result, reason) in [
        (json!({}), "upstream_invalid"),
        (json!({ "inputRequests": [] }), "upstream_invalid"),
        (json!({ "inputRequests": { "k": 5 } }), "upstream_invalid"),
        (json!({ "inputRequests": { "k": {} } }), "upstream_invalid"),
        (
            json!({ "inputRequests": { "k": { "method": "tools/call" } } }),
            "upstream_invalid",
        ),
        (
            json!({ "inputRequests": { "k": { "method": "roots/list", "params": 5 } } }),
            "upstream_invalid",
        ),
        (
            json!({ "inputRequests": { "k": { "method": "roots/list" } }, "requestState": {} }),
            "upstream_invalid",
        ),
        (json!({ "inputRequests": many }), "upstream_invalid"),
    ] {
        let script = Script::modern(&["ask"]);
        let mut said = result.clone();
        said["resultType"] = "input_required".into();
        script.on("tools/call", move |_| Said::Result(said.clone()));
        let world = Setup::new().upstream("up", &script).start();
        let end = Client::of(&world, everything()).call().end();
        assert_eq!(end["error"]["data"]["reason"], reason, "{result}: {end}");
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

#[test]
fn only_what_may_require_input_does() {
    let script = requiring(json!({}));
    script.on("tools/list", |_| {
        required(&json!({ "k": { "method": "roots/list" } }))
    });
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    let told = world.call(client.ask("tools/list", json!({})));
    assert!(
        !told.text.contains("input_required") && !told.text.contains("roots/list"),
        "{told:?}"
    );
}
