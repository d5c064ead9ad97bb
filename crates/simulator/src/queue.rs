//! A queue that delivers when a test takes from it: at least once, in whatever order and as
//! often as its fields say.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_gateway::platform::{Clock, QUEUE_MESSAGE_MAX, Queue, Unavailable};
use tidegate_gateway::time::Timestamp;

use crate::clock::SimClock;
use crate::fault::{Fault, Faults, unavailable};
use crate::run::give_way;

/// One isolate's handle on the shared queue.
pub struct SimQueue {
    world: Rc<World>,
    clock: SimClock,
    /// What goes wrong when this isolate sends.
    pub faults: Faults,
}

#[derive(Default)]
struct World {
    pending: RefCell<Vec<Pending>>,
    sent: Cell<usize>,
    copies: Cell<usize>,
    reversed: Cell<bool>,
    delay: Cell<Duration>,
}

struct Pending {
    due: Timestamp,
    message: Bytes,
}

impl SimQueue {
    pub(crate) fn new(clock: &SimClock) -> Self {
        let world = Rc::new(World {
            copies: Cell::new(1),
            ..World::default()
        });
        Self {
            world,
            clock: clock.clone(),
            faults: Faults::default(),
        }
    }

    /// Another isolate's handle on the same queue, without faults of its own.
    pub(crate) fn isolate(&self) -> Self {
        Self {
            world: Rc::clone(&self.world),
            clock: self.clock.clone(),
            faults: Faults::default(),
        }
    }

    /// How often each message is delivered from now on (at least once).
    pub fn deliver_times(&self, copies: usize) {
        self.world.copies.set(copies.max(1));
    }

    /// Whether the message sent last is delivered first.
    pub fn reverse(&self, reversed: bool) {
        self.world.reversed.set(reversed);
    }

    /// How much later than asked for messages become due.
    pub fn delay(&self, delay: Duration) {
        self.world.delay.set(delay);
    }

    /// Messages accepted so far.
    pub fn sent(&self) -> usize {
        self.world.sent.get()
    }

    /// Messages waiting, due or not.
    pub fn waiting(&self) -> usize {
        self.world.pending.borrow().len()
    }

    /// Takes every message that is due, with copies and in the order of the fields.
    pub fn take(&self) -> Vec<Bytes> {
        let now = self.clock.now();
        let mut pending = self.world.pending.borrow_mut();
        let (due, rest): (Vec<_>, Vec<_>) =
            pending.drain(..).partition(|pending| pending.due <= now);
        *pending = rest;
        let mut messages: Vec<Bytes> = due.into_iter().map(|pending| pending.message).collect();
        if self.world.reversed.get() {
            messages.reverse();
        }
        let copies = self.world.copies.get();
        messages
            .into_iter()
            .flat_map(|message| vec![message; copies])
            .collect()
    }

    /// Gives back a message whose consumer asked for it again after `delay`.
    pub fn put_back(&self, message: Bytes, delay: Duration) {
        let due = self.clock.now() + delay + self.world.delay.get();
        self.world
            .pending
            .borrow_mut()
            .push(Pending { due, message });
    }
}

impl Queue for SimQueue {
    async fn send(&self, message: Bytes, delay: Duration) -> Result<(), Unavailable> {
        give_way().await;
        if message.len() > QUEUE_MESSAGE_MAX {
            return Err(unavailable("the message is too large"));
        }
        let fault = self.faults.writing("")?;
        if fault.is_none_or(Fault::persists) {
            self.world.sent.set(self.world.sent.get() + 1);
            self.put_back(message, delay);
        }
        give_way().await;
        match fault {
            None => Ok(()),
            Some(fault) => fault.told().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_gateway::platform::Platform;

    use super::*;
    use crate::Simulator;

    #[test]
    fn messages_come_when_due_as_often_and_in_the_order_the_fields_say() {
        let world = Simulator::new();
        let send = |text: &'static str, delay| {
            world
                .run(world.queue().send(text.into(), Duration::from_secs(delay)))
                .unwrap();
        };
        send("a", 0);
        send("b", 0);
        send("late", 5);
        assert_eq!(world.queue.take(), ["a", "b"]);
        assert!(world.queue.take().is_empty());
        world.clock.advance(Duration::from_secs(5));
        assert_eq!(world.queue.take(), ["late"]);

        world.queue.deliver_times(2);
        world.queue.reverse(true);
        send("a", 0);
        send("b", 0);
        assert_eq!(world.queue.take(), ["b", "b", "a", "a"]);
    }

    #[test]
    fn a_send_can_fail_with_or_without_effect() {
        let world = Simulator::new();
        let send = || world.run(world.queue().send("m".into(), Duration::ZERO));
        world.queue.faults.arrange("", 1, Fault::Fail);
        world.queue.faults.arrange("", 1, Fault::FailButPersist);
        assert!(send().is_err());
        assert_eq!(world.queue.waiting(), 0);
        assert!(send().is_err());
        assert_eq!(world.isolate().queue.waiting(), 1);
    }
}
