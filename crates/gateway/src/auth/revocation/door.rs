//! Where an operator revokes at once: `POST /admin/revocations`, and `DELETE` to take it back.
//!
//! Open only where the secret [`admin::ADMIN_TOKEN`] is set, to whoever shows it, and of use only
//! where the configuration says `immediate`: elsewhere nobody would read what it writes, so
//! it refuses. It writes one entry of the atomic store and nothing else; the published list
//! is the CLI's.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{Entry, IMMEDIATE_KEPT, Revoked, RevokedFamily, RevokedRecord};
use crate::admin::{self, shows};
use crate::body::Body;
use crate::context::Context;
use crate::egress::{self, json_response};
use crate::error::{Error, Fault, Rejection};
use crate::keyspace::{Key, atomic_get, atomic_swap};
use crate::platform::{LogLevel, Platform, Swap};
use crate::switches::is_immediate;

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

impl Asked {
    /// Whether it says what is meant. Without its issuer an entry would be nobody's.
    fn is_whole(&self) -> bool {
        let named = match self.kind {
            Revoked::Key => true,
            Revoked::Token | Revoked::Subject | Revoked::Client | Revoked::Tenant => {
                !self.issuer.is_empty()
            }
        };
        named && !self.value.is_empty()
    }
}

/// Answers at the door.
pub(crate) async fn answer<P: Platform>(
    context: &Context<P>,
    request: Request<Body>,
) -> Response<Body> {
    let secret = match admin::secret(context).await {
        Ok(secret) => secret,
        Err(error) => return egress::refusal(&error, ""),
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
    if !is_immediate(&context.settings.config) {
        let words = "entries made here are read only where authentication.revocation is \
                     immediate: publish that, or revoke with `tidegate revoke` and \
                     `tidegate keys revoke`, which are in force within 90 seconds";
        return refused(StatusCode::CONFLICT, words);
    }
    let body = request.into_body().read(BODY_MAX).await.ok();
    let asked = body.and_then(|body| serde_json::from_slice::<Asked>(&body).ok());
    let Some(asked) = asked.filter(Asked::is_whole) else {
        let words = "send {kind, issuer, value}; kind is token, subject, client, key or tenant, \
                     and all but a key have an issuer";
        return refused(StatusCode::BAD_REQUEST, words);
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

fn refused(status: StatusCode, words: &str) -> Response<Body> {
    json_response(status, json!({ "error": words }).to_string())
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
