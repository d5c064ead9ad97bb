//! What an attacker can make: tokens with any header, any claims, any signature.

use std::sync::Arc;

use jwt_simple::prelude::{
    ECDSAP256KeyPairLike, Ed25519KeyPair, EdDSAKeyPairLike, JWTClaims, RSAKeyPairLike,
};
use serde_json::{Map, Value, json};

use super::{Authority, changed};

/// Where the attacks happen.
pub struct Stage {
    /// The gateway's, such as `https://gw.example.com`.
    pub origin: String,
    /// The issuer whose keys are found by its metadata, and who is asked about tokens.
    pub issuer: String,
    /// The one that is trusted for RS256 alone.
    pub other: String,
    /// A tool anybody may call, and one that needs [`SCOPES`].
    pub tool: &'static str,
    pub scoped: &'static str,
    /// One upstream's own endpoint.
    pub alone: &'static str,
    /// Now, in seconds.
    pub now: u64,
    pub keys: Arc<Authority>,
}

/// What [`Stage::scoped`] needs.
pub const SCOPES: &str = "harbour:read harbour:write";

impl Stage {
    pub fn resource(&self) -> String {
        format!("{}/mcp", self.origin)
    }

    /// Good claims of the first issuer, changed.
    pub fn claims(&self, over: Value) -> Value {
        let claims = json!({
            "iss": self.issuer, "sub": "ada", "aud": self.resource(), "client_id": "cli",
            "iat": self.now, "exp": self.now + 3600, "jti": "token-1",
        });
        changed(claims, over)
    }

    /// A token of the first issuer.
    pub fn good(&self, over: Value) -> String {
        self.headed(json!({}), over)
    }

    /// The same, with another header.
    pub fn headed(&self, header: Value, over: Value) -> String {
        let header = changed(
            json!({ "alg": "EdDSA", "kid": "ed", "typ": "at+jwt" }),
            header,
        );
        sign(
            &self.keys.ed,
            &header.to_string(),
            &self.claims(over).to_string(),
        )
    }

    /// By somebody else's key.
    pub fn forged(&self, header: Value) -> String {
        let header = changed(json!({ "alg": "EdDSA", "kid": "ed" }), header);
        let claims = self.claims(json!({ "sub": "mallory" })).to_string();
        sign(&Ed25519KeyPair::generate(), &header.to_string(), &claims)
    }

    pub fn by_rsa(&self, over: Value) -> String {
        self.keys.rsa.sign(library(self.claims(over))).unwrap()
    }

    pub fn by_pss(&self, over: Value) -> String {
        self.keys.pss.sign(library(self.claims(over))).unwrap()
    }

    pub fn by_ec(&self, over: Value) -> String {
        self.keys.ec.sign(library(self.claims(over))).unwrap()
    }

    /// A token of the other issuer.
    pub fn by_other(&self, over: Value) -> String {
        let claims = changed(self.claims(json!({ "iss": self.other })), over);
        self.keys.other.sign(library(claims)).unwrap()
    }
}

pub fn library(claims: Value) -> JWTClaims<Map<String, Value>> {
    serde_json::from_value(claims).unwrap()
}

/// Signed properly, whatever it says.
pub fn sign(key: &Ed25519KeyPair, header: &str, claims: &str) -> String {
    let text = format!("{}.{}", encode(header), encode(claims));
    let signature = key.key_pair().as_ref().sk.sign(&text, None);
    format!("{text}.{}", encode(&signature[..]))
}

/// `token` under another header.
pub fn renamed(token: &str, header: Value) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", encode(header.to_string()))
}

/// Base64url without padding (RFC 7515 appendix C).
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.as_ref().chunks(3) {
        let bits = three
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..=three.len() {
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(char::from(DIGITS[index as usize]));
        }
    }
    text
}
