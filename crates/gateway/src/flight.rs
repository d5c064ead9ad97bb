//! What several requests of an isolate need at once is fetched by one of them.
//!
//! Whoever does not fetch looks now and then whether it is there: on some hosts nothing of one
//! request may wake another. Nobody waits longer than [`WAIT_MAX`], after which each fetches
//! for itself; whoever is lost while fetching is waited for no longer either.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::platform::{Clock, Platform};
use crate::time::Timestamp;

/// Longest that anybody waits for what another fetches.
pub(crate) const WAIT_MAX: Duration = Duration::from_millis(500);
/// How often who waits looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Whether somebody is fetching something, and until when that is believed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flight(Rc<Cell<Option<Timestamp>>>);

/// Somebody fetches, for as long as this is kept.
pub(crate) struct Fetching(Flight);

impl Flight {
    /// Waits while another fetches and what it fetches is not there. Gives the right to fetch,
    /// or nothing where it is there.
    pub(crate) async fn board<P: Platform>(
        &self,
        platform: &P,
        mut is_there: impl FnMut() -> bool,
    ) -> Option<Fetching> {
        let patience = platform.clock().now() + WAIT_MAX;
        loop {
            if is_there() {
                return None;
            }
            let now = platform.clock().now();
            let others = self.0.get().is_some_and(|until| now < until);
            if !others || now >= patience {
                self.0.set(Some(now + WAIT_MAX));
                return Some(Fetching(self.clone()));
            }
            platform.clock().sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.0.set(None);
    }
}
