//! How many of the latest calls failed: a window of [`SLOTS`] slots that slides by one slot
//! at a time, so it covers between nine tenths and the whole of what the rule says.

use crate::config::FailureRate;
use crate::time::Timestamp;

/// Slots of a window.
pub(super) const SLOTS: u64 = 10;

/// The calls of one slot.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    number: u64,
    calls: u32,
    failures: u32,
}

/// The calls of a window, by slot.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    slots: [Slot; SLOTS as usize],
}

impl Window {
    /// Counts one call.
    pub(super) fn count(&mut self, now: Timestamp, failed: bool, rate: &FailureRate) {
        let number = number(now, rate);
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
        slot.calls = slot.calls.saturating_add(1);
        slot.failures = slot.failures.saturating_add(failed.into());
    }

    /// Whether enough calls were made in the window, and too many of them failed.
    pub(super) fn exceeds(&self, now: Timestamp, rate: &FailureRate) -> bool {
        let number = number(now, rate);
        // What is ahead of a clock that stepped back is not in the window.
        let within = self
            .slots
            .iter()
            .filter(|slot| slot.number <= number && number - slot.number < SLOTS);
        let (calls, failures) = within.fold((0_u64, 0_u64), |(calls, failures), slot| {
            (
                calls + u64::from(slot.calls),
                failures + u64::from(slot.failures),
            )
        });
        calls >= rate.minimum_calls.into() && failures * 100 >= calls * u64::from(rate.percent)
    }
}

/// The number of the slot a moment is in.
pub(super) fn number(now: Timestamp, rate: &FailureRate) -> u64 {
    now.0 / (rate.window_ms / SLOTS).max(1)
}
