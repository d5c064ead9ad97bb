//! Calling an upstream: which era it speaks, the session if it needs one, the breaker, the
//! deadline, and its answer as a [`Reply`] in modern form.
//!
//! To an upstream the gateway is a client of its own: own ids, own progress tokens, own
//! credentials. Nothing of the client's `Authorization`, `Cookie` or `DPoP` passes.

mod aside;
pub mod breaker;
pub mod facts;
mod http_sse;
pub(crate) mod listen;
mod patience;
mod reply;
mod session;
mod wire;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use tidegate_mcp::era;
use tidegate_mcp::headers;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{Request, RequestId};
use tidegate_mcp::meta::{self, RequestMeta};
use tidegate_mcp::method::Method;
use tidegate_mcp::version::{Era, ProtocolVersion};

use crate::auth::{Principal, PrincipalId};
use crate::config::{Transport, Upstream};
use crate::context::Context;
use crate::egress::{Event, Reply};
use crate::error::{Error, Rejection};
use crate::memory::Bounded;
use crate::platform::Platform;
use crate::time::Timestamp;
use breaker::{Breaker, Outcome};
pub(crate) use patience::ANSWER_WITHIN;
use patience::Patience;
pub(crate) use wire::SESSION_ID;

/// Most upstreams whose state one isolate remembers.
const REMEMBERED_MAX: usize = 256;
/// Longest an upstream is waited for when it is asked what it is: lists and discovery of
/// the others do not wait for a dead one longer than this.
const FACTS_TIMEOUT: Duration = Duration::from_secs(10);

/// What an isolate remembers of upstreams.
pub struct Memory {
    breakers: Bounded<String, Breaker>,
    facts: facts::Memory,
    sessions: session::Memory,
    next_id: Cell<i64>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            breakers: Bounded::new(REMEMBERED_MAX),
            facts: facts::Memory::default(),
            sessions: session::Memory::default(),
            next_id: Cell::new(1),
        }
    }
}

/// One request for one upstream, in modern form and in the upstream's own names.
#[derive(Clone)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Params without `_meta`.
    pub params: Object,
    /// What the client's `_meta` said.
    pub meta: RequestMeta,
    /// `Mcp-Param-*` headers of the client's request.
    pub param_headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether what the upstream asks back can be brought to the client while the call runs.
    pub asks: bool,
    /// On whose behalf: sessions are never shared between principals.
    pub principal: PrincipalId,
    /// How long the whole exchange may take.
    pub timeout: Duration,
}

impl Outgoing {
    /// A request of the gateway's own, such as a list.
    pub fn own(method: Method, params: Object, principal: PrincipalId, timeout: Duration) -> Self {
        let meta = RequestMeta::default();
        Self {
            method,
            params,
            meta,
            param_headers: Vec::new(),
            asks: false,
            principal,
            timeout,
        }
    }
}

/// A call on its way: what every step of the exchange shares.
pub(crate) struct Exchange<'a, P> {
    pub(crate) context: &'a Context<P>,
    pub(crate) upstream: &'a Upstream,
    pub(crate) deadline: Timestamp,
    pub(crate) timeout: Duration,
}

impl<P: Platform> Exchange<'_, P> {
    /// An id no other request of this isolate has.
    pub(crate) fn next_id(&self) -> RequestId {
        let ids = &self.context.memory.upstream.next_id;
        let id = ids.get();
        ids.set(id.wrapping_add(1).max(1));
        RequestId::Integer(id)
    }

    /// Patience until the deadline.
    pub(crate) fn patience(&self) -> Patience {
        Patience::until(self.deadline)
    }

    pub(crate) fn timed_out(&self) -> Error {
        Rejection::UpstreamTimeout {
            upstream: self.upstream.name.clone(),
            timeout: self.timeout,
        }
        .into()
    }

    pub(crate) fn invalid(&self, reason: impl Into<String>) -> Error {
        Rejection::UpstreamInvalid {
            upstream: self.upstream.name.clone(),
            reason: reason.into(),
        }
        .into()
    }
}

/// Sends `outgoing` to the upstream and gives what comes of it.
pub async fn call<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    outgoing: Outgoing,
) -> Result<Reply, Error> {
    admit(context, upstream)?;
    let timeout = outgoing.timeout;
    let deadline = context.now() + timeout;
    let exchange = Exchange {
        context,
        upstream,
        deadline,
        timeout,
    };
    match attempt(&exchange, outgoing).await {
        // Not before its end is it known what came of it.
        Ok(Reply::Stream(events)) => {
            let (context, upstream) = (context.clone(), upstream.clone());
            let noted = events.inspect(move |event| {
                if let Event::End(end) = event {
                    note(&context, &upstream, end.as_ref().err());
                }
            });
            Ok(Reply::Stream(noted.boxed_local()))
        }
        result => {
            note(context, upstream, result.as_ref().err());
            result
        }
    }
}

async fn attempt<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: Outgoing,
) -> Result<Reply, Error> {
    // What a server asks back on the call's own stream it may not know how to ask otherwise,
    // though it speaks both eras.
    let rather = match session::Terms::of(&outgoing).ask() {
        true => Era::Legacy,
        false => Era::Modern,
    };
    let facts = facts::load(exchange, &outgoing.principal, rather)
        .await
        .map_err(not_asked)?;
    match facts.era() {
        Era::Modern => modern(exchange, outgoing, facts.version).await,
        Era::Legacy if facts.transport == Transport::Sse => {
            over_http_sse(exchange, &outgoing).await
        }
        Era::Legacy => legacy(exchange, outgoing).await,
    }
}

/// An error met before the request itself was sent: whatever became of the question, the
/// request was not acted on.
fn not_asked(error: Error) -> Error {
    match error {
        Error::Rejection(Rejection::UpstreamLost { upstream }) => Rejection::UpstreamUnavailable {
            upstream,
            retry_after: None,
        }
        .into(),
        error @ (Error::Rejection(_) | Error::Fault(_)) => error,
    }
}

async fn modern<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: Outgoing,
    version: ProtocolVersion,
) -> Result<Reply, Error> {
    let id = exchange.next_id();
    let relay = reply::Relay::of(&outgoing, &id);
    let mut params = outgoing.params;
    params.insert(
        "_meta",
        &modern_meta(exchange.context, &outgoing.meta, version, &id),
    );
    let mut head = HeaderMap::new();
    head.insert(
        headers::MCP_PROTOCOL_VERSION,
        HeaderValue::from_static(version.as_str()),
    );
    head.insert(
        headers::MCP_METHOD,
        HeaderValue::from_static(outgoing.method.as_str()),
    );
    if let Some(name) = headers::expected_name(outgoing.method.as_str(), &params) {
        let value = HeaderValue::from_str(&headers::encode_value(&name));
        head.insert(
            headers::MCP_NAME,
            value.map_err(|_| exchange.invalid("a name that fits no header"))?,
        );
    }
    head.extend(outgoing.param_headers);
    let request = Request {
        id: id.clone(),
        method: outgoing.method.as_str().to_owned(),
        params,
    };
    let patience = exchange.patience();
    let messages = wire::post(exchange, head, request.to_json())
        .await?
        .into_messages(exchange, &id, &patience)
        .await?;
    reply::read(exchange, messages, id, relay, reply::Dialect::Modern).await
}

/// `_meta` of a request the gateway makes: its own identity, what the client can do and we
/// can carry, and everything that is not ours to decide.
fn modern_meta<P: Platform>(
    context: &Context<P>,
    client: &RequestMeta,
    version: ProtocolVersion,
    id: &RequestId,
) -> Object {
    let mut carried = client.rest.clone();
    carried.insert(meta::PROTOCOL_VERSION, &version.as_str());
    carried.insert(
        meta::CLIENT_INFO,
        &crate::discover::server_info(&context.settings),
    );
    carried.insert(
        meta::CLIENT_CAPABILITIES,
        &crate::discover::bridged(&client.client_capabilities),
    );
    if let Some(level) = &client.log_level {
        carried.insert(meta::LOG_LEVEL, level);
    }
    if client.progress_token.is_some() {
        carried.insert(meta::PROGRESS_TOKEN, id);
    }
    trace(&mut carried, client);
    carried
}

fn trace(carried: &mut Object, client: &RequestMeta) {
    let trace = &client.trace;
    let fields = [
        (meta::TRACEPARENT, &trace.traceparent),
        (meta::TRACESTATE, &trace.tracestate),
        (meta::BAGGAGE, &trace.baggage),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            carried.insert(name, value);
        }
    }
}

async fn legacy<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: Outgoing,
) -> Result<Reply, Error> {
    let terms = session::Terms::of(&outgoing);
    let session = session::open(exchange, &outgoing.principal, &terms).await;
    let session = session.map_err(not_asked)?;
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
    let facts = facts::ask(exchange, &outgoing.principal, Era::Legacy).await;
    let facts = facts.map_err(not_asked)?;
    match facts.era() {
        Era::Modern => modern(exchange, outgoing, facts.version).await,
        Era::Legacy => {
            let terms = session::Terms::of(&outgoing);
            let session = session::open(exchange, &outgoing.principal, &terms).await;
            legacy_once(exchange, &outgoing, &session.map_err(not_asked)?)
                .await
                .map_err(|lost| lost.into_error(exchange))
        }
    }
}

async fn legacy_once<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: &Outgoing,
    session: &Rc<session::Session>,
) -> Result<Reply, session::Lost> {
    let id = exchange.next_id();
    let held = session::InUse::begin(exchange.context, session, &id);
    match in_session(exchange, outgoing, session, id).await {
        Ok(reply) => Ok(held.until_read(reply)),
        Err(lost) => {
            held.ended(lost.error());
            Err(lost)
        }
    }
}

async fn in_session<P: Platform>(
    exchange: &Exchange<'_, P>,
    outgoing: &Outgoing,
    session: &Rc<session::Session>,
    id: RequestId,
) -> Result<Reply, session::Lost> {
    let request = legacy_request(outgoing, session, &id);
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
    let messages = answer.into_messages(exchange, &id, &patience).await?;
    let messages = aside::beside(messages, aside);
    let (relay, dialect) = hearing(outgoing, session, &id, patience);
    Ok(reply::read(exchange, messages, id, relay, dialect).await?)
}

/// A call over HTTP+SSE: a session of its own, which ends with it.
async fn over_http_sse<P: Platform>(
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

/// Asks the breaker whether the upstream may be tried.
fn admit<P: Platform>(context: &Context<P>, upstream: &Upstream) -> Result<(), Error> {
    let (now, rule) = (context.now(), &context.settings.config.circuit_breaker);
    let breakers = &context.memory.upstream.breakers;
    let admission = breakers.with(&upstream.name, |breaker| breaker.admit(now, rule));
    match admission {
        None | Some(breaker::Admission::Pass) => Ok(()),
        Some(breaker::Admission::Refuse { retry_after }) => {
            let upstream = upstream.name.clone();
            Err(Rejection::UpstreamUnavailable {
                upstream,
                retry_after: Some(retry_after),
            }
            .into())
        }
    }
}

/// Tells the breaker what came of it. Only what says something of the upstream's health
/// counts: an error it answered properly does not.
fn note<P: Platform>(context: &Context<P>, upstream: &Upstream, error: Option<&Error>) {
    let outcome = match error {
        Some(Error::Rejection(
            Rejection::UpstreamUnavailable { .. }
            | Rejection::UpstreamLost { .. }
            | Rejection::UpstreamTimeout { .. }
            | Rejection::UpstreamInvalid { .. },
        )) => Outcome::Failure,
        Some(Error::Fault(_)) => return,
        None | Some(Error::Rejection(_)) => Outcome::Success,
    };
    let (now, rule) = (context.now(), &context.settings.config.circuit_breaker);
    let breakers = &context.memory.upstream.breakers;
    let tripped = breakers.with(&upstream.name, |breaker| {
        let was_open = breaker.is_open();
        breaker.record(now, outcome, rule);
        !was_open && breaker.is_open()
    });
    match (tripped, outcome) {
        (Some(true), _) => {
            context.log(
                crate::platform::LogLevel::Warn,
                "circuit_opened",
                json!({ "upstream": upstream.name }),
            );
        }
        (Some(false), _) | (None, Outcome::Success) => {}
        (None, Outcome::Failure) => {
            let mut breaker = Breaker::default();
            breaker.record(now, outcome, rule);
            breakers.insert(upstream.name.clone(), breaker);
        }
    }
}

/// What the upstream says of itself, from memory, KV or itself, within the upstream's
/// timeout. It is asked past a closed breaker only: what is known needs no probe.
pub async fn facts<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &Principal,
) -> Result<Rc<facts::Facts>, Error> {
    if let Some(facts) = facts::known(context, upstream, Era::Modern).await {
        return Ok(facts);
    }
    admit(context, upstream)?;
    probe(context, upstream, principal, FACTS_TIMEOUT).await
}

/// Asks the upstream itself what it is, whatever is remembered and whatever the breaker
/// says.
pub async fn probe<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &Principal,
    timeout: Duration,
) -> Result<Rc<facts::Facts>, Error> {
    let timeout = timeout.min(Duration::from_millis(upstream.timeout_ms));
    let exchange = Exchange {
        context,
        upstream,
        deadline: context.now() + timeout,
        timeout,
    };
    let facts = facts::ask(&exchange, &principal.id, Era::Modern)
        .await
        .map_err(not_asked);
    note(context, upstream, facts.as_ref().err());
    facts
}
