//! Questions that may not be asked, answers that are none, and clients that refuse.

use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;
use tidegate_gateway::platform::Clock;

use crate::world::{Ask, Setup, World, legacy};

use super::talk::{Client, asking, everything, form, name, required, requiring};

#[test]
fn a_client_that_refuses_is_no_failure_of_the_gateway() {
    let (script, answers) = asking(&[("elicitation/create", form())]);
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    let mut call = client.call();
    client.refuse(&call.question());
    assert_eq!(call.end()["result"]["content"][0]["text"], "thanks");
    let told = answers.borrow()[0]["error"].clone();
    assert_eq!(told, json!({ "code": -1, "message": "User rejected it" }));
}

#[test]
fn a_modern_upstream_that_gets_no_answer_is_not_called_again() {
    let requests = json!({
        "a": { "method": "elicitation/create", "params": form() },
        "b": { "method": "roots/list" },
    });
    let script = requiring(requests.clone());
    script.listing("prompts", json!({ "name": "ask" }));
    script.listing("resources", json!({ "uri": "file:///a", "name": "a" }));
    for method in ["prompts/get", "resources/read"] {
        let requests = requests.clone();
        script.on(method, move |_| required(&requests));
    }
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    for (method, params) in [
        ("tools/call", json!({ "name": "up__ask" })),
        ("prompts/get", json!({ "name": "up__ask" })),
        ("resources/read", json!({ "uri": "up+file:///a" })),
    ] {
        let mut call = client.open(client.ask(method, params));
        call.question();
        client.refuse(&call.question());
        let refused = world.sim.clock.now();
        let end = call.end();
        let waited = world.sim.clock.now().since(refused);
        assert!(waited < Duration::from_secs(1), "not for the other answer");
        if method == "tools/call" {
            assert_eq!(end["result"]["isError"], true);
            let text = end["result"]["content"][0]["text"].as_str().unwrap();
            assert!(text.contains("User rejected it"), "{text}");
            assert_eq!(world.audits().last().unwrap()["outcome"], "tool_error");
        } else {
            assert_eq!(end["error"]["code"], -32603, "{end}");
        }
        assert_eq!(world.count("up", method), 1);
    }
}

#[test]
fn what_a_client_has_not_declared_is_refused_at_once_and_never_shown_to_it() {
    let url = json!({ "mode": "url", "url": "https://x.example/", "message": "m" });
    let tools = json!({ "messages": [], "maxTokens": 1, "tools": [] });
    let cases = [
        (
            "elicitation/create",
            form(),
            json!({ "sampling": {}, "roots": {} }),
        ),
        (
            "elicitation/create",
            form(),
            json!({ "elicitation": { "url": {} } }),
        ),
        ("elicitation/create", url, json!({ "elicitation": {} })),
        (
            "elicitation/create",
            json!({ "mode": "video" }),
            everything(),
        ),
        (
            "sampling/createMessage",
            json!({ "messages": [] }),
            json!({ "elicitation": {} }),
        ),
        ("sampling/createMessage", tools, json!({ "sampling": {} })),
        ("roots/list", json!({}), json!({ "elicitation": {} })),
        ("roots/list", json!({}), json!({})),
        ("tools/list", json!({}), everything()),
        ("vendor/ask", json!({}), everything()),
    ];
    for (method, params, declared) in cases {
        let (script, answers) = asking(&[(method, params.clone())]);
        let world = Setup::new().upstream("up", &script).start();
        let mut call = Client::of(&world, declared.clone()).call();
        assert_eq!(call.end()["result"]["content"][0]["text"], "thanks");
        assert_eq!(answers.borrow()[0]["error"]["code"], -32601, "{method}");
        assert_eq!(world.sim.atomic.operations("mail/"), 0);

        let script = requiring(json!({ "k": { "method": method, "params": params } }));
        let world = Setup::new().upstream("up", &script).start();
        let mut call = Client::of(&world, declared).call();
        let code = call.end()["error"]["code"].clone();
        assert!(
            [json!(-32603), json!(-31001)].contains(&code),
            "{method}: {code}"
        );
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

type Sends = fn(&Client) -> Ask;

#[test]
fn a_client_that_cannot_be_reached_is_not_asked() {
    let asks: [(&str, Sends); 3] = [
        ("no session", |c| c.tool().without("mcp-session-id")),
        ("no stream", |c| {
            c.tool().header("accept", "application/json")
        }),
        ("a batch", |c| {
            let call = c.tool();
            let message = json!([call.message]);
            call.without("mcp-protocol-version")
                .body(message.to_string())
        }),
    ];
    for (case, ask) in asks {
        let (ours, answers) = asking(&[("elicitation/create", form())]);
        let question = json!({ "k": { "method": "elicitation/create", "params": form() } });
        for script in [ours, requiring(question)] {
            let world = Setup::new().upstream("up", &script).start();
            let client = Client::of(&world, everything());
            let told = world.call(ask(&client));
            assert!(
                !told.text.contains("elicitation/create"),
                "{case}: {told:?}"
            );
            assert_eq!(world.sim.atomic.operations("mail/"), 0, "{case}");
            if script.is_modern() {
                assert!(told.text.contains("\"code\":-32603"), "{case}: {told:?}");
            } else {
                assert!(told.text.contains("thanks"), "{case}: {told:?}");
            }
        }
        assert_eq!(answers.borrow()[0]["error"]["code"], -32601, "{case}");
    }
}

#[test]
fn an_answer_nobody_waits_for_is_accepted_and_leaves_nothing() {
    let (script, answers) = asking(&[("elicitation/create", form())]);
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    let mut call = client.call();
    let question = call.question();
    let id = question["id"].as_str().unwrap();
    let (address, number) = id.split_once('.').unwrap();
    let number: u64 = number.parse().unwrap();
    let asked = |id: Value| json!({ "id": id });
    for stray in [
        json!(7),
        json!(""),
        json!("x"),
        json!(address),
        json!(format!("{address}.")),
        json!(format!("{address}.{}", number + 1)),
        json!(format!("{address}.-1")),
        json!(format!("{address}.99999999999999999999999")),
        json!(format!("{}.{number}", "0".repeat(32))),
        json!(format!("{}.{number}", "f".repeat(200))),
        json!(format!("{}/../{number}", &address[..20])),
    ] {
        client.answer(&asked(stray.clone()), name("Eve"));
        client.refuse(&asked(stray));
    }
    let mail: Vec<_> = world
        .sim
        .atomic
        .keys()
        .into_iter()
        .filter(|key| key.starts_with("mail/"))
        .collect();
    assert_eq!(mail.len(), 1, "the call's own: {mail:?}");
    call.wait(Duration::from_secs(5));
    assert!(answers.borrow().is_empty());
    assert_eq!(call.message(), None);
    client.answer(&question, name("Ada"));
    client.answer(&question, name("Eve"));
    client.refuse(&question);
    call.end();
    assert_eq!(answers.borrow().len(), 1, "a second answer is none");
    assert_eq!(answers.borrow()[0]["result"], name("Ada"));
    drop(call);
    world.settle();
    client.answer(&question, name("Eve"));
    assert_eq!(mails(&world), [""; 0]);
}

#[test]
fn an_answer_of_anybody_else_changes_nothing() {
    let (script, answers) = asking(&[("elicitation/create", form())]);
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    let (other, ben) = (
        Client::of(&world, everything()),
        Client::by(&world, "ben", everything()),
    );
    let mut call = client.call();
    let question = call.question();
    let theirs = json!({ "jsonrpc": "2.0", "id": question["id"], "result": name("Eve") });
    let posted = || Ask::post(theirs.clone());
    let elsewhere = json!({ "sub": "ada", "aud": "https://gw.example.com/servers/up/mcp" });
    let elsewhere = world.token(&elsewhere);
    for (ask, status) in [
        (posted(), 202),
        (posted().header("mcp-session-id", &other.session), 202),
        (
            posted().by("ben").header("mcp-session-id", &ben.session),
            202,
        ),
        (
            posted().by("ben").header("mcp-session-id", &client.session),
            404,
        ),
        (
            posted()
                .anonymous()
                .header("mcp-session-id", &client.session),
            401,
        ),
        (
            posted()
                .header("mcp-session-id", &client.session)
                .to("/servers/up/mcp")
                .token(&elsewhere),
            404,
        ),
    ] {
        assert_eq!(world.ask(ask).status, status);
        call.wait(Duration::from_secs(1));
    }
    assert!(answers.borrow().is_empty());
    // Nor does the same call of another session have the same questions.
    let mut same = other.call();
    assert_ne!(same.question()["id"], question["id"]);
    client.answer(&question, name("Ada"));
    call.end();
    assert_eq!(answers.borrow()[0]["result"], name("Ada"));
}

#[test]
fn an_answer_to_an_earlier_call_is_none_to_a_later_one_of_the_same_id() {
    let (script, answers) = asking(&[("elicitation/create", form())]);
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    let mut first = client.call();
    let old = first.question();
    client.cancel(json!(1));
    assert_eq!(first.next(), None);
    let mut second = client.call();
    let new = second.question();
    client.answer(&old, name("Old"));
    second.wait(Duration::from_secs(2));
    assert!(answers.borrow().is_empty());
    client.answer(&new, name("New"));
    let told = Rc::clone(&answers);
    second.wait(Duration::from_secs(2));
    assert_eq!(told.borrow()[0]["result"], name("New"));
}

#[test]
fn answers_in_a_batch_count_like_any_other() {
    let sample = json!({ "messages": [], "maxTokens": 1 });
    let (script, answers) = asking(&[
        ("sampling/createMessage", sample),
        ("roots/list", json!({})),
    ]);
    let world = Setup::new().upstream("up", &script).start();
    let version = "2025-03-26";
    let params = json!({ "protocolVersion": version, "capabilities": everything(), "clientInfo": { "name": "c", "version": "1" } });
    let told = world.call(legacy(version, "initialize", params));
    let session = told.header("mcp-session-id");
    let in_session = |message: Value| Ask::post(message).header("mcp-session-id", session);
    let mut client = Client::of(&world, json!({}));
    client.session = session.to_owned();
    let mut call = client.open(in_session(client.tool().message));
    let ids = [call.question()["id"].clone(), call.question()["id"].clone()];
    let answer = |id: &Value| json!({ "jsonrpc": "2.0", "id": id, "result": { "for": id } });
    let told = world.ask(in_session(json!([answer(&ids[0]), answer(&ids[1])])));
    assert_eq!((told.status.as_u16(), told.text.as_str()), (202, ""));
    assert_eq!(call.end()["result"]["content"][0]["text"], "thanks");
    assert_eq!(answers.borrow().len(), 2);
}

fn mails(world: &World) -> Vec<String> {
    let keys = world.sim.atomic.keys().into_iter();
    keys.filter(|key| key.starts_with("mail/")).collect()
}

#[test]
fn an_answer_an_upstreams_revision_has_no_words_for_is_an_error_to_it() {
    let message = json!({ "role": "user", "content": { "type": "text", "text": "?" } });
    let params = json!({ "messages": [message], "maxTokens": 1 });
    let (script, answers) = asking(&[("sampling/createMessage", params)]);
    script.upgrade("2025-06-18");
    let world = Setup::new().upstream("up", &script).start();
    let client = Client::of(&world, everything());
    let texts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
    let used = json!({ "type": "tool_use", "id": "1", "name": "t", "input": {} });
    for content in [texts, used] {
        let mut call = client.call();
        let answer = json!({ "role": "assistant", "content": content, "model": "m" });
        client.answer(&call.question(), answer);
        call.end();
    }
    let answers = answers.borrow();
    assert_eq!(answers[0]["result"]["content"]["text"], "a\nb");
    assert_eq!(answers[1]["error"]["code"], -32603);
}
