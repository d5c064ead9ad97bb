//! Tidegate on Spin: a component behind the HTTP trigger.
//!
//! One door: a client's request, or a timer's. It builds what the request is for, calls it,
//! and converts; nothing is decided here. What an instance remembers between requests lives
//! in thread-locals, and instances are short-lived: everything that must last is in the
//! key-value store ([`kv`]) or the SQL database ([`database`]). The queue has no trigger of
//! its own; [`drain`] says who works on it.

mod atomic;
mod body;
mod clock;
mod database;
mod door;
mod drain;
mod http;
mod kv;
mod outbox;
mod platform;
#[cfg(feature = "selftest")]
mod selftest;

use std::rc::Rc;

use ::http::Response;
use spin_sdk::http::Request;
use spin_sdk::http_service;
use tidegate_gateway::{Gateway, Memory};

use body::Outgoing;
use platform::Host;

thread_local! {
    /// One instance, one thread, one memory. No future is kept in it: one request does not
    /// wait for what another has begun.
    static MEMORY: Rc<Memory> = Rc::default();
}

fn gateway() -> Gateway<Host> {
    Gateway::new(Host, MEMORY.with(Rc::clone))
}

/// Answers one request.
#[http_service]
async fn serve(request: Request) -> Response<Outgoing> {
    let request = door::request(request);
    #[cfg(feature = "selftest")]
    if request.uri().path() == selftest::PATH {
        return door::response(selftest::answer(&request).await);
    }
    let gateway = gateway();
    if request.uri().path() == drain::TIMER
        && let Some(status) = drain::timer(&gateway, request.headers()).await
    {
        return door::response(door::bare(status));
    }
    let response = gateway.serve(request).await;
    drain::look();
    door::response(response)
}
