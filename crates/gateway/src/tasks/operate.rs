//! What operators see of tasks and do about them, whoever's they are. Never arguments,
//! results, progress or handles: those are between clients and tools.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tidegate_mcp::task::TaskStatus;

use super::directory::{Place, Presence, SHARDS, Walk};
use super::handle::{Handle, Of};
use super::record::{Outcome, Record, Standing};
use super::roster::{self, Entry};
use super::{fail_unqueued, insert, is_abandoned, run, store};
use crate::auth::PrincipalId;
use crate::context::Context;
use crate::error::{Error, RATE_LIMITED, REFUSED, UPSTREAM_FAILED};
use crate::platform::Platform;
use crate::seal::hex;
use crate::time::Timestamp;

/// Most tasks on one page.
pub const PAGE_MAX: usize = 50;
/// Most records read for one page.
pub const PAGE_READS_MAX: usize = 200;
/// Most principals looked at for one page.
pub const PAGE_PRINCIPALS_MAX: usize = 200;
/// How many records are read at once.
const READS_AT_ONCE: usize = 10;
/// Longest reason of a failure that is shown, in bytes; a longer one is no reason of ours.
const REASON_MAX: usize = 64;

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

/// A task as operators see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seen {
    id: String,
    /// Principal that created it.
    owner: PrincipalId,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    upstream: String,
    tool: String,
    status: &'static str,
    /// Whether it should run and does not.
    abandoned: bool,
    /// Until when its run has the right to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    leased_until_ms: Option<u64>,
    created_at_ms: u64,
    updated_at_ms: u64,
    expires_at_ms: u64,
    attempts: u32,
    /// JSON-RPC code of its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<i64>,
    /// The label of its failure, where it is one of the gateway's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_reason: Option<String>,
    /// Whether the tool itself reported an error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tool_error: bool,
}

impl Seen {
    fn of(id: &str, record: &Record, now: Timestamp) -> Self {
        let failure = match &record.outcome {
            Some(Outcome::Error(failure)) => Some(failure),
            Some(Outcome::Result(_) | Outcome::Parts { .. }) | None => None,
        };
        let reason = failure.and_then(|failure| {
            let ours = [REFUSED, UPSTREAM_FAILED, RATE_LIMITED].contains(&failure.code);
            let data: serde_json::Value =
                serde_json::from_str(failure.data.as_ref()?.get()).ok()?;
            let reason = data.get("reason")?.as_str()?;
            let label = reason.len() <= REASON_MAX
                && reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            (ours && label).then(|| reason.to_owned())
        });
        Self {
            id: id.to_owned(),
            owner: record.owner.clone(),
            tenant: record.tenant.clone(),
            upstream: record.upstream.clone(),
            tool: record.tool.clone(),
            status: record.status.as_str(),
            abandoned: is_abandoned(record, now),
            leased_until_ms: record.lease.as_ref().map(|lease| lease.until_ms),
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
            expires_at_ms: record.expiry().0,
            attempts: record.attempts,
            error_code: failure.map(|failure| failure.code),
            error_reason: reason,
            tool_error: record.outcome.as_ref().is_some_and(Outcome::is_tool_error),
        }
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

/// The text, if it can be a task's id.
pub(crate) fn is_id(text: &str) -> Option<&str> {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == 32 && text.bytes().all(digit)).then_some(text)
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

/// One task; `None` if there is none.
pub(crate) async fn show<P: Platform>(
    context: &Context<P>,
    id: &str,
) -> Result<Option<Seen>, Error> {
    let found = store::find(context, id).await.map_err(store::failed)?;
    Ok(found.map(|(_, record)| Seen::of(id, &record, context.now())))
}

/// What came of an operator's wish.
pub(crate) enum Done {
    /// It was granted; the task as it is then.
    Yes(Box<Seen>),
    /// The task is in no state for that.
    No(&'static str, Box<Seen>),
    /// There is no such task.
    Unknown,
}

/// Cancels a task, as its client could.
pub(crate) async fn cancel<P: Platform>(context: &Context<P>, id: &str) -> Result<Done, Error> {
    let mut cancelled = false;
    let change = |record: &mut Record| {
        let cancels = record.cancel("Cancelled by an operator.", context.now());
        cancelled |= cancels;
        cancels
    };
    let Some((_, record)) = store::edit(context, id, None, change).await? else {
        return Ok(Done::Unknown);
    };
    let seen = Box::new(Seen::of(id, &record, context.now()));
    match cancelled && record.status == TaskStatus::Cancelled {
        true => {
            run::report(context, id, &record);
            Ok(Done::Yes(seen))
        }
        false => Ok(Done::No("The task has ended.", seen)),
    }
}

/// Has a task run that should and does not, or makes one that failed or was cancelled anew.
pub(crate) async fn retry<P: Platform>(context: &Context<P>, id: &str) -> Result<Done, Error> {
    let Some((_, record)) = store::find(context, id).await.map_err(store::failed)? else {
        return Ok(Done::Unknown);
    };
    let refused = |reason| {
        let seen = Seen::of(id, &record, context.now());
        Ok(Done::No(reason, Box::new(seen)))
    };
    match (record.standing(context.now()), record.status) {
        (Standing::Ready | Standing::Lost, _) => {
            run::enqueue(context, id, Duration::ZERO).await?;
            let seen = Seen::of(id, &record, context.now());
            Ok(Done::Yes(Box::new(seen)))
        }
        (Standing::Ended, TaskStatus::Failed | TaskStatus::Cancelled) => {
            let seen = anew(context, &record).await?;
            Ok(Done::Yes(Box::new(seen)))
        }
        (Standing::Ended, _) => {
            refused("The task has completed; a tool that has run is not run again.")
        }
        (Standing::Running(_), _) => {
            refused("The task is being run. Cancel it first, or wait for its end.")
        }
        (Standing::Asking, _) => refused("The task waits for its client's answer."),
    }
}

/// Makes a new task of an ended one's call, for the same owner and within its limits.
async fn anew<P: Platform>(context: &Context<P>, old: &Record) -> Result<Seen, Error> {
    let (now, id) = (context.now(), hex(&context.random::<16>()));
    let ttl_ms = context.settings.config.tasks.ttl_ms;
    let of = Of {
        tenant: old.tenant.as_deref(),
        upstream: &old.upstream,
        tool: &old.tool,
    };
    let lifetime = Duration::from_millis(ttl_ms);
    let handle = Handle::new(id.clone(), old.owner.clone(), &of, now, lifetime).seal(context)?;
    let record = old.anew(handle, now, ttl_ms);
    let version = insert(context, &id, &record).await?;
    if let Err(unavailable) = run::enqueue(context, &id, Duration::ZERO).await {
        fail_unqueued(context, &id, (version, record)).await;
        return Err(unavailable);
    }
    Ok(Seen::of(&id, &record, now))
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
