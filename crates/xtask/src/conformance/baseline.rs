//! Which scenarios are known to fail or to be skipped by the suite, and why:
//! `tests/conformance/baseline.json`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::conformance::outcome::{Outcome, Scenario};
use crate::layout::{make_dir, read, write_atomically};

/// The reason a fresh entry gets; it is to be replaced by a real one.
const NO_REASON: &str = "not looked into yet";

/// Why one scenario is known not to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The part of the specification it is about.
    pub section: String,
    /// In words.
    pub reason: String,
    /// Whether it fails at some times and passes at others.
    pub sometimes: bool,
    /// Whether the suite itself skips it, whatever is done.
    pub skipped: bool,
}

type Reasons = BTreeMap<String, Known>;

/// Lane → revision → scenario → why.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Baseline(BTreeMap<String, BTreeMap<String, Reasons>>);

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
        let mut known = Self::default();
        for (lane, revisions) in entries(&file["expectedFailures"])? {
            for (revision, scenarios) in entries(revisions)? {
                for (scenario, entry) in entries(scenarios)? {
                    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
                    let entry = Known {
                        section: text("section"),
                        reason: text("reason"),
                        sometimes: entry["sometimes"] == true,
                        skipped: entry["skipped"] == true,
                    };
                    let reasons = known.reasons(lane, revision);
                    reasons.insert(scenario.clone(), entry);
                }
            }
        }
        Ok(known)
    }

    fn reasons(&mut self, lane: &str, revision: &str) -> &mut Reasons {
        let revisions = self.0.entry(lane.to_owned()).or_default();
        revisions.entry(revision.to_owned()).or_default()
    }

    /// Writes the file.
    pub fn store(&self, file: &Path) -> Result<()> {
        if let Some(dir) = file.parent() {
            make_dir(dir)?;
        }
        let mut failures = json!({});
        for (lane, revisions) in &self.0 {
            for (revision, reasons) in revisions {
                for (scenario, known) in reasons {
                    let mut entry = json!({"section": known.section, "reason": known.reason});
                    if known.sometimes {
                        entry["sometimes"] = true.into();
                    }
                    if known.skipped {
                        entry["skipped"] = true.into();
                    }
                    failures[lane][revision][scenario] = entry;
                }
            }
        }
        let value = json!({
            "about": "Scenarios of the official MCP conformance suite that fail through the \
                      gateway, each with the reason. `cargo xtask conformance` compares.",
            "expectedFailures": failures,
        });
        let text = serde_json::to_string_pretty(&value)?;
        write_atomically(file, format!("{text}\n").as_bytes())
    }

    /// Why a scenario is known to fail, if it is.
    pub fn known(&self, lane: &str, revision: &str, scenario: &str) -> Option<&Known> {
        self.0.get(lane)?.get(revision)?.get(scenario)
    }

    /// Makes exactly what does not pass now the known exceptions, keeping reasons, and what
    /// fails sometimes.
    pub fn accept(&mut self, lane: &str, revision: &str, outcome: &Outcome) {
        let sometimes = |name: &str| {
            let known = self.known(lane, revision, name);
            known.is_some_and(|known| known.sometimes)
        };
        let failed = outcome.scenarios.iter();
        let failed = failed.filter(|s| !s.passed || sometimes(&s.name));
        let reasons = failed
            .map(|scenario| {
                let known = self.known(lane, revision, &scenario.name).cloned();
                let mut known = known.unwrap_or_else(|| unexplained(scenario));
                known.skipped = scenario.skipped;
                (scenario.name.clone(), known)
            })
            .collect();
        *self.reasons(lane, revision) = reasons;
    }

    /// Where the outcome and the baseline disagree.
    pub fn complaints(&self, lane: &str, revision: &str, outcome: &Outcome) -> Vec<String> {
        let of = format!("{lane}, {revision}");
        let mut complaints: Vec<String> = outcome
            .scenarios
            .iter()
            .filter_map(|scenario| {
                let name = &scenario.name;
                let known = self.known(lane, revision, name);
                if scenario.skipped != known.is_some_and(|known| known.skipped) {
                    let says = match scenario.skipped {
                        true => "is skipped by the suite and the baseline does not say so",
                        false => "is not skipped by the suite, as the baseline says",
                    };
                    return Some(format!("{of}: {name} {says}"));
                }
                match (scenario.passed, known) {
                    (false, None) => Some(format!("{of}: {name} fails and is not in the baseline")),
                    (false, Some(known))
                        if known.reason.is_empty() || known.reason == NO_REASON =>
                    {
                        Some(format!("{of}: {name} is in the baseline without a reason"))
                    }
                    (true, Some(known)) if known.sometimes => None,
                    (true, Some(_)) => Some(format!(
                        "{of}: {name} passes; remove it from the baseline \
                         (`cargo xtask conformance --update-baseline`)"
                    )),
                    (true, None) | (false, Some(_)) => None,
                }
            })
            .collect();
        let listed = self.0.get(lane).and_then(|lane| lane.get(revision));
        for name in listed.into_iter().flat_map(BTreeMap::keys) {
            if !outcome.scenarios.iter().any(|s| &s.name == name) {
                complaints.push(format!(
                    "{of}: the baseline lists {name}, which is no scenario of it"
                ));
            }
        }
        complaints
    }
}

fn entries(value: &Value) -> Result<&serde_json::Map<String, Value>> {
    value.as_object().context("an entry is not a mapping")
}

fn unexplained(scenario: &Scenario) -> Known {
    Known {
        section: scenario.sections.join(", "),
        reason: NO_REASON.to_owned(),
        sometimes: false,
        skipped: scenario.skipped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(good: bool, bad: bool) -> Outcome {
        let scenario = |name: &str, passed| Scenario {
            name: name.to_owned(),
            scored: true,
            ran: true,
            passed,
            skipped: false,
            sections: vec!["basic".to_owned()],
            failures: Vec::new(),
        };
        Outcome {
            scenarios: vec![scenario("good", good), scenario("bad", bad)],
        }
    }

    fn knowing(scenario: &str, reason: &str) -> Baseline {
        let known = json!({scenario: {"section": "basic", "reason": reason}});
        let file = json!({"expectedFailures": {"L": {"R": known}}});
        Baseline::parse(&file.to_string()).unwrap()
    }

    #[test]
    fn only_a_disagreement_is_a_complaint() {
        let baseline = knowing("bad", "because");
        let complaints = |good, bad| baseline.complaints("L", "R", &outcome(good, bad)).len();
        assert_eq!(complaints(true, false), 0);
        assert_eq!(complaints(false, false), 1);
        assert_eq!(complaints(true, true), 1);
    }

    #[test]
    fn a_scenario_may_be_skipped_only_where_the_baseline_says_so_by_name() {
        let skips = |skipped: bool| {
            let mut outcome = outcome(true, false);
            outcome.scenarios[1].skipped = skipped;
            outcome
        };
        let file = json!({"expectedFailures": {"L": {"R": {"bad":
            {"section": "basic", "reason": "no checks", "skipped": true}}}}});
        let knows = Baseline::parse(&file.to_string()).unwrap();
        let complaints = |baseline: &Baseline, skipped| {
            let complaints = baseline.complaints("L", "R", &skips(skipped));
            complaints.len()
        };
        assert_eq!(complaints(&knows, true), 0);
        assert_eq!(complaints(&knows, false), 1, "it fails");
        assert_eq!(complaints(&knowing("bad", "because"), true), 1);
        assert_eq!(complaints(&Baseline::default(), true), 1);
        let mut baseline = knowing("bad", "because");
        for skipped in [true, false] {
            baseline.accept("L", "R", &skips(skipped));
            assert_eq!(complaints(&baseline, skipped), 0);
        }
    }

    #[test]
    fn what_fails_sometimes_may_pass_and_stays() {
        let file = json!({"expectedFailures": {"L": {"R": {"bad":
            {"section": "basic", "reason": "a race", "sometimes": true}}}}});
        let mut baseline = Baseline::parse(&file.to_string()).unwrap();
        for passes in [false, true] {
            let outcome = outcome(true, passes);
            assert_eq!(baseline.complaints("L", "R", &outcome).len(), 0);
            baseline.accept("L", "R", &outcome);
            assert!(
                baseline
                    .known("L", "R", "bad")
                    .is_some_and(|known| known.sometimes)
            );
        }
    }

    #[test]
    fn a_baseline_entry_that_names_no_scenario_or_gives_no_reason_is_a_complaint() {
        for baseline in [knowing("gone", "x"), knowing("bad", "")] {
            let complaints = baseline.complaints("L", "R", &outcome(true, false));
            assert!(!complaints.is_empty(), "{baseline:?}");
        }
    }

    #[test]
    fn accepting_keeps_reasons_and_drops_what_passes() {
        let mut baseline = knowing("bad", "because");
        baseline.accept("L", "R", &outcome(false, false));
        let reason = |baseline: &Baseline, name: &str| {
            let known = baseline.known("L", "R", name);
            known.map(|known| known.reason.clone())
        };
        assert_eq!(reason(&baseline, "bad").as_deref(), Some("because"));
        assert_eq!(reason(&baseline, "good").as_deref(), Some(NO_REASON));
        baseline.accept("L", "R", &outcome(true, true));
        assert_eq!(reason(&baseline, "bad"), None);
    }
}
