//! One request, as a person describes it, put to the judge.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tidegate_gateway::auth::Principal;
use tidegate_gateway::config::{Config, NAME_SEPARATOR, ToolRules, Upstream};
use tidegate_gateway::ingress::Peer;
use tidegate_gateway::policy::{
    Arguments, BY_CLEARANCE, BY_DEFAULT, BY_TENANT, Hints, Judge, Judgement, Opinion, Refusal,
    Rules, Subject, facts,
};
use tidegate_gateway::time::Timestamp;
use tidegate_mcp::json::Object;
use tidegate_mcp::timestamp;

/// When a request is made that does not say when: noon of a Thursday, so that a table of
/// cases means the same every day.
const AT: &str = "2026-01-01T12:00:00Z";

/// One request. Exactly one of `tool`, `prompt` and `resource` says for what.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// `upstream__tool`.
    pub tool: Option<String>,
    /// `upstream__prompt`.
    pub prompt: Option<String>,
    /// `upstream+uri`.
    pub resource: Option<String>,
    /// The arguments of the call; none is an empty object.
    pub arguments: Option<Value>,
    /// Whether it is only listed: then its arguments are not known.
    #[serde(default)]
    pub list: bool,
    /// What the upstream says the tool does.
    pub annotations: Option<Value>,
    /// Who asks.
    #[serde(default)]
    pub principal: Who,
    /// Where the request comes from.
    #[serde(default)]
    pub from: Whence,
    /// When, as RFC 3339; noon UTC of 2026-01-01 where it does not say.
    pub at: Option<String>,
}

/// Who asks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Who {
    /// Token issuer.
    pub issuer: Option<String>,
    /// Token subject.
    pub subject: Option<String>,
    /// OAuth client.
    pub client: Option<String>,
    /// Tenant.
    pub tenant: Option<String>,
    /// Roles.
    pub roles: BTreeSet<String>,
    /// Scopes.
    pub scopes: BTreeSet<String>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Whence {
    /// Network address.
    pub address: Option<String>,
    /// Country, as two capital letters.
    pub country: Option<String>,
}

/// What was decided, in words.
pub struct Answer<'a> {
    /// Whether it may be done, or is shown.
    pub allowed: bool,
    /// The rule that decided.
    pub by: String,
    /// Why, for a person.
    pub why: String,
    /// What each rule says by itself.
    pub opinions: Vec<Opinion<'a>>,
}

impl Question {
    /// Asks the judge; an error says what is wrong with the question.
    pub fn ask<'a>(
        &self,
        config: &'a Config,
        rules: Option<&'a Rules>,
    ) -> Result<Answer<'a>, String> {
        let (upstream, name) = self.target(config)?;
        let arguments = match (&self.arguments, self.list) {
            (Some(_), true) => return Err("what is only listed has no arguments yet".to_owned()),
            (_, true) => None,
            (Some(given), false) => Some(Some(raw(given)?)),
            (None, false) => Some(None),
        };
        let hints = self.hints()?;
        let subject = match (&self.tool, &self.prompt) {
            (Some(_), _) => Subject::Tool(name, Some(hints)),
            (None, Some(_)) => Subject::Prompt(name),
            (None, None) => Subject::Resource(Some(name)),
        };
        let at = self.at.as_deref().unwrap_or(AT);
        let at = timestamp::parse(at).ok_or("`at` is no RFC 3339 time")?;
        let (principal, peer) = (self.principal.principal(), self.from.peer());
        let judge = Judge::of(config.policy.as_ref(), rules);
        let clearance = judge.clearance(&principal);
        let facts = facts(
            (&principal, clearance),
            (&peer, Timestamp(at)),
            upstream,
            subject,
            match &arguments {
                Some(arguments) => Arguments::Known(arguments.as_deref()),
                None => Arguments::Unknown,
            },
        );
        let tool_rules = ToolRules::of(config);
        let rule = self
            .tool
            .as_ref()
            .and_then(|_| tool_rules.rule(&upstream.name, name));
        let judged = judge.judge(rule, &facts);
        let opinions = rules
            .map(|rules| rules.opinions(&facts))
            .unwrap_or_default();
        let (allowed, by, why) = match judged.judgement {
            Judgement::Permitted(Some(by)) => {
                (true, by, "a rule allows it and none denies it".to_owned())
            }
            Judgement::Permitted(None) => (true, BY_DEFAULT, "there are no rules".to_owned()),
            Judgement::Refused(refusal) => {
                let (by, why) = refused(&refusal, clearance.as_str(), upstream);
                (false, by, why)
            }
        };
        let (allowed, by, why) = match upstream.is_seen_by(principal.tenant.as_deref()) {
            true => (allowed, by, why),
            false => (
                false,
                BY_TENANT,
                "its upstream is of other tenants".to_owned(),
            ),
        };
        let by = by.to_owned();
        Ok(Answer {
            allowed,
            by,
            why,
            opinions,
        })
    }

    fn target<'a>(&'a self, config: &'a Config) -> Result<(&'a Upstream, &'a str), String> {
        let (text, separator) = match (&self.tool, &self.prompt, &self.resource) {
            (Some(tool), None, None) => (tool, NAME_SEPARATOR),
            (None, Some(prompt), None) => (prompt, NAME_SEPARATOR),
            (None, None, Some(resource)) => (resource, "+"),
            _ => return Err("name exactly one of tool, prompt and resource".to_owned()),
        };
        let (upstream, name) = text.split_once(separator).ok_or_else(|| {
            format!("`{text}` does not say whose it is: write upstream{separator}name")
        })?;
        let found = config.upstreams.iter().find(|known| known.name == upstream);
        let found = found.ok_or_else(|| format!("there is no upstream `{upstream}`"))?;
        Ok((found, name))
    }

    fn hints(&self) -> Result<Hints, String> {
        let Some(annotations) = &self.annotations else {
            return Ok(Hints::default());
        };
        Ok(Hints::of(&Object::new().with("annotations", annotations)))
    }
}

impl Who {
    fn principal(&self) -> Principal {
        Principal {
            issuer: self.issuer.clone().unwrap_or_default(),
            subject: self.subject.clone().unwrap_or_default(),
            client_id: self.client.clone(),
            tenant: self.tenant.clone(),
            scopes: self.scopes.clone(),
            roles: self.roles.clone(),
            ..Principal::anonymous()
        }
    }
}

impl Whence {
    fn peer(&self) -> Peer {
        Peer {
            address: self.address.clone(),
            country: self.country.clone(),
            certificate: None,
        }
    }
}

fn raw(value: &Value) -> Result<Box<RawValue>, String> {
    serde_json::value::to_raw_value(value).map_err(|error| error.to_string())
}

fn refused<'r>(refusal: &Refusal<'r>, clearance: &str, upstream: &Upstream) -> (&'r str, String) {
    match refusal {
        Refusal::Clearance => {
            let held = upstream.classification.as_str();
            (
                BY_CLEARANCE,
                format!("its upstream is {held}, the principal is cleared for {clearance}"),
            )
        }
        Refusal::Rule(rule) => (&rule.name, "this rule denies it".to_owned()),
        Refusal::NoRule => (BY_DEFAULT, "no rule allows it".to_owned()),
        Refusal::Roles(rule) => {
            let roles = rule.roles().join(" or ");
            (
                &rule.name,
                format!("the tool's own entry asks for the role {roles}"),
            )
        }
        Refusal::Scopes(rule) => {
            let scopes = rule.scopes().join(" and ");
            (
                &rule.name,
                format!("the tool's own entry asks for the scopes {scopes}"),
            )
        }
    }
}
