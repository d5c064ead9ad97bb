//! Which scenarios are known to fail, and why: `tests/conformance/baseline.json`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::conformance::outcome::Outcome;
use crate::layout::{make_dir, read, write_atomically};

/// The reason a fresh entry gets; it is to be replaced by a real one.
const NO_REASON: &str = "not looked into yet";

/// Scenario → reason, for each revision.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Baseline(BTreeMap<String, BTreeMap<String, String>>);

impl Baseline {
    /// Reads the file; without one, nothing is known to fail.
    pub fn load(file: &Path) -> Result<Self> {
        if !file.exists() {
            return Ok(Self::default());
        }
        Self::parse(&read(file)?).with_context(|| format!("{} is damaged", file.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let file: Value = serde_json::from_str(text)?;
        let revisions = file["expectedFailures"]
            .as_object()
            .context("`expectedFailures` is missing")?;
        let mut known = BTreeMap::new();
        for (revision, scenarios) in revisions {
            let scenarios = scenarios
                .as_object()
                .context("a revision is not a mapping")?;
            let reasons = scenarios
                .iter()
                .map(|(name, reason)| {
                    let reason = reason.as_str().unwrap_or(NO_REASON);
                    (name.clone(), reason.to_owned())
                })
                .collect();
            known.insert(revision.clone(), reasons);
        }
        Ok(Self(known))
    }

    /// Writes the file.
    pub fn store(&self, file: &Path) -> Result<()> {
        if let Some(dir) = file.parent() {
            make_dir(dir)?;
        }
        let value = json!({
            "about": "Scenarios of the official MCP conformance suite that fail through the \
                      gateway, each with the reason. `cargo xtask conformance` compares.",
            "expectedFailures": self.0,
        });
        let text = serde_json::to_string_pretty(&value)?;
        write_atomically(file, format!("{text}\n").as_bytes())
    }

    /// Why a scenario is known to fail, if it is.
    pub fn reason(&self, revision: &str, scenario: &str) -> Option<&str> {
        Some(self.0.get(revision)?.get(scenario)?.as_str())
    }

    /// Makes exactly what fails now the known failures, keeping reasons.
    pub fn accept(&mut self, revision: &str, outcome: &Outcome) {
        let reasons = outcome
            .scored()
            .filter(|scenario| !scenario.passed)
            .map(|scenario| {
                let reason = self.reason(revision, &scenario.name).unwrap_or(NO_REASON);
                (scenario.name.clone(), reason.to_owned())
            })
            .collect();
        self.0.insert(revision.to_owned(), reasons);
    }

    /// Where the outcome and the baseline disagree.
    pub fn complaints(&self, revision: &str, outcome: &Outcome) -> Vec<String> {
        let mut complaints: Vec<String> = outcome
            .scored()
            .filter_map(|scenario| {
                let known = self.reason(revision, &scenario.name).is_some();
                let name = &scenario.name;
                match (scenario.passed, known) {
                    (false, false) => Some(format!(
                        "{revision}: {name} fails and is not in the baseline"
                    )),
                    (true, true) => Some(format!(
                        "{revision}: {name} passes; remove it from the baseline \
                         (`cargo xtask conformance --update-baseline`)"
                    )),
                    (true, false) | (false, true) => None,
                }
            })
            .collect();
        let listed = self.0.get(revision).into_iter().flat_map(BTreeMap::keys);
        for name in listed {
            if !outcome.scored().any(|scenario| &scenario.name == name) {
                complaints.push(format!(
                    "{revision}: the baseline lists {name}, which is no scored scenario"
                ));
            }
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIREMENTS: &str = "server: [good, bad]";

    fn outcome(good: &str, bad: &str) -> Outcome {
        let output = format!(
            "=== SUMMARY ===\n{good} good: 1 passed, 0 failed\n{bad} bad: 1 passed, 0 failed\n"
        );
        Outcome::read(&output, REQUIREMENTS).unwrap()
    }

    fn knowing_bad() -> Baseline {
        Baseline::parse(r#"{"expectedFailures": {"R": {"bad": "because"}}}"#).unwrap()
    }

    #[test]
    fn only_a_disagreement_is_a_complaint() {
        let baseline = knowing_bad();
        assert!(baseline.complaints("R", &outcome("✓", "✗")).is_empty());
        assert_eq!(baseline.complaints("R", &outcome("✗", "✗")).len(), 1);
        assert_eq!(baseline.complaints("R", &outcome("✓", "✓")).len(), 1);
    }

    #[test]
    fn a_baseline_entry_that_names_no_scenario_is_a_complaint() {
        let baseline = Baseline::parse(r#"{"expectedFailures": {"R": {"gone": "x"}}}"#).unwrap();
        assert_eq!(baseline.complaints("R", &outcome("✓", "✓")).len(), 1);
    }

    #[test]
    fn accepting_keeps_reasons_and_drops_what_passes() {
        let mut baseline = knowing_bad();
        baseline.accept("R", &outcome("✗", "✗"));
        assert_eq!(baseline.reason("R", "bad"), Some("because"));
        assert_eq!(baseline.reason("R", "good"), Some(NO_REASON));
        baseline.accept("R", &outcome("✓", "✓"));
        assert_eq!(baseline.reason("R", "bad"), None);
    }
}
