//! One run of a task, from the call to its outcome.
//!
//! While the upstream works, the run renews its lease, turns progress into the task's
//! status message, and looks out for what others write: a cancellation drops the call, which
//! tells the upstream; an answer goes to the upstream that asked. A legacy upstream that
//! asks is kept waiting on its stream, for as long as one waits for a client; what a modern
//! one asks ends the run, and the client's answer begins the next (multi round-trip
//! requests), so nothing is held for it meanwhile.

mod settle;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, Either, FutureExt, LocalBoxFuture};
use futures_util::stream::{LocalBoxStream, StreamExt};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::Notification;
use tidegate_mcp::task::Task;

use super::ASKED_MAX;
use super::call::call;
use super::follow::{self, Follower};
use super::record::Record;
use super::run::{self, LEASE, STORE_PAUSE};
use super::store::{self, Known};
use crate::context::Context;
use crate::egress::{Event, Question};
use crate::error::{Error, Fault};
use crate::platform::{AtomicStore, Clock, Platform, Unavailable, Version, WAIT_MAX};
use crate::queue::Consumed;
use crate::time::Timestamp;
use crate::upstream::ANSWER_WITHIN;

/// How often a lease is renewed.
const RENEW: Duration = Duration::from_secs(20);
/// Least time between two writes of a run's progress.
pub const NOTE_EVERY: Duration = Duration::from_secs(2);
/// Longest status message, in bytes.
pub const NOTE_MAX: usize = 512;
/// How long a run goes on before it looks out for what others write; a quick call is over
/// by then.
const WATCH_AFTER: Duration = Duration::from_millis(500);
/// Pause before the record is looked at again that nobody has written: a store may answer a
/// wait at once where many wait.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest an upstream is waited for to take answers: longer than one of them may take, and
/// shorter than a lease lasts that is due to be renewed.
const REPLY_WITHIN: Duration = Duration::from_secs(35);
/// Most things a legacy upstream may wait for at once.
pub const OPEN_MAX: usize = 32;

/// The events of a call.
pub(super) type Events = LocalBoxStream<'static, Event>;

/// A run under way: whoever has this has the lease.
pub(super) struct Run<P: Platform> {
    context: Context<P>,
    id: String,
    run: String,
    /// The record as this run last read or wrote it.
    known: Known,
    /// The upstream's own task that is followed.
    following: Option<String>,
    /// What a legacy upstream waits for, by the key the client answers under.
    questions: BTreeMap<String, Open>,
    /// Progress that is not written yet.
    note: Option<String>,
    written_at: Timestamp,
    /// Until when the last write that was begun lets the run go on; no two say the same, so
    /// that one is told from the one before it.
    until: Timestamp,
}

/// What an upstream waits for.
struct Open {
    question: Question,
    /// When nobody is waited for any longer.
    until: Timestamp,
}

type Watching = LocalBoxFuture<'static, Result<Option<(Version, Bytes)>, Unavailable>>;

/// What a run has to attend to next.
enum Step {
    Event(Option<Event>),
    Changed(Result<Option<(Version, Bytes)>, Unavailable>),
    Due,
}

/// Whether a run goes on.
enum Going {
    On,
    /// The task is another's, or has ended.
    Over,
}

impl<P: Platform> Run<P> {
    pub(super) fn new(context: &Context<P>, id: &str, run: String, known: Known) -> Self {
        let lease = known.1.lease.as_ref();
        Self {
            context: context.clone(),
            id: id.to_owned(),
            run,
            following: known.1.upstream_task.clone(),
            until: Timestamp(lease.map_or(0, |lease| lease.until_ms)),
            known,
            questions: BTreeMap::new(),
            note: None,
            written_at: context.now(),
        }
    }

    /// Makes the call and sees it through.
    pub(super) async fn work(self) -> Consumed {
        let events = match &self.following {
            Some(id) => Follower::of(&self.context, &self.known.1)
                .map(|follower| follower.follow(id.clone(), Duration::ZERO)),
            None => call(&self.context, &self.known.1, None),
        };
        let events = match events {
            Ok(events) => events,
            Err(error) => return self.settle(Err(error)).await,
        };
        self.drive(events).await
    }

    /// Sees a call through that has been made.
    pub(super) async fn drive(mut self, mut events: Events) -> Consumed {
        let mut watching = self.watch(WATCH_AFTER);
        loop {
            match self.step(&mut events, &mut watching).await {
                Step::Event(Some(Event::End(Ok(result)))) if follow::is_task(&result) => {
                    match self.follow(&result).await {
                        Ok(Some(theirs)) => events = theirs,
                        Ok(None) => return Consumed::Done,
                        Err(error) => return self.settle(Err(error)).await,
                    }
                }
                Step::Event(Some(Event::End(end))) => {
                    drop((events, watching));
                    return self.settle(end).await;
                }
                Step::Event(Some(Event::Notification(notification))) => self.hear(&notification),
                Step::Event(Some(Event::Question(question))) => {
                    if let Going::Over = self.ask(question).await {
                        return Consumed::Done;
                    }
                }
                Step::Event(Some(Event::Request(_))) => {}
                Step::Event(None) => {
                    let lost = Fault::Internal("a reply without its end".to_owned());
                    return self.settle(Err(lost.into())).await;
                }
                Step::Changed(Ok(Some((version, bytes)))) => {
                    let pause = match version == self.known.0 {
                        true => LOOK_AGAIN,
                        false => Duration::ZERO,
                    };
                    if let Going::Over = self.look(version, &bytes).await {
                        return Consumed::Done;
                    }
                    watching = self.watch(pause);
                }
                // Expired.
                Step::Changed(Ok(None)) => return Consumed::Done,
                Step::Changed(Err(_)) => watching = self.watch(STORE_PAUSE),
                Step::Due => {
                    if let Going::Over = self.renew().await {
                        return Consumed::Done;
                    }
                }
            }
        }
    }

    /// Goes on with the task the upstream has made of the call; `None` if it is nobody's.
    async fn follow(&mut self, result: &Object) -> Result<Option<Events>, Error> {
        let follower = Follower::of(&self.context, &self.known.1)?;
        let (id, pause) = follower.made(result)?;
        self.following = Some(id.clone());
        Ok(match self.edit(|_, _| {}).await {
            Going::On => Some(follower.follow(id, pause)),
            Going::Over => {
                follower.let_go(id);
                None
            }
        })
    }

    async fn step(&self, events: &mut Events, watching: &mut Watching) -> Step {
        let due = match self.note {
            Some(_) => self.written_at + NOTE_EVERY,
            None => self.written_at + RENEW,
        };
        let late = self.questions.values().map(|open| open.until).min();
        let due = late.map_or(due, |late| late.min(due));
        let due = due.since(self.context.now());
        // An upstream that never pauses must not keep the lease from being renewed.
        if due.is_zero() {
            return Step::Due;
        }
        let due = pin!(self.context.platform.clock().sleep(due));
        match future::select(future::select(events.next(), watching), due).await {
            Either::Left((Either::Left((event, _)), _)) => Step::Event(event),
            Either::Left((Either::Right((changed, _)), _)) => Step::Changed(changed),
            Either::Right(((), _)) => Step::Due,
        }
    }

    /// The record once somebody has written it.
    fn watch(&self, after: Duration) -> Watching {
        let (context, id, seen) = (self.context.clone(), self.id.clone(), self.known.0);
        async move {
            if !after.is_zero() {
                context.platform.clock().sleep(after).await;
            }
            let (atomic, key) = (context.platform.atomic(), store::key(&id));
            atomic.wait(key.as_str(), Some(seen), WAIT_MAX).await
        }
        .boxed_local()
    }

    /// Looks at what somebody has written.
    async fn look(&mut self, version: Version, bytes: &[u8]) -> Going {
        // What cannot be read, of a later version, is no longer this run's to write.
        let Ok(record) = serde_json::from_slice::<Record>(bytes) else {
            return Going::Over;
        };
        if !record.is_run_by(&self.run) {
            return Going::Over;
        }
        self.known = (version, record);
        let mut replies = Vec::new();
        for (key, asked) in &self.known.1.questions {
            if let Some(answer) = &asked.answer
                && let Some(open) = self.questions.remove(key)
            {
                replies.push((open.question.reply)(answer.clone().into()));
            }
        }
        self.told(replies).await;
        Going::On
    }

    /// Tells upstreams what they wait for: what they do not take must not cost the lease.
    async fn told(&self, replies: Vec<LocalBoxFuture<'static, ()>>) {
        let until = self.context.now() + REPLY_WITHIN;
        self.context.until(until, future::join_all(replies)).await;
    }

    /// Tells an upstream that nobody has answered it in time: it is the client that is late,
    /// and nothing is wrong with the upstream.
    async fn give_up(&mut self) {
        let now = self.context.now();
        let late = self.questions.extract_if(.., |_, open| open.until <= now);
        let refusals = late.map(|(_, open)| open.question.refuse().boxed_local());
        let refusals = refusals.collect();
        self.told(refusals).await;
    }

    /// Changes the record, if it is still this run's.
    async fn edit(&mut self, mut change: impl FnMut(&mut Record, Timestamp)) -> Going {
        let now = self.context.now();
        let until = (now + LEASE).max(self.until + Duration::from_millis(1));
        self.until = until;
        let (run, open, following) = (&self.run, &self.questions, &self.following);
        let known = Some(self.known.clone());
        let edited = store::edit(&self.context, &self.id, known, |record| {
            // It has been written, if a write of unknown outcome was.
            let written = record
                .lease
                .as_ref()
                .is_some_and(|lease| lease.until_ms == until.0);
            if written || !record.is_run_by(run) {
                return false;
            }
            record.forget(|key| open.contains_key(key), now);
            record.upstream_task.clone_from(following);
            change(record, now);
            if let Some(lease) = &mut record.lease {
                lease.until_ms = until.0;
            }
            true
        })
        .await;
        self.written_at = self.context.now();
        match edited {
            Ok(Some(known)) if known.1.is_run_by(&self.run) => {
                self.known = known;
                Going::On
            }
            Ok(_) => Going::Over,
            // Tried again when the next write is due; in time the lease lapses.
            Err(_) => Going::On,
        }
    }

    async fn renew(&mut self) -> Going {
        self.give_up().await;
        let note = self.note.take();
        self.edit(|record, now| {
            if let Some(note) = &note {
                record.note(note.clone(), now);
            }
        })
        .await
    }

    /// Turns progress into words for whoever polls.
    fn hear(&mut self, notification: &Notification) {
        if notification.method == follow::STATUS {
            self.say(notification.params.get_str("statusMessage").as_deref());
        }
        if notification.method != "notifications/progress" {
            return;
        }
        let params = &notification.params;
        let number = |name| params.get(name).map(|value| value.get().to_owned());
        let share = match (number("progress"), number("total")) {
            (Some(progress), Some(total)) => format!("{progress}/{total}"),
            (Some(progress), None) => progress,
            (None, _) => return,
        };
        let note = match params.get_str("message") {
            Some(message) => format!("{message} ({share})"),
            None => share,
        };
        self.say(Some(&note));
    }

    fn say(&mut self, note: Option<&str>) {
        if let Some(note) = note.filter(|note| !note.is_empty()) {
            self.note = Some(note[..note.floor_char_boundary(NOTE_MAX)].to_owned());
        }
    }

    /// Asks the client what a legacy upstream asks, which waits for it.
    async fn ask(&mut self, question: Question) -> Going {
        let asked = self.known.1.asked_len() + question.params.text_len();
        if asked > ASKED_MAX || self.questions.len() >= OPEN_MAX {
            question.refuse().await;
            return Going::On;
        }
        let request = Object::new().with("method", &question.method).with(
            "params",
            &tidegate_mcp::era::lift_question(question.params.clone()),
        );
        let mut key = String::new();
        let going = self
            .edit(|record, now| key = record.ask(request.clone(), None, now))
            .await;
        match going {
            Going::On if self.known.1.questions.contains_key(&key) => {
                let until = self.context.now() + ANSWER_WITHIN;
                self.questions.insert(key, Open { question, until });
            }
            Going::On | Going::Over => question.refuse().await,
        }
        going
    }
}

impl<P: Platform> Run<P> {
    /// [`Self::drive`] for a run nobody has a message of.
    pub(super) async fn drive_alone(self, events: Events) {
        let (context, id) = (self.context.clone(), self.id.clone());
        let consumed = self.drive(events).await;
        run::settle(&context, &id, consumed).await;
    }

    /// The task as clients see it.
    pub(super) fn shown(&self) -> Task {
        self.known.1.shown()
    }

    /// [`Self::ask`] before the first step.
    pub(super) async fn asking(mut self, question: Question) -> Self {
        let _ = self.ask(question).await;
        self
    }
}
