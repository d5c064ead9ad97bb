//! What a legacy client subscribes to, and the stream it holds open to hear of it (`GET`),
//! within its session.
//!
//! The session remembers the subscriptions, so they can be made and ended by any request,
//! also before or after the stream is opened; the stream follows them. What is told on it is
//! what a modern client would hear by `subscriptions/listen`.

use std::collections::BTreeSet;
use std::rc::Rc;

use async_stream::stream;
use bytes::Bytes;
use futures_util::future::{self, Either, FutureExt};
use futures_util::stream::{LocalBoxStream, StreamExt};
use http::Response;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::sse;
use tidegate_mcp::subscription::Filter;

use crate::auth::Principal;
use crate::body::Body;
use crate::context::Context;
use crate::egress::{self, KEEP_ALIVE};
use crate::error::{Error, Rejection};
use crate::ingress::{Call, Endpoint};
use crate::listen;
use crate::platform::{Clock, Platform, Version};
use crate::session::{self, SUBSCRIPTIONS_MAX, Session};
use crate::upstream;

/// `resources/subscribe`: the session remembers it.
pub(crate) async fn subscribe<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    call: &Call,
) -> Result<Object, Error> {
    let (session, uri) = named(call)?;
    let (upstream, _) = listen::readable(context, endpoint, principal, &uri).await?;
    let facts = upstream::facts(context, &upstream, principal).await?;
    let wanted = Filter {
        uris: BTreeSet::from([uri.clone()]),
        ..Filter::default()
    };
    if wanted.declared(&facts.capabilities()).uris.is_empty() {
        return Err(unserved(call));
    }
    session::change(context, session, |state| {
        state.subscriptions.insert(uri.clone());
        if state.subscriptions.len() > SUBSCRIPTIONS_MAX {
            let reason = format!("a session has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(Rejection::protocol(RpcError::invalid_params(reason)).into());
        }
        Ok(())
    })
    .await?;
    Ok(Object::default())
}

/// `resources/unsubscribe`, of what was subscribed to or not.
pub(crate) async fn unsubscribe<P: Platform>(
    context: &Context<P>,
    call: &Call,
) -> Result<Object, Error> {
    let (session, uri) = named(call)?;
    session::change(context, session, |state| {
        state.subscriptions.remove(&uri);
        Ok(())
    })
    .await?;
    Ok(Object::default())
}

fn named(call: &Call) -> Result<(&Session, String), Error> {
    let session = call.session.as_deref().ok_or_else(|| unserved(call))?;
    match call.params.get_str("uri") {
        Some(uri) => Ok((session, uri.into_owned())),
        None => Err(Rejection::protocol(RpcError::invalid_params("`uri` must be a string")).into()),
    }
}

fn unserved(call: &Call) -> Error {
    Rejection::protocol(RpcError::method_not_found(call.method.as_str())).into()
}

/// Opens the stream.
pub(crate) async fn stream<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    session: Rc<Session>,
) -> Result<Response<Body>, Error> {
    let changes = changes(context, endpoint, principal, session).await?;
    Ok(egress::streamed(changes))
}

/// What changes, as the session's client is told of it, until the session is over.
pub(crate) async fn changes<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    session: Rc<Session>,
) -> Result<LocalBoxStream<'static, Bytes>, Error> {
    let state = session::state(context, &session).await;
    let mut uris = state.subscriptions.clone();
    let mut listening = listen::open(context, endpoint, principal, everything(&uris)).await?;
    let (context, endpoint, principal) = (context.clone(), endpoint.clone(), Rc::clone(principal));
    Ok(stream! {
        let mut seen = None;
        let mut watching = watch(&context, &session, seen);
        loop {
            let (version, state) = match future::select(listening.changes.next(), &mut watching).await {
                Either::Left((Some(notification), _)) => {
                    yield Bytes::from(sse::encode_message(&notification.to_json()));
                    continue;
                }
                // The principal may listen no longer.
                Either::Left((None, _)) => return,
                Either::Right((Ok(changed), _)) => changed,
                Either::Right((Err(_), _)) => {
                    context.platform.clock().sleep(KEEP_ALIVE).await;
                    watching = watch(&context, &session, seen);
                    continue;
                }
            };
            if state.ended {
                return;
            }
            yield Bytes::from_static(sse::COMMENT.as_bytes());
            if state.subscriptions != uris {
                // The new lines first, so that no change falls between.
                uris = state.subscriptions.clone();
                match listen::open(&context, &endpoint, &principal, everything(&uris)).await {
                    Ok(newer) => listening = newer,
                    Err(_) => return,
                }
            }
            seen = version;
            watching = watch(&context, &session, seen);
        }
    }
    .boxed_local())
}

type Watching =
    future::LocalBoxFuture<'static, Result<(Option<Version>, Rc<session::State>), Error>>;

/// The session's state once it changes; the same again when nothing did for a while.
fn watch<P: Platform>(
    context: &Context<P>,
    session: &Rc<Session>,
    seen: Option<Version>,
) -> Watching {
    let (context, session) = (context.clone(), Rc::clone(session));
    async move { session::changed(&context, &session, seen, KEEP_ALIVE).await }.boxed_local()
}

fn everything(uris: &BTreeSet<String>) -> Filter {
    Filter {
        tools: true,
        prompts: true,
        resources: true,
        uris: uris.clone(),
        ..Filter::default()
    }
}
