//! From the messages of one exchange to a [`Reply`]: notifications that belong to the
//! client's request with its own tokens, and the end in modern form.

use std::rc::Rc;

use futures_util::stream;
use futures_util::{FutureExt, StreamExt};
use serde_json::value::RawValue;
use tidegate_mcp::era;
use tidegate_mcp::input::{self, InputError};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{self, Message, Notification, Request, RequestId, Response, RpcError};
use tidegate_mcp::meta::{ClientCapabilities, LOG_LEVELS};
use tidegate_mcp::method::Method;
use tidegate_mcp::version::ProtocolVersion;

use super::patience::{ANSWER_WITHIN, Patience};
use super::session::{self, Session};
use super::wire::{Broken, Messages};
use super::{Exchange, Outgoing};
use crate::config::Upstream;
use crate::context::Context;
use crate::egress::{Answered, Event, Question, Reply};
use crate::error::{Error, Rejection};
use crate::platform::Platform;

/// How the upstream speaks.
#[derive(Clone)]
pub(crate) enum Dialect {
    /// 2026-07-28: its results are passed on.
    Modern,
    /// Older: its results are lifted, and it may ask things back in its session.
    Legacy {
        session: Rc<Session>,
        method: Method,
        uri: Option<String>,
        patience: Patience,
    },
}

/// What of the upstream's notifications the client wants to hear, and under which token.
#[derive(Clone)]
pub(crate) struct Relay {
    ours: RequestId,
    /// What the client can be asked during the call.
    askable: ClientCapabilities,
    progress: Option<Box<RawValue>>,
    log_level: Option<usize>,
}

impl Relay {
    /// What the client's request asked for; `ours` is the token the upstream was given.
    pub(crate) fn of(outgoing: &Outgoing, ours: &RequestId) -> Self {
        let log_level = outgoing.meta.log_level.as_deref().and_then(severity);
        Self {
            ours: ours.clone(),
            askable: if outgoing.asks {
                outgoing.meta.client_capabilities.clone()
            } else {
                ClientCapabilities::default()
            },
            progress: outgoing.meta.progress_token.clone(),
            log_level,
        }
    }

    /// The notification as the client may see it, if it may.
    fn pass(&self, mut notification: Notification) -> Option<Notification> {
        match notification.method.as_str() {
            "notifications/progress" => {
                let token = notification
                    .params
                    .get("progressToken")
                    .and_then(RequestId::parse)?;
                let theirs = self.progress.clone().filter(|_| token == self.ours)?;
                notification.params.insert_raw("progressToken", theirs);
                Some(notification)
            }
            "notifications/message" => {
                let level = notification
                    .params
                    .get_str("level")
                    .and_then(|level| severity(&level))?;
                self.log_level
                    .filter(|wanted| level >= *wanted)
                    .map(|_| notification)
            }
            _ => None,
        }
    }
}

struct Reading<P> {
    context: Context<P>,
    upstream: Upstream,
    timeout: std::time::Duration,
    messages: Messages,
    id: RequestId,
    relay: Relay,
    dialect: Dialect,
    /// What the client would have had to declare for what it was not asked.
    missing: Option<Object>,
}

/// Reads until the first thing the client should hear. If that is the end, the reply is
/// whole; otherwise it is a stream that goes on as the upstream does.
pub(crate) async fn read<P: Platform>(
    exchange: &Exchange<'_, P>,
    messages: Messages,
    id: RequestId,
    relay: Relay,
    dialect: Dialect,
) -> Result<Reply, Error> {
    let mut reading = Reading {
        context: exchange.context.clone(),
        upstream: exchange.upstream.clone(),
        timeout: exchange.timeout,
        messages,
        id,
        relay,
        dialect,
        missing: None,
    };
    match next(&mut reading).await {
        Event::End(end) => end.map(Reply::Result),
        first @ (Event::Notification(_) | Event::Question(_) | Event::Request(_)) => {
            let rest = stream::unfold(Some(reading), |reading| async move {
                let mut reading = reading?;
                let event = next(&mut reading).await;
                let more = (!matches!(event, Event::End(_))).then_some(reading);
                Some((event, more))
            });
            Ok(Reply::Stream(
                stream::iter([first]).chain(rest).boxed_local(),
            ))
        }
    }
}

async fn next<P: Platform>(reading: &mut Reading<P>) -> Event {
    loop {
        let message = match reading.messages.next().await {
            Some(Ok(message)) => message,
            Some(Err(broken)) => return Event::End(Err(reading.broken(broken))),
            None => return Event::End(Err(reading.invalid("its answer ended without a response"))),
        };
        match message {
            Message::Response(response) if response.id.as_ref() == Some(&reading.id) => {
                return Event::End(reading.end(response));
            }
            // A response nobody waits for.
            Message::Response(_) => {}
            Message::Request(request) => {
                if let Some(question) = reading.question(request).await {
                    return Event::Question(question);
                }
            }
            Message::Notification(notification) => {
                if let Some(notification) = reading.relay.pass(notification) {
                    return Event::Notification(notification);
                }
            }
        }
    }
}

impl<P: Platform> Reading<P> {
    fn end(&self, response: Response) -> Result<Object, Error> {
        match (response.outcome, &self.dialect) {
            (Ok(result), Dialect::Modern) => Ok(result),
            (Ok(result), Dialect::Legacy { method, .. }) => {
                Ok(era::lift_result(method.as_str(), result))
            }
            (Err(error), Dialect::Legacy { .. })
                if let Some(required) = era::lift_url_elicitations(&error) =>
            {
                Ok(required)
            }
            (Err(error), dialect) => {
                // It failed for want of an answer the client cannot give: a modern server
                // would have said so at once.
                if let Some(missing) = &self.missing {
                    let error = RpcError::missing_client_capability(missing);
                    return Err(Rejection::protocol(error).into());
                }
                let error = match dialect {
                    Dialect::Modern => error,
                    Dialect::Legacy { uri, .. } => era::lift_error(error, uri.as_deref()),
                };
                Err(self.relayed(error))
            }
        }
    }

    /// An error of the upstream, as far as it concerns the client. Disagreements on
    /// headers and versions are between the gateway and the upstream; they say nothing of
    /// its health, and a client that causes them must not close it to the others.
    fn relayed(&self, error: RpcError) -> Error {
        match error.code {
            jsonrpc::HEADER_MISMATCH => {
                let upstream = self.upstream.name.clone();
                Rejection::HeadersRefused { upstream }.into()
            }
            jsonrpc::UNSUPPORTED_PROTOCOL_VERSION => {
                let upstream = self.upstream.name.clone();
                Rejection::UpstreamRefused { upstream }.into()
            }
            _ => Rejection::protocol(error).into(),
        }
    }

    /// A request from a legacy upstream, as a question for the client. What the client has
    /// not declared is refused at once: the upstream waits for the answer before it goes on.
    async fn question(&mut self, request: Request) -> Option<Question> {
        let Dialect::Legacy {
            session, patience, ..
        } = &self.dialect
        else {
            return None;
        };
        let version = session.version;
        let (context, session) = (self.context.clone(), Rc::clone(session));
        let tell = async move |id: RequestId, outcome: Answered| {
            let id = Some(id);
            session::tell(&context, &session, Response { id, outcome }.to_json()).await;
        };
        if request.method == "ping" {
            tell(request.id, Ok(Object::default())).await;
            return None;
        }
        let asks = input::check_request(&request.method, &request.params, &self.relay.askable);
        let (clock, timeout) = (self.context.clone(), self.timeout);
        let patience = patience.clone();
        let method = request.method.clone();
        let question = Question {
            method: request.method,
            params: request.params,
            reply: Box::new(move |outcome| {
                async move {
                    let outcome = outcome.and_then(|answer| sayable(&method, answer, version));
                    tell(request.id, outcome).await;
                    patience.answered(clock.now() + timeout);
                }
                .boxed_local()
            }),
        };
        if let Err(why) = asks {
            if let InputError::Undeclared { required } = why {
                self.missing = Some(required);
            }
            question.refuse().await;
            return None;
        }
        if let Dialect::Legacy { patience, .. } = &self.dialect {
            // Some time beyond the client's own, so that it is the client that is too late.
            patience.asked(self.context.now() + ANSWER_WITHIN + timeout);
        }
        Some(question)
    }

    fn broken(&self, broken: Broken) -> Error {
        match broken {
            Broken::Late => Rejection::UpstreamTimeout {
                upstream: self.upstream.name.clone(),
                timeout: self.timeout,
                asked: true,
            }
            .into(),
            Broken::Invalid(reason) => self.invalid(&reason),
        }
    }

    fn invalid(&self, reason: &str) -> Error {
        Rejection::UpstreamInvalid {
            upstream: self.upstream.name.clone(),
            reason: reason.to_owned(),
            asked: true,
        }
        .into()
    }
}

/// A client's answer in the words of the revision the upstream speaks.
fn sayable(method: &str, answer: Object, version: ProtocolVersion) -> Answered {
    era::lower_answer(method, answer, version).ok_or_else(|| {
        let reason = "The client answered what this revision has no words for.";
        RpcError::new(jsonrpc::INTERNAL_ERROR, reason)
    })
}

/// How severe a log level of the protocol is; unknown levels have none.
fn severity(level: &str) -> Option<usize> {
    LOG_LEVELS.iter().position(|known| *known == level)
}
