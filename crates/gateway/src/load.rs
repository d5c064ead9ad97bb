//! Load shedding: how many requests this isolate answers at once. One more is refused before
//! anything is read of it or asked about it.
//!
//! A request counts until its answer has ended, for at most [`COUNTED_FOR`]: what lasts
//! longer waits rather than works. Streams of changes, which wait by nature, count until their
//! answer begins: before that nobody knows that a request is for one.

use std::cell::Cell;
use std::time::Duration;

use futures_util::StreamExt;
use http::{Method, Request, Response};
use serde_json::json;

use crate::body::Body;
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::places::{Place, Places};
use crate::platform::{LogLevel, Platform};
use crate::time::Timestamp;

/// Longest a request counts.
pub const COUNTED_FOR: Duration = Duration::from_secs(120);
/// Least time between two log lines about refused requests.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Marks the answer to who listens to changes, in its extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listens;

/// What an isolate remembers of its load.
#[derive(Default)]
pub(crate) struct Memory {
    under_way: Places,
    refused: Cell<u64>,
    complained_at: Cell<Timestamp>,
}

/// Lets a request in if there is room for it. The place, where requests are counted, is to
/// be kept with the answer.
pub(crate) fn enter<P: Platform>(
    context: &Context<P>,
    request: &Request<Body>,
) -> Result<Option<Place>, Error> {
    let Some(max) = context.settings.config.limits.max_requests_at_once else {
        return Ok(None);
    };
    if request.method() != Method::POST {
        return Ok(None);
    }
    let (now, memory) = (context.now(), &context.memory.load);
    let place = memory.under_way.take(now, now + COUNTED_FOR, max);
    if place.is_none() {
        memory.refused.set(memory.refused.get() + 1);
        if now.since(memory.complained_at.get()) >= COMPLAINT_INTERVAL {
            memory.complained_at.set(now);
            let fields = json!({ "refused": memory.refused.take(), "max": max });
            context.log(LogLevel::Warn, "overloaded", fields);
        }
    }
    place.map(Some).ok_or(Rejection::Overloaded.into())
}

/// Keeps the place until the answer has ended, or gives it back at once if that only waits.
pub(crate) fn kept(place: Option<Place>, response: Response<Body>) -> Response<Body> {
    let listens = response.extensions().get::<Listens>().is_some();
    let Some(place) = place.filter(|_| !listens) else {
        return response;
    };
    response.map(|body| match body {
        // It is all there.
        Body::Full(bytes) => Body::Full(bytes),
        Body::Stream(chunks) => Body::stream(chunks.inspect(move |_| {
            let _kept = &place;
        })),
    })
}
