//! Where a running call gets what other requests of its session bring: the answers to what
//! it asked the client, and the word that the client wants it no more.
//!
//! A legacy client posts both to whichever isolate is nearest, so they meet the call in an
//! atomic record that the call waits for. Only the call makes its mailbox: a letter to none
//! is dropped, so nobody can fill the store with answers to questions never asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{RequestId, RpcError};

use crate::context::Context;
use crate::error::{Error, Fault};
use crate::keyspace::{self, Family, Key, ReadError, Store};
use crate::platform::{AtomicStore, Platform, Swap, Unavailable, Version, WAIT_MAX};
use crate::seal::hex;
use crate::session::Session;
use crate::tasks::Failure;

/// Longest a mailbox is kept: longer than any call asks and waits.
const KEPT: Duration = Duration::from_secs(2 * 60 * 60);
/// Most letters that wait in one mailbox; more are dropped.
const LETTERS_MAX: usize = 64;
/// How often a lost race over the record is tried again.
const SWAPS_MAX: usize = 8;

/// What is brought to a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Letter {
    /// The client's answer to the question with this number.
    Answer(u64, Object),
    /// The client's refusal to answer the question with this number.
    Refusal(u64, Failure),
    /// The client has cancelled the call.
    Cancelled,
}

/// A mailbox as stored.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Shape of this record.
    pub v: u32,
    /// What waits to be taken, oldest first.
    pub letters: Vec<Letter>,
}

/// The family of [`Record`]: session, call.
pub struct MailFamily;

impl Family for MailFamily {
    type Record = Record;
    const NAME: &'static str = "mail";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(KEPT);
}

/// Names one call of a session; the session's key keeps it from being guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// The address of the call with this request id.
    pub fn of(session: &Session, id: &RequestId) -> Self {
        let mut hash = Sha256::new();
        hash.update(session.key.as_bytes());
        hash.update(serde_json::to_string(id).unwrap_or_default().as_bytes());
        Self(hex(&hash.finalize()[..16]))
    }

    /// The id of the call's `number`th question: the client's answer finds its way by it.
    pub fn question(&self, number: u64) -> RequestId {
        RequestId::String(format!("{}.{number}", self.0))
    }

    /// Reads [`Self::question`] back.
    pub fn of_question(id: &RequestId) -> Option<(Self, u64)> {
        let RequestId::String(text) = id else {
            return None;
        };
        let (address, number) = text.split_once('.')?;
        let ours = address.len() == 32 && address.bytes().all(|b| b.is_ascii_hexdigit());
        ours.then_some((Self(address.to_owned()), number.parse().ok()?))
    }
}

/// Brings a letter to a call, if it has a mailbox.
pub async fn post<P: Platform>(
    context: &Context<P>,
    session: &Session,
    address: &Address,
    letter: &Letter,
) -> Result<(), Error> {
    let (atomic, key) = (context.platform.atomic(), key(session, address));
    for _ in 0..SWAPS_MAX {
        let found = keyspace::atomic_get(atomic, &key).await;
        let Some((version, mut record)) = found.map_err(unreadable)? else {
            return Ok(());
        };
        if record.letters.len() >= LETTERS_MAX {
            return Ok(());
        }
        record.letters.push(letter.clone());
        let until = context.now() + KEPT;
        if let Swap::Done(_) =
            keyspace::atomic_swap(atomic, &key, Some(version), &record, until).await?
        {
            return Ok(());
        }
    }
    Err(Fault::Dependency("a mailbox is too contended".to_owned()).into())
}

/// A call's own mailbox.
pub struct Mailbox<P: Platform> {
    context: Context<P>,
    key: Key<MailFamily>,
    /// The record's version when it was last read, or emptied.
    seen: Version,
}

impl<P: Platform> Mailbox<P> {
    /// Makes the call's mailbox. One left by an earlier call of the same id is emptied.
    pub async fn open(
        context: &Context<P>,
        session: &Session,
        address: &Address,
    ) -> Result<Self, Error> {
        let key = key(session, address);
        let atomic = context.platform.atomic();
        let mut found = None;
        for _ in 0..SWAPS_MAX {
            let until = context.now() + KEPT;
            let record = Record {
                v: 1,
                ..Record::default()
            };
            match keyspace::atomic_swap(atomic, &key, found, &record, until).await? {
                Swap::Done(seen) => {
                    return Ok(Self {
                        context: context.clone(),
                        key,
                        seen,
                    });
                }
                Swap::Conflict => {
                    let known = keyspace::atomic_get(atomic, &key).await;
                    found = known.map_err(unreadable)?.map(|(version, _)| version);
                }
            }
        }
        Err(Fault::Dependency("a mailbox is too contended".to_owned()).into())
    }

    /// What has been brought, waiting for it a while; nothing if nothing came. A letter may
    /// be brought again if the store failed meanwhile.
    pub async fn take(&mut self, within: Duration) -> Result<Vec<Letter>, Error> {
        let atomic = self.context.platform.atomic();
        let within = within.min(WAIT_MAX);
        let found = atomic
            .wait(self.key.as_str(), Some(self.seen), within)
            .await?;
        let Some((mut version, bytes)) = found else {
            // Expired: it is made anew, for the call goes on.
            let fresh = self.write(None).await?;
            self.seen = fresh.unwrap_or(self.seen);
            return Ok(Vec::new());
        };
        let mut record: Record =
            serde_json::from_slice(&bytes).map_err(|e| Fault::Internal(e.to_string()))?;
        if record.letters.is_empty() {
            self.seen = version;
            return Ok(Vec::new());
        }
        for _ in 0..SWAPS_MAX {
            self.seen = version;
            match self.write(Some(version)).await {
                Ok(Some(empty)) => {
                    self.seen = empty;
                    break;
                }
                // Another letter came in between.
                Ok(None) => {}
                // Written or not: what has been read is read.
                Err(_) => break,
            }
            let found = keyspace::atomic_get(self.context.platform.atomic(), &self.key).await;
            let Ok(Some(newer)) = found else {
                break;
            };
            (version, record) = newer;
        }
        Ok(record.letters)
    }

    async fn write(&self, expected: Option<Version>) -> Result<Option<Version>, Unavailable> {
        let record = Record {
            v: 1,
            ..Record::default()
        };
        let (atomic, until) = (self.context.platform.atomic(), self.context.now() + KEPT);
        match keyspace::atomic_swap(atomic, &self.key, expected, &record, until).await? {
            Swap::Done(version) => Ok(Some(version)),
            Swap::Conflict => Ok(None),
        }
    }
}

impl<P: Platform> Drop for Mailbox<P> {
    /// Nobody reads it any longer. Should this be lost, it expires.
    fn drop(&mut self) {
        let (context, seen) = (self.context.clone(), self.seen);
        let key = Key::<MailFamily>::same(&self.key);
        self.context.platform.defer(async move {
            let (atomic, now) = (context.platform.atomic(), context.now());
            let record = Record {
                v: 1,
                ..Record::default()
            };
            let _ = keyspace::atomic_swap(atomic, &key, Some(seen), &record, now).await;
        });
    }
}

/// What the client answered, in the words of a letter.
pub fn answer(number: u64, outcome: Result<Object, RpcError>) -> Letter {
    match outcome {
        Ok(result) => Letter::Answer(number, result),
        Err(error) => Letter::Refusal(number, error.into()),
    }
}

fn key(session: &Session, address: &Address) -> Key<MailFamily> {
    Key::of(&[&session.key, &address.0])
}

fn unreadable(error: ReadError) -> Error {
    match error {
        ReadError::Unavailable(e) => e.into(),
        ReadError::Unreadable { .. } => Fault::Internal(error.to_string()).into(),
    }
}
