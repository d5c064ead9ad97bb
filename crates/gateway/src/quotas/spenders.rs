//! Who has spent of a quota, so that operators can be told: the counters' keys are digests,
//! and the store lists none.
//!
//! Whoever a quota counts apart is entered by each isolate after its first call of the
//! period; of tools that no list names only their upstream. A list that is full or out of
//! reach refuses no call; what is missing in it is counted all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::period::Stretch;
use super::{SpentFamily, digest};
use crate::config::{NAME_SEPARATOR, Per, Quota};
use crate::context::Context;
use crate::error::{Error, Fault};
use crate::keyspace::{self, Family, Key, ReadError, Store};
use crate::limits::leased::Account;
use crate::limits::rules::Counted;
use crate::memory::Bounded;
use crate::platform::{Clock, LogLevel, Platform, Swap};

/// Over how many records one quota's list of one period is spread.
pub(crate) const SHARDS: usize = 16;
/// Most entries in one of them.
pub const SHARD_MAX: usize = 1024;
/// Longest name in an entry, in characters; a longer one is cut.
const NAME_MAX: usize = 128;
/// Most entries an isolate remembers to have made.
const ENTERED_MAX: usize = 4096;
/// How often an entry is tried while others write.
const TRIES: usize = 6;
/// Longest pause before the next try.
const PAUSE_MAX: Duration = Duration::from_millis(512);

/// One part of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shard {
    /// Shape of this record.
    pub v: u32,
    /// By whom the quota counts apart, as hexadecimal digits.
    pub spenders: BTreeMap<String, Spender>,
}

/// Whom a quota counts apart: what it goes by, nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spender {
    /// The token's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The OAuth client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The tool, as `upstream__tool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}

impl Spender {
    fn of(per: &[Per], counted: &Counted<'_>) -> Self {
        let cut = |name: &str| Some(name.chars().take(NAME_MAX).collect());
        let mut spender = Self::default();
        for per in per {
            let principal = counted.principal;
            let tenant = principal.tenant.as_deref().and_then(cut);
            let client = principal.client_id.as_deref().and_then(cut);
            match per {
                Per::Principal => {
                    spender.principal = cut(&principal.subject);
                    (spender.tenant, spender.client) = (tenant, client);
                }
                Per::Client => spender.client = client,
                Per::Tenant => spender.tenant = tenant,
                Per::Tool => {
                    let tool = counted.tool();
                    spender.tool =
                        tool.and_then(|(of, tool)| cut(&format!("{of}{NAME_SEPARATOR}{}", tool?)));
                    // All tools it does not list.
                    if spender.tool.is_none() {
                        spender.upstream = tool.and_then(|(of, _)| cut(of));
                    }
                }
                Per::Upstream => spender.upstream = counted.target.upstream().and_then(cut),
            }
        }
        spender
    }
}

/// The family of [`Shard`]: quota, day or month, digit.
pub struct SpendersFamily;

impl Family for SpendersFamily {
    type Record = Shard;
    const NAME: &'static str = "spenders";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(Duration::from_secs(64 * 24 * 60 * 60));
}

/// What an isolate remembers to have entered: quota, period, whom.
pub(crate) struct Memory(Bounded<(String, String, String), ()>);

impl Default for Memory {
    fn default() -> Self {
        Self(Bounded::new(ENTERED_MAX))
    }
}

pub(crate) fn key(quota: &Quota, stretch: &Stretch, shard: usize) -> Key<SpendersFamily> {
    Key::of(&[&digest(quota), &stretch.label, &format!("{shard:x}")])
}

/// Sees to it, after the response, that whoever an account is of is found.
pub(super) fn enter_later<P: Platform>(
    context: &Context<P>,
    quota: &Quota,
    stretch: &Stretch,
    account: &Account<SpentFamily>,
    counted: &Counted<'_>,
) {
    let who = account.subject.who.clone();
    let entry = (quota.name.clone(), stretch.label.clone(), who.clone());
    let entered = &context.memory.limits.spenders.0;
    if entered.get(&entry).is_some() {
        return;
    }
    entered.insert(entry.clone(), ());
    let digit = who.chars().next().and_then(|digit| digit.to_digit(16));
    let key = key(quota, stretch, digit.map_or(0, |digit| digit as usize));
    let spender = Spender::of(&quota.per, counted);
    let (owned, kept_until) = (context.clone(), account.kept_until);
    context.platform.defer(async move {
        if let Err(error) = enter(&owned, &key, who, spender, kept_until).await {
            owned.memory.limits.spenders.0.remove(&entry);
            let fields = json!({ "quota": entry.0, "reason": error.to_string() });
            owned.log(LogLevel::Warn, "spender_not_entered", fields);
        }
    });
}

async fn enter<P: Platform>(
    context: &Context<P>,
    key: &Key<SpendersFamily>,
    who: String,
    spender: Spender,
    kept_until: crate::time::Timestamp,
) -> Result<(), Error> {
    let atomic = context.platform.atomic();
    for _ in 0..TRIES {
        let (version, mut shard) = match keyspace::atomic_get(atomic, key).await {
            Ok(Some((version, shard))) => (Some(version), shard),
            Ok(None) => {
                let spenders = BTreeMap::new();
                (None, Shard { v: 1, spenders })
            }
            Err(error) => return Err(failed(&error)),
        };
        if shard.spenders.contains_key(&who) {
            return Ok(());
        }
        if shard.spenders.len() >= SHARD_MAX {
            return Err(Fault::Dependency("the list is full".to_owned()).into());
        }
        shard.spenders.insert(who.clone(), spender.clone());
        match keyspace::atomic_swap(atomic, key, version, &shard, kept_until).await? {
            Swap::Done(_) => return Ok(()),
            Swap::Conflict => {
                let [chance] = context.random::<1>();
                let pause = PAUSE_MAX * u32::from(chance) / 256;
                context.platform.clock().sleep(pause).await;
            }
        }
    }
    Err(Fault::Dependency("others write the list all the time".to_owned()).into())
}

/// A store that was asked for a list and gave none.
pub(crate) fn failed(error: &ReadError) -> Error {
    Fault::Dependency(error.to_string()).into()
}
