//! Protected resource metadata (RFC 9728): what a client reads to find out whose tokens
//! this gateway takes. Public; it holds nothing of the configuration but what it must.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Resource;
use crate::config::{Algorithm, Authentication, Binding, Config, Issuer, NAME_SEPARATOR, ToolRule};

/// Where metadata lives; the endpoint's own path follows (RFC 9728 section 3.1).
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The metadata document of one endpoint.
pub fn document(config: &Config, resource: &Resource) -> Value {
    let mut document = json!({
        "resource": resource.url,
        "bearer_methods_supported": ["header"],
        "resource_name": config.metadata.name,
    });
    if let Some(members) = document.as_object_mut() {
        let issuers = issuers(config, resource.tenant.as_deref());
        let servers: Vec<_> = issuers.iter().map(|issuer| &issuer.issuer).collect();
        if !servers.is_empty() {
            members.insert("authorization_servers".to_owned(), json!(servers));
        }
        let scopes = scopes(config, resource);
        if !scopes.is_empty() {
            members.insert("scopes_supported".to_owned(), json!(scopes));
        }
        bindings(&issuers, members);
    }
    document
}

/// Those whose tokens may be good there. Of others nobody is told.
pub(super) fn issuers<'a>(config: &'a Config, tenant: Option<&str>) -> Vec<&'a Issuer> {
    let issuers = match &config.authentication {
        Authentication::Jwt { issuers, .. } => issuers.as_slice(),
        Authentication::None => &[],
    };
    let known = issuers.iter().filter(|issuer| issuer.is_known_at(tenant));
    known.collect()
}

/// What tokens may or must be bound to (RFC 9728 section 2).
fn bindings(issuers: &[&Issuer], members: &mut Map<String, Value>) {
    if issuers.iter().any(|issuer| !issuer.dpop.is_off()) {
        let algorithms = Algorithm::ALL.map(Algorithm::name);
        members.insert(
            "dpop_signing_alg_values_supported".to_owned(),
            json!(algorithms),
        );
    }
    let required = |issuer: &&Issuer| issuer.dpop == Binding::Require;
    if !issuers.is_empty() && issuers.iter().all(required) {
        members.insert(
            "dpop_bound_access_tokens_required".to_owned(),
            Value::Bool(true),
        );
    }
    if issuers.iter().any(|issuer| !issuer.mtls.is_off()) {
        members.insert(
            "tls_client_certificate_bound_access_tokens".to_owned(),
            Value::Bool(true),
        );
    }
}

/// Every scope a tool reachable through the endpoint asks for.
pub(super) fn scopes(config: &Config, resource: &Resource) -> BTreeSet<String> {
    let upstream = upstream_of(&resource.url);
    // Whose upstream another tenant may not know of says no scopes here.
    let hidden: BTreeSet<&str> = config
        .upstreams
        .iter()
        .filter(|upstream| !upstream.is_seen_by(resource.tenant.as_deref()))
        .map(|upstream| upstream.name.as_str())
        .collect();
    let reachable = |name: &str| {
        let of = name.split_once(NAME_SEPARATOR).map(|(prefix, _)| prefix);
        of.is_some_and(|of| !hidden.contains(of) && upstream.is_none_or(|upstream| upstream == of))
    };
    let rules = config.tools.iter().filter(|rule| reachable(&rule.name));
    rules.flat_map(ToolRule::scopes).cloned().collect()
}

fn upstream_of(url: &str) -> Option<&str> {
    let (servers, name) = url.strip_suffix("/mcp")?.rsplit_once('/')?;
    servers.ends_with("/servers").then_some(name)
}

/// The endpoint path a metadata path is about: `/mcp` for the well-known root and for
/// `…/mcp`, `/servers/x/mcp` for `…/servers/x/mcp`. Whether `x` exists is not looked at.
pub fn resource_path(path: &str) -> Option<String> {
    let endpoint = path.strip_prefix(WELL_KNOWN)?;
    let endpoint = endpoint.strip_suffix('/').unwrap_or(endpoint);
    match endpoint {
        "" | "/mcp" => Some("/mcp".to_owned()),
        _ => {
            let name = endpoint.strip_prefix("/servers/")?.strip_suffix("/mcp")?;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            (!name.is_empty() && name.chars().all(plain)).then(|| endpoint.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metadata_path_names_its_endpoint() {
        let cases = [
            ("/.well-known/oauth-protected-resource", Some("/mcp")),
            ("/.well-known/oauth-protected-resource/", Some("/mcp")),
            ("/.well-known/oauth-protected-resource/mcp", Some("/mcp")),
            ("/.well-known/oauth-protected-resource/mcp/", Some("/mcp")),
            (
                "/.well-known/oauth-protected-resource/servers/search/mcp",
                Some("/servers/search/mcp"),
            ),
            ("/.well-known/oauth-protected-resource/servers//mcp", None),
            (
                "/.well-known/oauth-protected-resource/servers/a/b/mcp",
                None,
            ),
            ("/.well-known/oauth-protected-resource/servers/../mcp", None),
            (
                "/.well-known/oauth-protected-resource/servers/%2e/mcp",
                None,
            ),
            ("/.well-known/oauth-protected-resource/other", None),
            ("/.well-known/oauth-protected-resourcery", None),
            ("/.well-known/oauth-authorization-server", None),
            ("/mcp", None),
        ];
        for (path, expected) in cases {
            assert_eq!(resource_path(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_document_names_the_exact_resource_its_issuers_and_the_scopes_within_reach() {
        let config = config();
        let document_at = |path: &str| document(&config, &Resource::of(&config, path));
        assert_eq!(
            document_at("/mcp"),
            json!({
                "resource": "https://gw.example/mcp",
                "bearer_methods_supported": ["header"],
                "resource_name": "edge",
                "authorization_servers": ["https://login.example", "https://other.example/realm"],
                "scopes_supported": ["files:read", "files:write", "web"],
            })
        );
        let files = document_at("/servers/files/mcp");
        assert_eq!(files["resource"], "https://gw.example/servers/files/mcp");
        assert_eq!(
            files["scopes_supported"],
            json!(["files:read", "files:write"])
        );
        assert_eq!(
            document_at("/servers/clock/mcp").get("scopes_supported"),
            None
        );
    }

    #[test]
    fn where_nobody_is_asked_no_authorization_server_is_named() {
        let mut config = config();
        config.authentication = Authentication::None;
        assert_eq!(
            document(&config, &Resource::of(&config, "/mcp")).get("authorization_servers"),
            None
        );
    }

    fn config() -> Config {
        let upstream =
            |name: &str| json!({ "name": name, "url": format!("https://{name}.example/mcp") });
        serde_json::from_value(json!({
            "apiVersion": "tidegate/v1",
            "kind": "Gateway",
            "metadata": { "name": "edge" },
            "publicUrl": "https://gw.example",
            "authentication": { "type": "jwt", "issuers": [
                { "issuer": "https://login.example", "jwksUri": "https://login.example/keys" },
                { "issuer": "https://other.example/realm", "jwksUri": "https://other.example/keys" },
            ] },
            "upstreams": [upstream("files"), upstream("search"), upstream("clock")],
            "tools": [
                { "name": "files__write", "requiredScopes": ["files:write", "files:read"] },
                { "name": "files__*", "requiredScopes": ["files:read"] },
                { "name": "search__web", "requiredScopes": ["web"] },
            ],
        }))
        .unwrap()
    }
}
