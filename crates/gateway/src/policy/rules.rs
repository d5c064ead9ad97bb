//! The rules of a policy, compiled once per configuration.
//!
//! A rule that denies outweighs all that allow, and what no rule allows is denied; so the
//! order of rules does not matter. A rule whose condition fails never lets anything
//! through: one that allows does not allow, one that denies does.

use std::collections::BTreeSet;

use tidegate_policy::{Condition, Engine, Facts, Outcome, Phase, Scope, Subject, Weighed};

use crate::config::{Config, Effect, NAME_SEPARATOR, Policy, PolicyRule, Problem};

/// What a rule's list of tools, prompts or resources names.
enum Selector {
    /// `*`
    Every,
    /// `upstream__*`
    Upstream(String),
    /// `upstream__name`
    Named(String, String),
}

impl Selector {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Every);
        }
        let (upstream, name) = text.split_once(NAME_SEPARATOR)?;
        match name {
            "" => None,
            "*" => Some(Self::Upstream(upstream.to_owned())),
            name => Some(Self::Named(upstream.to_owned(), name.to_owned())),
        }
    }

    fn concerns(&self, upstream: &str, name: Named<'_>) -> bool {
        match self {
            Self::Every => true,
            Self::Upstream(own) => own == upstream,
            Self::Named(own, named) => {
                own == upstream
                    && match name {
                        Named::So(name) => name == named,
                        Named::Nothing => false,
                        Named::Perhaps(whatever) => whatever,
                    }
            }
        }
    }
}

/// What the name is of what is asked for.
#[derive(Clone, Copy)]
enum Named<'a> {
    /// This.
    So(&'a str),
    /// It has none that rules know it by.
    Nothing,
    /// It is not known; whether it is taken to be the one a rule means.
    Perhaps(bool),
}

/// One rule.
pub struct Rule {
    /// Its name.
    pub name: String,
    /// What it says of what it describes.
    pub effect: Effect,
    /// Whether whom it denies may know it.
    pub disclose: bool,
    selectors: Vec<(Phase, Selector)>,
    condition: Option<Condition>,
}

impl Rule {
    /// Whether it is about this at all.
    pub fn concerns(&self, facts: &Facts<'_>) -> bool {
        let phase = facts.about.phase();
        let name = match facts.about {
            Subject::Tool(name, _) | Subject::Prompt(name) => Named::So(name),
            Subject::Resource(_) => Named::Nothing,
            // There may be what is allowed, and something else than what is denied.
            Subject::Something(_) => Named::Perhaps(self.effect == Effect::Allow),
        };
        self.selectors
            .iter()
            .any(|(of, selector)| *of == phase && selector.concerns(facts.upstream, name))
    }

    fn weigh(&self, engine: &Engine, facts: &Facts<'_>) -> Weighed {
        match &self.condition {
            Some(condition) => condition.weigh(engine, facts),
            None => Weighed {
                outcome: Outcome::YES,
                failure: None,
            },
        }
    }
}

/// Which rule decided, and how.
#[derive(Clone, Copy)]
pub enum Verdict<'r> {
    /// This rule allows it; while the arguments are not known: with some of them.
    Allowed(&'r Rule),
    /// This rule denies it: whatever the arguments, or, where any must do, with some of them.
    Denied(&'r Rule),
    /// No rule allows it.
    NotAllowed,
}

/// What must be so of what is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It may turn out to be something with which the request is allowed.
    Some,
    /// Whatever it turns out to be, the request is allowed.
    Any,
}

/// A verdict, and what went wrong on the way to it.
pub struct Decision<'r> {
    /// The verdict.
    pub verdict: Verdict<'r>,
    /// Rules whose conditions failed, with the reason in words that quote nothing.
    pub failures: Vec<(&'r str, &'static str)>,
}

/// What one rule says of a request, for people.
pub struct Opinion<'r> {
    /// The rule.
    pub rule: &'r Rule,
    /// What its condition comes to; `None` where the rule is about something else.
    pub outcome: Option<Outcome>,
    /// Why the condition fails.
    pub failure: Option<&'static str>,
}

/// Every rule of a policy.
pub struct Rules {
    rules: Vec<Rule>,
    engine: Engine,
    /// Whether any condition asks for a tool's annotations.
    pub(super) annotations: bool,
}

impl Rules {
    /// The rules of a configuration, if it has any; or everything wrong with them.
    pub fn compile(config: &Config) -> Result<Option<Self>, Vec<Problem>> {
        let Some(policy) = config
            .policy
            .as_ref()
            .filter(|policy| !policy.rules.is_empty())
        else {
            return Ok(None);
        };
        let names = Names::of(config, policy);
        let (mut rules, mut problems, mut annotations) = (Vec::new(), Vec::new(), false);
        for (index, rule) in policy.rules.iter().enumerate() {
            match names.rule(rule) {
                Ok((rule, speaks)) => {
                    annotations |= speaks;
                    rules.push(rule);
                }
                Err(found) => problems.extend(found.into_iter().map(|mut problem| {
                    problem.pointer = format!("/policy/rules/{index}{}", problem.pointer);
                    problem
                })),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Some(Self {
            rules,
            engine: Engine::default(),
            annotations,
        }))
    }

    /// Each rule's name and effect.
    pub fn names(&self) -> impl Iterator<Item = (&str, Effect)> {
        self.rules
            .iter()
            .map(|rule| (rule.name.as_str(), rule.effect))
    }

    /// What the rules come to.
    pub fn decide(&self, facts: &Facts<'_>, unknown: Unknown) -> Decision<'_> {
        let mut failures = Vec::new();
        let concerned: Vec<&Rule> = self
            .rules
            .iter()
            .filter(|rule| rule.concerns(facts))
            .collect();
        for rule in concerned.iter().filter(|rule| rule.effect == Effect::Deny) {
            let Weighed { outcome, failure } = rule.weigh(&self.engine, facts);
            failures.extend(failure.map(|failure| (rule.name.as_str(), failure)));
            let spares = match unknown {
                Unknown::Some => outcome.no,
                Unknown::Any => outcome == Outcome::NO,
            };
            if !spares {
                let verdict = Verdict::Denied(rule);
                return Decision { verdict, failures };
            }
        }
        for rule in concerned.iter().filter(|rule| rule.effect == Effect::Allow) {
            let Weighed { outcome, failure } = rule.weigh(&self.engine, facts);
            failures.extend(failure.map(|failure| (rule.name.as_str(), failure)));
            let allows = match unknown {
                Unknown::Some => outcome.yes,
                Unknown::Any => outcome == Outcome::YES,
            };
            if allows {
                let verdict = Verdict::Allowed(rule);
                return Decision { verdict, failures };
            }
        }
        Decision {
            verdict: Verdict::NotAllowed,
            failures,
        }
    }

    /// What each rule says by itself.
    pub fn opinions(&self, facts: &Facts<'_>) -> Vec<Opinion<'_>> {
        let opinion = |rule| {
            let rule: &Rule = rule;
            let weighed = rule
                .concerns(facts)
                .then(|| rule.weigh(&self.engine, facts));
            Opinion {
                rule,
                outcome: weighed.map(|weighed| weighed.outcome),
                failure: weighed.and_then(|weighed| weighed.failure),
            }
        };
        self.rules.iter().map(opinion).collect()
    }
}

/// What rules may name.
struct Names<'a> {
    roles: BTreeSet<&'a str>,
    upstreams: BTreeSet<&'a str>,
    /// As `upstream__tool`.
    tools: BTreeSet<&'a str>,
    /// The tools' own names.
    own: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    fn of(config: &'a Config, policy: &'a Policy) -> Self {
        let ruled = config.tools.iter().map(|rule| rule.name.as_str());
        let tools: BTreeSet<&str> = ruled
            .chain(policy.tools.iter().map(String::as_str))
            .collect();
        let own = tools
            .iter()
            .filter_map(|tool| Some(tool.split_once(NAME_SEPARATOR)?.1));
        Self {
            roles: policy.roles.iter().map(String::as_str).collect(),
            upstreams: config.upstreams.iter().map(|u| u.name.as_str()).collect(),
            own: own.filter(|tool| *tool != "*").collect(),
            tools,
        }
    }

    fn rule(&self, rule: &PolicyRule) -> Result<(Rule, bool), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut selectors = Vec::new();
        for (phase, texts) in [
            (Phase::Tool, &rule.tools),
            (Phase::Prompt, &rule.prompts),
            (Phase::Resource, &rule.resources),
        ] {
            for (index, text) in texts.iter().enumerate() {
                match self.selector(phase, text) {
                    Ok(selector) => selectors.push((phase, selector)),
                    Err((message, remedy)) => problems.push(Problem {
                        pointer: format!("/{}/{index}", phase.plural()),
                        message,
                        remedy,
                    }),
                }
            }
        }
        let mut phases: Vec<Phase> = selectors.iter().map(|(phase, _)| *phase).collect();
        phases.dedup();
        let scope = Scope {
            phases: &phases,
            roles: &self.roles,
            upstreams: &self.upstreams,
            tools: &self.own,
        };
        let parsed = rule
            .when
            .as_deref()
            .map(|when| Condition::parse(when, &scope));
        let condition = parsed.transpose().unwrap_or_else(|flaws| {
            problems.extend(flaws.into_iter().map(|(message, remedy)| Problem {
                pointer: "/when".to_owned(),
                message,
                remedy,
            }));
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let speaks = condition.as_ref().is_some_and(|c| c.annotations);
        let rule = Rule {
            name: rule.name.clone(),
            effect: rule.effect,
            disclose: rule.disclose,
            selectors,
            condition,
        };
        Ok((rule, speaks))
    }

    fn selector(&self, phase: Phase, text: &str) -> Result<Selector, (String, String)> {
        let Some(selector) = Selector::parse(text) else {
            let message = "does not say whose it means".to_owned();
            let name = match phase {
                Phase::Tool => "upstream__tool, upstream__* or *",
                Phase::Prompt => "upstream__prompt, upstream__* or *",
                Phase::Resource => "upstream__* or *",
            };
            return Err((message, format!("write {name}")));
        };
        let (upstream, named) = match &selector {
            Selector::Every => return Ok(selector),
            Selector::Upstream(upstream) => (upstream, None),
            Selector::Named(upstream, name) => (upstream, Some(name)),
        };
        if !self.upstreams.contains(upstream.as_str()) {
            let known: Vec<&str> = self.upstreams.iter().copied().collect();
            return Err((
                "names an upstream that is not configured".to_owned(),
                format!(
                    "add it under `upstreams`, or use one of: {}",
                    known.join(", ")
                ),
            ));
        }
        match (phase, named) {
            (Phase::Tool, Some(_)) if !self.tools.contains(text) => Err((
                format!("`{text}` is no known tool"),
                "correct it, or list it under policy.tools".to_owned(),
            )),
            (Phase::Resource, Some(_)) => Err((
                "names a resource".to_owned(),
                "write upstream__*, and what the URI must be in `when` (resource.uri)".to_owned(),
            )),
            (Phase::Tool | Phase::Prompt | Phase::Resource, _) => Ok(selector),
        }
    }
}
