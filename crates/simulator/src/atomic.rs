//! A store that is linearizable per key: every operation takes effect in one instant
//! between its call and its answer.

mod waiting;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;
use tidegate_gateway::platform::{
    ATOMIC_VALUE_MAX, AtomicStore, Clock, KV_KEY_MAX, Swap, Unavailable, Version, WAIT_MAX,
};
use tidegate_gateway::time::Timestamp;

use crate::clock::SimClock;
use crate::fault::{Fault, Faults, unavailable};
use crate::run::give_way;
use waiting::Waiting;

/// One isolate's handle on the shared store.
pub struct SimAtomic {
    world: Rc<World>,
    clock: SimClock,
    /// What goes wrong for this isolate.
    pub faults: Faults,
    /// Whether as many wait as may, so that a further wait is answered at once.
    pub crowded: Cell<bool>,
}

#[derive(Default)]
struct World {
    records: RefCell<BTreeMap<String, Record>>,
    last_version: Cell<u64>,
    operations: RefCell<BTreeMap<String, usize>>,
    waiting: Waiting,
}

struct Record {
    content: Content,
    expires_at: Timestamp,
}

enum Content {
    Value(Version, Bytes),
    Counter(i64),
}

impl SimAtomic {
    pub(crate) fn new(clock: &SimClock) -> Self {
        Self {
            world: Rc::default(),
            clock: clock.clone(),
            faults: Faults::default(),
            crowded: Cell::default(),
        }
    }

    /// Another isolate's handle on the same store, without faults of its own.
    pub(crate) fn isolate(&self) -> Self {
        Self {
            world: Rc::clone(&self.world),
            clock: self.clock.clone(),
            faults: Faults::default(),
            crowded: Cell::default(),
        }
    }

    /// What is stored now under `key`.
    pub fn stored(&self, key: &str) -> Option<Bytes> {
        self.forget_expired(key);
        match self
            .world
            .records
            .borrow()
            .get(key)
            .map(|record| &record.content)
        {
            Some(Content::Value(_, value)) => Some(value.clone()),
            Some(Content::Counter(_)) | None => None,
        }
    }

    /// Every key that has a value or a counter now.
    pub fn keys(&self) -> Vec<String> {
        let now = self.clock.now();
        let records = self.world.records.borrow();
        records
            .iter()
            .filter(|(_, record)| now < record.expires_at)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Operations on keys that start with `prefix`, by all isolates.
    pub fn operations(&self, prefix: &str) -> usize {
        let operations = self.world.operations.borrow();
        operations
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(_, count)| count)
            .sum()
    }

    fn forget_expired(&self, key: &str) {
        let now = self.clock.now();
        let mut records = self.world.records.borrow_mut();
        if records
            .get(key)
            .is_some_and(|record| now >= record.expires_at)
        {
            records.remove(key);
        }
    }

    fn begin(&self, key: &str) -> Result<(), Unavailable> {
        if key.is_empty() || key.len() > KV_KEY_MAX {
            return Err(unavailable("the key is empty or too long"));
        }
        *self
            .world
            .operations
            .borrow_mut()
            .entry(key.to_owned())
            .or_default() += 1;
        self.forget_expired(key);
        Ok(())
    }

    fn look(&self, key: &str) -> Result<Option<(Version, Bytes)>, Unavailable> {
        self.faults.reading()?;
        let records = self.world.records.borrow();
        match records.get(key).map(|record| &record.content) {
            None => Ok(None),
            Some(Content::Value(version, value)) => Ok(Some((*version, value.clone()))),
            Some(Content::Counter(_)) => Err(unavailable("the key holds a counter")),
        }
    }

    fn swap_now(
        &self,
        key: &str,
        expected: Option<Version>,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<Swap, Unavailable> {
        let mut records = self.world.records.borrow_mut();
        let found = match records.get(key).map(|record| &record.content) {
            None => None,
            Some(Content::Value(version, _)) => Some(*version),
            Some(Content::Counter(_)) => return Err(unavailable("the key holds a counter")),
        };
        if found != expected {
            return Ok(Swap::Conflict);
        }
        let version = Version(self.world.last_version.get() + 1);
        self.world.last_version.set(version.0);
        records.insert(
            key.to_owned(),
            Record {
                content: Content::Value(version, value),
                expires_at,
            },
        );
        self.world.waiting.changed(key);
        Ok(Swap::Done(version))
    }

    fn add_now(&self, key: &str, delta: i64, expires_at: Timestamp) -> Result<i64, Unavailable> {
        let mut records = self.world.records.borrow_mut();
        let record = records.entry(key.to_owned()).or_insert(Record {
            content: Content::Counter(0),
            expires_at,
        });
        match &mut record.content {
            Content::Counter(sum) => {
                *sum = sum.saturating_add(delta);
                Ok(*sum)
            }
            Content::Value(..) => Err(unavailable("the key holds a value")),
        }
    }
}

impl World {
    fn expires_at(&self, key: &str) -> Option<Timestamp> {
        self.records
            .borrow()
            .get(key)
            .map(|record| record.expires_at)
    }
}

impl AtomicStore for SimAtomic {
    async fn get(&self, key: &str) -> Result<Option<(Version, Bytes)>, Unavailable> {
        give_way().await;
        self.begin(key)?;
        let found = self.look(key);
        give_way().await;
        found
    }

    async fn wait(
        &self,
        key: &str,
        seen: Option<Version>,
        within: Duration,
    ) -> Result<Option<(Version, Bytes)>, Unavailable> {
        give_way().await;
        self.begin(key)?;
        let until = self.clock.now() + within.min(WAIT_MAX);
        let found = loop {
            self.forget_expired(key);
            let found = self.look(key)?;
            let version = found.as_ref().map(|(version, _)| *version);
            let now = self.clock.now();
            if version != seen || now >= until || self.crowded.get() {
                break found;
            }
            // Nobody else is polled between the look and the wait: no change is missed.
            let next = self.world.expires_at(key).map_or(until, |at| at.min(until));
            let over = self.clock.sleep(next.since(now));
            select(self.world.waiting.change(key), pin!(over)).await;
        };
        give_way().await;
        Ok(found)
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<Version>,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<Swap, Unavailable> {
        give_way().await;
        self.begin(key)?;
        if value.len() > ATOMIC_VALUE_MAX {
            return Err(unavailable("the value is too large"));
        }
        let outcome = match self.faults.writing(key)? {
            None => self.swap_now(key, expected, value, expires_at),
            Some(Fault::Conflict) => Ok(Swap::Conflict),
            Some(fault) => {
                if fault.persists() {
                    self.swap_now(key, expected, value, expires_at)?;
                }
                fault.told().await
            }
        };
        give_way().await;
        outcome
    }

    async fn add(&self, key: &str, delta: i64, expires_at: Timestamp) -> Result<i64, Unavailable> {
        give_way().await;
        self.begin(key)?;
        let outcome = match self.faults.writing(key)? {
            None => self.add_now(key, delta, expires_at),
            Some(fault) => {
                if fault.persists() {
                    self.add_now(key, delta, expires_at)?;
                }
                fault.told().await
            }
        };
        give_way().await;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_gateway::platform::Platform;

    use super::*;
    use crate::Simulator;

    fn later(world: &Simulator) -> Timestamp {
        world.clock.now() + Duration::from_secs(60)
    }

    #[test]
    fn a_swap_that_failed_but_persisted_is_found_on_reading_again() {
        let world = Simulator::new();
        world.atomic.faults.arrange("k", 1, Fault::FailButPersist);
        assert!(
            world
                .run(world.atomic().swap("k", None, "v".into(), later(&world)))
                .is_err()
        );
        let (version, value) = world.run(world.atomic().get("k")).unwrap().unwrap();
        assert_eq!(value, "v");
        let again = world
            .run(
                world
                    .atomic()
                    .swap("k", Some(version), "w".into(), later(&world)),
            )
            .unwrap();
        assert!(matches!(again, Swap::Done(newer) if newer > version));
    }

    #[test]
    fn an_arranged_conflict_or_failure_writes_nothing() {
        let world = Simulator::new();
        world.atomic.faults.arrange("k", 1, Fault::Conflict);
        world.atomic.faults.arrange("k", 1, Fault::Fail);
        let swap = || world.run(world.atomic().swap("k", None, "v".into(), later(&world)));
        assert_eq!(swap(), Ok(Swap::Conflict));
        assert!(swap().is_err());
        assert_eq!(world.atomic.stored("k"), None);
        assert!(matches!(swap(), Ok(Swap::Done(_))));
    }

    #[test]
    fn a_value_larger_than_stores_take_is_not_written() {
        let world = Simulator::new();
        let swap = |length| {
            let value = vec![b'x'; length].into();
            world.run(world.atomic().swap("k", None, value, later(&world)))
        };
        assert!(swap(ATOMIC_VALUE_MAX + 1).is_err());
        assert_eq!(world.atomic.stored("k"), None);
        assert!(matches!(swap(ATOMIC_VALUE_MAX), Ok(Swap::Done(_))));
    }

    #[test]
    fn a_version_is_not_used_again_after_the_record_expired() {
        let world = Simulator::new();
        let swap = || {
            world
                .run(world.atomic().swap("k", None, "v".into(), later(&world)))
                .unwrap()
        };
        let Swap::Done(first) = swap() else {
            panic!("the key was absent")
        };
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(world.atomic.keys(), [""; 0]);
        let Swap::Done(second) = swap() else {
            panic!("the record had expired")
        };
        assert!(second > first);
    }

    #[test]
    fn a_wait_fails_in_an_outage_and_is_short_where_many_wait() {
        let world = Simulator::new();
        let wait = |isolate: &SimAtomic| {
            let (begun, outcome) = (world.clock.now(), isolate.wait("k", None, WAIT_MAX));
            let outcome = world.run(outcome);
            (outcome, world.clock.now().since(begun))
        };
        assert_eq!(wait(&world.atomic), (Ok(None), WAIT_MAX));
        world.atomic.crowded.set(true);
        assert_eq!(wait(&world.atomic), (Ok(None), Duration::ZERO));
        world.atomic.faults.outage(true);
        assert!(wait(&world.atomic).0.is_err());
        let other = world.atomic.isolate();
        let mut waiting = world.start(other.wait("k", None, WAIT_MAX));
        assert!(waiting.step().is_none());
        other.faults.outage(true);
        assert!(waiting.finish().unwrap().is_err());
    }

    #[test]
    fn isolates_share_records_but_not_faults() {
        let one = Simulator::new();
        let two = one.isolate();
        one.atomic.faults.outage(true);
        assert_eq!(two.run(two.atomic().add("c", 5, later(&two))), Ok(5));
        assert!(one.run(one.atomic().add("c", 5, later(&one))).is_err());
        one.atomic.faults.outage(false);
        assert_eq!(one.run(one.atomic().add("c", -2, later(&one))), Ok(3));
    }
}
