//! Request-scope tokens: the word of a caller's orchestrator that this very call is one it
//! meant to make. A stolen access token, or a model that was talked into another call, has
//! no such word.
//!
//! A token is `v1.<time>.<nonce>.<code>`: seconds since the epoch, 1 to [`NONCE_MAX`]
//! characters of `A-Z a-z 0-9 - _` that its maker chooses, and in base64url without padding
//! the HMAC-SHA256, under the shared secret, of the canonical text (RFC 8785) of
//!
//! ```json
//! ["tidegate-request-v1", time, nonce, issuer, tenant, subject, "upstream__tool", arguments]
//! ```
//!
//! where `tenant` is `null` if the caller has none. It is good once, for as long as the
//! tool's rule says, and [`AHEAD_MAX`] before its time: what has been used is counted in the
//! atomic store. Where that cannot be asked no token is accepted.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName};
use serde_json::value::RawValue;
use sha2::Sha256;
use tidegate_mcp::json::{self, Object, canonical};

use crate::auth::Principal;
use crate::config::{NAME_SEPARATOR, RequestToken, SecretRef};
use crate::context::Context;
use crate::error::{Error, Fault, Rejection};
use crate::keyspace::{Family, Key, Store, atomic_add};
use crate::platform::Platform;
use crate::policy::Permit;
use crate::route::Target;
use crate::seal::hex;
use crate::time::Timestamp;

/// How far the orchestrator's clock may be ahead of ours.
pub const AHEAD_MAX: Duration = Duration::from_secs(30);
/// Longest nonce, in bytes.
pub const NONCE_MAX: usize = 64;
/// Shortest secret that signs anything, in bytes.
pub const SECRET_MIN: usize = 32;
/// `_meta` key of a token, for clients that cannot set headers.
pub const META: &str = "io.tidegate/requestToken";

/// The header a token is sent in.
const HEADER: HeaderName = HeaderName::from_static("tidegate-request-token");
/// What is signed begins with this, and a token with its end.
const SCHEME: &str = "tidegate-request-v1";
const VERSION: &str = "v1";

/// How often a token has been used: one counter per token, for as long as it could be used
/// again.
pub struct UsedFamily;

impl Family for UsedFamily {
    type Record = i64;
    const NAME: &'static str = "used";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = Some(Duration::from_secs(3_600 + 31));
}

/// What a token is for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The caller's issuer; empty where nobody is asked.
    pub issuer: &'a str,
    /// The caller's tenant.
    pub tenant: Option<&'a str>,
    /// The caller.
    pub subject: &'a str,
    /// The tool, as `upstream__tool`.
    pub tool: &'a str,
    /// The arguments; `{}` where there are none.
    pub arguments: &'a RawValue,
}

impl Asked<'_> {
    /// What is signed; `None` if the arguments have no canonical form.
    pub fn message(&self, seconds: u64, nonce: &str) -> Option<String> {
        let said = [
            json::raw(SCHEME),
            json::raw(&seconds),
            json::raw(nonce),
            json::raw(self.issuer),
            json::raw(&self.tenant),
            json::raw(self.subject),
            json::raw(self.tool),
            self.arguments.to_owned(),
        ];
        canonical(&json::raw(&said))
    }

    /// The token for one call; `None` if it cannot have one: its arguments have no canonical
    /// form, or its nonce is none.
    pub fn sign(&self, secret: &str, seconds: u64, nonce: &str) -> Option<String> {
        let code = code(secret, &self.message(seconds, nonce)?)?;
        let code = URL_SAFE_NO_PAD.encode(code.finalize().into_bytes());
        is_nonce(nonce).then(|| format!("{VERSION}.{seconds}.{nonce}.{code}"))
    }
}

/// A token as it was sent.
struct Shown<'a> {
    seconds: u64,
    nonce: &'a str,
    code: Vec<u8>,
}

impl<'a> Shown<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(4, '.');
        let (version, seconds, nonce) = (parts.next()?, parts.next()?, parts.next()?);
        let plain = seconds.bytes().all(|b| b.is_ascii_digit()) && !seconds.starts_with('0');
        let sound = version == VERSION && plain && seconds.len() <= 12 && is_nonce(nonce);
        let code = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        let seconds = seconds.parse().ok().filter(|_| sound && code.len() == 32)?;
        Some(Self {
            seconds,
            nonce,
            code,
        })
    }
}

fn is_nonce(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=NONCE_MAX).contains(&text.len()) && text.bytes().all(plain)
}

fn code(secret: &str, message: &str) -> Option<Hmac<Sha256>> {
    let code = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    Some(code.chain_update(message.as_bytes()))
}

/// A token that is good, and has not been counted yet.
pub(crate) struct Unspent {
    key: Key<UsedFamily>,
    ends: Timestamp,
}

impl Unspent {
    /// Uses it up.
    pub(crate) async fn spend<P: Platform>(self, context: &Context<P>) -> Result<(), Error> {
        match atomic_add(context.platform.atomic(), &self.key, 1, self.ends).await? {
            1 => Ok(()),
            _ => Err(refused("replayed")),
        }
    }
}

/// The token of a request, once it is known that it has at most one.
pub(crate) fn shown<'a>(
    headers: &'a HeaderMap,
    carried: Option<&'a str>,
) -> Result<Option<&'a str>, Error> {
    let mut sent = headers.get_all(HEADER).iter();
    let header = match sent.next() {
        Some(value) => Some(value.to_str().map_err(|_| refused("malformed"))?),
        None => None,
    };
    match (header, carried) {
        _ if sent.next().is_some() => Err(refused("malformed")),
        (Some(header), Some(carried)) if header != carried => Err(refused("malformed")),
        (header, carried) => Ok(header.or(carried)),
    }
}

/// Checks the token of a call whose tool asks for one; `None` if it does not. `arguments` are
/// those the client sent: a dry run may send others on.
pub(crate) async fn check<P: Platform>(
    context: &Context<P>,
    permit: &Permit,
    arguments: Option<&RawValue>,
    shown: Option<&str>,
) -> Result<Option<Unspent>, Error> {
    let rule = permit
        .rule
        .as_ref()
        .and_then(|rule| rule.request_token.as_ref());
    let (Some(rule), Target::One(one)) = (rule, &permit.target) else {
        return Ok(None);
    };
    let text = shown.ok_or_else(|| refused("missing"))?;
    let token = Shown::parse(text).ok_or_else(|| refused("malformed"))?;
    let principal: &Principal = &permit.principal;
    let (none, tool) = (
        Object::new().to_raw(),
        format!("{}{NAME_SEPARATOR}{}", one.upstream.name, one.own),
    );
    let asked = Asked {
        issuer: &principal.issuer,
        tenant: principal.tenant.as_deref(),
        subject: &principal.subject,
        tool: &tool,
        arguments: arguments.unwrap_or(&none),
    };
    let message = asked.message(token.seconds, token.nonce);
    let message = message.ok_or_else(|| refused("arguments"))?;
    if !signed(context, rule, &message, &token.code).await? {
        return Err(refused("forged"));
    }
    let (now, made) = (context.now(), Timestamp::from_secs(token.seconds));
    let ends = made + Duration::from_secs(rule.max_age_seconds.into());
    if made > now + AHEAD_MAX || now >= ends {
        return Err(refused("expired"));
    }
    let digits = token.code.get(..16).map(hex).unwrap_or_default();
    Ok(Some(Unspent {
        key: Key::of(&[&digits]),
        ends: ends + Duration::from_secs(1),
    }))
}

/// Whether one of the rule's secrets has signed the message. The comparison takes the same
/// time wherever two codes differ.
async fn signed<P: Platform>(
    context: &Context<P>,
    rule: &RequestToken,
    message: &str,
    shown: &[u8],
) -> Result<bool, Error> {
    let secrets = [(&rule.secret, true)].into_iter();
    let secrets = secrets.chain(rule.previous_secret.as_ref().map(|secret| (secret, false)));
    for (secret, needed) in secrets {
        let secret = match read(context, secret).await {
            // Gone when it is no longer needed.
            Err(Fault::SecretMissing(_)) if !needed => continue,
            Err(fault) => return Err(fault.into()),
            Ok(secret) => secret,
        };
        if code(secret.expose(), message).is_some_and(|code| code.verify_slice(shown).is_ok()) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn read<P: Platform>(
    context: &Context<P>,
    secret: &SecretRef,
) -> Result<crate::platform::Secret, Fault> {
    let name = secret.name().unwrap_or_default();
    let found = context.platform.secret(name).await;
    let found = found.map_err(Fault::unread)?;
    let found = found.filter(|secret| secret.expose().len() >= SECRET_MIN);
    found.ok_or_else(|| Fault::SecretMissing(format!("{name}, of {SECRET_MIN} bytes or more")))
}

fn refused(why: &'static str) -> Error {
    Rejection::RequestToken { why }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "an orchestrator's secret of 40 bytes....";

    #[test]
    fn the_example_in_the_readme_is_what_others_must_make() {
        let arguments = r#"{ "to": "ada", "amount": 1e2, "note": "caf\u00e9" }"#;
        let asked = Asked {
            issuer: "https://login.example.com",
            tenant: Some("acme"),
            subject: "sam",
            tool: "pay__send",
            arguments: serde_json::from_str(arguments).unwrap(),
        };
        let message = concat!(
            r#"["tidegate-request-v1",1700000000,"n-1","https://login.example.com","acme","sam","pay__send","#,
            r#"{"amount":100,"note":"café","to":"ada"}]"#
        );
        let token = asked.sign(SECRET, 1_700_000_000, "n-1").unwrap();
        assert_eq!(
            asked.message(1_700_000_000, "n-1").as_deref(),
            Some(message)
        );
        let readme = include_str!("../../../README.md");
        for line in [arguments, message, SECRET, &token] {
            assert!(readme.contains(line), "the README lacks {line}");
        }
    }

    #[test]
    fn a_token_has_one_form() {
        let code = URL_SAFE_NO_PAD.encode([7; 32]);
        let sound = format!("v1.1700000000.n_-1.{code}");
        assert!(Shown::parse(&sound).is_some());
        for text in [
            "",
            "v1",
            "v1.1700000000.n",
            &format!("v2.1700000000.n.{code}"),
            &format!("v1.01700000000.n.{code}"),
            &format!("v1.+1700000000.n.{code}"),
            &format!("v1.-1.n.{code}"),
            &format!("v1.1e9.n.{code}"),
            &format!("v1.1700000000000.n.{code}"),
            &format!("v1.1700000000..{code}"),
            &format!("v1.1700000000.n n.{code}"),
            &format!("v1.1700000000.{}.{code}", "n".repeat(NONCE_MAX + 1)),
            &format!("{sound}="),
            &format!("{sound}.x"),
            &format!(" {sound}"),
            &sound[..sound.len() - 2],
        ] {
            assert!(Shown::parse(text).is_none(), "{text}");
        }
    }
}
