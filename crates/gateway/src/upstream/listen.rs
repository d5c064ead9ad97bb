//! One upstream's change notifications as a stream, in its own names and in modern form,
//! whatever era it speaks.
//!
//! Setting it up is bounded in time; the stream lives until it is dropped, its deadline
//! comes, or the upstream ends it. What the upstream could not deliver by its own
//! declaration is never asked of it. Outcomes do not move the circuit breaker: an upstream
//! that answers calls and cannot hold a stream is well.

mod http_sse;
mod legacy;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, LocalBoxStream};
use http::{HeaderMap, HeaderValue};
use tidegate_mcp::headers;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{METHOD_NOT_FOUND, Message, Notification, Request, RequestId};
use tidegate_mcp::meta::{self, RequestMeta};
use tidegate_mcp::method::Method;
use tidegate_mcp::subscription::{ACKNOWLEDGED, Filter};
use tidegate_mcp::version::{Era, ProtocolVersion};

use super::wire::{self, Broken, Messages};
use super::{Exchange, FACTS_TIMEOUT};
use crate::auth::Principal;
use crate::config::{Transport, Upstream};
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::platform::Platform;
use crate::time::Timestamp;

/// Longest one upstream may take until it has acknowledged.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// What an upstream delivers, and how it comes.
pub(crate) struct Listening {
    /// As much of what was wanted as the upstream acknowledged.
    pub(crate) honoured: Filter,
    /// Notifications of those kinds alone. It ends when the upstream ends it.
    pub(crate) notifications: LocalBoxStream<'static, Notification>,
}

impl Listening {
    /// Nothing ever comes, and that is no failure.
    fn silent() -> Self {
        Self {
            honoured: Filter::default(),
            notifications: stream::pending().boxed_local(),
        }
    }
}

/// Whom to listen to, for what, and how long.
pub(crate) struct Wish<'a> {
    pub(crate) upstream: &'a Upstream,
    pub(crate) principal: &'a Principal,
    /// In the upstream's own names.
    pub(crate) wanted: &'a Filter,
    pub(crate) until: Timestamp,
    /// Ask the upstream what it is, whatever is known: it may have become another.
    pub(crate) anew: bool,
}

/// Listens to one upstream.
pub(crate) async fn listen<P: Platform>(
    context: &Context<P>,
    wish: Wish<'_>,
) -> Result<Listening, Error> {
    let Wish {
        upstream,
        principal,
        ..
    } = wish;
    let facts = match wish.anew {
        false => super::facts(context, upstream, principal).await?,
        true => super::probe(context, upstream, principal, FACTS_TIMEOUT).await?,
    };
    let wanted = wish.wanted.declared(&facts.capabilities());
    if wanted.is_empty() {
        return Ok(Listening::silent());
    }
    let timeout = SETUP_TIMEOUT.min(Duration::from_millis(upstream.timeout_ms));
    let exchange = Exchange {
        context,
        upstream,
        principal: &principal.id,
        deadline: context.now() + timeout,
        timeout,
    };
    match facts.era() {
        Era::Modern => {
            let asking = modern(&exchange, facts.version, wanted, wish.until);
            let listening = context.until(exchange.deadline, asking).await;
            listening.unwrap_or_else(|| Err(exchange.timed_out()))
        }
        Era::Legacy if facts.transport == Transport::Sse => {
            let asking = http_sse::listen(&exchange, principal, wanted, wish.until);
            let listening = context.until(exchange.deadline, asking).await;
            listening.unwrap_or_else(|| Err(exchange.timed_out()))
        }
        Era::Legacy => legacy::listen(&exchange, principal, wanted, wish.until).await,
    }
}

/// `subscriptions/listen`, until it is acknowledged.
async fn modern<P: Platform>(
    exchange: &Exchange<'_, P>,
    version: ProtocolVersion,
    wanted: Filter,
    until: Timestamp,
) -> Result<Listening, Error> {
    let id = exchange.next_id();
    let (head, request) = request(exchange, version, &wanted, &id);
    let answer = wire::post(exchange, head, request.to_json()).await?;
    // The answer is not over with its set-up.
    let open = Exchange {
        deadline: until,
        ..*exchange
    };
    let mut messages = answer.into_messages(&open, &id, &open.patience()).await?;
    loop {
        match messages.next().await {
            Some(Ok(Message::Notification(notification)))
                if notification.method == ACKNOWLEDGED =>
            {
                let honoured = Filter::of_acknowledgement(&notification.params).and(&wanted);
                return Ok(Listening {
                    notifications: notifications(messages, honoured.clone(), id),
                    honoured,
                });
            }
            Some(Ok(Message::Response(response))) if response.id.as_ref() == Some(&id) => {
                return match response.outcome {
                    Ok(_) => Err(exchange.invalid("it ends `subscriptions/listen` unacknowledged")),
                    // It declares more than it has.
                    Err(error) if error.code == METHOD_NOT_FOUND => Ok(Listening::silent()),
                    Err(error) => Err(Rejection::protocol(error).into()),
                };
            }
            // Nothing counts before the acknowledgement.
            Some(Ok(_)) => {}
            Some(Err(Broken::Late)) => return Err(exchange.timed_out()),
            Some(Err(Broken::Invalid(reason))) => return Err(exchange.invalid(reason)),
            None => return Err(exchange.invalid("it does not answer `subscriptions/listen`")),
        }
    }
}

fn request<P: Platform>(
    exchange: &Exchange<'_, P>,
    version: ProtocolVersion,
    wanted: &Filter,
    id: &RequestId,
) -> (HeaderMap, Request) {
    let context = exchange.context;
    let carried = super::modern_meta(context, &RequestMeta::default(), version, id);
    let method = Method::SubscriptionsListen.as_str();
    let mut head = HeaderMap::new();
    head.insert(
        headers::MCP_PROTOCOL_VERSION,
        HeaderValue::from_static(version.as_str()),
    );
    head.insert(headers::MCP_METHOD, HeaderValue::from_static(method));
    let request = Request {
        id: id.clone(),
        method: method.to_owned(),
        params: Object::new()
            .with("notifications", &wanted.to_object())
            .with(meta::META, &carried),
    };
    (head, request)
}

/// What comes after the acknowledgement, without the upstream's subscription id.
fn notifications(
    messages: Messages,
    honoured: Filter,
    id: RequestId,
) -> LocalBoxStream<'static, Notification> {
    let ends = move |message: &Result<Message, Broken>| match message {
        Ok(Message::Response(response)) => response.id.as_ref() == Some(&id),
        Ok(Message::Request(_) | Message::Notification(_)) => false,
        Err(_) => true,
    };
    messages
        .take_while(move |message| std::future::ready(!ends(message)))
        .filter_map(move |message| std::future::ready(wanted(message, &honoured)))
        .boxed_local()
}

fn wanted(message: Result<Message, Broken>, honoured: &Filter) -> Option<Notification> {
    match message {
        Ok(Message::Notification(mut notification)) if honoured.admits(&notification) => {
            meta::strip(&mut notification.params, &[meta::SUBSCRIPTION_ID]);
            Some(notification)
        }
        Ok(Message::Notification(_) | Message::Request(_) | Message::Response(_)) | Err(_) => None,
    }
}
