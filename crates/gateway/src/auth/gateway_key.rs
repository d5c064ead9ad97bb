//! The gateway's own keys, for clients that know no OAuth.
//!
//! A key is `tg_`, sixteen digits that name its record, and a secret of 256 bits. What is no
//! key is told from one without a store, and a record holds digests only: whoever reads the
//! store cannot make a key from it. A change to a record, its revocation too, is in force
//! within KV's own delay and [`KEY_FRESH`].

use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::challenge::Scheme;
use super::credentials::Credentials;
use super::{Principal, Refused, Resource};
use crate::error::{Error, Fault};
use crate::keyspace::{Family, Key as StoreKey, ReadError, Store, kv_get};
use crate::memory::Bounded;
use crate::platform::{Clock, Platform};
use crate::seal::hex;
use crate::time::Timestamp;

/// What every key begins with.
pub const KEY_PREFIX: &str = "tg_";
/// How long a record is used before KV is asked again.
pub const KEY_FRESH: Duration = Duration::from_secs(30);
/// Most records, or absences of one, an isolate remembers.
pub const KEYS_MAX: usize = 1024;
/// Who vouches for the principals of keys.
pub const KEY_ISSUER: &str = "tidegate:keys";

/// Bytes of a key's name, and its digits.
const ID_BYTES: usize = 8;
const ID_DIGITS: usize = 2 * ID_BYTES;
/// Bytes of a key's secret, and its characters.
const SECRET_BYTES: usize = 32;
const SECRET_CHARACTERS: usize = 43;

/// One key as published in KV.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyRecord {
    /// Shape of this record.
    pub v: u32,
    /// The sixteen digits in the key, which never change.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// Digests of the key: the one in use, and for a while the one before it.
    pub hashes: Vec<KeyHash>,
    /// When it was made, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// When it ends, milliseconds since the epoch.
    pub expires_at_ms: u64,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_ms: Option<u64>,
    /// Resources it is for, such as `https://host/mcp`.
    pub audiences: Vec<String>,
    /// Scopes of its principal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Roles of its principal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Tenant of its principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// One secret of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyHash {
    /// SHA-256 of the whole key, in hexadecimal digits.
    pub sha256: String,
    /// Until when it is accepted, where that is before the key's own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// The family of [`KeyRecord`]: one per key.
pub struct KeyFamily;

impl Family for KeyFamily {
    type Record = KeyRecord;
    const NAME: &'static str = "key";
    const STORE: Store = Store::Kv;
    const LIFETIME: Option<Duration> = None;
}

/// A key just made; nobody will see its text again.
pub struct NewKey {
    /// The digits that name it.
    pub id: String,
    /// The key.
    pub text: String,
    /// What is stored in its place.
    pub hash: KeyHash,
}

impl NewKey {
    /// Bytes of randomness a key is made of.
    pub const RANDOM: usize = ID_BYTES + SECRET_BYTES;

    /// A key with a name of its own.
    pub fn of(random: &[u8; Self::RANDOM]) -> Self {
        Self::another(&hex(&random[..ID_BYTES]), random)
    }

    /// Another secret for a key that has a name.
    pub fn another(id: &str, random: &[u8; Self::RANDOM]) -> Self {
        let secret = URL_SAFE_NO_PAD.encode(&random[ID_BYTES..]);
        let text = format!("{KEY_PREFIX}{id}_{secret}");
        Self {
            id: id.to_owned(),
            hash: KeyHash {
                sha256: digest(&text),
                until_ms: None,
            },
            text,
        }
    }
}

/// What an isolate remembers of keys.
pub(super) struct Memory {
    records: Bounded<String, (Timestamp, Option<Rc<KeyRecord>>)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            records: Bounded::new(KEYS_MAX),
        }
    }
}

/// Whether a token is meant as a key of the gateway's.
pub(super) fn is_one(token: &str) -> bool {
    token.starts_with(KEY_PREFIX)
}

/// The name of a well-formed key.
fn id_of(token: &str) -> Option<&str> {
    let named = token.strip_prefix(KEY_PREFIX)?;
    let (id, secret) = named.split_at_checked(ID_DIGITS)?;
    let secret = secret.strip_prefix('_')?;
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let whole = secret.len() == SECRET_CHARACTERS && secret.bytes().all(plain);
    (whole && id.bytes().all(digit)).then_some(id)
}

/// Whose key it is. The same words for a key that never was and one that is not the one it
/// names: nobody learns which names there are.
pub(super) async fn principal<P: Platform>(
    platform: &P,
    memory: &Memory,
    shown: Credentials<'_>,
    resource: &Resource,
) -> Result<Result<Principal, Refused>, Error> {
    const UNKNOWN: Refused = Refused("The key is not known here.");
    let (Some(id), Scheme::Bearer) = (id_of(shown.token), shown.scheme) else {
        return Ok(Err(UNKNOWN));
    };
    let Some(record) = record(platform, memory, id).await? else {
        return Ok(Err(UNKNOWN));
    };
    let shown = digest(shown.token);
    let Some(hash) = record.hashes.iter().find(|hash| hash.sha256 == shown) else {
        return Ok(Err(UNKNOWN));
    };
    let now = platform.clock().now();
    let over = |until_ms: u64| now >= Timestamp(until_ms);
    Ok(if record.revoked_at_ms.is_some() {
        Err(Refused("The key has been revoked."))
    } else if over(record.expires_at_ms) || hash.until_ms.is_some_and(over) {
        Err(Refused("The key has expired."))
    } else if !record.audiences.contains(&resource.url) {
        Err(Refused("The key is not meant for this resource."))
    } else {
        Ok(Principal::of_key(&record, resource.tenant.as_deref()))
    })
}

async fn record<P: Platform>(
    platform: &P,
    memory: &Memory,
    id: &str,
) -> Result<Option<Rc<KeyRecord>>, Fault> {
    let now = platform.clock().now();
    if let Some((read_at, record)) = memory.records.get(&id.to_owned())
        && now >= read_at
        && now.since(read_at) < KEY_FRESH
    {
        return Ok(record);
    }
    let key = StoreKey::<KeyFamily>::of(&[id]);
    let record = match kv_get(platform.kv(), &key).await {
        Ok(record) => record,
        // Of a version that is not known: absent.
        Err(ReadError::Unreadable { .. }) => None,
        Err(ReadError::Unavailable(e)) => return Err(Fault::Dependency(e.to_string())),
    };
    let ours = |record: &KeyRecord| record.v == 1 && record.id == id;
    let record = record.filter(ours).map(Rc::new);
    memory.records.insert(id.to_owned(), (now, record.clone()));
    Ok(record)
}

fn digest(key: &str) -> String {
    hex(&Sha256::digest(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_its_name_and_nothing_else_does() {
        let key = NewKey::of(&[0xa7; NewKey::RANDOM]);
        assert_eq!(id_of(&key.text), Some("a7a7a7a7a7a7a7a7"));
        assert_eq!(key.hash.sha256.len(), 64);
        let spoiled = [
            key.text[1..].to_owned(),
            key.text[..key.text.len() - 1].to_owned(),
            format!("{}A", key.text),
            key.text.replace("a7a7", "A7A7"),
            key.text.replacen('_', "-", 2),
            "tg_".to_owned(),
            "tg_a7a7a7a7a7a7a7é".to_owned(),
        ];
        for text in spoiled {
            assert_eq!(id_of(&text), None, "{text}");
        }
    }
}
