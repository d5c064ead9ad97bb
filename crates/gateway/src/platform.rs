//! The ports: the only way out of the gateway.
//!
//! A host implements [`Platform`] once. The contracts written here are executable: the
//! simulator crate's `contract` module runs them against the simulator and every host.
//! Nothing needs `Send`; there is one `Platform` per binary, so nothing is boxed.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

use crate::body::Body;
use crate::time::Timestamp;

/// Everything a host gives the gateway.
pub trait Platform: 'static {
    /// What is published and read.
    type Kv: KvStore;
    /// What two requests race on.
    type Atomic: AtomicStore;
    /// Outbound HTTP.
    type Http: HttpClient;
    /// Work that outlives the request.
    type Queue: Queue;
    /// Calls that outlive the request; [`NoKeeper`] where the host has no such place.
    type Keeper: Keeper;
    /// Wall time and waiting.
    type Clock: Clock;

    /// The eventually consistent store.
    fn kv(&self) -> &Self::Kv;
    /// The store that is linearizable per key.
    fn atomic(&self) -> &Self::Atomic;
    /// The outbound HTTP client.
    fn http(&self) -> &Self::Http;
    /// The queue this deployment consumes.
    fn queue(&self) -> &Self::Queue;
    /// Where calls can be kept between two requests, if the host has such a place.
    fn keeper(&self) -> Option<&Self::Keeper>;
    /// The clock.
    fn clock(&self) -> &Self::Clock;

    /// Whether instances come and go so quickly that what one of them counted is soon lost:
    /// limits that do not say how they are counted are then counted in the atomic store.
    fn is_short_lived(&self) -> bool {
        false
    }
    /// Counts one request of `subject` in the limiter the host has bound as `binding`, and
    /// says whether that is within the limit. [`Unavailable`] where there is none of that name.
    fn limiter(
        &self,
        binding: &str,
        subject: &str,
    ) -> impl Future<Output = Result<bool, Unavailable>> {
        let _ = (binding, subject);
        std::future::ready(Err(Unavailable("this host has none".to_owned())))
    }
    /// Fills `out` with cryptographically strong randomness.
    fn random(&self, out: &mut [u8]);
    /// A secret by name from the platform's own secret store, if it is set. [`Unavailable`]
    /// where the store does not say: that is no absence.
    fn secret(&self, name: &str) -> impl Future<Output = Result<Option<Secret>, Unavailable>>;
    /// Runs `work` after the response. Best effort, bounded in time, lost on a crash:
    /// nothing may depend on it having run.
    fn defer(&self, work: impl Future<Output = ()> + 'static);
    /// Writes one line of the operator's log. Never blocks, never fails.
    fn log(&self, level: LogLevel, line: &str);
}

/// The store is out of reach or refused; for a write the outcome is **unknown**.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store_unavailable: {0}")]
pub struct Unavailable(pub String);

/// Eventually consistent key-value store.
///
/// A read may be stale by a minute or more, and *absence* may be stale too. Last write
/// wins. One write per key per second is promised. No listing, no compare-and-swap: never
/// for what two requests race on. Keys are at most [`KV_KEY_MAX`] bytes.
pub trait KvStore {
    /// The value last seen here, possibly stale.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Bytes>, Unavailable>>;
    /// Publishes a value; after `ttl` (at least [`KV_TTL_MIN`]) it is unreadable.
    fn put(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<(), Unavailable>>;
    /// Withdraws a value. Absent keys are no error.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Unavailable>>;
}

/// Longest key any store takes, in bytes (Workers KV's limit).
pub const KV_KEY_MAX: usize = 512;
/// Shortest lifetime of a KV value (Workers KV's limit).
pub const KV_TTL_MIN: Duration = Duration::from_secs(60);

/// Identifies one state of one atomic record. Never reused for a key while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

/// What a conditional write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// Written and durable; this is the record's version now.
    Done(Version),
    /// The record was not as expected; nothing was written.
    Conflict,
}

/// Store that is linearizable per key.
///
/// `Ok` from a write means durable. [`Unavailable`] from a write means **unknown: it may
/// have been written**, so every caller must be able to re-read and continue. A record is
/// unreadable after its `expires_at`. One key is one serial point: keep it off hot reads.
/// A key holds either a value or a counter, never both. Values are at most
/// [`ATOMIC_VALUE_MAX`] bytes; what is larger is not written, however often it is tried.
pub trait AtomicStore {
    /// The record and its version, or `None` when there is none or it has expired.
    fn get(&self, key: &str)
    -> impl Future<Output = Result<Option<(Version, Bytes)>, Unavailable>>;
    /// Replaces the record if it is as expected (`None`: absent).
    fn swap(
        &self,
        key: &str,
        expected: Option<Version>,
        value: Bytes,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<Swap, Unavailable>>;
    /// The record as soon as it is no longer as `seen` (`None`: absent), or as it is when
    /// `within` (at most [`WAIT_MAX`]) is over. What was written before the call began is
    /// never missed; of several writes in a row the last may be the only one seen. A store
    /// where too many wait for one record already gives it as it is, at once.
    fn wait(
        &self,
        key: &str,
        seen: Option<Version>,
        within: Duration,
    ) -> impl Future<Output = Result<Option<(Version, Bytes)>, Unavailable>>;
    /// Adds to a counter (absent: zero) and returns the sum. `expires_at` is set when the
    /// counter is created and kept afterwards.
    fn add(
        &self,
        key: &str,
        delta: i64,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<i64, Unavailable>>;
}

/// Largest value of an atomic record, in bytes: a Durable Object's row has two million, and a
/// value is not all of it.
pub const ATOMIC_VALUE_MAX: usize = 1900 * 1024;

/// Longest single wait for a record to change: hosts bound how long one exchange may take.
pub const WAIT_MAX: Duration = Duration::from_secs(25);

/// A place where a call can outlive the request that began it.
///
/// A keeper is found by name, one in the world per name, and remembers from one request to
/// the next for as long as something is under way in it. It answers by
/// [`Gateway::keep`](crate::Gateway::keep), with a [`Memory`](crate::Memory) of its own. It
/// may die at any time and is then found empty: whoever comes back must bear that.
pub trait Keeper {
    /// Hands `request`, of whose URI only path and query count, to the keeper called `name`
    /// and gives its answer as soon as the head is there; the body streams. Dropping either
    /// tells the keeper that nobody listens.
    fn send(
        &self,
        name: &str,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, Unavailable>>;
}

/// The keeper of hosts that have none. There is no value of this type.
#[derive(Debug, Clone, Copy)]
pub enum NoKeeper {}

impl Keeper for NoKeeper {
    async fn send(&self, _: &str, _: Request<Body>) -> Result<Response<Body>, Unavailable> {
        match *self {}
    }
}

/// Work that outlives a request: at least once, unordered, possibly much later.
pub trait Queue {
    /// Hands `message` to the queue; `Ok` means it will be delivered at least once.
    /// At most [`QUEUE_MESSAGE_MAX`] bytes: send identifiers, not payloads.
    fn send(
        &self,
        message: Bytes,
        delay: Duration,
    ) -> impl Future<Output = Result<(), Unavailable>>;
}

/// Largest queue message, in bytes.
pub const QUEUE_MESSAGE_MAX: usize = 100 * 1024;

/// Outbound HTTP. Streams both ways, never follows redirects, adds no credentials.
/// Dropping the future or the response body cancels the exchange.
pub trait HttpClient {
    /// Sends one request and gives the response as soon as its head has arrived.
    fn send(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, HttpError>>;
}

/// Why no response head arrived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The request certainly did not reach the server: safe to retry.
    #[error("not_sent: {0}")]
    NotSent(String),
    /// The server may have acted on the request. A host that cannot tell says this.
    #[error("maybe_sent: {0}")]
    MaybeSent(String),
}

/// Wall time. It **may stand still between I/O** and may step: good for expiry and
/// back-off, meaningless for CPU timing.
pub trait Clock {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Completes after `duration`; owns nothing, so it may be kept in a stream.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static;
}

/// A secret value. It cannot be displayed; `Debug` shows that there is one, nothing more.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a secret's text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself: only for the wire and for keys.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How urgent a log line is: `Error`, an operator should look now; `Warn`, this week.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Follows the code.
    Debug,
    /// What happened.
    Info,
    /// Look this week.
    Warn,
    /// Look now.
    Error,
}
