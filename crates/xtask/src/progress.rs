//! What the person at the terminal sees while work goes on: one line per step, with the
//! seconds since the command began, and a sign of life while a step lasts.
//!
//! Progress goes to standard error; results go to standard output.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::clock;

/// How often a lasting step is mentioned again where the line cannot be redrawn.
const HEARTBEAT: Duration = Duration::from_secs(15);

static STARTED: OnceLock<Instant> = OnceLock::new();
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Starts the clock the lines show.
pub fn begin() {
    STARTED.get_or_init(clock::instant);
}

/// Shows what child processes print, instead of only keeping it in their logs.
pub fn set_verbose() {
    VERBOSE.store(true, Ordering::Relaxed);
}

/// Whether child processes print to the terminal.
pub fn verbose() -> bool {
    VERBOSE.load(Ordering::Relaxed)
}

/// Says one thing that happened or is about to.
pub fn say(text: &str) {
    eprintln!("[{:>5.1}s] {text}", elapsed().as_secs_f32());
}

fn elapsed() -> Duration {
    STARTED.get_or_init(clock::instant).elapsed()
}

/// A step under way.
pub struct Step {
    title: String,
    since: Instant,
    last_beat: Instant,
    redraw: bool,
}

impl Step {
    /// Announces a step.
    pub fn start(title: &str) -> Self {
        say(&format!("{title} …"));
        let now = clock::instant();
        Self {
            title: title.to_owned(),
            since: now,
            last_beat: now,
            redraw: std::io::stderr().is_terminal() && !verbose(),
        }
    }

    /// Shows that the step is still going; cheap to call often.
    pub fn beat(&mut self) {
        let pause = if self.redraw {
            Duration::from_secs(1)
        } else {
            HEARTBEAT
        };
        if self.last_beat.elapsed() < pause {
            return;
        }
        self.last_beat = clock::instant();
        let seconds = self.since.elapsed().as_secs();
        if self.redraw {
            eprint!("\r         {} … {seconds} s\u{1b}[K", self.title);
        } else {
            say(&format!("{} … {seconds} s", self.title));
        }
    }

    /// How long the step has lasted.
    pub fn lasted(&self) -> Duration {
        self.since.elapsed()
    }

    /// Ends the step's line.
    pub fn end(self) {
        if self.redraw && self.last_beat > self.since {
            eprint!("\r\u{1b}[K");
        }
    }
}
