//! Which limits a call is counted in: those of the configuration that its tool, upstream and
//! caller fall under, and its tool's own.

use sha2::{Digest, Sha256};

use super::{Limit, Method};
use crate::auth::Principal;
use crate::config::{Counter, NAME_SEPARATOR, Per, ToolRule};
use crate::route::Target;
use crate::seal::hex;
use crate::settings::Settings;

/// What is counted.
pub(crate) struct Counted<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) target: &'a Target,
    /// The tool's rule.
    pub(crate) rule: Option<&'a ToolRule>,
    /// Whether it is about a task.
    pub(crate) polls: bool,
    /// How limits are counted that do not say how.
    pub(crate) method: Method<'a>,
}

/// One limit with the subject it needs.
pub(crate) struct Applied<'a> {
    name: &'a str,
    rate: crate::config::Rate,
    subject: String,
    cost: u32,
    method: Method<'a>,
    own: bool,
}

impl Applied<'_> {
    pub(crate) fn limit(&self) -> Limit<'_> {
        Limit {
            name: self.name,
            rate: self.rate,
            subject: &self.subject,
            cost: self.cost,
            method: self.method,
            own: self.own,
        }
    }
}

/// The limits a permitted call is counted in.
pub(crate) fn applying<'a>(settings: &'a Settings, counted: &Counted<'a>) -> Vec<Applied<'a>> {
    let cost = counted.rule.map_or(1, |rule| rule.cost);
    let named = settings.config.limits.rules.iter();
    let named = named.filter(|limit| concerns(&limit.tools, counted.target));
    let named = named.map(|limit| Applied {
        name: &limit.name,
        rate: limit.rate,
        subject: subject(&limit.per, counted),
        cost,
        method: match (limit.counter, &limit.binding) {
            (Some(Counter::Kv), _) => Method::Rough,
            (Some(Counter::Atomic), _) => Method::Exact,
            (Some(Counter::Native), Some(binding)) => Method::Native(binding),
            (None, _) | (Some(Counter::Native), None) => counted.method,
        },
        own: limit.per.iter().any(|per| matches!(per, Per::Principal)),
    });
    let tools = counted.rule.and_then(|rule| {
        Some(Applied {
            name: &rule.name,
            rate: rule.rate_limit?,
            subject: counted.principal.id.as_str().to_owned(),
            cost,
            method: counted.method,
            own: true,
        })
    });
    let polls = counted.polls.then(|| Applied {
        name: "tasks.pollLimit",
        rate: settings.config.tasks.poll_limit,
        subject: counted.principal.id.as_str().to_owned(),
        cost: 1,
        method: counted.method,
        own: true,
    });
    named.chain(tools).chain(polls).collect()
}

/// Whether a limit of these tools is one for what is asked; one that names no tools is for
/// everything.
pub(crate) fn concerns(tools: &[String], target: &Target) -> bool {
    if tools.is_empty() {
        return true;
    }
    let Some((upstream, tool)) = target.tool() else {
        return false;
    };
    tools.iter().any(|named| {
        named
            .split_once(NAME_SEPARATOR)
            .is_some_and(|(of, named)| of == upstream && (named == "*" || named == tool))
    })
}

/// Who or what is counted apart.
pub(crate) fn subject(per: &[Per], counted: &Counted<'_>) -> String {
    let Counted {
        principal, target, ..
    } = counted;
    let tool = target.tool();
    let mut hash = Sha256::new();
    let mut add = |part: Option<&str>| {
        // An absent part differs from an empty one, and no part runs into the next.
        hash.update([u8::from(part.is_some())]);
        let part = part.unwrap_or_default();
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    };
    for per in per {
        match per {
            Per::Principal => add(Some(principal.id.as_str())),
            Per::Client => {
                add(Some(&principal.issuer));
                add(principal.client_id.as_deref());
            }
            Per::Tenant => {
                add(Some(&principal.issuer));
                add(principal.tenant.as_deref());
            }
            Per::Tool => {
                add(tool.map(|(upstream, _)| upstream));
                add(tool.map(|(_, tool)| tool));
            }
            Per::Upstream => add(target.upstream()),
        }
    }
    hex(&hash.finalize()[..16])
}
