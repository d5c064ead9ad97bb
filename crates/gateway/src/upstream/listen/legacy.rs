//! Listening to an upstream of an older revision: in a session of its own, on its GET
//! stream, with `resources/subscribe` for each resource.
//!
//! No call uses the session, so nothing that belongs to a call comes on its stream; it is
//! closed when nobody listens any longer. The gateway declares no capability in it and
//! answers `ping` alone. A stream whose events have ids is taken up where it broke off
//! (2025-11-25 lets servers end it at will); any other that ends is lost.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{self, LocalBoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request as HttpRequest, StatusCode};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{
    self, METHOD_NOT_FOUND, Message, Notification, Posted, Request, Response, RpcError,
};
use tidegate_mcp::method::Method;
use tidegate_mcp::sse;
use tidegate_mcp::subscription::Filter;

use super::Listening;
use crate::auth::Principal;
use crate::body::{Body, BodyError};
use crate::config::Upstream;
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::platform::{Clock, Platform};
use crate::time::Timestamp;
use crate::upstream::Exchange;
use crate::upstream::session::{self, Session, Terms};
use crate::upstream::wire::{self, Broken};

/// How long the head of a GET stream is waited for. Some servers send it with the first
/// event, so that it is late says nothing.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);
/// Most resources subscribed to at a time.
const SUBSCRIBING_MAX: usize = 8;
/// Pause before a stream is taken up again, unless the server wants another.
const RETRY: Duration = Duration::from_secs(1);
/// Longest pause a server is granted.
const RETRY_MAX: Duration = Duration::from_secs(30);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Listens in a session of its own.
pub(super) async fn listen<P: Platform>(
    exchange: &Exchange<'_, P>,
    principal: &Principal,
    wanted: Filter,
    until: Timestamp,
) -> Result<Listening, Error> {
    let context = exchange.context;
    let (session, result) = session::handshake(exchange, &principal.id, &Terms::default()).await?;
    let held = Held {
        context: context.clone(),
        upstream: exchange.upstream.clone(),
        session,
        until,
    };
    let declared = declared(&wanted, &result);
    // The stream comes first: what a subscription tells at once is not lost then.
    let mut opening = held.get(None);
    let patience = context.now() + HEAD_PATIENCE;
    let source = match context.until(patience, &mut opening).await {
        None => Source::Opening(opening),
        Some(opened) => match opened? {
            Some(body) => Source::Open(body.into_stream()),
            None => return Ok(Listening::silent()),
        },
    };
    let honoured = Filter {
        uris: subscribe(exchange, &held.session, &declared.uris).await?,
        ..declared
    };
    let reading = Reading {
        held,
        source,
        decoder: sse::Decoder::default(),
        ready: VecDeque::new(),
        last: None,
        retry: RETRY,
        honoured: honoured.clone(),
    };
    let notifications = stream::unfold(reading, |mut reading| async move {
        let next = reading.next().await?;
        Some((next, reading))
    });
    Ok(Listening {
        honoured,
        notifications: notifications.boxed_local(),
    })
}

/// As much of what is wanted as the `initialize` result declares.
pub(super) fn declared(wanted: &Filter, result: &Object) -> Filter {
    match result.get_object("capabilities") {
        Some(Ok(capabilities)) => wanted.declared(&capabilities),
        Some(Err(_)) | None => Filter::default(),
    }
}

/// Subscribes to each resource; gives those the upstream agreed to.
async fn subscribe<P: Platform>(
    exchange: &Exchange<'_, P>,
    session: &Session,
    uris: &BTreeSet<String>,
) -> Result<BTreeSet<String>, Error> {
    let subscribing = uris.iter().map(|uri| async move {
        let agreed = subscribe_to(exchange, session, uri).await?;
        Ok::<_, Error>(agreed.then(|| uri.clone()))
    });
    stream::iter(subscribing)
        .buffer_unordered(SUBSCRIBING_MAX)
        .try_filter_map(|agreed| std::future::ready(Ok(agreed)))
        .try_collect()
        .await
}

async fn subscribe_to<P: Platform>(
    exchange: &Exchange<'_, P>,
    session: &Session,
    uri: &str,
) -> Result<bool, Error> {
    let request = subscription(exchange, uri);
    let id = &request.id;
    let answer = wire::post(exchange, session.headers(), request.to_json()).await?;
    let mut messages = answer
        .into_messages(exchange, id, &exchange.patience())
        .await?;
    loop {
        match messages.next().await {
            Some(Ok(Message::Response(response))) if response.id.as_ref() == Some(id) => {
                return Ok(response.outcome.is_ok());
            }
            Some(Ok(_)) => {}
            Some(Err(Broken::Late)) => return Err(exchange.timed_out()),
            Some(Err(Broken::Invalid(reason))) => return Err(exchange.invalid(reason)),
            None => return Err(exchange.invalid("it does not answer `resources/subscribe`")),
        }
    }
}

/// The request that subscribes to a resource.
pub(super) fn subscription<P: Platform>(exchange: &Exchange<'_, P>, uri: &str) -> Request {
    Request {
        id: exchange.next_id(),
        method: Method::ResourcesSubscribe.as_str().to_owned(),
        params: Object::new().with("uri", uri),
    }
}

type Opening = LocalBoxFuture<'static, Result<Option<Body>, Error>>;

/// A session that is closed when it is dropped.
struct Held<P: Platform> {
    context: Context<P>,
    upstream: Upstream,
    session: Rc<Session>,
    until: Timestamp,
}

impl<P: Platform> Held<P> {
    /// Asks for the session's GET stream; gives nothing where the server has none.
    fn get(&self, last: Option<HeaderValue>) -> Opening {
        let mut request = HttpRequest::new(Body::empty());
        let headers = request.headers_mut();
        headers.extend(self.session.headers());
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.extend(last.map(|last| (LAST_EVENT_ID, last)));
        let (context, upstream) = (self.context.clone(), self.upstream.clone());
        let (until, session) = (self.until, Rc::clone(&self.session));
        async move {
            let exchange = Exchange {
                context: &context,
                upstream: &upstream,
                principal: session.principal(),
                deadline: until,
                timeout: until.since(context.now()),
            };
            let response = wire::send(&exchange, request).await?;
            let status = response.status();
            let kind = response.headers().get(CONTENT_TYPE);
            let streams =
                kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
            match status {
                _ if status.is_success() && streams => Ok(Some(response.into_body())),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let upstream = upstream.name.clone();
                    Err(Rejection::UpstreamUnauthorized { upstream }.into())
                }
                // By the book 405; whatever a server refuses, it will not stream.
                _ if status.is_client_error() => Ok(None),
                _ => {
                    let status = status.as_u16();
                    Err(exchange.invalid(format!("HTTP status {status} for its GET stream")))
                }
            }
        }
        .boxed_local()
    }
}

impl<P: Platform> Drop for Held<P> {
    fn drop(&mut self) {
        let (context, session) = (self.context.clone(), Rc::clone(&self.session));
        self.context.platform.defer(async move {
            session::close(&context, &session).await;
        });
    }
}

/// Answers what the upstream asks in the session. Nobody could answer but the gateway, and
/// it declared nothing that would allow a request.
pub(super) async fn refuse<P: Platform>(
    context: &Context<P>,
    session: &Rc<Session>,
    request: &Request,
) {
    let outcome = match request.method.as_str() {
        "ping" => Ok(Object::new()),
        _ => Err(RpcError::new(
            METHOD_NOT_FOUND,
            "Nobody can be asked this on a stream of notifications.",
        )),
    };
    let response = Response {
        id: Some(request.id.clone()),
        outcome,
    };
    session::tell(context, session, response.to_json()).await;
}

enum Source {
    Opening(Opening),
    Open(LocalBoxStream<'static, Result<Bytes, BodyError>>),
}

struct Reading<P: Platform> {
    held: Held<P>,
    source: Source,
    decoder: sse::Decoder,
    ready: VecDeque<Message>,
    /// The id of the last event that had one.
    last: Option<HeaderValue>,
    retry: Duration,
    honoured: Filter,
}

impl<P: Platform> Reading<P> {
    async fn next(&mut self) -> Option<Notification> {
        loop {
            match self.ready.pop_front() {
                Some(Message::Notification(notification)) => {
                    if self.honoured.admits(&notification) {
                        return Some(notification);
                    }
                }
                Some(Message::Request(request)) => {
                    refuse(&self.held.context, &self.held.session, &request).await;
                }
                Some(Message::Response(_)) => {}
                None => self.more().await?,
            }
        }
    }

    /// Reads on; nothing if the stream is lost.
    async fn more(&mut self) -> Option<()> {
        match &mut self.source {
            Source::Opening(opening) => {
                let Some(body) = opening.await.ok()? else {
                    // One that was taken up is lost. One that never was: asking again for
                    // what took its time to be refused would bring the same.
                    return match self.last {
                        Some(_) => None,
                        None => std::future::pending().await,
                    };
                };
                self.source = Source::Open(body.into_stream());
                self.decoder = sse::Decoder::default();
            }
            Source::Open(chunks) => match chunks.next().await {
                Some(Ok(chunk)) => {
                    let events = self.decoder.push(&chunk).ok()?;
                    events.into_iter().for_each(|event| self.take(event));
                }
                Some(Err(_)) | None => {
                    let last = self.last.clone()?;
                    let clock = self.held.context.platform.clock();
                    clock.sleep(self.retry).await;
                    self.source = Source::Opening(self.held.get(Some(last)));
                }
            },
        }
        Some(())
    }

    fn take(&mut self, event: sse::Event) {
        if let Some(id) = event.id {
            self.last = HeaderValue::from_str(&id).ok();
        }
        if let Some(retry) = event.retry {
            self.retry = Duration::from_millis(retry).clamp(RETRY, RETRY_MAX);
        }
        match jsonrpc::parse(event.data.as_bytes()) {
            Ok(Posted::One(message)) => self.ready.push_back(message),
            // Servers of 2025-03-26 may put several messages into one event.
            Ok(Posted::Batch(members)) => self.ready.extend(members.into_iter().flatten()),
            // Priming events carry an id and nothing else.
            Err(_) => {}
        }
    }
}
