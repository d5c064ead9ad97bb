//! Tasks an upstream makes for a client that understands them: passed on under handles of the
//! gateway's, with nothing stored.
//!
//! A handle says which upstream made the task, of which tool and under which id. Each request
//! about it, but for its cancellation, is decided as the tool's call would be, and goes to the upstream with that id; what
//! comes back is shown as the call's own answer would have been.

use std::collections::BTreeMap;
use std::rc::Rc;

use tidegate_mcp::json::Object;
use tidegate_mcp::meta::ClientCapabilities;
use tidegate_mcp::task::{Task, acknowledged_result};

use super::handle::{Askable, Passed, unknown};
use super::record::Answer;
use super::theirs::{Maker, Theirs, bare};
use crate::auth::Principal;
use crate::canary;
use crate::config::{Upstream, bounds};
use crate::context::Context;
use crate::error::Error;
use crate::ingress::{Call, Endpoint};
use crate::platform::Platform;
use crate::policy;
use crate::switches;

/// What a client is told of a call its upstream made a task of.
pub(crate) fn created<P: Platform>(
    context: &Context<P>,
    maker: &Rc<Maker>,
    client: &ClientCapabilities,
    result: Object,
) -> Result<Object, Error> {
    let task = maker.made(&result)?;
    let ttl_ms = ttl_ms(&task);
    let passed = Passed {
        owner: maker.owner.clone(),
        created_at_ms: context.now().0,
        ttl_ms,
        upstream: maker.upstream.name.clone(),
        version: maker.upstream.version.clone(),
        tool: maker.tool.clone(),
        prefixed: maker.prefixed,
        id: task.task_id.clone(),
        askable: Askable::of(client),
    };
    let Some(handle) = passed.seal(context)? else {
        let (maker, id) = (Rc::clone(maker), task.task_id);
        let theirs = Theirs { maker, id };
        theirs.give_up(context);
        return Err(theirs.maker.invalid("a task whose id is too long"));
    };
    let mut shown = bare(result);
    name(&mut shown, &handle, ttl_ms);
    Ok(shown)
}

/// How long the handle of a task is good for: as long as its upstream keeps the task, and no
/// longer than a task of the gateway's own could be.
fn ttl_ms(task: &Task) -> u64 {
    let max = *bounds::TASK_TTL_MS.end();
    task.ttl_ms.map_or(max, |ttl| ttl.min(max))
}

fn name(shown: &mut Object, handle: &str, ttl_ms: u64) {
    shown.insert("taskId", handle);
    shown.insert("ttlMs", &ttl_ms);
}

/// `tasks/get`.
pub(super) async fn get<P: Platform>(
    context: &Context<P>,
    asking: Asking<'_>,
    handle: &str,
) -> Result<Object, Error> {
    let theirs = asking.permitted(context)?;
    let seen = theirs.get(context, &asking.call.meta).await?;
    let ttl_ms = ttl_ms(&seen.task);
    let declared = asking.passed.askable.capabilities();
    let mut shown = theirs.shown(context, seen, &declared).await?;
    name(&mut shown, handle, ttl_ms);
    Ok(shown)
}

/// `tasks/update`.
pub(super) async fn update<P: Platform>(
    context: &Context<P>,
    asking: Asking<'_>,
    answers: &BTreeMap<String, Answer>,
) -> Result<Object, Error> {
    let theirs = asking.permitted(context)?;
    let mut given = Object::new();
    for (key, answer) in answers {
        if let Answer::Result(answer) = answer {
            given.insert(key, answer);
        }
    }
    theirs.update(context, &given, &asking.call.meta).await?;
    Ok(acknowledged_result())
}

/// `tasks/cancel`: also by an owner who may no longer call the tool.
pub(super) async fn cancel<P: Platform>(
    context: &Context<P>,
    asking: Asking<'_>,
) -> Result<Object, Error> {
    let upstream = asking.upstream(context)?;
    switches::still(context, &upstream.name, &asking.passed.tool)?;
    let theirs = asking.theirs(context, upstream);
    theirs.cancel(context, &asking.call.meta).await?;
    Ok(acknowledged_result())
}

/// Who asks about a task of an upstream, and how.
pub(super) struct Asking<'a> {
    principal: &'a Rc<Principal>,
    endpoint: &'a Endpoint,
    call: &'a Call,
    passed: Passed,
}

impl<'a> Asking<'a> {
    pub(super) const fn of(
        endpoint: &'a Endpoint,
        principal: &'a Rc<Principal>,
        call: &'a Call,
        passed: Passed,
    ) -> Self {
        Self {
            principal,
            endpoint,
            call,
            passed,
        }
    }

    /// The task, if its owner may still call its tool.
    fn permitted<P: Platform>(&self, context: &Context<P>) -> Result<Theirs, Error> {
        let upstream = self.upstream(context)?;
        let resource = self.endpoint.resource(&context.settings.config);
        policy::allows_still(
            context,
            self.principal,
            upstream,
            &self.passed.tool,
            &resource,
        )?;
        Ok(self.theirs(context, upstream))
    }

    fn upstream<'c, P: Platform>(&self, context: &'c Context<P>) -> Result<&'c Upstream, Error> {
        let upstream = context.settings.upstream(&self.passed.upstream);
        upstream.ok_or_else(unknown)
    }

    fn theirs<P: Platform>(&self, context: &Context<P>, upstream: &Upstream) -> Theirs {
        let maker = Maker {
            upstream: canary::pinned(context, upstream, self.passed.version.as_deref()).clone(),
            tool: self.passed.tool.clone(),
            prefixed: self.passed.prefixed,
            owner: self.passed.owner.clone(),
        };
        Theirs {
            maker: Rc::new(maker),
            id: self.passed.id.clone(),
        }
    }
}
