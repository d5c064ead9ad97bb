//! Idempotency keys, dry runs and probes.

use super::{Findings, policy};
use crate::config::bounds::{IDEMPOTENCY_WINDOW_MS, PROBE_MS, TOOL_NAME_MAX};
use crate::config::{Config, DryRun, Probe};

pub(super) fn safety(config: &Config, findings: &mut Findings) {
    findings.within(
        "/idempotency/windowMs",
        config.idempotency.window_ms,
        &IDEMPOTENCY_WINDOW_MS,
        "ms",
    );
    for (index, upstream) in config.upstreams.iter().enumerate() {
        if let Some(probe) = &upstream.probe {
            self::probe(&format!("/upstreams/{index}/probe"), probe, findings);
        }
    }
    for (index, rule) in config.tools.iter().enumerate() {
        if let Some(dry_run) = &rule.dry_run {
            let at = format!("/tools/{index}/dryRun");
            self::dry_run(&at, dry_run, findings);
            policy::listed(
                config,
                &format!("{at}/forRoles"),
                &dry_run.for_roles,
                findings,
            );
        }
    }
}

fn probe(at: &str, probe: &Probe, findings: &mut Findings) {
    if probe.tool.is_empty() || probe.tool.len() > TOOL_NAME_MAX {
        findings.add(
            format!("{at}/tool"),
            "is no tool's name",
            "write the name of a tool that changes nothing, as its upstream lists it",
        );
    }
    for (name, value) in [("timeoutMs", probe.timeout_ms), ("slowMs", probe.slow_ms)] {
        findings.within(&format!("{at}/{name}"), value, &PROBE_MS, "ms");
    }
    if probe.slow_ms > probe.timeout_ms {
        findings.add(
            format!("{at}/slowMs"),
            "is longer than the probe may take",
            "use less than timeoutMs, or raise that",
        );
    }
}

fn dry_run(at: &str, dry_run: &DryRun, findings: &mut Findings) {
    let (name, text) = match (&dry_run.argument, &dry_run.meta) {
        (Some(argument), None) => ("argument", argument),
        (None, Some(meta)) => ("meta", meta),
        (Some(_), Some(_)) | (None, None) => {
            findings.add(
                at,
                "does not say one way to tell the tool",
                "name either the `argument` or the member of `meta` that is set to true",
            );
            return;
        }
    };
    let pointer = format!("{at}/{name}");
    findings.short_text(&pointer, text);
    if name == "meta" && text.starts_with("io.modelcontextprotocol/") {
        findings.add(
            pointer,
            "is the protocol's own",
            "use the member the tool's documentation names",
        );
    }
    findings.names(&format!("{at}/forRoles"), &dry_run.for_roles, "roles");
    findings.names(&format!("{at}/forScopes"), &dry_run.for_scopes, "scopes");
}
