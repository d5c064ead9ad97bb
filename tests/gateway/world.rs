//! A gateway with everything around it: stores, network, issuer, upstreams, clock.

pub mod ask;
pub mod bell;
pub mod host;
pub mod invariants;
pub mod issuer;
pub mod said;
pub mod script;
pub mod setup;
pub mod told;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::select;
use http::{Request, Response};
use serde_json::{Value, json};
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::Clock;
use tidegate_gateway::{Consumed, Gateway, Memory};
use tidegate_simulator::{Exchange, Running, Server, Simulator};

pub use ask::{Ask, legacy, modern};
pub use bell::Bell;
pub use said::{Heard, Said, Step, complete, error};
pub use script::Script;
pub use setup::Setup;
pub use told::{Live, Told};

use host::{Host, Isolate};
use invariants::Shared;

/// Text that stands for what a caller says and must not be recorded.
pub const ARGUMENT: &str = "CANARY-ARGUMENT";
/// Text that stands for what a tool answers and must not be recorded.
pub const RESULT: &str = "CANARY-RESULT";

/// How long a subject uses one token.
const TOKEN_HELD: Duration = Duration::from_secs(1800);

/// How an upstream answers.
pub type Answer = fn(&Heard) -> Said;
/// Something that happens to a world.
pub type Blow = fn(&World);

/// One isolate of a deployment, and all that is around it.
pub struct World {
    pub sim: Rc<Simulator>,
    pub shared: Rc<Shared>,
    host: Rc<Host>,
    gateway: Rc<Gateway<Isolate>>,
}

impl World {
    fn of(sim: Rc<Simulator>, shared: Rc<Shared>) -> Self {
        let host = Host::new(&sim);
        shared.hosts.borrow_mut().push(Rc::clone(&host));
        let gateway = Gateway::new(Isolate(Rc::clone(&host)), Rc::new(Memory::default()));
        Self {
            sim,
            shared,
            host,
            gateway: Rc::new(gateway),
        }
    }

    /// Another isolate of the same deployment, with an empty memory.
    pub fn isolate(&self) -> Self {
        Self::of(Rc::new(self.sim.isolate()), Rc::clone(&self.shared))
    }

    /// Answers a request of any kind, reading the answer to its end.
    #[track_caller]
    pub fn ask(&self, ask: Ask) -> Told {
        let request = self.request(ask);
        self.serve(request)
    }

    /// Answers one JSON-RPC request, which must leave exactly one audit line.
    #[track_caller]
    pub fn call(&self, ask: Ask) -> Told {
        let before = self.host.audits();
        let told = self.ask(ask);
        let lines = self.host.audits() - before;
        assert_eq!(lines, 1, "one audit line per call; the answer was {told:?}");
        told
    }

    /// Calls a tool as a modern client does.
    #[track_caller]
    pub fn tool(&self, name: &str) -> Told {
        self.call(tool(name))
    }

    /// The entries of a list, as a modern client sees them, by their key.
    #[track_caller]
    pub fn list(&self, method: &str) -> Vec<String> {
        self.call(modern(method, json!({}))).names()
    }

    /// A request as a host would hand it in.
    pub fn request(&self, ask: Ask) -> Request<Body> {
        let token = ask.bearer(|subject| self.token_of(subject));
        self.shared.secrets.borrow_mut().extend(token.clone());
        ask.into_request(token)
    }

    /// Answers a request as it is.
    #[track_caller]
    pub fn serve(&self, request: Request<Body>) -> Told {
        self.sim.run(async {
            let response = self.gateway.serve(request).await;
            Told::read(response).await
        })
    }

    /// Answers beside others: nothing happens until the future is driven.
    pub fn answering(&self, ask: Ask) -> impl Future<Output = Told> + 'static {
        let (gateway, request) = (Rc::clone(&self.gateway), self.request(ask));
        async move { Told::read(gateway.serve(request).await).await }
    }

    /// Begins to answer; nothing happens until the test goes on.
    pub fn open(&self, ask: Ask) -> Live {
        Live::new(&self.sim.clock, self.start(ask))
    }

    /// Begins to answer, for tests that step.
    pub fn start(&self, ask: Ask) -> Running<'static, Response<Body>> {
        let (gateway, request) = (Rc::clone(&self.gateway), self.request(ask));
        Running::new(&self.sim.clock, async move { gateway.serve(request).await })
    }

    /// Begins to answer and to read the answer to its end.
    pub fn start_call(&self, ask: Ask) -> Running<'static, Told> {
        let (gateway, request) = (Rc::clone(&self.gateway), self.request(ask));
        Running::new(&self.sim.clock, async move {
            Told::read(gateway.serve(request).await).await
        })
    }

    /// The token a subject holds; a new one where the old one is soon over.
    fn token_of(&self, subject: &str) -> String {
        let now = self.sim.clock.now();
        let mut held = self.shared.tokens.borrow_mut();
        if let Some((_, token)) = held.get(subject).filter(|(until, _)| now < *until) {
            return token.clone();
        }
        let claims = json!({ "sub": subject });
        let token = self.shared.issuer.token(&self.sim.clock, &claims);
        held.insert(subject.to_owned(), (now + TOKEN_HELD, token.clone()));
        token
    }

    /// A token with these claims besides the usual ones.
    pub fn token(&self, claims: &Value) -> String {
        let token = self.shared.issuer.token(&self.sim.clock, claims);
        self.shared.secrets.borrow_mut().insert(token.clone());
        token
    }

    /// Requests one upstream has received, oldest first.
    pub fn exchanges(&self, upstream: &str) -> Vec<Exchange> {
        self.sim.http.exchanges(&authority(upstream))
    }

    /// The JSON-RPC methods (or HTTP methods, where there is no body) an upstream was asked.
    pub fn asked(&self, upstream: &str) -> Vec<String> {
        self.exchanges(upstream).iter().map(method_of).collect()
    }

    /// How often an upstream was asked this.
    pub fn count(&self, upstream: &str, method: &str) -> usize {
        self.asked(upstream)
            .iter()
            .filter(|asked| *asked == method)
            .count()
    }

    /// The bodies of the requests of this method an upstream has received.
    pub fn bodies(&self, upstream: &str, method: &str) -> Vec<Value> {
        let exchanges = self.exchanges(upstream);
        let asked = exchanges
            .iter()
            .filter(|exchange| method_of(exchange) == method);
        asked
            .map(|exchange| serde_json::from_slice(&exchange.body()).unwrap_or(Value::Null))
            .collect()
    }

    /// The scripted server behind an upstream.
    pub fn server(&self, upstream: &str) -> Rc<Server> {
        Rc::clone(&self.shared.servers.borrow()[upstream])
    }

    /// Audit lines this isolate has written.
    pub fn audits(&self) -> Vec<Value> {
        self.events("audit")
    }

    /// Log lines of one event this isolate has written.
    pub fn events(&self, event: &str) -> Vec<Value> {
        self.host.events(event)
    }

    /// Every line this isolate has written.
    pub fn lines(&self) -> Vec<String> {
        self.host.lines()
    }

    /// Lets a test see only the lines that come next.
    pub fn forget_log(&self) {
        self.host.forget();
    }

    /// Runs what was deferred, to its end.
    #[track_caller]
    pub fn settle(&self) {
        self.sim.run(self.host.drive());
    }

    /// Lets what was deferred go as far as it can without moving time.
    pub fn step_deferred(&self) {
        Running::new(&self.sim.clock, self.host.drive()).step();
    }

    /// Lets what was deferred go on to the next place where others may come between.
    pub fn poll_deferred(&self) {
        Running::new(&self.sim.clock, self.host.drive()).poll_once();
    }

    /// Lets time pass, and whatever is under way go on meanwhile.
    pub fn wait(&self, by: Duration) {
        let deferred = poll_fn(|context| {
            let _ = pin!(self.host.drive()).poll(context);
            Poll::<()>::Pending
        });
        let over = self.sim.clock.sleep(by);
        self.sim.run(select(pin!(over), deferred));
    }

    /// Loses what this isolate has deferred, as a crash does.
    pub fn lose_deferred(&self) {
        self.host.lose_deferred();
    }

    /// Runs what was deferred, then moves time.
    pub fn later(&self, by: Duration) {
        self.settle();
        self.sim.clock.advance(by);
    }

    /// Delivers what the queue has to deliver now; gives what became of each message.
    pub fn deliver(&self) -> Vec<Consumed> {
        let messages = self.sim.queue.take();
        messages
            .into_iter()
            .map(|message| {
                let consumed = self.sim.run(self.gateway.consume(&message));
                if let Consumed::Retry { after } = consumed {
                    self.sim.queue.put_back(message, after);
                }
                consumed
            })
            .collect()
    }

    /// Delivers one message as it is.
    pub fn consume(&self, message: &[u8]) -> Consumed {
        self.sim.run(self.gateway.consume(message))
    }

    /// Begins to consume one message, for tests that step.
    pub fn start_consuming(&self, message: bytes::Bytes) -> Running<'static, Consumed> {
        let gateway = Rc::clone(&self.gateway);
        Running::new(
            &self.sim.clock,
            async move { gateway.consume(&message).await },
        )
    }

    /// Begins to take a message the queue gave up on.
    pub fn start_giving_up(&self, message: bytes::Bytes) -> Running<'static, Consumed> {
        let gateway = Rc::clone(&self.gateway);
        Running::new(&self.sim.clock, async move {
            gateway.consume_dead(&message).await
        })
    }

    /// Gives the gateway the messages the queue gave up on; gives what became of each.
    pub fn give_up(&self) -> Vec<Consumed> {
        let messages = self.sim.queue.take().into_iter();
        messages
            .map(|message| self.sim.run(self.gateway.consume_dead(&message)))
            .collect()
    }

    /// Lets the timer fire, for tests that step.
    pub fn start_tick(&self) -> Running<'static, ()> {
        let gateway = Rc::clone(&self.gateway);
        Running::new(&self.sim.clock, async move { gateway.tick().await })
    }

    /// Lets the timer fire.
    pub fn tick(&self) {
        self.sim.run(self.gateway.tick());
        self.settle();
    }
}

/// Where an upstream of this name is.
pub fn authority(upstream: &str) -> String {
    format!("{upstream}.example.com")
}

/// A modern `tools/call` with an argument that must not be recorded.
pub fn tool(name: &str) -> Ask {
    modern(
        "tools/call",
        json!({ "name": name, "arguments": { "q": ARGUMENT } }),
    )
}

fn method_of(exchange: &Exchange) -> String {
    let body: Option<Value> = serde_json::from_slice(&exchange.body()).ok();
    match body.as_ref().and_then(|body| body["method"].as_str()) {
        Some(method) => method.to_owned(),
        None if body.is_some() => "response".to_owned(),
        None => exchange.method.to_string(),
    }
}
