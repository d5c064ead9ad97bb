//! Tasks in pages, principal by principal: which are listed, and where a page begins.

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tidegate_mcp::task::TaskStatus;

use super::{Seen, is_id};
use crate::auth::PrincipalId;
use crate::context::Context;
use crate::error::Error;
use crate::platform::Platform;
use crate::tasks::directory::{Place, Presence, SHARDS, Walk};
use crate::tasks::record::Record;
use crate::tasks::roster::{self, Entry};
use crate::tasks::{is_abandoned, store};
use crate::time::Timestamp;

/// Most tasks on one page.
pub const PAGE_MAX: usize = 50;
/// Most records read for one page.
pub const PAGE_READS_MAX: usize = 200;
/// Most principals looked at for one page.
pub const PAGE_PRINCIPALS_MAX: usize = 200;
/// How many records are read at once.
const READS_AT_ONCE: usize = 10;

/// Which tasks are listed.
#[derive(Default)]
pub(crate) struct Filter {
    pub(crate) tenant: Option<String>,
    pub(crate) state: Option<State>,
    /// Those created before this.
    pub(crate) created_by: Option<Timestamp>,
}

/// What tasks can be listed by: their status, or that they should run and do not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Of(TaskStatus),
    Abandoned,
}

impl State {
    pub(crate) const NAMES: &str =
        "working, input_required, completed, failed, cancelled or abandoned";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "abandoned" => Some(Self::Abandoned),
            text => TaskStatus::parse(text).map(Self::Of),
        }
    }
}

impl Filter {
    fn takes(&self, record: &Record, now: Timestamp) -> bool {
        let state = match self.state {
            None => true,
            Some(State::Abandoned) => is_abandoned(record, now),
            Some(State::Of(status)) => record.status == status,
        };
        state && (self.tenant.is_none() || self.tenant == record.tenant)
    }

    fn takes_entry(&self, entry: &Entry) -> bool {
        let old = |by: Timestamp| entry.created_at_ms <= by.0;
        // What is known to have ended is of no state before that.
        let open = match self.state {
            Some(State::Abandoned | State::Of(TaskStatus::Working | TaskStatus::InputRequired)) => {
                !entry.ended
            }
            Some(State::Of(TaskStatus::Completed | TaskStatus::Failed | TaskStatus::Cancelled))
            | None => true,
        };
        open && self.created_by.is_none_or(old)
    }
}

/// Where a page begins: at a place in the directory, or within a principal's tasks after the
/// one created then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    place: Place,
    within: Option<(u64, String)>,
}

impl Cursor {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('.').collect();
        let shard = |text| usize::from_str_radix(text, SHARDS as u32).ok();
        let shard = |text| shard(text).filter(|shard| *shard < SHARDS);
        let after = |text| PrincipalId::parse(text).map(Some);
        let (place, within) = match parts[..] {
            [at] => (
                Place {
                    shard: shard(at)?,
                    after: None,
                },
                None,
            ),
            [at, principal] => {
                let (shard, after) = (shard(at)?, after(principal)?);
                (Place { shard, after }, None)
            }
            [at, principal, created, id] => {
                let (shard, after) = (shard(at)?, after(principal)?);
                let within = (created.parse().ok()?, is_id(id)?.to_owned());
                (Place { shard, after }, Some(within))
            }
            _ => return None,
        };
        Some(Self { place, within })
    }

    fn text(&self) -> String {
        let mut text = format!("{:x}", self.place.shard);
        if let Some(after) = &self.place.after {
            text.push('.');
            text.push_str(after.as_str());
            if let Some((created, id)) = &self.within {
                text.push_str(&format!(".{created}.{id}"));
            }
        }
        text
    }
}

/// A page of tasks.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    tasks: Vec<Seen>,
    /// Where the next page begins. A page may be empty and have a next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists tasks, principal by principal, the newest of each first.
pub(crate) async fn list<P: Platform>(
    context: &Context<P>,
    filter: &Filter,
    from: Cursor,
) -> Result<Page, Error> {
    let mut listing = Listing {
        context,
        filter,
        tasks: Vec::new(),
        read: 0,
    };
    if let (Some(owner), Some(within)) = (&from.place.after, &from.within)
        && let Some(stopped) = listing.of_one(owner, Some(within)).await?
    {
        return Ok(listing.page(from.place, Some(stopped)));
    }
    let mut walk = Walk::from(from.place);
    for _ in 0..PAGE_PRINCIPALS_MAX {
        let next = walk.next(context).await.map_err(store::failed)?;
        let Some((owner, Presence { tenant, .. })) = next else {
            let tasks = listing.tasks;
            return Ok(Page {
                tasks,
                next_cursor: None,
            });
        };
        if filter.tenant.is_some() && filter.tenant != tenant {
            continue;
        }
        if let Some(stopped) = listing.of_one(&owner, None).await? {
            return Ok(listing.page(walk.at, Some(stopped)));
        }
    }
    Ok(listing.page(walk.at, None))
}

/// A page in the making.
struct Listing<'a, P> {
    context: &'a Context<P>,
    filter: &'a Filter,
    tasks: Vec<Seen>,
    read: usize,
}

impl<P: Platform> Listing<'_, P> {
    fn page(self, place: Place, within: Option<(u64, String)>) -> Page {
        Page {
            tasks: self.tasks,
            next_cursor: Some(Cursor { place, within }.text()),
        }
    }

    /// Adds the tasks of one principal; gives the last one looked at if the page is full.
    async fn of_one(
        &mut self,
        owner: &PrincipalId,
        after: Option<&(u64, String)>,
    ) -> Result<Option<(u64, String)>, Error> {
        let read = roster::read(self.context, owner).await;
        let (_, roster) = read.map_err(store::failed)?;
        let mut entries = roster.tasks;
        entries.retain(|entry| self.filter.takes_entry(entry));
        entries.sort_by(|a, b| (b.created_at_ms, &b.id).cmp(&(a.created_at_ms, &a.id)));
        if let Some((created, id)) = after {
            entries.retain(|entry| (entry.created_at_ms, &entry.id) < (*created, id));
        }
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let room = PAGE_MAX - self.tasks.len();
            let count = room.min(PAGE_READS_MAX - self.read).min(READS_AT_ONCE);
            let some: Vec<Entry> = entries.by_ref().take(count).collect();
            let last = some
                .last()
                .map(|last| (last.created_at_ms, last.id.clone()));
            self.read += some.len();
            let found = stream::iter(some)
                .map(|entry| async {
                    let found = store::find(self.context, &entry.id).await;
                    (entry.id, found)
                })
                .buffered(READS_AT_ONCE);
            let mut found = std::pin::pin!(found);
            while let Some((id, found)) = found.next().await {
                // Its record may be gone, or not there yet.
                let Some((_, record)) = found.map_err(store::failed)? else {
                    continue;
                };
                let now = self.context.now();
                if self.filter.takes(&record, now) {
                    self.tasks.push(Seen::of(&id, &record, now));
                }
            }
            if self.tasks.len() >= PAGE_MAX || self.read >= PAGE_READS_MAX {
                return Ok(last);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let principal = "0123456789abcdef0123456789abcdef";
        for text in [
            "0".to_owned(),
            "f".to_owned(),
            format!("a.{principal}"),
            format!("a.{principal}.12.{principal}"),
        ] {
            let cursor = Cursor::parse(&text);
            assert_eq!(cursor.map(|cursor| cursor.text()), Some(text));
        }
        for text in [
            "",
            "g",
            "10",
            "-1",
            "a.",
            "a.b",
            &format!("a.{principal}.12"),
            &format!("a.{principal}.x.{principal}"),
            &format!("a.{principal}.12.task/{principal}"),
            &format!("a.{principal}.1.{principal}."),
        ] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
