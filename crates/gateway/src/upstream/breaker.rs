//! Circuit breaker for one upstream.
//!
//! Closed lets calls through and counts consecutive failures; Open refuses for a while;
//! HalfOpen lets a few probes through and goes by what comes of them.
//!
//! Advisory: every request is answered correctly if this state is lost or never shared.
//! It promises to refuse only for a bounded time: a probe whose outcome is never recorded
//! (its request was cancelled) is forgotten after [`PROBE_LEASE_MAX`] at the latest, and a
//! clock that steps back cannot keep a circuit open longer than one reset interval.

use std::time::Duration;

use crate::config::CircuitBreaker;
use crate::time::Timestamp;

/// Longest time unanswered probes keep others from being let through.
pub const PROBE_LEASE_MAX: Duration = Duration::from_secs(60);

/// What a circuit does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Lets calls through.
    Closed {
        /// Failures since the last success.
        failures: u32,
    },
    /// Refuses calls.
    Open {
        /// When a probe may be let through.
        until: Timestamp,
    },
    /// Lets a bounded number of probes through.
    HalfOpen {
        /// Probes whose outcome is not known yet.
        in_flight: u32,
        /// When the latest of them was let through.
        probed_at: Timestamp,
    },
}

/// What is to be done with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Let it through, and record what comes of it.
    Pass,
    /// Answer it without calling the upstream.
    Refuse {
        /// When a call is let through at the latest.
        retry_after: Duration,
    },
}

/// What came of a call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream answered, whatever it said.
    Success,
    /// The upstream could not be reached, did not answer in time, or answered nonsense.
    Failure,
}

/// The circuit of one upstream.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed { failures: 0 },
        }
    }
}

impl Breaker {
    /// What the circuit does with calls.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether the circuit refuses every call for now.
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Decides one call. Each [`Admission::Pass`] should be followed by [`Breaker::record`].
    pub fn admit(&mut self, now: Timestamp, rule: &CircuitBreaker) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Pass,
            State::Open { until } => {
                let left = until.since(now).min(reset_interval(rule));
                if left > Duration::ZERO {
                    // Taken up again, so that time that steps back does not add up.
                    self.state = State::Open { until: now + left };
                    return Admission::Refuse { retry_after: left };
                }
                self.probe(now, 1)
            }
            State::HalfOpen {
                in_flight,
                probed_at,
            } => {
                let lease = reset_interval(rule).min(PROBE_LEASE_MAX);
                let age = now.since(probed_at);
                // Before `probed_at`: the clock stepped back, and the lease with it.
                if in_flight == 0 || age >= lease || now < probed_at {
                    self.probe(now, 1)
                } else if in_flight < rule.half_open_max_requests {
                    self.probe(now, in_flight + 1)
                } else {
                    Admission::Refuse {
                        retry_after: lease.saturating_sub(age),
                    }
                }
            }
        }
    }

    /// Learns from one call.
    pub fn record(&mut self, now: Timestamp, outcome: Outcome, rule: &CircuitBreaker) {
        self.state = match (self.state, outcome) {
            (State::Closed { .. }, Outcome::Success) => State::Closed { failures: 0 },
            (State::Closed { failures }, Outcome::Failure) => {
                let failures = failures.saturating_add(1);
                if failures >= rule.failure_threshold {
                    open(now, rule)
                } else {
                    State::Closed { failures }
                }
            }
            // A call let through before the circuit opened says nothing of the upstream now.
            (State::Open { until }, Outcome::Success | Outcome::Failure) => State::Open { until },
            (State::HalfOpen { .. }, Outcome::Success) => State::Closed { failures: 0 },
            (State::HalfOpen { .. }, Outcome::Failure) => open(now, rule),
        };
    }

    const fn probe(&mut self, now: Timestamp, in_flight: u32) -> Admission {
        self.state = State::HalfOpen {
            in_flight,
            probed_at: now,
        };
        Admission::Pass
    }
}

fn open(now: Timestamp, rule: &CircuitBreaker) -> State {
    State::Open {
        until: now + reset_interval(rule),
    }
}

const fn reset_interval(rule: &CircuitBreaker) -> Duration {
    Duration::from_millis(rule.reset_interval_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: CircuitBreaker = CircuitBreaker {
        failure_threshold: 3,
        reset_interval_ms: 10_000,
        half_open_max_requests: 2,
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

    /// The breaker as its definition reads: a history, looked through from the start.
    #[derive(Default)]
    struct Reference {
        /// Outcomes while closed, since the circuit last closed.
        closed: Vec<Outcome>,
        opened_at: Option<Timestamp>,
        /// When each probe since the circuit opened was let through.
        probes: Vec<Timestamp>,
        probed: bool,
    }

    impl Reference {
        fn passes(&mut self, now: Timestamp, rule: &CircuitBreaker) -> bool {
            let Some(opened_at) = self.opened_at else {
                return true;
            };
            let reset = Duration::from_millis(rule.reset_interval_ms);
            let lease = reset.min(PROBE_LEASE_MAX);
            if self
                .probes
                .last()
                .is_some_and(|latest| now.since(*latest) >= lease)
            {
                self.probes.clear();
            }
            let pass = now >= opened_at + reset
                && self.probes.len() < rule.half_open_max_requests as usize;
            if pass {
                self.probes.push(now);
                self.probed = true;
            }
            pass
        }

        fn learns(&mut self, now: Timestamp, outcome: Outcome, rule: &CircuitBreaker) {
            if self.opened_at.is_some() {
                if self.probed {
                    let opened_at = (outcome == Outcome::Failure).then_some(now);
                    *self = Self {
                        opened_at,
                        ..Self::default()
                    };
                }
                return;
            }
            self.closed.push(outcome);
            let failed = self
                .closed
                .iter()
                .rev()
                .take_while(|outcome| **outcome == Outcome::Failure)
                .count();
            if failed >= rule.failure_threshold as usize {
                self.opened_at = Some(now);
            }
        }
    }

    #[test]
    fn random_histories_agree_with_the_reference() {
        for seed in 1..=200_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut next = |bound: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % bound
            };
            let rule = CircuitBreaker {
                failure_threshold: 1 + next(4) as u32,
                reset_interval_ms: 1 + next(90_000),
                half_open_max_requests: 1 + next(3) as u32,
            };
            let (mut breaker, mut reference) = (Breaker::default(), Reference::default());
            let mut now = Timestamp(1_000_000);
            for step in 0..400 {
                now = now + Duration::from_millis(next(rule.reset_interval_ms / 2 + 2));
                if next(2) == 0 {
                    let passes = breaker.admit(now, &rule) == Admission::Pass;
                    assert_eq!(
                        passes,
                        reference.passes(now, &rule),
                        "seed {seed}, step {step}: {breaker:?}"
                    );
                } else {
                    let outcome = if next(3) == 0 {
                        Outcome::Success
                    } else {
                        Outcome::Failure
                    };
                    breaker.record(now, outcome, &rule);
                    reference.learns(now, outcome, &rule);
                    let closed = matches!(breaker.state(), State::Closed { .. });
                    assert_eq!(
                        closed,
                        reference.opened_at.is_none(),
                        "seed {seed}, step {step}: {breaker:?}"
                    );
                }
            }
            let later = now + Duration::from_millis(rule.reset_interval_ms) + PROBE_LEASE_MAX;
            assert_eq!(
                breaker.admit(later, &rule),
                Admission::Pass,
                "seed {seed}: never wedged"
            );
        }
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
}
