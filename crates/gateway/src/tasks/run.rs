//! Running a task from the queue: load → lease → call → store.
//!
//! Messages come at least once, so a run begins by taking a lease in the record; whoever
//! does not get it has nothing to do. A run whose worker died leaves a lapsed lease: the
//! tool may have run, so it is not run again, the task fails and says so. Only a call that
//! certainly did not reach the upstream is tried again.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{self, Either};
use serde_json::json;
use tidegate_mcp::jsonrpc::{INTERNAL_ERROR, RpcError};
use tidegate_mcp::meta::RequestMeta;
use tidegate_mcp::method::Method;
use tidegate_mcp::task::TaskStatus;

use super::{Lease, Outcome, Record, SWAPS_MAX, ended, expiry, key};
use crate::context::Context;
use crate::dispatch::{self, Ask, Place};
use crate::egress;
use crate::error::{Error, Rejection};
use crate::keyspace::{self, ReadError};
use crate::platform::{AtomicStore, Clock, LogLevel, Platform, Swap, Version, WAIT_MAX};
use crate::queue::Consumed;
use crate::route::One;
use crate::seal::hex;
use crate::time::Timestamp;

/// How much longer than its call a lease lasts: room for storing the result.
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// Largest result a task keeps, in bytes.
pub const RESULT_MAX: usize = 1024 * 1024;
/// How often a call that did not reach its upstream is tried.
pub const ATTEMPTS_MAX: u32 = 5;
/// Pause before a store that did not answer is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// First pause before an unreachable upstream is tried again; doubles each time.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Runs the task, if it is still to be run and nobody else does.
pub async fn run<P: Platform>(context: &Context<P>, id: &str, attempt: u32) -> Consumed {
    let (version, record) = match keyspace::atomic_get(context.platform.atomic(), &key(id)).await {
        Ok(Some(found)) => found,
        // Expired.
        Ok(None) => return Consumed::Done,
        Err(ReadError::Unavailable(_)) => return Consumed::Retry { after: STORE_PAUSE },
        Err(e @ ReadError::Unreadable { .. }) => {
            context.log(
                LogLevel::Error,
                "task_unreadable",
                json!({ "task": id, "reason": e.to_string() }),
            );
            return Consumed::Done;
        }
    };
    if record.status != TaskStatus::Working {
        return Consumed::Done;
    }
    let now = context.now();
    match &record.lease {
        Some(lease) if Timestamp(lease.until_ms) > now => {
            // Somebody runs it. Should they die, this message is what finds out.
            return Consumed::Retry {
                after: Timestamp(lease.until_ms).since(now) + STORE_PAUSE,
            };
        }
        Some(_) => {
            let error = RpcError::new(
                INTERNAL_ERROR,
                "The worker running this task was lost. The tool may have run; it was not run again.",
            );
            return store(context, id, (version, record), Outcome::Error(error.into())).await;
        }
        None => {}
    }
    let timeout = Duration::from_millis(record.timeout_ms);
    let lease = Lease {
        run: hex(&context.random::<8>()),
        until_ms: (now + timeout + LEASE_MARGIN).0,
    };
    let mut leased = record.clone();
    leased.lease = Some(lease);
    let version = match keyspace::atomic_swap(
        context.platform.atomic(),
        &key(id),
        Some(version),
        &leased,
        expiry(&leased),
    )
    .await
    {
        Ok(Swap::Done(version)) => version,
        // Somebody else was first.
        Ok(Swap::Conflict) => return Consumed::Done,
        Err(_) => return Consumed::Retry { after: STORE_PAUSE },
    };
    let called = call(context, &leased, timeout);
    let Some(called) = unless_cancelled(context, id, version, called).await else {
        return Consumed::Done;
    };
    match called {
        Ok(outcome) => store(context, id, (version, leased), outcome).await,
        Err(Error::Rejection(Rejection::UpstreamUnavailable { retry_after, .. }))
            if attempt < ATTEMPTS_MAX =>
        {
            release(context, id, version, leased).await;
            let pause = RETRY_PAUSE * 2u32.saturating_pow(attempt.saturating_sub(1));
            Consumed::Retry {
                after: retry_after.unwrap_or_default().max(pause),
            }
        }
        Err(error) => {
            if let Error::Fault(fault) = &error {
                context.log(
                    LogLevel::Error,
                    "fault",
                    json!({ "task": id, "reason": fault.to_string() }),
                );
            }
            let error = error.response(id).error;
            store(context, id, (version, leased), Outcome::Error(error.into())).await
        }
    }
}

/// What the call comes to, or nothing once the task is cancelled or expired: the call is then
/// dropped, which tells its upstream, and the queue goes on to the next.
async fn unless_cancelled<P: Platform, T>(
    context: &Context<P>,
    id: &str,
    leased: Version,
    call: impl Future<Output = T>,
) -> Option<T> {
    let over = async {
        let mut seen = leased;
        loop {
            let (atomic, key) = (context.platform.atomic(), key(id));
            match atomic.wait(key.as_str(), Some(seen), WAIT_MAX).await {
                Ok(None) => return,
                Ok(Some((version, bytes))) => {
                    let record = serde_json::from_slice::<Record>(&bytes);
                    if record.is_ok_and(|record| record.status.is_terminal()) {
                        return;
                    }
                    seen = version;
                }
                Err(_) => context.platform.clock().sleep(STORE_PAUSE).await,
            }
        }
    };
    match future::select(pin!(call), pin!(over)).await {
        Either::Left((called, _)) => Some(called),
        Either::Right(((), _)) => None,
    }
}

/// A message the queue gave up on: the task fails with a reason a person can read.
pub async fn give_up<P: Platform>(context: &Context<P>, id: &str) {
    if let Ok(Some((version, record))) =
        keyspace::atomic_get(context.platform.atomic(), &key(id)).await
    {
        if record
            .lease
            .as_ref()
            .is_some_and(|lease| Timestamp(lease.until_ms) > context.now())
        {
            // A run is under way and will store its own outcome; a poll finds it if it dies.
            return;
        }
        let error = RpcError::new(
            INTERNAL_ERROR,
            "The task could not be run: every attempt failed.",
        );
        store(context, id, (version, record), Outcome::Error(error.into())).await;
    }
    context.log(LogLevel::Error, "task_dead_lettered", json!({ "task": id }));
}

async fn call<P: Platform>(
    context: &Context<P>,
    record: &Record,
    timeout: Duration,
) -> Result<Outcome, Error> {
    let Some(upstream) = context.settings.upstream(&record.upstream) else {
        let error = RpcError::new(
            INTERNAL_ERROR,
            "The upstream of this task is no longer configured.",
        );
        return Ok(Outcome::Error(error.into()));
    };
    let one = One {
        upstream: upstream.clone(),
        method: Method::ToolsCall,
        exposed: record.tool.clone(),
        own: record.tool.clone(),
        params: record.params.clone(),
        prefixed: record.prefixed,
    };
    let ask = Ask {
        asks: false,
        place: Place::Here,
        meta: RequestMeta::default(),
        param_headers: Vec::new(),
        timeout,
    };
    let reply = dispatch::ask_upstream(context, &record.owner, Box::new(one), ask).await;
    let result = egress::whole(reply).await?;
    if result.to_raw().get().len() > RESULT_MAX {
        let error = RpcError::new(
            INTERNAL_ERROR,
            format!("The tool's result is larger than {RESULT_MAX} bytes."),
        );
        return Ok(Outcome::Error(error.into()));
    }
    Ok(Outcome::Result(result))
}

/// Stores how the task ended, unless it ended otherwise meanwhile.
async fn store<P: Platform>(
    context: &Context<P>,
    id: &str,
    (mut version, mut record): (Version, Record),
    outcome: Outcome,
) -> Consumed {
    for _ in 0..SWAPS_MAX {
        if record.status.is_terminal() {
            return Consumed::Done;
        }
        let last = ended(record.clone(), context.now(), outcome.clone());
        match keyspace::atomic_swap(
            context.platform.atomic(),
            &key(id),
            Some(version),
            &last,
            expiry(&last),
        )
        .await
        {
            Ok(Swap::Done(_)) => {
                report(context, id, &last);
                return Consumed::Done;
            }
            // Unavailable means unknown: what is stored now decides either way.
            Ok(Swap::Conflict) | Err(_) => {}
        }
        match keyspace::atomic_get(context.platform.atomic(), &key(id)).await {
            Ok(Some(found)) => (version, record) = found,
            Ok(None) => return Consumed::Done,
            Err(_) => {}
        }
    }
    context.log(LogLevel::Error, "task_outcome_lost", json!({ "task": id }));
    Consumed::Retry { after: STORE_PAUSE }
}

/// The audit line of a run; the call that made the task had its own.
fn report<P: Platform>(context: &Context<P>, id: &str, record: &Record) {
    let outcome = match &record.outcome {
        Some(Outcome::Result(result))
            if result
                .get("isError")
                .is_some_and(|flag| flag.get() == "true") =>
        {
            "tool_error"
        }
        Some(Outcome::Result(_)) => "ok",
        Some(Outcome::Error(_)) | None => "failed",
    };
    let line = json!({
        "event": "task_ended",
        "atMs": record.updated_at_ms,
        "task": id,
        "owner": record.owner,
        "upstream": record.upstream,
        "tool": record.tool,
        "outcome": outcome,
        "durationMs": record.updated_at_ms.saturating_sub(record.created_at_ms),
    });
    context.platform.log(LogLevel::Info, &line.to_string());
}

async fn release<P: Platform>(
    context: &Context<P>,
    id: &str,
    version: Version,
    mut record: Record,
) {
    record.lease = None;
    // If this is lost the lease lapses by itself, and the task fails instead of waiting.
    let _ = keyspace::atomic_swap(
        context.platform.atomic(),
        &key(id),
        Some(version),
        &record,
        expiry(&record),
    )
    .await;
}
