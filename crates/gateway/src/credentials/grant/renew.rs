//! Newer tokens for a principal's grant.
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
use serde_json::json;

use super::{Granted, Held, Lease, PAUSE, ROUNDS_MAX, Record, Seen};
use crate::auth::PrincipalId;
use crate::config::{OAuth, Upstream};
use crate::context::Context;
use crate::credentials::server::{self, ASK_WITHIN, Failure, INVALID_GRANT, resource};
use crate::credentials::{Token, connect};
use crate::error::Error;
use crate::keyspace::atomic_wait;
use crate::platform::{Clock, LogLevel, Platform, Swap, Version};
use crate::seal::hex;
use crate::time::Timestamp;

/// How often tokens are tried to be written, with a pause before each further try.
const KEEP_TRIES: u32 = 100;
/// How long that takes.
const KEEP_WITHIN: Duration = Duration::from_secs(20);
/// How long a refresh may take, metadata, tokens and writing together.
const LEASE: Duration = Duration::from_secs(2 * ASK_WITHIN.as_secs() + KEEP_WITHIN.as_secs());
/// How long another's refresh is waited for.
const WAIT_WITHIN: Duration = Duration::from_secs(20);

/// What came of a refresh.
enum Refreshed {
    Token(Token),
    Failed(Failure),
    /// The record has become another.
    Again,
}

/// The token of a principal's grant, a new one if need be. Who has granted nothing is told
/// where to.
pub(in crate::credentials) async fn token<P: Platform>(
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

impl<P: Platform> Granted<P> {
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
