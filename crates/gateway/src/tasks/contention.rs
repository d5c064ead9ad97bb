//! Writing a record that many write: again and again with growing pauses, and not for ever.

use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, Fault};
use crate::platform::{Clock, Platform};

/// How often a record is tried to be written that others write too.
const ROUNDS_MAX: u32 = 24;
/// First pause after a lost race, on average; doubles each time.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest pause after a lost race, on average.
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// How often a store that does not answer is asked.
const TRIES_MAX: u32 = 3;

/// How writing a record that many write has gone so far.
#[derive(Default)]
pub(super) struct Writing {
    lost: u32,
    unavailable: u32,
}

impl Writing {
    /// Somebody else was first: pauses, by chance, so that not all come back at once.
    pub(super) async fn lost<P: Platform>(&mut self, context: &Context<P>) -> Result<(), Error> {
        self.lost += 1;
        if self.lost >= ROUNDS_MAX {
            return Err(Fault::Dependency(
                "a record that many write could not be written".to_owned(),
            )
            .into());
        }
        self.pause(context, self.lost).await;
        Ok(())
    }

    pub(super) async fn unavailable<P: Platform>(
        &mut self,
        context: &Context<P>,
        error: Error,
    ) -> Result<(), Error> {
        self.unavailable += 1;
        if self.unavailable >= TRIES_MAX {
            return Err(error);
        }
        self.pause(context, self.unavailable).await;
        Ok(())
    }

    async fn pause<P: Platform>(&self, context: &Context<P>, times: u32) {
        let mean = PAUSE * 2u32.saturating_pow(times.min(16));
        let [chance] = context.random::<1>();
        let pause = mean.min(PAUSE_MAX) * u32::from(chance) / 128;
        context.platform.clock().sleep(pause).await;
    }
}
