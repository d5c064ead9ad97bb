//! `upstreams`: the MCP servers behind the gateway, how they are spoken to and let it in.

use serde::{Deserialize, Serialize};
use url::Url;

#[cfg(feature = "schema")]
use super::bounds::{self, UPSTREAM_NAME_MAX};
use super::{Bulkhead, Canary, Classification, Mirror, OAuth, Probe, Retry};

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

const fn timeout_ms() -> u64 {
    30_000
}
