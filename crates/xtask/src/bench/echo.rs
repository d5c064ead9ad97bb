//! The upstream of the benchmark: the smallest modern MCP server there can be, stateless,
//! with tools that say what they are told, after as long as they are told. It counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::http::{self, Request, Response};

/// A tool that is called.
pub const TOOL: &str = "echo";
/// One that is a task.
pub const TASK: &str = "echo_task";
/// One that becomes a task if it takes long.
pub const AUTO: &str = "echo_auto";

/// The revision it speaks.
pub const REVISION: &str = "2026-07-28";

/// A running server.
pub struct Echo {
    /// Its port on loopback.
    pub port: u16,
    heard: Arc<Mutex<Heard>>,
}

/// What a server was asked so far.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Requests by method.
    pub methods: BTreeMap<String, u64>,
    /// Calls by what the tool was to say.
    pub calls: BTreeMap<String, u64>,
}

impl Echo {
    /// Starts the server in threads of this process.
    pub fn start() -> Result<Self> {
        Self::listing(0)
    }

    /// Starts one that lists this many tools, or its own three if those are more.
    pub fn listing(count: usize) -> Result<Self> {
        let others = (3..count).map(|number| format!("{TOOL}_{number}"));
        let names = [TOOL, TASK, AUTO].map(str::to_owned).into_iter();
        let tools: Value = names.chain(others).map(|name| tool(&name)).collect();
        let listener = http::listen_from(0)?;
        let port = listener.local_addr()?.port();
        let heard = Arc::<Mutex<Heard>>::default();
        let hears = Arc::clone(&heard);
        http::serve(listener, move |request| answer(&request, &tools, &hears));
        Ok(Self { port, heard })
    }

    /// What it was asked so far.
    pub fn heard(&self) -> Heard {
        let heard = self.heard.lock();
        heard.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(request: &Request, tools: &Value, heard: &Mutex<Heard>) -> Response {
    let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
        return Response::empty(400);
    };
    let method = message["method"].as_str().unwrap_or_default();
    let arguments = &message["params"]["arguments"];
    {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        *heard.methods.entry(method.to_owned()).or_default() += 1;
        if let ("tools/call", Some(text)) = (method, arguments["text"].as_str()) {
            *heard.calls.entry(text.to_owned()).or_default() += 1;
        }
    }
    let result = match method {
        "server/discover" => json!({
            "resultType": "complete",
            "supportedVersions": [REVISION],
            "capabilities": {"tools": {}},
            "ttlMs": 300_000,
            "cacheScope": "public",
        }),
        "tools/list" => json!({
            "resultType": "complete",
            "tools": tools,
            "ttlMs": 300_000,
            "cacheScope": "public",
        }),
        "tools/call" => {
            std::thread::sleep(Duration::from_millis(arguments["ms"].as_u64().unwrap_or(0)));
            json!({
                "resultType": "complete",
                "content": [{"type": "text", "text": arguments["text"]}],
            })
        }
        _ => {
            let error = json!({"code": -32601, "message": "Method not found"});
            let body = json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
            return Response::json(404, &body);
        }
    };
    let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    Response::json(200, &body)
}

fn tool(name: &str) -> Value {
    json!({
        "name": name,
        "description": "Says what it is told.",
        "inputSchema": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "ms": {"type": "integer"}},
            "required": ["text"],
        },
    })
}
