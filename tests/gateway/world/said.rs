//! What a scripted server hears, and what it can be made to say.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Response};
use serde_json::{Value, json};
use tidegate_gateway::body::{Body, BodyError};
use tidegate_gateway::platform::{Clock, HttpError};
use tidegate_simulator::SimClock;

/// One message as a scripted server heard it.
pub struct Heard {
    pub http_method: Method,
    pub headers: HeaderMap,
    pub message: Value,
}

impl Heard {
    pub fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or_default()
    }

    pub fn params(&self) -> &Value {
        &self.message["params"]
    }

    /// The progress token the gateway gave.
    pub fn progress_token(&self) -> Value {
        self.params()["_meta"]["progressToken"].clone()
    }

    /// The answer to this message.
    pub fn response(&self, result: &Value) -> Value {
        json!({ "jsonrpc": "2.0", "id": self.message["id"], "result": result })
    }

    /// A progress notification for this message.
    pub fn progress(&self, progress: u32) -> Value {
        let params = json!({ "progressToken": self.progress_token(), "progress": progress });
        json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// What a server does with a message.
pub enum Said {
    /// A result.
    Result(Value),
    /// A JSON-RPC error under status 200.
    Error(i64),
    /// A JSON-RPC error object under a status.
    Refusal(u16, Value),
    /// An event stream.
    Stream(Vec<Step>),
    /// Any body under any status and content type.
    Raw(u16, &'static str, Vec<u8>),
    /// No message under a status, with the time to come back.
    Later(u16, &'static str),
    /// Any body that comes as it likes.
    Body(u16, &'static str, Body),
    /// Nothing, for so long; then the rest.
    After(Duration, Box<Self>),
    /// No answer to the connection.
    NoAnswer(HttpError),
}

/// One step of an event stream.
#[derive(Clone)]
pub enum Step {
    /// A message as one event.
    Send(Value),
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// A pause.
    Wait(Duration),
    /// Nothing, until this holds.
    Until(Rc<dyn Fn() -> bool>),
    /// The connection is cut.
    Reset,
}

/// A complete tool result.
pub fn complete(text: &str) -> Value {
    json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }], "isError": false })
}

/// A JSON-RPC error that answers `heard`.
pub fn error(heard: &Heard, code: i64) -> Value {
    json!({ "jsonrpc": "2.0", "id": heard.message["id"], "error": { "code": code, "message": "said the upstream" } })
}

impl Said {
    /// Says it.
    pub async fn into_response(
        self,
        heard: &Heard,
        clock: &SimClock,
    ) -> Result<Response<Body>, HttpError> {
        let mut said = self;
        while let Self::After(pause, rest) = said {
            clock.sleep(pause).await;
            said = *rest;
        }
        let (status, kind, body) = match said {
            Self::Result(result) => (
                200,
                "application/json",
                Body::from(heard.response(&result).to_string()),
            ),
            Self::Error(code) => (
                200,
                "application/json",
                Body::from(error(heard, code).to_string()),
            ),
            Self::Refusal(status, body) => {
                (status, "application/json", Body::from(body.to_string()))
            }
            Self::Stream(steps) => (200, "text/event-stream", streamed(steps, clock)),
            Self::Raw(status, kind, bytes) => (status, kind, Body::from(bytes)),
            Self::Later(status, after) => {
                return Ok(Response::builder()
                    .status(status)
                    .header("retry-after", after)
                    .body(Body::empty())
                    .unwrap());
            }
            Self::Body(status, kind, body) => (status, kind, body),
            Self::NoAnswer(error) => return Err(error),
            Self::After(..) => unreachable!("waited for"),
        };
        Ok(Response::builder()
            .status(status)
            .header("content-type", kind)
            .body(body)
            .unwrap())
    }
}

fn streamed(steps: Vec<Step>, clock: &SimClock) -> Body {
    let state = (VecDeque::from(steps), clock.clone());
    Body::stream(stream::unfold(state, |(mut steps, clock)| async move {
        loop {
            let chunk = match steps.pop_front()? {
                Step::Wait(pause) => {
                    clock.sleep(pause).await;
                    continue;
                }
                Step::Until(holds) => {
                    while !holds() {
                        clock.sleep(Duration::from_millis(50)).await;
                    }
                    continue;
                }
                Step::Send(message) => {
                    Ok(Bytes::from(format!("event: message\ndata: {message}\n\n")))
                }
                Step::Bytes(bytes) => Ok(Bytes::from(bytes)),
                Step::Reset => Err(BodyError("connection reset".to_owned())),
            };
            return Some((chunk, (steps, clock)));
        }
    }))
}
