//! Who is asking: OAuth 2.1 bearer tokens, the gateway being the resource server
//! (MCP 2026-07-28 authorization; RFC 6750, RFC 7519, RFC 8725, RFC 9728).
//!
//! Every request is judged anew: shape, issuer, audience, times and required claims each
//! time, so that a changed configuration or an expired token takes effect at once. Only
//! the costly part, that one key signed exactly this text, is remembered, and only for as
//! long as the issuer still publishes that key. Failed signatures are not remembered:
//! whoever sends them varies them.

pub mod challenge;
pub mod metadata;

mod claims;
mod jwks;
mod jwt;
mod principal;

use std::rc::Rc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use tidegate_mcp::jsonrpc::RpcError;

use crate::config::{Authentication, Config, Issuer};
use crate::error::{Error, REFUSED, Rejection};
use crate::memory::Bounded;
use crate::platform::{Clock, Platform};

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
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            signers: Bounded::new(TOKENS_MAX),
            keys: jwks::Memory::default(),
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
}

impl Resource {
    /// The resource at `endpoint_path`, such as `/mcp` or `/servers/x/mcp`.
    pub fn of(config: &Config, endpoint_path: &str) -> Self {
        let origin = config.public_url.as_str().trim_end_matches('/');
        let path = endpoint_path.trim_end_matches('/');
        Self {
            url: format!("{origin}{path}"),
            metadata_url: format!("{origin}{}{path}", metadata::WELL_KNOWN),
        }
    }
}

/// Why a token is not accepted, in words that may be shown to whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused(&'static str);

impl Refused {
    fn rejection(self, resource: &Resource) -> Error {
        let challenge = challenge::invalid_token(resource, self.0);
        Rejection::Unauthenticated {
            challenge,
            reason: self.0,
        }
        .into()
    }
}

/// Finds out who sent a request with these headers to `resource`; where the configuration
/// asks nobody, that is the anonymous principal.
pub async fn authenticate<P: Platform>(
    platform: &P,
    memory: &Memory,
    config: &Config,
    headers: &HeaderMap,
    resource: &Resource,
) -> Result<Rc<Principal>, Error> {
    let issuers = match &config.authentication {
        Authentication::Jwt { issuers } => issuers,
        Authentication::None => return Ok(Rc::new(Principal::anonymous())),
    };
    let text = bearer_token(headers, resource)?;
    let refuse = |refused: Refused| refused.rejection(resource);
    let token = jwt::Token::parse(text).map_err(refuse)?;
    // RFC 8414: issuers are compared as the text they are.
    let issuer = issuers
        .iter()
        .find(|issuer| Some(issuer.issuer.as_str()) == token.claims.issuer());
    let issuer =
        issuer.ok_or_else(|| refuse(Refused("The token's issuer is not trusted here.")))?;
    let expected = claims::Expected {
        issuer,
        resource: &resource.url,
        now: platform.clock().now(),
    };
    // Before any key is fetched or any signature computed: nobody makes us work with a
    // token that could not be accepted anyway.
    token.check(&expected).map_err(refuse)?;
    // RFC 9449 section 7.1: a token bound to a key proves nothing without the proof.
    if token.claims.get("cnf").is_some() {
        return Err(refuse(Refused(
            "The token is bound to a key and cannot be used as a bearer token.",
        )));
    }
    if !signed(platform, memory, issuer, &token, &expected).await? {
        return Err(refuse(Refused("The token's signature is not valid.")));
    }
    Principal::of(issuer, &token.claims)
        .map(Rc::new)
        .map_err(refuse)
}

/// Whether a key the issuer publishes now has signed the token.
async fn signed<P: Platform>(
    platform: &P,
    memory: &Memory,
    issuer: &Issuer,
    token: &jwt::Token<'_>,
    expected: &claims::Expected<'_>,
) -> Result<bool, Error> {
    let digest: Sha256Digest = Sha256::digest(token.text()).into();
    let mut keys = jwks::load(platform, &memory.keys, issuer).await?;
    if memory
        .signers
        .get(&digest)
        .is_some_and(|signer| keys.holds(&signer))
    {
        return Ok(true);
    }
    if keys.lacks(token.key_id()) {
        keys = jwks::refresh(platform, &memory.keys, issuer, token.key_id(), keys).await;
    }
    let signer = keys
        .candidates(token.key_id(), token.algorithm())
        .find(|key| token.is_signed_by(key, expected));
    if let Some(key) = signer {
        memory.signers.insert(digest, key.digest);
    }
    Ok(signer.is_some())
}

/// The one bearer token of a request. Tokens in the query are never looked for.
fn bearer_token<'a>(headers: &'a HeaderMap, resource: &Resource) -> Result<&'a str, Error> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next();
    if values.next().is_some() {
        let error = RpcError::new(REFUSED, "Send exactly one `Authorization` header.");
        return Err(Rejection::envelope(error).into());
    }
    let bytes = first.map_or(&b""[..], |value| value.as_bytes());
    let (scheme, token) = match bytes.iter().position(|byte| *byte == b' ') {
        Some(space) => (&bytes[..space], &bytes[space..]),
        None => (bytes, &b""[..]),
    };
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        let challenge = challenge::no_credentials(resource, &BTreeSet::new());
        let reason =
            "Send `Authorization: Bearer …`; see WWW-Authenticate for where to get a token.";
        return Err(Rejection::Unauthenticated { challenge, reason }.into());
    }
    if token.len() > TOKEN_MAX {
        return Err(Refused("The token is too long.").rejection(resource));
    }
    let token = token.trim_ascii();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match std::str::from_utf8(token) {
        Ok(text) if !token.is_empty() && token.iter().all(plain) => Ok(text),
        Ok(_) | Err(_) => Err(Refused("The token is not a JSON Web Token.").rejection(resource)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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

    #[test]
    fn exactly_one_well_formed_bearer_token_is_read() {
        let long = format!("Bearer {}", "a".repeat(TOKEN_MAX + 1));
        let cases: [(&[&str], Result<&str, &str>); 13] = [
            (&["Bearer a.b.c"], Ok("a.b.c")),
            (&["bearer a.b.c"], Ok("a.b.c")),
            (&["BEARER   a.b.c "], Ok("a.b.c")),
            (&[], Err("no credentials")),
            (&[""], Err("no credentials")),
            (&["Basic dXNlcjpwdw=="], Err("no credentials")),
            (&["DPoP a.b.c"], Err("no credentials")),
            (&["Bearer"], Err("invalid_token")),
            (&["Bearer  "], Err("invalid_token")),
            (&["Bearer a.b.c d.e.f"], Err("invalid_token")),
            (&["Bearer a.b.c,Bearer d.e.f"], Err("invalid_token")),
            (&[&long], Err("invalid_token")),
            (&["Bearer a.b.c", "Bearer a.b.c"], Err("bad request")),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(read(&headers), expected.map(str::to_owned), "{values:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_token() {
        for bytes in [
            &b"Bearer \xff\xfe"[..],
            "Bearer käse".as_bytes(),
            b"Bearer a\tb",
        ] {
            let mut headers = HeaderMap::new();
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(bytes).unwrap());
            assert_eq!(read(&headers), Err("invalid_token"));
        }
    }

    fn read(headers: &HeaderMap) -> Result<String, &'static str> {
        let resource = Resource::of(&config("https://gw.example"), "/mcp");
        match bearer_token(headers, &resource) {
            Ok(token) => Ok(token.to_owned()),
            Err(Error::Rejection(Rejection::Unauthenticated { challenge, .. })) => {
                let challenge = challenge.to_str().unwrap();
                assert!(challenge.contains("resource_metadata="));
                Err(if challenge.contains("error=\"invalid_token\"") {
                    "invalid_token"
                } else {
                    "no credentials"
                })
            }
            Err(Error::Rejection(Rejection::Protocol { status, .. })) if status == 400 => {
                Err("bad request")
            }
            Err(other) => panic!("{other:?}"),
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
