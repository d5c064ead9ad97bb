//! How often may be called: approximate counting on the eventually consistent store, exact
//! counting on the linearizable one ([`leased`]), which is how limits are counted that do not
//! say how where instances are short-lived, or counting by the host itself ([`native`]).
//! [`rules`] says which limits a call is counted in; a call that counts as several is that
//! many requests in all that follows.
//!
//! Every isolate counts for itself, in memory, and that count alone is always right. What
//! the others count it learns from KV, where the isolates pass on each other's cells
//! ([`cells`]), each raising only its own; the arithmetic is a sliding window over two
//! buckets ([`window`]). The request path writes nothing, and reads only while the others'
//! counts are unknown or old; everything else happens in `defer`. Without its stores each
//! isolate goes by its own count: a store that is down refuses nobody.
//!
//! # One writer to a key
//!
//! An isolate reports to one slot per limit and principal, its seat, which is its own for a
//! [`TERM`](seat::TERM): the number comes from the store that is linearizable per key
//! ([`seat`]). It waits at least [`REPORT_INTERVAL`] from the end of one write to the
//! beginning of the next, and [`REPORT_DELAY_MAX`] after one that did not end well. So **no
//! key is ever written twice within a second, by whomever**, however many isolates start at
//! once and whatever they know of each other, provided that
//!
//! - the clocks of two isolates differ by at most [`CLOCK_SKEW_MAX`](seat::CLOCK_SKEW_MAX);
//! - a write has arrived when the store says so; one of which it says nothing, or nothing
//!   good, arrives within [`WRITE_TIME_MAX`](seat::WRITE_TIME_MAX) of its beginning or never.
//!
//! An isolate that has no seat writes nothing.
//!
//! # What it costs
//!
//! A principal that uses no more than a [`HIDDEN_SHARE`]th of its limit in an isolate costs
//! no operation at all. Otherwise, for each limit and principal, an isolate
//!
//! - writes at most once per [`REPORT_INTERVAL`], however many requests there are; isolates
//!   that know of each other leave each other [`WRITE_SHARE`];
//! - reads [`ROW`](seat::ROW) slots, and at most 14 the more isolates there are, once in half
//!   to all of [`look_interval`], and once more when it has taken a seat;
//! - asks the linearizable store once in a [`TERM`](seat::TERM): six times an hour.
//!
//! # How far it can overshoot
//!
//! For a limit of `L` requests and `n` isolates that serve the same principal:
//!
//! - One isolate never admits more than `L` in one bucket, so all together never admit
//!   more than `n × L`, whatever the stores do; unless so many others ask between two
//!   requests that this counter is forgotten ([`KEYS_MAX`]).
//! - Let `s ≤ ` [`SEATS`](seat::SEATS) of them have a seat, and let `p` be how often a report
//!   is passed: once among [`ROW`](seat::ROW) isolates, who read each other, twice among more.
//!   While the stores answer, let `D` be the time after which an admission is seen by all who
//!   are still asked: `p` times until it is reported (at most twice [`REPORT_INTERVAL`], or
//!   twice the share of `n` isolates), until the store shows it (its staleness), and until it
//!   is looked at (at most [`look_interval`]). Where a term ends meanwhile, a report waits for
//!   [`REST`](seat::REST), and one that its slot's next owner replaced unseen is repeated to
//!   another slot: one more wait. Let `m` be the most requests one isolate is asked within
//!   `D`, `q` within a bucket, and `h = L / `[`HIDDEN_SHARE`] what an isolate need not report
//!   or pass on. In one bucket all together admit at most
//!
//!   `L + (s − 1) × min(L, p × h + m) + (n − s) × min(L, q)`
//!
//!   because at the last admission of an isolate that looks, everything but the other seated
//!   isolates' last `D`, what is hidden, and the count of those without a seat was part of
//!   the sum.
//! - Without a seat are those whom the linearizable store gives no number (it is asked again
//!   after half a minute), and those who come when [`SEATS`](seat::SEATS) numbers have been
//!   drawn in the term, by living isolates or dead ones. They see the others, but are seen by
//!   none. So is, among more than [`ROW`](seat::ROW), for the rest of the term, an isolate of
//!   whose two passers-on none is asked any more.
//! - A bucket's excess is seen in the next bucket, where it leaves that much less room.
//! - A window that begins inside a bucket touches two: one isolate admits less than `2 × L`
//!   in it (the price of two buckets instead of a log), all together at most the sum of two
//!   buckets.
//! - Windows shorter than [`SHARED_WINDOW_MIN`] are over before a report is read: each
//!   isolate counts alone, and only the first bound holds.
//!
//! So this damps abuse; it is not a quota. With the minute of staleness that Workers KV
//! allows, a burst over many isolates is seen only in the next window.

pub mod cells;
pub mod leased;
pub(crate) mod rules;
pub mod seat;
pub mod standing;
pub mod window;

mod counter;
pub(crate) mod counting;
mod native;

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::config::Rate;
use crate::error::{Error, Rejection};
use crate::keyspace::{Family, Store};
use crate::memory::Bounded;
use crate::platform::{Clock, LogLevel, Platform};
use crate::time::Timestamp;
use cells::{Cells, IsolateId};
use counter::Counter;
use counting::{Counting, Subject};
use standing::{Standing, Standings};
use window::Decision;

pub use counting::LOOK_TIMEOUT;

pub use counter::{
    HIDDEN_SHARE, LOOK_INTERVAL_MAX, LOOK_INTERVAL_MIN, REPORT_DELAY_MAX, REPORT_INTERVAL,
    SHARED_WINDOW_MIN, WRITE_SHARE, look_interval,
};

/// Most limits and principals one isolate counts; the one that was asked nothing for longest
/// is forgotten and, should it return, resumed from what was last reported.
pub const KEYS_MAX: usize = 4096;
/// Least time between two log lines about a store that does not answer.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What the writer of one slot knew.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateRecord {
    /// Shape of this record.
    pub v: u32,
    /// Length of a bucket in milliseconds.
    pub window_ms: u64,
    /// Admissions by isolate and number of bucket.
    pub cells: Cells,
}

/// The family of [`RateRecord`]: limit, principal, slot. Each lives for two of its windows
/// and a minute; the family's lifetime is that of the longest window.
pub struct RateFamily;

impl Family for RateFamily {
    type Record = RateRecord;
    const NAME: &'static str = "rate";
    const STORE: Store = Store::Kv;
    const LIFETIME: Option<Duration> = Some(Duration::from_secs(2 * 24 * 60 * 60 + 60));
}

/// The family of the counters that seats are drawn from: limit, principal, term.
pub struct SeatFamily;

impl Family for SeatFamily {
    /// How many numbers were drawn.
    type Record = i64;
    const NAME: &'static str = "seat";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(seat::TERM.saturating_mul(2));
}

/// What an isolate remembers of limits: its own counts, and what it has seen of others'.
pub struct Memory {
    isolate: OnceCell<IsolateId>,
    counters: Bounded<Subject, Counter>,
    leases: Bounded<Subject, leased::Lease>,
    pub(crate) spenders: crate::quotas::Memory,
    complained_at: std::cell::Cell<Option<Timestamp>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            isolate: OnceCell::new(),
            counters: Bounded::new(KEYS_MAX),
            leases: Bounded::new(KEYS_MAX),
            spenders: crate::quotas::Memory::default(),
            complained_at: std::cell::Cell::new(None),
        }
    }
}

/// How a limit is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method<'a> {
    /// Approximately, through KV.
    Rough,
    /// Exactly ([`leased`]).
    Exact,
    /// By the limiter the host has bound under this name ([`native`]).
    Native(&'a str),
}

impl Method<'_> {
    /// How limits are counted that do not say how.
    pub(crate) fn of_host<P: Platform>(platform: &P) -> Self {
        match platform.is_short_lived() {
            true => Self::Exact,
            false => Self::Rough,
        }
    }
}

/// One limit as it applies to one request.
#[derive(Debug, Clone, Copy)]
pub struct Limit<'a> {
    /// `per-client`, the limit's own name, or the tool's: what a refused client is told.
    pub name: &'a str,
    /// How often.
    pub rate: Rate,
    /// Who or what is counted apart, as hexadecimal digits.
    pub subject: &'a str,
    /// As how many requests it counts.
    pub cost: u32,
    /// How it is counted.
    pub method: Method<'a>,
    /// Whether it counts this principal or client alone, who may so be told what is left.
    pub own: bool,
}

/// Admits one request within all of `limits`, or counts it in none. Says in `standings` how
/// they stand then.
pub async fn admit<P: Platform>(
    platform: &Rc<P>,
    memory: &Rc<crate::memory::Memory>,
    limits: &[Limit<'_>],
    standings: &mut Standings,
) -> Result<(), Error> {
    let isolate = memory.limits.isolate(platform.as_ref());
    let natively = limits
        .iter()
        .map(|limit| native::decide(platform, memory, limit));
    let natively = join_all(natively).await;
    // What the host has not counted is counted here.
    let (mut exact, mut rough) = (Vec::new(), Vec::new());
    for (limit, _) in limits.iter().zip(&natively).filter(|(_, by)| by.is_none()) {
        match (limit.method, Method::of_host(platform.as_ref())) {
            (Method::Exact, _) | (Method::Native(_), Method::Exact) => exact.push(limit),
            (Method::Rough | Method::Native(_), _) => rough.push(limit),
        }
    }
    let counting: Vec<Counting<'_, P>> = rough
        .iter()
        .map(|limit| Counting::of(platform, memory, isolate, limit))
        .collect();
    join_all(counting.iter().map(Counting::see_others)).await;
    let asked = natively.iter().zip(limits);
    let asked = asked.filter_map(|(decision, limit)| Some(((*decision)?, limit.name)));
    let asked: Vec<(Decision, &str)> = asked.collect();
    let decided = |now| {
        let counted = counting.iter().map(move |counting| counting.decide(now));
        let counted = counted.zip(rough.iter().map(|limit| limit.name));
        counted.chain(asked.iter().copied())
    };
    let now = platform.clock().now();
    // Who is refused anyway takes nothing from others.
    let needs: Vec<_> = match decided(now).find_map(refusal) {
        Some(_) => Vec::new(),
        None => exact.iter().map(|limit| leased::need(limit, now)).collect(),
    };
    let provided = leased::provide(platform.as_ref(), memory, &needs).await;
    if provided.is_err() {
        leased::give_back_later(platform, memory, &needs, true);
    }
    provided?;
    // From here on nothing is awaited: what was decided is what is counted.
    let now = platform.clock().now();
    let exactly = exact.iter().take(needs.len());
    let exactly = exactly.map(|limit| (leased::decide(memory, limit, now), limit.name));
    let refused = decided(now).chain(exactly).filter_map(refusal);
    // The longest wait: after it, none of the limits is in the way.
    let refused = refused.max();
    for (counting, limit) in counting.iter().zip(&rough) {
        if refused.is_none() {
            counting.count(now);
        }
        counting.synchronise_later(now);
        note(standings, limit, Some(counting.remaining(now)), now);
    }
    for limit in &exact {
        if refused.is_none() {
            leased::count(memory, limit, now);
        }
        note(standings, limit, leased::remaining(memory, limit, now), now);
    }
    leased::give_back_later(platform, memory, &needs, refused.is_some());
    match refused {
        None => Ok(()),
        Some((retry_after, limit)) => Err(Rejection::RateLimited {
            limit: limit.to_owned(),
            retry_after,
        }
        .into()),
    }
}

/// How long whoever is refused is to wait, and the limit's name.
fn refusal((decision, name): (Decision, &str)) -> Option<(Duration, &str)> {
    match decision {
        Decision::Admit => None,
        Decision::Refuse { retry_after } => Some((retry_after, name)),
    }
}

fn note(standings: &mut Standings, limit: &Limit<'_>, remaining: Option<u64>, now: Timestamp) {
    if let Some(remaining) = remaining.filter(|_| limit.own) {
        standings.note(Standing {
            name: limit.name.to_owned(),
            rate: limit.rate,
            remaining,
            reset: window::rest(limit.rate, now),
        });
    }
}

impl Memory {
    fn isolate<P: Platform>(&self, platform: &P) -> &IsolateId {
        self.isolate.get_or_init(|| {
            let mut random = [0; 8];
            platform.random(&mut random);
            IsolateId::of(random)
        })
    }

    /// Looks at the counter of `subject`, which begins at nothing.
    fn with<T>(&self, subject: &Subject, look: impl FnOnce(&mut Counter) -> T) -> T {
        let mut counter = self
            .counters
            .with(subject, std::mem::take)
            .unwrap_or_default();
        let seen = look(&mut counter);
        let mut changed = Some(counter);
        self.counters.with(subject, |kept| {
            changed.take().map(|changed| *kept = changed)
        });
        if let Some(counter) = changed {
            self.counters.insert(subject.clone(), counter);
        }
        seen
    }

    /// Makes the counter of `subject` the last to make room.
    fn renew(&self, subject: &Subject) {
        if let Some(counter) = self.counters.remove(subject) {
            self.counters.insert(subject.clone(), counter);
        }
    }

    /// Says that a store or a limiter does not answer, if that is worth a line now.
    fn complain<P: Platform>(&self, platform: &P, reason: &str) {
        let now = platform.clock().now();
        let recently = self
            .complained_at
            .get()
            .is_some_and(|at| at <= now && now.since(at) < COMPLAINT_INTERVAL);
        if !recently {
            self.complained_at.set(Some(now));
            let line = serde_json::json!({ "event": "rate_counts_unavailable", "reason": reason });
            platform.log(LogLevel::Warn, &line.to_string());
        }
    }
}
