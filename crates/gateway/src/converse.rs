//! A call of a legacy client that the upstream may ask things back in.
//!
//! To these clients a server sends requests of its own, on the stream of the call they
//! belong to; the answers come in other POSTs, at whichever isolate is nearest, and reach
//! the call through its [`Mailbox`]. Whether a legacy upstream asks in its session or a
//! modern one answers `input_required`, the client sees the same.
//!
//! The mailbox is made when the first question is asked, or when the call has run for
//! [`CANCELLABLE_AFTER`]: until then a cancellation has nothing to meet.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use async_stream::stream;
use futures_util::future::{self, Either, FutureExt};
use futures_util::stream::{self, LocalBoxStream, Stream, StreamExt};
use serde_json::json;
use tidegate_mcp::era;
use tidegate_mcp::input::{InputRequired, is_input_required};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{INTERNAL_ERROR, Request, RequestId, RpcError};
use tidegate_mcp::method::Method;

use crate::auth::PrincipalId;
use crate::context::Context;
use crate::dispatch::{Ask, ask_upstream};
use crate::egress::{Answered, Event, Question, Reply};
use crate::error::{Error, Rejection};
use crate::mailbox::{Address, Letter, Mailbox, Taking};
use crate::platform::{Clock, LogLevel, Platform, WAIT_MAX};
use crate::route::One;
use crate::session::Session;
use crate::time::Timestamp;
use crate::upstream::ANSWER_WITHIN;

/// A call that has run this long can be cancelled by the client.
pub const CANCELLABLE_AFTER: Duration = Duration::from_secs(1);
/// Most rounds of questions one call of a modern upstream may take.
pub const ROUNDS_MAX: usize = 8;
/// Most questions of one call that may be open at a time.
pub const OPEN_MAX: usize = 16;
/// How long a call runs on whose client is gone: no longer than hosts let work run on.
pub const UNHEARD_MAX: Duration = Duration::from_secs(25);
/// Pause before a round without questions: the upstream only wants to be asked again.
const PACE: Duration = Duration::from_millis(250);

/// One call of a legacy client, with what is needed to make it again.
pub(crate) struct Conversation<P> {
    pub(crate) context: Context<P>,
    pub(crate) principal: PrincipalId,
    pub(crate) session: Rc<Session>,
    pub(crate) id: RequestId,
    pub(crate) one: One,
    pub(crate) ask: Ask,
}

/// Makes the call.
pub(crate) async fn converse<P: Platform>(conversation: Conversation<P>) -> Result<Reply, Error> {
    reply(events(conversation).boxed_local()).await
}

/// A reply that comes without anything said before it is whole.
async fn reply(mut events: LocalBoxStream<'static, Event>) -> Result<Reply, Error> {
    match events.next().await {
        Some(Event::End(end)) => end.map(Reply::Result),
        Some(first) => Ok(Reply::Stream(
            stream::iter([first]).chain(events).boxed_local(),
        )),
        // Cancelled before anything was said: the client expects nothing more.
        None => Ok(Reply::Stream(stream::empty().boxed_local())),
    }
}

/// Brings the client of the call with this id what is asked in `events`, and its answers to
/// whoever asks, for as long as they come. A client that cancels the call leaves, no more, and
/// what it cannot be asked now is dropped unanswered: whoever asks still may elsewhere.
pub(crate) async fn relay<P: Platform>(
    context: &Context<P>,
    (session, id): (Rc<Session>, &RequestId),
    mut events: LocalBoxStream<'static, Event>,
    answer_within: Duration,
) -> Result<Reply, Error> {
    let mut desk = Desk::of(context, session, id, answer_within);
    let relayed = stream! {
        loop {
            match desk.next(&mut events).await {
                Step::Event(Event::Question(question)) => match desk.ask(question).await {
                    Ok(request) => yield Event::Request(request),
                    Err(unasked) => drop(unasked),
                },
                Step::Event(event @ Event::End(_)) => {
                    yield event;
                    return;
                }
                Step::Event(event) => yield event,
                Step::Answered => {}
                Step::Cancelled => return,
            }
        }
    };
    reply(relayed.boxed_local()).await
}

fn events<P: Platform>(conversation: Conversation<P>) -> impl Stream<Item = Event> {
    stream! {
        let session = Rc::clone(&conversation.session);
        let mut desk = Desk::of(&conversation.context, session, &conversation.id, ANSWER_WITHIN);
        let mut params = conversation.one.params.clone();
        for round in 0..ROUNDS_MAX {
            let mut running = Running::of(&conversation, params);
            let required = loop {
                match desk.next(&mut running.events).await {
                    Step::Event(Event::Question(question)) => {
                        match desk.ask(question).await {
                            Ok(request) => yield Event::Request(request),
                            Err(question) => question.refuse().await,
                        }
                    }
                    Step::Event(Event::End(Ok(result))) if is_input_required(&result) => {
                        running.over = true;
                        break result;
                    }
                    Step::Event(Event::End(end)) => {
                        running.over = true;
                        yield Event::End(end.map_err(|error| conversation.failed(round, error)));
                        return;
                    }
                    Step::Event(event) => yield event,
                    Step::Answered => {}
                    Step::Cancelled => {
                        running.over = true;
                        return;
                    }
                }
            };
            drop(running);
            let round = match InputRequired::parse(&required) {
                Ok(round) if round.input_requests.iter().count() <= OPEN_MAX => round,
                Ok(_) => {
                    let reason = format!("it asks more than {OPEN_MAX} things at once");
                    yield Event::End(conversation.invalid(reason));
                    return;
                }
                Err(e) => {
                    yield Event::End(conversation.invalid(e.to_string()));
                    return;
                }
            };
            let answers = Answers::default();
            for (key, request) in round.input_requests.iter() {
                let request = Object::from_raw(request).unwrap_or_default();
                match desk.ask(answers.question(key, &request)).await {
                    Ok(request) => yield Event::Request(request),
                    Err(question) => question.refuse().await,
                }
            }
            if round.input_requests.is_empty() {
                conversation.context.platform.clock().sleep(PACE).await;
            }
            // Without one of the answers the others are of no use.
            while !desk.open.is_empty() && !answers.lack() {
                if let Step::Cancelled = desk.next(&mut stream::pending().boxed_local()).await {
                    return;
                }
            }
            if let Some(error) = answers.refused() {
                yield Event::End(conversation.unanswered(&error));
                return;
            }
            params = conversation.one.params.clone();
            if !round.input_requests.is_empty() {
                params.insert("inputResponses", &answers.take());
            }
            if let Some(state) = &round.request_state {
                params.insert("requestState", state);
            }
        }
        let reason = format!("it asks for input more than {ROUNDS_MAX} times");
        yield Event::End(conversation.invalid(reason));
    }
}

/// A call under way. To these clients a closed connection does not mean that the call is
/// cancelled: dropped before it is over, it runs on for a while, unheard.
struct Running<P: Platform> {
    context: Context<P>,
    events: LocalBoxStream<'static, Event>,
    over: bool,
}

impl<P: Platform> Running<P> {
    fn of(conversation: &Conversation<P>, params: Object) -> Self {
        Self {
            context: conversation.context.clone(),
            events: conversation.say(params),
            over: false,
        }
    }
}

impl<P: Platform> Drop for Running<P> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut events = std::mem::replace(&mut self.events, stream::empty().boxed_local());
        let context = self.context.clone();
        self.context.platform.defer(async move {
            let rest = async {
                while let Some(event) = events.next().await {
                    match event {
                        Event::Question(question) => question.refuse().await,
                        Event::End(_) => return,
                        Event::Notification(_) | Event::Request(_) => {}
                    }
                }
            };
            context.until(context.now() + UNHEARD_MAX, rest).await;
        });
    }
}

impl<P: Platform> Conversation<P> {
    /// Makes the call with these params; everything that comes of it, as it comes.
    fn say(&self, params: Object) -> LocalBoxStream<'static, Event> {
        let (context, principal) = (self.context.clone(), self.principal.clone());
        let mut one = Box::new(self.one.clone());
        one.params = params;
        let ask = self.ask.clone();
        let reply = async move {
            match ask_upstream(&context, &principal, one, ask).await {
                Ok(Reply::Stream(events)) => events,
                Ok(Reply::Result(result)) => stream::iter([Event::End(Ok(result))]).boxed_local(),
                Err(error) => stream::iter([Event::End(Err(error))]).boxed_local(),
            }
        };
        reply.flatten_stream().boxed_local()
    }

    /// How the call failed in this round: that its upstream did nothing in a later one does
    /// not say that it did nothing before.
    fn failed(&self, round: usize, error: Error) -> Error {
        if round == 0 || !error.is_not_done() {
            return error;
        }
        let upstream = self.one.upstream.name.clone();
        Rejection::UpstreamLost { upstream }.into()
    }

    fn invalid(&self, reason: String) -> Result<Object, Error> {
        let upstream = self.one.upstream.name.clone();
        Err(Rejection::UpstreamInvalid {
            upstream,
            reason,
            asked: true,
        }
        .into())
    }

    /// How a call ends whose question the client would not answer.
    fn unanswered(&self, error: &RpcError) -> Result<Object, Error> {
        if self.one.method == Method::ToolsCall {
            return Ok(unanswered(error));
        }
        Err(Rejection::protocol(RpcError::new(INTERNAL_ERROR, reason(error))).into())
    }
}

/// How a tool's call ends whose question the client would not answer.
pub(crate) fn unanswered(error: &RpcError) -> Object {
    let content = json!([{ "type": "text", "text": reason(error) }]);
    let result = Object::default().with("resultType", "complete");
    result.with("content", &content).with("isError", &true)
}

fn reason(error: &RpcError) -> String {
    let reason = &error.message;
    format!("The client did not answer what the tool asked: {reason}")
}

/// What the client answered to the questions of one round, by their keys.
#[derive(Clone, Default)]
struct Answers(Rc<std::cell::RefCell<Round>>);

#[derive(Default)]
struct Round {
    given: Object,
    refused: Option<RpcError>,
}

impl Answers {
    fn question(&self, key: &str, request: &Object) -> Question {
        let (answers, key) = (Rc::clone(&self.0), key.to_owned());
        let params = request.get_object("params").and_then(Result::ok);
        Question {
            method: request.get_str("method").unwrap_or_default().into_owned(),
            params: params.unwrap_or_default(),
            reply: Box::new(move |answered| {
                let mut round = answers.borrow_mut();
                match answered {
                    Ok(answer) => round.given.insert(&key, &answer),
                    Err(error) => drop(round.refused.get_or_insert(error)),
                }
                future::ready(()).boxed_local()
            }),
        }
    }

    fn lack(&self) -> bool {
        self.0.borrow().refused.is_some()
    }

    fn refused(&self) -> Option<RpcError> {
        self.0.borrow_mut().refused.take()
    }

    fn take(&self) -> Object {
        std::mem::take(&mut self.0.borrow_mut().given)
    }
}

enum Step {
    /// The upstream said something.
    Event(Event),
    /// The client answered something, or was too late to.
    Answered,
    /// The client wants the call no more.
    Cancelled,
}

/// Where a call's questions lie until they are answered.
struct Desk<P: Platform> {
    context: Context<P>,
    session: Rc<Session>,
    address: Address,
    /// How long the client may take to answer.
    answer_within: Duration,
    watched_from: Timestamp,
    mail: Option<Taking<P>>,
    arrived: Vec<Letter>,
    /// The last question's number. The first is random: an answer meant for an earlier call
    /// of the same id must not be taken for one to this.
    asked: u64,
    open: BTreeMap<u64, (Question, Timestamp)>,
}

impl<P: Platform> Desk<P> {
    fn of(
        context: &Context<P>,
        session: Rc<Session>,
        id: &RequestId,
        answer_within: Duration,
    ) -> Self {
        Self {
            context: context.clone(),
            address: Address::of(&session, id),
            session,
            answer_within,
            watched_from: context.now() + CANCELLABLE_AFTER,
            mail: None,
            arrived: Vec::new(),
            asked: u64::from(u32::from_be_bytes(context.random())),
            open: BTreeMap::new(),
        }
    }

    /// Takes a question in and gives the request that brings it to the client, or gives it
    /// back if it cannot be asked.
    async fn ask(&mut self, question: Question) -> Result<Request, Question> {
        let id = self.address.question(self.asked + 1);
        // A URL elicitation of a modern upstream has no id of its own.
        let elicitation = match &id {
            RequestId::String(id) => id.clone(),
            RequestId::Integer(id) => id.to_string(),
        };
        let (method, params) = (question.method.clone(), question.params.clone());
        let Some(params) = era::lower_question(&method, params, self.session.version, &elicitation)
        else {
            return Err(question);
        };
        if self.open.len() >= OPEN_MAX || !self.watch().await {
            return Err(question);
        }
        self.asked += 1;
        let request = Request { id, method, params };
        let asked_at = self.context.now();
        self.open.insert(self.asked, (question, asked_at));
        Ok(request)
    }

    /// Opens the mailbox, if it is not. Without one nobody can be asked.
    async fn watch(&mut self) -> bool {
        if self.mail.is_none() {
            match Mailbox::open(&self.context, &self.session, &self.address).await {
                Ok(mailbox) => self.mail = Some(mailbox.taking(self.left())),
                Err(error) => {
                    let fields = json!({ "reason": error.to_string() });
                    self.context
                        .log(LogLevel::Warn, "mailbox_unavailable", fields);
                }
            }
        }
        self.mail.is_some()
    }

    /// The next thing that happens, from either side.
    async fn next(&mut self, events: &mut LocalBoxStream<'static, Event>) -> Step {
        loop {
            if let Some(letter) = self.arrived.pop() {
                if let Some(step) = self.read(letter).await {
                    return step;
                }
                continue;
            }
            let Some(mut mail) = self.mail.take() else {
                let left = self.watched_from.since(self.context.now());
                let sleep = Box::pin(self.context.platform.clock().sleep(left));
                match future::select(events.next(), sleep).await {
                    Either::Left((Some(event), _)) => return Step::Event(event),
                    Either::Left((None, _)) => return Step::Event(ended()),
                    Either::Right(((), _)) => {
                        if !self.watch().await {
                            self.watched_from = self.context.now() + self.answer_within;
                        }
                        continue;
                    }
                }
            };
            match future::select(events.next(), &mut mail).await {
                Either::Left((event, _)) => {
                    self.mail = Some(mail);
                    return Step::Event(event.unwrap_or_else(ended));
                }
                Either::Right(((mailbox, letters), _)) => {
                    self.received(mailbox, letters);
                    if self.give_up().await {
                        return Step::Answered;
                    }
                }
            }
        }
    }

    fn received(&mut self, mailbox: Mailbox<P>, letters: Result<Vec<Letter>, Error>) {
        match letters {
            Ok(letters) => self.arrived.extend(letters.into_iter().rev()),
            Err(error) => {
                let fields = json!({ "reason": error.to_string() });
                self.context
                    .log(LogLevel::Warn, "mailbox_unavailable", fields);
            }
        }
        self.mail = Some(mailbox.taking(self.left()));
    }

    /// How long mail may be waited for: the oldest question has its time and no more.
    fn left(&self) -> Duration {
        let asked = self.open.values().map(|(_, asked_at)| *asked_at);
        let until = asked.min().map(|first| first + self.answer_within);
        until.map_or(WAIT_MAX, |until| until.since(self.context.now()))
    }

    async fn read(&mut self, letter: Letter) -> Option<Step> {
        let (number, answered): (u64, Answered) = match letter {
            Letter::Cancelled => return Some(Step::Cancelled),
            Letter::Answer(number, answer) => (number, Ok(answer)),
            Letter::Refusal(number, failure) => (number, Err(failure.into())),
            // For streams, not for calls.
            Letter::Call { .. } => return None,
        };
        // An answer to what was never asked, or a second one, is none.
        let (question, _) = self.open.remove(&number)?;
        (question.reply)(answered).await;
        Some(Step::Answered)
    }

    /// Answers for a client that has let the time pass.
    async fn give_up(&mut self) -> bool {
        let now = self.context.now();
        let late: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, (_, asked_at))| now.since(*asked_at) >= self.answer_within)
            .map(|(number, _)| *number)
            .collect();
        for number in &late {
            if let Some((question, _)) = self.open.remove(number) {
                let error = RpcError::new(INTERNAL_ERROR, "Nobody answered in time.");
                (question.reply)(Err(error)).await;
            }
        }
        !late.is_empty()
    }
}

fn ended() -> Event {
    let reason = "a reply ended without its end".to_owned();
    Event::End(Err(crate::error::Fault::Internal(reason).into()))
}
