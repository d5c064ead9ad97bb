//! Idempotency keys: a call that comes again with the key of an earlier one is not made
//! again (draft-ietf-httpapi-idempotency-key-header, for tool calls).
//!
//! A key stands for one call of one principal: one tool, one set of arguments. Whoever comes
//! first writes a record into the atomic store and makes the call; whoever else comes with
//! the key is given what came of it, waits for it, or is told why there is nothing to give.
//! The record says that the call is being made *before* it is: should whoever makes it be
//! lost, nobody knows whether it was done, and it is not made again unless its tool's rule
//! says that this does no harm, or its upstream knows such keys itself, is given one, and is
//! the only one that can have been asked: of what a fallback did it knows nothing. A call that
//! certainly was not done frees its key.
//!
//! A call with a key is seen through although its client has gone, for as long as the host
//! lets it: that a client which lost its connection may ask again is what keys are for.

pub mod record;
mod through;

use std::rc::Rc;
use std::time::Duration;

use async_stream::stream;
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::method::Method;

use crate::audit::AnsweredBy;
use crate::context::Context;
use crate::dispatch::Work;
use crate::dry_run::note;
use crate::egress::{Dispatch, Event, Reply};
use crate::error::{Error, Fault, KeyRefusal, Rejection};
use crate::keyspace::{Key, ReadError, atomic_get, atomic_swap, atomic_wait};
use crate::platform::{Clock, LogLevel, Platform, Swap, Version};
use crate::route::Target;
use crate::seal::hex;
use record::{IdempotencyFamily, Outcome, Record, Settled, Standing, Wanted};

/// Header that holds a client's key, as a structured string.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The same in `_meta`, for clients that send no headers of their own.
pub const IDEMPOTENCY_META: &str = "io.tidegate/idempotencyKey";
/// Member of `_meta` by which a result says that it was given before.
pub const REPLAYED: &str = "io.tidegate/idempotentReplay";
/// Longest key, in bytes.
pub const KEY_MAX: usize = 255;
/// How long a call waits for another one under its key, before it is told to come again.
pub const WAIT_FOR_FIRST: Duration = Duration::from_secs(4);
/// When it is told to come again.
const COME_AGAIN: Duration = Duration::from_secs(2);
/// How much longer than it may take a call counts as being made.
const MARGIN: Duration = Duration::from_secs(60);
/// How often a write is tried.
const TRIES_MAX: u32 = 8;
/// Pause after a write whose outcome is unknown.
const PAUSE: Duration = Duration::from_millis(100);

/// The key in a request's headers.
pub(crate) fn in_headers(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let first = values.next()?;
    // What is no text, or is there twice, is no key.
    let key = first.to_str().ok().filter(|_| values.next().is_none());
    let key = key.map(str::trim).unwrap_or_default();
    let quoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    Some(quoted.unwrap_or(key).to_owned())
}

/// The call as it is made under its key, if it has one that is honoured.
pub(crate) fn keyed<P: Platform>(
    context: &Context<P>,
    work: &mut Work,
) -> Result<Option<Keyed<P>>, Error> {
    let Target::One(one) = &work.permit.target else {
        return Ok(None);
    };
    let rule = work.permit.rule.as_ref();
    let config = context.settings.config.idempotency;
    let honoured = rule.and_then(|rule| rule.idempotency_keys);
    if one.method != Method::ToolsCall || !honoured.unwrap_or(config.enabled) {
        return Ok(None);
    }
    let malformed = || Rejection::KeyRefused(KeyRefusal::Malformed);
    let told = match work.call.key.take() {
        None => None,
        Some(key) => Some(serde_json::from_str::<String>(key.get()).map_err(|_| malformed())?),
    };
    let key = match (work.idempotency_key.take(), told) {
        (None, None) => return Ok(None),
        (Some(header), Some(told)) if header != told => return Err(malformed().into()),
        (Some(key), _) | (None, Some(key)) => key,
    };
    let fits = key.bytes().all(|b| (b' '..=b'~').contains(&b));
    if key.is_empty() || key.len() > KEY_MAX || !fits {
        return Err(malformed().into());
    }
    let raw = |name| one.params.get(name).map_or("", RawValue::get);
    let dry = if work.dry_run { "dry" } else { "" };
    let round = match (raw("requestState"), raw("inputResponses")) {
        ("", "") => String::new(),
        (state, answers) => digest(&[state, answers]),
    };
    let owner = &work.permit.principal.id;
    let harmless = rule.is_some_and(|rule| rule.idempotent);
    let known_there = one.upstream.idempotency_keys;
    if known_there {
        // Not the client's own: two principals may choose the same.
        let theirs = digest(&[owner.as_str(), &key, &round]);
        work.call.meta.rest.insert(IDEMPOTENCY_META, &theirs);
        let header = HeaderValue::from_str(&format!("\"{theirs}\""));
        work.param_headers
            .extend(header.map(|header| (IDEMPOTENCY_KEY, header)));
    }
    let timeout = rule.and_then(|rule| rule.timeout_ms);
    Ok(Some(Keyed {
        context: context.clone(),
        key: Rc::new(Key::of(&[owner.as_str(), &digest(&[&key])])),
        wanted: Wanted {
            call: digest(&[&one.upstream.name, &one.own, raw("arguments"), dry]),
            round,
            harmless,
            known_there,
            falls_back: one.upstream.fallback.is_some(),
        },
        lasts: Duration::from_millis(timeout.unwrap_or(one.upstream.timeout_ms)) + MARGIN,
        window: Duration::from_millis(config.window_ms),
        answered_by: work.answered_by.clone(),
    }))
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..16])
}

/// A call under a key.
pub(crate) struct Keyed<P> {
    context: Context<P>,
    key: Rc<Key<IdempotencyFamily>>,
    wanted: Wanted,
    lasts: Duration,
    window: Duration,
    answered_by: AnsweredBy,
}

impl<P: Platform> Keyed<P> {
    /// Gives what came of the call before, or makes it.
    pub(crate) fn once(self, make: impl FnOnce() -> Dispatch + 'static) -> Dispatch {
        async move {
            let held = match self.claim().await? {
                Claim::Answered(reply) => return Ok(Reply::Result(reply)),
                Claim::Make(held) => held,
            };
            let platform = Rc::clone(&held.context.platform);
            through::see(platform, held.make(make()).boxed_local()).await
        }
        .boxed_local()
    }

    /// Takes the key, or says what came of its call.
    async fn claim(self) -> Result<Claim<P>, Error> {
        let context = self.context.clone();
        let store = context.platform.atomic();
        let deadline = context.now() + WAIT_FOR_FIRST;
        let run = hex(&context.random::<16>());
        for _ in 0..TRIES_MAX {
            let mut found = atomic_get(store, &self.key).await.map_err(unread)?;
            let expected = loop {
                let Some((version, record)) = &found else {
                    break None;
                };
                // A write whose outcome was unknown.
                if record.run == run && record.outcome.is_none() {
                    return Ok(Claim::Make(self.held(*version, record.clone())));
                }
                match record.standing(&self.wanted, context.now()) {
                    Standing::Free => break Some(*version),
                    Standing::Busy(left) => {
                        let patience = deadline.since(context.now());
                        if patience.is_zero() {
                            let after = COME_AGAIN.min(left);
                            return refused(KeyRefusal::InProgress(after));
                        }
                        let within = patience.min(left);
                        let seen = Some(*version);
                        let waited = atomic_wait(store, &self.key, seen, within).await;
                        let waited = waited.map_err(unread)?;
                        // A store where many wait answers at once.
                        if waited.as_ref().is_some_and(|(now, _)| now == version) {
                            context.platform.clock().sleep(PAUSE).await;
                        }
                        found = waited;
                    }
                    Standing::Settled(settled) => return said(settled),
                }
            };
            let before = found
                .as_ref()
                .map(|(_, record)| record.before(&self.wanted));
            let record = Record {
                v: 1,
                call: self.wanted.call.clone(),
                round: self.wanted.round.clone(),
                earlier: before.unwrap_or_default(),
                run: run.clone(),
                until_ms: (context.now() + self.lasts).0,
                elsewhere: false,
                outcome: None,
            };
            let ends = context.now() + self.window.max(self.lasts);
            match atomic_swap(store, &self.key, expected, &record, ends).await {
                Ok(Swap::Done(version)) => return Ok(Claim::Make(self.held(version, record))),
                Ok(Swap::Conflict) => {}
                // It may have been written.
                Err(_) => context.platform.clock().sleep(PAUSE).await,
            }
        }
        Err(Fault::Dependency("an idempotency key cannot be taken".to_owned()).into())
    }

    fn held(self, version: Version, record: Record) -> Box<Held<P>> {
        Box::new(Held {
            context: self.context,
            key: self.key,
            window: self.window,
            answered_by: self.answered_by,
            version,
            record,
        })
    }
}

/// What comes of coming with a key.
enum Claim<P> {
    Answered(Object),
    Make(Box<Held<P>>),
}

fn unread(error: ReadError) -> Error {
    Fault::Dependency(error.to_string()).into()
}

fn refused<T>(refusal: KeyRefusal) -> Result<T, Error> {
    Err(Rejection::KeyRefused(refusal).into())
}

/// What is said of a call that is not made again.
fn said<P>(settled: Settled<'_>) -> Result<Claim<P>, Error> {
    match settled {
        Settled::Answered(result) => {
            let mut result = result.clone();
            note(&mut result, REPLAYED);
            Ok(Claim::Answered(result))
        }
        Settled::Failed(failure) => {
            let error: RpcError = failure.clone().into();
            Err(Rejection::protocol(error).into())
        }
        Settled::TooLarge(bytes) => refused(KeyRefusal::TooLarge(bytes)),
        Settled::Other => refused(KeyRefusal::Other),
        Settled::Unknown => refused(KeyRefusal::Unknown),
    }
}

/// A key that is taken: whoever has this makes the call.
struct Held<P> {
    context: Context<P>,
    key: Rc<Key<IdempotencyFamily>>,
    window: Duration,
    answered_by: AnsweredBy,
    version: Version,
    record: Record,
}

impl<P: Platform> Held<P> {
    /// Makes the call and keeps what came of it, before anybody hears of it.
    async fn make(self, dispatch: Dispatch) -> Result<Reply, Error> {
        match dispatch.await {
            Ok(Reply::Result(result)) => {
                self.keep(Ok(&result)).await;
                Ok(Reply::Result(result))
            }
            Ok(Reply::Stream(mut events)) => Ok(Reply::Stream(
                stream! {
                    while let Some(event) = events.next().await {
                        if let Event::End(end) = &event {
                            self.keep(end.as_ref()).await;
                        }
                        yield event;
                    }
                }
                .boxed_local(),
            )),
            Err(error) => {
                self.keep(Err(&error)).await;
                Err(error)
            }
        }
    }

    /// Keeps what came of the call. Where that cannot be stored it is unknown from when the
    /// call must be over.
    async fn keep(&self, end: Result<&Object, &Error>) {
        let store = self.context.platform.atomic();
        let record = Record {
            elsewhere: !self.answered_by.is_nobody(),
            outcome: Some(Outcome::of(end)),
            ..self.record.clone()
        };
        let mut version = self.version;
        for _ in 0..TRIES_MAX {
            let ends = self.context.now() + self.window;
            let written = atomic_swap(store, &self.key, Some(version), &record, ends).await;
            if matches!(written, Ok(Swap::Done(_))) {
                return;
            }
            if written.is_err() {
                self.context.platform.clock().sleep(PAUSE).await;
            }
            match atomic_get(store, &self.key).await {
                Ok(Some((now, found))) if found.run == record.run => {
                    if found.outcome.is_some() {
                        return;
                    }
                    version = now;
                }
                // Another makes it now, for it does no harm; or its time is over.
                Ok(_) => break,
                Err(_) => {}
            }
        }
        let event = "idempotency_outcome_lost";
        self.context.log(LogLevel::Warn, event, json!({}));
    }
}
