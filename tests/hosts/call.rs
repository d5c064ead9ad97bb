//! One HTTP exchange with a gateway, without a client in between.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::{HeaderMap, Request as HttpRequest, Response};

/// Longest any answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// One HTTP request; by default a well-formed modern one.
#[derive(Clone, Debug)]
pub struct Call {
    method: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Value,
    /// Sent in place of `body`.
    raw: Option<String>,
}

impl Call {
    /// `method` with `params`, in the envelope and headers of 2026-07-28.
    pub fn modern(method: &str, mut params: Value) -> Self {
        let name = ["name", "uri", "taskId"]
            .iter()
            .find_map(|key| params[*key].as_str())
            .map(str::to_owned);
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("accept", "application/json, text/event-stream".to_owned()),
            ("mcp-protocol-version", "2026-07-28".to_owned()),
            ("mcp-method", method.to_owned()),
        ];
        headers.extend(name.map(|name| ("mcp-name", name)));
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        Self {
            method: "POST",
            headers,
            body,
            raw: None,
        }
    }

    /// `method` as clients before 2026-07-28 send it.
    pub fn legacy(method: &str, params: Value) -> Self {
        let mut call = Self::modern(method, json!({}));
        call.body["params"] = params;
        call.without("mcp-method")
            .with("mcp-protocol-version", "2025-11-25")
    }

    /// A tool call without arguments.
    pub fn tool(name: &str) -> Self {
        Self::modern("tools/call", json!({ "name": name, "arguments": {} }))
    }

    pub fn with_arguments(mut self, arguments: &str) -> Self {
        self.body["params"]["arguments"] =
            serde_json::from_str(arguments).expect("arguments are JSON");
        self
    }

    pub fn with_token(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// Declares the tasks extension.
    pub fn declaring_tasks(self) -> Self {
        let capabilities = "/params/_meta/io.modelcontextprotocol~1clientCapabilities";
        self.at(
            capabilities,
            json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } }),
        )
    }

    /// Sets a header.
    pub fn with(self, name: &'static str, value: &str) -> Self {
        let mut call = self.without(name);
        call.headers.push((name, value.to_owned()));
        call
    }

    /// A header as it would be sent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(present, _)| *present == name)
            .map(|(_, value)| value.as_str())
    }

    /// Leaves a header out.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(present, _)| *present != name);
        self
    }

    /// Sets a member of the body.
    pub fn at(mut self, pointer: &str, value: Value) -> Self {
        *self
            .body
            .pointer_mut(pointer)
            .expect("a member that is there") = value;
        self
    }

    /// Sends this text in place of JSON.
    pub fn raw(mut self, text: &str) -> Self {
        self.raw = Some(text.to_owned());
        self
    }

    /// Sets the HTTP method.
    pub fn by(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }
}

/// An HTTP response, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    headers: HeaderMap,
}

impl Answer {
    /// A header's value, empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The JSON in the body, or in the last event of a stream.
    pub fn json(&self) -> Value {
        let last_event = self
            .body
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("data:"));
        let text = if self.header("content-type").starts_with("text/event-stream") {
            last_event
        } else {
            None
        };
        let text = text.unwrap_or(&self.body);
        serde_json::from_str(text).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }
}

/// Sends `call` and reads the whole answer.
pub fn send(url: &str, call: &Call) -> Answer {
    let mut response = begin(url, call);
    let body = response
        .body_mut()
        .read_to_string()
        .unwrap_or_else(|e| panic!("{} {url}: {e}", call.method));
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body,
    }
}

/// Sends `call` and reads the messages of its event stream up to the first that is the `last`
/// one wanted; then the stream is let go, whose end may be far away.
pub fn send_until(url: &str, call: &Call, last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut response = begin(url, call);
    let mut messages = Vec::new();
    for line in BufReader::new(response.body_mut().as_reader()).lines() {
        let line = line.unwrap_or_else(|e| panic!("{url}: {e} after {messages:?}"));
        let data = line.strip_prefix("data:").map(str::trim);
        let Some(data) = data.filter(|data| !data.is_empty()) else {
            continue;
        };
        let message = serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {line}"));
        messages.push(message);
        if messages.last().is_some_and(&last) {
            return messages;
        }
    }
    panic!("{url}: the stream ended after {messages:?}");
}

fn begin(url: &str, call: &Call) -> Response<ureq::Body> {
    let mut request = HttpRequest::builder().method(call.method).uri(url);
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_MAX))
        .http_status_as_error(false)
        .build()
        .into();
    let body = call.raw.clone().unwrap_or_else(|| call.body.to_string());
    let answered = if call.method == "POST" {
        agent.run(request.body(body).expect("a request"))
    } else {
        agent.run(request.body(()).expect("a request"))
    };
    answered.unwrap_or_else(|e| panic!("{} {url}: {e}", call.method))
}

/// A plain GET.
pub fn get(url: &str) -> Answer {
    get_with(url, None)
}

/// A GET with a bearer token.
pub fn get_with(url: &str, token: Option<&str>) -> Answer {
    let call = Call {
        method: "GET",
        headers: Vec::new(),
        body: Value::Null,
        raw: None,
    };
    send(
        url,
        &token.map_or(call.clone(), |token| call.with_token(token)),
    )
}
