//! An MCP server of either era with one tool, well but for one fault, which calls alone meet.

use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};

use super::{Answer, DONE, Fault, Part, TOOL};

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// A request, as far as a server looks at it.
pub struct Heard {
    pub method: String,
    pub path: String,
    /// `Mcp-Session-Id`, empty where there is none.
    pub session: String,
    pub message: Value,
}

/// The server. Shared with whatever brings it requests.
pub struct Flawed(Mutex<State>);

struct State {
    modern: bool,
    born_modern: bool,
    fault: Option<Fault>,
    sessions: u32,
    asked: usize,
    strayed: usize,
}

impl Flawed {
    /// A server of this era with nothing wrong with it yet.
    pub fn new(modern: bool) -> Self {
        Self(Mutex::new(State {
            modern,
            born_modern: modern,
            fault: None,
            sessions: 0,
            asked: 0,
            strayed: 0,
        }))
    }

    /// From now on this is wrong with it.
    pub fn fail(&self, fault: &Fault) {
        let mut state = self.state();
        if matches!(fault, Fault::Turns) {
            let other = !state.born_modern;
            state.turn(other);
        }
        state.fault = Some(fault.clone());
    }

    /// Nothing is wrong with it any longer.
    pub fn heal(&self) {
        let mut state = self.state();
        if matches!(state.fault, Some(Fault::Turns)) {
            let first = state.born_modern;
            state.turn(first);
        }
        state.fault = None;
    }

    /// Whether nobody listens.
    pub fn refuses(&self) -> bool {
        matches!(self.state().fault, Some(Fault::Refuses))
    }

    /// How often a call came through to the tool: what is refused for its era or its session
    /// does not.
    pub fn asked(&self) -> usize {
        self.state().asked
    }

    /// Requests that were sent where nobody has business.
    pub fn strayed(&self) -> usize {
        self.state().strayed
    }

    /// What becomes of a request.
    pub fn answer(&self, heard: &Heard) -> Fault {
        self.state().answer(heard)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn turn(&mut self, modern: bool) {
        self.modern = modern;
        // Whoever takes its place knows none of its sessions.
        self.sessions += 1;
    }

    fn answer(&mut self, heard: &Heard) -> Fault {
        if heard.path != "/mcp" {
            self.strayed += 1;
        }
        let method = heard.message["method"].as_str().unwrap_or_default();
        match &self.fault {
            Some(fault) if method == "tools/call" && !matches!(fault, Fault::Turns) => {
                self.asked += 1;
                fault.clone()
            }
            _ => Fault::Says(match (heard.method.as_str(), self.modern) {
                ("POST", true) => self.modern(method, &heard.message),
                ("POST", false) => self.legacy(method, heard),
                ("DELETE", false) => plain(200),
                _ => plain(405),
            }),
        }
    }

    fn modern(&mut self, method: &str, message: &Value) -> Answer {
        if message["params"]["_meta"].get(META_VERSION).is_none() {
            return error(400, &message["id"], -32022);
        }
        let result = match method {
            "server/discover" => json!({
                "resultType": "complete", "supportedVersions": [MODERN],
                "capabilities": { "tools": {} }, "ttlMs": 0, "cacheScope": "public",
            }),
            _ => match self.served(method) {
                Some(result) => result,
                None => return error(404, &message["id"], -32601),
            },
        };
        says(&json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }))
    }

    fn legacy(&mut self, method: &str, heard: &Heard) -> Answer {
        let id = &heard.message["id"];
        let session = format!("session-{}", self.sessions);
        let result = match method {
            "initialize" => json!({
                "protocolVersion": LEGACY, "capabilities": { "tools": {} },
                "serverInfo": { "name": "flawed", "version": "1" },
            }),
            // Whoever knows no session is told so, whatever is asked.
            _ if heard.session.is_empty() => return error(400, &Value::Null, -32000),
            _ if heard.session != session => return plain(404),
            _ if id.is_null() => return plain(202),
            _ => match self.served(method) {
                Some(result) => result,
                None => return error(200, id, -32601),
            },
        };
        let mut answer = says(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
        answer.headers.push(("mcp-session-id", session));
        answer
    }

    /// What servers of both eras do alike.
    fn served(&mut self, method: &str) -> Option<Value> {
        match method {
            "tools/list" => {
                let tool = json!({ "name": TOOL, "inputSchema": { "type": "object" } });
                Some(
                    json!({ "resultType": "complete", "tools": [tool], "ttlMs": 60_000, "cacheScope": "public" }),
                )
            }
            "tools/call" => {
                self.asked += 1;
                let content = json!([{ "type": "text", "text": DONE }]);
                Some(json!({ "resultType": "complete", "content": content, "isError": false }))
            }
            _ => None,
        }
    }
}

fn error(status: u16, id: &Value, code: i64) -> Answer {
    let error = json!({ "code": code, "message": "not so" });
    let mut answer = says(&json!({ "jsonrpc": "2.0", "id": id, "error": error }));
    answer.status = status;
    answer
}

fn says(message: &Value) -> Answer {
    Answer {
        status: 200,
        headers: vec![("content-type", "application/json".to_owned())],
        parts: vec![Part::Text(message.to_string())],
    }
}

fn plain(status: u16) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        parts: Vec::new(),
    }
}
