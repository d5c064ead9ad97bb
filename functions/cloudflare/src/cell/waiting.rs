//! Who waits for one cell's record to change.
//!
//! One thread, no lock: whoever finds the record unchanged and then, without an `await` in
//! between, asks for its [`Change`], cannot miss what is written next.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// How many may wait for one record at once. Each is an open request; whoever comes beyond
/// is answered at once and asks again.
const WAITERS_MAX: usize = 64;

/// Everybody who waits.
#[derive(Default)]
pub struct Waiting {
    last: Cell<u64>,
    /// `None` until the first poll.
    waiters: RefCell<BTreeMap<u64, Option<Waker>>>,
}

impl Waiting {
    /// A place to wait for the next change, if there is room.
    pub fn change(&self) -> Option<Change<'_>> {
        let mut waiters = self.waiters.borrow_mut();
        if waiters.len() >= WAITERS_MAX {
            return None;
        }
        let number = self.last.get() + 1;
        self.last.set(number);
        waiters.insert(number, None);
        Some(Change {
            waiting: self,
            number,
        })
    }

    /// Tells everybody that the record is no longer as it was.
    pub fn changed(&self) {
        let waiters = self.waiters.take();
        waiters.into_values().flatten().for_each(Waker::wake);
    }
}

/// Completes when the record changes; forgotten when dropped.
pub struct Change<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Future for Change<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.waiting.waiters.borrow_mut().get_mut(&self.number) {
            Some(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.waiting.waiters.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_change_reaches_all_who_asked_before_it_and_none_who_ask_after() {
        let waiting = Waiting::default();
        let (mut polled, unpolled) = (waiting.change().unwrap(), waiting.change().unwrap());
        assert_eq!((&mut polled).now_or_never(), None);
        waiting.changed();
        assert_eq!(polled.now_or_never(), Some(()));
        assert_eq!(unpolled.now_or_never(), Some(()));
        assert_eq!(waiting.change().unwrap().now_or_never(), None);
    }

    #[test]
    fn there_is_room_for_so_many_and_whoever_goes_makes_room() {
        let waiting = Waiting::default();
        let mut all: Vec<_> = (0..WAITERS_MAX)
            .map(|_| waiting.change().unwrap())
            .collect();
        assert!(waiting.change().is_none());
        all.pop();
        assert!(waiting.change().is_some());
        waiting.changed();
        assert!(waiting.change().is_some());
    }
}
