//! Kill switches: what operators have switched off, until they switch it on again or its
//! time is over. A tool (or all whose names begin alike), an upstream, a tenant, a
//! principal, everything.
//!
//! What is killed is refused with the operator's reason, is in no list, and a task of it
//! that waits to be run fails with that reason; what is under way is not cut off.
//!
//! Operators change one record of the atomic store ([`SwitchboardFamily`]), so that no two
//! undo each other, and the door publishes a copy in KV ([`SwitchesFamily`]), which every
//! isolate reads as it does the list of revocations: in force within KV's own delay and
//! [`LIST_FRESH`], its last state kept for [`LIST_KEPT`] while it cannot be read, and after
//! that nothing is let through. Where the configuration says `revocation: immediate` each
//! isolate reads the atomic record itself, [`IMMEDIATE_FRESH`] apart. It is a record of its
//! own, not part of the list of revocations, because that has another writer: KV cannot
//! keep two from undoing each other's changes.

mod door;

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::auth::Principal;
use crate::auth::revocation::Revoked;
use crate::config::{Authentication, Config, NAME_SEPARATOR, Revocation};
use crate::context::Context;
use crate::error::{Error, Fault, Rejection};
use crate::keyspace::{Family, Key, Store, atomic_get, kv_get};
use crate::platform::Platform;
use crate::published::Published;
use crate::route::Target;
use crate::time::Timestamp;

pub use crate::published::{LIST_FRESH, LIST_KEPT};
pub(crate) use door::{PATH, answer};

/// How long the atomic record is used before it is read again, where switches are immediate.
pub const IMMEDIATE_FRESH: Duration = Duration::from_secs(1);
/// Most switches at once.
pub const SWITCHES_MAX: usize = 256;
/// Longest value of a switch, in bytes.
pub const VALUE_MAX: usize = 512;
/// Longest reason, in bytes.
pub const REASON_MAX: usize = 300;
/// How long the atomic record is kept after it was last changed: a switch without an end
/// must not end with it.
pub const KEPT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What a switch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Every request.
    All,
    /// Everything of one upstream.
    Upstream,
    /// One tool, as `upstream__tool`; all that begin alike, as `upstream__be*`.
    Tool,
    /// Whatever a tenant's principals ask.
    Tenant,
    /// Whatever a subject asks.
    Principal,
}

impl Kind {
    const fn label(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Upstream => "upstream",
            Self::Tool => "tool",
            Self::Tenant => "tenant",
            Self::Principal => "principal",
        }
    }
}

/// One thing that is switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Switch {
    /// What kind of thing.
    pub kind: Kind,
    /// Its name; nothing where it is everything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// The issuer whose subject a principal is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// Why, in the operator's words; whoever is refused reads them.
    pub reason: String,
    /// Since when, milliseconds since the epoch.
    pub at_ms: u64,
    /// Until when; until it is switched on again, where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

impl Switch {
    /// Its name, such as `tool:search__query`.
    pub fn name(&self) -> String {
        match self.kind {
            Kind::All => Kind::All.label().to_owned(),
            kind @ (Kind::Upstream | Kind::Tool | Kind::Tenant | Kind::Principal) => {
                format!("{}:{}", kind.label(), self.value)
            }
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.value == other.value && self.issuer == other.issuer
    }

    fn is_in_force(&self, now: Timestamp) -> bool {
        self.until_ms.is_none_or(|until| now < Timestamp(until))
    }

    fn is_of_tool(&self, upstream: &str, tool: &str) -> bool {
        let of = self.value.split_once(NAME_SEPARATOR);
        let Some((_, named)) = of.filter(|(of, _)| *of == upstream) else {
            return false;
        };
        match named.strip_suffix('*') {
            Some(beginning) => tool.starts_with(beginning),
            None => tool == named,
        }
    }

    /// Whether it stops this.
    fn stops(&self, what: &What<'_>) -> bool {
        match (self.kind, what) {
            (Kind::All, _) => true,
            (
                Kind::Upstream,
                What::Upstream(upstream)
                | What::Tool { upstream, .. }
                | What::Task { upstream, .. },
            ) => self.value == *upstream,
            (Kind::Tool, What::Tool { upstream, tool } | What::Task { upstream, tool, .. }) => {
                self.is_of_tool(upstream, tool)
            }
            (Kind::Tenant, What::Asking { tenant, .. } | What::Task { tenant, .. }) => {
                *tenant == Some(self.value.as_str())
            }
            (Kind::Principal, What::Asking { subject, .. } | What::Task { subject, .. }) => {
                **subject == Revoked::Subject.id(&self.issuer, &self.value)
            }
            (
                Kind::Upstream | Kind::Tool | Kind::Tenant | Kind::Principal,
                What::Asking { .. } | What::Upstream(_) | What::Tool { .. },
            ) => false,
        }
    }

    fn refusal(&self, now: Timestamp) -> Error {
        let until = self.until_ms.map(|until| Timestamp(until).since(now));
        Rejection::Killed {
            switch: self.name(),
            kind: self.kind.label(),
            reason: self.reason.clone(),
            retry_after: until,
        }
        .into()
    }
}

/// Everything that is switched off.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SwitchesRecord {
    /// Shape of this record.
    pub v: u32,
    /// When it was last changed, milliseconds since the epoch.
    pub updated_at_ms: u64,
    /// What is switched off.
    pub switches: Vec<Switch>,
}

/// The family of the published [`SwitchesRecord`]: one record, a copy of the switchboard.
pub struct SwitchesFamily;

impl Family for SwitchesFamily {
    type Record = SwitchesRecord;
    const NAME: &'static str = "switches";
    const STORE: Store = Store::Kv;
    const LIFETIME: Option<Duration> = None;
}

/// The family of the [`SwitchesRecord`] operators change: one record.
pub struct SwitchboardFamily;

impl Family for SwitchboardFamily {
    type Record = SwitchesRecord;
    const NAME: &'static str = "switchboard";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(KEPT);
}

/// What an isolate remembers of switches.
pub(crate) type Memory = Published<SwitchesRecord>;

/// What may be stopped.
enum What<'a> {
    /// Any request of a principal; `subject` as [`Revoked::id`] has it.
    Asking {
        tenant: Option<&'a str>,
        subject: &'a str,
    },
    /// Anything of an upstream that is no tool.
    Upstream(&'a str),
    /// A call of a tool.
    Tool { upstream: &'a str, tool: &'a str },
    /// A task that waits to be run.
    Task {
        upstream: &'a str,
        tool: &'a str,
        tenant: Option<&'a str>,
        subject: &'a str,
    },
}

/// Sees to it that the isolate knows what is switched off, as freshly as is promised.
pub(crate) async fn refresh<P: Platform>(
    context: &Context<P>,
) -> Result<Rc<SwitchesRecord>, Fault> {
    let platform = context.platform.as_ref();
    let immediate = is_immediate(&context.settings.config);
    let read = async {
        let read = match immediate {
            true => atomic_get(platform.atomic(), &Key::<SwitchboardFamily>::single())
                .await
                .map(|found| found.map(|(_, record)| record)),
            false => kv_get(platform.kv(), &Key::<SwitchesFamily>::single()).await,
        };
        match read {
            Ok(list) if list.as_ref().is_none_or(|list| list.v == 1) => {
                Ok(list.unwrap_or_default())
            }
            Ok(_) => Err("of a version that is not known".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    };
    let fresh = match immediate {
        true => IMMEDIATE_FRESH,
        false => LIST_FRESH,
    };
    let memory = &context.memory.switches;
    memory.get(platform, fresh, "the switches", read).await
}

/// Whether what operators do at their doors is read from the atomic store.
pub(crate) fn is_immediate(config: &Config) -> bool {
    match &config.authentication {
        Authentication::Jwt { revocation, .. } => *revocation == Revocation::Immediate,
        Authentication::None => false,
    }
}

/// Lets a principal ask, unless it, its tenant or everything is switched off.
pub(crate) async fn admit<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
) -> Result<(), Error> {
    let list = refresh(context).await?;
    if list.switches.is_empty() {
        return Ok(());
    }
    let asking = What::Asking {
        tenant: principal.tenant.as_deref(),
        subject: &subject_of(principal),
    };
    refuse(context, &asking)
}

/// Lets a call through, unless what answers it is switched off.
pub(crate) fn allow<P: Platform>(context: &Context<P>, target: &Target) -> Result<(), Error> {
    match (target.tool(), target.upstream()) {
        (Some((upstream, tool)), _) => refuse(context, &What::Tool { upstream, tool }),
        (None, Some(upstream)) => refuse(context, &What::Upstream(upstream)),
        (None, None) => Ok(()),
    }
}

/// Why a task that is to be run must not be, if it must not.
pub(crate) fn stops_task<P: Platform>(
    context: &Context<P>,
    (upstream, tool): (&str, &str),
    (tenant, subject): (Option<&str>, &str),
) -> Option<Error> {
    let task = What::Task {
        upstream,
        tool,
        tenant,
        subject,
    };
    refuse(context, &task).err()
}

/// Lets what was begun with a tool go on, unless that is switched off.
pub(crate) fn still<P: Platform>(
    context: &Context<P>,
    upstream: &str,
    tool: &str,
) -> Result<(), Error> {
    refuse(context, &What::Tool { upstream, tool })
}

/// Whether a tool is switched off, by itself or with its upstream.
pub(crate) fn kills_tool<P: Platform>(context: &Context<P>, upstream: &str, tool: &str) -> bool {
    refuse(context, &What::Tool { upstream, tool }).is_err()
}

/// Whether an upstream is switched off.
pub(crate) fn kills_upstream<P: Platform>(context: &Context<P>, upstream: &str) -> bool {
    refuse(context, &What::Upstream(upstream)).is_err()
}

/// How many switches are in force, as far as this isolate knows.
pub(crate) fn count(memory: &Memory, now: Timestamp) -> usize {
    let list = memory.last().unwrap_or_default();
    let in_force = list
        .switches
        .iter()
        .filter(|switch| switch.is_in_force(now));
    in_force.count()
}

fn refuse<P: Platform>(context: &Context<P>, what: &What<'_>) -> Result<(), Error> {
    let Some(list) = context.memory.switches.last() else {
        return Ok(());
    };
    let now = context.now();
    let stops = |switch: &&Switch| switch.is_in_force(now) && switch.stops(what);
    match list.switches.iter().find(stops) {
        Some(switch) => Err(switch.refusal(now)),
        None => Ok(()),
    }
}

/// What a task's record says of its subject.
pub(crate) fn subject_of(principal: &Principal) -> String {
    Revoked::Subject.id(&principal.issuer, &principal.subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_for_tools_stops_its_own_and_those_that_begin_alike() {
        for (value, upstream, tool, stopped) in [
            ("search__query", "search", "query", true),
            ("search__query", "search", "query_all", false),
            ("search__query", "other", "query", false),
            ("search__qu*", "search", "query", true),
            ("search__*", "search", "query", true),
            ("search__*", "search-two", "query", false),
            ("search__a__b", "search", "a__b", true),
        ] {
            let switch = Switch {
                kind: Kind::Tool,
                value: value.to_owned(),
                issuer: String::new(),
                reason: "because".to_owned(),
                at_ms: 0,
                until_ms: None,
            };
            let what = What::Tool { upstream, tool };
            assert_eq!(switch.stops(&what), stopped, "{value} {upstream} {tool}");
        }
    }
}
