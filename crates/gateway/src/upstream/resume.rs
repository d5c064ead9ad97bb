//! Taking up a call's stream that a legacy server has closed before the answer came.
//!
//! Servers of 2025-11-25 may end a stream at will, having given its events ids; the client
//! asks for the rest by the last id, after the pause the server wants. Spec: 2025-11-25,
//! "Transports", "Resumability and Redelivery".

use std::rc::Rc;
use std::time::Duration;

use async_stream::stream;
use futures_util::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request, StatusCode};

use super::Exchange;
use super::patience::Patience;
use super::session::Session;
use super::wire::{self, Broken, Events};
use crate::body::Body;
use crate::config::Upstream;
use crate::context::Context;
use crate::platform::{Clock, Platform};

/// Most times one call's stream is taken up.
const RESUMES_MAX: usize = 100;
/// Pause before a stream is taken up, unless the server wants another.
const PAUSE: Duration = Duration::from_secs(1);
/// Shortest and longest pause a server is granted.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The events of a call's stream, and of those that go on with it.
pub(crate) fn events<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    session: &Rc<Session>,
    body: Body,
    patience: &Patience,
) -> Events {
    let (context, upstream) = (context.clone(), upstream.clone());
    let (session, patience) = (Rc::clone(session), patience.clone());
    stream! {
        let mut events = wire::events(context.clone(), body, patience.clone());
        let (mut last, mut pause, mut resumed) = (None, PAUSE, 0);
        loop {
            let ended = match events.next().await {
                Some(Ok(event)) => {
                    if let Some(id) = &event.id {
                        last = HeaderValue::from_str(id).ok().filter(|id| !id.is_empty());
                    }
                    if let Some(wanted) = event.retry {
                        pause = Duration::from_millis(wanted).clamp(PAUSES.0, PAUSES.1);
                    }
                    yield Ok(event);
                    continue;
                }
                Some(Err(Broken::Late)) => {
                    yield Err(Broken::Late);
                    return;
                }
                ended @ (Some(Err(Broken::Invalid(_))) | None) => ended,
            };
            let reopened = match last.clone().filter(|_| resumed < RESUMES_MAX) {
                Some(last) => {
                    resumed += 1;
                    context.platform.clock().sleep(pause).await;
                    reopen(&context, &upstream, &session, last, &patience).await
                }
                None => None,
            };
            match (reopened, ended) {
                (Some(body), _) => {
                    events = wire::events(context.clone(), body, patience.clone());
                }
                (None, Some(broken)) => {
                    yield broken;
                    return;
                }
                (None, None) => return,
            }
        }
    }
    .boxed_local()
}

async fn reopen<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    session: &Session,
    last: HeaderValue,
    patience: &Patience,
) -> Option<Body> {
    let mut request = Request::new(Body::empty());
    let headers = request.headers_mut();
    headers.extend(session.headers());
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(LAST_EVENT_ID, last);
    let deadline = patience.deadline();
    let exchange = Exchange {
        context,
        upstream,
        principal: session.principal(),
        deadline,
        timeout: deadline.since(context.now()),
    };
    let response = wire::send(&exchange, request).await.ok()?;
    let kind = response.headers().get(CONTENT_TYPE);
    let streams = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    (response.status() == StatusCode::OK && streams).then(|| response.into_body())
}
