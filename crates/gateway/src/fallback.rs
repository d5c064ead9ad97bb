//! Another upstream for a tool's call that its own could not take.
//!
//! It is asked where the first certainly was not: its circuit is open, its bulkhead is full, the
//! connection was refused, it failed at what comes before the call, or it refuses for being
//! asked too often; and of a tool whose rule says `idempotent` whenever the first failed to
//! answer. It must list the tool, take the arguments, and be one that the
//! policy lets this principal use so. Nothing of an answer may have been passed on before. The
//! result says in its `_meta` who gave it, and the audit line as well.
//!
//! It is asked once, for a direct answer: it can ask nobody anything and makes no task. A call
//! that goes on from an earlier round stays with the upstream that round was of. The limits
//! have counted the call as one of the first upstream's. Whatever the first upstream knows of
//! idempotency keys, it knows nothing of what the other one did.

use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;
use tidegate_mcp::json::Object;
use tidegate_mcp::meta::{ClientCapabilities, RequestMeta};
use tidegate_mcp::method::Method;

use crate::audit::AnsweredBy;
use crate::auth::Principal;
use crate::config::ToolRule;
use crate::context::Context;
use crate::credentials;
use crate::dispatch::{self, Ask, Place, Work};
use crate::dry_run;
use crate::egress::{Event, Reply};
use crate::error::{Error, Rejection};
use crate::ingress::Endpoint;
use crate::platform::{LogLevel, Platform};
use crate::policy::{self, Hints};
use crate::route::{One, Target};
use crate::switches;
use crate::tasks::theirs::Minted;
use crate::tools;

/// `_meta` key of a result that another upstream gave: its name.
pub const FALLBACK: &str = "io.tidegate/fallback";

/// What is done should a call's own upstream not take it.
pub(crate) struct Plan<P> {
    context: Context<P>,
    endpoint: Endpoint,
    principal: Rc<Principal>,
    /// The call, at the other upstream.
    one: One,
    /// Whose it was.
    first: String,
    meta: RequestMeta,
    /// Whether the tool may run twice.
    idempotent: bool,
    timeout: Duration,
    answered_by: AnsweredBy,
}

impl<P: Platform> Plan<P> {
    /// The plan for this work, if its upstream has another to fall back on.
    pub(crate) fn of(context: &Context<P>, work: &Work) -> Option<Self> {
        let Target::One(one) = &work.permit.target else {
            return None;
        };
        let upstream = context.settings.upstream(one.upstream.fallback.as_ref()?)?;
        let begun = one.params.contains("requestState") || one.params.contains("inputResponses");
        // What only tries here might be done in earnest there.
        if one.method != Method::ToolsCall || begun || work.dry_run {
            return None;
        }
        let rule = work.permit.rule.as_ref();
        let timeout = rule.and_then(|rule| rule.timeout_ms);
        let mut params = one.params.clone();
        params.remove("task");
        let mut meta = work.call.meta.clone();
        meta.client_capabilities = ClientCapabilities::default();
        Some(Self {
            context: context.clone(),
            endpoint: work.endpoint.clone(),
            principal: Rc::clone(&work.permit.principal),
            one: One {
                upstream: upstream.clone(),
                params,
                ..(**one).clone()
            },
            first: one.upstream.name.clone(),
            meta,
            idempotent: rule.is_some_and(|rule| rule.idempotent),
            timeout: Duration::from_millis(timeout.unwrap_or(upstream.timeout_ms)),
            answered_by: work.answered_by.clone(),
        })
    }

    /// What comes of the call, and of the other one if the first was not taken.
    pub(crate) async fn see_through(
        self,
        first: impl Future<Output = Result<Reply, Error>>,
    ) -> Result<Reply, Error> {
        let error = match first.await {
            Ok(Reply::Stream(mut events)) => match events.next().await {
                Some(Event::End(Err(error))) => error,
                begun => {
                    let begun = stream::iter(begun);
                    return Ok(Reply::Stream(begun.chain(events).boxed_local()));
                }
            },
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        if !self.takes(&error) || !self.may().await {
            return Err(error);
        }
        let fields = json!({
            "upstream": self.first, "fallback": self.one.upstream.name,
            "tool": self.one.own, "reason": error.label(),
        });
        self.context.log(LogLevel::Warn, "fallback_used", fields);
        let other = self.call().await;
        other.map_err(|other| Error::after(other, Some(error)))
    }

    /// Whether a call that failed so may be made elsewhere.
    fn takes(&self, error: &Error) -> bool {
        let Error::Rejection(rejection) = error else {
            return false;
        };
        let unknown = matches!(
            rejection,
            Rejection::UpstreamLost { .. }
                | Rejection::UpstreamTimeout { .. }
                | Rejection::UpstreamInvalid { .. }
                | Rejection::UpstreamBusy { .. }
        );
        error.is_not_taken() || (unknown && self.idempotent)
    }

    /// Whether the other upstream has the tool, and this principal may use it so.
    async fn may(&self) -> bool {
        let (context, one) = (&self.context, &self.one);
        if !tools::takes(context, &self.principal.id, one).await {
            return false;
        }
        let hints = match policy::wants_hints(context) {
            true => tools::hints(context, &one.upstream, &self.principal.id, &one.own).await,
            false => Ok(Hints::default()),
        };
        let Ok(hints) = hints else {
            return false;
        };
        let resource = self.endpoint.resource(&context.settings.config);
        let target = Target::One(Box::new(one.clone()));
        // Nobody has signed for the other upstream's tool, and who can only try it there must
        // not do it in earnest.
        let rule = context.settings.rule(&one.upstream.name, &one.own);
        let tries = |rule: &ToolRule| {
            let dry_run = rule.dry_run.as_ref();
            dry_run.is_some_and(|dry| dry_run::is_forced(context, dry, &self.principal))
        };
        if credentials::connects(one)
            || switches::allow(context, &target).is_err()
            || rule.is_some_and(|rule| rule.request_token.is_some() || tries(rule))
        {
            return false;
        }
        let principal = Rc::clone(&self.principal);
        policy::authorize(context, principal, target, Some(hints), &resource).is_ok()
    }

    async fn call(self) -> Result<Reply, Error> {
        let ask = Ask {
            place: Place::Here,
            asks: false,
            meta: self.meta,
            param_headers: Vec::new(),
            timeout: self.context.within(self.timeout),
            minted: Minted::Never,
        };
        let name = self.one.upstream.name.clone();
        self.answered_by.note(&name);
        let principal = &self.principal.id;
        let reply =
            dispatch::ask_upstream(&self.context, principal, Box::new(self.one), ask).await?;
        Ok(match reply {
            Reply::Result(result) => Reply::Result(marked(result, &name)),
            Reply::Stream(events) => Reply::Stream(
                events
                    .map(move |event| match event {
                        Event::End(end) => Event::End(end.map(|result| marked(result, &name))),
                        Event::Notification(_) | Event::Question(_) | Event::Request(_) => event,
                    })
                    .boxed_local(),
            ),
        })
    }
}

/// The result, with whose it is.
fn marked(mut result: Object, name: &str) -> Object {
    let mut carried = match result.get_object("_meta") {
        Some(Ok(carried)) => carried,
        Some(Err(_)) | None => Object::default(),
    };
    carried.insert(FALLBACK, name);
    result.insert("_meta", &carried);
    result
}
