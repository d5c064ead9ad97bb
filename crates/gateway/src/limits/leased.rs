//! Exact counting (`counter: atomic`): how much of a limit is used is one counter in the
//! store that is linearizable per key, and each isolate leases from it in chunks.
//!
//! A window is a bucket of fixed length. An isolate that needs more adds a chunk to the
//! bucket's counter; what the sum leaves of the limit is its own to give out, without asking
//! anybody, until the bucket is over. So **no more than the limit is ever admitted in one
//! bucket**, whatever the isolates do and however many there are; what a lease does not give
//! out is lost to the others, at most a chunk for each isolate, which is a
//! [`CHUNKS`]th of the limit. One operation serves a chunk of requests.
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
    /// Whether the counter has reached the limit.
    over: bool,
}

/// How much is asked for at a time.
fn chunk(rate: Rate, cost: u32) -> u32 {
    (rate.requests / CHUNKS).clamp(1, CHUNK_MAX).max(cost)
}

/// Sees to it that this isolate holds as much as the request costs, if there is as much.
pub(super) async fn provide<P: Platform>(
    platform: &P,
    memory: &Memory,
    limit: &Limit<'_>,
) -> Result<(), Error> {
    let (now, rate, subject) = (platform.clock().now(), limit.rate, Subject::of(limit));
    let bucket = window::bucket(rate, now);
    let lease = held(memory, &subject, bucket);
    if lease.over || lease.left >= limit.cost {
        return Ok(());
    }
    let asked = chunk(rate, limit.cost);
    let until = now + window::rest(rate, now) + LIFETIME_MARGIN;
    let sum = atomic_add(
        platform.atomic(),
        &key(&subject, bucket),
        asked.into(),
        until,
    )
    .await?;
    let beyond = u32::try_from(sum.saturating_sub(rate.requests.into()).max(0)).unwrap_or(u32::MAX);
    // What others of this isolate's requests have done meanwhile counts too.
    let lease = held(memory, &subject, bucket);
    let lease = Lease {
        bucket,
        left: lease.left.saturating_add(asked.saturating_sub(beyond)),
        over: lease.over || beyond > 0,
    };
    memory.limits.leases.insert(subject, lease);
    Ok(())
}

/// Whether what is held is enough.
pub(super) fn decide(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> Decision {
    match remaining(memory, limit, now) >= u64::from(limit.cost) {
        true => Decision::Admit,
        false => Decision::Refuse {
            retry_after: window::rest(limit.rate, now),
        },
    }
}

/// How much this isolate holds.
pub(super) fn remaining(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> u64 {
    let bucket = window::bucket(limit.rate, now);
    held(memory, &Subject::of(limit), bucket).left.into()
}

/// Gives out what the request costs.
pub(super) fn count(memory: &Memory, limit: &Limit<'_>, now: Timestamp) {
    let (subject, bucket) = (Subject::of(limit), window::bucket(limit.rate, now));
    let mut lease = held(memory, &subject, bucket);
    lease.left = lease.left.saturating_sub(limit.cost);
    memory.limits.leases.insert(subject, lease);
}

fn held(memory: &Memory, subject: &Subject, bucket: u64) -> Lease {
    let held = memory.limits.leases.get(subject);
    held.filter(|lease| lease.bucket == bucket)
        .unwrap_or(Lease {
            bucket,
            ..Lease::default()
        })
}

fn key(subject: &Subject, bucket: u64) -> Key<QuotaFamily> {
    subject.key(bucket)
}
