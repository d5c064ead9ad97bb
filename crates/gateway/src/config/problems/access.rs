//! Who may call: authorization servers, and the rules for tools.

use std::collections::BTreeSet;

use super::{Findings, oauth};
use crate::config::address::is_loopback;
use crate::config::bounds::{
    COST, DESCRIPTION_MAX, ISSUERS_MAX, NAMES_MAX, REQUEST_TOKEN_AGE, TASK_AFTER_MS, TIMEOUT_MS,
    TOOL_NAME_MAX, TOOL_RULES_MAX,
};
use crate::config::{Authentication, Config, Issuer, NAME_SEPARATOR, ToolRule};

pub(super) fn authentication(config: &Config, findings: &mut Findings) {
    match &config.authentication {
        Authentication::None => {
            if !findings.dev || !is_loopback(&config.public_url) {
                findings.add(
                    "/authentication/type",
                    "turns authentication off where others can reach the gateway",
                    "use type jwt; none needs metadata.environment dev and a loopback publicUrl",
                );
            }
        }
        Authentication::Jwt {
            issuers,
            gateway_keys,
            revocation: _,
        } => {
            if issuers.is_empty() && !gateway_keys {
                findings.add(
                    "/authentication/issuers",
                    "is empty, so no token could ever be accepted",
                    "list at least one authorization server, or set gatewayKeys to true",
                );
            }
            findings.at_most(
                "/authentication/issuers",
                issuers.len(),
                ISSUERS_MAX,
                "issuers",
            );
            let mut seen = BTreeSet::new();
            for (index, issuer) in issuers.iter().enumerate() {
                let at = format!("/authentication/issuers/{index}");
                if !seen.insert(&issuer.issuer) {
                    findings.add(
                        format!("{at}/issuer"),
                        "is listed twice",
                        "merge the two entries; `audiences` and `algorithms` are lists",
                    );
                }
                self::issuer(&at, issuer, findings);
            }
            only_one_is_asked(issuers, findings);
        }
    }
}

fn issuer(at: &str, issuer: &Issuer, findings: &mut Findings) {
    let pointer = format!("{at}/issuer");
    match url::Url::parse(&issuer.issuer) {
        Ok(url) => {
            findings.remote_url(&pointer, &url);
            if url.query().is_some() {
                findings.add(
                    pointer,
                    "has a query",
                    "use the issuer exactly as its metadata states it (RFC 8414)",
                );
            }
        }
        Err(_) => findings.add(
            pointer,
            "is not a URL",
            "use the exact `iss` of its tokens, an https URL (RFC 8414)",
        ),
    }
    if let Some(url) = &issuer.jwks_uri {
        findings.remote_url(&format!("{at}/jwksUri"), url);
    }
    findings.names(&format!("{at}/audiences"), &issuer.audiences, "audiences");
    introspection(at, issuer, findings);
    if let Some(sign_in) = &issuer.sign_in {
        oauth::sign_in(&format!("{at}/signIn"), sign_in, findings);
    }
    if issuer.algorithms.is_empty() {
        findings.add(
            format!("{at}/algorithms"),
            "is empty, so no signature could ever be accepted",
            "list algorithms such as RS256, ES256 or EdDSA, or remove the field to accept all",
        );
    }
    let claims = &issuer.required_claims;
    findings.at_most(
        &format!("{at}/requiredClaims"),
        claims.len(),
        NAMES_MAX,
        "claims",
    );
    for (name, value) in claims {
        let pointer = format!("{at}/requiredClaims/{}", escape(name));
        findings.short_text(&pointer, name);
        if value.is_null() || value.is_array() || value.is_object() {
            findings.add(
                pointer,
                "is not a value a claim can be compared with",
                "give a string, a number or a boolean; an array claim must contain it",
            );
        }
    }
    findings.short_text(&format!("{at}/rolesClaim"), &issuer.roles_claim);
    if let Some(claim) = &issuer.tenant_claim {
        findings.short_text(&format!("{at}/tenantClaim"), claim);
    }
}

fn introspection(at: &str, issuer: &Issuer, findings: &mut Findings) {
    let Some(introspection) = &issuer.introspection else {
        return;
    };
    let at = format!("{at}/introspection");
    findings.remote_url(&format!("{at}/endpoint"), &introspection.endpoint);
    findings.short_text(&format!("{at}/clientId"), &introspection.client_id);
    if introspection.client_secret.name().is_none() {
        findings.add(
            format!("{at}/clientSecret"),
            "is not a reference to a secret",
            "write ${secret:NAME} and set NAME as a secret of the platform; never the secret itself",
        );
    }
}

/// A token that is not in JWT form does not say whose it is. Shown to the wrong server, it
/// would be that server's to use.
fn only_one_is_asked(issuers: &[Issuer], findings: &mut Findings) {
    let asked = |(_, issuer): &(usize, &Issuer)| issuer.introspection.is_some();
    for (index, _) in issuers.iter().enumerate().filter(asked).skip(1) {
        findings.add(
            format!("/authentication/issuers/{index}/introspection"),
            "is the second one, and a token does not say whom to ask",
            "keep it for the issuer whose tokens are not in JWT form",
        );
    }
}

/// A reference token of a JSON pointer (RFC 6901 section 3).
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

pub(super) fn tools(config: &Config, findings: &mut Findings) {
    findings.at_most("/tools", config.tools.len(), TOOL_RULES_MAX, "rules");
    let mut seen = BTreeSet::new();
    for (index, rule) in config.tools.iter().enumerate() {
        let at = format!("/tools/{index}");
        tool_name(&format!("{at}/name"), &rule.name, config, findings);
        if !seen.insert(&rule.name) {
            findings.add(format!("{at}/name"), "has two rules", "merge them into one");
        }
        rule_content(&at, rule, findings);
    }
}

/// A name that stands for one tool of a configured upstream, or for all of them.
pub(super) fn tool_name(pointer: &str, name: &str, config: &Config, findings: &mut Findings) {
    let Some((upstream, tool)) = name.split_once(NAME_SEPARATOR) else {
        return findings.add(
            pointer,
            "does not say which upstream's tool it means",
            format!("write upstream{NAME_SEPARATOR}tool, or upstream{NAME_SEPARATOR}* for all of its tools"),
        );
    };
    let upstreams = config.upstreams.iter();
    let upstreams: BTreeSet<&str> = upstreams.map(|upstream| upstream.name.as_str()).collect();
    if !upstreams.contains(upstream) {
        let known: Vec<&str> = upstreams.iter().copied().collect();
        findings.add(
            pointer,
            "names an upstream that is not configured",
            format!(
                "add it under `upstreams`, or use one of: {}",
                known.join(", ")
            ),
        );
    }
    let readable = !tool.chars().any(|c| c.is_control() || c.is_whitespace());
    if tool.is_empty()
        || tool.len() > TOOL_NAME_MAX
        || !readable
        || (tool.contains('*') && tool != "*")
    {
        findings.add(
            pointer,
            "is not a tool's name",
            format!("after {NAME_SEPARATOR} write the tool's own name, at most {TOOL_NAME_MAX} bytes, or a lone *"),
        );
    }
}

fn rule_content(at: &str, rule: &ToolRule, findings: &mut Findings) {
    if rule
        .description
        .as_ref()
        .is_some_and(|text| text.is_empty() || text.len() > DESCRIPTION_MAX)
    {
        findings.add(
            format!("{at}/description"),
            "is empty or too long",
            format!("use at most {DESCRIPTION_MAX} bytes, or remove it to keep the upstream's description"),
        );
    }
    findings.names(&format!("{at}/requiredRoles"), rule.roles(), "roles");
    findings.names(&format!("{at}/requiredScopes"), rule.scopes(), "scopes");
    for (index, scope) in rule.scopes().iter().enumerate() {
        if !is_scope_token(scope) {
            findings.add(
                format!("{at}/requiredScopes/{index}"),
                "is not one scope",
                "list each scope by itself, without spaces, quotes or backslashes (RFC 6749 section 3.3)",
            );
        }
    }
    request_token(at, rule, findings);
    if let Some(rate) = &rule.rate_limit {
        findings.rate(&format!("{at}/rateLimit"), rate);
    }
    findings.within(&format!("{at}/cost"), rule.cost.into(), &COST, "requests");
    if let Some(timeout_ms) = rule.timeout_ms {
        findings.within(&format!("{at}/timeoutMs"), timeout_ms, &TIMEOUT_MS, "ms");
    }
    if let Some(after_ms) = rule.task_after_ms {
        findings.within(&format!("{at}/taskAfterMs"), after_ms, &TASK_AFTER_MS, "ms");
    }
}

fn request_token(at: &str, rule: &ToolRule, findings: &mut Findings) {
    let Some(token) = &rule.request_token else {
        return;
    };
    let at = format!("{at}/requestToken");
    let secrets = [
        ("secret", Some(&token.secret)),
        ("previousSecret", token.previous_secret.as_ref()),
    ];
    for (member, secret) in secrets {
        if secret.is_some_and(|secret| secret.name().is_none()) {
            findings.add(
                format!("{at}/{member}"),
                "is not a reference to a secret",
                "write ${secret:NAME} and set NAME as a secret of the platform; never the secret itself",
            );
        }
    }
    if token.previous_secret.as_ref() == Some(&token.secret) {
        findings.add(
            format!("{at}/previousSecret"),
            "is the same secret",
            "name the one that was used before, or remove the field",
        );
    }
    let age = token.max_age_seconds.into();
    findings.within(
        &format!("{at}/maxAgeSeconds"),
        age,
        &REQUEST_TOKEN_AGE,
        "seconds",
    );
}

/// Scopes are written into `WWW-Authenticate`, so their characters matter.
fn is_scope_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}
