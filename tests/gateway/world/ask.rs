//! What a client sends.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use serde_json::{Value, json};
use tidegate_gateway::body::Body;
use tidegate_gateway::ingress::Peer;

use super::invariants::{COOKIE, PROOF};
use super::script::MODERN;

/// A request in the making: well formed until a test makes it otherwise.
#[derive(Clone)]
pub struct Ask {
    method: Method,
    host: String,
    path: String,
    headers: HeaderMap,
    /// The JSON-RPC message.
    pub message: Value,
    body: Option<Vec<Bytes>>,
    by: Token,
    certificate: Option<[u8; 32]>,
    /// Address and country, as the platform sees them.
    from: (Option<String>, Option<String>),
}

#[derive(Clone)]
enum Token {
    Of(String),
    Text(String),
    None,
}

/// A request of 2026-07-28.
pub fn modern(method: &str, params: Value) -> Ask {
    let mut message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    message["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "scripted", "version": "1" },
    });
    let ask = Ask::post(message)
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", method);
    let member = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return ask,
    };
    match params[member].as_str() {
        Some(name) => ask.header("mcp-name", name),
        None => ask,
    }
}

/// A request of an older revision; a notification where the method is one.
pub fn legacy(version: &str, method: &str, params: Value) -> Ask {
    let mut message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    if method.starts_with("notifications/") {
        message.as_object_mut().unwrap().shift_remove("id");
    }
    let ask = Ask::post(message);
    // `initialize` comes before a version is agreed on, and 2025-03-26 has no such header.
    if method == "initialize" || version < "2025-06-18" {
        ask
    } else {
        ask.header("mcp-protocol-version", version)
    }
}

impl Ask {
    /// A POST of any message to `/mcp`.
    pub fn post(message: Value) -> Self {
        let ask = Self {
            method: Method::POST,
            host: "gw.example.com".to_owned(),
            path: "/mcp".to_owned(),
            headers: HeaderMap::new(),
            message,
            body: None,
            by: Token::Of("ada".to_owned()),
            certificate: None,
            from: (Some("203.0.113.7".to_owned()), None),
        };
        ask.header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("host", "gw.example.com")
            .header("cookie", COOKIE)
            .header("dpop", PROOF)
    }

    /// A request of another HTTP method, without a body.
    pub fn http(method: &str, path: &str) -> Self {
        let mut ask = Self::post(Value::Null).to(path);
        ask.method = method.parse().unwrap();
        ask.body = Some(Vec::new());
        ask.without("content-type")
    }

    /// Uses another HTTP method.
    pub fn using(mut self, method: &str) -> Self {
        self.method = method.parse().unwrap();
        self
    }

    /// Uses another JSON-RPC method, in the body and in the header.
    pub fn method(mut self, method: &str) -> Self {
        self.message["method"] = method.into();
        self.header("mcp-method", method)
    }

    /// Sends a header in place of any of the same name.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(
            name.parse::<HeaderName>().unwrap(),
            value.parse::<HeaderValue>().unwrap(),
        );
        self
    }

    /// Sends a header once more.
    pub fn also(mut self, name: &str, value: &str) -> Self {
        self.headers.append(
            name.parse::<HeaderName>().unwrap(),
            value.parse::<HeaderValue>().unwrap(),
        );
        self
    }

    /// Does not send a header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Sends it to another path.
    pub fn to(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Sends it to another host.
    pub fn at(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self.header("host", host)
    }

    /// Uses another request id.
    pub fn id(mut self, id: Value) -> Self {
        self.message["id"] = id;
        self
    }

    /// Sets a member of `_meta`; a short name is one of the reserved ones.
    pub fn meta(mut self, name: &str, value: Value) -> Self {
        let name = match name {
            "clientCapabilities" | "protocolVersion" | "clientInfo" | "logLevel" => {
                format!("io.modelcontextprotocol/{name}")
            }
            other => other.to_owned(),
        };
        self.message["params"]["_meta"][&name] = value;
        self
    }

    /// Sets a member of `params`.
    pub fn param(mut self, name: &str, value: Value) -> Self {
        self.message["params"][name] = value;
        self
    }

    /// Declares the tasks extension.
    pub fn with_tasks(self) -> Self {
        self.meta(
            "clientCapabilities",
            json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } }),
        )
    }

    /// Sends another body.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = Some(vec![bytes.into()]);
        self
    }

    /// Sends a body in chunks, of undeclared length.
    pub fn chunks(mut self, chunks: Vec<Bytes>) -> Self {
        self.body = Some(chunks);
        self
    }

    /// Is another principal.
    pub fn by(mut self, subject: &str) -> Self {
        self.by = Token::Of(subject.to_owned());
        self
    }

    /// Sends this token.
    pub fn token(mut self, token: &str) -> Self {
        self.by = Token::Text(token.to_owned());
        self
    }

    /// Sends no token.
    pub fn anonymous(mut self) -> Self {
        self.by = Token::None;
        self
    }

    /// Comes from there, as far as the platform can tell.
    pub fn from(mut self, address: Option<&str>, country: Option<&str>) -> Self {
        self.from = (address.map(str::to_owned), country.map(str::to_owned));
        self
    }

    /// Shows a TLS certificate of this digest.
    pub fn certificate(mut self, digest: [u8; 32]) -> Self {
        self.certificate = Some(digest);
        self
    }

    /// The token it sends.
    pub fn bearer(&self, issue: impl FnOnce(&str) -> String) -> Option<String> {
        match &self.by {
            Token::Of(subject) => Some(issue(subject)),
            Token::Text(token) => Some(token.clone()),
            Token::None => None,
        }
    }

    /// The request as a host hands it in.
    pub fn into_request(self, token: Option<String>) -> Request<Body> {
        let body = match self.body {
            None => Body::from(self.message.to_string()),
            Some(chunks) if chunks.len() == 1 => Body::Full(chunks[0].clone()),
            Some(chunks) => Body::stream(stream::iter(chunks.into_iter().map(Ok))),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = format!("https://{}{}", self.host, self.path)
            .parse()
            .unwrap();
        *request.headers_mut() = self.headers;
        if let Some(token) = token {
            request
                .headers_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        request.extensions_mut().insert(Peer {
            address: self.from.0,
            country: self.from.1,
            certificate: self.certificate,
        });
        request
    }
}
