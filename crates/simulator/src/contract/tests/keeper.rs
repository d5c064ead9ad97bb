//! Keepers that are none, each in its own way.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;

use futures_util::future::{FutureExt, LocalBoxFuture};
use futures_util::stream::{self, LocalBoxStream, StreamExt};
use http::{Request, Response};
use tidegate_gateway::body::{Body, BodyError};
use tidegate_gateway::platform::{Keeper, Unavailable};

use super::{broken, flawed};
use crate::SimKeeper;

/// How [`FlawedKeeper`] departs from the contract.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// Every request finds another.
    ForgetsAtOnce,
    /// There is one, whatever the name.
    IsOneForAll,
    /// Hands on nothing before it has all of the request.
    Buffers,
    /// Goes on answering whoever has gone.
    NeverHears,
}

pub(super) struct FlawedKeeper {
    inner: Rc<SimKeeper>,
    flaw: Option<Flaw>,
    requests: Cell<usize>,
    answers: RefCell<Vec<Rc<RefCell<Answer>>>>,
    bodies: RefCell<Vec<Rc<RefCell<Chunks>>>>,
}

type Answer = LocalBoxFuture<'static, Result<Response<Body>, Unavailable>>;
type Chunks = LocalBoxStream<'static, Result<bytes::Bytes, BodyError>>;

impl FlawedKeeper {
    pub(super) fn new(inner: SimKeeper) -> Self {
        Self {
            inner: Rc::new(inner),
            flaw: None,
            requests: Cell::default(),
            answers: RefCell::default(),
            bodies: RefCell::default(),
        }
    }

    /// Asks, and holds on to the exchange for ever.
    async fn hold(
        &self,
        name: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Unavailable> {
        let (inner, name) = (Rc::clone(&self.inner), name.to_owned());
        let answer = async move { inner.send(&name, request).await };
        let answer = Rc::new(RefCell::new(answer.boxed_local()));
        self.answers.borrow_mut().push(Rc::clone(&answer));
        let response = poll_fn(|context| answer.borrow_mut().poll_unpin(context)).await?;
        Ok(response.map(|body| {
            let chunks = Rc::new(RefCell::new(body.into_stream()));
            self.bodies.borrow_mut().push(Rc::clone(&chunks));
            Body::stream(stream::poll_fn(move |context| {
                chunks.borrow_mut().poll_next_unpin(context)
            }))
        }))
    }
}

impl Keeper for FlawedKeeper {
    async fn send(
        &self,
        name: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Unavailable> {
        match self.flaw {
            None => self.inner.send(name, request).await,
            Some(Flaw::ForgetsAtOnce) => {
                let number = self.requests.get() + 1;
                self.requests.set(number);
                self.inner.send(&format!("{name}/{number}"), request).await
            }
            Some(Flaw::IsOneForAll) => self.inner.send("all", request).await,
            Some(Flaw::Buffers) => {
                let (head, body) = request.into_parts();
                let body = body.read(100).await.unwrap();
                let request = Request::from_parts(head, Body::from(body));
                self.inner.send(name, request).await
            }
            Some(Flaw::NeverHears) => self.hold(name, request).await,
        }
    }
}

#[test]
fn a_keeper_that_is_none_is_caught() {
    let all = [
        "a keeper is found again by its name",
        "requests that race to a new keeper all reach the same one",
        "a keeper answers others while a request to it is open",
        "a keeper's bodies stream both ways",
        "a keeper hears that its answer is no longer read",
        "a keeper hears that its answer is no longer waited for",
    ];
    for (flaw, caught) in [
        (
            Flaw::ForgetsAtOnce,
            vec![all[0], all[1], all[2], all[4], all[5]],
        ),
        (
            Flaw::IsOneForAll,
            vec!["keepers of different names are different"],
        ),
        (Flaw::Buffers, all[2..].to_vec()),
        (Flaw::NeverHears, all[4..].to_vec()),
    ] {
        let mut platform = flawed(None);
        platform.keeper.flaw = Some(flaw);
        assert_eq!(broken(&platform.world, &platform), caught);
    }
}
