//! `execution: auto`: a call that is answered directly if it is quick, and becomes a task if
//! it is still running after a while, or asks something only a task can wait for.
//!
//! The call is handed over, never made twice: it is made where it can outlive the request of
//! its client, in a keeper of its own, and when it becomes a task the run that stores its
//! outcome is the one that made it. Where the host has no keepers it goes on after the
//! response, for as long as the host lets it; a run that is lost leaves a lapsed lease.
//!
//! A task the upstream makes of the call before that is passed on as it is.
//!
//! A task that cannot be made (the store or the queue is away, or a limit is reached) costs
//! nothing but the task: the call goes on and is answered when it is done.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use futures_util::future::{self, Either};
use futures_util::stream::{self, Stream, StreamExt};
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_mcp::json::Object;
use tidegate_mcp::meta::{ClientCapabilities, RequestMeta};
use tidegate_mcp::task::created_result;

use super::call;
use super::drive::{self, Run};
use super::make::{Asked, begin, call_off, insert};
use super::record::Record;
use super::run::{self, STORE_PAUSE};
use super::theirs::Maker;
use super::{follow, passed};
use crate::body::Body;
use crate::context::Context;
use crate::egress::{self, Event, Question, Reply};
use crate::error::{Error, Fault};
use crate::park::{self, Frame};
use crate::platform::{Clock, Keeper, LogLevel, Platform};

/// Where a keeper takes a call that may become a task.
pub(super) const RACES: &str = "/races/";
/// Largest request to a keeper, in bytes: a task's record.
const REQUEST_MAX: usize = 2 * 1024 * 1024;

/// A call as its keeper is told of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    /// What the task would be.
    record: Record,
    log_level: Option<String>,
    threshold_ms: u64,
}

/// Makes the call; gives its answer, or the task it has become.
pub(crate) async fn call<P: Platform>(
    context: &Context<P>,
    asked: Asked,
    meta: RequestMeta,
    threshold: Duration,
) -> Result<Reply, Error> {
    let (id, record) = begin(context, asked)?;
    let told = Told {
        record,
        log_level: meta.log_level.clone(),
        threshold_ms: u64::try_from(threshold.as_millis()).unwrap_or(u64::MAX),
    };
    let mut taken = None;
    let body = match context.platform.keeper() {
        Some(keeper) => {
            let body = serde_json::to_string(&told).map_err(|e| Fault::Internal(e.to_string()))?;
            let request = Request::post(format!("{RACES}{id}")).body(Body::from(body));
            let request = request.map_err(|e| Fault::Internal(e.to_string()))?;
            let name = context.memory.tasks.idle.take(context);
            let response = keeper.send(&name, request).await?;
            taken = Some(name);
            if response.status() != StatusCode::OK {
                let status = response.status();
                return Err(Fault::Dependency(format!("a keeper answered {status}")).into());
            }
            response.into_body()
        }
        None => Body::stream(park::encoded(frames(context.unhurried(), id, told)).map(Ok)),
    };
    let memory = Rc::clone(&context.memory);
    let mut events = park::heard(body, meta)
        .inspect(move |event| {
            if let Event::End(end) = event
                && !end.as_ref().is_ok_and(follow::is_task)
                && let Some(name) = taken.take()
            {
                memory.tasks.idle.give_back(name);
            }
        })
        .boxed_local();
    match events.next().await {
        Some(Event::End(end)) => end.map(Reply::Result),
        Some(first) => Ok(Reply::Stream(
            stream::iter([first]).chain(events).boxed_local(),
        )),
        None => Err(Fault::Dependency("a keeper said nothing".to_owned()).into()),
    }
}

/// The keeper's side of [`call`].
pub(super) async fn kept<P: Platform>(
    context: &Context<P>,
    id: &str,
    body: Body,
) -> Option<Response<Body>> {
    let body = body.read(REQUEST_MAX).await.ok()?;
    let told = serde_json::from_slice(&body).ok()?;
    let frames = frames(context.clone(), id.to_owned(), told);
    Some(egress::streamed(park::encoded(frames)))
}

/// What comes of the call until it ends or has become a task.
fn frames<P: Platform>(context: Context<P>, id: String, told: Told) -> impl Stream<Item = Frame> {
    stream! {
        let Told { record, log_level, threshold_ms } = told;
        let mut events = match call::call(&context, &record, log_level) {
            Ok(events) => events,
            Err(error) => {
                yield Frame::Failed(error.into());
                return;
            }
        };
        let clock = context.platform.clock();
        let mut threshold = Box::pin(clock.sleep(Duration::from_millis(threshold_ms)));
        loop {
            let question = match future::select(events.next(), &mut threshold).await {
                Either::Left((Some(Event::Notification(notification)), _)) => {
                    let (method, params) = (notification.method, notification.params);
                    yield Frame::Notification { method, params };
                    continue;
                }
                Either::Left((Some(Event::Request(_)), _)) => continue,
                Either::Left((Some(Event::End(end)), _)) => {
                    let end = match end {
                        Ok(result) if follow::is_task(&result) => pass(&context, &record, result),
                        end => end,
                    };
                    yield match end {
                        Ok(result) => Frame::Result(result),
                        Err(error) => Frame::Failed(error.into()),
                    };
                    return;
                }
                Either::Left((None, _)) => {
                    let lost = Fault::Internal("a reply without its end".to_owned());
                    yield Frame::Failed(Error::from(lost).into());
                    return;
                }
                Either::Left((Some(Event::Question(question)), _)) => Some(question),
                Either::Right(((), _)) => None,
            };
            match hand_over(&context, &id, record.clone()).await {
                Ok(run) => {
                    let created = created_result(&run.shown());
                    go_on(&context, run, question, events);
                    yield Frame::Result(created);
                    return;
                }
                Err(error) => {
                    let fields = json!({ "reason": error.to_string() });
                    context.log(LogLevel::Warn, "task_not_made", fields);
                    if let Some(question) = question {
                        question.refuse().await;
                    }
                    // The call goes on without: nothing is gained by asking again.
                    threshold = Box::pin(clock.sleep(Duration::from_millis(record.timeout_ms)));
                }
            }
        }
    }
}

/// Gives the client the task its upstream has made of the call.
fn pass<P: Platform>(
    context: &Context<P>,
    record: &Record,
    result: Object,
) -> Result<Object, Error> {
    let maker = Rc::new(Maker::of(context, record).ok_or_else(call::gone)?);
    let client = ClientCapabilities(record.capabilities.clone());
    passed::created(context, &maker, &client, result)
}

/// Makes the task of a call that is under way.
async fn hand_over<P: Platform>(
    context: &Context<P>,
    id: &str,
    mut record: Record,
) -> Result<Run<P>, Error> {
    let lease = run::lease(context);
    let lasts = run::LEASE + STORE_PAUSE;
    record.begin(lease.clone(), context.now());
    let version = insert(context, id, &record).await?;
    // Should this run be lost, the message is what finds out.
    if let Err(unavailable) = run::enqueue(context, id, lasts).await {
        // Nobody else runs it while its lease is good: the call goes on without.
        call_off(context, id, (version, record)).await;
        return Err(unavailable);
    }
    Ok(Run::new(context, id, lease.run, (version, record)))
}

/// Sees the call through, whoever still listens.
fn go_on<P: Platform>(
    context: &Context<P>,
    run: Run<P>,
    question: Option<Question>,
    events: drive::Events,
) {
    let one = context.memory.tasks.running.one();
    context.platform.defer(async move {
        let run = match question {
            Some(question) => run.asking(question).await,
            None => run,
        };
        pin!(run.drive_alone(events)).await;
        drop(one);
    });
}

/// The empty answer of a keeper to what it does not understand.
pub(super) fn refused() -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::new()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
