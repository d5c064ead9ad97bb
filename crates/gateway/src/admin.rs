//! The operators' door: `/admin/tasks` and `/admin/usage`, and who may pass it;
//! `/admin/revocations` is `auth::revocation`'s.
//!
//! It is there only where the platform has the secret [`ADMIN_TOKEN`], and opens to who
//! shows it as a bearer token; without the secret these paths are like any that is not
//! served. Every request leaves one audit line, also a refused one. What is shown and done is
//! decided in `tasks::operate` and `quotas`.

use std::borrow::Cow;
use std::time::Duration;

use hmac::{Hmac, Mac};
use http::header::{ALLOW, AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::body::Body;
use crate::context::Context;
use crate::egress::{self, json_response};
use crate::error::{Error, Fault, Rejection};
use crate::ingress::Peer;
use crate::platform::{LogLevel, Platform, Secret};
use crate::quotas;
use crate::seal::hex;
use crate::tasks::operate::{self, Cursor, Done, Filter, State, is_id};

/// The secret that opens this door.
pub const ADMIN_TOKEN: &str = "TIDEGATE_ADMIN_TOKEN";
/// Shortest secret that opens anything, in bytes; a shorter one is as good as none.
pub const ADMIN_TOKEN_MIN: usize = 24;
/// What the paths of this door begin with.
pub(crate) const ADMIN: &str = "/admin/";

/// What is asked.
enum Asked {
    List(Filter, Cursor),
    Show(String),
    Cancel(String),
    Retry(String),
    Usage(quotas::Filter, quotas::Cursor),
}

/// Why there is no answer.
enum Refused {
    NotFound,
    Unauthenticated,
    Method(&'static str),
    Query(String),
    Because(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Because(error)
    }
}

/// Answers a request to `/admin/` and `path`.
pub(crate) async fn answer<P: Platform>(
    context: &Context<P>,
    path: &str,
    request: Request<Body>,
) -> Response<Body> {
    let secret = match secret(context).await {
        Ok(secret) => secret,
        Err(error) => return egress::refusal(&error, ""),
    };
    let correlation_id = hex(&context.random::<16>());
    let asked = match shows(context, request.headers(), secret.expose()) {
        true => read(context, path, &request),
        false => Err(Refused::Unauthenticated),
    };
    let (action, task) = match &asked {
        Ok(Asked::List(..)) => ("tasks.list", None),
        Ok(Asked::Show(id)) => ("tasks.show", Some(id.clone())),
        Ok(Asked::Cancel(id)) => ("tasks.cancel", Some(id.clone())),
        Ok(Asked::Retry(id)) => ("tasks.retry", Some(id.clone())),
        Ok(Asked::Usage(..)) => ("usage.list", None),
        Err(_) => ("none", None),
    };
    let answered = match asked {
        Ok(asked) => act(context, asked).await,
        Err(refused) => Err(refused),
    };
    let (response, outcome) = match answered {
        Ok(answered) => answered,
        Err(refused) => refuse(context, refused, &correlation_id),
    };
    let peer = request.extensions().get::<Peer>();
    let line = json!({
        "event": "admin",
        "atMs": context.now().0,
        "correlationId": correlation_id,
        "address": peer.and_then(|peer| peer.address.as_deref()),
        "action": action,
        "task": task,
        "status": response.status().as_u16(),
        "outcome": outcome,
    });
    context.platform.log(LogLevel::Info, &line.to_string());
    response
}

/// Whether a request with these headers is an operator's.
pub(crate) async fn is_operator<P: Platform>(context: &Context<P>, headers: &HeaderMap) -> bool {
    if !headers.contains_key(AUTHORIZATION) {
        return false;
    }
    let secret = secret(context).await;
    secret.is_ok_and(|secret| shows(context, headers, secret.expose()))
}

/// What opens this door; without it there is none.
pub(crate) async fn secret<P: Platform>(context: &Context<P>) -> Result<Secret, Error> {
    let secret = context.platform.secret(ADMIN_TOKEN).await;
    let secret = secret.map_err(|error| {
        let fields = json!({ "reason": error.0 });
        context.log(LogLevel::Error, "secret_unread", fields);
        Fault::unread(error)
    })?;
    let secret = secret.filter(|secret| secret.expose().len() >= ADMIN_TOKEN_MIN);
    secret.ok_or_else(|| Rejection::NotFound.into())
}

/// Whether a request with these headers shows the secret, once. Compared as authentication codes under a key of
/// this moment, which takes as long whatever is alike.
pub(crate) fn shows<P: Platform>(context: &Context<P>, headers: &HeaderMap, secret: &str) -> bool {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (Some(shown), None) = (shown.next(), shown.next()) else {
        return false;
    };
    let Some((scheme, shown)) = shown.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return false;
    };
    let key = context.random::<32>();
    let code = |text: &str| {
        let code = Hmac::<Sha256>::new_from_slice(&key).ok();
        code.map(|code| code.chain_update(text.as_bytes()))
    };
    let (Some(shown), Some(secret)) = (code(shown.trim()), code(secret)) else {
        return false;
    };
    let same = shown.verify(&secret.finalize().into_bytes()).is_ok();
    scheme.eq_ignore_ascii_case("bearer") && same
}

/// What a path and a query ask for.
fn read<P: Platform>(
    context: &Context<P>,
    path: &str,
    request: &Request<Body>,
) -> Result<Asked, Refused> {
    let parts: Vec<&str> = path.split('/').collect();
    let task = |id| is_id(id).map(str::to_owned).ok_or(Refused::NotFound);
    let (asked, method, allow) = match parts[..] {
        ["tasks"] => {
            let (filter, cursor) = query(context, request.uri().query().unwrap_or_default())?;
            (Asked::List(filter, cursor), Method::GET, "GET")
        }
        ["usage"] => {
            let (filter, cursor) = usage(request.uri().query().unwrap_or_default())?;
            (Asked::Usage(filter, cursor), Method::GET, "GET")
        }
        ["tasks", id] => (Asked::Show(task(id)?), Method::GET, "GET"),
        ["tasks", id, "cancel"] => (Asked::Cancel(task(id)?), Method::POST, "POST"),
        ["tasks", id, "retry"] => (Asked::Retry(task(id)?), Method::POST, "POST"),
        _ => return Err(Refused::NotFound),
    };
    match *request.method() == method {
        true => Ok(asked),
        false => Err(Refused::Method(allow)),
    }
}

fn query<P: Platform>(context: &Context<P>, query: &str) -> Result<(Filter, Cursor), Refused> {
    let (mut filter, mut cursor) = (Filter::default(), Cursor::default());
    let bad = |name: &str, wanted: &str| Refused::Query(format!("`{name}` must be {wanted}."));
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "tenant" => filter.tenant = Some(value.into_owned()),
            "state" => {
                let state = State::parse(&value);
                filter.state = Some(state.ok_or_else(|| bad("state", State::NAMES))?);
            }
            "olderThan" => {
                let age = value.parse().map(Duration::from_millis);
                let age = age.map_err(|_| bad("olderThan", "a number of milliseconds"))?;
                filter.created_by = Some(context.now() - age);
            }
            "cursor" => {
                let given = Cursor::parse(&value);
                cursor = given.ok_or_else(|| bad("cursor", "a `nextCursor` of another page"))?;
            }
            _ => {
                let words =
                    "There is no such parameter: use `tenant`, `state`, `olderThan`, `cursor`.";
                return Err(Refused::Query(words.to_owned()));
            }
        }
    }
    Ok((filter, cursor))
}

fn usage(query: &str) -> Result<(quotas::Filter, quotas::Cursor), Refused> {
    let (mut filter, mut cursor) = (quotas::Filter::default(), quotas::Cursor::default());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = value.into_owned();
        match &*name {
            "quota" => filter.quota = Some(value),
            "principal" => filter.principal = Some(value),
            "client" => filter.client = Some(value),
            "tenant" => filter.tenant = Some(value),
            "tool" => filter.tool = Some(value),
            "period" if quotas::Filter::is_period(&value) => filter.period = Some(value),
            "period" => {
                let words = "`period` must be a day or a month: `2026-11-21`, `2026-11`.";
                return Err(Refused::Query(words.to_owned()));
            }
            "cursor" => {
                let words = "`cursor` must be a `nextCursor` of another page.";
                let given = quotas::Cursor::parse(&value);
                cursor = given.ok_or_else(|| Refused::Query(words.to_owned()))?;
            }
            _ => {
                let words = "There is no such parameter: use `quota`, `principal`, `client`, \
                             `tenant`, `tool`, `period`, `cursor`.";
                return Err(Refused::Query(words.to_owned()));
            }
        }
    }
    Ok((filter, cursor))
}

type Answered = (Response<Body>, Cow<'static, str>);

async fn act<P: Platform>(context: &Context<P>, asked: Asked) -> Result<Answered, Refused> {
    let done = match asked {
        Asked::List(filter, cursor) => {
            let page = operate::list(context, &filter, cursor).await?;
            return Ok((shown(StatusCode::OK, &page)?, "ok".into()));
        }
        Asked::Usage(filter, cursor) => {
            let page = quotas::list(context, &filter, cursor).await?;
            return Ok((shown(StatusCode::OK, &page)?, "ok".into()));
        }
        Asked::Show(id) => match operate::show(context, &id).await? {
            Some(seen) => return Ok((shown(StatusCode::OK, &seen)?, "ok".into())),
            None => Done::Unknown,
        },
        Asked::Cancel(id) => operate::cancel(context, &id).await?,
        Asked::Retry(id) => operate::retry(context, &id).await?,
    };
    match done {
        Done::Yes(seen) => Ok((shown(StatusCode::OK, &*seen)?, "ok".into())),
        Done::No(reason, seen) => {
            let body = json!({
                "error": { "reason": "wrong_state", "message": reason },
                "task": &*seen,
            });
            Ok((shown(StatusCode::CONFLICT, &body)?, "wrong_state".into()))
        }
        Done::Unknown => {
            let words = "There is no such task, or it can be read no longer.";
            let response = problem(StatusCode::NOT_FOUND, "unknown_task", words);
            Ok((response, "unknown_task".into()))
        }
    }
}

fn shown(status: StatusCode, body: &impl Serialize) -> Result<Response<Body>, Error> {
    let text = serde_json::to_string(body).map_err(|e| Fault::Internal(e.to_string()))?;
    Ok(json_response(status, text))
}

fn problem(status: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let body = json!({ "error": { "reason": reason, "message": message } });
    json_response(status, body.to_string())
}

fn refuse<P: Platform>(context: &Context<P>, refused: Refused, correlation_id: &str) -> Answered {
    match refused {
        Refused::NotFound => {
            let words = "There is no such path, or no task can have this id.";
            (
                problem(StatusCode::NOT_FOUND, "not_found", words),
                "not_found".into(),
            )
        }
        Refused::Unauthenticated => {
            let words = "Send the deployment's TIDEGATE_ADMIN_TOKEN as a bearer token.";
            let mut response = problem(StatusCode::UNAUTHORIZED, "unauthenticated", words);
            let challenge = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            (response, "unauthenticated".into())
        }
        Refused::Method(allow) => {
            let words = "This path does not take this HTTP method.";
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", words);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(allow));
            (response, "method_not_allowed".into())
        }
        Refused::Query(words) => {
            let response = problem(StatusCode::BAD_REQUEST, "bad_query", &words);
            (response, "bad_query".into())
        }
        Refused::Because(error) => because(context, &error, correlation_id),
    }
}

fn because<P: Platform>(context: &Context<P>, error: &Error, correlation_id: &str) -> Answered {
    let told = error.response(correlation_id);
    if let Error::Fault(fault) = error {
        let fields = json!({ "correlationId": correlation_id, "reason": fault.to_string() });
        context.log(LogLevel::Error, "fault", fields);
    }
    let data: Option<Value> = told
        .error
        .data
        .as_ref()
        .and_then(|data| serde_json::from_str(data.get()).ok());
    let body = json!({
        "error": { "reason": error.label(), "message": told.error.message, "data": data },
    });
    let mut response = json_response(told.status, body.to_string());
    response.headers_mut().extend(told.headers);
    (response, error.label().into())
}
