//! Configuration as published: the compiled form of `tidegate.yaml`.
//!
//! The CLI reads YAML, merges the environment overlay, and publishes a [`Snapshot`]; the
//! function reads JSON only. Both use [`Config::problems`], so what `tidegate check`
//! accepts the function accepts. Types here hold what a file may say; nothing is resolved.

pub mod address;
pub mod bounds;
mod edge;
mod issuer;
mod limits;
mod oauth;
pub mod policy;
mod problems;
pub mod quota;
mod request_token;
mod resilience;
mod rollout;
pub mod safety;
mod snapshot;
mod tenant;
mod tool_rule;
mod tool_rules;
mod upstream;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

pub use bounds::{TOOL_RULES_MAX, UPSTREAM_NAME_MAX, UPSTREAMS_MAX};
pub use edge::{Edge, Listed};
pub use issuer::{Algorithm, Binding, Introspection, Issuer};
pub use limits::{Counter, LimitRule, Limits, Per, Rate};
pub use oauth::{Grant, OAuth, SignIn};
pub use policy::{Classification, Clearance, Effect, Policy, PolicyRule};
pub use problems::Problem;
pub use quota::{Price, Quota};
pub use request_token::RequestToken;
pub use resilience::{Bulkhead, CircuitBreaker, FailureRate, Retry};
pub use rollout::{Canary, Mirror, Rollback};
pub(crate) use rollout::{canary_key, mirror_key};
pub use safety::{DryRun, Idempotency, Probe};
pub use snapshot::SNAPSHOT_VERSION;
pub use tenant::Tenant;
pub use tool_rule::{Execution, ToolRule};
pub use tool_rules::ToolRules;
pub use upstream::{Credentials, EraChoice, SecretRef, Transport, Upstream, Validation};

use crate::keyspace::{Family, Store};
use crate::platform::LogLevel;

/// The `apiVersion` this build reads.
pub const API_VERSION: &str = "tidegate/v1";
/// Separates the upstream's name from the tool's or prompt's in an exposed name.
pub const NAME_SEPARATOR: &str = "__";

/// One published configuration, as stored in KV under `config`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// Shape of this record.
    pub v: u32,
    /// First 16 hexadecimal digits of the SHA-256 of `config` as published.
    pub digest: String,
    /// When it was compiled, milliseconds since the epoch.
    pub compiled_at_ms: u64,
    /// The configuration itself.
    pub config: Config,
}

/// The family of [`Snapshot`]: one record, replaced by each `tidegate push`.
pub struct ConfigFamily;

impl Family for ConfigFamily {
    type Record = Snapshot;
    const NAME: &'static str = "config";
    const STORE: Store = Store::Kv;
    const LIFETIME: Option<Duration> = None;
}

/// A gateway's whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Version of this format: `tidegate/v1`.
    #[cfg_attr(feature = "schema", schemars(extend("const" = API_VERSION)))]
    pub api_version: String,
    /// What the file describes: `Gateway`.
    pub kind: Kind,
    /// Who runs this gateway, and where.
    pub metadata: Metadata,
    /// Origin clients reach the gateway at, such as `https://mcp.example.com`. Tokens must
    /// name `<publicUrl>/mcp` (or a server's own endpoint) as their audience.
    pub public_url: Url,
    /// Browser origins that may call the gateway, besides its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::ALLOWED_ORIGINS_MAX)))]
    pub allowed_origins: Vec<String>,
    /// Which requests are looked at at all.
    #[serde(default, skip_serializing_if = "Edge::is_default")]
    pub edge: Edge,
    /// The tenants that have a host or a path of their own, or upstreams or issuers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::TENANTS_MAX)))]
    pub tenants: Vec<Tenant>,
    /// How tools and prompts of several upstreams are named at `/mcp`.
    #[serde(default)]
    pub naming: Naming,
    /// Whose tokens are accepted.
    pub authentication: Authentication,
    /// The MCP servers behind this gateway, in the order their tools are listed.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = UPSTREAMS_MAX)))]
    pub upstreams: Vec<Upstream>,
    /// Rules for tools by exposed name. Without a rule a tool may be called by any
    /// authenticated client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = TOOL_RULES_MAX)))]
    pub tools: Vec<ToolRule>,
    /// Who may use what, with which arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Limits that hold for every call.
    #[serde(default)]
    pub limits: Limits,
    /// When a failing upstream is left alone for a while.
    #[serde(default)]
    pub circuit_breaker: CircuitBreaker,
    /// Long-running calls.
    #[serde(default)]
    pub tasks: Tasks,
    /// Calls that clients may make again without being done twice.
    #[serde(default, skip_serializing_if = "Idempotency::is_default")]
    pub idempotency: Idempotency,
    /// What is told to the operator.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// What is recorded of each call.
    #[serde(default)]
    pub audit: Audit,
}

/// What a configuration file describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Kind {
    /// One gateway.
    Gateway,
}

/// Who runs this gateway, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Name of the gateway; also its `serverInfo` name.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::SHORT_TEXT_MAX)))]
    pub name: String,
    /// Team that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How to reach that team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Where this configuration runs. `dev` alone may use loopback issuers and turn
    /// authentication off.
    #[serde(default)]
    pub environment: Environment,
}

/// Where a configuration runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// A developer's machine.
    Dev,
    /// Before production.
    Staging,
    /// For real.
    #[default]
    Production,
}

/// How tools and prompts of several upstreams are named at `/mcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// `upstream__tool`, and `upstream+uri` for resources.
    #[default]
    Prefix,
    /// The upstream's own names; where two upstreams share one, the first listed has it.
    Bare,
}

/// Whose tokens are accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase", tag = "type", deny_unknown_fields)]
pub enum Authentication {
    /// OAuth 2.1 bearer tokens in JWT form.
    Jwt {
        /// The authorization servers whose tokens are accepted.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schemars(length(max = bounds::ISSUERS_MAX)))]
        issuers: Vec<Issuer>,
        /// Whether the gateway's own keys are accepted as bearer tokens, for clients that
        /// know no OAuth: `tidegate keys create`.
        #[serde(default, rename = "gatewayKeys", skip_serializing_if = "is_false")]
        gateway_keys: bool,
        /// Where it is looked up what has been revoked.
        #[serde(default, skip_serializing_if = "Revocation::is_default")]
        revocation: Revocation,
    },
    /// Nobody is asked. Only in environment `dev` with a loopback `publicUrl`.
    None,
}

/// Long-running calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tasks {
    /// How long a task and its result can be read after it was created, in milliseconds. A
    /// client that asks for longer gets this.
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::TASK_TTL_MS.start(), max = *bounds::TASK_TTL_MS.end())))]
    pub ttl_ms: u64,
    /// How often clients are asked to poll, in milliseconds.
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::TASK_POLL_INTERVAL_MS.start(), max = *bounds::TASK_POLL_INTERVAL_MS.end())))]
    pub poll_interval_ms: u64,
    /// How long a call of a tool with `execution: auto` may run before it becomes a task, in
    /// milliseconds.
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::TASK_AFTER_MS.start(), max = *bounds::TASK_AFTER_MS.end())))]
    pub after_ms: u64,
    /// How long a call may take that is a task or may become one, in milliseconds, where its
    /// tool's rule says nothing else.
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::TASK_TIMEOUT_MS.start(), max = *bounds::TASK_TIMEOUT_MS.end())))]
    pub timeout_ms: u64,
    /// Most tasks of one principal that have not ended.
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::TASKS_OPEN_PER_PRINCIPAL.start(), max = *bounds::TASKS_OPEN_PER_PRINCIPAL.end())))]
    pub max_open_per_principal: u32,
    /// Most tasks of one tenant that have not ended; no limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::TASKS_OPEN_PER_TENANT.start(), max = *bounds::TASKS_OPEN_PER_TENANT.end())))]
    pub max_open_per_tenant: Option<u32>,
    /// How often each principal may ask about its tasks (`tasks/get`, `tasks/update`,
    /// `tasks/cancel` and what older revisions have instead).
    pub poll_limit: Rate,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            ttl_ms: 3_600_000,
            poll_interval_ms: 1_000,
            after_ms: 10_000,
            timeout_ms: 900_000,
            max_open_per_principal: 100,
            max_open_per_tenant: None,
            poll_limit: Rate {
                requests: 600,
                window_ms: 60_000,
            },
        }
    }
}

/// What is told to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Telemetry {
    /// Least urgent log line written. Audit lines are always written.
    pub log_level: LogLevel,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_level: LogLevel::Info,
        }
    }
}

/// What is recorded of each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Audit {
    /// Whether each line carries a keyed fingerprint of the arguments, so that equal calls
    /// can be recognised without recording what was said.
    pub argument_fingerprint: bool,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            argument_fingerprint: true,
        }
    }
}

/// Where it is looked up what has been revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Revocation {
    /// In the published list: in force within 75 seconds where KV keeps its minute.
    #[default]
    Published,
    /// In the atomic store as well, for every request: in force at once, for a few reads of
    /// that store each time.
    Immediate,
}

impl Revocation {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_false(value: &bool) -> bool {
    !*value
}
