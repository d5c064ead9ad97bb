//! The policy's rules and data classification, through the whole gateway.

use serde_json::{Value, json};
use tidegate_gateway::ingress::Peer;

use crate::world::{Said, Script, Setup, Told, World, legacy, modern, tool};

#[test]
fn what_no_rule_allows_is_denied_and_not_listed() {
    let world = world();
    assert_eq!(
        world.list("tools/list"),
        ["pay__send", "wiki__find"],
        "pay__send may be called with some arguments"
    );
    assert_eq!(world.tool("wiki__find").status, 200);
    assert_eq!(send(&world, 100).status, 200);
    let told = send(&world, 101);
    assert_eq!((told.status.as_u16(), told.reason()), (403, "denied"));
    assert_eq!(told.error()["data"]["rule"], Value::Null);
    let told = world.tool("pay__list");
    assert_eq!((told.status.as_u16(), told.reason()), (403, "denied"));
    assert_eq!(
        world.count("pay", "tools/call"),
        1,
        "the one that was allowed"
    );
}

#[test]
fn the_rule_that_decided_is_in_the_audit_line_and_told_if_it_says_so() {
    let world = world();
    let told = world.call(tool("wiki__find").token(&world.token(&json!({ "tid": "south" }))));
    assert_eq!(
        told.error()["data"],
        json!({ "reason": "denied", "rule": "not-the-south" })
    );
    send(&world, 1);
    send(&world, 200);
    world.tool("pay__close");
    let rules: Vec<(Value, Value)> = world
        .audits()
        .iter()
        .map(|line| (line["outcome"].clone(), line["policyRule"].clone()))
        .collect();
    let line = |outcome: &str, rule: &str| (json!(outcome), json!(rule));
    assert_eq!(
        rules,
        [
            line("denied", "not-the-south"),
            line("ok", "small-sums"),
            line("denied", "(default)"),
            line("denied", "no-closing"),
        ]
    );
}

#[test]
fn a_condition_that_fails_denies_and_is_logged_without_its_arguments() {
    let world = world();
    let told = world.call(tool("pay__send").param("arguments", json!({ "amount": "hunter2" })));
    assert_eq!((told.status.as_u16(), told.reason()), (403, "denied"));
    let failed = world.events("policy_failed");
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["rule"], "small-sums");
    assert_eq!(failed[0]["reason"], "operands of another kind");
    assert!(world.lines().iter().all(|line| !line.contains("hunter2")));
}

#[test]
fn what_is_listed_is_what_may_be_called_with_some_arguments() {
    let world = world();
    let all = [
        "pay__send",
        "pay__list",
        "pay__close",
        "wiki__find",
        "wiki__edit",
    ];
    let tries = [json!({}), json!({ "amount": 1 }), json!({ "amount": 1000 })];
    for claims in [
        json!({}),
        json!({ "roles": ["lead"] }),
        json!({ "tid": "south" }),
        json!({ "tid": "south", "roles": ["lead"] }),
    ] {
        let token = world.token(&claims);
        let listed = world
            .call(modern("tools/list", json!({})).token(&token))
            .names();
        let may = |name: &&str| {
            tries.iter().any(|arguments| {
                let ask = tool(name).param("arguments", arguments.clone());
                world.call(ask.token(&token)).status == 200
            })
        };
        let callable: Vec<String> = all.into_iter().filter(may).map(str::to_owned).collect();
        assert_eq!(listed, callable, "{claims}");
    }
}

#[test]
fn what_an_upstream_says_of_its_tools_counts_in_lists_and_calls() {
    let script = Script::modern(&[]);
    for (name, annotations) in [
        ("read", json!({ "readOnlyHint": true })),
        ("write", json!({ "readOnlyHint": false })),
        ("silent", Value::Null),
    ] {
        let mut item = json!({ "name": name, "inputSchema": { "type": "object" } });
        if !annotations.is_null() {
            item["annotations"] = annotations;
        }
        script.listing("tools", item);
    }
    let rules = json!([{ "name": "reading", "effect": "allow", "tools": ["*"], "when": "tool.annotations.readOnlyHint" }]);
    let setup = || {
        Setup::new()
            .upstream("up", &script)
            .config(&json!({ "policy": { "rules": rules } }))
    };
    let world = setup().start();
    let calls = |world: &World| {
        ["up__read", "up__write", "up__silent", "up__unlisted"]
            .map(|name| world.tool(name).status.as_u16())
    };
    assert_eq!(
        calls(&world),
        [200, 403, 403, 403],
        "also before anything was listed"
    );
    assert_eq!(world.list("tools/list"), ["up__read"]);
    let world = setup().start();
    assert_eq!(world.list("tools/list"), ["up__read"]);
    assert_eq!(calls(&world), [200, 403, 403, 403]);
}

#[test]
fn where_a_request_comes_from_and_when_count() {
    let world = Setup::new()
        .upstream("up", &Script::modern(&["a"]))
        .config(&json!({ "policy": { "rules": [
            { "name": "home", "effect": "allow", "tools": ["*"],
              "when": "inNetwork(request.address, '203.0.113.0/24') || request.country == 'DE'" },
            { "name": "later", "effect": "deny", "tools": ["*"], "when": "now.date >= '2099-01-01'" },
        ] } }))
        .start();
    let from = |address: Option<&str>, country: Option<&str>| {
        let mut request = world.request(tool("up__a"));
        request.extensions_mut().insert(Peer {
            address: address.map(str::to_owned),
            country: country.map(str::to_owned),
            certificate: None,
        });
        world.serve(request).status.as_u16()
    };
    assert_eq!(from(Some("203.0.113.7"), None), 200);
    assert_eq!(from(Some("198.51.100.7"), None), 403);
    assert_eq!(from(Some("198.51.100.7"), Some("DE")), 200);
    assert_eq!(from(None, Some("FR")), 403);
}

#[test]
fn prompts_and_resources_have_rules_of_their_own() {
    let script = Script::modern(&["tool"]);
    for name in ["hello", "secret"] {
        script.listing("prompts", json!({ "name": name }));
    }
    for uri in ["file:///public/a", "file:///private/b"] {
        script.listing("resources", json!({ "uri": uri, "name": uri }));
    }
    let world = Setup::new()
        .upstream("up", &script)
        .config(&json!({ "policy": { "rules": [
            { "name": "greeting", "effect": "allow", "prompts": ["up__hello"], "when": "!has(args.tone)" },
            { "name": "public", "effect": "allow", "resources": ["up__*"],
              "when": "resource.uri.startsWith('file:///public/')" },
        ] } }))
        .start();
    assert_eq!(world.list("tools/list"), [] as [&str; 0]);
    assert_eq!(world.list("prompts/list"), ["up__hello"]);
    assert_eq!(world.list("resources/list"), ["up+file:///public/a"]);
    let prompt = |name: &str, arguments: Value| {
        let params = json!({ "name": name, "arguments": arguments });
        world.call(modern("prompts/get", params)).status.as_u16()
    };
    assert_ne!(prompt("up__hello", json!({})), 403);
    assert_eq!(prompt("up__hello", json!({ "tone": "rude" })), 403);
    assert_eq!(prompt("up__secret", json!({})), 403);
    let read = |uri: &str| {
        let told = world.call(modern("resources/read", json!({ "uri": uri })));
        told.status.as_u16()
    };
    assert_ne!(read("up+file:///public/a"), 403);
    assert_eq!(read("up+file:///private/b"), 403);
    let complete = |name: &str| {
        let params = json!({
            "ref": { "type": "ref/prompt", "name": name },
            "argument": { "name": "tone", "value": "r" },
        });
        world
            .call(modern("completion/complete", params))
            .status
            .as_u16()
    };
    assert_ne!(complete("up__hello"), 403);
    assert_eq!(complete("up__secret"), 403);
}

#[test]
fn a_completion_for_a_resource_is_for_those_who_may_read_it_and_of_a_template_all() {
    let rules = |allow: Value, deny: Value| {
        let mut allow = allow;
        allow["name"] = "some".into();
        allow["effect"] = "allow".into();
        allow["resources"] = json!(["up__*"]);
        let mut rules = vec![allow];
        if let Some(when) = deny.as_str() {
            rules.push(
                json!({ "name": "not-these", "effect": "deny", "resources": ["*"], "when": when }),
            );
        }
        json!(rules)
    };
    let public = "resource.uri.startsWith('file:///public/')";
    let private = "resource.uri.startsWith('file:///private/')";
    for (rules, of_public, of_private, of_template) in [
        (json!([]), true, true, true),
        (rules(json!({}), Value::Null), true, true, true),
        (
            rules(json!({ "when": public }), Value::Null),
            true,
            false,
            false,
        ),
        (rules(json!({}), json!(private)), true, false, false),
        // Whose condition does not ask for the URI is known.
        (
            rules(
                json!({ "when": "principal.subject == 'ada'" }),
                json!("principal.subject == 'eve'"),
            ),
            true,
            true,
            true,
        ),
    ] {
        let script = Script::modern(&[]);
        script.listing(
            "resources",
            json!({ "uri": "file:///public/a", "name": "a" }),
        );
        script.on("completion/complete", |_| {
            let completion = json!({ "values": ["one"], "hasMore": false });
            Said::Result(json!({ "resultType": "complete", "completion": completion }))
        });
        script.capability("completions", json!({}));
        let world = Setup::new()
            .upstream("up", &script)
            .config(&json!({ "policy": { "rules": rules } }))
            .start();
        let complete = |uri: &str| {
            let told = world.call(modern(
                "completion/complete",
                json!({
                    "ref": { "type": "ref/resource", "uri": uri },
                    "argument": { "name": "path", "value": "o" },
                }),
            ));
            assert!(matches!(told.status.as_u16(), 200 | 403), "{told:?}");
            told.status == 200
        };
        assert_eq!(complete("up+file:///public/a"), of_public, "{rules}");
        assert_eq!(complete("up+file:///private/b"), of_private, "{rules}");
        assert_eq!(complete("up+file:///public/{path}"), of_template, "{rules}");
        assert_eq!(complete("up+file:///{path}"), of_template, "{rules}");
    }
}

#[test]
fn what_is_read_is_weighed_as_that_whatever_else_is_sent() {
    let script = Script::modern(&[]);
    script.capability("completions", json!({}));
    for uri in ["file:///public/a", "file:///private/b"] {
        script.listing("resources", json!({ "uri": uri, "name": uri }));
    }
    let world = Setup::new()
        .upstream("up", &script)
        .config(&json!({ "policy": { "rules": [
            { "name": "prompts", "effect": "allow", "prompts": ["*"], "tools": ["*"] },
            { "name": "public", "effect": "allow", "resources": ["*"],
              "when": "resource.uri.startsWith('file:///public/')" },
        ] } }))
        .start();
    let status = |method: &str, params: Value| world.call(modern(method, params)).status.as_u16();
    for (path, refused) in [("public/a", false), ("private/b", true)] {
        let uri = format!("up+file:///{path}");
        for reference in [
            json!({ "name": "x" }),
            json!({ "type": "ref/prompt", "name": "x" }),
        ] {
            let params = json!({ "uri": uri, "ref": reference });
            assert_eq!(status("resources/read", params) == 403, refused, "{uri}");
        }
        let reference = json!({ "type": "ref/resource", "uri": uri, "name": "x" });
        let params = json!({ "ref": reference, "argument": { "name": "n", "value": "v" } });
        assert_eq!(
            status("completion/complete", params) == 403,
            refused,
            "{uri}"
        );
    }
}

#[test]
fn an_upstream_is_seen_and_used_by_those_cleared_for_it() {
    let public = Script::modern(&["a"]);
    let held = Script::modern(&["b"]);
    held.listing("prompts", json!({ "name": "p" }));
    held.listing("resources", json!({ "uri": "file:///r", "name": "r" }));
    let world = Setup::new()
        .upstream_with("open", &public, &json!({ "classification": "public" }))
        .upstream_with("held", &held, &json!({ "classification": "restricted" }))
        .config(&json!({ "policy": {
            "roles": ["auditor", "clerk"],
            "clearance": { "default": "public", "roles": { "auditor": "restricted", "clerk": "confidential" } },
        } }))
        .start();
    for (roles, sees) in [
        (json!([]), false),
        (json!(["clerk"]), false),
        (json!(["clerk", "auditor"]), true),
    ] {
        let token = world.token(&json!({ "roles": roles }));
        let list = |method: &str| world.call(modern(method, json!({})).token(&token)).names();
        let status = |name: &str| world.call(tool(name).token(&token)).status.as_u16();
        assert_eq!(status("open__a"), 200);
        assert_eq!(status("held__b"), if sees { 200 } else { 403 });
        let expected = |names: &[&str]| -> Vec<String> {
            let shown = names.iter().filter(|name| sees || name.starts_with("open"));
            shown.map(|name| (*name).to_owned()).collect()
        };
        assert_eq!(list("tools/list"), expected(&["open__a", "held__b"]));
        assert_eq!(list("prompts/list"), expected(&["held__p"]));
        assert_eq!(list("resources/list"), expected(&["held+file:///r"]));
    }
    let denied = |line: &&Value| line["outcome"] == "denied";
    let audits = world.audits();
    let by: Vec<&Value> = audits
        .iter()
        .filter(denied)
        .map(|line| &line["policyRule"])
        .collect();
    assert_eq!(by, ["(clearance)", "(clearance)"]);
}

#[test]
fn of_an_upstream_one_is_not_cleared_for_nothing_is_said_well_or_away() {
    for naming in ["prefix", "bare"] {
        let (public, held) = (Script::modern(&["a"]), Script::modern(&["b"]));
        held.listing("prompts", json!({ "name": "p" }));
        held.on("server/discover", |_| {
            Said::Result(json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": { "tools": {}, "prompts": {} },
                "instructions": "Ask held for what is held.", "ttlMs": 1000, "cacheScope": "private",
            }))
        });
        let world = Setup::new()
            .upstream("open", &public)
            .upstream_with("held", &held, &json!({ "classification": "restricted" }))
            .config(&json!({ "naming": naming, "policy": {
                "roles": ["auditor"], "clearance": { "roles": { "auditor": "restricted" } },
            } }))
            .start();
        let told = |roles: Value| {
            let token = world.token(&json!({ "roles": roles }));
            ["server/discover", "tools/list", "prompts/list"].map(|method| {
                let told = world.call(modern(method, json!({})).token(&token));
                (told.status.as_u16(), told.text)
            })
        };
        let well = told(json!([]));
        let cleared = told(json!(["auditor"]));
        assert!(cleared[0].1.contains("what is held"), "{cleared:?}");
        world.server("held").down.set(true);
        world
            .sim
            .clock
            .advance(std::time::Duration::from_secs(4_000));
        let away = told(json!([]));
        for (well, away) in well.iter().zip(&away) {
            assert!(
                !well.1.contains("held") && !away.1.contains("held"),
                "{naming}: {away:?}"
            );
            assert_eq!(well.0, away.0, "{naming}: {well:?} {away:?}");
        }
        let cleared = told(json!(["auditor"]));
        let unavailable = "\"io.tidegate/unavailableUpstreams\":[\"held\"]";
        assert!(cleared[1].1.contains(unavailable), "{naming}: {cleared:?}");
    }
}

#[test]
fn rules_hold_for_every_member_of_a_batch_and_every_era() {
    let world = world();
    let arguments = json!({ "name": "pay__send", "arguments": { "amount": 101 } });
    let told = world.call(legacy("2025-06-18", "tools/call", arguments));
    assert_eq!((told.status.as_u16(), told.reason()), (403, "denied"));
    let arguments = json!({ "name": "pay__send", "arguments": { "amount": 100 } });
    let told = world.call(legacy("2025-06-18", "tools/call", arguments));
    assert_eq!(told.status, 200);
}

fn send(world: &World, amount: u64) -> Told {
    world.call(tool("pay__send").param("arguments", json!({ "amount": amount })))
}

fn world() -> World {
    Setup::new()
        .upstream("pay", &Script::modern(&["send", "list", "close"]))
        .upstream("wiki", &Script::modern(&["find", "edit"]))
        .rule(json!({ "name": "pay__close" }))
        .config(&json!({
            "authentication": { "issuers": tenants() },
            "policy": {
                "roles": ["lead"],
                "tools": ["pay__send", "pay__list", "wiki__find", "wiki__edit"],
                "rules": [
                    { "name": "small-sums", "effect": "allow", "tools": ["pay__send"], "when": "args.amount <= 100" },
                    { "name": "finding", "effect": "allow", "tools": ["wiki__find"] },
                    { "name": "leads", "effect": "allow", "tools": ["*"], "when": "'lead' in principal.roles" },
                    { "name": "no-closing", "effect": "deny", "tools": ["pay__close"] },
                    { "name": "not-the-south", "effect": "deny", "tools": ["wiki__*"],
                      "when": "principal.tenant == 'south'", "disclose": true },
                ],
            },
        }))
        .start()
}

/// The world's issuer, whose tokens say whose tenant they are for.
fn tenants() -> Value {
    let issuer = "https://login.example.com";
    json!([{ "issuer": issuer, "jwksUri": format!("{issuer}/keys"), "tenantClaim": "tid" }])
}
