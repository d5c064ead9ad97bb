//! Whether a principal may do what it asks: principal × target → [`Permit`].
//!
//! Three things must agree: the principal's clearance reaches the upstream's
//! classification; a rule of the policy allows it and none denies it, where there is a
//! policy; and the principal has the roles and scopes the tool's own rule asks for. Lists
//! are filtered by the same [`Judge`] that decides calls, with the arguments unknown: what
//! is shown is what may be called with some arguments. The completion of a resource template
//! is permitted only where every resource of its upstream may be read.
//!
//! [`Judge`] is pure; time, address and settings are given to it.

mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::json;
use tidegate_mcp::method::Method;

pub use rules::{Decision, Opinion, Rule, Rules, Unknown, Verdict};
pub use tidegate_policy::{Arguments, Facts, Hints, Outcome, Subject};
use tidegate_policy::{CLASSIFICATIONS, Phase};

use crate::auth::{Principal, Resource, challenge};
use crate::config::{Classification, NAME_SEPARATOR, Policy, ToolRule, Upstream};
use crate::context::Context;
use crate::credentials;
use crate::error::{Error, Rejection};
use crate::ingress::Peer;
use crate::platform::{LogLevel, Platform};
use crate::route::{One, PROMPT_REFERENCE, Target};
use crate::switches;
use crate::time::Timestamp;

/// What decides where no rule of the policy does; no rule has such a name.
pub const BY_DEFAULT: &str = "(default)";
/// What decides where the clearance does not reach.
pub const BY_CLEARANCE: &str = "(clearance)";

/// What decides where the upstream is of other tenants.
pub const BY_TENANT: &str = "(tenant)";

/// The name of a tool that has no rule of its own: no tool has this one.
const UNNAMED: &str = "";

/// Proof that a principal may do this to that. Only [`authorize`] makes one.
pub struct Permit {
    /// Who may.
    pub principal: Rc<Principal>,
    /// What they may.
    pub target: Target,
    /// The tool's own rule, if it has one.
    pub rule: Option<ToolRule>,
    /// The rule of the policy that allows it, if there is a policy.
    pub allowed_by: Option<String>,
    _proof: Proof,
}

/// What only this module can make.
struct Proof;

/// Decides one call. What the upstream says its tool does is not known of one that will not be
/// made whatever is decided here.
pub fn authorize<P: Platform>(
    context: &Context<P>,
    principal: Rc<Principal>,
    target: Target,
    hints: Option<Hints>,
    resource: &Resource,
) -> Result<Permit, Error> {
    let settings = &context.settings;
    let rule = target
        .tool()
        .and_then(|(upstream, tool)| settings.rule(upstream, tool))
        .cloned();
    let mut allowed_by = None;
    if let Target::One(one) = &target
        && !connects(context, &principal, one)
    {
        tenanted(&principal, &one.upstream)?;
        let (subject, arguments) = asked(one, hints);
        let judge = Judge::of(settings.config.policy.as_ref(), settings.rules.as_ref());
        let judge = match subject {
            // What the upstream says of a template it says of URIs nobody has judged.
            Subject::Resource(None) => judge.whatever_comes(),
            Subject::Tool(..)
            | Subject::Prompt(_)
            | Subject::Resource(Some(_))
            | Subject::Something(_) => judge,
        };
        let clearance = judge.clearance(&principal);
        let place = (context.peer.as_ref(), context.now());
        let facts = self::facts(
            (&principal, clearance),
            place,
            &one.upstream,
            subject,
            arguments,
        );
        let judged = judge.judge(rule.as_ref(), &facts);
        note(context, LogLevel::Warn, &judged.failures);
        match judged.judgement {
            Judgement::Permitted(by) => allowed_by = by.map(str::to_owned),
            Judgement::Refused(refusal) => return Err(refused(refusal, resource)),
        }
    }
    Ok(Permit {
        principal,
        target,
        rule,
        allowed_by,
        _proof: Proof,
    })
}

/// Whether what was begun may still be gone on with: whether it may be done with some
/// arguments, where those it was begun with are no longer known.
pub(crate) fn allows_still<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    upstream: &Upstream,
    tool: &str,
    resource: &Resource,
) -> Result<(), Error> {
    tenanted(principal, upstream)?;
    let judged = weigh_unknown(context, principal, upstream, Subject::Tool(tool, None));
    match judged.judgement {
        // Who may not call it is not told that it is switched off.
        Judgement::Permitted(_) => switches::still(context, &upstream.name, tool),
        Judgement::Refused(refusal) => Err(refused(refusal, resource)),
    }
}

/// Whether a principal may know that there is such an upstream: it is no other tenant's, and
/// the principal is cleared for it.
pub(crate) fn knows<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    upstream: &Upstream,
) -> bool {
    let settings = &context.settings;
    let judge = Judge::of(settings.config.policy.as_ref(), settings.rules.as_ref());
    tenanted(principal, upstream).is_ok() && judge.clearance(principal) >= upstream.classification
}

/// Whether this caller may see one entry of a list.
pub(crate) fn shown<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    upstream: &Upstream,
    subject: Subject<'_>,
) -> bool {
    if tenanted(principal, upstream).is_err() {
        return false;
    }
    let judged = weigh_unknown(context, principal, upstream, subject);
    matches!(judged.judgement, Judgement::Permitted(_))
}

/// Whether a principal may connect an account at an upstream, and see the tool that does: if
/// there may be anything there for it to use, whatever rules say of that tool's name, which
/// is the gateway's.
pub(crate) fn may_connect<P: Platform>(
    context: &Context<P>,
    principal: &Principal,
    upstream: &Upstream,
) -> bool {
    let rules = context.settings.tool_rules.of_upstream(&upstream.name);
    let named = rules.filter_map(|rule| Some(rule.name.split_once(NAME_SEPARATOR)?.1));
    let named = named.filter(|own| *own != "*");
    let kinds = [Phase::Tool, Phase::Prompt, Phase::Resource];
    let kinds = kinds.into_iter().map(Subject::Something);
    kinds
        .chain(named.map(|own| Subject::Tool(own, None)))
        .any(|subject| shown(context, principal, upstream, subject))
}

/// Whether a call connects an account, and may.
fn connects<P: Platform>(context: &Context<P>, principal: &Principal, one: &One) -> bool {
    credentials::connects(one) && may_connect(context, principal, &one.upstream)
}

/// What is decided while the arguments are not known.
fn weigh_unknown<'c, P: Platform>(
    context: &'c Context<P>,
    principal: &Principal,
    upstream: &Upstream,
    subject: Subject<'_>,
) -> Judged<'c> {
    let settings = &context.settings;
    let rule = match subject {
        Subject::Tool(own, _) => settings.rule(&upstream.name, own),
        Subject::Something(Phase::Tool) => settings.rule(&upstream.name, UNNAMED),
        Subject::Prompt(_) | Subject::Resource(_) | Subject::Something(_) => None,
    };
    let judge = Judge::of(settings.config.policy.as_ref(), settings.rules.as_ref());
    let clearance = judge.clearance(principal);
    let place = (context.peer.as_ref(), context.now());
    let facts = self::facts(
        (principal, clearance),
        place,
        upstream,
        subject,
        Arguments::Unknown,
    );
    let judged = judge.judge(rule, &facts);
    // Once for every entry of every list: calls say it louder.
    note(context, LogLevel::Debug, &judged.failures);
    judged
}

/// Of other tenants' upstreams nobody gets as far as this, but for what was begun before they
/// were theirs.
fn tenanted(principal: &Principal, upstream: &Upstream) -> Result<(), Error> {
    match upstream.is_seen_by(principal.tenant.as_deref()) {
        true => Ok(()),
        false => Err(Rejection::Denied {
            rule: BY_TENANT.to_owned(),
            disclose: false,
        }
        .into()),
    }
}

/// Whether the policy asks what upstreams say their tools do.
pub(crate) fn wants_hints<P: Platform>(context: &Context<P>) -> bool {
    context
        .settings
        .rules
        .as_ref()
        .is_some_and(|rules| rules.annotations)
}

/// What a request to an upstream is for, and with which arguments.
fn asked(one: &One, hints: Option<Hints>) -> (Subject<'_>, Arguments<'_>) {
    let known = Arguments::Known(one.params.get("arguments"));
    if one.method == Method::ToolsCall {
        return (Subject::Tool(&one.own, hints), known);
    }
    if one.method == Method::PromptsGet {
        return (Subject::Prompt(&one.own), known);
    }
    // What else goes to one upstream names a resource.
    let subject = match one.method == Method::CompletionComplete {
        true => completed(one),
        false => Subject::Resource(Some(&one.own)),
    };
    (subject, Arguments::Unknown)
}

/// What a completion is for: whoever is still filling in arguments, or a template, has not
/// chosen them yet.
fn completed(one: &One) -> Subject<'_> {
    let reference = one.params.get_object("ref").and_then(Result::ok);
    let kind = reference
        .as_ref()
        .and_then(|reference| reference.get_str("type"));
    if kind.as_deref() == Some(PROMPT_REFERENCE) {
        return Subject::Prompt(&one.own);
    }
    match is_template(&one.own) {
        true => Subject::Resource(None),
        false => Subject::Resource(Some(&one.own)),
    }
}

/// Whether a URI stands for many (RFC 6570): no URI itself has a brace in it (RFC 3986).
fn is_template(uri: &str) -> bool {
    uri.contains('{')
}

/// The facts of one request for one thing.
pub fn facts<'a>(
    (principal, clearance): (&'a Principal, Classification),
    (peer, now): (&'a Peer, Timestamp),
    upstream: &'a Upstream,
    about: Subject<'a>,
    arguments: Arguments<'a>,
) -> Facts<'a> {
    let known = |text: &'a String| Some(text.as_str()).filter(|text| !text.is_empty());
    Facts {
        issuer: known(&principal.issuer),
        subject: known(&principal.subject),
        client: principal.client_id.as_deref(),
        tenant: principal.tenant.as_deref(),
        roles: Some(&principal.roles),
        scopes: Some(&principal.scopes),
        clearance: clearance.as_str(),
        upstream: &upstream.name,
        classification: upstream.classification.as_str(),
        address: peer.address.as_deref(),
        country: peer.country.as_deref(),
        now_ms: now.0,
        about,
        arguments,
        ..Facts::default()
    }
}

/// Tells the operator of conditions that failed.
fn note<P: Platform>(context: &Context<P>, level: LogLevel, failures: &[(&str, &'static str)]) {
    for (rule, reason) in failures {
        let fields = json!({ "rule": rule, "reason": reason });
        context.log(level, "policy_failed", fields);
    }
}

fn refused(refusal: Refusal<'_>, resource: &Resource) -> Error {
    let denied = |by: &str, disclose: bool| Rejection::Denied {
        rule: by.to_owned(),
        disclose,
    };
    match refusal {
        Refusal::Clearance => denied(BY_CLEARANCE, false),
        Refusal::Rule(rule) => denied(&rule.name, rule.disclose),
        Refusal::NoRule => denied(BY_DEFAULT, false),
        Refusal::Roles(rule) => denied(&rule.name, true),
        Refusal::Scopes(rule) => {
            let needed: BTreeSet<String> = rule.scopes().iter().cloned().collect();
            let challenge = challenge::insufficient_scope(resource, &needed);
            let rule = rule.name.clone();
            Rejection::InsufficientScope { challenge, rule }
        }
    }
    .into()
}

/// Everything that decides, put together.
#[derive(Clone, Copy)]
pub struct Judge<'a> {
    policy: Option<&'a Policy>,
    rules: Option<&'a Rules>,
    unknown: Unknown,
}

/// What was decided.
pub enum Judgement<'a> {
    /// It may be done; by this rule of the policy, if there is one.
    Permitted(Option<&'a str>),
    /// It may not.
    Refused(Refusal<'a>),
}

/// Why something may not be done.
pub enum Refusal<'a> {
    /// The upstream's data is held more closely than the principal is cleared for.
    Clearance,
    /// A rule of the policy denies it.
    Rule(&'a Rule),
    /// No rule of the policy allows it.
    NoRule,
    /// The tool's own rule asks for a role the principal does not have.
    Roles(&'a ToolRule),
    /// The tool's own rule asks for scopes the token does not have: another may.
    Scopes(&'a ToolRule),
}

/// What was decided, and which conditions failed on the way.
pub struct Judged<'a> {
    /// What was decided.
    pub judgement: Judgement<'a>,
    /// Rules whose conditions failed, with the reason.
    pub failures: Vec<(&'a str, &'static str)>,
}

impl<'a> Judge<'a> {
    /// A judge by this policy, and its rules as they were compiled.
    pub const fn of(policy: Option<&'a Policy>, rules: Option<&'a Rules>) -> Self {
        Self {
            policy,
            rules,
            unknown: Unknown::Some,
        }
    }

    /// One that permits only what would be permitted whatever is not known yet turns out to be.
    pub const fn whatever_comes(self) -> Self {
        Self {
            unknown: Unknown::Any,
            ..self
        }
    }

    /// Up to which classification a principal may use upstreams.
    pub fn clearance(&self, principal: &Principal) -> Classification {
        let Some(policy) = self.policy else {
            return Classification::default();
        };
        let given = &policy.clearance.roles;
        let roles = principal.roles.iter();
        let given = roles.filter_map(|role| given.get(role)).copied();
        given.fold(policy.clearance.default, Classification::max)
    }

    /// Whether it may be done, as far as the facts are known; `rule` is the tool's own.
    pub fn judge(&self, rule: Option<&'a ToolRule>, facts: &Facts<'_>) -> Judged<'a> {
        let mut failures = Vec::new();
        let refuse = |refusal, failures| Judged {
            judgement: Judgement::Refused(refusal),
            failures,
        };
        if rank(facts.clearance) < rank(facts.classification) {
            return refuse(Refusal::Clearance, failures);
        }
        let mut allowed_by = None;
        if let Some(rules) = self.rules {
            let decision = rules.decide(facts, self.unknown);
            failures = decision.failures;
            match decision.verdict {
                Verdict::Allowed(rule) => allowed_by = Some(rule.name.as_str()),
                Verdict::Denied(rule) => return refuse(Refusal::Rule(rule), failures),
                Verdict::NotAllowed => return refuse(Refusal::NoRule, failures),
            }
        }
        match rule {
            Some(rule) if !has_role(facts, rule) => refuse(Refusal::Roles(rule), failures),
            Some(rule) if !has_scopes(facts, rule) => refuse(Refusal::Scopes(rule), failures),
            Some(_) | None => Judged {
                judgement: Judgement::Permitted(allowed_by),
                failures,
            },
        }
    }
}

/// How high a classification is.
fn rank(classification: &str) -> Option<usize> {
    CLASSIFICATIONS
        .iter()
        .position(|known| *known == classification)
}

fn has_role(facts: &Facts<'_>, rule: &ToolRule) -> bool {
    let has = |role: &String| facts.roles.is_some_and(|roles| roles.contains(role));
    rule.roles().is_empty() || rule.roles().iter().any(has)
}

fn has_scopes(facts: &Facts<'_>, rule: &ToolRule) -> bool {
    let has = |scope: &String| facts.scopes.is_some_and(|scopes| scopes.contains(scope));
    rule.scopes().iter().all(has)
}
