//! `limits.quotas` and the prices of tools: how much of what may be used up in a day or a
//! month, by whom.

use serde::{Deserialize, Serialize};

use super::Per;
#[cfg(feature = "schema")]
use super::bounds;

/// How much tool calls may use up in one period.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quota {
    /// What a refused client is told.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::SHORT_TEXT_MAX)))]
    pub name: String,
    /// For whom it is counted apart; for each combination, where several are named. Empty:
    /// everybody's calls are counted together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per: Vec<Per>,
    /// The tools whose calls are counted, as `upstream__tool` or `upstream__*`. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// What is counted.
    pub unit: Unit,
    /// How much of it there is in one period.
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::QUOTA.start(), max = *bounds::QUOTA.end())))]
    pub limit: u64,
    /// How long it lasts.
    pub period: Period,
    /// What becomes of calls when it is used up.
    #[serde(default, skip_serializing_if = "Enforce::is_default")]
    pub enforce: Enforce,
    /// From how many per cent on results and audit lines carry a warning.
    #[serde(default = "warn_at", skip_serializing_if = "is_warn_at")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::WARN_AT.start(), max = *bounds::WARN_AT.end())))]
    pub warn_at_percent: u8,
}

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Calls, each as many as its tool's `cost`.
    Calls,
    /// Bytes of a call's params and of its result, as JSON.
    Bytes,
    /// Tokens, estimated: a quarter of the bytes.
    Tokens,
    /// Money by the tools' `price`, in millionths of the currency.
    Money,
}

impl Unit {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Bytes => "bytes",
            Self::Tokens => "tokens",
            Self::Money => "money",
        }
    }
}

/// How long a quota lasts, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
}

impl Period {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// What becomes of calls when a quota is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Enforce {
    /// They are refused until the next period.
    #[default]
    Hard,
    /// They go on, with a warning.
    Soft,
}

impl Enforce {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a tool's calls cost, in millionths of the currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Price {
    /// Each call.
    #[cfg_attr(feature = "schema", schemars(range(max = *bounds::PRICE.end())))]
    pub per_call: u64,
    /// A thousand estimated tokens of its params and result.
    #[cfg_attr(feature = "schema", schemars(range(max = *bounds::PRICE.end())))]
    pub per_thousand_tokens: u64,
}

const fn warn_at() -> u8 {
    80
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_warn_at(percent: &u8) -> bool {
    *percent == warn_at()
}
