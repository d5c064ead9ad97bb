//! Where operators switch off and on again: `/admin/switches`. `GET` lists what is switched
//! off, `POST` switches something off (or changes why and for how long), `DELETE` switches
//! it on again.
//!
//! Open to whoever shows the secret [`admin::ADMIN_TOKEN`], and every request leaves a line in the
//! log. What is changed is durable in the atomic store before it is published.

use std::borrow::Cow;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{
    KEPT, Kind, REASON_MAX, SWITCHES_MAX, Switch, SwitchboardFamily, SwitchesFamily,
    SwitchesRecord, VALUE_MAX,
};
use crate::admin::{self, shows};
use crate::auth::revocation::unauthorized;
use crate::body::Body;
use crate::config::NAME_SEPARATOR;
use crate::context::Context;
use crate::egress::{self, json_response};
use crate::error::{Error, Fault, Rejection};
use crate::ingress::Peer;
use crate::keyspace::{Key, atomic_get, atomic_swap, kv_put};
use crate::platform::{Clock, LogLevel, Platform, Swap, Version};
use crate::seal::hex;
use crate::settings::Settings;

/// Where the door is.
pub(crate) const PATH: &str = "/admin/switches";
/// Largest body read, in bytes.
const BODY_MAX: usize = 8 * 1024;
/// How often a write is tried that others come before.
const TRIES_MAX: u32 = 8;
/// Pause before the published copy is written again: KV promises one write per second.
const PUBLISH_AGAIN: Duration = Duration::from_millis(1_100);
/// Longest a switch may be in force that ends by itself.
const FOR_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// What is to be switched.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    kind: Kind,
    #[serde(default)]
    value: String,
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    for_ms: Option<u64>,
}

/// Why nothing was done.
enum Refused {
    Method,
    Asked(Cow<'static, str>),
    NotThere,
    Full,
    Because(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Because(error)
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
    let correlation_id = hex(&context.random::<16>());
    let peer = request.extensions().get::<Peer>();
    let address = peer.and_then(|peer| peer.address.clone());
    let mut line = json!({
        "event": "admin", "atMs": context.now().0, "correlationId": correlation_id,
        "address": address, "action": "none",
    });
    let response = match shows(context, request.headers(), secret.expose()) {
        false => unauthorized(),
        true => match act(context, request, &mut line).await {
            Ok(record) => shown(&record),
            Err(refused) => refuse(context, &refused, &correlation_id),
        },
    };
    line["status"] = response.status().as_u16().into();
    context.platform.log(LogLevel::Info, &line.to_string());
    response
}

async fn act<P: Platform>(
    context: &Context<P>,
    request: Request<Body>,
    line: &mut serde_json::Value,
) -> Result<SwitchesRecord, Refused> {
    let now = context.now();
    if request.method() == Method::GET {
        line["action"] = "switches.list".into();
        let (_, mut record) = read(context).await?;
        record.switches.retain(|switch| switch.is_in_force(now));
        return Ok(record);
    }
    let kills = match *request.method() {
        Method::POST => true,
        Method::DELETE => false,
        _ => return Err(Refused::Method),
    };
    let words = "send {kind, value, issuer, reason, forMs}; kind is all, upstream, tool, tenant or principal";
    let body = request.into_body().read(BODY_MAX).await.ok();
    let asked = body.and_then(|body| serde_json::from_slice::<Asked>(&body).ok());
    let asked = asked.ok_or(Refused::Asked(words.into()))?;
    check(&context.settings, &asked, kills).map_err(Refused::Asked)?;
    let lasts = asked.for_ms.map(Duration::from_millis);
    let switch = Switch {
        kind: asked.kind,
        value: asked.value,
        issuer: asked.issuer,
        reason: asked.reason,
        at_ms: now.0,
        until_ms: lasts.map(|lasts| (now + lasts.min(FOR_MAX)).0),
    };
    line["switch"] = switch.name().into();
    line["action"] = match kills {
        true => "switches.kill",
        false => "switches.revive",
    }
    .into();
    if kills {
        line["reason"] = switch.reason.clone().into();
        line["untilMs"] = switch.until_ms.into();
    }
    let changed = change(context, &switch, kills).await;
    if let Err(Refused::NotThere) = changed {
        // Perhaps it was switched on again before, and that was not published.
        let (_, record) = read(context).await?;
        if record.v == 1 {
            publish(context, record).await?;
        }
    }
    publish(context, changed?).await
}

/// Whether it can be switched: a switch nobody can mean would only seem to stop something.
fn check(settings: &Settings, asked: &Asked, kills: bool) -> Result<(), Cow<'static, str>> {
    let fits = |text: &str, max| text.len() <= max && !text.chars().any(char::is_control);
    if !fits(&asked.value, VALUE_MAX) || !fits(&asked.issuer, VALUE_MAX) {
        return Err("a value is too long, or has control characters".into());
    }
    if (asked.kind == Kind::All) != asked.value.is_empty() {
        return Err("`value` names what is meant; `all` has none".into());
    }
    if (asked.kind == Kind::Principal) == asked.issuer.is_empty() {
        return Err("`issuer` says whose subject a principal is; others have none".into());
    }
    if !kills {
        return Ok(());
    }
    if asked.reason.trim().is_empty() || !fits(&asked.reason, REASON_MAX) {
        return Err(
            format!("say why in `reason`, in one line of at most {REASON_MAX} bytes").into(),
        );
    }
    let upstream = match asked.kind {
        Kind::Upstream => Some(asked.value.as_str()),
        Kind::Tool => {
            let named = asked.value.split_once(NAME_SEPARATOR);
            let named = named.filter(|(_, tool)| !tool.is_empty());
            let (upstream, _) =
                named.ok_or("write a tool as upstream__tool, or upstream__begin*")?;
            Some(upstream)
        }
        Kind::All | Kind::Tenant | Kind::Principal => None,
    };
    match upstream {
        Some(upstream) if settings.upstream(upstream).is_none() => {
            Err("there is no such upstream".into())
        }
        Some(_) | None => Ok(()),
    }
}

async fn read<P: Platform>(
    context: &Context<P>,
) -> Result<(Option<Version>, SwitchesRecord), Error> {
    let key = Key::<SwitchboardFamily>::single();
    let found = atomic_get(context.platform.atomic(), &key).await;
    let found = found.map_err(|e| Fault::Dependency(e.to_string()))?;
    Ok(match found {
        Some((version, record)) => (Some(version), record),
        None => (None, SwitchesRecord::default()),
    })
}

/// Changes the record operators change.
async fn change<P: Platform>(
    context: &Context<P>,
    switch: &Switch,
    kills: bool,
) -> Result<SwitchesRecord, Refused> {
    let store = context.platform.atomic();
    let key = Key::<SwitchboardFamily>::single();
    for _ in 0..TRIES_MAX {
        let (version, mut record) = read(context).await?;
        let now = context.now();
        let before = record.switches.len();
        record.switches.retain(|known| !known.is_same(switch));
        if !kills && record.switches.len() == before {
            return Err(Refused::NotThere);
        }
        record.switches.retain(|known| known.is_in_force(now));
        if kills {
            if record.switches.len() >= SWITCHES_MAX {
                return Err(Refused::Full);
            }
            record.switches.push(switch.clone());
        }
        record.v = 1;
        record.updated_at_ms = now.0;
        let swap = atomic_swap(store, &key, version, &record, now + KEPT).await;
        match swap.map_err(Error::from)? {
            Swap::Done(_) => return Ok(record),
            Swap::Conflict => {}
        }
    }
    Err(busy())
}

/// Publishes the record, and whatever others make of it meanwhile: of two that publish at
/// once the one that is last must not publish what the other has changed.
async fn publish<P: Platform>(
    context: &Context<P>,
    mut record: SwitchesRecord,
) -> Result<SwitchesRecord, Refused> {
    let key = Key::<SwitchesFamily>::single();
    for _ in 0..TRIES_MAX {
        if kv_put(context.platform.kv(), &key, &record).await.is_ok() {
            let (_, now) = read(context).await?;
            if now.switches == record.switches {
                return Ok(record);
            }
            record = now;
        }
        context.platform.clock().sleep(PUBLISH_AGAIN).await;
    }
    Err(busy())
}

fn busy() -> Refused {
    let reason = "the switches were not published; try again".to_owned();
    Refused::Because(Fault::Dependency(reason).into())
}

fn shown(record: &SwitchesRecord) -> Response<Body> {
    let switches = &record.switches;
    json_response(StatusCode::OK, json!({ "switches": switches }).to_string())
}

fn problem(status: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let body = json!({ "error": { "reason": reason, "message": message } });
    json_response(status, body.to_string())
}

fn refuse<P: Platform>(
    context: &Context<P>,
    refused: &Refused,
    correlation_id: &str,
) -> Response<Body> {
    match refused {
        Refused::Method => {
            let allow = "GET, POST, DELETE";
            egress::refusal(&Rejection::MethodNotAllowed { allow }.into(), "")
        }
        Refused::Asked(words) => problem(StatusCode::BAD_REQUEST, "bad_switch", words),
        Refused::NotThere => {
            let words = "It is not switched off.";
            problem(StatusCode::NOT_FOUND, "unknown_switch", words)
        }
        Refused::Full => {
            let words = format!("{SWITCHES_MAX} things are switched off, as many as may be.");
            problem(StatusCode::CONFLICT, "too_many_switches", &words)
        }
        Refused::Because(error) => {
            let fields = json!({ "correlationId": correlation_id, "reason": error.to_string() });
            context.log(LogLevel::Error, "fault", fields);
            let told = error.response(correlation_id);
            let data = json!({ "correlationId": correlation_id });
            let body = json!({
                "error": { "reason": error.label(), "message": told.error.message, "data": data },
            });
            json_response(told.status, body.to_string())
        }
    }
}
