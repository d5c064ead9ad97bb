//! What the gateway shows an upstream to be let in: nothing, a secret of the platform's, or a
//! token it gets by itself, as itself, in exchange for the caller's, or granted by the caller
//! in a browser. The client's own token never reaches an upstream.
//!
//! Tokens are remembered in the isolate, asked for by one request at a time, and replaced
//! [before they end](early) or when the upstream refuses one (401), once per call. What is
//! somebody's own is found by who that is, and by the very token they showed.

mod connect;
mod grant;
mod server;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::auth::PrincipalId;
use crate::config::{Credentials, Grant, OAuth, SecretRef, Upstream};
use crate::context::Context;
use crate::error::{Error, Fault, Rejection};
use crate::memory::Bounded;
use crate::platform::{Clock, Platform, Secret};
use crate::seal::hex;
use crate::time::Timestamp;
use crate::upstream::Exchange;
pub use connect::LINK_HOLDS;
pub(crate) use connect::{
    Asking, CONNECT, answer, connect_tool, connected, connects, is_connect_tool, ready, serve,
};
pub use grant::{GrantFamily, Lease, Record};
use server::{Endpoints, Failure, ask, ends, resource};

/// Most tokens one isolate remembers.
const TOKENS_MAX: usize = 1024;
/// Most authorization servers one isolate remembers the endpoints of.
const SERVERS_MAX: usize = 64;
/// Longest before its end that a token is replaced.
const EARLY_MAX: Duration = Duration::from_secs(60);
/// After an authorization server has failed it is asked again no sooner.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// A token refused by the upstream is replaced only if it is older than this: whatever an
/// upstream answers, its authorization server is not asked more often.
const RENEW_AFTER: Duration = Duration::from_secs(10);
/// How often a request looks whether another one's question has been answered.
const WAIT_STEP: Duration = Duration::from_millis(25);
/// How many times it looks: as long as questions may take, and a little.
const WAIT_STEPS: u32 = 900;

/// Who is asking, as far as upstreams' credentials depend on it.
pub struct Caller {
    principal: PrincipalId,
    issuer: String,
    subject: String,
    client: Option<String>,
    /// What they showed, unless it was a key of the gateway's own.
    token: Option<Secret>,
}

impl Caller {
    /// Somebody who has been let in, by the token they showed.
    pub(crate) fn of(principal: &crate::auth::Principal, token: Option<&str>) -> Self {
        Self {
            principal: principal.id.clone(),
            issuer: principal.issuer.clone(),
            subject: principal.subject.clone(),
            client: principal.client_id.clone(),
            token: token.map(Secret::new),
        }
    }
}

/// What an isolate remembers of credentials.
pub(crate) struct Memory {
    tokens: Bounded<Name, Entry>,
    servers: Bounded<(String, bool), (Timestamp, Rc<Endpoints>)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            tokens: Bounded::new(TOKENS_MAX),
            servers: Bounded::new(SERVERS_MAX),
        }
    }
}

/// Configuration, upstream, and whose token it is.
type Name = (String, String, String);

#[derive(Clone, Default)]
struct Entry {
    token: Option<Rc<Token>>,
    asking: Rc<Cell<bool>>,
    failed: Option<(Timestamp, Failure)>,
}

/// A token that may be shown.
pub(crate) struct Token {
    text: Secret,
    got_at: Timestamp,
    /// When to use it no more.
    until: Timestamp,
}

impl Token {
    fn of(text: &str, ends: Timestamp, now: Timestamp) -> Self {
        Self {
            text: Secret::new(text),
            got_at: now,
            until: ends - early(ends.since(now)),
        }
    }
}

/// How long before the end of its lifetime a token is replaced: a tenth, a minute at most.
fn early(lifetime: Duration) -> Duration {
    (lifetime / 10).min(EARLY_MAX)
}

/// What is shown with one request.
pub(crate) struct Shown {
    pub(crate) header: Option<(HeaderName, HeaderValue)>,
    /// The token in it, if it is one the gateway can replace.
    pub(crate) token: Option<Rc<Token>>,
}

/// What the upstream is shown; where it has `refused` a token, another one.
pub(crate) async fn show<P: Platform>(
    exchange: &Exchange<'_, P>,
    refused: Option<&Rc<Token>>,
) -> Result<Shown, Error> {
    let (context, upstream) = (exchange.context, exchange.upstream);
    let fixed = |name, value| Shown {
        header: Some((name, value)),
        token: None,
    };
    Ok(match &upstream.credentials {
        Credentials::None => Shown {
            header: None,
            token: None,
        },
        Credentials::Bearer { token } => {
            let text = format!("Bearer {}", secret(context, token).await?);
            fixed(AUTHORIZATION, header(&text)?)
        }
        Credentials::Header { name, value } => {
            let name = name
                .parse()
                .map_err(|_| Fault::Internal("credential header name".to_owned()))?;
            fixed(name, header(&secret(context, value).await?)?)
        }
        Credentials::OAuth(oauth) => {
            let token = token(context, upstream, oauth, exchange.principal, refused).await?;
            let text = format!("Bearer {}", token.text.expose());
            Shown {
                header: Some((AUTHORIZATION, header(&text)?)),
                token: Some(token),
            }
        }
    })
}

/// Whether another token than this may be asked for: it is not too soon.
pub(crate) fn may_renew<P: Platform>(context: &Context<P>, token: &Token) -> bool {
    context.now().since(token.got_at) >= RENEW_AFTER
}

fn header(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Fault::SecretMissing("a secret that fits no header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn secret<P: Platform>(context: &Context<P>, reference: &SecretRef) -> Result<String, Fault> {
    let name = reference
        .name()
        .ok_or_else(|| Fault::Internal("secret reference".to_owned()))?;
    let secret = context.platform.secret(name).await;
    secret
        .map_err(Fault::unread)?
        .map(|secret| secret.expose().to_owned())
        .ok_or_else(|| Fault::SecretMissing(name.to_owned()))
}

/// Under what is kept what belongs to a principal at an upstream. Where the caller's token is
/// exchanged, by that token: another may stand for less, or for more.
pub(crate) fn known_as<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
) -> String {
    let exchanged = matches!(
        &upstream.credentials,
        Credentials::OAuth(oauth) if oauth.grant == Grant::Exchange
    );
    if !exchanged {
        return principal.as_str().to_owned();
    }
    let shown = caller(context, principal).and_then(|caller| caller.token.as_ref());
    let digest = shown.map(|shown| hex(&Sha256::digest(shown.expose())));
    format!("{} {}", principal.as_str(), digest.unwrap_or_default())
}

/// A token for the upstream: remembered, or asked for by one request at a time.
async fn token<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    oauth: &OAuth,
    principal: &PrincipalId,
    refused: Option<&Rc<Token>>,
) -> Result<Rc<Token>, Error> {
    let caller = caller(context, principal);
    let whose = match oauth.grant {
        Grant::Client => String::new(),
        Grant::User | Grant::Exchange => known_as(context, upstream, principal),
    };
    let name = (
        context.settings.digest.clone(),
        upstream.name.clone(),
        whose,
    );
    let tokens = &context.memory.credentials.tokens;
    for _ in 0..WAIT_STEPS {
        let entry = tokens.get(&name).unwrap_or_default();
        let now = context.now();
        let same = |token: &Rc<Token>| {
            refused.is_some_and(|refused| refused.text.expose() == token.text.expose())
        };
        let good = |token: &Rc<Token>| now < token.until && now >= token.got_at && !same(token);
        if let Some(token) = entry.token.as_ref().filter(|token| good(token)) {
            return Ok(Rc::clone(token));
        }
        if entry.asking.get() {
            context.platform.clock().sleep(WAIT_STEP).await;
            continue;
        }
        if let Some((at, failure)) = entry.failed
            && now.since(at) < RETRY_AFTER
        {
            return Err(failed(upstream, failure));
        }
        let _asking = InFlight::begin(tokens, &name, &entry.asking);
        let got = get(context, upstream, oauth, (principal, caller), refused).await?;
        let now = context.now();
        return match got {
            Ok(token) => {
                let token = Rc::new(token);
                tokens.with(&name, |entry| {
                    entry.token = Some(Rc::clone(&token));
                    entry.failed = None;
                });
                Ok(token)
            }
            Err(failure) => {
                tokens.with(&name, |entry| entry.failed = Some((now, failure)));
                Err(failed(upstream, failure))
            }
        };
    }
    let late = Failure::Broken("its authorization server does not answer in time");
    Err(failed(upstream, late))
}

/// Gets a token that nobody here has.
async fn get<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    oauth: &OAuth,
    (principal, caller): (&PrincipalId, Option<&Caller>),
    refused: Option<&Rc<Token>>,
) -> Result<Result<Token, Failure>, Error> {
    let scope = oauth.scopes.join(" ");
    let mut form = Vec::new();
    match oauth.grant {
        Grant::User => {
            if caller.is_some_and(|caller| !connect::is_vouched_for(context, &caller.issuer)) {
                return Err(nobody_vouches(upstream));
            }
            return grant::token(context, upstream, oauth, principal, refused).await;
        }
        Grant::Client => form.push(("grant_type", "client_credentials")),
        Grant::Exchange => {
            let shown = caller.and_then(|caller| caller.token.as_ref());
            let Some(shown) = shown else {
                // Where no request is being answered, what was got for one is looked up.
                let stored = grant::stored(context, upstream, oauth, principal).await?;
                return stored.map(Ok).ok_or_else(|| nothing_to_show(upstream));
            };
            form.extend([
                (
                    "grant_type",
                    "urn:ietf:params:oauth:grant-type:token-exchange",
                ),
                ("subject_token", shown.expose()),
                ("subject_token_type", ACCESS_TOKEN),
                ("requested_token_type", ACCESS_TOKEN),
            ]);
            form.extend(
                oauth
                    .audience
                    .as_deref()
                    .map(|audience| ("audience", audience)),
            );
        }
    }
    if !scope.is_empty() {
        form.push(("scope", &scope));
    }
    let resource = resource(oauth, &upstream.url);
    let given = ask(context, oauth, Some(&resource), &form).await?;
    if let (Grant::Exchange, Ok(given)) = (oauth.grant, &given) {
        grant::keep(context, upstream, oauth, principal, given).await;
    }
    let now = context.now();
    Ok(given.map(|given| Token::of(&given.access, ends(&given, now), now)))
}

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The caller, if it is on this principal's behalf that something is asked.
fn caller<'a, P>(context: &'a Context<P>, principal: &PrincipalId) -> Option<&'a Caller> {
    let caller = context.caller.as_deref();
    caller.filter(|caller| caller.principal == *principal)
}

fn failed(upstream: &Upstream, failure: Failure) -> Error {
    without(upstream, &failure.to_string())
}

fn nothing_to_show(upstream: &Upstream) -> Error {
    let reason = "a token is got in exchange for the caller's own, and there is none here: \
                  gateway keys cannot be exchanged, and tokens are not kept";
    without(upstream, reason)
}

fn nobody_vouches(upstream: &Upstream) -> Error {
    let reason = "accounts are connected by those alone whose issuer shows who is in the \
                  browser (`signIn`), and neither a gateway key nor a token of this issuer is \
                  of such a one";
    without(upstream, reason)
}

fn without(upstream: &Upstream, reason: &str) -> Error {
    Rejection::NoCredentials {
        upstream: upstream.name.clone(),
        reason: reason.to_owned(),
    }
    .into()
}

/// One question for a token; however it ends, others may ask again.
struct InFlight(Rc<Cell<bool>>);

impl InFlight {
    fn begin(tokens: &Bounded<Name, Entry>, name: &Name, asking: &Rc<Cell<bool>>) -> Self {
        asking.set(true);
        let known = tokens.with(name, |_| ());
        if known.is_none() {
            let entry = Entry {
                asking: Rc::clone(asking),
                ..Entry::default()
            };
            tokens.insert(name.clone(), entry);
        }
        Self(Rc::clone(asking))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
