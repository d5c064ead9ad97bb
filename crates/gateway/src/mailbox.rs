//! Where a running call gets what other requests of its session bring: the answers to what
//! it asked the client, and the word that the client wants it no more.
//!
//! A legacy client posts both to whichever isolate is nearest, so they meet the call in an
//! atomic record that the call waits for. Only the call makes its mailbox: a letter to none
//! is dropped, so nobody can fill the store with answers to questions never asked.

use std::time::Duration;

use futures_util::future::{FutureExt, LocalBoxFuture};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{RequestId, RpcError};

use crate::context::Context;
use crate::error::{Error, Fault};
use crate::http_sse::Poster;
use crate::keyspace::{self, Family, Key, ReadError, Store};
use crate::platform::{AtomicStore, Clock, Platform, Swap, Unavailable, Version, WAIT_MAX};
use crate::seal::hex;
use crate::session::Session;
use crate::tasks::record::Failure;

/// Longest a mailbox is kept: longer than any call asks and waits.
const KEPT: Duration = Duration::from_secs(2 * 60 * 60);
/// Most letters that wait in one mailbox; more are refused.
const LETTERS_MAX: usize = 64;
/// Most bytes of letters after which no further one is taken in.
const SIZE_MAX: usize = 1024 * 1024;
/// How often a lost race over the record is tried again.
const SWAPS_MAX: usize = 8;
/// Pause before a mailbox is looked at again whose store did not answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);

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
    /// A call for the stream of a client of 2024-11-05.
    Call {
        /// The request.
        message: Box<RawValue>,
        /// Who posted it.
        by: Box<Poster>,
    },
}

/// A mailbox as stored.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Shape of this record.
    pub v: u32,
    /// How many letters have been taken out.
    pub taken: u64,
    /// What waits to be taken, oldest first.
    pub letters: Vec<Letter>,
}

impl Record {
    fn empty(taken: u64) -> Self {
        Self {
            v: 1,
            taken,
            letters: Vec::new(),
        }
    }

    /// About how many bytes the letters take.
    fn size(&self) -> usize {
        let size = |letter: &Letter| match letter {
            Letter::Answer(_, answer) => answer.to_raw().get().len(),
            Letter::Refusal(_, failure) => failure.message.len(),
            Letter::Cancelled => 0,
            Letter::Call { message, .. } => message.get().len(),
        };
        self.letters.iter().map(size).sum()
    }
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

    /// The address of the session's stream (2024-11-05).
    pub fn stream(session: &Session) -> Self {
        let mut hash = Sha256::new();
        hash.update(session.key.as_bytes());
        hash.update(b"stream");
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

/// Brings a letter to a call; gives whether that has a mailbox.
pub async fn post<P: Platform>(
    context: &Context<P>,
    session: &Session,
    address: &Address,
    letter: &Letter,
) -> Result<bool, Error> {
    let (atomic, key) = (context.platform.atomic(), key(session, address));
    for _ in 0..SWAPS_MAX {
        let found = keyspace::atomic_get(atomic, &key).await;
        let Some((version, mut record)) = found.map_err(unreadable)? else {
            return Ok(false);
        };
        if record.letters.len() >= LETTERS_MAX || record.size() >= SIZE_MAX {
            return Err(Fault::Dependency("a mailbox is full".to_owned()).into());
        }
        record.letters.push(letter.clone());
        let until = context.now() + KEPT;
        if let Swap::Done(_) =
            keyspace::atomic_swap(atomic, &key, Some(version), &record, until).await?
        {
            return Ok(true);
        }
    }
    Err(Fault::Dependency("a mailbox is too contended".to_owned()).into())
}

/// A mailbox that is being waited at.
pub type Taking<P> = LocalBoxFuture<'static, (Mailbox<P>, Result<Vec<Letter>, Error>)>;

/// A call's own mailbox.
pub struct Mailbox<P: Platform> {
    context: Context<P>,
    key: Key<MailFamily>,
    /// The record's version when it was last read, or emptied.
    seen: Version,
    /// How many letters have been read.
    taken: u64,
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
            let record = Record::empty(0);
            match keyspace::atomic_swap(atomic, &key, found, &record, until).await? {
                Swap::Done(seen) => {
                    return Ok(Self {
                        context: context.clone(),
                        key,
                        seen,
                        taken: 0,
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

    /// [`Self::take`] as a future of its own, which gives the mailbox back; only after a
    /// pause where the store does not answer.
    pub fn taking(mut self, within: Duration) -> Taking<P> {
        async move {
            let letters = self.take(within).await;
            if letters.is_err() {
                self.context.platform.clock().sleep(STORE_PAUSE).await;
            }
            (self, letters)
        }
        .boxed_local()
    }

    /// What has been brought, each letter once, waiting for it a while; nothing if nothing
    /// came.
    pub async fn take(&mut self, within: Duration) -> Result<Vec<Letter>, Error> {
        let atomic = self.context.platform.atomic();
        let within = within.min(WAIT_MAX);
        let found = atomic
            .wait(self.key.as_str(), Some(self.seen), within)
            .await?;
        let Some((version, bytes)) = found else {
            // Expired: it is made anew, for the call goes on.
            self.empty(None).await?;
            return Ok(Vec::new());
        };
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|e| Fault::Internal(e.to_string()))?;
        self.seen = version;
        let known = self.taken.saturating_sub(record.taken);
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let any = !record.letters.is_empty();
        let letters: Vec<Letter> = record.letters.into_iter().skip(known).collect();
        self.taken += letters.len() as u64;
        if any {
            // Whatever comes of it: what has been read is known by its number.
            let _ = self.empty(Some(version)).await;
        }
        Ok(letters)
    }

    async fn empty(&mut self, expected: Option<Version>) -> Result<(), Unavailable> {
        let (atomic, until) = (self.context.platform.atomic(), self.context.now() + KEPT);
        let record = Record::empty(self.taken);
        if let Swap::Done(version) =
            keyspace::atomic_swap(atomic, &self.key, expected, &record, until).await?
        {
            self.seen = version;
        }
        Ok(())
    }
}

impl<P: Platform> Drop for Mailbox<P> {
    /// Nobody reads it any longer. Should this be lost, it expires.
    fn drop(&mut self) {
        let (context, seen) = (self.context.clone(), self.seen);
        let key = Key::<MailFamily>::same(&self.key);
        self.context.platform.defer(async move {
            let (atomic, now) = (context.platform.atomic(), context.now());
            let record = Record::empty(0);
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
