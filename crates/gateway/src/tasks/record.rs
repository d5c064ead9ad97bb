//! A task as stored, and everything that can become of it. Nothing here asks a store: these
//! are the changes a writer makes to what it has read, before it swaps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::RpcError;
use tidegate_mcp::task::{Task, TaskDetail, TaskStatus};

use crate::auth::PrincipalId;
use crate::egress::Answered;
use crate::idempotency::IDEMPOTENCY_META;
use crate::keyspace::{Family, Store};
use crate::quotas::Charge;
use crate::time::Timestamp;

/// A task as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Shape of this record.
    pub v: u32,
    /// The handle clients know it by.
    pub handle: String,
    /// Principal that created it.
    pub owner: PrincipalId,
    /// That principal's tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// That principal's subject, hashed as revocations are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// By what that principal can be revoked, its token apart, hashed as revocations are.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub revocable: BTreeSet<String>,
    /// Configured name of the upstream.
    pub upstream: String,
    /// Which version of it runs the tool, if not the upstream itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The tool's own name at the upstream.
    pub tool: String,
    /// Whether names and URIs are shown with their upstream's prefix.
    pub prefixed: bool,
    /// Params of the call in the upstream's names.
    pub params: Object,
    /// What the client can be asked, as it declared it.
    #[serde(default, skip_serializing_if = "Object::is_empty")]
    pub capabilities: Object,
    /// What else of the call's `_meta` goes to the upstream, trace context included.
    #[serde(default, skip_serializing_if = "Object::is_empty")]
    pub meta: Object,
    /// `Mcp-Param-*` headers of the call, for a modern upstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub param_headers: Vec<(String, String)>,
    /// How long one run may take, in milliseconds.
    pub timeout_ms: u64,
    /// Whether running the tool twice does no harm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
    /// Where it stands.
    #[serde(with = "status_text")]
    pub status: TaskStatus,
    /// What a person reads about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
    /// When it was created, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// When it last changed, milliseconds since the epoch.
    pub updated_at_ms: u64,
    /// How long it can be read after it was created, in milliseconds.
    pub ttl_ms: u64,
    /// How often clients are asked to poll, in milliseconds.
    pub poll_interval_ms: u64,
    /// How many runs have begun since its client last answered.
    #[serde(default)]
    pub attempts: u32,
    /// How often its client was asked by a modern upstream.
    #[serde(default)]
    pub rounds: u32,
    /// Who runs it now, and until when nobody else may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Before when it is not to be run again, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<u64>,
    /// How many things its client was asked so far; keys are made of it and so never reused.
    #[serde(default)]
    pub asked: u32,
    /// What its client is asked, by key, and what it answered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub questions: BTreeMap<String, Asked>,
    /// Sealed state of a call that goes on once all is answered (multi round-trip requests).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The upstream's own task that this one follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_task: Option<String>,
    /// The quotas its result is counted in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// How it ended: a tool's result, or a JSON-RPC error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// The right to run a task, for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Random name of the run.
    pub run: String,
    /// When it lapses, milliseconds since the epoch.
    pub until_ms: u64,
}

/// One thing the client is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// The request: `method` and `params`.
    pub request: Object,
    /// The key the upstream gave it, where it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the client answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// What a client says to a question: the bare result, or why it gives none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The result.
    Result(Object),
    /// A refusal.
    Refusal(Failure),
}

impl From<Answered> for Answer {
    fn from(answered: Answered) -> Self {
        match answered {
            Ok(result) => Self::Result(result),
            Err(error) => Self::Refusal(error.into()),
        }
    }
}

impl From<Answer> for Answered {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Result(result) => Ok(result),
            Answer::Refusal(failure) => Err(failure.into()),
        }
    }
}

/// How a task ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The tool answered, well or with `isError`.
    Result(Object),
    /// The tool answered at such length that its result is kept beside the record.
    #[serde(rename_all = "camelCase")]
    Parts {
        /// Which run stored them.
        run: String,
        /// In how many records.
        count: u32,
        /// Whether it is a tool's error.
        is_error: bool,
    },
    /// The call itself failed.
    Error(Failure),
}

impl Outcome {
    /// Whether the tool answered with `isError`.
    pub fn is_tool_error(&self) -> bool {
        match self {
            Self::Result(result) => is_tool_error(result),
            Self::Parts { is_error, .. } => *is_error,
            Self::Error(_) => false,
        }
    }
}

/// Whether a tool's result says `isError`.
pub fn is_tool_error(result: &Object) -> bool {
    result
        .get("isError")
        .is_some_and(|flag| flag.get() == "true")
}

/// A JSON-RPC error as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Its code.
    pub code: i64,
    /// Its message.
    pub message: String,
    /// Its data, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

/// Largest message of an error that is kept, and largest data, in bytes: a record has to fit
/// the store, and text may grow sixfold where it is quoted.
pub const FAILURE_MAX: usize = 64 * 1024;

impl From<RpcError> for Failure {
    /// What is too long is cut, data as a whole, and the message says so.
    fn from(error: RpcError) -> Self {
        let RpcError {
            code,
            mut message,
            data,
        } = error;
        if message.len() > FAILURE_MAX {
            message.truncate(message.floor_char_boundary(FAILURE_MAX));
            message.push_str(" … (cut)");
        }
        let data = match data {
            Some(data) if data.get().len() > FAILURE_MAX => {
                let length = data.get().len();
                message.push_str(&format!(" (its data of {length} bytes was not kept)"));
                None
            }
            data => data,
        };
        Self {
            code,
            message,
            data,
        }
    }
}

impl Failure {
    fn text_len(&self) -> usize {
        self.message.len() + self.data.as_ref().map_or(0, |data| data.get().len())
    }
}

impl From<Failure> for RpcError {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code,
            message: failure.message,
            data: failure.data,
        }
    }
}

mod status_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use tidegate_mcp::task::TaskStatus;

    pub(super) fn serialize<S: Serializer>(status: &TaskStatus, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(status.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TaskStatus, D::Error> {
        let text = String::deserialize(from)?;
        TaskStatus::parse(&text).ok_or_else(|| de::Error::custom("unknown task status"))
    }
}

/// The family of [`Record`], by the random id inside the handle.
pub struct TaskFamily;

impl Family for TaskFamily {
    type Record = Record;
    const NAME: &'static str = "task";
    const STORE: Store = Store::Atomic;
    const LIFETIME: Option<Duration> = None;
}

/// What is to be done about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing more.
    Ended,
    /// Somebody runs it, and nobody else may before this.
    Running(Timestamp),
    /// It waits for its client's answers, and nothing is held for it meanwhile.
    Asking,
    /// It is to be run.
    Ready,
    /// It is to be run again, and not before this.
    PutOff(Timestamp),
    /// Whoever ran it is gone, and what became of the call is unknown.
    Lost,
}

impl Record {
    /// What is to be done about it.
    pub fn standing(&self, now: Timestamp) -> Standing {
        match (&self.lease, self.status) {
            (_, TaskStatus::Completed | TaskStatus::Failed | TaskStatus::Cancelled) => {
                Standing::Ended
            }
            (Some(lease), TaskStatus::Working | TaskStatus::InputRequired) => {
                match Timestamp(lease.until_ms) {
                    until if until > now => Standing::Running(until),
                    _ => Standing::Lost,
                }
            }
            (None, TaskStatus::InputRequired) => Standing::Asking,
            (None, TaskStatus::Working) => match self.not_before_ms.map(Timestamp) {
                Some(due) if due > now => Standing::PutOff(due),
                Some(_) | None => Standing::Ready,
            },
        }
    }

    /// The same call anew: a task as it is before its first run. To its upstream it is another.
    pub fn anew(&self, handle: String, now: Timestamp, ttl_ms: u64) -> Self {
        let mut meta = self.meta.clone();
        meta.remove(IDEMPOTENCY_META);
        Self {
            handle,
            meta,
            status: TaskStatus::Working,
            status_message: None,
            created_at_ms: now.0,
            updated_at_ms: now.0,
            ttl_ms,
            attempts: 0,
            rounds: 0,
            lease: None,
            not_before_ms: None,
            asked: 0,
            questions: BTreeMap::new(),
            state: None,
            upstream_task: None,
            charges: Vec::new(),
            outcome: None,
            ..self.clone()
        }
    }

    /// By what its owner can be revoked. What was made before that was kept says the subject.
    pub fn revocable(&self) -> BTreeSet<String> {
        let subject = Some(self.subject.clone()).filter(|subject| !subject.is_empty());
        self.revocable.iter().cloned().chain(subject).collect()
    }

    /// When it can be read no longer.
    pub fn expiry(&self) -> Timestamp {
        Timestamp(self.created_at_ms) + Duration::from_millis(self.ttl_ms)
    }

    /// Whether this run may still write.
    pub fn is_run_by(&self, run: &str) -> bool {
        !self.status.is_terminal() && self.lease.as_ref().is_some_and(|lease| lease.run == run)
    }

    /// Begins a run. What a legacy upstream asked in an earlier one nobody waits for now.
    pub fn begin(&mut self, lease: Lease, now: Timestamp) {
        self.attempts += 1;
        self.lease = Some(lease);
        self.not_before_ms = None;
        self.forget(|_| false, now);
    }

    /// Forgets what a legacy upstream asked, but for what it still waits for (`open`). What
    /// a modern one asked is needed to begin its next round.
    pub fn forget(&mut self, open: impl Fn(&str) -> bool, now: Timestamp) {
        self.questions
            .retain(|key, asked| asked.key.is_some() || open(key));
        self.resume(now);
    }

    /// Works on once nothing is open.
    fn resume(&mut self, now: Timestamp) {
        let open = self.questions.values().any(|asked| asked.answer.is_none());
        if self.status == TaskStatus::InputRequired && !open {
            self.status = TaskStatus::Working;
            self.updated_at_ms = now.0;
        }
    }

    /// About how many bytes questions, answers and state take.
    pub fn asked_len(&self) -> usize {
        let answer = |answer: &Answer| match answer {
            Answer::Result(result) => result.text_len(),
            Answer::Refusal(failure) => failure.text_len(),
        };
        let asked = self.questions.values();
        let asked =
            asked.map(|asked| asked.request.text_len() + asked.answer.as_ref().map_or(0, answer));
        asked.sum::<usize>() + self.state.as_ref().map_or(0, String::len)
    }

    /// Ends a run with what a modern upstream asks; the answers begin the next.
    pub fn suspend(
        &mut self,
        requests: Vec<(String, Object)>,
        state: Option<String>,
        now: Timestamp,
    ) {
        self.release(now);
        self.attempts = 0;
        self.rounds += 1;
        self.state = state;
        self.questions.clear();
        for (key, request) in requests {
            self.ask(request, Some(key), now);
        }
    }

    /// Gives the run back: it is to be run again after this long.
    pub fn put_off(&mut self, after: Duration, now: Timestamp) {
        self.release(now);
        self.not_before_ms = Some((now + after).0);
    }

    /// Gives the run back: it is to be run again.
    fn release(&mut self, now: Timestamp) {
        self.lease = None;
        self.updated_at_ms = now.0;
        self.forget(|_| false, now);
    }

    /// Says how it is going.
    pub fn note(&mut self, message: String, now: Timestamp) {
        if self.status_message.as_ref() != Some(&message) {
            self.status_message = Some(message);
            self.updated_at_ms = now.0;
        }
    }

    /// Asks the client; gives the key it answers under.
    pub fn ask(&mut self, request: Object, key: Option<String>, now: Timestamp) -> String {
        self.asked += 1;
        let method = request.get_str("method").unwrap_or_default();
        let kind = method.split('/').next().unwrap_or_default();
        let ours = format!("{kind}-{}", self.asked);
        let asked = Asked {
            request,
            key,
            answer: None,
        };
        self.questions.insert(ours.clone(), asked);
        self.status = TaskStatus::InputRequired;
        self.updated_at_ms = now.0;
        ours
    }

    /// Takes in answers; those to questions that are not open are ignored. Gives whether
    /// any was.
    pub fn answer(&mut self, answers: BTreeMap<String, Answer>, now: Timestamp) -> bool {
        let mut any = false;
        for (key, answer) in answers {
            if let Some(asked) = self.questions.get_mut(&key)
                && asked.answer.is_none()
                && self.status == TaskStatus::InputRequired
            {
                asked.answer = Some(answer);
                any = true;
            }
        }
        if any {
            self.updated_at_ms = now.0;
            self.resume(now);
        }
        any
    }

    /// Ends it, unless it has ended. Gives whether it had not.
    pub fn end(&mut self, outcome: Outcome, now: Timestamp) -> bool {
        let status = match outcome {
            Outcome::Result(_) | Outcome::Parts { .. } => TaskStatus::Completed,
            Outcome::Error(_) => TaskStatus::Failed,
        };
        let ends = self.close(status, now);
        if ends {
            self.outcome = Some(outcome);
        }
        ends
    }

    /// Whether it ended at this time, with an outcome: as [`Self::end`] had it end that was asked
    /// to then, and not as another did meanwhile.
    pub fn ended_at(&self, at: Timestamp) -> bool {
        self.outcome.is_some() && self.updated_at_ms == at.0
    }

    /// Cancels it, unless it has ended. Gives whether it had not.
    pub fn cancel(&mut self, message: &str, now: Timestamp) -> bool {
        let cancels = self.close(TaskStatus::Cancelled, now);
        if cancels {
            self.status_message = Some(message.to_owned());
        }
        cancels
    }

    fn close(&mut self, status: TaskStatus, now: Timestamp) -> bool {
        if self.status.is_terminal() {
            return false;
        }
        self.status = status;
        self.updated_at_ms = now.0;
        self.lease = None;
        self.not_before_ms = None;
        self.state = None;
        self.questions.clear();
        true
    }

    /// The task as clients see it.
    pub fn shown(&self) -> Task {
        Task {
            task_id: self.handle.clone(),
            status: self.status,
            status_message: self.status_message.clone(),
            created_at_ms: self.created_at_ms,
            last_updated_at_ms: self.updated_at_ms,
            ttl_ms: Some(self.ttl_ms),
            poll_interval_ms: Some(self.poll_interval_ms),
        }
    }

    /// What its status carries, but for a result that is kept beside the record.
    pub fn detail(&self) -> TaskDetail {
        match (&self.outcome, self.status) {
            (Some(Outcome::Result(result)), _) => TaskDetail::Result(result.clone()),
            (Some(Outcome::Error(failure)), _) => TaskDetail::Error(failure.clone().into()),
            (None, TaskStatus::InputRequired) => TaskDetail::InputRequests(self.open_questions()),
            (Some(Outcome::Parts { .. }) | None, _) => TaskDetail::None,
        }
    }

    /// What its client is asked and has not answered, by key.
    pub fn open_questions(&self) -> Object {
        let mut open = Object::new();
        for (key, asked) in &self.questions {
            if asked.answer.is_none() {
                open.insert(key, &asked.request);
            }
        }
        open
    }
}
