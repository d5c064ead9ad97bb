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
    /// Whether the tool's upstream lists it. Those it does not list are counted as one: a
    /// client can make up any number of them.
    pub(crate) listed: bool,
    /// The tool's rule.
    pub(crate) rule: Option<&'a ToolRule>,
    /// Whether it is about a task.
    pub(crate) polls: bool,
    /// How limits are counted that do not say how.
    pub(crate) method: Method<'a>,
}

impl Counted<'_> {
    /// Upstream and own name, if a tool is called; without its name if it is not listed.
    pub(crate) fn tool(&self) -> Option<(&str, Option<&str>)> {
        let (upstream, tool) = self.target.tool()?;
        Some((upstream, self.listed.then_some(tool)))
    }
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

/// Whether anything counts the tools apart of which one is called.
pub(crate) fn tells_apart(settings: &Settings, target: &Target) -> bool {
    let limits = &settings.config.limits;
    let rules = limits.rules.iter().map(|rule| (&rule.per, &rule.tools));
    let quotas = limits.quotas.iter().map(|quota| (&quota.per, &quota.tools));
    rules
        .chain(quotas)
        .any(|(per, tools)| per.contains(&Per::Tool) && concerns(tools, target))
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
    let tool = counted.tool();
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
                add(tool.and_then(|(_, tool)| tool));
            }
            Per::Upstream => add(target.upstream()),
        }
    }
    hex(&hash.finalize()[..16])
}
