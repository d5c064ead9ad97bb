//! Which tasks a principal has: one small record per principal, in the atomic store.
//!
//! A task is entered *before* its own record is stored, so none is ever missing here; an
//! entry whose record was never stored is harmless and leaves when its time is over. That a
//! task has ended is noted late and only where it costs nothing of its own: by the isolate
//! that saw it, with the next task it enters; by the sweep; and where the limit is in the
//! way, after the records were asked. So an entry that is open here may have ended, and one
//! that has ended here has.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};

use super::contention::Writing;
use super::record::{Record, Standing};
use super::store;
use crate::auth::PrincipalId;
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::keyspace::{self, Family, Key, ReadError, Store};
use crate::memory::Bounded;
use crate::platform::{Platform, Swap, Version};
use crate::time::Timestamp;

/// Most ended tasks that stay in a roster; the oldest leave first.
pub const ENDED_MAX: usize = 100;
/// Most records asked whether they have ended when the limit is in the way: the oldest.
pub const RECONCILED_MAX: usize = 100;
/// How many of them at once.
const RECONCILED_AT_ONCE: usize = 16;
/// How long a principal whose tasks are really all open is refused without asking again.
pub const FULL_FOR: Duration = Duration::from_secs(5);
/// How long after its creation a task may still come to be stored: a call may have run for a
/// minute (`tasks.afterMs`) before it becomes one.
const SETTLED: Duration = Duration::from_secs(120);
/// How long an isolate trusts that a roster is as it wrote it.
const HELD_FOR: Duration = Duration::from_secs(10);
/// Most rosters one isolate remembers.
const HELD_MAX: usize = 64;
/// Most ended tasks of one principal that an isolate remembers to note.
const SEEN_MAX: usize = 256;

/// A principal's tasks, those entered first at the beginning.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Roster {
    /// Shape of this record.
    pub v: u32,
    /// The tasks.
    pub tasks: Vec<Entry>,
}

/// One task of a principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Key of the task's record.
    pub id: String,
    /// When it was created, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// When it can be read no longer, milliseconds since the epoch.
    pub expires_at_ms: u64,
    /// Whether it is known to have ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// The family of [`Roster`], by principal.
pub struct RosterFamily;

impl Family for RosterFamily {
    type Record = Roster;
    const NAME: &'static str = "roster";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = None;
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            v: 1,
            tasks: Vec::new(),
        }
    }
}

impl Roster {
    /// The tasks not known to have ended.
    pub(super) fn open(&self) -> impl Iterator<Item = &Entry> {
        self.tasks.iter().filter(|entry| !entry.ended)
    }

    fn has(&self, id: &str) -> bool {
        self.tasks.iter().any(|entry| entry.id == id)
    }

    /// Notes which have ended. Gives whether that was news.
    fn note(&mut self, ended: &BTreeSet<String>) -> bool {
        let mut news = false;
        for entry in &mut self.tasks {
            let ends = !entry.ended && ended.contains(&entry.id);
            entry.ended |= ends;
            news |= ends;
        }
        news
    }

    /// Lets go of what can be read no longer, and of the ended ones there are too many of.
    fn tidy(&mut self, now: Timestamp) {
        self.tasks.retain(|entry| now.0 < entry.expires_at_ms);
        let ended = self.tasks.iter().filter(|entry| entry.ended).count();
        let mut surplus = ended.saturating_sub(ENDED_MAX);
        self.tasks.retain(|entry| {
            let leaves = entry.ended && surplus > 0;
            surplus -= usize::from(leaves);
            !leaves
        });
    }

    fn expiry(&self) -> Timestamp {
        let last = self.tasks.iter().map(|entry| entry.expires_at_ms).max();
        Timestamp(last.unwrap_or_default())
    }
}

/// A roster as it was last read.
type Known = (Option<Version>, Roster);

/// What an isolate remembers of rosters.
pub(super) struct Memory {
    held: Bounded<PrincipalId, (Timestamp, Known)>,
    seen: Bounded<PrincipalId, BTreeSet<String>>,
    full: Bounded<PrincipalId, Timestamp>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            held: Bounded::new(HELD_MAX),
            seen: Bounded::new(HELD_MAX),
            full: Bounded::new(HELD_MAX),
        }
    }
}

impl Memory {
    /// Remembers that a task was seen to have ended, for whoever writes the roster next.
    pub(super) fn ended(&self, owner: &PrincipalId, id: &str) {
        let id = id.to_owned();
        let mut seen = self.seen.remove(owner).unwrap_or_default();
        if seen.len() < SEEN_MAX {
            seen.insert(id);
        }
        self.seen.insert(owner.clone(), seen);
    }

    fn held(&self, owner: &PrincipalId, now: Timestamp) -> Option<Known> {
        let (at, known) = self.held.remove(owner)?;
        (at <= now && now.since(at) < HELD_FOR).then_some(known)
    }

    fn is_full(&self, owner: &PrincipalId, now: Timestamp) -> bool {
        let since = self.full.get(owner);
        since.is_some_and(|since| since <= now && now.since(since) < FULL_FOR)
    }
}

/// The principal's tasks as stored now; none where there is no roster.
pub(super) async fn read<P: Platform>(
    context: &Context<P>,
    owner: &PrincipalId,
) -> Result<Known, ReadError> {
    let found = keyspace::atomic_get(context.platform.atomic(), &key(owner)).await?;
    let (version, mut roster) = match found {
        Some((version, roster)) => (Some(version), roster),
        None => (None, Roster::default()),
    };
    roster.tidy(context.now());
    Ok((version, roster))
}

/// The ids of the principal's tasks, newest first: all that are open, and of those that have
/// ended the last [`ENDED_MAX`]. There may be no record of an id.
pub(crate) async fn list<P: Platform>(
    context: &Context<P>,
    owner: &PrincipalId,
) -> Result<Vec<String>, Error> {
    let (_, mut roster) = read(context, owner).await.map_err(store::failed)?;
    roster.tasks.sort_by_key(|entry| entry.created_at_ms);
    Ok(roster.tasks.into_iter().rev().map(|task| task.id).collect())
}

/// Enters a task that is about to be stored, or refuses it where the principal has as many
/// open ones as it may.
pub(super) async fn enter<P: Platform>(
    context: &Context<P>,
    id: &str,
    record: &Record,
) -> Result<(), Error> {
    let (owner, memory) = (&record.owner, &context.memory.tasks.rosters);
    let entry = Entry {
        id: id.to_owned(),
        created_at_ms: record.created_at_ms,
        expires_at_ms: record.expiry().0,
        ended: record.status.is_terminal(),
    };
    let mut ended = memory.seen.remove(owner).unwrap_or_default();
    let mut held = memory.held(owner, context.now());
    let mut writing = Writing::default();
    loop {
        let known = match held.take() {
            Some(known) => Ok(known),
            None => read(context, owner).await,
        };
        let (version, mut roster) = match known {
            Ok(known) => known,
            Err(ReadError::Unavailable(e)) => {
                writing.unavailable(context, e.into()).await?;
                continue;
            }
            Err(e @ ReadError::Unreadable { .. }) => return Err(store::failed(e)),
        };
        // What a write of unknown outcome came to.
        if roster.has(id) {
            return Ok(());
        }
        roster.note(&ended);
        if !entry.ended {
            make_room(context, owner, &mut roster, &mut ended).await?;
        }
        roster.tasks.push(entry.clone());
        roster.tidy(context.now());
        match write(context, owner, version, roster).await {
            Ok(Swap::Done(_)) => return Ok(()),
            Ok(Swap::Conflict) => writing.lost(context).await?,
            Err(e) => writing.unavailable(context, e.into()).await?,
        }
    }
}

/// Notes which tasks have ended, if the roster can be written without much ado.
pub(super) async fn note<P: Platform>(
    context: &Context<P>,
    owner: &PrincipalId,
    known: Known,
    ended: &BTreeSet<String>,
) {
    let (version, mut roster) = known;
    if roster.note(ended) && version.is_some() {
        roster.tidy(context.now());
        // Whoever comes next finds out the same.
        let _ = write(context, owner, version, roster).await;
    }
}

async fn write<P: Platform>(
    context: &Context<P>,
    owner: &PrincipalId,
    version: Option<Version>,
    roster: Roster,
) -> Result<Swap, crate::platform::Unavailable> {
    let (atomic, key) = (context.platform.atomic(), key(owner));
    let expiry = roster.expiry();
    let swapped = keyspace::atomic_swap(atomic, &key, version, &roster, expiry).await;
    if let Ok(Swap::Done(version)) = swapped {
        let held = (context.now(), (Some(version), roster));
        let memory = &context.memory.tasks.rosters;
        memory.held.insert(owner.clone(), held);
    }
    swapped
}

/// Whether one more fits. What is not known to have ended is asked first: a note that was
/// lost must not be in the way for ever.
async fn make_room<P: Platform>(
    context: &Context<P>,
    owner: &PrincipalId,
    roster: &mut Roster,
    ended: &mut BTreeSet<String>,
) -> Result<(), Error> {
    let max = context.settings.config.tasks.max_open_per_principal;
    let fits = |roster: &Roster| roster.open().count() < max as usize;
    if fits(roster) {
        return Ok(());
    }
    let full = &context.memory.tasks.rosters;
    if !full.is_full(owner, context.now()) {
        let open: Vec<Entry> = roster.open().take(RECONCILED_MAX).cloned().collect();
        let over: Vec<Option<String>> = stream::iter(open)
            .map(|entry| is_over(context, entry))
            .buffer_unordered(RECONCILED_AT_ONCE)
            .collect()
            .await;
        ended.extend(over.into_iter().flatten());
        roster.note(ended);
        if fits(roster) {
            return Ok(());
        }
        full.full.insert(owner.clone(), context.now());
    }
    Err(Rejection::TooManyTasks {
        limit: "tasks.maxOpenPerPrincipal",
        max,
        retry_after: FULL_FOR,
    }
    .into())
}

/// The entry's id if its task has certainly ended.
async fn is_over<P: Platform>(context: &Context<P>, entry: Entry) -> Option<String> {
    let over = match store::find(context, &entry.id).await {
        Ok(Some((_, record))) => record.standing(context.now()) == Standing::Ended,
        // Its record may be stored any moment now.
        Ok(None) => is_settled(&entry, context.now()),
        Err(_) => false,
    };
    over.then_some(entry.id)
}

/// Whether a record that is not there will not come any more.
pub(super) fn is_settled(entry: &Entry, now: Timestamp) -> bool {
    now.since(Timestamp(entry.created_at_ms)) >= SETTLED
}

fn key(owner: &PrincipalId) -> Key<RosterFamily> {
    Key::of(&[owner.as_str()])
}

#[cfg(test)]
mod tests;
