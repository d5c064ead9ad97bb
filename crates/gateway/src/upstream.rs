//! Calling an upstream: which era it speaks, the session if it needs one, the breaker, the
//! deadline, and its answer as a [`Reply`] in modern form.
//!
//! To an upstream the gateway is a client of its own: own ids, own progress tokens, own
//! credentials. Nothing of the client's `Authorization`, `Cookie` or `DPoP` passes.

mod aside;
pub mod breaker;
mod bulkhead;
pub mod circuit;
pub mod facts;
mod http_sse;
mod legacy;
pub(crate) mod listen;
mod modern;
mod patience;
mod reply;
mod resume;
mod retry;
mod session;
mod window;
mod wire;

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use http::{HeaderName, HeaderValue};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RequestId;
use tidegate_mcp::meta::RequestMeta;
use tidegate_mcp::method::Method;
use tidegate_mcp::version::Era;

use crate::auth::{Principal, PrincipalId};
use crate::config::{Transport, Upstream};
use crate::context::Context;
use crate::egress::{Event, Reply};
use crate::error::{Error, Rejection};
use crate::platform::Platform;
use crate::time::Timestamp;
pub(crate) use modern::modern_meta;
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
    bulkheads: bulkhead::Memory,
    circuits: circuit::Memory,
    retries: retry::Memory,
    facts: facts::Memory,
    sessions: session::Memory,
    next_id: Cell<i64>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            bulkheads: bulkhead::Memory::default(),
            circuits: circuit::Memory::default(),
            retries: retry::Memory::default(),
            facts: facts::Memory::default(),
            sessions: session::Memory::default(),
            next_id: Cell::new(1),
        }
    }
}

impl Memory {
    fn next_id(&self) -> RequestId {
        let id = self.next_id.get();
        self.next_id.set(id.wrapping_add(1).max(1));
        RequestId::Integer(id)
    }
}

/// When a modern upstream is told that the tasks it makes of calls are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Declares {
    /// Never: it answers directly, or not at all.
    #[default]
    Never,
    /// When it refuses the call for want of that.
    Insisted,
    /// When it offers tasks, or insists.
    Offered,
    /// In any case.
    Always,
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
    /// In which era it is rather asked, if it speaks both.
    pub rather: Era,
    /// Whether tasks of its own are understood.
    pub tasks: Declares,
    /// On whose behalf: sessions are never shared between principals.
    pub principal: PrincipalId,
    /// How long the exchange may take, from when it has its place among those under way.
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
            rather: Era::Modern,
            tasks: Declares::Never,
            principal,
            timeout,
        }
    }

    /// The tool it calls, if it calls one.
    fn tool(&self) -> Option<Cow<'_, str>> {
        let tool = self.params.get_str("name");
        tool.filter(|_| self.method == Method::ToolsCall)
    }

    /// In which era an upstream is spoken to that speaks both: what a server asks back on the
    /// call's own stream it may not know how to ask otherwise.
    fn spoken(&self) -> Era {
        match session::Terms::of(self).ask() {
            true => self.rather,
            false => Era::Modern,
        }
    }
}

/// A call on its way: what every step of the exchange shares.
pub(crate) struct Exchange<'a, P> {
    pub(crate) context: &'a Context<P>,
    pub(crate) upstream: &'a Upstream,
    /// On whose behalf.
    pub(crate) principal: &'a PrincipalId,
    pub(crate) deadline: Timestamp,
    pub(crate) timeout: Duration,
}

impl<P: Platform> Exchange<'_, P> {
    /// An id no other request of this isolate has.
    pub(crate) fn next_id(&self) -> RequestId {
        self.context.memory.upstream.next_id()
    }

    /// Patience until the deadline.
    pub(crate) fn patience(&self) -> Patience {
        Patience::until(self.deadline)
    }

    pub(crate) fn timed_out(&self) -> Error {
        Rejection::UpstreamTimeout {
            upstream: self.upstream.name.clone(),
            timeout: self.timeout,
            asked: true,
        }
        .into()
    }

    pub(crate) fn invalid(&self, reason: impl Into<String>) -> Error {
        Rejection::UpstreamInvalid {
            upstream: self.upstream.name.clone(),
            reason: reason.into(),
            asked: true,
        }
        .into()
    }
}

/// Sends `outgoing` to the upstream, again where its configuration says so and it does no
/// harm, and gives what comes of it.
pub async fn call<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    mut outgoing: Outgoing,
) -> Result<Reply, Error> {
    outgoing.timeout = context.within(outgoing.timeout);
    if outgoing.timeout.is_zero() {
        // That is not the upstream's fault: it is not asked.
        return Err(Rejection::UpstreamTimeout {
            upstream: upstream.name.clone(),
            timeout: Duration::ZERO,
            asked: false,
        }
        .into());
    }
    match &upstream.retry {
        None => once(context, upstream, outgoing).await,
        // Boxed: it would be in the future of every call.
        Some(rule) => {
            retry::call(context, upstream, rule, outgoing)
                .boxed_local()
                .await
        }
    }
}

async fn once<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    outgoing: Outgoing,
) -> Result<Reply, Error> {
    let tool = outgoing.tool().map(Cow::into_owned);
    let place = match &upstream.bulkhead {
        None => None,
        Some(rule) => {
            // Nobody waits for a place in front of an open circuit.
            circuit::look(context, upstream, tool.as_deref())?;
            Some(bulkhead::enter(context, upstream, rule, &outgoing).await?)
        }
    };
    circuit::admit(context, upstream, tool.as_deref())?;
    // Its time begins when it has its place. Where it waited for that and the call as a whole
    // leaves it less, no answer in what is left says nothing of the upstream.
    let timeout = context.within(outgoing.timeout);
    let hurried = timeout < outgoing.timeout;
    let note = move |context: &Context<P>, upstream: &Upstream, error: Option<&Error>| {
        if !(hurried && error.is_some_and(Error::is_timeout)) {
            circuit::note(context, upstream, tool.as_deref(), error);
        }
    };
    let principal = outgoing.principal.clone();
    let exchange = Exchange {
        context,
        upstream,
        principal: &principal,
        deadline: context.now() + timeout,
        timeout,
    };
    match attempt(&exchange, outgoing).await {
        // Not before its end is it known what came of it.
        Ok(Reply::Stream(events)) => {
            let (context, upstream) = (context.clone(), upstream.clone());
            let mut place = place;
            let noted = events.inspect(move |event| {
                if let Event::End(end) = event {
                    note(&context, &upstream, end.as_ref().err());
                    drop(place.take());
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
    let facts = facts::load(exchange, &outgoing.principal, outgoing.spoken())
        .await
        .map_err(not_asked)?;
    match facts.era() {
        Era::Modern => modern::call(exchange, outgoing, &facts).await,
        Era::Legacy if facts.transport == Transport::Sse => {
            legacy::over_http_sse(exchange, &outgoing).await
        }
        Era::Legacy => legacy::call(exchange, outgoing, &facts).await,
    }
}

/// An error met before the request itself was sent: whatever became of the question, the
/// request was not acted on.
pub(crate) fn not_asked(mut error: Error) -> Error {
    match &mut error {
        Error::Rejection(Rejection::UpstreamLost { upstream }) => {
            let upstream = std::mem::take(upstream);
            let retry_after = None;
            return Rejection::UpstreamUnavailable {
                upstream,
                retry_after,
            }
            .into();
        }
        Error::Rejection(
            Rejection::UpstreamTimeout { asked, .. }
            | Rejection::UpstreamInvalid { asked, .. }
            | Rejection::UpstreamBusy { asked, .. },
        ) => *asked = false,
        Error::Rejection(_) | Error::Fault(_) => {}
    }
    error
}

/// What the upstream says of itself, from memory, KV or itself, within the upstream's
/// timeout. It is asked past a closed breaker only: what is known needs no probe.
pub async fn facts<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &Principal,
) -> Result<Rc<facts::Facts>, Error> {
    if let Some(facts) = facts::known(context, upstream, &principal.id, Era::Modern).await {
        return Ok(facts);
    }
    circuit::admit(context, upstream, None)?;
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
    let timeout = context.within(timeout.min(Duration::from_millis(upstream.timeout_ms)));
    let exchange = Exchange {
        context,
        upstream,
        principal: &principal.id,
        deadline: context.now() + timeout,
        timeout,
    };
    let facts = facts::ask(&exchange, &principal.id, Era::Modern)
        .await
        .map_err(not_asked);
    circuit::note(context, upstream, None, facts.as_ref().err());
    facts
}
