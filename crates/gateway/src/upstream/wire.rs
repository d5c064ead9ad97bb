//! One POST to an upstream and the messages that come back, as JSON or as a stream.
//!
//! Everything read is bounded, in size by [`RESPONSE_MAX`] and in time by the exchange's
//! deadline. Dropping the messages drops the connection.

use std::rc::Rc;
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, LocalBoxStream};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use tidegate_mcp::jsonrpc::{self, Message, Posted, RequestId};
use tidegate_mcp::sse;

use super::Exchange;
use super::patience::Patience;
use super::session::Session;
use crate::body::{Body, ReadError};
use crate::context::Context;
use crate::credentials::{self, Shown, Token};
use crate::error::{Error, Rejection};
use crate::platform::{HttpClient, HttpError, Platform};

/// Largest whole response body read from an upstream, in bytes.
pub(crate) const RESPONSE_MAX: usize = 8 * 1024 * 1024;
/// Codes implementations of older revisions give errors of their own, such as a missing session.
const OLD_CODES: std::ops::RangeInclusive<i64> = -32_019..=-32_000;
/// Longest time an upstream can send clients away for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Header of sessions (2025-03-26 to 2025-11-25).
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// Messages of one answer, in order, until it ends or the deadline comes.
pub(crate) type Messages = LocalBoxStream<'static, Result<Message, Broken>>;

/// Events of one stream, in order, until it ends or patience does.
pub(crate) type Events = LocalBoxStream<'static, Result<sse::Event, Broken>>;

/// Why an answer ended before its response.
pub(crate) enum Broken {
    /// The deadline came.
    Late,
    /// The peer sent something that is not MCP, or cut the stream.
    Invalid(String),
}

/// The head of an answer, its body unread.
pub(crate) struct Answer {
    response: Response<Body>,
}

/// Sends one message to the upstream's endpoint.
pub(crate) async fn post<P: Platform>(
    exchange: &Exchange<'_, P>,
    head: HeaderMap,
    message: String,
) -> Result<Answer, Error> {
    post_to(exchange, Uri::default(), head, message).await
}

/// Sends one message to where the upstream's transport takes them.
pub(crate) async fn post_to<P: Platform>(
    exchange: &Exchange<'_, P>,
    endpoint: Uri,
    head: HeaderMap,
    message: String,
) -> Result<Answer, Error> {
    let mut request = Request::new(Body::from(message));
    *request.uri_mut() = endpoint;
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    headers.extend(head);
    send(exchange, request)
        .await
        .map(|response| Answer { response })
}

/// Sends any request to the upstream, with the gateway's own credentials: to where its
/// transport takes messages, if the request names that, else to its URL.
pub(crate) async fn send<P: Platform>(
    exchange: &Exchange<'_, P>,
    mut request: Request<Body>,
) -> Result<Response<Body>, Error> {
    let upstream = exchange.upstream;
    if request.uri().authority().is_none() {
        *request.uri_mut() = upstream
            .url
            .as_str()
            .parse()
            .map_err(|_| exchange.invalid("its URL is not a URI"))?;
    }
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let first = shown(exchange, None).await?;
    let again = first.token.as_ref().and_then(|_| copy(&request));
    let response = exchanged(exchange, request, &first).await?;
    match (first.token, again) {
        // What refuses a request has not acted on it.
        (Some(token), Some(request))
            if response.status() == StatusCode::UNAUTHORIZED
                && credentials::may_renew(exchange.context, &token) =>
        {
            drop(response);
            let other = shown(exchange, Some(&token)).await?;
            exchanged(exchange, request, &other).await
        }
        _ => Ok(response),
    }
}

/// What the upstream is shown, in the time there is.
async fn shown<P: Platform>(
    exchange: &Exchange<'_, P>,
    refused: Option<&Rc<Token>>,
) -> Result<Shown, Error> {
    let showing = credentials::show(exchange, refused);
    let shown = exchange.context.until(exchange.deadline, showing).await;
    shown.unwrap_or_else(|| Err(exchange.timed_out()))
}

/// A request that can be sent once more.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let Body::Full(body) = request.body() else {
        return None;
    };
    let mut copy = Request::new(Body::Full(body.clone()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

async fn exchanged<P: Platform>(
    exchange: &Exchange<'_, P>,
    mut request: Request<Body>,
    shown: &Shown,
) -> Result<Response<Body>, Error> {
    let upstream = exchange.upstream;
    if let Some((name, value)) = shown.header.clone() {
        request.headers_mut().insert(name, value);
    }
    let sent = exchange.context.platform.http().send(request);
    match exchange.context.until(exchange.deadline, sent).await {
        None => Err(exchange.timed_out()),
        Some(Ok(response)) => Ok(response),
        Some(Err(HttpError::NotSent(_))) => Err(Rejection::UpstreamUnavailable {
            upstream: upstream.name.clone(),
            retry_after: None,
        }
        .into()),
        Some(Err(HttpError::MaybeSent(_))) => {
            let upstream = upstream.name.clone();
            Err(Rejection::UpstreamLost { upstream }.into())
        }
    }
}

impl Answer {
    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The session the upstream opened with this answer.
    pub(crate) fn session_id(&self) -> Option<HeaderValue> {
        self.response.headers().get(SESSION_ID).cloned()
    }

    /// Whether the upstream says it does not know the session: 404 by the book, or 400
    /// with words about the session, as some servers answer. One that has become modern
    /// knows none. Any other 400 is an answer.
    pub(crate) async fn session_lost<P: Platform>(
        &mut self,
        exchange: &Exchange<'_, P>,
        session: &Session,
    ) -> Result<bool, Error> {
        if self.status() != StatusCode::BAD_REQUEST {
            return Ok(session.id.is_some() && self.status() == StatusCode::NOT_FOUND);
        }
        let bytes = self.peek(exchange).await?;
        let modern = [
            jsonrpc::HEADER_MISMATCH,
            jsonrpc::UNSUPPORTED_PROTOCOL_VERSION,
        ];
        let words = || String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        Ok(refusal(&bytes).is_some_and(|code| modern.contains(&code))
            || session.id.is_some() && words().contains("session"))
    }

    /// Whether this is how a server of older revisions refuses what it does not know: for want
    /// of a session, or in words that are not JSON-RPC.
    pub(crate) async fn knows_no_modern<P: Platform>(
        &mut self,
        exchange: &Exchange<'_, P>,
    ) -> Result<bool, Error> {
        let refuses = matches!(
            self.status(),
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        );
        if !refuses {
            return Ok(false);
        }
        let code = refusal(&self.peek(exchange).await?);
        Ok(code.is_none_or(|code| code == jsonrpc::INVALID_REQUEST || OLD_CODES.contains(&code)))
    }

    /// The whole body, which stays there to be read.
    async fn peek<P: Platform>(&mut self, exchange: &Exchange<'_, P>) -> Result<Bytes, Error> {
        let body = std::mem::replace(self.response.body_mut(), Body::empty());
        let bytes = read(exchange, body).await?;
        *self.response.body_mut() = Body::from(bytes.clone());
        Ok(bytes)
    }

    /// Whether the body is an event stream.
    pub(crate) fn is_event_stream(&self) -> bool {
        let kind = self.response.headers().get(CONTENT_TYPE);
        let streams = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        streams && self.status().is_success()
    }

    /// The body, unread.
    pub(crate) fn into_body(self) -> Body {
        self.response.into_body()
    }

    /// The messages in the body. An error status counts only where the body holds no
    /// JSON-RPC response: servers disagree on statuses, not on bodies.
    pub(crate) async fn into_messages<P: Platform>(
        self,
        exchange: &Exchange<'_, P>,
        id: &RequestId,
        patience: &Patience,
    ) -> Result<Messages, Error> {
        let (parts, body) = self.response.into_parts();
        let content_type = parts
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let essence = content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        if essence == "text/event-stream" && parts.status.is_success() {
            let events = events(exchange.context.clone(), body, patience.clone());
            return Ok(messages(events));
        }
        if matches!(
            parts.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        ) {
            return Err(Rejection::UpstreamUnauthorized {
                upstream: exchange.upstream.name.clone(),
            }
            .into());
        }
        let bytes = read(exchange, body).await?;
        let messages = whole(&bytes, id);
        if messages.is_empty() {
            if is_busy(parts.status) {
                return Err(busy(exchange, parts.status, &parts.headers));
            }
            if parts.status.is_client_error() {
                let upstream = exchange.upstream.name.clone();
                return Err(Rejection::UpstreamRefused { upstream }.into());
            }
            let status = parts.status.as_u16();
            return Err(
                exchange.invalid(format!("HTTP status {status} without a JSON-RPC response"))
            );
        }
        Ok(stream::iter(messages.into_iter().map(Ok)).boxed_local())
    }
}

/// The code of the JSON-RPC error a body holds, if it does.
fn refusal(bytes: &[u8]) -> Option<i64> {
    match jsonrpc::parse(bytes) {
        Ok(Posted::One(Message::Response(response))) => {
            response.outcome.err().map(|error| error.code)
        }
        Ok(_) | Err(_) => None,
    }
}

/// Whether a status says that the upstream could not be bothered just now.
pub(crate) fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE
}

/// What an answer of such a status becomes. `Retry-After` counts where it is in seconds.
pub(crate) fn busy<P: Platform>(
    exchange: &Exchange<'_, P>,
    status: StatusCode,
    headers: &HeaderMap,
) -> Error {
    let after = headers.get(RETRY_AFTER).and_then(|text| text.to_str().ok());
    let seconds = after.and_then(|text| text.trim().parse().ok());
    Rejection::UpstreamBusy {
        upstream: exchange.upstream.name.clone(),
        limited: status == StatusCode::TOO_MANY_REQUESTS,
        retry_after: seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
        asked: true,
    }
    .into()
}

/// A whole body, within the bounds of size and time.
async fn read<P: Platform>(exchange: &Exchange<'_, P>, body: Body) -> Result<Bytes, Error> {
    match exchange
        .context
        .until(exchange.deadline, body.read(RESPONSE_MAX))
        .await
    {
        None => Err(exchange.timed_out()),
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(ReadError::TooLarge { max })) => {
            Err(exchange.invalid(format!("its answer is larger than {max} bytes")))
        }
        Some(Err(ReadError::Interrupted(_))) => Err(exchange.invalid("its answer was cut off")),
    }
}

/// The JSON-RPC messages of a whole body; none if it holds anything else. An error answers
/// the only request there was, whatever its id: servers that refuse a request before they
/// read it leave the id out, or write one of their own.
fn whole(bytes: &[u8], id: &RequestId) -> Vec<Message> {
    let adopt = |message| match message {
        Message::Response(mut response) if response.id.is_none() || response.outcome.is_err() => {
            response.id = Some(id.clone());
            Message::Response(response)
        }
        message @ (Message::Request(_) | Message::Notification(_) | Message::Response(_)) => {
            message
        }
    };
    match jsonrpc::parse(bytes) {
        Ok(Posted::One(message)) => vec![adopt(message)],
        Ok(Posted::Batch(members)) => members.into_iter().filter_map(Result::ok).collect(),
        Err(_) => Vec::new(),
    }
}

/// The events of a stream as they come; an error is the last.
pub(crate) fn events<P: Platform>(context: Context<P>, body: Body, patience: Patience) -> Events {
    stream! {
        let mut chunks = body.into_stream();
        let mut decoder = sse::Decoder::default();
        loop {
            let decoded = match patience.bear(&context, async || chunks.next().await).await {
                None => Err(Broken::Late),
                Some(None) => {
                    match decoder.finish() {
                        Ok(Some(event)) => yield Ok(event),
                        Ok(None) => {}
                        Err(e) => yield Err(Broken::Invalid(e.to_string())),
                    }
                    return;
                }
                Some(Some(Err(_))) => Err(Broken::Invalid("its stream was cut off".to_owned())),
                Some(Some(Ok(chunk))) => {
                    decoder.push(&chunk).map_err(|e| Broken::Invalid(e.to_string()))
                }
            };
            match decoded {
                Ok(events) => {
                    for event in events {
                        yield Ok(event);
                    }
                }
                Err(broken) => {
                    yield Err(broken);
                    return;
                }
            }
        }
    }
    .boxed_local()
}

/// The messages in a stream's events.
pub(crate) fn messages(events: Events) -> Messages {
    let parsed = events.map(|event| {
        let event = match event {
            Ok(event) => event,
            Err(broken) => return vec![Err(broken)],
        };
        // Priming events (2025-11-25) carry an id and nothing else.
        if event.data.is_empty() {
            return Vec::new();
        }
        let unreadable = || {
            Err(Broken::Invalid(
                "an event holds no JSON-RPC message".to_owned(),
            ))
        };
        match jsonrpc::parse(event.data.as_bytes()) {
            Ok(Posted::One(message)) => vec![Ok(message)],
            // 2025-03-26 only.
            Ok(Posted::Batch(members)) => members
                .into_iter()
                .map(|member| member.or_else(|_| unreadable()))
                .collect(),
            Err(_) => vec![unreadable()],
        }
    });
    parsed.flat_map(stream::iter).boxed_local()
}

/// How long a courtesy to an upstream may take: closing a session, refusing a request.
pub(crate) const COURTESY: Duration = Duration::from_secs(5);
