//! What a configuration says of calls that must not be made twice, of calls that only try,
//! and of calls that only see whether an upstream is well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Environment;

/// Idempotency keys of clients (draft-ietf-httpapi-idempotency-key-header).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Idempotency {
    /// Whether keys are honoured, for tools whose rules do not say.
    pub enabled: bool,
    /// For how long a key stands for one call, in milliseconds.
    #[cfg_attr(feature = "schema", schemars(range(min = *crate::config::bounds::IDEMPOTENCY_WINDOW_MS.start(), max = *crate::config::bounds::IDEMPOTENCY_WINDOW_MS.end())))]
    pub window_ms: u64,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            enabled: false,
            window_ms: 86_400_000,
        }
    }
}

impl Idempotency {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a tool is told only to try, and for whom it always is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DryRun {
    /// The argument that is set to true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = crate::config::bounds::SHORT_TEXT_MAX)))]
    pub argument: Option<String>,
    /// The member of `_meta` that is set to true, in place of an argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = crate::config::bounds::SHORT_TEXT_MAX)))]
    pub meta: Option<String>,
    /// Callers with one of these roles can only try.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_roles: Vec<String>,
    /// Callers whose token has one of these scopes can only try.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub for_scopes: Vec<String>,
    /// In these environments everybody can only try.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_environments: Vec<Environment>,
}

/// A call that does nothing, made to see whether an upstream is well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// The tool, by the upstream's own name.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = crate::config::bounds::TOOL_NAME_MAX)))]
    pub tool: String,
    /// What it is called with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, Value>,
    /// How long it may take, in milliseconds; longer is unhealthy.
    #[serde(default = "probe_timeout_ms")]
    #[cfg_attr(feature = "schema", schemars(range(min = *crate::config::bounds::PROBE_MS.start(), max = *crate::config::bounds::PROBE_MS.end())))]
    pub timeout_ms: u64,
    /// How long it should take at most, in milliseconds; longer is degraded.
    #[serde(default = "probe_slow_ms")]
    #[cfg_attr(feature = "schema", schemars(range(min = *crate::config::bounds::PROBE_MS.start(), max = *crate::config::bounds::PROBE_MS.end())))]
    pub slow_ms: u64,
}

const fn probe_timeout_ms() -> u64 {
    5_000
}

const fn probe_slow_ms() -> u64 {
    1_000
}
