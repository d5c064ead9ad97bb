//! The circuits an isolate keeps of upstreams and their tools, and what isolates tell each
//! other of them.
//!
//! A failure is what says that the upstream is unwell: a connection that fails or is lost, no
//! answer in time, an answer that is not MCP (5xx and whatever else holds no JSON-RPC
//! message). An error of the protocol, a tool's own (`isError`), a refusal (4xx) and a client
//! that goes away are none.
//!
//! # What is shared
//!
//! Where the configuration says `shared`, an isolate whose upstream's circuit opens publishes
//! that after the response, once per trip; a tool's circuit is not told of. Who may write is
//! decided in the store that is linearizable per key: a write is begun by one isolate at a
//! time, [`WRITES_APART`] after the last one was begun, so no key is written twice within a
//! second as long as clocks differ by at most [`CLOCK_SKEW_MAX`] and writes arrive within
//! [`WRITE_TIME_MAX`]. A trip that may not be written is not told of. Others look after a
//! response, at most once in [`LOOK_INTERVAL`] and upstream, the first time that long after
//! their first call (after it, where instances do not live that long); so they hear of a trip after KV's own delay, that interval and one call
//! more, and a trip that is over by then is heard by nobody. It costs no call a wait, at most
//! a tenth of a KV read a second, and nothing where nothing is shared.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_mcp::version::Era;

use super::breaker::{Admission, Breaker, Opened, Pair, Seen, State, Trip};
use super::{REMEMBERED_MAX, facts};
use crate::config::{CircuitBreaker, Upstream};
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::keyspace::{self, Family, Key, Store};
use crate::limits::seat::{CLOCK_SKEW_MAX, WRITE_TIME_MAX};
use crate::memory::Bounded;
use crate::platform::{LogLevel, Platform, Swap};
use crate::time::Timestamp;

/// Most tools whose circuits one isolate remembers.
const TOOLS_MAX: usize = 1024;
/// Least time between two looks at what others published of one upstream.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Longest from the permission to write until the write is begun.
const BEGIN_WITHIN: Duration = Duration::from_secs(1);
/// Least time between two permissions to write what concerns one upstream.
pub const WRITES_APART: Duration = CLOCK_SKEW_MAX
    .saturating_add(WRITE_TIME_MAX)
    .saturating_add(BEGIN_WITHIN)
    .saturating_add(Duration::from_secs(1));

/// That an upstream's circuit has opened somewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Shape of this record.
    pub v: u32,
    /// Configured name of the upstream.
    pub upstream: String,
    /// When it opened, milliseconds since the epoch.
    pub opened_at_ms: u64,
    /// Until when it refuses calls, milliseconds since the epoch.
    pub until_ms: u64,
}

/// The family of [`Record`], by upstream name and URL.
pub struct CircuitFamily;

impl Family for CircuitFamily {
    type Record = Record;
    const NAME: &'static str = "circuit";
    const STORE: Store = Store::Kv;
    const LIFETIME: Option<Duration> = Some(Duration::from_secs(3600));
}

/// When a [`Record`] was last written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// Shape of this record.
    pub v: u32,
    /// When its write was begun, milliseconds since the epoch.
    pub begun_at_ms: u64,
}

/// The family of [`Turn`], by upstream name and URL.
pub struct TurnFamily;

impl Family for TurnFamily {
    type Record = Turn;
    const NAME: &'static str = "turn";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(Duration::from_secs(600));
}

/// What an isolate remembers of circuits. What is not there is closed.
pub(super) struct Memory {
    own: Bounded<String, Breaker>,
    tools: Bounded<(String, String), Breaker>,
    /// When it was last looked what others published.
    looked: Bounded<String, Timestamp>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            own: Bounded::new(REMEMBERED_MAX),
            tools: Bounded::new(TOOLS_MAX),
            looked: Bounded::new(REMEMBERED_MAX),
        }
    }
}

impl Memory {
    fn knows(&self, upstream: &str, tool: &str) -> bool {
        let key = (upstream.to_owned(), tool.to_owned());
        self.tools.with(&key, |_| ()).is_some()
    }

    /// Changes the circuits of one call.
    fn with<T>(
        &self,
        upstream: &str,
        tool: Option<&str>,
        rule: &CircuitBreaker,
        change: impl FnOnce(&mut Pair) -> T,
    ) -> T {
        let tool = tool.filter(|_| rule.per_tool);
        let tool = tool.map(|tool| (upstream.to_owned(), tool.to_owned()));
        let upstream = upstream.to_owned();
        let mut pair = Pair {
            own: self.own.get(&upstream).unwrap_or_default(),
            tool: tool
                .as_ref()
                .map(|key| self.tools.get(key).unwrap_or_default()),
        };
        let made = change(&mut pair);
        put(&self.own, upstream, pair.own, rule);
        if let (Some(key), Some(breaker)) = (tool, pair.tool) {
            put(&self.tools, key, breaker, rule);
        }
        made
    }
}

/// Remembers a circuit that is not as it would be without memory of it.
fn put<K: Ord + Clone>(
    circuits: &Bounded<K, Breaker>,
    key: K,
    breaker: Breaker,
    rule: &CircuitBreaker,
) {
    let plain = breaker.state() == State::Closed { failures: 0 };
    let counts = rule.failure_rate.is_some() || rule.shared;
    let mut changed = Some(breaker);
    circuits.with(&key, |kept| changed.take().map(|changed| *kept = changed));
    if let Some(breaker) = changed.filter(|_| counts || !plain) {
        circuits.insert(key, breaker);
    }
}

/// Whether the circuits refuse a call for now; no call is let through by that.
pub(super) fn look<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    tool: Option<&str>,
) -> Result<(), Error> {
    let (now, rule) = (context.now(), &context.settings.config.circuit_breaker);
    let circuits = &context.memory.upstream.circuits;
    let refused = circuits.with(upstream.key(), tool, rule, |pair| pair.refuses(now, rule));
    refused.map_or(Ok(()), |retry_after| Err(open(upstream, retry_after)))
}

fn open(upstream: &Upstream, retry_after: Duration) -> Error {
    Rejection::UpstreamUnavailable {
        upstream: upstream.name.clone(),
        retry_after: Some(retry_after),
    }
    .into()
}

/// Asks the circuits whether the upstream, or its tool, may be tried.
pub(super) fn admit<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    tool: Option<&str>,
) -> Result<(), Error> {
    let (now, rule) = (context.now(), &context.settings.config.circuit_breaker);
    if rule.shared {
        look_later(context, upstream);
    }
    let circuits = &context.memory.upstream.circuits;
    match circuits.with(upstream.key(), tool, rule, |pair| pair.admit(now, rule)) {
        Admission::Pass => Ok(()),
        Admission::Refuse { retry_after } => Err(open(upstream, retry_after)),
    }
}

/// Tells the circuits what came of a call. Only what says something of the upstream's health
/// counts: an error it answered properly does not.
pub(super) fn note<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    tool: Option<&str>,
    error: Option<&Error>,
) {
    let seen = match error {
        Some(Error::Rejection(
            Rejection::UpstreamUnavailable { .. } | Rejection::UpstreamLost { .. },
        )) => Seen::Unreached,
        Some(Error::Rejection(
            Rejection::UpstreamTimeout { .. }
            // Being asked too often is what clients can cause.
            | Rejection::UpstreamBusy { limited: false, .. }
            | Rejection::UpstreamInvalid { .. },
        )) => Seen::Unwell,
        // Nothing of the upstream itself.
        Some(
            Error::Fault(_)
            | Error::Rejection(Rejection::NoCredentials { .. } | Rejection::NotConnected { .. }),
        ) => return,
        None | Some(Error::Rejection(_)) => Seen::Answered,
    };
    let (now, rule) = (context.now(), &context.settings.config.circuit_breaker);
    let circuits = &context.memory.upstream.circuits;
    // Names nobody has are answered with an error, and leave nothing behind.
    let nameless = error.is_some() && seen == Seen::Answered;
    let tool = tool.filter(|tool| !nameless || circuits.knows(upstream.key(), tool));
    let (opened, until) = circuits.with(upstream.key(), tool, rule, |pair| {
        let opened = pair.record(now, seen, rule);
        (opened, pair.own.open_until())
    });
    tell(context, upstream, tool, opened);
    if let Some(until) = until.filter(|_| opened.own && rule.shared) {
        let record = Record {
            v: 1,
            upstream: upstream.name.clone(),
            opened_at_ms: now.0,
            until_ms: until.0,
        };
        let id = facts::identity(upstream, Era::Modern);
        let work = publish(context.clone(), id, record);
        context.platform.defer(work);
    }
}

fn tell<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    tool: Option<&str>,
    opened: Opened,
) {
    if opened.own {
        let fields = json!({ "upstream": upstream.key() });
        context.log(LogLevel::Warn, "circuit_opened", fields);
    }
    if opened.tool {
        let fields = json!({ "upstream": upstream.key(), "tool": tool });
        context.log(LogLevel::Warn, "circuit_opened", fields);
    }
}

/// Publishes a trip, if it is this isolate's turn to write.
async fn publish<P: Platform>(context: Context<P>, id: String, record: Record) {
    let (store, key) = (context.platform.atomic(), Key::<TurnFamily>::of(&[&id]));
    let Ok(found) = keyspace::atomic_get(store, &key).await else {
        return;
    };
    let begun = context.now();
    let last = found.as_ref().map(|(_, turn)| Timestamp(turn.begun_at_ms));
    if last.is_some_and(|last| begun.since(last) < WRITES_APART) {
        return;
    }
    let turn = Turn {
        v: 1,
        begun_at_ms: begun.0,
    };
    let expected = found.map(|(version, _)| version);
    let ends = begun + TurnFamily::LIFETIME.unwrap_or(WRITES_APART);
    let swapped = keyspace::atomic_swap(store, &key, expected, &turn, ends).await;
    let mine = matches!(swapped, Ok(Swap::Done(_)));
    if mine && context.now().since(begun) < BEGIN_WITHIN {
        // Lost, it costs the others the failures they meet themselves.
        let key = Key::<CircuitFamily>::of(&[&id]);
        let _ = keyspace::kv_put(context.platform.kv(), &key, &record).await;
    }
}

/// Looks after the response what others published, if it is time.
fn look_later<P: Platform>(context: &Context<P>, upstream: &Upstream) {
    let (now, looked) = (context.now(), &context.memory.upstream.circuits.looked);
    match looked.get(upstream.key()) {
        Some(last) if last <= now && now.since(last) < LOOK_INTERVAL => return,
        None if !context.platform.is_short_lived() => {}
        Some(_) | None => {
            let (context, upstream) = (context.clone(), upstream.clone());
            let platform = std::rc::Rc::clone(&context.platform);
            platform.defer(async move { listen(&context, &upstream).await });
        }
    }
    looked.insert(upstream.key().clone(), now);
}

async fn listen<P: Platform>(context: &Context<P>, upstream: &Upstream) {
    let id = facts::identity(upstream, Era::Modern);
    let key = Key::<CircuitFamily>::of(&[&id]);
    let Ok(Some(record)) = keyspace::kv_get(context.platform.kv(), &key).await else {
        return;
    };
    let trip = Trip {
        opened_at: Timestamp(record.opened_at_ms),
        until: Timestamp(record.until_ms),
    };
    let (now, rule) = (context.now(), &context.settings.config.circuit_breaker);
    let circuits = &context.memory.upstream.circuits;
    let opens = circuits.with(upstream.key(), None, rule, |pair| {
        pair.own.hear(now, trip, rule)
    });
    if opens {
        let fields = json!({ "upstream": upstream.name });
        context.log(LogLevel::Warn, "circuit_opened_elsewhere", fields);
    }
}

/// How an upstream's circuit stands in this isolate.
pub fn standing<P: Platform>(context: &Context<P>, upstream: &str) -> &'static str {
    let now = context.now();
    let circuits = &context.memory.upstream.circuits;
    match circuits
        .own
        .get(&upstream.to_owned())
        .map(|own| own.state())
    {
        None | Some(State::Closed { .. }) => "closed",
        Some(State::Open { until }) if now < until => "open",
        Some(State::Open { .. } | State::HalfOpen { .. }) => "half-open",
    }
}
