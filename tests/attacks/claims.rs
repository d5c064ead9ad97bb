//! What a well-signed token says: too late, too early, for somebody else, by somebody else.

use serde_json::{Value, json};

use super::forge::{library, sign};
use super::{Attack, Sent, Stage};
use jwt_simple::prelude::RSAKeyPairLike;

const AUDIENCE: &str = "The token is not meant for this resource.";
const EXPIRED: &str = "The token has expired.";
const EARLY: &str = "The token is not valid yet.";
const ODD: &str = "The token has a time that is not a number of seconds.";
const ISSUER: &str = "The token's issuer is not trusted here.";
const SIGNATURE: &str = "The token's signature is not valid.";

pub fn rows(stage: &Stage) -> Vec<Attack> {
    let resource = stage.resource();
    let now = stage.now;
    let said: Vec<(&str, Value, &str)> = vec![
        ("expired long ago", json!({ "exp": now - 86_400 }), EXPIRED),
        ("expired this moment", json!({ "exp": now - 1 }), EXPIRED),
        (
            "expired at the beginning of time",
            json!({ "exp": 0 }),
            EXPIRED,
        ),
        (
            "without an end",
            json!({ "exp": null }),
            "The token says no time at which it ends.",
        ),
        (
            "an end as text",
            json!({ "exp": (now + 60).to_string() }),
            ODD,
        ),
        ("an end before all time", json!({ "exp": -1 }), ODD),
        ("an end as a list", json!({ "exp": [now + 60] }), ODD),
        ("of tomorrow", json!({ "nbf": now + 86_400 }), EARLY),
        ("issued tomorrow", json!({ "iat": now + 86_400 }), EARLY),
        ("issued beyond the skew", json!({ "iat": now + 600 }), EARLY),
        (
            "for another gateway",
            json!({ "aud": "https://elsewhere.example/mcp" }),
            AUDIENCE,
        ),
        ("for nobody", json!({ "aud": null }), AUDIENCE),
        ("for an empty list", json!({ "aud": [] }), AUDIENCE),
        (
            "for a list of others",
            json!({ "aud": ["a", "b"] }),
            AUDIENCE,
        ),
        ("for the host", json!({ "aud": stage.origin }), AUDIENCE),
        (
            "for the path with a slash",
            json!({ "aud": format!("{resource}/") }),
            AUDIENCE,
        ),
        (
            "for the path in capitals",
            json!({ "aud": resource.to_uppercase() }),
            AUDIENCE,
        ),
        (
            "for a longer path",
            json!({ "aud": format!("{resource}/admin") }),
            AUDIENCE,
        ),
        (
            "for one server alone",
            json!({ "aud": format!("{}{}", stage.origin, stage.alone) }),
            AUDIENCE,
        ),
        (
            "for the client, as ID tokens are",
            json!({ "aud": "cli", "nonce": "n" }),
            AUDIENCE,
        ),
        (
            "for an object",
            json!({ "aud": { resource.as_str(): true } }),
            AUDIENCE,
        ),
        (
            "by a stranger",
            json!({ "iss": "https://evil.example" }),
            ISSUER,
        ),
        (
            "by the issuer with a slash",
            json!({ "iss": format!("{}/", stage.issuer) }),
            ISSUER,
        ),
        (
            "by the issuer in capitals",
            json!({ "iss": stage.issuer.to_uppercase() }),
            ISSUER,
        ),
        ("by nobody", json!({ "iss": null }), ISSUER),
        (
            "by a list of issuers",
            json!({ "iss": [stage.issuer] }),
            ISSUER,
        ),
        (
            "by the gateway's own keys' issuer",
            json!({ "iss": "tidegate:keys" }),
            ISSUER,
        ),
        (
            "about nobody",
            json!({ "sub": null }),
            "The token names no subject (`sub`).",
        ),
        (
            "about an empty subject",
            json!({ "sub": "" }),
            "The token names no subject (`sub`).",
        ),
        (
            "about an object",
            json!({ "sub": { "a": 1 } }),
            "The token's `sub` is not a text.",
        ),
        (
            "with an odd client",
            json!({ "client_id": [] }),
            "The token's `client_id` is not a text.",
        ),
        (
            "with an odd name",
            json!({ "jti": 7 }),
            "The token's `jti` is not a text.",
        ),
    ];
    let mut rows: Vec<Attack> = said
        .into_iter()
        .map(|(name, over, reason)| stage.bearer(name, &stage.good(over), reason))
        .collect();
    rows.extend(mixed(stage));
    rows
}

/// One issuer in the name of another, one endpoint's token at another.
fn mixed(stage: &Stage) -> Vec<Attack> {
    let keys = &stage.keys;
    let alone = Sent::call("echo")
        .to(stage.alone)
        .bearer(&stage.good(json!({})));
    let as_first = keys.other.sign(library(stage.claims(json!({})))).unwrap();
    let not_allowed = {
        let claims = stage.claims(json!({ "iss": stage.other })).to_string();
        sign(
            &keys.other_ed,
            r#"{"alg":"EdDSA","kid":"other-ed"}"#,
            &claims,
        )
    };
    vec![
        stage.bearer("one issuer's key in another's name", &as_first, SIGNATURE),
        stage.bearer(
            "another issuer's name over this one's key",
            &stage.by_rsa(json!({ "iss": stage.other })),
            SIGNATURE,
        ),
        stage.bearer(
            "an algorithm the issuer is not trusted for",
            &not_allowed,
            "The token's algorithm is not accepted.",
        ),
        stage.token_at(
            "the common endpoint's token at one server",
            alone,
            AUDIENCE,
            stage.alone,
        ),
    ]
}
