//! What a file may say of the tenants of one gateway.

use serde::{Deserialize, Serialize};

use super::Upstream;
#[cfg(feature = "schema")]
use super::bounds;

/// One tenant, and where it is found besides the claim of its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// Its name, as in the issuers' `tenantClaim`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::SHORT_TEXT_MAX)))]
    pub name: String,
    /// A host of its own, such as `acme.mcp.example.com`: `https://<host>/mcp` is its endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// A path of its own, such as `acme`: `<publicUrl>/t/acme/mcp` is its endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::TENANT_PATH_MAX), regex(pattern = r"^[a-z0-9]+(-[a-z0-9]+)*$")))]
    pub path: Option<String>,
}

impl Upstream {
    /// Whether principals of this tenant see it.
    pub fn is_seen_by(&self, tenant: Option<&str>) -> bool {
        self.tenants.is_empty()
            || tenant.is_some_and(|tenant| self.tenants.iter().any(|t| t == tenant))
    }
}
