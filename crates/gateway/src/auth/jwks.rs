//! The public keys of authorization servers (RFC 7517): memory, then KV, then the origin.
//!
//! Keys count as fresh for [`KEYS_FRESH`] after they left their origin, wherever the copy
//! was kept, so a withdrawn key stops working within that time and the staleness of KV.
//! While the origin cannot be reached the last good copy serves for [`KEYS_KEPT`]; after
//! that, and before there ever was one, nothing is accepted.
//!
//! Where an issuer's keys are is configured, or told by its own metadata each time they are
//! fetched ([`discovery`]).
//!
//! Nobody can make the gateway flood an origin: an isolate asks again at most once per
//! [`REFRESH_INTERVAL`], also for key ids it has never heard of, only one request at a
//! time does the asking, and a copy another isolate has just fetched is taken from KV.

mod discovery;
mod key;
mod origin;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::Sha256Digest;
use super::claims::CLOCK_SKEW_MAX;
use crate::config::{Algorithm, Issuer};
use crate::error::Fault;
use crate::keyspace::{Family, Key as StoreKey, Store, kv_get, kv_put};
use crate::memory::Bounded;
use crate::platform::{Clock, LogLevel, Platform};
use crate::seal::hex;
use crate::time::Timestamp;

pub(crate) use discovery::document;
pub(super) use key::Key;
pub(crate) use origin::AGENT;

/// How long keys are used without asking for newer ones.
pub const KEYS_FRESH: Duration = Duration::from_secs(5 * 60);
/// How long keys are used while their origin cannot be reached.
pub const KEYS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest time between two questions for the same keys.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between two questions while there are no keys at all.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Most keys of a set that are looked at.
pub const KEYS_MAX: usize = 64;
/// Most keys tried on a token that does not name its key.
pub const TRIES_MAX: usize = 4;

/// Most issuers one isolate remembers keys of.
const ISSUERS_MAX: usize = crate::config::bounds::ISSUERS_MAX;
/// How often a request looks whether another one's question has been answered.
const WAIT_STEP: Duration = Duration::from_millis(25);
/// How many times it looks: as long as the question may take, and a little.
const WAIT_STEPS: u32 = 220;

/// One issuer's key set as published in KV.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JwksRecord {
    /// Shape of this record.
    pub v: u32,
    /// Whose keys they are.
    pub issuer: String,
    /// When they left their origin, milliseconds since the epoch.
    pub fetched_at_ms: u64,
    /// A JWK Set of the public members the gateway reads.
    pub keys: Value,
}

/// The family of [`JwksRecord`]: one per issuer and key URL.
pub struct JwksFamily;

impl Family for JwksFamily {
    type Record = JwksRecord;
    const NAME: &'static str = "jwks";
    const STORE: Store = Store::Kv;
    const LIFETIME: Option<Duration> = Some(KEYS_KEPT);
}

/// What an isolate remembers of key sets, parsed: parsing an RSA key is slow.
pub(super) struct Memory {
    issuers: Bounded<String, Entry>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            issuers: Bounded::new(ISSUERS_MAX),
        }
    }
}

#[derive(Clone, Default)]
struct Entry {
    keys: Option<Rc<KeySet>>,
    asked_at: Option<Timestamp>,
    asking: Rc<Cell<bool>>,
}

/// One issuer's usable keys.
pub(super) struct KeySet {
    fetched_at: Timestamp,
    keys: Vec<Key>,
}

impl KeySet {
    fn of(fetched_at: Timestamp, set: &Value) -> Self {
        let keys = set.get("keys").and_then(Value::as_array);
        Self {
            fetched_at,
            keys: keys
                .into_iter()
                .flatten()
                .take(KEYS_MAX)
                .filter_map(Key::parse)
                .collect(),
        }
    }

    /// Whether the set still has the key of this digest.
    pub(super) fn holds(&self, digest: &Sha256Digest) -> bool {
        self.keys.iter().any(|key| key.digest == *digest)
    }

    /// Whether a newer set might help to find the key of this id.
    pub(super) fn lacks(&self, key_id: Option<&str>) -> bool {
        key_id.is_some_and(|key_id| {
            !self
                .keys
                .iter()
                .any(|key| key.id.as_deref() == Some(key_id))
        })
    }

    /// Keys that may have signed a token with this header.
    pub(super) fn candidates(
        &self,
        key_id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Key> {
        let named = move |key: &&Key| key_id.is_none() || key.id.as_deref() == key_id;
        self.keys
            .iter()
            .filter(move |key| key.is_for(algorithm))
            .filter(named)
            .take(TRIES_MAX)
    }

    /// A copy from the future would never age, so it counts as old.
    fn younger_than(&self, age: Duration, now: Timestamp) -> bool {
        self.fetched_at <= now + CLOCK_SKEW_MAX && now.since(self.fetched_at) < age
    }
}

/// The issuer's keys: fresh if they can be had, else the last good ones.
pub(super) async fn load<P: Platform>(
    platform: &P,
    memory: &Memory,
    issuer: &Issuer,
) -> Result<Rc<KeySet>, Fault> {
    let id = identity(issuer);
    let unavailable =
        |reason: &str| Fault::Dependency(format!("keys of issuer {}: {reason}", issuer.issuer));
    for _ in 0..WAIT_STEPS {
        let now = platform.clock().now();
        let entry = memory.issuers.get(&id).unwrap_or_default();
        let asked_within = |span| {
            entry
                .asked_at
                .is_some_and(|asked_at| now >= asked_at && now.since(asked_at) < span)
        };
        match entry.keys {
            Some(keys) if keys.younger_than(KEYS_FRESH, now) => return Ok(keys),
            Some(keys) if keys.younger_than(KEYS_KEPT, now) && asked_within(REFRESH_INTERVAL) => {
                return Ok(keys);
            }
            Some(_) | None if entry.asking.get() => platform.clock().sleep(WAIT_STEP).await,
            Some(_) | None if asked_within(RETRY_INTERVAL) => {
                return Err(unavailable("could not be fetched just now"));
            }
            known => {
                let fresh = |keys: &KeySet| keys.younger_than(KEYS_FRESH, now);
                return renew(platform, memory, issuer, known, fresh)
                    .await
                    .map_err(|reason| unavailable(&reason));
            }
        }
    }
    Err(unavailable("are taking too long"))
}

/// Looks for a key the `known` set lacks, if it is not too soon to ask. Where another request
/// is asking already, its answer may have the key.
pub(super) async fn refresh<P: Platform>(
    platform: &P,
    memory: &Memory,
    issuer: &Issuer,
    key_id: Option<&str>,
    mut known: Rc<KeySet>,
) -> Rc<KeySet> {
    let id = identity(issuer);
    for _ in 0..WAIT_STEPS {
        let now = platform.clock().now();
        let entry = memory.issuers.get(&id).unwrap_or_default();
        if entry.asking.get() {
            platform.clock().sleep(WAIT_STEP).await;
            continue;
        }
        known = entry.keys.unwrap_or(known);
        let too_soon = |then: Timestamp| now.since(then) < REFRESH_INTERVAL;
        if !known.lacks(key_id)
            || too_soon(known.fetched_at)
            || entry.asked_at.is_some_and(too_soon)
        {
            return known;
        }
        let enough = |keys: &KeySet| !keys.lacks(key_id) || too_soon(keys.fetched_at);
        return renew(platform, memory, issuer, Some(Rc::clone(&known)), enough)
            .await
            .unwrap_or(known);
    }
    known
}

/// Gets newer keys from KV if those there are `enough`, else from the origin. Failing
/// that, the newest copy that may still be used.
async fn renew<P: Platform>(
    platform: &P,
    memory: &Memory,
    issuer: &Issuer,
    known: Option<Rc<KeySet>>,
    enough: impl Fn(&KeySet) -> bool,
) -> Result<Rc<KeySet>, String> {
    let asking = Asking::begin(memory, identity(issuer), platform.clock().now());
    let mut best = known;
    if let Some(stored) = stored(platform, issuer).await
        && best
            .as_ref()
            .is_none_or(|best| best.fetched_at < stored.fetched_at)
    {
        best = Some(asking.learn(stored));
    }
    if let Some(keys) = best.as_ref().filter(|keys| enough(keys)) {
        return Ok(Rc::clone(keys));
    }
    let reason = match origin::fetch(platform, issuer).await {
        Ok(set) => {
            let fetched_at = platform.clock().now();
            publish(platform, issuer, &set, fetched_at).await;
            return Ok(asking.learn(KeySet::of(fetched_at, &set)));
        }
        Err(reason) => reason,
    };
    let now = platform.clock().now();
    match best.filter(|keys| keys.younger_than(KEYS_KEPT, now)) {
        Some(keys) => {
            log(platform, issuer, "issuer_keys_kept", &reason);
            Ok(keys)
        }
        None => Err(reason),
    }
}

/// The copy in KV. What cannot be read is no copy: the origin is asked.
async fn stored<P: Platform>(platform: &P, issuer: &Issuer) -> Option<KeySet> {
    let key = StoreKey::<JwksFamily>::of(&[&identity(issuer)]);
    let record = kv_get(platform.kv(), &key).await.ok().flatten()?;
    let fetched_at = Timestamp(record.fetched_at_ms);
    let now = platform.clock().now();
    let ours = record.v == 1 && record.issuer == issuer.issuer;
    Some(KeySet::of(fetched_at, &record.keys))
        .filter(|keys| ours && keys.younger_than(KEYS_KEPT, now))
}

async fn publish<P: Platform>(platform: &P, issuer: &Issuer, set: &Value, fetched_at: Timestamp) {
    let key = StoreKey::<JwksFamily>::of(&[&identity(issuer)]);
    let record = JwksRecord {
        v: 1,
        issuer: issuer.issuer.clone(),
        fetched_at_ms: fetched_at.0,
        keys: set.clone(),
    };
    // Another isolate may have published the same keys in the same second.
    if let Err(e) = kv_put(platform.kv(), &key, &record).await {
        log(platform, issuer, "issuer_keys_not_shared", &e.to_string());
    }
}

fn log<P: Platform>(platform: &P, issuer: &Issuer, event: &str, reason: &str) {
    let line = json!({ "event": event, "issuer": issuer.issuer, "reason": reason });
    platform.log(LogLevel::Warn, &line.to_string());
}

/// Key part for an issuer: a changed key URL makes another record.
fn identity(issuer: &Issuer) -> String {
    let mut hash = Sha256::new();
    let address = issuer.jwks_uri.as_ref().map_or("", Url::as_str);
    for part in [issuer.issuer.as_str(), address] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..16])
}

/// One question for keys; however it ends, others may ask again.
struct Asking<'a> {
    memory: &'a Memory,
    id: String,
    flag: Rc<Cell<bool>>,
}

impl<'a> Asking<'a> {
    fn begin(memory: &'a Memory, id: String, now: Timestamp) -> Self {
        let mut entry = memory.issuers.get(&id).unwrap_or_default();
        entry.asked_at = Some(now);
        entry.asking.set(true);
        let flag = Rc::clone(&entry.asking);
        memory.issuers.insert(id.clone(), entry);
        Self { memory, id, flag }
    }

    fn learn(&self, keys: KeySet) -> Rc<KeySet> {
        let keys = Rc::new(keys);
        self.memory
            .issuers
            .with(&self.id, |entry| entry.keys = Some(Rc::clone(&keys)));
        keys
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.flag.set(false);
    }
}
