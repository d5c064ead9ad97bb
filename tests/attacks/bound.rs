//! Tokens bound to a key or a certificate, and proofs: none, another's, yesterday's, used.

use jwt_simple::prelude::Ed25519KeyPair;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::forge::{encode, sign};
use super::{Attack, Sent, Stage, changed};

const TOKEN: &str = "invalid_token";
const PROOF: &str = "invalid_dpop_proof";
const UNKNOWN: &str = "The token is bound to something unknown.";

/// A client's key, and a token bound to it.
struct Holder<'a> {
    stage: &'a Stage,
    key: Ed25519KeyPair,
    token: String,
}

impl<'a> Holder<'a> {
    fn new(stage: &'a Stage) -> Self {
        let key = Ed25519KeyPair::generate();
        let token = stage.good(json!({ "cnf": { "jkt": thumbprint(&key) } }));
        Self { stage, key, token }
    }

    fn jwk(&self) -> Value {
        let jwk: Value = serde_json::from_str(&self.key.public_key().to_jwk()).unwrap();
        json!({ "kty": "OKP", "crv": "Ed25519", "x": jwk["x"] })
    }

    fn proof(&self, header: Value, claims: Value) -> String {
        let header = changed(
            json!({ "alg": "EdDSA", "typ": "dpop+jwt", "jwk": self.jwk() }),
            header,
        );
        let claims = changed(
            json!({
                "htm": "POST",
                "htu": self.stage.resource(),
                "iat": self.stage.now,
                "jti": format!("proof-{}", thumbprint(&Ed25519KeyPair::generate())),
                "ath": encode(Sha256::digest(&self.token)),
            }),
            claims,
        );
        sign(&self.key, &header.to_string(), &claims.to_string())
    }

    fn shows(&self, token: &str) -> Sent {
        Sent::call(self.stage.tool).with("authorization", format!("DPoP {token}"))
    }

    /// A call with these proofs.
    fn call(&self, proofs: &[&str]) -> Sent {
        let shown = self.shows(&self.token);
        proofs
            .iter()
            .fold(shown, |sent, proof| sent.with("dpop", proof))
    }
}

/// Thumbprint of a key (RFC 7638).
fn thumbprint(key: &Ed25519KeyPair) -> String {
    let jwk: Value = serde_json::from_str(&key.public_key().to_jwk()).unwrap();
    let x = jwk["x"].as_str().unwrap();
    encode(Sha256::digest(format!(
        r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#
    )))
}

pub fn good(stage: &Stage) -> Sent {
    let holder = Holder::new(stage);
    holder.call(&[&holder.proof(json!({}), json!({}))])
}

pub fn rows(stage: &Stage) -> Vec<Attack> {
    let holder = Holder::new(stage);
    let mut rows = tokens(stage, &holder);
    rows.extend(headers(stage, &holder));
    rows.extend(claims(stage, &holder));
    rows
}

fn tokens(stage: &Stage, holder: &Holder<'_>) -> Vec<Attack> {
    let with = |cnf: Value| stage.good(json!({ "cnf": cnf }));
    let key = "The token is bound to a key and cannot be used as a bearer token.";
    let certificate = "The token is bound to another certificate than this connection's.";
    let jkt = thumbprint(&holder.key);
    let proven = |token: &str| {
        let ath = json!({ "ath": encode(Sha256::digest(token)) });
        holder
            .shows(token)
            .with("dpop", holder.proof(json!({}), ath))
    };
    vec![
        stage.bearer("a bound token as a bearer token", &holder.token, key),
        stage.token(
            "a bound token as a bearer token, with its proof",
            Sent::call(stage.tool)
                .bearer(&holder.token)
                .with("dpop", holder.proof(json!({}), json!({}))),
            key,
        ),
        stage.bearer(
            "bound to a certificate nobody showed",
            &with(json!({ "x5t#S256": "a" })),
            certificate,
        ),
        stage.token(
            "bound to a certificate a header claims",
            Sent::call(stage.tool)
                .bearer(&with(json!({ "x5t#S256": "a" })))
                .with("cf-client-cert-sha256", "a")
                .with("x-client-cert", "a"),
            certificate,
        ),
        stage.bearer("bound to nothing", &with(json!({})), UNKNOWN),
        stage.bearer("bound to a text", &with(json!("x")), UNKNOWN),
        stage.bearer(
            "bound to a key by its name",
            &with(json!({ "kid": "x" })),
            UNKNOWN,
        ),
        stage.bearer(
            "bound to a key that is not a text",
            &with(json!({ "jkt": 7 })),
            UNKNOWN,
        ),
        stage.proof(
            "an unbound token with a proof",
            proven(&stage.good(json!({}))),
            TOKEN,
            "The token is not bound to a key.",
        ),
        stage.proof(
            "bound in two ways, one of them unknown",
            proven(&with(json!({ "jkt": jkt, "jwk": {} }))),
            TOKEN,
            UNKNOWN,
        ),
        stage.proof(
            "an issuer that is not trusted to bind",
            proven(&stage.by_other(json!({ "cnf": { "jkt": jkt } }))),
            TOKEN,
            key,
        ),
        stage.proof(
            "a bound token that has expired",
            proven(&stage.good(json!({ "cnf": { "jkt": jkt }, "exp": stage.now - 1 }))),
            TOKEN,
            "The token has expired.",
        ),
    ]
}

fn headers(stage: &Stage, holder: &Holder<'_>) -> Vec<Attack> {
    let malformed = "The proof is malformed.";
    let no_key = "The proof carries no public key of a known kind.";
    let another = "The proof is by another key than the token's.";
    let stranger = Holder::new(stage);
    let mut private = holder.jwk();
    private["d"] = json!("c2VjcmV0");
    let rows = [
        ("alg none", json!({ "alg": "none" }), malformed),
        ("alg HS256", json!({ "alg": "HS256" }), malformed),
        ("crit", json!({ "crit": ["jwk"] }), malformed),
        (
            "another alg",
            json!({ "alg": "ES256" }),
            "The proof's signature is not valid.",
        ),
        (
            "the type of a token",
            json!({ "typ": "at+jwt" }),
            "The proof's type is not dpop+jwt.",
        ),
        (
            "no type",
            json!({ "typ": null }),
            "The proof's type is not dpop+jwt.",
        ),
        ("no key", json!({ "jwk": null }), no_key),
        ("a private key", json!({ "jwk": private }), no_key),
        (
            "a symmetric key",
            json!({ "jwk": { "kty": "oct", "k": "a" } }),
            no_key,
        ),
        (
            "a key of no kind",
            json!({ "jwk": { "kty": "oct" } }),
            no_key,
        ),
        (
            "a stranger's key",
            json!({ "jwk": stranger.jwk() }),
            another,
        ),
    ];
    let row = |(name, header, reason): (&str, Value, &str)| {
        let sent = holder.call(&[&holder.proof(header, json!({}))]);
        stage.proof(&format!("a proof with {name}"), sent, PROOF, reason)
    };
    let mut rows: Vec<Attack> = rows.into_iter().map(row).collect();
    let (one, two) = (
        holder.proof(json!({}), json!({})),
        holder.proof(json!({}), json!({})),
    );
    let (signed, _) = one.rsplit_once('.').unwrap();
    let (_, signature) = two.rsplit_once('.').unwrap();
    rows.extend([
        stage.proof(
            "no proof",
            holder.call(&[]),
            PROOF,
            "Send a proof as `DPoP`.",
        ),
        stage.proof(
            "a proof that is no token",
            holder.call(&["yes"]),
            PROOF,
            malformed,
        ),
        stage.proof(
            "a proof that is too long",
            holder.call(&[&holder.proof(json!({ "pad": "a".repeat(8192) }), json!({}))]),
            PROOF,
            "The proof is too long, or no text.",
        ),
        stage.proof(
            "a proof with another's signature",
            holder.call(&[&format!("{signed}.{signature}")]),
            PROOF,
            "The proof's signature is not valid.",
        ),
        stage.proof(
            "a proof by a stranger",
            holder.call(&[&stranger.proof(json!({}), json!({}))]),
            PROOF,
            another,
        ),
    ]);
    rows
}

fn claims(stage: &Stage, holder: &Holder<'_>) -> Vec<Attack> {
    let url = "The proof is for another URL.";
    let token = "The proof is for another token.";
    let name = "The proof has no name (`jti`), or a long one.";
    let when = "The proof does not say when it was made.";
    let now = "The proof is not of now.";
    let at = |path: &str| format!("{}{path}", stage.origin);
    let rows = [
        (
            "for another method",
            json!({ "htm": "GET" }),
            "The proof is for another method.",
        ),
        (
            "for a method in small letters",
            json!({ "htm": "post" }),
            "The proof is for another method.",
        ),
        ("for no URL", json!({ "htu": null }), url),
        (
            "for another host",
            json!({ "htu": "https://elsewhere.example/mcp" }),
            url,
        ),
        ("for another path", json!({ "htu": at(stage.alone) }), url),
        (
            "for another port",
            json!({ "htu": "http://127.0.0.1:1/mcp" }),
            url,
        ),
        (
            "for another token",
            json!({ "ath": encode(Sha256::digest("other")) }),
            token,
        ),
        ("for no token", json!({ "ath": null }), token),
        ("of yesterday", json!({ "iat": stage.now - 86_400 }), now),
        ("of tomorrow", json!({ "iat": stage.now + 86_400 }), now),
        ("of no time", json!({ "iat": null }), when),
        ("of a time in words", json!({ "iat": "now" }), when),
        ("without a name", json!({ "jti": null }), name),
        ("with a long name", json!({ "jti": "a".repeat(300) }), name),
    ];
    let row = |(name, claims, reason): (&str, Value, &str)| {
        let sent = holder.call(&[&holder.proof(json!({}), claims)]);
        stage.proof(&format!("a proof {name}"), sent, PROOF, reason)
    };
    let mut rows: Vec<Attack> = rows.into_iter().map(row).collect();
    let used = holder.proof(json!({}), json!({}));
    let again = holder.call(&[&used]);
    rows.push(Attack {
        before: Some(again.clone()),
        ..stage.proof(
            "a proof used before",
            again,
            PROOF,
            "The proof has been used before.",
        )
    });
    let named = holder.proof(json!({}), json!({ "jti": "the same name" }));
    let renewed = holder.proof(
        json!({}),
        json!({ "jti": "the same name", "iat": stage.now + 1 }),
    );
    rows.push(Attack {
        before: Some(holder.call(&[&named])),
        ..stage.proof(
            "a name used before",
            holder.call(&[&renewed]),
            PROOF,
            "The proof has been used before.",
        )
    });
    rows
}
