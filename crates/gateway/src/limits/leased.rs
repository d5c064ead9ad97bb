//! Exact counting (`counter: atomic`): how much of a limit is used is one counter in the
//! store that is linearizable per key, and each isolate leases from it in chunks.
//!
//! A window is a bucket of fixed length. An isolate that needs more adds a chunk to the
//! bucket's counter; what the sum leaves of the limit is its own to give out, without asking
//! anybody, until the bucket is over. So **no more than the limit is ever admitted in one
//! bucket**, whatever the isolates do and however many there are.
//!
//! What a lease does not give out is lost to the others, also when its isolate ends early. A
//! chunk is at most a [`CHUNKS`]th of the limit and at most what the isolate has given out in
//! the bucket before it asks, but for a single call's cost. So an isolate that has admitted
//! `a` loses at most `min(a, limit / `[`CHUNKS`]`)`, and a call's cost where another limit
//! refused that call: of a limit that stands alone **at least half is admitted before anybody
//! is refused**, though each isolate ends after its first calls. An isolate asks once for each
//! chunk, and some ten times more while its chunks grow.
//!
//! Where the store does not answer nothing is admitted beyond what is leased: an exact limit
//! that lets through what it cannot count is none.

use std::time::Duration;

use super::Limit;
use super::counting::Subject;
use super::window::{self, Decision};
use crate::config::Rate;
use crate::error::Error;
use crate::keyspace::{Family, Key, Store, atomic_add};
use crate::memory::Memory;
use crate::platform::{Clock, Platform};
use crate::time::Timestamp;

/// In how many chunks a limit is given out, if each is to be more than one request.
pub const CHUNKS: u32 = 64;
/// Largest chunk.
pub const CHUNK_MAX: u32 = 1000;
/// When a request may come again for which there was room that others took first.
const CONTENDED: Duration = Duration::from_secs(1);
/// How much longer than its bucket a counter is kept: isolates' clocks differ.
const LIFETIME_MARGIN: Duration = Duration::from_secs(60);

/// The family of the counters leased from: limit, whom it counts apart, bucket.
pub struct QuotaFamily;

impl Family for QuotaFamily {
    /// How much is leased.
    type Record = i64;
    const NAME: &'static str = "quota";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(Duration::from_secs(31 * 24 * 60 * 60 + 60));
}

/// What an isolate holds of one limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lease {
    bucket: u64,
    left: u32,
    /// How much this isolate has given out.
    given: u32,
    /// How much nobody had leased when this isolate last asked.
    free: Option<u32>,
}

/// How much is asked for at a time.
fn chunk(rate: Rate, cost: u32, given: u32) -> u32 {
    let most = (rate.requests / CHUNKS).clamp(1, CHUNK_MAX);
    given.min(most).max(cost)
}

/// Whether asking could help a request that would be refused.
pub(super) fn lacks(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> bool {
    let lease = held(memory, limit, now);
    lease.free != Some(0) && lease.left < limit.cost
}

/// Sees to it that this isolate holds as much as the request costs, if there is as much.
pub(super) async fn provide<P: Platform>(
    platform: &P,
    memory: &Memory,
    limit: &Limit<'_>,
) -> Result<(), Error> {
    let (now, rate, subject) = (platform.clock().now(), limit.rate, Subject::of(limit));
    if !lacks(memory, limit, now) {
        return Ok(());
    }
    let bucket = window::bucket(rate, now);
    let asked = chunk(rate, limit.cost, held(memory, limit, now).given);
    let until = now + window::rest(rate, now) + LIFETIME_MARGIN;
    let sum = atomic_add(
        platform.atomic(),
        &key(&subject, bucket),
        asked.into(),
        until,
    )
    .await?;
    let difference = i64::from(rate.requests).saturating_sub(sum);
    let free = u32::try_from(difference.max(0)).unwrap_or(u32::MAX);
    let beyond = u32::try_from(difference.saturating_neg().max(0)).unwrap_or(u32::MAX);
    // What others of this isolate's requests have done meanwhile counts too.
    let lease = held(memory, limit, now);
    let lease = Lease {
        left: lease.left.saturating_add(asked.saturating_sub(beyond)),
        free: Some(lease.free.unwrap_or(u32::MAX).min(free)),
        ..lease
    };
    memory.limits.leases.insert(subject, lease);
    Ok(())
}

/// Whether what is held is enough.
pub(super) fn decide(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> Decision {
    let lease = held(memory, limit, now);
    if lease.left >= limit.cost {
        return Decision::Admit;
    }
    Decision::Refuse {
        retry_after: match lease.free {
            Some(0) => window::rest(limit.rate, now),
            // Others of this isolate's requests were quicker, or the window is new.
            Some(_) | None => CONTENDED,
        },
    }
}

/// How much is left, as far as this isolate knows.
pub(super) fn remaining(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> u64 {
    let lease = held(memory, limit, now);
    u64::from(lease.left) + u64::from(lease.free.unwrap_or_default())
}

/// Gives out what the request costs.
pub(super) fn count(memory: &Memory, limit: &Limit<'_>, now: Timestamp) {
    let mut lease = held(memory, limit, now);
    lease.left = lease.left.saturating_sub(limit.cost);
    lease.given = lease.given.saturating_add(limit.cost);
    memory.limits.leases.insert(Subject::of(limit), lease);
}

fn held(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> Lease {
    let bucket = window::bucket(limit.rate, now);
    let held = memory.limits.leases.get(&Subject::of(limit));
    held.filter(|lease| lease.bucket == bucket)
        .unwrap_or(Lease {
            bucket,
            ..Lease::default()
        })
}

fn key(subject: &Subject, bucket: u64) -> Key<QuotaFamily> {
    subject.key(bucket)
}
