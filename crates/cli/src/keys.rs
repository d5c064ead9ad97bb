//! `tidegate keys`: the gateway's own keys. A key is printed once, when it is made, and
//! nowhere kept: its record holds a digest.

use std::fs::File;
use std::io::{Read, Write};

use tidegate_gateway::auth::{KeyFamily, KeyRecord, NewKey};
use tidegate_gateway::keyspace::{Family, Key};

use crate::args::{KeysCommand, Place};
use crate::store::Store;
use crate::{Failure, now_ms};

const DAY_MS: u64 = 24 * HOUR_MS;
const HOUR_MS: u64 = 3_600_000;
/// Longest name, in bytes.
const NAME_MAX: usize = 256;
/// Most audiences, scopes or roles.
const NAMES_MAX: usize = 64;

/// Does what is asked.
pub fn run(command: &KeysCommand, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        KeysCommand::Create {
            name,
            audiences,
            scopes,
            roles,
            tenant,
            days,
            place,
        } => {
            let (key, now) = (NewKey::of(&random()?), now_ms());
            let record = KeyRecord {
                v: 1,
                id: key.id.clone(),
                name: name.clone(),
                hashes: vec![key.hash.clone()],
                created_at_ms: now,
                expires_at_ms: now + days * DAY_MS,
                revoked_at_ms: None,
                audiences: audiences.clone(),
                scopes: scopes.clone(),
                roles: roles.clone(),
                tenant: tenant.clone(),
            };
            check(&record)?;
            let store = Store::at(place)?;
            store.put(&named(&key.id), &record, out)?;
            store.say(out, &key.text)
        }
        KeysCommand::List { place } => list(place, out),
        KeysCommand::Rotate {
            id,
            overlap_hours,
            place,
        } => {
            let (store, mut record) = known(id, place)?;
            if record.revoked_at_ms.is_some() {
                return Err(Failure::Failed(format!(
                    "key {id} is revoked; make another"
                )));
            }
            let key = NewKey::another(id, &random()?);
            // The one before the last does not outlive a second rotation.
            record.hashes.truncate(1);
            let until = now_ms() + overlap_hours * HOUR_MS;
            record
                .hashes
                .iter_mut()
                .for_each(|old| old.until_ms = Some(until));
            record.hashes.insert(0, key.hash);
            store.put(&named(id), &record, out)?;
            store.say(out, &key.text)
        }
        KeysCommand::Revoke { id, place } => {
            let (store, mut record) = known(id, place)?;
            record.revoked_at_ms.get_or_insert(now_ms());
            store.put(&named(id), &record, out)?;
            let within = "in force within 90 seconds everywhere";
            store.say(out, &format!("revoked {id} ({}); {within}", record.name))
        }
    }
}

fn list(place: &Place, out: &mut impl Write) -> Result<(), Failure> {
    let store = Store::at(place)?;
    let namespace = store.namespace()?;
    let now = now_ms();
    for name in namespace.names(&format!("{}/", KeyFamily::NAME))? {
        let id = name.rsplit('/').next().unwrap_or_default();
        let Some(record) = namespace.record(&named(id))? else {
            continue;
        };
        let state = match record.revoked_at_ms {
            Some(_) => "revoked".to_owned(),
            None if record.expires_at_ms <= now => "expired".to_owned(),
            None => format!("{} days left", (record.expires_at_ms - now) / DAY_MS),
        };
        let reach = [record.audiences, record.scopes, record.roles]
            .concat()
            .join(" ");
        writeln!(out, "{id}  {state}  {}  {reach}", record.name)?;
    }
    Ok(())
}

fn named(id: &str) -> Key<KeyFamily> {
    Key::of(&[id])
}

/// A key's record, which must be there.
fn known<'a>(id: &str, place: &'a Place) -> Result<(Store<'a>, KeyRecord), Failure> {
    if id.len() != 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message =
            "a key is named by the sixteen digits after `tg_`; never write the key itself";
        return Err(Failure::Usage(message.to_owned()));
    }
    let store = Store::at(place)?;
    let record = store.record(&named(id))?;
    let record = record.filter(|record| record.id == id);
    let record = record.ok_or_else(|| Failure::Failed(format!("there is no key {id}")))?;
    Ok((store, record))
}

fn check(record: &KeyRecord) -> Result<(), Failure> {
    let plain = |text: &String| {
        !text.trim().is_empty() && text.len() <= NAME_MAX && !text.chars().any(char::is_control)
    };
    let lists = [&record.audiences, &record.scopes, &record.roles];
    let texts = lists.into_iter().flatten().chain([&record.name]);
    if !texts.chain(&record.tenant).all(plain) {
        let message = format!("names are one line of at most {NAME_MAX} bytes");
        return Err(Failure::Usage(message));
    }
    if lists.iter().any(|list| list.len() > NAMES_MAX) {
        return Err(Failure::Usage(format!("give at most {NAMES_MAX} of each")));
    }
    if let Some(odd) = record.audiences.iter().find(|url| !is_resource(url)) {
        let message = format!("{odd} is no resource; write it as https://host/mcp");
        return Err(Failure::Usage(message));
    }
    if record.scopes.iter().any(|scope| scope.contains(' ')) {
        return Err(Failure::Usage("give each scope by itself".to_owned()));
    }
    Ok(())
}

fn is_resource(url: &str) -> bool {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    matches!(scheme, "https" | "http") && rest.contains('/') && url.ends_with("/mcp")
}

/// From the system's generator.
fn random() -> Result<[u8; NewKey::RANDOM], Failure> {
    let mut bytes = [0; NewKey::RANDOM];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
