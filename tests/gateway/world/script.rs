//! Scripted MCP servers of either era, and what they can be made to say.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use http::{Method, Request, Response};
use serde_json::{Value, json};
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::HttpError;
use tidegate_simulator::{Server, SimClock, Simulator};

use super::RESULT;
use super::said::{Heard, Said, complete, error};

/// The newest revision.
pub const MODERN: &str = "2026-07-28";

type Rule = Rc<dyn Fn(&Heard) -> Said>;

/// A scripted server; clones are the same server.
#[derive(Clone)]
pub struct Script(Rc<Inner>);

struct Inner {
    /// The revision it speaks.
    version: Cell<&'static str>,
    /// What it lists, by result member.
    lists: RefCell<BTreeMap<&'static str, Vec<Value>>>,
    page: Cell<usize>,
    hints: Cell<Option<(i64, &'static str)>>,
    capabilities: RefCell<Value>,
    rules: RefCell<BTreeMap<String, Rule>>,
    sessions: RefCell<BTreeSet<String>>,
    opened: Cell<usize>,
    keeps_sessions: Cell<bool>,
}

impl Script {
    /// A server of 2026-07-28 with these tools.
    pub fn modern(tools: &[&str]) -> Self {
        Self::of(MODERN, tools)
    }

    /// A server of an older revision with these tools; it keeps sessions.
    pub fn legacy(version: &'static str, tools: &[&str]) -> Self {
        Self::of(version, tools)
    }

    fn of(version: &'static str, tools: &[&str]) -> Self {
        let script = Self(Rc::new(Inner {
            version: Cell::new(version),
            lists: RefCell::default(),
            page: Cell::new(usize::MAX),
            hints: Cell::new(None),
            capabilities: RefCell::new(json!({})),
            rules: RefCell::default(),
            sessions: RefCell::default(),
            opened: Cell::default(),
            keeps_sessions: Cell::new(version != MODERN),
        }));
        for tool in tools {
            let schema = json!({ "type": "object", "properties": { "q": { "type": "string" } } });
            let tool = json!({ "name": tool, "description": format!("About {tool}."), "inputSchema": schema });
            script.listing("tools", tool);
        }
        script
    }

    /// Lists one more thing under a result member, such as `tools`.
    pub fn listing(&self, member: &'static str, item: Value) -> &Self {
        self.0
            .lists
            .borrow_mut()
            .entry(member)
            .or_default()
            .push(item);
        let capability = if member == "resourceTemplates" {
            "resources"
        } else {
            member
        };
        self.capability(capability, json!({}))
    }

    /// Declares a capability.
    pub fn capability(&self, name: &str, value: Value) -> &Self {
        self.0.capabilities.borrow_mut()[name] = value;
        self
    }

    /// Lists in pages of this size.
    pub fn paged(&self, size: usize) -> &Self {
        self.0.page.set(size);
        self
    }

    /// Says how long and for whom its lists hold.
    pub fn hints(&self, ttl_ms: i64, scope: &'static str) -> &Self {
        self.0.hints.set(Some((ttl_ms, scope)));
        self
    }

    /// Answers a method (or `GET`, `DELETE`) like this from now on.
    pub fn on(&self, method: &str, rule: impl Fn(&Heard) -> Said + 'static) -> &Self {
        self.0
            .rules
            .borrow_mut()
            .insert(method.to_owned(), Rc::new(rule));
        self
    }

    /// Answers a method as by default again.
    pub fn off(&self, method: &str) -> &Self {
        self.0.rules.borrow_mut().remove(method);
        self
    }

    /// Does without sessions, as servers of 2025 may.
    pub fn sessionless(&self) -> &Self {
        self.0.keeps_sessions.set(false);
        self
    }

    /// Speaks another revision from now on; sessions are lost.
    pub fn upgrade(&self, version: &'static str) {
        self.0.version.set(version);
        self.0.keeps_sessions.set(version != MODERN);
        self.lose_sessions();
    }

    /// Forgets every session.
    pub fn lose_sessions(&self) {
        self.0.sessions.borrow_mut().clear();
    }

    /// Whether it speaks 2026-07-28.
    pub fn is_modern(&self) -> bool {
        self.0.version.get() == MODERN
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.0.sessions.borrow().len()
    }

    /// Whether a session is open.
    pub fn knows(&self, session: &str) -> bool {
        self.0.sessions.borrow().contains(session)
    }

    /// Puts the server on the network.
    pub fn serve(&self, sim: &Simulator, authority: &str) -> Rc<Server> {
        let (script, clock) = (self.clone(), sim.clock.clone());
        sim.http.serve(authority, move |request| {
            script.clone().answer(clock.clone(), request)
        })
    }

    async fn answer(
        self,
        clock: SimClock,
        request: Request<Body>,
    ) -> Result<Response<Body>, HttpError> {
        let (head, body) = request.into_parts();
        let bytes = body.read(16 * 1024 * 1024).await.unwrap();
        let message = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let heard = Heard {
            http_method: head.method,
            headers: head.headers,
            message,
        };
        let asked = if heard.http_method == Method::POST {
            heard.method()
        } else {
            heard.http_method.as_str()
        };
        let rule = self
            .0
            .rules
            .borrow()
            .get(asked)
            .cloned()
            .filter(|_| self.admitted(&heard));
        let said = rule.map_or_else(|| self.usual(&heard), |rule| rule(&heard));
        let opens = heard.method() == "initialize"
            && matches!(said, Said::Result(_))
            && self.0.keeps_sessions.get();
        let mut response = said.into_response(&heard, &clock).await?;
        if opens {
            response
                .headers_mut()
                .insert("mcp-session-id", self.open_session().parse().unwrap());
        }
        Ok(response)
    }

    fn admitted(&self, heard: &Heard) -> bool {
        let legacy = self.0.keeps_sessions.get();
        let outside = matches!(heard.method(), "initialize" | "server/discover" | "");
        !legacy
            || outside
            || self
                .0
                .sessions
                .borrow()
                .contains(heard.header("mcp-session-id"))
    }

    fn usual(&self, heard: &Heard) -> Said {
        match (self.0.version.get(), &heard.http_method) {
            (MODERN, &Method::POST) => self.modern_usual(heard),
            (_, &Method::POST) => self.legacy_usual(heard),
            (version, &Method::DELETE) if version != MODERN => {
                let known = self
                    .0
                    .sessions
                    .borrow_mut()
                    .remove(heard.header("mcp-session-id"));
                Said::Raw(if known { 200 } else { 404 }, "text/plain", Vec::new())
            }
            _ => Said::Raw(405, "text/plain", Vec::new()),
        }
    }

    fn modern_usual(&self, heard: &Heard) -> Said {
        let meta = &heard.params()["_meta"];
        if meta
            .get("io.modelcontextprotocol/protocolVersion")
            .is_none()
        {
            return Said::Refusal(400, error(heard, -32022));
        }
        assert_eq!(heard.header("mcp-protocol-version"), MODERN);
        assert_eq!(heard.header("mcp-method"), heard.method());
        assert!(heard.headers.get("mcp-session-id").is_none());
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], MODERN);
        assert!(meta["io.modelcontextprotocol/clientCapabilities"].is_object());
        match heard.method() {
            "server/discover" => Said::Result(json!({
                "resultType": "complete",
                "supportedVersions": [MODERN],
                "capabilities": *self.0.capabilities.borrow(),
                "ttlMs": 0,
                "cacheScope": "public",
            })),
            _ => self
                .served(heard)
                .unwrap_or_else(|| Said::Refusal(404, error(heard, -32601))),
        }
    }

    fn legacy_usual(&self, heard: &Heard) -> Said {
        match heard.method() {
            "initialize" => {
                self.0.opened.set(self.0.opened.get() + 1);
                Said::Result(json!({
                    "protocolVersion": self.0.version.get(),
                    "capabilities": *self.0.capabilities.borrow(),
                    "serverInfo": { "name": "scripted", "version": "1" },
                }))
            }
            "server/discover" => Said::Refusal(
                400,
                json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32000, "message": "Bad Request: no valid session" } }),
            ),
            _ if !self.admitted(heard) => {
                Said::Raw(404, "text/plain", b"Session not found".to_vec())
            }
            "" => Said::Raw(202, "text/plain", Vec::new()),
            method if method.starts_with("notifications/") => {
                Said::Raw(202, "text/plain", Vec::new())
            }
            _ => self.served(heard).unwrap_or(Said::Error(-32601)),
        }
    }

    /// What servers of both eras do alike.
    fn served(&self, heard: &Heard) -> Option<Said> {
        let member = match heard.method() {
            "tools/list" => "tools",
            "resources/list" => "resources",
            "resources/templates/list" => "resourceTemplates",
            "prompts/list" => "prompts",
            "tools/call" => {
                let name = heard.params()["name"].as_str().unwrap_or_default();
                return Some(match self.lists("tools", "name", name) {
                    true => Said::Result(complete(&format!("{RESULT} {name}"))),
                    false => Said::Error(-32602),
                });
            }
            "resources/read" => {
                let uri = &heard.params()["uri"];
                let contents = json!([{ "uri": uri, "text": RESULT }]);
                let result = json!({ "resultType": "complete", "contents": contents, "ttlMs": 0, "cacheScope": "private" });
                return Some(Said::Result(result));
            }
            "prompts/get" => {
                let content = json!({ "type": "text", "text": heard.params()["name"] });
                return Some(Said::Result(
                    json!({ "resultType": "complete", "messages": [{ "role": "user", "content": content }] }),
                ));
            }
            "completion/complete" => {
                return Some(Said::Result(
                    json!({ "resultType": "complete", "completion": { "values": [heard.params()["ref"]["name"], heard.params()["ref"]["uri"]] } }),
                ));
            }
            _ => return None,
        };
        self.0
            .lists
            .borrow()
            .get(member)
            .map(|items| Said::Result(self.page(member, items, heard)))
    }

    fn lists(&self, member: &str, key: &str, value: &str) -> bool {
        self.0
            .lists
            .borrow()
            .get(member)
            .is_some_and(|items| items.iter().any(|item| item[key] == value))
    }

    /// The empty cursor is the second page: a cursor like any other.
    fn page(&self, member: &str, items: &[Value], heard: &Heard) -> Value {
        let size = self.0.page.get();
        let number = match heard.params()["cursor"].as_str() {
            None => 0,
            Some("") => 1,
            Some(cursor) => cursor.parse().unwrap(),
        };
        let rest = &items[items.len().min(size.saturating_mul(number))..];
        let mut page = json!({ "resultType": "complete", member: rest[..rest.len().min(size)] });
        if rest.len() > size {
            page["nextCursor"] = if number == 0 {
                "".into()
            } else {
                (number + 1).to_string().into()
            };
        }
        if let Some((ttl_ms, scope)) = self.0.hints.get() {
            page["ttlMs"] = ttl_ms.into();
            page["cacheScope"] = scope.into();
        }
        page
    }

    fn open_session(&self) -> String {
        let id = format!("session-{}", self.0.opened.get());
        self.0.sessions.borrow_mut().insert(id.clone());
        id
    }
}
