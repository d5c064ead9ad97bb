//! Which requests are looked at at all, before anybody asks who sent them, and what an answer
//! says to the browser that shows it.
//!
//! Where a client is, is what the host says of the connection ([`Peer`]); no header a client
//! can write is read for it. The limits on the head are those of the gateway; a host, or a
//! proxy before it, may refuse sooner and in words of its own.

use std::net::IpAddr;

use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response};
use tidegate_policy::Network;

use crate::body::Body;
use crate::config::{self, Listed};
use crate::error::Rejection;
use crate::ingress::Peer;

/// What the platform says where it cannot place a client.
const NOWHERE: &str = "XX";

/// The configured checks, read once.
pub struct Edge {
    allowed: Vec<Network>,
    denied: Vec<Network>,
    countries: Listed,
    max_headers: usize,
    max_header_bytes: usize,
}

impl Edge {
    /// Reads what the configuration says. What is no network was refused before.
    pub fn of(config: &config::Edge) -> Self {
        let networks = |texts: &[String]| {
            let parsed = texts.iter().filter_map(|text| Network::parse(text));
            parsed.collect::<Vec<_>>()
        };
        Self {
            allowed: networks(&config.addresses.allow),
            denied: networks(&config.addresses.deny),
            countries: config.countries.clone(),
            max_headers: usize::try_from(config.max_headers).unwrap_or(usize::MAX),
            max_header_bytes: usize::try_from(config.max_header_bytes).unwrap_or(usize::MAX),
        }
    }

    /// Whether a request from there, with this head, is looked at.
    pub fn check(&self, peer: &Peer, headers: &HeaderMap) -> Result<(), Rejection> {
        self.head(headers)?;
        if !self.takes_address(peer.address.as_deref()) {
            return Err(Rejection::AddressNotAllowed);
        }
        if !self.takes_country(peer.country.as_deref()) {
            return Err(Rejection::CountryNotAllowed);
        }
        Ok(())
    }

    fn head(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let bytes = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len());
        if headers.len() > self.max_headers || bytes.sum::<usize>() > self.max_header_bytes {
            return Err(Rejection::HeadersTooLarge {
                fields: self.max_headers,
                bytes: self.max_header_bytes,
            });
        }
        Ok(())
    }

    fn takes_address(&self, address: Option<&str>) -> bool {
        let address = address.and_then(|address| address.parse::<IpAddr>().ok());
        let Some(address) = address else {
            return self.allowed.is_empty();
        };
        let within = |networks: &[Network]| networks.iter().any(|each| each.contains(address));
        !within(&self.denied) && (self.allowed.is_empty() || within(&self.allowed))
    }

    fn takes_country(&self, country: Option<&str>) -> bool {
        let Listed { allow, deny } = &self.countries;
        let Some(country) = country.filter(|country| *country != NOWHERE) else {
            return allow.is_empty();
        };
        let named = |list: &[String]| list.iter().any(|each| each.eq_ignore_ascii_case(country));
        !named(deny) && (allow.is_empty() || named(allow))
    }
}

/// What the browser is told of an answer: never to guess what it is, and of what it may show
/// as a page, that it runs nothing, loads nothing and stands in no frame, unless whoever made
/// the page has said what it may do.
pub fn protect(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let api = [&b"application/json"[..], b"text/event-stream"];
    if kind.is_none_or(|kind| api.iter().any(|api| kind.starts_with(api))) {
        return;
    }
    let page = [
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in page {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn edge(config: Value) -> Edge {
        Edge::of(&serde_json::from_value(config).unwrap())
    }

    #[test]
    fn an_address_is_let_in_by_the_networks_it_is_in() {
        let allow = json!(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]);
        let deny = json!(["10.6.0.0/16", "2001:db8:6::/48", "fe80::/10"]);
        let rows: [(Option<&str>, [bool; 3]); 13] = [
            // Under the allow list, under the deny list, under both.
            (Some("10.1.2.3"), [true, true, true]),
            (Some("10.6.2.3"), [true, false, false]),
            (Some("11.1.2.3"), [false, true, false]),
            (Some("192.0.2.7"), [true, true, true]),
            (Some("192.0.2.8"), [false, true, false]),
            (Some("::ffff:10.1.2.3"), [true, true, true]),
            (Some("::ffff:10.6.2.3"), [true, false, false]),
            (Some("::ffff:a06:203"), [true, false, false]),
            (Some("2001:db8:1::1"), [true, true, true]),
            (Some("2001:db8:6::1"), [true, false, false]),
            (Some("2001:db9::1"), [false, true, false]),
            (Some("not an address"), [false, true, false]),
            (None, [false, true, false]),
        ];
        let lists = [
            json!({ "addresses": { "allow": allow } }),
            json!({ "addresses": { "deny": deny } }),
            json!({ "addresses": { "allow": allow, "deny": deny } }),
        ];
        for (address, expected) in rows {
            let found = lists.clone().map(|list| edge(list).takes_address(address));
            assert_eq!(found, expected, "{address:?}");
        }
    }

    #[test]
    fn a_country_is_let_in_by_its_two_letters() {
        let rows: [(Option<&str>, [bool; 3]); 6] = [
            (Some("DE"), [true, true, true]),
            (Some("de"), [true, true, true]),
            (Some("FR"), [true, false, false]),
            (Some("US"), [false, true, false]),
            (Some("XX"), [false, true, false]),
            (None, [false, true, false]),
        ];
        let (allow, deny) = (json!(["DE", "FR"]), json!(["FR"]));
        let lists = [
            json!({ "countries": { "allow": allow } }),
            json!({ "countries": { "deny": deny } }),
            json!({ "countries": { "allow": allow, "deny": deny } }),
        ];
        for (country, expected) in rows {
            let found = lists.clone().map(|list| edge(list).takes_country(country));
            assert_eq!(found, expected, "{country:?}");
        }
    }

    #[test]
    fn a_page_runs_nothing_unless_its_maker_says_so() {
        let told = |kind: Option<&'static str>, own: Option<&'static str>| {
            let mut response = Response::new(Body::empty());
            let headers = response.headers_mut();
            kind.map(|kind| headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind)));
            own.map(|own| headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(own)));
            protect(&mut response);
            assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
            let policy = response.headers().get(CONTENT_SECURITY_POLICY);
            policy.map(|policy| policy.to_str().unwrap().to_owned())
        };
        let strict =
            Some("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
        let own = Some("default-src 'self'");
        for (kind, given, expected) in [
            (None, None, None),
            (Some("application/json"), None, None),
            (Some("text/event-stream"), None, None),
            (Some("text/html; charset=utf-8"), None, strict),
            (Some("text/plain"), None, strict),
            (Some("text/html"), own, own),
        ] {
            assert_eq!(told(kind, given).as_deref(), expected, "{kind:?}");
        }
    }
}
