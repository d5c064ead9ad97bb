//! `tools`: what holds for one tool.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use super::bounds;
use super::{DryRun, Price, Rate, RequestToken};

/// Rules for one tool.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolRule {
    /// `upstream__tool`, in either naming; `upstream__*` is for all the upstream's tools
    /// that have no rule of their own, and what it asks of callers is asked for those that
    /// have one, unless that says otherwise.
    #[cfg_attr(
        feature = "schema",
        schemars(regex(pattern = r"^[a-z][a-z0-9-]*__.+$"))
    )]
    pub name: String,
    /// Shown to clients in place of the upstream's description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::DESCRIPTION_MAX)))]
    pub description: Option<String>,
    /// The caller must have one of these roles. Left out, one of those that
    /// `upstream__*` asks for; an empty list asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_roles: Option<Vec<String>>,
    /// The caller's token must have all of these scopes. Left out, those that
    /// `upstream__*` asks for; an empty list asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_scopes: Option<Vec<String>>,
    /// How often each client may call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Rate>,
    /// As how many requests a call counts, in every limit.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::COST.start(), max = *bounds::COST.end())))]
    pub cost: u32,
    /// What a call costs, in quotas of money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// How long one call may take, in milliseconds; in place of the upstream's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::TIMEOUT_MS.start(), max = *bounds::TIMEOUT_MS.end())))]
    pub timeout_ms: Option<u64>,
    /// Whether a call is answered directly or becomes a task.
    #[serde(default)]
    pub execution: Execution,
    /// With `execution: auto`, how long a call may run before it becomes a task, in
    /// milliseconds; in place of `tasks.afterMs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::TASK_AFTER_MS.start(), max = *bounds::TASK_AFTER_MS.end())))]
    pub task_after_ms: Option<u64>,
    /// Whether running the tool twice with the same arguments does no more than running it
    /// once. A call whose outcome is unknown may then be made again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
    /// Whether a client's idempotency key is honoured; in place of `idempotency.enabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_keys: Option<bool>,
    /// How the tool is told only to try, where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<DryRun>,
    /// Each call must carry a token of its own that the caller's orchestrator has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_token: Option<RequestToken>,
    /// Whether the tool changes nothing, so that its calls may be copied to a mirror.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// Whether a call is answered directly or becomes a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Execution {
    /// As the upstream has it: answered in the response, or a task of the upstream's own for
    /// clients that declare the tasks extension.
    #[default]
    Upstream,
    /// Answered in the response.
    Sync,
    /// Answered in the response if it is quick; for clients that declare the tasks extension
    /// a task if it is still running after a while, or as soon as the upstream makes one, and
    /// for those of 2025-11-25 that ask for one a task at once.
    Auto,
    /// Always a task; clients that do not declare the extension, or that could ask for a task
    /// (2025-11-25) and do not, are refused.
    Task,
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_one(cost: &u32) -> bool {
    *cost == 1
}
