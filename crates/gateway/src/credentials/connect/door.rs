//! Where a browser comes to: the page a link leads to, and the way back from the authorization
//! servers it has visited ([`visit`]).
//!
//! The page grants nothing; it says who would get what. The way back is open only to the
//! browser the page was shown in (a cookie, bound to the sealed `state`), while the link is,
//! and once. It leads to a place of each upstream's own: a server that sends the browser on to
//! another's gets nothing of what that one gives (RFC 9700 section 4.4).

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use super::page::{self, Consent};
use super::visit::{self, State};
use super::{CONNECT, LINK_HOLDS, Link};
use crate::body::Body;
use crate::config::{Grant, OAuth, Upstream};
use crate::context::Context;
use crate::credentials::grant;
use crate::credentials::server::resource;
use crate::egress;
use crate::error::Rejection;
use crate::platform::{LogLevel, Platform};
use crate::seal::{Purpose, hex};

/// What ends a visit early: a status, and words for who sees the page.
pub(super) type Refused = (StatusCode, &'static str);

pub(super) const SPENT: Refused = (
    StatusCode::BAD_REQUEST,
    "This link is not valid, is over, or has been used. Ask again in your client for a new one.",
);
pub(super) const FAILED: Refused = (
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
        Some(upstream) if query.one("state").is_none() => {
            begin(context, upstream, &query, headers).await
        }
        place => end(context, place, &query, headers).await,
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
    let known = cookie(context, headers).map(str::to_owned);
    let cookie = known.unwrap_or_else(|| hex(&context.random::<16>()));
    let (subject, client) = (link.subject.clone(), link.client.clone());
    let visitor = (link, digest(&cookie));
    let authorize = match visit::sign_in(context, &visitor.0) {
        Some(first) => visit::away(context, visitor, &first, None).await?,
        None => {
            let resource = resource(oauth, &upstream.url);
            visit::away(context, visitor, oauth, Some(&resource)).await?
        }
    };
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

/// The way back, to this place.
async fn end<P: Platform>(
    context: &Context<P>,
    place: Option<&str>,
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
    if place != state.place() {
        log(context, link, "the answer is of another visit");
        return Err(FAILED);
    }
    let resource = resource(oauth, &upstream.url);
    if state.nonce.is_some() {
        let first = visit::sign_in(context, link).ok_or(SPENT)?;
        let given = visit::back(context, query, &state, &first, None).await?;
        visit::is_caller(context, &first, &state, &given)?;
        let visitor = (state.link, state.browser);
        let on = visit::away(context, visitor, oauth, Some(&resource)).await?;
        return page::onward(on.as_str()).ok_or(FAILED);
    }
    let given = visit::back(context, query, &state, oauth, Some(&resource)).await?;
    let granted = (&given, link.made_at);
    match grant::store(context, upstream, oauth, &link.principal, granted).await {
        Ok(true) => {
            log(context, link, "connected");
            let words = "The account is connected. Close this page and go on in your client.";
            Ok(page::note(StatusCode::OK, "Connected", words))
        }
        Ok(false) => Err(SPENT),
        Err(error) => {
            log(context, link, &error.to_string());
            Err(FAILED)
        }
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
    // It may have been made before the configuration asked for more.
    let vouched = visit::is_vouched_for(context, &link.issuer);
    let oauth = oauth.filter(|oauth| oauth.grant == Grant::User && holds && vouched);
    let oauth = oauth.ok_or(SPENT)?;
    let open = grant::is_open(context, upstream, oauth, &link.principal, link.made_at);
    match open.await {
        Ok(true) => Ok((upstream, oauth)),
        Ok(false) => Err(SPENT),
        Err(_) => Err(FAILED),
    }
}

pub(super) fn log<P: Platform>(context: &Context<P>, link: &Link, outcome: &str) {
    let fields = json!({
        "upstream": link.upstream,
        "principal": link.principal,
        "outcome": outcome,
    });
    context.log(LogLevel::Info, "connect", fields);
}

/// Where the browser comes back to from the visit of this state.
pub(super) fn redirect_uri<P: Platform>(context: &Context<P>, state: &State) -> String {
    let origin = context.settings.config.public_url.as_str();
    let base = format!("{}{CONNECT}", origin.trim_end_matches('/'));
    match state.place() {
        Some(upstream) => format!("{base}/{upstream}"),
        None => base,
    }
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
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request<Body>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        Self(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    pub(super) fn one(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }

    pub(super) fn repeats(&self, name: &str) -> bool {
        self.0.iter().filter(|(key, _)| key == name).count() > 1
    }
}
