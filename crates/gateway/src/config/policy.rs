//! What a file may say of who may call what: data classification, and rules in CEL.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use super::bounds;

/// Who may use what of the upstreams, with which arguments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// Every role that rules, clearances, `requiredRoles` and `forRoles` may name. A name that
    /// is not here is a mistake; of these `requiredRoles` alone may do without a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Tools rules may name, as `upstream__tool`, besides those that have an entry under
    /// the configuration's `tools`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::TOOL_RULES_MAX)))]
    pub tools: Vec<String>,
    /// Up to which classification a principal may use upstreams.
    #[serde(skip_serializing_if = "Clearance::is_default")]
    pub clearance: Clearance,
    /// The rules. Where there is one, nothing may be used that no rule allows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::POLICY_RULES_MAX)))]
    pub rules: Vec<PolicyRule>,
}

/// Up to which classification a principal may use upstreams: the highest its roles give.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Clearance {
    /// Of everybody.
    pub default: Classification,
    /// Of whoever has a role.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, Classification>,
}

impl Clearance {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How closely data is held, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Classification {
    /// For everybody.
    Public,
    /// For everybody who works here.
    #[default]
    Internal,
    /// For those who need it.
    Confidential,
    /// For few.
    Restricted,
}

impl Classification {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [
        Self::Public,
        Self::Internal,
        Self::Confidential,
        Self::Restricted,
    ];

    /// As configurations and rules write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Restricted => "restricted",
        }
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One rule: whom it concerns, when, and what it says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRule {
    /// Names the rule in the audit line: lower-case letters, digits and single hyphens.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::RULE_NAME_MAX), regex(pattern = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")))]
    pub name: String,
    /// Whether what it describes is allowed or denied. One denial outweighs all that allow.
    pub effect: Effect,
    /// Tools it concerns: `upstream__tool`, `upstream__*` or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAMES_MAX)))]
    pub tools: Vec<String>,
    /// Prompts it concerns, written like tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAMES_MAX)))]
    pub prompts: Vec<String>,
    /// Resources it concerns: `upstream__*` or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAMES_MAX)))]
    pub resources: Vec<String>,
    /// A CEL expression that says when; without one: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::CONDITION_MAX)))]
    pub when: Option<String>,
    /// Whether a caller it denies is told its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disclose: bool,
}

/// What a rule says of what it describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It may be done, unless another rule denies it.
    Allow,
    /// It may not be done.
    Deny,
}
