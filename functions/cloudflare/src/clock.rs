//! `Date.now` and `setTimeout`.
//!
//! In production the time stands still between I/O, so that code cannot time itself; the
//! port promises no more than that.

use std::future::Future;
use std::time::Duration;

use tidegate_gateway::platform::Clock;
use tidegate_gateway::time::Timestamp;
use worker::{Date, Delay};

/// Longest wait one timer takes: the runtime reads the delay as a signed 32-bit number of
/// milliseconds, and a longer one would fire at once.
const TIMER_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// The runtime's clock.
pub struct WorkersClock;

impl Clock for WorkersClock {
    fn now(&self) -> Timestamp {
        Timestamp(Date::now().as_millis())
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        Delay::from(duration.min(TIMER_MAX))
    }
}
