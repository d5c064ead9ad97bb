//! Real time, for claims about real runtimes.

use std::time::{Duration, Instant};

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
