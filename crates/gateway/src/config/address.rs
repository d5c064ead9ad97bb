//! Where a URL points: the names and addresses a deployed gateway must not reach out to.
//!
//! Checked on the configuration, so a file cannot aim the gateway at the network it runs
//! in. A public name that resolves to a private address is the host's to refuse.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

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
        // Benchmarking (RFC 2544).
        || (a == 198 && (18..20).contains(&b))
        || a >= 240
}

fn is_internal_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = embedded_v4(address) {
        return is_internal_v4(inner);
    }
    let first = address.segments()[0];
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        // Deprecated site-local addresses (RFC 3879) are still routed inside some networks.
        || (first & 0xffc0) == 0xfec0
}

/// The IPv4 address inside a mapped (RFC 4291), NAT64 (RFC 6052) or 6to4 (RFC 3056) one.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
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
}
