//! The life of a request, top to bottom.
//!
//! Each stage consumes the proof that the previous one ran, so stages cannot be skipped or
//! reordered without the compiler noticing. Anything that stops a request early is an
//! [`Error`], and `error/response.rs` is the only place that gives one its status and words.

mod within;

use std::rc::Rc;

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use serde_json::value::RawValue;
use tidegate_mcp::headers::MCP_PARAM_PREFIX;
use tidegate_mcp::json::raw;
use tidegate_mcp::jsonrpc::{RequestId, RpcError};
use tidegate_mcp::method::Method;

use crate::audit::Pending;
use crate::auth::{self, Principal, Sender};
use crate::body::Body;
use crate::canary;
use crate::config::{ToolRule, Upstream};
use crate::context::Context;
use crate::credentials::Caller;
use crate::dispatch::{self, Work};
use crate::dry_run;
use crate::egress::{self, Asked};
use crate::error::Error;
use crate::http_sse;
use crate::idempotency;
use crate::ingress::{self, Ask, Call, Door, Endpoint, Head, Refusal, Way, Word};
use crate::limits::rules::{Applied, Counted, applying, tells_apart};
use crate::limits::standing::Standings;
use crate::limits::{self, Limit};
use crate::load;
use crate::platform::Platform;
use crate::policy::{self, Hints, Permit};
use crate::quotas::{self, Bill};
use crate::request_token::{self, Unspent};
use crate::route::{self, Target};
use crate::session;
use crate::switches;
use crate::tools;
use within::{attach, heard};

pub(crate) use within::told;

/// Proof that a principal may ask at all right now. Only [`admit`] makes one.
pub struct Admission {
    principal: Rc<Principal>,
}

/// Carries one MCP request through the gateway.
pub async fn answer<P: Platform>(
    context: &Context<P>,
    endpoint: Endpoint,
    way: Way,
    request: Request<Body>,
) -> Response<Body> {
    let platform = Rc::clone(&context.platform);
    let mut audit = Pending::begin(platform, endpoint.key(), context.settings.digest.clone());
    let mut standings = Standings::default();
    let taken = take(context, endpoint, way, request, &mut audit, &mut standings).await;
    let known = taken.as_ref().ok();
    let context = &match known.and_then(|(head, admission, _)| caller(context, head, admission)) {
        None => context.clone(),
        Some(caller) => Context {
            caller: Some(Rc::new(caller)),
            ..context.clone()
        },
    };
    let mut response = match taken {
        Ok((head, admission, Ask::Call(call))) => {
            let principal = admission.principal;
            one(context, &head, principal, *call, audit, &mut standings).await
        }
        Ok((head, admission, Ask::Batch(calls, words))) => {
            for word in words {
                let heard = heard(context, &head, &admission.principal, word).await;
                if let Err(error) = heard {
                    return egress::failure(context, None, &error, audit);
                }
            }
            batch(context, &head, &admission, calls, audit, &mut standings).await
        }
        Ok((head, admission, Ask::Word(word))) => {
            audit.discard();
            match heard(context, &head, &admission.principal, word).await {
                Ok(response) => response,
                Err(error) => egress::failure(context, None, &error, audit),
            }
        }
        Ok((head, admission, Ask::Stream)) => {
            audit.discard();
            match http_sse::open(context, head, &admission.principal).await {
                Ok(response) => response,
                Err(error) => egress::failure(context, None, &error, audit),
            }
        }
        Ok((_, _, Ask::Nothing)) => {
            audit.discard();
            accepted()
        }
        Err(error) => egress::failure(context, None, &error, audit),
    };
    standings.write(response.headers_mut());
    response
}

/// Who is asking, where the credentials of any upstream depend on it.
fn caller<P: Platform>(context: &Context<P>, head: &Head, admission: &Admission) -> Option<Caller> {
    let config = &context.settings.config;
    let personal = |upstream: &Upstream| upstream.credentials.are_personal();
    if !config.upstreams.iter().any(personal) {
        return None;
    }
    let (principal, resource) = (&admission.principal, head.endpoint.resource(config));
    let token = auth::shown(&head.headers, principal, &resource);
    Some(Caller::of(principal, token))
}

/// Answers a request that is not looked at. The line says only where it came from: what it
/// names may be anything.
pub fn turn_away<P: Platform>(
    context: &Context<P>,
    request: &Request<Body>,
    error: &Error,
) -> Response<Body> {
    let settings = &context.settings;
    let place = settings.sites.place(request, request.uri().path());
    let named = place.and_then(|place| Endpoint::of(&place, settings));
    let named = named.map_or_else(String::new, |endpoint| endpoint.key());
    let platform = Rc::clone(&context.platform);
    let mut audit = Pending::begin(platform, named, context.settings.digest.clone());
    audit.record.address.clone_from(&context.peer.address);
    egress::failure(context, None, error, audit)
}

/// The stages before it is known what is asked.
async fn take<P: Platform>(
    context: &Context<P>,
    endpoint: Endpoint,
    way: Way,
    request: Request<Body>,
    audit: &mut Pending<P>,
    standings: &mut Standings,
) -> Result<(Head, Admission, Ask), Error> {
    let settings = &context.settings;
    // Cheap checks first: origin, host, HTTP method.
    let (mut head, body) = ingress::check(request, endpoint, way, settings)?;
    audit.record.address.clone_from(&head.peer.address);
    // Who is asking. No body has been read yet.
    let principal = authenticate(context, &head).await?;
    audit.principal(&principal);
    // Whether operators have switched them off.
    switches::admit(context, &principal).await?;
    head.endpoint = head.endpoint.seen_by(principal.tenant.as_deref());
    // May they ask at all right now.
    let admission = admit(context, principal, standings).await?;
    // What they ask, in modern form whatever era they speak.
    let ask = match head.door {
        Door::Post => ingress::read(&head, body, &admission, settings).await?,
        Door::Get => Ask::Word(Word::Listen),
        Door::Delete => Ask::Word(Word::End),
        Door::Sse => Ask::Stream,
        Door::Messages => ingress::message(body, settings).await?,
    };
    Ok((head, admission, ask))
}

/// The stages of one call, to its answer.
async fn one<P: Platform>(
    context: &Context<P>,
    head: &Head,
    principal: Rc<Principal>,
    mut call: Call,
    mut audit: Pending<P>,
    standings: &mut Standings,
) -> Response<Body> {
    let context = &context.hurried();
    let mut asked = asked(&call);
    let permitted = async {
        if call.method == Method::Initialize {
            let (endpoint, version) = (&head.endpoint, call.version);
            let id = session::begin(context, endpoint, &principal, version, &call.params)?;
            asked.session = Some(id);
        } else {
            attach(context, head, &principal, &mut call).await?;
        }
        asked.version = call.version;
        permit(context, head, principal, &mut call, &mut audit, standings).await
    };
    match permitted.await {
        Ok(granted) => {
            let mut work = work(head, call, granted, &audit);
            work.idempotency_key = idempotency::in_headers(&head.headers);
            let listens = asked.method == Method::SubscriptionsListen;
            let dispatch = dispatch::begin(context, work);
            let mut response = egress::respond(context, asked, dispatch, audit).await;
            if listens {
                response.extensions_mut().insert(load::Listens);
            }
            response
        }
        Err(error) => egress::failure(context, Some(&asked), &error, audit),
    }
}

/// What was decided about a call.
struct Granted {
    permit: Permit,
    dry_run: bool,
    bill: Option<Bill>,
}

/// From a call to the permit to do it.
async fn permit<P: Platform>(
    context: &Context<P>,
    head: &Head,
    principal: Rc<Principal>,
    call: &mut Call,
    audit: &mut Pending<P>,
    standings: &mut Standings,
) -> Result<Granted, Error> {
    note(context, call, audit);
    // Which upstream, or which part of the gateway itself, answers it.
    let mut target = route::resolve(context, &head.endpoint, &principal, call).await?;
    // And which version of it.
    canary::place(context, &principal.id, &mut target).await;
    name(context, &target, audit);
    let switched = switches::allow(context, &target);
    // Whether the tool is only to try; the policy weighs what is then sent.
    let dry_run = dry_run::apply(context, &principal, &mut target, call);
    audit.record.dry_run = matches!(dry_run, Ok(true));
    // Whether this principal may do this to that. Who may not learns nothing else of it.
    let resource = head.endpoint.resource(&context.settings.config);
    let killed = |upstream| switches::kills_upstream(context, upstream);
    let hints = match target.upstream().is_some_and(killed) {
        false => Some(hints(context, &principal, &target).await?),
        // It is not asked.
        true => None,
    };
    let permit = policy::authorize(context, principal, target, hints, &resource)?;
    audit.record.policy_rule.clone_from(&permit.allowed_by);
    switched?;
    let dry_run = dry_run?;
    // Whether whoever speaks for them means this very call.
    let token = signed(context, head, call, &permit).await?;
    // Whether they may do it again so soon.
    let counted = Counted {
        principal: &permit.principal,
        target: &permit.target,
        listed: listed(context, &permit).await,
        rule: permit.rule.as_ref(),
        polls: call.method.as_str().starts_with("tasks/"),
        method: limits::Method::of_host(context.platform.as_ref()),
    };
    let applied = applying(&context.settings, &counted);
    let limits: Vec<Limit<'_>> = applied.iter().map(Applied::limit).collect();
    if !limits.is_empty() {
        limits::admit(&context.platform, &context.memory, &limits, standings).await?;
    }
    if let Some(token) = token {
        token.spend(context).boxed_local().await?;
    }
    // Whether there is enough left of what it uses up.
    let bill = quotas::admit(context, &counted, &call.params, audit).await?;
    Ok(Granted {
        permit,
        dry_run,
        bill,
    })
}

/// The request-scope token of a call whose tool asks for one.
async fn signed<P: Platform>(
    context: &Context<P>,
    head: &Head,
    call: &Call,
    permit: &Permit,
) -> Result<Option<Unspent>, Error> {
    let asks = |rule: &ToolRule| rule.request_token.is_some();
    if !permit.rule.as_ref().is_some_and(asks) {
        return Ok(None);
    }
    let shown = request_token::shown(&head.headers, call.token.as_deref())?;
    // Boxed: it is in the future of every call, and few tools ask.
    request_token::check(context, permit, call.params.get("arguments"), shown)
        .boxed_local()
        .await
}

/// Whether the tool that is called is one its upstream lists, if tools are counted apart.
async fn listed<P: Platform>(context: &Context<P>, permit: &Permit) -> bool {
    match &permit.target {
        Target::One(one)
            if one.method == Method::ToolsCall
                && tells_apart(&context.settings, &permit.target) =>
        {
            // Boxed: it is in the future of every call, and few limits ask.
            tools::lists(context, &permit.principal.id, one)
                .boxed_local()
                .await
        }
        Target::One(_) | Target::Own(_) | Target::Every(_) | Target::Changes => true,
    }
}

/// What the upstream says the tool does, if a rule of the policy asks.
async fn hints<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    target: &Target,
) -> Result<Hints, Error> {
    match target {
        Target::One(one) if one.method == Method::ToolsCall && policy::wants_hints(context) => {
            // Boxed: it is in the future of every call, and few policies ask.
            tools::hints(context, &one.upstream, &principal.id, &one.own)
                .boxed_local()
                .await
        }
        Target::One(_) | Target::Own(_) | Target::Every(_) | Target::Changes => {
            Ok(Hints::default())
        }
    }
}

/// Each member of a batch goes the way of a call of its own; the first has been admitted
/// with the request.
async fn batch<P: Platform>(
    context: &Context<P>,
    head: &Head,
    admission: &Admission,
    mut calls: Vec<Result<Call, Refusal>>,
    mut audit: Pending<P>,
    standings: &mut Standings,
) -> Response<Body> {
    if calls.is_empty() {
        audit.discard();
        return accepted();
    }
    for call in calls.iter_mut().flatten() {
        if let Err(error) = attach(context, head, &admission.principal, call).await {
            return egress::failure(context, None, &error, audit);
        }
    }
    audit.discard();
    let mut answers: Vec<Box<RawValue>> = Vec::with_capacity(calls.len());
    for (index, call) in calls.into_iter().enumerate() {
        let answer = match call {
            Ok(call) => {
                let (counted, audit) = (index > 0, audit.sibling());
                member(context, head, admission, call, counted, audit, standings).await
            }
            Err((id, error)) => malformed(id, error, audit.sibling()),
        };
        answers.extend(RawValue::from_string(answer));
    }
    egress::json_response(StatusCode::OK, raw(&answers).get().to_owned())
}

/// The answer to a member that is no call.
fn malformed<P: Platform>(id: Option<RequestId>, error: RpcError, mut audit: Pending<P>) -> String {
    audit.record.error_code = Some(error.code);
    audit.finish("protocol_error");
    tidegate_mcp::jsonrpc::Response {
        id,
        outcome: Err(error),
    }
    .to_json()
}

async fn member<P: Platform>(
    context: &Context<P>,
    head: &Head,
    admission: &Admission,
    mut call: Call,
    counted: bool,
    mut audit: Pending<P>,
    standings: &mut Standings,
) -> String {
    let context = &context.hurried();
    let asked = asked(&call);
    let outcome = async {
        let admission = match counted {
            true => admit(context, Rc::clone(&admission.principal), standings).await?,
            false => Admission {
                principal: Rc::clone(&admission.principal),
            },
        };
        let principal = admission.principal;
        let granted = permit(context, head, principal, &mut call, &mut audit, standings).await?;
        let reply = dispatch::begin(context, work(head, call, granted, &audit)).await;
        egress::whole(reply).await
    };
    match outcome.await {
        Ok(result) => egress::success(context, &asked, result, audit),
        Err(error) => egress::error_message(context, &asked, &error, audit),
    }
}

async fn authenticate<P: Platform>(
    context: &Context<P>,
    head: &Head,
) -> Result<Rc<Principal>, Error> {
    let config = &context.settings.config;
    let resource = head.endpoint.resource(config);
    let memory = &context.memory.auth;
    let sender = Sender {
        method: &head.method,
        path: &head.path,
        headers: &head.headers,
        peer: Some(&head.peer),
    };
    auth::authenticate(context.platform.as_ref(), memory, config, sender, &resource).await
}

async fn admit<P: Platform>(
    context: &Context<P>,
    principal: Rc<Principal>,
    standings: &mut Standings,
) -> Result<Admission, Error> {
    if let Some(rate) = context.settings.config.limits.per_client {
        let limit = Limit {
            name: "per-client",
            rate,
            subject: principal.id.as_str(),
            cost: 1,
            method: limits::Method::of_host(context.platform.as_ref()),
            own: true,
        };
        limits::admit(&context.platform, &context.memory, &[limit], standings).await?;
    }
    Ok(Admission { principal })
}

fn work<P: Platform>(head: &Head, call: Call, granted: Granted, audit: &Pending<P>) -> Work {
    let Granted {
        permit,
        dry_run,
        bill,
    } = granted;
    let param_headers = param_headers(&head.headers);
    Work {
        endpoint: head.endpoint.clone(),
        call,
        permit,
        bill,
        param_headers,
        dry_run,
        idempotency_key: None,
        answered_by: audit.record.answered_by.clone(),
    }
}

/// `Mcp-Param-*` headers go on to a modern upstream, which compares them with the body.
fn param_headers(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let ours = |name: &HeaderName| name.as_str().starts_with(MCP_PARAM_PREFIX);
    headers
        .iter()
        .filter(|(name, _)| ours(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn asked(call: &Call) -> Asked {
    Asked {
        id: call.id.clone(),
        method: call.method,
        version: call.version,
        streams: call.streams,
        session: None,
    }
}

/// Notes for the audit record what is asked.
fn note<P: Platform>(context: &Context<P>, call: &Call, audit: &mut Pending<P>) {
    audit.record.method = Some(call.method.as_str());
    audit.record.protocol_version = Some(call.version.as_str());
    audit.record.trace_id = call.meta.trace.traceparent.as_deref().and_then(trace_id);
    if call.method == Method::ToolsCall && context.settings.config.audit.argument_fingerprint {
        let arguments = call.params.get("arguments").map_or("{}", RawValue::get);
        audit.record.argument_fingerprint =
            Some(context.settings.sealer.fingerprint(arguments.as_bytes()));
    }
}

/// Notes for the audit record what answers. A URI's query may hold what must not be
/// recorded.
fn name<P: Platform>(context: &Context<P>, target: &Target, audit: &mut Pending<P>) {
    if let Target::One(one) = target {
        let shown = one.exposed.split(['?', '#']).next().unwrap_or_default();
        audit.record.name = Some(shown.chars().take(256).collect());
        audit.record.upstream = Some(one.upstream.name.clone());
        audit.record.version = canary::label(context, &one.upstream);
    }
    if let Some((upstream, tool)) = target.tool() {
        let rule = context.settings.rule(upstream, tool);
        audit.record.rule = rule.map(|rule| rule.name.clone());
    }
}

/// The trace id of a W3C `traceparent`, if it is one.
fn trace_id(traceparent: &str) -> Option<String> {
    let id = traceparent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}
