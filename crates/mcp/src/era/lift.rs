//! Legacy to modern: what a legacy client asks, and what a legacy upstream answers.

use serde_json::value::RawValue;

use crate::catalog::{CacheHints, CacheScope};
use crate::input::ResultType;
use crate::json::{self, Object};
use crate::jsonrpc::{
    INTERNAL_ERROR, INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY, RpcError,
    URL_ELICITATION_REQUIRED_LEGACY,
};
use crate::meta::{self, ClientCapabilities};
use crate::method::Method;
use crate::version::ProtocolVersion;

/// Gives a legacy client's params the envelope every modern request carries. The `task` member
/// of the legacy experiment is dropped: modern servers decide on tasks alone.
#[must_use]
pub fn lift_request(
    mut params: Object,
    version: ProtocolVersion,
    client_info: Option<&Object>,
    capabilities: &ClientCapabilities,
) -> Object {
    params.remove("task");
    let mut envelope = params
        .get_object(meta::META)
        .and_then(Result::ok)
        .unwrap_or_default();
    envelope.insert(meta::PROTOCOL_VERSION, version.as_str());
    match client_info {
        Some(info) => envelope.insert(meta::CLIENT_INFO, info),
        None => drop(envelope.remove(meta::CLIENT_INFO)),
    }
    envelope.insert(meta::CLIENT_CAPABILITIES, &capabilities.0);
    params.insert(meta::META, &envelope);
    params
}

/// What a legacy client's session capabilities mean in a modern envelope.
#[must_use]
pub fn lift_client_capabilities(mut capabilities: Object) -> ClientCapabilities {
    capabilities.remove("tasks");
    remove_within(&mut capabilities, "extensions", &[meta::EXT_TASKS]);
    remove_within(&mut capabilities, "roots", &["listChanged"]);
    if let Some(Ok(elicitation)) = capabilities.get_object("elicitation")
        && elicitation.is_empty()
    {
        capabilities.insert("elicitation", &Object::new().with("form", &Object::new()));
    }
    ClientCapabilities(capabilities)
}

/// What a legacy upstream's `initialize` capabilities mean in `server/discover`.
#[must_use]
pub fn lift_server_capabilities(mut capabilities: Object) -> Object {
    capabilities.remove("tasks");
    remove_within(&mut capabilities, "extensions", &[meta::EXT_TASKS]);
    capabilities
}

/// Removes members of an object member; one that has none of them keeps its text.
pub(super) fn remove_within(carrier: &mut Object, member: &str, names: &[&str]) {
    let Some(Ok(mut inner)) = carrier.get_object(member) else {
        return;
    };
    let before = inner.len();
    for name in names {
        inner.remove(name);
    }
    if inner.len() != before {
        carrier.insert(member, &inner);
    }
}

/// Gives a legacy upstream's result what every modern result carries. A legacy server says
/// nothing about caching, so nothing may be cached or shared.
#[must_use]
pub fn lift_result(method: &str, mut result: Object) -> Object {
    let method = Method::parse(method);
    result.insert("resultType", ResultType::COMPLETE);
    if method.is_some_and(Method::is_cacheable) {
        CacheHints {
            ttl_ms: 0,
            scope: CacheScope::Private,
        }
        .write(&mut result);
    }
    meta::strip(&mut result, &[meta::RELATED_TASK]);
    if method == Some(Method::ToolsList) {
        lift_tools(&mut result);
    }
    result
}

/// Legacy task support must not be advertised to modern clients.
fn lift_tools(result: &mut Object) {
    let Some(Ok(tools)) = result.get("tools").map(json::elements) else {
        return;
    };
    if !tools.iter().any(|tool| tool.get().contains("execution")) {
        return;
    }
    let tools: Vec<Box<RawValue>> = tools
        .into_iter()
        .map(|tool| {
            let Ok(mut object) = Object::from_raw(&tool) else {
                return tool;
            };
            match object.remove("execution") {
                Some(_) => object.to_raw(),
                None => tool,
            }
        })
        .collect();
    result.insert("tools", &tools);
}

/// Translates a legacy upstream's error. `uri` is the resource the request was about, if any.
/// Server-defined codes have no meaning across eras and become -32603 with their message.
#[must_use]
pub fn lift_error(error: RpcError, uri: Option<&str>) -> RpcError {
    match error.code {
        RESOURCE_NOT_FOUND_LEGACY => {
            let data = error
                .data
                .as_ref()
                .and_then(|data| Object::from_raw(data).ok());
            let lifted = RpcError {
                code: INVALID_PARAMS,
                ..error
            };
            match uri {
                Some(uri) if !data.as_ref().is_some_and(|data| data.contains("uri")) => {
                    lifted.with_data(data.unwrap_or_default().with("uri", uri))
                }
                Some(_) | None => lifted,
            }
        }
        -32099..=-32000 => RpcError {
            code: INTERNAL_ERROR,
            ..error
        },
        _ => error,
    }
}

/// The `input_required` result a legacy "URL elicitation required" error amounts to, or `None`
/// if the error is another one or asks for nothing. Keys are positions: `url-0`, `url-1`, …
#[must_use]
pub fn lift_url_elicitations(error: &RpcError) -> Option<Object> {
    if error.code != URL_ELICITATION_REQUIRED_LEGACY {
        return None;
    }
    let data = Object::from_raw(error.data.as_ref()?).ok()?;
    let elicitations = json::elements(data.get("elicitations")?).ok()?;
    let mut requests = Object::new();
    for (index, elicitation) in elicitations.iter().enumerate() {
        let mut params = Object::from_raw(elicitation).ok()?;
        params.remove("elicitationId");
        params.insert("mode", "url");
        let request = Object::new()
            .with("method", "elicitation/create")
            .with("params", &params);
        requests.insert(&format!("url-{index}"), &request);
    }
    if requests.is_empty() {
        return None;
    }
    Some(
        Object::new()
            .with("resultType", ResultType::INPUT_REQUIRED)
            .with("inputRequests", &requests),
    )
}
