//! Several upstreams behind one endpoint: merged, in order, and standing when one falls.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Said, Script, Setup, World, modern, tool};

#[test]
fn lists_come_in_configured_order_and_then_in_the_upstreams_own() {
    let world = Setup::new()
        .upstream("zeta", &Script::modern(&["m", "a"]))
        .upstream("alpha", &Script::legacy("2025-06-18", &["z", "b"]))
        .upstream("mid", &Script::modern(&["k"]))
        .start();
    // The slowest answers last; the order stays.
    world.server("zeta").head_delay.set(Duration::from_secs(3));
    let expected = ["zeta__m", "zeta__a", "alpha__z", "alpha__b", "mid__k"];
    assert_eq!(world.list("tools/list"), expected);
    assert_eq!(world.isolate().list("tools/list"), expected);
}

#[test]
fn upstreams_are_asked_at_the_same_time() {
    let world = Setup::new()
        .upstream("one", &Script::modern(&["a"]))
        .upstream("two", &Script::modern(&["b"]))
        .upstream("three", &Script::modern(&["c"]))
        .start();
    for name in ["one", "two", "three"] {
        world.server(name).head_delay.set(Duration::from_secs(2));
    }
    let started = world.sim.clock.clone();
    let before = tidegate_gateway::platform::Clock::now(&started);
    world.list("tools/list");
    let took = tidegate_gateway::platform::Clock::now(&started).since(before);
    assert_eq!(took, Duration::from_secs(4), "discover and list, each once");
}

#[test]
fn every_page_of_an_upstream_is_read() {
    let names: Vec<String> = (0..7).map(|n| format!("t{n}")).collect();
    let script = Script::modern(&names.iter().map(String::as_str).collect::<Vec<_>>());
    script.paged(2);
    let world = Setup::new().upstream("search", &script).start();
    assert_eq!(world.list("tools/list").len(), 7);
    let cursors: Vec<Value> = world
        .bodies("search", "tools/list")
        .iter()
        .map(|body| body["params"]["cursor"].clone())
        .collect();
    assert_eq!(
        cursors,
        [Value::Null, json!(""), json!("2"), json!("3")],
        "an empty cursor is a cursor"
    );
}

#[test]
fn an_upstream_that_never_ends_its_list_is_cut() {
    let script = Script::modern(&["a"]);
    script.on("tools/list", |_| {
        let schema = json!({ "type": "object" });
        Said::Result(json!({ "resultType": "complete", "tools": [{ "name": "a", "inputSchema": schema }], "nextCursor": "again" }))
    });
    let world = Setup::new().upstream("search", &script).start();
    assert_eq!(world.list("tools/list"), ["search__a"]);
    assert!(world.count("search", "tools/list") <= 64);
    assert_eq!(world.events("list_cut").len(), 1);
}

#[test]
fn a_long_list_is_given_in_pages_that_hold_together() {
    let names: Vec<String> = (0..601).map(|n| format!("t{n}")).collect();
    let script = Script::modern(&names.iter().map(String::as_str).collect::<Vec<_>>());
    script.hints(60_000, "private");
    let world = Setup::new().upstream("search", &script).start();
    let (mut all, mut cursor, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let ask = modern("tools/list", json!({}));
        let told = world.call(if cursor.is_null() {
            ask
        } else {
            ask.param("cursor", cursor)
        });
        assert_eq!(told.result()["cacheScope"], "private");
        all.extend(told.names());
        pages += 1;
        cursor = told.result()["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!((all.len(), pages), (601, 3));
    assert_eq!(all[600], "search__t600");
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 601);
}

#[test]
fn a_cursor_is_good_for_its_own_list_and_principal_only() {
    let names: Vec<String> = (0..300).map(|n| format!("t{n}")).collect();
    let script = Script::modern(&names.iter().map(String::as_str).collect::<Vec<_>>());
    script.listing("prompts", json!({ "name": "p" }));
    let world = Setup::new().upstream("search", &script).start();
    let cursor = world.call(modern("tools/list", json!({}))).result()["nextCursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let page = |cursor: &str| modern("tools/list", json!({ "cursor": cursor }));
    assert_eq!(world.call(page(&cursor)).names().len(), 50);
    assert_eq!(
        world.isolate().call(page(&cursor)).names().len(),
        50,
        "any isolate knows it"
    );

    let audience = world.token(&json!({ "aud": "https://gw.example.com/servers/search/mcp" }));
    let changed = |at: usize| {
        let mut bytes = cursor.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let refused = [
        page(&cursor).by("ben"),
        modern("prompts/list", json!({ "cursor": cursor })),
        page(&cursor).to("/servers/search/mcp").token(&audience),
        page(""),
        page("MjU="),
        page(&format!("{cursor}A")),
        page(&cursor[..cursor.len() - 4]),
        page(&changed(0)),
        page(&changed(10)),
        page(&changed(cursor.len() / 2)),
        page(&"A".repeat(100_000)),
        modern("tools/list", json!({ "cursor": 7 })),
        modern("tools/list", json!({ "cursor": null })),
    ];
    for ask in refused {
        let told = world.call(ask);
        assert_eq!(told.refusal(), (200, -32602), "{told:?}");
    }
}

#[test]
fn a_dead_upstream_is_left_out_and_named() {
    let world = three();
    world.server("two").down.set(true);
    let told = world.call(modern("tools/list", json!({})));
    assert_eq!(told.names(), ["one__a", "three__c"]);
    assert_eq!(
        told.result()["_meta"]["io.tidegate/unavailableUpstreams"],
        json!(["two"])
    );
    assert_eq!(told.result()["ttlMs"], 0, "it may be back any moment");
    assert!(!world.events("upstream_left_out").is_empty());
    assert_eq!(world.call(tool("one__a")).status, 200);
    world.server("two").down.set(false);
    world.sim.clock.advance(Duration::from_secs(60));
    assert_eq!(world.list("tools/list"), ["one__a", "two__b", "three__c"]);
}

#[test]
fn every_way_of_being_dead_leaves_the_others_standing() {
    let deaths: [(&str, Said); 6] = [
        ("404 page", Said::Raw(404, "text/html", b"<html>".to_vec())),
        ("500", Said::Raw(500, "text/plain", b"oops".to_vec())),
        ("HTML", Said::Raw(200, "text/html", b"<html>".to_vec())),
        (
            "no items",
            Said::Result(json!({ "resultType": "complete" })),
        ),
        ("an error", Said::Error(-32603)),
        (
            "never",
            Said::After(Duration::from_secs(3600), Box::new(Said::Error(1))),
        ),
    ];
    for (what, death) in deaths {
        let death = std::cell::Cell::new(Some(death));
        let two = Script::modern(&["b"]);
        two.on("tools/list", move |_| {
            death.take().unwrap_or(Said::Error(-32603))
        });
        let world = Setup::new()
            .upstream("one", &Script::modern(&["a"]))
            .upstream("two", &two)
            .start();
        let told = world.call(modern("tools/list", json!({})));
        assert_eq!(told.names(), ["one__a"], "{what}");
        assert_eq!(
            told.result()["_meta"]["io.tidegate/unavailableUpstreams"],
            json!(["two"]),
            "{what}"
        );
    }
}

#[test]
fn when_all_are_dead_that_is_an_error() {
    let world = three();
    for name in ["one", "two", "three"] {
        world.server(name).down.set(true);
    }
    let told = world.call(modern("tools/list", json!({})));
    assert_eq!(
        (told.status.as_u16(), told.reason()),
        (502, "upstream_unavailable")
    );
}

#[test]
fn discovery_is_the_union_of_what_the_living_can_do() {
    let one = Script::modern(&["a"]);
    one.on("server/discover", |_| {
        Said::Result(json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "instructions": "Ask one.",
            "capabilities": { "tools": { "listChanged": true }, "logging": {}, "extensions": { "vendor/x": {} } },
            "ttlMs": 5, "cacheScope": "public",
        }))
    });
    let two = Script::legacy("2025-11-25", &[]);
    two.listing("prompts", json!({ "name": "p" }));
    two.capability("tasks", json!({ "list": {} }));
    let world = Setup::new()
        .upstream("one", &one)
        .upstream("two", &two)
        .start();
    let told = world.call(modern("server/discover", json!({})));
    let capabilities = &told.result()["capabilities"];
    assert_eq!(
        capabilities,
        &json!({ "tools": { "listChanged": true }, "prompts": {}, "logging": {} }),
        "nothing we do not serve"
    );
    assert_eq!(told.result()["instructions"], "## one\nAsk one.");
    assert!(told.result()["ttlMs"].is_u64() && told.result()["cacheScope"] == "private");
    world.server("two").down.set(true);
    let told = world.isolate().call(modern("server/discover", json!({})));
    assert_eq!(
        told.result()["capabilities"],
        json!({ "tools": { "listChanged": true }, "logging": {} }),
        "what the living can do, and no more"
    );
}

#[test]
fn the_tasks_extension_is_declared_where_a_tool_may_become_a_task() {
    for (execution, declared) in [("sync", false), ("auto", true), ("task", true)] {
        let world = Setup::new()
            .upstream("search", &Script::modern(&["query"]))
            .rule(json!({ "name": "search__query", "execution": execution }))
            .start();
        let told = world.call(modern("server/discover", json!({})));
        let extensions = &told.result()["capabilities"]["extensions"];
        assert_eq!(
            extensions["io.modelcontextprotocol/tasks"].is_object(),
            declared,
            "{execution}"
        );
        assert!(
            told.result()["capabilities"].get("tasks").is_none(),
            "that is the older experiment's"
        );
    }
}

#[test]
fn what_no_upstream_has_is_not_served() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query"]))
        .start();
    for method in ["prompts/list", "resources/list", "resources/templates/list"] {
        assert_eq!(
            world.call(modern(method, json!({}))).refusal(),
            (404, -32601),
            "{method}"
        );
    }
}

#[test]
fn a_capability_without_its_list_is_an_empty_list() {
    let script = Script::modern(&["query"]);
    script.capability("prompts", json!({}));
    let world = Setup::new().upstream("search", &script).start();
    assert_eq!(world.list("prompts/list"), Vec::<String>::new());
}

#[test]
fn one_upstream_alone_has_its_own_endpoint_and_names() {
    let world = three();
    let token = world.token(&json!({ "aud": "https://gw.example.com/servers/two/mcp" }));
    let at = |ask: crate::world::Ask| ask.to("/servers/two/mcp").token(&token);
    assert_eq!(
        world.call(at(modern("tools/list", json!({})))).names(),
        ["b"]
    );
    assert_eq!(world.call(at(tool("b"))).said(), "CANARY-RESULT b");
    assert_eq!(
        world.call(at(tool("one__a"))).code(),
        -32602,
        "the others' tools are not here"
    );
    assert_eq!(world.call(at(tool("a"))).code(), -32602);
    assert!(world.exchanges("one").is_empty() && world.exchanges("three").is_empty());
}

#[test]
fn a_tool_with_an_invalid_header_annotation_is_dropped_and_the_others_stay() {
    let script = Script::modern(&["good"]);
    for (name, property) in [
        ("empty", json!({ "type": "string", "x-mcp-header": "" })),
        ("token", json!({ "type": "string", "x-mcp-header": "a b" })),
        ("number", json!({ "type": "number", "x-mcp-header": "N" })),
        (
            "items",
            json!({ "type": "array", "items": { "type": "string", "x-mcp-header": "N" } }),
        ),
    ] {
        script.listing("tools", json!({ "name": name, "inputSchema": { "type": "object", "properties": { "p": property } } }));
    }
    let fine = json!({ "type": "object", "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } });
    script.listing("tools", json!({ "name": "fine", "inputSchema": fine }));
    let world = Setup::new().upstream("search", &script).start();
    assert_eq!(world.list("tools/list"), ["search__good", "search__fine"]);
    assert_eq!(world.events("tool_dropped").len(), 4);
}

#[test]
fn schemas_and_unknown_members_survive_as_they_were() {
    let script = Script::modern(&[]);
    let schema = r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","$defs":{"a":{"$anchor":"x"}},"allOf":[{"if":{},"then":{}}],"properties":{"n":{"const":1.0}},"additionalProperties":false}"##;
    script.listing("tools", json!({ "name": "t", "inputSchema": serde_json::from_str::<Value>(schema).unwrap(), "vendor": 1 }));
    let told = Setup::new()
        .upstream("search", &script)
        .start()
        .call(modern("tools/list", json!({})));
    assert!(told.text.contains(schema), "{told:?}");
    assert_eq!(told.result()["tools"][0]["vendor"], 1);
}

fn three() -> World {
    Setup::new()
        .upstream("one", &Script::modern(&["a"]))
        .upstream("two", &Script::modern(&["b"]))
        .upstream("three", &Script::modern(&["c"]))
        .start()
}
