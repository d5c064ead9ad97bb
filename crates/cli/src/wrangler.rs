//! Whether a `wrangler.toml` binds the limiters a configuration counts with: Workers fix at
//! deployment how often each of them admits.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use tidegate_gateway::config::{Config, LimitRule};

use crate::Failure;
use crate::finding::Finding;
use crate::load::Loaded;

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    ratelimits: Vec<Limiter>,
}

/// One rate limiting binding.
#[derive(Deserialize)]
struct Limiter {
    name: String,
    simple: Simple,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Simple {
    limit: u64,
    /// In seconds.
    period: u64,
}

/// What the file at `path` lacks for this configuration.
pub fn check(path: &Path, loaded: &Loaded) -> Result<Vec<Finding>, Failure> {
    let unusable = |reason: String| Failure::Usage(format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let manifest: Manifest = toml::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    let findings = lacks(&manifest, &loaded.config);
    let findings = findings.map(|(pointer, lack, remedy)| Finding {
        place: loaded.place(&pointer),
        pointer,
        message: format!("{}: {lack}", path.display()),
        remedy,
    });
    Ok(findings.collect())
}

/// For each limit that is counted by the host: where it says so, what is wrong, and a remedy.
fn lacks<'a>(
    manifest: &'a Manifest,
    config: &'a Config,
) -> impl Iterator<Item = (String, String, String)> + 'a {
    let rules = config.limits.rules.iter().enumerate();
    rules.filter_map(|(index, rule)| {
        let binding = rule.binding.as_deref()?;
        let bound = manifest.ratelimits.iter().find(|each| each.name == binding);
        let lack = match bound {
            None => format!("binds no limiter `{binding}`"),
            Some(bound) if bound.simple != rate(rule) => {
                let Simple { limit, period } = bound.simple;
                format!("`{binding}` admits {limit} in {period} s, which is not its rate")
            }
            Some(_) => return None,
        };
        let Simple { limit, period } = rate(rule);
        let remedy = format!(
            "write `simple = {{ limit = {limit}, period = {period} }}` under [[ratelimits]] with \
             `name = \"{binding}\"` and a `namespace_id` of its own"
        );
        Some((format!("/limits/rules/{index}/binding"), lack, remedy))
    })
}

/// A limit's rate as a binding says it.
fn rate(rule: &LimitRule) -> Simple {
    Simple {
        limit: rule.rate.requests.into(),
        period: rule.rate.window_ms / 1000,
    }
}
