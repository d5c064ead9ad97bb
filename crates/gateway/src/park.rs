//! Calls of modern clients that a legacy upstream asks things back in.
//!
//! A modern client is asked by `input_required` and answers by calling again, while a legacy
//! upstream waits for the answer on the stream it asked on. That stream must live on between
//! the two requests, so the call is made in a keeper ([`crate::platform::Keeper`]): one per
//! principal and upstream. When the upstream asks, the keeper ends the client's request and
//! parks the stream; the client's retry names the parked call in its sealed `requestState`,
//! and the stream goes on.
//!
//! Parked calls live in the keeper's memory alone, for [`PARKED_MAX`]. One that is gone is an
//! error to the retry: **a tool is never silently run a second time.**

pub(crate) mod frame;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use futures_util::future::{self, Either, FutureExt};
use futures_util::stream::{self, LocalBoxStream, Stream, StreamExt};
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidegate_mcp::era;
use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::meta::{ClientCapabilities, PROGRESS_TOKEN, RequestMeta, Trace};
use tidegate_mcp::method::Method;
use tidegate_mcp::version::Era;

use crate::auth::PrincipalId;
use crate::body::Body;
use crate::config::Upstream;
use crate::context::Context;
use crate::egress::{self, Event, Question, Reply};
use crate::error::{Error, Fault, Rejection};
use crate::platform::{Clock, Keeper, Platform};
use crate::seal::hex;
use crate::time::Timestamp;
use crate::upstream::{self, ANSWER_WITHIN, Declares, Outgoing};
pub(crate) use frame::Frame;

/// Longest a call stays parked for its client's answer.
pub const PARKED_MAX: Duration = ANSWER_WITHIN;
/// Most calls parked in one keeper; the next is refused and its upstream told so.
pub const CALLS_MAX: usize = 32;
/// Largest request to a keeper, in bytes: a client's request and what is known of it.
const REQUEST_MAX: usize = 8 * 1024 * 1024;
/// How long further questions are waited for once the upstream has asked one.
const GATHER: Duration = Duration::from_millis(50);
/// Where a keeper takes new calls; a parked one is at its id below.
pub(crate) const CALLS: &str = "/calls";

/// What a keeper remembers: the calls that wait for an answer.
#[derive(Default)]
pub(crate) struct Memory {
    calls: RefCell<BTreeMap<String, Parked>>,
}

struct Parked {
    events: LocalBoxStream<'static, Event>,
    questions: Questions,
    until: Timestamp,
}

/// What the upstream has asked in one call: what is open, by key, and how many there were.
#[derive(Default)]
struct Questions {
    open: BTreeMap<String, Question>,
    asked: usize,
}

impl Memory {
    /// Whether a call is parked here; those nobody came back for are given up.
    pub(crate) fn is_busy(&self, now: Timestamp) -> bool {
        let late: Vec<Parked> = {
            let mut calls = self.calls.borrow_mut();
            let late = calls.iter().filter(|(_, parked)| parked.until <= now);
            let late: Vec<String> = late.map(|(id, _)| id.clone()).collect();
            late.iter().filter_map(|id| calls.remove(id)).collect()
        };
        // Outside the borrow: what is dropped tells its upstream.
        drop(late);
        !self.calls.borrow().is_empty()
    }
}

/// A call as its keeper is told of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    upstream: String,
    method: String,
    params: Object,
    capabilities: Object,
    log_level: Option<String>,
    trace: [Option<String>; 3],
    meta: Object,
    principal: PrincipalId,
    timeout_ms: u64,
}

impl Told {
    fn of(upstream: &Upstream, outgoing: &Outgoing) -> Self {
        let (meta, trace) = (&outgoing.meta, &outgoing.meta.trace);
        Self {
            upstream: upstream.key().clone(),
            method: outgoing.method.as_str().to_owned(),
            params: outgoing.params.clone(),
            capabilities: meta.client_capabilities.0.clone(),
            log_level: meta.log_level.clone(),
            trace: [
                trace.traceparent.clone(),
                trace.tracestate.clone(),
                trace.baggage.clone(),
            ],
            meta: meta.rest.clone(),
            principal: outgoing.principal.clone(),
            timeout_ms: u64::try_from(outgoing.timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The progress token is the keeper's own: each request of the client brings another.
    fn outgoing(self) -> Option<Outgoing> {
        let [traceparent, tracestate, baggage] = self.trace;
        Some(Outgoing {
            method: Method::parse(&self.method)?,
            params: self.params,
            meta: RequestMeta {
                client_capabilities: ClientCapabilities(self.capabilities),
                log_level: self.log_level,
                progress_token: Some(tidegate_mcp::json::raw(&0)),
                trace: Trace {
                    traceparent,
                    tracestate,
                    baggage,
                },
                rest: self.meta,
                ..RequestMeta::default()
            },
            param_headers: Vec::new(),
            asks: true,
            rather: Era::Legacy,
            tasks: Declares::Never,
            principal: self.principal,
            timeout: Duration::from_millis(self.timeout_ms),
        })
    }
}

/// Which part of a call is asked of the keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The whole call.
    First,
    /// What follows the client's answer to the parked call of this name.
    Next(String),
}

/// Makes the call, or goes on with it, in its keeper. A result that requires input carries
/// the parked call's name as `requestState`; whoever shows it to a client seals it.
pub(crate) async fn call<P: Platform>(
    context: &Context<P>,
    upstream: &Upstream,
    outgoing: Outgoing,
    part: Part,
) -> Result<Reply, Error> {
    let Some(keeper) = context.platform.keeper() else {
        return Err(Fault::Internal("this host keeps no calls".to_owned()).into());
    };
    let (path, body) = match part {
        Part::First => {
            let told = Told::of(upstream, &outgoing);
            (CALLS.to_owned(), serde_json::to_string(&told))
        }
        Part::Next(id) => {
            let answers = match outgoing.params.get_object("inputResponses") {
                Some(Ok(answers)) => answers,
                None => Object::default(),
                Some(Err(_)) => return Err(malformed("`inputResponses` must be an object")),
            };
            (format!("{CALLS}/{id}"), serde_json::to_string(&answers))
        }
    };
    let body = body.map_err(|e| Fault::Internal(e.to_string()))?;
    let request = Request::post(path).body(Body::from(body));
    let request = request.map_err(|e| Fault::Internal(e.to_string()))?;
    let name = keeper_name(upstream, &outgoing.principal);
    let response = keeper.send(&name, request).await?;
    if response.status() != StatusCode::OK {
        let status = response.status();
        return Err(Fault::Dependency(format!("a keeper answered {status}")).into());
    }
    let mut events = heard(response.into_body(), outgoing.meta).boxed_local();
    match events.next().await {
        Some(Event::End(end)) => end.map(Reply::Result),
        Some(first) => Ok(Reply::Stream(
            stream::iter([first]).chain(events).boxed_local(),
        )),
        None => Err(lost()),
    }
}

/// One keeper per principal and upstream: what it knows concerns nobody else.
fn keeper_name(upstream: &Upstream, principal: &PrincipalId) -> String {
    let mut hash = Sha256::new();
    for part in [principal.as_str(), upstream.key(), upstream.url.as_str()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..16])
}

/// What a keeper says, as events of the client's present request.
pub(crate) fn heard(body: Body, meta: RequestMeta) -> impl Stream<Item = Event> {
    stream! {
        let mut frames = frame::read(body).boxed_local();
        while let Some(frame) = frames.next().await {
            match frame {
                Ok(Frame::Notification { method, mut params }) => {
                    match (method.as_str(), &meta.progress_token, &meta.log_level) {
                        ("notifications/progress", Some(token), _) => {
                            params.insert(PROGRESS_TOKEN, token);
                        }
                        ("notifications/message", _, Some(_)) => {}
                        _ => continue,
                    }
                    yield Event::Notification(tidegate_mcp::jsonrpc::Notification { method, params });
                }
                Ok(Frame::Required { call, input_requests }) => {
                    let result = Object::default()
                        .with("resultType", ResultType::INPUT_REQUIRED)
                        .with("inputRequests", &input_requests)
                        .with("requestState", &call);
                    yield Event::End(Ok(result));
                    return;
                }
                Ok(Frame::Result(result)) => {
                    yield Event::End(Ok(result));
                    return;
                }
                Ok(Frame::Failed(failed)) => {
                    yield Event::End(Err(failed.into()));
                    return;
                }
                Err(reason) => {
                    yield Event::End(Err(Fault::Dependency(reason).into()));
                    return;
                }
            }
        }
        yield Event::End(Err(lost()));
    }
}

fn lost() -> Error {
    Fault::Dependency("a keeper's answer ended without its end".to_owned()).into()
}

fn malformed(reason: &str) -> Error {
    Rejection::protocol(RpcError::invalid_params(reason)).into()
}

/// The keeper's side: answers a request to make a call or to go on with one.
pub(crate) async fn answer<P: Platform>(
    context: &Context<P>,
    request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parked = path
        .strip_prefix(CALLS)
        .and_then(|rest| rest.strip_prefix('/'));
    let Ok(body) = request.into_body().read(REQUEST_MAX).await else {
        return refused();
    };
    let context = context.clone();
    match parked {
        None => match serde_json::from_slice::<Told>(&body) {
            Ok(told) => egress::streamed(encoded(begun(context, told))),
            Err(_) => refused(),
        },
        Some(id) => match Object::parse(&body) {
            Ok(answers) => egress::streamed(encoded(resumed(context, id.to_owned(), answers))),
            Err(_) => refused(),
        },
    }
}

fn refused() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// Frames as bytes, with a comment now and then while there are none.
pub(crate) fn encoded(frames: impl Stream<Item = Frame> + 'static) -> impl Stream<Item = Bytes> {
    frames.map(|frame| frame.encode())
}

fn begun<P: Platform>(context: Context<P>, told: Told) -> impl Stream<Item = Frame> {
    let name = told.upstream.clone();
    let begin = async move {
        let upstream = context.settings.version(&name).cloned();
        let (Some(upstream), Some(outgoing)) = (upstream, told.outgoing()) else {
            let gone = Rejection::UpstreamUnavailable {
                upstream: name,
                retry_after: None,
            };
            return stream::iter([Frame::Failed(Error::from(gone).into())]).boxed_local();
        };
        let events = {
            let context = context.clone();
            async move {
                match upstream::call(&context, &upstream, outgoing).await {
                    Ok(Reply::Stream(events)) => events,
                    Ok(Reply::Result(result)) => {
                        stream::iter([Event::End(Ok(result))]).boxed_local()
                    }
                    Err(error) => stream::iter([Event::End(Err(error))]).boxed_local(),
                }
            }
        };
        told_until_asked(
            context,
            events.flatten_stream().boxed_local(),
            Questions::default(),
        )
        .boxed_local()
    };
    begin.flatten_stream()
}

/// Takes the client's answers to a parked call and goes on with it.
fn resumed<P: Platform>(
    context: Context<P>,
    id: String,
    answers: Object,
) -> impl Stream<Item = Frame> {
    stream! {
        let found = context.memory.park.calls.borrow_mut().remove(&id);
        let Some(Parked { events, mut questions, until }) = found.filter(|parked| context.now() < parked.until)
        else {
            yield Frame::Failed(gone().into());
            return;
        };
        let mut given = Vec::new();
        for key in questions.open.keys() {
            match answers.get_object(key) {
                None => {}
                Some(Ok(answer)) => given.push((key.clone(), answer)),
                Some(Err(_)) => {
                    // Nothing is lost: the client may answer properly.
                    let parked = Parked { events, questions, until };
                    context.memory.park.calls.borrow_mut().insert(id, parked);
                    yield Frame::Failed(malformed("an input response must be an object").into());
                    return;
                }
            }
        }
        for (key, answer) in given {
            if let Some(question) = questions.open.remove(&key) {
                (question.reply)(Ok(answer)).await;
            }
        }
        if !questions.open.is_empty() {
            yield park(&context, Some(id), events, questions);
            return;
        }
        let mut frames = told_until_asked(context, events, questions).boxed_local();
        while let Some(frame) = frames.next().await {
            yield frame;
        }
    }
}

fn gone() -> Error {
    malformed(
        "the call that asked for this is gone, and what it did is unknown; call again without \
         requestState only if running the tool twice does no harm",
    )
}

/// What the upstream says, until the end or until it asks something; then the call is parked.
fn told_until_asked<P: Platform>(
    context: Context<P>,
    mut events: LocalBoxStream<'static, Event>,
    mut questions: Questions,
) -> impl Stream<Item = Frame> {
    stream! {
        loop {
            let event = if questions.open.is_empty() {
                events.next().await
            } else {
                // What is asked at the same time is asked of the client at the same time.
                let pause = Box::pin(context.platform.clock().sleep(GATHER));
                match future::select(events.next(), pause).await {
                    Either::Left((event, _)) => event,
                    Either::Right(((), _)) => {
                        yield park(&context, None, events, questions);
                        return;
                    }
                }
            };
            match event {
                Some(Event::Notification(notification)) => {
                    yield Frame::Notification {
                        method: notification.method,
                        params: notification.params,
                    };
                }
                Some(Event::Question(question)) => {
                    questions.asked += 1;
                    let key = format!("{}-{}", kind(&question.method), questions.asked);
                    questions.open.insert(key, question);
                }
                Some(Event::Request(_)) => {}
                Some(Event::End(Ok(result))) => {
                    yield Frame::Result(result);
                    return;
                }
                Some(Event::End(Err(error))) => {
                    yield Frame::Failed(error.into());
                    return;
                }
                None => {
                    yield Frame::Failed(lost().into());
                    return;
                }
            }
        }
    }
}

/// A word for the key under which the client answers.
fn kind(method: &str) -> &str {
    method.split('/').next().unwrap_or_default()
}

/// Keeps the call until its client answers, and says what it is to answer.
fn park<P: Platform>(
    context: &Context<P>,
    id: Option<String>,
    events: LocalBoxStream<'static, Event>,
    questions: Questions,
) -> Frame {
    let mut input_requests = Object::default();
    for (key, question) in &questions.open {
        let params = era::lift_question(question.params.clone());
        let request = Object::default()
            .with("method", &question.method)
            .with("params", &params);
        input_requests.insert(key, &request);
    }
    let now = context.now();
    let memory = &context.memory.park;
    let _ = memory.is_busy(now);
    if memory.calls.borrow().len() >= CALLS_MAX {
        return Frame::Failed(crowded().into());
    }
    let id = id.unwrap_or_else(|| hex(&context.random::<16>()));
    let parked = Parked {
        events,
        questions,
        until: now + PARKED_MAX,
    };
    memory.calls.borrow_mut().insert(id.clone(), parked);
    Frame::Required {
        call: id,
        input_requests,
    }
}

fn crowded() -> Error {
    let reason = "too many of your calls to this upstream wait for your answers; answer them first";
    Rejection::protocol(RpcError::new(crate::error::REFUSED, reason)).into()
}
