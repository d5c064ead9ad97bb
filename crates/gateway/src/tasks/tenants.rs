//! How many tasks a tenant has that have not ended: counted where `tasks.maxOpenPerTenant`
//! says so, and nowhere else.
//!
//! The tasks created in one stretch of time ([`BUCKETS`] to a task's lifetime) share a
//! counter, which is added to when one is made and taken from when it ends; a tenant has as
//! many open tasks as its live counters say together. A counter expires with the last task
//! that can be in it, so whatever went wrong with it is forgotten then.
//!
//! # How far it can be wrong
//!
//! - *Too high* by one for each task whose end was not counted, because the isolate died
//!   in between or the store did not say what became of the subtraction, or for so long what
//!   became of the end itself that its writer gave up asking, and for each whose making was
//!   counted and failed: until its counter expires, at most a lifetime and one stretch after
//!   the task was made. A task that never ends counts for as long. What the counters of
//!   other stretches say is up to [`LOOK_FOR`] old, and they fall. Of several tasks made at
//!   once at the very limit all may be refused.
//! - *Too low* by the calls of `auto` tools that begin in one stretch and become tasks in the
//!   next, within [`LOOK_FOR`]; and within a lifetime after the limit was introduced, or the
//!   lifetime of tasks changed, by the tasks made before, which were not counted, or are
//!   counted elsewhere. By one where two write the very same end in the same millisecond and
//!   the store tells the one whose write failed nothing: each finds its own words.
//!
//! These apart, a tenant never has more than it may.

use std::time::Duration;

use futures_util::future::join_all;
use sha2::{Digest, Sha256};

use super::record::Record;
use super::roster::FULL_FOR;
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::keyspace::{self, Family, Key, Store};
use crate::memory::Bounded;
use crate::platform::Platform;
use crate::seal::hex;
use crate::time::Timestamp;

/// How many stretches of time the lifetime of a task is divided into.
pub const BUCKETS: u64 = 8;
/// Shortest stretch.
pub const BUCKET_MIN: Duration = Duration::from_secs(60);
/// How long an isolate goes by what other counters said.
pub const LOOK_FOR: Duration = Duration::from_secs(10);
/// Most tenants an isolate remembers the counters of.
const TENANTS_MAX: usize = 256;

/// The family of the counters: tenant, stretch.
pub struct TenantFamily;

impl Family for TenantFamily {
    /// How many tasks of this stretch have not ended.
    type Record = i64;
    const NAME: &'static str = "tenant";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = None;
}

/// What an isolate remembers: what a tenant's other counters said, when, and other than
/// which.
pub(super) struct Memory(Bounded<String, (Timestamp, u64, i64)>);

impl Default for Memory {
    fn default() -> Self {
        Self(Bounded::new(TENANTS_MAX))
    }
}

/// The counters of the tasks of one tenant.
struct Counters {
    tenant: String,
    lifetime_ms: u64,
    length_ms: u64,
}

impl Counters {
    /// Those a task is counted in; `None` where no limit asks for it.
    fn of<P: Platform>(context: &Context<P>, record: &Record) -> Option<(Self, u32)> {
        let tasks = &context.settings.config.tasks;
        let (max, lifetime_ms) = (tasks.max_open_per_tenant?, tasks.ttl_ms);
        let tenant = record.tenant.as_deref()?;
        let least = u64::try_from(BUCKET_MIN.as_millis()).unwrap_or(u64::MAX);
        let counters = Self {
            tenant: hex(&Sha256::digest(tenant.as_bytes())[..16]),
            lifetime_ms,
            length_ms: (lifetime_ms / BUCKETS).max(least),
        };
        Some((counters, max))
    }

    fn number(&self, at_ms: u64) -> u64 {
        at_ms / self.length_ms
    }

    /// Adds to a counter, and gives what it says then.
    async fn add<P: Platform>(
        &self,
        context: &Context<P>,
        number: u64,
        delta: i64,
    ) -> Result<i64, Error> {
        let (length, number_text) = (self.length_ms.to_string(), number.to_string());
        let key = Key::<TenantFamily>::of(&[&self.tenant, &length, &number_text]);
        let until = (number + 1)
            .saturating_mul(self.length_ms)
            .saturating_add(self.lifetime_ms);
        let atomic = context.platform.atomic();
        let sum = keyspace::atomic_add(atomic, &key, delta, Timestamp(until)).await?;
        Ok(sum.max(0))
    }

    /// What the other live counters say together.
    async fn others<P: Platform>(&self, context: &Context<P>, own: u64) -> Result<i64, Error> {
        let (now, memory) = (context.now(), &context.memory.tasks.tenants.0);
        if let Some((at, number, sum)) = memory.get(&self.tenant)
            && number == own
            && at <= now
            && now.since(at) < LOOK_FOR
        {
            return Ok(sum);
        }
        let first = self.number(now.0.saturating_sub(self.lifetime_ms));
        let live = (first..=self.number(now.0)).filter(|number| *number != own);
        let looks = live.map(|number| self.add(context, number, 0));
        let mut sum = 0;
        for said in join_all(looks).await {
            sum += said?;
        }
        memory.insert(self.tenant.clone(), (now, own, sum));
        Ok(sum)
    }
}

/// Counts a task that is about to be made, or refuses it where its tenant has as many open
/// ones as it may.
pub(super) async fn take<P: Platform>(context: &Context<P>, record: &Record) -> Result<(), Error> {
    let Some((counters, max)) = Counters::of(context, record) else {
        return Ok(());
    };
    let own = counters.number(record.created_at_ms);
    // Counted first: of two at once, each sees the other.
    let now = counters.add(context, own, 1).await?;
    let refused = match counters.others(context, own).await {
        Ok(others) if now + others <= i64::from(max) => return Ok(()),
        Ok(_) => Rejection::TooManyTasks {
            limit: "tasks.maxOpenPerTenant",
            max,
            retry_after: FULL_FOR,
        }
        .into(),
        Err(error) => error,
    };
    let _ = counters.add(context, own, -1).await;
    Err(refused)
}

/// Takes back what [`take`] counted, after the response.
pub(super) fn give_back<P: Platform>(context: &Context<P>, record: &Record) {
    if let Some((counters, _)) = Counters::of(context, record) {
        let (context, created) = (context.clone(), record.created_at_ms);
        context.clone().platform.defer(async move {
            let own = counters.number(created);
            // Not tried again: twice would be once too often.
            let _ = counters.add(&context, own, -1).await;
        });
    }
}
