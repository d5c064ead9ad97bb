//! Reading and changing what is stored of a task. Every writer swaps, and a write of unknown
//! outcome is settled by reading again: what is stored decides.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_mcp::json::Object;
use tidegate_mcp::task::TaskDetail;

use super::handle::unknown;
use super::record::{Outcome, Record, TaskFamily, is_tool_error};
use crate::context::Context;
use crate::error::{Error, Fault};
use crate::keyspace::{self, Family, Key, ReadError, Store};
use crate::platform::{Clock, Platform, Swap, Version, WAIT_MAX};
use crate::time::Timestamp;

/// Largest result a task keeps, in bytes: as much as is read of an upstream's answer.
pub const RESULT_MAX: usize = 8 * 1024 * 1024;
/// Largest result kept in the record itself, and largest part of a larger one: a store takes
/// values of [`ATOMIC_VALUE_MAX`](crate::platform::ATOMIC_VALUE_MAX) bytes, and text may
/// double where it is quoted.
pub const PART_MAX: usize = 512 * 1024;
/// How often a lost race over a record is tried again.
const SWAPS_MAX: u32 = 8;
/// How often it is asked for a record that may have been written.
const LOOKS_MAX: u32 = 4;
/// Pause before a store that did not answer is asked again; longer each time.
const SWAP_PAUSE: Duration = Duration::from_millis(50);

/// Least time between two looks at a record that has not changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A task as it was last read.
pub(super) type Known = (Version, Record);

/// The record of the task of this id; `None` if there is none, or no longer.
pub(super) async fn find<P: Platform>(
    context: &Context<P>,
    id: &str,
) -> Result<Option<Known>, ReadError> {
    keyspace::atomic_get(context.platform.atomic(), &key(id)).await
}

/// [`find`] for a client: what is not there is unknown.
pub(super) async fn read<P: Platform>(context: &Context<P>, id: &str) -> Result<Known, Error> {
    find(context, id).await.map_err(failed)?.ok_or_else(unknown)
}

/// The record once it is no longer as `seen`, or as it is when `within` is over; `None` if it
/// is there no longer.
pub(super) async fn changed<P: Platform>(
    context: &Context<P>,
    id: &str,
    seen: Version,
    within: Duration,
) -> Result<Option<Known>, ReadError> {
    let began = context.now();
    let (atomic, key) = (context.platform.atomic(), key(id));
    let found = keyspace::atomic_wait(atomic, &key, Some(seen), within.min(WAIT_MAX)).await;
    let still = match &found {
        Ok(found) => found.as_ref().is_some_and(|(version, _)| *version == seen),
        Err(_) => true,
    };
    // A store that lets nobody wait answers at once.
    if still && context.now().since(began) < LOOK_EVERY {
        context.platform.clock().sleep(LOOK_EVERY).await;
    }
    found
}

/// Stores a record that was not there; it is there when this gives its version.
pub(super) async fn create<P: Platform>(
    context: &Context<P>,
    id: &str,
    record: &Record,
) -> Result<Version, Error> {
    let atomic = context.platform.atomic();
    match keyspace::atomic_swap(atomic, &key(id), None, record, record.expiry()).await {
        Ok(Swap::Done(version)) => Ok(version),
        Ok(Swap::Conflict) => Err(Fault::Internal("a random task id was taken".to_owned()).into()),
        // It may have been written.
        Err(unavailable) => match written(context, id, record).await {
            Ok(Some(version)) => Ok(version),
            Ok(None) => Err(unavailable.into()),
            Err(unread) => Err(Fault::TaskUnsettled(unread.to_string()).into()),
        },
    }
}

/// The version of a record that may have been written; `None` if it was not.
async fn written<P: Platform>(
    context: &Context<P>,
    id: &str,
    record: &Record,
) -> Result<Option<Version>, ReadError> {
    for round in 1..LOOKS_MAX {
        match find(context, id).await {
            Err(ReadError::Unavailable(_)) => pause(context, round).await,
            found => return found.map(|found| same(found, record)),
        }
    }
    find(context, id).await.map(|found| same(found, record))
}

fn same(found: Option<Known>, record: &Record) -> Option<Version> {
    let found = found.filter(|(_, found)| is_same(found, record));
    found.map(|(version, _)| version)
}

/// Whether one was written as the other is.
fn is_same(found: &Record, record: &Record) -> bool {
    let text = |record| serde_json::to_string(record).ok();
    text(found) == text(record)
}

/// Changes the record and gives it as it is then, `None` if it is there no longer. `change`
/// is tried anew on whatever another writer has made of the record, and on what a write of
/// unknown outcome may have; it gives whether there is anything to write, and must find
/// nothing once that is done. The end of a task is told to those who count
/// ([`ended`](super::make::ended)) by whoever wrote it, also where only a second look shows
/// that they did.
pub(super) async fn edit<P: Platform>(
    context: &Context<P>,
    id: &str,
    mut known: Option<Known>,
    mut change: impl FnMut(&mut Record) -> bool,
) -> Result<Option<Known>, Error> {
    let (atomic, key) = (context.platform.atomic(), key(id));
    // An end that may have been written.
    let mut unsettled: Option<Record> = None;
    for round in 1..=SWAPS_MAX {
        let (version, mut record) = match known.take() {
            Some(known) => known,
            None => match find(context, id).await {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(None),
                Err(ReadError::Unavailable(_)) => {
                    pause(context, round).await;
                    continue;
                }
                Err(e @ ReadError::Unreadable { .. }) => return Err(failed(e)),
            },
        };
        if !change(&mut record) {
            if unsettled.is_some_and(|end| is_same(&end, &record)) {
                super::make::ended(context, id, &record);
            }
            return Ok(Some((version, record)));
        }
        let until = record.expiry();
        match keyspace::atomic_swap(atomic, &key, Some(version), &record, until).await {
            Ok(Swap::Done(version)) => {
                if record.status.is_terminal() {
                    super::make::ended(context, id, &record);
                }
                return Ok(Some((version, record)));
            }
            Ok(Swap::Conflict) => {}
            // It may have been written: what is stored now decides.
            Err(_) => {
                unsettled = Some(record).filter(|record| record.status.is_terminal());
                pause(context, round).await;
            }
        }
    }
    Err(Fault::Dependency("a task record could not be changed".to_owned()).into())
}

async fn pause<P: Platform>(context: &Context<P>, round: u32) {
    context.platform.clock().sleep(SWAP_PAUSE * round).await;
}

pub(super) fn failed(error: ReadError) -> Error {
    match error {
        ReadError::Unavailable(e) => e.into(),
        ReadError::Unreadable { .. } => Fault::Internal(error.to_string()).into(),
    }
}

pub(super) fn key(id: &str) -> Key<TaskFamily> {
    Key::of(&[id])
}

/// A part of a result too large for its record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    /// Shape of this record.
    pub v: u32,
    /// The part of the JSON text.
    pub text: String,
}

/// The family of [`Part`]: task, number.
pub struct PartFamily;

impl Family for PartFamily {
    type Record = Part;
    const NAME: &'static str = "result";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = None;
}

fn part_key(id: &str, run: &str, number: u32) -> Key<PartFamily> {
    Key::of(&[id, run, &number.to_string()])
}

/// What to store as a result of this size: itself, or the parts it was stored in.
///
/// Parts are named by their run, so that those of two runs never mix, and are there before
/// the record says so.
pub(super) async fn keep<P: Platform>(
    context: &Context<P>,
    id: &str,
    run: &str,
    expiry: Timestamp,
    result: &Object,
) -> Result<Outcome, Error> {
    if result.text_len() <= PART_MAX {
        return Ok(Outcome::Result(result.clone()));
    }
    let text = result.to_raw();
    let mut rest = text.get();
    let mut count = 0;
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.floor_char_boundary(PART_MAX));
        rest = after;
        let part = Part {
            v: 1,
            text: part.to_owned(),
        };
        let (atomic, key) = (context.platform.atomic(), part_key(id, run, count));
        // A conflict is this same part, written before.
        keyspace::atomic_swap(atomic, &key, None, &part, expiry).await?;
        count += 1;
    }
    Ok(Outcome::Parts {
        run: run.to_owned(),
        count,
        is_error: is_tool_error(result),
    })
}

/// What the task's status carries.
pub(super) async fn detail<P: Platform>(
    context: &Context<P>,
    id: &str,
    record: &Record,
) -> Result<TaskDetail, Error> {
    let Some(Outcome::Parts { run, count, .. }) = &record.outcome else {
        return Ok(record.detail());
    };
    let mut text = String::new();
    for number in 0..*count {
        let key = part_key(id, run, number);
        let found = keyspace::atomic_get(context.platform.atomic(), &key).await;
        let (_, part) = found.map_err(failed)?.ok_or_else(unknown)?;
        text.push_str(&part.text);
    }
    let result = Object::parse(text.as_bytes());
    let result = result.map_err(|e| Fault::Internal(format!("a stored result: {e}")))?;
    Ok(TaskDetail::Result(result))
}
