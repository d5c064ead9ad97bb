//! Who waits for which record to change.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Everybody who waits, by record; a number tells those of one record apart.
#[derive(Default)]
pub(super) struct Waiting {
    last: Cell<u64>,
    waiters: RefCell<BTreeMap<(String, u64), Waker>>,
}

impl Waiting {
    /// Completes when the record is written the next time after the first poll.
    pub(super) fn change(&self, key: &str) -> Change<'_> {
        let number = self.last.get() + 1;
        self.last.set(number);
        Change {
            waiting: self,
            waiter: (key.to_owned(), number),
            asked: false,
        }
    }

    /// Tells those who wait for this record.
    pub(super) fn changed(&self, key: &str) {
        let waiters = self.waiters.take();
        let (woken, rest): (BTreeMap<_, Waker>, _) =
            waiters.into_iter().partition(|((of, _), _)| of == key);
        self.waiters.replace(rest);
        woken.into_values().for_each(Waker::wake);
    }
}

/// One who waits; forgotten when dropped.
pub(super) struct Change<'a> {
    waiting: &'a Waiting,
    waiter: (String, u64),
    asked: bool,
}

impl Future for Change<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut waiters = self.waiting.waiters.borrow_mut();
        if self.asked && !waiters.contains_key(&self.waiter) {
            return Poll::Ready(());
        }
        waiters.insert(self.waiter.clone(), context.waker().clone());
        drop(waiters);
        self.asked = true;
        Poll::Pending
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.waiting.waiters.borrow_mut().remove(&self.waiter);
    }
}
