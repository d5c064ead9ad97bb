//! HTTP+SSE, the transport of 2024-11-05, for clients that know no other: `GET /sse` opens
//! the stream that carries every answer, and its first event names where to post.
//!
//! What is posted may arrive at any isolate. A call is brought to the isolate that holds the
//! stream, through the stream's [`Mailbox`], and runs there, by what is in force then and with
//! what the token it was posted with allows; answers to questions and
//! cancellations go to the mailbox of the call itself, as in every session.
//!
//! Spec: 2024-11-05, "Transports", "HTTP with SSE".

use std::collections::BTreeSet;
use std::rc::Rc;

use async_stream::stream;
use bytes::Bytes;
use futures_util::future::{self, Either};
use futures_util::stream::{self, LocalBoxStream, SelectAll, StreamExt};
use http::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_mcp::jsonrpc::{self, Message, Posted, Request, RpcError};
use tidegate_mcp::method::Method;
use tidegate_mcp::sse;
use tidegate_mcp::version::ProtocolVersion;

use crate::auth::Principal;
use crate::body::Body;
use crate::context::Context;
use crate::egress;
use crate::error::{Error, REFUSED, Rejection};
use crate::ingress::{Endpoint, Head, Peer};
use crate::mailbox::{self, Address, Letter, Mailbox};
use crate::notices;
use crate::pipeline;
use crate::platform::{Platform, WAIT_MAX};
use crate::session::{self, Session};
use crate::time::Timestamp;

/// What a client of this transport speaks until `initialize` agrees on another revision:
/// later clients may still come this way.
const VERSION: ProtocolVersion = ProtocolVersion::V2024_11_05;
/// Most calls of one stream that run at a time.
pub const CALLS_MAX: usize = 32;
/// Largest call that fits a mailbox, in bytes.
pub const MESSAGE_MAX: usize = 256 * 1024;
/// Query parameter of the session.
pub const SESSION: &str = "session";

/// Which half of the transport a path names, and of which endpoint: `/sse` and `/messages`
/// beside `/mcp`, `/servers/{name}/sse` and `/messages` beside an upstream's own.
pub(crate) fn endpoint_path(path: &str) -> Option<(Half, String)> {
    let (half, beside) = match path.rsplit_once('/')? {
        (beside, "sse") => (Half::Stream, beside),
        (beside, "messages") => (Half::Messages, beside),
        _ => return None,
    };
    Some((half, format!("{beside}/mcp")))
}

/// The halves of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Where the stream is opened.
    Stream,
    /// Where messages are posted.
    Messages,
}

/// Who posted a call, as far as that may be another than at the last post of the session:
/// what they may do, and from where.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Poster {
    scopes: BTreeSet<String>,
    roles: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_id: Option<String>,
    #[serde(
        rename = "expiresAtMs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    country: Option<String>,
}

impl Poster {
    fn of(principal: &Principal, peer: &Peer) -> Self {
        Self {
            scopes: principal.scopes.clone(),
            roles: principal.roles.clone(),
            token_id: principal.token_id.clone(),
            expires_at: principal.expires_at,
            address: peer.address.clone(),
            country: peer.country.clone(),
        }
    }

    /// The principal of the stream, as they posted.
    fn principal(self, stream: &Principal) -> Principal {
        Principal {
            scopes: self.scopes,
            roles: self.roles,
            token_id: self.token_id,
            expires_at: self.expires_at,
            ..stream.clone()
        }
    }

    fn peer(&self) -> Peer {
        Peer {
            address: self.address.clone(),
            country: self.country.clone(),
            certificate: None,
        }
    }
}

/// Brings a posted call to the stream of its session.
pub(crate) async fn bring<P: Platform>(
    context: &Context<P>,
    session: &Session,
    principal: &Principal,
    request: &Request,
) -> Result<(), Error> {
    let text = request.to_json();
    if text.len() > MESSAGE_MAX {
        return Err(Rejection::BodyTooLarge { max: MESSAGE_MAX }.into());
    }
    let Ok(message) = RawValue::from_string(text) else {
        return Ok(());
    };
    let by = Box::new(Poster::of(principal, &context.peer));
    let letter = Letter::Call { message, by };
    match mailbox::post(context, session, &Address::stream(session), &letter).await? {
        true => Ok(()),
        // Nobody holds the stream any longer.
        false => Err(Rejection::SessionUnknown.into()),
    }
}

/// Opens the stream.
pub(crate) async fn open<P: Platform>(
    context: &Context<P>,
    head: Head,
    principal: &Rc<Principal>,
) -> Result<Response<Body>, Error> {
    let declared = tidegate_mcp::json::Object::default();
    let id = session::begin(context, &head.endpoint, principal, VERSION, &declared)?;
    let id = id.to_str().unwrap_or_default();
    let (session, _) = session::open(context, &head.endpoint, principal, id).await?;
    let mailbox = Mailbox::open(context, &session, &Address::stream(&session)).await?;
    let named = format!(
        "event: endpoint\ndata: {}?{SESSION}={id}\n\n",
        messages_path(&head.endpoint)
    );
    let held = Held {
        context: context.clone(),
        principal: Rc::clone(principal),
        head: Rc::new(head),
        until: principal.expires_at.unwrap_or(Timestamp(u64::MAX)),
        session,
    };
    let first = stream::iter([Bytes::from(named)]);
    Ok(egress::streamed(first.chain(held.told(mailbox))))
}

fn messages_path(endpoint: &Endpoint) -> String {
    let path = endpoint.path();
    let beside = path.strip_suffix("/mcp").unwrap_or_default();
    format!("{beside}/messages")
}

/// An open stream.
struct Held<P> {
    context: Context<P>,
    principal: Rc<Principal>,
    head: Rc<Head>,
    /// When the token that opened it expires.
    until: Timestamp,
    session: Rc<Session>,
}

impl<P: Platform> Held<P> {
    /// Everything the client is told, until its token expires.
    fn told(mut self, mailbox: Mailbox<P>) -> LocalBoxStream<'static, Bytes> {
        stream! {
            let mut calls: SelectAll<LocalBoxStream<'static, Bytes>> = SelectAll::new();
            // Never ends, so that the selection never does either.
            calls.push(self.changes().await.chain(stream::pending()).boxed_local());
            let mut mail = mailbox.taking(WAIT_MAX);
            loop {
                let (mailbox, letters) = match future::select(calls.next(), &mut mail).await {
                    Either::Left((chunk, _)) => {
                        if let Some(chunk) = chunk {
                            yield chunk;
                        }
                        continue;
                    }
                    Either::Right((taken, _)) => taken,
                };
                if self.context.now() >= self.until {
                    return;
                }
                match letters {
                    Ok(letters) if letters.is_empty() => {
                        yield Bytes::from_static(sse::COMMENT.as_bytes());
                    }
                    Ok(letters) => {
                        for letter in letters {
                            // One of them is the stream of changes.
                            let crowded = calls.len() > CALLS_MAX;
                            calls.extend(self.call(letter, crowded));
                        }
                    }
                    Err(_) => {}
                }
                mail = mailbox.taking(WAIT_MAX);
            }
        }
        .boxed_local()
    }

    /// What changes at the upstreams; nothing where that cannot be listened for.
    async fn changes(&self) -> LocalBoxStream<'static, Bytes> {
        let (context, endpoint) = (&self.context, &self.head.endpoint);
        let session = Rc::clone(&self.session);
        match notices::changes(context, endpoint, &self.principal, session).await {
            Ok(changes) => changes,
            Err(_) => stream::empty().boxed_local(),
        }
    }

    /// Runs a posted call, unless too many run already.
    fn call(&mut self, letter: Letter, crowded: bool) -> Option<LocalBoxStream<'static, Bytes>> {
        let Letter::Call { message, by } = letter else {
            return None;
        };
        let Ok(Posted::One(Message::Request(request))) = jsonrpc::parse(message.get().as_bytes())
        else {
            return None;
        };
        if crowded {
            let reason = format!("More than {CALLS_MAX} calls run on this stream; wait for one.");
            let refusal =
                jsonrpc::Response::error(Some(request.id), RpcError::new(REFUSED, reason));
            let told = Bytes::from(sse::encode_message(&refusal.to_json()));
            return Some(stream::iter([told]).boxed_local());
        }
        if request.method == Method::Initialize.as_str() {
            self.session = Rc::new(self.session.declaring(&request.params));
        }
        let peer = Rc::new(by.peer());
        let principal = Rc::new(by.principal(&self.principal));
        let alike =
            principal.scopes == self.principal.scopes && principal.roles == self.principal.roles;
        let context = Context {
            peer,
            // A token that stands for less, or more, is not exchanged through the stream's.
            caller: self.context.caller.clone().filter(|_| alike),
            ..self.context.clone()
        };
        let (head, session) = (Rc::clone(&self.head), Rc::clone(&self.session));
        let told =
            async move { pipeline::told(&context, &head, principal, session, request).await };
        Some(stream::once(told).flatten().boxed_local())
    }
}
