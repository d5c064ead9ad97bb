//! Translation between the two eras, and telling which one a client speaks.
//!
//! Inside the gateway everything is modern. A legacy client's requests are lifted and its
//! answers lowered; a legacy upstream's requests are lowered and its answers lifted. All of it
//! is a function of values: sessions, streams and stored capabilities belong to the caller.

mod content;
mod lift;
mod lower;
mod question;
#[cfg(test)]
mod tests;

pub use self::lift::{
    lift_client_capabilities, lift_error, lift_request, lift_result, lift_server_capabilities,
    lift_url_elicitations,
};
pub use self::lower::{
    lower_client_capabilities, lower_error, lower_request, lower_result, lower_server_capabilities,
};
pub use self::question::{lift_question, lower_answer, lower_question};
use crate::json::Object;
use crate::jsonrpc::{HEADER_MISMATCH, INVALID_REQUEST, Message, RpcError};
use crate::meta;
use crate::version::{Era, ProtocolVersion, negotiate_legacy};

/// How a client speaks, told from one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientEra {
    /// With an envelope; whether its version is served is a later check.
    Modern,
    /// Without one, in this revision. For `initialize`, the revision to answer with.
    Legacy(ProtocolVersion),
}

/// Tells the era of a posted message from its body first and its version header second.
///
/// An envelope decides alone, even around `initialize`. A message without one is legacy unless
/// its header claims otherwise: a broken modern request is refused, never served as legacy.
pub fn classify(body: &Message, header_version: Option<&str>) -> Result<ClientEra, RpcError> {
    let header = header_version.map(|value| value.trim_matches([' ', '\t']));
    let (params, method) = match body {
        Message::Request(request) => (&request.params, Some(request.method.as_str())),
        Message::Notification(notification) => (&notification.params, None),
        Message::Response(_) => return classify_response(header),
    };
    let envelope = envelope(params)?;
    if envelope == Envelope::Versioned {
        return Ok(ClientEra::Modern);
    }
    let claimed = header.map(ProtocolVersion::parse);
    if method == Some("initialize") {
        return match claimed.flatten().map(ProtocolVersion::era) {
            Some(Era::Modern) => Err(RpcError::new(
                HEADER_MISMATCH,
                "Header mismatch: MCP-Protocol-Version names a version that has no initialize",
            )),
            Some(Era::Legacy) | None => Ok(ClientEra::Legacy(negotiate_legacy(
                params.get_str("protocolVersion").as_deref().unwrap_or(""),
            ))),
        };
    }
    let missing = || {
        RpcError::invalid_params(format_args!(
            "_meta[\"{}\"] is required",
            meta::PROTOCOL_VERSION
        ))
    };
    if envelope == Envelope::Unversioned {
        return Err(missing());
    }
    match claimed {
        None => Ok(ClientEra::Legacy(ProtocolVersion::ASSUMED)),
        Some(None) => Err(RpcError::unsupported_version(
            ProtocolVersion::MODERN,
            header.unwrap_or_default(),
        )),
        Some(Some(version)) => match (version.era(), method) {
            (Era::Legacy, _) => Ok(ClientEra::Legacy(version)),
            (Era::Modern, None) => Ok(ClientEra::Modern),
            (Era::Modern, Some(_)) => Err(missing()),
        },
    }
}

/// Only legacy clients answer requests, because only legacy servers ask.
fn classify_response(header: Option<&str>) -> Result<ClientEra, RpcError> {
    match header.map(ProtocolVersion::parse) {
        None => Ok(ClientEra::Legacy(ProtocolVersion::ASSUMED)),
        Some(Some(version)) if version.era() == Era::Legacy => Ok(ClientEra::Legacy(version)),
        Some(_) => Err(RpcError::new(
            INVALID_REQUEST,
            "Invalid request: nothing was asked that a response could answer",
        )),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Envelope {
    /// Has the protocol version key.
    Versioned,
    /// Has another key only modern clients send, but not that one.
    Unversioned,
    /// Has none of them.
    Absent,
}

fn envelope(params: &Object) -> Result<Envelope, RpcError> {
    let Some(meta) = params.get(meta::META) else {
        return Ok(Envelope::Absent);
    };
    if crate::json::first_byte(meta.get().as_bytes()) != Some(b'{') {
        return Ok(Envelope::Absent);
    }
    let meta = Object::from_raw(meta)
        .map_err(|error| RpcError::invalid_params(format_args!("_meta: {error}")))?;
    if meta.contains(meta::PROTOCOL_VERSION) {
        Ok(Envelope::Versioned)
    } else if meta.contains(meta::CLIENT_CAPABILITIES) || meta.contains(meta::CLIENT_INFO) {
        Ok(Envelope::Unversioned)
    } else {
        Ok(Envelope::Absent)
    }
}
