//! Arguments and structured results, held to the tools' schemas.

use serde_json::{Value, json};

use crate::world::{ARGUMENT, Ask, RESULT, Said, Script, Setup, Step, World, legacy, modern};

#[test]
fn arguments_that_do_not_fit_never_reach_the_upstream() {
    let world = upstream(&Script::modern(&[]), &json!({}), &input(), None);
    let wrong = [
        (json!({}), "the top level: missing property `city`"),
        (json!({ "city": 5 }), "/city: expected string, not number"),
        (
            json!({ "city": "x", "days": [1, ARGUMENT] }),
            "/days/1: expected integer, not string",
        ),
        (
            json!({ "city": ARGUMENT, "unit": ARGUMENT }),
            r#"/unit: expected one of ["c","f"]"#,
        ),
    ];
    for (arguments, line) in wrong {
        for ask in [
            calling(&arguments),
            legacy(
                "2025-06-18",
                "tools/call",
                json!({ "name": "up__weather", "arguments": arguments }),
            ),
        ] {
            let told = world.call(ask);
            assert_eq!(told.status, 200);
            assert_eq!(told.result()["isError"], true, "{told:?}");
            let words =
                format!("The arguments do not fit the input schema of `up__weather`:\n- {line}");
            assert_eq!(told.said(), words);
            assert!(!told.text.contains(ARGUMENT), "what was sent is not echoed");
        }
    }
    assert_eq!(world.count("up", "tools/call"), 0);
    assert_eq!(world.audits().last().unwrap()["outcome"], "tool_error");
    let right = json!({ "city": "x", "days": [1, 2.0], "other": null });
    assert_eq!(world.call(calling(&right)).result()["isError"], false);
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn no_arguments_are_empty_arguments() {
    let world = upstream(
        &Script::modern(&[]),
        &json!({}),
        &json!({ "type": "object" }),
        None,
    );
    for params in [
        json!({ "name": "up__weather" }),
        json!({ "name": "up__weather", "arguments": {} }),
    ] {
        let told = world.call(modern("tools/call", params));
        assert_eq!(told.result()["isError"], false, "{told:?}");
    }
    let sent = world.bodies("up", "tools/call");
    assert!(
        sent[0]["params"].get("arguments").is_none(),
        "as the client sent it"
    );
}

#[test]
fn a_null_for_what_may_be_left_out_is_for_the_tool_to_judge() {
    let world = upstream(&Script::modern(&[]), &json!({}), &input(), None);
    let optional = json!({ "city": "x", "unit": null, "days": null });
    assert_eq!(world.call(calling(&optional)).result()["isError"], false);
    let sent = world.bodies("up", "tools/call");
    assert_eq!(
        sent[0]["params"]["arguments"], optional,
        "as the client sent it"
    );
    for wrong in [
        json!({ "city": null }),
        json!({ "city": "x", "days": [null] }),
    ] {
        assert_eq!(world.call(calling(&wrong)).result()["isError"], true);
    }
    assert_eq!(world.count("up", "tools/call"), 1);
}

#[test]
fn arguments_that_are_no_object_are_a_malformed_call() {
    let world = upstream(&Script::modern(&[]), &json!({}), &input(), None);
    for arguments in [json!([]), json!("x"), json!(1)] {
        assert_eq!(world.call(calling(&arguments)).code(), -32602);
    }
    assert_eq!(world.count("up", "tools/call"), 0);
}

#[test]
fn a_call_that_does_not_fit_becomes_no_task() {
    let script = Script::modern(&[]);
    script.listing(
        "tools",
        json!({ "name": "weather", "inputSchema": input() }),
    );
    let world = Setup::new()
        .upstream("up", &script)
        .rule(json!({ "name": "up__weather", "execution": "task" }))
        .start();
    let told = world.call(calling(&json!({})).with_tasks());
    assert_eq!(told.result()["resultType"], "complete");
    assert_eq!(told.result()["isError"], true);
    assert!(world.deliver().is_empty());
}

#[test]
fn structured_results_that_do_not_fit_are_not_passed_on() {
    for streaming in [false, true] {
        let script = Script::modern(&[]);
        let wrong = structured(&json!({ "degrees": RESULT }));
        script.on("tools/call", move |heard| {
            if streaming {
                Said::Stream(vec![
                    Step::Send(heard.progress(1)),
                    Step::Send(heard.response(&wrong)),
                ])
            } else {
                Said::Result(wrong.clone())
            }
        });
        let world = upstream(&script, &json!({}), &input(), Some(&output()));
        let told = world.call(calling(&json!({ "city": "x" })).meta("progressToken", json!(1)));
        assert_eq!(told.streamed(), streaming);
        assert_eq!(told.reason(), "upstream_invalid");
        let message = told.error()["message"].as_str().unwrap();
        assert!(
            message.contains("/degrees: expected number, not string"),
            "{message}"
        );
        assert!(!told.text.contains(RESULT));
        assert_eq!(world.events("schema_violated").len(), 1);
    }
}

#[test]
fn what_promises_no_structure_is_not_held_to_one() {
    let results = [
        structured(&json!({ "degrees": 21.5 })),
        // Whether it was promised is between the tool and its client.
        json!({ "resultType": "complete", "content": [] }),
        json!({ "resultType": "complete", "content": [], "isError": true, "structuredContent": { "why": 1 } }),
    ];
    for result in results {
        let script = Script::modern(&[]);
        let said = result.clone();
        script.on("tools/call", move |_| Said::Result(said.clone()));
        let world = upstream(&script, &json!({}), &input(), Some(&output()));
        let told = world.call(calling(&json!({ "city": "x" })));
        assert_eq!(
            told.result()["structuredContent"],
            result["structuredContent"]
        );
    }
}

#[test]
fn a_legacy_upstream_is_held_to_its_schemas_too() {
    let script = Script::legacy("2025-06-18", &[]);
    script.on("tools/call", |_| {
        Said::Result(json!({ "content": [], "structuredContent": { "degrees": "warm" } }))
    });
    let world = upstream(&script, &json!({}), &input(), Some(&output()));
    assert_eq!(world.call(calling(&json!({}))).result()["isError"], true);
    let told = world.call(calling(&json!({ "city": "x" })));
    assert_eq!(told.reason(), "upstream_invalid", "{told:?}");
}

#[test]
fn a_configuration_may_only_warn_or_not_look_at_all() {
    for (mode, lines) in [("warn", 2), ("off", 0)] {
        let script = Script::modern(&[]);
        script.on("tools/call", |_| {
            Said::Result(structured(&json!({ "degrees": "warm" })))
        });
        let members = json!({ "validation": mode });
        let world = upstream(&script, &members, &input(), Some(&output()));
        let told = world.call(calling(&json!({ "unit": ARGUMENT })));
        assert_eq!(
            told.result()["structuredContent"]["degrees"],
            "warm",
            "{told:?}"
        );
        let events = world.events("schema_violated");
        assert_eq!(events.len(), lines, "{mode}");
        for (event, which) in events.iter().zip(["inputSchema", "outputSchema"]) {
            assert_eq!(event["schema"], which);
            assert_eq!(
                (&event["upstream"], &event["tool"]),
                (&json!("up"), &json!("weather"))
            );
        }
    }
}

#[test]
fn a_schema_of_an_unknown_dialect_is_a_clean_error_before_anything_runs() {
    let strange = json!({ "$schema": "https://example.com/dialect", "type": "object" });
    let schemas = [(strange.clone(), None), (input(), Some(strange))];
    for (input, output) in schemas {
        let ask = || calling(&json!({ "city": "x" }));
        let world = upstream(&Script::modern(&[]), &json!({}), &input, output.as_ref());
        let told = world.call(ask());
        assert_eq!(told.reason(), "upstream_invalid");
        let message = told.error()["message"].as_str().unwrap();
        assert!(
            message.contains("unknown dialect `https://example.com/dialect`"),
            "{message}"
        );
        assert_eq!(world.count("up", "tools/call"), 0);
        let warn = json!({ "validation": "warn" });
        let world = upstream(&Script::modern(&[]), &warn, &input, output.as_ref());
        assert_eq!(world.call(ask()).result()["isError"], false);
    }
}

#[test]
fn a_schema_that_does_not_compile_takes_nothing_away() {
    let schemas = [
        json!({ "type": "object", "properties": { "a": { "$ref": "https://example.com/remote.json" } } }),
        json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/gone" } } }),
        json!({ "type": "object", "properties": { "a": { "pattern": "(?<!x)y" } } }),
        json!({ "type": "objekt" }),
        json!({ "type": "object", "description": "x".repeat(70_000) }),
    ];
    for schema in schemas {
        let world = upstream(&Script::modern(&[]), &json!({}), &schema, None);
        for _ in 0..3 {
            let told = world.call(calling(&json!({ "a": 1 })));
            assert_eq!(told.result()["isError"], false, "{told:?}");
        }
        assert_eq!(world.events("schema_unusable").len(), 1, "told once");
        assert_eq!(world.count("up", "tools/list"), 1);
    }
}

#[test]
fn nothing_a_schema_names_is_fetched() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://elsewhere.example.com/tool",
        "type": "object",
        "properties": { "a": { "$ref": "https://up.example.com/secret.json" }, "b": { "$ref": "other" } },
    });
    let world = upstream(&Script::modern(&[]), &json!({}), &schema, None);
    world.call(calling(&json!({ "a": 1 })));
    assert_eq!(
        world.asked("up"),
        ["server/discover", "tools/list", "tools/call"]
    );
}

#[test]
fn schemas_and_values_are_forwarded_as_the_text_they_came_in() {
    let script = Script::modern(&[]);
    let schema = r#"{"type":"object","$schema":"https://json-schema.org/draft/2020-12/schema","x-vendor":1.0,"properties":{"n":{"maximum":1e2}},"$defs":{"a":{"$anchor":"a"}}}"#;
    let listed = format!(
        r#"{{"resultType":"complete","tools":[{{"name":"weather","inputSchema":{schema}}}]}}"#
    );
    script.capability("tools", json!({}));
    script.on("tools/list", move |heard| {
        let id = &heard.message["id"];
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{listed}}}"#);
        Said::Raw(200, "application/json", body.into_bytes())
    });
    let world = Setup::new().upstream("up", &script).start();
    assert!(
        world
            .call(modern("tools/list", json!({})))
            .text
            .contains(schema)
    );
    let ask = calling(&json!({}));
    let text = ask
        .message
        .to_string()
        .replace(r#""arguments":{}"#, r#""arguments":{"n": 1.50e1}"#);
    world.call(ask.body(text));
    let exchanges = world.exchanges("up");
    let sent = String::from_utf8(exchanges.last().unwrap().body().to_vec()).unwrap();
    assert!(sent.contains(r#""arguments":{"n": 1.50e1}"#), "{sent}");
}

fn upstream(script: &Script, members: &Value, input: &Value, output: Option<&Value>) -> World {
    let mut tool = json!({ "name": "weather", "inputSchema": input });
    if let Some(output) = output {
        tool["outputSchema"] = output.clone();
    }
    script.listing("tools", tool);
    Setup::new().upstream_with("up", script, members).start()
}

fn calling(arguments: &Value) -> Ask {
    modern(
        "tools/call",
        json!({ "name": "up__weather", "arguments": arguments }),
    )
}

fn input() -> Value {
    json!({ "type": "object", "required": ["city"], "properties": {
        "city": { "type": "string" },
        "days": { "type": "array", "items": { "type": "integer" } },
        "unit": { "enum": ["c", "f"] },
    } })
}

fn output() -> Value {
    json!({ "type": "object", "required": ["degrees"], "properties": { "degrees": { "type": "number" } } })
}

fn structured(content: &Value) -> Value {
    let text = json!([{ "type": "text", "text": content.to_string() }]);
    json!({ "resultType": "complete", "content": text, "structuredContent": content, "isError": false })
}
