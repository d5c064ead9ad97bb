//! Which keeper does what: one thing at a time each, so that a slow tool holds up no other.
//!
//! To make a keeper costs a host many times what a quick call does, so one that is done is
//! taken again while it is warm. Nothing depends on which it is: who runs a task is in its
//! record.

use std::cell::RefCell;

use crate::context::Context;
use crate::platform::Platform;
use crate::seal::hex;

/// Most keepers one isolate remembers as idle.
const IDLE_MAX: usize = 64;

/// The keepers this isolate knows to be idle, the warmest last.
#[derive(Default)]
pub(super) struct Idle(RefCell<Vec<String>>);

impl Idle {
    /// A keeper's name for one thing to do.
    pub(super) fn take<P: Platform>(&self, context: &Context<P>) -> String {
        let warm = self.0.borrow_mut().pop();
        warm.unwrap_or_else(|| hex(&context.random::<16>()))
    }

    /// What the keeper was taken for is done.
    pub(super) fn give_back(&self, name: String) {
        let mut idle = self.0.borrow_mut();
        if idle.len() == IDLE_MAX {
            idle.remove(0);
        }
        idle.push(name);
    }
}
