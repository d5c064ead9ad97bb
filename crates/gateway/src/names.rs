//! How one upstream's names and URIs are shown among many, and back.
//!
//! Tools and prompts: `upstream__name`. Resources: `upstream+uri`, which keeps every URI
//! and RFC 6570 template valid, since configured names are valid scheme prefixes.

use tidegate_mcp::json::{self, Object};
use tidegate_mcp::method::Method;

use crate::config::{NAME_SEPARATOR, Naming, Upstream};
use crate::ingress::Endpoint;
use crate::settings::Settings;

/// Whether names at this endpoint carry their upstream's.
pub fn prefixed(settings: &Settings, endpoint: &Endpoint) -> bool {
    *endpoint == Endpoint::Every && settings.config.naming == Naming::Prefix
}

/// A tool's or prompt's name as clients see it.
pub fn exposed_name(prefixed: bool, upstream: &str, name: &str) -> String {
    if prefixed {
        format!("{upstream}{NAME_SEPARATOR}{name}")
    } else {
        name.to_owned()
    }
}

/// A resource's URI or template as clients see it.
pub fn exposed_uri(prefixed: bool, upstream: &str, uri: &str) -> String {
    if prefixed {
        format!("{upstream}+{uri}")
    } else {
        uri.to_owned()
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
    let (upstream, uri) = exposed.split_once('+')?;
    settings
        .upstream(upstream)
        .map(|upstream| (upstream, uri.to_owned()))
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
    if let Some(uri) = item
        .get_str("uri")
        .map(|uri| exposed_uri(true, upstream, &uri))
    {
        item.insert("uri", &uri);
    }
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
