//! When one counter looks, reports and waits.

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
        assert!(!counter.must_look(RATE, START, 1));
        counter.count(RATE, START, 1);
        assert_eq!(counter.plan(RATE, START, &isolate(1)), None);
    }
    assert!(counter.must_look(RATE, START, 1));
    counter.count(RATE, START, 1);
    assert_eq!(counter.plan(RATE, START, &isolate(1)), Some(Due::Look));
}

#[test]
fn a_short_window_is_counted_alone() {
    let rate = Rate {
        requests: 5,
        window_ms: 9_999,
    };
    let mut counter = Counter::default();
    for _ in 0..5 {
        assert!(!counter.must_look(rate, START, 1));
        counter.count(rate, START, 1);
        assert_eq!(counter.plan(rate, START, &isolate(1)), None);
    }
    assert_eq!(counter.counts(rate, START, &isolate(1)).current, 5);
}

#[test]
fn one_report_at_a_time_and_never_sooner_than_the_interval() {
    let (mut counter, isolate) = busy_counter();
    let plan = |counter: &mut Counter, now| counter.plan(RATE, now, &isolate);
    assert_eq!(
        plan(&mut counter, START),
        Some(Due::Report(REPORT_INTERVAL))
    );
    assert_eq!(plan(&mut counter, START), None, "one is on its way");
    let report = counter.report(RATE, START, &isolate, 128).unwrap();
    let end = START + Duration::from_secs(5);
    admit_20(&mut counter, end);
    assert_eq!(plan(&mut counter, end), None, "it is still on its way");
    assert_eq!(counter.report(RATE, end, &isolate, 0), None);
    counter.reported(report, end);
    counter.done();
    assert_eq!(
        plan(&mut counter, end),
        Some(Due::Report(REPORT_INTERVAL * 3 / 2))
    );
    let soon = end + REPORT_INTERVAL - Duration::from_millis(1);
    assert_eq!(counter.report(RATE, soon, &isolate, 0), None);
    let then = end + REPORT_INTERVAL;
    let report = counter.report(RATE, then, &isolate, 0).unwrap();
    counter.reported(report, then);
    counter.done();
    assert_eq!(plan(&mut counter, then), None, "nothing new to say");
}

#[test]
fn a_report_that_never_ended_holds_the_next_up_for_as_long_as_it_may_linger() {
    let (mut counter, isolate) = busy_counter();
    assert!(counter.report(RATE, START, &isolate, 0).is_some());
    let over = START + seat::WRITE_TIME_MAX;
    counter.looked(over, 0);
    let just = over - Duration::from_millis(1);
    assert_eq!(counter.plan(RATE, just, &isolate), None);
    assert_eq!(
        counter.plan(RATE, over, &isolate),
        Some(Due::Report(REPORT_DELAY_MAX))
    );
    assert_eq!(counter.report(RATE, over, &isolate, 0), None);
    let then = over + REPORT_INTERVAL;
    assert!(counter.report(RATE, then, &isolate, 0).is_some());
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
        Some(Due::Report(WRITE_SHARE * 32))
    );
}

#[test]
fn a_store_that_did_not_take_a_report_is_left_alone_for_a_while() {
    let (mut counter, isolate) = busy_counter();
    assert!(counter.report(RATE, START, &isolate, 0).is_some());
    counter.failed(START);
    counter.done();
    assert_eq!(
        counter.plan(RATE, START, &isolate),
        Some(Due::Report(REPORT_DELAY_MAX))
    );
    let then = START + REPORT_DELAY_MAX;
    let soon = then - Duration::from_millis(1);
    assert_eq!(counter.report(RATE, soon, &isolate, 0), None);
    let report = counter.report(RATE, then, &isolate, 0).unwrap();
    counter.reported(report, then);
    counter.done();
    admit_20(&mut counter, then);
    counter.looked(then, 0);
    assert_eq!(
        counter.plan(RATE, then, &isolate),
        Some(Due::Report(REPORT_INTERVAL))
    );
}

#[test]
fn in_a_new_term_everything_is_reported_to_the_new_slot() {
    let (mut counter, isolate) = busy_counter();
    let report = counter.report(RATE, START, &isolate, 0).unwrap();
    assert_eq!(report.slot, 0);
    counter.reported(report, START);
    counter.done();
    assert_eq!(counter.plan(RATE, START, &isolate), None);
    let rate = Rate {
        window_ms: 3_600_000,
        ..RATE
    };
    let next = START + seat::TERM;
    let mut counter = Counter {
        own: at(rate, next, 20),
        reported: at(rate, next, 20),
        ..counter
    };
    counter.looked(next, 0);
    assert_eq!(counter.report(rate, next, &isolate, 0), None, "not ours");
    assert!(counter.plan(rate, next, &isolate).is_some());
    counter.draw(seat::term(next), 4);
    counter.seat.has_read(3);
    assert_eq!(
        counter
            .report(rate, next, &isolate, 0)
            .map(|report| report.slot),
        Some(3)
    );
}

#[test]
fn a_report_waits_for_the_next_term_while_the_slots_rest() {
    let (mut counter, isolate) = busy_counter();
    let late = START + seat::TERM - Duration::from_secs(7);
    counter.looked(late, 0);
    admit_20(&mut counter, late);
    assert_eq!(counter.report(RATE, late, &isolate, 0), None);
    assert_eq!(
        counter.plan(RATE, late, &isolate),
        Some(Due::Report(Duration::from_secs(7) + REPORT_INTERVAL))
    );
}

#[test]
fn without_a_seat_nothing_is_reported() {
    let (mut counter, isolate) = busy_counter();
    counter.draw(seat::term(START), seat::SEATS as i64 + 1);
    counter.seat.has_read(seat::SEATS);
    assert_eq!(counter.plan(RATE, START, &isolate), None);
    assert_eq!(counter.report(RATE, START, &isolate, 0), None);
}

#[test]
fn what_others_did_is_passed_on_where_they_do_not_see_each_other() {
    let isolate = isolate(1);
    for (number, others, passes_on) in [(1, 2, false), (9, 2, true), (1, 8, true)] {
        let mut counter = Counter::default();
        counter.looked(START, 0);
        counter.draw(seat::term(START), number);
        counter.seat.has_read(number as usize - 1);
        for _ in 0..6 {
            counter.learn(&grown(others, 6), RATE, START, &isolate);
        }
        let report = counter.report(RATE, START, &isolate, 0);
        assert_eq!(report.is_some(), passes_on, "{number} {others}");
        if let Some(report) = report {
            counter.reported(report, START);
        }
        let later = START + REPORT_INTERVAL;
        assert_eq!(counter.report(RATE, later, &isolate, 0), None, "only once");
    }
}

#[test]
fn a_counter_that_was_forgotten_resumes_from_its_report() {
    let (mut counter, isolate) = busy_counter();
    let report = counter.report(RATE, START, &isolate, 0).unwrap();
    let mut fresh = Counter::default();
    fresh.learn(&report.all, RATE, START, &isolate);
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
    assert!(counter.must_look(RATE, before, 1));
    assert!(counter.plan(RATE, before, &isolate).is_some());
    counter.draw(seat::term(before), 1);
    counter.seat.has_read(0);
    assert!(counter.report(RATE, before, &isolate, 0).is_some());
}

fn admit_20(counter: &mut Counter, now: Timestamp) {
    for _ in 0..20 {
        counter.count(RATE, now, 1);
    }
}

fn busy_counter() -> (Counter, IsolateId) {
    let mut counter = Counter::default();
    counter.looked(START, 0);
    counter.draw(seat::term(START), 1);
    counter.seat.has_read(0);
    admit_20(&mut counter, START);
    (counter, isolate(1))
}

fn crowd(size: u64) -> Cells {
    grown(size, 1)
}

fn grown(size: u64, count: u32) -> Cells {
    let mut cells = Cells::default();
    for number in 0..size {
        cells.raise(&isolate(100 + number), &at(RATE, START, count));
    }
    cells
}

fn at(rate: Rate, now: Timestamp, count: u32) -> Cell {
    let mut cell = Cell::default();
    (0..count).for_each(|_| cell.count(window::bucket(rate, now), 1));
    cell
}

fn isolate(number: u64) -> IsolateId {
    IsolateId::of(number.to_be_bytes())
}
