//! The tasks of each principal, newest first.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::record::Record;
use super::store;
use crate::auth::PrincipalId;
use crate::context::Context;
use crate::error::{Error, Fault};
use crate::keyspace::{self, Family, Key, Store};
use crate::platform::{Platform, Swap};
use crate::seal::hex;
use crate::time::Timestamp;

/// Most tasks remembered of one principal.
const MAX: usize = 1000;

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Roster {
    pub v: u32,
    pub tasks: Vec<(String, Timestamp)>,
}

pub struct RosterFamily;

impl Family for RosterFamily {
    type Record = Roster;
    const NAME: &'static str = "roster";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = None;
}

fn key(owner: &PrincipalId) -> Key<RosterFamily> {
    Key::of(&[&hex(&Sha256::digest(owner.as_str().as_bytes())[..16])])
}

pub(crate) async fn list<P: Platform>(
    context: &Context<P>,
    owner: &PrincipalId,
) -> Result<Vec<String>, Error> {
    let found = keyspace::atomic_get(context.platform.atomic(), &key(owner)).await;
    let (_, roster) = found.map_err(store::failed)?.unwrap_or_default_pair();
    let now = context.now();
    let live = roster
        .tasks
        .into_iter()
        .rev()
        .filter(|(_, until)| now < *until);
    Ok(live.map(|(id, _)| id).collect())
}

trait OrDefault {
    fn unwrap_or_default_pair(self) -> (Option<crate::platform::Version>, Roster);
}

impl OrDefault for Option<(crate::platform::Version, Roster)> {
    fn unwrap_or_default_pair(self) -> (Option<crate::platform::Version>, Roster) {
        match self {
            Some((version, roster)) => (Some(version), roster),
            None => (None, Roster::default()),
        }
    }
}

pub(super) async fn add<P: Platform>(
    context: &Context<P>,
    id: &str,
    record: &Record,
) -> Result<(), Error> {
    let (atomic, key, now) = (context.platform.atomic(), key(&record.owner), context.now());
    for _ in 0..8 {
        let found = keyspace::atomic_get(atomic, &key).await;
        let (version, mut roster) = found.map_err(store::failed)?.unwrap_or_default_pair();
        roster.v = 1;
        roster.tasks.retain(|(_, until)| now < *until);
        if roster.tasks.len() >= MAX {
            roster.tasks.remove(0);
        }
        roster.tasks.push((id.to_owned(), record.expiry()));
        let until = roster.tasks.iter().map(|(_, until)| *until).max();
        let until = until.unwrap_or(now);
        if let Swap::Done(_) = keyspace::atomic_swap(atomic, &key, version, &roster, until).await? {
            return Ok(());
        }
    }
    Err(Fault::Dependency("a roster is too contended".to_owned()).into())
}
