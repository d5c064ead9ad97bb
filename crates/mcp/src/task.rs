//! The tasks extension: a task, its legal transitions, and how it is shown.
//!
//! ```text
//! working ⇄ input_required ; either → completed | failed | cancelled (final)
//! ```
//!
//! `failed` means a JSON-RPC error; a tool that reports an error has `completed`. To clients of
//! 2025-11-25 it has `failed`, and other names for the same times.
//! Spec: extension `io.modelcontextprotocol/tasks`; 2025-11-25, "Tasks".

use std::fmt;

use crate::input::ResultType;
use crate::json::{self, Object};
use crate::jsonrpc::RpcError;
use crate::meta;
use crate::timestamp;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskStatus {
    /// Being worked on.
    Working,
    /// Waiting for answers.
    InputRequired,
    /// Has a result, also one that reports a tool error.
    Completed,
    /// Ended in a JSON-RPC error.
    Failed,
    /// Given up on request.
    Cancelled,
}

impl TaskStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [
        Self::Working,
        Self::InputRequired,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The status of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// The name used on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task as every view of it shows it. `Debug` leaves out the id, which is a handle, and the
/// message, which may quote values.
#[derive(Clone, PartialEq, Eq)]
pub struct Task {
    /// Unguessable and header-safe.
    pub task_id: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// One sentence for a person.
    pub status_message: Option<String>,
    /// Milliseconds since 1970 UTC.
    pub created_at_ms: u64,
    /// Milliseconds since 1970 UTC.
    pub last_updated_at_ms: u64,
    /// How long after creation it stays reachable; `None` is unlimited.
    pub ttl_ms: Option<u64>,
    /// How often to ask.
    pub poll_interval_ms: Option<u64>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("status", &self.status)
            .field("created_at_ms", &self.created_at_ms)
            .field("last_updated_at_ms", &self.last_updated_at_ms)
            .field("ttl_ms", &self.ttl_ms)
            .finish_non_exhaustive()
    }
}

impl Task {
    /// Reads the flat task in a modern result; `None` if a required member is missing or
    /// malformed.
    #[must_use]
    pub fn parse(result: &Object) -> Option<Self> {
        let moment = |name| timestamp::parse(&result.get_str(name)?);
        let optional_ms = |name: &str| match result.get(name) {
            None => Some(None),
            Some(value) if value.get() == "null" => Some(None),
            Some(value) => serde_json::from_str(value.get()).ok().map(Some),
        };
        Some(Self {
            task_id: result.get_str("taskId")?.into_owned(),
            status: TaskStatus::parse(&result.get_str("status")?)?,
            status_message: result
                .get("statusMessage")
                .and_then(json::as_str)
                .map(std::borrow::Cow::into_owned),
            created_at_ms: moment("createdAt")?,
            last_updated_at_ms: moment("lastUpdatedAt")?,
            ttl_ms: optional_ms("ttlMs")?,
            poll_interval_ms: optional_ms("pollIntervalMs")?,
        })
    }

    fn write(&self, into: &mut Object) {
        into.insert("taskId", &self.task_id);
        into.insert("status", self.status.as_str());
        if let Some(message) = &self.status_message {
            into.insert("statusMessage", message);
        }
        into.insert("createdAt", &timestamp::format_utc(self.created_at_ms));
        into.insert(
            "lastUpdatedAt",
            &timestamp::format_utc(self.last_updated_at_ms),
        );
        into.insert("ttlMs", &self.ttl_ms);
        if let Some(interval) = self.poll_interval_ms {
            into.insert("pollIntervalMs", &interval);
        }
    }
}

impl Task {
    /// The task as clients of 2025-11-25 see it. What it ended in is not part of it.
    #[must_use]
    pub fn to_legacy(&self) -> Object {
        let mut object = Object::new();
        self.write(&mut object);
        object.rename("ttlMs", "ttl");
        object.rename("pollIntervalMs", "pollInterval");
        object
    }
}

/// The result of a call that became a task of 2025-11-25.
#[must_use]
pub fn created_legacy_result(task: &Task) -> Object {
    let result = Object::new().with("resultType", ResultType::TASK);
    result.with("task", &task.to_legacy())
}

/// Says whose result or request this is (2025-11-25).
pub fn relate(carrier: &mut Object, task_id: &str) {
    let related = Object::new().with("taskId", task_id);
    meta::set(carrier, meta::RELATED_TASK, &related.to_raw());
}

/// What a status has to show beside the task itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskDetail {
    /// Nothing: working or cancelled.
    None,
    /// All outstanding requests: input required.
    InputRequests(Object),
    /// The tool's result, also one that reports a tool error: completed.
    Result(Object),
    /// The JSON-RPC error: failed.
    Error(RpcError),
}

/// The result of a call that became a task.
#[must_use]
pub fn created_result(task: &Task) -> Object {
    let mut result = Object::new().with("resultType", ResultType::TASK);
    task.write(&mut result);
    result
}

/// The result of `tasks/get`. A detail that does not belong to the status is left out, so no
/// client is shown a result of a task that has none.
#[must_use]
pub fn get_result(task: &Task, detail: &TaskDetail) -> Object {
    let mut result = Object::new().with("resultType", ResultType::COMPLETE);
    write_detailed(task, detail, &mut result);
    result
}

/// The params of `notifications/tasks`: the task as `tasks/get` shows it.
#[must_use]
pub fn notification_params(task: &Task, detail: &TaskDetail) -> Object {
    let mut params = Object::new();
    write_detailed(task, detail, &mut params);
    params
}

fn write_detailed(task: &Task, detail: &TaskDetail, result: &mut Object) {
    task.write(result);
    match (task.status, detail) {
        (TaskStatus::InputRequired, TaskDetail::InputRequests(requests)) => {
            result.insert("inputRequests", requests);
        }
        (TaskStatus::Completed, TaskDetail::Result(value)) => result.insert("result", value),
        (TaskStatus::Failed, TaskDetail::Error(error)) => result.insert("error", error),
        (
            TaskStatus::Working
            | TaskStatus::InputRequired
            | TaskStatus::Completed
            | TaskStatus::Failed
            | TaskStatus::Cancelled,
            TaskDetail::None
            | TaskDetail::InputRequests(_)
            | TaskDetail::Result(_)
            | TaskDetail::Error(_),
        ) => {}
    }
}

/// The result of `tasks/update` and `tasks/cancel`: received, nothing more.
#[must_use]
pub fn acknowledged_result() -> Object {
    Object::new().with("resultType", ResultType::COMPLETE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(status: TaskStatus) -> Task {
        Task {
            task_id: "t1".to_owned(),
            status,
            status_message: None,
            created_at_ms: 1_785_240_000_000,
            last_updated_at_ms: 1_785_240_000_250,
            ttl_ms: None,
            poll_interval_ms: Some(500),
        }
    }

    fn details() -> [TaskDetail; 4] {
        let value = Object::new().with("k", &1);
        [
            TaskDetail::None,
            TaskDetail::InputRequests(value.clone()),
            TaskDetail::Result(value),
            TaskDetail::Error(RpcError::new(-32603, "e")),
        ]
    }

    #[test]
    fn every_status_parses_back_from_its_name() {
        for status in TaskStatus::ALL {
            assert_eq!(TaskStatus::parse(status.as_str()), Some(status));
        }
        assert_eq!(TaskStatus::parse("submitted"), None);
    }

    #[test]
    fn a_created_task_is_flat_and_carries_no_outcome() {
        assert_eq!(
            created_result(&task(TaskStatus::Working)).to_string(),
            r#"{"resultType":"task","taskId":"t1","status":"working","createdAt":"2026-07-28T12:00:00.000Z","lastUpdatedAt":"2026-07-28T12:00:00.250Z","ttlMs":null,"pollIntervalMs":500}"#
        );
    }

    #[test]
    fn a_task_shows_only_the_detail_its_status_has() {
        for status in TaskStatus::ALL {
            for detail in details() {
                let shown = get_result(&task(status), &detail);
                assert_eq!(shown.get_str("resultType").unwrap(), "complete");
                let expected = match (status, &detail) {
                    (TaskStatus::InputRequired, TaskDetail::InputRequests(_)) => "inputRequests",
                    (TaskStatus::Completed, TaskDetail::Result(_)) => "result",
                    (TaskStatus::Failed, TaskDetail::Error(_)) => "error",
                    _ => "",
                };
                for member in ["inputRequests", "result", "error"] {
                    assert_eq!(shown.contains(member), member == expected, "{status}");
                }
            }
        }
    }

    #[test]
    fn a_task_parses_back_from_what_is_shown_of_it() {
        for status in TaskStatus::ALL {
            for ttl_ms in [None, Some(0), Some(60_000)] {
                let mut task = task(status);
                task.ttl_ms = ttl_ms;
                task.status_message = ttl_ms.map(|_| "busy".to_owned());
                assert_eq!(Task::parse(&created_result(&task)), Some(task.clone()));
                let got = get_result(&task, &TaskDetail::None);
                assert_eq!(Task::parse(&got), Some(task));
            }
        }
        let good = created_result(&task(TaskStatus::Working));
        for member in ["taskId", "status", "createdAt", "lastUpdatedAt"] {
            let mut bad = good.clone();
            bad.remove(member);
            assert_eq!(Task::parse(&bad), None, "{member}");
            bad.insert(member, &5);
            assert_eq!(Task::parse(&bad), None, "{member}");
        }
    }

    #[test]
    fn a_notification_says_what_a_get_shows() {
        for status in TaskStatus::ALL {
            for detail in details() {
                let mut shown = get_result(&task(status), &detail);
                shown.remove("resultType");
                assert_eq!(notification_params(&task(status), &detail), shown);
            }
        }
    }

    #[test]
    fn clients_of_2025_11_25_see_the_same_task_under_its_older_names() {
        assert_eq!(
            created_legacy_result(&task(TaskStatus::Failed)).to_string(),
            r#"{"resultType":"task","task":{"taskId":"t1","status":"failed","createdAt":"2026-07-28T12:00:00.000Z","lastUpdatedAt":"2026-07-28T12:00:00.250Z","ttl":null,"pollInterval":500}}"#
        );
        let mut result = Object::new();
        relate(&mut result, "t1");
        assert_eq!(
            result.to_string(),
            r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t1"}}}"#
        );
    }

    #[test]
    fn an_acknowledgement_says_no_more_than_that() {
        assert_eq!(
            acknowledged_result().to_string(),
            r#"{"resultType":"complete"}"#
        );
    }
}
