//! What we render is judged by the official JSON Schemas of each revision.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its fixture has failed"
)]

use serde_json::{Value, json};
use tidegate_mcp::catalog::{CacheScope, Kind, Page};
use tidegate_mcp::era::{lift_request, lift_result, lift_url_elicitations, lower_result};
use tidegate_mcp::input::InputRequired;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{Request, RequestId, Response, RpcError};
use tidegate_mcp::meta::{self, ClientCapabilities};
use tidegate_mcp::task::{
    Task, TaskDetail, TaskStatus, acknowledged_result, created_result, get_result,
};
use tidegate_mcp::version::{Era, ProtocolVersion};

const MODERN: &str = include_str!("fixtures/schema/mcp-2026-07-28.schema.json");
const TASKS: &str = include_str!("fixtures/schema/ext-tasks.schema.json");

fn legacy() -> [(ProtocolVersion, &'static str); 4] {
    [
        (
            ProtocolVersion::V2024_11_05,
            include_str!("fixtures/schema/mcp-2024-11-05.schema.json"),
        ),
        (
            ProtocolVersion::V2025_03_26,
            include_str!("fixtures/schema/mcp-2025-03-26.schema.json"),
        ),
        (
            ProtocolVersion::V2025_06_18,
            include_str!("fixtures/schema/mcp-2025-06-18.schema.json"),
        ),
        (
            ProtocolVersion::V2025_11_25,
            include_str!("fixtures/schema/mcp-2025-11-25.schema.json"),
        ),
    ]
}

/// The validator of one definition of a schema document.
fn definition(document: &str, name: &str) -> jsonschema::Validator {
    let mut schema: Value = serde_json::from_str(document).unwrap();
    let root = if schema.get("$defs").is_some() {
        "$defs"
    } else {
        "definitions"
    };
    assert!(schema[root].get(name).is_some(), "no definition {name}");
    schema["$ref"] = json!(format!("#/{root}/{name}"));
    jsonschema::validator_for(&schema).unwrap()
}

fn conforms(document: &str, name: &str, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    let errors: Vec<String> = definition(document, name)
        .iter_errors(&value)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:?}\n{text}");
}

fn object(value: &Value) -> Object {
    Object::parse(value.to_string().as_bytes()).unwrap()
}

/// Results of a modern server that use everything the revision has.
fn rich_results() -> Vec<(&'static str, &'static str, Value)> {
    let blocks = json!([
        {"type": "text", "text": "t", "annotations": {"audience": ["user"], "priority": 0.5}},
        {"type": "image", "data": "QQ==", "mimeType": "image/png"},
        {"type": "audio", "data": "QQ==", "mimeType": "audio/wav"},
        {"type": "resource_link", "uri": "file:///a", "name": "a", "title": "A"},
        {"type": "resource", "resource": {"uri": "file:///b", "text": "b", "mimeType": "text/plain"}},
    ]);
    let messages: Vec<Value> = blocks
        .as_array()
        .unwrap()
        .iter()
        .map(|block| json!({"role": "user", "content": block}))
        .collect();
    let meta = json!({"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}});
    let mut results = vec![
        (
            "tools/call",
            "CallToolResult",
            json!({"content": blocks, "isError": false}),
        ),
        (
            "prompts/get",
            "GetPromptResult",
            json!({"messages": messages, "description": "d"}),
        ),
        (
            "resources/read",
            "ReadResourceResult",
            json!({"contents": [{"uri": "file:///a", "blob": "QQ=="}], "ttlMs": 5, "cacheScope": "public"}),
        ),
        (
            "tools/list",
            "ListToolsResult",
            json!({"ttlMs": 5, "cacheScope": "public", "nextCursor": "", "tools": [
                {"name": "o", "title": "O", "inputSchema": {"type": "object"},
                 "outputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}},
                 "annotations": {"readOnlyHint": true},
                 "icons": [{"src": "https://a.example/i.png"}]},
                {"name": "a", "inputSchema": {"type": "object", "$defs": {"x": {"$anchor": "x"}}},
                 "outputSchema": {"type": "array"}},
            ]}),
        ),
        (
            "resources/list",
            "ListResourcesResult",
            json!({"ttlMs": 5, "cacheScope": "private", "resources": [{"uri": "file:///a", "name": "a", "size": 3}]}),
        ),
        (
            "resources/templates/list",
            "ListResourceTemplatesResult",
            json!({"ttlMs": 5, "cacheScope": "private", "resourceTemplates": [{"uriTemplate": "file:///{x}", "name": "a"}]}),
        ),
        (
            "prompts/list",
            "ListPromptsResult",
            json!({"ttlMs": 5, "cacheScope": "private", "prompts": [{"name": "p", "arguments": [{"name": "x", "required": true}]}]}),
        ),
        (
            "completion/complete",
            "CompleteResult",
            json!({"completion": {"values": ["a"], "hasMore": false}}),
        ),
    ];
    for structured in [json!({"n": 1}), json!([1, 2]), json!("s"), json!(null)] {
        results.push((
            "tools/call",
            "CallToolResult",
            json!({"content": [], "structuredContent": structured}),
        ));
    }
    for (_, _, result) in &mut results {
        result["resultType"] = json!("complete");
        result["_meta"] = meta.clone();
    }
    results
}

#[test]
fn lowered_results_conform_to_every_legacy_revision() {
    for (method, name, result) in rich_results() {
        conforms(MODERN, name, &result.to_string());
        for (version, schema) in legacy() {
            let lowered = lower_result(method, object(&result), version);
            for gone in ["resultType", "ttlMs", "cacheScope", "_meta"] {
                assert!(!lowered.contains(gone), "{method} {version}: {gone}");
            }
            conforms(schema, name, &lowered.to_string());
        }
    }
}

#[test]
fn results_lifted_from_every_legacy_revision_conform_to_the_modern_one() {
    for (method, name, result) in rich_results() {
        for (version, _) in legacy() {
            let lowered = lower_result(method, object(&result), version);
            conforms(MODERN, name, &lift_result(method, lowered).to_string());
        }
    }
}

#[test]
fn lifted_requests_conform() {
    let capabilities = ClientCapabilities(object(&json!({"roots": {}, "elicitation": {}})));
    let info = object(&json!({"name": "c", "version": "1"}));
    for (method, name, params) in [
        ("tools/list", "ListToolsRequest", json!({})),
        (
            "tools/call",
            "CallToolRequest",
            json!({"name": "t", "arguments": {"n": 1}}),
        ),
        (
            "resources/read",
            "ReadResourceRequest",
            json!({"uri": "file:///a"}),
        ),
        (
            "prompts/get",
            "GetPromptRequest",
            json!({"name": "p", "_meta": {"progressToken": 1}}),
        ),
        ("server/discover", "DiscoverRequest", json!({})),
    ] {
        let request = Request {
            id: RequestId::Integer(1),
            method: method.to_owned(),
            params: lift_request(
                object(&params),
                ProtocolVersion::LATEST,
                Some(&info),
                &capabilities,
            ),
        };
        conforms(MODERN, name, &request.to_json());
    }
}

#[test]
fn pages_conform_to_the_list_results_they_are() {
    for (kind, name, item) in [
        (
            Kind::Tools,
            "ListToolsResult",
            json!({"name": "t", "inputSchema": {"type": "object"}}),
        ),
        (
            Kind::Resources,
            "ListResourcesResult",
            json!({"uri": "file:///a", "name": "a"}),
        ),
        (
            Kind::ResourceTemplates,
            "ListResourceTemplatesResult",
            json!({"uriTemplate": "file:///{a}", "name": "a"}),
        ),
        (Kind::Prompts, "ListPromptsResult", json!({"name": "p"})),
    ] {
        for (next_cursor, cache_scope) in [
            (None, CacheScope::Public),
            (Some(String::new()), CacheScope::Private),
        ] {
            let page = Page {
                items: vec![object(&item)],
                next_cursor,
                ttl_ms: 60_000,
                cache_scope,
            };
            let mut result = page.to_result(kind);
            meta::set_server_info(&mut result, &object(&json!({"name": "g", "version": "1"})));
            conforms(MODERN, name, &result.to_string());
        }
    }
}

#[test]
fn errors_conform_to_the_definitions_of_their_codes() {
    let response = |error| Response::error(Some(RequestId::String("a".to_owned())), error);
    let capability = RpcError::missing_client_capability(object(&json!({"sampling": {}})));
    let version = RpcError::unsupported_version(ProtocolVersion::MODERN, "v999");
    for (name, error) in [
        ("MissingRequiredClientCapabilityError", capability),
        ("UnsupportedProtocolVersionError", version),
        (
            "JSONRPCErrorResponse",
            RpcError::resource_not_found("file:///a"),
        ),
        (
            "JSONRPCErrorResponse",
            RpcError::method_not_found("x/unknown"),
        ),
    ] {
        conforms(MODERN, name, &response(error).to_json());
    }
    let idless = Response::error(None, RpcError::new(-32700, "Parse error"));
    conforms(MODERN, "JSONRPCErrorResponse", &idless.to_json());
}

#[test]
fn input_required_results_conform() {
    let requests = object(&json!({
        "form": {"method": "elicitation/create", "params": {
            "message": "m", "requestedSchema": {"type": "object", "properties": {}}}},
        "roots": {"method": "roots/list"},
    }));
    for (input_requests, request_state) in [
        (requests.clone(), None),
        (requests, Some("s".to_owned())),
        (Object::new(), Some("s".to_owned())),
    ] {
        let input = InputRequired {
            input_requests,
            request_state,
        };
        conforms(
            MODERN,
            "InputRequiredResult",
            &input.to_result().to_string(),
        );
    }
    let error = RpcError::new(-32042, "sign in").with_data(object(&json!({"elicitations": [
        {"mode": "url", "elicitationId": "e", "url": "https://a.example/", "message": "m"}]})));
    let lifted = lift_url_elicitations(&error).unwrap();
    conforms(MODERN, "InputRequiredResult", &lifted.to_string());
}

#[test]
fn tasks_conform_to_the_extension() {
    let requests = object(&json!({"k": {"method": "roots/list"}}));
    let result = object(&json!({"content": [{"type": "text", "text": "t"}], "isError": true}));
    for (status, detail) in [
        (TaskStatus::Working, TaskDetail::None),
        (
            TaskStatus::InputRequired,
            TaskDetail::InputRequests(requests),
        ),
        (TaskStatus::Completed, TaskDetail::Result(result)),
        (
            TaskStatus::Failed,
            TaskDetail::Error(RpcError::new(-32603, "e")),
        ),
        (TaskStatus::Cancelled, TaskDetail::None),
    ] {
        for ttl_ms in [None, Some(60_000)] {
            let task = Task {
                task_id: "t".to_owned(),
                status,
                status_message: ttl_ms.map(|_| "busy".to_owned()),
                created_at_ms: 0,
                last_updated_at_ms: 1_785_240_000_000,
                ttl_ms,
                poll_interval_ms: ttl_ms,
            };
            conforms(
                TASKS,
                "CreateTaskResult",
                &created_result(&task).to_string(),
            );
            conforms(
                TASKS,
                "GetTaskResult",
                &get_result(&task, &detail).to_string(),
            );
        }
    }
    conforms(
        TASKS,
        "UpdateTaskResult",
        &acknowledged_result().to_string(),
    );
    conforms(
        TASKS,
        "CancelTaskResult",
        &acknowledged_result().to_string(),
    );
}

#[test]
fn the_schemas_refuse_what_was_not_translated() {
    let refused = |schema, name, value: &Value| !definition(schema, name).is_valid(value);
    let [oldest, .., newest] = legacy();
    let audio = json!({"content": [{"type": "audio", "data": "QQ==", "mimeType": "audio/wav"}]});
    assert!(refused(oldest.1, "CallToolResult", &audio));
    let array = json!({"content": [], "structuredContent": [1]});
    assert!(refused(newest.1, "CallToolResult", &array));
    assert!(refused(MODERN, "ListToolsResult", &json!({"tools": []})));
    assert!(refused(
        TASKS,
        "CreateTaskResult",
        &json!({"resultType": "task"})
    ));
}

#[test]
fn every_legacy_revision_is_judged() {
    let judged: Vec<_> = legacy().map(|(version, _)| version).into();
    let all: Vec<_> = ProtocolVersion::ALL
        .iter()
        .copied()
        .filter(|version| version.era() == Era::Legacy)
        .collect();
    assert_eq!(judged, all);
}
