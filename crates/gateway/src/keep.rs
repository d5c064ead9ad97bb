//! How a host's keepers ([`crate::platform::Keeper`]) are checked.
//!
//! `/ping` says which keeper this is, by a number that lasts as long as what it remembers,
//! and how many pings are open in it; then it sends back what it is sent. With a query it
//! keeps even the head back until it was sent something.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::{Request, Response};

use crate::body::Body;
use crate::platform::Platform;
use crate::seal;

/// Path of the operation a host is checked by.
pub const PING: &str = "/ping";

/// What one keeper remembers; in an isolate that is none, nothing.
#[derive(Default)]
pub(crate) struct Memory {
    id: OnceCell<String>,
    open: Rc<Cell<usize>>,
}

impl Memory {
    /// Whether something is under way here that would be lost with this memory.
    pub(crate) fn is_busy(&self) -> bool {
        self.open.get() > 0
    }
}

/// Answers a ping.
pub(crate) async fn ping<P: Platform>(
    platform: &P,
    memory: &Memory,
    request: Request<Body>,
) -> Response<Body> {
    let open = Open::new(&memory.open);
    let id = memory.id.get_or_init(|| {
        let mut id = [0; 16];
        platform.random(&mut id);
        seal::hex(&id)
    });
    let late = request.uri().query().is_some();
    let mut sent = request.into_body().into_stream();
    let first = if late { sent.next().await } else { None };
    let greeting = Bytes::from(format!("{id} {}\n", memory.open.get()));
    let echo = stream::iter([Ok(greeting)])
        .chain(stream::iter(first))
        .chain(sent);
    Response::new(Body::stream(echo.inspect(move |_| open.stay())))
}

/// One open ping; dropped with the body it is part of.
struct Open(Rc<Cell<usize>>);

impl Open {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }

    /// Lets a stream own this.
    fn stay(&self) {}
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
