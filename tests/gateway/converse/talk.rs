//! A legacy client in a session, which calls, is asked and answers; and upstreams that ask.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::world::{ARGUMENT, Ask, Live, RESULT, Said, Script, Step, Told, World};
use crate::world::{complete, legacy};

pub const VERSION: &str = "2025-11-25";
/// How far time moves at once.
const TICK: Duration = Duration::from_millis(100);
/// Longer than any call here takes.
const TICKS_MAX: usize = 12_000;

/// A client in its session, at one isolate.
pub struct Client<'w> {
    pub world: &'w World,
    pub session: String,
    by: &'static str,
}

impl<'w> Client<'w> {
    pub fn of(world: &'w World, capabilities: Value) -> Self {
        Self::by(world, "ada", capabilities)
    }

    pub fn by(world: &'w World, by: &'static str, capabilities: Value) -> Self {
        let params = json!({ "protocolVersion": VERSION, "capabilities": capabilities, "clientInfo": { "name": "c", "version": "1" } });
        let told = world.call(legacy(VERSION, "initialize", params).by(by));
        let session = told.header("mcp-session-id").to_owned();
        // Whoever holds it still needs a token, but it has no business in a log either.
        world.shared.secrets.borrow_mut().insert(session.clone());
        Self { world, session, by }
    }

    /// The same session at another isolate.
    pub fn at<'v>(&self, world: &'v World) -> Client<'v> {
        let session = self.session.clone();
        let by = self.by;
        Client { world, session, by }
    }

    pub fn ask(&self, method: &str, params: Value) -> Ask {
        let ask = legacy(VERSION, method, params).by(self.by);
        ask.header("mcp-session-id", &self.session)
    }

    /// A call of `up__ask`.
    pub fn tool(&self) -> Ask {
        let params = json!({ "name": "up__ask", "arguments": { "q": ARGUMENT } });
        self.ask("tools/call", params)
    }

    /// Begins to call `up__ask`.
    pub fn call(&self) -> Talk<'w> {
        self.open(self.tool())
    }

    pub fn open(&self, ask: Ask) -> Talk<'w> {
        Talk {
            world: self.world,
            live: self.world.open(ask),
            status: None,
            text: String::new(),
        }
    }

    /// Posts a message in the session.
    pub fn post(&self, message: Value) -> Told {
        let ask = Ask::post(message).by(self.by);
        self.world.ask(ask.header("mcp-session-id", &self.session))
    }

    /// Answers a question well.
    #[track_caller]
    pub fn answer(&self, question: &Value, result: Value) {
        let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
        assert_eq!(self.post(answer).status, 202);
    }

    /// Answers a question with an error.
    #[track_caller]
    pub fn refuse(&self, question: &Value) {
        let error = json!({ "code": -1, "message": "User rejected it" });
        let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "error": error });
        assert_eq!(self.post(answer).status, 202);
    }

    /// Cancels a call.
    #[track_caller]
    pub fn cancel(&self, id: Value) {
        let told = self.world.ask(self.ask(
            "notifications/cancelled",
            json!({ "requestId": id, "reason": ARGUMENT }),
        ));
        assert_eq!((told.status.as_u16(), told.text.as_str()), (202, ""));
    }
}

/// A call under way.
pub struct Talk<'w> {
    world: &'w World,
    live: Live,
    pub status: Option<StatusCode>,
    text: String,
}

impl Talk<'_> {
    /// Goes as far as possible without moving time.
    pub fn step(&mut self) {
        if !self.live.begun() {
            self.status = self.live.head().map(|(status, _)| status);
        }
        if self.live.begun() {
            self.text.push_str(&self.live.text());
        }
    }

    /// The next message, if there is one without moving time.
    pub fn message(&mut self) -> Option<Value> {
        self.step();
        while let Some((event, rest)) = self.text.split_once("\n\n") {
            let data = event.strip_prefix("event: message\ndata: ");
            let message = data.map(|data| serde_json::from_str(data).unwrap());
            self.text = rest.to_owned();
            if message.is_some() {
                return message;
            }
        }
        if self.live.ended() && !self.text.is_empty() {
            return Some(serde_json::from_str(&std::mem::take(&mut self.text)).unwrap());
        }
        None
    }

    /// The next message, letting time pass; `None` once there will be none.
    pub fn next(&mut self) -> Option<Value> {
        for _ in 0..TICKS_MAX {
            if let Some(message) = self.message() {
                return Some(message);
            }
            if self.live.ended() {
                return None;
            }
            self.world.step_deferred();
            self.world.sim.clock.advance(TICK);
        }
        panic!("nothing comes: {:?}", self.text)
    }

    /// The next message, which is a question.
    #[track_caller]
    pub fn question(&mut self) -> Value {
        let message = self.next().expect("a question");
        assert!(message["method"].is_string() && message["id"].is_string());
        message
    }

    /// The response, which is the next message and the last.
    #[track_caller]
    pub fn end(&mut self) -> Value {
        let message = self.next().expect("a response");
        assert!(message.get("method").is_none(), "{message}");
        assert_eq!(self.next(), None);
        message
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        let ticks = time.as_millis() / TICK.as_millis();
        for _ in 0..ticks {
            self.step();
            self.world.step_deferred();
            self.world.sim.clock.advance(TICK);
        }
        self.step();
    }
}

/// What a legacy upstream was answered, in order.
pub type Answers = Rc<RefCell<Vec<Value>>>;

/// A legacy upstream whose tool asks these questions at once, each with its method as id,
/// and ends when all are answered.
pub fn asking(questions: &[(&str, Value)]) -> (Script, Answers) {
    let script = Script::legacy(VERSION, &["ask"]);
    let answers = Answers::default();
    let per_session = Rc::new(RefCell::new(BTreeMap::<String, usize>::new()));
    let (heard, counts) = (Rc::clone(&answers), Rc::clone(&per_session));
    script.on("", move |answer| {
        heard.borrow_mut().push(answer.message.clone());
        let session = answer.header("mcp-session-id").to_owned();
        *counts.borrow_mut().entry(session).or_default() += 1;
        Said::Raw(202, "text/plain", Vec::new())
    });
    let count = questions.len();
    let questions: Vec<Value> = questions
        .iter()
        .map(|(method, params)| json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params }))
        .collect();
    script.on("tools/call", move |call| {
        let mut steps: Vec<Step> = questions.iter().cloned().map(Step::Send).collect();
        let (counts, session) = (
            Rc::clone(&per_session),
            call.header("mcp-session-id").to_owned(),
        );
        let answered = move || counts.borrow().get(&session).copied().unwrap_or(0);
        let goal = answered() + count;
        steps.push(Step::Until(Rc::new(move || answered() >= goal)));
        steps.push(Step::Send(call.response(&complete("thanks"))));
        Said::Stream(steps)
    });
    (script, answers)
}

/// A modern upstream whose tool requires this input and says what it got.
pub fn requiring(requests: Value) -> Script {
    let script = Script::modern(&["ask"]);
    script.on("tools/call", move |call| {
        let (params, given) = (call.params(), &call.params()["inputResponses"]);
        if given.is_null() {
            return required(&requests);
        }
        Said::Result(complete(&format!("{given} {}", params["requestState"])))
    });
    script
}

/// A result that requires this input.
pub fn required(requests: &Value) -> Said {
    Said::Result(
        json!({ "resultType": "input_required", "inputRequests": requests, "requestState": "st\u{e4}te" }),
    )
}

pub fn form() -> Value {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    json!({ "message": format!("Who are you? {RESULT}"), "requestedSchema": schema })
}

pub fn name(name: &str) -> Value {
    json!({ "action": "accept", "content": { "name": format!("{name} {ARGUMENT}") } })
}

/// Everything a client can declare.
pub fn everything() -> Value {
    json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {}, "roots": { "listChanged": true } })
}
