//! One request to an upstream of an older revision, within a session.

mod task;

use std::cell::Cell;
use std::rc::Rc;

use tidegate_mcp::era;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{Request, RequestId};
use tidegate_mcp::meta;
use tidegate_mcp::version::Era;

use super::modern::{self, trace};
use super::patience::Patience;
use super::{Exchange, Outgoing, aside, facts, http_sse, not_asked, reply, resume, session, wire};
use crate::egress::Reply;
use crate::error::{Error, Rejection};
use crate::platform::Platform;

pub(super) async fn call<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: Outgoing,
    facts: &facts::Facts,
) -> Result<Reply, Error> {
    let terms = session::Terms::of(&outgoing);
    let session = match session::open(exchange, &outgoing.principal, &terms).await {
        Ok(session) => session,
        // Perhaps it has become one that opens no sessions.
        Err(Error::Rejection(
            Rejection::UpstreamRefused { .. } | Rejection::UpstreamInvalid { .. },
        )) if facts.doubt(exchange) => return again(exchange, outgoing).await,
        Err(error) => return Err(not_asked(error)),
    };
    match legacy_once(exchange, &outgoing, &session).await {
        // The upstream does not know the session any more, so it did not run the call.
        Err(session::Lost::Session) => {
            session::withdraw(exchange.context, &session);
            again(exchange, outgoing).await
        }
        outcome => outcome.map_err(|lost| lost.into_error(exchange)),
    }
}

/// Once more, after a session was lost. Another server may have taken the place of the one
/// that knew it, so the upstream is asked anew what it is.
async fn again<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: Outgoing,
) -> Result<Reply, Error> {
    let facts = facts::ask(exchange, &outgoing.principal, outgoing.spoken()).await;
    let facts = facts.map_err(not_asked)?;
    match facts.era() {
        Era::Modern => modern::call(exchange, outgoing, &facts).await,
        Era::Legacy => afresh(exchange, &outgoing).await,
    }
}

/// A call of an upstream that has just been asked what it is.
pub(super) async fn afresh<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: &Outgoing,
) -> Result<Reply, Error> {
    let terms = session::Terms::of(outgoing);
    let session = session::open(exchange, &outgoing.principal, &terms).await;
    legacy_once(exchange, outgoing, &session.map_err(not_asked)?)
        .await
        .map_err(|lost| lost.into_error(exchange))
}

async fn legacy_once<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: &Outgoing,
    session: &Rc<session::Session>,
) -> Result<Reply, session::Lost> {
    let tool = outgoing.tool();
    let mut as_task = tool.as_ref().is_some_and(|tool| session.insists(tool));
    loop {
        let id = exchange.next_id();
        let held = session::InUse::begin(exchange.context, session, &id);
        let open = as_task.then(|| held.open());
        match in_session(exchange, outgoing, session, id, open).await {
            Ok(reply) => return Ok(held.until_read(reply)),
            Err(lost) => {
                held.ended(lost.error());
                if as_task || !task::is_wanted(session, outgoing, &lost) {
                    return Err(lost);
                }
            }
        }
        // It was not acted on.
        as_task = true;
        session.will_insist(tool.as_deref().unwrap_or_default());
    }
}

/// One call; as a task where `open` holds its id until it is one.
async fn in_session<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: &Outgoing,
    session: &Rc<session::Session>,
    id: RequestId,
    open: Option<Rc<Cell<Option<RequestId>>>>,
) -> Result<Reply, session::Lost> {
    let mut request = legacy_request(outgoing, session, &id);
    if open.is_some() {
        request.params.insert("task", &task::param(exchange));
    }
    let patience = exchange.patience();
    let aside = if session.asks() {
        aside::open(exchange, session, &patience).await
    } else {
        None
    };
    let mut answer = session.post(exchange, request.to_json()).await?;
    if answer.session_lost(exchange, session).await? {
        return Err(session::Lost::Session);
    }
    let messages = messages_of(exchange, session, answer, &id, &patience).await?;
    let messages = match open {
        None => messages,
        Some(open) => {
            let (asking, patience) = (Rc::clone(session), patience.clone());
            let read = async move |exchange: &Exchange<'_, P>, id: &RequestId, params: Object| {
                let request = Request {
                    id: id.clone(),
                    method: "tasks/result".to_owned(),
                    params,
                };
                let answer = asking.post(exchange, request.to_json()).await?;
                messages_of(exchange, &asking, answer, id, &patience).await
            };
            task::seen_through(exchange, session, messages, id.clone(), open, read)
        }
    };
    let messages = aside::beside(messages, aside);
    let (relay, dialect) = hearing(outgoing, session, &id, patience);
    Ok(reply::read(exchange, messages, id, relay, dialect).await?)
}

/// The messages of an answer; a stream is taken up where it is broken off.
async fn messages_of<P: Platform>(
    exchange: &Exchange<'_, P>,
    session: &Rc<session::Session>,
    answer: wire::Answer,
    id: &RequestId,
    patience: &Patience,
) -> Result<wire::Messages, Error> {
    if !answer.is_event_stream() {
        return answer.into_messages(exchange, id, patience).await;
    }
    let (context, upstream) = (exchange.context, exchange.upstream);
    let body = answer.into_body();
    let events = resume::events(context, upstream, session, body, patience);
    Ok(wire::messages(events))
}

/// A call over HTTP+SSE: a session of its own, which ends with it.
pub(super) async fn over_http_sse<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: &Outgoing,
) -> Result<Reply, Error> {
    let patience = exchange.patience();
    let terms = session::Terms::of(outgoing);
    let line = http_sse::open(exchange, &outgoing.principal, &terms, &patience).await;
    let http_sse::Line {
        session, messages, ..
    } = line.map_err(not_asked)?;
    let id = exchange.next_id();
    let held = session::InUse::begin(exchange.context, &session, &id);
    let request = legacy_request(outgoing, &session, &id);
    let (relay, dialect) = hearing(outgoing, &session, &id, patience);
    let reply = async {
        session.post(exchange, request.to_json()).await?;
        reply::read(exchange, messages, id, relay, dialect).await
    };
    match reply.await {
        Ok(reply) => Ok(held.until_read(reply)),
        Err(error) => {
            held.ended(Some(&error));
            Err(error)
        }
    }
}

/// The request as a legacy upstream reads it.
fn legacy_request(outgoing: &Outgoing, session: &session::Session, id: &RequestId) -> Request {
    let mut carried = outgoing.meta.rest.clone();
    if outgoing.meta.progress_token.is_some() {
        carried.insert(meta::PROGRESS_TOKEN, id);
    }
    trace(&mut carried, &outgoing.meta);
    let mut params = outgoing.params.clone();
    if !carried.is_empty() {
        params.insert("_meta", &carried);
    }
    Request {
        id: id.clone(),
        method: outgoing.method.as_str().to_owned(),
        params: era::lower_request(outgoing.method.as_str(), params, session.version),
    }
}

/// How a legacy upstream's messages are to be read.
fn hearing(
    outgoing: &Outgoing,
    session: &Rc<session::Session>,
    id: &RequestId,
    patience: Patience,
) -> (reply::Relay, reply::Dialect) {
    let uri = outgoing
        .params
        .get_str("uri")
        .map(std::borrow::Cow::into_owned);
    let dialect = reply::Dialect::Legacy {
        session: Rc::clone(session),
        method: outgoing.method,
        uri,
        patience,
    };
    (reply::Relay::of(outgoing, id), dialect)
}
