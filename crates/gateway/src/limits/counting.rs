//! One limit being applied by one isolate: the counter and the ports around it.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use sha2::{Digest, Sha256};

use super::cells::IsolateId;
use super::counter::{Counter, Due};
use super::seat::{self, Standing};
use super::window::{self, Counts, Decision};
use super::{Limit, RateFamily, RateRecord, SeatFamily};
use crate::config::Rate;
use crate::keyspace::{Family, Key, ReadError, atomic_add, kv_get};
use crate::memory::Memory;
use crate::platform::{Clock, KvStore, Platform};
use crate::seal::hex;
use crate::time::Timestamp;

/// Longest a request waits for the others' counts.
pub const LOOK_TIMEOUT: Duration = Duration::from_millis(500);
/// How much longer than two windows a record is kept.
const LIFETIME_MARGIN: Duration = Duration::from_secs(60);

/// One limit being applied by this isolate.
pub(super) struct Counting<'a, P> {
    platform: &'a Rc<P>,
    memory: &'a Rc<Memory>,
    isolate: &'a IsolateId,
    rate: Rate,
    cost: u32,
    subject: Subject,
}

impl<'a, P: Platform> Counting<'a, P> {
    /// A limit of a request, whether that is admitted or not.
    pub(super) fn of(
        platform: &'a Rc<P>,
        memory: &'a Rc<Memory>,
        isolate: &'a IsolateId,
        limit: &Limit<'_>,
    ) -> Self {
        let subject = Subject::of(limit);
        memory.limits.renew(&subject);
        Self {
            platform,
            memory,
            isolate,
            rate: limit.rate,
            cost: limit.cost,
            subject,
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Counter) -> T) -> T {
        self.memory.limits.with(&self.subject, look)
    }

    pub(super) fn decide(&self, now: Timestamp) -> Decision {
        window::decide(self.counts(now), self.rate, self.cost, now)
    }

    /// How much of the limit is left.
    pub(super) fn remaining(&self, now: Timestamp) -> u64 {
        window::remaining(self.counts(now), self.rate, now)
    }

    fn counts(&self, now: Timestamp) -> Counts {
        self.with(|counter| counter.counts(self.rate, now, self.isolate))
    }

    pub(super) fn count(&self, now: Timestamp) {
        self.with(|counter| counter.count(self.rate, now, self.cost));
    }

    /// Learns the others' counts if going on without them would be going blind. Of several
    /// requests at once one looks, and the others wait for it.
    pub(super) async fn see_others(&self) {
        let looks_no_more = || {
            let now = self.platform.clock().now();
            !self.with(|counter| counter.must_look(self.rate, now, self.cost))
        };
        let flight = self.with(|counter| counter.looking.clone());
        let fetching = flight.board(self.platform.as_ref(), looks_no_more).await;
        if fetching.is_some() {
            let looking = pin!(self.look_at_all());
            let limit = pin!(self.platform.clock().sleep(LOOK_TIMEOUT));
            if let Either::Right(_) = select(looking, limit).await {
                let now = self.platform.clock().now();
                // The next requests need not wait for it again.
                self.with(|counter| counter.looked(now, 0));
                self.complain("no answer in time");
            }
        }
    }

    /// Reads the slots that are this isolate's to read, and takes over what they know more
    /// of.
    async fn look_at_all(&self) {
        let now = self.platform.clock().now();
        let slots: Vec<usize> =
            self.with(|counter| counter.neighbours(now, self.isolate).collect());
        join_all(slots.into_iter().map(|slot| self.look(slot))).await;
        let (now, [jitter]) = (self.platform.clock().now(), self.random());
        self.with(|counter| counter.looked(now, jitter));
    }

    async fn look(&self, slot: usize) {
        let read = kv_get(self.platform.kv(), &self.subject.slot(slot)).await;
        let now = self.platform.clock().now();
        let found = match read {
            Ok(found) => found,
            Err(e) => {
                self.complain(&e.to_string());
                match e {
                    ReadError::Unavailable(_) => return,
                    // Nothing that is worth keeping.
                    ReadError::Unreadable { .. } => None,
                }
            }
        };
        let known = |record: &RateRecord| record.v == 1 && record.window_ms == self.rate.window_ms;
        self.with(|counter| {
            if let Some(record) = found.filter(known) {
                counter.learn(&record.cells, self.rate, now, self.isolate);
            }
            counter.seat.has_read(slot);
        });
    }

    /// Draws a number if this isolate has none in this term. Whatever comes of it, a number
    /// is nobody else's: one that was drawn but not heard of is lost.
    async fn take_seat(&self) {
        let now = self.platform.clock().now();
        let waiting = |counter: &mut Counter| {
            let waiting = counter.seat.standing(now) == Standing::Waiting;
            if waiting {
                counter.seat.ask(now);
            }
            waiting
        };
        if !seat::rest(now).is_zero() || !self.with(waiting) {
            return;
        }
        let term = seat::term(now);
        let (key, kept_until) = (self.subject.seat(term), seat::kept_until(term));
        match atomic_add(self.platform.atomic(), &key, 1, kept_until).await {
            Ok(count) => self.with(|counter| counter.draw(term, count)),
            Err(e) => self.complain(&e.to_string()),
        }
    }

    /// Writes what the others should know, if there is something. `false`: the store did
    /// not take it.
    async fn report(&self) -> bool {
        let now = self.platform.clock().now();
        let [jitter] = self.random();
        let due = self.with(|counter| counter.report(self.rate, now, self.isolate, jitter));
        let Some(mut report) = due else { return true };
        let window_ms = self.rate.window_ms;
        let record = RateRecord {
            v: 1,
            window_ms,
            cells: std::mem::take(&mut report.all),
        };
        let Ok(bytes) = serde_json::to_vec(&record) else {
            return false;
        };
        let lifetime = Duration::from_millis(window_ms.saturating_mul(2)) + LIFETIME_MARGIN;
        let key = self.subject.slot(report.slot);
        let taken = self
            .platform
            .kv()
            .put(key.as_str(), bytes.into(), Some(lifetime))
            .await;
        let now = self.platform.clock().now();
        match &taken {
            Ok(()) => self.with(|counter| counter.reported(report, now)),
            Err(e) => {
                self.with(|counter| counter.failed(now));
                self.complain(&e.to_string());
            }
        }
        taken.is_ok()
    }

    /// Has the work that is due, if any, done after the response.
    pub(super) fn synchronise_later(&self, now: Timestamp) {
        let due = self.with(|counter| counter.plan(self.rate, now, self.isolate));
        let Some(due) = due else { return };
        let (platform, memory) = (Rc::clone(self.platform), Rc::clone(self.memory));
        let (rate, cost, subject) = (self.rate, self.cost, self.subject.clone());
        let isolate = self.isolate.clone();
        self.platform.defer(async move {
            let (platform, memory, isolate) = (&platform, &memory, &isolate);
            let counting = Counting {
                platform,
                memory,
                isolate,
                rate,
                cost,
                subject,
            };
            counting.synchronise(due).await;
        });
    }

    async fn synchronise(&self, due: Due) {
        let went_well = match due {
            Due::Look => {
                self.look_at_all().await;
                true
            }
            Due::Report(delay) => {
                self.platform.clock().sleep(delay).await;
                self.sit_and_report().await
            }
        };
        self.with(Counter::done);
        // What was admitted while this was under way; but a store that fails is left alone
        // until the next request.
        if went_well {
            self.synchronise_later(self.platform.clock().now());
        }
    }

    async fn sit_and_report(&self) -> bool {
        self.take_seat().await;
        let now = self.platform.clock().now();
        let is_unread = || self.with(|counter| counter.seat.is_unread(now));
        if is_unread() || self.with(|counter| counter.is_old(self.rate, now)) {
            self.look_at_all().await;
        }
        if is_unread() {
            self.with(|counter| counter.failed(now));
            return false;
        }
        self.report().await
    }

    fn random<const N: usize>(&self) -> [u8; N] {
        let mut random = [0; N];
        self.platform.random(&mut random);
        random
    }

    fn complain(&self, reason: &str) {
        self.memory.limits.complain(self.platform.as_ref(), reason);
    }
}

/// What is counted: a limit and whom it counts apart. Both parts are hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    pub(crate) limit: String,
    pub(crate) who: String,
}

impl Subject {
    /// A changed window makes another subject: its buckets have other numbers.
    pub(super) fn of(limit: &Limit<'_>) -> Self {
        let mut hash = Sha256::new();
        hash.update(limit.rate.window_ms.to_be_bytes());
        hash.update(limit.name);
        Self {
            limit: hex(&hash.finalize()[..8]),
            who: limit.subject.to_owned(),
        }
    }

    fn slot(&self, slot: usize) -> Key<RateFamily> {
        Key::of(&[&self.limit, &self.who, &slot.to_string()])
    }

    /// A key of another family for the same subject.
    pub(super) fn key<F: Family>(&self, number: u64) -> Key<F> {
        Key::of(&[&self.limit, &self.who, &number.to_string()])
    }

    fn seat(&self, term: u64) -> Key<SeatFamily> {
        self.key(term)
    }
}
