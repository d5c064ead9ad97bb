//! Canaries: part of the principals is on another version of an upstream, and put back on the
//! upstream itself when that version turns out bad.
//!
//! Who is on it follows from a digest of upstream and principal, so it is the same in every
//! isolate and with every request; a higher weight adds principals and moves none back. What a
//! version has made stays with it: sessions, lists and circuits are kept by a version's key
//! (`Upstream::key`), and state, tasks and parked calls name it.
//!
//! Each isolate counts the calls of both versions, and gives the canary up when those it saw
//! itself break the rule of its configuration ([`Rollback`](crate::config::Rollback)): at once
//! for itself, and through KV for the others. Where instances live briefly all of them count
//! together ([`common`]). What is counted is of one canary, as it is configured, since it was
//! last given up: neither an earlier release nor what led to its last rollback speaks against
//! it. That is advisory: KV lost, each isolate finds out
//! alone. An isolate writes at most once per rollback and only where KV, asked just before,
//! tells of none; the others look before they first use a canary and then after a response, at
//! most once in [`LOOK_EVERY`]. So all have heard of it after KV's own delay, that interval and
//! one request more. Where no canary is configured nothing is looked up or counted.

pub mod common;
mod tally;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidegate_mcp::jsonrpc::INTERNAL_ERROR;

use crate::auth::PrincipalId;
use crate::config::{Canary, Rollback, Upstream, canary_key};
use crate::context::Context;
use crate::egress::{Event, Reply};
use crate::error::{Error, Rejection};
use crate::keyspace::{self, Family, Key, Store};
use crate::memory::Bounded;
use crate::platform::{LogLevel, Platform};
use crate::route::Target;
use crate::seal::hex;
use crate::time::Timestamp;
use tally::{Seen, Tally, Verdict, judge};

/// Least time between two looks at what others have published of one upstream's canary.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Most versions whose calls one isolate counts.
const COUNTED_MAX: usize = 256;

/// That a canary was given up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Shape of this record.
    pub v: u32,
    /// Configured name of the upstream.
    pub upstream: String,
    /// Digest of the canary's configuration: with any other it is another canary.
    pub canary: String,
    /// `errors` or `latency`.
    pub reason: String,
    /// Calls in the window that decided.
    pub calls: u64,
    /// How many of them failed.
    pub errors: u64,
    /// How many of the others took longer than they may.
    pub slow: u64,
    /// When it was given up, milliseconds since the epoch.
    pub at_ms: u64,
    /// Until when, if not until its configuration changes; milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

impl Record {
    fn holds(&self, canary: &Canary, now: Timestamp) -> bool {
        self.until_ms.is_none_or(|until| now.0 < until) && self.canary == digest(canary)
    }
}

/// The family of [`Record`], by upstream name.
pub struct CanaryFamily;

impl Family for CanaryFamily {
    type Record = Record;
    const NAME: &'static str = "canary";
    const STORE: Store = Store::Kv;
    const LIFETIME: Option<Duration> = None;
}

/// What calls are counted of: a version's key, the digest of the canary's configuration, and
/// when that canary was last given up.
type Of = (String, String, u64);

/// What an isolate remembers of canaries.
pub(crate) struct Memory {
    tallies: Bounded<Of, Tally>,
    /// The window in which no more is counted together with others.
    full: Bounded<Of, u64>,
    /// By upstream and canary.
    given_up: Bounded<(String, String), Record>,
    looked: Bounded<String, Timestamp>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            tallies: Bounded::new(COUNTED_MAX),
            full: Bounded::new(COUNTED_MAX),
            given_up: Bounded::new(COUNTED_MAX),
            looked: Bounded::new(COUNTED_MAX),
        }
    }
}

/// The version of the upstream the principal is on.
pub(crate) fn version<'a, P: Platform>(
    context: &'a Context<P>,
    upstream: &'a Upstream,
    principal: &PrincipalId,
) -> &'a Upstream {
    let Some(canary) = &upstream.canary else {
        return upstream;
    };
    if !is_chosen(&upstream.name, canary, principal) || given_up(context, upstream).is_some() {
        return upstream;
    }
    let version = context.settings.version(&canary_key(&upstream.name));
    version.unwrap_or(upstream)
}

/// The version some state was made by; the upstream itself, if there is no such version now.
pub(crate) fn pinned<'a, P: Platform>(
    context: &'a Context<P>,
    upstream: &'a Upstream,
    version: Option<&str>,
) -> &'a Upstream {
    let version = version.and_then(|key| context.settings.version(key));
    version.unwrap_or(upstream)
}

/// Sends a call to the version its principal is on, and sees to it that this isolate knows
/// what others have found out.
pub(crate) async fn place<P: Platform>(
    context: &Context<P>,
    principal: &PrincipalId,
    target: &mut Target,
) {
    match target {
        Target::One(one) if one.upstream.canary.is_some() => {
            look(context, &one.upstream).await;
            one.upstream = version(context, &one.upstream, principal).clone();
        }
        Target::Every(_) | Target::Changes => {
            let upstreams = &context.settings.config.upstreams;
            let canaries = upstreams.iter().filter(|each| each.canary.is_some());
            join_all(canaries.map(|upstream| look(context, upstream))).await;
        }
        Target::One(_) | Target::Own(_) => {}
    }
}

/// What an audit record says of the version a call is for, where there are several.
pub(crate) fn label<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
) -> Option<&'static str> {
    let configured = context.settings.upstream(&upstream.name)?;
    configured.canary.as_ref()?;
    Some(match (&upstream.version, given_up(context, configured)) {
        (Some(_), _) => "canary",
        (None, Some(_)) => "rolledBack",
        (None, None) => "stable",
    })
}

/// A call of an upstream that has a canary, from when it is made until it has ended or its
/// client has gone.
pub(crate) struct Watched<P: Platform> {
    context: Context<P>,
    upstream: Upstream,
    rule: Rollback,
    began: Timestamp,
    /// Whether a person was asked: that takes time that is nobody's fault.
    asked: bool,
    over: bool,
}

/// Watches a call that begins now, if its upstream has a canary.
pub(crate) fn watch<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
) -> Option<Box<Watched<P>>> {
    let configured = context.settings.upstream(&upstream.name)?;
    let rule = configured.canary.as_ref()?.rollback;
    Some(Box::new(Watched {
        context: context.clone(),
        upstream: upstream.clone(),
        rule,
        began: context.now(),
        asked: false,
        over: false,
    }))
}

impl<P: Platform> Watched<P> {
    /// Counts what comes of the call.
    pub(crate) fn see(mut self: Box<Self>, reply: Result<Reply, Error>) -> Result<Reply, Error> {
        match reply {
            Ok(Reply::Stream(events)) => {
                let seen = events.inspect(move |event| match event {
                    Event::Question(_) => self.asked = true,
                    Event::End(end) => self.end(end.as_ref().err()),
                    Event::Notification(_) | Event::Request(_) => {}
                });
                Ok(Reply::Stream(seen.boxed_local()))
            }
            reply => {
                self.end(reply.as_ref().err());
                reply
            }
        }
    }

    fn end(&mut self, error: Option<&Error>) {
        self.over = true;
        match error.map_or(Said::Answer, said) {
            Said::Failure => count(&self.context, &self.upstream, Seen::Failed),
            Said::Answer if !self.asked => count(&self.context, &self.upstream, self.timed()),
            Said::Answer | Said::Nothing => {}
        }
    }

    /// An answer that comes now.
    fn timed(&self) -> Seen {
        Seen::answered(&self.rule, self.context.now().since(self.began))
    }
}

impl<P: Platform> Drop for Watched<P> {
    fn drop(&mut self) {
        // Its client has gone; how much longer it would have taken is not known.
        if !self.over && !self.asked && self.timed() == Seen::Slow {
            count(&self.context, &self.upstream, Seen::Slow);
        }
    }
}

fn count<P: Platform>(context: &Context<P>, upstream: &Upstream, seen: Seen) {
    let configured = context.settings.upstream(&upstream.name);
    let Some((configured, canary)) = configured.and_then(|it| Some((it, it.canary.as_ref()?)))
    else {
        return;
    };
    let is_canary = upstream.version.is_some();
    // What still goes to one that is given up is nobody's who could be put back.
    if is_canary && given_up(context, configured).is_some() {
        return;
    }
    let (now, rule) = (context.now(), &canary.rollback);
    let of = of(context, upstream.key(), configured, canary);
    let tallies = &context.memory.canary.tallies;
    let mut tally = tallies.get(&of).unwrap_or_default();
    tally.record(rule, now, seen);
    let sum = tally.sum(rule, now);
    tallies.insert(of.clone(), tally);
    if !is_canary {
        return;
    }
    if !context.platform.is_short_lived() {
        return decide(context, configured, canary, sum);
    }
    let (owned, configured, canary) = (context.clone(), configured.clone(), canary.clone());
    context.platform.defer(async move {
        let counted = common::count(&owned, &configured.name, &of, &canary.rollback, seen);
        if let Some(sum) = counted.await {
            decide(&owned, &configured, &canary, sum);
        }
    });
}

/// What calls of a version are counted of.
fn of<P: Platform>(
    context: &Context<P>,
    version: &str,
    upstream: &Upstream,
    canary: &Canary,
) -> Of {
    let digest = digest(canary);
    let given_up = &context.memory.canary.given_up;
    let last = given_up.get(&(upstream.name.clone(), digest.clone()));
    (
        version.to_owned(),
        digest,
        last.map_or(0, |last| last.at_ms),
    )
}

/// Gives the canary up, if these calls are reason to.
fn decide<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    canary: &Canary,
    sum: tally::Sum,
) {
    if given_up(context, upstream).is_none()
        && let Some(verdict) = judge(&canary.rollback, &sum)
    {
        give_up(context, upstream, canary, verdict, sum);
    }
}

/// What an error says of a version.
enum Said {
    /// It is well enough to answer.
    Answer,
    /// It is unwell.
    Failure,
    /// It was not asked, for reasons that are not its own.
    Nothing,
}

/// What an error says of the version that was to be asked. One it answered properly does not
/// say that it is unwell, but for one it calls internal; nor does a tool's own (`isError`).
fn said(error: &Error) -> Said {
    let Error::Rejection(rejection) = error else {
        return Said::Nothing;
    };
    if let Rejection::Protocol { error, .. } = rejection {
        return match error.code == INTERNAL_ERROR {
            true => Said::Failure,
            false => Said::Answer,
        };
    }
    let not_asked = matches!(
        rejection,
        Rejection::UpstreamFull { .. }
            | Rejection::UpstreamTimeout {
                timeout: Duration::ZERO,
                ..
            }
            | Rejection::NoCredentials { .. }
            | Rejection::NotConnected { .. }
    );
    // With its circuit open too: its principals are not served.
    let failed = matches!(
        rejection,
        Rejection::UpstreamUnavailable { .. }
            | Rejection::UpstreamLost { .. }
            | Rejection::UpstreamTimeout { .. }
            | Rejection::UpstreamInvalid { .. }
            | Rejection::UpstreamBusy { .. }
            | Rejection::UpstreamUnauthorized { .. }
    );
    match (not_asked, failed) {
        (true, _) => Said::Nothing,
        (false, true) => Said::Failure,
        (false, false) => Said::Answer,
    }
}

fn give_up<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    canary: &Canary,
    verdict: Verdict,
    sum: tally::Sum,
) {
    let now = context.now();
    let record = Record {
        v: 1,
        upstream: upstream.name.clone(),
        canary: digest(canary),
        reason: verdict.label().to_owned(),
        calls: sum.calls,
        errors: sum.errors,
        slow: sum.slow,
        at_ms: now.0,
        until_ms: canary.rollback.hold_ms.map(|hold| now.0 + hold),
    };
    let known = &context.memory.canary.given_up;
    known.insert(
        (upstream.name.clone(), record.canary.clone()),
        record.clone(),
    );
    context.log(LogLevel::Warn, "canary_rolled_back", shown(canary, &record));
    let (publishing, canary) = (context.clone(), canary.clone());
    context.platform.defer(async move {
        let (kv, key) = (publishing.platform.kv(), key(&record.upstream));
        let there = keyspace::kv_get(kv, &key).await.ok().flatten();
        if there.is_none_or(|there| !there.holds(&canary, publishing.now())) {
            // Lost, it costs the others that each finds out itself.
            let _ = keyspace::kv_put(kv, &key, &record).await;
        }
    });
}

/// The rollback that holds for the upstream's canary, as far as this isolate knows.
fn given_up<P: Platform>(context: &Context<P>, upstream: &Upstream) -> Option<Record> {
    let (canary, now) = (upstream.canary.as_ref()?, context.now());
    let of = (upstream.name.clone(), digest(canary));
    let record = context.memory.canary.given_up.get(&of)?;
    record.holds(canary, now).then_some(record)
}

/// Looks what others have published: before the canary is first used, else after the response.
async fn look<P: Platform>(context: &Context<P>, upstream: &Upstream) {
    let (now, looked) = (context.now(), &context.memory.canary.looked);
    let last = looked.get(&upstream.name);
    if last.is_some_and(|last| now.since(last) < LOOK_EVERY) {
        return;
    }
    looked.insert(upstream.name.clone(), now);
    match last {
        None => hear(context, &upstream.name).await,
        Some(_) => {
            let (hearing, name) = (context.clone(), upstream.name.clone());
            context
                .platform
                .defer(async move { hear(&hearing, &name).await });
        }
    }
}

async fn hear<P: Platform>(context: &Context<P>, upstream: &str) {
    let record = keyspace::kv_get(context.platform.kv(), &key(upstream)).await;
    // Out of reach or unreadable it is as if there were none: this isolate counts too.
    if let Some(record) = record.ok().flatten() {
        let known = &context.memory.canary.given_up;
        let of = (upstream.to_owned(), record.canary.clone());
        // KV may show an older one than is known; one of another canary changes nothing.
        if known
            .get(&of)
            .is_none_or(|known| known.at_ms < record.at_ms)
        {
            known.insert(of, record);
        }
    }
}

/// What deep health says of the canaries of upstreams that are `seen`.
pub(crate) async fn health<P: Platform>(
    context: &Context<P>,
    seen: impl Fn(&str) -> bool,
) -> Vec<Value> {
    let mut told = Vec::new();
    for upstream in &context.settings.config.upstreams {
        let Some(canary) = upstream.canary.as_ref().filter(|_| seen(&upstream.name)) else {
            continue;
        };
        look(context, upstream).await;
        let (now, rule) = (context.now(), &canary.rollback);
        let sum = |version: &str| {
            let of = of(context, version, upstream, canary);
            let tally = context.memory.canary.tallies.get(&of).unwrap_or_default();
            tally.sum(rule, now)
        };
        let mut one = json!({
            "upstream": upstream.name,
            "release": canary.release,
            "weightPercent": canary.weight_percent,
            "state": "serving",
            "stable": sum(&upstream.name),
            "canary": sum(&canary_key(&upstream.name)),
        });
        if let Some(record) = given_up(context, upstream) {
            one["state"] = "rolledBack".into();
            one["rollback"] = shown(canary, &record);
        }
        told.push(one);
    }
    told
}

fn shown(canary: &Canary, record: &Record) -> Value {
    json!({
        "upstream": record.upstream, "release": canary.release, "reason": record.reason,
        "calls": record.calls, "errors": record.errors, "slow": record.slow,
        "atMs": record.at_ms, "untilMs": record.until_ms,
    })
}

fn key(upstream: &str) -> Key<CanaryFamily> {
    Key::of(&[upstream])
}

/// Whether the principal is one of those on the canary.
fn is_chosen(upstream: &str, canary: &Canary, principal: &PrincipalId) -> bool {
    let mut hash = Sha256::new();
    hash.update(upstream.as_bytes());
    hash.update([0]);
    hash.update(principal.as_str().as_bytes());
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    u32::from_be_bytes([a, b, c, d]) % 100 < canary.weight_percent
}

fn digest(canary: &Canary) -> String {
    let text = serde_json::to_vec(canary).unwrap_or_default();
    hex(&Sha256::digest(text)[..8])
}
