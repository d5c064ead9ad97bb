//! Requests no well-behaved client sends, each with the answer it must get.

use serde_json::{Value, json};

use crate::call::Call;

/// One byte more than a gateway reads unless it is configured to.
const OVERSIZE: usize = (1 << 20) + 1;

/// A probe of `/mcp` with a good token: what is sent, the status and the JSON-RPC error code
/// it must be answered with.
pub type Probe = (&'static str, Call, u16, Option<i64>);

/// What is wrong with the JSON-RPC request, its envelope or the headers that mirror it.
pub fn envelopes() -> Vec<Probe> {
    let list = || Call::modern("tools/list", json!({}));
    let echo = || Call::tool("everything__echo").with_arguments(r#"{"message":"tide"}"#);
    let version = "/params/_meta/io.modelcontextprotocol~1protocolVersion";
    vec![
        (
            "JSON that does not parse",
            list().raw("{\"jsonrpc\":"),
            400,
            Some(-32700),
        ),
        (
            "a body that is not an object",
            list().raw("\"tide\""),
            400,
            Some(-32600),
        ),
        (
            "an array in a revision without batches",
            list().raw("[]"),
            400,
            Some(-32600),
        ),
        (
            "a null id",
            list().at("/id", Value::Null),
            400,
            Some(-32600),
        ),
        (
            "a missing `_meta`",
            list().at("/params", json!({})),
            400,
            Some(-32602),
        ),
        (
            "a `_meta` without capabilities",
            without_capabilities(list()),
            400,
            Some(-32602),
        ),
        (
            "a missing Mcp-Method",
            list().without("mcp-method"),
            400,
            Some(-32020),
        ),
        (
            "a Mcp-Method of another method",
            list().with("mcp-method", "tools/call"),
            400,
            Some(-32020),
        ),
        (
            "a missing Mcp-Name",
            echo().without("mcp-name"),
            400,
            Some(-32020),
        ),
        (
            "a Mcp-Name of another tool",
            echo().with("mcp-name", "everything__get-sum"),
            400,
            Some(-32020),
        ),
        (
            "a Mcp-Name in broken Base64",
            echo().with("mcp-name", "=?base64?%%?="),
            400,
            Some(-32020),
        ),
        (
            "a version header unlike the body",
            list().with("mcp-protocol-version", "2025-11-25"),
            400,
            Some(-32020),
        ),
        (
            "a version of the future",
            list()
                .with("mcp-protocol-version", "2999-01-01")
                .at(version, json!("2999-01-01")),
            400,
            Some(-32022),
        ),
        (
            "an unknown method",
            Call::modern("tide/turn", json!({})),
            404,
            Some(-32601),
        ),
        (
            "a method the revision removed",
            Call::modern("ping", json!({})),
            404,
            Some(-32601),
        ),
        (
            "an initialize in the modern envelope",
            Call::modern("initialize", json!({})),
            404,
            Some(-32601),
        ),
        (
            "a foreign cursor",
            Call::modern("tools/list", json!({ "cursor": "bm90IG91cnM" })),
            200,
            Some(-32602),
        ),
        (
            "a tool of an unknown upstream",
            Call::tool("nobody__echo"),
            200,
            Some(-32602),
        ),
        (
            "a foreign task",
            Call::modern("tasks/get", json!({ "taskId": "not-ours" })),
            400,
            Some(-32021),
        ),
    ]
}

/// What is wrong with the HTTP request around it.
pub fn requests() -> Vec<Probe> {
    let list = || Call::modern("tools/list", json!({}));
    vec![
        (
            "another site's page",
            list().with("origin", "https://evil.example"),
            403,
            None,
        ),
        (
            "another site's page without a token",
            list()
                .with("origin", "https://evil.example")
                .with("authorization", ""),
            403,
            None,
        ),
        ("GET", list().by("GET"), 405, None),
        (
            "a body that is not declared JSON",
            list().with("content-type", "text/plain"),
            415,
            None,
        ),
        (
            "a client that reads neither JSON nor events",
            list().with("accept", "text/html"),
            406,
            None,
        ),
        (
            "a body past the bound",
            list().raw(&"9".repeat(OVERSIZE)),
            413,
            None,
        ),
        (
            "Basic credentials",
            list().with("authorization", "Basic dGlkZTp0aWRl"),
            401,
            None,
        ),
        (
            "a token that is not a JWT",
            list().with("authorization", "Bearer tide"),
            401,
            None,
        ),
    ]
}

fn without_capabilities(call: Call) -> Call {
    call.at(
        "/params/_meta",
        json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" }),
    )
}
