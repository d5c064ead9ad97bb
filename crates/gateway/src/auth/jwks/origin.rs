//! Fetching keys and metadata from the authorization server, within bounds of size and time.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{ACCEPT, USER_AGENT};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::KEYS_MAX;
use super::discovery;
use super::key::public_members;
use crate::body::Body;
use crate::config::Issuer;
use crate::platform::{Clock, HttpClient, Platform};

/// How long the authorization server has to answer, until its last answer has ended.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How the gateway calls itself.
pub(crate) const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
/// Largest key set or metadata document read, in bytes.
pub const KEY_SET_MAX: usize = 256 * 1024;

/// The public members of the keys `issuer` publishes, as a JWK Set.
pub(super) async fn fetch<P: Platform>(platform: &P, issuer: &Issuer) -> Result<Value, String> {
    let answer = pin!(exchange(platform, issuer));
    let limit = pin!(platform.clock().sleep(FETCH_TIMEOUT));
    match select(answer, limit).await {
        Either::Left((set, _)) => set,
        Either::Right(((), _)) => Err(format!("no answer within {} ms", FETCH_TIMEOUT.as_millis())),
    }
}

async fn exchange<P: Platform>(platform: &P, issuer: &Issuer) -> Result<Value, String> {
    let set = match &issuer.jwks_uri {
        Some(url) => get(platform, url).await,
        None => get(platform, &discovery::key_url(platform, issuer).await?).await,
    };
    let set = set.map_err(|failure| failure.to_string())?;
    parse(&set).ok_or_else(|| "the answer is not a JWK Set".to_owned())
}

/// Why a document could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The server answered, with another status than 200.
    #[error("status {0}")]
    Status(StatusCode),
    /// There was no answer to use.
    #[error("{0}")]
    Other(String),
}

/// One document of the authorization server.
pub(super) async fn get<P: Platform>(platform: &P, url: &Url) -> Result<Bytes, Failure> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(url.as_str())
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, AGENT)
        .body(Body::empty())
        .map_err(|e| Failure::Other(e.to_string()))?;
    let sent = platform.http().send(request).await;
    let response = sent.map_err(|e| Failure::Other(e.to_string()))?;
    if response.status() != StatusCode::OK {
        return Err(Failure::Status(response.status()));
    }
    let body = response.into_body().read(KEY_SET_MAX).await;
    body.map_err(|e| Failure::Other(e.to_string()))
}

/// A set without keys is a set: the issuer has withdrawn them all.
fn parse(body: &[u8]) -> Option<Value> {
    let set: Value = serde_json::from_slice(body).ok()?;
    let keys: Vec<_> = set
        .get("keys")?
        .as_array()?
        .iter()
        .filter_map(public_members)
        .take(KEYS_MAX)
        .collect();
    Some(json!({ "keys": keys }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_public_is_kept_of_a_set() {
        let body = br#"{ "keys": [
            { "kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB", "x5c": ["long"] },
            { "kty": "RSA", "kid": "b", "n": "AQAB", "e": "AQAB", "d": "secret" },
            "no key"
        ], "other": true }"#;
        let kept = json!({ "keys": [{ "kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB" }] });
        assert_eq!(parse(body), Some(kept));
    }

    #[test]
    fn a_set_is_bounded_and_may_be_empty() {
        let many = json!({ "keys": vec![json!({ "kty": "RSA" }); KEYS_MAX + 1] });
        let kept = parse(many.to_string().as_bytes()).unwrap();
        assert_eq!(kept["keys"].as_array().map(Vec::len), Some(KEYS_MAX));
        assert_eq!(parse(br#"{ "keys": [] }"#), Some(json!({ "keys": [] })));
    }

    #[test]
    fn anything_else_is_no_set() {
        for body in [
            &b""[..],
            b"<html>",
            b"[]",
            b"{}",
            br#"{ "keys": {} }"#,
            br#"{ "keys": null }"#,
        ] {
            assert_eq!(parse(body), None);
        }
    }
}
