//! `tidegate policy explain`: why one request is allowed or denied.

use std::io::Write;

use tidegate_gateway::policy::{Opinion, Outcome};

use super::question::{Question, Whence, Who};
use crate::Failure;
use crate::args::Explain;
use crate::load::Loaded;

/// Explains one request.
pub fn explain(asked: &Explain, loaded: &Loaded, out: &mut impl Write) -> Result<(), Failure> {
    let json = |text: &Option<String>, what: &str| {
        text.as_ref()
            .map(|text| {
                serde_json::from_str(text)
                    .map_err(|error| Failure::Usage(format!("{what} is not JSON: {error}")))
            })
            .transpose()
    };
    let question = Question {
        tool: asked.tool.clone(),
        prompt: asked.prompt.clone(),
        resource: asked.resource.clone(),
        arguments: json(&asked.arguments, "--arguments")?,
        list: asked.list,
        annotations: json(&asked.annotations, "--annotations")?,
        principal: Who {
            issuer: asked.issuer.clone(),
            subject: asked.subject.clone(),
            client: asked.client.clone(),
            tenant: asked.tenant.clone(),
            roles: asked.role.iter().cloned().collect(),
            scopes: asked.scope.iter().cloned().collect(),
        },
        from: Whence {
            address: asked.address.clone(),
            country: asked.country.clone(),
        },
        at: asked.at.clone(),
    };
    let rules = super::rules(loaded)?;
    let answer = question
        .ask(&loaded.config, rules.as_ref())
        .map_err(Failure::Usage)?;
    let verdict = match (answer.allowed, asked.list) {
        (true, false) => "allowed",
        (true, true) => "listed",
        (false, false) => "denied",
        (false, true) => "not listed",
    };
    writeln!(out, "{verdict} by {}: {}", answer.by, answer.why)?;
    for opinion in &answer.opinions {
        let effect = super::coverage::effect(opinion.rule.effect);
        writeln!(
            out,
            "  {effect:<5} {}: {}",
            opinion.rule.name,
            words(opinion)
        )?;
    }
    Ok(())
}

/// What a rule says, for a person.
fn words(opinion: &Opinion<'_>) -> String {
    let Some(outcome) = opinion.outcome else {
        return "is about something else".to_owned();
    };
    match outcome {
        Outcome::YES => "applies".to_owned(),
        Outcome::NO => "does not apply".to_owned(),
        _ => match opinion.failure {
            Some(failure) => format!("fails: {failure}"),
            None => "depends on the arguments".to_owned(),
        },
    }
}
