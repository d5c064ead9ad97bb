//! The rules for tools as they hold.
//!
//! A tool goes by its own rule, else by its upstream's `*`; but the roles and scopes that
//! `*` asks for are asked for every tool whose own rule does not say which. So a rule that
//! changes a limit opens nothing.

use std::collections::BTreeMap;

use super::{Config, NAME_SEPARATOR, ToolRule};

/// Every rule, by its name.
pub struct ToolRules(BTreeMap<String, ToolRule>);

impl ToolRules {
    /// The rules of a configuration.
    pub fn of(config: &Config) -> Self {
        let written = config.tools.iter();
        let written: BTreeMap<&str, &ToolRule> =
            written.map(|rule| (rule.name.as_str(), rule)).collect();
        let whole = |rule: &ToolRule| {
            let mut rule = rule.clone();
            let upstream = rule.name.split_once(NAME_SEPARATOR);
            let every = upstream.and_then(|(upstream, _)| written.get(every(upstream).as_str()));
            if let Some(every) = every {
                let (roles, scopes) = (&every.required_roles, &every.required_scopes);
                rule.required_roles = rule.required_roles.or_else(|| roles.clone());
                rule.required_scopes = rule.required_scopes.or_else(|| scopes.clone());
            }
            (rule.name.clone(), rule)
        };
        Self(config.tools.iter().map(whole).collect())
    }

    /// The rule for a tool.
    pub fn rule(&self, upstream: &str, tool: &str) -> Option<&ToolRule> {
        let own = format!("{upstream}{NAME_SEPARATOR}{tool}");
        self.0.get(&own).or_else(|| self.0.get(&every(upstream)))
    }

    /// The rules for tools of an upstream.
    pub fn of_upstream(&self, upstream: &str) -> impl Iterator<Item = &ToolRule> {
        let beginning = format!("{upstream}{NAME_SEPARATOR}");
        let of = move |rule: &&ToolRule| rule.name.starts_with(&beginning);
        self.0.values().filter(of)
    }
}

/// The name of the rule for all of an upstream's tools.
fn every(upstream: &str) -> String {
    format!("{upstream}{NAME_SEPARATOR}*")
}

impl ToolRule {
    /// Roles of which the caller must have one, if there are any.
    pub fn roles(&self) -> &[String] {
        self.required_roles.as_deref().unwrap_or_default()
    }

    /// Scopes of which the token must have all.
    pub fn scopes(&self) -> &[String] {
        self.required_scopes.as_deref().unwrap_or_default()
    }
}
