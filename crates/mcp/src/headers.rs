//! The headers that mirror a request's body, and whether they agree with it.
//!
//! Intermediaries route on these headers, so a header that says something else than the body
//! is refused: it would let a request be judged as one call and executed as another.
//! Spec: 2026-07-28 Streamable HTTP, "Standard request headers" and "Custom headers from tool
//! parameters".

mod param;
#[cfg(test)]
mod tests;
mod value;

pub use self::param::{HeaderParam, ParamKind, agree_params, header_params, render};
pub use self::value::{decode_value, encode_value};
use crate::json::Object;
use crate::jsonrpc::{HEADER_MISMATCH, RpcError};

/// Mirrors the protocol version in `_meta`.
pub const MCP_PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// Mirrors the method.
pub const MCP_METHOD: &str = "mcp-method";
/// Mirrors the name, uri or task id the method is about.
pub const MCP_NAME: &str = "mcp-name";
/// Begins the name of each header that mirrors one tool argument.
pub const MCP_PARAM_PREFIX: &str = "mcp-param-";
/// Legacy sessions only.
pub const MCP_SESSION_ID: &str = "mcp-session-id";
/// Legacy stream resumption only.
pub const LAST_EVENT_ID: &str = "last-event-id";
/// The schema keyword that asks for an argument to be mirrored.
pub const X_MCP_HEADER: &str = "x-mcp-header";

/// The routing headers of one request, as received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutingHeaders {
    /// `MCP-Protocol-Version`.
    pub protocol_version: Option<String>,
    /// `Mcp-Method`.
    pub method: Option<String>,
    /// `Mcp-Name`, still encoded.
    pub name: Option<String>,
    /// The name of a routing header that was sent more than once.
    pub duplicated: Option<&'static str>,
}

/// Why a header value or a header annotation is refused. `Display` is a fixed label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Marked as Base64, but is not strict padded Base64 of UTF-8.
    #[error("malformed Base64 in a header value")]
    MalformedBase64,
    /// Neither encoded nor printable ASCII.
    #[error("invalid character in a header value")]
    InvalidCharacter,
    /// The input schema is not an object we can read.
    #[error("unreadable input schema")]
    UnreadableSchema,
    /// The annotation is not a non-empty HTTP token.
    #[error("x-mcp-header is not a header name")]
    NotAToken,
    /// Two annotations name the same header.
    #[error("x-mcp-header is not unique")]
    NotUnique,
    /// The annotated property is neither a string nor an integer nor a boolean.
    #[error("x-mcp-header on a type that cannot be mirrored")]
    UnsupportedType,
    /// The annotation is not reached through `properties` alone.
    #[error("x-mcp-header in a place that is not a plain property")]
    Unreachable,
    /// The argument is neither a string nor a boolean nor an integer within 2^53-1.
    #[error("argument does not fit its header")]
    UnfitArgument,
}

/// What `Mcp-Name` must say for this request, where the body has it.
#[must_use]
pub fn expected_name(method: &str, params: &Object) -> Option<String> {
    let member = name_member(method)?;
    params.get_str(member).map(std::borrow::Cow::into_owned)
}

/// The params member `Mcp-Name` mirrors for this method.
#[must_use]
pub fn name_member(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}

/// Whether the routing headers say what the body says; -32020 names the header that does not.
///
/// A body without the member `Mcp-Name` mirrors passes: its params are what is wrong.
pub fn agree(
    headers: &RoutingHeaders,
    meta_version: &str,
    method: &str,
    params: &Object,
) -> Result<(), RpcError> {
    if let Some(name) = headers.duplicated {
        return Err(mismatch(name, "was sent more than once"));
    }
    let version = headers.protocol_version.as_deref().map(value::trim);
    agree_one("MCP-Protocol-Version", version, meta_version)?;
    let named = headers.method.as_deref().map(value::trim);
    agree_one("Mcp-Method", named, method)?;
    let Some(expected) = expected_name(method, params) else {
        return Ok(());
    };
    let decoded = match headers.name.as_deref() {
        None => None,
        Some(name) => Some(decode_value(name).map_err(|_| mismatch("Mcp-Name", "is malformed"))?),
    };
    agree_one("Mcp-Name", decoded.as_deref(), &expected)
}

fn agree_one(header: &str, value: Option<&str>, expected: &str) -> Result<(), RpcError> {
    match value {
        None => Err(mismatch(header, "is required")),
        Some(value) if value == expected => Ok(()),
        Some(_) => Err(mismatch(header, "does not match the body")),
    }
}

fn mismatch(header: &str, problem: &str) -> RpcError {
    RpcError::new(
        HEADER_MISMATCH,
        format!("Header mismatch: {header} {problem}"),
    )
}
