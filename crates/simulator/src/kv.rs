//! An eventually consistent store whose staleness is a field of each reader.
//!
//! Every reader (isolate) sees the same history through its own delay, so two isolates can
//! disagree in exactly the ways the contract allows: old values, old absence, and an old
//! value after a delete.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_gateway::platform::{Clock, KV_KEY_MAX, KV_TTL_MIN, KvStore, Unavailable};
use tidegate_gateway::time::Timestamp;

use crate::clock::SimClock;
use crate::fault::{Fault, Faults, unavailable};
use crate::run::give_way;

/// Least time between two writes to one key that the contract promises room for.
pub const WRITE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// One isolate's view of the shared store.
pub struct SimKv {
    world: Rc<World>,
    clock: SimClock,
    cached: RefCell<BTreeMap<String, (Timestamp, Option<Bytes>)>>,
    /// How old the state is that a read sees. Own writes are no exception.
    pub lag: Cell<Duration>,
    /// How long a read's result, absence included, is repeated without looking again.
    pub cache: Cell<Duration>,
    /// How many of the next reads find nothing although there is something.
    pub dropped_reads: Cell<u32>,
    /// What goes wrong for this isolate.
    pub faults: Faults,
}

#[derive(Default)]
struct World {
    history: RefCell<BTreeMap<String, Vec<Write>>>,
    reads: RefCell<BTreeMap<String, usize>>,
    too_fast: RefCell<Vec<String>>,
}

struct Write {
    at: Timestamp,
    value: Option<Bytes>,
    expires_at: Option<Timestamp>,
}

impl SimKv {
    pub(crate) fn new(clock: &SimClock) -> Self {
        Self::view(Rc::default(), clock)
    }

    /// Another isolate's view of the same store, without delay or faults of its own.
    pub(crate) fn isolate(&self) -> Self {
        Self::view(Rc::clone(&self.world), &self.clock)
    }

    fn view(world: Rc<World>, clock: &SimClock) -> Self {
        Self {
            world,
            clock: clock.clone(),
            cached: RefCell::default(),
            lag: Cell::default(),
            cache: Cell::default(),
            dropped_reads: Cell::default(),
            faults: Faults::default(),
        }
    }

    /// What is stored now, whatever any reader sees.
    pub fn stored(&self, key: &str) -> Option<Bytes> {
        self.as_of(key, self.clock.now())
    }

    /// Every key that has a value now.
    pub fn keys(&self) -> Vec<String> {
        let keys: Vec<String> = self.world.history.borrow().keys().cloned().collect();
        keys.into_iter()
            .filter(|key| self.stored(key).is_some())
            .collect()
    }

    /// Publishes from outside, as `tidegate push` does: not counted, not delayed, no fault.
    pub fn publish(&self, key: &str, value: impl Into<Bytes>) {
        self.write(key, Some(value.into()), None);
    }

    /// Reads of keys that start with `prefix`, by all isolates.
    pub fn reads(&self, prefix: &str) -> usize {
        let reads = self.world.reads.borrow();
        reads
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(_, count)| count)
            .sum()
    }

    /// Writes to keys that start with `prefix`, by all isolates and from outside.
    pub fn writes(&self, prefix: &str) -> usize {
        let history = self.world.history.borrow();
        history
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(_, writes)| writes.len())
            .sum()
    }

    /// Keys that were written again within [`WRITE_INTERVAL_MIN`], once for each time.
    pub fn too_fast(&self) -> Vec<String> {
        self.world.too_fast.borrow().clone()
    }

    fn as_of(&self, key: &str, at: Timestamp) -> Option<Bytes> {
        let history = self.world.history.borrow();
        let last = history.get(key)?.iter().rfind(|write| write.at <= at)?;
        // Expiry is judged by the present: a value is unreadable after its lifetime even
        // where an old state of the store is seen.
        let live = last
            .expires_at
            .is_none_or(|expires_at| self.clock.now() < expires_at);
        last.value.clone().filter(|_| live)
    }

    fn write(&self, key: &str, value: Option<Bytes>, ttl: Option<Duration>) {
        let at = self.clock.now();
        let mut history = self.world.history.borrow_mut();
        history.entry(key.to_owned()).or_default().push(Write {
            at,
            value,
            expires_at: ttl.map(|ttl| at + ttl),
        });
    }

    async fn change(
        &self,
        key: &str,
        value: Option<Bytes>,
        ttl: Option<Duration>,
    ) -> Result<(), Unavailable> {
        give_way().await;
        check_key(key)?;
        if ttl.is_some_and(|ttl| ttl < KV_TTL_MIN) {
            return Err(unavailable("the lifetime is shorter than the store takes"));
        }
        let last = self
            .world
            .history
            .borrow()
            .get(key)
            .and_then(|writes| writes.last())
            .map(|write| write.at);
        if last.is_some_and(|last| self.clock.now().since(last) < WRITE_INTERVAL_MIN) {
            self.world.too_fast.borrow_mut().push(key.to_owned());
        }
        let fault = self.faults.writing(key)?;
        if fault.is_none_or(Fault::persists) {
            self.write(key, value, ttl);
        }
        give_way().await;
        match fault {
            None => Ok(()),
            Some(fault) => fault.told().await,
        }
    }
}

fn check_key(key: &str) -> Result<(), Unavailable> {
    if key.is_empty() || key.len() > KV_KEY_MAX {
        return Err(unavailable("the key is empty or too long"));
    }
    Ok(())
}

impl KvStore for SimKv {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, Unavailable> {
        give_way().await;
        check_key(key)?;
        *self
            .world
            .reads
            .borrow_mut()
            .entry(key.to_owned())
            .or_default() += 1;
        self.faults.reading()?;
        if self.dropped_reads.get() > 0 {
            self.dropped_reads.set(self.dropped_reads.get() - 1);
            return Ok(None);
        }
        let now = self.clock.now();
        let cached = self.cached.borrow().get(key).cloned();
        if let Some((read_at, value)) =
            cached.filter(|(read_at, _)| now.since(*read_at) < self.cache.get())
        {
            let live = self.as_of(key, read_at).is_some();
            return Ok(value.filter(|_| live));
        }
        let value = self.as_of(key, now - self.lag.get());
        self.cached
            .borrow_mut()
            .insert(key.to_owned(), (now, value.clone()));
        give_way().await;
        Ok(value)
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), Unavailable> {
        self.change(key, Some(value), ttl).await
    }

    async fn delete(&self, key: &str) -> Result<(), Unavailable> {
        self.change(key, None, None).await
    }
}

#[cfg(test)]
mod tests {
    use tidegate_gateway::platform::Platform;

    use super::*;
    use crate::Simulator;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lagging_reader_sees_old_values_old_absence_and_deleted_values() {
        let writer = Simulator::new();
        let reader = writer.isolate();
        reader.kv.lag.set(SECOND * 60);
        let see = || reader.run(reader.kv().get("k")).unwrap();

        writer
            .run(writer.kv().put("k", "one".into(), None))
            .unwrap();
        assert_eq!(see(), None, "absence may be stale");
        writer.clock.advance(SECOND * 60);
        assert_eq!(see().unwrap(), "one");
        writer.run(writer.kv().delete("k")).unwrap();
        writer.clock.advance(SECOND * 59);
        assert_eq!(see().unwrap(), "one", "a deleted value may still be seen");
        writer.clock.advance(SECOND);
        assert_eq!(see(), None);
    }

    #[test]
    fn a_caching_reader_repeats_what_it_saw_first() {
        let writer = Simulator::new();
        let reader = writer.isolate();
        reader.kv.cache.set(SECOND * 30);
        assert_eq!(reader.run(reader.kv().get("k")).unwrap(), None);
        writer
            .run(writer.kv().put("k", "one".into(), None))
            .unwrap();
        writer.clock.advance(SECOND * 29);
        assert_eq!(reader.run(reader.kv().get("k")).unwrap(), None);
        writer.clock.advance(SECOND);
        assert_eq!(reader.run(reader.kv().get("k")).unwrap().unwrap(), "one");
    }

    #[test]
    fn a_value_is_unreadable_after_its_lifetime_even_to_a_stale_reader() {
        let writer = Simulator::new();
        let reader = writer.isolate();
        reader.kv.cache.set(SECOND * 600);
        writer
            .run(writer.kv().put("k", "one".into(), Some(SECOND * 60)))
            .unwrap();
        assert!(reader.run(reader.kv().get("k")).unwrap().is_some());
        writer.clock.advance(SECOND * 60);
        assert_eq!(reader.run(reader.kv().get("k")).unwrap(), None);
        assert_eq!(writer.run(writer.kv().get("k")).unwrap(), None);
    }

    #[test]
    fn writing_a_key_twice_in_a_second_is_noticed() {
        let world = Simulator::new();
        let put = |key| world.run(world.kv().put(key, "v".into(), None)).unwrap();
        put("a");
        put("b");
        world.clock.advance(SECOND);
        put("a");
        assert!(world.kv.too_fast().is_empty());
        world.clock.advance(SECOND / 2);
        put("a");
        assert_eq!(world.kv.too_fast(), ["a"]);
        assert_eq!(
            (
                world.kv.writes(""),
                world.kv.writes("a"),
                world.kv.reads("")
            ),
            (4, 3, 0)
        );
    }

    #[test]
    fn faults_fail_with_and_without_effect() {
        let world = Simulator::new();
        let put = |value: &'static str| world.run(world.kv().put("k", value.into(), None));
        world.kv.faults.arrange("k", 1, Fault::Fail);
        world.kv.faults.arrange("k", 1, Fault::FailButPersist);
        assert!(put("lost").is_err());
        assert_eq!(world.kv.stored("k"), None);
        assert!(put("kept").is_err());
        assert_eq!(world.kv.stored("k").unwrap(), "kept");
        world.kv.faults.outage(true);
        assert!(world.run(world.kv().get("k")).is_err());
        world.kv.faults.outage(false);
        world.kv.dropped_reads.set(1);
        assert_eq!(world.run(world.kv().get("k")).unwrap(), None);
        assert_eq!(world.run(world.kv().get("k")).unwrap().unwrap(), "kept");
    }
}
