//! What a principal has granted at an upstream's authorization server, sealed in the atomic
//! store: found by every isolate, keeper and run of a task.
//!
//! A refresh token may be good for one use, so of all isolates one at a time uses it: whoever
//! has swapped its lease into the record. What comes of it is written whatever happens to the
//! call it was for ([`SeenThrough`]), again where the store does not say whether it was
//! written, and over another's lease as long as the record still holds the tokens it was made
//! of. So a rotated token is lost only with the isolate that holds it, and the principal is
//! then asked anew. The lease outlasts the question by [`KEEP_WITHIN`], the time there is for
//! writing, so two isolates use one token only where the first has died.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Waking, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Token;
use super::connect;
use super::server::{self, ASK_WITHIN, Failure, Given, INVALID_GRANT, ends, resource};
use crate::auth::PrincipalId;
use crate::config::{OAuth, Upstream};
use crate::context::Context;
use crate::error::{Error, Fault};
use crate::keyspace::{Family, Key, ReadError, Store, atomic_get, atomic_swap, atomic_wait};
use crate::platform::{Clock, LogLevel, Platform, Swap, Version};
use crate::seal::{Purpose, hex};
use crate::time::Timestamp;

/// How long a grant is kept that nobody uses.
const GRANT_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often tokens are tried to be written, with a pause before each further try.
const KEEP_TRIES: u32 = 100;
/// How long that takes.
const KEEP_WITHIN: Duration = Duration::from_secs(20);
/// How long a refresh may take, metadata, tokens and writing together.
const LEASE: Duration = Duration::from_secs(2 * ASK_WITHIN.as_secs() + KEEP_WITHIN.as_secs());
/// How long another's refresh is waited for.
const WAIT_WITHIN: Duration = Duration::from_secs(20);
/// Pause before a store is asked again that did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a record is read and fought over for one token.
const ROUNDS_MAX: u32 = 100;
/// Longest a token is used before the store is asked whether the grant still holds.
const LOOK_AFTER: Duration = Duration::from_secs(60);

/// What a principal has granted, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Shape of this record.
    pub v: u32,
    /// Configured name of the upstream.
    pub upstream: String,
    /// When a user last granted it, milliseconds since the epoch: links made before are spent.
    pub granted_at_ms: u64,
    /// Counts the tokens it has held.
    pub generation: u64,
    /// The tokens, sealed; none once the authorization server has withdrawn them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// Who is getting newer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

/// The right to use a refresh token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// A random name of whoever has it.
    pub by: String,
    /// When it is over, milliseconds since the epoch.
    pub until_ms: u64,
}

/// The family of [`Record`]: one per principal and upstream.
pub struct GrantFamily;

impl Family for GrantFamily {
    type Record = Record;
    const NAME: &'static str = "grant";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(GRANT_KEPT);
}

/// The tokens in a record.
#[derive(Clone, Serialize, Deserialize)]
struct Held {
    owner: PrincipalId,
    /// Of which client, at which server, for what.
    identity: String,
    access: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh: Option<String>,
    ends: Timestamp,
    got_at: Timestamp,
}

impl Held {
    fn token(&self, now: Timestamp) -> Token {
        let mut token = Token::of(&self.access, self.ends, self.got_at);
        token.until = token.until.min(now + LOOK_AFTER);
        token.got_at = self.got_at.min(now);
        token
    }

    /// Whether it may still be shown, though another would be better.
    fn lasts(&self, now: Timestamp) -> bool {
        now < self.ends
    }
}

/// One principal's grant for one upstream.
struct Granted<P> {
    context: Context<P>,
    upstream: Upstream,
    oauth: OAuth,
    principal: PrincipalId,
    identity: String,
}

/// What a record is at one moment.
struct Seen {
    version: Version,
    record: Record,
    held: Option<Held>,
}

/// What came of a refresh.
enum Refreshed {
    Token(Token),
    Failed(Failure),
    /// The record has become another.
    Again,
}

/// The token of a principal's grant, a new one if need be. Who has granted nothing is told
/// where to.
pub(super) async fn token<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    oauth: &OAuth,
    principal: &PrincipalId,
    refused: Option<&Rc<Token>>,
) -> Result<Result<Token, Failure>, Error> {
    let granted = Granted::of(context, upstream, oauth, principal);
    let by = hex(&context.random::<16>());
    let give_up = context.now() + WAIT_WITHIN;
    for _ in 0..ROUNDS_MAX {
        let Some(seen) = granted.see().await? else {
            return Err(connect::required(context, upstream, principal));
        };
        let now = context.now();
        let Some(held) = seen.held.clone() else {
            return Err(connect::required(context, upstream, principal));
        };
        let unwanted = refused.is_some_and(|token| token.text.expose() == held.access);
        let token = held.token(now);
        if now < token.until && !unwanted {
            return Ok(Ok(token));
        }
        if held.refresh.is_none() {
            return match held.lasts(now) && !unwanted {
                true => Ok(Ok(token)),
                false => Err(connect::required(context, upstream, principal)),
            };
        }
        let leased = seen.record.lease.clone();
        let leased = leased.filter(|lease| now < Timestamp(lease.until_ms));
        match leased {
            Some(lease) if lease.by == by => {}
            Some(_) if held.lasts(now) && !unwanted => return Ok(Ok(token)),
            Some(lease) => {
                if now >= give_up {
                    return Ok(Err(Failure::Broken("its token is being renewed elsewhere")));
                }
                let left = Timestamp(lease.until_ms).min(give_up).since(now);
                // Whatever it says is read again.
                let (atomic, key) = (context.platform.atomic(), granted.key());
                let _ = atomic_wait(atomic, &key, Some(seen.version), left).await;
                // A store where too many wait answers at once.
                context.platform.clock().sleep(PAUSE).await;
                continue;
            }
            None => {}
        }
        let granted = Granted::of(context, upstream, oauth, principal);
        let work = granted.renew(seen, held, by.clone(), !unwanted);
        let work = SeenThrough::of(&context.platform, work.boxed_local());
        match work.await? {
            Refreshed::Token(token) => return Ok(Ok(token)),
            Refreshed::Failed(failure) => return Ok(Err(failure)),
            Refreshed::Again => {}
        }
    }
    Ok(Err(Failure::Broken("its token is fought over")))
}

/// A token that is stored and lasts, whoever got it; it cannot be renewed.
pub(super) async fn stored<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    oauth: &OAuth,
    principal: &PrincipalId,
) -> Result<Option<Token>, Error> {
    let granted = Granted::of(context, upstream, oauth, principal);
    let (seen, now) = (granted.see().await?, context.now());
    let held = seen.and_then(|seen| seen.held);
    Ok(held
        .filter(|held| held.lasts(now))
        .map(|held| held.token(now)))
}

/// Keeps what was exchanged for a principal's token where calls that outlive the request
/// find it. Lost, those calls are refused.
pub(super) async fn keep<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    oauth: &OAuth,
    principal: &PrincipalId,
    given: &Given,
) {
    let granted = Granted::of(context, upstream, oauth, principal);
    let held = granted.held(given, None);
    let Ok(seen) = granted.see().await else {
        return;
    };
    let before = seen.as_ref().map(|seen| &seen.record);
    let Ok(record) = granted.record(Some(&held), before, Timestamp(0)) else {
        return;
    };
    let (atomic, key) = (context.platform.atomic(), granted.key());
    let version = seen.as_ref().map(|seen| seen.version);
    // Whoever else writes does so for the same principal.
    let _ = atomic_swap(atomic, &key, version, &record, held.ends).await;
}

/// Whether a link made at this time may still be used: no later one has been.
pub(super) async fn is_open<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    oauth: &OAuth,
    principal: &PrincipalId,
    made_at: Timestamp,
) -> Result<bool, Error> {
    let seen = Granted::of(context, upstream, oauth, principal)
        .see()
        .await?;
    Ok(seen.is_none_or(|seen| seen.record.granted_at_ms < made_at.0))
}

/// Stores what a user has granted by a link made at this time; `false` if that is spent.
pub(super) async fn store<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    oauth: &OAuth,
    principal: &PrincipalId,
    (given, made_at): (&Given, Timestamp),
) -> Result<bool, Error> {
    let granted = Granted::of(context, upstream, oauth, principal);
    let held = granted.held(given, None);
    let (atomic, key) = (context.platform.atomic(), granted.key());
    for _ in 0..ROUNDS_MAX {
        let seen = granted.see().await?;
        if let Some(seen) = &seen {
            if seen
                .held
                .as_ref()
                .is_some_and(|there| there.access == held.access)
            {
                return Ok(true);
            }
            if seen.record.granted_at_ms >= made_at.0 {
                return Ok(false);
            }
        }
        let before = seen.as_ref().map(|seen| &seen.record);
        // Clocks differ: the link it was made by is spent whatever this one says.
        let granted_at = context.now().max(made_at);
        let record = granted.record(Some(&held), before, granted_at)?;
        let version = seen.map(|seen| seen.version);
        let until = context.now() + GRANT_KEPT;
        match atomic_swap(atomic, &key, version, &record, until).await {
            Ok(Swap::Done(_)) => return Ok(true),
            Ok(Swap::Conflict) => {}
            Err(_) => context.platform.clock().sleep(PAUSE).await,
        }
    }
    Err(Fault::Dependency("a grant could not be stored".to_owned()).into())
}

/// Waits until the principal has a grant, or the time is over.
pub(super) async fn awaited<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    oauth: &OAuth,
    principal: &PrincipalId,
    within: Duration,
) {
    let granted = Granted::of(context, upstream, oauth, principal);
    let until = context.now() + within;
    while let Ok(seen) = granted.see().await {
        let left = until.since(context.now());
        if seen.as_ref().is_some_and(|seen| seen.held.is_some()) || left == Duration::ZERO {
            return;
        }
        let (atomic, key) = (context.platform.atomic(), granted.key());
        let version = seen.map(|seen| seen.version);
        if atomic_wait(atomic, &key, version, left).await.is_err() {
            return;
        }
        // A store where too many wait answers at once.
        context.platform.clock().sleep(PAUSE).await;
    }
}

impl<P: Platform> Granted<P> {
    fn of(
        context: &Context<P>,
        upstream: &Upstream,
        oauth: &OAuth,
        principal: &PrincipalId,
    ) -> Self {
        let mut hash = Sha256::new();
        let resource = resource(oauth, &upstream.url);
        for part in [&oauth.issuer, &oauth.client_id, &resource] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update([oauth.grant as u8]);
        Self {
            context: context.clone(),
            upstream: upstream.clone(),
            oauth: oauth.clone(),
            principal: principal.clone(),
            identity: hex(&hash.finalize()[..16]),
        }
    }

    fn key(&self) -> Key<GrantFamily> {
        Key::of(&[self.principal.as_str(), &self.upstream.name])
    }

    fn held(&self, given: &Given, before: Option<&Held>) -> Held {
        let now = self.context.now();
        Held {
            owner: self.principal.clone(),
            identity: self.identity.clone(),
            access: given.access.clone(),
            // One that is not replaced goes on being good (RFC 6749 section 6).
            refresh: given
                .refresh
                .clone()
                .or_else(|| before.and_then(|before| before.refresh.clone())),
            ends: ends(given, now),
            got_at: now,
        }
    }

    /// The record that holds these tokens in place of the one before.
    fn record(
        &self,
        held: Option<&Held>,
        before: Option<&Record>,
        granted_at: Timestamp,
    ) -> Result<Record, Error> {
        let (platform, sealer) = (&self.context.platform, &self.context.settings.sealer);
        let sealed = match held {
            Some(held) => Some(sealer.seal(platform.as_ref(), Purpose::Grant, held)?),
            None => None,
        };
        Ok(Record {
            v: 1,
            upstream: self.upstream.name.clone(),
            granted_at_ms: granted_at.0,
            generation: before.map_or(0, |before| before.generation) + 1,
            sealed,
            lease: None,
        })
    }

    /// The record as it is. Tokens of another client, or for another resource, are none.
    async fn see(&self) -> Result<Option<Seen>, Error> {
        let read = atomic_get(self.context.platform.atomic(), &self.key()).await;
        let Some((version, record)) =
            read.map_err(|e: ReadError| Fault::Dependency(e.to_string()))?
        else {
            return Ok(None);
        };
        let ours = |held: &Held| held.owner == self.principal && held.identity == self.identity;
        let sealer = &self.context.settings.sealer;
        let sealed = record.sealed.as_deref().filter(|_| record.v == 1);
        let held = sealed.and_then(|sealed| sealer.open::<Held>(Purpose::Grant, sealed));
        let held = held.filter(ours);
        Ok(Some(Seen {
            version,
            record,
            held,
        }))
    }

    async fn swap(&self, expected: Version, record: &Record) -> Result<Swap, Error> {
        let until = self.context.now() + GRANT_KEPT;
        let (atomic, key) = (self.context.platform.atomic(), self.key());
        Ok(atomic_swap(atomic, &key, Some(expected), record, until).await?)
    }

    /// Takes the lease, unless it has it already, and then newer tokens.
    async fn renew(
        self,
        seen: Seen,
        held: Held,
        by: String,
        usable: bool,
    ) -> Result<Refreshed, Error> {
        let now = self.context.now();
        let mut record = seen.record;
        let mut version = seen.version;
        // Enough of it must be left to hear and to write what comes of it.
        let lasts =
            |until_ms: u64| self.context.now() + ASK_WITHIN + KEEP_WITHIN <= Timestamp(until_ms);
        let mine = |lease: &Lease| lease.by == by && lasts(lease.until_ms);
        if !record.lease.as_ref().is_some_and(mine) {
            let until_ms = (now + LEASE).0;
            record.lease = Some(Lease { by, until_ms });
            match self.swap(version, &record).await {
                Ok(Swap::Done(leased)) if lasts(until_ms) => version = leased,
                Ok(_) => return Ok(Refreshed::Again),
                // Whether it has it, the record says.
                Err(_) => {
                    self.context.platform.clock().sleep(PAUSE).await;
                    return Ok(Refreshed::Again);
                }
            }
        }
        let refresh = held.refresh.clone().unwrap_or_default();
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &*refresh),
        ];
        let resource = resource(&self.oauth, &self.upstream.url);
        let failure = match server::ask(&self.context, &self.oauth, Some(&resource), &form).await {
            Ok(Ok(given)) => {
                let newer = self.held(&given, Some(&held));
                return self.write(version, &record, newer).await;
            }
            Ok(Err(failure)) => failure,
            Err(error) => {
                self.release(version, record).await;
                return Err(error);
            }
        };
        if failure == Failure::Denied(INVALID_GRANT) {
            // Withdrawn, unless somebody has newer ones: who made them of these writes them
            // over this.
            record.sealed = None;
            record.lease = None;
            let _ = self.swap(version, &record).await;
            return Ok(Refreshed::Again);
        }
        self.release(version, record).await;
        let now = self.context.now();
        Ok(match held.lasts(now) && usable {
            true => Refreshed::Token(held.token(now)),
            false => Refreshed::Failed(failure),
        })
    }

    /// Gives the lease back. Lost, it lapses.
    async fn release(&self, version: Version, mut record: Record) {
        record.lease = None;
        let _ = self.swap(version, &record).await;
    }

    /// Writes newer tokens over the ones they were made of, until it is certain that they
    /// are there, or that others have taken their place.
    async fn write(&self, leased: Version, from: &Record, newer: Held) -> Result<Refreshed, Error> {
        let record = self.record(Some(&newer), Some(from), Timestamp(from.granted_at_ms))?;
        let now = self.context.now();
        let mut version = leased;
        for _ in 0..KEEP_TRIES {
            match self.swap(version, &record).await {
                Ok(Swap::Done(_)) => return Ok(Refreshed::Token(newer.token(now))),
                Ok(Swap::Conflict) => {}
                Err(_) => self.context.platform.clock().sleep(PAUSE).await,
            }
            match self.see().await {
                Ok(Some(seen)) if seen.record.generation == from.generation => {
                    version = seen.version;
                }
                Ok(_) => return Ok(Refreshed::Again),
                Err(_) => self.context.platform.clock().sleep(PAUSE).await,
            }
        }
        let fields = json!({ "upstream": self.upstream.name });
        self.context.log(LogLevel::Error, "grant_not_kept", fields);
        Ok(Refreshed::Token(newer.token(now)))
    }
}

/// Work that is seen through after the response where the call it was for is dropped.
struct SeenThrough<P: Platform, T: 'static> {
    platform: Rc<P>,
    work: Option<LocalBoxFuture<'static, T>>,
}

impl<P: Platform, T> SeenThrough<P, T> {
    fn of(platform: &Rc<P>, work: LocalBoxFuture<'static, T>) -> Self {
        Self {
            platform: Rc::clone(platform),
            work: Some(work),
        }
    }
}

impl<P: Platform, T> Future for SeenThrough<P, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, waking: &mut Waking<'_>) -> Poll<T> {
        let this = self.get_mut();
        let Some(work) = &mut this.work else {
            return Poll::Pending;
        };
        let polled = work.poll_unpin(waking);
        if polled.is_ready() {
            this.work = None;
        }
        polled
    }
}

impl<P: Platform, T> Drop for SeenThrough<P, T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.platform.defer(work.map(drop));
        }
    }
}
