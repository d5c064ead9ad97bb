//! What the authorization server says of a token that says nothing itself (RFC 7662).
//!
//! Answers are remembered by the token's digest, good ones for [`ACTIVE_KEPT`] at most and
//! never past the token's end, bad ones for [`INACTIVE_KEPT`]: within that time a token that
//! was revoked at its server stops working here. Where the server cannot be asked, a token
//! that is not remembered is not accepted.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::form_urlencoded::{Serializer, byte_serialize};

use super::claims::{Claims, Expected};
use super::jwks::AGENT;
use super::{Refused, Sha256Digest};
use crate::body::Body;
use crate::config::Introspection;
use crate::error::Fault;
use crate::memory::Bounded;
use crate::platform::{Clock, HttpClient, Platform};
use crate::time::Timestamp;

/// How long a token found active is not asked about again.
pub const ACTIVE_KEPT: Duration = Duration::from_secs(60);
/// How long a token found inactive is not asked about again.
pub const INACTIVE_KEPT: Duration = Duration::from_secs(30);
/// Most answers one isolate remembers.
pub const ANSWERS_MAX: usize = 1024;
/// Most questions one isolate has open: whoever sends made-up tokens reaches the server no
/// faster than it answers.
pub const QUESTIONS_MAX: usize = 32;
/// How long the server has to answer, until its answer has ended.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer read, in bytes.
pub const ANSWER_MAX: usize = 64 * 1024;

/// What an isolate remembers of answers.
pub(super) struct Memory {
    answers: Bounded<Sha256Digest, (Timestamp, Option<Rc<Claims>>)>,
    open: Rc<Cell<usize>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            answers: Bounded::new(ANSWERS_MAX),
            open: Rc::default(),
        }
    }
}

/// What the server says of a token, if it is active.
pub(super) async fn ask<P: Platform>(
    platform: &P,
    memory: &Memory,
    introspection: &Introspection,
    token: &str,
) -> Result<Option<Rc<Claims>>, Fault> {
    let mut digest = Sha256::new();
    // Another server's answer is not this one's.
    digest.update(introspection.endpoint.as_str());
    digest.update([0]);
    digest.update(token);
    let digest: Sha256Digest = digest.finalize().into();
    let now = platform.clock().now();
    if let Some((until, known)) = memory.answers.get(&digest)
        && now < until
        // A clock that stepped back does not make an answer last.
        && until.since(now) <= ACTIVE_KEPT
    {
        return Ok(known);
    }
    let told = question(platform, memory, introspection, token).await;
    let told = told.map_err(|reason| {
        let endpoint = &introspection.endpoint;
        Fault::Dependency(format!("introspection at {endpoint}: {reason}"))
    })?;
    let now = platform.clock().now();
    let (until, known) = match told.get("active") == Some(&Value::Bool(true)) {
        true => {
            let until = now + ACTIVE_KEPT;
            let ends = told.expires_at().unwrap_or(until);
            (until.min(ends), Some(Rc::new(told.of_a_workload())))
        }
        false => (now + INACTIVE_KEPT, None),
    };
    memory.answers.insert(digest, (until, known.clone()));
    Ok(known)
}

/// Judges what was told as the claims of a token are judged; but an answer is of now and so
/// need not say when the token ends.
pub(super) fn check(claims: &Claims, expected: &Expected<'_>) -> Result<(), Refused> {
    let Expected {
        issuer, resource, ..
    } = expected;
    let named = claims.get("iss");
    let other = named.is_some_and(|named| named.as_str() != Some(&issuer.issuer));
    if other || !claims.may_be_of(issuer, resource.tenant.as_deref()) {
        return Err(Refused("The token's issuer is not trusted here."));
    }
    claims.check(expected, false)
}

async fn question<P: Platform>(
    platform: &P,
    memory: &Memory,
    introspection: &Introspection,
    token: &str,
) -> Result<Claims, String> {
    let _open = Open::begin(&memory.open).ok_or("too many questions at once")?;
    let request = request(platform, introspection, token).await?;
    let answer = pin!(exchange(platform, request));
    let limit = pin!(platform.clock().sleep(ANSWER_TIMEOUT));
    let answer = match select(answer, limit).await {
        Either::Left((answer, _)) => answer?,
        Either::Right(((), _)) => return Err("no answer in time".to_owned()),
    };
    let told = Claims::parse(&answer).filter(|told| told.get("active").is_some());
    told.ok_or_else(|| "the answer says nothing of a token".to_owned())
}

async fn request<P: Platform>(
    platform: &P,
    introspection: &Introspection,
    token: &str,
) -> Result<Request<Body>, String> {
    let secret = introspection.client_secret.name().ok_or("no secret")?;
    let secret = platform.secret(secret).await;
    let secret = secret.map_err(|error| error.to_string())?;
    let secret = secret.ok_or("its secret is not set")?;
    // RFC 6749 section 2.3.1: both are written as in a form, then as in RFC 7617.
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!(
        "{}:{}",
        encoded(&introspection.client_id),
        encoded(secret.expose())
    );
    let form = Serializer::new(String::new())
        .append_pair("token", token)
        .append_pair("token_type_hint", "access_token")
        .finish();
    Request::builder()
        .method(Method::POST)
        .uri(introspection.endpoint.as_str())
        .header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, AGENT)
        .body(Body::from(form))
        .map_err(|e| e.to_string())
}

async fn exchange<P: Platform>(platform: &P, request: Request<Body>) -> Result<Bytes, String> {
    let sent = platform.http().send(request).await;
    let response = sent.map_err(|e| e.to_string())?;
    match response.status() {
        StatusCode::OK => {
            let body = response.into_body().read(ANSWER_MAX).await;
            body.map_err(|e| e.to_string())
        }
        status => Err(format!("status {}", status.as_u16())),
    }
}

/// One open question; however it ends, there is room for another.
struct Open(Rc<Cell<usize>>);

impl Open {
    fn begin(open: &Rc<Cell<usize>>) -> Option<Self> {
        if open.get() >= QUESTIONS_MAX {
            return None;
        }
        open.set(open.get() + 1);
        Some(Self(Rc::clone(open)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
