//! The circuits one call goes by: its upstream's, and its tool's where tools have their own.
//!
//! With one circuit every failure counts in it. With two, a failed connection counts against
//! the upstream, and no answer in time or nonsense against the tool; a probe of either goes
//! by whatever comes of it. A call passes both or is a probe of neither.

use std::time::Duration;

use super::{Admission, Breaker, Outcome, State};
use crate::config::CircuitBreaker;
use crate::time::Timestamp;

/// What came of a call, as far as it says something of the upstream's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It answered, whatever it said.
    Answered,
    /// The connection failed, before the request was sent or after.
    Unreached,
    /// It did not answer in time, or answered nonsense.
    Unwell,
}

/// Which circuits a call has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opened {
    /// The upstream's.
    pub own: bool,
    /// The tool's.
    pub tool: bool,
}

/// The circuits of one call.
#[derive(Debug, Clone, Default)]
pub struct Pair {
    /// The upstream's.
    pub own: Breaker,
    /// The tool's, if it has one.
    pub tool: Option<Breaker>,
}

impl Pair {
    /// How long a call would have to wait; `None` if it may pass. Changes nothing.
    pub fn refuses(&self, now: Timestamp, rule: &CircuitBreaker) -> Option<Duration> {
        let tool = self.tool.as_ref().and_then(|tool| tool.refuses(now, rule));
        self.own.refuses(now, rule).max(tool)
    }

    /// Decides one call. Each [`Admission::Pass`] should be followed by [`Pair::record`].
    pub fn admit(&mut self, now: Timestamp, rule: &CircuitBreaker) -> Admission {
        let refused = self.refuses(now, rule);
        for breaker in [Some(&mut self.own), self.tool.as_mut()]
            .into_iter()
            .flatten()
        {
            // Where one refuses, the other is told only if it refuses as well.
            if refused.is_none() || breaker.refuses(now, rule).is_some() {
                breaker.admit(now, rule);
            }
        }
        match refused {
            None => Admission::Pass,
            Some(retry_after) => Admission::Refuse { retry_after },
        }
    }

    /// Learns from one call.
    pub fn record(&mut self, now: Timestamp, seen: Seen, rule: &CircuitBreaker) -> Opened {
        let apart = self.tool.is_some();
        let own = match seen {
            Seen::Answered => Some(Outcome::Success),
            Seen::Unreached => Some(Outcome::Failure),
            Seen::Unwell => (!apart || probing(&self.own)).then_some(Outcome::Failure),
        };
        let tools = self.tool.as_ref().and_then(|tool| match seen {
            Seen::Answered => Some(Outcome::Success),
            Seen::Unreached => probing(tool).then_some(Outcome::Failure),
            Seen::Unwell => Some(Outcome::Failure),
        });
        let told = |breaker: Option<&mut Breaker>, outcome| match (breaker, outcome) {
            (Some(breaker), Some(outcome)) => breaker.record(now, outcome, rule),
            (Some(_) | None, Some(_) | None) => false,
        };
        Opened {
            own: told(Some(&mut self.own), own),
            tool: told(self.tool.as_mut(), tools),
        }
    }
}

const fn probing(breaker: &Breaker) -> bool {
    matches!(breaker.state(), State::HalfOpen { .. })
}
