//! Where a browser comes to: the page a link leads to, and the way back from the upstream's
//! authorization server (RFC 6749 section 4.1, PKCE with S256, RFC 9207).
//!
//! The page grants nothing; it says who would get what. The way back is open only to the
//! browser the page was shown in (a cookie, bound to the sealed `state`), while the link is,
//! and once.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use url::Url;
use url::form_urlencoded;

use super::super::server::{Endpoints, ask, endpoints, resource};
use super::page::{self, Consent};
use super::{CONNECT, LINK_HOLDS, Link};
use crate::body::Body;
use crate::config::{Grant, OAuth, Upstream};
use crate::context::Context;
use crate::credentials::grant;
use crate::egress;
use crate::error::Rejection;
use crate::platform::{LogLevel, Platform};
use crate::seal::{Purpose, hex};

/// The `state` of an authorization request.
#[derive(Serialize, Deserialize)]
struct State {
    link: Link,
    /// PKCE: the secret of this request (RFC 7636).
    verifier: String,
    /// Digest of the cookie of the browser it was made for.
    browser: String,
}

/// What ends a visit early: a status, and words for who sees the page.
type Refused = (StatusCode, &'static str);

const SPENT: Refused = (
    StatusCode::BAD_REQUEST,
    "This link is not valid, is over, or has been used. Ask again in your client for a new one.",
);
const FAILED: Refused = (
    StatusCode::BAD_GATEWAY,
    "The account could not be connected just now. Follow the link from your client once more.",
);

/// Answers a browser; `rest` is the path below [`CONNECT`].
pub(crate) async fn serve<P: Platform>(
    context: &Context<P>,
    rest: &str,
    request: &Request<Body>,
) -> Response<Body> {
    if request.method() != Method::GET {
        return egress::refusal(&Rejection::MethodNotAllowed { allow: "GET" }.into(), "");
    }
    let query = Query::of(request);
    let headers = request.headers();
    let served = match rest.strip_prefix('/') {
        Some(upstream) => begin(context, upstream, &query, headers).await,
        None => end(context, &query, headers).await,
    };
    served.unwrap_or_else(|(status, words)| page::note(status, "Not connected", words))
}

/// The page a link leads to.
async fn begin<P: Platform>(
    context: &Context<P>,
    name: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, Refused> {
    let sealer = &context.settings.sealer;
    let link = query.one("link").ok_or(SPENT)?;
    let link: Link = sealer.open(Purpose::Link, link).ok_or(SPENT)?;
    let (upstream, oauth) = usable(context, &link).await?;
    if upstream.name != name {
        return Err(SPENT);
    }
    let endpoints = endpoints(context, oauth).await.map_err(|failure| {
        log(context, &link, &failure.to_string());
        FAILED
    })?;
    let cookie = cookie(context, headers).map(str::to_owned);
    let cookie = cookie.unwrap_or_else(|| hex(&context.random::<16>()));
    let verifier = URL_SAFE_NO_PAD.encode(context.random::<32>());
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
    let (subject, client) = (link.subject.clone(), link.client.clone());
    let state = State {
        link,
        verifier,
        browser: digest(&cookie),
    };
    let state = sealer.seal(context.platform.as_ref(), Purpose::Authorization, &state);
    let state = state.map_err(|_| FAILED)?;
    let authorize = authorize(context, upstream, oauth, (&endpoints, &state, &challenge));
    let authorize = authorize.ok_or(FAILED)?;
    let mut response = page::consent(&Consent {
        gateway: &context.settings.config.metadata.name,
        upstream: &upstream.name,
        subject: &subject,
        client: client.as_deref(),
        scopes: &oauth.scopes,
        authorize: authorize.as_str(),
        server: authorize.host_str().unwrap_or_default(),
    });
    let set = format!(
        "{}={cookie}; Path=/{}; HttpOnly; SameSite=Lax; Max-Age={}",
        cookie_name(context),
        if is_secure(context) { "; Secure" } else { "" },
        LINK_HOLDS.as_secs(),
    );
    let set = HeaderValue::from_str(&set).map_err(|_| FAILED)?;
    response.headers_mut().insert(SET_COOKIE, set);
    Ok(response)
}

/// Where the authorization server asks the user.
fn authorize<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    oauth: &OAuth,
    (endpoints, state, challenge): (&Endpoints, &str, &str),
) -> Option<Url> {
    let mut url = endpoints.authorization.clone()?;
    let mut query = url.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &oauth.client_id)
        .append_pair("redirect_uri", &redirect_uri(context))
        .append_pair("resource", &resource(oauth, &upstream.url))
        .append_pair("state", state)
        .append_pair("code_challenge", challenge)
        .append_pair("code_challenge_method", "S256");
    if !oauth.scopes.is_empty() {
        query.append_pair("scope", &oauth.scopes.join(" "));
    }
    drop(query);
    Some(url)
}

/// The way back.
async fn end<P: Platform>(
    context: &Context<P>,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, Refused> {
    let sealer = &context.settings.sealer;
    let state = query.one("state").ok_or(SPENT)?;
    let state: State = sealer.open(Purpose::Authorization, state).ok_or(SPENT)?;
    let same = cookie(context, headers).is_some_and(|cookie| digest(cookie) == state.browser);
    if !same {
        let words = "This is not the browser the link was opened in. Follow the link from your client once more.";
        return Err((StatusCode::FORBIDDEN, words));
    }
    let link = &state.link;
    let (upstream, oauth) = usable(context, link).await?;
    let failed = |reason: &str| {
        log(context, link, reason);
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
        log(context, link, "its authorization server refuses");
        let words = "The account was not connected: access was refused there.";
        return Err((StatusCode::OK, words));
    }
    let code = query.one("code").ok_or_else(|| failed("no code"))?;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &redirect_uri(context)),
        ("code_verifier", &state.verifier),
    ];
    let given = ask(context, oauth, &resource(oauth, &upstream.url), &form).await;
    let given = given.map_err(|error| failed(&error.to_string()))?;
    let given = given.map_err(|failure| failed(&failure.to_string()))?;
    let granted = (&given, link.made_at);
    match grant::store(context, upstream, oauth, &link.principal, granted).await {
        Ok(true) => {
            log(context, link, "connected");
            let words = "The account is connected. Close this page and go on in your client.";
            Ok(page::note(StatusCode::OK, "Connected", words))
        }
        Ok(false) => Err(SPENT),
        Err(error) => Err(failed(&error.to_string())),
    }
}

/// The upstream a link is for, while it may be followed.
async fn usable<'a, P: Platform>(
    context: &'a Context<P>,
    link: &Link,
) -> Result<(&'a Upstream, &'a OAuth), Refused> {
    let now = context.now();
    let holds = now < link.made_at + LINK_HOLDS && link.made_at <= now + LINK_HOLDS;
    let upstream = context.settings.upstream(&link.upstream).ok_or(SPENT)?;
    let oauth = upstream.credentials.oauth();
    let oauth = oauth.filter(|oauth| oauth.grant == Grant::User && holds);
    let oauth = oauth.ok_or(SPENT)?;
    let open = grant::is_open(context, upstream, oauth, &link.principal, link.made_at);
    match open.await {
        Ok(true) => Ok((upstream, oauth)),
        Ok(false) => Err(SPENT),
        Err(_) => Err(FAILED),
    }
}

fn log<P: Platform>(context: &Context<P>, link: &Link, outcome: &str) {
    let fields = json!({
        "upstream": link.upstream,
        "principal": link.principal,
        "outcome": outcome,
    });
    context.log(LogLevel::Info, "connect", fields);
}

fn redirect_uri<P: Platform>(context: &Context<P>) -> String {
    let origin = context.settings.config.public_url.as_str();
    format!("{}{CONNECT}", origin.trim_end_matches('/'))
}

fn is_secure<P: Platform>(context: &Context<P>) -> bool {
    context.settings.config.public_url.scheme() == "https"
}

fn cookie_name<P: Platform>(context: &Context<P>) -> &'static str {
    match is_secure(context) {
        true => "__Host-tidegate-connect",
        false => "tidegate-connect",
    }
}

/// The cookie a browser came with, if it is one of ours.
fn cookie<'a, P: Platform>(context: &Context<P>, headers: &'a HeaderMap) -> Option<&'a str> {
    let name = cookie_name(context);
    let all = headers.get_all(COOKIE).iter();
    let pairs = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    let mut ours = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name);
    let (_, value) = ours.next()?;
    let digits = value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit());
    (digits && ours.next().is_none()).then_some(value)
}

fn digest(cookie: &str) -> String {
    hex(&Sha256::digest(cookie))
}

/// A request's query, each name of which may stand once.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request<Body>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        Self(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    fn one(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }

    fn repeats(&self, name: &str) -> bool {
        self.0.iter().filter(|(key, _)| key == name).count() > 1
    }
}
