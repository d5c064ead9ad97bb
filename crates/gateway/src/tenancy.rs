//! Whose part of the gateway a request was sent to, by its host or its path.
//!
//! Each such part is a protected resource of its own: tokens name its URL as their audience,
//! and its metadata is found below it. Of a host nobody has configured, and of a path no
//! tenant has, nothing is said that is not said of any path that does not exist. Tenants by
//! claim alone are found nowhere here: they share the endpoints of the gateway.

use std::collections::BTreeMap;
use std::rc::Rc;

use http::Request;
use http::header::HOST;
use url::Url;

use crate::auth::metadata::WELL_KNOWN;
use crate::body::Body;
use crate::config::Config;

/// What the path of a tenant's endpoints begins with.
const PREFIX: &str = "/t/";

/// The part of the gateway that is one tenant's.
#[derive(Debug, PartialEq, Eq)]
pub struct Site {
    /// Whose it is.
    pub tenant: String,
    /// Its origin, without a slash at the end.
    pub origin: String,
    /// Its host, if it has one of its own.
    pub host: Option<String>,
    /// What its paths begin with: nothing, or `/t/{path}`.
    pub prefix: String,
}

/// A path within the gateway, or within a tenant's part of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose part, if it is one's.
    pub site: Option<Rc<Site>>,
    /// The path within it.
    pub path: String,
}

/// Every tenant's part.
#[derive(Debug, Default)]
pub struct Sites {
    hosts: BTreeMap<String, Rc<Site>>,
    paths: BTreeMap<String, Rc<Site>>,
    /// The gateway's own host, and the port that is not written with its scheme.
    own: String,
    unwritten: &'static str,
}

impl Sites {
    /// What the configuration says.
    pub fn of(config: &Config) -> Self {
        let public = &config.public_url;
        let origin = public.as_str().trim_end_matches('/');
        let mut sites = Self {
            own: authority(public),
            unwritten: if public.scheme() == "https" {
                ":443"
            } else {
                ":80"
            },
            ..Self::default()
        };
        for tenant in &config.tenants {
            if let Some(host) = &tenant.host {
                let site = Site {
                    tenant: tenant.name.clone(),
                    origin: format!("{}://{host}", public.scheme()),
                    host: Some(host.clone()),
                    prefix: String::new(),
                };
                sites.hosts.insert(host.clone(), Rc::new(site));
            }
            if let Some(path) = &tenant.path {
                let site = Site {
                    tenant: tenant.name.clone(),
                    origin: origin.to_owned(),
                    host: None,
                    prefix: format!("{PREFIX}{path}"),
                };
                sites.paths.insert(path.clone(), Rc::new(site));
            }
        }
        sites
    }

    /// Where a request was sent, `path` being its path without a slash at the end; `None` if
    /// it was sent to a host that is not served.
    pub fn place(&self, request: &Request<Body>, path: &str) -> Option<Place> {
        if !self.hosts.is_empty() {
            let host = self.host(request)?;
            if host != self.own {
                let site = Some(Rc::clone(self.hosts.get(&host)?));
                let path = path.to_owned();
                return Some(Place { site, path });
            }
        }
        Some(self.below(path).unwrap_or_else(|| Place {
            site: None,
            path: path.to_owned(),
        }))
    }

    /// The tenant's place a path names.
    fn below(&self, path: &str) -> Option<Place> {
        let (before, named) = match path.strip_prefix(WELL_KNOWN) {
            Some(named) => (WELL_KNOWN, named),
            None => ("", path),
        };
        let named = named.strip_prefix(PREFIX)?;
        let (segment, rest) = named.split_at(named.find('/')?);
        let site = Some(Rc::clone(self.paths.get(segment)?));
        let path = format!("{before}{rest}");
        Some(Place { site, path })
    }

    /// The host a request was sent to. Where the request says it twice it must say the same.
    fn host(&self, request: &Request<Body>) -> Option<String> {
        let mut said = request.headers().get_all(HOST).iter();
        let header = match said.next() {
            Some(value) => Some(self.written(value.to_str().ok()?)),
            None => None,
        };
        let uri = request.uri().authority();
        let uri = uri.map(|authority| self.written(authority.as_str()));
        let agreed = match (uri, header) {
            (Some(uri), Some(header)) => (uri == header).then_some(uri),
            (uri, header) => uri.or(header),
        };
        agreed.filter(|_| said.next().is_none())
    }

    /// An authority as configurations write it.
    fn written(&self, authority: &str) -> String {
        let lower = authority.to_ascii_lowercase();
        let plain = lower.strip_suffix(self.unwritten).unwrap_or(&lower);
        plain.strip_suffix('.').unwrap_or(plain).to_owned()
    }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sites(tenants: &Value) -> Sites {
        let config = json!({
            "apiVersion": "tidegate/v1",
            "kind": "Gateway",
            "metadata": { "name": "edge" },
            "publicUrl": "https://mcp.example.com",
            "authentication": { "type": "none" },
            "upstreams": [],
            "tenants": tenants,
        });
        Sites::of(&serde_json::from_value(config).unwrap())
    }

    #[test]
    fn a_request_is_placed_by_its_host_and_its_path() {
        let sites = sites(&json!([
            { "name": "Acme", "host": "acme.mcp.example.com", "path": "acme" },
            { "name": "globex", "path": "globex" },
        ]));
        let well_known = format!("{WELL_KNOWN}/t/globex/servers/x/mcp");
        // Host and path as sent; whose place and which path there.
        let rows = [
            ("mcp.example.com", "/mcp", Some(("", "/mcp"))),
            ("MCP.example.com:443", "/mcp", Some(("", "/mcp"))),
            ("mcp.example.com.", "/mcp", Some(("", "/mcp"))),
            ("acme.mcp.example.com", "/mcp", Some(("Acme", "/mcp"))),
            ("ACME.mcp.example.com", "/mcp", Some(("Acme", "/mcp"))),
            (
                "acme.mcp.example.com",
                "/t/globex/mcp",
                Some(("Acme", "/t/globex/mcp")),
            ),
            ("mcp.example.com", "/t/acme/mcp", Some(("Acme", "/mcp"))),
            ("mcp.example.com", "/t/globex/sse", Some(("globex", "/sse"))),
            ("mcp.example.com", "/t/globex", Some(("", "/t/globex"))),
            (
                "mcp.example.com",
                "/t/GLOBEX/mcp",
                Some(("", "/t/GLOBEX/mcp")),
            ),
            (
                "mcp.example.com",
                "/t/other/mcp",
                Some(("", "/t/other/mcp")),
            ),
            (
                "mcp.example.com",
                &well_known,
                Some((
                    "globex",
                    "/.well-known/oauth-protected-resource/servers/x/mcp",
                )),
            ),
            ("other.mcp.example.com", "/mcp", None),
            ("acme.mcp.example.com:8443", "/mcp", None),
            ("acme.mcp.example.com.evil.example.net", "/mcp", None),
        ];
        for (host, path, expected) in rows {
            let mut request = Request::new(Body::empty());
            request.headers_mut().insert(HOST, host.parse().unwrap());
            let place = sites.place(&request, path);
            let found = place.as_ref().map(|place| {
                let tenant = place.site.as_ref().map_or("", |site| &site.tenant);
                (tenant, place.path.as_str())
            });
            assert_eq!(found, expected, "{host} {path}");
        }
    }

    #[test]
    fn a_request_that_says_two_hosts_is_sent_to_none() {
        let sites = sites(&json!([{ "name": "a", "host": "a.example.com" }]));
        let sent = |uri: &str, hosts: &[&str]| {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = uri.parse().unwrap();
            for host in hosts {
                request.headers_mut().append(HOST, host.parse().unwrap());
            }
            sites.place(&request, "/mcp").is_some()
        };
        assert!(sent("https://a.example.com/mcp", &["a.example.com"]));
        assert!(sent("https://a.example.com/mcp", &[]));
        assert!(!sent("https://a.example.com/mcp", &["mcp.example.com"]));
        assert!(!sent("/mcp", &["a.example.com", "a.example.com"]));
        assert!(!sent("/mcp", &[]));
    }
}
