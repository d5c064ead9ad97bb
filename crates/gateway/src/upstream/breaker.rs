//! Circuit breaker for one upstream, or one tool of one.
//!
//! Closed lets calls through and counts failures: those in a row, and if the rule says so
//! the share of them in a sliding window; Open refuses for a while; HalfOpen lets a few
//! probes through and goes by what comes of them. A success never opens a circuit.
//!
//! Advisory: every request is answered correctly if this state is lost or never shared.
//! It promises to refuse only for a bounded time: a probe whose outcome is never recorded
//! (its request was cancelled) is forgotten after [`PROBE_LEASE_MAX`] at the latest, and a
//! clock that steps back cannot keep a circuit open longer than one reset interval.

mod pair;

use std::time::Duration;

use super::window::Window;
use crate::config::CircuitBreaker;
use crate::time::Timestamp;
pub use pair::{Opened, Pair, Seen};

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

/// That a circuit opened in another isolate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trip {
    /// When, by that isolate's clock.
    pub opened_at: Timestamp,
    /// Until when it refuses calls.
    pub until: Timestamp,
}

/// One circuit.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    window: Window,
    /// When a call last succeeded.
    answered_at: Option<Timestamp>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed { failures: 0 },
            window: Window::default(),
            answered_at: None,
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

    /// Until when the circuit refuses every call, if it does.
    pub const fn open_until(&self) -> Option<Timestamp> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// How long a call would have to wait; `None` if it may pass. Changes nothing.
    pub fn refuses(&self, now: Timestamp, rule: &CircuitBreaker) -> Option<Duration> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { until } => {
                let left = until.since(now).min(reset_interval(rule));
                (left > Duration::ZERO).then_some(left)
            }
            State::HalfOpen {
                in_flight,
                probed_at,
            } => {
                let lease = lease(rule);
                let age = now.since(probed_at);
                // Before `probed_at`: the clock stepped back, and the lease with it.
                let over = age >= lease || now < probed_at;
                (!over && in_flight >= rule.half_open_max_requests)
                    .then(|| lease.saturating_sub(age))
            }
        }
    }

    /// Decides one call. Each [`Admission::Pass`] should be followed by [`Breaker::record`].
    pub fn admit(&mut self, now: Timestamp, rule: &CircuitBreaker) -> Admission {
        if let Some(retry_after) = self.refuses(now, rule) {
            if self.is_open() {
                // Taken up again, so that time that steps back does not add up.
                let until = now + retry_after;
                self.state = State::Open { until };
            }
            return Admission::Refuse { retry_after };
        }
        let in_flight = match self.state {
            State::Closed { .. } => return Admission::Pass,
            State::Open { .. } => 1,
            State::HalfOpen {
                in_flight,
                probed_at,
            } => {
                let over = now.since(probed_at) >= lease(rule) || now < probed_at;
                if over { 1 } else { in_flight + 1 }
            }
        };
        self.state = State::HalfOpen {
            in_flight,
            probed_at: now,
        };
        Admission::Pass
    }

    /// Learns from one call; tells whether that opened the circuit.
    pub fn record(&mut self, now: Timestamp, outcome: Outcome, rule: &CircuitBreaker) -> bool {
        if outcome == Outcome::Success {
            self.answered_at = Some(now);
        }
        match (self.state, outcome) {
            (State::Closed { .. }, Outcome::Success) => {
                self.count(now, false, rule);
                self.state = State::Closed { failures: 0 };
                false
            }
            (State::Closed { failures }, Outcome::Failure) => {
                let failures = failures.saturating_add(1);
                self.state = State::Closed { failures };
                let too_often = self.count(now, true, rule);
                let trips = too_often || failures >= rule.failure_threshold;
                if trips {
                    self.open(now + reset_interval(rule));
                }
                trips
            }
            // A call let through before the circuit opened says nothing of the upstream now.
            (State::Open { .. }, Outcome::Success | Outcome::Failure) => false,
            (State::HalfOpen { .. }, Outcome::Success) => {
                self.state = State::Closed { failures: 0 };
                false
            }
            (State::HalfOpen { .. }, Outcome::Failure) => {
                self.open(now + reset_interval(rule));
                true
            }
        }
    }

    /// Learns that the circuit opened elsewhere; tells whether it opened here for that. It
    /// does for no longer than one reset interval, and not where a call has succeeded since.
    pub fn hear(&mut self, now: Timestamp, trip: Trip, rule: &CircuitBreaker) -> bool {
        let left = trip.until.since(now).min(reset_interval(rule));
        let closed = matches!(self.state, State::Closed { .. });
        let answered = self.answered_at.is_some_and(|at| at >= trip.opened_at);
        let opens = closed && !answered && left > Duration::ZERO;
        if opens {
            self.open(now + left);
        }
        opens
    }

    /// Counts a call in the window; tells whether too many in it have failed.
    fn count(&mut self, now: Timestamp, failed: bool, rule: &CircuitBreaker) -> bool {
        match &rule.failure_rate {
            Some(rate) => {
                self.window.count(now, rate.window_ms, failed);
                let (calls, failures) = self.window.sums(now, rate.window_ms);
                calls >= rate.minimum_calls.into()
                    && failures * 100 >= calls * u64::from(rate.percent)
            }
            None => false,
        }
    }

    fn open(&mut self, until: Timestamp) {
        self.state = State::Open { until };
        self.window = Window::default();
    }
}

const fn reset_interval(rule: &CircuitBreaker) -> Duration {
    Duration::from_millis(rule.reset_interval_ms)
}

/// How long probes are waited for before others are let through.
fn lease(rule: &CircuitBreaker) -> Duration {
    reset_interval(rule).min(PROBE_LEASE_MAX)
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
