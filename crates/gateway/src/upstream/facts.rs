//! What an upstream is: its era, its capabilities, its instructions. Asked once with
//! `server/discover`, else `initialize`; remembered in memory and in KV with a date.
//!
//! A legacy verdict expires soon: an upstream that was upgraded would never contradict it.
//! Refused credentials, network failures and timeouts say nothing about the era.

use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tidegate_mcp::headers::{MCP_METHOD, MCP_PROTOCOL_VERSION};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{self, Message, Request, RpcError};
use tidegate_mcp::meta::{ClientCapabilities, EXT_TASKS, RequestMeta};
use tidegate_mcp::method::Method;
use tidegate_mcp::version::{Era, ProtocolVersion};

use super::{Exchange, REMEMBERED_MAX, http_sse, session, wire};
use crate::auth::PrincipalId;
use crate::config::{EraChoice, Transport, Upstream};
use crate::context::Context;
use crate::credentials;
use crate::error::{Error, Rejection};
use crate::keyspace::{self, Family, Key, Store};
use crate::memory::Bounded;
use crate::platform::Platform;
use crate::seal::hex;
use crate::time::Timestamp;

/// How long a modern upstream's facts are used before it is asked again.
const MODERN_FRESH: Duration = Duration::from_secs(3600);
/// Facts this much older need not be written again: isolates that begin together ask
/// together.
const RECENT_MS: u64 = 30_000;
/// Facts are doubted no oftener than this: an upstream that refuses all it is asked is not
/// asked each time what it is.
const DOUBT_AFTER: Duration = Duration::from_secs(1);
/// How long a legacy upstream's facts are used before it is asked again.
const LEGACY_FRESH: Duration = Duration::from_secs(600);

/// What an upstream said of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Shape of this record.
    pub v: u32,
    /// Configured name of the upstream.
    pub upstream: String,
    /// The newest revision both speak.
    #[serde(with = "version_text")]
    pub version: ProtocolVersion,
    /// How it is spoken to, where that was found out.
    #[serde(default)]
    pub transport: Transport,
    /// Its server capabilities, as it wrote them.
    pub capabilities: Box<RawValue>,
    /// Its instructions, as it wrote them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// When it was asked, milliseconds since the epoch.
    pub checked_at_ms: u64,
}

impl Facts {
    /// The era of its revision.
    pub const fn era(&self) -> Era {
        self.version.era()
    }

    /// Its server capabilities.
    pub fn capabilities(&self) -> Object {
        Object::from_raw(&self.capabilities).unwrap_or_default()
    }

    /// Whether it makes tasks of calls, by the extension.
    pub fn offers_tasks(&self) -> bool {
        self.era() == Era::Modern
            && ClientCapabilities(self.capabilities()).has_extension(EXT_TASKS)
    }

    /// Whether an answer that does not fit is reason to ask again: nobody has fixed what the
    /// upstream is, it was not asked just now, and nobody doubted it just now.
    pub(super) fn doubt<P: Platform>(&self, exchange: &Exchange<'_, P>) -> bool {
        let (now, upstream) = (exchange.context.now(), exchange.upstream);
        let doubted = &exchange.context.memory.upstream.facts.doubted;
        let last = doubted.get(upstream.key()).unwrap_or_default();
        let last = last.max(Timestamp(self.checked_at_ms));
        let doubt = upstream.era == EraChoice::Auto && now.since(last) >= DOUBT_AFTER;
        if doubt {
            doubted.insert(upstream.key().clone(), now);
        }
        doubt
    }

    fn fresh(&self, now: Timestamp) -> bool {
        let lifetime = match self.era() {
            Era::Modern => MODERN_FRESH,
            Era::Legacy => LEGACY_FRESH,
        };
        now.since(Timestamp(self.checked_at_ms)) < lifetime
    }
}

mod version_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use tidegate_mcp::version::ProtocolVersion;

    pub(super) fn serialize<S: Serializer>(
        version: &ProtocolVersion,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(version.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<ProtocolVersion, D::Error> {
        let text = String::deserialize(from)?;
        ProtocolVersion::parse(&text).ok_or_else(|| de::Error::custom("unknown protocol version"))
    }
}

/// The family of [`Facts`], by upstream name and URL.
pub struct UpstreamFamily;

impl Family for UpstreamFamily {
    type Record = Facts;
    const NAME: &'static str = "upstream";
    const STORE: Store = Store::Kv;
    const LIFETIME: Option<Duration> = Some(MODERN_FRESH);
}

/// What an isolate remembers of its upstreams.
pub(crate) struct Memory {
    known: Bounded<String, Rc<Facts>>,
    /// When an upstream's facts were last doubted, by its name.
    doubted: Bounded<String, Timestamp>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            known: Bounded::new(REMEMBERED_MAX),
            doubted: Bounded::new(REMEMBERED_MAX),
        }
    }
}

/// The upstream's facts: memory → KV → the upstream itself.
pub(crate) async fn load<P: Platform>(
    exchange: &Exchange<'_, P>,
    principal: &PrincipalId,
    rather: Era,
) -> Result<Rc<Facts>, Error> {
    match known(exchange.context, exchange.upstream, principal, rather).await {
        Some(facts) => Ok(facts),
        None => ask(exchange, principal, rather).await,
    }
}

/// The upstream's facts as far as they can be had without asking it: memory → KV. What it
/// said to somebody's own account is theirs alone, and stays in memory.
pub(crate) async fn known<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    rather: Era,
) -> Option<Rc<Facts>> {
    let id = told(context, upstream, principal, rather);
    let now = context.now();
    let remembered = &context.memory.upstream.facts.known;
    if let Some(facts) = remembered.get(&id).filter(|facts| facts.fresh(now)) {
        return Some(facts);
    }
    if upstream.credentials.are_personal() {
        return None;
    }
    // KV is a hint here: out of reach or unreadable, the upstream is asked.
    let stored = keyspace::kv_get(context.platform.kv(), &key(&id)).await;
    let facts = Rc::new(stored.ok().flatten().filter(|facts| facts.fresh(now))?);
    remembered.insert(id, Rc::clone(&facts));
    Some(facts)
}

/// Asks the upstream itself, and remembers the answer. Of one that speaks both eras, `rather`
/// is the one it is spoken to in.
pub(crate) async fn ask<P: Platform>(
    exchange: &Exchange<'_, P>,
    principal: &PrincipalId,
    rather: Era,
) -> Result<Rc<Facts>, Error> {
    let (context, upstream) = (exchange.context, exchange.upstream);
    let facts = match upstream.era {
        // Revisions with this transport are all old.
        _ if upstream.transport == Transport::Sse => legacy(exchange, principal).await?,
        EraChoice::Legacy => legacy(exchange, principal).await?,
        EraChoice::Modern => match modern(exchange).await? {
            Probe::Modern(facts) => facts,
            Probe::Legacy => return Err(exchange.invalid("it does not answer `server/discover`")),
        },
        EraChoice::Auto if rather == Era::Legacy => match legacy(exchange, principal).await {
            Ok(facts) => facts,
            Err(refused) => match modern(exchange).await {
                Ok(Probe::Modern(facts)) => facts,
                Ok(Probe::Legacy) | Err(_) => return Err(refused),
            },
        },
        EraChoice::Auto => match modern(exchange).await? {
            Probe::Modern(facts) => facts,
            Probe::Legacy => legacy(exchange, principal).await?,
        },
    };
    let facts = Rc::new(facts);
    let id = told(context, upstream, principal, rather);
    let remembered = &context.memory.upstream.facts.known;
    remembered.insert(id.clone(), Rc::clone(&facts));
    if upstream.credentials.are_personal() {
        return Ok(facts);
    }
    let (publishing, published) = (context.clone(), Rc::clone(&facts));
    context.platform.defer(async move {
        let (kv, key) = (publishing.platform.kv(), key(&id));
        let there = keyspace::kv_get(kv, &key).await.ok().flatten();
        let recent = |facts: Facts| facts.checked_at_ms + RECENT_MS >= published.checked_at_ms;
        if there.is_some_and(recent) {
            return;
        }
        // Lost, it costs another isolate one probe.
        let _ = keyspace::kv_put(kv, &key, &published).await;
    });
    Ok(facts)
}

/// Whom an upstream told what it is: everybody, unless it is shown credentials of the caller's.
fn told<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    principal: &PrincipalId,
    rather: Era,
) -> String {
    let identity = identity(upstream, rather);
    match upstream.credentials.are_personal() {
        true => format!(
            "{identity} {}",
            credentials::known_as(context, upstream, principal)
        ),
        false => identity,
    }
}

/// Name, URL, credentials and the era it is configured to speak: with any other it is another
/// server, or shows another face.
pub(super) fn identity(upstream: &Upstream, rather: Era) -> String {
    let mut hash = Sha256::new();
    hash.update(upstream.name.as_bytes());
    hash.update([0]);
    hash.update(upstream.url.as_str().as_bytes());
    // Names of secrets, never secrets.
    hash.update(serde_json::to_vec(&upstream.credentials).unwrap_or_default());
    hash.update([
        0,
        upstream.era as u8,
        upstream.transport as u8,
        rather as u8,
    ]);
    hex(&hash.finalize()[..16])
}

fn key(identity: &str) -> Key<UpstreamFamily> {
    Key::of(&[identity])
}

enum Probe {
    Modern(Facts),
    Legacy,
}

/// `server/discover`, and what the answer says about the era.
async fn modern<P: Platform>(exchange: &Exchange<'_, P>) -> Result<Probe, Error> {
    let version = ProtocolVersion::LATEST;
    let id = exchange.next_id();
    let mut params = Object::default();
    params.insert(
        "_meta",
        &super::modern_meta(exchange.context, &RequestMeta::default(), version, &id),
    );
    let mut head = HeaderMap::new();
    head.insert(
        MCP_PROTOCOL_VERSION,
        HeaderValue::from_static(version.as_str()),
    );
    head.insert(
        MCP_METHOD,
        HeaderValue::from_static(Method::ServerDiscover.as_str()),
    );
    let request = Request {
        id: id.clone(),
        method: Method::ServerDiscover.as_str().to_owned(),
        params,
    };
    let answer = wire::post(exchange, head, request.to_json()).await?;
    let status = answer.status();
    let older = matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    );
    let mut messages = match answer
        .into_messages(exchange, &id, &exchange.patience())
        .await
    {
        Ok(messages) => messages,
        Err(_) if older => return Ok(Probe::Legacy),
        Err(error) => return Err(error),
    };
    loop {
        match messages.next().await {
            Some(Ok(Message::Response(response))) if response.id.as_ref() == Some(&id) => {
                return match response.outcome {
                    Ok(result) => Ok(Probe::Modern(facts(exchange, version, &result))),
                    // It is unwell, whatever it is.
                    Err(_) if status.is_server_error() => {
                        Err(exchange.invalid(format!("HTTP status {}", status.as_u16())))
                    }
                    Err(error) => verdict(exchange, &error),
                };
            }
            Some(Ok(_)) => {}
            Some(Err(wire::Broken::Late)) => return Err(exchange.timed_out()),
            Some(Err(wire::Broken::Invalid(_))) | None => {
                return Err(exchange.invalid("it does not answer `server/discover`"));
            }
        }
    }
}

fn verdict<P: Platform>(exchange: &Exchange<'_, P>, error: &RpcError) -> Result<Probe, Error> {
    match error.code {
        jsonrpc::UNSUPPORTED_PROTOCOL_VERSION => {
            Err(exchange.invalid("it serves no revision the gateway speaks"))
        }
        jsonrpc::HEADER_MISMATCH | jsonrpc::MISSING_REQUIRED_CLIENT_CAPABILITY => {
            Err(exchange.invalid("it refuses the gateway's `server/discover`"))
        }
        _ => Ok(Probe::Legacy),
    }
}

async fn legacy<P: Platform>(
    exchange: &Exchange<'_, P>,
    principal: &PrincipalId,
) -> Result<Facts, Error> {
    let terms = session::Terms::default();
    let refused = match exchange.upstream.transport {
        Transport::Sse => None,
        Transport::StreamableHttp => match session::initialize(exchange, principal, &terms).await {
            Ok((session, result)) => return Ok(facts(exchange, session.version, &result)),
            Err(error @ Error::Rejection(Rejection::UpstreamRefused { .. })) => Some(error),
            Err(error) => return Err(error),
        },
    };
    // What takes no POST may be a server of 2024-11-05.
    let patience = exchange.patience();
    match http_sse::open(exchange, principal, &terms, &patience).await {
        Ok(line) => Ok(Facts {
            transport: Transport::Sse,
            ..facts(exchange, line.session.version, &line.result)
        }),
        Err(error) => Err(refused.unwrap_or(error)),
    }
}

fn facts<P: Platform>(
    exchange: &Exchange<'_, P>,
    version: ProtocolVersion,
    result: &Object,
) -> Facts {
    let capabilities = match result.get_object("capabilities") {
        Some(Ok(capabilities)) => capabilities.to_raw(),
        Some(Err(_)) | None => Object::default().to_raw(),
    };
    Facts {
        v: 1,
        upstream: exchange.upstream.name.clone(),
        version,
        transport: Transport::StreamableHttp,
        capabilities,
        instructions: result
            .get_str("instructions")
            .map(std::borrow::Cow::into_owned),
        checked_at_ms: exchange.context.now().0,
    }
}
