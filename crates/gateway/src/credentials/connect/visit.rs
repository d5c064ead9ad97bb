//! One visit of a browser to an authorization server: where it is sent, and what it brings
//! back (RFC 6749 section 4.1, PKCE with S256, RFC 9207).
//!
//! There are two kinds, alike in everything: to the upstream's server, for the grant; and,
//! where the configuration says how, first to the server that vouched for the caller, for an
//! ID token (OpenID Connect Core 1.0) that shows the person in the browser to be the caller.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use super::Link;
use super::door::{FAILED, Query, Refused, SPENT, log, redirect_uri};
use crate::config::{Authentication, Grant, Issuer, OAuth};
use crate::context::Context;
use crate::credentials::server::{Given, ask, endpoints};
use crate::platform::Platform;
use crate::seal::Purpose;
use crate::time::Timestamp;

/// The `state` of an authorization request.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) link: Link,
    /// PKCE: the secret of this request (RFC 7636).
    verifier: String,
    /// Digest of the cookie of the browser it was made for.
    pub(super) browser: String,
    /// What the ID token must repeat, if it is for one that the visit is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nonce: Option<String>,
}

impl State {
    /// The upstream whose server the visit is to; none where it is to the caller's issuer.
    pub(super) fn place(&self) -> Option<&str> {
        self.nonce.is_none().then_some(self.link.upstream.as_str())
    }
}

/// Whether a caller of this issuer can show that it is they who follow a link, or nobody has
/// to. Where anybody has to, who cannot must not: a link of theirs would do for an attacker
/// what everybody else's no longer does.
pub(in crate::credentials) fn is_vouched_for<P: Platform>(
    context: &Context<P>,
    issuer: &str,
) -> bool {
    let mut asked = issuers(context)
        .iter()
        .filter(|known| known.sign_in.is_some());
    let own = |known: &Issuer| known.issuer == issuer;
    asked.clone().any(own) || asked.next().is_none()
}

fn issuers<P: Platform>(context: &Context<P>) -> &[Issuer] {
    match &context.settings.config.authentication {
        Authentication::Jwt { issuers, .. } => issuers,
        Authentication::None => &[],
    }
}

/// How whoever follows the link shows first that they are the caller, if the configuration
/// says.
pub(super) fn sign_in<P: Platform>(context: &Context<P>, link: &Link) -> Option<OAuth> {
    let mut issuers = issuers(context).iter();
    let issuer = issuers.find(|issuer| issuer.issuer == link.issuer)?;
    let client = issuer.sign_in.as_ref()?;
    Some(OAuth {
        grant: Grant::User,
        issuer: issuer.issuer.clone(),
        client_id: client.client_id.clone(),
        client_secret: client.client_secret.clone(),
        token_endpoint: None,
        authorization_endpoint: None,
        scopes: vec!["openid".to_owned()],
        resource: None,
        audience: None,
    })
}

/// Where the browser is sent. The visit is for a grant on this resource, or else for an ID
/// token.
pub(super) async fn away<P: Platform>(
    context: &Context<P>,
    (link, browser): (Link, String),
    oauth: &OAuth,
    resource: Option<&str>,
) -> Result<Url, Refused> {
    let endpoints = endpoints(context, oauth).await.map_err(|failure| {
        log(context, &link, &failure.to_string());
        FAILED
    })?;
    let random = || URL_SAFE_NO_PAD.encode(context.random::<32>());
    let state = State {
        link,
        verifier: random(),
        browser,
        nonce: resource.is_none().then(random),
    };
    let sealer = &context.settings.sealer;
    let sealed = sealer.seal(context.platform.as_ref(), Purpose::Authorization, &state);
    let sealed = sealed.map_err(|_| FAILED)?;
    let mut url = endpoints.authorization.clone().ok_or(FAILED)?;
    let mut query = url.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &oauth.client_id)
        .append_pair("redirect_uri", &redirect_uri(context, &state))
        .append_pair("state", &sealed)
        .append_pair(
            "code_challenge",
            &URL_SAFE_NO_PAD.encode(Sha256::digest(&state.verifier)),
        )
        .append_pair("code_challenge_method", "S256");
    if !oauth.scopes.is_empty() {
        query.append_pair("scope", &oauth.scopes.join(" "));
    }
    if let Some(resource) = resource {
        query.append_pair("resource", resource);
    }
    if let Some(nonce) = &state.nonce {
        query.append_pair("nonce", nonce);
    }
    drop(query);
    Ok(url)
}

/// What the browser has brought back is worth.
pub(super) async fn back<P: Platform>(
    context: &Context<P>,
    query: &Query,
    state: &State,
    oauth: &OAuth,
    resource: Option<&str>,
) -> Result<Given, Refused> {
    let failed = |reason: &str| {
        log(context, &state.link, reason);
        FAILED
    };
    let endpoints = endpoints(context, oauth).await;
    let endpoints = endpoints.map_err(|failure| failed(&failure.to_string()))?;
    // Before anything else of the answer is looked at: it may be another server's.
    let named = query.one("iss");
    if query.repeats("iss") || named.map_or(endpoints.names_itself, |iss| iss != oauth.issuer) {
        return Err(failed("the answer is not of its authorization server"));
    }
    if query.one("error").is_some() {
        log(context, &state.link, "its authorization server refuses");
        let words = "The account was not connected: access was refused there.";
        return Err((http::StatusCode::OK, words));
    }
    let code = query.one("code").ok_or_else(|| failed("no code"))?;
    let redirect_uri = redirect_uri(context, state);
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &redirect_uri),
        ("code_verifier", &state.verifier),
    ];
    let given = ask(context, oauth, resource, &form).await;
    let given = given.map_err(|error| failed(&error.to_string()))?;
    given.map_err(|failure| failed(&failure.to_string()))
}

/// Whether the person in the browser is the caller, by the word of the caller's own issuer.
pub(super) fn is_caller<P: Platform>(
    context: &Context<P>,
    oauth: &OAuth,
    state: &State,
    given: &Given,
) -> Result<(), Refused> {
    let nonce = state.nonce.as_deref().ok_or(SPENT)?;
    let says = given.id_token.as_deref().and_then(claims);
    let expected = Expected {
        issuer: &oauth.issuer,
        client: &oauth.client_id,
        nonce,
        now: context.now(),
    };
    let subject = says.as_ref().and_then(|claims| expected.subject(claims));
    match subject {
        Some(subject) if subject == state.link.subject => Ok(()),
        Some(_) => {
            log(context, &state.link, "somebody else has signed in");
            let words = "You are signed in as somebody else than the one who asked for this link.";
            Err((http::StatusCode::FORBIDDEN, words))
        }
        None => {
            log(context, &state.link, "no ID token that could be used");
            Err(FAILED)
        }
    }
}

/// What an ID token says. It has come straight from its issuer over TLS, which stands for a
/// signature (OpenID Connect Core 1.0 section 3.1.3.7).
fn claims(id_token: &str) -> Option<Value> {
    let mut parts = id_token.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice(&claims).ok()
}

struct Expected<'a> {
    issuer: &'a str,
    client: &'a str,
    nonce: &'a str,
    now: Timestamp,
}

impl Expected<'_> {
    /// Whom an ID token is about, if it is for this visit.
    fn subject<'a>(&self, claims: &'a Value) -> Option<&'a str> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let audience = claims.get("aud")?;
        let audience = match audience.as_array() {
            Some(all) => all.len() == 1 && all[0] == self.client,
            None => audience == self.client,
        };
        let ends = Timestamp::from_secs(claims.get("exp").and_then(Value::as_u64)?);
        let ours = text("iss") == Some(self.issuer) && text("nonce") == Some(self.nonce);
        (audience && ours && self.now < ends)
            .then(|| text("sub"))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_token_is_of_the_issuer_for_the_client_and_of_this_visit() {
        let expected = Expected {
            issuer: "https://as.example",
            client: "gw",
            nonce: "n",
            now: Timestamp::from_secs(100),
        };
        let good = json!({
            "iss": "https://as.example", "aud": "gw", "nonce": "n", "exp": 101, "sub": "ada",
        });
        assert_eq!(expected.subject(&good), Some("ada"));
        for (name, value) in [
            ("iss", json!("https://as.example/")),
            ("aud", json!("other")),
            ("aud", json!(["gw", "other"])),
            ("aud", json!([])),
            ("aud", json!(null)),
            ("nonce", json!("m")),
            ("nonce", json!(null)),
            ("exp", json!(100)),
            ("exp", json!("101")),
            ("sub", json!(null)),
        ] {
            let mut claims = good.clone();
            claims[name] = value;
            assert_eq!(expected.subject(&claims), None, "{claims}");
        }
        for text in ["", "a.b", "a.!.c", "a.b.c.d", "eyJ9.e30"] {
            assert_eq!(claims(text), None);
        }
    }
}
