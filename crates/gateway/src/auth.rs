//! Who is asking: OAuth 2.1 access tokens, the gateway being the resource server
//! (MCP 2026-07-28 authorization; RFC 6750, RFC 7519, RFC 8725, RFC 9728), and the gateway's
//! own keys for clients that know no OAuth.
//!
//! Every request is judged anew: shape, issuer, audience, times, required claims, proofs and
//! revocations each time, so that a changed configuration or an expired token takes effect
//! at once. Only the costly part, that one key signed exactly this text, is remembered, and
//! only for as long as the issuer still publishes that key. Failed signatures are not
//! remembered: whoever sends them varies them.

pub mod challenge;
pub mod metadata;
pub mod revocation;

mod binding;
mod claims;
mod credentials;
mod dpop;
mod gateway_key;
mod introspection;
mod judging;
mod jwks;
mod jwt;
mod principal;

use std::collections::BTreeSet;
use std::rc::Rc;

use http::{HeaderMap, Method, Request};

use crate::body::Body;
use crate::config::{Authentication, Config};
use crate::error::{Error, Rejection};
use crate::ingress::Peer;
use crate::memory::Bounded;
use crate::platform::Platform;
use crate::tenancy::Site;
use challenge::Scheme;
use credentials::Credentials;
use judging::Judging;

pub use dpop::ProofFamily;
pub use gateway_key::{KEY_ISSUER, KEY_PREFIX, KeyFamily, KeyHash, KeyRecord, NewKey};
pub(crate) use jwks::{AGENT, document};
pub use jwks::{JwksFamily, JwksRecord};
pub use principal::{Principal, PrincipalId};

/// Most tokens whose signature one isolate remembers.
pub const TOKENS_MAX: usize = 1024;
/// Longest token looked at, in bytes.
pub const TOKEN_MAX: usize = 16 * 1024;

/// SHA-256 of something, in place of the thing itself.
type Sha256Digest = [u8; 32];

/// What an isolate remembers of tokens and keys.
pub struct Memory {
    /// Which key signed a token, by the token's digest.
    signers: Bounded<Sha256Digest, Sha256Digest>,
    keys: jwks::Memory,
    introspection: introspection::Memory,
    gateway_keys: gateway_key::Memory,
    revocation: revocation::Memory,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            signers: Bounded::new(TOKENS_MAX),
            keys: jwks::Memory::default(),
            introspection: introspection::Memory::default(),
            gateway_keys: gateway_key::Memory::default(),
            revocation: revocation::Memory::default(),
        }
    }
}

/// The protected resource a token must be meant for: one endpoint of this gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its canonical URL, such as `https://host/mcp`: the audience of its tokens.
    pub url: String,
    /// Where its metadata is (RFC 9728 section 3.1).
    pub metadata_url: String,
    /// Whether tokens bound to a key of the client's are taken (RFC 9449).
    pub proofs: bool,
    /// The tenant it is of, where its URL says so.
    pub tenant: Option<String>,
}

impl Resource {
    /// The resource at `endpoint_path`, such as `/mcp` or `/servers/x/mcp`.
    pub fn of(config: &Config, endpoint_path: &str) -> Self {
        Self::at(config, config.public_url.as_str(), endpoint_path, None)
    }

    /// The resource at a path of one tenant's part of the gateway.
    pub fn within(config: &Config, site: &Site, endpoint_path: &str) -> Self {
        Self::at(
            config,
            &site.origin,
            endpoint_path,
            Some(site.tenant.clone()),
        )
    }

    fn at(config: &Config, origin: &str, endpoint_path: &str, tenant: Option<String>) -> Self {
        let origin = origin.trim_end_matches('/');
        let path = endpoint_path.trim_end_matches('/');
        let issuers = metadata::issuers(config, tenant.as_deref());
        let proofs = issuers.iter().any(|issuer| !issuer.dpop.is_off());
        Self {
            url: format!("{origin}{path}"),
            metadata_url: format!("{origin}{}{path}", metadata::WELL_KNOWN),
            proofs,
            tenant,
        }
    }

    /// Whether a principal of this tenant may be at it.
    fn takes(&self, principal: &Principal) -> Result<(), Error> {
        match &self.tenant {
            Some(_) if principal.tenant != self.tenant => Err(Rejection::OtherTenant.into()),
            Some(_) | None => Ok(()),
        }
    }
}

/// What of a request says who sent it.
#[derive(Clone, Copy)]
pub struct Sender<'a> {
    /// The HTTP method.
    pub method: &'a Method,
    /// The path, as it was sent.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// What the host knows of the connection, if it says.
    pub peer: Option<&'a Peer>,
}

impl<'a> Sender<'a> {
    /// Whoever sent this request.
    pub fn of(request: &'a Request<Body>) -> Self {
        Self {
            method: request.method(),
            path: request.uri().path(),
            headers: request.headers(),
            peer: request.extensions().get(),
        }
    }
}

/// Why a token is not accepted, in words that may be shown to whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused(&'static str);

impl Refused {
    fn rejection(self, resource: &Resource, scheme: Scheme) -> Error {
        let challenge = challenge::invalid_token(resource, scheme, self.0);
        let reason = self.0;
        Rejection::Unauthenticated { challenge, reason }.into()
    }
}

/// The token in a request that has been accepted, if it is one an authorization server gave.
pub(crate) fn shown<'a>(
    headers: &'a HeaderMap,
    principal: &Principal,
    resource: &Resource,
) -> Option<&'a str> {
    if principal.issuer.is_empty() || principal.issuer == KEY_ISSUER {
        return None;
    }
    let shown = Credentials::read(headers, resource, BTreeSet::new).ok()?;
    Some(shown.token)
}

/// Finds out who sent a request to `resource`; where the configuration asks nobody, that is
/// the anonymous principal.
pub async fn authenticate<P: Platform>(
    platform: &P,
    memory: &Memory,
    config: &Config,
    sender: Sender<'_>,
    resource: &Resource,
) -> Result<Rc<Principal>, Error> {
    let (issuers, gateway_keys, revocation) = match &config.authentication {
        Authentication::Jwt {
            issuers,
            gateway_keys,
            revocation,
        } => (issuers, *gateway_keys, *revocation),
        Authentication::None => {
            return Ok(Rc::new(Principal::anonymous_of(resource.tenant.clone())));
        }
    };
    let scopes = || metadata::scopes(config, resource);
    let shown = Credentials::read(sender.headers, resource, scopes)?;
    let refuse = |refused: Refused| refused.rejection(resource, shown.scheme);
    let principal = if gateway_keys && gateway_key::is_one(shown.token) {
        let known = gateway_key::principal(platform, &memory.gateway_keys, shown, resource);
        known.await?.map_err(refuse)?
    } else {
        let judging = Judging {
            platform,
            memory,
            issuers,
            sender,
            resource,
            shown,
        };
        judging.principal().await?
    };
    resource.takes(&principal)?;
    if revocation::holds(
        platform,
        &memory.revocation,
        (revocation, issuers),
        &principal,
    )
    .await?
    {
        return Err(refuse(Refused("The token has been revoked.")));
    }
    Ok(Rc::new(principal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_its_public_url_without_a_trailing_slash() {
        let cases = [
            (
                "https://gw.example",
                "/mcp",
                "https://gw.example/mcp",
                "https://gw.example/.well-known/oauth-protected-resource/mcp",
            ),
            (
                "https://gw.example/",
                "/mcp/",
                "https://gw.example/mcp",
                "https://gw.example/.well-known/oauth-protected-resource/mcp",
            ),
            (
                "http://127.0.0.1:8787",
                "/servers/x/mcp",
                "http://127.0.0.1:8787/servers/x/mcp",
                "http://127.0.0.1:8787/.well-known/oauth-protected-resource/servers/x/mcp",
            ),
        ];
        for (public_url, path, url, metadata_url) in cases {
            let resource = Resource::of(&config(public_url), path);
            assert_eq!(
                (resource.url.as_str(), resource.metadata_url.as_str()),
                (url, metadata_url)
            );
        }
    }

    fn config(public_url: &str) -> Config {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "tidegate/v1",
            "kind": "Gateway",
            "metadata": { "name": "edge" },
            "publicUrl": public_url,
            "authentication": { "type": "none" },
            "upstreams": [],
        }))
        .unwrap()
    }
}
