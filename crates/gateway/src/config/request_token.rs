//! What a file may say of tools whose every call its orchestrator must have signed.

use serde::{Deserialize, Serialize};

use super::SecretRef;
#[cfg(feature = "schema")]
use super::bounds;

/// The proof that a call is the caller's orchestrator's: this tool, these arguments, now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestToken {
    /// `${secret:NAME}`: what the orchestrator signs with, 32 bytes or more.
    pub secret: SecretRef,
    /// The one before, still accepted while it is being replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret: Option<SecretRef>,
    /// How old a token may be, in seconds.
    #[serde(default = "max_age_seconds")]
    #[cfg_attr(feature = "schema", schemars(range(min = *bounds::REQUEST_TOKEN_AGE.start(), max = *bounds::REQUEST_TOKEN_AGE.end())))]
    pub max_age_seconds: u32,
}

const fn max_age_seconds() -> u32 {
    60
}
