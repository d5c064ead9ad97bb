//! What is no longer accepted although it is signed and has not expired: tokens by id,
//! subjects, clients, gateway keys, tenants.
//!
//! One published list in KV serves every isolate: in force within KV's own delay and
//! [`LIST_FRESH`], kept for [`LIST_KEPT`] while KV cannot be asked, and after that nobody is
//! let in. Where the configuration says `immediate`, each request also asks the atomic store
//! for what it is about, and what is written there holds from the next request on.
//!
//! A task that waits to be run is refused too, by what its record says of its owner: all but
//! the token, which may end before the task is begun, and whose end stops none either.

mod door;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Principal;
use super::gateway_key::KEY_ISSUER;
use crate::config::{Authentication, Config, Issuer, Revocation};
use crate::context::Context;
use crate::error::{Error, Fault};
use crate::keyspace::{Family, Key, Store, atomic_get, kv_get};
use crate::platform::{Clock, Platform};
use crate::published::Published;
use crate::seal::hex;
use crate::time::Timestamp;

pub use crate::published::{LIST_FRESH, LIST_KEPT};
pub use door::PATH;
pub(crate) use door::{answer, unauthorized};

/// Most entries of the list.
pub const ENTRIES_MAX: usize = 10_000;
/// How long an entry of the atomic store holds. What is revoked stays so until it is taken
/// back, as on the published list: subjects, clients and tenants have no end, keys last for
/// years, and how long a token lasts is its issuer's to say.
pub const IMMEDIATE_KEPT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revoked {
    /// One token, by its `jti`.
    Token,
    /// Whatever a subject holds.
    Subject,
    /// Whatever is held through an OAuth client.
    Client,
    /// One of the gateway's own keys.
    Key,
    /// Whatever a tenant's subjects hold, and every key that is of a tenant of this name.
    Tenant,
}

impl Revoked {
    const fn label(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Subject => "subject",
            Self::Client => "client",
            Self::Key => "key",
            Self::Tenant => "tenant",
        }
    }

    /// What stands for this value, as `issuer` uses it: 32 hexadecimal digits that show
    /// neither. A key has no issuer but the gateway.
    pub fn id(self, issuer: &str, value: &str) -> String {
        let issuer = match self {
            Self::Key => KEY_ISSUER,
            Self::Token | Self::Subject | Self::Client | Self::Tenant => issuer,
        };
        let mut hash = Sha256::new();
        for part in [self.label(), issuer, value] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex(&hash.finalize()[..16])
    }
}

/// The published list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevocationRecord {
    /// Shape of this record.
    pub v: u32,
    /// When it was last changed, milliseconds since the epoch.
    pub updated_at_ms: u64,
    /// What is revoked.
    pub entries: Vec<Entry>,
}

/// One thing that is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// What kind of thing.
    pub kind: Revoked,
    /// [`Revoked::id`] of it.
    pub id: String,
    /// Since when, milliseconds since the epoch.
    pub at_ms: u64,
    /// Until when; for ever, where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

impl Entry {
    fn is_in_force(&self, now: Timestamp) -> bool {
        self.until_ms.is_none_or(|until| now < Timestamp(until))
    }
}

/// The family of [`RevocationRecord`]: one record, replaced by `tidegate revoke`.
pub struct RevocationFamily;

impl Family for RevocationFamily {
    type Record = RevocationRecord;
    const NAME: &'static str = "revocation";
    const STORE: Store = Store::Kv;
    const LIFETIME: Option<Duration> = None;
}

/// One thing that is revoked at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevokedRecord {
    /// Shape of this record.
    pub v: u32,
    /// What it is.
    pub entry: Entry,
}

/// The family of [`RevokedRecord`]: one per [`Revoked::id`].
pub struct RevokedFamily;

impl Family for RevokedFamily {
    type Record = RevokedRecord;
    const NAME: &'static str = "revoked";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(IMMEDIATE_KEPT);
}

/// What an isolate remembers of the list.
pub(super) type Memory = Published<RevocationRecord>;

/// Whether something the principal stands on has been revoked.
pub(super) async fn holds<P: Platform>(
    platform: &P,
    memory: &Memory,
    (mode, issuers): (Revocation, &[Issuer]),
    principal: &Principal,
) -> Result<bool, Error> {
    is_any(platform, memory, mode, || ids(principal, issuers)).await
}

/// Whether something the owner of a task stands on has been revoked; `ids` as [`lasting`] gave
/// them.
pub(crate) async fn stops_task<P: Platform>(
    context: &Context<P>,
    ids: impl FnOnce() -> BTreeSet<String>,
) -> Result<bool, Error> {
    match &context.settings.config.authentication {
        Authentication::Jwt { revocation, .. } => {
            let (platform, memory) = (context.platform.as_ref(), &context.memory.auth.revocation);
            is_any(platform, memory, *revocation, ids).await
        }
        Authentication::None => Ok(false),
    }
}

async fn is_any<P: Platform>(
    platform: &P,
    memory: &Memory,
    mode: Revocation,
    ids: impl FnOnce() -> BTreeSet<String>,
) -> Result<bool, Error> {
    let list = list(platform, memory).await?;
    if list.entries.is_empty() && mode == Revocation::Published {
        return Ok(false);
    }
    let ids = ids();
    let now = platform.clock().now();
    let listed = |entry: &Entry| ids.contains(&entry.id) && entry.is_in_force(now);
    if list.entries.iter().any(listed) {
        return Ok(true);
    }
    if mode == Revocation::Published {
        return Ok(false);
    }
    let asked = ids.iter().map(|id| async move {
        let key = Key::<RevokedFamily>::of(&[id]);
        atomic_get(platform.atomic(), &key).await
    });
    let found = try_join_all(asked).await;
    let found = found.map_err(|e| Fault::Dependency(e.to_string()))?;
    let mut found = found.iter().flatten();
    Ok(found.any(|(_, record)| record.entry.is_in_force(now)))
}

/// Everything by which the principal could have been revoked. A key's tenant is one no issuer
/// speaks for, so it is revoked with the tenant of that name of any.
fn ids(principal: &Principal, issuers: &[Issuer]) -> BTreeSet<String> {
    let own = principal.issuer.as_str();
    let is_key = own == KEY_ISSUER;
    let token = match is_key {
        true => Revoked::Key,
        false => Revoked::Token,
    };
    let held = [
        (token, principal.token_id.as_deref()),
        (Revoked::Subject, Some(principal.subject.as_str())),
        (Revoked::Client, principal.client_id.as_deref()),
        (Revoked::Tenant, principal.tenant.as_deref()),
    ];
    let held = held
        .into_iter()
        .filter_map(|(kind, value)| Some(kind.id(own, value?)));
    let tenant = principal.tenant.as_deref().filter(|_| is_key);
    let elsewhere = tenant.into_iter().flat_map(|tenant| {
        let of = |issuer: &Issuer| Revoked::Tenant.id(&issuer.issuer, tenant);
        issuers.iter().map(of)
    });
    held.chain(elsewhere).collect()
}

/// What of that outlasts the token: subject, client, tenant, and key.
pub(crate) fn lasting(config: &Config, principal: &Principal) -> BTreeSet<String> {
    let Authentication::Jwt { issuers, .. } = &config.authentication else {
        return BTreeSet::new();
    };
    let mut ids = ids(principal, issuers);
    if let Some(token) = &principal.token_id {
        ids.remove(&Revoked::Token.id(&principal.issuer, token));
    }
    ids
}

/// The list as last heard of.
async fn list<P: Platform>(platform: &P, memory: &Memory) -> Result<Rc<RevocationRecord>, Fault> {
    let read = async {
        match kv_get(platform.kv(), &Key::<RevocationFamily>::single()).await {
            Ok(list) if list.as_ref().is_none_or(|list| list.v == 1) => {
                Ok(list.unwrap_or_default())
            }
            Ok(_) => Err("of a version that is not known".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    };
    let what = "the list of revocations";
    memory.get(platform, LIST_FRESH, what, read).await
}
