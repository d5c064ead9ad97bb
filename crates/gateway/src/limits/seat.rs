//! Who may write which slot of a limit and principal, and who reads which. Pure.
//!
//! Time is cut into terms. Whoever has something to report draws a number, once in a term,
//! from a counter in the store that is linearizable per key: no two draw the same. The
//! number is the seat, and the seat the only slot its holder writes for the rest of the
//! term. So a key has one writer in a term, whatever the isolates know of each other, and
//! nothing needs to be handed back: an isolate that dies leaves its seat empty until the
//! term is over.
//!
//! Between two terms nobody writes for [`REST`]. That is how much the isolates' clocks may
//! differ and a write may linger; as long as they do not exceed it, a slot has rested before
//! its next owner writes.
//!
//! The seats stand in rows of [`ROW`]. One reads one's row and one's column and writes all
//! one knows, so what is written in any seat reaches any other in two steps: seats are taken
//! in order, so of the two seats where a row and a column cross, at least one is taken.

use std::time::Duration;

use crate::time::Timestamp;

/// How long a seat is held. An isolate asks the linearizable store once in a term for each
/// limit and principal that it has something to report of.
pub const TERM: Duration = Duration::from_secs(600);
/// Most that the clocks of two isolates may differ.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(10);
/// Longest after its beginning that a write may still arrive.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long before the end of a term its writers stop.
pub const REST: Duration = CLOCK_SKEW_MAX.saturating_add(WRITE_TIME_MAX);
/// Seats in a row: as many isolates see each other directly.
pub const ROW: usize = 8;
/// Seats for one limit and principal. Whoever comes later counts alone until the next term.
pub const SEATS: usize = ROW * ROW;
/// After how long an isolate that was given no number asks again.
const ASK_INTERVAL: Duration = Duration::from_secs(30);

/// The term that `now` lies in.
pub fn term(now: Timestamp) -> u64 {
    now.0 / length()
}

/// Until when the counter of a term is kept: well beyond its end, so that nobody is ever
/// given a number twice.
pub fn kept_until(term: u64) -> Timestamp {
    Timestamp(term.saturating_add(2).saturating_mul(length()))
}

/// How long nobody may write now; nothing, but at the end of a term.
pub fn rest(now: Timestamp) -> Duration {
    let left = Duration::from_millis(length() - now.0 % length());
    if left <= REST { left } else { Duration::ZERO }
}

fn length() -> u64 {
    TERM.as_millis() as u64
}

/// The place of one isolate among those that count the same.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seat {
    drawn: Option<Drawn>,
    asked_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Drawn {
    term: u64,
    /// How many drew before.
    number: usize,
    /// Whether what the slot held before is known, so that it may be replaced.
    read: bool,
}

/// What an isolate may do about a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has a seat.
    Seated,
    /// It may draw a number.
    Waiting,
    /// Nothing: all seats were taken, or the store gave no number just now.
    Refused,
}

impl Seat {
    pub(super) fn standing(&self, now: Timestamp) -> Standing {
        match self.of(term(now)) {
            Some(drawn) if drawn.number < SEATS => Standing::Seated,
            Some(_) => Standing::Refused,
            None if self.asked_at.is_some_and(|at| is_recent(at, now)) => Standing::Refused,
            None => Standing::Waiting,
        }
    }

    pub(super) const fn ask(&mut self, now: Timestamp) {
        self.asked_at = Some(now);
    }

    /// The store has given a number in answer: the `count`th of `term`.
    pub(super) fn draw(&mut self, term: u64, count: i64) {
        let number = usize::try_from(count.saturating_sub(1)).unwrap_or(usize::MAX);
        self.asked_at = None;
        self.drawn = Some(Drawn {
            term,
            number,
            read: false,
        });
    }

    /// A slot has been read, or found empty.
    pub(super) fn has_read(&mut self, slot: usize) {
        if let Some(drawn) = self.drawn.as_mut().filter(|drawn| drawn.number == slot) {
            drawn.read = true;
        }
    }

    /// Whether one's own slot has to be read before it can be written.
    pub(super) fn is_unread(&self, now: Timestamp) -> bool {
        self.standing(now) == Standing::Seated && self.slot_once_read(now).is_none()
    }

    /// The slot to write now, if one may be written.
    pub(super) fn slot(&self, now: Timestamp) -> Option<usize> {
        self.slot_once_read(now).filter(|_| rest(now).is_zero())
    }

    /// Whether others sit in other rows, so that what they report has to be passed on, when
    /// so many `isolates` are known.
    pub(super) fn is_passing_on(&self, isolates: usize) -> bool {
        self.place() >= ROW || isolates > ROW
    }

    /// The slots to read when so many `isolates` are known: one's row, and one's column as
    /// far as the rows are taken and one further. Without a seat, somebody's row: there, all
    /// has been passed on.
    pub(super) fn neighbours(
        &self,
        isolates: usize,
        now: Timestamp,
    ) -> impl Iterator<Item = usize> + use<> {
        let (row, column) = (self.place() / ROW, self.place() % ROW);
        let rows = match self.drawn {
            Some(drawn) if drawn.number < SEATS => (row + 1).max(isolates.div_ceil(ROW)) + 1,
            Some(_) | None => 0,
        };
        let own = self.slot_once_read(now);
        let along = (0..ROW).map(move |column| row * ROW + column);
        let across = (0..rows.min(SEATS / ROW))
            .filter(move |other| *other != row)
            .map(move |other| other * ROW + column);
        along.chain(across).filter(move |slot| own != Some(*slot))
    }

    /// Where to look from.
    fn place(&self) -> usize {
        self.drawn.map_or(0, |drawn| drawn.number % SEATS)
    }

    /// One's own slot, when there is nothing in it that one does not know.
    fn slot_once_read(&self, now: Timestamp) -> Option<usize> {
        self.of(term(now))
            .filter(|drawn| drawn.number < SEATS && drawn.read)
            .map(|drawn| drawn.number)
    }

    fn of(&self, term: u64) -> Option<Drawn> {
        self.drawn.filter(|drawn| drawn.term == term)
    }
}

fn is_recent(then: Timestamp, now: Timestamp) -> bool {
    then <= now && now.since(then) < ASK_INTERVAL
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const START: Timestamp = Timestamp(6_000_000);
    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_seat_is_for_its_term_and_rests_at_the_end() {
        let seat = seated(3);
        let last = START + TERM - REST - MILLISECOND;
        assert_eq!((seat.slot(START), seat.slot(last)), (Some(3), Some(3)));
        for late in [REST, REST - MILLISECOND, MILLISECOND] {
            assert_eq!(seat.slot(START + TERM - late), None);
            assert_eq!(rest(START + TERM - late), late);
        }
        assert_eq!(seat.slot(START + TERM), None);
        assert_eq!(seat.standing(START + TERM), Standing::Waiting);
        assert!(kept_until(term(START)) >= START + TERM + REST);
    }

    #[test]
    fn two_clocks_that_differ_as_far_as_allowed_never_share_a_slot() {
        for difference in [Duration::ZERO, CLOCK_SKEW_MAX / 2, CLOCK_SKEW_MAX] {
            let (mut early, late) = (Seat::default(), seated(0));
            early.draw(term(START + TERM), 1);
            early.has_read(0);
            let mut last_write = None;
            for second in 0..TERM.as_secs() * 2 {
                let now = START + Duration::from_secs(second);
                if late.slot(now).is_some() {
                    last_write = Some(now + WRITE_TIME_MAX);
                }
                if early.slot(now + difference).is_some() {
                    assert!(last_write <= Some(now));
                }
            }
        }
    }

    #[test]
    fn a_slot_is_not_replaced_before_it_was_read() {
        let mut seat = Seat::default();
        assert!(!seat.is_unread(START), "there is nothing to write yet");
        seat.draw(term(START), 5);
        assert_eq!((seat.slot(START), seat.is_unread(START)), (None, true));
        assert!(seat.neighbours(1, START).any(|slot| slot == 4));
        seat.has_read(3);
        assert_eq!(seat.slot(START), None);
        seat.has_read(4);
        assert_eq!((seat.slot(START), seat.is_unread(START)), (Some(4), false));
        assert!(seat.neighbours(1, START).all(|slot| slot != 4));
    }

    #[test]
    fn whoever_finds_all_seats_taken_waits_for_the_next_term() {
        let seat = seated(SEATS);
        assert_eq!(seat.slot(START), None);
        assert_eq!(seat.standing(START), Standing::Refused);
        assert_eq!(seat.standing(START + TERM), Standing::Waiting);
        for count in [i64::MIN, 0, i64::MAX] {
            let mut odd = Seat::default();
            odd.draw(term(START), count);
            odd.has_read(0);
            assert_eq!(odd.slot(START), None, "{count}");
        }
    }

    #[test]
    fn a_store_that_gives_no_number_is_asked_again_later() {
        let mut seat = Seat::default();
        assert_eq!(seat.standing(START), Standing::Waiting);
        seat.ask(START);
        assert_eq!(seat.standing(START), Standing::Refused);
        assert_eq!(
            seat.standing(START + ASK_INTERVAL - MILLISECOND),
            Standing::Refused
        );
        assert_eq!(seat.standing(START + ASK_INTERVAL), Standing::Waiting);
        assert_eq!(
            seat.standing(START - MILLISECOND),
            Standing::Waiting,
            "a clock that stepped back wedges nothing"
        );
    }

    #[test]
    fn what_one_seat_writes_reaches_every_other_in_two_steps() {
        for taken in 1..=SEATS {
            let reads: Vec<BTreeSet<usize>> = (0..taken)
                .map(|number| seated(number).neighbours(taken, START).collect())
                .collect();
            for (reader, near) in reads.iter().enumerate() {
                let mut reached = near.clone();
                for passing in near.iter().filter(|seat| **seat < taken) {
                    reached.extend(&reads[*passing]);
                }
                let missing = (0..taken).find(|seat| *seat != reader && !reached.contains(seat));
                assert_eq!(missing, None, "{reader} of {taken}");
                let direct = taken <= ROW && (0..taken).all(|s| s == reader || near.contains(&s));
                assert!(direct || taken > ROW, "{reader} of {taken}");
            }
        }
    }

    #[test]
    fn reading_is_bounded_and_finds_the_next_row_before_it_is_known() {
        let most = |taken: usize, known| {
            (0..taken)
                .map(|number| seated(number).neighbours(known, START).count())
                .max()
        };
        assert_eq!(most(1, 1), Some(ROW));
        assert_eq!(most(ROW, ROW), Some(ROW));
        assert_eq!(most(SEATS, 10_000), Some(2 * (ROW - 1)));
        assert_eq!(Seat::default().neighbours(1, START).count(), ROW);
        assert_eq!(seated(500).neighbours(500, START).count(), ROW);
        assert!(seated(0).neighbours(ROW, START).any(|slot| slot == ROW));
    }

    fn seated(number: usize) -> Seat {
        let mut seat = Seat::default();
        seat.draw(term(START), number as i64 + 1);
        seat.has_read(number);
        seat
    }
}
