//! How many of the latest calls were of a kind that is counted: a window of [`SLOTS`] slots
//! that slides by one slot at a time, so it covers between nine tenths and the whole of its
//! length.

use crate::time::Timestamp;

/// Slots of a window.
const SLOTS: u64 = 10;

/// The calls of one slot.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    number: u64,
    calls: u32,
    marked: u32,
}

/// The calls of a window, by slot. All of its life it must be asked for the same length.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    slots: [Slot; SLOTS as usize],
}

impl Window {
    /// Counts one call.
    pub(super) fn count(&mut self, now: Timestamp, length_ms: u64, marked: bool) {
        let number = number(now, length_ms);
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
        slot.marked = slot.marked.saturating_add(marked.into());
    }

    /// How many calls there were, and how many of them were marked.
    pub(super) fn sums(&self, now: Timestamp, length_ms: u64) -> (u64, u64) {
        let number = number(now, length_ms);
        // What is ahead of a clock that stepped back is not in the window.
        let within = self
            .slots
            .iter()
            .filter(|slot| slot.number <= number && number - slot.number < SLOTS);
        within.fold((0, 0), |(calls, marked), slot| {
            (
                calls + u64::from(slot.calls),
                marked + u64::from(slot.marked),
            )
        })
    }
}

/// The number of the slot a moment is in.
fn number(now: Timestamp, length_ms: u64) -> u64 {
    now.0 / (length_ms / SLOTS).max(1)
}
