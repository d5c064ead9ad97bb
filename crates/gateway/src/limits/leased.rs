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
//! `a` loses at most `min(a, limit / `[`CHUNKS`]`)`: but for the cost of the call that does not
//! fit, **at least half of a limit is admitted before anybody is refused**, though each isolate
//! ends after its first calls. An isolate asks once for each chunk, and some ten times more
//! while its chunks grow.
//!
//! What was leased for a call that is then refused is given back after the response, as is
//! what was asked for beyond the limit; only what certainly was added, and once. It is lost
//! where the isolate ends before that, or the store does not take it. Until it is back others
//! may find nothing left, and then do not ask for [`EXHAUSTED_FOR`]. A call that is refused
//! anyway, or by the caller's own limits, leases nothing of shared ones.
//!
//! Where the store does not answer nothing is admitted beyond what is leased: an exact limit
//! that lets through what it cannot count is none.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;

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
/// How long a counter is not asked again that had too little left.
pub const EXHAUSTED_FOR: Duration = Duration::from_secs(60);
/// How much longer than its bucket a counter is kept: isolates' clocks differ.
const LIFETIME_MARGIN: Duration = Duration::from_secs(60);
/// How often one call asks for a lease that others then use up.
const PROVIDE_TRIES: usize = 4;

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

/// What one call needs of an account.
pub(crate) struct Need<F> {
    account: Account<F>,
    amount: u64,
    /// Whether the account is the caller's alone.
    own: bool,
    /// What was added to the counter for this call.
    added: Cell<Added>,
}

/// What asking has added to a counter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Added {
    /// What is held.
    held: u64,
    /// What is beyond the limit.
    in_vain: u64,
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

    /// Whether there was less than `need`, when this isolate last asked.
    fn falls_short(&self, limit: u64, need: u64) -> bool {
        let held = u64::try_from(self.left).unwrap_or(0);
        self.free(limit)
            .is_some_and(|free| free.saturating_add(held) < need)
    }

    /// How much is spent, as far as this isolate knows.
    pub(crate) fn spent(&self) -> Option<u64> {
        let sum = i64::try_from(self.sum?).unwrap_or(i64::MAX);
        Some(u64::try_from(sum.saturating_sub(self.left)).unwrap_or(0))
    }
}

impl<F: Family<Record = i64> + 'static> Account<F> {
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

    /// Whether there is too little for `need`, as far as this isolate knows.
    pub(crate) fn falls_short(&self, memory: &Memory, need: u64) -> bool {
        self.held(memory).falls_short(self.limit, need)
    }

    /// Whether asking could help a request that would be refused.
    pub(crate) fn lacks(&self, memory: &Memory, need: u64, now: Timestamp) -> bool {
        !self.covers(memory, need) && !self.is_hopeless(memory, need, now)
    }

    /// Whether asking would not help.
    fn is_hopeless(&self, memory: &Memory, need: u64, now: Timestamp) -> bool {
        let lease = self.held(memory);
        lease.falls_short(self.limit, need)
            && now.since(lease.asked_at) < EXHAUSTED_FOR
            // What is spent and not counted yet is counted in any case.
            && lease.left >= 0
    }

    /// Sees to it that this isolate holds `need`, if there is as much, and that what it has
    /// spent is counted. Gives what that has added for the need, in vain or not.
    pub(crate) async fn provide<P: Platform>(
        &self,
        platform: &P,
        memory: &Memory,
        need: u64,
    ) -> Result<Added, Error> {
        let now = platform.clock().now();
        if !self.lacks(memory, need, now) {
            return Ok(Added::default());
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
        let held = chunk - in_vain;
        // What others of this isolate's requests have done meanwhile counts too.
        let lease = self.held(memory);
        self.hold(
            memory,
            Lease {
                left: lease.left.saturating_add(signed(held)),
                // As if what is asked for in vain had been given back.
                sum: Some(sum - in_vain),
                asked_at: now,
                ..lease
            },
        );
        Ok(Added { held, in_vain })
    }

    /// Gives back, after the response, what nobody has used by then.
    pub(crate) fn give_back_later<P: Platform>(
        &self,
        platform: &Rc<P>,
        memory: &Rc<Memory>,
        added: Added,
    ) {
        if added.held == 0 && added.in_vain == 0 {
            return;
        }
        let (account, memory) = (self.clone(), Rc::clone(memory));
        let owned = Rc::clone(platform);
        platform.defer(async move {
            account.give_back(owned.as_ref(), &memory, added).await;
        });
    }

    async fn give_back<P: Platform>(&self, platform: &P, memory: &Memory, added: Added) {
        // Whatever comes of the asking, it is not given out any more.
        let back = self.release(memory, added.held) + added.in_vain;
        if back == 0 {
            return;
        }
        let given = atomic_add(platform.atomic(), &self.key, -signed(back), self.kept_until).await;
        // Should this fail, the counter says more than was spent.
        if let Ok(sum) = given {
            let sum = Some(u64::try_from(sum).unwrap_or(0));
            let lease = self.held(memory);
            self.hold(memory, Lease { sum, ..lease });
        }
    }

    /// Holds less by what is left of `amount`; gives how much that is.
    fn release(&self, memory: &Memory, amount: u64) -> u64 {
        let lease = self.held(memory);
        let unused = amount.min(u64::try_from(lease.left).unwrap_or(0));
        if unused > 0 {
            let left = lease.left.saturating_sub(signed(unused));
            self.hold(memory, Lease { left, ..lease });
        }
        unused
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

impl<F: Family<Record = i64> + 'static> Need<F> {
    pub(crate) const fn new(account: Account<F>, amount: u64, own: bool) -> Self {
        let (held, in_vain) = (0, 0);
        Self {
            account,
            amount,
            own,
            added: Cell::new(Added { held, in_vain }),
        }
    }

    async fn provide<P: Platform>(&self, platform: &P, memory: &Memory) -> Result<(), Error> {
        let Added { held, in_vain } = self.account.provide(platform, memory, self.amount).await?;
        let added = self.added.get();
        self.added.set(Added {
            held: added.held.saturating_add(held),
            in_vain: added.in_vain.saturating_add(in_vain),
        });
        Ok(())
    }
}

/// Sees to it that this isolate holds what a call needs, if there is as much of everything.
/// The caller's own accounts come first: who has used up those takes nothing from others.
pub(crate) async fn provide<P: Platform, F: Family<Record = i64> + 'static>(
    platform: &P,
    memory: &Memory,
    needs: &[Need<F>],
) -> Result<(), Error> {
    for _ in 0..PROVIDE_TRIES {
        let now = platform.clock().now();
        let hopeless = |need: &Need<F>| need.account.is_hopeless(memory, need.amount, now);
        let uncovered = |need: &Need<F>| !need.account.covers(memory, need.amount);
        // Another request may have been quicker with what this one asked for.
        if needs.iter().any(hopeless) || !needs.iter().any(uncovered) {
            break;
        }
        for own in [true, false] {
            let these = || needs.iter().filter(|need| need.own == own);
            let provided = these().map(|need| need.provide(platform, memory));
            let provided = join_all(provided).await.into_iter();
            provided.collect::<Result<(), Error>>()?;
            if these().any(uncovered) {
                break;
            }
        }
    }
    Ok(())
}

/// Gives back, after the response, what was added for a call and is not used: what was asked
/// for in vain, and the rest too if the call is refused.
pub(crate) fn give_back_later<P: Platform, F: Family<Record = i64> + 'static>(
    platform: &Rc<P>,
    memory: &Rc<Memory>,
    needs: &[Need<F>],
    refused: bool,
) {
    for need in needs {
        let mut added = need.added.take();
        if !refused {
            added.held = 0;
        }
        need.account.give_back_later(platform, memory, added);
    }
}

/// What was spent beyond the lease, while it is being counted: of several who ask at once one
/// pays it. Owed again if the store was not heard to have taken it.
struct Debt<'a, F: Family<Record = i64> + 'static> {
    account: &'a Account<F>,
    memory: &'a Memory,
    amount: u64,
}

impl<'a, F: Family<Record = i64> + 'static> Debt<'a, F> {
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

impl<F: Family<Record = i64> + 'static> Drop for Debt<'_, F> {
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

/// What a request needs of a limit.
pub(super) fn need(limit: &Limit<'_>, now: Timestamp) -> Need<QuotaFamily> {
    Need::new(account(limit, now), limit.cost.into(), limit.own)
}

/// Whether what is held is enough.
pub(super) fn decide(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> Decision {
    let account = account(limit, now);
    if account.covers(memory, limit.cost.into()) {
        return Decision::Admit;
    }
    Decision::Refuse {
        retry_after: match account.falls_short(memory, limit.cost.into()) {
            true => window::rest(limit.rate, now),
            // Others of this isolate's requests were quicker, or the window is new.
            false => CONTENDED,
        },
    }
}

/// How much is left, as far as this isolate knows; `None` if it has not asked.
pub(super) fn remaining(memory: &Memory, limit: &Limit<'_>, now: Timestamp) -> Option<u64> {
    let account = account(limit, now);
    let lease = account.held(memory);
    let free = lease.free(account.limit)?;
    Some(free.saturating_add(u64::try_from(lease.left).unwrap_or(0)))
}

/// Gives out what the request costs.
pub(super) fn count(memory: &Memory, limit: &Limit<'_>, now: Timestamp) {
    account(limit, now).take(memory, limit.cost.into());
}
