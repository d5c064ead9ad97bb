//! When failing upstreams are left alone, and what is tried instead.

use super::Findings;
use crate::config::bounds::{
    AT_ONCE, ATTEMPTS, BULKHEAD_WAIT_MS, FAILURE_CALLS, FAILURE_PERCENT, FAILURE_THRESHOLD,
    FAILURE_WINDOW_MS, HALF_OPEN_REQUESTS, HEDGE_AFTER_MS, RESET_INTERVAL_MS, RETRIES_PER_SECOND,
    RETRY_PAUSE_MS, RETRY_PERCENT, TIMEOUT_MS,
};
use crate::config::{Config, Upstream};

pub(super) fn circuit_breaker(config: &Config, findings: &mut Findings) {
    let breaker = &config.circuit_breaker;
    findings.within(
        "/circuitBreaker/failureThreshold",
        breaker.failure_threshold.into(),
        &FAILURE_THRESHOLD,
        "failures",
    );
    findings.within(
        "/circuitBreaker/resetIntervalMs",
        breaker.reset_interval_ms,
        &RESET_INTERVAL_MS,
        "ms",
    );
    findings.within(
        "/circuitBreaker/halfOpenMaxRequests",
        breaker.half_open_max_requests.into(),
        &HALF_OPEN_REQUESTS,
        "requests",
    );
    if let Some(rate) = &breaker.failure_rate {
        let at = "/circuitBreaker/failureRate";
        let numbers = [
            ("percent", rate.percent.into(), FAILURE_PERCENT, "percent"),
            ("windowMs", rate.window_ms, FAILURE_WINDOW_MS, "ms"),
            (
                "minimumCalls",
                rate.minimum_calls.into(),
                FAILURE_CALLS,
                "calls",
            ),
        ];
        for (member, value, range, unit) in numbers {
            findings.within(&format!("{at}/{member}"), value, &range, unit);
        }
    }
}

/// What one upstream's failures lead to; it is at `at`.
pub(super) fn upstream(at: &str, upstream: &Upstream, config: &Config, findings: &mut Findings) {
    if let Some(fallback) = &upstream.fallback {
        let at = format!("{at}/fallback");
        if *fallback == upstream.name {
            let remedy = "name another upstream, or remove it";
            findings.add(at, "is the upstream itself", remedy);
        } else if !config.upstreams.iter().any(|other| other.name == *fallback) {
            let remedy = "use the name of one under `upstreams`";
            findings.add(at, "is no configured upstream", remedy);
        }
    }
    if let Some(retry) = &upstream.retry {
        let hedge = retry.hedge_after_ms.unwrap_or(*HEDGE_AFTER_MS.start());
        let attempt = retry.attempt_timeout_ms.unwrap_or(*TIMEOUT_MS.start());
        let (percent, second) = (retry.budget_percent, retry.budget_per_second);
        let numbers = [
            ("maxAttempts", retry.max_attempts.into(), ATTEMPTS, "times"),
            ("initialMs", retry.initial_ms, RETRY_PAUSE_MS, "ms"),
            ("maxMs", retry.max_ms, RETRY_PAUSE_MS, "ms"),
            ("attemptTimeoutMs", attempt, TIMEOUT_MS, "ms"),
            ("hedgeAfterMs", hedge, HEDGE_AFTER_MS, "ms"),
            ("budgetPercent", percent.into(), RETRY_PERCENT, "percent"),
            (
                "budgetPerSecond",
                second.into(),
                RETRIES_PER_SECOND,
                "retries",
            ),
        ];
        for (member, value, range, unit) in numbers {
            findings.within(&format!("{at}/retry/{member}"), value, &range, unit);
        }
    }
    if let Some(bulkhead) = &upstream.bulkhead {
        let at = format!("{at}/bulkhead");
        let calls = bulkhead.max_calls.into();
        findings.within(&format!("{at}/maxCalls"), calls, &AT_ONCE, "calls");
        let wait = bulkhead.wait_ms;
        findings.within(&format!("{at}/waitMs"), wait, &BULKHEAD_WAIT_MS, "ms");
    }
}

/// What bounds all requests.
pub(super) fn limits(config: &Config, findings: &mut Findings) {
    let limits = &config.limits;
    if let Some(timeout) = limits.request_timeout_ms {
        findings.within("/limits/requestTimeoutMs", timeout, &TIMEOUT_MS, "ms");
    }
    if let Some(max) = limits.max_requests_at_once {
        let at = "/limits/maxRequestsAtOnce";
        findings.within(at, max.into(), &AT_ONCE, "requests");
    }
}
