//! What stays in a roster, and what leaves it.

use super::*;

fn entry(id: usize, expires_at_ms: u64, ended: bool) -> Entry {
    Entry {
        id: id.to_string(),
        created_at_ms: id as u64,
        expires_at_ms,
        ended,
    }
}

#[test]
fn the_ended_leave_first_and_the_open_stay_as_long_as_they_can_be_read() {
    let mut roster = Roster::default();
    for id in 0..ENDED_MAX + 10 {
        roster.tasks.push(entry(id, 1_000, id % 2 == 0 || id > 20));
    }
    roster.tasks.push(entry(9_999, 500, false));
    let open = roster.open().count();
    roster.tidy(Timestamp(100));
    assert_eq!(
        roster.tasks.len(),
        open + ENDED_MAX.min(roster.tasks.len() - open)
    );
    assert_eq!(roster.open().count(), open);
    roster.tidy(Timestamp(500));
    assert_eq!(roster.open().count(), open - 1);
    assert!(!roster.has("9999"));
    roster.tidy(Timestamp(1_000));
    assert!(roster.tasks.is_empty());
}

#[test]
fn of_more_ended_ones_than_there_is_room_for_the_oldest_leave() {
    let mut roster = Roster::default();
    for id in 0..ENDED_MAX + 3 {
        roster.tasks.push(entry(id, 1_000, true));
    }
    roster.tidy(Timestamp(0));
    assert_eq!(roster.tasks.len(), ENDED_MAX);
    assert!(!roster.has("2") && roster.has("3"));
}
