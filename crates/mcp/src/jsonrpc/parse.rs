//! Text to [`Posted`]: one message or a bounded batch.

use serde_json::value::RawValue;

use super::{
    BATCH_MAX, JSONRPC, METHOD_MAX, Message, Notification, ParseError, Posted, Request, RequestId,
    Response, RpcError,
};
use crate::json::{self, JsonError, Object};

/// Parses one HTTP body or event.
pub fn parse(text: &[u8]) -> Result<Posted, ParseError> {
    if json::first_byte(text) == Some(b'[') {
        return parse_batch(text).map(Posted::Batch);
    }
    let envelope = Object::parse(text).map_err(|error| refuse(&error))?;
    parse_message(&envelope).map(Posted::One)
}

fn parse_batch(text: &[u8]) -> Result<Vec<Result<Message, ParseError>>, ParseError> {
    json::check_depth(text).map_err(|error| refuse(&error))?;
    let batch: &RawValue = serde_json::from_slice(text).map_err(|_| ParseError::Parse)?;
    let members = json::elements(batch).map_err(|error| refuse(&error))?;
    if members.is_empty() {
        return Err(invalid(None, "an empty batch"));
    }
    if members.len() > BATCH_MAX {
        return Err(invalid(None, "too many messages in one batch"));
    }
    Ok(members
        .iter()
        .map(|member| {
            let envelope = Object::from_raw(member).map_err(|error| refuse(&error))?;
            parse_message(&envelope)
        })
        .collect())
}

fn parse_message(envelope: &Object) -> Result<Message, ParseError> {
    let id = envelope.get("id").map(RequestId::parse);
    let known = id.clone().flatten();
    let reason = |reason| invalid(known.clone(), reason);

    if envelope.get_str("jsonrpc").as_deref() != Some(JSONRPC) {
        return Err(reason("jsonrpc must be \"2.0\""));
    }
    let answers = envelope.contains("result") || envelope.contains("error");
    if !envelope.contains("method") {
        return if answers {
            parse_response(envelope).map(Message::Response)
        } else {
            Err(reason("neither a method nor a result nor an error"))
        };
    }
    if answers {
        return Err(reason("both a call and an answer"));
    }
    let method = envelope
        .get_str("method")
        .ok_or_else(|| reason("method must be a string"))?;
    if method.len() > METHOD_MAX {
        return Err(reason("method is too long"));
    }
    let method = method.into_owned();
    let params = match envelope.get_object("params") {
        None => Object::default(),
        Some(params) => params.map_err(|error| reason(params_reason(&error)))?,
    };
    match id {
        None => Ok(Message::Notification(Notification { method, params })),
        Some(Some(id)) => Ok(Message::Request(Request { id, method, params })),
        Some(None) => Err(reason(
            "id must be a string or an integer, and not too long",
        )),
    }
}

fn parse_response(envelope: &Object) -> Result<Response, ParseError> {
    let id = match envelope.get("id") {
        None => None,
        Some(id) if id.get() == "null" => None,
        Some(id) => Some(
            RequestId::parse(id)
                .ok_or_else(|| invalid(None, "id must be a string or an integer"))?,
        ),
    };
    let reason = |reason| invalid(id.clone(), reason);
    let outcome = match (envelope.get_object("result"), envelope.get("error")) {
        (Some(_), Some(_)) => return Err(reason("both a result and an error")),
        (Some(result), None) => {
            Ok(result.map_err(|_| reason("result must be an object without duplicate members"))?)
        }
        (None, Some(error)) => {
            Err(parse_error(error).ok_or_else(|| reason("error must have a code and a message"))?)
        }
        (None, None) => return Err(reason("neither a result nor an error")),
    };
    if id.is_none() && outcome.is_ok() {
        return Err(reason("a result without an id"));
    }
    Ok(Response { id, outcome })
}

fn parse_error(value: &RawValue) -> Option<RpcError> {
    let mut error = Object::from_raw(value).ok()?;
    Some(RpcError {
        code: error.get_as("code")?.ok()?,
        message: error.get_str("message")?.into_owned(),
        data: error.remove("data"),
    })
}

fn refuse(error: &JsonError) -> ParseError {
    match error {
        JsonError::Syntax => ParseError::Parse,
        JsonError::NotAnObject => invalid(None, "a message must be an object"),
        JsonError::NotAnArray => invalid(None, "a batch must be an array"),
        JsonError::DuplicateMember(_) => invalid(None, "duplicate member names"),
        JsonError::TooManyMembers => invalid(None, "too many members"),
        JsonError::TooManyElements => invalid(None, "too many messages in one batch"),
        JsonError::TooDeep => invalid(None, "nested too deeply"),
    }
}

fn params_reason(error: &JsonError) -> &'static str {
    match error {
        JsonError::DuplicateMember(_) => "params has duplicate member names",
        JsonError::TooManyMembers => "params has too many members",
        JsonError::Syntax
        | JsonError::NotAnObject
        | JsonError::NotAnArray
        | JsonError::TooManyElements
        | JsonError::TooDeep => "params must be an object",
    }
}

fn invalid(id: Option<RequestId>, reason: &'static str) -> ParseError {
    ParseError::Invalid { id, reason }
}
