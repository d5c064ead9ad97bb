//! WASI's clocks.

use std::future::Future;
use std::time::Duration;

use spin_sdk::wasip3::clocks::{monotonic_clock, system_clock};
use tidegate_gateway::platform::Clock;
use tidegate_gateway::time::Timestamp;

/// The host's clocks: one for the time of day, one for waiting.
pub struct WasiClock;

impl Clock for WasiClock {
    fn now(&self) -> Timestamp {
        now()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        monotonic_clock::wait_for(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Wall time; the beginning of 1970 if the clock says it is earlier.
pub fn now() -> Timestamp {
    let now = system_clock::now();
    let seconds = u64::try_from(now.seconds).unwrap_or(0);
    Timestamp(seconds * 1_000 + u64::from(now.nanoseconds / 1_000_000))
}
