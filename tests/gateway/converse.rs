//! Legacy clients that are asked things while their call runs, in front of either era.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Ask, Live, Said, Script, Setup, Step, World, complete, legacy};

const VERSION: &str = "2025-11-25";

#[test]
fn what_a_legacy_upstream_asks_reaches_the_client_and_the_answer_the_upstream() {
    let script = Script::legacy(VERSION, &["ask"]);
    let world = Setup::new().upstream("up", &script).start();
    let answered = asks_in_its_session(&script);
    asked_and_answered(&world);
    let answer = answered.borrow().clone();
    assert_eq!(
        (&answer["id"], &answer["result"]),
        (&json!("theirs"), &name("Ada")),
        "under the id the upstream gave"
    );
}

#[test]
fn what_a_modern_upstream_requires_is_asked_and_the_call_made_again_with_the_answer() {
    let script = Script::modern(&["ask"]);
    script.on(
        "tools/call",
        |heard| match &heard.params()["inputResponses"] {
            Value::Null => Said::Result(json!({
                "resultType": "input_required",
                "inputRequests": { "user": { "method": "elicitation/create", "params": form() } },
                "requestState": "st\u{e4}te",
            })),
            answers => Said::Result(complete(&format!(
                "{} {}",
                answers["user"]["content"]["name"],
                heard.params()["requestState"]
            ))),
        },
    );
    let world = Setup::new().upstream("up", &script).start();
    let told = asked_and_answered(&world);
    assert!(told.contains("\\\"Ada\\\" \\\"st\u{e4}te\\\""), "{told}");
    assert_eq!(world.count("up", "tools/call"), 2);
}

/// A call, the question, the answer through another isolate, the end.
fn asked_and_answered(world: &World) -> String {
    let session = session(world, json!({ "elicitation": {} }));
    let mut call = world.open(in_session(
        &session,
        "tools/call",
        json!({ "name": "up__ask" }),
    ));
    let asked = until(world, &mut call, "elicitation/create");
    let question = message(&asked);
    assert_eq!(question["params"]["message"], "up: Who are you?");
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": name("Ada") });
    let elsewhere = world.isolate();
    let told = elsewhere.ask(Ask::post(answer).header("mcp-session-id", &session));
    assert_eq!(told.status, 202);
    until(world, &mut call, "\"result\"")
}

fn name(name: &str) -> Value {
    json!({ "action": "accept", "content": { "name": name } })
}

fn form() -> Value {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    json!({ "message": "Who are you?", "requestedSchema": schema })
}

/// The upstream asks on the call's stream and ends it once it was answered; gives what it
/// was answered.
fn asks_in_its_session(script: &Script) -> Rc<RefCell<Value>> {
    let answer = Rc::new(RefCell::new(Value::Null));
    let heard_answer = Rc::clone(&answer);
    script.on("", move |heard| {
        heard_answer.replace(heard.message.clone());
        Said::Raw(202, "text/plain", Vec::new())
    });
    let heard_answer = Rc::clone(&answer);
    script.on("tools/call", move |heard| {
        let question = json!({ "jsonrpc": "2.0", "id": "theirs", "method": "elicitation/create", "params": form() });
        let answer = Rc::clone(&heard_answer);
        Said::Stream(vec![
            Step::Send(question),
            Step::Until(Rc::new(move || !answer.borrow().is_null())),
            Step::Send(heard.response(&complete("thanks"))),
        ])
    });
    answer
}

fn session(world: &World, capabilities: Value) -> String {
    let params = json!({ "protocolVersion": VERSION, "capabilities": capabilities, "clientInfo": { "name": "c", "version": "1" } });
    let told = world.call(legacy(VERSION, "initialize", params));
    told.header("mcp-session-id").to_owned()
}

fn in_session(session: &str, method: &str, params: Value) -> Ask {
    legacy(VERSION, method, params).header("mcp-session-id", session)
}

/// Lets time pass until the answer holds `text`.
fn until(world: &World, call: &mut Live, text: &str) -> String {
    let mut seen = String::new();
    for _ in 0..200 {
        if call.begun() {
            seen.push_str(&call.text());
        } else {
            call.head();
        }
        if seen.contains(text) {
            return seen;
        }
        world.sim.clock.advance(Duration::from_millis(100));
    }
    panic!("no {text} in {seen:?}");
}

fn message(events: &str) -> Value {
    let data = events
        .lines()
        .rfind(|line| line.starts_with("data: "))
        .unwrap();
    serde_json::from_str(&data["data: ".len()..]).unwrap()
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
        let call = legacy(version, "tools/call", json!({ "name": "up__ask" }));
        let mut call = world.open(call.header("mcp-session-id", &session));
        if asked {
            let question = message(&until(&world, &mut call, "elicitation/create"));
            let is_url = question["params"]["mode"] == "url";
            let id = &question["params"]["elicitationId"];
            assert_eq!(
                id.is_string(),
                is_url,
                "a URL needs an id, which modern ones lack"
            );
        } else {
            let told = until(&world, &mut call, "isError");
            assert!(!told.contains("elicitation/create"), "{told}");
            assert_eq!(world.count("up", "tools/call"), 1, "asked once, not again");
        }
    }
}
