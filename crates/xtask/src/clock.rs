//! The wall clock and the stopwatch, for a native tool that really waits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point to measure elapsed time from.
#[expect(
    clippy::disallowed_methods,
    reason = "a native tool measures real time; the ban is for code that also runs as wasm"
)]
pub fn instant() -> Instant {
    Instant::now()
}

/// Seconds since 1970, as tokens state them.
#[expect(
    clippy::disallowed_methods,
    reason = "a native tool reads the real clock; the ban is for code that also runs as wasm"
)]
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}
