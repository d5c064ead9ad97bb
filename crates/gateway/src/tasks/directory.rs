//! Which principals have tasks, so that the sweep and operators can find them.
//!
//! A principal is entered before its first task is stored, and again when its entry would
//! end before a new task does: twice the lifetime of a task each time, so one that makes
//! tasks all the time is written about once per lifetime, whatever the isolates remember.
//! A directory that is full or out of reach refuses no task: one that is not found here is
//! still found by whoever polls it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::contention::Writing;
use super::record::Record;
use super::store;
use crate::auth::PrincipalId;
use crate::context::Context;
use crate::error::{Error, Fault};
use crate::keyspace::{self, Family, Key, ReadError, Store};
use crate::memory::Bounded;
use crate::platform::{LogLevel, Platform, Swap};
use crate::time::Timestamp;

/// How many records the directory is spread over, by the first digit of the principal.
pub const SHARDS: usize = 16;
/// Most principals in one of them.
pub const SHARD_MAX: usize = 2048;
/// Most principals an isolate remembers to have entered.
const ENTERED_MAX: usize = 4096;

/// One part of the directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shard {
    /// Shape of this record.
    pub v: u32,
    /// The principals whose id begins with this shard's digit.
    pub principals: BTreeMap<PrincipalId, Presence>,
}

/// A principal that has tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// Its tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When the last of its tasks is over, or later; milliseconds since the epoch.
    pub until_ms: u64,
}

/// The family of [`Shard`], by digit.
pub struct DirectoryFamily;

impl Family for DirectoryFamily {
    type Record = Shard;
    const NAME: &'static str = "directory";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = None;
}

/// What an isolate remembers: until when it knows principals to be entered.
pub(super) struct Memory(Bounded<PrincipalId, Timestamp>);

impl Default for Memory {
    fn default() -> Self {
        Self(Bounded::new(ENTERED_MAX))
    }
}

fn key(shard: usize) -> Key<DirectoryFamily> {
    Key::of(&[&format!("{shard:x}")])
}

fn shard_of(principal: &PrincipalId) -> usize {
    let digit = principal.as_str().chars().next();
    let digit = digit.and_then(|digit| digit.to_digit(16));
    digit.map_or(0, |digit| digit as usize)
}

/// Sees to it that the owner of a new task is found for as long as the task can be read.
pub(super) async fn enter<P: Platform>(context: &Context<P>, record: &Record) {
    let known = &context.memory.tasks.directory.0;
    let needed = record.expiry();
    if known
        .get(&record.owner)
        .is_some_and(|until| until >= needed)
    {
        return;
    }
    match write(context, record, needed).await {
        Ok(until) => drop(known.insert(record.owner.clone(), until)),
        Err(error) => {
            let fields = json!({ "principal": record.owner, "reason": error.to_string() });
            context.log(LogLevel::Warn, "task_owner_not_entered", fields);
        }
    }
}

/// Gives until when the owner is entered.
async fn write<P: Platform>(
    context: &Context<P>,
    record: &Record,
    needed: Timestamp,
) -> Result<Timestamp, Error> {
    let (atomic, key) = (context.platform.atomic(), key(shard_of(&record.owner)));
    let until = needed + Duration::from_millis(context.settings.config.tasks.ttl_ms);
    let mut writing = Writing::default();
    loop {
        let (version, mut shard) = match keyspace::atomic_get(atomic, &key).await {
            Ok(Some((version, shard))) => (Some(version), shard),
            Ok(None) => {
                let principals = BTreeMap::new();
                (None, Shard { v: 1, principals })
            }
            Err(ReadError::Unavailable(e)) => {
                writing.unavailable(context, e.into()).await?;
                continue;
            }
            Err(e @ ReadError::Unreadable { .. }) => return Err(store::failed(e)),
        };
        if let Some(entered) = shard.principals.get(&record.owner)
            && entered.until_ms >= needed.0
        {
            return Ok(Timestamp(entered.until_ms));
        }
        let now = context.now();
        shard
            .principals
            .retain(|_, entered| now.0 < entered.until_ms);
        let presence = Presence {
            tenant: record.tenant.clone(),
            until_ms: until.0,
        };
        shard.principals.insert(record.owner.clone(), presence);
        if shard.principals.len() > SHARD_MAX {
            return Err(Fault::Dependency("the directory is full".to_owned()).into());
        }
        let last = shard.principals.values().map(|entered| entered.until_ms);
        let expiry = Timestamp(last.max().unwrap_or_default());
        match keyspace::atomic_swap(atomic, &key, version, &shard, expiry).await {
            Ok(Swap::Done(_)) => return Ok(until),
            Ok(Swap::Conflict) => writing.lost(context).await?,
            Err(e) => writing.unavailable(context, e.into()).await?,
        }
    }
}

/// A place in the directory: in this shard, after this principal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) after: Option<PrincipalId>,
}

impl Place {
    /// Just after this principal.
    pub(super) fn of(principal: &PrincipalId) -> Self {
        Self {
            shard: shard_of(principal),
            after: Some(principal.clone()),
        }
    }
}

/// Walks the directory, one shard at a time.
pub(super) struct Walk {
    pub(super) at: Place,
    shard: Option<VecDeque<(PrincipalId, Presence)>>,
}

impl Walk {
    pub(super) fn from(at: Place) -> Self {
        Self { at, shard: None }
    }

    /// The next principal; `None` at the end of the directory.
    pub(super) async fn next<P: Platform>(
        &mut self,
        context: &Context<P>,
    ) -> Result<Option<(PrincipalId, Presence)>, ReadError> {
        while self.at.shard < SHARDS {
            let shard = match &mut self.shard {
                Some(shard) => shard,
                None => self.shard.insert(rest(context, &self.at).await?),
            };
            if let Some(next) = shard.pop_front() {
                self.at.after = Some(next.0.clone());
                return Ok(Some(next));
            }
            self.shard = None;
            self.at = Place {
                shard: self.at.shard + 1,
                after: None,
            };
        }
        Ok(None)
    }
}

/// What comes after a place in its shard.
async fn rest<P: Platform>(
    context: &Context<P>,
    place: &Place,
) -> Result<VecDeque<(PrincipalId, Presence)>, ReadError> {
    let found = keyspace::atomic_get(context.platform.atomic(), &key(place.shard)).await?;
    let Some((_, shard)) = found else {
        return Ok(VecDeque::new());
    };
    let now = context.now();
    let after = match &place.after {
        Some(after) => Bound::Excluded(after),
        None => Bound::Unbounded,
    };
    let later = shard.principals.range((after, Bound::Unbounded));
    Ok(later
        .filter(|(_, presence)| now.0 < presence.until_ms)
        .map(|(principal, presence)| (principal.clone(), presence.clone()))
        .collect())
}
