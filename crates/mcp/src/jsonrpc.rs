//! The JSON-RPC 2.0 envelope as MCP restricts it.
//!
//! Ids are strings or integers, params are objects, results are objects, error codes are
//! integers. Whatever deviates is refused with the id it carried, where one could be read.
//! Spec: 2026-07-28 basic protocol, "Messages"; batches exist only in 2025-03-26.

mod error;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

pub use self::error::*;
pub use self::parse::parse;
use crate::json::{self, Object};

/// Longest string id, in bytes.
pub const ID_MAX: usize = 256;
/// Longest method name, in bytes.
pub const METHOD_MAX: usize = 256;
/// Most messages in one batch.
pub const BATCH_MAX: usize = 32;

/// What a reply refers to. Never null, never fractional.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum RequestId {
    /// An integer id.
    Integer(i64),
    /// A string id of at most [`ID_MAX`] bytes.
    String(String),
}

impl RequestId {
    /// Reads an id: an integer that fits 64 bits, or a string within [`ID_MAX`].
    #[must_use]
    pub fn parse(value: &RawValue) -> Option<Self> {
        if let Some(text) = json::as_str(value) {
            return (text.len() <= ID_MAX).then(|| Self::String(text.into_owned()));
        }
        serde_json::from_str(value.get()).ok().map(Self::Integer)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(id) => id.fmt(f),
            Self::String(id) => id.fmt(f),
        }
    }
}

/// A call that expects exactly one response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the sender.
    pub id: RequestId,
    /// The method name.
    pub method: String,
    /// Empty if the message had none: MCP reads both alike.
    pub params: Object,
}

/// A message that expects no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The method name.
    pub method: String,
    /// Empty if the message had none.
    pub params: Object,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Absent when the sender could not read the id of what it answers.
    pub id: Option<RequestId>,
    /// The result, or the error instead of it.
    pub outcome: Result<Object, RpcError>,
}

/// One JSON-RPC message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A call that expects a response.
    Request(Request),
    /// A message that expects none.
    Notification(Notification),
    /// An answer.
    Response(Response),
}

/// What one HTTP body or event carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// One message.
    One(Message),
    /// An array of 1 to [`BATCH_MAX`] messages, each good or bad for itself.
    Batch(Vec<Result<Message, ParseError>>),
}

/// Why a text is not a JSON-RPC message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON at all.
    #[error("parse_error")]
    Parse,
    /// JSON, but not a message.
    #[error("invalid_request")]
    Invalid {
        /// The id the text carried, where one could be read.
        id: Option<RequestId>,
        /// What is wrong, as a fixed phrase.
        reason: &'static str,
    },
}

impl ParseError {
    /// The id to answer with; `None` means omit it.
    #[must_use]
    pub fn id(&self) -> Option<&RequestId> {
        match self {
            Self::Parse => None,
            Self::Invalid { id, .. } => id.as_ref(),
        }
    }

    /// The error to answer with.
    #[must_use]
    pub fn to_rpc_error(&self) -> RpcError {
        match self {
            Self::Parse => RpcError::new(PARSE_ERROR, "Parse error: the body is not JSON"),
            Self::Invalid { reason, .. } => {
                RpcError::new(INVALID_REQUEST, format!("Invalid request: {reason}"))
            }
        }
    }
}

const JSONRPC: &str = "2.0";

#[derive(Serialize)]
struct CallOut<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RequestId>,
    method: &'a str,
    #[serde(skip_serializing_if = "Object::is_empty")]
    params: &'a Object,
}

#[derive(Serialize)]
struct ResponseOut<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RpcError>,
}

impl Request {
    /// The message as JSON text. Empty params are omitted.
    #[must_use]
    pub fn to_json(&self) -> String {
        text(&CallOut {
            jsonrpc: JSONRPC,
            id: Some(&self.id),
            method: &self.method,
            params: &self.params,
        })
    }
}

impl Notification {
    /// The message as JSON text. Empty params are omitted.
    #[must_use]
    pub fn to_json(&self) -> String {
        text(&CallOut {
            jsonrpc: JSONRPC,
            id: None,
            method: &self.method,
            params: &self.params,
        })
    }
}

impl Response {
    /// A successful answer.
    #[must_use]
    pub fn result(id: RequestId, result: Object) -> Self {
        Self {
            id: Some(id),
            outcome: Ok(result),
        }
    }

    /// A failed answer; without an id if the request's could not be read.
    #[must_use]
    pub fn error(id: Option<RequestId>, error: RpcError) -> Self {
        Self {
            id,
            outcome: Err(error),
        }
    }

    /// The message as JSON text. An absent id is omitted, as MCP's schema wants it.
    #[must_use]
    pub fn to_json(&self) -> String {
        text(&ResponseOut {
            jsonrpc: JSONRPC,
            id: self.id.as_ref(),
            result: self.outcome.as_ref().ok(),
            error: self.outcome.as_ref().err(),
        })
    }
}

impl Message {
    /// The message as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Request(request) => request.to_json(),
            Self::Notification(notification) => notification.to_json(),
            Self::Response(response) => response.to_json(),
        }
    }

    /// The method, unless this is a response.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request(request) => Some(&request.method),
            Self::Notification(notification) => Some(&notification.method),
            Self::Response(_) => None,
        }
    }
}

fn text(value: &impl Serialize) -> String {
    json::raw(value).get().to_owned()
}
