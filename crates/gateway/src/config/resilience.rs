//! What a configuration says of failing upstreams: when they are left alone, and what is
//! tried instead.

use serde::{Deserialize, Serialize};

/// When a failing upstream is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// Consecutive failures that open the circuit.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::FAILURE_THRESHOLD.start(), max = *super::bounds::FAILURE_THRESHOLD.end())))]
    pub failure_threshold: u32,
    /// How long it stays open before a probe, in milliseconds.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::RESET_INTERVAL_MS.start(), max = *super::bounds::RESET_INTERVAL_MS.end())))]
    pub reset_interval_ms: u64,
    /// Probes let through at once while half open.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::HALF_OPEN_REQUESTS.start(), max = *super::bounds::HALF_OPEN_REQUESTS.end())))]
    pub half_open_max_requests: u32,
    /// Opens the circuit too where too large a share of calls fails, in a row or not.
    // Not written where it says nothing, as with the members after it: a snapshot's digest
    // is over what is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<FailureRate>,
    /// Whether each tool has a circuit of its own besides its upstream's: calls that get no
    /// answer in time, or nonsense, then count against the tool, and against the upstream
    /// only calls whose connection failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub per_tool: bool,
    /// Whether isolates tell each other through KV that an upstream's circuit has opened.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            reset_interval_ms: 30_000,
            half_open_max_requests: 1,
            failure_rate: None,
            per_tool: false,
            shared: false,
        }
    }
}

/// When calls to an upstream are made again: those that certainly did not reach it, and of
/// others those that read, or whose tool's rule says `idempotent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retry {
    /// How often one call is made, the first time among them.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::ATTEMPTS.start(), max = *super::bounds::ATTEMPTS.end())))]
    pub max_attempts: u32,
    /// Longest pause before the second attempt, in milliseconds; it doubles with each. The
    /// pause is a random part of it.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::RETRY_PAUSE_MS.start(), max = *super::bounds::RETRY_PAUSE_MS.end())))]
    pub initial_ms: u64,
    /// Longest pause, in milliseconds.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::RETRY_PAUSE_MS.start(), max = *super::bounds::RETRY_PAUSE_MS.end())))]
    pub max_ms: u64,
    /// How long one attempt may take that is not the last of a call that may be made again,
    /// in milliseconds; as long as the whole call, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::TIMEOUT_MS.start(), max = *super::bounds::TIMEOUT_MS.end())))]
    pub attempt_timeout_ms: Option<u64>,
    /// After how long without an answer a call that may be made again is made a second time,
    /// while the first is still waited for, in milliseconds; never, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::HEDGE_AFTER_MS.start(), max = *super::bounds::HEDGE_AFTER_MS.end())))]
    pub hedge_after_ms: Option<u64>,
    /// So many calls of a hundred may be made again, in each isolate.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::RETRY_PERCENT.start(), max = *super::bounds::RETRY_PERCENT.end())))]
    pub budget_percent: u32,
    /// And so many in a second besides.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::RETRIES_PER_SECOND.start(), max = *super::bounds::RETRIES_PER_SECOND.end())))]
    pub budget_per_second: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_ms: 100,
            max_ms: 2_000,
            attempt_timeout_ms: None,
            hedge_after_ms: None,
            budget_percent: 20,
            budget_per_second: 1,
        }
    }
}

/// How many calls to an upstream may be under way at once in one isolate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bulkhead {
    /// So many.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::AT_ONCE.start(), max = *super::bounds::AT_ONCE.end())))]
    pub max_calls: u32,
    /// How long one more waits for one to end before it is refused, in milliseconds.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::BULKHEAD_WAIT_MS.start(), max = *super::bounds::BULKHEAD_WAIT_MS.end())))]
    pub wait_ms: u64,
}

/// Which share of calls may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailureRate {
    /// As many of a hundred calls, when they fail, open the circuit.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::FAILURE_PERCENT.start(), max = *super::bounds::FAILURE_PERCENT.end())))]
    pub percent: u32,
    /// Length of the sliding window the calls are counted in, in milliseconds.
    #[serde(default = "window_ms")]
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::FAILURE_WINDOW_MS.start(), max = *super::bounds::FAILURE_WINDOW_MS.end())))]
    pub window_ms: u64,
    /// Fewer calls than these in the window say nothing.
    #[serde(default = "minimum_calls")]
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::FAILURE_CALLS.start(), max = *super::bounds::FAILURE_CALLS.end())))]
    pub minimum_calls: u32,
}

const fn window_ms() -> u64 {
    60_000
}

const fn minimum_calls() -> u32 {
    20
}
