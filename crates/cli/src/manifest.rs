//! Whether a `spin.toml` gives its components what a configuration needs: Spin fixes at
//! deployment where a component may send requests and which secrets it can read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::Failure;
use crate::finding::{self, Finding};
use crate::load::Loaded;

/// Addresses in these members are compared or advertised, never fetched.
const NOT_FETCHED: [&str; 4] = ["publicUrl", "allowedOrigins", "issuer", "audiences"];

#[derive(Deserialize)]
struct Manifest {
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Component {
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// What the manifest at `path` lacks for this configuration.
pub fn check(path: &Path, loaded: &Loaded) -> Result<Vec<Finding>, Failure> {
    let unusable = |reason: String| Failure::Usage(format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let manifest: Manifest = toml::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    let mut needs = Vec::new();
    walk(&serde_json::to_value(&loaded.config)?, "", &mut needs);
    let mut findings = Vec::new();
    // Each of them calls upstreams: one answers clients, another works on the queue.
    for (id, component) in &manifest.component {
        for (pointer, need) in &needs {
            let Some((lack, remedy)) = component.lacks(need) else {
                continue;
            };
            findings.push(Finding {
                place: loaded.place(pointer),
                pointer: pointer.clone(),
                message: format!("{}: the component {id:?} {lack}", path.display()),
                remedy,
            });
        }
    }
    Ok(findings)
}

impl Component {
    /// What it is not given of what is needed, and what to do about it.
    fn lacks(&self, need: &Need) -> Option<(String, String)> {
        match need {
            Need::Host(url) => {
                let hosts = &self.allowed_outbound_hosts;
                let origin = url.origin().ascii_serialization();
                (!hosts.iter().any(|pattern| allows(pattern, url))).then(|| {
                    (
                        format!("may not reach {origin}"),
                        format!("add \"{origin}\" to its allowed_outbound_hosts"),
                    )
                })
            }
            Need::Secret(secret) => (!self.variables.contains_key(secret)).then(|| {
                (
                    format!("has no variable `{secret}`"),
                    format!(
                        "define it under [variables] and add {secret} = \"{{{{ {secret} }}}}\" to the component's"
                    ),
                )
            }),
        }
    }
}

/// Something a configuration needs of its host.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    Host(Url),
    /// By its name as a Spin variable.
    Secret(String),
}

/// Everything `value` needs, with the pointer to where it says so.
fn walk(value: &Value, pointer: &str, needs: &mut Vec<(String, Need)>) {
    match value {
        Value::String(text) => needs.extend(need(text).map(|need| (pointer.to_owned(), need))),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{pointer}/{index}"), needs);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                if !NOT_FETCHED.contains(&name.as_str()) {
                    walk(
                        member,
                        &format!("{pointer}/{}", finding::escape(name)),
                        needs,
                    );
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn need(text: &str) -> Option<Need> {
    if let Some(name) = text.strip_prefix("${secret:") {
        let name = name.strip_suffix('}')?;
        return Some(Need::Secret(name.to_ascii_lowercase()));
    }
    let url = Url::parse(text).ok()?;
    matches!(url.scheme(), "http" | "https").then_some(Need::Host(url))
}

/// Whether one entry of `allowed_outbound_hosts` covers an address. What is written in
/// another way than `SCHEME://HOST[:PORT]`, with `*` for a whole part or for a host's first
/// labels, is taken to cover nothing.
fn allows(pattern: &str, url: &Url) -> bool {
    let Some((scheme, rest)) = pattern.split_once("://") else {
        return false;
    };
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (rest, None),
    };
    let named = url.host_str().unwrap_or_default();
    let host_fits = match host.strip_prefix('*') {
        Some(domain) => domain.is_empty() || (domain.starts_with('.') && named.ends_with(domain)),
        None => host.eq_ignore_ascii_case(named),
    };
    let port_fits = match port {
        Some("*") => true,
        Some(port) => port.parse().ok() == url.port_or_known_default(),
        None => scheme == "*" || url.port().is_none(),
    };
    host_fits && port_fits && (scheme == "*" || scheme == url.scheme())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_covers_what_spin_would_let_through() {
        for (pattern, url, covered) in [
            (
                "https://api.example.com",
                "https://api.example.com/mcp",
                true,
            ),
            (
                "https://api.example.com",
                "https://api.example.com:8443/",
                false,
            ),
            ("https://api.example.com", "http://api.example.com/", false),
            ("https://*.example.com", "https://api.example.com/", true),
            ("https://*.example.com", "https://example.com/", false),
            ("http://127.0.0.1:*", "http://127.0.0.1:8080/", true),
            ("http://[::1]:8080", "http://[::1]:8080/", true),
            ("*://*:*", "https://anything.example/", true),
            ("api.example.com", "https://api.example.com/", false),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(allows(pattern, &url), covered, "{pattern} {url}");
        }
    }

    #[test]
    fn what_is_fetched_and_every_secret_is_needed_and_nothing_else() {
        let config = json!({
            "publicUrl": "https://mcp.example.com",
            "allowedOrigins": ["https://console.example.com"],
            "authentication": { "issuers": [
                { "issuer": "https://login.example.com", "jwksUri": "https://keys.example.com/jwks" },
            ] },
            "upstreams": [{ "name": "a", "url": "https://a.example.com/mcp",
                "credentials": { "token": "${secret:A_TOKEN}" } }],
        });
        let mut needs = Vec::new();
        walk(&config, "", &mut needs);
        let pointers: Vec<&str> = needs.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/authentication/issuers/0/jwksUri",
                "/upstreams/0/url",
                "/upstreams/0/credentials/token",
            ]
        );
        assert_eq!(needs[2].1, Need::Secret("a_token".to_owned()));
    }
}
