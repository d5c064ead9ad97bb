//! `allowed_outbound_hosts`: where a component may send requests.
//!
//! `SCHEME://HOST[:PORT]`, as Spin reads it: a scheme or `*`; a host, `*.domain` or `*`; a
//! port, `*`, or nothing for the scheme's own, if it has one. Networks, ranges of ports,
//! `self` and service chaining are not understood and refused at the start.

use hyper::Uri;
use wasmtime::error::Context;
use wasmtime::{Result, bail};

/// What is allowed; nothing else is.
#[derive(Default)]
pub struct Allowed(Vec<Pattern>);

#[derive(Debug, PartialEq, Eq)]
struct Pattern {
    /// `None`: any.
    scheme: Option<String>,
    host: Host,
    /// `None`: any.
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// Everything below a domain; begins with its dot.
    Below(String),
    One(String),
}

impl Allowed {
    /// Reads the patterns of a manifest.
    pub fn parse<T: AsRef<str>>(patterns: &[T]) -> Result<Self> {
        let patterns = patterns.iter().map(|each| Pattern::parse(each.as_ref()));
        patterns.collect::<Result<_>>().map(Self)
    }

    /// Whether a request may be sent there.
    pub fn allows(&self, uri: &Uri) -> bool {
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return false;
        };
        let host = host.to_ascii_lowercase();
        let port = uri.port_u16().or_else(|| usual(scheme));
        self.0.iter().any(|pattern| {
            let fits = match &pattern.host {
                Host::Any => true,
                Host::Below(domain) => host.ends_with(domain.as_str()),
                Host::One(one) => *one == host,
            };
            fits && pattern.scheme.as_deref().is_none_or(|one| one == scheme)
                && pattern.port.is_none_or(|one| Some(one) == port)
        })
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self> {
        let odd = || format!("allowed_outbound_hosts: {text:?} is not understood");
        let (scheme, rest) = text.split_once("://").with_context(odd)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            // The last colon of an address in brackets may be inside.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            Some(_) | None => (rest, None),
        };
        if host.is_empty() || host.contains(['/', '{']) {
            bail!("{}", odd());
        }
        let port = match port {
            Some("*") => None,
            Some(port) => Some(port.parse::<u16>().with_context(odd)?),
            None => Some(usual(scheme).with_context(odd)?),
        };
        let host = host.to_ascii_lowercase();
        Ok(Self {
            scheme: (scheme != "*").then(|| scheme.to_owned()),
            host: match host.strip_prefix('*') {
                Some("") => Host::Any,
                Some(domain) if domain.starts_with('.') => Host::Below(domain.to_owned()),
                Some(_) => bail!("{}", odd()),
                None => Host::One(host),
            },
            port,
        })
    }
}

fn usual(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_only_where_a_pattern_allows_it() {
        for (pattern, uri, allowed) in [
            ("https://api.example.com", "https://api.example.com/x", true),
            ("https://api.example.com", "https://API.example.com/x", true),
            (
                "https://api.example.com",
                "https://api.example.com:444/",
                false,
            ),
            ("https://api.example.com", "http://api.example.com/", false),
            ("https://*.example.com", "https://api.example.com/", true),
            ("https://*.example.com", "https://example.com/", false),
            ("http://127.0.0.1:*", "http://127.0.0.1:8080/", true),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8081/", false),
            ("http://[::1]:*", "http://[::1]:80/", true),
            ("*://*:*", "https://anything.example/", true),
        ] {
            let allows = Allowed::parse(&[pattern]).unwrap();
            assert_eq!(
                allows.allows(&uri.parse().unwrap()),
                allowed,
                "{pattern} {uri}"
            );
        }
        assert!(!Allowed::default().allows(&"https://example.com/".parse().unwrap()));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for pattern in [
            "example.com",
            "https://10.0.0.0/8",
            "https://a:{1..2}",
            "https://*a",
            "*://a",
        ] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
