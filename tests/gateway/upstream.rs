//! One call to one upstream: what is sent, and what goes wrong on the way.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_gateway::platform::Clock;

use crate::world::{Said, Script, Setup, Step, World, complete, modern, tool};

#[test]
fn the_gateway_speaks_for_itself_and_passes_on_what_is_not_its_own() {
    let world = upstream(&Script::modern(&["a"]));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    world.call(
        tool("up__a")
            .id(json!("the client's"))
            .meta("progressToken", json!("the client's"))
            .meta("traceparent", trace.into())
            .meta("tracestate", json!("v=1"))
            .meta("vendor.example/x", json!({ "kept": [1.0] }))
            .meta("clientCapabilities", json!({
                "elicitation": { "url": {} }, "sampling": {}, "roots": {},
                "experimental": { "x": {} }, "extensions": { "io.modelcontextprotocol/tasks": {} }, "tasks": {},
            })),
    );
    let sent = &world.bodies("up", "tools/call")[0];
    let meta = &sent["params"]["_meta"];
    assert!(
        sent["id"].is_i64() && meta["progressToken"].is_i64(),
        "ids and tokens are made anew"
    );
    assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "edge");
    assert_eq!(
        meta["io.modelcontextprotocol/clientCapabilities"],
        json!({ "elicitation": { "url": {} }, "sampling": {}, "roots": {} }),
        "only what the gateway can carry"
    );
    assert_eq!(
        (&meta["traceparent"], &meta["tracestate"]),
        (&json!(trace), &json!("v=1"))
    );
    assert_eq!(meta["vendor.example/x"], json!({ "kept": [1.0] }));
    assert_eq!(
        world.audits()[0]["traceId"],
        "0af7651916cd43dd8448eb211c80319c"
    );
}

#[test]
fn no_two_requests_have_the_same_id() {
    let world = upstream(&Script::modern(&["a"]));
    for _ in 0..20 {
        world.tool("up__a");
        world.list("tools/list");
    }
    let mut ids: Vec<i64> = world
        .exchanges("up")
        .iter()
        .map(|exchange| {
            serde_json::from_slice::<Value>(&exchange.body()).unwrap()["id"]
                .as_i64()
                .unwrap()
        })
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn only_headers_that_mirror_arguments_pass() {
    let script = Script::modern(&[]);
    let schema = json!({ "type": "object", "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } });
    script.listing("tools", json!({ "name": "a", "inputSchema": schema }));
    let world = upstream(&script);
    world.call(
        modern(
            "tools/call",
            json!({ "name": "up__a", "arguments": { "region": "eu" } }),
        )
        .header("mcp-param-region", "eu")
        .header("mcp-param-unknown", "kept")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-api-key", "secret")
        .header("mcp-session-id", "s")
        .header("last-event-id", "7"),
    );
    let sent = world.exchanges("up").pop().unwrap().headers;
    assert_eq!(
        (&sent["mcp-param-region"], &sent["mcp-param-unknown"]),
        (&"eu".parse().unwrap(), &"kept".parse().unwrap())
    );
    for header in [
        "x-forwarded-for",
        "x-api-key",
        "mcp-session-id",
        "last-event-id",
        "origin",
    ] {
        assert!(sent.get(header).is_none(), "{header}");
    }
    assert_eq!(sent["accept"], "application/json, text/event-stream");
}

#[test]
fn credentials_of_the_gateway_are_shown_to_their_upstream_alone() {
    let open = Script::modern(&["a"]);
    let world = Setup::new()
        .upstream_with("bearer", &open, &json!({ "credentials": { "type": "bearer", "token": "${secret:BEARER}" } }))
        .upstream_with("header", &open, &json!({ "credentials": { "type": "header", "name": "X-Api-Key", "value": "${secret:KEY}" } }))
        .upstream("open", &open)
        .secret("BEARER", "CANARY-BEARER-SECRET")
        .secret("KEY", "CANARY-HEADER-SECRET")
        .start();
    for name in ["bearer", "header", "open"] {
        assert_eq!(world.tool(&format!("{name}__a")).status, 200);
    }
    let header = |upstream: &str, name: &str| {
        world
            .exchanges(upstream)
            .pop()
            .unwrap()
            .headers
            .get(name)
            .cloned()
    };
    assert_eq!(
        header("bearer", "authorization").unwrap(),
        "Bearer CANARY-BEARER-SECRET"
    );
    assert_eq!(
        header("header", "x-api-key").unwrap(),
        "CANARY-HEADER-SECRET"
    );
    assert_eq!(header("header", "authorization"), None);
    assert_eq!(
        (header("open", "authorization"), header("open", "x-api-key")),
        (None, None)
    );
}

#[test]
fn a_secret_that_cannot_be_read_is_not_said_to_be_missing() {
    let script = Script::modern(&["a"]);
    let credentials = json!({ "credentials": { "type": "bearer", "token": "${secret:BEARER}" } });
    let world = Setup::new()
        .upstream_with("up", &script, &credentials)
        .config(&json!({ "idempotency": { "enabled": true } }))
        .secret("BEARER", "CANARY-BEARER-SECRET")
        .start();
    world.sim.hide_secret("BEARER");
    let keyed = || tool("up__a").header("idempotency-key", "one");
    assert_eq!(world.call(keyed()).status, 500);
    let reason = world.events("fault")[0]["reason"].clone();
    let reason = reason.as_str().unwrap();
    assert!(
        reason.starts_with("secret_unread") && reason.contains("BEARER"),
        "{reason}"
    );
    // Nothing was called, so its key stands for nothing.
    assert_eq!(world.count("up", "tools/call"), 0);
    world.sim.set_secret("BEARER", "CANARY-BEARER-SECRET");
    assert_eq!(world.call(keyed()).status, 200);
}

#[test]
fn a_missing_secret_is_the_operators_to_see() {
    let script = Script::modern(&["a"]);
    let credentials = json!({ "credentials": { "type": "bearer", "token": "${secret:NOT_SET}" } });
    let world = Setup::new()
        .upstream_with("up", &script, &credentials)
        .start();
    let told = world.tool("up__a");
    assert_eq!(told.refusal(), (500, -32603));
    assert!(!told.text.contains("NOT_SET"), "{told:?}");
    let fault = &world.events("fault")[0];
    assert!(fault["reason"].as_str().unwrap().contains("NOT_SET"));
    assert_eq!(
        fault["correlationId"],
        told.error()["data"]["correlationId"]
    );
}

#[test]
fn a_slow_upstream_has_its_time_and_no_more() {
    let timeouts = [
        (json!({ "timeoutMs": 2000 }), Value::Null, 2000),
        (json!({ "timeoutMs": 2000 }), json!(5000), 5000),
        (json!({}), Value::Null, 30_000),
    ];
    for (members, rule, expected) in timeouts {
        let script = Script::modern(&["a"]);
        let mut setup = Setup::new().upstream_with("up", &script, &members);
        if !rule.is_null() {
            setup = setup.rule(json!({ "name": "up__a", "timeoutMs": rule }));
        }
        let world = setup.start();
        assert_eq!(world.tool("up__a").status, 200);
        world.server("up").head_delay.set(Duration::from_secs(3600));
        let started = world.sim.clock.now();
        let told = world.call(tool("up__a").header("accept", "application/json"));
        assert_eq!(
            (told.status.as_u16(), told.reason()),
            (504, "upstream_timeout")
        );
        assert_eq!(
            world.sim.clock.now().since(started),
            Duration::from_millis(expected)
        );
        assert_eq!(
            world.exchanges("up").pop().unwrap().end(),
            tidegate_simulator::End::Cancelled
        );
    }
}

#[test]
fn an_upstream_that_stalls_in_the_middle_is_given_up() {
    let script = Script::modern(&["a"]);
    script.on("tools/call", |heard| {
        Said::Stream(vec![
            Step::Send(heard.progress(1)),
            Step::Wait(Duration::from_secs(3600)),
            Step::Send(heard.response(&complete("late"))),
        ])
    });
    let world = Setup::new()
        .upstream_with("up", &script, &json!({ "timeoutMs": 2000 }))
        .start();
    let told = world.call(tool("up__a").meta("progressToken", json!(1)));
    assert_eq!(told.notifications(), ["notifications/progress"]);
    assert_eq!(told.reason(), "upstream_timeout");
    let whole = Script::modern(&["a"]);
    let world = Setup::new()
        .upstream_with("up", &whole, &json!({ "timeoutMs": 2000 }))
        .start();
    assert_eq!(world.tool("up__a").status, 200);
    world.server("up").chunk_delay.set(Duration::from_secs(5));
    assert_eq!(world.tool("up__a").reason(), "upstream_timeout");
}

#[test]
fn a_connection_cut_anywhere_is_an_error_and_the_call_is_not_repeated() {
    for streaming in [false, true] {
        let script = Script::modern(&["a"]);
        if streaming {
            script.on("tools/call", |heard| {
                Said::Stream(vec![Step::Send(heard.response(&complete("whole")))])
            });
        }
        let world = upstream(&script);
        assert_eq!(world.tool("up__a").status, 200);
        // Other isolates know what it is, and only the call is cut.
        world.settle();
        for cut in (0..120).step_by(7) {
            world.server("up").cut_after.set(Some(cut));
            let other = world.isolate();
            let before = world.count("up", "tools/call");
            let told = other.tool("up__a");
            assert_eq!(
                told.reason(),
                "upstream_invalid",
                "streaming {streaming}, cut after {cut}: {told:?}"
            );
            assert_eq!(world.count("up", "tools/call") - before, 1);
        }
        world.server("up").cut_after.set(None);
        let other = world.isolate();
        assert_eq!(other.tool("up__a").status, 200);
        world.server("up").cut_before_head.set(true);
        assert_eq!(other.tool("up__a").reason(), "upstream_lost");
    }
}

pub fn upstream(script: &Script) -> World {
    Setup::new().upstream("up", script).start()
}
