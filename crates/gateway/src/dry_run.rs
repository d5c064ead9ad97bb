//! Calls that only try: a tool that can be told so is told, for clients that ask for it and
//! for those who can do no more.
//!
//! A tool's rule says how it is told: by an argument or a member of `_meta` that is set to
//! true. All else of the call goes on as it came. It is decided before the policy weighs the
//! arguments, which are then those that are sent. A client that asks for a dry run of a tool
//! that has none is refused, if the policy would let it call the tool at all: it must not be
//! done in earnest.

use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::method::Method;

use crate::auth::Principal;
use crate::config::DryRun;
use crate::context::Context;
use crate::egress::{Dispatch, Event, Reply};
use crate::error::{Error, Rejection};
use crate::ingress::Call;
use crate::platform::Platform;
use crate::route::Target;

/// Member of `_meta` by which a client asks for a dry run, and by which the result says that
/// it is one's.
pub const DRY_RUN: &str = "io.tidegate/dryRun";

/// Makes a dry run of a call that must be one; tells whether it did.
pub(crate) fn apply<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    target: &mut Target,
    call: &mut Call,
) -> Result<bool, Error> {
    let Target::One(one) = target else {
        return Ok(false);
    };
    if one.method != Method::ToolsCall {
        return Ok(false);
    }
    let asked = match call.meta.rest.remove(DRY_RUN) {
        None => false,
        Some(asked) => serde_json::from_str(asked.get())
            .map_err(|_| invalid(format!("`{DRY_RUN}` must be true or false")))?,
    };
    let rule = context.settings.rule(&one.upstream.name, &one.own);
    let Some(dry_run) = rule.and_then(|rule| rule.dry_run.as_ref()) else {
        return match asked {
            true => Err(invalid(format!(
                "{} has no dry run; it was not called",
                one.exposed
            ))),
            false => Ok(false),
        };
    };
    if !asked && !is_forced(context, dry_run, principal) {
        return Ok(false);
    }
    if let Some(meta) = &dry_run.meta {
        call.meta.rest.insert(meta, &true);
    }
    if let Some(argument) = &dry_run.argument {
        let mut arguments = match one.params.get_object("arguments") {
            None => Object::new(),
            Some(Ok(arguments)) => arguments,
            Some(Err(_)) => return Err(invalid("`arguments` must be an object".to_owned())),
        };
        arguments.insert(argument, &true);
        one.params.insert("arguments", &arguments);
    }
    Ok(true)
}

/// Whether the principal can do no more than try.
pub(crate) fn is_forced<P: Platform>(
    context: &Context<P>,
    dry_run: &DryRun,
    principal: &Principal,
) -> bool {
    let environment = context.settings.config.metadata.environment;
    let has = |has: &std::collections::BTreeSet<String>, of: &[String]| {
        of.iter().any(|name| has.contains(name))
    };
    dry_run.in_environments.contains(&environment)
        || has(&principal.roles, &dry_run.for_roles)
        || has(&principal.scopes, &dry_run.for_scopes)
}

/// The same work, whose result says that it is of a dry run.
pub(crate) fn marked(work: Dispatch) -> Dispatch {
    let mark = |mut result: Object| {
        note(&mut result, DRY_RUN);
        result
    };
    async move {
        Ok(match work.await? {
            Reply::Result(result) => Reply::Result(mark(result)),
            Reply::Stream(events) => Reply::Stream(
                events
                    .map(move |event| match event {
                        Event::End(end) => Event::End(end.map(mark)),
                        Event::Notification(_) | Event::Question(_) | Event::Request(_) => event,
                    })
                    .boxed_local(),
            ),
        })
    }
    .boxed_local()
}

/// Sets a member of a result's `_meta` to true.
pub(crate) fn note(result: &mut Object, member: &str) {
    let mut meta = match result.get_object("_meta") {
        Some(Ok(meta)) => meta,
        Some(Err(_)) | None => Object::new(),
    };
    meta.insert(member, &json!(true));
    result.insert("_meta", &meta);
}

fn invalid(reason: String) -> Error {
    Rejection::protocol(RpcError::invalid_params(reason)).into()
}
