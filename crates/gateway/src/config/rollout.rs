//! What a configuration says of an upstream's other versions: one that takes part of the
//! calls, and one that is only watched.

use serde::{Deserialize, Serialize};
use url::Url;

use super::Upstream;

/// Another version of an upstream, which takes the calls of some principals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Canary {
    /// Its MCP endpoint. It is shown the upstream's credentials.
    pub url: Url,
    /// So many of a hundred principals are on it; the same ones each time, and the same and
    /// more if this grows.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::CANARY_PERCENT.start(), max = *super::bounds::CANARY_PERCENT.end())))]
    pub weight_percent: u32,
    /// What operators call it. With a change of this, or of anything else under `canary`, it is
    /// another canary: it begins anew, with no calls counted and no rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = super::bounds::SHORT_TEXT_MAX)))]
    pub release: Option<String>,
    /// When everybody is put back on the upstream itself.
    #[serde(default)]
    pub rollback: Rollback,
}

/// When a canary is given up, by what one isolate sees of it; where instances live briefly, by
/// what all of them see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rollback {
    /// More failed calls of a hundred than these are too many.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::CANARY_PERCENT.start(), max = *super::bounds::CANARY_PERCENT.end())))]
    pub max_error_percent: u32,
    /// More than five of a hundred answered calls that take longer than this are too many, in
    /// milliseconds. One that its client gave up after longer than this is among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::CANARY_P95_MS.start(), max = *super::bounds::CANARY_P95_MS.end())))]
    pub max_p95_ms: Option<u64>,
    /// Length of the sliding window the calls are counted in, in milliseconds.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::CANARY_WINDOW_MS.start(), max = *super::bounds::CANARY_WINDOW_MS.end())))]
    pub window_ms: u64,
    /// Fewer calls than these in the window say nothing.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::CANARY_CALLS.start(), max = *super::bounds::CANARY_CALLS.end())))]
    pub minimum_calls: u32,
    /// How long it stays given up, in milliseconds; until its configuration changes, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::CANARY_HOLD_MS.start(), max = *super::bounds::CANARY_HOLD_MS.end())))]
    pub hold_ms: Option<u64>,
}

impl Default for Rollback {
    fn default() -> Self {
        Self {
            max_error_percent: 10,
            max_p95_ms: None,
            window_ms: 60_000,
            minimum_calls: 20,
            hold_ms: None,
        }
    }
}

/// Another version of an upstream, which gets copies of calls that only read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mirror {
    /// Its MCP endpoint. It is shown the upstream's credentials.
    pub url: Url,
    /// So many of a hundred calls are copied, of tools whose rule says `readOnly`.
    #[cfg_attr(feature = "schema", schemars(range(min = *super::bounds::MIRROR_PERCENT.start(), max = *super::bounds::MIRROR_PERCENT.end())))]
    pub percent: u32,
}

impl Upstream {
    /// What this version of the upstream is known by inside the gateway: its name, where it is
    /// the upstream itself. No two versions share sessions, lists or circuits.
    pub fn key(&self) -> &String {
        self.version.as_ref().unwrap_or(&self.name)
    }

    /// The upstream's other versions.
    pub(crate) fn versions(&self) -> impl Iterator<Item = Self> {
        let canary = self.canary.as_ref();
        let canary = canary.map(|canary| (canary_key(&self.name), &canary.url));
        let mirror = self.mirror.as_ref();
        let mirror = mirror.map(|mirror| (mirror_key(&self.name), &mirror.url));
        canary.into_iter().chain(mirror).map(|(key, url)| Self {
            url: url.clone(),
            version: Some(key),
            canary: None,
            mirror: None,
            ..self.clone()
        })
    }
}

/// The key of an upstream's canary: no name has such a character.
pub(crate) fn canary_key(name: &str) -> String {
    format!("{name}@canary")
}

/// The key of an upstream's mirror.
pub(crate) fn mirror_key(name: &str) -> String {
    format!("{name}@mirror")
}
