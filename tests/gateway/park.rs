//! Modern clients that a legacy upstream asks things while their call runs: the call is
//! parked in a keeper until the retry brings the answer.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Value, json};

use crate::world::{Ask, Heard, Said, Script, Setup, Step, World, complete, error, modern};

const VERSION: &str = "2025-11-25";

#[test]
fn a_call_is_parked_while_its_client_is_asked_and_goes_on_with_the_answer() {
    let (world, answers) = world();
    let asked = world.call(ask());
    assert_eq!(asked.result()["resultType"], "input_required");
    let (key, request) = only(&asked.result()["inputRequests"]);
    assert_eq!(request["method"], "elicitation/create");
    assert_eq!(request["params"]["message"], "up: Who are you?");
    let retry = ask()
        .id(json!(2))
        .param("requestState", asked.result()["requestState"].clone())
        .param("inputResponses", json!({ key: name("Ada") }));
    // Wherever the retry arrives: the call is in its keeper.
    let told = world.isolate().call(retry);
    assert_eq!(told.said(), "thanks");
    assert_eq!(answers.borrow()[0]["result"], name("Ada"));
    assert_eq!(world.count("up", "tools/call"), 1, "it ran once");
    let opened = world.bodies("up", "initialize");
    let capable = json!({ "elicitation": { "form": {} } });
    let declared = |body: &Value| body["params"]["capabilities"] == capable;
    assert_eq!(opened.iter().filter(|body| declared(body)).count(), 1);
}

#[test]
fn a_call_whose_keeper_died_is_an_error_and_not_run_again() {
    let (world, _) = world();
    let asked = world.call(ask());
    let (key, _) = only(&asked.result()["inputRequests"]);
    let keepers = world.sim.keeper.names();
    assert_eq!(keepers.len(), 1);
    assert!(world.sim.keeper.kill(&keepers[0]));
    let retry = ask()
        .param("requestState", asked.result()["requestState"].clone())
        .param("inputResponses", json!({ key: name("Ada") }));
    assert_eq!(world.call(retry).code(), -32602);
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn where_nothing_can_be_kept_the_upstream_is_told_that_nobody_can_be_asked() {
    let (world, answers) = world();
    world.sim.keeper.missing(true);
    assert_eq!(world.call(ask()).said(), "thanks");
    assert_eq!(answers.borrow()[0]["error"]["code"], -32601);
    let declared = &world.bodies("up", "initialize").pop().unwrap()["params"]["capabilities"];
    assert_eq!(declared, &json!({}));
}

fn ask() -> Ask {
    modern("tools/call", json!({ "name": "up__ask", "arguments": {} })).meta(
        "clientCapabilities",
        json!({ "elicitation": { "form": {} } }),
    )
}

fn only(requests: &Value) -> (String, &Value) {
    let requests = requests.as_object().unwrap();
    assert_eq!(requests.len(), 1);
    let (key, request) = requests.iter().next().unwrap();
    (key.clone(), request)
}

fn name(name: &str) -> Value {
    json!({ "action": "accept", "content": { "name": name } })
}

/// An upstream that asks on the call's stream and ends it once it was answered, and what it
/// was answered.
fn world() -> (World, Rc<RefCell<Vec<Value>>>) {
    let script = Script::legacy(VERSION, &["ask"]);
    let answers: Rc<RefCell<Vec<Value>>> = Rc::default();
    let heard_answers = Rc::clone(&answers);
    script.on("", move |heard| {
        heard_answers.borrow_mut().push(heard.message.clone());
        Said::Raw(202, "text/plain", Vec::new())
    });
    let heard_answers = Rc::clone(&answers);
    script.on("tools/call", move |heard: &Heard| {
        let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
        let params = json!({ "message": "Who are you?", "requestedSchema": schema });
        let question = json!({ "jsonrpc": "2.0", "id": "theirs", "method": "elicitation/create", "params": params });
        let answers = Rc::clone(&heard_answers);
        Said::Stream(vec![
            Step::Send(question),
            Step::Until(Rc::new(move || !answers.borrow().is_empty())),
            Step::Send(heard.response(&complete("thanks"))),
        ])
    });
    (Setup::new().upstream("up", &script).start(), answers)
}

#[test]
fn a_call_that_fails_for_want_of_an_undeclared_capability_says_which() {
    let script = Script::legacy(VERSION, &["ask"]);
    let refused: Rc<RefCell<Vec<Value>>> = Rc::default();
    let heard = Rc::clone(&refused);
    script.on("", move |said| {
        heard.borrow_mut().push(said.message.clone());
        Said::Raw(202, "text/plain", Vec::new())
    });
    let heard = Rc::clone(&refused);
    script.on("tools/call", move |said: &Heard| {
        let params = json!({ "messages": [], "maxTokens": 1 });
        let question = json!({ "jsonrpc": "2.0", "id": 9, "method": "sampling/createMessage", "params": params });
        let refused = Rc::clone(&heard);
        Said::Stream(vec![
            Step::Send(question),
            Step::Until(Rc::new(move || !refused.borrow().is_empty())),
            Step::Send(error(said, -32601)),
        ])
    });
    let world = Setup::new().upstream("up", &script).start();
    let told = world.call(ask());
    assert_eq!(told.refusal(), (400, -32021));
    assert_eq!(
        told.error()["data"]["requiredCapabilities"],
        json!({ "sampling": {} })
    );
    assert_eq!(refused.borrow()[0]["error"]["code"], -32601);
}
