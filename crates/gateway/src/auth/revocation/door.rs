//! Where an operator revokes at once: `POST /admin/revocations`, and `DELETE` to take it back.
//!
//! Open only where the secret [`ADMIN_TOKEN`] is set, to whoever shows it. It writes one
//! entry of the atomic store and nothing else; the published list is the CLI's.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{Entry, IMMEDIATE_KEPT, Revoked, RevokedFamily, RevokedRecord};
use crate::admin::{ADMIN_TOKEN, ADMIN_TOKEN_MIN, shows};
use crate::body::Body;
use crate::context::Context;
use crate::egress::{self, json_response};
use crate::error::{Error, Fault, Rejection};
use crate::keyspace::{Key, atomic_get, atomic_swap};
use crate::platform::{LogLevel, Platform, Swap};

/// Where the door is.
pub const PATH: &str = "/admin/revocations";
/// Largest body read, in bytes.
const BODY_MAX: usize = 8 * 1024;
/// How often a write is tried that others come before.
const TRIES_MAX: u32 = 4;

/// What is to be revoked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    kind: Revoked,
    #[serde(default)]
    issuer: String,
    value: String,
}

/// Answers at the door.
pub(crate) async fn answer<P: Platform>(
    context: &Context<P>,
    request: Request<Body>,
) -> Response<Body> {
    let secret = context.platform.secret(ADMIN_TOKEN).await;
    let Some(secret) = secret.filter(|secret| secret.expose().len() >= ADMIN_TOKEN_MIN) else {
        return egress::refusal(&Rejection::NotFound.into(), "");
    };
    if !shows(context, request.headers(), secret.expose()) {
        return unauthorized();
    }
    let revoke = match *request.method() {
        Method::POST => true,
        Method::DELETE => false,
        _ => {
            let allow = "POST, DELETE";
            return egress::refusal(&Rejection::MethodNotAllowed { allow }.into(), "");
        }
    };
    let body = request.into_body().read(BODY_MAX).await.ok();
    let asked = body.and_then(|body| serde_json::from_slice::<Asked>(&body).ok());
    let Some(asked) = asked.filter(|asked| !asked.value.is_empty()) else {
        let words = "send {kind, issuer, value}; kind is token, subject, client, key or tenant";
        return json_response(
            StatusCode::BAD_REQUEST,
            json!({ "error": words }).to_string(),
        );
    };
    let id = asked.kind.id(&asked.issuer, &asked.value);
    match write(context, asked.kind, &id, revoke).await {
        Ok(()) => {
            let event = if revoke {
                "revoked"
            } else {
                "revocation_lifted"
            };
            let fields = json!({ "kind": asked.kind, "id": id });
            context.log(LogLevel::Warn, event, fields);
            json_response(StatusCode::OK, json!({ "id": id }).to_string())
        }
        Err(error) => egress::refusal(&error, ""),
    }
}

pub(crate) fn unauthorized() -> Response<Body> {
    let words = json!({ "error": "show the deployment's TIDEGATE_ADMIN_TOKEN as a bearer token" });
    let mut response = json_response(StatusCode::UNAUTHORIZED, words.to_string());
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    response
}

async fn write<P: Platform>(
    context: &Context<P>,
    kind: Revoked,
    id: &str,
    revoke: bool,
) -> Result<(), Error> {
    let store = context.platform.atomic();
    let key = Key::<RevokedFamily>::of(&[id]);
    let now = context.now();
    let entry = Entry {
        kind,
        id: id.to_owned(),
        at_ms: now.0,
        until_ms: (!revoke).then_some(now.0),
    };
    let record = RevokedRecord { v: 1, entry };
    for _ in 0..TRIES_MAX {
        let known = atomic_get(store, &key).await;
        let known = known.map_err(|e| Fault::Dependency(e.to_string()))?;
        let version = known.map(|(version, _)| version);
        let ends = now + IMMEDIATE_KEPT;
        match atomic_swap(store, &key, version, &record, ends).await? {
            Swap::Done(_) => return Ok(()),
            Swap::Conflict => {}
        }
    }
    Err(Fault::Dependency("others write the same revocation".to_owned()).into())
}
