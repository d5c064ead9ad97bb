//! An upstream's authorization server: where its endpoints are, and asking for tokens.
//!
//! The gateway's client secret goes to the issuer the configuration names and to nobody an
//! upstream names. Metadata must be of exactly that issuer (RFC 8414 section 3.3), and what
//! it points to must be as safe to ask as what a configuration may name. Nothing is read
//! past [`ANSWER_MAX`] or waited for past [`ASK_WITHIN`], and no answer is ever repeated: of
//! a refusal only its code, if it is one of RFC 6749's, RFC 8707's or RFC 8693's.

use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::auth;
use crate::body::Body;
use crate::config::address::{is_loopback, may_be_fetched};
use crate::config::{Grant, OAuth};
use crate::context::Context;
use crate::error::{Error, Fault};
use crate::platform::{HttpClient, Platform};
use crate::time::Timestamp;

/// How long the authorization server has for its answers, metadata and tokens together.
pub(super) const ASK_WITHIN: Duration = Duration::from_secs(10);
/// Largest answer read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// Longest token taken, in bytes.
const TOKEN_MAX: usize = 16 * 1024;
/// How long a server's metadata is used before it is asked for anew.
const ENDPOINTS_KEPT: Duration = Duration::from_secs(3600);

/// Where an authorization server takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) token: Url,
    /// There is one for grant `user`.
    pub(super) authorization: Option<Url>,
    /// Whether its authorization responses always name it (RFC 9207).
    pub(super) names_itself: bool,
}

/// Tokens as they were given.
pub(super) struct Given {
    pub(super) access: String,
    pub(super) refresh: Option<String>,
    pub(super) lifetime: Option<Duration>,
    /// Who has granted it, where that was asked for.
    pub(super) id_token: Option<String>,
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The authorization server says no, by this code.
    #[error("its authorization server refuses: {0}")]
    Denied(&'static str),
    /// There was no answer to use.
    #[error("{0}")]
    Broken(&'static str),
}

/// What is read of metadata (RFC 8414).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: Url,
    authorization_endpoint: Option<Url>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// What is read of a token response (RFC 6749 section 5.1).
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    id_token: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Codes a refusal may be told by.
const CODES: [&str; 9] = [
    INVALID_GRANT,
    "invalid_request",
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "access_denied",
    "temporarily_unavailable",
];

/// What was shown for the token holds no longer.
pub(super) const INVALID_GRANT: &str = "invalid_grant";

/// Where the server takes requests: as configured, from memory, or by its own metadata.
pub(super) async fn endpoints<P: Platform>(
    context: &Context<P>,
    oauth: &OAuth,
) -> Result<Rc<Endpoints>, Failure> {
    if let Some(token) = &oauth.token_endpoint {
        return Ok(Rc::new(Endpoints {
            token: token.clone(),
            authorization: oauth.authorization_endpoint.clone(),
            names_itself: false,
        }));
    }
    let known = &context.memory.credentials.servers;
    let key = (oauth.issuer.clone(), oauth.grant == Grant::User);
    if let Some((at, endpoints)) = known.get(&key)
        && context.now().since(at) < ENDPOINTS_KEPT
    {
        return Ok(endpoints);
    }
    let base = Url::parse(&oauth.issuer).map_err(|_| Failure::Broken("its issuer is no URL"))?;
    let document = auth::document(context.platform.as_ref(), &base);
    let document = context.until(context.now() + ASK_WITHIN, document).await;
    let document = match document {
        Some(Ok(document)) => document,
        Some(Err(_)) | None => {
            let reason = "the metadata of its authorization server cannot be had";
            return Err(Failure::Broken(reason));
        }
    };
    let endpoints = Rc::new(read_metadata(&document, oauth, &base).map_err(Failure::Broken)?);
    known.insert(key, (context.now(), Rc::clone(&endpoints)));
    Ok(endpoints)
}

fn read_metadata(document: &[u8], oauth: &OAuth, base: &Url) -> Result<Endpoints, &'static str> {
    let metadata: Metadata = serde_json::from_slice(document)
        .map_err(|_| "the metadata of its authorization server names no token endpoint")?;
    if metadata.issuer != oauth.issuer {
        return Err("the metadata of its authorization server is of another issuer");
    }
    let authorization = metadata.authorization_endpoint;
    let safe = |url: &Url| may_be_fetched(url, is_loopback(base));
    if !safe(&metadata.token_endpoint) || !authorization.as_ref().is_none_or(safe) {
        return Err("the metadata of its authorization server points to no public https URL");
    }
    if oauth.grant == Grant::User {
        let methods = metadata.code_challenge_methods_supported;
        if authorization.is_none() || !methods.iter().any(|method| method == "S256") {
            return Err("its authorization server knows no authorization code with PKCE (S256)");
        }
    }
    Ok(Endpoints {
        token: metadata.token_endpoint,
        authorization,
        names_itself: metadata.authorization_response_iss_parameter_supported,
    })
}

/// Asks the token endpoint. `form` says what is shown for the token; what it is for, and who
/// asks, is added to it.
pub(super) async fn ask<P: Platform>(
    context: &Context<P>,
    oauth: &OAuth,
    resource: Option<&str>,
    form: &[(&str, &str)],
) -> Result<Result<Given, Failure>, Error> {
    let (basic, public) = match &oauth.client_secret {
        None => (None, true),
        Some(reference) => {
            let name = reference.name().unwrap_or_default();
            let secret = context.platform.secret(name).await;
            let secret = secret.map_err(Fault::unread)?;
            let secret = secret.ok_or_else(|| Fault::SecretMissing(name.to_owned()))?;
            // RFC 6749 section 2.3.1: both are written as in a form, then as in RFC 7617.
            let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encoded(&oauth.client_id), encoded(secret.expose()));
            (Some(format!("Basic {}", STANDARD.encode(pair))), false)
        }
    };
    let mut written = Serializer::new(String::new());
    written
        .extend_pairs(form)
        .extend_pairs(resource.map(|resource| ("resource", resource)));
    if public {
        written.append_pair("client_id", &oauth.client_id);
    }
    let form = written.finish();
    let asking = async {
        let endpoints = endpoints(context, oauth).await?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(endpoints.token.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, auth::AGENT);
        if let Some(basic) = basic {
            request = request.header(AUTHORIZATION, basic);
        }
        let request = request
            .body(Body::from(form))
            .map_err(|_| Failure::Broken("the request for a token cannot be written"))?;
        let sent = context.platform.http().send(request).await;
        let response =
            sent.map_err(|_| Failure::Broken("its authorization server cannot be reached"))?;
        let status = response.status();
        let body = response.into_body().read(ANSWER_MAX).await;
        let body = body.map_err(|_| {
            Failure::Broken("its authorization server's answer is cut off or too long")
        })?;
        read(status, &body)
    };
    let answer = context.until(context.now() + ASK_WITHIN, asking).await;
    Ok(answer.unwrap_or(Err(Failure::Broken(
        "its authorization server does not answer in time",
    ))))
}

fn read(status: StatusCode, body: &Bytes) -> Result<Given, Failure> {
    if status != StatusCode::OK {
        let code = serde_json::from_slice::<Refusal>(body)
            .ok()
            .and_then(|refusal| {
                let known = CODES.into_iter().find(|code| *code == refusal.error);
                known.filter(|_| status.is_client_error())
            });
        return Err(code.map_or(
            Failure::Broken("its authorization server answers with an error"),
            Failure::Denied,
        ));
    }
    let answer = serde_json::from_slice::<Answer>(body);
    let fits = |token: &str| {
        !token.is_empty() && token.len() <= TOKEN_MAX && token.bytes().all(|b| b.is_ascii_graphic())
    };
    match answer {
        Ok(answer)
            if answer.token_type.eq_ignore_ascii_case("bearer")
                && fits(&answer.access_token)
                && answer.refresh_token.as_deref().is_none_or(fits) =>
        {
            Ok(Given {
                access: answer.access_token,
                refresh: answer.refresh_token,
                lifetime: answer.expires_in.map(Duration::from_secs),
                id_token: answer.id_token,
            })
        }
        Ok(_) | Err(_) => Err(Failure::Broken(
            "its authorization server's answer is no bearer token",
        )),
    }
}

/// What a token is for: the upstream, unless the configuration says otherwise.
pub(super) fn resource(oauth: &OAuth, upstream: &Url) -> String {
    oauth.resource.as_ref().unwrap_or(upstream).to_string()
}

/// When a token ends; one that does not say is asked for again before long.
pub(super) fn ends(given: &Given, now: Timestamp) -> Timestamp {
    now + given
        .lifetime
        .unwrap_or(Duration::from_secs(300))
        .min(LIFETIME_MAX)
}

/// Longest a token is used, whatever its server says.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_bearer_token_is_taken_and_of_a_refusal_only_a_known_code() {
        let broken = |body: &str| read(StatusCode::OK, &Bytes::from(body.to_owned())).err();
        let no_token = Some(Failure::Broken(
            "its authorization server's answer is no bearer token",
        ));
        for body in [
            "",
            "{}",
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"a b","token_type":"Bearer"}"#,
            r#"{"access_token":"a\r\nx","token_type":"Bearer"}"#,
            r#"{"access_token":"a","token_type":"Bearer","refresh_token":""}"#,
        ] {
            assert_eq!(broken(body), no_token, "{body}");
        }
        assert_eq!(
            broken(r#"{"access_token":"a","token_type":"bearer"}"#),
            None
        );
        let error = Failure::Broken("its authorization server answers with an error");
        for (status, body, expected) in [
            (
                400,
                r#"{"error":"invalid_grant"}"#,
                Failure::Denied(INVALID_GRANT),
            ),
            (
                401,
                r#"{"error":"invalid_client"}"#,
                Failure::Denied("invalid_client"),
            ),
            (400, r#"{"error":"the secret is hunter2"}"#, error),
            (500, r#"{"error":"invalid_grant"}"#, error),
            (302, "", error),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let told = read(status, &Bytes::from(body)).err();
            assert_eq!(told, Some(expected), "{status} {body}");
        }
    }

    #[test]
    fn metadata_is_of_the_issuer_points_to_safe_places_and_knows_pkce_where_that_is_needed() {
        let base = Url::parse("https://as.example").unwrap();
        let oauth = |grant: &str| -> OAuth {
            serde_json::from_value(json!({
                "grant": grant, "issuer": "https://as.example", "clientId": "gw",
            }))
            .unwrap()
        };
        let good = json!({
            "issuer": "https://as.example",
            "token_endpoint": "https://as.example/token",
            "authorization_endpoint": "https://as.example/authorize",
            "code_challenge_methods_supported": ["S256"],
        });
        let with = |name: &str, value: serde_json::Value| {
            let mut document = good.clone();
            document[name] = value;
            document
        };
        for (document, client, user) in [
            (good.clone(), true, true),
            (with("issuer", json!("https://as.example/")), false, false),
            (
                with("token_endpoint", json!("http://as.example/t")),
                false,
                false,
            ),
            (
                with("token_endpoint", json!("https://10.0.0.1/t")),
                false,
                false,
            ),
            (
                with("authorization_endpoint", json!("javascript:alert(1)")),
                false,
                false,
            ),
            (with("authorization_endpoint", json!(null)), true, false),
            (
                with("code_challenge_methods_supported", json!(["plain"])),
                true,
                false,
            ),
        ] {
            let read = |grant| read_metadata(document.to_string().as_bytes(), &oauth(grant), &base);
            assert_eq!(read("client").is_ok(), client, "{document}");
            assert_eq!(read("user").is_ok(), user, "{document}");
        }
    }
}
