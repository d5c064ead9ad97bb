//! Streams of a scripted server that stay open: what it tells all who listen, when a test
//! says so.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tidegate_gateway::body::{Body, BodyError};

use super::said::{Heard, Said};
use super::script::Script;

const ID: &str = "io.modelcontextprotocol/subscriptionId";

/// Everybody who listens to one server; clones are the same bell.
#[derive(Clone, Default)]
pub struct Bell(Rc<Inner>);

#[derive(Default)]
struct Inner {
    open: RefCell<Vec<Rc<Line>>>,
    opened: Cell<usize>,
    /// Events carry ids from here on, so that a listener can say what it heard last.
    numbered: Cell<bool>,
    number: Cell<usize>,
}

#[derive(Default)]
struct Line {
    /// The request's id, where there was one.
    id: Value,
    chunks: RefCell<VecDeque<Option<Result<Bytes, BodyError>>>>,
    waker: RefCell<Option<Waker>>,
}

impl Bell {
    /// A server of 2026-07-28 that tells of everything.
    pub fn modern(script: &Script) -> Self {
        let bell = Self::declared(script);
        let own = bell.clone();
        script.on("subscriptions/listen", move |heard| {
            let honoured = heard.params()["notifications"].clone();
            own.acknowledge(heard, &honoured)
        });
        bell
    }

    /// A server of an older revision that tells of everything on its GET stream.
    pub fn legacy(script: &Script) -> Self {
        let bell = Self::declared(script);
        let own = bell.clone();
        script.on("GET", move |heard| own.answer(heard, &[]));
        script.on("resources/subscribe", |_| Said::Result(json!({})));
        bell
    }

    /// A server of 2024-11-05 that tells of everything on the stream its answers come on.
    pub fn http_sse(script: &Script) -> Self {
        let bell = Self::declared(script);
        script.sessionless();
        let own = bell.clone();
        script.on("GET", move |heard| {
            let said = own.answer(heard, &[]);
            let endpoint = "event: endpoint\ndata: /messages?session=1\n\n";
            own.last(Some(Ok(Bytes::from(endpoint))));
            said
        });
        let capabilities =
            json!({ "tools": { "listChanged": true }, "resources": { "subscribe": true } });
        let hello = json!({ "protocolVersion": "2024-11-05", "capabilities": capabilities, "serverInfo": { "name": "old", "version": "1" } });
        for (method, result) in [("initialize", hello), ("resources/subscribe", json!({}))] {
            let own = bell.clone();
            script.on(method, move |heard| {
                own.last(Some(Ok(event(&heard.response(&result)))));
                Said::Raw(202, "text/plain", Vec::new())
            });
        }
        bell
    }

    /// Sends something on the stream that was opened last.
    fn last(&self, chunk: Option<Result<Bytes, BodyError>>) {
        if let Some(line) = self.0.open.borrow().last() {
            line.push(chunk);
        }
    }

    fn declared(script: &Script) -> Self {
        for (name, value) in [
            ("tools", json!({ "listChanged": true })),
            ("prompts", json!({ "listChanged": true })),
            (
                "resources",
                json!({ "listChanged": true, "subscribe": true }),
            ),
        ] {
            script.capability(name, value);
        }
        Self::default()
    }

    /// A stream that begins with its acknowledgement.
    pub fn acknowledge(&self, heard: &Heard, honoured: &Value) -> Said {
        let params = json!({ "notifications": honoured, "_meta": { ID: heard.message["id"] } });
        let method = "notifications/subscriptions/acknowledged";
        self.answer(
            heard,
            &[json!({ "jsonrpc": "2.0", "method": method, "params": params })],
        )
    }

    /// A stream that begins with these messages.
    pub fn answer(&self, heard: &Heard, first: &[Value]) -> Said {
        let line = Rc::new(Line {
            id: heard.message["id"].clone(),
            ..Line::default()
        });
        for message in first {
            line.push(Some(Ok(event(message))));
        }
        self.0.open.borrow_mut().push(Rc::clone(&line));
        self.0.opened.set(self.0.opened.get() + 1);
        let body = stream::poll_fn(move |context| match line.chunks.borrow_mut().pop_front() {
            Some(chunk) => Poll::Ready(chunk),
            None => {
                *line.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        });
        Said::Body(200, "text/event-stream", Body::stream(body))
    }

    /// Numbers the events from now on.
    pub fn number(&self) {
        self.0.numbered.set(true);
    }

    /// Tells everybody of a change.
    pub fn ring(&self, method: &str, params: Value) {
        self.each(|line| {
            let mut params = params.clone();
            if !line.id.is_null() {
                params["_meta"][ID] = line.id.clone();
            }
            json!({ "jsonrpc": "2.0", "method": method, "params": params })
        });
    }

    /// Sends everybody a message.
    pub fn say(&self, message: &Value) {
        self.each(|_| message.clone());
    }

    fn each(&self, message: impl Fn(&Line) -> Value) {
        let number = self.0.number.get() + 1;
        self.0.number.set(number);
        for line in self.0.open.borrow().iter() {
            let mut text = String::new();
            if self.0.numbered.get() {
                text = format!("id: {number}\nretry: 2000\n");
            }
            text += &format!("event: message\ndata: {}\n\n", message(line));
            line.push(Some(Ok(Bytes::from(text))));
        }
    }

    /// Ends every stream in good order.
    pub fn end(&self) {
        for line in self.0.open.take() {
            if !line.id.is_null() {
                let result = json!({ "resultType": "complete", "_meta": { ID: line.id } });
                let message = json!({ "jsonrpc": "2.0", "id": line.id, "result": result });
                line.push(Some(Ok(event(&message))));
            }
            line.push(None);
        }
    }

    /// Cuts every stream.
    pub fn cut(&self) {
        for line in self.0.open.take() {
            line.push(Some(Err(BodyError("connection reset".to_owned()))));
        }
    }

    /// How many streams were opened so far.
    pub fn opened(&self) -> usize {
        self.0.opened.get()
    }
}

impl Line {
    fn push(&self, chunk: Option<Result<Bytes, BodyError>>) {
        self.chunks.borrow_mut().push_back(chunk);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn event(message: &Value) -> Bytes {
    Bytes::from(format!("event: message\ndata: {message}\n\n"))
}
