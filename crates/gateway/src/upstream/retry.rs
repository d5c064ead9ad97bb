//! Calls that are made again: only where that does no harm, later and later, and no more of
//! them than the budget allows.
//!
//! What certainly did not reach the upstream, or was refused for being too much (429), may be
//! sent again, whatever it is. What may have been acted on is, only if it reads (lists, resources, prompts, completions) or its tool's rule
//! says `idempotent`; what upstreams say of their tools is not trusted for that. Once anything
//! of an answer has been passed on nothing is. A call refused by its circuit or by the
//! bulkhead is not made again.
//!
//! Between two attempts lies a random part of a time that doubles (full jitter), and where the
//! upstream says `Retry-After`, that time besides. Where none succeeds the call has failed as
//! the last one did, or as an earlier one that may have been acted on, if the last certainly
//! was not. A call that does no harm may also be hedged:
//! made a second time while the first is still waited for, out of the same budget. All attempts share the call's deadline; what
//! cannot begin before it is not begun.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, Either};
use serde_json::json;
use tidegate_mcp::method::Method;

use super::window::Window;
use super::{Outgoing, REMEMBERED_MAX, once};
use crate::config::{Retry, Upstream};
use crate::context::Context;
use crate::egress::Reply;
use crate::error::{Error, Rejection};
use crate::memory::Bounded;
use crate::platform::{Clock, LogLevel, Platform};
use crate::time::Timestamp;

/// Over how long calls and retries are counted against each other.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
const BUDGET_WINDOW_MS: u64 = 10_000;

/// What an isolate remembers of calls made again, by upstream.
pub(super) struct Memory {
    budgets: Bounded<String, Budget>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            budgets: Bounded::new(REMEMBERED_MAX),
        }
    }
}

/// How many calls were made, and how many of them again.
#[derive(Debug, Clone, Default)]
struct Budget(Window);

impl Budget {
    fn called(&mut self, now: Timestamp) {
        self.0.count(now, BUDGET_WINDOW_MS, false);
    }

    /// Takes one retry, if there is one left.
    fn take(&mut self, now: Timestamp, rule: &Retry) -> bool {
        let (all, again) = self.0.sums(now, BUDGET_WINDOW_MS);
        let first = all - again;
        let least = u64::from(rule.budget_per_second) * BUDGET_WINDOW.as_secs();
        let most = least + first * u64::from(rule.budget_percent) / 100;
        let left = again < most;
        if left {
            self.0.count(now, BUDGET_WINDOW_MS, true);
        }
        left
    }
}

impl Memory {
    fn with<T>(&self, upstream: &str, change: impl Fn(&mut Budget) -> T) -> T {
        let upstream = upstream.to_owned();
        if let Some(made) = self.budgets.with(&upstream, &change) {
            return made;
        }
        let mut budget = Budget::default();
        let made = change(&mut budget);
        self.budgets.insert(upstream, budget);
        made
    }
}

/// Sends `outgoing`, again if need be.
pub(super) async fn call<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    rule: &Retry,
    outgoing: Outgoing,
) -> Result<Reply, Error> {
    let deadline = context.now() + outgoing.timeout;
    let harmless = is_repeatable(context, upstream, &outgoing);
    let budgets = &context.memory.upstream.retries;
    budgets.with(upstream.key(), |budget| budget.called(context.now()));
    let mut before = None;
    for attempt in 1_u32.. {
        let left = deadline.since(context.now());
        let last = attempt >= rule.max_attempts;
        let most = rule.attempt_timeout_ms.filter(|_| harmless && !last);
        let timeout = most.map_or(left, |most| left.min(Duration::from_millis(most)));
        let sent = Outgoing {
            timeout,
            ..outgoing.clone()
        };
        let hedge = rule.hedge_after_ms.filter(|_| harmless);
        let made = match hedge.map(Duration::from_millis) {
            Some(after) if after < timeout => hedged(context, upstream, rule, sent, after).await,
            Some(_) | None => once(context, upstream, sent).await,
        };
        let error = match made {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        let after = again_after(&error, harmless).filter(|_| !last);
        let error = Error::after(error, before.take());
        let Some(after) = after else {
            return Err(error);
        };
        let now = context.now();
        let pause = after + pause(rule, attempt, u32::from_be_bytes(context.random()));
        if now + pause >= deadline || !budgets.with(upstream.key(), |b| b.take(now, rule)) {
            return Err(error);
        }
        let fields = json!({
            "upstream": upstream.name, "method": outgoing.method.as_str(),
            "attempt": attempt, "reason": error.label(),
        });
        context.log(LogLevel::Info, "call_made_again", fields);
        before = Some(error);
        context.platform.clock().sleep(pause).await;
    }
    Err(crate::error::Fault::Internal("no attempt was the last".to_owned()).into())
}

/// Sends `outgoing`, and once more while that is not answered `after` some time, if the budget
/// has room for it. The first good answer counts; whoever is later is let go of.
async fn hedged<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    rule: &Retry,
    outgoing: Outgoing,
    after: Duration,
) -> Result<Reply, Error> {
    let timeout = outgoing.timeout.saturating_sub(after);
    let again = Outgoing {
        timeout,
        ..outgoing.clone()
    };
    let first = once(context, upstream, outgoing).boxed_local();
    let wait = Box::pin(context.platform.clock().sleep(after));
    let first = match future::select(first, wait).await {
        Either::Left((made, _)) => return made,
        Either::Right(((), first)) => first,
    };
    let (now, budgets) = (context.now(), &context.memory.upstream.retries);
    if !budgets.with(upstream.key(), |budget| budget.take(now, rule)) {
        return first.await;
    }
    let fields = json!({ "upstream": upstream.name, "method": again.method.as_str() });
    context.log(LogLevel::Info, "call_hedged", fields);
    let second = once(context, upstream, again).boxed_local();
    match future::select(first, second).await {
        Either::Left((Ok(reply), _)) | Either::Right((Ok(reply), _)) => Ok(reply),
        Either::Left((Err(error), other)) | Either::Right((Err(error), other)) => {
            let other = other.await;
            other.map_err(|other| Error::after(other, Some(error)))
        }
    }
}

/// Whether making a call twice does no more than making it once.
pub(crate) fn is_repeatable<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    outgoing: &Outgoing,
) -> bool {
    let reads = matches!(
        outgoing.method,
        Method::ToolsList
            | Method::PromptsList
            | Method::ResourcesList
            | Method::ResourceTemplatesList
            | Method::ResourcesRead
            | Method::PromptsGet
            | Method::CompletionComplete
    );
    reads
        || outgoing.tool().is_some_and(|tool| {
            let rule = context.settings.rule(&upstream.name, &tool);
            rule.is_some_and(|rule| rule.idempotent)
        })
}

/// How long the upstream is to be left alone before a call that failed so is made again;
/// `None` if it is not.
fn again_after(error: &Error, harmless: bool) -> Option<Duration> {
    let Error::Rejection(rejection) = error else {
        return None;
    };
    if let Rejection::UpstreamUnavailable { retry_after, .. } = rejection {
        // With a time, its circuit is open.
        return retry_after.is_none().then_some(Duration::ZERO);
    }
    let may = harmless || error.is_not_taken();
    if let Rejection::UpstreamBusy { retry_after, .. } = rejection {
        return may.then_some(retry_after.unwrap_or_default());
    }
    let failed = matches!(
        rejection,
        Rejection::UpstreamLost { .. }
            | Rejection::UpstreamTimeout { .. }
            | Rejection::UpstreamInvalid { .. }
    );
    (failed && may).then_some(Duration::ZERO)
}

/// A random part of a time that doubles with each attempt.
fn pause(rule: &Retry, attempt: u32, random: u32) -> Duration {
    let doubled = rule.initial_ms.saturating_mul(1 << (attempt - 1).min(16));
    let most = Duration::from_millis(doubled.min(rule.max_ms));
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Retry = Retry {
        max_attempts: 3,
        initial_ms: 100,
        max_ms: 1_000,
        attempt_timeout_ms: None,
        hedge_after_ms: None,
        budget_percent: 20,
        budget_per_second: 1,
    };

    #[test]
    fn a_budget_is_a_share_of_the_calls_and_a_little() {
        let (mut budget, now) = (Budget::default(), Timestamp(1_000_000));
        let mut taken = 0;
        for _ in 0..1_000 {
            budget.called(now);
            taken += u32::from(budget.take(now, &RULE));
        }
        assert_eq!(taken, 210, "a fifth of a thousand, and one a second");
        let later = now + BUDGET_WINDOW;
        let after = (0..100).filter(|_| budget.take(later, &RULE)).count();
        assert_eq!(after, 10, "what was called before counts no more");
    }

    #[test]
    fn without_a_budget_nothing_is_made_again() {
        let none = Retry {
            budget_percent: 0,
            budget_per_second: 0,
            ..RULE
        };
        let mut budget = Budget::default();
        budget.called(Timestamp(0));
        assert!(!budget.take(Timestamp(0), &none));
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_random_below_it() {
        for (attempt, most) in [(1, 100), (2, 200), (4, 800), (5, 1_000), (60, 1_000)] {
            let most = Duration::from_millis(most);
            assert_eq!(pause(&RULE, attempt, u32::MAX), most);
            assert_eq!(pause(&RULE, attempt, 0), Duration::ZERO);
            assert!(pause(&RULE, attempt, u32::MAX / 2) < most);
        }
    }
}
