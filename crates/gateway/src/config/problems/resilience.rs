//! When failing upstreams are left alone, and what is tried instead.

use super::Findings;
use crate::config::Config;
use crate::config::bounds::{
    FAILURE_CALLS, FAILURE_PERCENT, FAILURE_THRESHOLD, FAILURE_WINDOW_MS, HALF_OPEN_REQUESTS,
    RESET_INTERVAL_MS,
};

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
