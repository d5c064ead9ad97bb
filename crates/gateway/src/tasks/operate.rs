//! What operators see of tasks and do about them, whoever's they are. Never arguments,
//! results, progress or handles: those are between clients and tools.

mod list;

use std::time::Duration;

use serde::Serialize;
use tidegate_mcp::task::TaskStatus;

use super::handle::{Handle, Of};
use super::make::{insert, queue};
use super::record::{Outcome, Record, Standing};
use super::{follow, is_abandoned, run, store};
use crate::auth::PrincipalId;
use crate::context::Context;
use crate::error::{Error, RATE_LIMITED, REFUSED, UPSTREAM_FAILED};
use crate::platform::Platform;
use crate::seal::hex;
use crate::time::Timestamp;

pub(crate) use list::{Cursor, Filter, State, list};

/// Longest reason of a failure that is shown, in bytes; a longer one is no reason of ours.
const REASON_MAX: usize = 64;

/// A task as operators see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seen {
    id: String,
    /// Principal that created it.
    owner: PrincipalId,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    upstream: String,
    tool: String,
    status: &'static str,
    /// Whether it should run and does not.
    abandoned: bool,
    /// Until when its run has the right to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    leased_until_ms: Option<u64>,
    created_at_ms: u64,
    updated_at_ms: u64,
    expires_at_ms: u64,
    attempts: u32,
    /// JSON-RPC code of its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<i64>,
    /// The label of its failure, where it is one of the gateway's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_reason: Option<String>,
    /// Whether the tool itself reported an error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tool_error: bool,
}

impl Seen {
    fn of(id: &str, record: &Record, now: Timestamp) -> Self {
        let failure = match &record.outcome {
            Some(Outcome::Error(failure)) => Some(failure),
            Some(Outcome::Result(_) | Outcome::Parts { .. }) | None => None,
        };
        let reason = failure.and_then(|failure| {
            let ours = [REFUSED, UPSTREAM_FAILED, RATE_LIMITED].contains(&failure.code);
            let data: serde_json::Value =
                serde_json::from_str(failure.data.as_ref()?.get()).ok()?;
            let reason = data.get("reason")?.as_str()?;
            let label = reason.len() <= REASON_MAX
                && reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            (ours && label).then(|| reason.to_owned())
        });
        Self {
            id: id.to_owned(),
            owner: record.owner.clone(),
            tenant: record.tenant.clone(),
            upstream: record.upstream.clone(),
            tool: record.tool.clone(),
            status: record.status.as_str(),
            abandoned: is_abandoned(record, now),
            leased_until_ms: record.lease.as_ref().map(|lease| lease.until_ms),
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
            expires_at_ms: record.expiry().0,
            attempts: record.attempts,
            error_code: failure.map(|failure| failure.code),
            error_reason: reason,
            tool_error: record.outcome.as_ref().is_some_and(Outcome::is_tool_error),
        }
    }
}

/// The text, if it can be a task's id.
pub(crate) fn is_id(text: &str) -> Option<&str> {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == 32 && text.bytes().all(digit)).then_some(text)
}

/// One task; `None` if there is none.
pub(crate) async fn show<P: Platform>(
    context: &Context<P>,
    id: &str,
) -> Result<Option<Seen>, Error> {
    let found = store::find(context, id).await.map_err(store::failed)?;
    Ok(found.map(|(_, record)| Seen::of(id, &record, context.now())))
}

/// What came of an operator's wish.
pub(crate) enum Done {
    /// It was granted; the task as it is then.
    Yes(Box<Seen>),
    /// The task is in no state for that.
    No(&'static str, Box<Seen>),
    /// There is no such task.
    Unknown,
}

/// Cancels a task, as its client could.
pub(crate) async fn cancel<P: Platform>(context: &Context<P>, id: &str) -> Result<Done, Error> {
    let mut cancelled = false;
    let change = |record: &mut Record| {
        let cancels = record.cancel("Cancelled by an operator.", context.now());
        cancelled |= cancels;
        cancels
    };
    let Some((_, record)) = store::edit(context, id, None, change).await? else {
        return Ok(Done::Unknown);
    };
    let seen = Box::new(Seen::of(id, &record, context.now()));
    match cancelled && record.status == TaskStatus::Cancelled {
        true => {
            run::report(context, id, &record);
            follow::let_go(context, &record);
            Ok(Done::Yes(seen))
        }
        false => Ok(Done::No("The task has ended.", seen)),
    }
}

/// Has a task run that is to be, at once, or makes one that failed or was cancelled anew.
pub(crate) async fn retry<P: Platform>(context: &Context<P>, id: &str) -> Result<Done, Error> {
    let Some((_, record)) = store::find(context, id).await.map_err(store::failed)? else {
        return Ok(Done::Unknown);
    };
    let refused = |reason| {
        let seen = Seen::of(id, &record, context.now());
        Ok(Done::No(reason, Box::new(seen)))
    };
    match (record.standing(context.now()), record.status) {
        (Standing::Ready | Standing::PutOff(_) | Standing::Lost, _) => {
            // What it was put off for the operator knows better.
            let due = |record: &mut Record| record.not_before_ms.take().is_some();
            let Some((_, record)) = store::edit(context, id, None, due).await? else {
                return Ok(Done::Unknown);
            };
            run::enqueue(context, id, Duration::ZERO).await?;
            let seen = Seen::of(id, &record, context.now());
            Ok(Done::Yes(Box::new(seen)))
        }
        (Standing::Ended, TaskStatus::Failed | TaskStatus::Cancelled) => {
            let seen = anew(context, &record).await?;
            Ok(Done::Yes(Box::new(seen)))
        }
        (Standing::Ended, _) => {
            refused("The task has completed; a tool that has run is not run again.")
        }
        (Standing::Running(_), _) => {
            refused("The task is being run. Cancel it first, or wait for its end.")
        }
        (Standing::Asking, _) => refused("The task waits for its client's answer."),
    }
}

/// Makes a new task of an ended one's call, for the same owner and within its limits.
async fn anew<P: Platform>(context: &Context<P>, old: &Record) -> Result<Seen, Error> {
    let (now, id) = (context.now(), hex(&context.random::<16>()));
    // What its client asked for, within what is allowed now.
    let ttl_ms = old.ttl_ms.min(context.settings.config.tasks.ttl_ms);
    let of = Of {
        tenant: old.tenant.as_deref(),
        upstream: &old.upstream,
        tool: &old.tool,
    };
    let lifetime = Duration::from_millis(ttl_ms);
    let handle = Handle::new(id.clone(), old.owner.clone(), &of, now, lifetime).seal(context)?;
    let record = old.anew(handle, now, ttl_ms);
    let version = insert(context, &id, &record).await?;
    let record = queue(context, &id, (version, record)).await?;
    Ok(Seen::of(&id, &record, now))
}
