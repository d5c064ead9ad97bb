//! Other versions of upstreams: where they are, and when they are given up.

use url::Url;

use super::Findings;
use crate::config::bounds::{
    CANARY_CALLS, CANARY_HOLD_MS, CANARY_P95_MS, CANARY_PERCENT, CANARY_WINDOW_MS, MIRROR_PERCENT,
};
use crate::config::{Canary, Config, Upstream};

pub(super) fn rollout(config: &Config, findings: &mut Findings) {
    for (index, upstream) in config.upstreams.iter().enumerate() {
        if let Some(rule) = &upstream.canary {
            let at = format!("/upstreams/{index}/canary");
            address(
                &format!("{at}/url"),
                &rule.url,
                (config, upstream),
                findings,
            );
            canary(&at, rule, findings);
        }
        if let Some(mirror) = &upstream.mirror {
            let at = format!("/upstreams/{index}/mirror");
            address(
                &format!("{at}/url"),
                &mirror.url,
                (config, upstream),
                findings,
            );
            let percent = mirror.percent.into();
            findings.within(&format!("{at}/percent"), percent, &MIRROR_PERCENT, "%");
        }
    }
}

fn address(at: &str, url: &Url, (config, upstream): (&Config, &Upstream), findings: &mut Findings) {
    findings.server_url(at, url);
    if *url == upstream.url {
        findings.add(
            at,
            "is the upstream's own",
            "use the other version's address",
        );
    } else if url.origin() == config.public_url.origin() {
        findings.add(
            at,
            "is the gateway's own address",
            "use the address of the MCP server behind it",
        );
    }
}

fn canary(at: &str, canary: &Canary, findings: &mut Findings) {
    if let Some(release) = &canary.release {
        findings.short_text(&format!("{at}/release"), release);
    }
    let rule = &canary.rollback;
    let numbers = [
        (
            "weightPercent",
            Some(canary.weight_percent.into()),
            &CANARY_PERCENT,
            "%",
        ),
        (
            "rollback/maxErrorPercent",
            Some(rule.max_error_percent.into()),
            &CANARY_PERCENT,
            "%",
        ),
        ("rollback/maxP95Ms", rule.max_p95_ms, &CANARY_P95_MS, "ms"),
        (
            "rollback/windowMs",
            Some(rule.window_ms),
            &CANARY_WINDOW_MS,
            "ms",
        ),
        (
            "rollback/minimumCalls",
            Some(rule.minimum_calls.into()),
            &CANARY_CALLS,
            "calls",
        ),
        ("rollback/holdMs", rule.hold_ms, &CANARY_HOLD_MS, "ms"),
    ];
    for (member, value, range, unit) in numbers {
        if let Some(value) = value {
            findings.within(&format!("{at}/{member}"), value, range, unit);
        }
    }
}
