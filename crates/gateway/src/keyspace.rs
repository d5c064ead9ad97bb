//! Every stored key: prefix, record type, lifetime, store. `kv-schemas/` documents the
//! same families; a test holds the two together.
//!
//! A key is only ever made here, so it cannot be read as the wrong type. Parts that come
//! from outside (subjects, upstream names) are hashed or have passed configuration's name
//! rules, so no part can contain a separator and no key can pass [`KV_KEY_MAX`].

use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::platform::{AtomicStore, KvStore, Swap, Unavailable, Version};
use crate::time::Timestamp;

/// Which store a family lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Eventually consistent.
    Kv,
    /// Linearizable per key.
    Atomic,
}

/// Every family: name and store. `kv-schemas/` documents each.
pub const FAMILIES: &[(&str, Store)] = &[
    (
        crate::config::ConfigFamily::NAME,
        crate::config::ConfigFamily::STORE,
    ),
    (
        crate::auth::JwksFamily::NAME,
        crate::auth::JwksFamily::STORE,
    ),
    (crate::auth::KeyFamily::NAME, crate::auth::KeyFamily::STORE),
    (
        crate::auth::ProofFamily::NAME,
        crate::auth::ProofFamily::STORE,
    ),
    (
        crate::request_token::UsedFamily::NAME,
        crate::request_token::UsedFamily::STORE,
    ),
    (
        crate::auth::revocation::RevocationFamily::NAME,
        crate::auth::revocation::RevocationFamily::STORE,
    ),
    (
        crate::auth::revocation::RevokedFamily::NAME,
        crate::auth::revocation::RevokedFamily::STORE,
    ),
    (
        crate::switches::SwitchesFamily::NAME,
        crate::switches::SwitchesFamily::STORE,
    ),
    (
        crate::switches::SwitchboardFamily::NAME,
        crate::switches::SwitchboardFamily::STORE,
    ),
    (
        crate::limits::RateFamily::NAME,
        crate::limits::RateFamily::STORE,
    ),
    (
        crate::limits::SeatFamily::NAME,
        crate::limits::SeatFamily::STORE,
    ),
    (
        crate::limits::leased::QuotaFamily::NAME,
        crate::limits::leased::QuotaFamily::STORE,
    ),
    (
        crate::quotas::SpentFamily::NAME,
        crate::quotas::SpentFamily::STORE,
    ),
    (
        crate::quotas::SpendersFamily::NAME,
        crate::quotas::SpendersFamily::STORE,
    ),
    (
        crate::upstream::facts::UpstreamFamily::NAME,
        crate::upstream::facts::UpstreamFamily::STORE,
    ),
    (
        crate::canary::CanaryFamily::NAME,
        crate::canary::CanaryFamily::STORE,
    ),
    (
        crate::canary::common::TallyFamily::NAME,
        crate::canary::common::TallyFamily::STORE,
    ),
    (
        crate::upstream::circuit::CircuitFamily::NAME,
        crate::upstream::circuit::CircuitFamily::STORE,
    ),
    (
        crate::upstream::circuit::TurnFamily::NAME,
        crate::upstream::circuit::TurnFamily::STORE,
    ),
    (
        crate::catalog::shared::CatalogFamily::NAME,
        crate::catalog::shared::CatalogFamily::STORE,
    ),
    (
        crate::tasks::record::TaskFamily::NAME,
        crate::tasks::record::TaskFamily::STORE,
    ),
    (
        crate::tasks::store::PartFamily::NAME,
        crate::tasks::store::PartFamily::STORE,
    ),
    (
        crate::tasks::roster::RosterFamily::NAME,
        crate::tasks::roster::RosterFamily::STORE,
    ),
    (
        crate::tasks::directory::DirectoryFamily::NAME,
        crate::tasks::directory::DirectoryFamily::STORE,
    ),
    (
        crate::tasks::tenants::TenantFamily::NAME,
        crate::tasks::tenants::TenantFamily::STORE,
    ),
    (
        crate::tasks::sweep::SweepFamily::NAME,
        crate::tasks::sweep::SweepFamily::STORE,
    ),
    (
        crate::idempotency::record::IdempotencyFamily::NAME,
        crate::idempotency::record::IdempotencyFamily::STORE,
    ),
    (
        crate::credentials::GrantFamily::NAME,
        crate::credentials::GrantFamily::STORE,
    ),
    (
        crate::session::SessionFamily::NAME,
        crate::session::SessionFamily::STORE,
    ),
    (
        crate::mailbox::MailFamily::NAME,
        crate::mailbox::MailFamily::STORE,
    ),
];

/// A family of records: one prefix, one record type, one lifetime.
pub trait Family {
    /// The record; always carries `"v"`. A counter is its bare number.
    type Record: Serialize + DeserializeOwned;
    /// First part of every key, and the name of the schema in `kv-schemas/`.
    const NAME: &'static str;
    /// Where it is kept.
    const STORE: Store;
    /// How long a record may be read after it was written; `None`: until replaced.
    const LIFETIME: Option<Duration>;
}

/// A key of family `F`.
pub struct Key<F> {
    text: String,
    family: PhantomData<F>,
}

impl<F: Family> Key<F> {
    /// The only record of its family.
    pub fn single() -> Self {
        Self {
            text: F::NAME.to_owned(),
            family: PhantomData,
        }
    }

    /// A record named by `parts`, each free of `/`.
    pub fn of(parts: &[&str]) -> Self {
        let mut text = F::NAME.to_owned();
        for part in parts {
            debug_assert!(
                !part.contains('/'),
                "key parts are hashed or validated names"
            );
            text.push('/');
            text.push_str(part);
        }
        Self {
            text,
            family: PhantomData,
        }
    }

    /// Another handle on the same record.
    pub fn same(other: &Self) -> Self {
        Self {
            text: other.text.clone(),
            family: PhantomData,
        }
    }

    /// The key as the store sees it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Why a record could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The store did not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// What is stored is not a record of this family (or of a version we know).
    #[error("record_unreadable: {family}: {reason}")]
    Unreadable {
        /// The family's name.
        family: &'static str,
        /// What the parser said.
        reason: String,
    },
}

fn decode<F: Family>(bytes: &[u8]) -> Result<F::Record, ReadError> {
    serde_json::from_slice(bytes).map_err(|e| ReadError::Unreadable {
        family: F::NAME,
        reason: e.to_string(),
    })
}

fn encode<F: Family>(record: &F::Record) -> Result<Bytes, Unavailable> {
    serde_json::to_vec(record)
        .map(Bytes::from)
        .map_err(|e| Unavailable(format!("{} does not serialise: {e}", F::NAME)))
}

/// Reads a published record.
pub async fn kv_get<F: Family>(
    kv: &impl KvStore,
    key: &Key<F>,
) -> Result<Option<F::Record>, ReadError> {
    kv.get(key.as_str())
        .await?
        .map(|bytes| decode::<F>(&bytes))
        .transpose()
}

/// Publishes a record for its family's lifetime.
pub async fn kv_put<F: Family>(
    kv: &impl KvStore,
    key: &Key<F>,
    record: &F::Record,
) -> Result<(), Unavailable> {
    kv.put(key.as_str(), encode::<F>(record)?, F::LIFETIME)
        .await
}

/// Reads an atomic record with the version a later swap must name.
pub async fn atomic_get<F: Family>(
    store: &impl AtomicStore,
    key: &Key<F>,
) -> Result<Option<(Version, F::Record)>, ReadError> {
    match store.get(key.as_str()).await? {
        Some((version, bytes)) => Ok(Some((version, decode::<F>(&bytes)?))),
        None => Ok(None),
    }
}

/// Reads an atomic record as soon as it is no longer as `seen` ([`AtomicStore::wait`]).
pub async fn atomic_wait<F: Family>(
    store: &impl AtomicStore,
    key: &Key<F>,
    seen: Option<Version>,
    within: Duration,
) -> Result<Option<(Version, F::Record)>, ReadError> {
    match store.wait(key.as_str(), seen, within).await? {
        Some((version, bytes)) => Ok(Some((version, decode::<F>(&bytes)?))),
        None => Ok(None),
    }
}

/// Replaces an atomic record if it is as expected.
pub async fn atomic_swap<F: Family>(
    store: &impl AtomicStore,
    key: &Key<F>,
    expected: Option<Version>,
    record: &F::Record,
    expires_at: Timestamp,
) -> Result<Swap, Unavailable> {
    store
        .swap(key.as_str(), expected, encode::<F>(record)?, expires_at)
        .await
}

/// Adds to a counter and gives the sum; `expires_at` counts when this creates it.
pub async fn atomic_add<F: Family<Record = i64>>(
    store: &impl AtomicStore,
    key: &Key<F>,
    delta: i64,
    expires_at: Timestamp,
) -> Result<i64, Unavailable> {
    store.add(key.as_str(), delta, expires_at).await
}
