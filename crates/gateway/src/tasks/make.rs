//! Making a task of a call: when, with what in its record, and in which order. The record is
//! durable before the queue is told, and the queue has it before the client has a handle.
//!
//! Nor is a client told that it has none whose task may yet be run. Where it is not known
//! whether the record was written, it is told just that (`task_unsettled`), for the sweep has
//! a task run that is there. Where the queue does not say whether it has the message, the
//! record is ended; where that cannot be done either, the client gets its handle, and a poll
//! or the sweep has the task queued.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tidegate_mcp::headers::MCP_PARAM_PREFIX;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{INTERNAL_ERROR, RpcError};
use tidegate_mcp::meta::{self, EXT_TASKS};
use tidegate_mcp::method::Method;
use tidegate_mcp::task::TaskStatus;
use tidegate_mcp::version::Era;

use super::handle::{Handle, Of};
use super::record::{Outcome, Record};
use super::{directory, legacy, roster, run, store, tenants, undeclared};
use crate::auth::{Principal, revocation};
use crate::config::{Execution, ToolRule};
use crate::context::Context;
use crate::discover;
use crate::error::{Error, Rejection};
use crate::ingress::Call;
use crate::platform::{Platform, Version};
use crate::quotas::Charge;
use crate::route::One;
use crate::seal::hex;
use crate::settings::Settings;
use crate::switches;

/// Largest arguments a task keeps, in bytes, with what goes with them to the upstream.
pub const ARGUMENTS_MAX: usize = 256 * 1024;

/// When a call becomes a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Never,
    Now,
    /// If it is still running then.
    After(Duration),
}

/// When the call becomes a task: the tool's rule and what the client declared decide.
/// Clients of older revisions cannot declare the extension; those of one may ask for a task.
pub(crate) fn when(
    rule: Option<&ToolRule>,
    one: &One,
    call: &Call,
    settings: &Settings,
) -> Result<When, Error> {
    let execution = rule.map(|rule| rule.execution).unwrap_or_default();
    if one.method != Method::ToolsCall {
        return Ok(When::Never);
    }
    if call.version.era() == Era::Legacy {
        return legacy::when(rule, call, settings);
    }
    let declared = call.meta.client_capabilities.has_extension(EXT_TASKS);
    match (execution, declared) {
        (Execution::Upstream | Execution::Sync, _) | (Execution::Auto, false) => Ok(When::Never),
        (Execution::Task, true) => Ok(When::Now),
        (Execution::Task, false) => Err(undeclared()),
        (Execution::Auto, true) => {
            let threshold = rule.and_then(|rule| rule.task_after_ms);
            let threshold = threshold.unwrap_or(settings.config.tasks.after_ms);
            Ok(When::After(Duration::from_millis(threshold)))
        }
    }
}

/// Whether a rule makes tasks of calls.
pub(crate) fn are_made(settings: &Settings) -> bool {
    settings
        .config
        .tools
        .iter()
        .any(|rule| match rule.execution {
            Execution::Upstream | Execution::Sync => false,
            Execution::Auto | Execution::Task => true,
        })
}

/// A call that is to become a task, or may.
pub(crate) struct Asked {
    principal: Rc<Principal>,
    upstream: String,
    version: Option<String>,
    tool: String,
    prefixed: bool,
    params: Object,
    capabilities: Object,
    meta: Object,
    param_headers: Vec<(String, String)>,
    timeout: Duration,
    ttl: Duration,
    idempotent: bool,
    charges: Vec<Charge>,
}

impl Asked {
    pub(crate) fn of(
        settings: &Settings,
        principal: &Rc<Principal>,
        rule: Option<&ToolRule>,
        one: &One,
        call: &Call,
    ) -> Self {
        let timeout = rule.and_then(|rule| rule.timeout_ms);
        // A legacy client is asked on the stream it waits on, not on this call's.
        let session = call.session.as_ref().map(|session| &session.capabilities);
        let declared = session.unwrap_or(&call.meta.client_capabilities);
        let mut carried = call.meta.rest.clone();
        let trace = &call.meta.trace;
        for (name, value) in [
            (meta::TRACEPARENT, &trace.traceparent),
            (meta::TRACESTATE, &trace.tracestate),
            (meta::BAGGAGE, &trace.baggage),
        ] {
            if let Some(value) = value {
                carried.insert(name, value);
            }
        }
        Self {
            principal: Rc::clone(principal),
            upstream: one.upstream.name.clone(),
            version: one.upstream.version.clone(),
            tool: one.own.clone(),
            prefixed: one.prefixed,
            params: one.params.clone(),
            capabilities: discover::bridged(declared),
            meta: carried,
            param_headers: Vec::new(),
            timeout: Duration::from_millis(timeout.unwrap_or(settings.config.tasks.timeout_ms)),
            ttl: legacy::ttl(settings, call),
            idempotent: one.upstream.idempotency_keys || rule.is_some_and(|rule| rule.idempotent),
            charges: Vec::new(),
        }
    }
}

impl Asked {
    /// Has its result counted in these quotas.
    pub(crate) fn charged(self, charges: Vec<Charge>) -> Self {
        Self { charges, ..self }
    }

    /// Has its `Mcp-Param-*` headers go along; others are made for each run. What is no text
    /// agrees with no argument.
    pub(crate) fn with_headers(self, headers: &[(HeaderName, HeaderValue)]) -> Self {
        let ours = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with(MCP_PARAM_PREFIX));
        let texts = ours.filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        });
        Self {
            param_headers: texts.collect(),
            ..self
        }
    }

    /// Lets one run take this long and no longer.
    pub(crate) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}

/// A task's id and record; nothing is stored yet.
pub(super) fn begin<P: Platform>(
    context: &Context<P>,
    asked: Asked,
) -> Result<(String, Record), Error> {
    let kept = [&asked.params, &asked.capabilities, &asked.meta];
    let kept = kept.iter().map(|kept| kept.text_len()).sum::<usize>();
    let headers = asked.param_headers.iter();
    let headers = headers
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>();
    if kept + headers > ARGUMENTS_MAX {
        return Err(Rejection::BodyTooLarge { max: ARGUMENTS_MAX }.into());
    }
    let (now, tasks) = (context.now(), context.settings.config.tasks);
    let Principal {
        id: owner, tenant, ..
    } = &*asked.principal;
    let id = hex(&context.random::<16>());
    let of = Of {
        tenant: tenant.as_deref(),
        upstream: &asked.upstream,
        tool: &asked.tool,
    };
    let handle = Handle::new(id.clone(), owner.clone(), &of, now, asked.ttl).seal(context)?;
    let record = Record {
        v: 1,
        handle,
        owner: owner.clone(),
        tenant: tenant.clone(),
        subject: switches::subject_of(&asked.principal),
        revocable: revocation::lasting(&context.settings.config, &asked.principal),
        upstream: asked.upstream,
        version: asked.version,
        tool: asked.tool,
        prefixed: asked.prefixed,
        params: asked.params,
        capabilities: asked.capabilities,
        meta: asked.meta,
        param_headers: asked.param_headers,
        timeout_ms: u64::try_from(asked.timeout.as_millis()).unwrap_or(u64::MAX),
        idempotent: asked.idempotent,
        status: TaskStatus::Working,
        status_message: None,
        created_at_ms: now.0,
        updated_at_ms: now.0,
        ttl_ms: u64::try_from(asked.ttl.as_millis()).unwrap_or(u64::MAX),
        poll_interval_ms: tasks.poll_interval_ms,
        attempts: 0,
        rounds: 0,
        lease: None,
        not_before_ms: None,
        asked: 0,
        questions: BTreeMap::new(),
        state: None,
        upstream_task: None,
        charges: asked.charges,
        outcome: None,
    };
    Ok((id, record))
}

/// Stores a new task, which its principal may have.
pub(super) async fn insert<P: Platform>(
    context: &Context<P>,
    id: &str,
    record: &Record,
) -> Result<Version, Error> {
    // What has ended before it was stored is in nobody's way.
    let counts = !record.status.is_terminal();
    if counts {
        tenants::take(context, record).await?;
    }
    if let Err(refused) = roster::enter(context, id, record).await {
        if counts {
            tenants::give_back(context, record);
        }
        return Err(refused);
    }
    directory::enter(context, record).await;
    store::create(context, id, record).await
}

/// What the end of a task is to those who count: called by the one who wrote it, and never of
/// one that had ended when it was inserted, which was not counted.
pub(super) fn ended<P: Platform>(context: &Context<P>, id: &str, record: &Record) {
    context.memory.tasks.rosters.ended(&record.owner, id);
    tenants::give_back(context, record);
}

/// Makes a task of the call and gives its handle.
pub(crate) async fn create<P: Platform>(
    context: &Context<P>,
    asked: Asked,
) -> Result<Record, Error> {
    let (id, record) = begin(context, asked)?;
    let version = insert(context, &id, &record).await?;
    queue(context, &id, (version, record)).await
}

/// Hands a new task to the queue, or calls it off; gives the record of one that is made.
pub(super) async fn queue<P: Platform>(
    context: &Context<P>,
    id: &str,
    known: store::Known,
) -> Result<Record, Error> {
    let record = known.1.clone();
    // Enqueue after the swap: a handle whose task cannot be read breaks the tasks
    // extension, while a task nobody runs is queued again by the next poll.
    match run::enqueue(context, id, Duration::ZERO).await {
        Ok(()) => Ok(record),
        Err(unavailable) => match call_off(context, id, known).await {
            true => Err(unavailable),
            // Its client must not be told that there is none: the message may be there.
            false => Ok(record),
        },
    }
}

/// Ends a task that could not be queued, unless it was begun all the same. Gives whether it
/// certainly will not be run: its client can be told that there is none.
pub(super) async fn call_off<P: Platform>(
    context: &Context<P>,
    id: &str,
    known: store::Known,
) -> bool {
    let error = RpcError::new(INTERNAL_ERROR, "The task could not be queued.");
    let outcome = Outcome::Error(error.into());
    let made = known.1.clone();
    let as_made =
        |record: &Record| (record.attempts, record.rounds) == (made.attempts, made.rounds);
    let change =
        |record: &mut Record| as_made(record) && record.end(outcome.clone(), context.now());
    match store::edit(context, id, Some(known), change).await {
        Ok(Some((_, record))) => as_made(&record) && record.status.is_terminal(),
        Ok(None) => true,
        Err(_) => false,
    }
}
