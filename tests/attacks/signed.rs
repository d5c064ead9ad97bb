//! Headers and signatures: no algorithm, another one, another key, somebody else's key.

use jwt_simple::prelude::{Ed25519KeyPair, HS256Key, MACLike};
use serde_json::{Value, json};

use super::forge::{encode, library, renamed, sign};
use super::{Attack, Stage};

const SIGNATURE: &str = "The token's signature is not valid.";
const ALGORITHM: &str = "The token's algorithm is not accepted.";
const MALFORMED: &str = "The token is not a JSON Web Token.";
const KIND: &str = "The token is not an access token.";
const CRITICAL: &str = "The token's header has critical parts that are not understood here.";

pub fn rows(stage: &Stage) -> Vec<Attack> {
    let mut rows = headers(stage);
    rows.extend(confused(stage));
    rows.extend(tampered(stage));
    rows
}

fn headers(stage: &Stage) -> Vec<Attack> {
    let own: Value =
        serde_json::from_str(&Ed25519KeyPair::generate().public_key().to_jwk()).unwrap();
    let properly = [
        ("alg none", json!({ "alg": "none" }), ALGORITHM),
        ("alg None", json!({ "alg": "None" }), ALGORITHM),
        ("alg nOnE", json!({ "alg": "nOnE" }), ALGORITHM),
        ("alg empty", json!({ "alg": "" }), ALGORITHM),
        ("alg in small letters", json!({ "alg": "eddsa" }), ALGORITHM),
        ("alg HS256", json!({ "alg": "HS256" }), ALGORITHM),
        ("alg HS512", json!({ "alg": "HS512" }), ALGORITHM),
        ("alg ES512", json!({ "alg": "ES512" }), ALGORITHM),
        ("alg ES256K", json!({ "alg": "ES256K" }), ALGORITHM),
        ("alg missing", json!({ "alg": null }), MALFORMED),
        ("alg as a list", json!({ "alg": ["EdDSA"] }), MALFORMED),
        ("crit", json!({ "crit": ["exp"] }), CRITICAL),
        (
            "an unencoded payload",
            json!({ "b64": false, "crit": ["b64"] }),
            CRITICAL,
        ),
        ("kid as a number", json!({ "kid": 7 }), MALFORMED),
        ("a proof as a token", json!({ "typ": "dpop+jwt" }), KIND),
        (
            "an ID-JAG as a token",
            json!({ "typ": "oauth-id-jag+jwt" }),
            KIND,
        ),
        (
            "a logout token as a token",
            json!({ "typ": "logout+jwt" }),
            KIND,
        ),
        (
            "a security event as a token",
            json!({ "typ": "secevent+jwt" }),
            KIND,
        ),
        ("typ as a number", json!({ "typ": 7 }), KIND),
    ];
    let forged = [
        ("a key of its own in the header", json!({ "jwk": own })),
        (
            "a key set of its own",
            json!({ "jku": "https://evil.example/keys" }),
        ),
        (
            "a certificate of its own",
            json!({ "x5c": ["MIIB"], "x5u": "https://evil.example/c" }),
        ),
        ("a file as key id", json!({ "kid": "../../../../dev/null" })),
        (
            "a query as key id",
            json!({ "kid": "x' UNION SELECT 'key'--" }),
        ),
        ("an unknown key id", json!({ "kid": "key-of-tomorrow" })),
        ("no key id", json!({ "kid": null })),
        ("the good key's id", json!({})),
    ];
    let good = properly
        .map(|(name, header, reason)| stage.bearer(name, &stage.headed(header, json!({})), reason));
    let bad = forged.map(|(name, header)| {
        stage.bearer(
            &format!("forged with {name}"),
            &stage.forged(header),
            SIGNATURE,
        )
    });
    good.into_iter().chain(bad).collect()
}

/// One key's token under another algorithm.
fn confused(stage: &Stage) -> Vec<Attack> {
    let public = stage.keys.rsa.public_key();
    let claims = || library(stage.claims(json!({})));
    let shared = |secret: &[u8]| {
        let key = HS256Key::from_bytes(secret).with_key_id("rsa");
        key.authenticate(claims()).unwrap()
    };
    let pem = shared(public.to_pem().unwrap().as_bytes());
    let rsa = stage.by_rsa(json!({}));
    let ed = stage.good(json!({}));
    let psychic = {
        let header = json!({ "alg": "ES256", "kid": "ec" }).to_string();
        let claims = stage.claims(json!({})).to_string();
        format!("{}.{}.{}", encode(header), encode(claims), encode([0; 64]))
    };
    let head = |algorithm: &str, kid: &str| json!({ "alg": algorithm, "kid": kid });
    vec![
        stage.bearer("the public key's PEM as a secret", &pem, ALGORITHM),
        stage.bearer(
            "the public key's DER as a secret",
            &shared(&public.to_der().unwrap()),
            ALGORITHM,
        ),
        stage.bearer(
            "the public key's JWK as a secret",
            &shared(public.to_jwk().as_bytes()),
            ALGORITHM,
        ),
        stage.bearer(
            "HMAC under the name of RS256",
            &renamed(&pem, head("RS256", "rsa")),
            SIGNATURE,
        ),
        stage.bearer(
            "RS256 under the name of PS256",
            &renamed(&rsa, head("PS256", "rsa")),
            SIGNATURE,
        ),
        stage.bearer(
            "RS256 under the name of RS512",
            &renamed(&rsa, head("RS512", "rsa")),
            SIGNATURE,
        ),
        stage.bearer(
            "RS256 with an EdDSA key's id",
            &renamed(&rsa, head("RS256", "ed")),
            SIGNATURE,
        ),
        stage.bearer(
            "EdDSA under the name of ES256",
            &renamed(&ed, head("ES256", "ec")),
            SIGNATURE,
        ),
        stage.bearer(
            "EdDSA under the name of RS256",
            &renamed(&ed, head("RS256", "rsa")),
            SIGNATURE,
        ),
        stage.bearer("ES256 of nothing but zeros", &psychic, SIGNATURE),
    ]
}

/// A good token that was changed on its way.
fn tampered(stage: &Stage) -> Vec<Attack> {
    let good = stage.good(json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let admin = encode(stage.claims(json!({ "roles": ["admin"] })).to_string());
    let cut = &signature[..signature.len() - 4];
    let zeros = encode([0; 64]);
    let twice = r#"{"alg":"none","alg":"EdDSA"}"#;
    let key = &stage.keys.ed;
    let claims = stage.claims(json!({})).to_string();
    let doubled = claims.replacen('{', r#"{"sub":"mallory","#, 1);
    let eddsa = r#"{"alg":"EdDSA","kid":"ed"}"#;
    vec![
        stage.bearer(
            "claims exchanged",
            &format!("{header}.{admin}.{signature}"),
            SIGNATURE,
        ),
        stage.bearer("signature taken away", &format!("{signed}."), SIGNATURE),
        stage.bearer("signature cut short", &format!("{signed}.{cut}"), SIGNATURE),
        stage.bearer("signature padded", &format!("{good}=="), SIGNATURE),
        stage.bearer(
            "signature of zeros",
            &format!("{signed}.{zeros}"),
            SIGNATURE,
        ),
        stage.bearer(
            "a claim named twice",
            &sign(key, eddsa, &doubled),
            MALFORMED,
        ),
        stage.bearer("claims that are a list", &sign(key, eddsa, "[]"), MALFORMED),
        stage.bearer(
            "claims that are no JSON",
            &sign(key, eddsa, "{'sub':'ada'}"),
            MALFORMED,
        ),
        // Not read as a JSON Web Token at all, and its issuer does not know it.
        stage.bearer(
            "a header member named twice",
            &sign(key, twice, &claims),
            "The token is not active.",
        ),
        stage.bearer("two parts of three", signed, "The token is not active."),
        stage.bearer(
            "a part too many",
            &format!("{good}.{signature}"),
            "The token is not active.",
        ),
        stage.bearer(
            "an encrypted token",
            &format!("{header}.a.b.c.d"),
            "The token is not active.",
        ),
    ]
}
