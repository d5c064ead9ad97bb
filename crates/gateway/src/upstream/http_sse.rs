//! HTTP+SSE, the transport of 2024-11-05: one event stream (`GET`) that first names where
//! messages are posted, and then carries every answer.
//!
//! The stream is the session, and it cannot be shared between requests on an edge host: each
//! call opens one, says hello, asks, and closes it.

use std::rc::Rc;

use futures_util::StreamExt;
use http::header::ACCEPT;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use tidegate_mcp::json::Object;
use url::Url;

use super::Exchange;
use super::patience::Patience;
use super::session::{self, Session, Terms};
use super::wire::{self, Events, Messages};
use crate::auth::PrincipalId;
use crate::body::Body;
use crate::config::bounds::URL_MAX;
use crate::error::{Error, Rejection};
use crate::platform::Platform;

/// An open stream on which `initialize` has been answered.
pub(crate) struct Line {
    pub(crate) session: Rc<Session>,
    /// What the upstream said of itself.
    pub(crate) result: Object,
    /// What else it says.
    pub(crate) messages: Messages,
}

/// Opens a stream and says hello on it.
pub(crate) async fn open<P: Platform>(
    exchange: &Exchange<'_, P>,
    principal: &PrincipalId,
    terms: &Terms,
    patience: &Patience,
) -> Result<Line, Error> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    let accept = HeaderValue::from_static("text/event-stream");
    request.headers_mut().insert(ACCEPT, accept);
    let response = wire::send(exchange, request).await?;
    let upstream = || exchange.upstream.name.clone();
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let upstream = upstream();
            return Err(Rejection::UpstreamUnauthorized { upstream }.into());
        }
        status if wire::is_busy(status) => {
            return Err(wire::busy(exchange, status, response.headers()));
        }
        status if status.is_client_error() => {
            let upstream = upstream();
            return Err(Rejection::UpstreamRefused { upstream }.into());
        }
        status => return Err(exchange.invalid(format!("HTTP status {}", status.as_u16()))),
    }
    let context = exchange.context.clone();
    let mut events = wire::events(context, response.into_body(), patience.clone());
    let endpoint = endpoint(exchange, &mut events).await?;
    let mut messages = wire::messages(events);
    let greeting = session::greeting(exchange, terms);
    let hello = greeting.to_json();
    wire::post_to(exchange, endpoint.clone(), http::HeaderMap::new(), hello).await?;
    let result = session::greeted(exchange, &mut messages, &greeting.id).await?;
    let mut session = Session::agreed(exchange, principal, terms, &result)?;
    session.endpoint = endpoint;
    let session = Rc::new(session);
    session.begin(exchange, &result).await?;
    Ok(Line {
        session,
        result,
        messages,
    })
}

/// Where messages are posted: what the first event names, at the upstream's own origin and
/// nowhere else, for the gateway's credentials go there.
async fn endpoint<P: Platform>(
    exchange: &Exchange<'_, P>,
    events: &mut Events,
) -> Result<Uri, Error> {
    let named = loop {
        match events.next().await {
            Some(Ok(event)) if event.event.as_deref() == Some("endpoint") => break event.data,
            Some(Ok(_)) => {}
            Some(Err(wire::Broken::Late)) => return Err(exchange.timed_out()),
            Some(Err(wire::Broken::Invalid(_))) | None => {
                return Err(exchange.invalid("its event stream names no endpoint"));
            }
        }
    };
    let own = &exchange.upstream.url;
    let resolved = own.join(named.trim()).ok();
    let at_home = |url: &Url| url.origin() == own.origin() && url.as_str().len() <= URL_MAX;
    let plain = |url: &Url| url.username().is_empty() && url.password().is_none();
    let resolved = resolved.filter(|url| at_home(url) && plain(url));
    resolved
        .and_then(|url| url.as_str().parse().ok())
        .ok_or_else(|| exchange.invalid("its endpoint is not at its own origin"))
}
