//! Following a task an upstream makes of a call, to its end: for a run of a task of the
//! gateway's own, and for a client that knows no tasks.
//!
//! The task is polled as often as its upstream says, within bounds, and the more seldom the
//! longer it takes. What it asks becomes a question of the call, and the answer an update of
//! the task. To whoever made the call it looks like one that takes its time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use async_stream::stream;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use serde_json::json;
use tidegate_mcp::input::ResultType;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{INTERNAL_ERROR, Notification, RpcError};
use tidegate_mcp::meta::RequestMeta;
use tidegate_mcp::task::{Task, TaskStatus};

use super::call::{gone, meta_of};
use super::drive::Events;
use super::record::Record;
use super::theirs::{Maker, Minted, Seen, Theirs};
use crate::context::Context;
use crate::dispatch::Ask;
use crate::egress::{Answered, Event, Question, Reply};
use crate::error::{Error, Rejection};
use crate::platform::{Clock, Platform};
use crate::time::Timestamp;
use crate::upstream::ANSWER_WITHIN;

/// Shortest pause between two polls.
const POLL_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two polls.
const POLL_MAX: Duration = Duration::from_secs(30);
/// No pause is shorter than this part of the time that has passed, so that the polls of a long
/// task are few: hosts bound what one run may ask.
const SHARE: u32 = 64;
/// Most polls in a row that may come to nothing.
const FAILURES_MAX: u32 = 5;
/// Most things one task may ask.
const QUESTIONS_MAX: usize = 64;
/// Longest id of a task that is followed, in bytes.
const ID_MAX: usize = 1024;
/// How a run is told what the task says of itself.
pub(super) const STATUS: &str = "notifications/tasks";

/// For whom a task is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// A run, which another takes up should it be lost.
    Run,
    /// A client that waits for the answer, and whether it can be asked things meanwhile.
    Client { asks: bool },
}

/// What is needed to follow a task that a call may become.
pub(crate) struct Follower<P> {
    context: Context<P>,
    maker: Rc<Maker>,
    meta: RequestMeta,
    /// When the call began, and how long all of it may take.
    begun: Timestamp,
    timeout: Duration,
    whose: For,
}

impl<P: Platform> Follower<P> {
    /// The follower of a call whose client is not told of a task.
    pub(crate) fn of_call(context: &Context<P>, maker: &Rc<Maker>, ask: &Ask) -> Option<Self> {
        (ask.minted == Minted::Awaited).then(|| Self {
            context: context.clone(),
            maker: Rc::clone(maker),
            meta: ask.meta.clone(),
            begun: context.now(),
            timeout: ask.timeout,
            whose: For::Client { asks: ask.asks },
        })
    }

    /// The follower of a run.
    pub(super) fn of(context: &Context<P>, record: &Record) -> Result<Self, Error> {
        Ok(Self {
            context: context.clone(),
            maker: Rc::new(Maker::of(context, record).ok_or_else(gone)?),
            meta: meta_of(record, None),
            begun: context.now(),
            timeout: Duration::from_millis(record.timeout_ms),
            whose: For::Run,
        })
    }

    /// The reply of a call, in which a task takes the place of its own end.
    pub(crate) fn see_through(self, reply: Reply) -> Reply {
        match reply {
            Reply::Result(result) if is_task(&result) => Reply::Stream(self.begin(&result)),
            Reply::Result(result) => Reply::Result(result),
            Reply::Stream(events) => {
                let mut follower = Some(self);
                let events = events.flat_map(move |event| match (event, follower.take()) {
                    (Event::End(Ok(result)), Some(follower)) if is_task(&result) => {
                        follower.begin(&result)
                    }
                    (event, kept) => {
                        follower = kept;
                        stream::iter([event]).boxed_local()
                    }
                });
                Reply::Stream(events.boxed_local())
            }
        }
    }

    /// The id of the task a call has become, and how soon it is to be asked about.
    pub(super) fn made(&self, result: &Object) -> Result<(String, Duration), Error> {
        let task = self.maker.made(result)?;
        if task.task_id.len() > ID_MAX {
            self.let_go(task.task_id);
            return Err(self.maker.invalid("a task whose id is too long"));
        }
        let pause = match task.status.is_terminal() {
            true => Duration::ZERO,
            false => poll_interval(&task),
        };
        Ok((task.task_id, pause))
    }

    /// Tells the upstream that nobody wants the task of this id.
    pub(super) fn let_go(&self, id: String) {
        let maker = Rc::clone(&self.maker);
        Theirs { maker, id }.give_up(&self.context);
    }

    fn begin(self, result: &Object) -> Events {
        match self.made(result) {
            Ok((id, first)) => self.follow(id, first),
            Err(error) => stream::iter([Event::End(Err(error))]).boxed_local(),
        }
    }

    /// What comes of the task of this id, which is asked about after a first pause.
    pub(super) fn follow(self, id: String, first: Duration) -> Events {
        let maker = Rc::clone(&self.maker);
        let theirs = Theirs { maker, id };
        let following = Following {
            deadline: Cell::new(self.begun + self.timeout),
            desk: Rc::default(),
            unwanted: Cell::new(matches!(self.whose, For::Client { .. })),
            follower: self,
            theirs,
        };
        following.events(first)
    }
}

fn poll_interval(task: &Task) -> Duration {
    let asked = task.poll_interval_ms.map(Duration::from_millis);
    asked.unwrap_or_default().max(POLL_MIN)
}

/// Whether a call has become a task of its upstream.
pub(crate) fn is_task(result: &Object) -> bool {
    ResultType::of(result) == ResultType::Task
}

/// Tells the upstream that nobody wants the task any more whose record this is.
pub(crate) fn let_go<P: Platform>(context: &Context<P>, record: &Record) {
    if let Some(id) = record.upstream_task.clone()
        && let Some(maker) = Maker::of(context, record)
    {
        let maker = Rc::new(maker);
        Theirs { maker, id }.give_up(context);
    }
}

/// A task on its way.
struct Following<P: Platform> {
    follower: Follower<P>,
    theirs: Theirs,
    deadline: Cell<Timestamp>,
    desk: Rc<Desk>,
    /// Whether the upstream is to be told if this is dropped.
    unwanted: Cell<bool>,
}

/// What the task has asked.
#[derive(Default)]
struct Desk {
    asked: RefCell<BTreeSet<String>>,
    /// How many questions are open.
    open: Cell<usize>,
    /// Whether an answer came since this was last looked at.
    answered: Cell<bool>,
    /// An answer nobody gives and the task has no words for.
    refused: RefCell<Option<RpcError>>,
}

impl<P: Platform> Drop for Following<P> {
    fn drop(&mut self) {
        if self.unwanted.get() {
            self.theirs.give_up(&self.follower.context);
        }
    }
}

impl<P: Platform> Following<P> {
    fn events(self, first: Duration) -> Events {
        stream! {
            let context = self.follower.context.clone();
            let (mut told, mut failures) = (None, 0);
            let mut interval = first;
            loop {
                if let Some(end) = self.over() {
                    yield Event::End(end);
                    return;
                }
                context.platform.clock().sleep(self.pause(interval)).await;
                let seen = match self.theirs.get(&context, &self.follower.meta).await {
                    Ok(seen) => seen,
                    Err(error) if failures < FAILURES_MAX && may_pass(&error) => {
                        failures += 1;
                        interval = interval.max(POLL_MIN);
                        continue;
                    }
                    Err(error) => {
                        yield Event::End(Err(self.lost(error)));
                        return;
                    }
                };
                failures = 0;
                interval = poll_interval(&seen.task);
                if self.follower.whose == For::Run && told != seen.task.status_message {
                    told.clone_from(&seen.task.status_message);
                    yield Event::Notification(status(&seen));
                }
                if seen.task.status == TaskStatus::InputRequired {
                    match self.questions(&seen) {
                        Ok(questions) => {
                            for question in questions {
                                yield Event::Question(question);
                            }
                        }
                        Err(error) => {
                            yield Event::End(Err(self.given_up(error)));
                            return;
                        }
                    }
                } else if let Some(end) = self.end(&seen).await {
                    yield Event::End(end);
                    return;
                }
            }
        }
        .boxed_local()
    }

    /// How long to wait for the next poll.
    fn pause(&self, interval: Duration) -> Duration {
        let now = self.context().now();
        if interval.is_zero() {
            return interval;
        }
        let share = now.since(self.follower.begun) / SHARE;
        let pause = interval.max(share).min(POLL_MAX);
        pause.min(self.deadline.get().since(now))
    }

    /// The end, if it is not the task's own.
    fn over(&self) -> Option<Result<Object, Error>> {
        let (now, timeout) = (self.context().now(), self.follower.timeout);
        if self.desk.answered.take() && self.desk.open.get() == 0 {
            self.deadline.set(now + timeout);
        }
        if let Some(refused) = self.desk.refused.take() {
            return Some(Err(self.given_up(Rejection::protocol(refused).into())));
        }
        if now < self.deadline.get() {
            return None;
        }
        let upstream = self.follower.maker.upstream.name.clone();
        let asked = true;
        let late = Rejection::UpstreamTimeout {
            upstream,
            timeout,
            asked,
        };
        let late = self.given_up(late.into());
        Some(match self.follower.whose {
            For::Run => Err(late),
            For::Client { .. } => Ok(took_too_long(timeout)),
        })
    }

    /// What the task came to, if it has ended.
    async fn end(&self, seen: &Seen) -> Option<Result<Object, Error>> {
        let end = match seen.task.status {
            TaskStatus::Working | TaskStatus::InputRequired => return None,
            TaskStatus::Completed => self.theirs.result(self.context(), seen).await,
            TaskStatus::Failed => match self.theirs.error(seen) {
                Ok(error) => Err(Rejection::protocol(error).into()),
                Err(invalid) => Err(invalid),
            },
            TaskStatus::Cancelled => {
                let reason = "The upstream cancelled its task.";
                Err(Rejection::protocol(RpcError::new(INTERNAL_ERROR, reason)).into())
            }
        };
        self.unwanted.set(false);
        Some(end)
    }

    /// What the task asks that it has not asked before.
    fn questions(&self, seen: &Seen) -> Result<Vec<Question>, Error> {
        if self.follower.whose == (For::Client { asks: false }) {
            return Err(super::undeclared());
        }
        let declared = &self.follower.meta.client_capabilities;
        let requests = self.theirs.questions(seen, declared)?;
        let mut asked = self.desk.asked.borrow_mut();
        let mut questions = Vec::new();
        for (key, request) in requests.iter() {
            if !asked.insert(key.to_owned()) {
                continue;
            }
            if asked.len() > QUESTIONS_MAX {
                let reason = format!("a task that asks more than {QUESTIONS_MAX} things");
                return Err(self.theirs.maker.invalid(&reason));
            }
            self.desk.open.set(self.desk.open.get() + 1);
            let until = self.context().now() + ANSWER_WITHIN + self.follower.timeout;
            self.deadline.set(until);
            questions.push(self.question(key, &Object::from_raw(request).unwrap_or_default()));
        }
        Ok(questions)
    }

    fn question(&self, key: &str, request: &Object) -> Question {
        let method = request.get_str("method").unwrap_or_default().into_owned();
        let params = request.get_object("params").and_then(Result::ok);
        let elicits = method == "elicitation/create";
        let (desk, theirs) = (Rc::clone(&self.desk), self.theirs.clone());
        let (context, meta) = (self.context().clone(), self.follower.meta.clone());
        let key = key.to_owned();
        Question {
            method,
            params: params.unwrap_or_default(),
            reply: Box::new(move |answered: Answered| {
                async move {
                    desk.open.set(desk.open.get().saturating_sub(1));
                    desk.answered.set(true);
                    let answer = match answered {
                        Ok(answer) => answer,
                        // There is no other way to say that nobody answers.
                        Err(_) if elicits => Object::new().with("action", "cancel"),
                        Err(refused) => {
                            desk.refused.replace(Some(refused));
                            return;
                        }
                    };
                    let answers = Object::new().with(&key, &answer);
                    if theirs.update(&context, &answers, &meta).await.is_err() {
                        // It is asked again.
                        desk.asked.borrow_mut().remove(&key);
                    }
                }
                .boxed_local()
            }),
        }
    }

    /// The task is nobody's any more, for this reason.
    fn given_up(&self, error: Error) -> Error {
        self.unwanted.set(true);
        error
    }

    /// It could not be asked about: a run tries again. To a client its call is lost, for the
    /// tool runs, whether the upstream was asked once more or not.
    fn lost(&self, error: Error) -> Error {
        let upstream = self.theirs.maker.upstream.name.clone();
        match self.follower.whose {
            For::Run if may_pass(&error) => {
                let retry_after = None;
                Rejection::UpstreamUnavailable {
                    upstream,
                    retry_after,
                }
                .into()
            }
            For::Run => error,
            For::Client { .. } => {
                Error::after(error, Some(Rejection::UpstreamLost { upstream }.into()))
            }
        }
    }

    fn context(&self) -> &Context<P> {
        &self.follower.context
    }
}

/// Whether the next poll may do better.
fn may_pass(error: &Error) -> bool {
    matches!(
        error,
        Error::Rejection(
            Rejection::UpstreamUnavailable { .. }
                | Rejection::UpstreamLost { .. }
                | Rejection::UpstreamTimeout { .. }
                | Rejection::UpstreamBusy { .. }
                | Rejection::UpstreamInvalid { .. }
                | Rejection::UpstreamFull { .. }
        )
    )
}

fn status(seen: &Seen) -> Notification {
    let message = seen.task.status_message.as_deref().unwrap_or_default();
    Notification {
        method: STATUS.to_owned(),
        params: Object::new().with("statusMessage", message),
    }
}

/// What a client is told, and mostly a model reads, whose tool is a task it cannot have.
fn took_too_long(timeout: Duration) -> Object {
    let text = format!(
        "The tool works in the background and was not done within {} ms, so it was cancelled. Ask for less, use a client that understands tasks, or have the gateway's operator raise the tool's `timeoutMs`.",
        timeout.as_millis()
    );
    Object::new()
        .with("resultType", ResultType::COMPLETE)
        .with("content", &json!([{ "type": "text", "text": text }]))
        .with("isError", &true)
}
