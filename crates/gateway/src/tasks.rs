//! The tasks extension (`io.modelcontextprotocol/tasks`): long calls run from the queue and
//! polled by the client.
//!
//! A handle ([`handle`]) is sealed and says whose it is, so a foreign, expired or forged one
//! is refused without a read, in the same words as an unknown one. It is returned only when
//! the record ([`record`]) is durable *and* the queue has accepted the work: `tasks/get`
//! resolves anywhere at once. No tool runs for a task whose client was told that there is
//! none ([`make`]). What two requests race on is one record in the atomic store
//! ([`store`]); every writer swaps. A call becomes a task at once, or when it has taken long
//! ([`race`]); the queue sees to it that it is run ([`run`]), and one run ([`drive`]) makes
//! the call and stores what came of it.
//!
//! Upstreams make tasks too. A client that understands them gets such a one under a handle
//! ([`passed`]), for which nothing is stored; a run of the gateway's own follows it
//! ([`follow`]).

mod call;
mod contention;
pub mod directory;
mod drive;
pub(crate) mod follow;
pub mod handle;
mod keepers;
pub mod legacy;
pub mod make;
pub(crate) mod operate;
pub(crate) mod passed;
pub(crate) mod race;
pub mod record;
pub mod roster;
pub mod run;
pub mod store;
pub mod sweep;
pub mod tenants;
pub(crate) mod theirs;
pub mod watch;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use serde_json::json;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::meta::EXT_TASKS;
use tidegate_mcp::task::{self, TaskStatus};
use tidegate_mcp::version::Era;

use crate::auth::Principal;
use crate::body::Body;
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::ingress::{Call, Endpoint};
use crate::memory::Bounded;
use crate::platform::{LogLevel, Platform};
use crate::policy::{self, Subject};
use crate::time::Timestamp;
use handle::{Handle, Named, Of, unknown};
pub(crate) use make::{Asked, When, are_made, create, when};
use passed::Asking;
use record::{Answer, Record, Standing};

/// Most that a task keeps at once of what its client is asked and answers, in bytes.
pub const ASKED_MAX: usize = 512 * 1024;
/// A task nobody has started this long after it was due is queued again by a poll.
pub const START_WITHIN: Duration = Duration::from_secs(60);
/// Most answers one `tasks/update` may bring.
pub const ANSWERS_MAX: usize = 64;

/// Most tasks one isolate remembers to have queued again.
const REQUEUED_MAX: usize = 1024;

/// What an isolate remembers of tasks: when it queued one again, so that polling does not
/// fill the queue, which keepers are idle, and, in a keeper, what it runs.
pub(crate) struct Memory {
    requeued: Bounded<String, Timestamp>,
    idle: keepers::Idle,
    running: run::Running,
    rosters: roster::Memory,
    directory: directory::Memory,
    tenants: tenants::Memory,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            requeued: Bounded::new(REQUEUED_MAX),
            idle: keepers::Idle::default(),
            running: run::Running::default(),
            rosters: roster::Memory::default(),
            directory: directory::Memory::default(),
            tenants: tenants::Memory::default(),
        }
    }
}

impl Memory {
    /// Whether a task is run here.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.any()
    }

    /// Whether the task may be queued again now; counts as done if so.
    fn may_queue(&self, id: &str, now: Timestamp) -> bool {
        let id = id.to_owned();
        let last = self.requeued.get(&id);
        let may = last.is_none_or(|last| now.since(last) >= START_WITHIN);
        if may {
            self.requeued.insert(id, now);
        }
        may
    }
}

/// What a client is told that asks for tasks and did not declare the extension.
pub(crate) fn undeclared() -> Error {
    Rejection::protocol(RpcError::missing_client_capability(
        json!({ "extensions": { EXT_TASKS: {} } }),
    ))
    .into()
}

/// `tasks/get`.
pub async fn get<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    call: &Call,
) -> Result<Object, Error> {
    let (text, named) = open(context, principal, call)?;
    let handle = match named {
        Named::Ours(handle) => handle,
        Named::Theirs(passed) => {
            let asking = Asking::of(endpoint, principal, call, passed);
            return passed::get(context, asking, &text).await;
        }
    };
    let (_, record) = read(context, &handle).await?;
    still(context, endpoint, principal, &record)?;
    if record.status.is_terminal() {
        // Its end was written elsewhere, most likely.
        context
            .memory
            .tasks
            .rosters
            .ended(&record.owner, &handle.id);
    }
    repair(context, &handle.id, &record).await;
    if call.version.era() == Era::Legacy {
        return Ok(legacy::shown(&record));
    }
    let detail = store::detail(context, &handle.id, &record).await?;
    Ok(task::get_result(&record.shown(), &detail))
}

/// The record behind a handle.
async fn read<P: Platform>(context: &Context<P>, handle: &Handle) -> Result<store::Known, Error> {
    let (version, record) = store::read(context, &handle.id).await?;
    let of = Of {
        tenant: record.tenant.as_deref(),
        upstream: &record.upstream,
        tool: &record.tool,
    };
    match handle.is_of(&of) {
        true => Ok((version, record)),
        false => Err(unknown()),
    }
}

/// Whether a task's owner may still call its tool. Who may not is told nothing of what came of
/// the call, and cannot go on with it, but may always call it off.
fn still<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    record: &Record,
) -> Result<(), Error> {
    let settings = &context.settings;
    match settings.upstream(&record.upstream) {
        Some(upstream) => {
            let resource = endpoint.resource(&settings.config);
            policy::allows_still(context, principal, upstream, &record.tool, &resource)
        }
        None if is_told_without_upstream(record) => Ok(()),
        None => Err(unknown()),
    }
}

/// What an upstream said is nobody's to read once it is no longer configured: by what it is
/// held nobody knows any more. That a task failed for want of it is.
fn is_told_without_upstream(record: &Record) -> bool {
    record.status != TaskStatus::Completed
}

/// [`still`], where nothing is said of tasks it does not hold for.
fn is_shown<P: Platform>(context: &Context<P>, principal: &Principal, record: &Record) -> bool {
    let upstream = context.settings.upstream(&record.upstream);
    let tool = Subject::Tool(&record.tool, None);
    match upstream {
        Some(upstream) => policy::shown(context, principal, upstream, tool),
        None => is_told_without_upstream(record),
    }
}

/// Queues a task again that should run and does not. Harmless if it is queued already: one
/// run gets the lease. Should the queue refuse, the next poll tries again.
async fn repair<P: Platform>(context: &Context<P>, id: &str, record: &Record) {
    if is_abandoned(record, context.now()) && context.memory.tasks.may_queue(id, context.now()) {
        let queued = run::enqueue(context, id, Duration::ZERO).await.is_ok();
        let fields = json!({ "task": id, "queued": queued });
        context.log(LogLevel::Warn, "task_abandoned", fields);
    }
}

/// Whether a task should run and does not.
fn is_abandoned(record: &Record, now: Timestamp) -> bool {
    let due = record.not_before_ms.unwrap_or_default();
    let waited = now.since(Timestamp(record.updated_at_ms.max(due)));
    match record.standing(now) {
        Standing::Ready => waited >= START_WITHIN,
        Standing::Lost => true,
        Standing::Ended | Standing::Running(_) | Standing::Asking | Standing::PutOff(_) => false,
    }
}

/// `tasks/update`: the client's answers to what the task asks.
pub async fn update<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    call: &Call,
) -> Result<Object, Error> {
    let (_, named) = open(context, principal, call)?;
    let answers = answers(&call.params)?;
    let handle = match named {
        Named::Ours(handle) => handle,
        Named::Theirs(passed) => {
            let asking = Asking::of(endpoint, principal, call, passed);
            return passed::update(context, asking, &answers).await;
        }
    };
    let (_, record) = read(context, &handle).await?;
    still(context, endpoint, principal, &record)?;
    answer(context, &handle.id, answers).await?;
    Ok(task::acknowledged_result())
}

fn answers(params: &Object) -> Result<BTreeMap<String, Answer>, Error> {
    let refused = |reason: &str| Error::from(Rejection::protocol(RpcError::invalid_params(reason)));
    let Some(Ok(given)) = params.get_object("inputResponses") else {
        return Err(refused("`inputResponses` must be an object"));
    };
    if given.len() > ANSWERS_MAX {
        let reason = format!("`inputResponses` may hold at most {ANSWERS_MAX} answers");
        return Err(refused(&reason));
    }
    let one = |(key, answer): (&str, _)| match Object::from_raw(answer) {
        Ok(answer) => Ok((key.to_owned(), Answer::Result(answer))),
        Err(_) => Err(refused("an input response must be an object")),
    };
    given.iter().map(one).collect()
}

/// Stores answers. A run that waits for them sees them; where none does, the queue is told
/// once all is answered.
async fn answer<P: Platform>(
    context: &Context<P>,
    id: &str,
    answers: BTreeMap<String, Answer>,
) -> Result<(), Error> {
    let (mut taken, mut too_large) = (false, false);
    let known = store::edit(context, id, None, |record| {
        let any = record.answer(answers.clone(), context.now());
        too_large = any && record.asked_len() > ASKED_MAX;
        taken |= any && !too_large;
        any && !too_large
    })
    .await?;
    if too_large {
        return Err(Rejection::BodyTooLarge { max: ASKED_MAX }.into());
    }
    let (_, record) = known.ok_or_else(unknown)?;
    if taken && record.standing(context.now()) == Standing::Ready {
        // Should the queue refuse, a poll finds the task ready.
        let _ = run::enqueue(context, id, Duration::ZERO).await;
    }
    Ok(())
}

/// `tasks/cancel`: cooperative, and to modern clients an acknowledgement also where the task
/// has ended.
pub async fn cancel<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    call: &Call,
) -> Result<Object, Error> {
    let handle = match open(context, principal, call)?.1 {
        Named::Ours(handle) => handle,
        Named::Theirs(passed) => {
            let asking = Asking::of(endpoint, principal, call, passed);
            return passed::cancel(context, asking).await;
        }
    };
    let mut cancelled = false;
    let known = store::edit(context, &handle.id, None, |record| {
        let cancels = record.cancel("Cancelled by the client.", context.now());
        cancelled |= cancels;
        cancels
    })
    .await?;
    let (_, record) = known.ok_or_else(unknown)?;
    cancelled &= record.status == TaskStatus::Cancelled;
    if cancelled {
        run::report(context, &handle.id, &record);
        follow::let_go(context, &record);
    }
    match call.version.era() {
        Era::Modern => Ok(task::acknowledged_result()),
        Era::Legacy => legacy::cancelled(&record, cancelled),
    }
}

/// The handle a call names. Whether a modern client declared the extension is asked before
/// anything about the id.
fn open<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    call: &Call,
) -> Result<(String, Named), Error> {
    let modern = call.version.era() == Era::Modern;
    if modern && !call.meta.client_capabilities.has_extension(EXT_TASKS) {
        return Err(undeclared());
    }
    let Some(text) = call.params.get_str("taskId") else {
        let error = RpcError::invalid_params("`taskId` must be a string");
        return Err(Rejection::protocol(error).into());
    };
    let named = Named::open(context, principal, &text);
    // A task of an upstream's was made for a client of the extension.
    let shown = |named: &Named| modern || matches!(named, Named::Ours(_));
    let named = named.filter(shown).ok_or_else(unknown)?;
    Ok((text.into_owned(), named))
}

/// What is asked of a keeper about tasks.
pub(crate) async fn kept<P: Platform>(
    context: &Context<P>,
    request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if let Some(id) = path.strip_prefix(run::RUNS) {
        return run::kept(context, id).await;
    }
    if let Some(id) = path.strip_prefix(race::RACES)
        && let Some(response) = race::kept(context, id, request.into_body()).await
    {
        return response;
    }
    race::refused()
}
