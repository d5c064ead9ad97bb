//! What a run of the conformance suite showed, scenario by scenario.
//!
//! Scenarios are counted, never checks: a server that answers 404 to everything passes
//! dozens of checks.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::conformance::baseline::Baseline;

/// One run.
#[derive(Debug)]
pub struct Outcome {
    /// In the order the suite ran them; those it should have run and did not come last.
    pub scenarios: Vec<Scenario>,
}

/// One scenario of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Whether the revision requires it.
    pub scored: bool,
    /// Whether the suite reported on it.
    pub ran: bool,
    /// Whether it passed: nothing failed, and something was checked.
    pub passed: bool,
}

impl Outcome {
    /// Reads the suite's output; `requirements` is the suite's own list for the revision.
    pub fn read(output: &str, requirements: &str) -> Result<Self> {
        let required = required(requirements)?;
        let mut scenarios: Vec<Scenario> = summary(output)
            .map(|(name, passed)| Scenario {
                scored: required.contains(name),
                name: name.to_owned(),
                ran: true,
                passed,
            })
            .collect();
        let ran: BTreeSet<String> = scenarios.iter().map(|s| s.name.clone()).collect();
        scenarios.extend(required.difference(&ran).map(|name| Scenario {
            name: name.clone(),
            scored: true,
            ran: false,
            passed: false,
        }));
        Ok(Self { scenarios })
    }

    /// The scenarios the revision requires.
    pub fn scored(&self) -> impl Iterator<Item = &Scenario> {
        self.scenarios.iter().filter(|scenario| scenario.scored)
    }

    /// Prints the counts, and every scenario that failed with what failed in it.
    pub fn print(&self, revision: &str, baseline: &Baseline, results: &Path) {
        let passed = |scored: bool| {
            let of = || self.scenarios.iter().filter(move |s| s.scored == scored);
            (of().filter(|s| s.passed).count(), of().count())
        };
        let (scored, all_scored) = passed(true);
        let (unscored, all_unscored) = passed(false);
        println!(
            "\n{revision}: {scored}/{all_scored} scenarios passed \
             (and {unscored}/{all_unscored} that are not scored)"
        );
        for scenario in self.scenarios.iter().filter(|s| !s.passed) {
            let mark = match (scenario.scored, baseline.reason(revision, &scenario.name)) {
                (false, _) => "not scored".to_owned(),
                (true, Some(reason)) => format!("known: {reason}"),
                (true, None) => "UNEXPECTED".to_owned(),
            };
            println!("  fails  {:<48} {mark}", scenario.name);
            if scenario.scored {
                for check in failed_checks(results, &scenario.name) {
                    println!("           {check}");
                }
            }
        }
    }
}

/// The names in the suite's `server:` list.
fn required(requirements: &str) -> Result<BTreeSet<String>> {
    let list: Value =
        serde_norway::from_str(requirements).context("the requirements are no YAML")?;
    let names = list["server"]
        .as_array()
        .context("the requirements have no `server` list")?;
    Ok(names
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect())
}

/// The lines `✓ name: N passed, M failed` below the summary's heading.
fn summary(output: &str) -> impl Iterator<Item = (&str, bool)> {
    let summary = output
        .split_once("=== SUMMARY ===")
        .map_or("", |(_, after)| after);
    summary.lines().filter_map(|line| {
        let (name, counts) = line.trim().split_once(": ")?;
        let (mark, name) = name.split_once(' ')?;
        let (passed, failed) = counts.split_once(" passed, ")?;
        let passed: u32 = passed.parse().ok()?;
        failed.strip_suffix(" failed")?;
        Some((name, mark == "✓" && passed > 0))
    })
}

/// What the suite wrote about the failed checks of one scenario.
fn failed_checks(results: &Path, scenario: &str) -> Vec<String> {
    let prefix = format!("server-{scenario}-2");
    let folders = std::fs::read_dir(results).into_iter().flatten().flatten();
    folders
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("checks.json")).ok())
        .filter_map(|text| serde_json::from_str::<Vec<Value>>(&text).ok())
        .flatten()
        .filter(|check| check["status"] == "FAILURE")
        .map(|check| {
            let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("id"), text("errorMessage"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "noise: 1 passed, 0 failed\n=== SUMMARY ===\n\
        ✓ ping: 2 passed, 0 failed\n✗ tools-list: 2 passed, 1 failed\n\
        ✓ hollow: 0 passed, 0 failed\n✗ tasks: 0 passed, 1 failed\n\n\
        Total: 4 passed, 2 failed\n\nNot scored for X: 1 scenario(s) run\n  ✗ tasks (extension)\n";
    const REQUIREMENTS: &str = "server:\n  - ping\n  - tools-list\n  - hollow\n  - skipped\n";

    #[test]
    fn scenarios_are_counted_and_hollow_or_skipped_ones_do_not_pass() {
        let outcome = Outcome::read(OUTPUT, REQUIREMENTS).unwrap();
        let rows: Vec<_> = outcome
            .scenarios
            .iter()
            .map(|s| (s.name.as_str(), s.scored, s.ran, s.passed))
            .collect();
        assert_eq!(
            rows,
            [
                ("ping", true, true, true),
                ("tools-list", true, true, false),
                ("hollow", true, true, false),
                ("tasks", false, true, false),
                ("skipped", true, false, false),
            ]
        );
    }
}
