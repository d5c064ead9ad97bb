//! What the development issuer grants: every well-formed request, and each code once.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::clock;
use crate::issuer::keys::random_name;
use crate::issuer::loopback_redirect;

/// How long a code can be redeemed, in seconds.
const CODE_SECONDS: u64 = 60;

/// Codes kept at once; the oldest go first.
const CODES_MAX: usize = 64;

/// A form as it arrived.
type Form = BTreeMap<String, String>;

/// Codes given out and not yet redeemed.
#[derive(Default)]
pub struct Grants {
    codes: Vec<Code>,
}

struct Code {
    code: String,
    redirect: String,
    challenge: String,
    expires: u64,
    granted: Granted,
}

/// What a token is granted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The client the token is for.
    pub client: String,
    /// The resource it named (RFC 8707).
    pub resource: Option<String>,
    /// The scope it asked for.
    pub scope: Option<String>,
}

impl Granted {
    fn asked(form: &Form) -> Self {
        let text = |name: &str| form.get(name).filter(|v| !v.is_empty()).cloned();
        Self {
            client: text("client_id").unwrap_or_else(|| "dev-client".to_owned()),
            resource: text("resource"),
            scope: text("scope"),
        }
    }
}

impl Grants {
    /// Approves an authorization request; gives where to redirect and the code.
    pub fn authorize(&mut self, asked: &Form) -> Result<(String, String)> {
        let redirect = asked
            .get("redirect_uri")
            .context("invalid_request: redirect_uri is missing")?;
        loopback_redirect(redirect)?;
        if asked.get("response_type").map(String::as_str) != Some("code") {
            bail!("unsupported_response_type: only code is supported");
        }
        let challenge = asked
            .get("code_challenge")
            .context("invalid_request: code_challenge is missing; PKCE is required")?;
        if asked.get("code_challenge_method").map(String::as_str) != Some("S256") {
            bail!("invalid_request: code_challenge_method must be S256");
        }
        let code = random_name();
        if self.codes.len() >= CODES_MAX {
            self.codes.remove(0);
        }
        self.codes.push(Code {
            code: code.clone(),
            redirect: redirect.clone(),
            challenge: challenge.clone(),
            expires: clock::unix_seconds() + CODE_SECONDS,
            granted: Granted::asked(asked),
        });
        Ok((redirect.clone(), code))
    }

    /// Answers a token request.
    pub fn redeem(&mut self, asked: &Form) -> Result<Granted> {
        match asked.get("grant_type").map(String::as_str) {
            Some("authorization_code") => self.redeem_code(asked),
            Some("client_credentials") => Ok(Granted::asked(asked)),
            _ => bail!("unsupported_grant_type: authorization_code or client_credentials"),
        }
    }

    fn redeem_code(&mut self, asked: &Form) -> Result<Granted> {
        let code = asked
            .get("code")
            .context("invalid_request: code is missing")?;
        let at = self
            .codes
            .iter()
            .position(|known| &known.code == code)
            .context("invalid_grant: the code is unknown or was used")?;
        // Removed before it is checked: a wrong guess spends the code.
        let known = self.codes.remove(at);
        let verifier = asked
            .get("code_verifier")
            .context("invalid_request: code_verifier is missing")?;
        let proof = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        if proof != known.challenge {
            bail!("invalid_grant: code_verifier does not match the challenge");
        }
        if asked
            .get("redirect_uri")
            .is_some_and(|uri| uri != &known.redirect)
        {
            bail!("invalid_grant: redirect_uri differs from the authorization request");
        }
        if clock::unix_seconds() > known.expires {
            bail!("invalid_grant: the code has expired");
        }
        let asked = Granted::asked(asked);
        Ok(Granted {
            resource: asked.resource.or(known.granted.resource),
            ..known.granted
        })
    }
}

/// Registers a client (RFC 7591): what it said of itself, with an identifier.
pub fn register(body: &[u8]) -> Result<Value> {
    let mut client: Map<String, Value> = serde_json::from_slice(body)
        .context("invalid_client_metadata: the body is no JSON object")?;
    let redirects = client.get("redirect_uris").and_then(Value::as_array);
    for redirect in redirects.into_iter().flatten() {
        let redirect = redirect
            .as_str()
            .context("invalid_redirect_uri: redirect_uris holds something else than text")?;
        loopback_redirect(redirect).context("invalid_redirect_uri: not on loopback")?;
    }
    let method = client
        .entry("token_endpoint_auth_method")
        .or_insert_with(|| json!("none"))
        .clone();
    if method != "none" {
        client.insert("client_secret".into(), random_name().into());
        client.insert("client_secret_expires_at".into(), json!(0));
    }
    client.insert("client_id".into(), random_name().into());
    client.insert("client_id_issued_at".into(), clock::unix_seconds().into());
    Ok(Value::Object(client))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    // The pair of RFC 7636, appendix B.
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn form(pairs: &[(&str, &str)]) -> Form {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn asked() -> Form {
        form(&[
            ("response_type", "code"),
            ("client_id", "c"),
            ("redirect_uri", "http://127.0.0.1:1/cb"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("resource", "http://127.0.0.1:8787/mcp"),
        ])
    }

    fn redeem(code: &str, verifier: &str) -> Form {
        form(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", verifier),
        ])
    }

    #[test]
    fn a_code_is_redeemed_once_for_the_resource_it_was_asked_for() {
        let mut grants = Grants::default();
        let (_, code) = grants.authorize(&asked()).unwrap();
        let granted = grants.redeem(&redeem(&code, VERIFIER)).unwrap();
        assert_eq!(
            granted.resource.as_deref(),
            Some("http://127.0.0.1:8787/mcp")
        );
        assert!(grants.redeem(&redeem(&code, VERIFIER)).is_err());
    }

    #[test]
    fn a_wrong_verifier_spends_the_code() {
        let mut grants = Grants::default();
        let (_, code) = grants.authorize(&asked()).unwrap();
        assert!(grants.redeem(&redeem(&code, "guess")).is_err());
        assert!(grants.redeem(&redeem(&code, VERIFIER)).is_err());
    }

    #[test]
    fn an_authorization_without_pkce_is_refused() {
        for name in ["code_challenge", "code_challenge_method", "redirect_uri"] {
            let mut form = asked();
            form.remove(name);
            assert!(Grants::default().authorize(&form).is_err(), "{name}");
        }
    }

    #[test]
    fn a_registered_client_keeps_its_words_and_gets_an_identifier() {
        let body = json!({"client_name": "x", "redirect_uris": ["http://localhost:9/cb"]});
        let client = register(body.to_string().as_bytes()).unwrap();
        assert_eq!(client["client_name"], "x");
        assert_eq!(client["token_endpoint_auth_method"], "none");
        assert!(client["client_id"].is_string());
        assert!(client.get("client_secret").is_none());
    }

    #[test]
    fn a_client_that_redirects_elsewhere_cannot_register() {
        let body = json!({"redirect_uris": ["https://example.com/cb"]});
        assert!(register(body.to_string().as_bytes()).is_err());
    }
}
