//! The proof that a request comes from whoever holds the key its token is bound to
//! (RFC 9449): one signed statement for one method, one URL and one token.
//!
//! A proof is good for [`PROOF_WINDOW`] around its time, and once: its name is counted in
//! the atomic store, so a copy of it is refused wherever it arrives. Where that store cannot
//! be asked, no proof is accepted.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use super::jwks::Key;
use super::jwt::Token;
use super::{Judging, Refused, challenge};
use crate::error::{Error, Rejection};
use crate::keyspace::{Family, Key as StoreKey, Store, atomic_add};
use crate::platform::{Clock, Platform};
use crate::seal::hex;
use crate::time::Timestamp;

/// How far a proof's time may be from ours.
pub const PROOF_WINDOW: Duration = Duration::from_secs(5 * 60);
/// Longest proof looked at, in bytes.
pub const PROOF_MAX: usize = 8 * 1024;
/// Longest name of a proof, in bytes.
pub const PROOF_ID_MAX: usize = 256;

const PROOF: HeaderName = HeaderName::from_static("dpop");
const PROOF_TYPE: &str = "dpop+jwt";

/// How often a proof has been seen: one counter per key and name, for as long as the proof
/// could be used again.
pub struct ProofFamily;

impl Family for ProofFamily {
    type Record = i64;
    const NAME: &'static str = "proof";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(Duration::from_secs(2 * 5 * 60));
}

/// Checks that the request carries a proof by the key of this thumbprint.
pub(super) async fn prove<P: Platform>(
    judging: &Judging<'_, P>,
    thumbprint: &str,
) -> Result<(), Error> {
    let refuse = |Refused(reason)| {
        let challenge = challenge::invalid_proof(judging.resource, reason);
        Error::from(Rejection::Unauthenticated { challenge, reason })
    };
    let now = judging.platform.clock().now();
    let proof = header(judging).map_err(refuse)?;
    let token = check(judging, proof, thumbprint).map_err(refuse)?;
    let issued_at = issued_at(&token, now).map_err(refuse)?;
    let name = name(&token).map_err(refuse)?;
    let key = StoreKey::<ProofFamily>::of(&[&identity(thumbprint, name)]);
    let ends = issued_at + PROOF_WINDOW + Duration::from_secs(1);
    match atomic_add(judging.platform.atomic(), &key, 1, ends).await? {
        1 => Ok(()),
        _ => Err(refuse(Refused("The proof has been used before."))),
    }
}

/// The one proof of the request.
fn header<'a, P>(judging: &Judging<'a, P>) -> Result<&'a str, Refused> {
    let mut proofs = judging.sender.headers.get_all(PROOF).iter();
    let first = proofs.next().ok_or(Refused("Send a proof as `DPoP`."))?;
    if proofs.next().is_some() {
        return Err(Refused("Send exactly one proof."));
    }
    match first.to_str() {
        Ok(text) if text.len() <= PROOF_MAX => Ok(text),
        Ok(_) | Err(_) => Err(Refused("The proof is too long, or no text.")),
    }
}

/// Everything the proof says, and who signed it; but not when.
fn check<'a, P>(
    judging: &Judging<'_, P>,
    proof: &'a str,
    thumbprint: &str,
) -> Result<Token<'a>, Refused> {
    let token = Token::take_apart(proof).map_err(|_| Refused("The proof is malformed."))?;
    if token.header().get("typ").and_then(Value::as_str) != Some(PROOF_TYPE) {
        return Err(Refused("The proof's type is not dpop+jwt."));
    }
    let jwk = token.header().get("jwk");
    let (Some(jwk), Some(key)) = (jwk, jwk.and_then(Key::parse)) else {
        return Err(Refused("The proof carries no public key of a known kind."));
    };
    if thumbprint_of(jwk).as_deref() != Some(thumbprint) {
        return Err(Refused("The proof is by another key than the token's."));
    }
    let text = |name: &str| token.claims.get(name).and_then(Value::as_str);
    if text("htm") != Some(judging.sender.method.as_str()) {
        return Err(Refused("The proof is for another method."));
    }
    // Never what `Host` says: that is the sender's.
    let here = |url: Url| {
        let origin = judging
            .resource
            .url
            .strip_prefix(&url.origin().ascii_serialization());
        origin.is_some_and(|path| path.starts_with('/'))
            && url.path().trim_end_matches('/') == judging.sender.path.trim_end_matches('/')
    };
    let url = text("htu").and_then(|url| Url::parse(url).ok());
    if !url.is_some_and(here) {
        return Err(Refused("The proof is for another URL."));
    }
    let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(judging.shown.token));
    if text("ath") != Some(&digest) {
        return Err(Refused("The proof is for another token."));
    }
    match token.is_signed_by(&key) {
        true => Ok(token),
        false => Err(Refused("The proof's signature is not valid.")),
    }
}

fn issued_at(token: &Token<'_>, now: Timestamp) -> Result<Timestamp, Refused> {
    let issued_at = token.claims.time("iat").ok().flatten();
    let issued_at = issued_at.ok_or(Refused("The proof does not say when it was made."))?;
    if now.since(issued_at) > PROOF_WINDOW || issued_at.since(now) > PROOF_WINDOW {
        return Err(Refused("The proof is not of now."));
    }
    Ok(issued_at)
}

fn name<'a>(token: &'a Token<'_>) -> Result<&'a str, Refused> {
    let name = token.claims.get("jti").and_then(Value::as_str);
    name.filter(|name| !name.is_empty() && name.len() <= PROOF_ID_MAX)
        .ok_or(Refused("The proof has no name (`jti`), or a long one."))
}

/// Key part of a proof: two keys may use one name.
fn identity(thumbprint: &str, name: &str) -> String {
    let mut hash = Sha256::new();
    for part in [thumbprint, name] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..16])
}

/// The SHA-256 thumbprint of a public key (RFC 7638): of the members that make it, in
/// lexicographic order, without space.
fn thumbprint_of(jwk: &Value) -> Option<String> {
    let members: &[&str] = match jwk.get("kty")?.as_str()? {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        _ => return None,
    };
    let mut pairs = Vec::with_capacity(members.len());
    for name in members {
        let value = jwk.get(*name)?.as_str()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        // Nothing that JSON would write otherwise.
        if !value.bytes().all(plain) {
            return None;
        }
        pairs.push(format!(r#""{name}":"{value}""#));
    }
    let text = format!("{{{}}}", pairs.join(","));
    Some(URL_SAFE_NO_PAD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_thumbprint_is_that_of_the_rfcs_examples() {
        // RFC 7638 section 3.1 and RFC 8037 appendix A.3.
        let rsa = json!({
            "kty": "RSA", "alg": "RS256", "kid": "2011-04-29", "e": "AQAB",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        });
        let okp = json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        });
        for (jwk, expected) in [
            (rsa, Some("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs")),
            (okp, Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")),
            (json!({ "kty": "OKP", "crv": "Ed25519" }), None),
            (json!({ "kty": "OKP", "crv": "a\",\"b", "x": "a" }), None),
            (json!({ "kty": "oct", "k": "a" }), None),
        ] {
            assert_eq!(thumbprint_of(&jwk).as_deref(), expected);
        }
    }
}
