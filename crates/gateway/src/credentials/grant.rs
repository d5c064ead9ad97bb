//! What a principal has granted at an upstream's authorization server, sealed in the atomic
//! store: found by every isolate, keeper and run of a task. How it is renewed: [`renew`].

mod renew;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Token;
use super::server::{Given, ends, resource};
use crate::auth::PrincipalId;
use crate::config::{OAuth, Upstream};
use crate::context::Context;
use crate::error::{Error, Fault};
use crate::keyspace::{Family, Key, ReadError, Store, atomic_get, atomic_swap, atomic_wait};
use crate::platform::{Clock, Platform, Swap, Version};
use crate::seal::{Purpose, hex};
use crate::time::Timestamp;
pub(super) use renew::token;

/// How long a grant is kept that nobody uses.
const GRANT_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
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
/// find it. Lost, those calls are refused. One per principal and upstream, the last: whoever
/// goes on with a task later does not know which token it was begun with.
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
}
