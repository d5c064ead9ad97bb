use super::*;
use crate::jsonrpc::{self, Posted};
use crate::meta::ClientCapabilities;

fn object(text: &str) -> Object {
    Object::parse(text.as_bytes()).unwrap()
}

fn message(text: &str) -> Message {
    match jsonrpc::parse(text.as_bytes()).unwrap() {
        Posted::One(message) => message,
        Posted::Batch(_) => panic!("a batch"),
    }
}

fn request(method: &str, meta: &str) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"_meta":{meta}}}}}"#
    ))
}

const CLAIM: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
const LEGACY: [ProtocolVersion; 4] = [
    ProtocolVersion::V2024_11_05,
    ProtocolVersion::V2025_03_26,
    ProtocolVersion::V2025_06_18,
    ProtocolVersion::V2025_11_25,
];

#[test]
fn an_envelope_decides_alone() {
    for method in ["tools/call", "initialize", "ping", "x/unknown"] {
        for header in [None, Some("2026-07-28"), Some("2025-06-18"), Some("v999")] {
            for claim in [
                CLAIM,
                r#"{"io.modelcontextprotocol/protocolVersion":"2025-06-18"}"#,
                r#"{"io.modelcontextprotocol/protocolVersion":null}"#,
            ] {
                let body = request(method, claim);
                assert_eq!(classify(&body, header), Ok(ClientEra::Modern), "{method}");
            }
        }
    }
}

#[test]
fn initialize_without_an_envelope_is_legacy_unless_its_header_is_modern() {
    for version in LEGACY {
        let body = message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{version}"}}}}"#
        ));
        for header in [None, Some(version.as_str()), Some("v999")] {
            assert_eq!(classify(&body, header), Ok(ClientEra::Legacy(version)));
        }
        let error = classify(&body, Some("2026-07-28")).unwrap_err();
        assert_eq!(error.code, jsonrpc::HEADER_MISMATCH);
    }
    for asked in [r#"{"protocolVersion":"2026-07-28"}"#, "{}"] {
        let body = message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{asked}}}"#
        ));
        assert_eq!(
            classify(&body, None),
            Ok(ClientEra::Legacy(ProtocolVersion::LATEST_LEGACY))
        );
    }
}

#[test]
fn a_request_without_an_envelope_follows_a_legacy_header() {
    for meta in ["{}", "null", r#"{"progressToken":1}"#] {
        let body = request("tools/list", meta);
        for version in LEGACY {
            assert_eq!(
                classify(&body, Some(version.as_str())),
                Ok(ClientEra::Legacy(version))
            );
        }
        assert_eq!(
            classify(&body, None),
            Ok(ClientEra::Legacy(ProtocolVersion::V2025_03_26))
        );
    }
}

#[test]
fn a_broken_modern_request_is_never_served_as_legacy() {
    let capabilities = r#"{"io.modelcontextprotocol/clientCapabilities":{}}"#;
    for (meta, header, code) in [
        ("{}", Some("2026-07-28"), jsonrpc::INVALID_PARAMS),
        ("5", Some(" 2026-07-28\t"), jsonrpc::INVALID_PARAMS),
        (capabilities, None, jsonrpc::INVALID_PARAMS),
        (capabilities, Some("2025-06-18"), jsonrpc::INVALID_PARAMS),
        (r#"{"a":1,"a":2}"#, None, jsonrpc::INVALID_PARAMS),
        ("{}", Some("v999"), jsonrpc::UNSUPPORTED_PROTOCOL_VERSION),
        ("{}", Some(""), jsonrpc::UNSUPPORTED_PROTOCOL_VERSION),
    ] {
        let error = classify(&request("tools/list", meta), header).unwrap_err();
        assert_eq!(error.code, code, "{meta} {header:?}");
    }
}

#[test]
fn a_notification_without_an_envelope_follows_its_header() {
    let body = message(r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#);
    assert_eq!(classify(&body, Some("2026-07-28")), Ok(ClientEra::Modern));
    assert_eq!(
        classify(&body, Some("2025-11-25")),
        Ok(ClientEra::Legacy(ProtocolVersion::V2025_11_25))
    );
    assert_eq!(
        classify(&body, None),
        Ok(ClientEra::Legacy(ProtocolVersion::ASSUMED))
    );
}

#[test]
fn responses_come_from_legacy_clients_only() {
    let body = message(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    for version in LEGACY {
        assert_eq!(
            classify(&body, Some(version.as_str())),
            Ok(ClientEra::Legacy(version))
        );
    }
    let error = classify(&body, Some("2026-07-28")).unwrap_err();
    assert_eq!(error.code, jsonrpc::INVALID_REQUEST);
}

#[test]
fn a_lifted_request_has_an_envelope_and_lowering_it_takes_that_away_again() {
    let params = r#"{"name":"t","arguments":{"n":1.0},"_meta":{"progressToken":7,"traceparent":"x","v/k":{}}}"#;
    let capabilities = ClientCapabilities(object(r#"{"roots":{}}"#));
    let info = object(r#"{"name":"c","version":"1"}"#);
    for version in LEGACY {
        for info in [None, Some(&info)] {
            let lifted = lift_request(object(params), ProtocolVersion::LATEST, info, &capabilities);
            let envelope = meta::RequestMeta::parse_modern(&lifted).unwrap();
            assert_eq!(envelope.protocol_version, "2026-07-28");
            assert_eq!(envelope.client_info.is_some(), info.is_some());
            assert_eq!(envelope.client_capabilities, capabilities);
            assert_eq!(envelope.progress_token.unwrap().get(), "7");
            let lowered = lower_request("tools/call", lifted, version);
            assert_eq!(lowered.to_string(), params);
        }
    }
    let bare = lift_request(Object::new(), ProtocolVersion::LATEST, None, &capabilities);
    for version in LEGACY {
        assert!(lower_request("tools/list", bare.clone(), version).is_empty());
    }
}

#[test]
fn a_legacy_clients_own_claims_do_not_reach_the_envelope() {
    let forged = object(
        r#"{"task":{"ttl":1},"_meta":{"io.modelcontextprotocol/clientCapabilities":{"sampling":{}},"io.modelcontextprotocol/clientInfo":{"name":"x"}}}"#,
    );
    let lifted = lift_request(
        forged,
        ProtocolVersion::LATEST,
        None,
        &ClientCapabilities::default(),
    );
    let envelope = meta::RequestMeta::parse_modern(&lifted).unwrap();
    assert!(!envelope.client_capabilities.sampling());
    assert_eq!(envelope.client_info, None);
    assert!(!lifted.contains("task"));
}

#[test]
fn answers_to_input_requests_do_not_reach_a_legacy_upstream() {
    let params = r#"{"name":"t","inputResponses":{"k":{}},"requestState":"s"}"#;
    for version in LEGACY {
        for method in ["tools/call", "prompts/get"] {
            let lowered = lower_request(method, object(params), version);
            assert_eq!(lowered.to_string(), r#"{"name":"t"}"#);
        }
        let other = lower_request("x/own", object(params), version);
        assert_eq!(other.to_string(), params);
    }
}

#[test]
fn a_lifted_result_says_it_is_complete_and_that_nothing_may_be_cached() {
    for (method, hinted) in [
        ("tools/list", true),
        ("prompts/list", true),
        ("resources/list", true),
        ("resources/templates/list", true),
        ("resources/read", true),
        ("tools/call", false),
        ("prompts/get", false),
        ("completion/complete", false),
    ] {
        let result = object(
            r#"{"x":1.0,"ttlMs":9,"cacheScope":"public","_meta":{"v":1,"io.modelcontextprotocol/related-task":{"taskId":"t"}}}"#,
        );
        let lifted = lift_result(method, result);
        assert_eq!(lifted.get_str("resultType").unwrap(), "complete");
        assert_eq!(lifted.get("_meta").unwrap().get(), r#"{"v":1}"#);
        if hinted {
            assert_eq!(lifted.get("ttlMs").unwrap().get(), "0");
            assert_eq!(lifted.get_str("cacheScope").unwrap(), "private");
        }
    }
}

#[test]
fn legacy_task_support_of_a_tool_is_not_shown_to_modern_clients() {
    let lifted = lift_result(
        "tools/list",
        object(
            r#"{"tools":[{"name":"a","execution":{"taskSupport":"optional"},"x":1.0},{ "name":"execution" }]}"#,
        ),
    );
    assert_eq!(
        lifted.get("tools").unwrap().get(),
        r#"[{"name":"a","x":1.0},{ "name":"execution" }]"#
    );
}

#[test]
fn a_lowered_result_has_nothing_only_modern_clients_know() {
    let result = r#"{"resultType":"complete","tools":[],"nextCursor":"","ttlMs":5,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}}"#;
    for version in LEGACY {
        let lowered = lower_result("tools/list", object(result), version);
        assert_eq!(lowered.to_string(), r#"{"tools":[],"nextCursor":""}"#);
        let empty = lower_result("ping", object(r#"{"resultType":"complete"}"#), version);
        assert!(empty.is_empty());
    }
}

#[test]
fn content_a_revision_lacks_becomes_text() {
    use ProtocolVersion as V;
    let audio = r#"{"type":"audio","data":"QQ==","mimeType":"audio/wav"}"#;
    let link = r#"{"type":"resource_link","uri":"a:b","name":"B"}"#;
    let text = r#"{"type":"text","text":"[audio/wav content omitted]"}"#;
    let linked = r#"{"type":"text","text":"B: a:b"}"#;
    for (version, first, second) in [
        (V::V2024_11_05, text, linked),
        (V::V2025_03_26, audio, linked),
        (V::V2025_06_18, audio, link),
        (V::V2025_11_25, audio, link),
    ] {
        let tool = object(&format!(r#"{{"content":[{audio},{link}]}}"#));
        let lowered = lower_result("tools/call", tool, version);
        assert_eq!(
            lowered.to_string(),
            format!(r#"{{"content":[{first},{second}]}}"#)
        );
        let prompt = object(&format!(
            r#"{{"messages":[{{"role":"user","content":{audio}}},{{"role":"user","content":{link}}}]}}"#
        ));
        let lowered = lower_result("prompts/get", prompt, version);
        assert_eq!(
            lowered.to_string(),
            format!(
                r#"{{"messages":[{{"role":"user","content":{first}}},{{"role":"user","content":{second}}}]}}"#
            )
        );
    }
}

#[test]
fn structured_content_a_revision_lacks_stays_readable() {
    for version in LEGACY {
        let knows_objects = version >= ProtocolVersion::V2025_06_18;
        for (structured, kept) in [
            (r#"{"n":1.0}"#, knows_objects),
            ("[1,2]", false),
            ("3", false),
        ] {
            let with_text = format!(
                r#"{{"content":[{{"type":"text","text":"t"}}],"structuredContent":{structured}}}"#
            );
            let lowered = lower_result("tools/call", object(&with_text), version);
            assert_eq!(lowered.contains("structuredContent"), kept);
            assert!(lowered.get("content").unwrap().get().contains("\"t\""));

            let bare = format!(r#"{{"content":[],"structuredContent":{structured}}}"#);
            let lowered = lower_result("tools/call", object(&bare), version);
            assert_eq!(lowered.contains("structuredContent"), kept);
            let blocks = crate::json::elements(lowered.get("content").unwrap()).unwrap();
            assert_eq!(blocks.len(), usize::from(!kept));
        }
    }
}

#[test]
fn output_schemas_go_where_structured_content_goes() {
    for version in LEGACY {
        let tools = r#"{"tools":[{"name":"o","outputSchema":{"type":"object"},"execution":{}},{"name":"a","outputSchema":{"type":"array"}},{"name":"n", "title":"N"}]}"#;
        let lowered = lower_result("tools/list", object(tools), version);
        let tools = crate::json::elements(lowered.get("tools").unwrap()).unwrap();
        let tools: Vec<_> = tools
            .iter()
            .map(|tool| Object::from_raw(tool).unwrap())
            .collect();
        assert_eq!(
            tools[0].contains("outputSchema"),
            version >= ProtocolVersion::V2025_06_18
        );
        assert_eq!(
            tools[0].contains("execution"),
            version == ProtocolVersion::V2025_11_25
        );
        assert!(!tools[1].contains("outputSchema"));
        assert!(tools[2].contains("title"));
    }
}

#[test]
fn results_that_need_no_change_keep_their_text() {
    for version in LEGACY {
        for (method, text) in [
            (
                "tools/call",
                r#"{"content":[ {"type":"text","text":"\u0041"} ],"isError":false}"#,
            ),
            ("prompts/get", r#"{"messages":[ ],"description":"d"}"#),
            ("tools/list", r#"{"tools":[ {"name":"a"} ]}"#),
            ("tools/call", r#"{"content":"not an array"}"#),
            ("tools/list", r#"{"tools":[5]}"#),
            ("prompts/get", r#"{"messages":[null,{"content":[]}]}"#),
            ("x/own", r#"{"ttlMs":5}"#),
        ] {
            assert_eq!(
                lower_result(method, object(text), version).to_string(),
                text
            );
        }
    }
}

#[test]
fn lifted_errors_use_codes_a_modern_client_may_see() {
    for (code, lifted) in [
        (-32002, -32602),
        (-32000, -32603),
        (-32001, -32603),
        (-32019, -32603),
        (-32020, -32603),
        (-32042, -32603),
        (-32099, -32603),
        (-32100, -32100),
        (-32601, -32601),
        (-32603, -32603),
        (-32700, -32700),
        (7, 7),
        (i64::MIN, i64::MIN),
    ] {
        let error = lift_error(RpcError::new(code, "why"), None);
        assert_eq!((error.code, error.message.as_str()), (lifted, "why"));
    }
    let missing = RpcError::new(-32002, "gone");
    let kept = lift_error(
        missing.clone().with_data(object(r#"{"n":1.0}"#)),
        Some("a:b"),
    );
    assert_eq!(kept.data.unwrap().get(), r#"{"n":1.0,"uri":"a:b"}"#);
    let named = lift_error(missing.clone(), Some("a:b"));
    assert_eq!(named.data.unwrap().get(), r#"{"uri":"a:b"}"#);
    let own = lift_error(missing.with_data(object(r#"{"uri":"c:d"}"#)), Some("a:b"));
    assert_eq!(own.data.unwrap().get(), r#"{"uri":"c:d"}"#);
}

#[test]
fn lowered_errors_never_speak_of_the_envelope() {
    for code in [-32020, -32021, -32022] {
        let error = RpcError::new(code, "why").with_data("detail");
        let lowered = lower_error("tools/call", error);
        assert_eq!(lowered, RpcError::new(-32603, "why"));
    }
    let gone = RpcError::resource_not_found("a:b");
    assert_eq!(lower_error("resources/read", gone.clone()).code, -32002);
    assert_eq!(lower_error("tools/call", gone).code, -32602);
    let bad = RpcError::new(-32602, "cursor");
    assert_eq!(lower_error("resources/read", bad.clone()), bad);
}

#[test]
fn url_elicitations_become_input_requests() {
    let error = RpcError::new(-32042, "sign in").with_data(object(
        r#"{"elicitations":[{"mode":"url","elicitationId":"e1","url":"https://a.example/","message":"m"}]}"#,
    ));
    assert_eq!(
        lift_url_elicitations(&error).unwrap().to_string(),
        r#"{"resultType":"input_required","inputRequests":{"url-0":{"method":"elicitation/create","params":{"mode":"url","url":"https://a.example/","message":"m"}}}}"#
    );
    for data in ["{}", r#"{"elicitations":[]}"#, r#"{"elicitations":[5]}"#] {
        let error = RpcError::new(-32042, "x").with_data(object(data));
        assert_eq!(lift_url_elicitations(&error), None);
    }
    assert_eq!(lift_url_elicitations(&RpcError::new(-32042, "x")), None);
    assert_eq!(lift_url_elicitations(&RpcError::new(-32603, "x")), None);
}

#[test]
fn capabilities_are_declared_in_the_words_of_the_other_era() {
    let lift = |text| lift_client_capabilities(object(text)).0.to_string();
    assert_eq!(
        lift(r#"{"roots":{"listChanged":true},"elicitation":{},"tasks":{},"sampling":{}}"#),
        r#"{"roots":{},"elicitation":{"form":{}},"sampling":{}}"#
    );
    assert_eq!(
        lift(r#"{"elicitation":{"url":{}}}"#),
        r#"{"elicitation":{"url":{}}}"#
    );
    assert_eq!(
        lift_server_capabilities(object(r#"{"tools":{},"tasks":{}}"#)).to_string(),
        r#"{"tools":{}}"#
    );

    let client =
        r#"{"roots":{},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"x":{ "y":1.0}}"#;
    for (version, lowered) in [
        (
            ProtocolVersion::V2024_11_05,
            r#"{"roots":{},"sampling":{},"x":{ "y":1.0}}"#,
        ),
        (
            ProtocolVersion::V2025_03_26,
            r#"{"roots":{},"sampling":{},"x":{ "y":1.0}}"#,
        ),
        (
            ProtocolVersion::V2025_06_18,
            r#"{"roots":{},"sampling":{},"elicitation":{},"x":{ "y":1.0}}"#,
        ),
        (ProtocolVersion::V2025_11_25, client),
    ] {
        assert_eq!(
            lower_client_capabilities(object(client), version).to_string(),
            lowered
        );
    }
    for version in LEGACY {
        let server = object(r#"{"tools":{},"completions":{}}"#);
        let lowered = lower_server_capabilities(server, version);
        assert_eq!(
            lowered.contains("completions"),
            version >= ProtocolVersion::V2025_03_26
        );
    }
}

#[test]
fn extensions_are_declared_in_either_era_but_tasks_in_the_modern_one_alone() {
    let ui = r#"{"extensions":{"io.modelcontextprotocol/ui":{ "mimeTypes":["text/html"] }}}"#;
    let both = r#"{"extensions":{"io.modelcontextprotocol/tasks":{},"io.modelcontextprotocol/ui":{ "mimeTypes":["text/html"] }}}"#;
    let tasks = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
    for (declared, carried) in [(ui, ui), (both, ui)] {
        let lifted = lift_client_capabilities(object(declared)).0;
        assert_eq!(lifted.to_string(), carried);
        let lifted = lift_server_capabilities(object(declared));
        assert_eq!(lifted.to_string(), carried);
    }
    let lifted = lift_client_capabilities(object(tasks));
    assert!(!lifted.has_extension(meta::EXT_TASKS));
    for version in LEGACY {
        for (declared, carried) in [(ui, ui), (both, ui), (tasks, "{}")] {
            let client = lower_client_capabilities(object(declared), version);
            assert_eq!(client.to_string(), carried);
            let server = lower_server_capabilities(object(declared), version);
            assert_eq!(server.to_string(), carried);
        }
    }
}

#[test]
fn what_a_revision_cannot_say_is_neither_asked_nor_answered() {
    use ProtocolVersion as V;
    let url = r#"{"mode":"url","url":"https://a.example/","message":"m"}"#;
    let form = r#"{"message":"m","requestedSchema":{"type":"object","properties":{"a":{"type":"string"}}}}"#;
    let several = r#"{"message":"m","requestedSchema":{"type":"object","properties":{"a":{"type":"array"}}}}"#;
    let plain =
        r#"{"messages":[{"role":"user","content":{"type":"text","text":"t"}}],"maxTokens":1.0}"#;
    let tools = r#"{"messages":[],"maxTokens":1,"tools":[]}"#;
    for (method, params, since) in [
        ("elicitation/create", form, V::V2025_06_18),
        ("elicitation/create", several, V::V2025_11_25),
        ("elicitation/create", url, V::V2025_11_25),
        ("sampling/createMessage", plain, V::V2024_11_05),
        ("sampling/createMessage", tools, V::V2025_11_25),
        ("roots/list", "{}", V::V2024_11_05),
    ] {
        for version in LEGACY {
            let asked = lower_question(method, object(params), version, "e1");
            assert_eq!(asked.is_some(), version >= since, "{method} {version}");
            let Some(asked) = asked else { continue };
            if params == url {
                assert_eq!(asked.get_str("elicitationId").unwrap(), "e1");
                assert_eq!(lift_question(asked).to_string(), url);
            } else {
                assert_eq!(asked.to_string(), params);
            }
        }
    }
    let own = object(r#"{"mode":"url","elicitationId":"own"}"#);
    let asked = lower_question("elicitation/create", own.clone(), V::V2025_11_25, "e1");
    assert_eq!(asked, Some(own));

    let texts = r#"{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"model":"m"}"#;
    let used = r#"{"role":"assistant","content":{"type":"tool_use","id":"1","name":"t","input":{}},"model":"m"}"#;
    let sampled = |answer, version| lower_answer("sampling/createMessage", object(answer), version);
    assert_eq!(
        sampled(texts, V::V2025_06_18).unwrap().to_string(),
        r#"{"role":"assistant","content":{"type":"text","text":"a\nb"},"model":"m"}"#
    );
    assert_eq!(sampled(used, V::V2025_06_18), None);
    for answer in [texts, used] {
        let kept = sampled(answer, V::V2025_11_25).unwrap();
        assert_eq!(kept.to_string(), answer);
    }
}
