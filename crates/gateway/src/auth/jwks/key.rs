//! One public key, and the algorithms it may be used with (RFC 7517, RFC 7518, RFC 8037).
//!
//! The kind of key decides which algorithms there can be, and the key's own `alg` leaves one
//! of them: a token never chooses.

use ed25519_compact::Signature as EdSignature;
use jwt_simple::prelude::{
    ECDSAP256PublicKeyLike, ECDSAP384PublicKeyLike, ES256PublicKey, ES384PublicKey,
    Ed25519PublicKey, EdDSAPublicKeyLike, RS256PublicKey, RSAPublicKeyLike,
};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384};
use superboring::hash::MessageDigest;
use superboring::pkey::{PKey, Public};
use superboring::rsa::Padding;
use superboring::sign::Verifier;

use crate::auth::Sha256Digest;
use crate::config::Algorithm;

/// Members of a public signature key; everything else, such as certificates, is dropped.
const PUBLIC_MEMBERS: [&str; 10] = [
    "kty", "kid", "alg", "use", "key_ops", "crv", "x", "y", "n", "e",
];
/// Members only a private or symmetric key has. Published, it is nobody's secret any more.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Algorithms of an RSA key.
const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A key, ready to verify.
pub(in crate::auth) struct Key {
    /// Its `kid`.
    pub(in crate::auth) id: Option<String>,
    /// Digest of all its public members.
    pub(in crate::auth) digest: Sha256Digest,
    algorithms: &'static [Algorithm],
    kind: Kind,
}

enum Kind {
    Rsa(Box<PKey<Public>>),
    P256(Box<ES256PublicKey>),
    P384(Box<ES384PublicKey>),
    Ed25519(Box<Ed25519PublicKey>),
}

impl Kind {
    /// RSA keys have 2048 to 4096 bits and exponent 65537; the library refuses others. It
    /// also checks `use` and `key_ops`.
    fn parse(jwk: &Map<String, Value>) -> Option<Self> {
        let mut jwk = jwk.clone();
        // Judged by us: the library knows one algorithm for each kind of key it has.
        jwk.shift_remove("alg");
        let member = |name: &str| jwk.get(name).and_then(Value::as_str);
        let kind = (member("kty")?, member("crv"));
        let text = Value::Object(jwk.clone()).to_string();
        Some(match kind {
            ("RSA", None) => {
                let key = RS256PublicKey::from_jwk(&text).ok()?;
                let key = PKey::from_rsa(key.public_key().as_ref().clone());
                Self::Rsa(Box::new(key.ok()?))
            }
            ("EC", Some("P-256")) => Self::P256(Box::new(ES256PublicKey::from_jwk(&text).ok()?)),
            ("EC", Some("P-384")) => Self::P384(Box::new(ES384PublicKey::from_jwk(&text).ok()?)),
            ("OKP", Some("Ed25519")) => {
                Self::Ed25519(Box::new(Ed25519PublicKey::from_jwk(&text).ok()?))
            }
            _ => return None,
        })
    }

    const fn algorithms(&self) -> &'static [Algorithm] {
        match self {
            Self::Rsa(_) => RSA,
            Self::P256(_) => &[Algorithm::ES256],
            Self::P384(_) => &[Algorithm::ES384],
            Self::Ed25519(_) => &[Algorithm::EdDSA],
        }
    }
}

impl Key {
    /// The key, if it is for verifying signatures with an algorithm of ours.
    pub(in crate::auth) fn parse(jwk: &Value) -> Option<Self> {
        let members = public_members(jwk)?;
        let kind = Kind::parse(&members)?;
        let algorithms = match members.get("alg") {
            None => kind.algorithms(),
            // One of those its kind can do, or the key is for something else.
            Some(named) => {
                let named = Algorithm::named(named.as_str()?)?;
                let of_kind = kind.algorithms();
                let at = of_kind.iter().position(|known| *known == named)?;
                &of_kind[at..=at]
            }
        };
        let id = members.get("kid").and_then(Value::as_str);
        Some(Self {
            id: id.map(str::to_owned),
            digest: Sha256::digest(Value::Object(members.clone()).to_string()).into(),
            algorithms,
            kind,
        })
    }

    /// Whether a signature of this algorithm can be this key's.
    pub(in crate::auth) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether this key signed `text` with `algorithm`, which the text's author names and the
    /// key must agree to.
    pub(in crate::auth) fn signed(
        &self,
        text: &str,
        algorithm: Algorithm,
        signature: &[u8],
    ) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        match &self.kind {
            Kind::Rsa(key) => signed_by_rsa(key, text, algorithm, signature).unwrap_or(false),
            Kind::P256(key) => {
                p256::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| {
                    let key = key.public_key().as_ref();
                    key.verify_prehash(&Sha256::digest(text), &signature)
                        .is_ok()
                })
            }
            Kind::P384(key) => {
                p384::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| {
                    let key = key.public_key().as_ref();
                    key.verify_prehash(&Sha384::digest(text), &signature)
                        .is_ok()
                })
            }
            Kind::Ed25519(key) => EdSignature::from_slice(signature)
                .is_ok_and(|signature| key.public_key().as_ref().verify(text, &signature).is_ok()),
        }
    }
}

fn signed_by_rsa(
    key: &PKey<Public>,
    text: &str,
    algorithm: Algorithm,
    signature: &[u8],
) -> Option<bool> {
    let (digest, padding) = match algorithm {
        Algorithm::RS256 => (MessageDigest::sha256(), Padding::PKCS1),
        Algorithm::RS384 => (MessageDigest::sha384(), Padding::PKCS1),
        Algorithm::RS512 => (MessageDigest::sha512(), Padding::PKCS1),
        Algorithm::PS256 => (MessageDigest::sha256(), Padding::PKCS1_PSS),
        Algorithm::PS384 => (MessageDigest::sha384(), Padding::PKCS1_PSS),
        Algorithm::PS512 => (MessageDigest::sha512(), Padding::PKCS1_PSS),
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => return None,
    };
    let mut verifier = Verifier::new(digest, key).ok()?;
    verifier.set_rsa_padding(padding).ok()?;
    verifier.update(text.as_bytes()).ok()?;
    verifier.verify(signature).ok()
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
    use jwt_simple::prelude::{
        ES256KeyPair, ES384KeyPair, Ed25519KeyPair, PS512KeyPair, RS256KeyPair,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_for_the_algorithms_of_its_kind_and_its_word_leaves_one() {
        let rsa = RS256KeyPair::generate(2048).unwrap().public_key().to_jwk();
        let pss = PS512KeyPair::generate(2048).unwrap().public_key().to_jwk();
        let keys = [
            (rsa, Algorithm::RS256),
            (pss, Algorithm::PS512),
            (
                ES256KeyPair::generate().public_key().to_jwk(),
                Algorithm::ES256,
            ),
            (
                ES384KeyPair::generate().public_key().to_jwk(),
                Algorithm::ES384,
            ),
            (
                Ed25519KeyPair::generate().public_key().to_jwk(),
                Algorithm::EdDSA,
            ),
        ];
        for (jwk, algorithm) in keys {
            assert_eq!(usable(&jwk, json!({})), [algorithm]);
            assert_eq!(
                usable(&jwk, json!({ "use": "sig", "x5c": ["A".repeat(20_000)] })),
                [algorithm]
            );
            let kind: &[Algorithm] = if RSA.contains(&algorithm) {
                RSA
            } else {
                &[algorithm]
            };
            assert_eq!(usable(&jwk, json!({ "alg": null })), kind);
            for spoiled in [
                json!({ "use": "enc" }),
                json!({ "key_ops": ["encrypt"] }),
                json!({ "alg": "HS256" }),
                json!({ "alg": "none" }),
                json!({ "alg": 7 }),
                json!({ "kty": "oct" }),
                json!({ "crv": "P-521" }),
                json!({ "kid": 7 }),
                // A private key is nobody's secret any more.
                json!({ "d": "AQAB" }),
            ] {
                assert_eq!(usable(&jwk, spoiled.clone()), [], "{spoiled}");
            }
            for other in Algorithm::ALL {
                let same_kind = kind.contains(&other);
                let expected: &[Algorithm] = if same_kind { &[other] } else { &[] };
                assert_eq!(usable(&jwk, json!({ "alg": other })), expected);
            }
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
            let jwk = json!({ "kty": "RSA", "n": n, "e": e }).to_string();
            assert_eq!(usable(&jwk, json!({})), [], "{jwk}");
        }
        let good = RS256KeyPair::generate(2048).unwrap().public_key().to_jwk();
        assert_eq!(usable(&good, json!({ "e": "Aw" })), []);
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

    /// The algorithms a changed key verifies; `null` takes a member away.
    fn usable(jwk: &str, changes: Value) -> Vec<Algorithm> {
        let mut jwk: Value = serde_json::from_str(jwk).unwrap();
        let members = jwk.as_object_mut().unwrap();
        members.extend(changes.as_object().unwrap().clone());
        members.retain(|_, value| !value.is_null());
        let Some(key) = Key::parse(&jwk) else {
            return Vec::new();
        };
        let is_for = |algorithm: &Algorithm| key.is_for(*algorithm);
        Algorithm::ALL.into_iter().filter(is_for).collect()
    }
}
