//! The sweep: finds tasks that should run and do not, though nobody polls them.
//!
//! Called by a timer, it walks the directory of principals in portions, going on where the
//! last one ended, and asks the records of every task not known to have ended. One whose
//! worker was lost, or that nobody goes on with, is queued again, which is harmless if it is
//! queued already: one run gets the lease. What has ended is noted in the roster.
//!
//! A task that was never begun is not begun by the sweep: its client may have been told that
//! there is none, where the store did not say whether the record was written. If it has the
//! handle, the queue has the message, and a poll sends another. One that is not begun for
//! [`UNBEGUN_FOR`] all the same is ended.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::directory::{Place, SHARDS, Walk};
use super::record::Standing;
use super::roster::{self, Entry, is_settled};
use super::{START_WITHIN, is_abandoned, run, store};
use crate::auth::PrincipalId;
use crate::context::Context;
use crate::keyspace::{self, Family, Key, ReadError, Store};
use crate::platform::{LogLevel, Platform, Swap, Version};
use crate::time::Timestamp;

/// Most principals one sweep looks at.
pub const SWEEP_MAX: usize = 200;
/// Most records it reads.
pub const READS_MAX: usize = 500;
/// Most records it reads of one principal; which, is left to chance where there are more.
pub const READS_EACH_MAX: usize = 100;
/// A task is ended that nobody has begun this long after it was made: longer than a queue
/// that works takes.
pub const UNBEGUN_FOR: Duration = Duration::from_secs(30 * 60);
/// How many it reads at once.
const READS_AT_ONCE: usize = 16;
/// How long a place in the directory is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the last sweep ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// Shape of this record.
    pub v: u32,
    /// The shard of the directory it ended in.
    pub shard: usize,
    /// The last principal it looked at in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PrincipalId>,
}

/// The family of [`Swept`]: one record.
pub struct SweepFamily;

impl Family for SweepFamily {
    type Record = Swept;
    const NAME: &'static str = "sweep";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(REMEMBERED);
}

/// What a sweep came to.
#[derive(Default)]
struct Counts {
    principals: usize,
    read: usize,
    queued: usize,
    refused: usize,
    ended: usize,
}

/// One portion.
pub(crate) async fn sweep<P: Platform>(context: &Context<P>) {
    match portion(context).await {
        Ok(None) => {}
        Ok(Some(counts)) => {
            let level = match counts.queued + counts.refused {
                0 => LogLevel::Info,
                _ => LogLevel::Warn,
            };
            let fields = json!({
                "principals": counts.principals,
                "read": counts.read,
                "queued": counts.queued,
                "notQueued": counts.refused,
                "ended": counts.ended,
            });
            context.log(level, "task_swept", fields);
        }
        Err(error) => {
            let fields = json!({ "reason": error.to_string() });
            context.log(LogLevel::Warn, "task_sweep_failed", fields);
        }
    }
}

/// `None` if there is nobody to look at, or another sweep is under way.
async fn portion<P: Platform>(context: &Context<P>) -> Result<Option<Counts>, ReadError> {
    let key = Key::<SweepFamily>::single();
    let found = keyspace::atomic_get(context.platform.atomic(), &key).await?;
    let (version, place) = match found {
        Some((version, swept)) => {
            let (shard, after) = (swept.shard, swept.after);
            (Some(version), Place { shard, after })
        }
        None => (None, Place::default()),
    };
    let begun = place.clone();
    let mut walk = Walk::from(place);
    let mut principals = Vec::new();
    while principals.len() < SWEEP_MAX
        && let Some((principal, _)) = walk.next(context).await?
    {
        principals.push(principal);
    }
    let at = match walk.at.shard {
        SHARDS.. => Place::default(),
        _ => walk.at,
    };
    if principals.is_empty() && begun == at {
        return Ok(None);
    }
    // Kept before the work: should a portion never end well, the others do.
    let Some(version) = keep(context, &key, version, at).await else {
        return Ok(None);
    };
    let mut counts = Counts::default();
    for principal in &principals {
        if counts.read >= READS_MAX {
            // The next goes on with whom this one had no reads left for.
            let last = principals.get(counts.principals - 1);
            let at = last.map_or_else(Place::default, Place::of);
            keep(context, &key, Some(version), at).await;
            break;
        }
        counts.principals += 1;
        of_one(context, principal, &mut counts).await;
    }
    Ok((counts.principals > 0).then_some(counts))
}

async fn keep<P: Platform>(
    context: &Context<P>,
    key: &Key<SweepFamily>,
    version: Option<Version>,
    at: Place,
) -> Option<Version> {
    let swept = Swept {
        v: 1,
        shard: at.shard,
        after: at.after,
    };
    let (atomic, until) = (context.platform.atomic(), context.now() + REMEMBERED);
    match keyspace::atomic_swap(atomic, key, version, &swept, until).await {
        Ok(Swap::Done(version)) => Some(version),
        Ok(Swap::Conflict) | Err(_) => None,
    }
}

/// Looks after the tasks of one principal.
async fn of_one<P: Platform>(context: &Context<P>, owner: &PrincipalId, counts: &mut Counts) {
    let Ok(known) = roster::read(context, owner).await else {
        return;
    };
    let now = context.now();
    // A younger one may just be being made, or begun.
    let is_old = |entry: &&Entry| now.since(Timestamp(entry.created_at_ms)) >= START_WITHIN;
    let old = known.1.open().filter(is_old);
    let mut old: Vec<Entry> = old.cloned().collect();
    if !old.is_empty() {
        let begin = u64::from_be_bytes(context.random()) % old.len() as u64;
        old.rotate_left(usize::try_from(begin).unwrap_or_default());
    }
    old.truncate(READS_EACH_MAX.min(READS_MAX.saturating_sub(counts.read)));
    counts.read += old.len();
    let found: Vec<Found> = stream::iter(old)
        .map(|entry| look(context, entry))
        .buffer_unordered(READS_AT_ONCE)
        .collect()
        .await;
    let mut ended = BTreeSet::new();
    for found in found {
        match found {
            Found::Ended(id) => drop(ended.insert(id)),
            Found::Queued(true) => counts.queued += 1,
            Found::Queued(false) => counts.refused += 1,
            Found::Well => {}
        }
    }
    counts.ended += ended.len();
    if !ended.is_empty() {
        roster::note(context, owner, known, &ended).await;
    }
}

/// What was found of one task.
enum Found {
    /// It has ended, or there is none.
    Ended(String),
    /// It should run and does not; whether the queue has taken it.
    Queued(bool),
    /// Nothing is to be done, or it cannot be said.
    Well,
}

async fn look<P: Platform>(context: &Context<P>, entry: Entry) -> Found {
    let known = match store::find(context, &entry.id).await {
        Ok(Some(known)) => known,
        Ok(None) if is_settled(&entry, context.now()) => return Found::Ended(entry.id),
        Ok(None) => return Found::Well,
        Err(_) => return Found::Well,
    };
    let (record, now) = (&known.1, context.now());
    if record.standing(now) == Standing::Ended {
        return Found::Ended(entry.id);
    }
    if !record.was_begun() {
        let old = now.since(Timestamp(record.created_at_ms)) >= UNBEGUN_FOR;
        return match old && run::never_begun(context, &entry.id, known).await {
            true => Found::Ended(entry.id),
            false => Found::Well,
        };
    }
    match is_abandoned(record, now) {
        true => Found::Queued(
            run::enqueue(context, &entry.id, Duration::ZERO)
                .await
                .is_ok(),
        ),
        false => Found::Well,
    }
}
