//! Places for what is under way at once in one isolate, each taken until it is given back.
//!
//! A place that is never given back, because its request was lost without being dropped, is
//! free again when its lease is over: nothing stays shut for good.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::time::Timestamp;

/// Any number of places; whoever takes one says how many there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Rc<RefCell<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Until when at most, by the order in which they were taken.
    until: BTreeMap<u64, Timestamp>,
}

/// One place; dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Place {
    of: Places,
    number: u64,
}

impl Places {
    /// Takes one of `max` places for no longer than `until`, if one is free.
    pub(crate) fn take(&self, now: Timestamp, until: Timestamp, max: u32) -> Option<Place> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        if self.taken(now) >= max {
            return None;
        }
        let mut taken = self.0.borrow_mut();
        let number = taken.next;
        taken.next += 1;
        taken.until.insert(number, until);
        Some(Place {
            of: self.clone(),
            number,
        })
    }

    /// How many are taken.
    pub(crate) fn taken(&self, now: Timestamp) -> usize {
        let mut taken = self.0.borrow_mut();
        taken.until.retain(|_, until| *until > now);
        taken.until.len()
    }
}

impl Place {
    /// Whether it was taken before all others that are taken.
    pub(crate) fn is_first(&self) -> bool {
        let taken = self.of.0.borrow();
        taken
            .until
            .first_key_value()
            .is_none_or(|(first, _)| *first >= self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.0.borrow_mut().until.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Timestamp = Timestamp(1_000);

    #[test]
    fn no_more_places_are_taken_than_there_are_and_one_given_back_is_free() {
        let places = Places::default();
        let now = Timestamp(0);
        let first = places.take(now, FAR, 2).unwrap();
        let second = places.take(now, FAR, 2).unwrap();
        assert!(places.take(now, FAR, 2).is_none());
        assert!(first.is_first() && !second.is_first());
        drop(first);
        assert!(second.is_first());
        assert!(places.take(now, FAR, 2).is_some());
    }

    #[test]
    fn a_place_that_is_never_given_back_is_free_when_its_lease_is_over() {
        let places = Places::default();
        let lost = places.take(Timestamp(0), FAR, 1);
        assert!(places.take(Timestamp(999), FAR, 1).is_none());
        let next = places.take(Timestamp(1_000), Timestamp(2_000), 1);
        assert!(next.is_some());
        drop(lost);
        assert_eq!(
            places.taken(Timestamp(1_000)),
            1,
            "it was no longer its own"
        );
    }
}
