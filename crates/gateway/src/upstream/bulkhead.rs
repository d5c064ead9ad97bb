//! Bulkhead: how many calls to one upstream are under way at once in this isolate, so that a
//! slow one does not take all there is.
//!
//! Who finds no place waits for one, in order, for a bounded time; no more wait than may be
//! under way. The upstream's time begins after the wait, which is never its failure; what
//! bounds the call as a whole holds for both. A wait is the waiter's own timer: on some hosts nothing of one request may
//! wake another. A place is given back when the answer has ended or nobody reads it, and at
//! the latest when the call's time is over.

use std::time::Duration;

use super::{ANSWER_WITHIN, Outgoing, REMEMBERED_MAX};
use crate::config::{Bulkhead, Upstream};
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::memory::Bounded;
use crate::places::{Place, Places};
use crate::platform::{Clock, Platform};

/// How often who waits looks for a place.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// What an isolate remembers of calls under way, by upstream.
pub(super) struct Memory {
    rooms: Bounded<String, Room>,
}

#[derive(Clone, Default)]
struct Room {
    under_way: Places,
    waiting: Places,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            rooms: Bounded::new(REMEMBERED_MAX),
        }
    }
}

impl Memory {
    fn room(&self, upstream: &str) -> Room {
        let upstream = upstream.to_owned();
        self.rooms.get(&upstream).unwrap_or_else(|| {
            let room = Room::default();
            self.rooms.insert(upstream, room.clone());
            room
        })
    }
}

/// A place for one call, as soon as there is one.
pub(super) async fn enter<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    rule: &Bulkhead,
    outgoing: &Outgoing,
) -> Result<Place, Error> {
    let room = context.memory.upstream.bulkheads.room(upstream.key());
    let full = || Rejection::UpstreamFull {
        upstream: upstream.name.clone(),
    };
    let came = context.now();
    let take = || {
        let now = context.now();
        let ends = now + outgoing.timeout;
        // A person may be asked something meanwhile.
        let ends = if outgoing.asks {
            ends + ANSWER_WITHIN
        } else {
            ends
        };
        room.under_way.take(now, ends, rule.max_calls)
    };
    if room.waiting.taken(came) == 0
        && let Some(place) = take()
    {
        return Ok(place);
    }
    let until = came + Duration::from_millis(rule.wait_ms).min(outgoing.timeout);
    let turn = room.waiting.take(came, until, rule.max_calls);
    let turn = turn.ok_or_else(full)?;
    while context.now() < until {
        let pause = LOOK_AGAIN.min(until.since(context.now()));
        context.platform.clock().sleep(pause).await;
        // With no time left for the call a place is of no use.
        if turn.is_first()
            && !context.within(outgoing.timeout).is_zero()
            && let Some(place) = take()
        {
            return Ok(place);
        }
    }
    Err(full().into())
}
