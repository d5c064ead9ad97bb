//! Legacy clients that are asked things while their call runs, in front of either era: what
//! is asked, of whom, and how the answer finds its way. How such calls end is
//! claimed in `ends` and `cancelled`, what is not asked in `refused`.

mod cancelled;
mod ends;
mod letters;
mod refused;
pub mod talk;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{ARGUMENT, Ask, Said, Script, Setup, Step, World, complete, legacy};
use talk::{Client, Talk, VERSION, asking, everything, form, name, requiring};

#[test]
fn every_kind_of_question_of_either_era_reaches_the_client_and_its_answer_the_upstream() {
    let url = json!({ "mode": "url", "url": "https://pay.example.com/", "message": "Pay" });
    let sample = json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": "2+2" } }], "maxTokens": 9 });
    let sampled = json!({ "role": "assistant", "content": { "type": "text", "text": "4" }, "model": "m", "stopReason": "endTurn" });
    let roots = json!({ "roots": [{ "uri": "file:///home", "name": "h" }] });
    for (method, params, answer) in [
        ("elicitation/create", form(), name("Ada")),
        ("elicitation/create", form(), json!({ "action": "decline" })),
        ("elicitation/create", form(), json!({ "action": "cancel" })),
        ("elicitation/create", url, json!({ "action": "accept" })),
        ("sampling/createMessage", sample, sampled),
        ("roots/list", json!({}), roots),
    ] {
        let mut expected = params.clone();
        if let Some(message) = params["message"].as_str() {
            expected["message"] = format!("up: {message}").into();
        }
        let (script, answers) = asking(&[(method, params.clone())]);
        let (question, end) = asked_and_answered(&script, &answer);
        let mut shown = params_of(&question);
        if params["mode"] == "url" {
            take_id(&mut shown);
        }
        assert_eq!((&question["method"], &shown), (&method.into(), &expected));
        assert_eq!(end["result"]["content"][0]["text"], "thanks");
        let told = answers.borrow()[0].clone();
        assert_eq!((&told["id"], &told["result"]), (&method.into(), &answer));

        let script = requiring(json!({ "k": { "method": method, "params": params } }));
        let (question, end) = asked_and_answered(&script, &answer);
        let mut shown = params_of(&question);
        if params["mode"] == "url" {
            take_id(&mut shown);
        }
        assert_eq!((&question["method"], &shown), (&method.into(), &expected));
        let told = format!("{} \"st\u{e4}te\"", json!({ "k": answer }));
        assert_eq!(end["result"]["content"][0]["text"], told);
        for member in ["resultType", "requestState", "inputRequests", "_meta"] {
            assert!(end["result"].get(member).is_none(), "{member}");
        }
    }
}

/// Params without members may be left out.
fn params_of(question: &Value) -> Value {
    let params = question.get("params").cloned();
    params.unwrap_or_else(|| json!({}))
}

/// 2025-11-25 wants an elicitation id in URL mode; 2026-07-28 has none.
#[track_caller]
fn take_id(params: &mut Value) {
    let id = params
        .as_object_mut()
        .unwrap()
        .shift_remove("elicitationId");
    assert!(id.is_some_and(|id| id.as_str().is_some_and(|id| id.len() > 32)));
}

/// The first question, answered through another isolate, and the end.
fn asked_and_answered(script: &Script, answer: &Value) -> (Value, Value) {
    let world = Setup::new().upstream("up", script).start();
    let client = Client::of(&world, everything());
    let mut call = client.call();
    let question = call.question();
    client
        .at(&world.isolate())
        .answer(&question, answer.clone());
    let end = call.end();
    let lines = world.audits();
    let lines: Vec<_> = lines
        .iter()
        .filter(|line| line["method"] == "tools/call")
        .collect();
    assert_eq!(lines.len(), 1, "answers are no calls");
    assert_eq!(lines[0]["outcome"], "ok");
    (question, end)
}

#[test]
fn an_elicitation_id_of_a_legacy_upstream_stays_what_it_is() {
    let url = json!({ "mode": "url", "url": "https://pay.example.com/", "message": "Pay", "elicitationId": "theirs" });
    let (script, _) = asking(&[("elicitation/create", url)]);
    let (question, _) = asked_and_answered(&script, &json!({ "action": "accept" }));
    assert_eq!(question["params"]["elicitationId"], "theirs");
}

#[test]
fn an_upstream_that_requires_visits_by_error_is_asked_again_after_them() {
    let script = Script::legacy(VERSION, &["ask"]);
    script.on("tools/call", {
        let first = std::cell::Cell::new(true);
        move |heard| {
            if !first.replace(false) {
                assert!(heard.params().get("inputResponses").is_none());
                return Said::Result(complete("paid"));
            }
            let visit = json!({ "mode": "url", "url": "https://pay.example.com/", "message": "Pay", "elicitationId": "e" });
            let error = json!({ "code": -32042, "message": "x", "data": { "elicitations": [visit] } });
            Said::Refusal(
                200,
                json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": error }),
            )
        }
    });
    let (question, end) = asked_and_answered(&script, &json!({ "action": "accept" }));
    assert_eq!(question["params"]["url"], "https://pay.example.com/");
    assert_eq!(end["result"]["content"][0]["text"], "paid");
}

#[test]
fn several_questions_at_once_are_answered_in_any_order() {
    let kinds = ["elicitation/create", "sampling/createMessage", "roots/list"];
    let legacy_kinds: Vec<_> = kinds.iter().map(|kind| (*kind, json!({}))).collect();
    let requests: Value = kinds
        .iter()
        .map(|kind| ((*kind).to_owned(), json!({ "method": kind, "params": {} })))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let (ours, answers) = asking(&legacy_kinds);
    for script in [ours, requiring(requests)] {
        let world = Setup::new().upstream("up", &script).start();
        let client = Client::of(&world, everything());
        let mut call = client.call();
        let questions = [call.question(), call.question(), call.question()];
        assert_eq!(
            questions.each_ref().map(|q| q["method"].as_str().unwrap()),
            kinds
        );
        for question in questions.iter().rev() {
            assert_eq!(call.message(), None, "it waits for all");
            client.answer(question, json!({ "for": question["method"] }));
            call.wait(Duration::from_secs(1));
        }
        let end = call.end();
        if script.is_modern() {
            let told = end["result"]["content"][0]["text"].as_str().unwrap();
            for kind in kinds {
                assert!(
                    told.contains(&format!("\"{kind}\":{{\"for\":\"{kind}\"}}")),
                    "{told}"
                );
            }
        } else {
            let told = answers.borrow().clone();
            assert_eq!(told.len(), 3);
            assert!(told.iter().all(|told| told["result"]["for"] == told["id"]));
        }
    }
}

#[test]
fn a_modern_upstream_may_ask_several_times_and_gets_its_latest_state() {
    let script = Script::modern(&["ask"]);
    script.on("tools/call", |heard| {
        let params = heard.params();
        let round = params["requestState"]
            .as_str()
            .map_or(0, |state| state.len());
        assert_eq!(params.get("inputResponses").is_some(), round > 0);
        if round == 3 {
            return Said::Result(complete("done"));
        }
        Said::Result(json!({
            "resultType": "input_required",
            "inputRequests": { "k": { "method": "elicitation/create", "params": form() } },
            "requestState": "s".repeat(round + 1),
        }))
    });
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    let mut call = client.call();
    for _ in 0..3 {
        let question = call.question();
        client.answer(&question, name("Ada"));
    }
    assert_eq!(call.end()["result"]["content"][0]["text"], "done");
    let calls = world.bodies("up", "tools/call");
    let ids: BTreeSet<_> = calls.iter().map(|c| c["id"].to_string()).collect();
    assert_eq!(ids.len(), 4, "a retry is a request of its own");
    assert!(
        calls
            .iter()
            .all(|c| c["params"]["arguments"]["q"] == ARGUMENT)
    );
}

#[test]
fn progress_goes_on_between_question_and_answer() {
    let script = Script::legacy(VERSION, &["ask"]);
    script.on("", |_| Said::Raw(202, "text/plain", Vec::new()));
    script.on("tools/call", |heard| {
        let question =
            json!({ "jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": form() });
        Said::Stream(vec![
            Step::Send(heard.progress(1)),
            Step::Send(question),
            Step::Send(heard.progress(2)),
            Step::Wait(Duration::from_secs(20)),
            Step::Send(heard.progress(3)),
            Step::Send(heard.response(&complete("done"))),
        ])
    });
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    let mut call = client.open(client.tool().meta("progressToken", json!("mine")));
    let mut told = Vec::new();
    while let Some(message) = call.next() {
        if message["method"] == "elicitation/create" {
            client.answer(&message, name("Ada"));
        }
        let token = &message["params"]["progressToken"];
        assert!(token.is_null() || token == "mine");
        told.push(message["params"]["progress"].as_i64().unwrap_or(0));
    }
    assert_eq!(told, [1, 0, 2, 3, 0]);
    assert_eq!(world.bodies("up", "response")[0]["id"], 7);
}

#[test]
fn an_upstream_is_told_what_the_client_of_the_call_can_be_asked_and_no_more() {
    let lowered = json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {}, "roots": {} });
    let with = |ask: Ask| ask.header("accept", "application/json");
    let declares = |script: &Script, ask: &dyn Fn(&Client) -> Ask| {
        let world = Setup::new().upstream("up", script).start();
        let client = Client::of(&world, everything());
        assert_eq!(world.call(ask(&client)).status, 200);
        let call = &world.bodies("up", "tools/call")[0]["params"];
        if script.is_modern() {
            call["_meta"]["io.modelcontextprotocol/clientCapabilities"].clone()
        } else {
            let session = world
                .exchanges("up")
                .iter()
                .rfind(|e| e.headers.contains_key("mcp-session-id"))
                .unwrap()
                .headers["mcp-session-id"]
                .clone();
            let number: usize = session.to_str().unwrap()["session-".len()..]
                .parse()
                .unwrap();
            world.bodies("up", "initialize")[number - 1]["params"]["capabilities"].clone()
        }
    };
    for script in [
        || Script::modern(&["ask"]),
        || Script::legacy(VERSION, &["ask"]),
    ] {
        for (ask, expected) in [
            (
                &(|c: &Client| c.tool()) as &dyn Fn(&Client) -> Ask,
                &lowered,
            ),
            (&|c: &Client| c.tool().without("mcp-session-id"), &json!({})),
            (&|c: &Client| with(c.tool()), &json!({})),
        ] {
            assert_eq!(&declares(&script(), ask), expected);
        }
    }
}

#[test]
fn sessions_with_different_capabilities_never_share_one_with_the_upstream() {
    let (script, answers) = asking(&[("elicitation/create", form())]);
    let world = Setup::new().upstream("up", &script).start();
    let able = Client::of(&world, json!({ "elicitation": {} }));
    let abler = Client::of(&world, json!({ "elicitation": {}, "sampling": {} }));
    let unable = Client::of(&world, json!({}));
    let ben = Client::by(&world, "ben", json!({ "elicitation": {} }));
    for client in [&able, &abler, &unable, &ben, &able] {
        let mut call = client.call();
        let mut message = call.next().unwrap();
        if message["method"].is_string() {
            client.answer(&message, name("Ada"));
            message = call.next().unwrap();
        }
        assert_eq!(message["result"]["content"][0]["text"], "thanks");
    }
    let calls: Vec<_> = session_of_each(&world, "tools/call");
    assert_eq!(calls[0], calls[4], "it is kept for the next call");
    let others: BTreeSet<_> = calls[..4].iter().collect();
    assert_eq!(others.len(), 4, "{calls:?}");
    assert_eq!(answers.borrow()[2]["error"]["code"], -32601, "{answers:?}");
}

#[test]
fn an_upstream_session_that_may_ask_back_has_one_call_at_a_time() {
    for delay in [0, 300] {
        let (script, answers) = asking(&[("elicitation/create", form())]);
        let world = Setup::new().upstream("up", &script).start();
        let client = Client::of(&world, everything());
        world
            .server("up")
            .head_delay
            .set(Duration::from_millis(delay));
        let mut calls: Vec<Talk> = (1..=4)
            .map(|id| client.open(client.tool().id(id.into())))
            .collect();
        for _ in 0..30 {
            calls
                .iter_mut()
                .for_each(|call| call.wait(Duration::from_millis(100)));
        }
        let questions: Vec<Value> = calls.iter_mut().map(Talk::question).collect();
        let used = session_of_each(&world, "tools/call");
        assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), 4, "one each");
        for (number, question) in questions.iter().enumerate() {
            client.answer(question, name(&number.to_string()));
            calls[number].wait(Duration::from_secs(1));
            let told = answers.borrow()[number].clone();
            assert_eq!(told["result"], name(&number.to_string()));
        }
        let told_in = session_of_each(&world, "response");
        let asked_in: BTreeSet<_> = used.iter().collect();
        assert_eq!(
            told_in.iter().collect::<BTreeSet<_>>(),
            asked_in,
            "each in its own"
        );
    }
}

fn session_of_each(world: &World, method: &str) -> Vec<String> {
    let all = world.exchanges("up").into_iter().zip(world.asked("up"));
    all.filter(|(_, asked)| asked == method)
        .map(|(exchange, _)| {
            exchange.headers["mcp-session-id"]
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn questions_belong_to_the_revision_that_was_agreed_on() {
    let version = "2025-06-18";
    let (script, answers) = asking(&[
        ("elicitation/create", form()),
        (
            "elicitation/create",
            json!({ "mode": "url", "url": "https://x.example/", "message": "m" }),
        ),
    ]);
    let world = Setup::new().upstream("up", &script).start();
    let params = json!({ "protocolVersion": version, "capabilities": { "elicitation": {} }, "clientInfo": { "name": "c", "version": "1" } });
    let session = world
        .call(legacy(version, "initialize", params))
        .header("mcp-session-id")
        .to_owned();
    let mut client = Client::of(&world, json!({}));
    client.session = session;
    let mut call = client.call();
    client.answer(&call.question(), name("Ada"));
    assert_eq!(call.end()["result"]["content"][0]["text"], "thanks");
    let refused = answers
        .borrow()
        .iter()
        .filter(|a| a["error"].is_object())
        .count();
    assert_eq!(refused, 1, "it never declared URL mode");
}

#[test]
fn a_question_a_clients_revision_has_no_words_for_is_not_asked() {
    let url = json!({ "mode": "url", "url": "https://a.example/", "message": "Sign in" });
    let several = json!({ "message": "Which?", "requestedSchema": { "type": "object", "properties": {
        "which": { "type": "array", "items": { "type": "string", "enum": ["a", "b"] } } } } });
    for (version, params, asked) in [
        ("2025-11-25", &url, true),
        ("2025-11-25", &several, true),
        ("2025-06-18", &several, false),
    ] {
        let script = Script::modern(&["ask"]);
        let question = params.clone();
        script.on("tools/call", move |_| {
            let requests = json!({ "q": { "method": "elicitation/create", "params": question } });
            Said::Result(json!({ "resultType": "input_required", "inputRequests": requests }))
        });
        let world = Setup::new().upstream("up", &script).start();
        let capabilities = json!({ "elicitation": { "form": {}, "url": {} } });
        let params = json!({ "protocolVersion": version, "capabilities": capabilities, "clientInfo": { "name": "c", "version": "1" } });
        let told = world.call(legacy(version, "initialize", params));
        let session = told.header("mcp-session-id").to_owned();
        let mut client = Client::of(&world, json!({}));
        client.session.clone_from(&session);
        let call = legacy(version, "tools/call", json!({ "name": "up__ask" }));
        let mut call = client.open(call.header("mcp-session-id", &session));
        if asked {
            let question = call.question();
            let is_url = question["params"]["mode"] == "url";
            let id = &question["params"]["elicitationId"];
            assert_eq!(
                id.is_string(),
                is_url,
                "a URL needs an id, which modern ones lack"
            );
        } else {
            let told = call.end();
            assert_eq!(told["result"]["isError"], true, "{told}");
            assert_eq!(world.count("up", "tools/call"), 1, "asked once, not again");
        }
    }
}
