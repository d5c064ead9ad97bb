//! The development issuer's key, and what it says in a token.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt_simple::prelude::{ECDSAP256KeyPairLike, ES256KeyPair, JWTClaims};
use serde_json::{Map, Value, json};

use crate::clock;
use crate::issuer::TOKEN_SECONDS;
use crate::layout::{make_dir, read, write_private};

/// Signs tokens with the key kept under `target/dev/issuer`.
pub struct Signer(ES256KeyPair);

impl Signer {
    /// The key in `dir`, made on first use and readable by its owner only.
    pub fn open(dir: &Path) -> Result<Self> {
        make_dir(dir)?;
        let file = dir.join("key.pem");
        if !file.exists() {
            let pem = ES256KeyPair::generate()
                .to_pem()
                .map_err(|e| anyhow!("{e}"))?;
            write_private(&file, pem.as_bytes())?;
        }
        let pair = ES256KeyPair::from_pem(&read(&file)?)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("{} is damaged; delete it", file.display()))?;
        let name = pair.jwk_thumbprint();
        Ok(Self(pair.with_key_id(&name)))
    }

    /// A signed token that says exactly `claims`.
    pub fn sign(&self, claims: &Claims) -> Result<String> {
        self.0
            .sign(claims.to_sign())
            .map_err(|error| anyhow!("cannot sign a token: {error}"))
    }

    /// The public key as a JSON Web Key Set.
    pub fn key_set(&self) -> Value {
        let point = self.0.key_pair().public_key().to_bytes_uncompressed();
        // An uncompressed point: 4, then x and y, 32 bytes each.
        let coordinate =
            |from: usize| URL_SAFE_NO_PAD.encode(point.get(from..from + 32).unwrap_or_default());
        json!({"keys": [{
            "kty": "EC",
            "crv": "P-256",
            "use": "sig",
            "alg": "ES256",
            "kid": self.0.key_id(),
            "x": coordinate(1),
            "y": coordinate(33),
        }]})
    }
}

/// What a token says.
#[derive(Clone, Debug)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// The claims of an ordinary development token.
    pub fn new(issuer: &str, audience: &str) -> Self {
        let now = clock::unix_seconds();
        let mut claims = Self(Map::new());
        claims.set("iss", issuer.into());
        claims.set("sub", "dev".into());
        claims.set("aud", audience.into());
        claims.set("scope", "tools:read tools:call".into());
        claims.set("iat", now.into());
        claims.set("nbf", now.into());
        claims.set("exp", (now + TOKEN_SECONDS).into());
        claims.set("jti", random_name().into());
        claims
    }

    /// Lays `over` on top; `null` removes a claim.
    pub fn merge(&mut self, over: Map<String, Value>) {
        for (name, value) in over {
            self.set(&name, value);
        }
    }

    /// Sets one claim; `null` removes it.
    pub fn set(&mut self, name: &str, value: Value) {
        if value.is_null() {
            self.0.remove(name);
        } else {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// Exactly these, to be signed with any key.
    pub fn to_sign(&self) -> JWTClaims<Map<String, Value>> {
        JWTClaims {
            issued_at: None,
            expires_at: None,
            invalid_before: None,
            issuer: None,
            subject: None,
            audiences: None,
            jwt_id: None,
            nonce: None,
            custom: self.0.clone(),
        }
    }

    /// One claim.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

/// A name nobody can guess.
pub fn random_name() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes())
}

/// 32 bytes nobody can guess.
pub fn random_bytes() -> [u8; 32] {
    // A fresh private key is 32 bytes from the system's generator.
    let key = ES256KeyPair::generate().to_bytes();
    let mut bytes = [0; 32];
    for (byte, from) in bytes.iter_mut().zip(key) {
        *byte = from;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use jwt_simple::prelude::{ECDSAP256PublicKeyLike, VerificationOptions};

    use super::*;

    fn signer(name: &str) -> (Signer, std::path::PathBuf) {
        let dir = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        (Signer::open(&dir).unwrap(), dir)
    }

    #[test]
    fn a_token_verifies_with_the_served_key() {
        let (signer, dir) = signer("keys");
        let token = signer
            .sign(&Claims::new("http://issuer", "http://gateway/mcp"))
            .unwrap();
        let set = signer.key_set();
        let coordinate = |name: &str| {
            URL_SAFE_NO_PAD
                .decode(set["keys"][0][name].as_str().unwrap())
                .unwrap()
        };
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let key = jwt_simple::prelude::ES256PublicKey::from_bytes(&point).unwrap();
        let options = VerificationOptions {
            allowed_issuers: Some(["http://issuer".to_owned()].into()),
            allowed_audiences: Some(["http://gateway/mcp".to_owned()].into()),
            ..Default::default()
        };
        let claims = key
            .verify_token::<Map<String, Value>>(&token, Some(options))
            .unwrap();
        assert_eq!(claims.subject.as_deref(), Some("dev"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_key_stays_the_same_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let (first, dir) = signer("same");
        let second = Signer::open(&dir).unwrap();
        assert_eq!(first.key_set(), second.key_set());
        let mode = std::fs::metadata(dir.join("key.pem"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn merged_claims_replace_and_null_removes() {
        let mut claims = Claims::new("i", "a");
        let over = json!({"aud": "other", "exp": null, "tenant": "t"});
        claims.merge(over.as_object().unwrap().clone());
        assert_eq!(claims.get("aud"), Some(&json!("other")));
        assert_eq!(claims.get("exp"), None);
        assert_eq!(claims.get("tenant"), Some(&json!("t")));
    }
}
