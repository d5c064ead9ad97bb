//! Modern to legacy: what a legacy upstream is asked, and what a legacy client is answered.

use super::content;
use super::lift::remove_within;
use crate::json::Object;
use crate::jsonrpc::{
    HEADER_MISMATCH, INTERNAL_ERROR, INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY,
    RESOURCE_NOT_FOUND_LEGACY, RpcError, UNSUPPORTED_PROTOCOL_VERSION,
};
use crate::meta;
use crate::method::Method;
use crate::version::ProtocolVersion;

const ENVELOPE_KEYS: [&str; 4] = [
    meta::PROTOCOL_VERSION,
    meta::CLIENT_INFO,
    meta::CLIENT_CAPABILITIES,
    meta::LOG_LEVEL,
];

/// Takes the modern envelope and the answers to input requests out of params for a legacy
/// upstream. The progress token, trace context and vendor keys stay.
#[must_use]
pub fn lower_request(method: &str, mut params: Object, version: ProtocolVersion) -> Object {
    meta::strip(&mut params, &ENVELOPE_KEYS);
    if Method::parse(method).is_some_and(Method::may_require_input) {
        params.remove("inputResponses");
        params.remove("requestState");
    }
    if method == Method::CompletionComplete.as_str() && version < ProtocolVersion::V2025_06_18 {
        params.remove("context");
    }
    params
}

/// What may be declared to a legacy upstream in `initialize` on behalf of a modern client.
/// Extensions are declared in either era alike, but the one for tasks is for the modern one.
#[must_use]
pub fn lower_client_capabilities(mut capabilities: Object, version: ProtocolVersion) -> Object {
    lower_extensions(&mut capabilities);
    if version < ProtocolVersion::V2025_11_25 {
        lower_sampling_and_elicitation(&mut capabilities, version);
    }
    capabilities
}

fn lower_sampling_and_elicitation(capabilities: &mut Object, version: ProtocolVersion) {
    remove_within(capabilities, "sampling", &["context", "tools"]);
    let declared = meta::ClientCapabilities(capabilities.clone());
    if declared.elicitation_form() && version >= ProtocolVersion::V2025_06_18 {
        remove_within(capabilities, "elicitation", &["form", "url"]);
    } else {
        capabilities.remove("elicitation");
    }
}

fn lower_extensions(capabilities: &mut Object) {
    let had = capabilities.get_object("extensions");
    remove_within(capabilities, "extensions", &[meta::EXT_TASKS]);
    let has = capabilities.get_object("extensions");
    // Nothing but tasks was declared.
    if let (Some(Ok(had)), Some(Ok(has))) = (had, has)
        && has.is_empty()
        && !had.is_empty()
    {
        capabilities.remove("extensions");
    }
}

/// What may be declared to a legacy client in the answer to `initialize`.
#[must_use]
pub fn lower_server_capabilities(mut capabilities: Object, version: ProtocolVersion) -> Object {
    lower_extensions(&mut capabilities);
    if version < ProtocolVersion::V2025_03_26 {
        capabilities.remove("completions");
    }
    capabilities
}

/// Takes out of a complete result what a legacy client must not see, and turns content its
/// revision does not know into text.
#[must_use]
pub fn lower_result(method: &str, mut result: Object, version: ProtocolVersion) -> Object {
    result.remove("resultType");
    meta::strip(&mut result, &[meta::SERVER_INFO, meta::SUBSCRIPTION_ID]);
    let Some(method) = Method::parse(method) else {
        return result;
    };
    if method.is_cacheable() {
        result.remove("ttlMs");
        result.remove("cacheScope");
    }
    match method {
        Method::ToolsCall | Method::TasksResult => content::lower_tool_result(&mut result, version),
        Method::PromptsGet => content::lower_prompt_result(&mut result, version),
        Method::ToolsList => content::lower_tools(&mut result, version),
        Method::ServerDiscover
        | Method::Initialize
        | Method::Ping
        | Method::ResourcesList
        | Method::ResourceTemplatesList
        | Method::ResourcesRead
        | Method::ResourcesSubscribe
        | Method::ResourcesUnsubscribe
        | Method::PromptsList
        | Method::CompletionComplete
        | Method::LoggingSetLevel
        | Method::SubscriptionsListen
        | Method::TasksGet
        | Method::TasksUpdate
        | Method::TasksCancel
        | Method::TasksList => {}
    }
    result
}

/// Translates an error for a legacy client. A missing resource gets its legacy code; errors
/// about the modern envelope say nothing to a client that has none and become -32603.
#[must_use]
pub fn lower_error(method: &str, error: RpcError) -> RpcError {
    match error.code {
        INVALID_PARAMS if method == Method::ResourcesRead.as_str() && names_uri(&error) => {
            RpcError {
                code: RESOURCE_NOT_FOUND_LEGACY,
                ..error
            }
        }
        HEADER_MISMATCH | MISSING_REQUIRED_CLIENT_CAPABILITY | UNSUPPORTED_PROTOCOL_VERSION => {
            RpcError::new(INTERNAL_ERROR, error.message)
        }
        _ => error,
    }
}

fn names_uri(error: &RpcError) -> bool {
    error
        .data
        .as_ref()
        .and_then(|data| Object::from_raw(data).ok())
        .is_some_and(|data| data.contains("uri"))
}
