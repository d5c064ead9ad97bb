//! One isolate's counter for one limit and principal: what it admitted, what it has seen
//! of others, and what is due next. Pure; the ports are one level up.

use std::time::Duration;

use super::cells::{Cell, Cells, IsolateId};
use super::seat::{self, Seat, Standing};
use super::window::{self, Counts};
use crate::config::Rate;
use crate::flight::Flight;
use crate::time::Timestamp;

/// Shortest time from the end of one report to the next. Jitter makes it up to twice as long.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// Time between two writes for one limit and principal by all isolates together, to whatever
/// keys, once they know each other.
pub const WRITE_SHARE: Duration = Duration::from_millis(250);
/// Longest time between two reports, before jitter: deferred work is bounded in time. More
/// than a write may take to arrive.
pub const REPORT_DELAY_MAX: Duration = Duration::from_secs(12);
/// Windows shorter than this are over before a report is read; each isolate counts alone.
pub const SHARED_WINDOW_MIN: Duration = Duration::from_secs(10);
/// Shortest of all [`look_interval`]s.
pub const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(4);
/// Longest of all [`look_interval`]s.
pub const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// One isolate keeps this part of a limit to itself in each bucket: it neither reads nor
/// writes for principals that do not use more. Most do not, and cost the store nothing.
pub const HIDDEN_SHARE: u32 = 64;

/// How long deferred work may take before it counts as lost.
const WORK_MAX: Duration = seat::WRITE_TIME_MAX;
const _: () =
    assert!(REPORT_DELAY_MAX.as_millis() >= WORK_MAX.as_millis() + REPORT_INTERVAL.as_millis());
/// Longest that deferred work waits before it begins.
const DELAY_MAX: Duration = REPORT_DELAY_MAX.saturating_mul(2);

/// Oldest knowledge of the others that is acted on; it is renewed after half to all of this.
pub fn look_interval(rate: Rate) -> Duration {
    Duration::from_millis(rate.window_ms / 2).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX)
}

#[derive(Debug, Default)]
pub(super) struct Counter {
    /// What this isolate admitted. No other count of it is right.
    own: Cell,
    /// What our slot is known to have of it.
    reported: Cell,
    /// What our slot is known to have of all others together.
    passed_on: Cell,
    /// What the store is known to have of everybody.
    seen: Cells,
    /// Where to write.
    pub(super) seat: Seat,
    /// Other isolates in the record read last, however old.
    peers: usize,
    look: Last,
    report: Last,
    /// Whether the last report may still be on its way: it has not ended, or not well.
    unsettled: bool,
    /// Until when deferred work is taken to be on its way.
    busy_until: Option<Timestamp>,
    /// Whether a request is looking.
    pub(super) looking: Flight,
}

/// What deferred work is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Look at what others wrote, at once.
    Look,
    /// Write, after having waited for so long. The waiting is what keeps two writes apart
    /// even where a clock steps.
    Report(Duration),
}

/// When something was last done, and how much longer than necessary to wait before it is
/// done again, in 256ths: isolates that began together need not go on together.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    at: Option<Timestamp>,
    jitter: u8,
}

impl Counter {
    /// Everything known to be admitted, by anyone.
    pub(super) fn counts(&self, rate: Rate, now: Timestamp, isolate: &IsolateId) -> Counts {
        let bucket = window::bucket(rate, now);
        let (own, others) = (self.own.counts(bucket), self.seen.counts(bucket, isolate));
        Counts {
            current: own.current + others.current,
            previous: own.previous + others.previous,
        }
    }

    /// Counts an admission.
    pub(super) fn count(&mut self, rate: Rate, now: Timestamp, cost: u32) {
        let bucket = window::bucket(rate, now);
        self.own.count(bucket, cost);
        self.own.forget(bucket);
    }

    /// Whether an admission without looking would be blind.
    pub(super) fn must_look(&self, rate: Rate, now: Timestamp, cost: u32) -> bool {
        self.is_used(rate, now, cost.into()) && is_over(self.look.at, look_interval(rate), now)
    }

    /// Whether what is known of others is to be looked at again, unhurriedly: after half to
    /// all of the interval.
    pub(super) fn is_old(&self, rate: Rate, now: Timestamp) -> bool {
        is_over(
            self.look.at,
            jittered(look_interval(rate) / 2, self.look.jitter),
            now,
        )
    }

    pub(super) const fn looked(&mut self, now: Timestamp, jitter: u8) {
        self.look = Last {
            at: Some(now),
            jitter,
        };
    }

    /// Takes over what a record knows more of.
    pub(super) fn learn(&mut self, cells: &Cells, rate: Rate, now: Timestamp, isolate: &IsolateId) {
        if let Some(stored) = cells.get(isolate) {
            // More than we remember: this counter had been forgotten.
            self.own.raise(stored);
        }
        self.peers = cells.others(isolate);
        self.seen.merge(cells);
        self.seen.forget(window::bucket(rate, now), isolate);
    }

    /// The slots to read.
    pub(super) fn neighbours(
        &self,
        now: Timestamp,
        isolate: &IsolateId,
    ) -> impl Iterator<Item = usize> + use<> {
        self.seat.neighbours(self.isolates(isolate), now)
    }

    /// The store has given a number: the `count`th of `term`. Its slot has nothing of us.
    pub(super) fn draw(&mut self, term: u64, count: i64) {
        self.seat.draw(term, count);
        (self.reported, self.passed_on) = Default::default();
    }

    /// What to write now and where, if anything is due and may be written: our cell, and
    /// with it all that we know.
    pub(super) fn report(
        &mut self,
        rate: Rate,
        now: Timestamp,
        isolate: &IsolateId,
        jitter: u8,
    ) -> Option<Report> {
        let slot = self.seat.slot(now)?;
        if !self.is_behind(rate, now, isolate)
            || !is_over(self.report.at, self.report_interval(isolate), now)
        {
            return None;
        }
        self.report = Last {
            at: Some(now),
            jitter,
        };
        self.unsettled = true;
        self.busy_until = Some(now + WORK_MAX);
        let own = self.own.clone();
        self.seen.raise(isolate, &own);
        self.seen.forget(window::bucket(rate, now), isolate);
        let others = self.seen.sum(isolate);
        let all = self.seen.clone();
        Some(Report {
            slot,
            own,
            others,
            all,
        })
    }

    /// The store has taken the report.
    pub(super) fn reported(&mut self, report: Report, now: Timestamp) {
        (self.report.at, self.unsettled) = (Some(now), false);
        (self.reported, self.passed_on) = (report.own, report.others);
    }

    /// The store did not do as asked, or not yet: it is left alone for a while.
    pub(super) const fn failed(&mut self, now: Timestamp) {
        (self.report.at, self.unsettled) = (Some(now), true);
    }

    /// What deferred work is to do, if any is due and none is on its way.
    pub(super) fn plan(&mut self, rate: Rate, now: Timestamp, isolate: &IsolateId) -> Option<Due> {
        let busy = |until: Timestamp| now < until && until.since(now) <= DELAY_MAX + WORK_MAX;
        if self.busy_until.is_some_and(busy) || !is_shared(rate) {
            return None;
        }
        let (due, delay) = if self.is_used(rate, now, 0) && self.is_old(rate, now) {
            (Due::Look, Duration::ZERO)
        } else if self.seat.standing(now) != Standing::Refused && self.is_behind(rate, now, isolate)
        {
            let interval = jittered(self.report_interval(isolate), self.report.jitter);
            let rested = seat::rest(now) + jittered(REPORT_INTERVAL, self.report.jitter);
            let delay = interval.max(rested);
            (Due::Report(delay), delay)
        } else {
            return None;
        };
        self.busy_until = Some(now + delay + WORK_MAX);
        Some(due)
    }

    pub(super) const fn done(&mut self) {
        self.busy_until = None;
    }

    /// Whether, after `more` admissions, the principal has used more than an isolate may
    /// keep to itself.
    fn is_used(&self, rate: Rate, now: Timestamp, more: u64) -> bool {
        let own = self.own.counts(window::bucket(rate, now)).current;
        is_shared(rate) && own + more > hidden(rate)
    }

    /// Whether our slot lacks more than may be kept back: of what we admitted, or of what
    /// others did and are waiting for us to pass on.
    fn is_behind(&mut self, rate: Rate, now: Timestamp, isolate: &IsolateId) -> bool {
        let bucket = window::bucket(rate, now);
        self.own.forget(bucket);
        if self.seat.standing(now) == Standing::Waiting {
            // The slot will be another one.
            (self.reported, self.passed_on) = Default::default();
        }
        self.reported.forget(bucket);
        self.own.ahead_of(&self.reported) > hidden(rate)
            || self.seat.is_passing_on(self.isolates(isolate))
                && self.seen.sum(isolate).ahead_of(&self.passed_on) > hidden(rate)
    }

    /// How many isolates are known to count the same.
    fn isolates(&self, isolate: &IsolateId) -> usize {
        self.peers.max(self.seen.others(isolate)) + 1
    }

    /// Least time between two reports: longer the more isolates there are, and longest after
    /// one that may still be on its way.
    fn report_interval(&self, isolate: &IsolateId) -> Duration {
        if self.unsettled {
            return REPORT_DELAY_MAX;
        }
        let isolates = u32::try_from(self.isolates(isolate)).unwrap_or(u32::MAX);
        WRITE_SHARE
            .saturating_mul(isolates)
            .clamp(REPORT_INTERVAL, REPORT_DELAY_MAX)
    }
}

/// One report: where to, our cell, the sum of all others', and every cell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) slot: usize,
    own: Cell,
    others: Cell,
    pub(super) all: Cells,
}

/// `least`, and up to as much again.
fn jittered(least: Duration, jitter: u8) -> Duration {
    least + least * u32::from(jitter) / 256
}

const fn is_shared(rate: Rate) -> bool {
    rate.window_ms as u128 >= SHARED_WINDOW_MIN.as_millis()
}

const fn hidden(rate: Rate) -> u64 {
    (rate.requests / HIDDEN_SHARE) as u64
}

/// Whether `span` has passed since `then`, if there was a `then`. A clock that has stepped
/// back before it says yes.
fn is_over(then: Option<Timestamp>, span: Duration, now: Timestamp) -> bool {
    then.is_none_or(|then| now < then || now.since(then) >= span)
}

#[cfg(test)]
mod tests;
