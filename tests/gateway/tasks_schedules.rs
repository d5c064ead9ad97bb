//! Tasks under random schedules: deliveries that are doubled, late and out of order, crashes
//! before and after every write, writes that fail, conflict or happen all the same, stale
//! reads, several consumers at once, sweeps, upstreams that make tasks themselves ([`minted`]),
//! and time that jumps, held against a small model ([`model`]).
//!
//! A schedule follows from its number alone. One that fails says it, and
//! `TIDEGATE_SCHEDULE=<number>` runs it alone.

mod minted;
mod model;
mod schedule;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use schedule::{Kind, Schedule};

/// Schedules of one kind; there are eight kinds.
const EACH: u64 = 1280;

#[test]
fn tasks_are_never_lost_or_doubled_in_keepers() {
    search(Kind {
        kept: true,
        auto: false,
        legacy: false,
    });
}

#[test]
fn tasks_are_never_lost_or_doubled_in_consumers() {
    search(Kind {
        kept: false,
        auto: false,
        legacy: false,
    });
}

#[test]
fn calls_that_become_tasks_are_never_lost_or_doubled_in_keepers() {
    search(Kind {
        kept: true,
        auto: true,
        legacy: false,
    });
}

#[test]
fn calls_that_become_tasks_are_never_lost_or_doubled_in_isolates() {
    search(Kind {
        kept: false,
        auto: true,
        legacy: false,
    });
}

#[test]
fn tasks_of_legacy_upstreams_are_never_lost_or_doubled_in_keepers() {
    search(Kind {
        kept: true,
        auto: false,
        legacy: true,
    });
}

#[test]
fn tasks_of_legacy_upstreams_are_never_lost_or_doubled_in_consumers() {
    search(Kind {
        kept: false,
        auto: false,
        legacy: true,
    });
}

#[test]
fn calls_of_legacy_upstreams_that_become_tasks_are_never_lost_or_doubled_in_keepers() {
    search(Kind {
        kept: true,
        auto: true,
        legacy: true,
    });
}

#[test]
fn calls_of_legacy_upstreams_that_become_tasks_are_never_lost_or_doubled_in_isolates() {
    search(Kind {
        kept: false,
        auto: true,
        legacy: true,
    });
}

fn search(kind: Kind) {
    let alone = std::env::var("TIDEGATE_SCHEDULE").ok();
    let alone: Option<u64> = alone.and_then(|number| number.parse().ok());
    let mut seen = schedule::Seen::default();
    for number in alone.map_or(0..EACH, |number| number..number + 1) {
        let run = || Schedule::new(kind, number).run();
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(ended) => seen.add(ended),
            Err(panic) => {
                eprintln!("schedule {number} of {kind:?}");
                resume_unwind(panic);
            }
        }
    }
    // A search that never got anywhere would show nothing.
    if alone.is_none() {
        seen.check();
    }
}
