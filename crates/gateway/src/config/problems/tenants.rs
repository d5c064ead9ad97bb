//! Tenants: where they are found, and which upstreams are theirs.

use std::collections::BTreeSet;

use url::Url;

use super::Findings;
use crate::config::address::is_internal;
use crate::config::bounds::{TENANT_PATH_MAX, TENANTS_MAX};
use crate::config::{Authentication, Config, Tenant};

pub(super) fn tenants(config: &Config, findings: &mut Findings) {
    findings.at_most("/tenants", config.tenants.len(), TENANTS_MAX, "tenants");
    let (mut names, mut hosts, mut paths) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, tenant) in config.tenants.iter().enumerate() {
        let at = format!("/tenants/{index}");
        findings.short_text(&format!("{at}/name"), &tenant.name);
        let taken = [
            ("name", !names.insert(&tenant.name)),
            (
                "host",
                tenant.host.as_ref().is_some_and(|host| !hosts.insert(host)),
            ),
            (
                "path",
                tenant.path.as_ref().is_some_and(|path| !paths.insert(path)),
            ),
        ];
        for (member, _) in taken.iter().filter(|(_, taken)| *taken) {
            let remedy = "give each tenant its own";
            findings.add(format!("{at}/{member}"), "is another tenant's", remedy);
        }
        place(&at, tenant, config, findings);
    }
    let mut listed = |at: String, tenants: &[String]| {
        for (entry, name) in tenants.iter().enumerate() {
            if !names.contains(name) {
                findings.add(
                    format!("{at}/tenants/{entry}"),
                    "names a tenant that is not listed",
                    "list it under `tenants`; its name is enough",
                );
            }
        }
    };
    if let Authentication::Jwt { issuers, .. } = &config.authentication {
        for (index, issuer) in issuers.iter().enumerate() {
            listed(format!("/authentication/issuers/{index}"), &issuer.tenants);
        }
    }
    for (index, upstream) in config.upstreams.iter().enumerate() {
        listed(format!("/upstreams/{index}"), &upstream.tenants);
    }
}

fn place(at: &str, tenant: &Tenant, config: &Config, findings: &mut Findings) {
    if let Some(host) = &tenant.host {
        let pointer = format!("{at}/host");
        let url = Url::parse(&format!("{}://{host}/", config.public_url.scheme())).ok();
        let exact = |url: &Url| authority(url) == *host;
        match url.filter(exact) {
            None => findings.add(
                pointer,
                "is not a host",
                "write it in lower case, such as acme.mcp.example.com, with a port only if it is not the usual one",
            ),
            Some(url) if authority(&url) == authority(&config.public_url) => findings.add(
                pointer,
                "is the gateway's own host",
                "give the tenant a host of its own, or use `path`",
            ),
            Some(url) if !findings.dev && is_internal(&url) => findings.add(
                pointer,
                "only means something inside a network",
                "use the public host name clients reach",
            ),
            Some(_) => {}
        }
    }
    if let Some(path) = &tenant.path {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let parts = path
            .split('-')
            .all(|part| !part.is_empty() && part.bytes().all(plain));
        if !parts || path.len() > TENANT_PATH_MAX {
            findings.add(
                format!("{at}/path"),
                "is not a path a tenant can have",
                "use lower-case letters, digits and single hyphens",
            );
        }
    }
}

/// Host and, where it is not the usual one, port.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
