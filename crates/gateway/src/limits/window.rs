//! The arithmetic of a sliding window over two fixed buckets. Pure.
//!
//! Time is cut into buckets as long as the window. What was admitted in a window that ends
//! now is estimated as the current bucket's count plus the previous bucket's, weighted by
//! how much of it the window still covers. In whole numbers: counts are multiplied by the
//! window's length in milliseconds, so nothing is ever rounded.

use std::time::Duration;

use crate::config::Rate;
use crate::time::Timestamp;

/// Requests admitted in the bucket of the present and in the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the present bucket.
    pub current: u64,
    /// In the bucket before.
    pub previous: u64,
}

/// What is to be done with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is within the rate.
    Admit,
    /// It is not.
    Refuse {
        /// When one request will be within the rate, if nobody else comes first.
        retry_after: Duration,
    },
}

/// The number of the bucket that `now` lies in.
pub fn bucket(rate: Rate, now: Timestamp) -> u64 {
    now.0 / length(rate)
}

/// What the window that ends `now` has admitted, times its length in milliseconds.
pub fn estimate(counts: Counts, rate: Rate, now: Timestamp) -> u128 {
    weigh(counts, u128::from(length(rate)), elapsed(rate, now))
}

/// Whether a request that counts as `cost` is within `rate`, given what was admitted.
pub fn decide(counts: Counts, rate: Rate, cost: u32, now: Timestamp) -> Decision {
    let length = u128::from(length(rate));
    let cost = u128::from(cost);
    if weigh(counts, length, elapsed(rate, now)).saturating_add(cost.saturating_mul(length))
        <= u128::from(rate.requests) * length
    {
        return Decision::Admit;
    }
    Decision::Refuse {
        retry_after: retry_after(counts, rate, cost, now),
    }
}

/// How many requests are within `rate`, given what was admitted.
pub fn remaining(counts: Counts, rate: Rate, now: Timestamp) -> u64 {
    let length = u128::from(length(rate));
    let admitted = weigh(counts, length, elapsed(rate, now)).div_ceil(length);
    u64::try_from(u128::from(rate.requests).saturating_sub(admitted)).unwrap_or(u64::MAX)
}

/// How long the present bucket lasts.
pub fn rest(rate: Rate, now: Timestamp) -> Duration {
    Duration::from_millis(length(rate) - now.0 % length(rate))
}

/// How long until a request is within `rate`, if no other is admitted meanwhile.
fn retry_after(counts: Counts, rate: Rate, cost: u128, now: Timestamp) -> Duration {
    let (length, elapsed) = (u128::from(length(rate)), elapsed(rate, now));
    let millis = match room_from(counts, rate, cost, length) {
        Some(from) => from.saturating_sub(elapsed),
        None => {
            // Not in this bucket: in the next, which has this one before it, or after that.
            let next = Counts {
                current: 0,
                previous: counts.current,
            };
            (length - elapsed).saturating_add(room_from(next, rate, cost, length).unwrap_or(length))
        }
    };
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// From how many milliseconds into the bucket there is room for a request; `None` when there
/// is none while the bucket lasts.
fn room_from(counts: Counts, rate: Rate, cost: u128, length: u128) -> Option<u128> {
    let room = u128::from(rate.requests).checked_sub(u128::from(counts.current) + cost)?;
    // previous × (length − from) ≤ room × length
    match room
        .saturating_mul(length)
        .checked_div(u128::from(counts.previous))
    {
        None => Some(0),
        Some(covered) => Some(length.saturating_sub(covered)),
    }
}

fn weigh(counts: Counts, length: u128, elapsed: u128) -> u128 {
    let current = u128::from(counts.current).saturating_mul(length);
    current.saturating_add(u128::from(counts.previous).saturating_mul(length - elapsed))
}

fn elapsed(rate: Rate, now: Timestamp) -> u128 {
    u128::from(now.0 % length(rate))
}

fn length(rate: Rate) -> u64 {
    rate.window_ms.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_bucket_counts_by_how_much_of_it_the_window_covers() {
        let rate = Rate {
            requests: 10,
            window_ms: 1_000,
        };
        let counts = Counts {
            current: 3,
            previous: 8,
        };
        let cases = [(0, 11_000), (250, 9_000), (500, 7_000), (999, 3_008)];
        for (elapsed, expected) in cases {
            assert_eq!(estimate(counts, rate, Timestamp(5_000 + elapsed)), expected);
        }
    }

    #[test]
    fn a_refusal_says_when_there_is_room() {
        let rate = Rate {
            requests: 10,
            window_ms: 1_000,
        };
        let cases = [
            // The previous bucket fades.
            (
                Counts {
                    current: 5,
                    previous: 10,
                },
                0,
                600,
            ),
            (
                Counts {
                    current: 5,
                    previous: 10,
                },
                400,
                200,
            ),
            // The present one is full: in the next it must fade to nine.
            (
                Counts {
                    current: 10,
                    previous: 0,
                },
                400,
                600 + 100,
            ),
            (
                Counts {
                    current: 10,
                    previous: 10,
                },
                999,
                1 + 100,
            ),
            // Others went far beyond: it must fade for longer.
            (
                Counts {
                    current: 90,
                    previous: 0,
                },
                0,
                1_000 + 900,
            ),
        ];
        for (counts, elapsed, expected) in cases {
            let decision = decide(counts, rate, 1, Timestamp(7_000 + elapsed));
            assert_eq!(
                decision,
                Decision::Refuse {
                    retry_after: Duration::from_millis(expected)
                },
                "{counts:?}"
            );
        }
        let one = Rate {
            requests: 1,
            window_ms: 1_000,
        };
        let decision = decide(
            Counts {
                current: 1,
                previous: 0,
            },
            one,
            1,
            Timestamp(7_400),
        );
        assert_eq!(
            decision,
            Decision::Refuse {
                retry_after: Duration::from_millis(600 + 1_000)
            }
        );
    }

    #[test]
    fn retrying_when_told_succeeds_and_a_millisecond_earlier_does_not() {
        let mut random = 7_u64;
        let mut next = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        for _ in 0..200_000 {
            let rate = Rate {
                requests: 1 + next(50) as u32,
                window_ms: 1 + next(300),
            };
            let counts = Counts {
                current: next(80),
                previous: next(80),
            };
            let now = Timestamp(10 * rate.window_ms + next(rate.window_ms));
            match decide(counts, rate, 1, now) {
                Decision::Admit => assert!(fits(counts, rate, now, now)),
                Decision::Refuse { retry_after } => {
                    let then = now + retry_after;
                    assert!(retry_after > Duration::ZERO && !fits(counts, rate, now, now));
                    assert!(
                        fits(counts, rate, now, then),
                        "{counts:?} {rate:?} {now:?} {then:?}"
                    );
                    assert!(
                        !fits(counts, rate, now, then - Duration::from_millis(1)),
                        "{counts:?} {rate:?} {now:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let rate = Rate {
            requests: u32::MAX,
            window_ms: u64::MAX,
        };
        let counts = Counts {
            current: u64::MAX,
            previous: u64::MAX,
        };
        for now in [Timestamp(0), Timestamp(u64::MAX)] {
            assert!(matches!(
                decide(counts, rate, 1, now),
                Decision::Refuse { .. }
            ));
        }
        let none = Rate {
            requests: 0,
            window_ms: 0,
        };
        assert!(matches!(
            decide(Counts::default(), none, 1, Timestamp(5)),
            Decision::Refuse { .. }
        ));
    }

    #[test]
    fn admissions_agree_with_a_reference_that_remembers_every_one() {
        for seed in 1..=60_u64 {
            let mut random = seed;
            let mut next = |bound: u64| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % bound
            };
            let rate = Rate {
                requests: 1 + next(20) as u32,
                window_ms: 10 + next(1_000),
            };
            let mut admitted: Vec<u64> = Vec::new();
            let mut now = 1_000_000;
            for _ in 0..600 {
                now += next(1 + rate.window_ms / u64::from(rate.requests));
                let counts = history(&admitted, rate, now);
                let admit = decide(counts, rate, 1, Timestamp(now)) == Decision::Admit;
                assert_eq!(admit, fits(counts, rate, Timestamp(now), Timestamp(now)));
                if admit {
                    admitted.push(now);
                }
            }
            let most = |length: u64, aligned: bool| {
                let starts = admitted.iter().map(|at| {
                    if aligned {
                        at - at % rate.window_ms
                    } else {
                        *at
                    }
                });
                starts
                    .map(|from| {
                        admitted
                            .iter()
                            .filter(|at| (from..from + length).contains(at))
                            .count()
                    })
                    .max()
            };
            let limit = rate.requests as usize;
            assert!(
                most(rate.window_ms, true) <= Some(limit),
                "a bucket never holds more than the limit"
            );
            assert!(
                most(rate.window_ms, false) < Some(2 * limit),
                "no window holds twice the limit"
            );
        }
    }

    fn history(admitted: &[u64], rate: Rate, now: u64) -> Counts {
        let bucket = now / rate.window_ms;
        let of = |wanted: u64| {
            admitted
                .iter()
                .filter(|at| **at / rate.window_ms == wanted)
                .count() as u64
        };
        Counts {
            current: of(bucket),
            previous: of(bucket - 1),
        }
    }

    /// Whether one request at `then` is within the rate, `counts` being of `now`: the
    /// definition in fractions, without the shortcuts.
    fn fits(counts: Counts, rate: Rate, now: Timestamp, then: Timestamp) -> bool {
        let moved = then.0 / rate.window_ms - now.0 / rate.window_ms;
        let (current, previous) = match moved {
            0 => (counts.current, counts.previous),
            1 => (0, counts.current),
            _ => (0, 0),
        };
        let covered = rate.window_ms - then.0 % rate.window_ms;
        (current + 1) * rate.window_ms + previous * covered
            <= u64::from(rate.requests) * rate.window_ms
    }
}
