//! What must hold of one task, whatever happens: fed with everything that is seen of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

/// What has been seen of one task.
#[derive(Default)]
pub struct Model {
    idempotent: bool,
    /// Whether its client was told that there is none.
    denied: bool,
    /// How often the tool ran, by the round it ran in.
    executed: BTreeMap<String, usize>,
    /// The record as it was last seen.
    stored: Option<Bytes>,
    ended: Option<Value>,
    /// When it was made.
    pub created_ms: Option<u64>,
    /// Keys that are open, and those that once were.
    open: BTreeSet<String>,
    closed: BTreeSet<String>,
    /// What a client answered under which key, first.
    given: BTreeMap<String, BTreeSet<String>>,
    /// What each of the upstream's questions was answered.
    answered: BTreeMap<String, usize>,
}

impl Model {
    pub fn new(idempotent: bool) -> Self {
        Self {
            idempotent,
            ..Self::default()
        }
    }

    pub const fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// Its client is told that there is none.
    pub fn deny(&mut self) {
        assert_eq!(self.executions(), 0, "run, and its client is told nothing");
        self.denied = true;
    }

    /// The tool was run in this round; gives the number of the run.
    pub fn execute(&mut self, round: &str) -> usize {
        assert!(!self.denied, "run though its client was told it failed");
        *self.executed.entry(round.to_owned()).or_default() += 1;
        let times = self.executed[round];
        assert!(
            self.idempotent || times == 1,
            "the tool was run {times} times in round {round:?}"
        );
        self.executed.values().sum()
    }

    /// How often the tool ran.
    pub fn executions(&self) -> usize {
        self.executed.values().sum()
    }

    /// Whether something is still to be done about it, and not by its client.
    pub fn is_open(&self) -> bool {
        self.stored.is_some() && self.ended.is_none() && self.open.is_empty()
    }

    /// What is stored now.
    pub fn look(&mut self, stored: Option<Bytes>) {
        if stored == self.stored {
            return;
        }
        self.stored.clone_from(&stored);
        let Some(stored) = stored else { return };
        let record: Value = serde_json::from_slice(&stored).unwrap();
        let status = record["status"].as_str().unwrap();
        self.created_ms = record["createdAtMs"].as_u64();
        if let Some(ended) = &self.ended {
            assert_eq!(*ended, record, "a task that had ended was changed");
        }
        let terminal = matches!(status, "completed" | "failed" | "cancelled");
        assert!(
            terminal || matches!(status, "working" | "input_required"),
            "{status}"
        );
        if terminal {
            assert_eq!(record.get("outcome").is_some(), status != "cancelled");
            assert!(record.get("lease").is_none() && record.get("questions").is_none());
            self.check_result(&record["outcome"]);
            self.ended = Some(record.clone());
        }
        self.look_at_questions(&record["questions"], status);
    }

    /// A result is one the tool gave.
    fn check_result(&self, outcome: &Value) {
        if let Some(text) = outcome["result"]["content"][0]["text"].as_str() {
            let number: usize = text.strip_prefix("run ").unwrap().parse().unwrap();
            assert!((1..=self.executions()).contains(&number), "{text}");
        }
    }

    fn look_at_questions(&mut self, questions: &Value, status: &str) {
        let none = serde_json::Map::new();
        let questions = questions.as_object().unwrap_or(&none).iter();
        let open: BTreeSet<String> = questions
            .filter(|(_, asked)| asked.get("answer").is_none())
            .map(|(key, _)| key.clone())
            .collect();
        assert_eq!(
            status == "input_required",
            !open.is_empty(),
            "something is open"
        );
        let again: Vec<_> = open.intersection(&self.closed).collect();
        assert!(again.is_empty(), "used again: {again:?}");
        self.closed.extend(self.open.difference(&open).cloned());
        self.open = open;
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// What its client is asked now.
    pub fn open(&self) -> Vec<String> {
        self.open.iter().cloned().collect()
    }

    /// A poll was answered with this task; the poll began after it had ended, or not.
    pub fn polled(&self, task: &Value, after: bool) {
        let terminal = ["completed", "failed", "cancelled"].map(Value::from);
        let sees = terminal.contains(&task["status"]);
        assert!(sees || !after, "a poll does not see the end: {task}");
        let Some(ended) = self.ended.as_ref().filter(|_| sees) else {
            assert!(!sees, "a poll sees another end: {task}");
            return;
        };
        assert_eq!(task["status"], ended["status"], "a poll sees the end");
        assert_eq!(task["result"], ended["outcome"]["result"]);
        assert_eq!(task["error"], ended["outcome"]["error"]);
    }

    /// The client answers.
    pub fn give(&mut self, key: &str, value: &str) {
        self.given
            .entry(key.to_owned())
            .or_default()
            .insert(value.to_owned());
    }

    /// The upstream was answered.
    pub fn answer(&mut self, question: &str, value: Option<&str>) {
        let times = self.answered.entry(question.to_owned()).or_default();
        *times += 1;
        assert_eq!(*times, 1, "{question} was answered twice");
        self.hear(value);
    }

    /// The upstream hears what a client said.
    pub fn hear(&self, value: Option<&str>) {
        if let Some(value) = value {
            let given = self.given.values().any(|values| values.contains(value));
            assert!(given, "nobody said {value}");
        }
    }
}
