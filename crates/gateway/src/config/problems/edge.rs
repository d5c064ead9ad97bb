//! Which requests are looked at at all: networks, countries, and the size of a head.

use tidegate_policy::Network;

use super::Findings;
use crate::config::bounds::{EDGE_ENTRIES_MAX, HEADER_BYTES, HEADER_FIELDS};
use crate::config::{Config, Listed};

pub(super) fn edge(config: &Config, findings: &mut Findings) {
    let edge = &config.edge;
    listed(findings, "/edge/addresses", &edge.addresses, |text| {
        let reason = "is neither an address nor a network";
        let remedy = "write it as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32";
        Network::parse(text).is_none().then_some((reason, remedy))
    });
    listed(findings, "/edge/countries", &edge.countries, |text| {
        let letters = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        let code = text.len() == 2 && text.bytes().all(letters) && text != "XX";
        let reason = "is not a country";
        let remedy = "write its two capital letters (ISO 3166-1), such as DE";
        (!code).then_some((reason, remedy))
    });
    let (fields, bytes) = (edge.max_headers.into(), edge.max_header_bytes.into());
    findings.within("/edge/maxHeaders", fields, &HEADER_FIELDS, "fields");
    findings.within("/edge/maxHeaderBytes", bytes, &HEADER_BYTES, "bytes");
}

/// What is wrong with an entry, and the remedy.
type Flaw = Option<(&'static str, &'static str)>;

fn listed(findings: &mut Findings, at: &str, listed: &Listed, flaw: impl Fn(&str) -> Flaw) {
    for (list, entries) in [("allow", &listed.allow), ("deny", &listed.deny)] {
        let at = format!("{at}/{list}");
        findings.at_most(&at, entries.len(), EDGE_ENTRIES_MAX, "entries");
        for (index, entry) in entries.iter().enumerate() {
            if let Some((reason, remedy)) = flaw(entry) {
                findings.add(format!("{at}/{index}"), reason, remedy);
            }
        }
    }
}
