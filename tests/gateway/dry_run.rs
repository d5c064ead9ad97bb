//! Calls that only try: who is made to, who may ask, and that nothing else is changed.

use serde_json::{Value, json};

use crate::tasks::handle;
use crate::world::{Script, Setup, World, modern, tool};

const DRY_RUN: &str = "io.tidegate/dryRun";

#[test]
fn a_client_may_ask_for_a_dry_run_and_the_result_says_that_it_is_one() {
    let world = world(&json!({ "argument": "dry_run" }));
    let told = world.call(tool("up__a").meta(DRY_RUN, true.into()));
    assert_eq!(told.result()["_meta"][DRY_RUN], true);
    assert_eq!(sent(&world)["arguments"]["dry_run"], true);
    assert!(sent(&world)["_meta"].get(DRY_RUN).is_none());
    assert_eq!(world.audits().pop().unwrap()["dryRun"], true);
    for ask in [tool("up__a"), tool("up__a").meta(DRY_RUN, false.into())] {
        let told = world.call(ask);
        assert!(told.result()["_meta"].get(DRY_RUN).is_none());
        assert!(sent(&world)["arguments"].get("dry_run").is_none());
        assert!(world.audits().pop().unwrap().get("dryRun").is_none());
    }
}

#[test]
fn a_dry_run_of_a_tool_that_has_none_is_refused_and_nothing_is_called() {
    let world = world(&json!({ "argument": "dry_run" }));
    for (name, asked) in [
        ("up__b", json!(true)),
        ("up__a", json!("yes")),
        ("up__b", json!(1)),
    ] {
        let told = world.call(tool(name).meta(DRY_RUN, asked));
        assert_eq!(told.code(), -32602, "{told:?}");
    }
    assert_eq!(world.count("up", "tools/call"), 0);
    assert_eq!(world.tool("up__b").status, 200);
    let odd = modern("tools/call", json!({ "name": "up__a", "arguments": [] }));
    assert_eq!(world.call(odd.meta(DRY_RUN, true.into())).code(), -32602);
}

#[test]
fn who_can_only_try_does_so_whatever_they_send() {
    for (force, dry) in [
        (json!({ "forRoles": ["intern"] }), true),
        (json!({ "forRoles": ["lead"] }), false),
        (json!({ "forScopes": ["tools:try"] }), true),
        (json!({ "forScopes": ["tools"] }), false),
        (json!({ "inEnvironments": ["production"] }), true),
        (json!({ "inEnvironments": ["staging", "dev"] }), false),
    ] {
        let mut rule = json!({ "argument": "dry_run" });
        rule.as_object_mut()
            .unwrap()
            .extend(force.as_object().unwrap().clone());
        let world = world(&rule);
        let token = world.token(&json!({ "roles": ["intern"], "scope": "tools:try read" }));
        let params = json!({ "name": "up__a", "arguments": { "dry_run": false } });
        let ask = modern("tools/call", params)
            .meta(DRY_RUN, false.into())
            .token(&token);
        let told = world.call(ask);
        assert_eq!(sent(&world)["arguments"]["dry_run"], dry, "{force}");
        assert_eq!(told.result()["_meta"].get(DRY_RUN).is_some(), dry);
    }
}

#[test]
fn all_else_of_the_arguments_goes_on_as_it_came() {
    let world = world(&json!({ "argument": "dry_run" }));
    let arguments = r#"{"n":1.50e3,"s":"\u0041\/","dry_run":false,"o":{ "b":1,  "a":2 }}"#;
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.tidegate/dryRun":true}"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"up__a","arguments":{arguments},"_meta":{meta}}}}}"#
    );
    let told = world.call(tool("up__a").body(body));
    assert_eq!(told.status, 200, "{told:?}");
    let exchange = world.exchanges("up").pop().unwrap();
    let sent = String::from_utf8(exchange.body().to_vec()).unwrap();
    let expected = arguments.replace("false", "true");
    assert!(sent.contains(&expected), "{sent}");
}

#[test]
fn a_tool_may_be_told_by_a_member_of_meta() {
    let world = world(&json!({ "meta": "acme.example/dryRun" }));
    world.call(tool("up__a").meta(DRY_RUN, true.into()));
    assert_eq!(sent(&world)["_meta"]["acme.example/dryRun"], true);
    assert!(sent(&world)["arguments"].get("dry_run").is_none());
}

#[test]
fn the_policy_weighs_the_arguments_that_are_sent() {
    let world = setup(&json!({ "argument": "dry_run" }))
        .config(&json!({ "policy": { "rules": [
            { "name": "only-tries", "effect": "allow", "tools": ["up__a"], "when": "has(args.dry_run) && args.dry_run == true" },
        ] } }))
        .start();
    assert_eq!(world.call(tool("up__a")).status, 403);
    assert_eq!(
        world.call(tool("up__a").meta(DRY_RUN, true.into())).status,
        200
    );
}

#[test]
fn a_dry_run_and_the_real_thing_are_two_calls_under_a_key() {
    for rule in [
        json!({ "argument": "dry_run" }),
        json!({ "meta": "acme.example/dryRun" }),
    ] {
        let world = setup(&rule)
            .config(&json!({ "idempotency": { "enabled": true } }))
            .start();
        let ask = || tool("up__a").header("idempotency-key", "k");
        assert_eq!(world.call(ask().meta(DRY_RUN, true.into())).status, 200);
        assert_eq!(world.call(ask()).status, 422);
        let again = world.call(ask().meta(DRY_RUN, true.into()));
        assert_eq!(again.result()["_meta"][DRY_RUN], true);
        assert_eq!(world.count("up", "tools/call"), 1);
    }
}

#[test]
fn a_task_of_a_dry_run_only_tries() {
    let script = Script::modern(&["a"]);
    let rule = json!({
        "name": "up__a", "execution": "task",
        "dryRun": { "argument": "dry_run", "forRoles": ["intern"] },
    });
    let world = Setup::new()
        .upstream("up", &script)
        .rule(rule)
        .config(&json!({ "policy": { "roles": ["intern"] } }))
        .start();
    let token = world.token(&json!({ "roles": ["intern"] }));
    let created = world.call(tool("up__a").with_tasks().token(&token));
    assert_eq!(created.result()["_meta"][DRY_RUN], true);
    handle(&created);
    world.deliver();
    assert_eq!(sent(&world)["arguments"]["dry_run"], true);
}

fn setup(dry_run: &Value) -> Setup {
    Setup::new()
        .upstream("up", &Script::modern(&["a", "b"]))
        .rule(json!({ "name": "up__a", "dryRun": dry_run }))
        .config(&json!({ "policy": { "roles": ["intern", "lead"] } }))
}

fn world(dry_run: &Value) -> World {
    setup(dry_run).start()
}

/// The params the upstream was sent last.
fn sent(world: &World) -> Value {
    world.bodies("up", "tools/call").pop().unwrap()["params"].clone()
}
