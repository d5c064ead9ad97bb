//! What a configuration says of one authorization server: whose tokens are accepted, and
//! what is asked of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

#[cfg(feature = "schema")]
use super::bounds;
use super::{SecretRef, SignIn};

/// One authorization server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// The exact `iss` of its tokens, also advertised to clients (RFC 9728).
    pub issuer: String,
    /// Where its public keys are (RFC 7517). Left out, its own metadata says (RFC 8414,
    /// OpenID Connect Discovery).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<Url>,
    /// Audiences accepted besides the endpoint's own resource URL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// Signature algorithms accepted.
    #[serde(default = "Algorithm::all", skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<Algorithm>,
    /// Claims a token must carry, each with the value it must have (for an array claim:
    /// must contain).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub required_claims: BTreeMap<String, Value>,
    /// Claim that holds the principal's roles.
    #[serde(default = "roles_claim")]
    pub roles_claim: String,
    /// Claim that holds the principal's tenant. A token without it is of none, and refused
    /// at a tenant's own endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_claim: Option<String>,
    /// The tenants whose tokens it may issue; in all others' eyes it is not configured.
    /// Empty: any, and tokens of none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::TENANTS_MAX)))]
    pub tenants: Vec<String>,
    /// How tokens that are not in JWT form are asked about (RFC 7662). One issuer at most
    /// may have this: such a token does not say whose it is, and is shown to nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introspection: Option<Introspection>,
    /// Tokens bound to a key of the client's own, used with a proof for each request
    /// (DPoP, RFC 9449).
    #[serde(default, skip_serializing_if = "Binding::is_off")]
    pub dpop: Binding,
    /// Tokens bound to the client's TLS certificate (RFC 8705), which the platform must
    /// ask clients for.
    #[serde(default, skip_serializing_if = "Binding::is_off")]
    pub mtls: Binding,
    /// The gateway's own client there, by which people who connect an account at an upstream
    /// show who they are (OpenID Connect).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<SignIn>,
}

impl Issuer {
    /// Whether it may issue tokens of this tenant.
    pub fn speaks_for(&self, tenant: Option<&str>) -> bool {
        self.tenants.is_empty()
            || tenant.is_some_and(|tenant| self.tenants.iter().any(|t| t == tenant))
    }

    /// Whether a token of its may be good where the URL says this of the tenant.
    pub fn is_known_at(&self, tenant: Option<&str>) -> bool {
        self.speaks_for(tenant) || tenant.is_none() && self.tenant_claim.is_some()
    }
}

/// How an authorization server is asked about a token (RFC 7662).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Introspection {
    /// Where it is asked.
    pub endpoint: Url,
    /// The gateway's own client id there.
    pub client_id: String,
    /// `${secret:NAME}`, resolved through the platform's secrets.
    pub client_secret: SecretRef,
}

/// Whether tokens may or must be bound to something only their client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// Tokens that are bound are refused.
    #[default]
    Off,
    /// Tokens that are bound must be proven, others are bearer tokens.
    Accept,
    /// Only tokens that are bound, and proven, are accepted.
    Require,
}

impl Binding {
    /// Whether bound tokens are refused.
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// A signature algorithm of RFC 7518 or RFC 8037. Symmetric ones are never accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// EdDSA on Ed25519.
    EdDSA,
}

impl Algorithm {
    /// Every algorithm this build verifies.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// [`Self::ALL`] as a list.
    pub fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    /// Its name in a token's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm a token's header means.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            // Its fully specified name (RFC 9864).
            "Ed25519" => Some(Self::EdDSA),
            _ => Self::ALL.into_iter().find(|known| known.name() == name),
        }
    }
}

fn roles_claim() -> String {
    "roles".to_owned()
}
