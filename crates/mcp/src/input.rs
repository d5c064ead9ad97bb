//! Results that ask for input first, and the kinds of results there are.
//!
//! A server that needs something from the user answers `input_required`; the client gathers
//! the answers and sends the request again. Only kinds and modes the client declared may be
//! asked for. Spec: 2026-07-28 basic patterns, "Multi round-trip requests".

use std::fmt;

use crate::json::Object;
use crate::jsonrpc::RpcError;
use crate::meta::ClientCapabilities;

/// What kind of result this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultType {
    /// Final. Also what an absent `resultType` means, as legacy servers send none.
    Complete,
    /// Asks for input.
    InputRequired,
    /// A handle to a task.
    Task,
    /// Something else, which only a peer that declared it understands.
    Other(String),
}

impl ResultType {
    /// The name of [`ResultType::Complete`].
    pub const COMPLETE: &'static str = "complete";
    /// The name of [`ResultType::InputRequired`].
    pub const INPUT_REQUIRED: &'static str = "input_required";
    /// The name of [`ResultType::Task`].
    pub const TASK: &'static str = "task";

    /// Reads the kind of a result. One that is not a string is [`ResultType::Other`].
    #[must_use]
    pub fn of(result: &Object) -> Self {
        let Some(value) = result.get("resultType") else {
            return Self::Complete;
        };
        match crate::json::as_str(value).as_deref() {
            Some(Self::COMPLETE) => Self::Complete,
            Some(Self::INPUT_REQUIRED) => Self::InputRequired,
            Some(Self::TASK) => Self::Task,
            Some(other) => Self::Other(other.to_owned()),
            None => Self::Other(String::new()),
        }
    }
}

/// Whether the result asks for input.
#[must_use]
pub fn is_input_required(result: &Object) -> bool {
    ResultType::of(result) == ResultType::InputRequired
}

/// Why a result is not a proper `input_required`. `Display` is a fixed label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The result is of another kind.
    #[error("not an input_required result")]
    NotInputRequired,
    /// Neither requests nor state, so there is nothing to act on.
    #[error("input_required without requests or state")]
    Empty,
    /// `inputRequests` is no object, or `requestState` no string.
    #[error("malformed input_required")]
    Malformed,
    /// A request of a kind that may not be asked for, or without proper params.
    #[error("unknown kind of input request")]
    UnknownKind,
    /// A request of a kind or mode the client did not declare.
    #[error("undeclared kind of input request")]
    Undeclared {
        /// The capabilities the client would have to declare.
        required: Object,
    },
}

impl InputError {
    /// The -32021 to answer with, if a capability is what is missing.
    #[must_use]
    pub fn to_rpc_error(&self) -> Option<RpcError> {
        match self {
            Self::Undeclared { required } => Some(RpcError::missing_client_capability(required)),
            Self::NotInputRequired | Self::Empty | Self::Malformed | Self::UnknownKind => None,
        }
    }
}

/// A result that asks for input. `Debug` leaves the state out: it is the server's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct InputRequired {
    /// Server-chosen key to `{method, params}`; may be empty if there is state.
    pub input_requests: Object,
    /// To be sent back byte for byte, or not at all.
    pub request_state: Option<String>,
}

impl fmt::Debug for InputRequired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputRequired")
            .field("input_requests", &self.input_requests)
            .field("has_state", &self.request_state.is_some())
            .finish()
    }
}

impl InputRequired {
    /// Reads an `input_required` result.
    pub fn parse(result: &Object) -> Result<Self, InputError> {
        if !is_input_required(result) {
            return Err(InputError::NotInputRequired);
        }
        let input_requests = match result.get_object("inputRequests") {
            None => None,
            Some(requests) => Some(requests.map_err(|_| InputError::Malformed)?),
        };
        let request_state = match result.get("requestState") {
            None => None,
            Some(state) => Some(
                crate::json::as_str(state)
                    .ok_or(InputError::Malformed)?
                    .into_owned(),
            ),
        };
        if input_requests.is_none() && request_state.is_none() {
            return Err(InputError::Empty);
        }
        Ok(Self {
            input_requests: input_requests.unwrap_or_default(),
            request_state,
        })
    }

    /// Whether the client declared every kind and mode asked for.
    pub fn check(&self, declared: &ClientCapabilities) -> Result<(), InputError> {
        let mut required = Object::new();
        for (_, request) in self.input_requests.iter() {
            let request = Object::from_raw(request).map_err(|_| InputError::UnknownKind)?;
            require(&request, declared, &mut required)?;
        }
        if required.is_empty() {
            Ok(())
        } else {
            Err(InputError::Undeclared { required })
        }
    }

    /// The result, ready to send.
    #[must_use]
    pub fn to_result(&self) -> Object {
        let mut result = Object::new().with("resultType", ResultType::INPUT_REQUIRED);
        if !self.input_requests.is_empty() || self.request_state.is_none() {
            result.insert("inputRequests", &self.input_requests);
        }
        if let Some(state) = &self.request_state {
            result.insert("requestState", state);
        }
        result
    }
}

/// Whether a request a legacy server sends is of a kind and mode the client declared.
pub fn check_request(
    method: &str,
    params: &Object,
    declared: &ClientCapabilities,
) -> Result<(), InputError> {
    let request = Object::new().with("method", method).with("params", params);
    let asked = InputRequired {
        input_requests: Object::new().with("request", &request),
        request_state: None,
    };
    asked.check(declared)
}

/// Adds to `required` what this request needs and the client did not declare.
fn require(
    request: &Object,
    declared: &ClientCapabilities,
    required: &mut Object,
) -> Result<(), InputError> {
    let params = match request.get_object("params") {
        None => Object::new(),
        Some(params) => params.map_err(|_| InputError::UnknownKind)?,
    };
    let method = request.get_str("method").ok_or(InputError::UnknownKind)?;
    match method.as_ref() {
        "elicitation/create" => match params.get_str("mode").as_deref() {
            Some("url") => need(declared.elicitation_url(), "elicitation", "url", required),
            None if params.contains("mode") => return Err(InputError::UnknownKind),
            None | Some("form") => {
                need(declared.elicitation_form(), "elicitation", "form", required);
            }
            Some(_) => return Err(InputError::UnknownKind),
        },
        "sampling/createMessage" => {
            if params.contains("tools") || params.contains("toolChoice") {
                let tools = declared.declares(&["sampling", "tools"]);
                need(tools, "sampling", "tools", required);
            } else if !declared.sampling() && !required.contains("sampling") {
                required.insert("sampling", &Object::new());
            }
        }
        "roots/list" => {
            if !declared.roots() {
                required.insert("roots", &Object::new());
            }
        }
        _ => return Err(InputError::UnknownKind),
    }
    Ok(())
}

fn need(declared: bool, capability: &str, mode: &str, required: &mut Object) {
    if declared {
        return;
    }
    let mut modes = required
        .get_object(capability)
        .and_then(Result::ok)
        .unwrap_or_default();
    modes.insert(mode, &Object::new());
    required.insert(capability, &modes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).unwrap()
    }

    fn check(requests: &str, declared: &str) -> Result<(), InputError> {
        let result = format!(r#"{{"resultType":"input_required","inputRequests":{requests}}}"#);
        InputRequired::parse(&object(&result))
            .unwrap()
            .check(&ClientCapabilities(object(declared)))
    }

    #[test]
    fn an_absent_result_type_means_complete() {
        for (result, kind) in [
            ("{}", ResultType::Complete),
            (r#"{"resultType":"complete"}"#, ResultType::Complete),
            (
                r#"{"resultType":"input_required"}"#,
                ResultType::InputRequired,
            ),
            (r#"{"resultType":"task"}"#, ResultType::Task),
            (r#"{"resultType":"x"}"#, ResultType::Other("x".into())),
            (r#"{"resultType":null}"#, ResultType::Other(String::new())),
        ] {
            assert_eq!(ResultType::of(&object(result)), kind, "{result}");
            assert_eq!(
                is_input_required(&object(result)),
                kind == ResultType::InputRequired
            );
        }
    }

    #[test]
    fn requests_and_state_are_kept_as_they_came() {
        for text in [
            r#"{"resultType":"input_required","inputRequests":{"k":{ "method":"roots/list" }},"requestState":"s"}"#,
            r#"{"resultType":"input_required","requestState":""}"#,
            r#"{"resultType":"input_required","inputRequests":{}}"#,
        ] {
            let input = InputRequired::parse(&object(text)).unwrap();
            assert_eq!(input.to_result().to_string(), text);
        }
    }

    #[test]
    fn a_result_that_asks_for_nothing_is_refused() {
        for (text, error) in [
            ("{}", InputError::NotInputRequired),
            (r#"{"resultType":"input_required"}"#, InputError::Empty),
            (
                r#"{"resultType":"input_required","inputRequests":[]}"#,
                InputError::Malformed,
            ),
            (
                r#"{"resultType":"input_required","requestState":{}}"#,
                InputError::Malformed,
            ),
        ] {
            assert_eq!(InputRequired::parse(&object(text)), Err(error), "{text}");
        }
    }

    const FORM: &str = r#"{"method":"elicitation/create","params":{"message":"m"}}"#;
    const URL: &str = r#"{"method":"elicitation/create","params":{"mode":"url"}}"#;
    const SAMPLE: &str = r#"{"method":"sampling/createMessage","params":{"maxTokens":1}}"#;
    const TOOLS: &str = r#"{"method":"sampling/createMessage","params":{"tools":[]}}"#;
    const ROOTS: &str = r#"{"method":"roots/list"}"#;

    #[test]
    fn only_declared_kinds_and_modes_may_be_asked_for() {
        for (request, declared, required) in [
            (FORM, r#"{"elicitation":{}}"#, None),
            (
                FORM,
                r#"{"elicitation":{"url":{}}}"#,
                Some(r#"{"elicitation":{"form":{}}}"#),
            ),
            (FORM, "{}", Some(r#"{"elicitation":{"form":{}}}"#)),
            (URL, r#"{"elicitation":{"url":{}}}"#, None),
            (
                URL,
                r#"{"elicitation":{}}"#,
                Some(r#"{"elicitation":{"url":{}}}"#),
            ),
            (SAMPLE, r#"{"sampling":{}}"#, None),
            (SAMPLE, "{}", Some(r#"{"sampling":{}}"#)),
            (TOOLS, r#"{"sampling":{"tools":{}}}"#, None),
            (
                TOOLS,
                r#"{"sampling":{}}"#,
                Some(r#"{"sampling":{"tools":{}}}"#),
            ),
            (ROOTS, r#"{"roots":{}}"#, None),
            (ROOTS, "{}", Some(r#"{"roots":{}}"#)),
        ] {
            let expected = match required {
                None => Ok(()),
                Some(required) => Err(InputError::Undeclared {
                    required: object(required),
                }),
            };
            let requests = format!(r#"{{"k":{request}}}"#);
            assert_eq!(check(&requests, declared), expected, "{request} {declared}");
        }
    }

    #[test]
    fn everything_undeclared_is_named_at_once() {
        let all = format!(r#"{{"a":{FORM},"b":{URL},"c":{TOOLS},"d":{SAMPLE},"e":{ROOTS}}}"#);
        let error = check(&all, "{}").unwrap_err().to_rpc_error().unwrap();
        assert_eq!(error.code, -32021);
        assert_eq!(
            error.data.unwrap().get(),
            r#"{"requiredCapabilities":{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{}}}"#
        );
    }

    #[test]
    fn kinds_nobody_may_ask_for_are_refused() {
        let everything = r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}"#;
        for request in [
            "5",
            "{}",
            r#"{"method":"tools/call"}"#,
            r#"{"method":"elicitation/create","params":[]}"#,
            r#"{"method":"elicitation/create","params":{"mode":"video"}}"#,
            r#"{"method":"elicitation/create","params":{"mode":null}}"#,
        ] {
            let requests = format!(r#"{{"k":{request}}}"#);
            assert_eq!(check(&requests, everything), Err(InputError::UnknownKind));
        }
    }
}
