//! One isolate's counter for one limit and principal: what it admitted, what it has seen
//! of others, and what is due next. Pure; the ports are one level up.

use std::time::Duration;

use super::SLOTS;
use super::cells::{Cell, Cells, IsolateId};
use super::window::{self, Counts};
use crate::config::Rate;
use crate::time::Timestamp;

/// Shortest time between two reports of one counter.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// Time each isolate of a slot leaves to the others: all together write a key about once
/// per second.
pub const REPORT_SHARE: Duration = Duration::from_secs(1);
/// Longest delay of a report: deferred work is bounded in time. Reached by twenty isolates
/// in one slot.
pub const REPORT_DELAY_MAX: Duration = Duration::from_secs(20);
/// Windows shorter than this are over before a report is read; each isolate counts alone.
pub const SHARED_WINDOW_MIN: Duration = Duration::from_secs(10);
/// Shortest time between two looks at the others' counts.
pub const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(2);
/// Longest time between two looks at the others' counts.
pub const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(15);
/// One isolate keeps this part of a limit to itself in each bucket: it neither reads nor
/// writes for principals that do not use more. Most do not, and cost the store nothing.
pub const HIDDEN_SHARE: u32 = 32;

/// How long deferred work may take before it counts as lost.
const WORK_MAX: Duration = Duration::from_secs(10);

/// How often the others' counts are looked at.
pub fn look_interval(rate: Rate) -> Duration {
    Duration::from_millis(rate.window_ms / 4).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX)
}

#[derive(Debug, Default)]
pub(super) struct Counter {
    /// What this isolate admitted. No other count of it is right.
    own: Cell,
    /// What the store is known to have of it.
    reported: Cell,
    slots: [Cells; SLOTS],
    looked_at: Option<Timestamp>,
    wrote_at: Option<Timestamp>,
    /// Until when deferred work is taken to be on its way.
    busy_until: Option<Timestamp>,
}

impl Counter {
    /// Everything known to be admitted, by anyone.
    pub(super) fn counts(&self, rate: Rate, now: Timestamp, isolate: &IsolateId) -> Counts {
        let bucket = window::bucket(rate, now);
        let mut sum = self.own.counts(bucket);
        for slot in &self.slots {
            let counts = slot.counts(bucket, isolate);
            sum.current += counts.current;
            sum.previous += counts.previous;
        }
        sum
    }

    pub(super) fn count(&mut self, rate: Rate, now: Timestamp) {
        let bucket = window::bucket(rate, now);
        self.own.count(bucket);
        self.own.forget(bucket);
    }

    /// Whether one more admission without looking would be blind.
    pub(super) fn must_look(&self, rate: Rate, now: Timestamp) -> bool {
        let own = self.own.counts(window::bucket(rate, now)).current;
        is_shared(rate)
            && own + 1 > hidden(rate)
            && is_over(self.looked_at, look_interval(rate) * 2, now)
    }

    /// Whether what is known of others is due to be looked at again.
    pub(super) fn is_old(&self, rate: Rate, now: Timestamp) -> bool {
        is_over(self.looked_at, look_interval(rate), now)
    }

    pub(super) const fn looked(&mut self, now: Timestamp) {
        self.looked_at = Some(now);
    }

    /// Takes over what a slot's record knows more of.
    pub(super) fn learn(
        &mut self,
        slot: usize,
        cells: &Cells,
        rate: Rate,
        now: Timestamp,
        isolate: &IsolateId,
    ) {
        let Some(known) = self.slots.get_mut(slot) else {
            return;
        };
        known.merge(cells);
        known.forget(window::bucket(rate, now), isolate);
        if slot != isolate.slot(SLOTS) {
            return;
        }
        let stored = cells.get(isolate).cloned().unwrap_or_default();
        // More than we remember: this counter had been forgotten.
        self.own.raise(&stored);
        // Others write here too, so what we wrote may be overwritten; alone it cannot be.
        if cells.others(isolate) > 0 {
            self.reported = stored;
        }
    }

    /// What to write now, if anything is due: our cell, and with it all cells of our slot.
    pub(super) fn report(
        &mut self,
        rate: Rate,
        now: Timestamp,
        isolate: &IsolateId,
    ) -> Option<(Cell, Cells)> {
        let interval = self.interval(isolate);
        if !self.is_behind(rate, now) || !is_over(self.wrote_at, interval, now) {
            return None;
        }
        let own = self.own.clone();
        let slot = self.slots.get_mut(isolate.slot(SLOTS))?;
        slot.raise(isolate, &own);
        slot.forget(window::bucket(rate, now), isolate);
        self.wrote_at = Some(now);
        Some((own, slot.clone()))
    }

    pub(super) fn reported(&mut self, own: Cell) {
        self.reported = own;
    }

    /// After how long deferred work is to begin, if any is due and none is on its way.
    pub(super) fn plan(
        &mut self,
        rate: Rate,
        now: Timestamp,
        isolate: &IsolateId,
        jitter: impl FnOnce() -> u8,
    ) -> Option<Duration> {
        let busy = self
            .busy_until
            .is_some_and(|until| now < until && until.since(now) <= REPORT_DELAY_MAX * 2);
        if busy || !is_shared(rate) {
            return None;
        }
        let own = self.own.counts(window::bucket(rate, now)).current;
        let delay = if own > hidden(rate) && self.is_old(rate, now) {
            Duration::ZERO
        } else if self.is_behind(rate, now) {
            let interval = self.interval(isolate);
            interval + interval * u32::from(jitter()) / 1024
        } else {
            return None;
        };
        self.busy_until = Some(now + delay + WORK_MAX);
        Some(delay)
    }

    pub(super) const fn done(&mut self) {
        self.busy_until = None;
    }

    fn is_behind(&mut self, rate: Rate, now: Timestamp) -> bool {
        let bucket = window::bucket(rate, now);
        self.own.forget(bucket);
        self.reported.forget(bucket);
        self.own.ahead_of(&self.reported) > hidden(rate)
    }

    fn interval(&self, isolate: &IsolateId) -> Duration {
        let others = self
            .slots
            .get(isolate.slot(SLOTS))
            .map_or(0, |slot| slot.others(isolate));
        let all = REPORT_SHARE * u32::try_from(others + 1).unwrap_or(u32::MAX);
        all.clamp(REPORT_INTERVAL, REPORT_DELAY_MAX)
    }
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
            assert_eq!(counter.plan(RATE, START, &isolate(1), || 0), None);
        }
        assert!(counter.must_look(RATE, START));
        counter.count(RATE, START);
        assert_eq!(
            counter.plan(RATE, START, &isolate(1), || 0),
            Some(Duration::ZERO)
        );
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
            assert_eq!(counter.plan(rate, START, &isolate(1), || 0), None);
        }
        assert_eq!(counter.counts(rate, START, &isolate(1)).current, 5);
    }

    #[test]
    fn one_report_at_a_time_and_never_sooner_than_the_interval() {
        let (mut counter, isolate) = busy_counter();
        assert_eq!(
            counter.plan(RATE, START, &isolate, || 255),
            Some(Duration::from_micros(2_498_046) + Duration::from_nanos(875))
        );
        assert_eq!(
            counter.plan(RATE, START, &isolate, || 0),
            None,
            "one is on its way"
        );
        let (own, _) = counter.report(RATE, START, &isolate).unwrap();
        counter.reported(own);
        counter.done();
        assert_eq!(
            counter.plan(RATE, START, &isolate, || 0),
            None,
            "nothing new to say"
        );
        (0..20).for_each(|_| counter.count(RATE, START));
        assert_eq!(
            counter.report(RATE, START + Duration::from_millis(1_999), &isolate),
            None,
            "too soon"
        );
        assert!(
            counter
                .report(RATE, START + REPORT_INTERVAL, &isolate)
                .is_some()
        );
    }

    #[test]
    fn lost_work_is_planned_again() {
        let (mut counter, isolate) = busy_counter();
        assert!(counter.plan(RATE, START, &isolate, || 0).is_some());
        let later = START + REPORT_INTERVAL + WORK_MAX;
        counter.looked(later);
        assert!(counter.plan(RATE, later, &isolate, || 0).is_some());
    }

    #[test]
    fn isolates_that_share_a_slot_take_turns() {
        let (mut counter, isolate) = busy_counter();
        let mut cells = Cells::default();
        for number in 0..8 {
            let mut cell = Cell::default();
            cell.count(window::bucket(RATE, START));
            cells.raise(&self::isolate(100 + number), &cell);
        }
        counter.learn(isolate.slot(SLOTS), &cells, RATE, START, &isolate);
        assert_eq!(
            counter.plan(RATE, START, &isolate, || 0),
            Some(REPORT_SHARE * 9)
        );
    }

    #[test]
    fn an_overwritten_cell_is_written_again() {
        let (mut counter, isolate) = busy_counter();
        let (own, written) = counter.report(RATE, START, &isolate).unwrap();
        counter.reported(own.clone());
        let mut overwritten = Cells::default();
        overwritten.raise(&self::isolate(9), &own);
        let later = START + LOOK_INTERVAL_MAX;
        counter.learn(isolate.slot(SLOTS), &overwritten, RATE, later, &isolate);
        let (again, both) = counter.report(RATE, later, &isolate).unwrap();
        assert_eq!(again, own);
        assert_eq!(both.get(&isolate), written.get(&isolate));
        assert_eq!(both.others(&isolate), 1, "and the other cell is kept");
    }

    #[test]
    fn a_counter_that_was_forgotten_resumes_from_its_report() {
        let (mut counter, isolate) = busy_counter();
        let (_, written) = counter.report(RATE, START, &isolate).unwrap();
        let mut fresh = Counter::default();
        fresh.learn(isolate.slot(SLOTS), &written, RATE, START, &isolate);
        assert_eq!(
            fresh.counts(RATE, START, &isolate),
            counter.counts(RATE, START, &isolate)
        );
    }

    #[test]
    fn a_clock_that_steps_back_wedges_nothing() {
        let (mut counter, isolate) = busy_counter();
        counter.plan(RATE, START, &isolate, || 0).unwrap();
        counter.report(RATE, START, &isolate).unwrap();
        let before = Timestamp(0);
        (0..20).for_each(|_| counter.count(RATE, before));
        assert!(counter.must_look(RATE, before));
        assert!(counter.plan(RATE, before, &isolate, || 0).is_some());
        assert!(counter.report(RATE, before, &isolate).is_some());
    }

    fn busy_counter() -> (Counter, IsolateId) {
        let mut counter = Counter::default();
        counter.looked(START);
        (0..20).for_each(|_| counter.count(RATE, START));
        (counter, isolate(1))
    }

    fn isolate(number: u64) -> IsolateId {
        IsolateId::of(number.to_be_bytes())
    }
}
