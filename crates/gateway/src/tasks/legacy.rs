//! The experimental tasks of 2025-11-25, over the same records.
//!
//! A client of that revision asks for a task by a param of the call, waits for its result
//! ([`result`]), lists its tasks and cancels them for good. What it sees differs from the
//! modern view in the names of times, and in that a tool that reports an error has `failed`.
//! To every other revision the param means nothing and the methods do not exist.
//!
//! Spec: 2025-11-25, "Tasks".

mod result;

use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{METHOD_NOT_FOUND, RpcError};
use tidegate_mcp::task::{self, Task, TaskStatus};
use tidegate_mcp::version::ProtocolVersion;

use super::make::{Asked, When, begin, insert};
use super::record::{Outcome, Record};
use super::{is_shown, roster, run, store};
use crate::auth::{Principal, PrincipalId};
use crate::config::{Authentication, Execution, Tasks, ToolRule};
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::ingress::Call;
use crate::platform::Platform;
use crate::seal::Purpose;
use crate::settings::Settings;

pub use result::RESULT_WITHIN;
pub(crate) use result::result;

/// Shortest a task is kept, whatever its client asks for: one that is gone before it can be
/// looked at helps nobody.
pub const TTL_MIN: Duration = Duration::from_secs(60);
/// Most tasks on one page of a list.
pub const LIST_PAGE_MAX: usize = 25;

/// Whether a client of this revision is offered these tasks.
pub(crate) fn offered(settings: &Settings, version: ProtocolVersion) -> bool {
    version == ProtocolVersion::V2025_11_25 && super::are_made(settings)
}

/// Whether it can list its own: nobody else's, so only where callers are told apart.
pub(crate) fn listed(settings: &Settings, version: ProtocolVersion) -> bool {
    let everybody = matches!(settings.config.authentication, Authentication::None);
    offered(settings, version) && !everybody
}

/// What `initialize` says of them.
pub(crate) fn capability(settings: &Settings, version: ProtocolVersion) -> serde_json::Value {
    let mut capability = json!({ "cancel": {}, "requests": { "tools": { "call": {} } } });
    if listed(settings, version) {
        capability["list"] = json!({});
    }
    capability
}

/// What lists of tools say of one.
pub(crate) fn support(rule: Option<&ToolRule>) -> &'static str {
    match rule.map(|rule| rule.execution).unwrap_or_default() {
        // What an upstream has of tasks its clients of this revision never see.
        Execution::Sync | Execution::Upstream => "forbidden",
        Execution::Task => "required",
        Execution::Auto => "optional",
    }
}

/// What the call says about the task it wants to be, if it is from a client that may.
fn wanted(settings: &Settings, call: &Call) -> Option<Result<Wanted, RpcError>> {
    let param = call.params.get_object("task");
    let param = param.filter(|_| offered(settings, call.version))?;
    let ttl = param
        .ok()
        .map(|param| param.get_as::<Option<u64>>("ttl").transpose());
    let ttl = ttl.and_then(Result::ok).map(Option::flatten);
    let wanted = ttl.map(|ttl| Wanted { ttl });
    let refused = || RpcError::invalid_params("`task` must be an object, its `ttl` milliseconds");
    Some(wanted.ok_or_else(refused))
}

struct Wanted {
    /// How long it is to be kept, in milliseconds.
    ttl: Option<u64>,
}

/// When the call becomes a task: now or never.
pub(super) fn when(
    rule: Option<&ToolRule>,
    call: &Call,
    settings: &Settings,
) -> Result<When, Error> {
    let refused = |reason: &str| {
        let error = RpcError::new(METHOD_NOT_FOUND, reason);
        Error::from(Rejection::protocol(error))
    };
    if !offered(settings, call.version) {
        return Ok(When::Never);
    }
    match (wanted(settings, call), support(rule)) {
        (Some(_), "forbidden") => Err(refused("This tool cannot be called as a task.")),
        (None, "required") => Err(refused("This tool can only be called as a task.")),
        (Some(Err(error)), _) => Err(Rejection::protocol(error).into()),
        (Some(Ok(_)), _) => Ok(When::Now),
        (None, _) => Ok(When::Never),
    }
}

/// How long the task is kept.
pub(super) fn ttl(settings: &Settings, call: &Call) -> Duration {
    let Tasks { ttl_ms, .. } = settings.config.tasks;
    let most = Duration::from_millis(ttl_ms);
    match wanted(settings, call) {
        Some(Ok(Wanted { ttl: Some(ttl) })) => Duration::from_millis(ttl).max(TTL_MIN).min(most),
        Some(_) | None => most,
    }
}

/// The result of a call that became a task. Every task begins as one that is worked on.
pub(crate) fn created(record: &Record) -> Object {
    let task = Task {
        status: TaskStatus::Working,
        ..record.shown()
    };
    task::created_legacy_result(&task)
}

/// The task of a call that was answered before it could become one: its client waits for the
/// answer where it waits for every task's.
pub(crate) async fn answered<P: Platform>(
    context: &Context<P>,
    asked: Asked,
    answer: Object,
) -> Result<Object, Error> {
    let (id, mut record) = begin(context, asked)?;
    record.end(Outcome::Result(answer), context.now());
    insert(context, &id, &record).await?;
    run::report(context, &id, &record);
    Ok(created(&record))
}

/// The task as its client sees it.
pub(super) fn shown(record: &Record) -> Object {
    let mut task = record.shown();
    if record.outcome.as_ref().is_some_and(Outcome::is_tool_error) {
        task.status = TaskStatus::Failed;
    }
    task.to_legacy()
}

/// The result of `tasks/cancel`: a task that is cancelled and stays so. One that had ended
/// cannot be.
pub(super) fn cancelled(record: &Record, now: bool) -> Result<Object, Error> {
    let shown = shown(record);
    if now && record.status == TaskStatus::Cancelled {
        return Ok(shown);
    }
    let status = shown.get_str("status").unwrap_or_default();
    let reason = format!("cannot cancel a task that has ended: it is {status}");
    Err(Rejection::protocol(RpcError::invalid_params(reason)).into())
}

/// Where the next page of a list begins.
#[derive(Serialize, Deserialize)]
struct Place {
    principal: PrincipalId,
    /// The last task of the page before.
    after: String,
    /// How many were listed before, should that one be gone.
    offset: usize,
}

/// `tasks/list`: the caller's own, newest first, of tools it may still call.
pub(crate) async fn list<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    call: &Call,
) -> Result<Object, Error> {
    let place = match call.params.get("cursor") {
        None => None,
        Some(cursor) => Some(place(context, principal, cursor.get())?),
    };
    let all = roster::list(context, &principal.id).await?;
    let offset = place.map_or(0, |place| {
        let last = all.iter().position(|id| *id == place.after);
        last.map_or(place.offset, |last| last + 1)
    });
    let page: Vec<_> = all.iter().skip(offset).take(LIST_PAGE_MAX).collect();
    let records = page.iter().map(|id| store::find(context, id));
    let mut tasks = Vec::with_capacity(page.len());
    for found in join_all(records).await {
        match found.map_err(store::failed)? {
            Some((_, record)) if is_shown(context, principal, &record) => {
                tasks.push(shown(&record));
            }
            Some(_) | None => {}
        }
    }
    let mut result = Object::new().with("resultType", "complete");
    result.insert("tasks", &tasks);
    if let Some(last) = page.last().filter(|_| all.len() > offset + page.len()) {
        let next = Place {
            principal: principal.id.clone(),
            after: (*last).clone(),
            offset: offset + page.len(),
        };
        let sealer = &context.settings.sealer;
        let cursor = sealer.seal(context.platform.as_ref(), Purpose::Cursor, &next)?;
        result.insert("nextCursor", &cursor);
    }
    Ok(result)
}

fn place<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    cursor: &str,
) -> Result<Place, Error> {
    let sealer = &context.settings.sealer;
    let cursor: Option<String> = serde_json::from_str(cursor).ok();
    let place = cursor.and_then(|cursor| sealer.open::<Place>(Purpose::Cursor, &cursor));
    place
        .filter(|place| place.principal == principal.id)
        .ok_or_else(|| {
            let reason = "unknown cursor; list again from the first page";
            Rejection::protocol(RpcError::invalid_params(reason)).into()
        })
}
