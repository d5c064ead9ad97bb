//! `tasks/result` of 2025-11-25: waits for a task's end, and gives exactly what the call would
//! have given.
//!
//! What the task asks meanwhile is asked on the stream of this request, as a legacy server
//! asks, if its session declared that it can be; an answer becomes the task's own, whichever
//! stream it was asked on. Whoever stops waiting costs the task nothing: the next request waits
//! on, and asks what is still open. Nor does what cannot be asked: it stays open, and is tried
//! again when the record is next looked at.
//! Whether the tool may still be called is asked again before anything is told or asked.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use async_stream::stream;
use futures_util::future::FutureExt;
use futures_util::stream::{Stream, StreamExt};
use serde_json::json;
use tidegate_mcp::input;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{INTERNAL_ERROR, RpcError};
use tidegate_mcp::task::{TaskDetail, relate};

use crate::auth::Principal;
use crate::context::Context;
use crate::converse;
use crate::egress::{Answered, Event, Question, Reply};
use crate::error::{Error, Rejection};
use crate::ingress::{Call, Endpoint};
use crate::keyspace::ReadError;
use crate::listen::Seat;
use crate::platform::{LogLevel, Platform};
use crate::session::Session;
use crate::settings;
use crate::switches;
use crate::tasks::handle::{Named, unknown};
use crate::tasks::record::{Answer, Outcome, Record};
use crate::tasks::store::{self, Known};
use crate::tasks::{answer, open, read, repair, run, still};

/// Longest one request waits; whoever still wants the result asks again.
pub const RESULT_WITHIN: Duration = Duration::from_secs(3600);

/// How long a question may be open on a stream: beyond the stream's end, for that nobody
/// answers there is no refusal.
const ANSWER_WITHIN: Duration = RESULT_WITHIN.saturating_mul(2);

/// The keys of what has been asked on a stream.
type Told = Rc<RefCell<BTreeSet<String>>>;

/// A key among them. It is there no longer once its question is dropped whose answer was not
/// stored: that is asked again when the record is next looked at.
struct Telling {
    told: Told,
    key: String,
    stored: bool,
}

impl Telling {
    fn keep(&mut self) {
        self.stored = true;
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if !self.stored {
            self.told.borrow_mut().remove(&self.key);
        }
    }
}

/// Answers `tasks/result`.
pub(crate) async fn result<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Rc<Principal>,
    call: &Call,
) -> Result<Reply, Error> {
    // What an upstream made was never a task to a client of this revision.
    let Named::Ours(handle) = open(context, principal, call)?.1 else {
        return Err(unknown());
    };
    let known = read(context, &handle).await?;
    still(context, endpoint, principal, &known.1)?;
    if known.1.status.is_terminal() {
        let result = outcome(context, &handle.id, &known.1).await?;
        return Ok(Reply::Result(result));
    }
    let seat = Seat::take(context, &principal.id)?;
    let asks = call.session.clone().filter(|_| call.streams);
    let waiting = Waiting {
        endpoint: endpoint.clone(),
        principal: Rc::clone(principal),
        id: handle.id,
        asks: asks.clone(),
    };
    let events = events(context.clone(), waiting, known, seat).boxed_local();
    match asks {
        Some(session) => converse::relay(context, (session, &call.id), events, ANSWER_WITHIN).await,
        None => Ok(Reply::Stream(events)),
    }
}

/// Who waits for which task.
struct Waiting {
    endpoint: Endpoint,
    principal: Rc<Principal>,
    id: String,
    /// The session in which they can be asked what it asks.
    asks: Option<Rc<Session>>,
}

impl Waiting {
    /// Whether they can be asked this. Who declared less than the task's maker is not asked
    /// the rest, which stays open for others.
    fn can_be_asked(&self, request: &Object) -> bool {
        let params = request.get_object("params").and_then(Result::ok);
        let (method, params) = (request.get_str("method"), params.unwrap_or_default());
        self.asks.as_ref().is_some_and(|session| {
            let method = method.as_deref().unwrap_or_default();
            input::check_request(method, &params, &session.capabilities).is_ok()
        })
    }

    /// Whether they may still be told anything, by what is in force now: more than one
    /// configuration may be while they wait.
    async fn may_go_on<P: Platform>(
        &self,
        context: &Context<P>,
        record: &Record,
    ) -> Result<Context<P>, Error> {
        let context = Context {
            settings: settings::load(&context.platform, &context.memory).await?,
            ..context.clone()
        };
        switches::admit(&context, &self.principal).await?;
        still(&context, &self.endpoint, &self.principal, record)?;
        Ok(context)
    }
}

/// What a task asks, as far as it can be asked here, and its end.
fn events<P: Platform>(
    mut context: Context<P>,
    waiting: Waiting,
    known: Known,
    seat: Seat,
) -> impl Stream<Item = Event> {
    stream! {
        let _seat = seat;
        let until = context.now() + RESULT_WITHIN;
        let told = Told::default();
        let id = waiting.id.clone();
        let (mut version, mut record) = known;
        loop {
            context = match waiting.may_go_on(&context, &record).await {
                Ok(context) => context,
                Err(refused) => {
                    yield Event::End(Err(refused));
                    return;
                }
            };
            if record.status.is_terminal() {
                break;
            }
            for (key, request) in record.open_questions().iter() {
                let request = Object::from_raw(request).unwrap_or_default();
                if waiting.can_be_asked(&request) && told.borrow_mut().insert(key.to_owned()) {
                    yield Event::Question(question(&context, &id, &record, (key, &request), &told));
                }
            }
            repair(&context, &id, &record).await;
            let left = until.since(context.now());
            if left.is_zero() {
                let reason = "The task has not ended yet. Ask for its result again.";
                let error = RpcError::new(INTERNAL_ERROR, reason);
                yield Event::End(Err(Rejection::protocol(error).into()));
                return;
            }
            match store::changed(&context, &id, version, left).await {
                Ok(Some(known)) => (version, record) = known,
                Ok(None) => {
                    yield Event::End(Err(unknown()));
                    return;
                }
                Err(ReadError::Unavailable(_)) => {}
                Err(error @ ReadError::Unreadable { .. }) => {
                    yield Event::End(Err(store::failed(error)));
                    return;
                }
            }
        }
        yield Event::End(outcome(&context, &id, &record).await);
    }
}

/// What the call came to.
async fn outcome<P: Platform>(
    context: &Context<P>,
    id: &str,
    record: &Record,
) -> Result<Object, Error> {
    match store::detail(context, id, record).await? {
        TaskDetail::Result(mut result) => {
            relate(&mut result, &record.handle);
            Ok(result)
        }
        TaskDetail::Error(error) => Err(Rejection::protocol(error).into()),
        TaskDetail::None | TaskDetail::InputRequests(_) => {
            let error = RpcError::invalid_params("the task was cancelled and has no result");
            Err(Rejection::protocol(error).into())
        }
    }
}

/// One question of a task, whose answer goes into its record.
fn question<P: Platform>(
    context: &Context<P>,
    id: &str,
    record: &Record,
    (key, request): (&str, &Object),
    told: &Told,
) -> Question {
    let params = request.get_object("params").and_then(Result::ok);
    let mut params = params.unwrap_or_default();
    relate(&mut params, &record.handle);
    let (context, id) = (context.clone(), id.to_owned());
    let mut telling = Telling {
        told: Rc::clone(told),
        key: key.to_owned(),
        stored: false,
    };
    Question {
        method: request.get_str("method").unwrap_or_default().into_owned(),
        params,
        reply: Box::new(move |answered| {
            async move {
                match take(&context, &id, &telling.key, answered).await {
                    Ok(()) => telling.keep(),
                    Err(error) => {
                        let fields = json!({ "task": id, "reason": error.to_string() });
                        context.log(LogLevel::Warn, "task_answer_lost", fields);
                    }
                }
            }
            .boxed_local()
        }),
    }
}

/// Stores an answer. A refusal goes to a legacy upstream as such; a modern one can only be
/// answered well, so the task ends.
async fn take<P: Platform>(
    context: &Context<P>,
    id: &str,
    key: &str,
    answered: Answered,
) -> Result<(), Error> {
    let error = match answered {
        Ok(result) => return store_answer(context, id, key, Answer::Result(result)).await,
        Err(error) => error,
    };
    let unanswered = converse::unanswered(&error);
    let (mut waits, mut ended) = (false, false);
    let now = context.now();
    let known = store::edit(context, id, None, |record| {
        let asked = record.questions.get(key);
        let asked = asked.filter(|asked| asked.answer.is_none());
        waits = asked.is_some_and(|asked| asked.key.is_none());
        let ends = asked.is_some_and(|asked| asked.key.is_some())
            && record.end(Outcome::Result(unanswered.clone()), now);
        ended |= ends;
        ends
    })
    .await?;
    if let Some((_, record)) = known.filter(|(_, record)| ended && record.ended_at(now)) {
        run::report(context, id, &record);
    }
    match waits {
        true => store_answer(context, id, key, Answer::Refusal(error.into())).await,
        false => Ok(()),
    }
}

async fn store_answer<P: Platform>(
    context: &Context<P>,
    id: &str,
    key: &str,
    given: Answer,
) -> Result<(), Error> {
    answer(context, id, BTreeMap::from([(key.to_owned(), given)])).await
}
