//! One public key, parsed for the one algorithm it is for (RFC 7517, RFC 7518, RFC 8037).

use jwt_simple::prelude::{ES256PublicKey, Ed25519PublicKey, RS256PublicKey};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::auth::Sha256Digest;
use crate::config::Algorithm;

/// Members of a public signature key; everything else, such as certificates, is dropped.
const PUBLIC_MEMBERS: [&str; 10] = [
    "kty", "kid", "alg", "use", "key_ops", "crv", "x", "y", "n", "e",
];
/// Members only a private or symmetric key has. Published, it is nobody's secret any more.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A key, ready to verify.
pub(in crate::auth) struct Key {
    /// Its `kid`.
    pub(in crate::auth) id: Option<String>,
    /// Its kind, which decides the algorithm.
    pub(in crate::auth) verifier: Verifier,
    /// Digest of all its public members.
    pub(in crate::auth) digest: Sha256Digest,
}

/// A parsed key. RSA keys have 2048 to 4096 bits and exponent 65537; the library refuses
/// others.
pub(in crate::auth) enum Verifier {
    Rs256(Box<RS256PublicKey>),
    Es256(Box<ES256PublicKey>),
    EdDsa(Box<Ed25519PublicKey>),
}

impl Key {
    /// The key, if it is for verifying signatures with an algorithm of ours.
    pub(in crate::auth) fn parse(jwk: &Value) -> Option<Self> {
        let text = Value::Object(public_members(jwk)?).to_string();
        let member = |name: &str| jwk.get(name).and_then(Value::as_str);
        // The library checks `alg`, `use` and `key_ops` against the kind of key.
        let verifier = match (member("kty")?, member("crv")) {
            ("RSA", None) => Verifier::Rs256(Box::new(RS256PublicKey::from_jwk(&text).ok()?)),
            ("EC", Some("P-256")) => {
                Verifier::Es256(Box::new(ES256PublicKey::from_jwk(&text).ok()?))
            }
            ("OKP", Some("Ed25519")) => {
                Verifier::EdDsa(Box::new(Ed25519PublicKey::from_jwk(&text).ok()?))
            }
            _ => return None,
        };
        Some(Self {
            id: member("kid").map(str::to_owned),
            verifier,
            digest: Sha256::digest(&text).into(),
        })
    }

    /// The only algorithm this key verifies.
    pub(in crate::auth) const fn algorithm(&self) -> Algorithm {
        match self.verifier {
            Verifier::Rs256(_) => Algorithm::RS256,
            Verifier::Es256(_) => Algorithm::ES256,
            Verifier::EdDsa(_) => Algorithm::EdDSA,
        }
    }
}

/// The members we read, in an order of our own; nothing for a key that is not public.
pub(super) fn public_members(jwk: &Value) -> Option<Map<String, Value>> {
    let jwk = jwk.as_object()?;
    if PRIVATE_MEMBERS.iter().any(|name| jwk.contains_key(*name)) {
        return None;
    }
    let known = |name: &&str| Some(((*name).to_owned(), jwk.get(*name)?.clone()));
    Some(PUBLIC_MEMBERS.iter().filter_map(known).collect())
}

#[cfg(test)]
mod tests {
    use jwt_simple::prelude::{ES256KeyPair, Ed25519KeyPair, RS256KeyPair};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_for_one_algorithm() {
        let keys = [
            (
                RS256KeyPair::generate(2048).unwrap().public_key().to_jwk(),
                Algorithm::RS256,
            ),
            (
                ES256KeyPair::generate().public_key().to_jwk(),
                Algorithm::ES256,
            ),
            (
                Ed25519KeyPair::generate().public_key().to_jwk(),
                Algorithm::EdDSA,
            ),
        ];
        for (jwk, algorithm) in keys {
            assert_eq!(parsed(&jwk, json!({})), Some(algorithm));
            assert_eq!(
                parsed(&jwk, json!({ "use": "sig", "x5c": ["A".repeat(20_000)] })),
                Some(algorithm)
            );
            assert_eq!(parsed(&jwk, json!({ "use": "enc" })), None);
            assert_eq!(parsed(&jwk, json!({ "key_ops": ["encrypt"] })), None);
            assert_eq!(parsed(&jwk, json!({ "alg": "HS256" })), None);
            assert_eq!(parsed(&jwk, json!({ "alg": "RS512" })), None);
            assert_eq!(parsed(&jwk, json!({ "kty": "oct" })), None);
            assert_eq!(parsed(&jwk, json!({ "crv": "P-384" })), None);
            assert_eq!(parsed(&jwk, json!({ "kid": 7 })), None);
            assert_eq!(
                parsed(&jwk, json!({ "d": "AQAB" })),
                None,
                "a private key is nobody's secret any more"
            );
        }
    }

    #[test]
    fn weak_or_odd_rsa_keys_are_not_used() {
        let (short, even) = ("q".repeat(171), "q".repeat(341) + "o");
        for (n, e) in [
            (short.as_str(), "AQAB"),
            (even.as_str(), "AQAB"),
            ("", "AQAB"),
            ("%%", "AQAB"),
        ] {
            let jwk = json!({ "kty": "RSA", "n": n, "e": e });
            assert!(Key::parse(&jwk).is_none(), "{jwk}");
        }
        let good: Value =
            serde_json::from_str(&RS256KeyPair::generate(2048).unwrap().public_key().to_jwk())
                .unwrap();
        let mut jwk = good.clone();
        jwk["e"] = json!("Aw");
        assert!(Key::parse(&jwk).is_none() && Key::parse(&good).is_some());
    }

    #[test]
    fn what_is_no_key_is_no_key() {
        for jwk in [
            json!(null),
            json!("a"),
            json!([]),
            json!({}),
            json!({ "kty": "EC", "crv": "P-256" }),
            json!({ "kty": 1 }),
        ] {
            assert!(Key::parse(&jwk).is_none(), "{jwk}");
        }
    }

    fn parsed(jwk: &str, changes: Value) -> Option<Algorithm> {
        let mut jwk: Value = serde_json::from_str(jwk).unwrap();
        jwk.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        Key::parse(&jwk).map(|key| key.algorithm())
    }
}
