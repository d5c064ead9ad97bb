//! `tidegate revoke`: the published list of what is no longer accepted.

use std::io::Write;

use tidegate_gateway::auth::revocation::{
    ENTRIES_MAX, Entry, RevocationFamily, RevocationRecord, Revoked,
};
use tidegate_gateway::keyspace::Key;

use crate::args::Revoke;
use crate::store::Store;
use crate::{Failure, now_ms};

const DAY_MS: u64 = 24 * 3_600_000;

/// Changes the list.
pub fn run(revoke: &Revoke, out: &mut impl Write) -> Result<(), Failure> {
    let what = &revoke.what;
    let chosen = [
        (Revoked::Token, &what.token),
        (Revoked::Subject, &what.subject),
        (Revoked::Client, &what.client),
        (Revoked::Tenant, &what.tenant),
    ];
    let chosen = chosen
        .into_iter()
        .find_map(|(kind, value)| Some((kind, value.as_ref()?)));
    let Some((kind, value)) = chosen else {
        return Err(Failure::Usage("say what to revoke".to_owned()));
    };
    let id = kind.id(&revoke.issuer, value);
    let store = Store::at(&revoke.place)?;
    let key = Key::<RevocationFamily>::single();
    let mut list = store.record(&key)?.unwrap_or_default();
    change(
        &mut list,
        revoke,
        Entry {
            kind,
            id: id.clone(),
            at_ms: now_ms(),
            until_ms: None,
        },
    )?;
    store.put(&key, &list, out)?;
    let done = if revoke.lift {
        "accepts again"
    } else {
        "refuses"
    };
    let count = list.entries.len();
    let said =
        format!("the gateway {done} {id}, everywhere within 75 seconds ({count} on the list)");
    store.say(out, &said)
}

fn change(list: &mut RevocationRecord, revoke: &Revoke, entry: Entry) -> Result<(), Failure> {
    let now = entry.at_ms;
    list.v = 1;
    list.updated_at_ms = now;
    // What is over need not be told any more.
    let over = |known: &Entry| known.until_ms.is_some_and(|until| until <= now);
    list.entries
        .retain(|known| known.id != entry.id && !over(known));
    if revoke.lift {
        return Ok(());
    }
    if list.entries.len() >= ENTRIES_MAX {
        let message = format!("the list is full ({ENTRIES_MAX}); give --days where you can");
        return Err(Failure::Failed(message));
    }
    let until_ms = revoke.days.map(|days| now + days * DAY_MS);
    list.entries.push(Entry { until_ms, ..entry });
    Ok(())
}
