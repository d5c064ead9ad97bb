//! How many may listen, or wait for the result of a task, at the same time. Each isolate counts for itself: what is protected
//! is its memory and its connections.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::auth::PrincipalId;
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::platform::Platform;

/// Most streams one isolate holds.
pub const LISTENS_MAX: usize = 512;
/// Most streams one principal holds in one isolate.
pub const LISTENS_PER_PRINCIPAL_MAX: usize = 64;
/// When to try again. Streams end when they end: this only spreads those who wait.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// How many streams each principal holds; those that hold none are not in it.
pub(super) type Memory = RefCell<BTreeMap<PrincipalId, usize>>;

/// One stream's right to be there, given back when it is dropped.
pub(crate) struct Seat {
    memory: Rc<crate::Memory>,
    principal: PrincipalId,
}

impl Seat {
    /// A seat, if there is one left.
    pub(crate) fn take<P: Platform>(
        context: &Context<P>,
        principal: &PrincipalId,
    ) -> Result<Self, Error> {
        let mut seats = context.memory.listen.seats.borrow_mut();
        let own = seats.get(principal).copied().unwrap_or_default();
        if own >= LISTENS_PER_PRINCIPAL_MAX || seats.values().sum::<usize>() >= LISTENS_MAX {
            let limit = "concurrent-listens".to_owned();
            return Err(Rejection::RateLimited {
                limit,
                retry_after: RETRY_AFTER,
            }
            .into());
        }
        seats.insert(principal.clone(), own + 1);
        Ok(Self {
            memory: Rc::clone(&context.memory),
            principal: principal.clone(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.memory.listen.seats.borrow_mut();
        match seats.get_mut(&self.principal) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => {
                seats.remove(&self.principal);
            }
        }
    }
}
