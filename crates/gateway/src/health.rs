//! `GET /health`: the function runs. `GET /health/deep`: each upstream is really asked,
//! within [`PROBE_WITHIN`], at most once per [`PROBE_FRESH`] and isolate; but for those that
//! are shown credentials of the caller's.

use std::cell::RefCell;
use std::time::Duration;

use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::auth::{self, Principal, Resource, Sender};
use crate::body::Body;
use crate::context::Context;
use crate::egress::json_response;
use crate::platform::Platform;
use crate::time::Timestamp;
use crate::upstream;

/// How long one upstream may take to answer a probe.
pub const PROBE_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer of the upstreams is shown before they are asked again.
pub const PROBE_FRESH: Duration = Duration::from_secs(10);

/// What an isolate remembers of its last probe.
#[derive(Default)]
pub(crate) struct Memory {
    last: RefCell<Option<(Timestamp, String, Vec<Probe>)>>,
}

/// What one upstream answered.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    name: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    latency_ms: u64,
    /// How its circuit stands in this isolate.
    circuit: &'static str,
}

/// Liveness: needs nothing but the code itself. Says how many switches are in force where
/// the isolate knows of any, and no more: anybody may ask.
pub(crate) fn live(killed: usize) -> Response<Body> {
    let mut answer = json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") });
    if killed > 0 {
        answer["killed"] = killed.into();
    }
    json_response(StatusCode::OK, answer.to_string())
}

/// Each upstream asked. Without a token, or with one that is not accepted, the answer
/// counts upstreams; with a good one it names them.
pub async fn deep<P: Platform>(context: &Context<P>, request: &Request<Body>) -> Response<Body> {
    let config = &context.settings.config;
    let resource = Resource::of(config, "/mcp");
    let memory = &context.memory.auth;
    let sender = Sender::of(request);
    let asked = auth::authenticate(context.platform.as_ref(), memory, config, sender, &resource);
    let known = asked.await.is_ok();
    let (checked_at, probes) = probes(context).await;
    let healthy = probes
        .iter()
        .filter(|probe| probe.status == "healthy")
        .count();
    let (status, code) = match healthy {
        n if n == probes.len() => ("healthy", StatusCode::OK),
        0 => ("unhealthy", StatusCode::SERVICE_UNAVAILABLE),
        _ => ("degraded", StatusCode::OK),
    };
    let mut answer = json!({
        "status": status,
        "checkedAtMs": checked_at.0,
        "config": context.settings.digest,
        "healthyUpstreams": healthy,
        "configuredUpstreams": probes.len(),
    });
    if known && let Some(answer) = answer.as_object_mut() {
        answer.insert("upstreams".to_owned(), json!(probes));
    }
    json_response(code, answer.to_string())
}

async fn probes<P: Platform>(context: &Context<P>) -> (Timestamp, Vec<Probe>) {
    let now = context.now();
    let last = context.memory.health.last.borrow().clone();
    if let Some((at, digest, probes)) = last
        && digest == context.settings.digest
        && now.since(at) < PROBE_FRESH
    {
        return (at, probes);
    }
    let anonymous = Principal::anonymous();
    let asked = context
        .settings
        .config
        .upstreams
        .iter()
        // To be asked on somebody's behalf, and here nobody is.
        .filter(|upstream| !upstream.credentials.are_personal())
        .map(|upstream| probe(context, &upstream.name, &anonymous));
    let probes: Vec<Probe> = join_all(asked).await;
    *context.memory.health.last.borrow_mut() =
        Some((now, context.settings.digest.clone(), probes.clone()));
    (now, probes)
}

async fn probe<P: Platform>(context: &Context<P>, name: &str, principal: &Principal) -> Probe {
    let started = context.now();
    let facts = match context.settings.upstream(name) {
        Some(upstream) => Some(upstream::probe(context, upstream, principal, PROBE_WITHIN).await),
        None => None,
    };
    let elapsed = context.now().since(started);
    let mut probe = Probe {
        name: name.to_owned(),
        status: "unhealthy",
        protocol_version: None,
        reason: None,
        latency_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        circuit: upstream::circuit::standing(context, name),
    };
    match facts {
        Some(Ok(facts)) => {
            probe.status = "healthy";
            probe.protocol_version = Some(facts.version.as_str());
        }
        Some(Err(error)) => probe.reason = Some(error.label()),
        None => {}
    }
    probe
}
