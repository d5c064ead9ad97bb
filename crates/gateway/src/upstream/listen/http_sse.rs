//! Listening to an upstream of 2024-11-05: its one stream carries the changes among the
//! answers, and is held open.

use std::collections::{BTreeMap, VecDeque};

use futures_util::StreamExt;
use futures_util::stream;
use tidegate_mcp::jsonrpc::{Message, Notification};
use tidegate_mcp::subscription::Filter;

use super::{Listening, legacy};
use crate::auth::Principal;
use crate::context::Context;
use crate::error::Error;
use crate::platform::Platform;
use crate::time::Timestamp;
use crate::upstream::Exchange;
use crate::upstream::http_sse::{self, Line};
use crate::upstream::patience::Patience;
use crate::upstream::session::Terms;
use crate::upstream::wire::Broken;

/// Listens on a stream of its own.
pub(super) async fn listen<P: Platform>(
    exchange: &Exchange<'_, P>,
    principal: &Principal,
    wanted: Filter,
    until: Timestamp,
) -> Result<Listening, Error> {
    let (patience, terms) = (Patience::until(until), Terms::default());
    let mut line = http_sse::open(exchange, &principal.id, &terms, &patience).await?;
    let mut honoured = legacy::declared(&wanted, &line.result);
    let mut asked = BTreeMap::new();
    for uri in std::mem::take(&mut honoured.uris) {
        let request = legacy::subscription(exchange, &uri);
        line.session.post(exchange, request.to_json()).await?;
        asked.insert(request.id, uri);
    }
    let mut early = VecDeque::new();
    while !asked.is_empty() {
        match line.messages.next().await {
            Some(Ok(Message::Response(response))) => {
                let uri = response.id.and_then(|id| asked.remove(&id));
                honoured
                    .uris
                    .extend(uri.filter(|_| response.outcome.is_ok()));
            }
            Some(Ok(message @ (Message::Notification(_) | Message::Request(_)))) => {
                early.push_back(message);
            }
            Some(Err(Broken::Late)) => return Err(exchange.timed_out()),
            Some(Err(Broken::Invalid(reason))) => return Err(exchange.invalid(reason)),
            None => return Err(exchange.invalid("its stream ended")),
        }
    }
    let reading = Reading {
        context: exchange.context.clone(),
        line,
        early,
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

struct Reading<P> {
    context: Context<P>,
    line: Line,
    /// What came before the last subscription was answered.
    early: VecDeque<Message>,
    honoured: Filter,
}

impl<P: Platform> Reading<P> {
    async fn next(&mut self) -> Option<Notification> {
        loop {
            let message = match self.early.pop_front() {
                Some(message) => message,
                None => self.line.messages.next().await?.ok()?,
            };
            match message {
                Message::Notification(notification) => {
                    if self.honoured.admits(&notification) {
                        return Some(notification);
                    }
                }
                Message::Request(request) => {
                    legacy::refuse(&self.context, &self.line.session, &request).await;
                }
                Message::Response(_) => {}
            }
        }
    }
}
