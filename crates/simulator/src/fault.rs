//! What can go wrong with one operation, arranged beforehand.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tidegate_gateway::platform::Unavailable;

/// How one operation of a store or a queue goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and the caller is told so in the only way there is: `Unavailable`.
    Fail,
    /// It happens, but the caller hears `Unavailable`: a write whose outcome is unknown.
    FailButPersist,
    /// A swap is told that somebody else was first; nothing is written. Anything else fails.
    Conflict,
}

/// The faults arranged for one store or queue.
#[derive(Default)]
pub struct Faults {
    arranged: RefCell<VecDeque<Arranged>>,
    outage: Cell<bool>,
}

struct Arranged {
    prefix: String,
    remaining: usize,
    fault: Fault,
}

impl Faults {
    /// Lets the next `times` writes whose key starts with `prefix` go wrong. Messages of a
    /// queue have the empty key.
    pub fn arrange(&self, prefix: &str, times: usize, fault: Fault) {
        self.arranged.borrow_mut().push_back(Arranged {
            prefix: prefix.to_owned(),
            remaining: times,
            fault,
        });
    }

    /// Whether every operation fails, reads too, until it is ended.
    pub fn outage(&self, outage: bool) {
        self.outage.set(outage);
    }

    /// How many arranged faults have not happened yet.
    pub fn pending(&self) -> usize {
        self.arranged
            .borrow()
            .iter()
            .map(|arranged| arranged.remaining)
            .sum()
    }

    pub(crate) fn reading(&self) -> Result<(), Unavailable> {
        if self.outage.get() {
            Err(unavailable("outage"))
        } else {
            Ok(())
        }
    }

    /// The fault of a write to `key`, if one is due.
    pub(crate) fn writing(&self, key: &str) -> Result<Option<Fault>, Unavailable> {
        self.reading()?;
        let mut arranged = self.arranged.borrow_mut();
        let due = arranged
            .iter_mut()
            .find(|arranged| arranged.remaining > 0 && key.starts_with(&arranged.prefix));
        Ok(due.map(|due| {
            due.remaining -= 1;
            due.fault
        }))
    }
}

pub(crate) fn unavailable(why: &str) -> Unavailable {
    Unavailable(format!("simulated: {why}"))
}
