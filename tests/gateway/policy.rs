//! Who may call what. What is listed is what may be called.

use serde_json::{Value, json};

use crate::world::{Script, Setup, World, modern, tool};

#[test]
fn the_list_is_the_set_of_what_may_be_called() {
    let world = world();
    let principals = [
        json!({}),
        json!({ "roles": ["reader"] }),
        json!({ "roles": ["admin"] }),
        json!({ "scope": "write" }),
        json!({ "scope": "write more", "roles": ["reader", "admin"] }),
        json!({ "scope": "more", "roles": "reader" }),
    ];
    let all = [
        "search__open",
        "search__read",
        "search__write",
        "search__both",
        "search__any",
    ];
    for claims in principals {
        let token = world.token(&claims);
        let listed = world
            .call(modern("tools/list", json!({})).token(&token))
            .names();
        let callable: Vec<String> = all
            .iter()
            .filter(|name| world.call(tool(name).token(&token)).status == 200)
            .map(|name| (*name).to_owned())
            .collect();
        assert_eq!(listed, callable, "{claims}");
    }
}

#[test]
fn roles_are_alternatives_and_scopes_are_all_needed() {
    let world = world();
    let status = |claims: &Value, name: &str| {
        world
            .call(tool(name).token(&world.token(claims)))
            .status
            .as_u16()
    };
    assert_eq!(status(&json!({ "roles": ["admin"] }), "search__read"), 200);
    assert_eq!(status(&json!({ "roles": ["Reader"] }), "search__read"), 403);
    assert_eq!(status(&json!({ "scope": "write" }), "search__both"), 403);
    assert_eq!(
        status(
            &json!({ "scope": "write more", "roles": ["reader"] }),
            "search__both"
        ),
        200
    );
    assert_eq!(
        status(
            &json!({ "scp": ["more", "write"], "roles": ["reader"] }),
            "search__both"
        ),
        200
    );
}

#[test]
fn a_refusal_names_the_rule_and_does_no_work() {
    let world = world();
    let told = world.tool("search__read");
    assert_eq!((told.status.as_u16(), told.reason()), (403, "denied"));
    assert_eq!(told.error()["data"]["rule"], "search__read");
    assert_eq!(
        told.header("www-authenticate"),
        "",
        "another token would not help"
    );
    assert_eq!(world.count("search", "tools/call"), 0);
    assert_eq!(world.audits()[0]["outcome"], "denied");
}

#[test]
fn what_all_tools_ask_for_is_asked_for_one_with_a_rule_of_its_own() {
    let limited = json!({ "requests": 1000 });
    let world = Setup::new()
        .upstream("search", &Script::modern(&["limited", "other", "open"]))
        .rule(json!({ "name": "search__limited", "rateLimit": limited }))
        .rule(json!({ "name": "search__other", "requiredScopes": ["other"] }))
        .rule(json!({ "name": "search__open", "requiredRoles": [], "requiredScopes": [] }))
        .rule(json!({ "name": "search__*", "requiredRoles": ["admin"], "requiredScopes": ["all"] }))
        .start();
    for (claims, may) in [
        (json!({}), vec!["search__open"]),
        (json!({ "roles": ["admin"] }), vec!["search__open"]),
        (json!({ "scope": "all other" }), vec!["search__open"]),
        (
            json!({ "roles": ["admin"], "scope": "all" }),
            vec!["search__limited", "search__open"],
        ),
        (
            json!({ "roles": ["admin"], "scope": "other" }),
            vec!["search__other", "search__open"],
        ),
    ] {
        let token = world.token(&claims);
        let listed = world.call(modern("tools/list", json!({})).token(&token));
        assert_eq!(listed.names(), may, "{claims}");
        for name in ["search__limited", "search__other", "search__open"] {
            let told = world.call(tool(name).token(&token));
            assert_eq!(told.status == 200, may.contains(&name), "{claims} {name}");
        }
    }
}

#[test]
fn a_rule_for_all_tools_gives_way_to_a_tools_own() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["open", "closed"]))
        .rule(json!({ "name": "search__*", "requiredRoles": ["admin"] }))
        .rule(json!({ "name": "search__open", "requiredRoles": [] }))
        .start();
    assert_eq!(world.tool("search__open").status, 200);
    assert_eq!(world.tool("search__closed").status, 403);
    assert_eq!(
        world.tool("search__unlisted").status,
        403,
        "also for what is not listed"
    );
    assert_eq!(world.list("tools/list"), ["search__open"]);
}

#[test]
fn rules_hold_at_every_endpoint_and_in_every_naming() {
    for naming in ["prefix", "bare"] {
        let world = Setup::new()
            .upstream("search", &Script::modern(&["closed"]))
            .rule(json!({ "name": "search__closed", "requiredRoles": ["admin"] }))
            .config(&json!({ "naming": naming }))
            .start();
        let name = if naming == "bare" {
            "closed"
        } else {
            "search__closed"
        };
        assert_eq!(world.tool(name).status, 403, "{naming}");
        let token = world.token(&json!({ "aud": "https://gw.example.com/servers/search/mcp" }));
        let told = world.call(tool("closed").to("/servers/search/mcp").token(&token));
        assert_eq!(told.status, 403, "{naming}");
    }
}

#[test]
fn a_rule_may_describe_a_tool_in_the_operators_words() {
    let world = Setup::new()
        .upstream("search", &Script::modern(&["query", "other"]))
        .rule(json!({ "name": "search__query", "description": "Ours." }))
        .start();
    let told = world.call(modern("tools/list", json!({})));
    let descriptions: Vec<&Value> = told.result()["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| &tool["description"])
        .collect();
    assert_eq!(descriptions, ["Ours.", "About other."]);
}

#[test]
fn a_refused_legacy_client_reads_the_same_status() {
    let world = world();
    let told = world.call(crate::world::legacy(
        "2025-06-18",
        "tools/call",
        json!({ "name": "search__read" }),
    ));
    assert_eq!((told.status.as_u16(), told.reason()), (403, "denied"));
}

fn world() -> World {
    Setup::new()
        .upstream("search", &Script::modern(&["open", "read", "write", "both", "any"]))
        .rule(json!({ "name": "search__read", "requiredRoles": ["reader", "admin"] }))
        .rule(json!({ "name": "search__write", "requiredScopes": ["write"] }))
        .rule(json!({ "name": "search__both", "requiredScopes": ["write", "more"], "requiredRoles": ["reader"] }))
        .start()
}
