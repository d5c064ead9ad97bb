//! Real time, for claims about real runtimes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Measures from its making.
pub struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "what is measured runs outside, in real time"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Asks `ready` again and again until it answers; `what` names what was waited for in vain.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    const PAUSE: Duration = Duration::from_millis(50);
    let watch = Stopwatch::start();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(
            watch.elapsed() < limit,
            "{what}: not within {} s",
            limit.as_secs()
        );
        std::thread::sleep(PAUSE);
    }
}

/// Waits until enough is left of a minute for a claim that must lie within one.
#[expect(
    clippy::disallowed_methods,
    reason = "the minutes are those of runtimes outside, in real time"
)]
pub fn part_of_a_minute() {
    const ENOUGH_S: u64 = 15;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = 60 - now.map_or(0, |now| now.as_secs() % 60);
    if left < ENOUGH_S {
        std::thread::sleep(Duration::from_secs(left));
    }
}
