//! Time that moves only when it is told to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::{FutureExt, LocalBoxFuture};
use tidegate_gateway::platform::Clock;
use tidegate_gateway::time::Timestamp;

/// Where simulated time begins: 2026-07-28T00:00:00Z.
pub const EPOCH: Timestamp = Timestamp(1_785_196_800_000);

/// A clock shared by everything in one world. Cloning it gives the same clock.
#[derive(Clone, Default)]
pub struct SimClock(Rc<Shared>);

struct Shared {
    now: Cell<Timestamp>,
    /// Whether time jumps to the next sleeper when nothing else can make progress.
    automatic: Cell<bool>,
    next_id: Cell<u64>,
    /// Who wakes when; the number keeps sleepers of one instant in the order they came.
    sleepers: RefCell<BTreeMap<(Timestamp, u64), Waker>>,
    /// What nobody waits for, and goes on whenever anything does.
    beside: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            now: Cell::new(EPOCH),
            automatic: Cell::new(true),
            next_id: Cell::new(0),
            sleepers: RefCell::default(),
            beside: RefCell::default(),
        }
    }
}

impl SimClock {
    /// Moves time on and wakes every sleeper that is due.
    pub fn advance(&self, by: Duration) {
        self.set(self.now() + by);
    }

    /// Sets the time; it may step back, as real clocks do.
    pub fn set(&self, now: Timestamp) {
        self.0.now.set(now);
        self.wake_due();
    }

    /// Whether time jumps when everything waits for it (the default). Without it a world
    /// that waits is stalled until a test moves time.
    pub fn jump_when_idle(&self, automatic: bool) {
        self.0.automatic.set(automatic);
    }

    /// How many sleeps are pending.
    pub fn sleepers(&self) -> usize {
        self.0.sleepers.borrow().len()
    }

    /// Jumps to the earliest pending sleep, if that is allowed and there is one.
    pub(crate) fn jump(&self) -> bool {
        let next = self.0.sleepers.borrow().keys().next().map(|(due, _)| *due);
        match next {
            Some(due) if self.0.automatic.get() => {
                self.set(due.max(self.now()));
                true
            }
            Some(_) | None => false,
        }
    }

    /// Lets `work` go on beside whatever is driven by this clock.
    pub(crate) fn go_beside(&self, work: impl Future<Output = ()> + 'static) {
        self.0.beside.borrow_mut().push(work.boxed_local());
    }

    /// Polls what goes on beside.
    pub(crate) fn poll_beside(&self, context: &mut Context<'_>) {
        let mut waiting = Vec::new();
        loop {
            let begun = self.0.beside.take();
            if begun.is_empty() {
                break;
            }
            for mut work in begun {
                if work.poll_unpin(context).is_pending() {
                    waiting.push(work);
                }
            }
        }
        self.0.beside.replace(waiting);
    }

    fn wake_due(&self) {
        let mut due = Vec::new();
        {
            let mut sleepers = self.0.sleepers.borrow_mut();
            while let Some(first) = sleepers.first_entry() {
                if first.key().0 > self.now() {
                    break;
                }
                due.push(first.remove());
            }
        }
        due.into_iter().for_each(Waker::wake);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.now.get()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let id = self.0.next_id.get();
        self.0.next_id.set(id + 1);
        // A sleep always yields, even one of no length.
        Sleep {
            clock: self.clone(),
            key: (self.now() + duration, id),
            polled: false,
        }
    }
}

struct Sleep {
    clock: SimClock,
    key: (Timestamp, u64),
    polled: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.polled && self.clock.now() >= self.key.0 {
            return Poll::Ready(());
        }
        self.polled = true;
        self.clock
            .0
            .sleepers
            .borrow_mut()
            .insert(self.key, context.waker().clone());
        if self.clock.now() >= self.key.0 {
            self.clock.wake_due();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.0.sleepers.borrow_mut().remove(&self.key);
    }
}
