//! `_meta`: the envelope a modern request carries, and the keys MCP reserves in it.
//!
//! Everything not read here is kept in [`RequestMeta::rest`] and travels on untouched.
//! Client and server info are unverified claims: nothing is ever decided on them.
//! Spec: 2026-07-28 basic protocol, "`_meta`".

use std::fmt;

use serde_json::value::RawValue;

use crate::json::{self, Object};
use crate::jsonrpc::RpcError;
use crate::version::ProtocolVersion;

/// The member of params and results these keys live in.
pub const META: &str = "_meta";
/// Required on every modern request.
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// Who the client says it is.
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// Required on every modern request; may be `{}`.
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Asks for log messages on this request's stream.
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Who the server says it is, on results.
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// Which listen request a frame belongs to.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
/// Which legacy task a message belongs to.
pub const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
/// Asks for progress notifications.
pub const PROGRESS_TOKEN: &str = "progressToken";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace context.
pub const TRACESTATE: &str = "tracestate";
/// W3C baggage.
pub const BAGGAGE: &str = "baggage";

/// The tasks extension.
pub const EXT_TASKS: &str = "io.modelcontextprotocol/tasks";
/// MCP Apps: tools and results with a user interface.
pub const EXT_UI: &str = "io.modelcontextprotocol/ui";

/// Log levels, least severe first.
pub const LOG_LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// What a client declared it can do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCapabilities(pub Object);

impl ClientCapabilities {
    /// Whether the capability at this path is declared: present, and neither null nor false.
    #[must_use]
    pub fn declares(&self, path: &[&str]) -> bool {
        declares(&self.0, path)
    }

    /// Whether this extension is declared.
    #[must_use]
    pub fn has_extension(&self, id: &str) -> bool {
        self.declares(&["extensions", id])
    }

    /// Whether forms may be shown. `elicitation: {}` means exactly this.
    #[must_use]
    pub fn elicitation_form(&self) -> bool {
        self.declares(&["elicitation", "form"])
            || (self.declares(&["elicitation"]) && !self.declares(&["elicitation", "url"]))
    }

    /// Whether URLs may be opened; always explicit.
    #[must_use]
    pub fn elicitation_url(&self) -> bool {
        self.declares(&["elicitation", "url"])
    }

    /// Whether the client samples from a model.
    #[must_use]
    pub fn sampling(&self) -> bool {
        self.declares(&["sampling"])
    }

    /// Whether the client lists roots.
    #[must_use]
    pub fn roots(&self) -> bool {
        self.declares(&["roots"])
    }

    /// Whether every capability in `required` (an object of objects) is declared.
    #[must_use]
    pub fn satisfies(&self, required: &Object) -> bool {
        contains(&self.0, required)
    }
}

fn declares(object: &Object, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return true;
    };
    match object.get(first) {
        None => false,
        Some(value) if rest.is_empty() => !matches!(value.get(), "null" | "false"),
        Some(value) => Object::from_raw(value).is_ok_and(|inner| declares(&inner, rest)),
    }
}

fn contains(declared: &Object, required: &Object) -> bool {
    required.iter().all(|(name, value)| {
        declares(declared, &[name])
            && match (Object::from_raw(value), declared.get_object(name)) {
                (Ok(required), Some(Ok(declared))) => contains(&declared, &required),
                (Ok(required), _) => required.is_empty(),
                (Err(_), _) => true,
            }
    })
}

/// W3C trace context, as text; validity is telemetry's concern. `Debug` leaves the baggage
/// out: callers may put anything in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The `traceparent` value.
    pub traceparent: Option<String>,
    /// The `tracestate` value.
    pub tracestate: Option<String>,
    /// The `baggage` value.
    pub baggage: Option<String>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("traceparent", &self.traceparent)
            .finish_non_exhaustive()
    }
}

/// The envelope of one request; empty for the gateway's own requests.
#[derive(Debug, Clone, Default)]
pub struct RequestMeta {
    /// As claimed; whether it is served is a later check.
    pub protocol_version: String,
    /// As claimed, unverified.
    pub client_info: Option<Object>,
    /// What this request's sender can do.
    pub client_capabilities: ClientCapabilities,
    /// One of [`LOG_LEVELS`].
    pub log_level: Option<String>,
    /// A string or an integer, as it arrived.
    pub progress_token: Option<Box<RawValue>>,
    /// Trace context.
    pub trace: Trace,
    /// Every other key.
    pub rest: Object,
}

impl RequestMeta {
    /// Reads a modern envelope; -32602 names the key that is missing or malformed.
    pub fn parse_modern(params: &Object) -> Result<Self, RpcError> {
        let mut meta = match params.get_object(META) {
            None => return Err(RpcError::invalid_params("_meta is required")),
            Some(meta) => meta.map_err(|error| {
                RpcError::invalid_params(format_args!("_meta must be an object: {error}"))
            })?,
        };
        let protocol_version = take_str(&mut meta, PROTOCOL_VERSION, "a string")?
            .ok_or_else(|| missing(PROTOCOL_VERSION))?;
        let client_capabilities = take_object(&mut meta, CLIENT_CAPABILITIES)?
            .map(ClientCapabilities)
            .ok_or_else(|| missing(CLIENT_CAPABILITIES))?;
        let client_info = take_object(&mut meta, CLIENT_INFO)?;
        let log_level = take_str(&mut meta, LOG_LEVEL, "a log level")?;
        if let Some(level) = &log_level
            && !LOG_LEVELS.contains(&level.as_str())
        {
            return Err(malformed(LOG_LEVEL, "a log level"));
        }
        if let Some(token) = meta.get(PROGRESS_TOKEN)
            && !is_progress_token(token)
        {
            return Err(malformed(PROGRESS_TOKEN, "a string or an integer"));
        }
        Ok(Self {
            protocol_version,
            client_info,
            client_capabilities,
            log_level,
            progress_token: meta.remove(PROGRESS_TOKEN),
            trace: take_trace(&mut meta),
            rest: meta,
        })
    }

    /// Reads what a legacy request may carry. Malformed keys count as absent: legacy
    /// revisions never required any of them. Capabilities come from the session instead.
    #[must_use]
    pub fn parse_legacy(params: &Object, version: ProtocolVersion) -> Self {
        let mut meta = params
            .get_object(META)
            .and_then(Result::ok)
            .unwrap_or_default();
        for key in [
            PROTOCOL_VERSION,
            CLIENT_INFO,
            CLIENT_CAPABILITIES,
            LOG_LEVEL,
        ] {
            meta.remove(key);
        }
        Self {
            protocol_version: version.as_str().to_owned(),
            client_info: None,
            client_capabilities: ClientCapabilities::default(),
            log_level: None,
            progress_token: meta
                .remove(PROGRESS_TOKEN)
                .filter(|token| is_progress_token(token)),
            trace: take_trace(&mut meta),
            rest: meta,
        }
    }
}

/// Sets `result._meta[serverInfo]`, keeping whatever else is in `_meta`.
pub fn set_server_info(result: &mut Object, info: &Object) {
    set(result, SERVER_INFO, &info.to_raw());
}

/// Sets one `_meta` key of params or a result; a `_meta` that is no object is replaced.
pub fn set(carrier: &mut Object, key: &str, value: &RawValue) {
    let mut meta = carrier
        .get_object(META)
        .and_then(Result::ok)
        .unwrap_or_default();
    meta.insert_raw(key, value.to_owned());
    carrier.insert_raw(META, meta.to_raw());
}

/// Removes `_meta` keys from params or a result, and `_meta` itself if that leaves nothing in it.
pub fn strip(carrier: &mut Object, keys: &[&str]) {
    let Some(Ok(mut meta)) = carrier.get_object(META) else {
        return;
    };
    let before = meta.len();
    for key in keys {
        meta.remove(key);
    }
    if meta.len() == before {
        return;
    }
    if meta.is_empty() {
        carrier.remove(META);
    } else {
        carrier.insert_raw(META, meta.to_raw());
    }
}

fn is_progress_token(value: &RawValue) -> bool {
    json::as_str(value).is_some() || serde_json::from_str::<i64>(value.get()).is_ok()
}

fn take_str(meta: &mut Object, key: &str, what: &str) -> Result<Option<String>, RpcError> {
    match meta.remove(key) {
        None => Ok(None),
        Some(value) => match json::as_str(&value) {
            Some(text) => Ok(Some(text.into_owned())),
            None => Err(malformed(key, what)),
        },
    }
}

fn take_object(meta: &mut Object, key: &str) -> Result<Option<Object>, RpcError> {
    match meta.remove(key) {
        None => Ok(None),
        Some(value) => Object::from_raw(&value)
            .map(Some)
            .map_err(|_| malformed(key, "an object")),
    }
}

fn take_trace(meta: &mut Object) -> Trace {
    let mut take = |key| {
        meta.remove(key)
            .and_then(|value| json::as_str(&value).map(std::borrow::Cow::into_owned))
    };
    Trace {
        traceparent: take(TRACEPARENT),
        tracestate: take(TRACESTATE),
        baggage: take(BAGGAGE),
    }
}

fn missing(key: &str) -> RpcError {
    RpcError::invalid_params(format_args!("_meta[\"{key}\"] is required"))
}

fn malformed(key: &str, what: &str) -> RpcError {
    RpcError::invalid_params(format_args!("_meta[\"{key}\"] must be {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::INVALID_PARAMS;

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).unwrap()
    }

    fn params(meta: &str) -> Object {
        object(&format!("{{\"_meta\":{meta}}}"))
    }

    fn capabilities(text: &str) -> ClientCapabilities {
        ClientCapabilities(object(text))
    }

    const FULL: &str = r#"{
        "io.modelcontextprotocol/protocolVersion":"2026-07-28",
        "io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},
        "io.modelcontextprotocol/clientCapabilities":{"roots":{}},
        "io.modelcontextprotocol/logLevel":"warning",
        "progressToken":"p1","traceparent":"00-a-b-01","tracestate":"k=v","baggage":"u=1",
        "com.example/x":{"n":1.0}}"#;

    #[test]
    fn a_full_envelope_is_taken_apart_and_the_rest_is_kept() {
        let meta = RequestMeta::parse_modern(&params(FULL)).unwrap();
        assert_eq!(meta.protocol_version, "2026-07-28");
        assert!(meta.client_info.unwrap().contains("name"));
        assert!(meta.client_capabilities.roots());
        assert_eq!(meta.log_level.as_deref(), Some("warning"));
        assert_eq!(meta.progress_token.unwrap().get(), "\"p1\"");
        assert_eq!(meta.trace.traceparent.as_deref(), Some("00-a-b-01"));
        assert_eq!(meta.trace.tracestate.as_deref(), Some("k=v"));
        assert_eq!(meta.trace.baggage.as_deref(), Some("u=1"));
        assert_eq!(meta.rest.to_string(), r#"{"com.example/x":{"n":1.0}}"#);
    }

    #[test]
    fn client_info_is_never_required() {
        let meta = RequestMeta::parse_modern(&params(
            r#"{"io.modelcontextprotocol/protocolVersion":"v999","io.modelcontextprotocol/clientCapabilities":{}}"#,
        ))
        .unwrap();
        assert_eq!(meta.protocol_version, "v999");
        assert_eq!(meta.client_info, None);
    }

    #[test]
    fn a_broken_envelope_is_refused_by_the_name_of_its_key() {
        let missing = RequestMeta::parse_modern(&Object::new()).unwrap_err();
        assert_eq!(missing.code, INVALID_PARAMS);
        assert!(missing.message.contains("_meta"));
        let full = object(FULL);
        for (key, value) in [
            (PROTOCOL_VERSION, None),
            (PROTOCOL_VERSION, Some("20260728")),
            (CLIENT_CAPABILITIES, None),
            (CLIENT_CAPABILITIES, Some("true")),
            (CLIENT_CAPABILITIES, Some(r#"{"a":1,"a":2}"#)),
            (CLIENT_INFO, Some("\"me\"")),
            (LOG_LEVEL, Some("\"verbose\"")),
            (LOG_LEVEL, Some("3")),
            (PROGRESS_TOKEN, Some("1.5")),
            (PROGRESS_TOKEN, Some("null")),
        ] {
            let mut meta = full.clone();
            match value {
                None => drop(meta.remove(key)),
                Some(text) => meta.insert_raw(key, RawValue::from_string(text.into()).unwrap()),
            }
            let error = RequestMeta::parse_modern(&params(&meta.to_string())).unwrap_err();
            assert_eq!(error.code, INVALID_PARAMS);
            assert!(error.message.contains(key), "{key}: {}", error.message);
        }
        for meta in ["null", "[]", "\"x\"", r#"{"a":1,"a":2}"#] {
            let error = RequestMeta::parse_modern(&params(meta)).unwrap_err();
            assert_eq!(error.code, INVALID_PARAMS, "{meta}");
        }
    }

    #[test]
    fn a_legacy_envelope_claims_nothing_of_the_modern_one() {
        for version in ProtocolVersion::ALL {
            let meta = RequestMeta::parse_legacy(&params(FULL), *version);
            assert_eq!(meta.protocol_version, version.as_str());
            assert_eq!(meta.client_info, None);
            assert!(meta.client_capabilities.0.is_empty());
            assert_eq!(meta.log_level, None);
            assert_eq!(meta.progress_token.unwrap().get(), "\"p1\"");
            assert_eq!(meta.rest.keys().collect::<Vec<_>>(), ["com.example/x"]);
        }
        for meta in ["null", "5", r#"{"progressToken":{}}"#] {
            let meta = RequestMeta::parse_legacy(&params(meta), ProtocolVersion::ASSUMED);
            assert!(meta.progress_token.is_none());
        }
    }

    #[test]
    fn elicitation_modes_are_read_as_declared() {
        for (text, form, url) in [
            ("{}", false, false),
            (r#"{"elicitation":{}}"#, true, false),
            (r#"{"elicitation":{"form":{}}}"#, true, false),
            (r#"{"elicitation":{"url":{}}}"#, false, true),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, true, true),
            (r#"{"elicitation":null}"#, false, false),
        ] {
            let declared = capabilities(text);
            assert_eq!(declared.elicitation_form(), form, "{text}");
            assert_eq!(declared.elicitation_url(), url, "{text}");
        }
    }

    #[test]
    fn only_what_is_present_and_not_refused_is_declared() {
        let declared = capabilities(
            r#"{"sampling":{"tools":{}},"roots":false,"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
        );
        assert!(declared.sampling() && declared.declares(&["sampling", "tools"]));
        assert!(!declared.declares(&["sampling", "context"]));
        assert!(!declared.declares(&["sampling", "tools", "x"]));
        assert!(!declared.roots());
        assert!(declared.has_extension(EXT_TASKS));
        assert!(!declared.has_extension("com.example/x"));
        // A legacy declaration of tasks is another thing.
        assert!(!capabilities(r#"{"tasks":{}}"#).has_extension(EXT_TASKS));
    }

    #[test]
    fn required_capabilities_are_compared_object_by_object() {
        let declared = capabilities(r#"{"sampling":{"tools":{}},"roots":{"listChanged":true}}"#);
        for (required, satisfied) in [
            ("{}", true),
            (r#"{"sampling":{}}"#, true),
            (r#"{"sampling":{"tools":{}}}"#, true),
            (r#"{"sampling":{"context":{}}}"#, false),
            (r#"{"roots":{"listChanged":{}}}"#, true),
            (r#"{"roots":{"listChanged":{"x":{}}}}"#, false),
            (r#"{"elicitation":{}}"#, false),
        ] {
            assert_eq!(
                declared.satisfies(&object(required)),
                satisfied,
                "{required}"
            );
        }
    }

    #[test]
    fn meta_keys_come_and_go_without_touching_the_others() {
        let mut result = object(r#"{"_meta":{"a":1.0},"x":2}"#);
        set_server_info(&mut result, &object(r#"{"name":"g","version":"1"}"#));
        assert_eq!(
            result.to_string(),
            r#"{"_meta":{"a":1.0,"io.modelcontextprotocol/serverInfo":{"name":"g","version":"1"}},"x":2}"#
        );
        strip(&mut result, &[SERVER_INFO]);
        assert_eq!(result.to_string(), r#"{"_meta":{"a":1.0},"x":2}"#);
        strip(&mut result, &["a"]);
        assert_eq!(result.to_string(), r#"{"x":2}"#);
        strip(&mut result, &["a"]);
        assert_eq!(result.to_string(), r#"{"x":2}"#);
    }
}
