//! Two authorization servers, as far as a resource server sees them: metadata, keys, and
//! what one of them says of tokens that say nothing.

use jwt_simple::prelude::{ES256KeyPair, Ed25519KeyPair, PS384KeyPair, RS256KeyPair};
use serde_json::{Value, json};

/// Opaque tokens, and what is said of each.
pub const ACTIVE: &str = "opaque~ada";
pub const ELSEWHERE: &str = "opaque~elsewhere";
pub const ENDED: &str = "opaque~ended";
pub const FOREIGN: &str = "opaque~foreign";
pub const BOUND: &str = "opaque~bound";
pub const NOBODY: &str = "opaque~nobody";
pub const TRUTHY: &str = "opaque~truthy";

/// What the gateway calls itself where it asks.
pub const CLIENT: &str = "gateway";
/// Name of the secret it does that with, and the secret.
pub const SECRET_NAME: &str = "INTROSPECTION_SECRET";
pub const SECRET: &str = "a secret of the gateway+its issuer";

/// The keys of both.
pub struct Authority {
    pub ed: Ed25519KeyPair,
    pub rsa: RS256KeyPair,
    pub pss: PS384KeyPair,
    pub ec: ES256KeyPair,
    /// The other issuer's.
    pub other: RS256KeyPair,
    /// The other issuer's too, of an algorithm it is not trusted for.
    pub other_ed: Ed25519KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let rsa = RS256KeyPair::generate(2048).unwrap();
        // The same key under another algorithm: its JWK leaves both open.
        let pss = PS384KeyPair::from_der(&rsa.to_der().unwrap()).unwrap();
        Self {
            ed: Ed25519KeyPair::generate().with_key_id("ed"),
            rsa: rsa.with_key_id("rsa"),
            pss: pss.with_key_id("rsa"),
            ec: ES256KeyPair::generate().with_key_id("ec"),
            other: RS256KeyPair::generate(2048).unwrap().with_key_id("other"),
            other_ed: Ed25519KeyPair::generate().with_key_id("other-ed"),
        }
    }

    /// What the issuer at `issuer` answers, trusted for tokens of `audience`.
    pub fn answer(&self, issuer: &str, audience: &str, path: &str, body: &str) -> (u16, String) {
        let answer = match path {
            "/.well-known/oauth-authorization-server" => {
                json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") })
            }
            "/keys" => {
                let mut rsa = jwk(&self.rsa.public_key().to_jwk());
                rsa.as_object_mut().unwrap().remove("alg");
                let (ed, ec) = (self.ed.public_key(), self.ec.public_key());
                json!({ "keys": [jwk(&ed.to_jwk()), jwk(&ec.to_jwk()), rsa] })
            }
            "/other-keys" => {
                let (rsa, ed) = (self.other.public_key(), self.other_ed.public_key());
                json!({ "keys": [jwk(&rsa.to_jwk()), jwk(&ed.to_jwk())] })
            }
            "/introspect" => said_of(issuer, audience, body),
            _ => return (404, "{}".to_owned()),
        };
        (200, answer.to_string())
    }
}

fn said_of(issuer: &str, audience: &str, body: &str) -> Value {
    let encoded = body
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))
        .unwrap_or_default();
    let token = encoded.replace("%7E", "~");
    let active = json!({
        "active": true, "iss": issuer, "sub": "ada", "aud": audience, "client_id": "cli",
    });
    let over = match token.as_str() {
        ACTIVE => json!({}),
        ELSEWHERE => json!({ "aud": "https://elsewhere.example/mcp" }),
        ENDED => json!({ "exp": 1 }),
        FOREIGN => json!({ "iss": "https://elsewhere.example" }),
        BOUND => json!({ "cnf": { "jkt": "x" } }),
        NOBODY => json!({ "sub": null, "client_id": null }),
        TRUTHY => json!({ "active": "true" }),
        _ => return json!({ "active": false }),
    };
    super::changed(active, over)
}

fn jwk(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
