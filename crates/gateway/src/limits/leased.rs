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
use crate::error::Error;
use crate::keyspace::{Family, Key, Store, atomic_add};
use crate::memory::Memory;
use crate::platform::{Clock, Platform};
use crate::time::Timestamp;

/// In how many chunks a limit is given out, if each is to be more than one request.
pub const CHUNKS: u64 = 64;
/// Largest chunk of a limit of requests.
pub const CHUNK_MAX: u64 = 1000;
/// When a request may come again for which there was room that others took first.
pub(crate) const CONTENDED: Duration = Duration::from_secs(1);
/// How long a counter is not asked again that had nothing left.
pub const EXHAUSTED_FOR: Duration = Duration::from_secs(60);
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

/// One counter that is leased from, while its bucket lasts.
pub(crate) struct Account<F> {
    /// By what the isolate remembers its lease.
    pub(crate) subject: Subject,
    /// Tells the buckets of one subject apart.
    pub(crate) bucket: u64,
    pub(crate) key: Key<F>,
    /// Until when the counter is kept.
    pub(crate) kept_until: Timestamp,
    /// How much there is in all.
    pub(crate) limit: u64,
    /// The largest chunk.
    pub(crate) chunk_max: u64,
    /// A chunk is at most this part of what the isolate has given out.
    pub(crate) part: u64,
}

impl<F: Family> Clone for Account<F> {
    fn clone(&self) -> Self {
        Self {
            subject: self.subject.clone(),
            key: Key::same(&self.key),
            ..*self
        }
    }
}

/// What an isolate holds of one account.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lease {
    bucket: u64,
    /// Below zero: spent and not counted yet.
    left: i64,
    /// How much this isolate has given out.
    given: u64,
    /// How much all have leased, when this isolate last asked.
    sum: Option<u64>,
    asked_at: Timestamp,
}

impl Lease {
    /// How much nobody had leased; `None` if that is not known.
    pub(crate) fn free(&self, limit: u64) -> Option<u64> {
        self.sum.map(|sum| limit.saturating_sub(sum))
    }

    /// How much is spent, as far as this isolate knows.
    pub(crate) fn spent(&self) -> Option<u64> {
        let sum = i64::try_from(self.sum?).unwrap_or(i64::MAX);
        Some(u64::try_from(sum.saturating_sub(self.left)).unwrap_or(0))
    }
}

impl<F: Family<Record = i64>> Account<F> {
    /// What this isolate holds.
    pub(crate) fn held(&self, memory: &Memory) -> Lease {
        let held = memory.limits.leases.get(&self.subject);
        held.filter(|lease| lease.bucket == self.bucket)
            .unwrap_or(Lease {
                bucket: self.bucket,
                ..Lease::default()
            })
    }

    /// Whether what is held is enough.
    pub(crate) fn covers(&self, memory: &Memory, need: u64) -> bool {
        self.held(memory).left >= signed(need)
    }

    /// Whether asking could help a request that would be refused.
    pub(crate) fn lacks(&self, memory: &Memory, need: u64, now: Timestamp) -> bool {
        let lease = self.held(memory);
        let hopeless = lease.free(self.limit) == Some(0)
            && now.since(lease.asked_at) < EXHAUSTED_FOR
            && lease.left >= 0;
        lease.left < signed(need) && !hopeless
    }

    /// Sees to it that this isolate holds `need`, if there is as much, and that what it has
    /// spent is counted. Gives what was asked for in vain, which the counter holds as well.
    pub(crate) async fn provide<P: Platform>(
        &self,
        platform: &P,
        memory: &Memory,
        need: u64,
    ) -> Result<u64, Error> {
        let now = platform.clock().now();
        if !self.lacks(memory, need, now) {
            return Ok(0);
        }
        let lease = self.held(memory);
        let debt = Debt::pay(self, memory, lease);
        let chunk = (lease.given / self.part)
            .min(self.chunk_max.max(1))
            .max(need);
        let asked = debt.amount.saturating_add(chunk);
        let sum = atomic_add(platform.atomic(), &self.key, signed(asked), self.kept_until).await?;
        debt.paid();
        let sum = u64::try_from(sum).unwrap_or(0);
        let in_vain = sum.saturating_sub(self.limit).min(chunk);
        // What others of this isolate's requests have done meanwhile counts too.
        let lease = self.held(memory);
        self.hold(
            memory,
            Lease {
                left: lease.left.saturating_add(signed(chunk - in_vain)),
                // As if what is asked for in vain had been given back.
                sum: Some(sum - in_vain),
                asked_at: now,
                ..lease
            },
        );
        Ok(in_vain)
    }

    /// Gives out `amount`, which may be more than is held.
    pub(crate) fn take(&self, memory: &Memory, amount: u64) {
        let mut lease = self.held(memory);
        lease.left = lease.left.saturating_sub(signed(amount));
        lease.given = lease.given.saturating_add(amount);
        self.hold(memory, lease);
    }

    /// Takes back `amount` that was given out and not used.
    pub(crate) fn take_back(&self, memory: &Memory, amount: u64) {
        let mut lease = self.held(memory);
        lease.left = lease.left.saturating_add(signed(amount));
        lease.given = lease.given.saturating_sub(amount);
        self.hold(memory, lease);
    }

    fn hold(&self, memory: &Memory, lease: Lease) {
        let leases = &memory.limits.leases;
        // What comes late of a bucket that is over changes nothing any more.
        let is_over = |held: &mut Lease| held.bucket > lease.bucket;
        if !leases.with(&self.subject, is_over).unwrap_or(false) {
            leases.insert(self.subject.clone(), lease);
        }
    }
}

/// What was spent beyond the lease, while it is being counted: of several who ask at once one
/// pays it. Owed again if the store was not heard to have taken it.
struct Debt<'a, F: Family<Record = i64>> {
    account: &'a Account<F>,
    memory: &'a Memory,
    amount: u64,
}

impl<'a, F: Family<Record = i64>> Debt<'a, F> {
    fn pay(account: &'a Account<F>, memory: &'a Memory, lease: Lease) -> Self {
        let amount = lease.left.min(0).unsigned_abs();
        let left = lease.left.max(0);
        if amount > 0 {
            account.hold(memory, Lease { left, ..lease });
        }
        Self {
            account,
            memory,
            amount,
        }
    }

    fn paid(mut self) {
        self.amount = 0;
    }
}

impl<F: Family<Record = i64>> Drop for Debt<'_, F> {
    fn drop(&mut self) {
        if self.amount > 0 {
            let mut lease = self.account.held(self.memory);
            lease.left = lease.left.saturating_sub(signed(self.amount));
            self.account.hold(self.memory, lease);
        }
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// The account of a limit of requests.
fn account(limit: &Limit<'_>, now: Timestamp) -> Account<QuotaFamily> {
    let (rate, subject) = (limit.rate, Subject::of(limit));
    let bucket = window::bucket(rate, now);
    let requests = u64::from(rate.requests);
    Account {
        key: subject.key(bucket),
        subject,
        bucket,
        kept_until: now + window::rest(rate, now) + LIFETIME_MARGIN,
        limit: requests,
        chunk_max: (requests / CHUNKS).min(CHUNK_MAX),
        part: 1,
    }
}

/// Whether asking could help a request that would be refused.
pub(super) fn lacks(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> bool {
    account(limit, now).lacks(memory, limit.cost.into(), now)
}

/// Sees to it that this isolate holds as much as the request costs, if there is as much.
pub(super) async fn provide<P: Platform>(
    platform: &P,
    memory: &Memory,
    limit: &Limit<'_>,
) -> Result<(), Error> {
    let account = account(limit, platform.clock().now());
    let provided = account.provide(platform, memory, limit.cost.into()).await;
    // The counter is over before anybody could miss what is asked for in vain.
    provided.map(drop)
}

/// Whether what is held is enough.
pub(super) fn decide(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> Decision {
    let account = account(limit, now);
    if account.covers(memory, limit.cost.into()) {
        return Decision::Admit;
    }
    Decision::Refuse {
        retry_after: match account.held(memory).free(account.limit) {
            Some(0) => window::rest(limit.rate, now),
            // Others of this isolate's requests were quicker, or the window is new.
            Some(_) | None => CONTENDED,
        },
    }
}

/// How much is left, as far as this isolate knows.
pub(super) fn remaining(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> u64 {
    let account = account(limit, now);
    let lease = account.held(memory);
    let free = lease.free(account.limit).unwrap_or_default();
    free.saturating_add(u64::try_from(lease.left).unwrap_or(0))
}

/// Gives out what the request costs.
pub(super) fn count(memory: &Memory, limit: &Limit<'_>, now: Timestamp) {
    account(limit, now).take(memory, limit.cost.into());
}
