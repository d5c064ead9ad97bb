//! The policy: what its rules name, and whether they can be compiled.

use std::collections::BTreeSet;

use super::Findings;
use crate::config::bounds::{
    CONDITION_MAX, NAMES_MAX, POLICY_RULES_MAX, RULE_NAME_MAX, TOOL_NAME_MAX, TOOL_RULES_MAX,
};
use crate::config::{Classification, Config, NAME_SEPARATOR, Policy, PolicyRule};
use crate::policy::Rules;

pub(super) fn policy(config: &Config, findings: &mut Findings) {
    classifications(config, findings);
    let Some(policy) = &config.policy else {
        return;
    };
    findings.names("/policy/roles", &policy.roles, "roles");
    vocabulary(config, policy, findings);
    roles(config, policy, findings);
    findings.at_most(
        "/policy/rules",
        policy.rules.len(),
        POLICY_RULES_MAX,
        "rules",
    );
    let mut seen = BTreeSet::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let at = format!("/policy/rules/{index}");
        if !seen.insert(&rule.name) {
            findings.add(
                format!("{at}/name"),
                "has two rules",
                "give each its own name",
            );
        }
        self::rule(&at, rule, findings);
    }
    // What is too long or too much is not compiled to see what else is wrong with it.
    let bounded = policy.rules.len() <= POLICY_RULES_MAX
        && policy
            .rules
            .iter()
            .filter_map(|rule| rule.when.as_ref())
            .all(|w| w.len() <= CONDITION_MAX);
    if bounded && let Err(problems) = Rules::compile(config) {
        findings.found.extend(problems);
    }
}

/// An upstream nobody is cleared for is a mistake.
fn classifications(config: &Config, findings: &mut Findings) {
    let clearance = config.policy.as_ref().map(|policy| &policy.clearance);
    let highest = clearance.map_or(Classification::default(), |clearance| {
        let given = clearance.roles.values().copied();
        given.fold(clearance.default, Classification::max)
    });
    for (index, upstream) in config.upstreams.iter().enumerate() {
        if upstream.classification > highest {
            findings.add(
                format!("/upstreams/{index}/classification"),
                "is higher than anybody's clearance",
                "give a role this clearance under policy.clearance.roles",
            );
        }
    }
}

fn vocabulary(config: &Config, policy: &Policy, findings: &mut Findings) {
    findings.at_most("/policy/tools", policy.tools.len(), TOOL_RULES_MAX, "tools");
    let upstreams: BTreeSet<&str> = config.upstreams.iter().map(|u| u.name.as_str()).collect();
    for (index, tool) in policy.tools.iter().enumerate() {
        let pointer = format!("/policy/tools/{index}");
        match tool.split_once(NAME_SEPARATOR) {
            Some((upstream, _)) if !upstreams.contains(upstream) => findings.add(
                pointer,
                "names an upstream that is not configured",
                "add it under `upstreams`, or correct the name",
            ),
            Some((_, own)) if !own.is_empty() && own != "*" && own.len() <= TOOL_NAME_MAX => {}
            Some(_) | None => findings.add(
                pointer,
                "is not a tool's name",
                format!("write upstream{NAME_SEPARATOR}tool"),
            ),
        }
    }
}

/// Where roles are listed, every role that is named must be among them.
fn roles(config: &Config, policy: &Policy, findings: &mut Findings) {
    let known: BTreeSet<&String> = policy.roles.iter().collect();
    findings.at_most(
        "/policy/clearance/roles",
        policy.clearance.roles.len(),
        NAMES_MAX,
        "roles",
    );
    for role in policy.clearance.roles.keys() {
        if !known.contains(role) {
            let token = role.replace('~', "~0").replace('/', "~1");
            unknown(format!("/policy/clearance/roles/{token}"), findings);
        }
    }
    if known.is_empty() {
        return;
    }
    for (index, rule) in config.tools.iter().enumerate() {
        let pointer = format!("/tools/{index}/requiredRoles");
        listed(config, &pointer, rule.roles(), findings);
    }
}

/// Roles that must be among those the policy lists. Of whom a misspelt role was to hold back
/// nobody is held back, so where that is what roles are for there must be a list.
pub(super) fn listed(config: &Config, at: &str, named: &[String], findings: &mut Findings) {
    let policy = config.policy.as_ref();
    let known = policy.map(|policy| policy.roles.as_slice());
    let known = known.unwrap_or_default();
    for (index, role) in named.iter().enumerate() {
        if !known.contains(role) {
            unknown(format!("{at}/{index}"), findings);
        }
    }
}

fn unknown(pointer: String, findings: &mut Findings) {
    findings.add(
        pointer,
        "is no known role",
        "correct it, or list it under policy.roles",
    );
}

fn rule(at: &str, rule: &PolicyRule, findings: &mut Findings) {
    let plain = rule.name.len() <= RULE_NAME_MAX
        && rule.name.starts_with(|c: char| c.is_ascii_lowercase())
        && rule.name.split('-').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
    if !plain {
        findings.add(
            format!("{at}/name"),
            "is not a rule's name",
            format!("use lower-case letters, digits and single hyphens, at most {RULE_NAME_MAX}"),
        );
    }
    let lists = [
        ("tools", &rule.tools),
        ("prompts", &rule.prompts),
        ("resources", &rule.resources),
    ];
    if lists.iter().all(|(_, list)| list.is_empty()) {
        findings.add(
            at,
            "concerns nothing",
            "list tools, prompts or resources; * is all",
        );
    }
    for (member, list) in lists {
        findings.names(&format!("{at}/{member}"), list, member);
    }
    if rule
        .when
        .as_ref()
        .is_some_and(|when| when.len() > CONDITION_MAX)
    {
        findings.add(
            format!("{at}/when"),
            "is too long",
            format!("use at most {CONDITION_MAX} bytes, or several rules"),
        );
    }
}
