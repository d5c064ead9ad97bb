//! Multi round-trip requests: input asked for, and the retry that brings it.

use std::cell::Cell;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Ask, Said, Script, Setup, World, complete, modern, tool};

/// What an upstream may put into its state; it must come back byte for byte.
const STATE: &str = "st\u{e4}te \"\\/ {\"n\":1.0} =?base64?eA==?= \u{1f30a}";

#[test]
fn the_state_comes_back_to_the_upstream_byte_for_byte_and_is_hidden_on_the_way() {
    let (world, _) = world();
    let first = world.call(ask());
    assert_eq!(first.result()["resultType"], "input_required");
    assert_eq!(
        first.result()["inputRequests"]["name"]["method"],
        "elicitation/create"
    );
    let sealed = state(&first);
    assert!(
        !sealed.contains("te") || !first.text.contains("base64?"),
        "sealed: {first:?}"
    );
    assert_ne!(sealed, STATE);
    let told = world.call(retry(&sealed));
    assert_eq!(told.said(), "done");
    let sent = world.bodies("up", "tools/call").pop().unwrap();
    assert_eq!(sent["params"]["requestState"], STATE);
    assert_eq!(sent["params"]["inputResponses"], answers());
    assert_eq!(world.audits()[0]["outcome"], "input_required");
}

#[test]
fn any_isolate_takes_the_retry() {
    let (world, _) = world();
    let sealed = state(&world.call(ask()));
    assert_eq!(
        world.isolate().call(retry(&sealed).id(json!("new"))).said(),
        "done"
    );
}

#[test]
fn state_that_was_changed_or_belongs_to_something_else_is_refused() {
    let (world, script) = world();
    script.listing("tools", json!({ "name": "b", "inputSchema": {} }));
    script.listing("prompts", json!({ "name": "a" }));
    let sealed = state(&world.call(ask()));
    let changed = |at: usize| {
        let mut bytes = sealed.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let before = world.count("up", "tools/call");
    let refused = [
        ("tampered", retry(&format!("{sealed}-TAMPERED"))),
        ("cut", retry(&sealed[..sealed.len() - 1])),
        ("one bit", retry(&changed(sealed.len() / 2))),
        ("the key id", retry(&changed(3))),
        ("the upstream's own", retry(STATE)),
        ("empty", retry("")),
        ("not a text", retry("x").param("requestState", json!(7))),
        ("null", retry("x").param("requestState", Value::Null)),
        ("another principal", retry(&sealed).by("ben")),
        (
            "other arguments",
            retry(&sealed).param("arguments", json!({ "q": "other" })),
        ),
        ("no arguments", without(retry(&sealed), "arguments")),
        (
            "another tool",
            retry(&sealed)
                .param("name", json!("up__b"))
                .header("mcp-name", "up__b"),
        ),
        (
            "another method",
            modern(
                "prompts/get",
                json!({ "name": "up__a", "arguments": { "q": 1 }, "requestState": sealed, "inputResponses": answers() }),
            ),
        ),
    ];
    for (what, ask) in refused {
        let told = world.call(ask);
        assert_eq!(told.code(), -32602, "{what}: {told:?}");
    }
    assert_eq!(
        world.count("up", "tools/call"),
        before,
        "nothing of it reached the upstream"
    );
    assert_eq!(
        world.call(retry(&sealed)).said(),
        "done",
        "the good one still does"
    );
}

#[test]
fn a_cursor_or_a_task_handle_is_no_state() {
    let names: Vec<String> = (0..300).map(|n| format!("t{n}")).collect();
    let script = Script::modern(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let world = Setup::new().upstream("up", &script).start();
    let cursor = world.call(modern("tools/list", json!({}))).result()["nextCursor"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        world
            .call(tool("up__t1").param("requestState", cursor.into()))
            .code(),
        -32602
    );
}

#[test]
fn state_lives_for_an_hour() {
    let (world, _) = world();
    let sealed = state(&world.call(ask()));
    world.sim.clock.advance(Duration::from_secs(3600));
    assert_eq!(world.call(retry(&sealed)).said(), "done");
    world.sim.clock.advance(Duration::from_millis(1));
    assert_eq!(world.call(retry(&sealed)).code(), -32602);
}

#[test]
fn where_the_upstream_gave_no_state_there_is_none() {
    let (world, script) = world();
    script.on(
        "tools/call",
        |heard| match heard.params()["inputResponses"].is_object() {
            true => Said::Result(complete("done")),
            false => {
                Said::Result(json!({ "resultType": "input_required", "inputRequests": requests() }))
            }
        },
    );
    let first = world.call(ask());
    assert!(first.result().get("requestState").is_none());
    let told = world.call(ask().param("inputResponses", answers()));
    assert_eq!(
        told.said(),
        "done",
        "answers without a state are routed by name"
    );
    let sent = world.bodies("up", "tools/call").pop().unwrap();
    assert!(sent["params"].get("requestState").is_none());
}

#[test]
fn an_empty_state_is_a_state() {
    let (world, script) = world();
    script.on("tools/call", |heard| {
        match heard.params().get("requestState") {
            Some(state) if state == "" => Said::Result(complete("done")),
            _ => Said::Result(json!({ "resultType": "input_required", "requestState": "" })),
        }
    });
    let sealed = state(&world.call(ask()));
    assert_ne!(sealed, "");
    assert_eq!(
        world
            .call(ask().param("requestState", sealed.into()))
            .said(),
        "done"
    );
}

#[test]
fn rounds_may_follow_rounds() {
    let (world, script) = world();
    let round = Cell::new(0);
    script.on("tools/call", move |heard| {
        let expected = if round.get() == 0 { Value::Null } else { format!("round-{}", round.get()).into() };
        assert_eq!(heard.params()["requestState"], expected);
        round.set(round.get() + 1);
        match round.get() {
            4 => Said::Result(complete("done")),
            n => Said::Result(json!({ "resultType": "input_required", "inputRequests": requests(), "requestState": format!("round-{n}") })),
        }
    });
    let (mut told, mut seen) = (world.call(ask()), Vec::new());
    for _ in 0..3 {
        let sealed = state(&told);
        assert!(!seen.contains(&sealed), "each round has its own");
        told = world.call(retry(&sealed));
        seen.push(sealed);
    }
    assert_eq!(told.said(), "done");
}

#[test]
fn prompts_and_resources_may_ask_too_but_lists_may_not() {
    let (world, script) = world();
    script.listing("prompts", json!({ "name": "p" }));
    script.listing("resources", json!({ "uri": "test://r", "name": "r" }));
    let input = |_: &crate::world::Heard| {
        Said::Result(json!({ "resultType": "input_required", "requestState": "s" }))
    };
    for method in [
        "prompts/get",
        "resources/read",
        "tools/list",
        "completion/complete",
    ] {
        script.on(method, input);
    }
    for (method, params) in [
        ("prompts/get", json!({ "name": "up__p" })),
        ("resources/read", json!({ "uri": "up+test://r" })),
    ] {
        let told = world.call(modern(method, params));
        assert_eq!(told.result()["resultType"], "input_required", "{method}");
        assert!(told.result().get("ttlMs").is_none(), "never to be cached");
        assert_ne!(state(&told), "s");
    }
    let told = world.call(modern(
        "completion/complete",
        json!({ "ref": { "type": "ref/prompt", "name": "up__p" }, "argument": {} }),
    ));
    assert_eq!(told.reason(), "upstream_invalid");
    assert_eq!(
        world.call(modern("tools/list", json!({}))).reason(),
        "upstream_invalid"
    );
}

#[test]
fn a_request_for_input_that_asks_nothing_is_refused() {
    let (world, script) = world();
    for result in [
        json!({ "resultType": "input_required" }),
        json!({ "resultType": "input_required", "inputRequests": [] }),
        json!({ "resultType": "input_required", "requestState": 7 }),
    ] {
        script.on("tools/call", move |_| Said::Result(result.clone()));
        assert_eq!(world.call(ask()).reason(), "upstream_invalid");
    }
}

#[test]
fn a_client_is_asked_only_what_it_declared() {
    let (world, script) = world();
    for request in [
        json!({ "method": "sampling/createMessage", "params": {} }),
        json!({ "method": "roots/list" }),
        json!({ "method": "elicitation/create", "params": { "mode": "url", "url": "https://x.example.com", "message": "x" } }),
    ] {
        script.on("tools/call", move |_| {
            Said::Result(json!({ "resultType": "input_required", "inputRequests": { "k": request }, "requestState": "s" }))
        });
        let told = world.call(ask());
        assert_eq!(told.refusal(), (400, -32021), "{told:?}");
        assert!(told.error()["data"]["requiredCapabilities"].is_object());
    }
    script.on("tools/call", |_| {
        let request = json!({ "method": "vendor/other", "params": {} });
        Said::Result(json!({ "resultType": "input_required", "inputRequests": { "k": request } }))
    });
    assert_eq!(
        world.call(ask()).reason(),
        "upstream_invalid",
        "and nothing nobody knows"
    );
}

fn world() -> (World, Script) {
    let script = Script::modern(&["a"]);
    script.on("tools/call", |heard| {
        if heard.params()["requestState"] == STATE && heard.params()["inputResponses"] == answers() {
            return Said::Result(complete("done"));
        }
        Said::Result(json!({ "resultType": "input_required", "inputRequests": requests(), "requestState": STATE }))
    });
    (Setup::new().upstream("up", &script).start(), script)
}

fn requests() -> Value {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    json!({ "name": { "method": "elicitation/create", "params": { "message": "Who?", "requestedSchema": schema } } })
}

fn answers() -> Value {
    json!({ "name": { "action": "accept", "content": { "name": "Ada" } } })
}

fn ask() -> Ask {
    tool("up__a").meta("clientCapabilities", json!({ "elicitation": {} }))
}

fn retry(state: &str) -> Ask {
    ask()
        .id(json!(2))
        .param("requestState", state.into())
        .param("inputResponses", answers())
}

fn without(mut ask: Ask, param: &str) -> Ask {
    ask.message["params"]
        .as_object_mut()
        .unwrap()
        .shift_remove(param);
    ask
}

#[track_caller]
fn state(told: &crate::world::Told) -> String {
    told.result()["requestState"].as_str().unwrap().to_owned()
}
