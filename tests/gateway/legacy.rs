//! Clients of 2024-11-05 to 2025-11-25, in front of upstreams of either era.

use serde_json::{Value, json};

use crate::world::{Said, Script, Setup, World, complete, legacy, modern};

const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

#[test]
fn initialize_agrees_on_the_revision_asked_for_and_opens_a_session() {
    let world = everything();
    for version in REVISIONS {
        let told = world.call(initialize(version));
        assert_eq!(told.result()["protocolVersion"], version);
        assert_eq!(told.result()["serverInfo"]["name"], "edge");
        assert!(told.header("mcp-session-id").len() > 100, "sealed");
        let capabilities = &told.result()["capabilities"];
        for capability in ["tools", "resources", "prompts", "completions"] {
            assert_eq!(capabilities[capability], json!({}), "{capability}");
        }
        for member in [
            "resultType",
            "ttlMs",
            "cacheScope",
            "_meta",
            "supportedVersions",
        ] {
            assert!(told.result().get(member).is_none(), "{member}");
        }
        assert!(capabilities.get("extensions").is_none());
        let ready = world.ask(legacy(version, "notifications/initialized", json!({})));
        assert_eq!((ready.status.as_u16(), ready.text.as_str()), (202, ""));
    }
    for version in ["2026-07-28", "2023-01-01", "x", ""] {
        assert_eq!(
            world.call(initialize(version)).result()["protocolVersion"],
            "2025-11-25",
            "{version}"
        );
    }
}

#[test]
fn every_revision_lists_and_calls_in_front_of_either_era() {
    for upstream in [
        "2026-07-28",
        "2025-11-25",
        "2025-06-18",
        "2025-03-26",
        "2024-11-05",
    ] {
        let script = if upstream == "2026-07-28" {
            Script::modern(&["query"])
        } else {
            Script::legacy(upstream, &["query"])
        };
        let world = Setup::new().upstream("search", &stocked(script)).start();
        for version in REVISIONS {
            let ask = |method: &str, params| world.call(legacy(version, method, params));
            assert_eq!(
                ask("tools/list", json!({})).names(),
                ["search__query"],
                "{upstream} {version}"
            );
            assert_eq!(
                ask("resources/list", json!({})).names(),
                ["search+file:///a"]
            );
            assert_eq!(
                ask("resources/templates/list", json!({})).names(),
                ["search+file:///{path}"]
            );
            assert_eq!(ask("prompts/list", json!({})).names(), ["search__ask"]);
            assert_eq!(
                ask("tools/call", json!({ "name": "search__query" })).said(),
                "CANARY-RESULT query"
            );
            let read = ask("resources/read", json!({ "uri": "search+file:///a" }));
            assert_eq!(read.result()["contents"][0]["uri"], "search+file:///a");
            let got = ask("prompts/get", json!({ "name": "search__ask" }));
            assert_eq!(got.result()["messages"][0]["content"]["text"], "ask");
            let reference = json!({ "type": "ref/prompt", "name": "search__ask" });
            let completed = ask(
                "completion/complete",
                json!({ "ref": reference, "argument": { "name": "x", "value": "" } }),
            );
            assert_eq!(completed.result()["completion"]["values"][0], "ask");
            assert_eq!(ask("ping", json!({})).result(), &json!({}), "exactly empty");
        }
    }
}

#[test]
fn nothing_of_the_modern_envelope_is_shown_to_older_clients() {
    let world = everything();
    for version in REVISIONS {
        for (method, params) in [
            ("tools/list", json!({})),
            ("resources/list", json!({})),
            ("tools/call", json!({ "name": "search__query" })),
            ("resources/read", json!({ "uri": "search+file:///a" })),
        ] {
            let told = world.call(legacy(version, method, params));
            for member in ["resultType", "ttlMs", "cacheScope"] {
                assert!(
                    told.result().get(member).is_none(),
                    "{version} {method} {member}"
                );
            }
            assert!(
                !told.text.contains("io.modelcontextprotocol/"),
                "{version} {method}: {told:?}"
            );
        }
    }
}

#[test]
fn json_rpc_errors_travel_under_status_200() {
    let world = everything();
    for version in REVISIONS {
        for (method, params, code) in [
            ("tools/destroy", json!({}), -32601),
            ("logging/setLevel", json!({ "level": "info" }), -32601),
            (
                "resources/subscribe",
                json!({ "uri": "search+file:///a" }),
                -32601,
            ),
            ("server/discover", json!({}), -32601),
            ("tasks/get", json!({ "taskId": "x" }), -32601),
            ("tasks/cancel", json!({ "taskId": "x" }), -32601),
            ("tasks/list", json!({}), -32601),
            ("tasks/result", json!({ "taskId": "x" }), -32601),
            ("tools/call", json!({}), -32602),
            ("tools/call", json!({ "name": "search__unknown" }), -32602),
            ("tools/list", json!({ "cursor": "x" }), -32602),
        ] {
            let told = world.call(legacy(version, method, params));
            assert_eq!(told.refusal(), (200, code), "{version} {method}: {told:?}");
            assert_eq!(told.json()["id"], 1);
        }
    }
}

#[test]
fn a_version_header_that_means_nothing_is_refused() {
    let world = everything();
    for version in ["2025-13-01", "v1", "2030-01-01"] {
        let told = world.call(
            legacy("2025-06-18", "tools/list", json!({})).header("mcp-protocol-version", version),
        );
        assert_eq!(told.status, 400, "{version}");
    }
}

#[test]
fn a_modern_header_without_an_envelope_is_a_broken_modern_request() {
    let world = everything();
    let told = world.call(
        legacy("2025-06-18", "tools/list", json!({})).header("mcp-protocol-version", "2026-07-28"),
    );
    assert_eq!(told.refusal(), (400, -32602));
    let told = world.call(initialize("2025-06-18").header("mcp-protocol-version", "2026-07-28"));
    assert_eq!(told.refusal(), (400, -32020));
}

#[test]
fn a_missing_resource_has_the_code_of_the_clients_era() {
    for script in [Script::modern(&[]), Script::legacy("2025-06-18", &[])] {
        let script = stocked(script);
        let code = if script.is_modern() { -32602 } else { -32002 };
        script.on("resources/read", move |heard| {
            let data = json!({ "uri": heard.params()["uri"] });
            let error = json!({ "code": code, "message": "Resource not found", "data": data });
            Said::Refusal(
                200,
                json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": error }),
            )
        });
        let world = Setup::new().upstream("files", &script).start();
        let params = json!({ "uri": "files+file:///gone" });
        assert_eq!(
            world.call(modern("resources/read", params.clone())).code(),
            -32602
        );
        for version in REVISIONS {
            assert_eq!(
                world
                    .call(legacy(version, "resources/read", params.clone()))
                    .code(),
                -32002,
                "{version}"
            );
        }
    }
}

#[test]
fn content_a_revision_does_not_know_becomes_text() {
    let script = Script::modern(&["query"]);
    script.on("tools/call", |_| {
        Said::Result(json!({
            "resultType": "complete",
            "content": [
                { "type": "audio", "data": "AAAA", "mimeType": "audio/wav" },
                { "type": "resource_link", "uri": "file:///a", "name": "a" },
            ],
            "structuredContent": [1, 2],
        }))
    });
    let world = Setup::new().upstream("search", &script).start();
    let kinds = |version| {
        let told = world.call(legacy(
            version,
            "tools/call",
            json!({ "name": "search__query" }),
        ));
        assert!(
            told.result().get("structuredContent").is_none(),
            "only objects before 2026-07-28"
        );
        let blocks = told.result()["content"].as_array().unwrap().clone();
        blocks
            .iter()
            .map(|block| block["type"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // Without a session and a header, 2024-11-05 cannot be told from 2025-03-26.
    assert_eq!(kinds("2025-03-26")[..2], ["audio", "text"]);
    assert_eq!(kinds("2025-06-18")[..2], ["audio", "resource_link"]);
    let told = world.tool("search__query");
    assert_eq!(
        told.result()["structuredContent"],
        json!([1, 2]),
        "modern clients get it as it is"
    );
}

#[test]
fn an_older_client_is_never_asked_for_input_in_a_form_it_does_not_know() {
    let script = Script::modern(&["query"]);
    script.on("tools/call", |_| {
        Said::Result(json!({ "resultType": "input_required", "requestState": "s" }))
    });
    let world = Setup::new().upstream("search", &script).start();
    for version in REVISIONS {
        let told = world.call(legacy(
            version,
            "tools/call",
            json!({ "name": "search__query" }),
        ));
        assert!(told.json()["error"].is_object(), "{told:?}");
    }
}

#[test]
fn logs_reach_no_older_client_for_it_cannot_ask_for_them() {
    let script = Script::modern(&["query"]);
    script.on("tools/call", |heard| {
        let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "error", "data": "x" } });
        Said::Stream(vec![crate::world::Step::Send(log), crate::world::Step::Send(heard.response(&complete("done")))])
    });
    let world = Setup::new().upstream("search", &script).start();
    let told = world.call(legacy(
        "2025-11-25",
        "tools/call",
        json!({ "name": "search__query" }),
    ));
    assert!(!told.streamed());
    assert_eq!(told.said(), "done");
}

#[test]
fn responses_and_notifications_that_nobody_waits_for_are_accepted() {
    let world = everything();
    for message in [
        json!({ "jsonrpc": "2.0", "id": 7, "result": {} }),
        json!({ "jsonrpc": "2.0", "id": 7, "error": { "code": -1, "message": "x" } }),
        json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" }),
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } }),
    ] {
        let told = world.ask(crate::world::Ask::post(message));
        assert_eq!((told.status.as_u16(), told.text.as_str()), (202, ""));
    }
    assert!(world.audits().is_empty());
}

fn initialize(version: &str) -> crate::world::Ask {
    let info = json!({ "name": "scripted", "version": "1" });
    legacy(
        version,
        "initialize",
        json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": info }),
    )
}

fn everything() -> World {
    Setup::new()
        .upstream("search", &stocked(Script::modern(&["query"])))
        .start()
}

fn stocked(script: Script) -> Script {
    let named = |key: &str, value: &str| -> Value { json!({ key: value, "name": "x" }) };
    script.listing("resources", named("uri", "file:///a"));
    script.listing("resourceTemplates", named("uriTemplate", "file:///{path}"));
    script.listing("prompts", json!({ "name": "ask" }));
    script.capability("completions", json!({}));
    script
}
