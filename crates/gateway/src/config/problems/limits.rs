//! Limits: their names, rates and tools, and what a limiter of the host's can count.

use std::collections::BTreeSet;

use super::{Findings, access};
use crate::config::bounds::{
    BINDING_BYTES, COST, EXACT_WINDOW_MS, LIMIT_RULES_MAX, NATIVE_COST_MAX, NATIVE_WINDOWS_MS,
    RATE_REQUESTS, RATE_WINDOW_MS,
};
use crate::config::{Config, Counter, LimitRule, NAME_SEPARATOR, ToolRule};

pub(super) fn rules(config: &Config, findings: &mut Findings) {
    costs(config, findings);
    let rules = &config.limits.rules;
    findings.at_most("/limits/rules", rules.len(), LIMIT_RULES_MAX, "limits");
    let mut seen = BTreeSet::from(["per-client"]);
    let mut bound = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("/limits/rules/{index}");
        if !seen.insert(&rule.name) {
            let pointer = format!("{at}/name");
            findings.add(
                pointer,
                "is taken by another limit",
                "give each limit a name of its own",
            );
        }
        findings.short_text(&format!("{at}/name"), &rule.name);
        let windows = match rule.counter {
            // Where nothing is said, either counter must be able to serve it.
            None | Some(Counter::Kv | Counter::Native) => &RATE_WINDOW_MS,
            Some(Counter::Atomic) => &EXACT_WINDOW_MS,
        };
        native(&at, rule, config, &mut bound, findings);
        let requests = rule.rate.requests.into();
        findings.within(
            &format!("{at}/rate/requests"),
            requests,
            &RATE_REQUESTS,
            "requests",
        );
        findings.within(
            &format!("{at}/rate/windowMs"),
            rule.rate.window_ms,
            windows,
            "ms",
        );
        for (index, tool) in rule.tools.iter().enumerate() {
            access::tool_name(&format!("{at}/tools/{index}"), tool, config, findings);
        }
    }
}

/// A call that counts as more requests than a limit has in a window is never let through.
fn costs(config: &Config, findings: &mut Findings) {
    for (index, tool) in config.tools.iter().enumerate() {
        let named = config.limits.rules.iter();
        let named = named.filter(|limit| concerns(limit, &tool.name, config));
        let named = named.map(|limit| (&limit.name, limit.rate.requests));
        let own = tool.rate_limit.map(|rate| (&tool.name, rate.requests));
        let least = named.chain(own).min_by_key(|(_, requests)| *requests);
        // What is out of range is said elsewhere.
        let sound = |requests: u32| {
            RATE_REQUESTS.contains(&requests.into()) && COST.contains(&tool.cost.into())
        };
        let least = least.filter(|(_, requests)| *requests < tool.cost && sound(*requests));
        if let Some((limit, requests)) = least {
            findings.add(
                format!("/tools/{index}/cost"),
                format!("is {}, and the limit {limit:?} is {requests}", tool.cost),
                "lower the cost, or raise the limit's `requests`",
            );
        }
    }
}

/// What a limit counted by the host needs beyond the others, and what they have no use for.
fn native<'a>(
    at: &str,
    rule: &'a LimitRule,
    config: &Config,
    bound: &mut BTreeSet<&'a str>,
    findings: &mut Findings,
) {
    let pointer = format!("{at}/binding");
    let (binding, is_native) = (&rule.binding, rule.counter == Some(Counter::Native));
    let binding = match (binding, is_native) {
        (Some(binding), true) => binding,
        (None, false) => return,
        (Some(_), false) => {
            return findings.add(
                pointer,
                "is of use only to a limiter of the host's",
                "write `counter: native`, or remove the field",
            );
        }
        (None, true) => {
            return findings.add(
                format!("{at}/counter"),
                "says `native`, but not which limiter",
                "name it with `binding`, as wrangler.toml does under [[ratelimits]]",
            );
        }
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = binding.as_bytes();
    let is_name = BINDING_BYTES.contains(&bytes.len())
        && bytes.iter().copied().all(named)
        && !bytes[0].is_ascii_digit();
    if !is_name {
        let most = BINDING_BYTES.end();
        findings.add(
            &pointer,
            "is no name of a binding",
            format!("use letters, digits and _, no digit first, {most} bytes at most"),
        );
    } else if !bound.insert(binding) {
        findings.add(
            &pointer,
            "counts for another limit already",
            "bind a limiter for each limit",
        );
    }
    // Whatever else is wrong with the window has been said.
    if RATE_WINDOW_MS.contains(&rule.rate.window_ms)
        && !NATIVE_WINDOWS_MS.contains(&rule.rate.window_ms)
    {
        findings.add(
            format!("{at}/rate/windowMs"),
            format!(
                "{} ms is no window of the host's limiters",
                rule.rate.window_ms
            ),
            "use 10000 or 60000",
        );
    }
    // It is asked once for each.
    let dear = |tool: &&ToolRule| tool.cost > NATIVE_COST_MAX && concerns(rule, &tool.name, config);
    if let Some(tool) = config.tools.iter().find(dear) {
        findings.add(
            format!("{at}/counter"),
            format!(
                "says `native`, and a call of {:?} counts as {}",
                tool.name, tool.cost
            ),
            format!("use another counter, or a cost of {NATIVE_COST_MAX} at most"),
        );
    }
}

/// Whether some call is a concern of both a limit and a tool's rule. A tool with a rule of its
/// own is none of its upstream's.
fn concerns(limit: &LimitRule, rule: &str, config: &Config) -> bool {
    let is_ruled = |tool: &String| config.tools.iter().any(|rule| rule.name == *tool);
    let meet = |named: &String| match (
        named.split_once(NAME_SEPARATOR),
        rule.split_once(NAME_SEPARATOR),
    ) {
        (Some((of, name)), Some((upstream, tool))) => {
            let any = tool == "*" && !is_ruled(named);
            of == upstream && (name == "*" || name == tool || any)
        }
        _ => false,
    };
    limit.tools.is_empty() || limit.tools.iter().any(meet)
}
