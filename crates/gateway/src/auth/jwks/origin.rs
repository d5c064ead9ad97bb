//! Fetching a key set from the authorization server, within bounds of size and time.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use http::header::{ACCEPT, USER_AGENT};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::KEYS_MAX;
use super::key::public_members;
use crate::body::Body;
use crate::platform::{Clock, HttpClient, Platform};

/// How long the authorization server has to answer, until its answer has ended.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest key set read, in bytes.
pub const KEY_SET_MAX: usize = 256 * 1024;

/// The public members of the keys published at `url`, as a JWK Set.
pub(super) async fn fetch<P: Platform>(platform: &P, url: &Url) -> Result<Value, String> {
    let answer = pin!(exchange(platform, url));
    let limit = pin!(platform.clock().sleep(FETCH_TIMEOUT));
    match select(answer, limit).await {
        Either::Left((set, _)) => set,
        Either::Right(((), _)) => Err(format!("no answer within {} ms", FETCH_TIMEOUT.as_millis())),
    }
}

async fn exchange<P: Platform>(platform: &P, url: &Url) -> Result<Value, String> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(url.as_str())
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .body(Body::empty())
        .map_err(|e| e.to_string())?;
    let response = platform
        .http()
        .send(request)
        .await
        .map_err(|e| e.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("status {}", response.status().as_u16()));
    }
    let body = response
        .into_body()
        .read(KEY_SET_MAX)
        .await
        .map_err(|e| e.to_string())?;
    parse(&body).ok_or_else(|| "the answer is not a JWK Set".to_owned())
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
