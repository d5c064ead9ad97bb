//! A task at the upstream that made it: how it is asked about, answered and cancelled there,
//! and how what it says is shown in the endpoint's names.
//!
//! The upstream is a stranger: what it answers is held to the tasks extension before anybody
//! sees it, and of its ids none leaves the gateway.

use std::rc::Rc;
use std::time::Duration;

use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{
    INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_REQUIRED_CLIENT_CAPABILITY, RpcError,
};
use tidegate_mcp::meta::{ClientCapabilities, EXT_TASKS, RequestMeta};
use tidegate_mcp::method::Method;
use tidegate_mcp::task::{Task, TaskStatus};
use tidegate_mcp::version::Era;

use super::handle::unknown;
use super::record::Record;
use crate::auth::PrincipalId;
use crate::canary;
use crate::config::{Execution, ToolRule, Upstream};
use crate::context::Context;
use crate::egress;
use crate::error::{Error, Rejection};
use crate::idempotency::IDEMPOTENCY_META;
use crate::ingress::Call;
use crate::names;
use crate::platform::Platform;
use crate::rounds;
use crate::route::One;
use crate::tools;
use crate::upstream::{self, Declares, Outgoing};

/// Longest an upstream is waited for that is asked about a task: it has nothing to do for it.
const ASK_WITHIN: Duration = Duration::from_secs(30);
/// What no view of a task holds but the one of its status.
const DETAILS: [&str; 3] = ["inputRequests", "result", "error"];

/// What becomes of a task the upstream makes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Minted {
    /// It makes none: it is told nothing of tasks.
    Never,
    /// The client gets it, under a handle.
    Passed,
    /// Whoever makes the call follows it.
    Followed,
    /// It is followed for a client that cannot, if the upstream does not do without.
    Awaited,
}

impl Minted {
    /// Clients of older revisions cannot declare the extension; the others are told to.
    pub(crate) fn of(rule: Option<&ToolRule>, one: &One, call: &Call) -> Self {
        let declared = call.meta.client_capabilities.has_extension(EXT_TASKS);
        let execution = rule.map(|rule| rule.execution).unwrap_or_default();
        match (execution, call.version.era()) {
            _ if one.method != Method::ToolsCall => Self::Never,
            (Execution::Sync, _) => Self::Never,
            (_, Era::Legacy) => Self::Awaited,
            (_, Era::Modern) if declared => Self::Passed,
            (_, Era::Modern) => Self::Never,
        }
    }

    /// What the upstream is told.
    pub(crate) const fn declares(self) -> Declares {
        match self {
            Self::Never => Declares::Never,
            Self::Passed | Self::Followed => Declares::Offered,
            Self::Awaited => Declares::Insisted,
        }
    }
}

/// The tool of an upstream whose call became a task there, and whose call it was.
pub(crate) struct Maker {
    pub(crate) upstream: Upstream,
    /// The tool's own name at the upstream.
    pub(crate) tool: String,
    /// Whether names and URIs are shown with their upstream's prefix.
    pub(crate) prefixed: bool,
    pub(crate) owner: PrincipalId,
}

/// One task of an upstream.
#[derive(Clone)]
pub(crate) struct Theirs {
    pub(crate) maker: Rc<Maker>,
    /// The upstream's id of it.
    pub(crate) id: String,
}

/// A task as its upstream shows it.
pub(crate) struct Seen {
    pub(crate) task: Task,
    /// All it said.
    pub(crate) result: Object,
}

/// Whether an upstream makes a task of a call or nothing, and was not told that tasks are
/// understood.
pub(crate) fn wanted_by(error: &Error) -> bool {
    let Error::Rejection(Rejection::Protocol { error, .. }) = error else {
        return false;
    };
    let data = error.data.as_ref();
    let data = data.and_then(|data| Object::from_raw(data).ok());
    let required = data.and_then(|data| data.get_object("requiredCapabilities")?.ok());
    error.code == MISSING_REQUIRED_CLIENT_CAPABILITY
        && required.is_some_and(|required| ClientCapabilities(required).has_extension(EXT_TASKS))
}

impl Maker {
    /// The maker of a task this call may become.
    pub(crate) fn of_call(one: &One, owner: &PrincipalId, minted: Minted) -> Option<Rc<Self>> {
        (minted != Minted::Never).then(|| {
            Rc::new(Self {
                upstream: one.upstream.clone(),
                tool: one.own.clone(),
                prefixed: one.prefixed,
                owner: owner.clone(),
            })
        })
    }

    /// The maker of the task a record's run follows, if its upstream is still configured.
    pub(super) fn of<P: Platform>(context: &Context<P>, record: &Record) -> Option<Self> {
        let upstream = context.settings.upstream(&record.upstream)?;
        Some(Self {
            upstream: canary::pinned(context, upstream, record.version.as_deref()).clone(),
            tool: record.tool.clone(),
            prefixed: record.prefixed,
            owner: record.owner.clone(),
        })
    }

    /// The task in a result that says the call has become one.
    pub(crate) fn made(&self, result: &Object) -> Result<Task, Error> {
        Task::parse(result).ok_or_else(|| self.invalid("a task that is not one"))
    }

    pub(crate) fn invalid(&self, reason: &str) -> Error {
        Rejection::UpstreamInvalid {
            upstream: self.upstream.name.clone(),
            reason: reason.to_owned(),
            asked: true,
        }
        .into()
    }
}

impl Theirs {
    /// What the upstream says of it.
    pub(crate) async fn get<P: Platform>(
        &self,
        context: &Context<P>,
        meta: &RequestMeta,
    ) -> Result<Seen, Error> {
        let method = Method::TasksGet;
        let result = self.ask(context, method, Object::new(), meta).await?;
        let task = match ResultType::of(&result) {
            // Two examples of the extension say `task`, its text `complete`.
            ResultType::Complete | ResultType::Task => Task::parse(&result),
            ResultType::InputRequired | ResultType::Other(_) => None,
        };
        match task.filter(|task| task.task_id == self.id) {
            Some(task) => Ok(Seen { task, result }),
            None => Err(self.maker.invalid("not the task it was asked for")),
        }
    }

    /// Brings the upstream answers to what the task asks.
    pub(crate) async fn update<P: Platform>(
        &self,
        context: &Context<P>,
        answers: &Object,
        meta: &RequestMeta,
    ) -> Result<(), Error> {
        let params = Object::new().with("inputResponses", answers);
        self.told(context, Method::TasksUpdate, params, meta).await
    }

    /// Tells the upstream that nobody wants the task any more.
    pub(crate) async fn cancel<P: Platform>(
        &self,
        context: &Context<P>,
        meta: &RequestMeta,
    ) -> Result<(), Error> {
        self.told(context, Method::TasksCancel, Object::new(), meta)
            .await
    }

    /// [`Self::cancel`] after the response. Lost, the upstream keeps the task until its end.
    pub(crate) fn give_up<P: Platform>(&self, context: &Context<P>) {
        let (context, theirs) = (context.clone(), self.clone());
        context.platform.clone().defer(async move {
            let _ = theirs.cancel(&context, &RequestMeta::default()).await;
        });
    }

    async fn told<P: Platform>(
        &self,
        context: &Context<P>,
        method: Method,
        params: Object,
        meta: &RequestMeta,
    ) -> Result<(), Error> {
        let result = self.ask(context, method, params, meta).await?;
        match ResultType::of(&result) {
            ResultType::Complete => Ok(()),
            ResultType::InputRequired | ResultType::Task | ResultType::Other(_) => {
                Err(self.maker.invalid("an acknowledgement that is none"))
            }
        }
    }

    async fn ask<P: Platform>(
        &self,
        context: &Context<P>,
        method: Method,
        params: Object,
        meta: &RequestMeta,
    ) -> Result<Object, Error> {
        let upstream = &self.maker.upstream;
        let mut meta = RequestMeta {
            progress_token: None,
            log_level: None,
            ..meta.clone()
        };
        // It names the call, not what is asked about it.
        meta.rest.remove(IDEMPOTENCY_META);
        let outgoing = Outgoing {
            method,
            params: params.with("taskId", &self.id),
            meta,
            param_headers: Vec::new(),
            asks: false,
            rather: Era::Modern,
            tasks: Declares::Always,
            principal: self.maker.owner.clone(),
            timeout: Duration::from_millis(upstream.timeout_ms).min(ASK_WITHIN),
        };
        // Also once the call's time is over: it is cancelled then.
        let reply = upstream::call(&context.unhurried(), upstream, outgoing).await;
        match egress::whole(reply).await {
            // Its words may name its own id.
            Err(Error::Rejection(Rejection::Protocol { error, .. }))
                if matches!(error.code, INVALID_PARAMS | METHOD_NOT_FOUND) =>
            {
                Err(unknown())
            }
            answered => answered,
        }
    }

    /// What a completed task came to, as the direct answer would have been shown.
    pub(crate) async fn result<P: Platform>(
        &self,
        context: &Context<P>,
        seen: &Seen,
    ) -> Result<Object, Error> {
        let maker = &*self.maker;
        let Some(Ok(result)) = seen.result.get_object("result") else {
            return Err(maker.invalid("a completed task without a result"));
        };
        if ResultType::of(&result) != ResultType::Complete {
            return Err(maker.invalid("a completed task whose result is not complete"));
        }
        let (upstream, owner) = (&maker.upstream, &maker.owner);
        let mut result = tools::held(context, upstream, owner, &maker.tool, result).await?;
        if maker.prefixed {
            names::expose_result(Method::ToolsCall, &upstream.name, &mut result);
        }
        if !result.contains("resultType") {
            result.insert("resultType", ResultType::COMPLETE);
        }
        Ok(result)
    }

    /// Why a failed task failed.
    pub(crate) fn error(&self, seen: &Seen) -> Result<RpcError, Error> {
        let error = seen.result.get_object("error").and_then(Result::ok);
        let read = |error: Object| {
            Some(RpcError {
                code: error.get_as("code")?.ok()?,
                message: error.get_str("message")?.into_owned(),
                data: error.get("data").map(ToOwned::to_owned),
            })
        };
        error
            .and_then(read)
            .ok_or_else(|| self.maker.invalid("a failed task without an error"))
    }

    /// What the task asks, saying who does where the client sees several upstreams as one.
    /// Only what was declared may be asked.
    pub(crate) fn questions(
        &self,
        seen: &Seen,
        declared: &ClientCapabilities,
    ) -> Result<Object, Error> {
        let upstream = &self.maker.upstream.name;
        let Some(Ok(requests)) = seen.result.get_object("inputRequests") else {
            return Err(self.maker.invalid("a task that asks nothing for its input"));
        };
        let mut asked = Object::new()
            .with("resultType", ResultType::INPUT_REQUIRED)
            .with("inputRequests", &requests);
        if self.maker.prefixed {
            names::say_who_requires(upstream, &mut asked);
        }
        rounds::check(upstream, declared, &asked).map(|asked| asked.input_requests)
    }

    /// The task as a client may see it, under another id.
    pub(crate) async fn shown<P: Platform>(
        &self,
        context: &Context<P>,
        seen: Seen,
        declared: &ClientCapabilities,
    ) -> Result<Object, Error> {
        let mut shown = bare(seen.result.clone());
        shown.insert("resultType", ResultType::COMPLETE);
        match seen.task.status {
            TaskStatus::InputRequired => {
                shown.insert("inputRequests", &self.questions(&seen, declared)?);
            }
            TaskStatus::Completed => shown.insert("result", &self.result(context, &seen).await?),
            TaskStatus::Failed => shown.insert("error", &self.error(&seen)?),
            TaskStatus::Working | TaskStatus::Cancelled => {}
        }
        Ok(shown)
    }
}

/// A view of a task without what depends on its status, and without what belongs to none.
pub(crate) fn bare(mut view: Object) -> Object {
    for member in DETAILS.into_iter().chain(["requestState", "task"]) {
        view.remove(member);
    }
    view
}
