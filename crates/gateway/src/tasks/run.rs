//! From the queue to a run: who runs a task, where, and what becomes of one whose worker was
//! lost.
//!
//! Messages come at least once, so a run begins by taking a lease in the record, for
//! [`LEASE`], and renews it for as long as it goes on; whoever does not get it has nothing
//! to do. Where the host has keepers a task is run in one of its own, and a slow tool blocks
//! no other; elsewhere it is run by whoever took the message.
//!
//! The message stays with the queue while the task runs: should the worker be lost, it finds
//! a lapsed lease. The tool may have run then, so it is run again only where its rule says
//! that this does no harm, and where the upstream has made a task of the call, which the next
//! run goes on following; else the task fails and says so. A call that certainly did not
//! reach its upstream is tried again, [`ATTEMPTS_MAX`] times in all, and not before its record
//! says, whoever queues it meanwhile.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use serde_json::json;
use tidegate_mcp::jsonrpc::{INTERNAL_ERROR, RpcError};

use super::drive::Run;
use super::follow;
use super::record::{Lease, Outcome, Record, Standing};
use super::store;
use crate::auth::revocation;
use crate::body::Body;
use crate::context::Context;
use crate::error::Error;
use crate::keyspace::ReadError;
use crate::platform::{Keeper, LogLevel, Platform, Queue};
use crate::queue::{Consumed, Message};
use crate::seal::hex;
use crate::switches;

/// How long a run may go without renewing its lease.
pub const LEASE: Duration = Duration::from_secs(60);
/// How often a call is tried that did not reach its upstream, or may be repeated.
pub const ATTEMPTS_MAX: u32 = 5;
/// How long whoever took the message waits for the end of a run in a keeper. A quick task is
/// so done with one delivery, and a slow one does not hold up the others of its batch.
const QUICK: Duration = Duration::from_secs(1);
/// Pause before a store or a keeper that did not answer is asked again.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(5);
/// First pause before an unreachable upstream is tried again; doubles each time.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Where a keeper takes a task of the queue; the task's id follows.
pub(crate) const RUNS: &str = "/runs/";
/// Largest answer of a keeper about a run, in bytes.
const VERDICT_MAX: usize = 1024;

/// How many runs are under way in this isolate.
#[derive(Default)]
pub(crate) struct Running(Rc<Cell<usize>>);

impl Running {
    pub(super) fn any(&self) -> bool {
        self.0.get() > 0
    }

    /// Counts one until it is dropped.
    pub(super) fn one(&self) -> Guard {
        self.0.set(self.0.get() + 1);
        Guard(Rc::clone(&self.0))
    }
}

/// One run under way.
pub(super) struct Guard(Rc<Cell<usize>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Sees to it that the task is run, if it is still to be run and nobody else does.
pub async fn run<P: Platform>(context: &Context<P>, id: &str) -> Consumed {
    let record = match store::find(context, id).await {
        Ok(Some((_, record))) => record,
        // Expired.
        Ok(None) => return Consumed::Done,
        Err(e) => return unreadable(context, id, &e),
    };
    match record.standing(context.now()) {
        // What is asked is answered by a request, and that queues it again.
        Standing::Ended | Standing::Asking => Consumed::Done,
        // Should they die, this message is what finds out.
        Standing::Running(until) => Consumed::Retry {
            after: until.since(context.now()) + STORE_PAUSE,
        },
        // It is early, or one of two.
        Standing::PutOff(due) => Consumed::Retry {
            after: due.since(context.now()),
        },
        Standing::Ready | Standing::Lost => {
            if let Some(consumed) = killed(context, id, &record).await {
                return consumed;
            }
            match context.platform.keeper() {
                Some(keeper) => in_keeper(context, keeper, id).await,
                None => match begin(context, id).await {
                    Ok(run) => run.work().await,
                    Err(consumed) => consumed,
                },
            }
        }
    }
}

/// What becomes of a task that operators have switched off, or whose owner they have revoked:
/// it fails with their reason. It does not wait, for whoever takes that back would not expect
/// what was asked long ago to be done then.
async fn killed<P: Platform>(context: &Context<P>, id: &str, record: &Record) -> Option<Consumed> {
    match stopped(context, id, record).await {
        Ok(reason) => Some(fail(context, id, &reason?).await),
        Err(_) => Some(Consumed::Retry { after: STORE_PAUSE }),
    }
}

/// Why a task must not be run, if it must not.
async fn stopped<P: Platform>(
    context: &Context<P>,
    id: &str,
    record: &Record,
) -> Result<Option<String>, Error> {
    switches::refresh(context).await?;
    let tool = (record.upstream.as_str(), record.tool.as_str());
    let owner = (record.tenant.as_deref(), record.subject.as_str());
    if let Some(error) = switches::stops_task(context, tool, owner) {
        return Ok(Some(error.response(id).error.message));
    }
    let revoked = revocation::stops_task(context, || record.revocable()).await?;
    Ok(revoked.then(|| "The access of the task's owner has been revoked.".to_owned()))
}

fn unreadable<P: Platform>(context: &Context<P>, id: &str, error: &ReadError) -> Consumed {
    match error {
        ReadError::Unavailable(_) => Consumed::Retry { after: STORE_PAUSE },
        ReadError::Unreadable { .. } => {
            let fields = json!({ "task": id, "reason": error.to_string() });
            context.log(LogLevel::Error, "task_unreadable", fields);
            Consumed::Done
        }
    }
}

/// Has it run in a keeper, and waits a moment for its end.
async fn in_keeper<P: Platform>(context: &Context<P>, keeper: &P::Keeper, id: &str) -> Consumed {
    let again = Consumed::Retry { after: STORE_PAUSE };
    let Ok(request) = Request::post(format!("{RUNS}{id}")).body(Body::empty()) else {
        return again;
    };
    let idle = &context.memory.tasks.idle;
    let name = idle.take(context);
    let verdict = match keeper.send(&name, request).await {
        Ok(response) if response.status() == StatusCode::OK => {
            let read = response.into_body().read(VERDICT_MAX);
            context.until(context.now() + QUICK, read).await
        }
        Ok(_) | Err(_) => return again,
    };
    let later = Consumed::Retry {
        after: LEASE + STORE_PAUSE,
    };
    match verdict {
        Some(Ok(verdict)) => {
            idle.give_back(name);
            serde_json::from_slice(&verdict).unwrap_or(later)
        }
        // It goes on, or its keeper died: in time the message finds out which.
        Some(Err(_)) | None => later,
    }
}

/// The keeper's side of [`in_keeper`]. The run goes on whether or not anybody reads what is
/// answered: what it came to, for whoever has the message.
pub(super) async fn kept<P: Platform>(context: &Context<P>, id: &str) -> Response<Body> {
    let (told, verdict) = oneshot::channel();
    match begin(context, id).await {
        Ok(run) => {
            let context = context.clone();
            let one = context.memory.tasks.running.one();
            let id = id.to_owned();
            context.clone().platform.defer(async move {
                let consumed = run.work().await;
                if told.send(consumed).is_err() {
                    settle(&context, &id, consumed).await;
                }
                drop(one);
            });
        }
        Err(consumed) => drop(told.send(consumed)),
    }
    let verdict = verdict.map(|consumed| {
        let text = consumed.ok().and_then(|c| serde_json::to_vec(&c).ok());
        Ok(Bytes::from(text.unwrap_or_default()))
    });
    Response::new(Body::stream(stream::once(verdict)))
}

/// What is due after a run that nobody has a message of. Says whether it is seen to; if not, a
/// poll or the sweep finds the task.
pub(super) async fn settle<P: Platform>(
    context: &Context<P>,
    id: &str,
    consumed: Consumed,
) -> bool {
    let Consumed::Retry { after } = consumed else {
        return true;
    };
    let queued = enqueue(context, id, after).await.is_ok();
    let fields = json!({ "task": id, "queued": queued });
    context.log(LogLevel::Debug, "task_requeued", fields);
    queued
}

/// Takes the lease, or says what is to become of the message instead.
async fn begin<P: Platform>(context: &Context<P>, id: &str) -> Result<Run<P>, Consumed> {
    let lease = lease(context);
    let mut lost = None;
    let taken = store::edit(context, id, None, |record| {
        lost = None;
        match record.standing(context.now()) {
            Standing::Lost if !repeatable(record) && record.upstream_task.is_none() => {
                lost = Some(record.status)
            }
            Standing::Ready | Standing::Lost => {
                record.begin(lease.clone(), context.now());
                return true;
            }
            Standing::Ended | Standing::Running(_) | Standing::Asking | Standing::PutOff(_) => {}
        }
        false
    })
    .await;
    let (version, record) = match taken {
        Ok(Some(found)) => found,
        Ok(None) => return Err(Consumed::Done),
        Err(_) => return Err(Consumed::Retry { after: STORE_PAUSE }),
    };
    if lost.is_some() {
        let reason =
            "The worker running this task was lost. The tool may have run; it was not run again.";
        return Err(fail(context, id, reason).await);
    }
    match record.is_run_by(&lease.run) {
        true => Ok(Run::new(context, id, lease.run, (version, record))),
        false => Err(match record.standing(context.now()) {
            Standing::Running(until) => Consumed::Retry {
                after: until.since(context.now()) + STORE_PAUSE,
            },
            Standing::PutOff(due) => Consumed::Retry {
                after: due.since(context.now()),
            },
            Standing::Ended | Standing::Asking | Standing::Ready | Standing::Lost => Consumed::Done,
        }),
    }
}

/// Whether a call may be made again though it may have been made.
pub(super) fn repeatable(record: &Record) -> bool {
    record.idempotent && record.attempts < ATTEMPTS_MAX
}

/// A lease from now on, under a name nobody else has.
pub(super) fn lease<P: Platform>(context: &Context<P>) -> Lease {
    Lease {
        run: hex(&context.random::<8>()),
        until_ms: (context.now() + LEASE).0,
    }
}

/// Pause before the next attempt after this many.
pub(super) fn pause(attempts: u32) -> Duration {
    RETRY_PAUSE * 2u32.saturating_pow(attempts.saturating_sub(1))
}

/// Ends a task nobody runs any more, unless it has ended; one its upstream has made of the
/// call is then nobody's either.
async fn fail<P: Platform>(context: &Context<P>, id: &str, reason: &str) -> Consumed {
    let outcome = Outcome::Error(RpcError::new(INTERNAL_ERROR, reason).into());
    let (mut ended, now) = (false, context.now());
    let failed = store::edit(context, id, None, |record| {
        let ends = match record.standing(now) {
            Standing::Running(_) | Standing::Ended => false,
            Standing::Asking | Standing::Ready | Standing::PutOff(_) | Standing::Lost => {
                record.end(outcome.clone(), now)
            }
        };
        ended |= ends;
        ends
    })
    .await;
    match failed {
        Ok(found) => {
            if let Some((_, record)) = found.filter(|(_, record)| ended && record.ended_at(now)) {
                report(context, id, &record);
                follow::let_go(context, &record);
            }
            Consumed::Done
        }
        Err(_) => Consumed::Retry { after: STORE_PAUSE },
    }
}

/// A message the queue gave up on: the task fails with a reason a person can read. What is
/// still to be done is a new message's affair, and this one's only if that cannot be sent.
pub async fn give_up<P: Platform>(context: &Context<P>, id: &str) -> Consumed {
    context.log(LogLevel::Error, "task_dead_lettered", json!({ "task": id }));
    let consumed = match store::find(context, id).await {
        Ok(Some((_, record))) => given_up(context, id, &record).await,
        Ok(None) => Consumed::Done,
        Err(e) => unreadable(context, id, &e),
    };
    match settle(context, id, consumed).await {
        true => Consumed::Done,
        false => consumed,
    }
}

async fn given_up<P: Platform>(context: &Context<P>, id: &str, record: &Record) -> Consumed {
    match record.standing(context.now()) {
        // A run is under way and will store its own outcome; should it die, another message
        // finds out.
        Standing::Running(until) => Consumed::Retry {
            after: until.since(context.now()) + STORE_PAUSE,
        },
        // It has attempts left, and a time for the next.
        Standing::PutOff(due) => Consumed::Retry {
            after: due.since(context.now()),
        },
        Standing::Ended | Standing::Asking => Consumed::Done,
        Standing::Ready | Standing::Lost => {
            let reason = "The task could not be run: every attempt failed.";
            fail(context, id, reason).await
        }
    }
}

/// Hands the task to the queue.
pub(super) async fn enqueue<P: Platform>(
    context: &Context<P>,
    id: &str,
    delay: Duration,
) -> Result<(), Error> {
    let message = Message::RunTaskV1 {
        task: id.to_owned(),
    };
    let bytes =
        serde_json::to_vec(&message).map_err(|e| crate::error::Fault::Internal(e.to_string()))?;
    let sent = context.platform.queue().send(bytes.into(), delay).await;
    sent.map_err(Error::from)
}

/// The audit line of a task's end; the call that made the task had its own.
pub(super) fn report<P: Platform>(context: &Context<P>, id: &str, record: &Record) {
    let outcome = match &record.outcome {
        Some(outcome) if outcome.is_tool_error() => "tool_error",
        Some(Outcome::Result(_) | Outcome::Parts { .. }) => "ok",
        Some(Outcome::Error(_)) => "failed",
        None => "cancelled",
    };
    let line = json!({
        "event": "task_ended",
        "atMs": record.updated_at_ms,
        "task": id,
        "owner": record.owner,
        "upstream": record.upstream,
        "tool": record.tool,
        "outcome": outcome,
        "attempts": record.attempts,
        "durationMs": record.updated_at_ms.saturating_sub(record.created_at_ms),
    });
    context.platform.log(LogLevel::Info, &line.to_string());
}
