//! `GET /health`: the function runs. `GET /health/deep`: each upstream is really asked,
//! within [`CHECK_WITHIN`], at most once per [`PROBE_FRESH`] and isolate, however many ask; but
//! for those that are shown credentials of the caller's.
//!
//! Anybody may have upstreams asked what they are. Whoever shows the operators' secret has
//! them called as well, where the configuration names a tool that does nothing (`probe`):
//! slow is degraded; too slow, an error and a tool's own error are unhealthy. What operators
//! have switched off is degraded and not asked. Until the next check everybody is told what
//! came of it, of the upstreams they may know of: a client of those it could use, anybody
//! else how those that are no tenant's own are on the whole. Numbers and names are for
//! operators and clients.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use http::header::RETRY_AFTER;
use http::{HeaderValue, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::Object;
use tidegate_mcp::method::Method;

use crate::admin;
use crate::auth::{self, Principal, Resource, Sender};
use crate::body::Body;
use crate::canary;
use crate::config::{self, Upstream};
use crate::context::Context;
use crate::egress::{self, json_response};
use crate::error::Error;
use crate::platform::{Clock, Platform};
use crate::policy;
use crate::switches;
use crate::time::Timestamp;
use crate::tools;
use crate::upstream::{self, Outgoing};

/// How long one upstream may take to say what it is.
pub const PROBE_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer of the upstreams is shown before they are asked again.
pub const PROBE_FRESH: Duration = Duration::from_secs(10);
/// How long a check of all upstreams may take.
pub const CHECK_WITHIN: Duration = Duration::from_secs(25);
/// How many upstreams are asked at once.
pub const PROBES_AT_ONCE: usize = 8;
/// How often whoever waits for another's check looks whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What an isolate remembers of its last check.
#[derive(Default)]
pub(crate) struct Memory {
    last: RefCell<Option<Checked>>,
    /// Until when somebody checks.
    checking: Cell<Option<Timestamp>>,
}

/// One check of all upstreams.
#[derive(Clone)]
struct Checked {
    at: Timestamp,
    /// Of which configuration.
    digest: String,
    /// Whether tools were called.
    called: bool,
    probes: Vec<Probe>,
}

/// How well an upstream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Healthy,
    Degraded,
    Unhealthy,
}

/// What one upstream answered.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    name: String,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_version: Option<&'static str>,
    /// The tool that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
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

/// Who asks how the upstreams are.
enum Asking {
    Operator,
    Client(Rc<Principal>),
    Anybody,
}

impl Asking {
    /// Whether the answer may depend on this upstream.
    fn sees<P: Platform>(&self, context: &Context<P>, upstream: &Upstream) -> bool {
        match self {
            Self::Operator => true,
            Self::Client(client) => policy::knows(context, client, upstream),
            Self::Anybody => upstream.is_seen_by(None),
        }
    }
}

/// Each upstream asked. Without a token, or with one that is not accepted, the answer says
/// no more than how they are on the whole; with a good one it counts and names them.
pub async fn deep<P: Platform>(context: &Context<P>, request: &Request<Body>) -> Response<Body> {
    // Asked first: the operators' secret is for no authorization server to see.
    let asking = match admin::is_operator(context, request.headers()).await {
        true => Asking::Operator,
        false => client(context, request)
            .await
            .map_or(Asking::Anybody, Asking::Client),
    };
    let Some(checked) = check(context, matches!(asking, Asking::Operator)).await else {
        let words = json!({ "status": "unknown", "reason": "a check is under way" });
        let mut response = json_response(StatusCode::SERVICE_UNAVAILABLE, words.to_string());
        let soon = HeaderValue::from_static("1");
        response.headers_mut().insert(RETRY_AFTER, soon);
        return response;
    };
    let seen = |name: &str| {
        let upstream = context.settings.upstream(name);
        upstream.is_some_and(|upstream| asking.sees(context, upstream))
    };
    let probes = checked.probes.iter();
    let probes: Vec<&Probe> = probes.filter(|probe| seen(&probe.name)).collect();
    let count = |status| probes.iter().filter(|probe| probe.status == status).count();
    let (healthy, unhealthy) = (count(Status::Healthy), count(Status::Unhealthy));
    let (status, code) = match (healthy, unhealthy) {
        (healthy, _) if healthy == probes.len() => (Status::Healthy, StatusCode::OK),
        (_, unhealthy) if unhealthy == probes.len() => {
            (Status::Unhealthy, StatusCode::SERVICE_UNAVAILABLE)
        }
        _ => (Status::Degraded, StatusCode::OK),
    };
    let mut answer = json!({ "status": status, "checkedAtMs": checked.at.0 });
    if matches!(asking, Asking::Anybody) {
        return json_response(code, answer.to_string());
    }
    answer["config"] = context.settings.digest.clone().into();
    answer["healthyUpstreams"] = healthy.into();
    answer["configuredUpstreams"] = probes.len().into();
    answer["upstreams"] = json!(probes);
    let canaries = canary::health(context, seen).await;
    if !canaries.is_empty() {
        answer["canaries"] = json!(canaries);
    }
    json_response(code, answer.to_string())
}

async fn client<P: Platform>(
    context: &Context<P>,
    request: &Request<Body>,
) -> Option<Rc<Principal>> {
    let config = &context.settings.config;
    let resource = Resource::of(config, "/mcp");
    let memory = &context.memory.auth;
    let sender = Sender::of(request);
    let asked = auth::authenticate(context.platform.as_ref(), memory, config, sender, &resource);
    asked.await.ok()
}

/// The last check, or a new one; `None` where another's goes on for too long.
async fn check<P: Platform>(context: &Context<P>, call: bool) -> Option<Checked> {
    let memory = &context.memory.health;
    let digest = &context.settings.digest;
    let patience = context.now() + CHECK_WITHIN;
    loop {
        let now = context.now();
        let last = memory.last.borrow().clone();
        let last = last.filter(|last| last.digest == *digest);
        let fresh = |last: &Checked| now.since(last.at) < PROBE_FRESH && (last.called || !call);
        if last.as_ref().is_some_and(fresh) {
            return last;
        }
        if memory.checking.get().is_none_or(|until| now >= until) {
            break;
        }
        if now >= patience {
            return last;
        }
        context.platform.clock().sleep(LOOK_EVERY).await;
    }
    let at = context.now();
    memory.checking.set(Some(at + CHECK_WITHIN));
    let checking = Checking(&memory.checking);
    // What it last knew will do, if there is no more.
    let _ = switches::refresh(context).await;
    let upstreams = context.settings.config.upstreams.iter();
    // To be asked on somebody's behalf, and here nobody is.
    let upstreams = upstreams.filter(|upstream| !upstream.credentials.are_personal());
    let probed = upstreams.map(|upstream| probe(context, upstream, call, at + CHECK_WITHIN));
    let probes = stream::iter(probed).buffered(PROBES_AT_ONCE).collect();
    let checked = Checked {
        at,
        digest: digest.clone(),
        called: call,
        probes: probes.await,
    };
    *memory.last.borrow_mut() = Some(checked.clone());
    drop(checking);
    Some(checked)
}

/// A check under way; one that is given up is over too.
struct Checking<'a>(&'a Cell<Option<Timestamp>>);

impl Drop for Checking<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

async fn probe<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    call: bool,
    deadline: Timestamp,
) -> Probe {
    let mut probe = Probe {
        name: upstream.name.clone(),
        status: Status::Unhealthy,
        protocol_version: None,
        tool: None,
        reason: None,
        latency_ms: 0,
        circuit: upstream::circuit::standing(context, &upstream.name),
    };
    if switches::kills_upstream(context, &upstream.name) {
        probe.status = Status::Degraded;
        probe.reason = Some("killed".to_owned());
        return probe;
    }
    let started = context.now();
    let asked = ask(context, upstream, call, &mut probe);
    let (status, reason) = match context.until(deadline, asked).await {
        Some(Ok(found)) => found,
        Some(Err(error)) => (Status::Unhealthy, Some(error.label())),
        None => (Status::Unhealthy, Some("not_asked_in_time".to_owned())),
    };
    let elapsed = context.now().since(started);
    probe.latency_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    (probe.status, probe.reason) = (status, reason);
    probe
}

/// Asks an upstream what it is, and has it called if that is wanted.
async fn ask<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    call: bool,
    probe: &mut Probe,
) -> Result<(Status, Option<String>), Error> {
    let anonymous = Principal::anonymous();
    let facts = upstream::probe(context, upstream, &anonymous, PROBE_WITHIN).await?;
    probe.protocol_version = Some(facts.version.as_str());
    let Some(wanted) = upstream.probe.as_ref().filter(|_| call) else {
        return Ok((Status::Healthy, None));
    };
    probe.tool = Some(wanted.tool.clone());
    if switches::kills_tool(context, &upstream.name, &wanted.tool) {
        return Ok((Status::Degraded, Some("killed".to_owned())));
    }
    call_tool(context, upstream, wanted, &anonymous).await
}

async fn call_tool<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    probe: &config::Probe,
    principal: &Principal,
) -> Result<(Status, Option<String>), Error> {
    let params = Object::new()
        .with("name", &probe.tool)
        .with("arguments", &probe.arguments);
    let timeout = Duration::from_millis(probe.timeout_ms);
    let id = principal.id.clone();
    let outgoing = Outgoing::own(Method::ToolsCall, params, id, timeout);
    let started = context.now();
    let called = async { egress::whole(tools::call(context, upstream, outgoing).await).await };
    let because = |status, reason: &str| Ok((status, Some(reason.to_owned())));
    let Some(result) = context.until(started + timeout, called).await else {
        return because(Status::Unhealthy, "upstream_timeout");
    };
    let result = result?;
    let failed = result
        .get("isError")
        .is_some_and(|flag| flag.get() == "true");
    match ResultType::of(&result) {
        ResultType::Complete if failed => because(Status::Unhealthy, "tool_error"),
        ResultType::Complete => {
            match context.now().since(started) > Duration::from_millis(probe.slow_ms) {
                true => because(Status::Degraded, "slow"),
                false => Ok((Status::Healthy, None)),
            }
        }
        ResultType::InputRequired | ResultType::Task | ResultType::Other(_) => {
            because(Status::Unhealthy, "no_result")
        }
    }
}
