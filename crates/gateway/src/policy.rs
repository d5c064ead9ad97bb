//! Whether a principal may do what it asks: principal × target → [`Permit`].
//!
//! Pure. Lists are filtered by the same [`permits`] that decides calls, so what is shown
//! is what may be called.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::auth::{Principal, Resource, challenge};
use crate::config::ToolRule;
use crate::error::{Error, Rejection};
use crate::route::Target;
use crate::settings::Settings;

/// Proof that a principal may do this to that. Only [`authorize`] makes one.
pub struct Permit {
    /// Who may.
    pub principal: Rc<Principal>,
    /// What they may.
    pub target: Target,
    /// The rule that decided, if one did.
    pub rule: Option<ToolRule>,
    _proof: Proof,
}

/// What only this module can make.
struct Proof;

/// Decides one call.
pub fn authorize(
    principal: Rc<Principal>,
    target: Target,
    settings: &Settings,
    resource: &Resource,
) -> Result<Permit, Error> {
    let rule = target
        .tool()
        .and_then(|(upstream, tool)| settings.rule(upstream, tool))
        .cloned();
    if let Some(rule) = &rule {
        if !has_role(&principal, rule) {
            return Err(Rejection::Denied {
                rule: rule.name.clone(),
            }
            .into());
        }
        if !has_scopes(&principal, rule) {
            let needed: BTreeSet<String> = rule.required_scopes.iter().cloned().collect();
            let challenge = challenge::insufficient_scope(resource, &needed);
            return Err(Rejection::InsufficientScope { challenge }.into());
        }
    }
    Ok(Permit {
        principal,
        target,
        rule,
        _proof: Proof,
    })
}

/// Whether the rule lets the principal call its tool.
pub fn permits(principal: &Principal, rule: &ToolRule) -> bool {
    has_role(principal, rule) && has_scopes(principal, rule)
}

fn has_role(principal: &Principal, rule: &ToolRule) -> bool {
    rule.required_roles.is_empty()
        || rule
            .required_roles
            .iter()
            .any(|role| principal.roles.contains(role))
}

fn has_scopes(principal: &Principal, rule: &ToolRule) -> bool {
    rule.required_scopes
        .iter()
        .all(|scope| principal.scopes.contains(scope))
}
