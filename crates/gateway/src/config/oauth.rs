//! What a configuration says of the tokens the gateway gets for an upstream: as whom it asks
//! which authorization server, and on whose behalf.

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Credentials, SecretRef};

/// Tokens from the upstream's authorization server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OAuth {
    /// On whose behalf.
    pub grant: Grant,
    /// The authorization server's issuer identifier. Its metadata (RFC 8414, OpenID Connect
    /// Discovery) says where tokens are, unless the endpoints are named here. The gateway's
    /// secret goes to the server named here alone, whatever an upstream says.
    pub issuer: String,
    /// The gateway's own client id there.
    pub client_id: String,
    /// `${secret:NAME}`, resolved through the platform's secrets. Only with grant `user` may
    /// a client do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretRef>,
    /// Its token endpoint, where metadata is not to be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<Url>,
    /// Its authorization endpoint, likewise; with grant `user` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<Url>,
    /// Scopes asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// What the tokens are for (RFC 8707); left out, the upstream's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Url>,
    /// What exchanged tokens are for, in the authorization server's own words (RFC 8693).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

/// As whom the gateway asks an issuer who a person in a browser is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignIn {
    /// The gateway's own client id there.
    pub client_id: String,
    /// `${secret:NAME}`, resolved through the platform's secrets; a public client has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretRef>,
}

/// On whose behalf tokens are got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// The gateway's own, for every principal (RFC 6749 section 4.4).
    Client,
    /// The caller's, in exchange for the token it showed (RFC 8693).
    Exchange,
    /// The caller's, who is sent to the authorization server in a browser once (RFC 6749
    /// section 4.1).
    User,
}

impl Credentials {
    /// How tokens are got, if they are.
    pub fn oauth(&self) -> Option<&OAuth> {
        match self {
            Self::OAuth(oauth) => Some(oauth),
            Self::None | Self::Bearer { .. } | Self::Header { .. } => None,
        }
    }

    /// Whether each principal has its own, so that nothing seen with one may be shown to
    /// another.
    pub fn are_personal(&self) -> bool {
        self.oauth()
            .is_some_and(|oauth| oauth.grant != Grant::Client)
    }
}
