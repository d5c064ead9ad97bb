//! Quotas and budgets: what calls of tools may use up in a day or a month, by whom.
//!
//! A call costs what is known when it is admitted (the call itself, its params, its price)
//! and what only its result tells (bytes, tokens, their price). Tokens are estimated: a
//! quarter of the bytes of params and result as JSON, rounded up. Everything is counted in
//! the atomic store, by leases ([`leased`]) in chunks of at most a 64th of the quota and an
//! eighth of what the isolate has spent, so that an isolate that ends takes little with it;
//! a call asks the store only when its isolate's chunk is used up.
//!
//! # What is promised
//!
//! - Of what is known beforehand a hard quota never lets through more than its limit: a
//!   quota of calls, or of money by the call, is never exceeded.
//! - What only results tell is counted when they are there, and what was not leased for it
//!   is counted before its isolate admits the next call. So a hard quota of `L` lets through
//!   at most `L + k × r`, `k` being the calls under way when it was used up, in all isolates,
//!   and `r` what the result of one costs; and `r` more for each isolate that ended after a
//!   result and before it was counted.
//! - Of an isolate that ends, what it had leased and not spent counts as spent: at most an
//!   eighth of what it spent, and at most a 64th of the quota. What was leased for a call that
//!   is refused is given back after the response, unless the isolate has ended by then.
//! - A quota that is used up is asked for anew once in
//!   [`EXHAUSTED_FOR`](leased::EXHAUSTED_FOR) by each isolate, so that a raised one is in
//!   force soon.
//! - A soft quota refuses nobody and waits for no store: it is asked beside the call, when the
//!   call is admitted and again when its result is there. A warning goes by what is known
//!   then, so a new isolate's first results may lack one.
//!
//! Not counted: notifications, answers cut off by their client, and the results of tasks that
//! are the upstream's own. A task's result is counted by the run that ends it. Given back is
//! what certainly was not done, in any of its attempts, and what was not made because an
//! idempotency key stands for it; but not what a task was charged when it was made.

mod bill;
mod period;
mod spenders;
mod usage;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidegate_mcp::json::Object;
use tidegate_mcp::timestamp::format_utc;

use crate::audit::Pending;
use crate::config::quota::{Enforce, Unit};
use crate::config::{Per, Price, Quota, ToolRule};
use crate::context::Context;
use crate::error::{Error, Rejection};
use crate::keyspace::{Family, Key, Store};
use crate::limits::counting::Subject;
use crate::limits::leased::{self, Account, Need};
use crate::limits::rules::{Counted, concerns, subject};
use crate::platform::Platform;
use crate::seal::hex;
use crate::time::Timestamp;
use period::Stretch;

use bill::Prepaid;
pub use bill::WARNING_META;
pub(crate) use bill::{Bill, Unmade};
pub use period::KEPT_FOR;
pub(crate) use spenders::Memory;
pub use spenders::{SHARD_MAX, SpendersFamily};
pub(crate) use usage::{Cursor, Filter, list};

/// How many bytes are taken for a token.
pub const BYTES_PER_TOKEN: u64 = 4;
/// In how many chunks a quota is given out, if each is to be more than one.
const CHUNKS: u64 = leased::CHUNKS;
/// A chunk is at most this part of what the isolate has spent.
const PART: u64 = 8;

/// The family of the counters: quota, whom it counts apart, day or month.
pub struct SpentFamily;

impl Family for SpentFamily {
    /// How much is spent or leased.
    type Record = i64;
    const NAME: &'static str = "spent";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(Duration::from_secs(64 * 24 * 60 * 60));
}

/// A quota a call is counted in, and for whom: what a task's record says of its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The quota's name.
    pub quota: String,
    /// Whom it counts apart, as 32 hexadecimal digits.
    pub who: String,
}

/// One quota as it applies to one call.
struct Applied<'a> {
    quota: &'a Quota,
    account: Account<SpentFamily>,
    stretch: Stretch,
    /// What is known of the cost.
    prepaid: u64,
    /// How much there must be for the call to be admitted.
    need: u64,
}

/// Names a quota in keys. With another unit or period it is another quota: what was leased
/// of the one is nothing of the other.
fn digest(quota: &Quota) -> String {
    let mut hash = Sha256::new();
    for part in ["quota", quota.unit.as_str(), quota.period.as_str()] {
        hash.update(part);
        hash.update("\0");
    }
    hash.update(&quota.name);
    hex(&hash.finalize()[..8])
}

fn account(quota: &Quota, who: &str, stretch: &Stretch) -> Account<SpentFamily> {
    let limit = digest(quota);
    Account {
        key: Key::of(&[&limit, who, &stretch.label]),
        subject: Subject {
            limit,
            who: who.to_owned(),
        },
        bucket: stretch.starts.0,
        kept_until: stretch.kept_until(),
        limit: quota.limit,
        chunk_max: quota.limit / CHUNKS,
        part: PART,
    }
}

/// What `bytes` of params or of a result cost, beside what a call itself does.
fn cost_of_bytes(unit: Unit, price: Price, bytes: usize) -> u64 {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let tokens = bytes.div_ceil(BYTES_PER_TOKEN);
    match unit {
        Unit::Calls => 0,
        Unit::Bytes => bytes,
        Unit::Tokens => tokens,
        Unit::Money => price
            .per_thousand_tokens
            .saturating_mul(tokens)
            .div_ceil(1000),
    }
}

fn cost_of_call(unit: Unit, price: Price, weight: u32) -> u64 {
    match unit {
        Unit::Calls => weight.into(),
        Unit::Bytes | Unit::Tokens => 0,
        Unit::Money => price.per_call,
    }
}

fn price_of(rule: Option<&ToolRule>) -> Price {
    rule.and_then(|rule| rule.price).unwrap_or_default()
}

/// Admits one call of a tool within all quotas it falls under, or counts it in none. `None`:
/// it falls under none.
pub(crate) async fn admit<P: Platform>(
    context: &Context<P>,
    counted: &Counted<'_>,
    params: &Object,
    audit: &mut Pending<P>,
) -> Result<Option<Bill>, Error> {
    if context.settings.config.limits.quotas.is_empty() || counted.target.tool().is_none() {
        return Ok(None);
    }
    let applied = applying(context, counted, params.text_len());
    if applied.is_empty() {
        return Ok(None);
    }
    let memory = context.memory.as_ref();
    let hard = || {
        applied
            .iter()
            .filter(|one| one.quota.enforce == Enforce::Hard)
    };
    let needs: Vec<Need<SpentFamily>> = hard().map(Applied::as_need).collect();
    let provided = leased::provide(context.platform.as_ref(), memory, &needs).await;
    // From here on nothing is awaited: what was decided is what is counted.
    let now = context.now();
    let mut refused: Vec<&Applied<'_>> = hard()
        .filter(|one| !one.account.covers(memory, one.need))
        .collect();
    let is_refused = provided.is_err() || !refused.is_empty();
    leased::give_back_later(&context.platform, &context.memory, &needs, is_refused);
    provided?;
    // What was not asked, because of another, refuses nothing.
    let short = |one: &&Applied<'_>| one.account.falls_short(memory, one.need);
    if refused.iter().any(short) {
        refused.retain(short);
    }
    refused.sort_by_key(|one| one.stretch.ends);
    if let Some(one) = refused.last() {
        audit.record.quotas = refused.iter().map(|one| one.quota.name.clone()).collect();
        return Err(one.refusal(context, now));
    }
    for one in &applied {
        one.account.take(memory, one.prepaid);
        // A soft quota's; a hard one covers it.
        pay_later(context, &one.account);
        spenders::enter_later(context, one.quota, &one.stretch, &one.account, counted);
    }
    let warned = applied
        .iter()
        .filter(|one| warns(context, one.quota, &one.account));
    audit.record.quotas = warned.map(|one| one.quota.name.clone()).collect();
    Ok(Some(Bill {
        charges: applied.into_iter().map(Applied::into_prepaid).collect(),
        price: price_of(counted.rule),
    }))
}

fn applying<'a, P: Platform>(
    context: &'a Context<P>,
    counted: &Counted<'_>,
    bytes: usize,
) -> Vec<Applied<'a>> {
    let (price, weight) = (
        price_of(counted.rule),
        counted.rule.map_or(1, |rule| rule.cost),
    );
    let now = context.now();
    let quotas = context.settings.config.limits.quotas.iter();
    quotas
        .filter(|quota| concerns(&quota.tools, counted.target))
        .filter_map(|quota| {
            let unit = quota.unit;
            let prepaid =
                cost_of_call(unit, price, weight).saturating_add(cost_of_bytes(unit, price, bytes));
            // A result of a whole thousand tokens, so that nothing is rounded away.
            let open = cost_of_bytes(unit, price, 4000) > 0;
            let need = prepaid.max(open.into());
            let stretch = Stretch::at(quota.period, now);
            (need > 0).then(|| Applied {
                quota,
                account: account(quota, &subject(&quota.per, counted), &stretch),
                stretch,
                prepaid,
                need,
            })
        })
        .collect()
}

impl Applied<'_> {
    fn as_need(&self) -> Need<SpentFamily> {
        let own = self.quota.per.contains(&Per::Principal);
        Need::new(self.account.clone(), self.need, own)
    }

    fn refusal<P: Platform>(&self, context: &Context<P>, now: Timestamp) -> Error {
        let retry_after = match self.account.falls_short(&context.memory, self.need) {
            true => self.stretch.ends.since(now),
            // Others of this isolate's calls were quicker, or the period is new.
            false => leased::CONTENDED,
        };
        Rejection::QuotaExceeded {
            quota: self.quota.name.clone(),
            unit: self.quota.unit.as_str(),
            resets_at: format_utc(self.stretch.ends.0),
            retry_after,
        }
        .into()
    }

    fn into_prepaid(self) -> Prepaid {
        Prepaid {
            charge: Charge {
                quota: self.quota.name.clone(),
                who: self.account.subject.who,
            },
            amount: self.prepaid,
            bucket: self.account.bucket,
        }
    }
}

/// Whether so much is spent, as far as this isolate knows, that it is to be told.
fn warns<P: Platform>(context: &Context<P>, quota: &Quota, account: &Account<SpentFamily>) -> bool {
    let spent = account.held(&context.memory).spent().unwrap_or(0);
    u128::from(spent) * 100 >= u128::from(quota.limit) * u128::from(quota.warn_at_percent)
}

/// Counts what the result of a call costs, which has been admitted before.
pub(crate) fn settle<'a, P: Platform>(
    context: &Context<P>,
    charges: impl Iterator<Item = &'a Charge>,
    price: Price,
    bytes: usize,
) {
    let now = context.now();
    for charge in charges {
        let Some((quota, stretch)) = named(context, &charge.quota, now) else {
            continue;
        };
        let account = account(quota, &charge.who, &stretch);
        account.take(&context.memory, cost_of_bytes(quota.unit, price, bytes));
        pay_later(context, &account);
    }
}

/// Has what was spent beyond the lease counted, without anybody waiting for it.
fn pay_later<P: Platform>(context: &Context<P>, account: &Account<SpentFamily>) {
    if !account.lacks(&context.memory, 0, context.now()) {
        return;
    }
    let (owned, account) = (context.clone(), account.clone());
    context.platform.defer(async move {
        // One is more than is owed: the next call finds a chunk.
        let needs = [Need::new(account, 1, false)];
        let _ = leased::provide(owned.platform.as_ref(), &owned.memory, &needs).await;
        leased::give_back_later(&owned.platform, &owned.memory, &needs, false);
    });
}

/// The result of a task, for the run that ended it.
pub(crate) fn settle_task<P: Platform>(
    context: &Context<P>,
    charges: &[Charge],
    (upstream, tool): (&str, &str),
    bytes: usize,
) {
    let price = price_of(context.settings.rule(upstream, tool));
    settle(context, charges.iter(), price, bytes);
}

fn named<'a, P: Platform>(
    context: &'a Context<P>,
    name: &str,
    now: Timestamp,
) -> Option<(&'a Quota, Stretch)> {
    let mut quotas = context.settings.config.limits.quotas.iter();
    let quota = quotas.find(|quota| quota.name == name)?;
    Some((quota, Stretch::at(quota.period, now)))
}
