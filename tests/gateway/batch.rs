//! JSON-RPC batches: 2025-03-26 alone, bounded, and every check for each member.

use serde_json::{Value, json};

use crate::world::{ARGUMENT, Ask, Script, Setup, World};

#[test]
fn each_member_gets_its_answer_in_order() {
    let world = world(&json!({}));
    for header in [None, Some("2025-03-26")] {
        let before = world.audits().len();
        let told = world.ask(batch(
            json!([
                member(1, "ping", json!({})),
                call("two", "search__query"),
                { "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {} },
                member(3, "tools/destroy", json!({})),
                member(4, "tools/list", json!({})),
            ]),
            header,
        ));
        assert_eq!(told.status, 200);
        let answers = told.json().as_array().unwrap();
        let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
        assert_eq!(ids, [&json!(1), &json!("two"), &json!(3), &json!(4)]);
        assert_eq!(answers[0]["result"], json!({}));
        assert_eq!(
            answers[1]["result"]["content"][0]["text"],
            "CANARY-RESULT query"
        );
        assert_eq!(answers[2]["error"]["code"], -32601);
        assert_eq!(answers[3]["result"]["tools"][0]["name"], "search__query");
        assert_eq!(world.audits().len() - before, 4, "one line per call");
    }
}

#[test]
fn other_revisions_have_no_batches() {
    let world = world(&json!({}));
    for version in ["2024-11-05", "2025-06-18", "2025-11-25", "2026-07-28", "v1"] {
        let told = world.call(batch(json!([member(1, "ping", json!({}))]), Some(version)));
        assert_eq!(told.refusal(), (400, -32600), "{version}");
        assert!(told.json().get("id").is_none());
    }
}

#[test]
fn a_batch_is_bounded() {
    let world = world(&json!({}));
    let of = |count: usize| {
        batch(
            Value::Array((0..count).map(|id| member(id, "ping", json!({}))).collect()),
            None,
        )
    };
    assert_eq!(world.ask(of(32)).json().as_array().unwrap().len(), 32);
    for refused in [of(33), of(9000), of(0)] {
        assert_eq!(world.call(refused).refusal(), (400, -32600));
    }
}

#[test]
fn a_bad_member_spoils_only_itself() {
    let world = world(&json!({}));
    let told = world.ask(batch(
        json!([7, [], { "jsonrpc": "2.0", "id": null, "method": "ping" }, { "jsonrpc": "1.0", "id": 5, "method": "ping" }, member(6, "ping", json!({}))]),
        None,
    ));
    let answers = told.json().as_array().unwrap();
    assert_eq!(answers.len(), 5);
    for answer in &answers[..4] {
        assert_eq!(answer["error"]["code"], -32600);
    }
    assert_eq!(answers[3]["id"], 5, "an id that could be read is echoed");
    assert_eq!(answers[4]["result"], json!({}));
    assert_eq!(world.audits().len(), 5, "what was refused is recorded, too");
}

#[test]
fn initialize_must_not_be_part_of_a_batch() {
    let world = world(&json!({}));
    let initialize = member(
        1,
        "initialize",
        json!({ "protocolVersion": "2025-03-26", "capabilities": {} }),
    );
    let told = world.ask(batch(
        json!([initialize, member(2, "ping", json!({}))]),
        None,
    ));
    let answers = told.json().as_array().unwrap();
    assert_eq!(
        (&answers[0]["error"]["code"], &answers[1]["result"]),
        (&json!(-32600), &json!({}))
    );
}

#[test]
fn a_batch_without_requests_gets_no_answer() {
    let world = world(&json!({}));
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let told = world.ask(batch(
        json!([note, note, { "jsonrpc": "2.0", "id": 1, "result": {} }]),
        None,
    ));
    assert_eq!((told.status.as_u16(), told.text.as_str()), (202, ""));
}

#[test]
fn a_batch_is_counted_as_many_calls() {
    let world = world(&json!({ "limits": { "perClient": { "requests": 3, "windowMs": 60000 } } }));
    let calls: Vec<Value> = (1..=5)
        .map(|id| call(&id.to_string(), "search__query"))
        .collect();
    let told = world.ask(batch(Value::Array(calls), None));
    let codes: Vec<i64> = told
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| answer["error"]["code"].as_i64().unwrap_or(0))
        .collect();
    assert_eq!(codes, [0, 0, 0, -31002, -31002]);
    assert_eq!(world.count("search", "tools/call"), 3);
}

#[test]
fn policy_holds_for_each_member() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query", "delete"]))
        .rule(json!({ "name": "search__delete", "requiredRoles": ["admin"] }))
        .start();
    let told = world.ask(batch(
        json!([call("a", "search__delete"), call("b", "search__query")]),
        None,
    ));
    let answers = told.json().as_array().unwrap();
    assert_eq!(answers[0]["error"]["data"]["reason"], "denied");
    assert_eq!(
        answers[1]["result"]["content"][0]["text"],
        "CANARY-RESULT query"
    );
    let outcomes: Vec<String> = world
        .audits()
        .iter()
        .map(|line| line["outcome"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outcomes, ["denied", "ok"]);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_batch_leaves_one_line_for_each_call_begun() {
    let script = Script::modern(&["query"]);
    script.on("tools/call", |heard| {
        let pause = if heard.params()["arguments"]["slow"] == true {
            20
        } else {
            0
        };
        let result = crate::world::complete("done");
        crate::world::Said::After(
            std::time::Duration::from_secs(pause),
            Box::new(crate::world::Said::Result(result)),
        )
    });
    let world = Setup::new().upstream("search", &script).start();
    let slow = member(
        2,
        "tools/call",
        json!({ "name": "search__query", "arguments": { "slow": true } }),
    );
    let mut running = world.start(batch(
        json!([call("a", "search__query"), slow, call("c", "search__query")]),
        None,
    ));
    assert!(running.step().is_none());
    while world.count("search", "tools/call") < 2 {
        world.sim.clock.advance(std::time::Duration::from_millis(1));
        assert!(running.step().is_none());
    }
    drop(running);
    let outcomes: Vec<String> = world
        .audits()
        .iter()
        .map(|line| line["outcome"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outcomes, ["ok", "disconnected"]);
}

fn world(config: &Value) -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .config(config)
        .start()
}

fn batch(members: Value, version: Option<&str>) -> Ask {
    let ask = Ask::post(members);
    match version {
        Some(version) => ask.header("mcp-protocol-version", version),
        None => ask,
    }
}

fn member(id: usize, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn call(id: &str, tool: &str) -> Value {
    let params = json!({ "name": tool, "arguments": { "q": ARGUMENT } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}
