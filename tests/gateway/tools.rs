//! What the gateway knows of a tool, and the headers that mirror its arguments.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Ask, Heard, Said, Script, Setup, World, complete, legacy, modern};

#[test]
fn a_header_must_say_what_its_argument_says() {
    let world = upstream(&regional());
    let call = |arguments: Value, headers: &[(&str, &str)]| {
        let ask = modern(
            "tools/call",
            json!({ "name": "up__a", "arguments": arguments }),
        );
        let ask = headers
            .iter()
            .fold(ask, |ask, (name, value)| ask.also(name, value));
        world.call(ask)
    };
    let agreeing: [(Value, &[(&str, &str)]); 9] = [
        (json!({}), &[]),
        (json!({ "region": null }), &[]),
        (json!({ "region": "eu" }), &[("mcp-param-region", "eu")]),
        (json!({ "region": "eu" }), &[("Mcp-Param-REGION", " eu ")]),
        (
            json!({ "region": "Zürich" }),
            &[("mcp-param-region", "=?base64?WsO8cmljaA==?=")],
        ),
        (json!({ "count": 42 }), &[("mcp-param-count", "42")]),
        (json!({ "count": 42 }), &[("mcp-param-count", "42.0")]),
        (json!({ "dry": true }), &[("mcp-param-dry", "true")]),
        (
            json!({ "deep": { "zone": "z" } }),
            &[("mcp-param-zone", "z")],
        ),
    ];
    for (arguments, headers) in agreeing {
        let told = call(arguments.clone(), headers);
        assert_eq!(told.status, 200, "{arguments} {headers:?}: {told:?}");
    }
    let before = world.count("up", "tools/call");
    let disagreeing: [(Value, &[(&str, &str)]); 9] = [
        (json!({ "region": "eu" }), &[]),
        (json!({ "region": "eu" }), &[("mcp-param-region", "us")]),
        (json!({ "region": "eu" }), &[("mcp-param-region", "EU")]),
        (
            json!({ "region": "eu" }),
            &[("mcp-param-region", "=?base64?ZXU?=")],
        ),
        (
            json!({ "region": "eu" }),
            &[("mcp-param-region", "eu"), ("mcp-param-region", "us")],
        ),
        (json!({}), &[("mcp-param-region", "eu")]),
        (json!({ "region": null }), &[("mcp-param-region", "null")]),
        (json!({ "count": 42 }), &[("mcp-param-count", "43")]),
        (json!({ "deep": { "zone": "z" } }), &[]),
    ];
    for (arguments, headers) in disagreeing {
        let told = call(arguments.clone(), headers);
        assert_eq!(
            told.refusal(),
            (400, -32020),
            "{arguments} {headers:?}: {told:?}"
        );
    }
    assert_eq!(
        world.count("up", "tools/call"),
        before,
        "nothing of it is sent"
    );
}

#[test]
fn clients_of_older_revisions_can_call_tools_that_want_headers() {
    let world = upstream(&regional());
    let arguments = json!({ "region": "Zürich", "count": 7, "dry": false, "other": "x" });
    let told = world.call(legacy(
        "2025-06-18",
        "tools/call",
        json!({ "name": "up__a", "arguments": arguments }),
    ));
    assert_eq!(told.said(), "sent", "{told:?}");
    let exchanges = world.exchanges("up");
    let sent = &exchanges.last().unwrap().headers;
    assert_eq!(sent["mcp-param-region"], "=?base64?WsO8cmljaA==?=");
    assert_eq!(sent["mcp-param-count"], "7");
    assert_eq!(sent["mcp-param-dry"], "false");
    assert!(!sent.contains_key("mcp-param-zone"));
    assert!(!sent.contains_key("mcp-param-other"));
}

#[test]
fn recognised_headers_are_made_anew_and_the_others_pass() {
    let world = upstream(&regional());
    world.call(
        calling("up__a", json!({ "count": 42 }))
            .header("mcp-param-count", "42.0")
            .header("mcp-param-vendor", "as it came"),
    );
    let exchanges = world.exchanges("up");
    let sent = &exchanges.last().unwrap().headers;
    assert_eq!(sent["mcp-param-count"], "42");
    assert_eq!(sent.get_all("mcp-param-count").iter().count(), 1);
    assert_eq!(sent["mcp-param-vendor"], "as it came");
}

#[test]
fn a_tool_that_may_not_be_listed_may_not_be_called() {
    let script = Script::modern(&["good"]);
    let schema = json!({ "type": "object", "properties": { "n": { "type": "number", "x-mcp-header": "N" } } });
    script.listing("tools", json!({ "name": "bad", "inputSchema": schema }));
    let world = upstream(&script);
    assert_eq!(world.list("tools/list"), ["up__good"]);
    let told = world.call(calling("up__bad", json!({})));
    assert_eq!(told.code(), -32602);
    assert_eq!(
        told.error()["message"],
        "Invalid params: Unknown tool: up__bad"
    );
    assert_eq!(world.tool("up__good").status, 200);
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn a_tool_that_changed_is_asked_about_and_called_once_more() {
    let script = Script::modern(&["a"]);
    let world = upstream(&script);
    assert_eq!(world.tool("up__a").status, 200);
    // Now it wants a header.
    script.on("tools/list", |_| Said::Result(list(&region())));
    script.on("tools/call", wants_region);
    world.sim.clock.advance(Duration::from_secs(11));
    let told = world.call(legacy(
        "2025-11-25",
        "tools/call",
        json!({ "name": "up__a", "arguments": { "region": "eu" } }),
    ));
    assert_eq!(told.said(), "sent", "{told:?}");
    assert_eq!(world.count("up", "tools/list"), 2);
    assert_eq!(world.count("up", "tools/call"), 3);
}

#[test]
fn disagreement_over_headers_stays_between_gateway_and_upstream() {
    let script = regional();
    script.on("tools/call", mismatch);
    let world = upstream(&script);
    world.sim.clock.advance(Duration::from_secs(11));
    for round in 1..=3 {
        let told = world.call(calling("up__a", json!({})));
        assert_eq!(
            (told.status.as_u16(), told.reason()),
            (502, "upstream_refused"),
            "{told:?}"
        );
        // What was asked a moment ago is not doubted again.
        assert_eq!(world.count("up", "tools/call"), round);
        assert_eq!(world.count("up", "tools/list"), 1);
    }
    world.sim.clock.advance(Duration::from_secs(11));
    world.call(calling("up__a", json!({})));
    assert_eq!(world.count("up", "tools/list"), 2, "asked anew");
    assert_eq!(world.count("up", "tools/call"), 5, "and tried once more");
}

#[test]
fn knowing_a_tool_costs_one_list_in_five_minutes() {
    for script in [Script::modern(&["a"]), Script::legacy("2025-06-18", &["a"])] {
        let world = upstream(&script);
        for _ in 0..20 {
            world.tool("up__a");
            world.sim.clock.advance(Duration::from_secs(14));
        }
        assert_eq!(world.count("up", "tools/list"), 1);
        world.sim.clock.advance(Duration::from_secs(21));
        world.tool("up__a");
        assert_eq!(world.count("up", "tools/list"), 2);
    }
}

#[test]
fn a_list_a_client_asked_for_is_knowledge_too() {
    let world = upstream(&Script::modern(&["a"]));
    world.list("tools/list");
    world.tool("up__a");
    assert_eq!(world.count("up", "tools/list"), 1);
    // It is not a cached answer.
    world.list("tools/list");
    assert_eq!(world.count("up", "tools/list"), 2);
}

#[test]
fn where_the_list_cannot_be_had_tools_are_called_as_they_are() {
    let answers: [fn(&Heard) -> Said; 3] = [
        |_| Said::Error(-32603),
        |_| Said::Raw(500, "text/plain", Vec::new()),
        |_| Said::After(Duration::from_secs(60), Box::new(Said::Error(-32603))),
    ];
    for answer in answers {
        let script = Script::modern(&["a"]);
        script.on("tools/list", answer);
        let world = upstream(&script);
        let ask = || calling("up__a", json!({ "q": "x" })).header("mcp-param-q", "its own");
        assert_eq!(world.call(ask()).status, 200);
        assert_eq!(world.call(ask()).status, 200);
        assert_eq!(
            world.exchanges("up").last().unwrap().headers["mcp-param-q"],
            "its own"
        );
        assert_eq!(world.count("up", "tools/list"), 1);
        assert_eq!(world.events("tools_unchecked").len(), 1);
        world.sim.clock.advance(Duration::from_secs(60));
        script.off("tools/list");
        assert_eq!(world.call(ask().without("mcp-param-q")).status, 200);
        assert_eq!(world.count("up", "tools/list"), 2);
    }
}

#[test]
fn a_tool_no_list_names_is_for_its_upstream_to_judge() {
    let script = Script::modern(&["a"]);
    let world = upstream(&script);
    world.tool("up__a");
    script.listing(
        "tools",
        json!({ "name": "new", "inputSchema": { "type": "object" } }),
    );
    assert_eq!(world.tool("up__new").status, 200);
    assert_eq!(
        world.count("up", "tools/list"),
        1,
        "it is not asked at once"
    );
    world.sim.clock.advance(Duration::from_secs(10));
    assert_eq!(world.tool("up__new").status, 200);
    assert_eq!(world.count("up", "tools/list"), 2);
}

#[test]
fn a_tool_its_upstream_no_longer_knows_is_asked_about() {
    let script = Script::modern(&["a"]);
    script.hints(300_000, "public");
    let world = upstream(&script);
    world.tool("up__a");
    world.sim.clock.advance(Duration::from_secs(11));
    for (message, lists) in [("Bad city", 1), ("Unknown tool: a", 2)] {
        script.on("tools/call", move |heard| {
            let error = json!({ "code": -32602, "message": message });
            Said::Refusal(
                200,
                json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": error }),
            )
        });
        assert_eq!(world.tool("up__a").code(), -32602);
        world.list("tools/list");
        assert_eq!(world.count("up", "tools/list"), lists, "{message}");
    }
}

#[test]
fn private_definitions_are_not_used_for_others() {
    let script = Script::modern(&[]);
    script.capability("tools", json!({}));
    let asked = std::cell::Cell::new(0);
    script.on("tools/list", move |_| {
        asked.set(asked.get() + 1);
        let schema = if asked.get() == 1 {
            region()
        } else {
            json!({ "type": "object" })
        };
        Said::Result(list(&schema))
    });
    script.on("tools/call", |_| Said::Result(complete("sent")));
    let world = upstream(&script);
    let ask = || calling("up__a", json!({ "region": "eu" }));
    assert_eq!(world.call(ask()).refusal(), (400, -32020));
    assert_eq!(world.call(ask().by("ben")).said(), "sent");
    assert_eq!(world.call(ask()).refusal(), (400, -32020));
}

#[test]
fn a_call_that_becomes_a_task_is_judged_first_and_sends_its_headers() {
    let world = Setup::new()
        .upstream("up", &regional())
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .start();
    let ask = || calling("up__a", json!({ "region": "eu" })).with_tasks();
    assert_eq!(world.call(ask()).refusal(), (400, -32020));
    let told = world.call(ask().header("mcp-param-region", "eu"));
    assert_eq!(told.result()["resultType"], "task", "{told:?}");
    world.deliver();
    assert_eq!(
        world.exchanges("up").last().unwrap().headers["mcp-param-region"],
        "eu"
    );
}

#[test]
fn headers_its_definition_does_not_know_go_along_with_a_call_that_may_become_a_task() {
    for (execution, listed) in [
        ("auto", true),
        ("auto", false),
        ("task", true),
        ("task", false),
    ] {
        let script = regional();
        if !listed {
            script.on("tools/list", |_| Said::Error(-32603));
        }
        script.on("tools/call", wants_region);
        let world = Setup::new()
            .upstream("up", &script)
            .rule(json!({ "name": "up__a", "execution": execution }))
            .start();
        let ask = calling("up__a", json!({ "region": "eu" })).with_tasks();
        let ask = ask.header("mcp-param-region", "eu");
        world.call(ask.header("mcp-param-vendor", "as it came"));
        world.deliver();
        let sent = world.exchanges("up").pop().unwrap().headers;
        assert_eq!(sent["mcp-method"], "tools/call");
        assert_eq!(sent["mcp-param-vendor"], "as it came");
        assert_eq!(sent.get_all("mcp-param-region").iter().count(), 1);
        assert_eq!(sent["mcp-param-region"], "eu");
    }
}

#[test]
fn headers_too_large_to_keep_make_no_task() {
    let world = Setup::new()
        .upstream("up", &regional())
        .rule(json!({ "name": "up__a", "execution": "task" }))
        .start();
    let arguments = json!({ "other": "x".repeat(255 * 1024) });
    let ask = calling("up__a", arguments).with_tasks();
    let told = world.call(ask.header("mcp-param-vendor", &"x".repeat(2 * 1024)));
    assert_eq!(told.status, 413, "{told:?}");
}

#[test]
fn an_argument_too_long_for_a_header_is_refused() {
    let world = upstream(&regional());
    let long = "x".repeat(9_000);
    let told = world.call(legacy(
        "2025-06-18",
        "tools/call",
        json!({ "name": "up__a", "arguments": { "region": long } }),
    ));
    assert_eq!(told.code(), -32602, "{told:?}");
    assert!(!told.text.contains("xxxx"));
    assert_eq!(world.count("up", "tools/call"), 0);
}

fn upstream(script: &Script) -> World {
    Setup::new().upstream("up", script).start()
}

fn calling(tool: &str, arguments: Value) -> Ask {
    modern(
        "tools/call",
        json!({ "name": tool, "arguments": arguments }),
    )
}

fn region() -> Value {
    json!({ "type": "object", "properties": {
        "region": { "type": "string", "x-mcp-header": "Region" },
    } })
}

fn list(schema: &Value) -> Value {
    json!({ "resultType": "complete", "tools": [{ "name": "a", "inputSchema": schema }] })
}

/// A modern server with a tool that wants headers, and refuses calls without them.
fn regional() -> Script {
    let script = Script::modern(&[]);
    let schema = json!({ "type": "object", "properties": {
        "region": { "type": "string", "x-mcp-header": "Region" },
        "count": { "type": "integer", "x-mcp-header": "Count" },
        "dry": { "type": "boolean", "x-mcp-header": "Dry" },
        "deep": { "type": "object", "properties": {
            "zone": { "type": "string", "x-mcp-header": "Zone" },
        } },
    } });
    script.listing("tools", json!({ "name": "a", "inputSchema": schema }));
    script.on("tools/call", |_| Said::Result(complete("sent")));
    script
}

fn wants_region(heard: &Heard) -> Said {
    let argument = heard.params()["arguments"]["region"]
        .as_str()
        .unwrap_or_default();
    if heard.header("mcp-param-region") == argument {
        Said::Result(complete("sent"))
    } else {
        mismatch(heard)
    }
}

fn mismatch(heard: &Heard) -> Said {
    let error = json!({ "code": -32020, "message": "Header mismatch" });
    Said::Refusal(
        400,
        json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": error }),
    )
}
