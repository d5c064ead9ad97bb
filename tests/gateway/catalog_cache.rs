//! Public lists, shared between isolates.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Said, Script, Setup, World, legacy, modern};

const LIST: &str = "tools/list";

#[test]
fn another_isolate_lists_without_asking_the_upstream() {
    let (world, script) = shared(60_000, "public");
    let first = world.call(modern(LIST, json!({})));
    world.settle();
    let other = world.isolate();
    world.sim.clock.advance(Duration::from_secs(20));
    let told = other.call(modern(LIST, json!({})).by("ben"));
    assert_eq!(told.result()["tools"], first.result()["tools"]);
    assert_eq!(told.result()["ttlMs"], 40_000, "its age counts");
    assert_eq!(world.count("up", LIST), 1);
    let tool = legacy(
        "2025-06-18",
        "tools/call",
        json!({ "name": "up__a", "arguments": { "q": 1 } }),
    );
    assert_eq!(
        other.call(tool).result()["isError"],
        true,
        "and knows the tools"
    );
    assert_eq!(world.count("up", LIST), 1);
    // It holds no longer here than where it was fetched.
    script.listing(
        "tools",
        json!({ "name": "b", "inputSchema": { "type": "object" } }),
    );
    world.sim.clock.advance(Duration::from_secs(39));
    assert_eq!(other.list(LIST).len(), 1);
    world.sim.clock.advance(Duration::from_secs(1));
    assert_eq!(other.list(LIST).len(), 2);
}

#[test]
fn a_tool_call_in_a_new_isolate_asks_for_no_list() {
    let (world, _) = shared(60_000, "public");
    world.tool("up__a");
    world.settle();
    let other = world.isolate();
    assert_eq!(other.tool("up__a").status, 200);
    assert_eq!(world.count("up", LIST), 1);
}

#[test]
fn what_is_not_for_all_or_not_for_long_is_never_stored() {
    for (ttl_ms, scope) in [
        (60_000, "private"),
        (60_000, "PUBLIC"),
        (0, "public"),
        (9_999, "public"),
        (-1, "public"),
    ] {
        let (world, _) = shared(ttl_ms, scope);
        world.list(LIST);
        world.tool("up__a");
        world.settle();
        assert_eq!(world.sim.kv.writes("catalog/"), 0, "{ttl_ms} {scope}");
        world.isolate().list(LIST);
        assert_eq!(world.count("up", LIST), 2, "{ttl_ms} {scope}");
    }
}

#[test]
fn lists_that_are_not_shared_cost_one_look_in_five_minutes() {
    let (world, _) = shared(0, "private");
    for _ in 0..10 {
        world.list(LIST);
        world.settle();
    }
    assert_eq!(world.sim.kv.reads("catalog/"), 1);
}

#[test]
fn a_list_too_large_to_share_is_kept_in_memory_alone() {
    let script = Script::modern(&["a"]);
    script.hints(60_000, "public");
    let long = "x".repeat(600 * 1024);
    let schema = json!({ "type": "object" });
    script.listing(
        "tools",
        json!({ "name": "b", "description": long, "inputSchema": schema }),
    );
    let world = Setup::new().upstream("up", &script).start();
    assert_eq!(world.list(LIST).len(), 2);
    assert_eq!(world.list(LIST).len(), 2);
    world.settle();
    assert_eq!(world.sim.kv.writes("catalog/"), 0);
    assert_eq!(world.count("up", LIST), 1);
}

#[test]
fn isolates_that_fetch_at_about_the_same_time_write_once() {
    let (world, _) = shared(60_000, "public");
    let isolates: Vec<World> = (0..5).map(|_| world.isolate()).collect();
    for isolate in &isolates {
        isolate.list(LIST);
    }
    assert_eq!(world.count("up", LIST), 5, "none has written yet");
    for isolate in &isolates {
        isolate.settle();
    }
    assert_eq!(world.sim.kv.writes("catalog/"), 1);
    let too_fast = world.sim.kv.too_fast();
    assert!(!too_fast.iter().any(|key| key.starts_with("catalog/")));
}

#[test]
fn a_tool_that_changed_is_looked_for_beyond_what_is_stored() {
    let (world, script) = shared(300_000, "public");
    world.list(LIST);
    world.settle();
    world.sim.clock.advance(Duration::from_secs(60));
    // Another isolate learns from KV; then the upstream changes its tool.
    let other = world.isolate();
    assert_eq!(other.tool("up__a").status, 200);
    script.on("tools/list", |_| Said::Result(with_region()));
    script.on("tools/call", |heard| {
        if heard.header("mcp-param-region") == "eu" {
            return Said::Result(crate::world::complete("sent"));
        }
        let error = json!({ "code": -32020, "message": "Header mismatch" });
        Said::Refusal(
            400,
            json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": error }),
        )
    });
    let told = other.call(legacy(
        "2025-06-18",
        "tools/call",
        json!({ "name": "up__a", "arguments": { "region": "eu" } }),
    ));
    assert_eq!(told.said(), "sent", "{told:?}");
    assert_eq!(world.count("up", LIST), 2);
    other.settle();
    // What it found is there for all who come now.
    let third = world.isolate();
    let told = third.call(modern(LIST, json!({})));
    let schema = &told.result()["tools"][0]["inputSchema"];
    assert_eq!(schema["properties"]["region"]["x-mcp-header"], "Region");
    assert_eq!(world.count("up", LIST), 2);
}

#[test]
fn a_store_out_of_reach_or_with_something_else_in_it_costs_a_list_and_no_more() {
    let (world, _) = shared(60_000, "public");
    world.list(LIST);
    world.settle();
    let keys = world.sim.kv.keys();
    let key = keys.iter().find(|key| key.starts_with("catalog/")).unwrap();
    let mut record: Value = serde_json::from_slice(&world.sim.kv.stored(key).unwrap()).unwrap();
    record["v"] = json!(2);
    for bytes in [record.to_string(), "not a record".to_owned()] {
        world.sim.kv.publish(key, bytes);
        let before = world.count("up", LIST);
        assert_eq!(world.isolate().list(LIST), ["up__a"]);
        assert_eq!(world.count("up", LIST), before + 1);
    }
}

fn with_region() -> Value {
    let region = json!({ "type": "string", "x-mcp-header": "Region" });
    let schema = json!({ "type": "object", "properties": { "region": region } });
    json!({ "resultType": "complete", "tools": [{ "name": "a", "inputSchema": schema }],
        "ttlMs": 300_000, "cacheScope": "public" })
}

fn shared(ttl_ms: i64, scope: &'static str) -> (World, Script) {
    let script = Script::modern(&["a"]);
    script.hints(ttl_ms, scope);
    (Setup::new().upstream("up", &script).start(), script)
}
