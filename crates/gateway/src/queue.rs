//! What travels on the queue: one tagged enum with versioned variants, because queued
//! messages outlive deploys. Messages carry identifiers, never payloads.

use serde::{Deserialize, Serialize};

/// A message this deployment sends to itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Message {
    /// Run a task.
    #[serde(rename = "runTaskV1")]
    RunTaskV1 {
        /// Key of its record.
        task: String,
    },
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Consumed {
    /// It is done with; acknowledge it.
    Done,
    /// It should be delivered again.
    Retry {
        /// Not sooner than this.
        after: std::time::Duration,
    },
}
