//! `limits`: how often what may be called, counted apart for whom.

use serde::{Deserialize, Serialize};

use super::Quota;
#[cfg(feature = "schema")]
use super::bounds;

/// So many requests in a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// Requests admitted in any window.
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::RATE_REQUESTS.start(), max = *bounds::RATE_REQUESTS.end())))]
    pub requests: u32,
    /// Length of the window in milliseconds.
    #[serde(default = "minute_ms")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::RATE_WINDOW_MS.start(), max = *bounds::RATE_WINDOW_MS.end())))]
    pub window_ms: u64,
}

/// Limits that hold for every call.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// How often each client (token subject and client id) may call, all tools together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_client: Option<Rate>,
    /// Further limits. A call is admitted within all it falls under, or counted in none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::LIMIT_RULES_MAX)))]
    pub rules: Vec<LimitRule>,
    /// What calls of tools may use up in a day or a month.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::QUOTAS_MAX)))]
    pub quotas: Vec<Quota>,
    /// Largest request body, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::REQUEST_BODY_BYTES.start(), max = *bounds::REQUEST_BODY_BYTES.end())))]
    pub request_body_bytes: Option<usize>,
    /// How long the answer to one call may take, whatever upstreams it waits for, in
    /// milliseconds. Tasks, and waiting for a person, are not bound by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::TIMEOUT_MS.start(), max = *bounds::TIMEOUT_MS.end())))]
    pub request_timeout_ms: Option<u64>,
    /// How many requests one isolate answers at once; one more is refused with 503. Streams
    /// of changes are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::AT_ONCE.start(), max = *bounds::AT_ONCE.end())))]
    pub max_requests_at_once: Option<u32>,
}

/// One limit: how often, counted apart for whom, on which calls.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitRule {
    /// What a refused client is told.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::SHORT_TEXT_MAX)))]
    pub name: String,
    /// For whom it is counted apart; for each combination, where several are named. Empty:
    /// everybody's calls are counted together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per: Vec<Per>,
    /// The tools whose calls are counted, as `upstream__tool` or `upstream__*`. Empty: every
    /// request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// How often.
    pub rate: Rate,
    /// How it is counted. If absent, as suits the host: `kv` where isolates live long
    /// (Workers), `atomic` where they do not (Spin).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<Counter>,
    /// With `native`: the name under which the host's limiter is bound, with the same rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = *bounds::BINDING_BYTES.end())))]
    pub binding: Option<String>,
}

/// Something for which a limit is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// The token's subject, in its tenant, with its client.
    Principal,
    /// The OAuth client.
    Client,
    /// The tenant.
    Tenant,
    /// The tool.
    Tool,
    /// The upstream.
    Upstream,
}

/// How a limit is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Counter {
    /// Approximately, through KV: it may be overshot within a stated bound, and a store that
    /// is away refuses nobody.
    Kv,
    /// Exactly, through the atomic store: it is never overshot, and what cannot be counted is
    /// refused.
    Atomic,
    /// By a limiter of the host's own (on Workers a rate limiting binding), which states no
    /// bound; as if nothing were said where the host has none under that name.
    Native,
}

const fn minute_ms() -> u64 {
    60_000
}
