//! One public key, and the algorithms it may be used with (RFC 7517, RFC 7518, RFC 8037).
//!
//! The kind of key decides which algorithms there can be, and the key's own `alg` leaves one
//! of them: a token never chooses. What a key is parsed into is kept for each algorithm,
//! because parsing an RSA key is slow.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use jwt_simple::prelude as jwt;
use jwt_simple::prelude::{
    ECDSAP256PublicKeyLike, ECDSAP384PublicKeyLike, EdDSAPublicKeyLike, RSAPublicKeyLike,
};
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

/// Algorithms of an RSA key.
const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Whether a token's text, under these options, is signed by the key inside.
type Verifier = Rc<dyn Fn(&str, jwt::VerificationOptions) -> bool>;

/// A key that may verify.
pub(in crate::auth) struct Key {
    /// Its `kid`.
    pub(in crate::auth) id: Option<String>,
    /// Digest of all its public members.
    pub(in crate::auth) digest: Sha256Digest,
    algorithms: &'static [Algorithm],
    text: String,
    /// What it was parsed into, or that it cannot be.
    verifiers: RefCell<BTreeMap<Algorithm, Option<Verifier>>>,
}

impl Key {
    /// The key, if it is of a kind that verifies signatures with an algorithm of ours.
    pub(in crate::auth) fn parse(jwk: &Value) -> Option<Self> {
        let text = Value::Object(public_members(jwk)?).to_string();
        let member = |name: &str| jwk.get(name).and_then(Value::as_str);
        let algorithms = match (member("kty")?, member("crv")) {
            ("RSA", None) => RSA,
            ("EC", Some("P-256")) => &[Algorithm::ES256],
            ("EC", Some("P-384")) => &[Algorithm::ES384],
            ("OKP", Some("Ed25519")) => &[Algorithm::EdDSA],
            _ => return None,
        };
        let algorithms = match jwk.get("alg") {
            None => algorithms,
            // One of those its kind can do, or the key is for something else.
            Some(named) => {
                let named = Algorithm::named(named.as_str()?)?;
                let at = algorithms.iter().position(|known| *known == named)?;
                &algorithms[at..=at]
            }
        };
        Some(Self {
            id: member("kid").map(str::to_owned),
            digest: Sha256::digest(&text).into(),
            algorithms,
            text,
            verifiers: RefCell::default(),
        })
    }

    /// Whether a signature of this algorithm can be this key's.
    pub(in crate::auth) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether this key signed `text` with `algorithm`, as the token says, under `options`.
    pub(in crate::auth) fn verifies(
        &self,
        text: &str,
        algorithm: Algorithm,
        options: jwt::VerificationOptions,
    ) -> bool {
        self.verifier(algorithm)
            .is_some_and(|verifier| verifier(text, options))
    }

    fn verifier(&self, algorithm: Algorithm) -> Option<Verifier> {
        if !self.is_for(algorithm) {
            return None;
        }
        let mut parsed = self.verifiers.borrow_mut();
        let verifier = parsed.entry(algorithm);
        verifier
            .or_insert_with(|| parse(&self.text, algorithm))
            .clone()
    }
}

/// RSA keys have 2048 to 4096 bits and exponent 65537; the library refuses others. It also
/// checks `alg`, `use` and `key_ops` against what the key is for.
fn parse(jwk: &str, algorithm: Algorithm) -> Option<Verifier> {
    macro_rules! verifier {
        ($key:ty) => {{
            let key = <$key>::from_jwk(jwk).ok()?;
            Some(Rc::new(move |text: &str, options| {
                key.verify_token::<jwt::NoCustomClaims>(text, Some(options))
                    .is_ok()
            }))
        }};
    }
    match algorithm {
        Algorithm::RS256 => verifier!(jwt::RS256PublicKey),
        Algorithm::RS384 => verifier!(jwt::RS384PublicKey),
        Algorithm::RS512 => verifier!(jwt::RS512PublicKey),
        Algorithm::PS256 => verifier!(jwt::PS256PublicKey),
        Algorithm::PS384 => verifier!(jwt::PS384PublicKey),
        Algorithm::PS512 => verifier!(jwt::PS512PublicKey),
        Algorithm::ES256 => verifier!(jwt::ES256PublicKey),
        Algorithm::ES384 => verifier!(jwt::ES384PublicKey),
        Algorithm::EdDSA => verifier!(jwt::Ed25519PublicKey),
    }
}

/// The members we read, in an order of our own; nothing for a key that is not public.
pub(in crate::auth) fn public_members(jwk: &Value) -> Option<Map<String, Value>> {
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
            json!({ "kty": "EC" }),
            json!({ "kty": 1 }),
        ] {
            assert!(Key::parse(&jwk).is_none(), "{jwk}");
        }
        assert_eq!(usable(r#"{"kty":"EC","crv":"P-256"}"#, json!({})), []);
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
        let verifies = |algorithm: &Algorithm| key.verifier(*algorithm).is_some();
        Algorithm::ALL.into_iter().filter(verifies).collect()
    }
}
