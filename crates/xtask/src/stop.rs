//! Stopping when asked: Ctrl-C and friends are noticed between waits, so that whoever
//! started processes gets to end them. A second signal ends this process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often waits look up.
const GLANCE: Duration = Duration::from_millis(50);

/// Exit status of a process ended by Ctrl-C, by convention.
pub const EXIT_INTERRUPTED: u8 = 130;

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Begins listening for signals.
pub fn listen() -> Result<()> {
    let asked = Arc::clone(ASKED.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Order matters: the shutdown only fires if an earlier signal set the flag.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(EXIT_INTERRUPTED),
            Arc::clone(&asked),
        )
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))
        .context("cannot listen for signals")?;
    }
    Ok(())
}

/// Whether somebody asked this process to stop.
pub fn asked() -> bool {
    ASKED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Fails if somebody asked this process to stop.
pub fn check() -> Result<()> {
    if asked() {
        bail!("interrupted");
    }
    Ok(())
}

/// A short wait inside a polling loop.
pub fn glance() {
    std::thread::sleep(GLANCE);
}
