//! What is wrong with quotas and prices.

use std::collections::BTreeSet;

use super::super::bounds::{PRICE, QUOTA, QUOTAS_MAX, WARN_AT};
use super::super::quota::{Quota, Unit};
use super::super::{Config, NAME_SEPARATOR};
use super::{Findings, access};

pub(super) fn quotas(config: &Config, findings: &mut Findings) {
    prices(config, findings);
    let quotas = &config.limits.quotas;
    findings.at_most("/limits/quotas", quotas.len(), QUOTAS_MAX, "quotas");
    let mut seen = BTreeSet::new();
    for (index, quota) in quotas.iter().enumerate() {
        let at = format!("/limits/quotas/{index}");
        findings.short_text(&format!("{at}/name"), &quota.name);
        if !seen.insert(&quota.name) {
            findings.add(
                format!("{at}/name"),
                "is taken by another quota",
                "give each quota a name of its own",
            );
        }
        let unit = quota.unit.as_str();
        findings.within(&format!("{at}/limit"), quota.limit, &QUOTA, unit);
        let percent = quota.warn_at_percent.into();
        findings.within(&format!("{at}/warnAtPercent"), percent, &WARN_AT, "%");
        for (index, tool) in quota.tools.iter().enumerate() {
            access::tool_name(&format!("{at}/tools/{index}"), tool, config, findings);
        }
        if quota.unit == Unit::Money && !is_priced(config, quota) {
            findings.add(
                format!("{at}/unit"),
                "counts money, and none of its tools has a price",
                "give a rule under `tools` a `price`",
            );
        }
    }
}

fn prices(config: &Config, findings: &mut Findings) {
    for (index, rule) in config.tools.iter().enumerate() {
        let Some(price) = rule.price else { continue };
        let at = format!("/tools/{index}/price");
        for (name, value) in [
            ("perCall", price.per_call),
            ("perThousandTokens", price.per_thousand_tokens),
        ] {
            findings.within(&format!("{at}/{name}"), value, &PRICE, "millionths");
        }
    }
}

/// Whether a call that is counted costs something.
fn is_priced(config: &Config, quota: &Quota) -> bool {
    let upstream = |name: &str| {
        let split = name.split_once(NAME_SEPARATOR);
        split.map(|(upstream, tool)| (upstream.to_owned(), tool.to_owned()))
    };
    let concerns = |rule: &str| {
        let Some((of, tool)) = upstream(rule) else {
            return false;
        };
        quota.tools.is_empty()
            || quota.tools.iter().filter_map(|named| upstream(named)).any(
                |(counted_of, counted)| {
                    counted_of == of && (counted == "*" || tool == "*" || counted == tool)
                },
            )
    };
    config.tools.iter().any(|rule| {
        let price = rule.price.unwrap_or_default();
        price.per_call + price.per_thousand_tokens > 0 && concerns(&rule.name)
    })
}
