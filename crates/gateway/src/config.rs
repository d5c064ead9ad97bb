//! Configuration as published: the compiled form of `tidegate.yaml`.
//!
//! The CLI reads YAML, merges the environment overlay, and publishes a [`Snapshot`]; the
//! function reads JSON only. Both use [`Config::problems`], so what `tidegate check`
//! accepts the function accepts. Types here hold what a file may say; nothing is resolved.

pub mod address;
pub mod bounds;
mod edge;
mod issuer;
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
mod tool_rules;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

pub use bounds::{TOOL_RULES_MAX, UPSTREAM_NAME_MAX, UPSTREAMS_MAX};
pub use edge::{Edge, Listed};
pub use issuer::{Algorithm, Binding, Introspection, Issuer};
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
pub use tool_rules::ToolRules;

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
    /// The tenants that have a host or a path of their own, or upstreams.
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

/// One MCP server behind the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upstream {
    /// Prefix of its tools' names, and its path under `/servers/`: lower-case letters,
    /// digits and single hyphens.
    #[cfg_attr(feature = "schema", schemars(length(max = UPSTREAM_NAME_MAX), regex(pattern = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")))]
    pub name: String,
    /// Its MCP endpoint.
    pub url: Url,
    /// How it is spoken to.
    #[serde(default)]
    pub transport: Transport,
    /// Which revisions it speaks; `auto` finds out and remembers.
    #[serde(default)]
    pub era: EraChoice,
    /// How long one call may take, in milliseconds, until its answer has ended.
    #[serde(default = "timeout_ms")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::TIMEOUT_MS.start(), max = *bounds::TIMEOUT_MS.end())))]
    pub timeout_ms: u64,
    /// What the gateway shows the upstream to be let in. A client's token is never passed on.
    #[serde(default)]
    pub credentials: Credentials,
    /// Whether arguments and structured results must fit the schemas of its tools.
    // Not written where it says nothing: a snapshot's digest is over what is written, and
    // those published before there was this member must keep theirs.
    #[serde(default, skip_serializing_if = "Validation::is_default")]
    pub validation: Validation,
    /// Whether it runs a call that comes again with the same `Idempotency-Key` only once
    /// (draft-ietf-httpapi-idempotency-key-header). Runs of tasks carry one, and a call whose
    /// outcome is unknown may then be made again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotency_keys: bool,
    /// A call that tells whether it is well, for `/health/deep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Whether calls to it that fail are made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Name of the upstream that calls of its tools go to where it could not be reached, if
    /// that one has the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// How many calls to it may be under way at once in one isolate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulkhead: Option<Bulkhead>,
    /// How closely its data is held. Only principals of this clearance, or a higher one,
    /// see and use it (`policy.clearance`).
    #[serde(default, skip_serializing_if = "Classification::is_default")]
    pub classification: Classification,
    /// The tenants whose principals see it; to all others it does not exist. Empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::TENANTS_MAX)))]
    pub tenants: Vec<String>,
    /// Another version of it, which takes the calls of some principals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Another version of it, which gets copies of calls that only read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Which version of itself this is; none for the upstream as configured.
    #[serde(skip)]
    pub(crate) version: Option<String>,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Streamable HTTP. A server that turns out to speak only HTTP+SSE is spoken to so.
    #[default]
    StreamableHttp,
    /// HTTP+SSE, the transport of 2024-11-05: `url` is where its event stream is.
    Sse,
}

/// What becomes of values that do not fit a tool's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// Arguments do not reach the upstream, structured results not the client.
    #[default]
    Enforce,
    /// They pass, and a line is logged.
    Warn,
    /// They pass; nothing is checked.
    Off,
}

impl Validation {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which revisions an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EraChoice {
    /// Ask it, and remember the answer for a while.
    #[default]
    Auto,
    /// 2026-07-28.
    Modern,
    /// 2025-11-25 and older.
    Legacy,
}

/// What the gateway shows an upstream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase", tag = "type", deny_unknown_fields)]
pub enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// `Authorization: Bearer …`.
    Bearer {
        /// `${secret:NAME}`, resolved through the platform's secrets.
        token: SecretRef,
    },
    /// A header of the upstream's own.
    Header {
        /// The header's name.
        name: String,
        /// `${secret:NAME}`, resolved through the platform's secrets.
        value: SecretRef,
    },
    /// `Authorization: Bearer …` with a token the gateway gets by itself.
    OAuth(Box<OAuth>),
}

/// A reference to a platform secret, written `${secret:NAME}`. Plain text is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct SecretRef(
    #[cfg_attr(
        feature = "schema",
        schemars(regex(pattern = r"^\$\{secret:[A-Z][A-Z0-9_]{0,127}\}$"))
    )]
    String,
);

impl SecretRef {
    /// The secret's name, if the reference is well formed: `[A-Z][A-Z0-9_]*`, at most 128.
    pub fn name(&self) -> Option<&str> {
        let name = self.0.strip_prefix("${secret:")?.strip_suffix('}')?;
        let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        (name.len() <= 128
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(upper))
        .then_some(name)
    }
}

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
                window_ms: minute_ms(),
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

const fn timeout_ms() -> u64 {
    30_000
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_one(cost: &u32) -> bool {
    *cost == 1
}

const fn minute_ms() -> u64 {
    60_000
}
