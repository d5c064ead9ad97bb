//! One writer to a key at a time, whatever the isolates know of each other: never two
//! writes of one key within a second, by whomever.

use std::time::Duration;

use tidegate_gateway::config::Rate;
use tidegate_gateway::limits::seat::{CLOCK_SKEW_MAX, REST, SEATS, TERM, WRITE_TIME_MAX};
use tidegate_gateway::limits::{HIDDEN_SHARE, REPORT_INTERVAL};
use tidegate_gateway::platform::Clock;
use tidegate_gateway::time::Timestamp;
use tidegate_simulator::Fault;

use super::fleet::Fleet;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any test: nobody ever sees what another wrote.
const BLIND: Duration = Duration::from_secs(100_000);
/// Room for all that is asked here.
const RATE: Rate = Rate {
    requests: 2 * HIDDEN_SHARE,
    window_ms: 60_000,
};

#[test]
fn isolates_that_start_at_once_and_never_see_each_other_share_no_key() {
    for isolates in [1, 4, 50, 64, 65, 200] {
        let fleet = before_the_end_of_a_term(isolates, BLIND, SECOND * 90);
        ask_all(&fleet, 240, SECOND / 2);
        assert_one_writer(&fleet);
        let (_, writes) = fleet.operations();
        let seated = isolates.min(SEATS) as u64;
        assert!(
            writes >= seated * 20,
            "{isolates} isolates: {writes} writes"
        );
        assert_eq!(
            fleet.atomic_operations(),
            isolates * 2,
            "each draws once in a term"
        );
    }
}

#[test]
fn clocks_that_differ_and_writes_that_linger_bring_no_two_writers_together() {
    for (skew, linger) in [
        (CLOCK_SKEW_MAX, Duration::ZERO),
        (CLOCK_SKEW_MAX, WRITE_TIME_MAX),
        (Duration::ZERO, WRITE_TIME_MAX),
    ] {
        let fleet = before_the_end_of_a_term(50, BLIND, SECOND * 100);
        for (number, (isolate, _)) in fleet.isolates.iter().enumerate() {
            // Early and late ones in turn, and so with the slow.
            let late = number * 7 % 50;
            isolate.clock.early.set(skew * late as u32 / 49);
            isolate.linger(linger * (49 - late as u32) / 49);
        }
        ask_all(&fleet, 500, SECOND * 2 / 5);
        assert_one_writer(&fleet);
        assert!(fleet.operations().1 > 50 * 5);
    }
}

#[test]
fn a_slot_whose_writer_has_gone_is_nobody_elses_in_its_term() {
    let mut fleet = before_the_end_of_a_term(8, SECOND, SECOND * 150);
    for round in 0..20 {
        ask_all(&fleet, 16, SECOND / 2);
        fleet.replace(round % 8);
    }
    assert_one_writer(&fleet);
}

#[test]
fn a_number_that_was_drawn_but_not_heard_of_is_lost_and_nobody_elses() {
    let fleet = before_the_end_of_a_term(6, SECOND, SECOND * 200);
    for (isolate, _) in &fleet.isolates[..3] {
        isolate
            .sim
            .atomic
            .faults
            .arrange("seat", 2, Fault::FailButPersist);
    }
    ask_all(&fleet, 20, SECOND / 2);
    assert_eq!(fleet.atomic_operations(), 6, "asking is not repeated soon");
    ask_all(&fleet, 160, SECOND / 2);
    assert_eq!(fleet.atomic_operations(), 6 + 6, "but later");
    assert_one_writer(&fleet);
}

#[test]
fn without_the_linearizable_store_each_isolate_counts_alone_and_writes_nothing() {
    let rate = Rate {
        requests: 10,
        ..RATE
    };
    let fleet = before_the_end_of_a_term(3, SECOND, SECOND * 300);
    let outage = |outage| {
        for (isolate, _) in &fleet.isolates {
            isolate.sim.atomic.faults.outage(outage);
        }
    };
    outage(true);
    for isolate in 0..3 {
        let asked = (0..20).filter(|_| fleet.ask(isolate, &[("t", rate)]).is_ok());
        assert_eq!(asked.count(), 10);
    }
    fleet.advance(SECOND * 20);
    assert_eq!(fleet.operations().1, 0);
    assert_eq!(fleet.atomic_operations(), 3);
    outage(false);
    for _ in 0..3 {
        fleet.advance(SECOND * 15);
        for isolate in 0..3 {
            assert!(fleet.ask(isolate, &[("t", rate)]).is_err());
        }
    }
    fleet.advance(REPORT_INTERVAL * 2);
    assert_eq!(fleet.operations().1, 3, "its return is noticed");
}

#[test]
fn seats_are_drawn_once_in_a_term_and_for_those_only_who_report() {
    let fleet = before_the_end_of_a_term(2, SECOND, TERM);
    let quiet = Rate {
        requests: 100 * HIDDEN_SHARE,
        ..RATE
    };
    for _ in 0..3600 {
        let _ = fleet.ask(0, &[("busy", RATE), ("quiet", quiet)]);
        fleet.advance(SECOND);
    }
    // An hour touches seven terms where it begins within one.
    assert_eq!(fleet.atomic_operations(), 6);
}

fn assert_one_writer(fleet: &Fleet) {
    fleet.advance(REST * 3);
    assert_eq!(fleet.too_fast(), [""; 0]);
    let interval = fleet.least_interval();
    assert!(
        interval.is_some_and(|interval| interval >= SECOND),
        "{interval:?}"
    );
}

/// Isolates at a time that is `left` before a term ends.
fn before_the_end_of_a_term(isolates: usize, lag: Duration, left: Duration) -> Fleet {
    let fleet = Fleet::new(isolates, lag, isolates as u64);
    let term = TERM.as_millis() as u64;
    let end = Timestamp((fleet.clock.now().0 / term + 2) * term);
    fleet.advance_to(end - left);
    fleet
}

/// Asks every isolate at the same time, `times` times.
fn ask_all(fleet: &Fleet, times: usize, apart: Duration) {
    for _ in 0..times {
        for isolate in 0..fleet.isolates.len() {
            let _ = fleet.ask(isolate, &[("t", RATE)]);
        }
        fleet.advance(apart);
    }
}
