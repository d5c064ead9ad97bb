//! What one version of an upstream did lately: a sliding window in slots, so that what is too
//! old leaves a part at a time.

use std::time::Duration;

use serde::Serialize;

use crate::config::Rollback;
use crate::time::Timestamp;

/// Slots of a window.
const SLOTS: u64 = 6;
/// So many of a hundred answered calls may take longer than the rule's 95th percentile.
const SLOW_PERCENT: u64 = 5;
/// Bits of each count in a [packed](Sum::packed) sum.
const PACKED_BITS: u32 = 21;

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

/// Calls, how many of them failed, and how many of the others took too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sum {
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) slow: u64,
}

/// What came of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It was answered in time.
    Answered,
    /// It was answered, or given up by its client, when that had taken too long.
    Slow,
    /// It failed.
    Failed,
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

impl Seen {
    /// A call that was answered after so long.
    pub(super) fn answered(rule: &Rollback, took: Duration) -> Self {
        let max = rule.max_p95_ms.map(Duration::from_millis);
        match max.is_some_and(|max| took > max) {
            true => Self::Slow,
            false => Self::Answered,
        }
    }

    /// The sum of this call alone.
    pub(super) fn sum(self) -> Sum {
        Sum {
            calls: 1,
            errors: u64::from(self == Self::Failed),
            slow: u64::from(self == Self::Slow),
        }
    }
}

impl Sum {
    /// Most calls up to which no count runs into the next when sums are added as numbers, by
    /// whoever has not heard yet that there are as many.
    pub(super) const PACKED_MAX: u64 = 1 << (PACKED_BITS - 1);

    /// All three counts in one number, such that the numbers add up as the counts do.
    pub(super) const fn packed(self) -> i64 {
        let packed = self.calls | self.errors << PACKED_BITS | self.slow << (2 * PACKED_BITS);
        packed.cast_signed()
    }

    pub(super) const fn unpacked(packed: i64) -> Self {
        let (packed, mask) = (packed.cast_unsigned(), (1 << PACKED_BITS) - 1);
        Self {
            calls: packed & mask,
            errors: packed >> PACKED_BITS & mask,
            slow: packed >> (2 * PACKED_BITS) & mask,
        }
    }

    const fn and(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            errors: self.errors + other.errors,
            slow: self.slow + other.slow,
        }
    }
}

impl Tally {
    pub(super) fn record(&mut self, rule: &Rollback, now: Timestamp, seen: Seen) {
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
        slot.sum = slot.sum.and(seen.sum());
    }

    /// The calls of the window that ends now.
    pub(super) fn sum(&self, rule: &Rollback, now: Timestamp) -> Sum {
        let number = number(rule, now);
        let current = self.slots.iter().filter(|slot| {
            // A clock may step back; what is from the future counts until it is overtaken.
            slot.number.saturating_add(SLOTS) > number
        });
        current.fold(Sum::default(), |sum, slot| sum.and(slot.sum))
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
    // Exactly then the 95th percentile of those that were answered is above the rule's.
    let answered = sum.calls.saturating_sub(sum.errors);
    let slow = rule.max_p95_ms.is_some() && sum.slow * 100 > answered * SLOW_PERCENT;
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
        max_p95_ms: Some(100),
        window_ms: 6_000,
        minimum_calls: 4,
        hold_ms: None,
    };

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let (mut tally, begin) = (Tally::default(), Timestamp(1_000_000));
        for second in 0..10 {
            let now = begin + Duration::from_secs(second);
            let took = Duration::from_millis(30 * second);
            let seen = match second < 5 {
                true => Seen::Failed,
                false => Seen::answered(&RULE, took),
            };
            tally.record(&RULE, now, seen);
            let sum = tally.sum(&RULE, now);
            assert_eq!(sum.calls, (second + 1).min(6), "after {second} s");
        }
        let sum = tally.sum(&RULE, begin + Duration::from_secs(9));
        // Those of the seconds 4 to 9.
        assert_eq!((sum.errors, sum.slow), (1, 5));
        let none = tally.sum(&RULE, begin + Duration::from_secs(60));
        assert_eq!(none, Sum::default());
    }

    #[test]
    fn a_version_is_judged_by_enough_calls_that_fail_or_take_too_long() {
        for (calls, errors, slow, verdict) in [
            (3, 3, 0, None),
            (4, 2, 0, None),
            (4, 3, 0, Some(Verdict::Errors)),
            (100, 0, 5, None),
            (100, 0, 6, Some(Verdict::Latency)),
            // Five of eighty is more than one of twenty.
            (100, 20, 5, Some(Verdict::Latency)),
            (4, 4, 0, Some(Verdict::Errors)),
        ] {
            let sum = Sum {
                calls,
                errors,
                slow,
            };
            assert_eq!(judge(&RULE, &sum), verdict, "{sum:?}");
        }
        let patient = Rollback {
            max_p95_ms: None,
            ..RULE
        };
        let forever = Duration::from_secs(3600);
        assert_eq!(Seen::answered(&patient, forever), Seen::Answered);
    }

    #[test]
    fn a_few_slow_calls_do_not_hide_behind_many_quick_ones_nor_weigh_more_than_one_each() {
        let judged = |slow: u64| {
            let mut tally = Tally::default();
            for n in 0..200 {
                // A mean would be far above the rule with one of these, and far below without.
                let took = if n < slow { 3_600_000 } else { 1 };
                let seen = Seen::answered(&RULE, Duration::from_millis(took));
                tally.record(&RULE, Timestamp(1_000_000), seen);
            }
            judge(&RULE, &tally.sum(&RULE, Timestamp(1_000_000)))
        };
        assert_eq!(judged(1), None);
        assert_eq!(judged(10), None);
        assert_eq!(judged(11), Some(Verdict::Latency));
    }

    #[test]
    fn packed_sums_add_up_as_the_counts_do() {
        let seen = [Seen::Answered, Seen::Slow, Seen::Failed, Seen::Failed];
        let packed: i64 = seen.iter().map(|seen| seen.sum().packed()).sum();
        let sum = Sum {
            calls: 4,
            errors: 2,
            slow: 1,
        };
        assert_eq!(Sum::unpacked(packed), sum);
        let full = Sum {
            calls: 2 * Sum::PACKED_MAX - 1,
            errors: 2 * Sum::PACKED_MAX - 1,
            slow: 2 * Sum::PACKED_MAX - 1,
        };
        assert!(full.packed() > 0);
        assert_eq!(Sum::unpacked(full.packed()), full);
    }
}
