//! One isolate's counter for one limit and principal: what it admitted, what it has seen
//! of others, and what is due next. Pure; the ports are one level up.

use std::time::Duration;

use super::SLOTS;
use super::cells::{Cell, Cells, IsolateId};
use super::window::{self, Counts};
use crate::config::Rate;
use crate::time::Timestamp;

/// Shortest time between two reports of one counter. Jitter makes it up to twice as long.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// Time between two writes of one key by all isolates together, once they know each other.
pub const WRITE_SHARE: Duration = Duration::from_secs(1);
/// Longest time between two reports, before jitter: deferred work is bounded in time.
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

/// Most doublings of the interval while the store takes no reports.
const PATIENCE_MAX: u32 = 4;
/// How long deferred work may take before it counts as lost.
const WORK_MAX: Duration = Duration::from_secs(10);

/// Oldest knowledge of the others that is acted on; it is renewed after half to all of this.
pub fn look_interval(rate: Rate) -> Duration {
    Duration::from_millis(rate.window_ms / 2).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX)
}

#[derive(Debug, Default)]
pub(super) struct Counter {
    /// What this isolate admitted. No other count of it is right.
    own: Cell,
    /// What the store is known to have of it.
    reported: Cell,
    /// What the store is known to have of everybody.
    seen: Cells,
    /// Other isolates in the record read last, however old.
    peers: usize,
    look: Last,
    report: Last,
    /// Reports in a row the store did not take.
    refused: u32,
    /// Until when deferred work is taken to be on its way.
    busy_until: Option<Timestamp>,
}

/// When something was last done, and how much longer than necessary to wait before it is
/// done again, in 256ths. Isolates that move in step overwrite each other for ever, so each
/// waits for a time of its own, drawn anew each time.
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

    /// Counts one admission; whether it is the first of its bucket.
    pub(super) fn count(&mut self, rate: Rate, now: Timestamp) -> bool {
        let bucket = window::bucket(rate, now);
        self.own.count(bucket);
        self.own.forget(bucket);
        self.own.counts(bucket).current == 1
    }

    /// Whether one more admission without looking would be blind.
    pub(super) fn must_look(&self, rate: Rate, now: Timestamp) -> bool {
        self.is_used(rate, now, 1) && is_over(self.look.at, look_interval(rate), now)
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

    /// Takes over what a record knows more of. Gives what it has of this isolate.
    pub(super) fn learn(
        &mut self,
        cells: &Cells,
        rate: Rate,
        now: Timestamp,
        isolate: &IsolateId,
    ) -> Cell {
        let stored = cells.get(isolate).cloned().unwrap_or_default();
        // More than we remember: this counter had been forgotten.
        self.own.raise(&stored);
        self.peers = cells.others(isolate);
        self.seen.merge(cells);
        self.seen.forget(window::bucket(rate, now), isolate);
        stored
    }

    /// After a look at all slots: `stored` is what they have of this isolate. Others write
    /// to the same slots, so what was reported may have been overwritten; alone it cannot be.
    pub(super) fn verify(&mut self, stored: Cell, isolate: &IsolateId) {
        if self.peers > 0 || self.seen.others(isolate) > 0 {
            self.reported = stored;
        }
    }

    /// What to write now, if anything is due: our cell, and with it all that we know.
    pub(super) fn report(
        &mut self,
        rate: Rate,
        now: Timestamp,
        isolate: &IsolateId,
        jitter: u8,
    ) -> Option<(Cell, Cells)> {
        if !self.is_behind(rate, now)
            || !is_over(self.report.at, self.report_interval(isolate), now)
        {
            return None;
        }
        self.report = Last {
            at: Some(now),
            jitter,
        };
        let own = self.own.clone();
        self.seen.raise(isolate, &own);
        self.seen.forget(window::bucket(rate, now), isolate);
        Some((own, self.seen.clone()))
    }

    /// The store has taken `own`, or it has not.
    pub(super) fn reported(&mut self, own: Option<Cell>) {
        match own {
            Some(own) => (self.reported, self.refused) = (own, 0),
            None => self.refused = self.refused.saturating_add(1),
        }
    }

    /// After how long deferred work is to begin, if any is due and none is on its way.
    pub(super) fn plan(
        &mut self,
        rate: Rate,
        now: Timestamp,
        isolate: &IsolateId,
    ) -> Option<Duration> {
        let busy = |until: Timestamp| now < until && until.since(now) <= REPORT_DELAY_MAX * 3;
        if self.busy_until.is_some_and(busy) || !is_shared(rate) {
            return None;
        }
        let delay = if self.is_used(rate, now, 0) && self.is_old(rate, now) {
            Duration::ZERO
        } else if self.is_behind(rate, now) {
            jittered(self.report_interval(isolate), self.report.jitter)
        } else {
            return None;
        };
        self.busy_until = Some(now + delay + WORK_MAX);
        Some(delay)
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

    fn is_behind(&mut self, rate: Rate, now: Timestamp) -> bool {
        let bucket = window::bucket(rate, now);
        self.own.forget(bucket);
        self.reported.forget(bucket);
        self.own.ahead_of(&self.reported) > hidden(rate)
    }

    /// Least time between two reports: longer the more isolates write to a slot, and doubled
    /// for each report in a row that the store did not take.
    fn report_interval(&self, isolate: &IsolateId) -> Duration {
        let others = self.peers.max(self.seen.others(isolate));
        let isolates = u32::try_from(others + 1).unwrap_or(u32::MAX);
        let share = WRITE_SHARE * isolates / SLOTS as u32;
        let patience = 1 << self.refused.min(PATIENCE_MAX);
        (share.max(REPORT_INTERVAL) * patience).min(REPORT_DELAY_MAX)
    }
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
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        requests: 320,
        window_ms: 60_000,
    };
    const START: Timestamp = Timestamp(600_000);

    #[test]
    fn a_principal_that_uses_little_costs_the_store_nothing() {
        let mut counter = Counter::default();
        for _ in 0..hidden(RATE) {
            assert!(!counter.must_look(RATE, START));
            counter.count(RATE, START);
            assert_eq!(counter.plan(RATE, START, &isolate(1)), None);
        }
        assert!(counter.must_look(RATE, START));
        counter.count(RATE, START);
        assert_eq!(counter.plan(RATE, START, &isolate(1)), Some(Duration::ZERO));
    }

    #[test]
    fn a_short_window_is_counted_alone() {
        let rate = Rate {
            requests: 5,
            window_ms: 9_999,
        };
        let mut counter = Counter::default();
        for _ in 0..5 {
            assert!(!counter.must_look(rate, START));
            counter.count(rate, START);
            assert_eq!(counter.plan(rate, START, &isolate(1)), None);
        }
        assert_eq!(counter.counts(rate, START, &isolate(1)).current, 5);
    }

    #[test]
    fn one_report_at_a_time_and_never_sooner_than_the_interval() {
        let (mut counter, isolate) = busy_counter();
        assert_eq!(counter.plan(RATE, START, &isolate), Some(REPORT_INTERVAL));
        assert_eq!(
            counter.plan(RATE, START, &isolate),
            None,
            "one is on its way"
        );
        let (own, _) = counter.report(RATE, START, &isolate, 128).unwrap();
        counter.reported(Some(own));
        counter.done();
        assert_eq!(
            counter.plan(RATE, START, &isolate),
            None,
            "nothing new to say"
        );
        admit_20(&mut counter, START);
        assert_eq!(
            counter.plan(RATE, START, &isolate),
            Some(REPORT_INTERVAL * 3 / 2)
        );
        let soon = START + REPORT_INTERVAL - Duration::from_millis(1);
        assert_eq!(counter.report(RATE, soon, &isolate, 0), None);
        assert!(
            counter
                .report(RATE, START + REPORT_INTERVAL, &isolate, 0)
                .is_some()
        );
    }

    #[test]
    fn lost_work_is_planned_again() {
        let (mut counter, isolate) = busy_counter();
        assert!(counter.plan(RATE, START, &isolate).is_some());
        let later = START + REPORT_INTERVAL + WORK_MAX;
        counter.looked(later, 0);
        assert!(counter.plan(RATE, later, &isolate).is_some());
    }

    #[test]
    fn isolates_that_know_each_other_take_turns() {
        let (mut counter, isolate) = busy_counter();
        counter.learn(&crowd(31), RATE, START, &isolate);
        assert_eq!(
            counter.plan(RATE, START, &isolate),
            Some(WRITE_SHARE * 32 / SLOTS as u32)
        );
    }

    #[test]
    fn a_store_that_takes_nothing_is_asked_less_and_less_often() {
        let (mut counter, isolate) = busy_counter();
        let mut now = START;
        for seconds in [4, 8, 12, 12] {
            assert!(counter.report(RATE, now, &isolate, 0).is_some());
            counter.reported(None);
            now = now + Duration::from_secs(seconds - 1);
            assert_eq!(counter.report(RATE, now, &isolate, 0), None);
            now = now + Duration::from_secs(1);
        }
        counter.report(RATE, now, &isolate, 0).unwrap();
        counter.reported(Some(Cell::default()));
        counter.looked(now, 0);
        assert_eq!(counter.plan(RATE, now, &isolate), Some(REPORT_INTERVAL));
    }

    #[test]
    fn an_overwritten_cell_is_written_again() {
        let (mut counter, isolate) = busy_counter();
        let (own, _) = counter.report(RATE, START, &isolate, 0).unwrap();
        counter.reported(Some(own.clone()));
        let later = START + LOOK_INTERVAL_MAX;
        let stored = counter.learn(&crowd(1), RATE, later, &isolate);
        counter.verify(stored, &isolate);
        let (again, all) = counter.report(RATE, later, &isolate, 0).unwrap();
        assert_eq!(again, own);
        assert_eq!((all.get(&isolate), all.others(&isolate)), (Some(&own), 1));
    }

    #[test]
    fn a_counter_that_was_forgotten_resumes_from_its_report() {
        let (mut counter, isolate) = busy_counter();
        let (_, written) = counter.report(RATE, START, &isolate, 0).unwrap();
        let mut fresh = Counter::default();
        fresh.learn(&written, RATE, START, &isolate);
        assert_eq!(
            fresh.counts(RATE, START, &isolate),
            counter.counts(RATE, START, &isolate)
        );
    }

    #[test]
    fn a_clock_that_steps_back_wedges_nothing() {
        let (mut counter, isolate) = busy_counter();
        counter.plan(RATE, START, &isolate).unwrap();
        counter.report(RATE, START, &isolate, 0).unwrap();
        let before = Timestamp(0);
        admit_20(&mut counter, before);
        assert!(counter.must_look(RATE, before));
        assert!(counter.plan(RATE, before, &isolate).is_some());
        assert!(counter.report(RATE, before, &isolate, 0).is_some());
    }

    fn admit_20(counter: &mut Counter, now: Timestamp) {
        for _ in 0..20 {
            counter.count(RATE, now);
        }
    }

    fn busy_counter() -> (Counter, IsolateId) {
        let mut counter = Counter::default();
        counter.looked(START, 0);
        admit_20(&mut counter, START);
        (counter, isolate(1))
    }

    fn crowd(size: u64) -> Cells {
        let mut cells = Cells::default();
        for number in 0..size {
            let mut cell = Cell::default();
            cell.count(window::bucket(RATE, START));
            cells.raise(&isolate(100 + number), &cell);
        }
        cells
    }

    fn isolate(number: u64) -> IsolateId {
        IsolateId::of(number.to_be_bytes())
    }
}
