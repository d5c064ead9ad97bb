//! What the gateway says of itself: `server/discover` and `initialize`, the union of what
//! its upstreams can do, restricted to what it really serves.

use std::rc::Rc;

use futures_util::future::join_all;
use serde_json::json;
use tidegate_mcp::catalog::{CacheHints, CacheScope};
use tidegate_mcp::json::Object;
use tidegate_mcp::meta::{ClientCapabilities, EXT_TASKS, EXT_UI};
use tidegate_mcp::version::{Era, ProtocolVersion, negotiate_legacy};

use crate::auth::Principal;
use crate::config::{Grant, Upstream};
use crate::context::Context;
use crate::error::Error;
use crate::ingress::Endpoint;
use crate::platform::{LogLevel, Platform};
use crate::policy;
use crate::settings::Settings;
use crate::switches;
use crate::tasks;
use crate::upstream;
use crate::upstream::facts::Facts;

/// How long clients may keep what `server/discover` said.
const DISCOVER_TTL_MS: u64 = 60_000;

/// Name and version the gateway shows to clients and upstreams.
pub fn server_info(settings: &Settings) -> serde_json::Value {
    json!({ "name": settings.config.metadata.name, "title": "Tidegate", "version": env!("CARGO_PKG_VERSION") })
}

/// What clients can be asked for, by the capability they declare it with.
const ASKABLE: [&str; 3] = ["elicitation", "sampling", "roots"];

/// What a client declared that the gateway can carry to an upstream. Of tasks each call says
/// for itself whether they are understood.
pub fn bridged(client: &ClientCapabilities) -> Object {
    let mut carried = askable(client);
    if let Some(Ok(mut extensions)) = client.0.get_object("extensions") {
        extensions.remove(EXT_TASKS);
        if !extensions.is_empty() {
            carried.insert("extensions", &extensions);
        }
    }
    carried
}

/// What of that upstreams may ask for.
pub fn askable(client: &ClientCapabilities) -> Object {
    let mut declared = Object::default();
    for name in ASKABLE {
        if let Some(value) = client.0.get(name) {
            declared.insert_raw(name, value.to_owned());
        }
    }
    declared
}

/// Leaves in what a client declared only extensions that can be carried through the endpoint.
/// Nobody knows what an unknown one means among several upstreams; with one, its declaration
/// is between that and the client.
pub fn carry(settings: &Settings, endpoint: &Endpoint, client: &mut ClientCapabilities) {
    if let Some(Ok(mut extensions)) = client.0.get_object("extensions")
        && !is_alone(settings, endpoint)
    {
        retain(&mut extensions, &[EXT_TASKS, EXT_UI]);
        client.0.insert("extensions", &extensions);
    }
}

/// Whether an extension was declared whose meaning the gateway does not know.
pub fn declares_unknown(client: &ClientCapabilities) -> bool {
    client.0.get_object("extensions").is_some_and(|extensions| {
        extensions.is_ok_and(|extensions| {
            extensions
                .keys()
                .any(|id| !matches!(id, EXT_TASKS | EXT_UI))
        })
    })
}

fn retain(extensions: &mut Object, known: &[&str]) {
    let ids: Vec<String> = extensions.keys().map(str::to_owned).collect();
    for id in ids.iter().filter(|id| !known.contains(&id.as_str())) {
        extensions.remove(id);
    }
}

/// Whether the endpoint has just one upstream behind it.
fn is_alone(settings: &Settings, endpoint: &Endpoint) -> bool {
    upstreams(settings, endpoint).take(2).count() == 1
}

/// The upstreams behind an endpoint, in configured order.
pub fn upstreams<'a>(
    settings: &'a Settings,
    endpoint: &'a Endpoint,
) -> impl Iterator<Item = &'a Upstream> {
    settings
        .config
        .upstreams
        .iter()
        .filter(move |upstream| endpoint.shows(upstream))
}

/// The facts of every upstream behind the endpoint that can be reached and that the principal
/// may know of: what it can do, and its instructions, are its own.
async fn facts<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
) -> Vec<Rc<Facts>> {
    let on = upstreams(&context.settings, endpoint)
        .filter(|upstream| !switches::kills_upstream(context, &upstream.name))
        .filter(|upstream| policy::knows(context, principal, upstream));
    let asked = on.map(|upstream| async move {
        let facts = upstream::facts(context, upstream, principal).await;
        if let Err(error) = &facts {
            let fields = json!({ "upstream": upstream.name, "reason": error.to_string() });
            context.log(LogLevel::Warn, "upstream_left_out", fields);
        }
        facts.ok()
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// `server/discover`.
pub async fn discover<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
) -> Result<Object, Error> {
    let facts = facts(context, endpoint, principal).await;
    let mut result = Object::default();
    result.insert("resultType", &"complete");
    let supported: Vec<&str> = ProtocolVersion::MODERN
        .iter()
        .map(|version| version.as_str())
        .collect();
    result.insert("supportedVersions", &supported);
    result.insert(
        "capabilities",
        &capabilities(&context.settings, endpoint, &facts, ProtocolVersion::LATEST),
    );
    if let Some(instructions) = instructions(&facts) {
        result.insert("instructions", &instructions);
    }
    CacheHints {
        ttl_ms: DISCOVER_TTL_MS,
        scope: CacheScope::Private,
    }
    .write(&mut result);
    Ok(result)
}

/// `initialize`, answered without a session: nothing a later request says depends on it.
pub async fn initialize<P: Platform>(
    context: &Context<P>,
    endpoint: &Endpoint,
    principal: &Principal,
    params: &Object,
) -> Result<Object, Error> {
    let requested = params.get_str("protocolVersion").unwrap_or_default();
    let facts = facts(context, endpoint, principal).await;
    let mut result = Object::default();
    let version = negotiate_legacy(&requested);
    result.insert("protocolVersion", version.as_str());
    result.insert(
        "capabilities",
        &capabilities(&context.settings, endpoint, &facts, version),
    );
    result.insert("serverInfo", &server_info(&context.settings));
    if let Some(instructions) = instructions(&facts) {
        result.insert("instructions", &instructions);
    }
    Ok(result)
}

fn capabilities(
    settings: &Settings,
    endpoint: &Endpoint,
    facts: &[Rc<Facts>],
    version: ProtocolVersion,
) -> Object {
    let declared: Vec<Object> = facts.iter().map(|facts| facts.capabilities()).collect();
    let mut union = Object::default();
    // There is one before anything is known of such an upstream (`credentials::connect_tool`).
    let connects = upstreams(settings, endpoint).any(|upstream| {
        let oauth = upstream.credentials.oauth();
        oauth.is_some_and(|oauth| oauth.grant == Grant::User)
    });
    for name in ["tools", "resources", "prompts", "completions"] {
        if (name == "tools" && connects)
            || declared
                .iter()
                .any(|capabilities| capabilities.contains(name))
        {
            union.insert(name, &changes(&declared, name));
        }
    }
    // A log level comes with each modern request, and a legacy session remembers its own.
    if declared.iter().any(|c| c.contains("logging")) {
        union.insert("logging", &json!({}));
    }
    let mut extensions = extensions(&declared, is_alone(settings, endpoint));
    let minted = tasks::are_made(settings) || facts.iter().any(|facts| facts.offers_tasks());
    if version.era() == Era::Modern && minted {
        extensions.insert(EXT_TASKS, &json!({}));
    }
    if !extensions.is_empty() {
        union.insert("extensions", &extensions);
    }
    if tasks::legacy::offered(settings, version) {
        union.insert("tasks", &tasks::legacy::capability(settings, version));
    }
    union
}

/// The upstreams' extensions that can be carried; of several declarations the first. Tasks
/// are shown in the gateway's own name.
fn extensions(declared: &[Object], alone: bool) -> Object {
    let mut carried = Object::new();
    let all = declared.iter().filter_map(|c| c.get_object("extensions"));
    for mut extensions in all.filter_map(Result::ok) {
        extensions.remove(EXT_TASKS);
        if !alone {
            retain(&mut extensions, &[EXT_UI]);
        }
        for (id, settings) in extensions.iter() {
            if !carried.contains(id) {
                carried.insert_raw(id, settings.to_owned());
            }
        }
    }
    carried
}

/// What of a capability's changes can be listened for: whatever any upstream tells of.
fn changes(declared: &[Object], capability: &str) -> Object {
    let told = |flag: &str| {
        declared.iter().any(|capabilities| {
            let declared = capabilities.get_object(capability);
            declared.is_some_and(|declared| {
                declared.is_ok_and(|declared| {
                    declared
                        .get(flag)
                        .is_some_and(|value| value.get() == "true")
                })
            })
        })
    };
    let flags: &[&str] = match capability {
        "tools" | "prompts" => &["listChanged"],
        "resources" => &["subscribe", "listChanged"],
        _ => &[],
    };
    let mut changes = Object::new();
    for flag in flags.iter().filter(|flag| told(flag)) {
        changes.insert(flag, &true);
    }
    changes
}

/// The upstreams' instructions, each under its name where there are several.
fn instructions(facts: &[Rc<Facts>]) -> Option<String> {
    let told: Vec<(&str, &str)> = facts
        .iter()
        .filter_map(|facts| Some((facts.upstream.as_str(), facts.instructions.as_deref()?)))
        .collect();
    match told.as_slice() {
        [] => None,
        [(_, text)] if facts.len() == 1 => Some((*text).to_owned()),
        several => Some(
            several
                .iter()
                .map(|(name, text)| format!("## {name}\n{text}"))
                .collect::<Vec<_>>()
                .join("\n\n"),
        ),
    }
}
