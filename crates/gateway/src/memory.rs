//! Isolate-local memory: hints that may be empty at any moment.
//!
//! On Workers it lives as long as the isolate, on Spin as long as the instance. Everything
//! in it can be found again through the ports, so losing it costs time, never correctness.
//! No borrow is held across an `await`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::rc::Rc;

use crate::{
    auth, canary, catalog, credentials, health, keep, limits, listen, load, mirror, park, session,
    settings, switches, tasks, tools, upstream,
};

/// What one isolate remembers, or one keeper in it. The host keeps it in an `Rc` for as long
/// as that lives.
#[derive(Default)]
pub struct Memory {
    known: Rc<Known>,
    pub(crate) keep: keep::Memory,
    pub(crate) tasks: tasks::Memory,
    pub(crate) park: park::Memory,
}

/// What is true for all of an isolate, whoever in it learned it first.
#[derive(Default)]
pub struct Known {
    pub(crate) settings: settings::Memory,
    pub(crate) switches: switches::Memory,
    pub(crate) auth: auth::Memory,
    pub(crate) credentials: credentials::Memory,
    pub(crate) limits: limits::Memory,
    pub(crate) listen: listen::Memory,
    pub(crate) load: load::Memory,
    pub(crate) upstream: upstream::Memory,
    pub(crate) canary: canary::Memory,
    pub(crate) catalog: catalog::Memory,
    pub(crate) health: health::Memory,
    pub(crate) mirror: mirror::Memory,
    pub(crate) tools: tools::Memory,
    pub(crate) sessions: session::Memory,
}

impl Memory {
    /// The memory of a keeper in the isolate whose memory `other` is: it knows what the
    /// isolate knows, and keeps what is its own. One that knew nothing would read and compile
    /// the configuration for the sake of a single call.
    pub fn beside(other: &Self) -> Self {
        Self {
            known: Rc::clone(&other.known),
            ..Self::default()
        }
    }
}

impl Deref for Memory {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}

/// A map that never holds more than `max` entries; the one written longest ago leaves first.
pub(crate) struct Bounded<K, V> {
    max: usize,
    entries: RefCell<Entries<K, V>>,
}

struct Entries<K, V> {
    written: u64,
    by_key: BTreeMap<K, (u64, V)>,
    by_age: BTreeMap<u64, K>,
}

impl<K: Ord + Clone, V> Bounded<K, V> {
    /// An empty map with room for `max` entries.
    pub(crate) const fn new(max: usize) -> Self {
        Self {
            max,
            entries: RefCell::new(Entries {
                written: 0,
                by_key: BTreeMap::new(),
                by_age: BTreeMap::new(),
            }),
        }
    }

    /// Looks at the entry for `key` through `read`.
    pub(crate) fn with<T>(&self, key: &K, read: impl FnOnce(&mut V) -> T) -> Option<T> {
        self.entries
            .borrow_mut()
            .by_key
            .get_mut(key)
            .map(|(_, value)| read(value))
    }

    /// A copy of the entry for `key`.
    pub(crate) fn get(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        self.with(key, |value| value.clone())
    }

    /// Writes an entry, making room if there is none. Returns the entry that had to leave.
    pub(crate) fn insert(&self, key: K, value: V) -> Option<(K, V)> {
        let mut entries = self.entries.borrow_mut();
        let entries = &mut *entries;
        entries.written += 1;
        let age = entries.written;
        if let Some((old, _)) = entries.by_key.insert(key.clone(), (age, value)) {
            entries.by_age.remove(&old);
        }
        entries.by_age.insert(age, key);
        if entries.by_key.len() <= self.max {
            return None;
        }
        let (_, oldest) = entries.by_age.pop_first()?;
        entries
            .by_key
            .remove(&oldest)
            .map(|(_, value)| (oldest, value))
    }

    /// Takes out every entry whose key is `gone`.
    pub(crate) fn forget(&self, gone: impl Fn(&K) -> bool) {
        let mut entries = self.entries.borrow_mut();
        entries.by_key.retain(|key, _| !gone(key));
        entries.by_age.retain(|_, key| !gone(key));
    }

    /// Takes an entry out.
    pub(crate) fn remove(&self, key: &K) -> Option<V> {
        let mut entries = self.entries.borrow_mut();
        let (age, value) = entries.by_key.remove(key)?;
        entries.by_age.remove(&age);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_written_longest_ago_leaves_when_there_is_no_room() {
        let map = Bounded::new(2);
        assert_eq!(map.insert("a", 1), None);
        assert_eq!(map.insert("b", 2), None);
        assert_eq!(map.insert("a", 3), None, "a rewritten entry is young again");
        assert_eq!(map.insert("c", 4), Some(("b", 2)));
        assert_eq!(
            (map.get(&"a"), map.get(&"b"), map.get(&"c")),
            (Some(3), None, Some(4))
        );
    }

    #[test]
    fn a_removed_entry_makes_room() {
        let map = Bounded::new(1);
        map.insert("a", 1);
        assert_eq!(map.remove(&"a"), Some(1));
        assert_eq!(map.insert("b", 2), None);
    }
}
