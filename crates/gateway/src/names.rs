//! How one upstream's names and URIs are shown among many, and back.
//!
//! Tools and prompts: `upstream__name`. Resources: `upstream+uri`, which keeps every URI
//! and RFC 6570 template valid, since configured names are valid scheme prefixes; only
//! `ui://rest` becomes `ui://upstream+rest`, as hosts of MCP Apps know user interfaces by
//! their scheme.
//!
//! A name longer than [`NAME_MAX`], or with other characters than clients take, is shown
//! shortened, its end a digest of the whole; what it stands for is looked up in the list it
//! is from. Spec: 2026-07-28 server/tools, "Tool names"; MCP Apps 2026-01-26.

use sha2::{Digest, Sha256};
use tidegate_mcp::json::{self, Object};
use tidegate_mcp::meta::META;
use tidegate_mcp::method::Method;

use crate::config::{NAME_SEPARATOR, Naming, Upstream};
use crate::ingress::Endpoint;
use crate::seal::hex;
use crate::settings::Settings;

/// Longest name of a tool or prompt that is shown: what the strictest clients take.
pub const NAME_MAX: usize = 64;
/// Length of the digest at the end of a shortened name. It begins with a letter, so that it
/// is no date.
const DIGEST_LEN: usize = 8;
/// The scheme of user interfaces.
const UI: &str = "ui://";

/// Whether names at this endpoint carry their upstream's.
pub fn prefixed(settings: &Settings, endpoint: &Endpoint) -> bool {
    endpoint.is_every() && settings.config.naming == Naming::Prefix
}

/// A tool's or prompt's name as clients see it.
pub fn exposed_name(prefixed: bool, upstream: &str, name: &str) -> String {
    if prefixed {
        fitting(format!("{upstream}{NAME_SEPARATOR}{name}"))
    } else {
        fitting(name.to_owned())
    }
}

/// The name, if clients take it, or else its shortened form.
fn fitting(name: String) -> String {
    let takes = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.len() <= NAME_MAX && name.chars().all(takes) {
        return name;
    }
    let hash = Sha256::digest(name.as_bytes());
    let letter = char::from(b'a' + hash.first().copied().unwrap_or_default() % 6);
    let mut digest = format!("{letter}{}", hex(hash.get(1..).unwrap_or_default()));
    digest.truncate(DIGEST_LEN);
    let kept = name
        .chars()
        .map(|c| if takes(c) { c } else { '_' })
        .take(NAME_MAX - 1 - digest.len());
    let mut short: String = kept.collect();
    short.push('_');
    short.push_str(&digest);
    short
}

/// Whether a name has the form of a shortened one. Some upstream's own may have it too.
pub fn may_be_short(name: &str) -> bool {
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    name.rsplit_once('_').is_some_and(|(_, digest)| {
        digest.len() == DIGEST_LEN
            && digest.starts_with(|c| matches!(c, 'a'..='f'))
            && digest.bytes().all(is_hex)
    })
}

/// A resource's URI or template as clients see it.
pub fn exposed_uri(prefixed: bool, upstream: &str, uri: &str) -> String {
    match (prefixed, uri.strip_prefix(UI)) {
        (false, _) => uri.to_owned(),
        (true, Some(rest)) => format!("{UI}{upstream}+{rest}"),
        (true, None) => format!("{upstream}+{uri}"),
    }
}

/// The upstream and its own name behind an exposed one.
pub fn split_name<'a>(settings: &'a Settings, exposed: &str) -> Option<(&'a Upstream, String)> {
    let (upstream, name) = exposed.split_once(NAME_SEPARATOR)?;
    settings
        .upstream(upstream)
        .map(|upstream| (upstream, name.to_owned()))
}

/// The upstream and its own URI behind an exposed one.
pub fn split_uri<'a>(settings: &'a Settings, exposed: &str) -> Option<(&'a Upstream, String)> {
    let (scheme, rest) = match exposed.strip_prefix(UI) {
        Some(rest) => (UI, rest),
        None => ("", exposed),
    };
    let (upstream, uri) = rest.split_once('+')?;
    settings
        .upstream(upstream)
        .map(|upstream| (upstream, format!("{scheme}{uri}")))
}

/// Shows the URI of a tool's user interface as clients know it, in either of the two places
/// it may be in.
pub fn expose_tool(upstream: &str, tool: &mut Object) {
    let Some(Ok(mut meta)) = tool.get_object(META) else {
        return;
    };
    let mut changed = expose_member(upstream, &mut meta, "ui/resourceUri");
    if let Some(Ok(mut ui)) = meta.get_object("ui")
        && expose_member(upstream, &mut ui, "resourceUri")
    {
        meta.insert("ui", &ui);
        changed = true;
    }
    if changed {
        tool.insert(META, &meta);
    }
}

/// Shows the URIs in a result as clients know them: what was read, resource links, and
/// embedded resources.
pub fn expose_result(method: Method, upstream: &str, result: &mut Object) {
    if method == Method::ResourcesRead {
        each(result, "contents", |item| expose_uri(upstream, item));
    } else if method == Method::ToolsCall {
        each(result, "content", |block| expose_block(upstream, block));
    } else if method == Method::PromptsGet {
        each(result, "messages", |message| {
            if let Some(Ok(mut block)) = message.get_object("content") {
                expose_block(upstream, &mut block);
                message.insert("content", &block);
            }
        });
    }
}

/// Begins what people are asked by a result that requires input with the name of the
/// upstream that asks.
pub fn say_who_requires(upstream: &str, result: &mut Object) {
    let Some(Ok(mut requests)) = result.get_object("inputRequests") else {
        return;
    };
    let keys: Vec<String> = requests.keys().map(str::to_owned).collect();
    for key in keys {
        if let Some(Ok(mut request)) = requests.get_object(&key)
            && let Some(Ok(mut params)) = request.get_object("params")
        {
            say_who_asks(upstream, &mut params);
            request.insert("params", &params);
            requests.insert(&key, &request);
        }
    }
    result.insert("inputRequests", &requests);
}

/// Begins what a person is asked with the name of the upstream that asks.
pub fn say_who_asks(upstream: &str, params: &mut Object) {
    // Of the three kinds of questions only elicitation has a message.
    if let Some(message) = params.get_str("message") {
        let message = format!("{upstream}: {message}");
        params.insert("message", &message);
    }
}

fn expose_block(upstream: &str, block: &mut Object) {
    match block.get_str("type").as_deref() {
        Some("resource_link") => expose_uri(upstream, block),
        Some("resource") => {
            if let Some(Ok(mut resource)) = block.get_object("resource") {
                expose_uri(upstream, &mut resource);
                block.insert("resource", &resource);
            }
        }
        _ => {}
    }
}

fn expose_uri(upstream: &str, item: &mut Object) {
    expose_member(upstream, item, "uri");
}

fn expose_member(upstream: &str, item: &mut Object, member: &str) -> bool {
    let exposed = item
        .get_str(member)
        .map(|uri| exposed_uri(true, upstream, &uri));
    let Some(exposed) = exposed else {
        return false;
    };
    item.insert(member, &exposed);
    true
}

/// Applies `change` to every object of an array member; anything else stays as it is.
fn each(result: &mut Object, member: &str, mut change: impl FnMut(&mut Object)) {
    let Some(items) = result
        .get(member)
        .and_then(|items| json::elements(items).ok())
    else {
        return;
    };
    let changed: Vec<_> = items
        .into_iter()
        .map(|item| match Object::from_raw(&item) {
            Ok(mut object) => {
                change(&mut object);
                object.to_raw()
            }
            Err(_) => item,
        })
        .collect();
    result.insert(member, &changed);
}
