//! The MCP servers behind the gateway: names, addresses and what is shown to them.

use std::collections::BTreeSet;

use http::HeaderName;

use super::{Findings, oauth};
use crate::config::bounds::{TIMEOUT_MS, UPSTREAM_NAME_MAX, UPSTREAMS_MAX};
use crate::config::{Config, Credentials, SecretRef};

pub(super) fn upstreams(config: &Config, findings: &mut Findings) {
    findings.at_most(
        "/upstreams",
        config.upstreams.len(),
        UPSTREAMS_MAX,
        "upstreams",
    );
    if config.upstreams.is_empty() {
        findings.add(
            "/upstreams",
            "is empty, so the gateway has nothing to offer",
            "list at least one MCP server",
        );
    }
    let mut seen = BTreeSet::new();
    for (index, upstream) in config.upstreams.iter().enumerate() {
        let at = format!("/upstreams/{index}");
        let name = format!("{at}/name");
        if !is_upstream_name(&upstream.name) {
            findings.add(
                &name,
                "is not a name an upstream can have",
                format!(
                    "use lower-case letters, digits and single hyphens, a letter first, at most {UPSTREAM_NAME_MAX} \
                     characters"
                ),
            );
        }
        if !seen.insert(&upstream.name) {
            findings.add(
                name,
                "is the name of two upstreams",
                "rename one; names prefix tools and form paths",
            );
        }
        let url = format!("{at}/url");
        findings.server_url(&url, &upstream.url);
        if upstream.url.origin() == config.public_url.origin() {
            findings.add(
                url,
                "is the gateway's own address",
                "use the address of the MCP server behind it",
            );
        }
        findings.within(
            &format!("{at}/timeoutMs"),
            upstream.timeout_ms,
            &TIMEOUT_MS,
            "ms",
        );
        super::resilience::upstream(&at, upstream, config, findings);
        credentials(
            &format!("{at}/credentials"),
            &upstream.credentials,
            config,
            findings,
        );
    }
}

/// `[a-z][a-z0-9]*(-[a-z0-9]+)*`, at most [`UPSTREAM_NAME_MAX`] bytes.
fn is_upstream_name(name: &str) -> bool {
    name.len() <= UPSTREAM_NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('-').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

fn credentials(at: &str, credentials: &Credentials, config: &Config, findings: &mut Findings) {
    match credentials {
        Credentials::None => {}
        Credentials::Bearer { token } => secret(format!("{at}/token"), token, findings),
        Credentials::Header { name, value } => {
            header_name(format!("{at}/name"), name, findings);
            secret(format!("{at}/value"), value, findings);
        }
        Credentials::OAuth(members) => oauth::oauth(at, members, config, findings),
    }
}

pub(super) fn secret(pointer: String, reference: &SecretRef, findings: &mut Findings) {
    if reference.name().is_none() {
        findings.add(
            pointer,
            "is not a reference to a secret; plain text is never read from a configuration",
            "store it with `wrangler secret put NAME` and write ${secret:NAME} here; NAME is upper-case letters, \
             digits and underscores",
        );
    }
}

/// Headers the gateway or its HTTP stack writes itself. `mcp-*` and `proxy-*` are refused too.
const RESERVED_HEADERS: [&str; 22] = [
    "accept",
    "accept-encoding",
    "baggage",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "last-event-id",
    "origin",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

fn header_name(pointer: String, name: &str, findings: &mut Findings) {
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        return findings.add(
            pointer,
            "is not a header name",
            "use letters, digits and hyphens, such as X-Api-Key",
        );
    };
    let header = header.as_str();
    if header == "authorization" {
        findings.add(
            pointer,
            "is set by credentials of type bearer",
            "use type bearer, or the header the server reads",
        );
    } else if RESERVED_HEADERS.contains(&header)
        || header.starts_with("mcp-")
        || header.starts_with("proxy-")
    {
        findings.add(
            pointer,
            "is a header the gateway or HTTP itself writes",
            "use the header the server reads its key from, such as X-Api-Key",
        );
    }
}
