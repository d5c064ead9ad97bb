//! Names as clients know them, and as upstreams do.

use serde_json::json;

use crate::world::{Said, Script, Setup, modern, tool};

#[test]
fn a_prefixed_name_goes_to_its_upstream_without_the_prefix() {
    let world = Setup::new()
        .upstream("one", &Script::modern(&["same", "odd__name"]))
        .upstream("two", &Script::modern(&["same"]))
        .start();
    for (exposed, upstream, own) in [
        ("one__same", "one", "same"),
        ("two__same", "two", "same"),
        ("one__odd__name", "one", "odd__name"),
    ] {
        assert_eq!(world.tool(exposed).said(), format!("CANARY-RESULT {own}"));
        let sent = world.exchanges(upstream).pop().unwrap();
        assert_eq!(sent.headers["mcp-name"], own, "headers are made anew");
    }
    for unknown in ["same", "three__same", "__same", "one_same", "ONE__same", ""] {
        let told = world.tool(unknown);
        assert_eq!(told.refusal(), (200, -32602), "{unknown}");
    }
}

#[test]
fn in_bare_naming_the_first_upstream_that_lists_a_name_has_it() {
    let world = Setup::new()
        .upstream("one", &Script::modern(&["a", "same"]))
        .upstream("two", &Script::modern(&["same", "b"]))
        .config(&json!({ "naming": "bare" }))
        .start();
    assert_eq!(world.list("tools/list"), ["a", "same", "b"]);
    assert_eq!(world.tool("same").status, 200);
    assert_eq!(world.tool("b").status, 200);
    assert_eq!(
        (
            world.count("one", "tools/call"),
            world.count("two", "tools/call")
        ),
        (1, 1)
    );
    assert_eq!(world.tool("unknown").refusal(), (200, -32602));
}

#[test]
fn in_bare_naming_a_hidden_tool_does_not_uncover_another_of_its_name() {
    let world = Setup::new()
        .upstream("one", &Script::modern(&["same"]))
        .upstream("two", &Script::modern(&["same", "b"]))
        .config(&json!({ "naming": "bare" }))
        .rule(json!({ "name": "one__same", "requiredRoles": ["admin"] }))
        .start();
    assert_eq!(
        world.list("tools/list"),
        ["b"],
        "what is listed can be called, and the other way round"
    );
    assert_eq!(world.tool("same").status, 403);
}

#[test]
fn uris_carry_their_upstream_wherever_they_are_shown() {
    let script = Script::modern(&["query"]);
    script.listing("resources", json!({ "uri": "test://a?x=1", "name": "a" }));
    script.listing(
        "resourceTemplates",
        json!({ "uriTemplate": "test://t/{id}/data", "name": "t" }),
    );
    script.listing("prompts", json!({ "name": "p" }));
    script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "complete", "content": [
            { "type": "resource_link", "uri": "test://a", "name": "a" },
            { "type": "resource", "resource": { "uri": "test://b", "text": "b" } },
            { "type": "text", "text": "test://c" },
        ] }))
    });
    script.on("prompts/get", |_| {
        let content = json!({ "type": "resource", "resource": { "uri": "test://d", "text": "d" } });
        Said::Result(json!({ "resultType": "complete", "messages": [{ "role": "user", "content": content }] }))
    });
    let world = Setup::new().upstream("files", &script).start();
    assert_eq!(world.list("resources/list"), ["files+test://a?x=1"]);
    assert_eq!(
        world.list("resources/templates/list"),
        ["files+test://t/{id}/data"]
    );
    let called = world.tool("files__query");
    let content = &called.result()["content"];
    assert_eq!(content[0]["uri"], "files+test://a");
    assert_eq!(content[1]["resource"]["uri"], "files+test://b");
    assert_eq!(content[2]["text"], "test://c", "text is nobody's to change");
    let got = world.call(modern("prompts/get", json!({ "name": "files__p" })));
    assert_eq!(
        got.result()["messages"][0]["content"]["resource"]["uri"],
        "files+test://d"
    );
    let read = world.call(modern(
        "resources/read",
        json!({ "uri": "files+test://t/7/data" }),
    ));
    assert_eq!(read.result()["contents"][0]["uri"], "files+test://t/7/data");
    assert_eq!(
        world.bodies("files", "resources/read")[0]["params"]["uri"],
        "test://t/7/data"
    );
}

#[test]
fn completion_finds_prompts_and_resources_by_either_kind_of_reference() {
    let script = Script::modern(&[]);
    script.capability("completions", json!({}));
    let world = Setup::new().upstream("files", &script).start();
    let ask = |reference| {
        modern(
            "completion/complete",
            json!({ "ref": reference, "argument": { "name": "x", "value": "" } }),
        )
    };
    let prompt = world.call(ask(
        json!({ "type": "ref/prompt", "name": "files__p", "title": "kept" }),
    ));
    assert_eq!(prompt.result()["completion"]["values"][0], "p");
    let resource = world.call(ask(
        json!({ "type": "ref/resource", "uri": "files+test://t/{id}" }),
    ));
    assert_eq!(
        resource.result()["completion"]["values"][1],
        "test://t/{id}"
    );
    assert_eq!(
        world.bodies("files", "completion/complete")[0]["params"]["ref"]["title"],
        "kept"
    );
    for broken in [
        json!(null),
        json!({}),
        json!({ "type": "ref/other", "name": "files__p" }),
        json!({ "type": "ref/prompt" }),
        json!("x"),
    ] {
        assert_eq!(world.call(ask(broken.clone())).code(), -32602, "{broken}");
    }
}

#[test]
fn in_bare_naming_resources_are_found_by_uri_or_template() {
    let one = Script::modern(&[]);
    one.listing("resources", json!({ "uri": "test://one", "name": "a" }));
    let two = Script::modern(&[]);
    two.listing(
        "resourceTemplates",
        json!({ "uriTemplate": "test://two/{id}", "name": "t" }),
    );
    let world = Setup::new()
        .upstream("one", &one)
        .upstream("two", &two)
        .config(&json!({ "naming": "bare" }))
        .start();
    let read = |uri: &str| world.call(modern("resources/read", json!({ "uri": uri })));
    assert_eq!(
        read("test://one").result()["contents"][0]["uri"],
        "test://one"
    );
    assert_eq!(
        read("test://two/7").result()["contents"][0]["uri"],
        "test://two/7"
    );
    let told = read("test://three");
    assert_eq!(
        (told.code(), &told.error()["data"]["uri"]),
        (-32602, &json!("test://three"))
    );
    assert_eq!(
        (
            world.count("one", "resources/read"),
            world.count("two", "resources/read")
        ),
        (1, 1)
    );
}

#[test]
fn with_one_upstream_in_bare_naming_no_name_is_looked_up() {
    let script = Script::modern(&["a"]);
    script.on("tools/list", |_| Said::Error(-32603));
    let world = Setup::new()
        .upstream("only", &script)
        .config(&json!({ "naming": "bare" }))
        .start();
    assert_eq!(world.call(tool("a")).status, 200);
    assert_eq!(world.count("only", "tools/call"), 1);
}

/// Names no client takes as they are: too long, too strange, and both.
fn strange() -> [String; 3] {
    [
        "x".repeat(80),
        "r\u{e9}sum\u{e9} of/all".to_owned(),
        "\u{1f30a}".repeat(40),
    ]
}

#[test]
fn a_name_clients_would_refuse_is_shown_shortened_and_called_by_that() {
    for (naming, prefix) in [("prefix", "one__"), ("bare", "")] {
        for several in [false, true] {
            let script = Script::modern(&["plain", "looks_like_abcd1234"]);
            for name in strange() {
                script.listing("tools", json!({ "name": name, "inputSchema": {} }));
                script.listing("prompts", json!({ "name": name }));
            }
            let mut setup = Setup::new().upstream("one", &script);
            if several {
                setup = setup.upstream("two", &Script::modern(&["plain"]));
            }
            let world = setup.config(&json!({ "naming": naming })).start();
            for kind in ["tools", "prompts"] {
                let listed = world.list(&format!("{kind}/list"));
                let taken = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
                for name in &listed {
                    assert!(name.len() <= 64 && name.chars().all(taken), "{name}");
                }
                let shown = listed.iter().filter(|name| !name.contains("plain"));
                let shown =
                    shown.filter(|name| !name.contains("looks") && !name.starts_with("two"));
                for (shown, own) in shown.zip(strange()) {
                    assert!(shown.starts_with(prefix), "{shown}");
                    let told = match kind {
                        "tools" => world.tool(shown),
                        _ => world.call(modern("prompts/get", json!({ "name": shown }))),
                    };
                    assert_eq!(told.status, 200, "{shown}");
                    let sent = world.exchanges("one").pop().unwrap();
                    let sent: serde_json::Value = serde_json::from_slice(&sent.body()).unwrap();
                    assert_eq!(sent["params"]["name"], own);
                }
            }
            for whole in [strange()[0].clone(), "looks_like_abcd1234".to_owned()] {
                let told = world.tool(&format!("{prefix}{whole}"));
                assert_eq!(told.said(), format!("CANARY-RESULT {whole}"), "{naming}");
            }
            let unknown = world.tool(&format!("{prefix}unknown_abcd1234"));
            assert_eq!(unknown.refusal(), (200, -32602));
        }
    }
}

#[test]
fn a_rule_is_for_the_name_a_shortened_one_stands_for() {
    let script = Script::modern(&["plain"]);
    script.listing("tools", json!({ "name": strange()[0], "inputSchema": {} }));
    let rule = json!({ "name": format!("one__{}", strange()[0]), "description": "Ours." });
    let world = Setup::new().upstream("one", &script).rule(rule).start();
    let told = world.call(modern("tools/list", json!({})));
    assert_eq!(told.result()["tools"][1]["description"], "Ours.");
    let shown = told.names().pop().unwrap();

    let rule = json!({ "name": format!("one__{}", strange()[0]), "requiredRoles": ["admin"] });
    let world = Setup::new().upstream("one", &script).rule(rule).start();
    assert_eq!(world.list("tools/list"), ["one__plain"]);
    for name in [shown, format!("one__{}", strange()[0])] {
        assert_eq!(world.tool(&name).status, 403, "{name}");
    }
    assert_eq!(world.count("one", "tools/call"), 0);
}
