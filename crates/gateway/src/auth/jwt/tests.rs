use std::sync::LazyLock;

use jwt_simple::prelude::{
    ECDSAP256KeyPairLike, ECDSAP384KeyPairLike, ES256KeyPair, ES384KeyPair, Ed25519KeyPair,
    EdDSAKeyPairLike, HS256Key, JWTClaims, MACLike, NoCustomClaims, PS256KeyPair, PS384KeyPair,
    PS512KeyPair, RS256KeyPair, RS384KeyPair, RS512KeyPair, RSAKeyPairLike,
};
use serde_json::json;

use super::*;
use crate::config::Issuer;
use crate::time::Timestamp;

const RESOURCE: &str = "https://gw.example/mcp";
const NOW: u64 = 1_800_000_000;

#[test]
fn a_good_token_of_each_algorithm_is_accepted_under_its_own_name_only() {
    let (ec, p384, ed) = (
        ES256KeyPair::generate(),
        ES384KeyPair::generate(),
        Ed25519KeyPair::generate(),
    );
    // One key for all of them: RSA keys are slow to make.
    let rsa = RS256KeyPair::generate(2048).unwrap().to_der().unwrap();
    let jwk = RS256KeyPair::from_der(&rsa).unwrap().public_key().to_jwk();
    let mut jwk: Value = serde_json::from_str(&jwk).unwrap();
    jwk.as_object_mut().unwrap().remove("alg");
    let rsa_jwk = jwk.to_string();
    let claims = || library_claims(&good());
    macro_rules! by_rsa {
        ($pair:ty) => {
            <$pair>::from_der(&rsa).unwrap().sign(claims()).unwrap()
        };
    }
    let cases = [
        (by_rsa!(RS256KeyPair), rsa_jwk.clone(), Algorithm::RS256),
        (by_rsa!(RS384KeyPair), rsa_jwk.clone(), Algorithm::RS384),
        (by_rsa!(RS512KeyPair), rsa_jwk.clone(), Algorithm::RS512),
        (by_rsa!(PS256KeyPair), rsa_jwk.clone(), Algorithm::PS256),
        (by_rsa!(PS384KeyPair), rsa_jwk.clone(), Algorithm::PS384),
        (by_rsa!(PS512KeyPair), rsa_jwk, Algorithm::PS512),
        (
            ec.sign(claims()).unwrap(),
            ec.public_key().to_jwk(),
            Algorithm::ES256,
        ),
        (
            p384.sign(claims()).unwrap(),
            p384.public_key().to_jwk(),
            Algorithm::ES384,
        ),
        (
            ed.sign(claims()).unwrap(),
            ed.public_key().to_jwk(),
            Algorithm::EdDSA,
        ),
    ];
    for (text, jwk, algorithm) in cases {
        let token = Token::parse(&text).unwrap();
        assert_eq!(token.algorithm(), algorithm);
        assert_eq!(verdict(&text, &key(&jwk), &issuer(json!({}))), Ok(()));
        let (_, rest) = text.split_once('.').unwrap();
        for other in Algorithm::ALL
            .into_iter()
            .filter(|other| *other != algorithm)
        {
            let header = encode(&json!({ "alg": other }).to_string());
            let renamed = format!("{header}.{rest}");
            assert!(
                verdict(&renamed, &key(&jwk), &issuer(json!({}))).is_err(),
                "{algorithm:?} as {other:?}"
            );
        }
    }
}

#[test]
fn claims_decide_before_any_signature() {
    let accepted = Ok(());
    let refused = |reason| Err(Refused(reason));
    let audience = || refused("The token is not meant for this resource.");
    let early = || refused("The token is not valid yet.");
    let odd_time = || refused("The token has a time that is not a number of seconds.");
    let cases = [
        (json!({}), accepted),
        (
            json!({ "aud": ["https://other.example", RESOURCE] }),
            accepted,
        ),
        (json!({ "aud": "legacy-audience" }), accepted),
        (json!({ "aud": null }), audience()),
        (json!({ "aud": [] }), audience()),
        (json!({ "aud": "https://other.example/mcp" }), audience()),
        (json!({ "aud": "https://gw.example/mcp/" }), audience()),
        (json!({ "aud": "https://gw.example" }), audience()),
        (
            json!({ "aud": "https://gw.example/servers/x/mcp" }),
            audience(),
        ),
        (json!({ "aud": "HTTPS://GW.EXAMPLE/mcp" }), audience()),
        (json!({ "aud": { RESOURCE: true } }), audience()),
        (json!({ "exp": NOW }), refused("The token has expired.")),
        (json!({ "exp": NOW - 1 }), refused("The token has expired.")),
        (json!({ "exp": 0 }), refused("The token has expired.")),
        (json!({ "exp": NOW as f64 + 0.5 }), accepted),
        (json!({ "exp": u64::MAX }), accepted),
        (json!({ "exp": 1e300 }), accepted),
        (json!({ "exp": -1 }), odd_time()),
        (json!({ "exp": "1900000000" }), odd_time()),
        (json!({ "exp": null }), odd_time()),
        (json!({ "nbf": NOW + 60 }), accepted),
        (json!({ "nbf": NOW + 61 }), early()),
        (json!({ "iat": NOW + 60 }), accepted),
        (json!({ "iat": NOW + 61 }), early()),
        (json!({ "iat": u64::MAX }), early()),
        (json!({ "iat": [] }), odd_time()),
    ];
    for (changes, expected) in cases {
        assert_eq!(
            check(&changed(&good(), &changes), &issuer(json!({}))),
            expected,
            "{changes}"
        );
    }
    let mut endless = good();
    endless.as_object_mut().unwrap().remove("exp");
    assert_eq!(
        check(&endless, &issuer(json!({}))),
        refused("The token says no time at which it ends.")
    );
}

#[test]
fn required_claims_are_equal_or_contained() {
    let issuer =
        issuer(json!({ "requiredClaims": { "env": "prod", "groups": "mcp", "a.b": true } }));
    let full = json!({ "env": "prod", "groups": ["x", "mcp"], "a": { "b": true } });
    assert_eq!(check(&changed(&good(), &full), &issuer), Ok(()));
    let spoiled = [
        json!({ "env": "dev" }),
        json!({ "env": null }),
        json!({ "groups": "mcp2" }),
        json!({ "groups": ["x"] }),
        json!({ "groups": [["mcp"]] }),
        json!({ "a": { "b": "true" } }),
        json!({ "a": true }),
    ];
    for changes in spoiled {
        assert!(
            check(&changed(&changed(&good(), &full), &changes), &issuer).is_err(),
            "{changes}"
        );
    }
}

#[test]
fn hostile_headers_are_refused() {
    let pair = Ed25519KeyPair::generate();
    let jwk: Value = serde_json::from_str(&pair.public_key().to_jwk()).unwrap();
    let accepted = [
        json!({ "alg": "EdDSA" }),
        json!({ "alg": "Ed25519", "typ": "at+jwt" }),
        json!({ "alg": "EdDSA", "typ": "AT+JWT", "kid": "any" }),
        json!({ "alg": "EdDSA", "jku": "https://evil.example/keys", "x5u": "https://evil.example/cert" }),
        // The issuer's own keys count; one a token brings is not looked at.
        json!({ "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519", "x": "evil" } }),
    ];
    for header in accepted {
        let text = forge(&pair, &header.to_string(), &good().to_string());
        assert_eq!(
            verdict(&text, &key(&jwk.to_string()), &issuer(json!({}))),
            Ok(()),
            "{header}"
        );
    }
    let refused = [
        json!({ "alg": "none" }),
        json!({ "alg": "None" }),
        json!({ "alg": "" }),
        json!({ "alg": "HS256" }),
        json!({ "alg": "eddsa" }),
        json!({ "alg": "ES256" }),
        json!({ "alg": "RS256" }),
        json!({ "alg": ["EdDSA"] }),
        json!({}),
        json!({ "alg": "EdDSA", "typ": "oauth-id-jag+jwt" }),
        json!({ "alg": "EdDSA", "typ": "dpop+jwt" }),
        json!({ "alg": "EdDSA", "typ": "logout+jwt" }),
        json!({ "alg": "EdDSA", "typ": 7 }),
        json!({ "alg": "EdDSA", "kid": 7 }),
        json!({ "alg": "EdDSA", "crit": ["exp"] }),
        json!({ "alg": "EdDSA", "crit": [] }),
        json!({ "alg": "EdDSA", "crit": null }),
        json!({ "alg": "EdDSA", "b64": false, "crit": ["b64"] }),
    ];
    for header in refused {
        let text = forge(&pair, &header.to_string(), &good().to_string());
        assert!(
            verdict(&text, &key(&jwk.to_string()), &issuer(json!({}))).is_err(),
            "{header}"
        );
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let pair = RS256KeyPair::generate(2048).unwrap();
    let public = pair.public_key();
    let secrets = [
        public.to_pem().unwrap().into_bytes(),
        public.to_der().unwrap(),
        public.to_jwk().into_bytes(),
    ];
    for secret in secrets {
        let text = HS256Key::from_bytes(&secret)
            .authenticate(library_claims(&good()))
            .unwrap();
        assert_eq!(
            Token::parse(&text).err(),
            Some(Refused("The token's algorithm is not accepted."))
        );
        let mut parts = text.splitn(2, '.');
        parts.next();
        let relabelled = format!("{}.{}", encode(r#"{"alg":"RS256"}"#), parts.next().unwrap());
        assert!(verdict(&relabelled, &key(&public.to_jwk()), &issuer(json!({}))).is_err());
    }
}

#[test]
fn a_changed_token_or_another_key_is_refused() {
    let pair = Ed25519KeyPair::generate();
    let jwk = pair.public_key().to_jwk();
    let text = forge(&pair, r#"{"alg":"EdDSA"}"#, &good().to_string());
    let (head, signature) = text.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let admin = encode(&changed(&good(), &json!({ "roles": ["admin"] })).to_string());
    let other = Ed25519KeyPair::generate();
    assert!(
        verdict(
            &format!("{header}.{admin}.{signature}"),
            &key(&jwk),
            &issuer(json!({}))
        )
        .is_err()
    );
    assert!(verdict(&format!("{head}."), &key(&jwk), &issuer(json!({}))).is_err());
    assert!(verdict(&format!("{head}.AAAA"), &key(&jwk), &issuer(json!({}))).is_err());
    assert!(
        verdict(
            &format!("{head}.{signature}="),
            &key(&jwk),
            &issuer(json!({}))
        )
        .is_err()
    );
    assert!(
        verdict(
            &text,
            &key(&other.public_key().to_jwk()),
            &issuer(json!({}))
        )
        .is_err()
    );
    assert!(
        verdict(
            &text,
            &key(&ES256KeyPair::generate().public_key().to_jwk()),
            &issuer(json!({}))
        )
        .is_err()
    );
    assert_eq!(verdict(&text, &key(&jwk), &issuer(json!({}))), Ok(()));
}

#[test]
fn an_algorithm_the_issuer_is_not_configured_for_is_refused() {
    let pair = Ed25519KeyPair::generate();
    let text = forge(&pair, r#"{"alg":"EdDSA"}"#, &good().to_string());
    let issuer = issuer(json!({ "algorithms": ["RS256", "ES256"] }));
    let refused = Err(Refused("The token's algorithm is not accepted."));
    assert_eq!(
        verdict(&text, &key(&pair.public_key().to_jwk()), &issuer),
        refused
    );
}

#[test]
fn what_is_no_token_is_refused_without_harm() {
    let claims = encode(&good().to_string());
    let header = encode(r#"{"alg":"EdDSA"}"#);
    let deep = encode(&format!(
        "{{\"a\":{}1{}}}",
        "[".repeat(5_000),
        "]".repeat(5_000)
    ));
    let texts = [
        String::new(),
        "..".to_owned(),
        "a.b".to_owned(),
        "a.b.c".to_owned(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}.a.b.c"),
        format!("{header}.{}.a", encode("[]")),
        format!("{header}.{}.a", encode("null")),
        format!("{header}.{}.a", encode("{\"iss\":\"\u{fffd}\"}x")),
        format!("{header}.{deep}.a"),
        format!("{deep}.{claims}.a"),
        format!("{}.{claims}.a", encode(r#"{"alg":"none","alg":"EdDSA"}"#)),
        format!("{header}.{}.a", encode(r#"{"iss":"a","iss":"b"}"#)),
        format!("{header}.{}.a", encode(r#"{"sub":"a","\u0073ub":"b"}"#)),
        format!("{}.{claims}.a", URL_SAFE_NO_PAD.encode(b"\xff\xfe{}")),
        format!("{header}=.{claims}.a"),
    ];
    for text in texts {
        assert_eq!(
            Token::parse(&text).err(),
            Some(Refused("The token is not a JSON Web Token.")),
            "{text}"
        );
    }
}

#[test]
fn text_in_any_script_is_carried_as_it_is() {
    let token_claims = changed(
        &good(),
        &json!({ "sub": "아다 🔑 \u{202e}ada", "iss": "https://login.example" }),
    );
    let pair = Ed25519KeyPair::generate();
    let text = forge(
        &pair,
        r#"{"alg":"EdDSA","kid":"ключ"}"#,
        &token_claims.to_string(),
    );
    let token = Token::parse(&text).unwrap();
    assert_eq!(token.key_id(), Some("ключ"));
    assert_eq!(token.claims.get("sub"), Some(&token_claims["sub"]));
    assert_eq!(
        verdict(&text, &key(&pair.public_key().to_jwk()), &issuer(json!({}))),
        Ok(())
    );
}

fn good() -> Value {
    json!({ "iss": "https://login.example", "sub": "ada", "aud": RESOURCE, "exp": NOW + 300, "iat": NOW, "nbf": NOW })
}

fn issuer(changes: Value) -> Issuer {
    let issuer = json!({
        "issuer": "https://login.example",
        "jwksUri": "https://login.example/keys",
        "audiences": ["legacy-audience"],
    });
    serde_json::from_value(changed(&issuer, &changes)).unwrap()
}

fn changed(value: &Value, changes: &Value) -> Value {
    let mut value = value.clone();
    value
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    value
}

fn check(claims: &Value, issuer: &Issuer) -> Result<(), Refused> {
    Claims::of(claims).check(&expected(issuer), true)
}

fn verdict(text: &str, key: &Key, issuer: &Issuer) -> Result<(), Refused> {
    let token = Token::parse(text)?;
    token.check(&expected(issuer))?;
    if token.is_signed_by(key) {
        Ok(())
    } else {
        Err(Refused("signature"))
    }
}

fn expected(issuer: &Issuer) -> Expected<'_> {
    static HERE: LazyLock<super::super::Resource> = LazyLock::new(|| super::super::Resource {
        url: RESOURCE.to_owned(),
        metadata_url: String::new(),
        proofs: false,
        tenant: None,
    });
    Expected {
        issuer,
        resource: &HERE,
        now: Timestamp::from_secs(NOW),
    }
}

fn key(jwk: &str) -> Key {
    Key::parse(&serde_json::from_str(jwk).unwrap()).unwrap()
}

fn library_claims(claims: &Value) -> JWTClaims<NoCustomClaims> {
    serde_json::from_value(claims.clone()).unwrap()
}

/// A token with any header and payload, signed properly.
fn forge(pair: &Ed25519KeyPair, header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", encode(header), encode(payload));
    let signature = pair.key_pair().as_ref().sk.sign(&signed, None);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature[..]))
}

fn encode(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}
