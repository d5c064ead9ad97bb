//! JSON-RPC error objects and the codes MCP gives a meaning to.
//!
//! Codes in -32000…-32019 have no meaning here, except the legacy "resource not found".

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::json;
use crate::version::ProtocolVersion;

/// The body is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The body is not a JSON-RPC message.
pub const INVALID_REQUEST: i64 = -32600;
/// No such method here.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// Bad params: envelope, name, uri, cursor, task id, request state.
pub const INVALID_PARAMS: i64 = -32602;
/// Our fault.
pub const INTERNAL_ERROR: i64 = -32603;
/// Headers and body disagree.
pub const HEADER_MISMATCH: i64 = -32020;
/// The request needs a capability its sender did not declare.
pub const MISSING_REQUIRED_CLIENT_CAPABILITY: i64 = -32021;
/// The request claims a version that is not served.
pub const UNSUPPORTED_PROTOCOL_VERSION: i64 = -32022;
/// Legacy "resource not found"; never sent to a modern client.
pub const RESOURCE_NOT_FOUND_LEGACY: i64 = -32002;
/// Legacy "URL elicitation required"; never sent to a modern client.
pub const URL_ELICITATION_REQUIRED_LEGACY: i64 = -32042;

/// A JSON-RPC error object. `Debug` shows the code only: messages and data may quote values.
#[derive(Clone, Serialize)]
pub struct RpcError {
    /// What went wrong.
    pub code: i64,
    /// One sentence for a person.
    pub message: String,
    /// Detail for a program, as it arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl RpcError {
    /// An error without data.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// The same error with data.
    #[must_use]
    pub fn with_data(mut self, data: impl Serialize) -> Self {
        self.data = Some(json::raw(&data));
        self
    }

    /// -32601 for a method.
    #[must_use]
    pub fn method_not_found(method: &str) -> Self {
        Self::new(METHOD_NOT_FOUND, format!("Method not found: {method}"))
    }

    /// -32602 with a reason.
    #[must_use]
    pub fn invalid_params(reason: impl fmt::Display) -> Self {
        Self::new(INVALID_PARAMS, format!("Invalid params: {reason}"))
    }

    /// -32602 for a resource that does not exist, naming its uri.
    #[must_use]
    pub fn resource_not_found(uri: &str) -> Self {
        Self::new(INVALID_PARAMS, "Resource not found").with_data(UriData { uri })
    }

    /// -32021 naming the capabilities a retry must declare, as an object of objects.
    #[must_use]
    pub fn missing_client_capability(required: impl Serialize) -> Self {
        Self::new(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            "The client did not declare a required capability",
        )
        .with_data(CapabilityData {
            required_capabilities: required,
        })
    }

    /// -32022 naming what is served and what was asked for.
    #[must_use]
    pub fn unsupported_version(supported: &[ProtocolVersion], requested: &str) -> Self {
        Self::new(UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version").with_data(
            VersionData {
                supported: supported.iter().map(|version| version.as_str()).collect(),
                requested,
            },
        )
    }
}

#[derive(Serialize)]
struct UriData<'a> {
    uri: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CapabilityData<T> {
    required_capabilities: T,
}

#[derive(Serialize)]
struct VersionData<'a> {
    supported: Vec<&'static str>,
    requested: &'a str,
}

impl PartialEq for RpcError {
    fn eq(&self, other: &Self) -> bool {
        self.code == other.code
            && self.message == other.message
            && self.data.as_ref().map(|data| data.get())
                == other.data.as_ref().map(|data| data.get())
    }
}

impl Eq for RpcError {}

impl fmt::Debug for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcError")
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

/// A fixed label: the code.
impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "json-rpc error {}", self.code)
    }
}

impl std::error::Error for RpcError {}
