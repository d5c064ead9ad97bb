//! What can go wrong with one operation, arranged beforehand.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::pending;
use std::rc::Rc;

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
    /// Nothing happens, and the caller never hears anything: whoever drives it ends it, as a
    /// crash just before the write does.
    Silent,
    /// It happens, and the caller never hears anything: a crash just after the write.
    SilentButPersist,
}

impl Fault {
    pub(crate) const fn persists(self) -> bool {
        matches!(self, Self::FailButPersist | Self::SilentButPersist)
    }

    /// What the caller hears.
    pub(crate) async fn told<T>(self) -> Result<T, Unavailable> {
        match self {
            Self::Silent | Self::SilentButPersist => pending().await,
            Self::Fail | Self::FailButPersist | Self::Conflict => {
                Err(unavailable(&format!("{self:?}")))
            }
        }
    }
}

type Decide = Box<dyn FnMut(&str) -> Option<Fault>>;

/// The faults arranged for one store or queue. Cloning it gives the same faults.
#[derive(Clone, Default)]
pub struct Faults(Rc<Inner>);

#[derive(Default)]
struct Inner {
    arranged: RefCell<VecDeque<Arranged>>,
    outage: Cell<bool>,
    decide: RefCell<Option<Decide>>,
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
        self.0.arranged.borrow_mut().push_back(Arranged {
            prefix: prefix.to_owned(),
            remaining: times,
            fault,
        });
    }

    /// Whether every operation fails, reads too, until it is ended.
    pub fn outage(&self, outage: bool) {
        self.0.outage.set(outage);
    }

    /// Lets `decide` say of every write, by its key, what goes wrong with it.
    pub fn decide(&self, decide: impl FnMut(&str) -> Option<Fault> + 'static) {
        self.0.decide.replace(Some(Box::new(decide)));
    }

    /// How many arranged faults have not happened yet.
    pub fn pending(&self) -> usize {
        self.0
            .arranged
            .borrow()
            .iter()
            .map(|arranged| arranged.remaining)
            .sum()
    }

    pub(crate) fn reading(&self) -> Result<(), Unavailable> {
        if self.0.outage.get() {
            Err(unavailable("outage"))
        } else {
            Ok(())
        }
    }

    /// The fault of a write to `key`, if one is due.
    pub(crate) fn writing(&self, key: &str) -> Result<Option<Fault>, Unavailable> {
        self.reading()?;
        if let Some(decide) = &mut *self.0.decide.borrow_mut()
            && let Some(fault) = decide(key)
        {
            return Ok(Some(fault));
        }
        let mut arranged = self.0.arranged.borrow_mut();
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
