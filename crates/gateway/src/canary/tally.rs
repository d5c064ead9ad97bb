//! What one version of an upstream did lately: a sliding window in slots, so that what is too
//! old leaves a part at a time.

use std::time::Duration;

use serde::Serialize;

use crate::config::Rollback;
use crate::time::Timestamp;

/// Slots of a window.
const SLOTS: u64 = 6;

/// Calls of the last window, in slots.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    slots: [Slot; SLOTS as usize],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Which slot of all time it is.
    number: u64,
    sum: Sum,
}

/// Calls, how many of them failed, and how long they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sum {
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    #[serde(skip)]
    total_ms: u64,
    pub(crate) mean_ms: u64,
}

/// Why a version is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Errors,
    Latency,
}

impl Verdict {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Latency => "latency",
        }
    }
}

impl Tally {
    pub(super) fn record(&mut self, rule: &Rollback, now: Timestamp, took: Duration, failed: bool) {
        let number = number(rule, now);
        let index = usize::try_from(number % SLOTS).unwrap_or_default();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if slot.number != number {
            *slot = Slot {
                number,
                ..Slot::default()
            };
        }
        slot.sum.calls += 1;
        slot.sum.errors += u64::from(failed);
        slot.sum.total_ms += u64::try_from(took.as_millis()).unwrap_or(u64::MAX / SLOTS);
    }

    /// The calls of the window that ends now.
    pub(super) fn sum(&self, rule: &Rollback, now: Timestamp) -> Sum {
        let number = number(rule, now);
        let current = self.slots.iter().filter(|slot| {
            // A clock may step back; what is from the future counts until it is overtaken.
            slot.number.saturating_add(SLOTS) > number
        });
        let mut sum = current.fold(Sum::default(), |mut sum, slot| {
            sum.calls += slot.sum.calls;
            sum.errors += slot.sum.errors;
            sum.total_ms = sum.total_ms.saturating_add(slot.sum.total_ms);
            sum
        });
        sum.mean_ms = sum.total_ms / sum.calls.max(1);
        sum
    }
}

/// Whether these calls are reason to give the version up.
pub(super) fn judge(rule: &Rollback, sum: &Sum) -> Option<Verdict> {
    if sum.calls < u64::from(rule.minimum_calls) {
        return None;
    }
    if sum.errors * 100 > sum.calls * u64::from(rule.max_error_percent) {
        return Some(Verdict::Errors);
    }
    let slow = rule.max_mean_ms.is_some_and(|max| sum.mean_ms > max);
    slow.then_some(Verdict::Latency)
}

fn number(rule: &Rollback, now: Timestamp) -> u64 {
    now.0 / (rule.window_ms / SLOTS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rollback = Rollback {
        max_error_percent: 50,
        max_mean_ms: Some(100),
        window_ms: 6_000,
        minimum_calls: 4,
        hold_ms: None,
    };

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let (mut tally, begin) = (Tally::default(), Timestamp(1_000_000));
        for second in 0..10 {
            let now = begin + Duration::from_secs(second);
            tally.record(&RULE, now, Duration::from_millis(10 * second), second < 5);
            let sum = tally.sum(&RULE, now);
            assert_eq!(sum.calls, (second + 1).min(6), "after {second} s");
        }
        let sum = tally.sum(&RULE, begin + Duration::from_secs(9));
        // Those of the seconds 4 to 9.
        assert_eq!((sum.errors, sum.mean_ms), (1, (40 + 90) / 2));
        let none = tally.sum(&RULE, begin + Duration::from_secs(60));
        assert_eq!(none, Sum::default());
    }

    #[test]
    fn a_version_is_judged_by_enough_calls_that_fail_or_take_too_long() {
        let sum = |calls, errors, mean_ms| Sum {
            calls,
            errors,
            total_ms: 0,
            mean_ms,
        };
        for (sum, verdict) in [
            (sum(3, 3, 900), None),
            (sum(4, 2, 100), None),
            (sum(4, 3, 0), Some(Verdict::Errors)),
            (sum(4, 0, 101), Some(Verdict::Latency)),
            (sum(4, 4, 900), Some(Verdict::Errors)),
        ] {
            assert_eq!(judge(&RULE, &sum), verdict, "{sum:?}");
        }
    }
}
