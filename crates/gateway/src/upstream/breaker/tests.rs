//! The breaker step by step.

use super::*;
use crate::config::FailureRate;

pub(super) const RULE: CircuitBreaker = CircuitBreaker {
    failure_threshold: 3,
    reset_interval_ms: 10_000,
    half_open_max_requests: 2,
    failure_rate: None,
    per_tool: false,
    shared: false,
};

#[test]
fn only_consecutive_failures_open_the_circuit() {
    let mut breaker = Breaker::default();
    for outcome in [
        Outcome::Failure,
        Outcome::Failure,
        Outcome::Success,
        Outcome::Failure,
        Outcome::Failure,
    ] {
        breaker.record(Timestamp(0), outcome, &RULE);
        assert_eq!(breaker.admit(Timestamp(0), &RULE), Admission::Pass);
    }
    breaker.record(Timestamp(0), Outcome::Failure, &RULE);
    assert!(breaker.is_open());
}

#[test]
fn an_open_circuit_says_when_it_lets_a_probe_through() {
    let mut breaker = opened(Timestamp(1_000));
    assert_eq!(breaker.admit(Timestamp(4_000), &RULE), refused(7_000));
    assert_eq!(breaker.admit(Timestamp(10_999), &RULE), refused(1));
    assert_eq!(breaker.admit(Timestamp(11_000), &RULE), Admission::Pass);
}

#[test]
fn a_half_open_circuit_lets_no_more_probes_through_than_the_rule_says() {
    let mut breaker = opened(Timestamp(0));
    assert_eq!(breaker.admit(Timestamp(10_000), &RULE), Admission::Pass);
    assert_eq!(breaker.admit(Timestamp(12_000), &RULE), Admission::Pass);
    assert_eq!(breaker.admit(Timestamp(13_000), &RULE), refused(9_000));
}

#[test]
fn the_first_outcome_of_a_probe_decides() {
    let cases = [
        (Outcome::Success, State::Closed { failures: 0 }),
        (
            Outcome::Failure,
            State::Open {
                until: Timestamp(20_500),
            },
        ),
    ];
    for (outcome, expected) in cases {
        let mut breaker = opened(Timestamp(0));
        breaker.admit(Timestamp(10_000), &RULE);
        breaker.record(Timestamp(10_500), outcome, &RULE);
        assert_eq!(breaker.state(), expected);
    }
}

#[test]
fn a_late_outcome_does_not_move_an_open_circuit() {
    for outcome in [Outcome::Success, Outcome::Failure] {
        let mut breaker = opened(Timestamp(0));
        breaker.record(Timestamp(9_000), outcome, &RULE);
        assert_eq!(
            breaker.state(),
            State::Open {
                until: Timestamp(10_000)
            }
        );
    }
}

#[test]
fn probes_that_are_never_recorded_do_not_keep_the_circuit_half_open() {
    let mut breaker = opened(Timestamp(0));
    breaker.admit(Timestamp(10_000), &RULE);
    breaker.admit(Timestamp(10_000), &RULE);
    assert_eq!(breaker.admit(Timestamp(19_999), &RULE), refused(1));
    assert_eq!(breaker.admit(Timestamp(20_000), &RULE), Admission::Pass);

    let slow = CircuitBreaker {
        reset_interval_ms: 3_600_000,
        half_open_max_requests: 1,
        ..RULE
    };
    let mut breaker = Breaker {
        state: State::HalfOpen {
            in_flight: 1,
            probed_at: Timestamp(0),
        },
        ..Breaker::default()
    };
    assert_eq!(breaker.admit(Timestamp(59_999), &slow), refused(1));
    assert_eq!(breaker.admit(Timestamp(60_000), &slow), Admission::Pass);
}

#[test]
fn a_clock_that_steps_back_does_not_prolong_a_refusal() {
    let mut breaker = opened(Timestamp(100_000));
    assert_eq!(breaker.admit(Timestamp(50_000), &RULE), refused(10_000));
    assert_eq!(breaker.admit(Timestamp(60_000), &RULE), Admission::Pass);
    assert_eq!(breaker.admit(Timestamp(30_000), &RULE), Admission::Pass);
}

#[test]
fn a_share_of_failures_opens_the_circuit_though_calls_succeed_in_between() {
    let rule = CircuitBreaker {
        failure_threshold: 1_000,
        failure_rate: Some(FailureRate {
            percent: 50,
            window_ms: 10_000,
            minimum_calls: 6,
        }),
        ..RULE
    };
    let outcome = |n: u64| match n % 2 {
        0 => Outcome::Success,
        _ => Outcome::Failure,
    };
    let mut breaker = Breaker::default();
    let opened: Vec<bool> = (0..6)
        .map(|n| breaker.record(Timestamp(n), outcome(n), &rule))
        .collect();
    assert_eq!(opened, [false, false, false, false, false, true]);

    let mut breaker = Breaker::default();
    for n in 0..100 {
        // Never six calls within the window.
        let at = Timestamp(n * 2_000);
        assert!(!breaker.record(at, outcome(n), &rule), "call {n}");
    }

    let mut breaker = Breaker::default();
    for n in 0..300 {
        let failed = n % 3 == 2;
        let outcome = [Outcome::Success, Outcome::Failure][usize::from(failed)];
        assert!(
            !breaker.record(Timestamp(n), outcome, &rule),
            "a third, at {n}"
        );
    }
}

#[test]
fn a_trip_elsewhere_is_heard_unless_a_call_has_succeeded_since() {
    let trip = Trip {
        opened_at: Timestamp(5_000),
        until: Timestamp(15_000),
    };
    let mut breaker = Breaker::default();
    assert!(breaker.hear(Timestamp(9_000), trip, &RULE));
    assert_eq!(breaker.admit(Timestamp(9_000), &RULE), refused(6_000));
    assert_eq!(breaker.admit(Timestamp(15_000), &RULE), Admission::Pass);
    breaker.record(Timestamp(15_001), Outcome::Success, &RULE);
    assert!(!breaker.hear(Timestamp(15_002), trip, &RULE), "it is over");

    let mut breaker = Breaker::default();
    breaker.record(Timestamp(5_001), Outcome::Success, &RULE);
    assert!(!breaker.hear(Timestamp(9_000), trip, &RULE));

    let far = Trip {
        until: Timestamp(900_000),
        ..trip
    };
    let mut breaker = Breaker::default();
    assert!(breaker.hear(Timestamp(9_000), far, &RULE));
    assert_eq!(breaker.admit(Timestamp(9_000), &RULE), refused(10_000));
}

fn opened(at: Timestamp) -> Breaker {
    let mut breaker = Breaker::default();
    for _ in 0..RULE.failure_threshold {
        breaker.record(at, Outcome::Failure, &RULE);
    }
    assert!(breaker.is_open());
    breaker
}

fn refused(ms: u64) -> Admission {
    Admission::Refuse {
        retry_after: Duration::from_millis(ms),
    }
}
