//! Where a URL points: the names and addresses a deployed gateway must not reach out to.
//!
//! Checked on the configuration, so a file cannot aim the gateway at the network it runs
//! in. A public name that resolves to a private address is the host's to refuse.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::bounds::URL_MAX;

/// Whether the host is this machine: `localhost`, a name below it, or a loopback address.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_localhost(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => match address.to_ipv4_mapped() {
            Some(address) => address.is_loopback(),
            None => address.is_loopback(),
        },
        None => false,
    }
}

/// Whether the host is a name or an address that only means something inside a network:
/// loopback, private, link-local (cloud metadata services among them) or reserved.
pub fn is_internal(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_internal_name(name),
        Some(Host::Ipv4(address)) => is_internal_v4(address),
        Some(Host::Ipv6(address)) => is_internal_v6(address),
        None => true,
    }
}

/// Whether the gateway may fetch a URL that somebody else has written: a token, a server or a
/// document. It must be https to a public host and say nothing of users, or, where whoever
/// wrote it is this machine, of this machine too.
pub fn may_be_fetched(url: &Url, by_loopback: bool) -> bool {
    let local = by_loopback && is_loopback(url) && matches!(url.scheme(), "http" | "https");
    let public = url.scheme() == "https" && !is_internal(url);
    let plain = url.username().is_empty() && url.password().is_none();
    (local || public) && plain && url.as_str().len() <= URL_MAX
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || has_suffix(name, ".localhost")
}

/// Suffixes that never name a public host (RFC 6761, RFC 6762, RFC 8375, ICANN's `.internal`).
const INTERNAL_SUFFIXES: [&str; 4] = [".internal", ".local", ".home.arpa", ".localdomain"];

fn is_internal_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    is_localhost(name)
        || !name.contains('.')
        || INTERNAL_SUFFIXES
            .iter()
            .any(|suffix| has_suffix(name, suffix))
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    name.to_ascii_lowercase().ends_with(suffix)
}

fn is_internal_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        // Carrier-grade NAT (RFC 6598); one cloud serves metadata from it.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        // Relays of 6to4 (RFC 7526).
        || (a == 192 && b == 88 && c == 99)
        // Benchmarking (RFC 2544).
        || (a == 198 && (18..20).contains(&b))
        || a >= 240
}

fn is_internal_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = embedded_v4(address) {
        return is_internal_v4(inner);
    }
    // Only 2000::/3 is given out for the public (RFC 4291): all else is loopback, link-local,
    // unique local, the site-local of old, multicast, or of no use yet.
    let [first, second, ..] = address.segments();
    first & 0xe000 != 0x2000
        // Protocol assignments, Teredo's tunnels among them (RFC 2928, RFC 4380).
        || (first == 0x2001 && second < 0x0200)
        // Documentation (RFC 3849, RFC 9637).
        || (first == 0x2001 && second == 0x0db8)
        || first & 0xfff0 == 0x3ff0
}

/// The IPv4 address inside a mapped or compatible (RFC 4291), NAT64 (RFC 6052) or 6to4
/// (RFC 3056) one.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(join(high, low))
        }
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_inside_address_is_recognised() {
        for (text, internal, loopback) in [
            ("https://mcp.example.com/", false, false),
            ("https://93.184.216.34/", false, false),
            ("https://[2606:2800:220:1::1]/", false, false),
            ("https://localhost.example.com/", false, false),
            ("https://internal.example.com/", false, false),
            ("http://localhost:8000/", true, true),
            ("http://LOCALHOST./", true, true),
            ("http://search.localhost/", true, true),
            ("http://127.0.0.1/", true, true),
            ("http://127.9.9.9/", true, true),
            ("http://0x7f.1/", true, true),
            ("http://2130706433/", true, true),
            ("http://[::1]/", true, true),
            ("http://[::ffff:127.0.0.1]/", true, true),
            ("http://0.0.0.0/", true, false),
            ("http://[::]/", true, false),
            ("http://10.1.2.3/", true, false),
            ("http://172.16.0.1/", true, false),
            ("http://192.168.1.1/", true, false),
            ("http://169.254.169.254/latest", true, false),
            ("http://100.100.100.200/", true, false),
            ("http://[fd00:ec2::254]/", true, false),
            ("http://[fe80::1]/", true, false),
            ("http://[64:ff9b::a00:1]/", true, false),
            ("http://[64:ff9b::808:808]/", false, false),
            ("http://[64:ff9b:1::808:808]/", true, false),
            ("http://[2002:808:808::]/", false, false),
            ("http://[::10.0.0.1]/", true, false),
            ("http://[::ffff:8.8.8.8]/", false, false),
            ("http://[fec0::1]/", true, false),
            ("http://[fc00::1]/", true, false),
            ("http://[ff02::1]/", true, false),
            ("http://[100::1]/", true, false),
            ("http://[2001::808:808]/", true, false),
            ("http://[2001:db8::1]/", true, false),
            ("http://[3fff::1]/", true, false),
            ("http://192.88.99.1/", true, false),
            ("http://198.18.0.1/", true, false),
            ("http://255.255.255.255/", true, false),
            ("http://0177.0.0.1/", true, true),
            ("http://127.1/", true, true),
            ("http://①②⑦.0.0.1/", true, true),
            ("http://[2002:a00:1::]/", true, false),
            ("http://[::ffff:169.254.169.254]/", true, false),
            ("http://metadata.google.internal/", true, false),
            ("http://metadata.google.INTERNAL./", true, false),
            ("http://printer.local/", true, false),
            ("http://search/", true, false),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(is_internal(&url), internal, "internal: {text}");
            assert_eq!(is_loopback(&url), loopback, "loopback: {text}");
        }
    }

    #[test]
    fn what_others_write_is_fetched_over_https_from_the_public_alone() {
        // By anybody, and by somebody on this machine.
        for (text, expected) in [
            ("https://keys.example.com/jwks", [true, true]),
            ("https://keys.example.com:8443/jwks?v=1", [true, true]),
            ("http://keys.example.com/jwks", [false, false]),
            ("http://127.0.0.1:9000/jwks", [false, true]),
            ("https://localhost/jwks", [false, true]),
            ("ftp://localhost/jwks", [false, false]),
            ("file:///etc/passwd", [false, false]),
            ("data:application/json,{}", [false, false]),
            ("gopher://127.0.0.1:11211/x", [false, false]),
            ("https://10.0.0.1/jwks", [false, false]),
            ("https://169.254.169.254/latest/meta-data", [false, false]),
            ("https://[::ffff:169.254.169.254]/", [false, false]),
            ("https://metadata.google.internal/", [false, false]),
            ("https://vault/", [false, false]),
            ("https://user@keys.example.com/", [false, false]),
            ("https://user:pw@keys.example.com/", [false, false]),
            ("https://:pw@keys.example.com/", [false, false]),
            ("https://keys.example.com@127.0.0.1/", [false, false]),
        ] {
            let url = Url::parse(text).unwrap();
            let found = [false, true].map(|local| may_be_fetched(&url, local));
            assert_eq!(found, expected, "{text}");
        }
        let long = Url::parse(&format!("https://a.example/{}", "a".repeat(URL_MAX))).unwrap();
        assert!(!may_be_fetched(&long, true));
    }
}
