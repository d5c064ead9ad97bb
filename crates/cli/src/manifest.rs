//! Whether a `spin.toml` gives its components what a configuration needs: Spin fixes at
//! deployment where a component may send requests and which secrets it can read. And whether
//! the configuration asks for what Spin has not got.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use crate::Failure;
use crate::finding::{self, Finding};
use crate::load::Loaded;

/// Addresses in these members are compared, advertised, opened by browsers or said to a tool,
/// never fetched. An issuer's own is, where it has to say more ([`discovered`]).
const NOT_FETCHED: [&str; 11] = [
    "allowedOrigins",
    "arguments",
    "audience",
    "audiences",
    "authorizationEndpoint",
    "issuer",
    "metadata",
    "policy",
    "publicUrl",
    "requiredClaims",
    "resource",
];

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
    let config = serde_json::to_value(&loaded.config)?;
    let mut needs = Vec::new();
    walk(&config, "", &mut needs);
    let finding = |pointer: &str, message: String, remedy: String| Finding {
        place: loaded.place(pointer),
        pointer: pointer.to_owned(),
        message,
        remedy,
    };
    let mut findings: Vec<_> = locked_out(&config)
        .into_iter()
        .map(|(pointer, message, remedy)| finding(&pointer, message.into(), remedy.into()))
        .collect();
    needs.retain(|(pointer, need)| {
        let Need::Secret(name) = need else {
            return true;
        };
        let possible = is_variable(name);
        if !possible {
            let message = format!("no Spin variable can be called `{name}`");
            let remedy = format!(
                "call the secret {}: each word between underscores begins with a letter",
                renamed(name)
            );
            findings.push(finding(pointer, message, remedy));
        }
        possible
    });
    // Each of them calls upstreams: one answers clients, another works on the queue.
    for (id, component) in &manifest.component {
        for (pointer, need) in &needs {
            let Some((lack, remedy)) = component.lacks(need) else {
                continue;
            };
            let message = format!("{}: the component {id:?} {lack}", path.display());
            findings.push(finding(pointer, message, remedy));
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

/// What lets nobody in, because it asks of each client what Spin does not tell.
fn locked_out(config: &Value) -> Vec<(String, &'static str, &'static str)> {
    let mut findings = Vec::new();
    let issuers = config.pointer("/authentication/issuers");
    let issuers = issuers.and_then(Value::as_array).into_iter().flatten();
    for (index, issuer) in issuers.enumerate() {
        if issuer["mtls"] == "require" {
            findings.push((
                format!("/authentication/issuers/{index}/mtls"),
                "Spin tells nothing of clients' certificates, so no token of this issuer would be accepted",
                "bind its tokens by `dpop`, or leave `mtls` off",
            ));
        }
    }
    let countries = config.pointer("/edge/countries/allow");
    if countries.is_some_and(|allowed| allowed != &Value::Array(Vec::new())) {
        findings.push((
            "/edge/countries/allow".to_owned(),
            "Spin tells no client's country, so nobody would be let in",
            "remove it, or say by `edge.addresses` who may come",
        ));
    }
    findings
}

/// Whether Spin takes this as a variable's name: words between underscores, each beginning
/// with a letter (its manifest's `SnakeId`).
fn is_variable(name: &str) -> bool {
    name.split('_')
        .all(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
}

/// A name Spin takes that is as much like this one as can be.
fn renamed(name: &str) -> String {
    let mut renamed = String::new();
    for word in name.split('_').filter(|word| !word.is_empty()) {
        if !renamed.is_empty() && word.starts_with(|first: char| first.is_ascii_lowercase()) {
            renamed.push('_');
        }
        renamed.push_str(word);
    }
    renamed.to_ascii_uppercase()
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
            if let Some(url) = discovered(members) {
                needs.push((format!("{pointer}/issuer"), Need::Host(url)));
            }
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

/// The issuer in these members, where its metadata is asked for: by an upstream's credentials
/// that do not say where tokens are, and of those whose tokens are accepted where its keys
/// are not named or people sign in.
fn discovered(members: &Map<String, Value>) -> Option<Url> {
    let has = |name: &str| members.get(name).is_some_and(|value| !value.is_null());
    let known = match has("grant") {
        true => has("tokenEndpoint"),
        false => has("jwksUri") && !has("signIn"),
    };
    let issuer = members.get("issuer").filter(|_| !known)?.as_str()?;
    Url::parse(issuer).ok()
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
        // Spin knows no port of every scheme, and takes no such manifest.
        None => scheme != "*" && url.port().is_none(),
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
            ("*://anything.example", "https://anything.example/", false),
            ("api.example.com", "https://api.example.com/", false),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(allows(pattern, &url), covered, "{pattern} {url}");
        }
    }

    #[test]
    fn what_is_fetched_and_every_secret_is_needed_and_nothing_else() {
        let config = json!({
            "metadata": { "contact": "https://team.example.com" },
            "publicUrl": "https://mcp.example.com",
            "allowedOrigins": ["https://console.example.com"],
            "authentication": { "issuers": [
                { "issuer": "https://login.example.com", "jwksUri": "https://keys.example.com/jwks",
                    "requiredClaims": { "tenant": "https://tenant.example.com" } },
                { "issuer": "https://found.example.com" },
                { "issuer": "https://people.example.com", "jwksUri": "https://keys.example.com/people",
                    "signIn": { "clientId": "tidegate" } },
            ] },
            "policy": { "rules": [{ "resources": ["https://docs.example.com/*"] }] },
            "upstreams": [
                { "name": "a", "url": "https://a.example.com/mcp",
                    "probe": { "tool": "fetch", "arguments": { "url": "https://example.com",
                        "deep": { "issuer": "https://issuer.example.com" }, "key": "${secret:NO}" } },
                    "credentials": { "token": "${secret:A_TOKEN}" } },
                { "name": "b", "url": "https://b.example.com/mcp", "credentials": {
                    "grant": "exchange", "issuer": "https://as.example.com",
                    "resource": "https://b.example.net", "audience": "https://b.example.org" } },
                { "name": "c", "url": "https://c.example.com/mcp", "credentials": {
                    "grant": "user", "issuer": "https://other.example.com",
                    "tokenEndpoint": "https://tokens.example.com",
                    "authorizationEndpoint": "https://consent.example.com" } },
            ],
        });
        let mut needs = Vec::new();
        walk(&config, "", &mut needs);
        let mut pointers: Vec<&str> = needs.iter().map(|(pointer, _)| pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(
            pointers,
            [
                "/authentication/issuers/0/jwksUri",
                "/authentication/issuers/1/issuer",
                "/authentication/issuers/2/issuer",
                "/authentication/issuers/2/jwksUri",
                "/upstreams/0/credentials/token",
                "/upstreams/0/url",
                "/upstreams/1/credentials/issuer",
                "/upstreams/1/url",
                "/upstreams/2/credentials/tokenEndpoint",
                "/upstreams/2/url",
            ]
        );
        let secret = Need::Secret("a_token".to_owned());
        assert!(needs.iter().any(|(_, need)| *need == secret));
    }

    #[test]
    fn a_name_spin_does_not_take_is_like_one_it_does() {
        for (name, like) in [
            ("api_key_2", "API_KEY2"),
            ("a__b_", "A_B"),
            ("api_2_key", "API2_KEY"),
        ] {
            assert!(!is_variable(name), "{name}");
            assert_eq!(renamed(name), like);
            assert!(is_variable(&like.to_ascii_lowercase()), "{like}");
        }
        assert!(is_variable("api_key2"));
    }

    #[test]
    fn what_asks_of_clients_what_spin_does_not_tell_lets_nobody_in() {
        let of = |config: Value| {
            let findings = locked_out(&config).into_iter();
            findings.map(|(pointer, ..)| pointer).collect::<Vec<_>>()
        };
        let issuers = json!([{ "mtls": "accept" }, { "mtls": "require" }]);
        let countries = json!({ "allow": ["DE"], "deny": ["FR"] });
        let told = of(
            json!({ "authentication": { "issuers": issuers }, "edge": { "countries": countries } }),
        );
        assert_eq!(
            told,
            ["/authentication/issuers/1/mtls", "/edge/countries/allow"]
        );
        let fine = json!({ "countries": { "allow": [], "deny": ["FR"] } });
        assert!(of(json!({ "authentication": { "type": "none" }, "edge": fine })).is_empty());
    }
}
