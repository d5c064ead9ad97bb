//! From an HTTP request to a [`Call`]: the validation ladder of MCP 2026-07-28, first
//! failure wins, and the same questions in the terms of the older revisions.
//!
//! [`check`] looks at the head alone, so that a caller who may not ask never makes us read
//! a body; [`read`] needs proof that the caller was admitted.

mod door;
mod endpoint;

use std::borrow::Cow;
use std::rc::Rc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::value::RawValue;
use tidegate_mcp::era::{self, ClientEra};
use tidegate_mcp::headers::{self, MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION, RoutingHeaders};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{
    self, Message, Notification, Posted, Request, RequestId, Response, RpcError,
};
use tidegate_mcp::meta::RequestMeta;
use tidegate_mcp::method::Method;
use tidegate_mcp::version::{Era, ProtocolVersion};

use crate::body::{Body, ReadError};
use crate::error::{Error, Rejection};
use crate::idempotency::IDEMPOTENCY_META;
use crate::pipeline::Admission;
use crate::request_token;
use crate::session::Session;
use crate::settings::Settings;

use door::takes_stream;
pub use door::{Door, Way, check, origin_allowed};
pub use endpoint::Endpoint;

/// Largest request body, in bytes, unless the configuration says otherwise. Tool arguments
/// above this belong in a resource.
pub const REQUEST_BODY_MAX: usize = 1024 * 1024;

/// What the host knows of the connection; hosts put it in the request's extensions.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The client's network address, as the platform saw it.
    pub address: Option<String>,
    /// The client's country, as the platform places it.
    pub country: Option<String>,
    /// SHA-256 of the client's TLS certificate in DER form, where the platform asked for
    /// one and found it good.
    pub certificate: Option<[u8; 32]>,
}

/// A request head that passed the cheap checks.
pub struct Head {
    /// Where it was sent.
    pub endpoint: Endpoint,
    /// The path, as it was sent.
    pub path: String,
    /// The HTTP method, as it was sent.
    pub method: http::Method,
    /// Its headers.
    pub headers: HeaderMap,
    /// What the host knows of the connection.
    pub peer: Peer,
    /// The HTTP method.
    pub door: Door,
    /// The session it names; only legacy clients mean something by it.
    pub session: Option<String>,
}

/// What a client posted, in modern form whatever era it speaks.
pub enum Ask {
    /// One request.
    Call(Box<Call>),
    /// A JSON-RPC batch (2025-03-26 only): its calls, each on its own, and what else it says.
    Batch(Vec<Result<Call, Refusal>>, Vec<Word>),
    /// What a legacy client says within its session that is no call.
    Word(Word),
    /// The stream a client of 2024-11-05 hears everything on.
    Stream,
    /// Something that gets no answer and changes nothing.
    Nothing,
}

/// What a legacy client says within its session besides calls.
pub enum Word {
    /// Its answer to a request of the gateway.
    Answer(Response),
    /// It no longer wants the call with this id.
    Cancel(RequestId),
    /// Something that changes nothing here.
    Aside,
    /// A call whose answer goes to the stream of its session (2024-11-05).
    Call(Request),
    /// It wants to hear of changes (`GET`).
    Listen,
    /// The session is over (`DELETE`).
    End,
}

/// One request of a client.
#[derive(Clone)]
pub struct Call {
    /// The client's id for it.
    pub id: RequestId,
    /// The method.
    pub method: Method,
    /// Its params, without `_meta`.
    pub params: Object,
    /// What `_meta` said.
    pub meta: RequestMeta,
    /// How the client speaks.
    pub version: ProtocolVersion,
    /// Whether the client takes an event stream as the answer.
    pub streams: bool,
    /// The session it belongs to (legacy clients only).
    pub session: Option<Rc<Session>>,
    /// The request-scope token `_meta` carried. For the gateway alone, as any credential.
    pub token: Option<String>,
    /// The idempotency key `_meta` carried, as it was written. Whether keys are honoured or
    /// not, an upstream is told none but the gateway's own.
    pub key: Option<Box<RawValue>>,
}

/// Reads the body and finds what is asked (ladder steps 4 to 11).
pub async fn read(
    head: &Head,
    body: Body,
    admission: &Admission,
    settings: &Settings,
) -> Result<Ask, Error> {
    let Admission { .. } = admission;
    let streams = media_types(&head.headers)?;
    let bytes = whole(body, settings).await?;
    let posted = jsonrpc::parse(&bytes).map_err(|e| refused(e.id().cloned(), e.to_rpc_error()))?;
    match posted {
        Posted::One(message) => one(&head.headers, message, streams),
        Posted::Batch(members) => batch(&head.headers, members),
    }
}

/// Reads what a client of 2024-11-05 posts beside its stream.
pub async fn message(body: Body, settings: &Settings) -> Result<Ask, Error> {
    let bytes = whole(body, settings).await?;
    let posted = jsonrpc::parse(&bytes).map_err(|e| refused(e.id().cloned(), e.to_rpc_error()))?;
    let Posted::One(message) = posted else {
        let reason = "this transport takes one message per POST";
        return Err(refused(
            None,
            RpcError::new(jsonrpc::INVALID_REQUEST, reason),
        ));
    };
    Ok(match message {
        Message::Request(request) => Ask::Word(Word::Call(request)),
        Message::Response(response) => Ask::Word(Word::Answer(response)),
        Message::Notification(notification) => Ask::Word(noted(&notification)),
    })
}

/// A whole body within the bound.
async fn whole(body: Body, settings: &Settings) -> Result<bytes::Bytes, Error> {
    let max = settings
        .config
        .limits
        .request_body_bytes
        .unwrap_or(REQUEST_BODY_MAX);
    body.read(max).await.map_err(|e| match e {
        ReadError::TooLarge { max } => Rejection::BodyTooLarge { max }.into(),
        ReadError::Interrupted(_) => Rejection::BodyInterrupted.into(),
    })
}

/// Checks `Content-Type` and `Accept`; tells whether an event stream is welcome.
fn media_types(headers: &HeaderMap) -> Result<bool, Rejection> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Rejection::UnsupportedMediaType);
    }
    takes_stream(headers)
}

fn one(headers: &HeaderMap, message: Message, streams: bool) -> Result<Ask, Error> {
    let routing = routing_headers(headers);
    let id = match &message {
        Message::Request(request) => Some(request.id.clone()),
        Message::Notification(_) | Message::Response(_) => None,
    };
    let client = era::classify(&message, routing.protocol_version.as_deref())
        .map_err(|e| refused(id.clone(), e))?;
    let legacy_client = matches!(client, ClientEra::Legacy(_));
    let request = match message {
        Message::Request(request) => request,
        Message::Response(response) => return Ok(Ask::Word(Word::Answer(response))),
        // By its id one modern caller could cancel another's call; modern clients close
        // the stream instead.
        Message::Notification(notification) if legacy_client => {
            return Ok(Ask::Word(noted(&notification)));
        }
        Message::Notification(_) => return Ok(Ask::Nothing),
    };
    match client {
        ClientEra::Modern => {
            modern(&routing, request, streams).map(|call| Ask::Call(Box::new(call)))
        }
        // Clients of these revisions read a JSON-RPC error only under 200.
        ClientEra::Legacy(version) => legacy(request, version, streams)
            .map(|call| Ask::Call(Box::new(call)))
            .map_err(|(id, error)| {
                let status = StatusCode::OK;
                Rejection::Protocol { status, error, id }.into()
            }),
    }
}

/// Takes the request-scope token out of `_meta`. What is no text is no token, and is refused
/// as one where one is needed.
fn token(meta: &mut RequestMeta) -> Option<String> {
    let token = meta.rest.remove(request_token::META)?;
    let text = tidegate_mcp::json::as_str(&token);
    Some(text.map_or_else(|| token.get().to_owned(), Cow::into_owned))
}

/// What a legacy client's notification means here.
fn noted(notification: &Notification) -> Word {
    let named = (notification.method == "notifications/cancelled")
        .then(|| notification.params.get("requestId"));
    let named = named.flatten().and_then(RequestId::parse);
    named.map_or(Word::Aside, Word::Cancel)
}

fn modern(
    routing: &RoutingHeaders,
    request: jsonrpc::Request,
    streams: bool,
) -> Result<Call, Error> {
    let jsonrpc::Request {
        id,
        method,
        mut params,
        ..
    } = request;
    let mut meta = RequestMeta::parse_modern(&params).map_err(|e| refused(Some(id.clone()), e))?;
    headers::agree(routing, &meta.protocol_version, &method, &params)
        .map_err(|e| refused(Some(id.clone()), e))?;
    let version = match ProtocolVersion::parse(&meta.protocol_version) {
        Some(version) if version.era() == Era::Modern => version,
        _ => {
            return Err(refused(
                Some(id),
                RpcError::unsupported_version(ProtocolVersion::MODERN, &meta.protocol_version),
            ));
        }
    };
    let method = match Method::parse(&method) {
        Some(known) if known.served_in(Era::Modern) => known,
        _ => return Err(refused(Some(id), RpcError::method_not_found(&method))),
    };
    params.remove("_meta");
    Ok(Call {
        id,
        method,
        params,
        version,
        streams,
        session: None,
        token: token(&mut meta),
        key: meta.rest.remove(IDEMPOTENCY_META),
        meta,
    })
}

/// A member of a batch that is no call, with its id where that could be read.
pub type Refusal = (Option<RequestId>, RpcError);

/// A call of an older revision, in modern form.
pub(crate) fn legacy(
    request: Request,
    version: ProtocolVersion,
    streams: bool,
) -> Result<Call, Refusal> {
    let jsonrpc::Request {
        id,
        method,
        mut params,
        ..
    } = request;
    let mut meta = RequestMeta::parse_legacy(&params, version);
    let Some(method) = Method::parse(&method).filter(|method| method.served_in(Era::Legacy)) else {
        return Err((Some(id), RpcError::method_not_found(&method)));
    };
    params.remove("_meta");
    Ok(Call {
        id,
        method,
        params,
        version,
        streams,
        session: None,
        token: token(&mut meta),
        key: meta.rest.remove(IDEMPOTENCY_META),
        meta,
    })
}

/// A batch exists in 2025-03-26 alone; its members may not be `initialize`.
fn batch(
    headers: &HeaderMap,
    members: Vec<Result<Message, jsonrpc::ParseError>>,
) -> Result<Ask, Error> {
    let routing = routing_headers(headers);
    let version = match routing.protocol_version.as_deref() {
        None => ProtocolVersion::V2025_03_26,
        Some(text) => match ProtocolVersion::parse(text) {
            Some(ProtocolVersion::V2025_03_26) => ProtocolVersion::V2025_03_26,
            _ => {
                return Err(refused(
                    None,
                    RpcError::new(
                        jsonrpc::INVALID_REQUEST,
                        "JSON-RPC batches exist only in 2025-03-26; send one message per POST.",
                    ),
                ));
            }
        },
    };
    let (mut calls, mut words) = (Vec::new(), Vec::new());
    for member in members {
        match member {
            Err(e) => calls.push(Err((e.id().cloned(), e.to_rpc_error()))),
            Ok(Message::Notification(notification)) => words.push(noted(&notification)),
            Ok(Message::Response(response)) => words.push(Word::Answer(response)),
            Ok(Message::Request(request)) if request.method == Method::Initialize.as_str() => {
                calls.push(Err((
                    Some(request.id),
                    RpcError::new(
                        jsonrpc::INVALID_REQUEST,
                        "`initialize` must not be part of a batch.",
                    ),
                )));
            }
            Ok(Message::Request(request)) => calls.push(legacy(request, version, false)),
        }
    }
    Ok(Ask::Batch(calls, words))
}

/// The routing headers as sent. What is not text cannot agree with the body.
fn routing_headers(headers: &HeaderMap) -> RoutingHeaders {
    let mut duplicated = None;
    let mut read = |name: &'static str| {
        let mut values = headers.get_all(name).iter();
        let value = values
            .next()
            .map(|value| value.to_str().unwrap_or("\u{fffd}").to_owned());
        if values.next().is_some() {
            duplicated = Some(name);
        }
        value
    };
    let protocol_version = read(MCP_PROTOCOL_VERSION);
    let method = read(MCP_METHOD);
    let name = read(MCP_NAME);
    RoutingHeaders {
        protocol_version,
        method,
        name,
        duplicated,
    }
}

/// An envelope error; it echoes the request id where that could be read.
fn refused(id: Option<RequestId>, error: RpcError) -> Error {
    let status = match error.code {
        jsonrpc::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    };
    Rejection::Protocol { status, error, id }.into()
}
