//! Where an issuer's keys are, by its own word (RFC 8414, OpenID Connect Discovery 1.0).
//!
//! The document must name exactly the issuer it was asked of, or it speaks for another
//! (RFC 8414 section 3.3), and what it points to must be as safe to fetch as what a
//! configuration may name: https to a public host, or loopback where the issuer itself is.

use bytes::Bytes;
use serde::Deserialize;
use url::Url;

use super::origin::{Failure, get};
use crate::config::Issuer;
use crate::config::address::{is_loopback, may_be_fetched};
use crate::platform::Platform;

const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

/// What is read of a metadata document.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: Url,
}

/// The address of the issuer's keys.
pub(super) async fn key_url<P: Platform>(platform: &P, issuer: &Issuer) -> Result<Url, String> {
    let base = Url::parse(&issuer.issuer).map_err(|e| e.to_string())?;
    read(&document(platform, &base).await?, issuer, &base)
}

/// What an authorization server says of itself; whoever reads it compares its issuer.
pub(crate) async fn document<P: Platform>(platform: &P, base: &Url) -> Result<Bytes, String> {
    let mut reason = String::new();
    for url in places(base) {
        match get(platform, &url).await {
            Ok(document) => return Ok(document),
            // Served elsewhere, perhaps.
            Err(Failure::Status(status)) if status.is_client_error() => {
                reason = format!("no metadata: status {}", status.as_u16());
            }
            Err(failure) => return Err(format!("metadata: {failure}")),
        }
    }
    Err(reason)
}

/// Where metadata may be, in the order clients look for it (MCP 2026-07-28, authorization
/// server metadata discovery).
fn places(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    };
    let mut places = vec![at(format!("{OAUTH}{path}")), at(format!("{OPENID}{path}"))];
    if !path.is_empty() {
        places.push(at(format!("{path}{OPENID}")));
    }
    places
}

fn read(document: &[u8], issuer: &Issuer, base: &Url) -> Result<Url, String> {
    let metadata: Metadata =
        serde_json::from_slice(document).map_err(|_| "the metadata names no keys".to_owned())?;
    if metadata.issuer != issuer.issuer {
        return Err("the metadata is of another issuer".to_owned());
    }
    let url = metadata.jwks_uri;
    if !may_be_fetched(&url, is_loopback(base)) {
        return Err("the metadata points to keys that are not at a public https URL".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_clients_look() {
        let places = |issuer: &str| {
            let places = places(&Url::parse(issuer).unwrap());
            places.into_iter().map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(
            places("https://a.example"),
            [
                "https://a.example/.well-known/oauth-authorization-server",
                "https://a.example/.well-known/openid-configuration",
            ]
        );
        assert_eq!(
            places("https://a.example/realms/x/"),
            [
                "https://a.example/.well-known/oauth-authorization-server/realms/x",
                "https://a.example/.well-known/openid-configuration/realms/x",
                "https://a.example/realms/x/.well-known/openid-configuration",
            ]
        );
    }

    #[test]
    fn a_document_is_of_its_issuer_and_points_to_a_safe_place() {
        let cases = [
            (
                "https://a.example",
                "https://a.example",
                "https://keys.example/k",
                true,
            ),
            (
                "https://a.example",
                "https://a.example/",
                "https://keys.example/k",
                false,
            ),
            (
                "https://a.example",
                "https://b.example",
                "https://keys.example/k",
                false,
            ),
            (
                "https://a.example",
                "https://a.example",
                "http://keys.example/k",
                false,
            ),
            (
                "https://a.example",
                "https://a.example",
                "https://169.254.169.254/k",
                false,
            ),
            (
                "https://a.example",
                "https://a.example",
                "https://[::ffff:10.0.0.1]/k",
                false,
            ),
            (
                "https://a.example",
                "https://a.example",
                "http://127.0.0.1/k",
                false,
            ),
            (
                "https://a.example",
                "https://a.example",
                "https://u@keys.example/k",
                false,
            ),
            (
                "https://a.example",
                "https://a.example",
                "file:///etc/passwd",
                false,
            ),
            (
                "http://127.0.0.1:1",
                "http://127.0.0.1:1",
                "http://127.0.0.1:1/k",
                true,
            ),
            (
                "http://127.0.0.1:1",
                "http://127.0.0.1:1",
                "http://10.0.0.1/k",
                false,
            ),
        ];
        for (issuer, says, keys, good) in cases {
            let document = serde_json::json!({ "issuer": says, "jwks_uri": keys }).to_string();
            let base = Url::parse(issuer).unwrap();
            let config = serde_json::json!({ "issuer": issuer });
            let issuer: Issuer = serde_json::from_value(config).unwrap();
            let found = read(document.as_bytes(), &issuer, &base);
            assert_eq!(found.is_ok(), good, "{document}: {found:?}");
        }
    }
}
