//! The upstream of the benchmark: the smallest modern MCP server there can be, stateless,
//! with one tool that says what it is told.

use anyhow::Result;
use serde_json::{Value, json};

use crate::http::{self, Request, Response};

/// The tool's name.
pub const TOOL: &str = "echo";

/// The revision it speaks.
pub const REVISION: &str = "2026-07-28";

/// Starts the server in threads of this process; gives its port.
pub fn start() -> Result<u16> {
    let listener = http::listen_from(0)?;
    let port = listener.local_addr()?.port();
    http::serve(listener, answer);
    Ok(port)
}

fn answer(request: Request) -> Response {
    let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
        return Response::empty(400);
    };
    let result = match message["method"].as_str() {
        Some("server/discover") => json!({
            "resultType": "complete",
            "supportedVersions": [REVISION],
            "capabilities": {"tools": {}},
            "ttlMs": 300_000,
            "cacheScope": "public",
        }),
        Some("tools/list") => json!({
            "resultType": "complete",
            "tools": [{
                "name": TOOL,
                "description": "Says what it is told.",
                "inputSchema": {
                    "type": "object",
                    "properties": {"text": {"type": "string"}},
                    "required": ["text"],
                },
            }],
            "ttlMs": 300_000,
            "cacheScope": "public",
        }),
        Some("tools/call") => json!({
            "resultType": "complete",
            "content": [{"type": "text", "text": message["params"]["arguments"]["text"]}],
        }),
        _ => {
            let error = json!({"code": -32601, "message": "Method not found"});
            let body = json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
            return Response::json(404, &body);
        }
    };
    let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    Response::json(200, &body)
}
