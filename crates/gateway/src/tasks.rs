//! The tasks extension (`io.modelcontextprotocol/tasks`): long calls run from the queue and
//! polled by the client.
//!
//! A handle is sealed and says whose it is, so a foreign, expired or forged one is refused
//! without a read, in the same words as an unknown one. It is returned only when the record
//! is durable *and* the queue has accepted the work: `tasks/get` resolves anywhere at once.
//! What two requests race on is one record in the atomic store; every writer swaps.

pub mod run;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::meta::EXT_TASKS;
use tidegate_mcp::method::Method;
use tidegate_mcp::task::{self, Task, TaskDetail, TaskStatus};
use tidegate_mcp::version::Era;

use crate::auth::{Principal, PrincipalId};
use crate::config::{Execution, ToolRule};
use crate::context::Context;
use crate::error::{Error, Fault, Rejection};
use crate::ingress::Call;
use crate::keyspace::{self, Family, Key, ReadError, Store};
use crate::memory::Bounded;
use crate::platform::{LogLevel, Platform, Queue, Swap, Version};
use crate::queue::Message;
use crate::route::One;
use crate::seal::{Purpose, hex};
use crate::time::Timestamp;

/// Longest task handle, in bytes: it travels in the `Mcp-Name` header.
pub const HANDLE_MAX: usize = 512;
/// Largest arguments a task keeps, in bytes.
pub const ARGUMENTS_MAX: usize = 256 * 1024;
/// A task nobody has started this long after it was created is queued again by a poll.
pub const START_WITHIN: Duration = Duration::from_secs(60);
/// How often a lost race over a record is tried again.
const SWAPS_MAX: usize = 8;

/// Most tasks one isolate remembers to have queued again.
const REQUEUED_MAX: usize = 1024;

/// What an isolate remembers of tasks: when it queued one again, so that polling does not
/// fill the queue.
pub(crate) struct Memory {
    requeued: Bounded<String, Timestamp>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            requeued: Bounded::new(REQUEUED_MAX),
        }
    }
}

impl Memory {
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

/// A task as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Shape of this record.
    pub v: u32,
    /// Principal that created it.
    pub owner: PrincipalId,
    /// Configured name of the upstream.
    pub upstream: String,
    /// The tool's own name at the upstream.
    pub tool: String,
    /// Whether URIs in the result are shown with their upstream's prefix.
    pub prefixed: bool,
    /// Params of the call in the upstream's names.
    pub params: Object,
    /// How long one run may take, in milliseconds.
    pub timeout_ms: u64,
    /// Where it stands.
    #[serde(with = "status_text")]
    pub status: TaskStatus,
    /// What a person reads about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
    /// When it was created, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// When it last changed, milliseconds since the epoch.
    pub updated_at_ms: u64,
    /// How long it can be read after it was created, in milliseconds.
    pub ttl_ms: u64,
    /// How often clients are asked to poll, in milliseconds.
    pub poll_interval_ms: u64,
    /// Who runs it now, and until when nobody else may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// How it ended: a tool's result, or a JSON-RPC error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// The right to run a task, for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Random name of the run.
    pub run: String,
    /// When it lapses, milliseconds since the epoch.
    pub until_ms: u64,
}

/// How a task ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The tool answered, well or with `isError`.
    Result(Object),
    /// The call itself failed.
    Error(Failure),
}

/// A JSON-RPC error as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Its code.
    pub code: i64,
    /// Its message.
    pub message: String,
    /// Its data, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        Self {
            code: error.code,
            message: error.message,
            data: error.data,
        }
    }
}

impl From<Failure> for RpcError {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code,
            message: failure.message,
            data: failure.data,
        }
    }
}

mod status_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use tidegate_mcp::task::TaskStatus;

    pub(super) fn serialize<S: Serializer>(status: &TaskStatus, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(status.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TaskStatus, D::Error> {
        let text = String::deserialize(from)?;
        TaskStatus::parse(&text).ok_or_else(|| de::Error::custom("unknown task status"))
    }
}

/// The family of [`Record`], by the random id inside the handle.
pub struct TaskFamily;

impl Family for TaskFamily {
    type Record = Record;
    const NAME: &'static str = "task";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = None;
}

/// What a handle says; short names, for it must fit a header.
#[derive(Serialize, Deserialize)]
struct Handle {
    /// Key of the record.
    k: String,
    /// Owner.
    o: PrincipalId,
    /// Upstream.
    u: String,
    /// Created, milliseconds since the epoch.
    c: u64,
    /// Time to live, milliseconds.
    t: u64,
}

/// Whether the call becomes a task: the tool's rule and what the client declared decide.
/// Clients of older revisions cannot declare the extension and are answered directly.
pub fn wanted(rule: Option<&ToolRule>, one: &One, call: &Call) -> Result<bool, Error> {
    let execution = rule.map_or(Execution::Sync, |rule| rule.execution);
    if one.method != Method::ToolsCall
        || execution == Execution::Sync
        || call.version.era() == Era::Legacy
    {
        return Ok(false);
    }
    match (
        execution,
        call.meta.client_capabilities.has_extension(EXT_TASKS),
    ) {
        (_, true) => Ok(true),
        (Execution::Task, false) => Err(undeclared()),
        (Execution::Auto | Execution::Sync, false) => Ok(false),
    }
}

/// What a client is told that asks for tasks and did not declare the extension.
pub(crate) fn undeclared() -> Error {
    Rejection::protocol(RpcError::missing_client_capability(
        json!({ "extensions": { EXT_TASKS: {} } }),
    ))
    .into()
}

/// Makes a task of the call and gives its handle.
pub async fn create<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    rule: Option<&ToolRule>,
    one: Box<One>,
) -> Result<Object, Error> {
    let mut params = one.params;
    // An experimental `task` param of 2025-11-25 means nothing here.
    params.remove("task");
    if params.to_raw().get().len() > ARGUMENTS_MAX {
        return Err(Rejection::BodyTooLarge { max: ARGUMENTS_MAX }.into());
    }
    let (now, tasks) = (context.now(), context.settings.config.tasks);
    let record = Record {
        v: 1,
        owner: principal.id.clone(),
        upstream: one.upstream.name.clone(),
        tool: one.own,
        prefixed: one.prefixed,
        params,
        timeout_ms: rule
            .and_then(|rule| rule.timeout_ms)
            .unwrap_or(one.upstream.timeout_ms),
        status: TaskStatus::Working,
        status_message: None,
        created_at_ms: now.0,
        updated_at_ms: now.0,
        ttl_ms: tasks.ttl_ms,
        poll_interval_ms: tasks.poll_interval_ms,
        lease: None,
        outcome: None,
    };
    let id = hex(&context.random::<16>());
    let handle = Handle {
        k: id.clone(),
        o: record.owner.clone(),
        u: record.upstream.clone(),
        c: record.created_at_ms,
        t: record.ttl_ms,
    };
    let handle = context
        .settings
        .sealer
        .seal(context.platform.as_ref(), Purpose::Task, &handle)?;
    if handle.len() > HANDLE_MAX {
        return Err(Fault::Internal("a task handle is too long".to_owned()).into());
    }
    let version = match keyspace::atomic_swap(
        context.platform.atomic(),
        &key(&id),
        None,
        &record,
        expiry(&record),
    )
    .await?
    {
        Swap::Done(version) => version,
        Swap::Conflict => {
            return Err(Fault::Internal("a random task id was taken".to_owned()).into());
        }
    };
    // Enqueue after the swap: a handle whose task cannot be read breaks the tasks
    // extension, while a task nobody runs is queued again by the next poll.
    if let Err(unavailable) = enqueue(context, &id).await {
        let error = RpcError::new(
            tidegate_mcp::jsonrpc::INTERNAL_ERROR,
            "The task could not be queued.",
        );
        let failed = ended(record, now, Outcome::Error(error.into()));
        let _ = keyspace::atomic_swap(
            context.platform.atomic(),
            &key(&id),
            Some(version),
            &failed,
            expiry(&failed),
        )
        .await;
        return Err(unavailable);
    }
    Ok(task::created_result(&rendered(&handle, &record)))
}

/// `tasks/get`.
pub async fn get<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    call: &Call,
) -> Result<Object, Error> {
    let (handle, id) = open(context, principal, call)?;
    let (_, record) = read(context, &id).await?;
    let waited = context.now().since(Timestamp(record.updated_at_ms));
    let abandoned = match (&record.status, &record.lease) {
        (TaskStatus::Working, None) => waited >= START_WITHIN,
        (TaskStatus::Working, Some(lease)) => Timestamp(lease.until_ms) < context.now(),
        _ => false,
    };
    if abandoned && context.memory.tasks.may_queue(&id, context.now()) {
        // Harmless if it is queued already: one run gets the lease.
        // Should the queue refuse, the next poll tries again.
        let queued = enqueue(context, &id).await.is_ok();
        context.log(
            LogLevel::Warn,
            "task_abandoned",
            json!({ "task": id, "queued": queued }),
        );
    }
    Ok(task::get_result(
        &rendered(&handle, &record),
        &detail(&record),
    ))
}

/// `tasks/update`. Tasks ask for no input yet, so every answer is to a question nobody
/// asked, and those are ignored.
pub async fn update<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    call: &Call,
) -> Result<Object, Error> {
    let (_, id) = open(context, principal, call)?;
    if !matches!(call.params.get_object("inputResponses"), Some(Ok(_))) {
        return Err(Rejection::protocol(RpcError::invalid_params(
            "`inputResponses` must be an object",
        ))
        .into());
    }
    read(context, &id).await?;
    Ok(task::acknowledged_result())
}

/// `tasks/cancel`: cooperative, and an acknowledgement also where the task has ended.
pub async fn cancel<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    call: &Call,
) -> Result<Object, Error> {
    let (_, id) = open(context, principal, call)?;
    for _ in 0..SWAPS_MAX {
        let (version, mut record) = read(context, &id).await?;
        if !record.status.can_become(TaskStatus::Cancelled) {
            return Ok(task::acknowledged_result());
        }
        record.status = TaskStatus::Cancelled;
        record.status_message = Some("Cancelled by the client.".to_owned());
        record.updated_at_ms = context.now().0;
        record.lease = None;
        let (atomic, until) = (context.platform.atomic(), expiry(&record));
        if let Swap::Done(_) =
            keyspace::atomic_swap(atomic, &key(&id), Some(version), &record, until).await?
        {
            return Ok(task::acknowledged_result());
        }
    }
    Err(Fault::Dependency("a task record is too contended".to_owned()).into())
}

/// The handle a call names, and the record key inside it. Whether the client declared the
/// extension is asked before anything about the id.
fn open<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    call: &Call,
) -> Result<(String, String), Error> {
    if !call.meta.client_capabilities.has_extension(EXT_TASKS) {
        return Err(undeclared());
    }
    let Some(text) = call.params.get_str("taskId") else {
        return Err(
            Rejection::protocol(RpcError::invalid_params("`taskId` must be a string")).into(),
        );
    };
    if text.len() > HANDLE_MAX {
        return Err(unknown());
    }
    let handle = context
        .settings
        .sealer
        .open::<Handle>(Purpose::Task, &text)
        .ok_or_else(unknown)?;
    let expired = Timestamp(handle.c) + Duration::from_millis(handle.t) <= context.now();
    if expired || handle.o != principal.id {
        return Err(unknown());
    }
    Ok((text.into_owned(), handle.k))
}

fn unknown() -> Error {
    Rejection::protocol(RpcError::invalid_params("unknown task")).into()
}

async fn read<P: Platform>(context: &Context<P>, id: &str) -> Result<(Version, Record), Error> {
    match keyspace::atomic_get(context.platform.atomic(), &key(id)).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(unknown()),
        Err(ReadError::Unavailable(e)) => Err(e.into()),
        Err(e @ ReadError::Unreadable { .. }) => Err(Fault::Internal(e.to_string()).into()),
    }
}

async fn enqueue<P: Platform>(context: &Context<P>, id: &str) -> Result<(), Error> {
    let message = Message::RunTaskV1 {
        task: id.to_owned(),
    };
    let bytes = serde_json::to_vec(&message).map_err(|e| Fault::Internal(e.to_string()))?;
    context
        .platform
        .queue()
        .send(bytes.into(), Duration::ZERO)
        .await
        .map_err(Error::from)
}

fn key(id: &str) -> Key<TaskFamily> {
    Key::of(&[id])
}

fn expiry(record: &Record) -> Timestamp {
    Timestamp(record.created_at_ms) + Duration::from_millis(record.ttl_ms)
}

fn ended(mut record: Record, now: Timestamp, outcome: Outcome) -> Record {
    record.status = match outcome {
        Outcome::Result(_) => TaskStatus::Completed,
        Outcome::Error(_) => TaskStatus::Failed,
    };
    record.outcome = Some(outcome);
    record.updated_at_ms = now.0;
    record.lease = None;
    record
}

fn rendered(handle: &str, record: &Record) -> Task {
    Task {
        task_id: handle.to_owned(),
        status: record.status,
        status_message: record.status_message.clone(),
        created_at_ms: record.created_at_ms,
        last_updated_at_ms: record.updated_at_ms,
        ttl_ms: Some(record.ttl_ms),
        poll_interval_ms: Some(record.poll_interval_ms),
    }
}

/// What a terminal status carries.
fn detail(record: &Record) -> TaskDetail {
    match &record.outcome {
        Some(Outcome::Result(result)) => TaskDetail::Result(result.clone()),
        Some(Outcome::Error(failure)) => TaskDetail::Error(failure.clone().into()),
        None => TaskDetail::None,
    }
}
