//! Scripted servers behind an HTTP client that records what was sent to them.
//!
//! A host nobody serves refuses the connection, so nothing ever leaves the process.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{FutureExt, LocalBoxFuture};
use futures_util::stream::{self, LocalBoxStream, StreamExt};
use http::{HeaderMap, Method, Request, Response, Uri};
use tidegate_gateway::body::{Body, BodyError};
use tidegate_gateway::platform::{Clock, HttpClient, HttpError};
use tidegate_gateway::time::Timestamp;

use crate::clock::SimClock;
use crate::run::give_way;

type Answer = Result<Response<Body>, HttpError>;

/// The network: shared by all isolates of a world.
#[derive(Clone)]
pub struct SimHttp {
    world: Rc<World>,
    clock: SimClock,
}

#[derive(Default)]
struct World {
    servers: RefCell<BTreeMap<String, Rc<Server>>>,
    exchanges: RefCell<Vec<Exchange>>,
}

/// A scripted server and how it misbehaves.
pub struct Server {
    handler: Box<dyn Fn(Request<Body>) -> LocalBoxFuture<'static, Answer>>,
    /// Refuses connections: the request was certainly not sent.
    pub down: Cell<bool>,
    /// Acts on the request, then cuts the connection before the head of its answer.
    pub cut_before_head: Cell<bool>,
    /// Cuts the connection after so many bytes of its answer's body.
    pub cut_after: Cell<Option<usize>>,
    /// Waits before the head of its answer.
    pub head_delay: Cell<Duration>,
    /// Waits before each chunk of its answer's body.
    pub chunk_delay: Cell<Duration>,
}

/// One request as a server received it.
#[derive(Clone)]
pub struct Exchange {
    /// When it was sent.
    pub at: Timestamp,
    /// Its method.
    pub method: Method,
    /// Its URI.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    body: Rc<RefCell<BytesMut>>,
    end: Rc<Cell<End>>,
}

/// How an exchange ended, as the server saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has not.
    InFlight,
    /// The whole answer was taken.
    Complete,
    /// There was no answer, or it was cut off.
    Failed,
    /// The client went away before the end.
    Cancelled,
}

impl Exchange {
    /// What the server has read of the request's body.
    pub fn body(&self) -> Bytes {
        self.body.borrow().clone().freeze()
    }

    /// How the exchange ended.
    pub fn end(&self) -> End {
        self.end.get()
    }
}

impl SimHttp {
    pub(crate) fn new(clock: &SimClock) -> Self {
        Self {
            world: Rc::default(),
            clock: clock.clone(),
        }
    }

    /// Puts a server behind `authority` (`host` or `host:port`, as requests write it).
    pub fn serve<F>(
        &self,
        authority: &str,
        handler: impl Fn(Request<Body>) -> F + 'static,
    ) -> Rc<Server>
    where
        F: Future<Output = Answer> + 'static,
    {
        let server = Rc::new(Server {
            handler: Box::new(move |request| handler(request).boxed_local()),
            down: Cell::default(),
            cut_before_head: Cell::default(),
            cut_after: Cell::default(),
            head_delay: Cell::default(),
            chunk_delay: Cell::default(),
        });
        self.world
            .servers
            .borrow_mut()
            .insert(authority.to_owned(), Rc::clone(&server));
        server
    }

    /// Every request so far to `authority`, oldest first.
    pub fn exchanges(&self, authority: &str) -> Vec<Exchange> {
        let exchanges = self.world.exchanges.borrow();
        exchanges
            .iter()
            .filter(|e| e.uri.authority().is_some_and(|a| a == authority))
            .cloned()
            .collect()
    }

    fn record(&self, request: Request<Body>) -> (Request<Body>, Guard) {
        let (head, body) = request.into_parts();
        let read = Rc::new(RefCell::new(BytesMut::new()));
        let body = match body {
            Body::Full(bytes) => {
                read.borrow_mut().extend_from_slice(&bytes);
                Body::Full(bytes)
            }
            Body::Stream(chunks) => {
                let read = Rc::clone(&read);
                Body::stream(chunks.inspect(move |chunk| {
                    if let Ok(chunk) = chunk {
                        read.borrow_mut().extend_from_slice(chunk);
                    }
                }))
            }
        };
        let end = Rc::new(Cell::new(End::InFlight));
        self.world.exchanges.borrow_mut().push(Exchange {
            at: self.clock.now(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
            body: read,
            end: Rc::clone(&end),
        });
        (Request::from_parts(head, body), Guard(end))
    }
}

impl HttpClient for SimHttp {
    async fn send(&self, request: Request<Body>) -> Answer {
        give_way().await;
        let authority = request
            .uri()
            .authority()
            .map(ToString::to_string)
            .unwrap_or_default();
        let server = self.world.servers.borrow().get(&authority).cloned();
        let Some(server) = server.filter(|server| !server.down.get()) else {
            return Err(HttpError::NotSent(format!(
                "connection to {authority} refused"
            )));
        };
        let (request, guard) = self.record(request);
        let answer = (server.handler)(request).await;
        if !server.head_delay.get().is_zero() {
            self.clock.sleep(server.head_delay.get()).await;
        }
        if server.cut_before_head.get() {
            guard.ended(End::Failed);
            return Err(HttpError::MaybeSent(
                "connection cut before the answer".to_owned(),
            ));
        }
        match answer {
            Ok(response) => Ok(response.map(|body| shape(body, &server, &self.clock, guard))),
            Err(error) => {
                guard.ended(End::Failed);
                Err(error)
            }
        }
    }
}

/// Notes the end of an exchange; dropped without one, the client went away.
struct Guard(Rc<Cell<End>>);

impl Guard {
    fn ended(&self, end: End) {
        self.0.set(end);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.get() == End::InFlight {
            self.0.set(End::Cancelled);
        }
    }
}

struct Shaped {
    chunks: LocalBoxStream<'static, Result<Bytes, BodyError>>,
    /// How many more bytes come before the cut.
    left: Option<usize>,
    delay: Duration,
    clock: SimClock,
    guard: Guard,
}

fn shape(body: Body, server: &Server, clock: &SimClock, guard: Guard) -> Body {
    let (left, delay) = (server.cut_after.get(), server.chunk_delay.get());
    if matches!(body, Body::Full(_)) && left.is_none() && delay.is_zero() {
        guard.ended(End::Complete);
        return body;
    }
    let shaped = Shaped {
        chunks: body.into_stream(),
        left,
        delay,
        clock: clock.clone(),
        guard,
    };
    Body::stream(stream::unfold(Some(shaped), |shaped| async {
        shaped?.next().await
    }))
}

impl Shaped {
    async fn next(mut self) -> Option<(Result<Bytes, BodyError>, Option<Self>)> {
        if !self.delay.is_zero() {
            self.clock.sleep(self.delay).await;
        }
        if self.left == Some(0) {
            self.guard.ended(End::Failed);
            return Some((Err(BodyError("connection reset".to_owned())), None));
        }
        match self.chunks.next().await {
            None => {
                self.guard.ended(End::Complete);
                None
            }
            Some(Err(error)) => {
                self.guard.ended(End::Failed);
                Some((Err(error), None))
            }
            Some(Ok(mut chunk)) => {
                if let Some(left) = &mut self.left {
                    chunk.truncate(*left);
                    *left -= chunk.len();
                }
                Some((Ok(chunk), Some(self)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_gateway::body::ReadError;

    use super::*;
    use crate::Simulator;

    fn get(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).unwrap()
    }

    fn two_chunks(_: Request<Body>) -> std::future::Ready<Answer> {
        let chunks = stream::iter(["hello ", "world"]).map(|chunk| Ok(Bytes::from(chunk)));
        std::future::ready(Ok(Response::new(Body::stream(chunks))))
    }

    #[test]
    fn requests_are_recorded_as_the_server_read_them() {
        let world = Simulator::new();
        world
            .http
            .serve("up.example.com", |request: Request<Body>| async move {
                let sent = request.into_body().read(100).await.unwrap();
                Ok(Response::builder()
                    .status(201)
                    .body(Body::from(sent))
                    .unwrap())
            });
        let body = Body::stream(stream::iter([Ok(Bytes::from("a")), Ok(Bytes::from("b"))]));
        let request = Request::post("https://up.example.com/mcp")
            .header("x-a", "1")
            .body(body)
            .unwrap();
        let response = world.run(world.http.send(request)).unwrap();
        assert_eq!(response.status(), 201);
        let sent = &world.http.exchanges("up.example.com")[0];
        assert_eq!(
            (sent.method.as_str(), sent.uri.path(), &sent.headers["x-a"]),
            ("POST", "/mcp", &"1".parse().unwrap())
        );
        assert_eq!(
            (sent.body(), sent.end()),
            (Bytes::from("ab"), End::Complete)
        );
    }

    #[test]
    fn a_host_nobody_serves_is_certainly_not_reached() {
        let world = Simulator::new();
        let down = world.http.serve("down.example.com", two_chunks);
        down.down.set(true);
        for uri in ["https://nobody.example.com/", "https://down.example.com/"] {
            assert!(
                matches!(
                    world.run(world.http.send(get(uri))),
                    Err(HttpError::NotSent(_))
                ),
                "{uri}"
            );
        }
        assert!(world.http.exchanges("down.example.com").is_empty());
    }

    #[test]
    fn a_connection_can_be_cut_before_the_head_and_within_the_body() {
        let world = Simulator::new();
        let server = world.http.serve("up", two_chunks);
        server.cut_before_head.set(true);
        assert!(matches!(
            world.run(world.http.send(get("http://up/"))),
            Err(HttpError::MaybeSent(_))
        ));
        server.cut_before_head.set(false);
        for (bytes, before) in [(0, ""), (3, "hel"), (6, "hello "), (8, "hello wo")] {
            server.cut_after.set(Some(bytes));
            let body = world
                .run(world.http.send(get("http://up/")))
                .unwrap()
                .into_body();
            let chunks: Vec<_> = world.run(body.into_stream().collect());
            let (last, whole) = chunks.split_last().unwrap();
            assert!(last.is_err());
            assert_eq!(
                whole
                    .iter()
                    .map(|c| c.clone().unwrap())
                    .collect::<Vec<_>>()
                    .concat(),
                before.as_bytes()
            );
        }
        assert!(
            world
                .http
                .exchanges("up")
                .iter()
                .all(|exchange| exchange.end() == End::Failed)
        );
    }

    #[test]
    fn a_slow_answer_takes_its_time_and_can_be_cancelled() {
        let world = Simulator::new();
        let server = world.http.serve("up", two_chunks);
        server.head_delay.set(Duration::from_secs(1));
        server.chunk_delay.set(Duration::from_secs(2));
        let started = world.clock.now();
        let response = world.run(world.http.send(get("http://up/"))).unwrap();
        assert_eq!(world.clock.now().since(started), Duration::from_secs(1));
        let mut chunks = response.into_body().into_stream();
        assert_eq!(world.run(chunks.next()).unwrap().unwrap(), "hello ");
        assert_eq!(world.clock.now().since(started), Duration::from_secs(3));
        assert_eq!(world.http.exchanges("up")[0].end(), End::InFlight);
        drop(chunks);
        assert_eq!(world.http.exchanges("up")[0].end(), End::Cancelled);

        let mut waiting = world.start(world.http.send(get("http://up/")));
        assert!(waiting.step().is_none());
        drop(waiting);
        assert_eq!(world.http.exchanges("up")[1].end(), End::Cancelled);
        let too_large = world
            .run(world.http.send(get("http://up/")))
            .unwrap()
            .into_body();
        assert!(matches!(
            world.run(too_large.read(3)),
            Err(ReadError::TooLarge { max: 3 })
        ));
    }
}
