//! Arguments and the headers that mirror them, on either side of the gateway.

use http::{HeaderName, HeaderValue};
use tidegate_mcp::headers::{self, HeaderParam};
use tidegate_mcp::json::Object;
use tidegate_mcp::jsonrpc::{HEADER_MISMATCH, RpcError};

use super::Definition;
use crate::error::{Error, Rejection};
use crate::upstream::Outgoing;

/// Most bytes of one argument that is mirrored into a header; HTTP servers commonly refuse
/// more.
const MIRRORED_MAX: usize = 8 * 1024;

/// The arguments of a call; none at all are no arguments.
pub(super) fn arguments(params: &Object) -> Result<Object, Error> {
    match params.get("arguments") {
        None => Ok(Object::default()),
        Some(arguments) if arguments.get() == "null" => Ok(Object::default()),
        Some(arguments) => Object::from_raw(arguments).map_err(|e| {
            let reason = format!("`arguments`: {e}");
            Rejection::protocol(RpcError::invalid_params(reason)).into()
        }),
    }
}

/// Whether the client's headers say what its arguments say.
pub(super) fn agree(
    params: &[HeaderParam],
    arguments: &Object,
    received: &[(HeaderName, HeaderValue)],
) -> Result<(), RpcError> {
    let values = |wanted: &str| -> Vec<String> {
        let of_name = received.iter().filter(|(name, _)| name.as_str() == wanted);
        of_name
            .map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    };
    for param in params {
        let name = param.header_name();
        if values(&name).len() > 1 {
            let reason = format!("Header mismatch: {name} was sent more than once");
            return Err(RpcError::new(HEADER_MISMATCH, reason));
        }
    }
    headers::agree_params(params, arguments, |name| values(name).pop())
}

/// The request with the headers its tool wants. What the definition does not know of is
/// somebody else's and passes as it came.
pub(super) fn mirrored(
    known: Option<&Definition>,
    mut outgoing: Outgoing,
) -> Result<Outgoing, Error> {
    let Some(Ok(params)) = known.map(|definition| &definition.params) else {
        return Ok(outgoing);
    };
    if params.is_empty() {
        return Ok(outgoing);
    }
    let arguments = arguments(&outgoing.params)?;
    for param in params {
        let name = param.header_name();
        outgoing
            .param_headers
            .retain(|(received, _)| received.as_str() != name);
        // Whether an argument no header can carry is one the tool takes is for the tool.
        let Ok(Some(value)) = headers::render(param, &arguments) else {
            continue;
        };
        let header = HeaderName::from_bytes(name.as_bytes()).ok();
        let value = Some(value).filter(|value| value.len() <= MIRRORED_MAX);
        let value = value.and_then(|value| HeaderValue::from_str(&value).ok());
        let (Some(header), Some(value)) = (header, value) else {
            let path = param.path.join("/");
            let reason = format!("`arguments` at /{path}: longer than a header can carry");
            return Err(Rejection::protocol(RpcError::invalid_params(reason)).into());
        };
        outgoing.param_headers.push((header, value));
    }
    Ok(outgoing)
}
