//! What the gateway answers, read by a reader of its own.

use std::fmt;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::LocalBoxStream;
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;
use tidegate_gateway::body::{Body, BodyError};
use tidegate_simulator::{Running, SimClock};

/// A whole answer.
pub struct Told {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
    /// The JSON-RPC messages in it.
    pub messages: Vec<Value>,
    /// Comments among the events.
    pub comments: usize,
}

impl Told {
    /// Reads an answer to its end.
    pub async fn read(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let chunks: Vec<_> = body.into_stream().collect().await;
        let bytes: Vec<u8> = chunks
            .into_iter()
            .flat_map(|chunk| chunk.unwrap().to_vec())
            .collect();
        let text = String::from_utf8(bytes).unwrap();
        let kind = head
            .headers
            .get("content-type")
            .map_or("", |kind| kind.to_str().unwrap());
        let (messages, comments) = match kind {
            "text/event-stream" => events(&text),
            "application/json" => (vec![serde_json::from_str(&text).unwrap()], 0),
            _ => (Vec::new(), 0),
        };
        Self {
            status: head.status,
            headers: head.headers,
            text,
            messages,
            comments,
        }
    }

    /// Whether it came as an event stream.
    pub fn streamed(&self) -> bool {
        self.header("content-type") == "text/event-stream"
    }

    /// A header's text; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The last message.
    #[track_caller]
    pub fn json(&self) -> &Value {
        self.messages
            .last()
            .unwrap_or_else(|| panic!("no message in {self:?}"))
    }

    /// The result; fails the test if there is none.
    #[track_caller]
    pub fn result(&self) -> &Value {
        let result = &self.json()["result"];
        assert!(result.is_object(), "no result in {self:?}");
        result
    }

    /// The JSON-RPC error; fails the test if there is none.
    #[track_caller]
    pub fn error(&self) -> &Value {
        let error = &self.json()["error"];
        assert!(
            error["code"].is_i64() && error["message"].is_string(),
            "no error in {self:?}"
        );
        error
    }

    /// The error's code.
    #[track_caller]
    pub fn code(&self) -> i64 {
        self.error()["code"].as_i64().unwrap()
    }

    /// Status and code together.
    #[track_caller]
    pub fn refusal(&self) -> (u16, i64) {
        (self.status.as_u16(), self.code())
    }

    /// The `reason` the gateway's own errors carry.
    #[track_caller]
    pub fn reason(&self) -> &str {
        self.error()["data"]["reason"].as_str().unwrap_or_default()
    }

    /// What a tool said.
    #[track_caller]
    pub fn said(&self) -> &str {
        self.result()["content"][0]["text"]
            .as_str()
            .unwrap_or_default()
    }

    /// The items of a list, by their key.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        let result = self.result();
        let lists = [
            ("tools", "name"),
            ("prompts", "name"),
            ("resources", "uri"),
            ("resourceTemplates", "uriTemplate"),
        ];
        let (member, key) = lists
            .into_iter()
            .find(|(member, _)| result[member].is_array())
            .unwrap();
        let items = result[member].as_array().unwrap();
        items
            .iter()
            .map(|item| item[key].as_str().unwrap().to_owned())
            .collect()
    }

    /// Methods of the notifications, in order.
    pub fn notifications(&self) -> Vec<&str> {
        self.messages
            .iter()
            .filter_map(|message| message["method"].as_str())
            .collect()
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.text)
    }
}

/// Reads events strictly: what we emit has one form.
fn events(text: &str) -> (Vec<Value>, usize) {
    let (mut messages, mut comments) = (Vec::new(), 0);
    for block in text.split_terminator("\n\n") {
        if block.starts_with(':') {
            comments += 1;
            continue;
        }
        let data = block
            .strip_prefix("event: message\ndata: ")
            .unwrap_or_else(|| panic!("not our form: {block:?}"));
        assert!(!data.contains('\n'), "one data line: {block:?}");
        messages.push(serde_json::from_str(data).unwrap());
    }
    (messages, comments)
}

/// An answer that is looked at while it comes.
pub struct Live {
    clock: SimClock,
    state: State,
}

enum State {
    Waiting(Running<'static, Response<Body>>),
    Body(LocalBoxStream<'static, Result<Bytes, BodyError>>),
    Ended,
}

impl Live {
    pub fn new(clock: &SimClock, response: Running<'static, Response<Body>>) -> Self {
        Self {
            clock: clock.clone(),
            state: State::Waiting(response),
        }
    }

    /// Whether all of it has come.
    pub const fn ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the head has come.
    pub const fn begun(&self) -> bool {
        !matches!(self.state, State::Waiting(_))
    }

    /// Goes as far as possible without moving time; the head once it is there.
    pub fn head(&mut self) -> Option<(StatusCode, HeaderMap)> {
        let State::Waiting(response) = &mut self.state else {
            panic!("the head has come")
        };
        let (head, body) = response.step()?.into_parts();
        self.state = State::Body(body.into_stream());
        Some((head.status, head.headers))
    }

    /// What has come of the body by now.
    pub fn text(&mut self) -> String {
        let mut text = String::new();
        loop {
            let chunks = match &mut self.state {
                State::Waiting(_) => panic!("no head yet"),
                State::Ended => return text,
                State::Body(chunks) => chunks,
            };
            let next = Running::new(&self.clock, chunks.next()).step();
            match next {
                Some(Some(chunk)) => text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap()),
                Some(None) => self.state = State::Ended,
                None => return text,
            }
        }
    }
}
