//! What a run of the conformance suite showed, scenario by scenario.
//!
//! Scenarios are counted, never checks: a server that answers 404 to everything passes
//! dozens of checks. It is read from what the suite wrote, a folder per scenario.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::layout::read;

/// What the suite appends to a scenario's name to make a folder's: `-`, then a time.
const TIME_LENGTH: usize = "-2026-11-21T14-28-13-981Z".len();

/// The reference every check of the wire's shape has; it says nothing about the scenario.
const SCHEMA_REFERENCE: &str = "MCP-Schema";

/// Most sections named for one scenario.
const SECTIONS_MAX: usize = 2;

/// One run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In the order they were asked for.
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
    /// Whether the suite itself skips it: it says so, and checked nothing.
    pub skipped: bool,
    /// The parts of the specification its checks refer to.
    pub sections: Vec<String>,
    /// What failed in it.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Reads what the suite left in `results`, in folders called `prefix`, scenario, time.
    pub fn read(results: &Path, prefix: &str, wanted: &[(String, bool)]) -> Result<Self> {
        let scenarios = wanted
            .iter()
            .map(|(name, scored)| Scenario::read(folder(results, prefix, name), name, *scored))
            .collect::<Result<_>>()?;
        Ok(Self { scenarios })
    }

    /// How many passed, and of how many, among the scored or among the others. What the suite
    /// skips is neither.
    pub fn count(&self, scored: bool) -> (usize, usize) {
        let of = || {
            let ran = self.scenarios.iter().filter(|s| !s.skipped);
            ran.filter(move |s| s.scored == scored)
        };
        (of().filter(|s| s.passed).count(), of().count())
    }

    /// How many the suite skips.
    pub fn skipped(&self) -> usize {
        self.scenarios.iter().filter(|s| s.skipped).count()
    }
}

impl Scenario {
    fn read(folder: Option<PathBuf>, name: &str, scored: bool) -> Result<Self> {
        let checks = match folder {
            Some(folder) => checks(&folder)?,
            None => None,
        };
        let ran = checks.is_some();
        let checks = checks.unwrap_or_default();
        let having = |status: &'static str| checks.iter().filter(move |c| c["status"] == status);
        Ok(Self {
            name: name.to_owned(),
            scored,
            ran,
            passed: having("FAILURE").count() == 0 && having("SUCCESS").count() > 0,
            skipped: !checks.is_empty() && having("SKIPPED").count() == checks.len(),
            sections: sections(&checks),
            failures: having("FAILURE").map(describe).collect(),
        })
    }
}

/// The scenarios of a requirement set, those that are scored first.
pub fn required(requirements: &str) -> Result<Vec<(String, bool)>> {
    let sets: Value =
        serde_norway::from_str(requirements).context("the requirements are no YAML")?;
    let scored = sets["server"]
        .as_array()
        .context("the requirements have no `server` list")?;
    let others = sets["not_scored"].as_array().into_iter().flatten();
    let others = others.filter(|entry| entry["leg"] == "server");
    let named = |name: &Value, scored| name.as_str().map(|name| (name.to_owned(), scored));
    Ok(scored
        .iter()
        .filter_map(|name| named(name, true))
        .chain(others.filter_map(|entry| named(&entry["scenario"], false)))
        .collect())
}

fn folder(results: &Path, prefix: &str, scenario: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(results).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(prefix)
            .and_then(|name| name.strip_prefix(scenario))
            .is_some_and(|time| time.len() == TIME_LENGTH)
    })
}

fn checks(folder: &Path) -> Result<Option<Vec<Value>>> {
    let file = folder.join("checks.json");
    if !file.exists() {
        return Ok(None);
    }
    let checks =
        serde_json::from_str(&read(&file)?).with_context(|| format!("{}", file.display()))?;
    Ok(Some(checks))
}

fn describe(check: &Value) -> String {
    let text = |name: &str| check[name].as_str().unwrap_or_default();
    let mut text = format!("{}: {}", text("id"), text("errorMessage"));
    if let Some(violations) = check["details"]["violations"].as_array() {
        let first = violations.first().map(Value::to_string);
        text.push_str(&format!(" ({})", first.unwrap_or_default()));
    }
    text
}

/// The pages of the specification, or the proposals, that the checks name.
fn sections(checks: &[Value]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    checks
        .iter()
        .filter_map(|check| check["specReferences"].as_array())
        .flatten()
        .filter(|reference| reference["id"] != SCHEMA_REFERENCE)
        .filter_map(section)
        .filter(|section| seen.insert(section.clone()))
        .take(SECTIONS_MAX)
        .collect()
}

fn section(reference: &Value) -> Option<String> {
    let page = reference["url"]
        .as_str()?
        .strip_prefix("https://modelcontextprotocol.io/specification/")
        // The suite's checks name the revision they were written for.
        .and_then(|page| page.split_once('/'));
    match page {
        Some((_, page)) => Some(page.to_owned()),
        None => reference["id"].as_str().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with results, gone with the value.
    struct Results(PathBuf);

    impl Results {
        fn new(name: &str, scenarios: &[(&str, &str)]) -> Self {
            let dir = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            for (scenario, checks) in scenarios {
                let folder = dir.join(format!("server-{scenario}-2026-11-21T14-28-13-981Z"));
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join("checks.json"), checks).unwrap();
            }
            Self(dir)
        }
    }

    impl Drop for Results {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_the_suite_skips_is_counted_neither_as_passed_nor_as_failed() {
        let half = r#"[{"status":"SKIPPED"},{"status":"WARNING"}]"#;
        let results = Results::new(
            "skipped",
            &[
                ("ping", r#"[{"status":"SUCCESS"},{"status":"SKIPPED"}]"#),
                ("left-out", r#"[{"status":"SKIPPED"}]"#),
                ("half", half),
                ("empty", "[]"),
            ],
        );
        let names = ["ping", "left-out", "half", "empty", "absent"];
        let wanted = names.map(|name| (name.to_owned(), true));
        let outcome = Outcome::read(&results.0, "server-", &wanted).unwrap();
        let rows = outcome.scenarios.iter().map(|s| (s.passed, s.skipped));
        let rows: Vec<_> = rows.collect();
        let failed = (false, false);
        assert_eq!(rows, [(true, false), (false, true), failed, failed, failed]);
        assert_eq!((outcome.count(true), outcome.skipped()), ((1, 4), 1));
    }

    #[test]
    fn scenarios_are_counted_and_hollow_or_absent_ones_do_not_pass() {
        let failure = r#"[{"status":"SUCCESS"},{"status":"FAILURE","id":"a","errorMessage":"b"}]"#;
        let results = Results::new(
            "outcome",
            &[
                ("ping", r#"[{"status":"SUCCESS"}]"#),
                ("server-ping", failure),
                ("hollow", r#"[{"status":"WARNING"}]"#),
            ],
        );
        let requirements = "server: [ping, hollow]\nnot_scored: [{scenario: server-ping, leg: server}, \
             {scenario: auth, leg: client}, {scenario: absent, leg: server}]";
        let wanted = required(requirements).unwrap();
        let outcome = Outcome::read(&results.0, "server-", &wanted).unwrap();
        let rows: Vec<_> = outcome
            .scenarios
            .iter()
            .map(|s| (s.name.as_str(), s.scored, s.ran, s.passed))
            .collect();
        assert_eq!(
            rows,
            [
                ("ping", true, true, true),
                ("hollow", true, true, false),
                ("server-ping", false, true, false),
                ("absent", false, false, false),
            ]
        );
        assert_eq!(outcome.count(true), (1, 2));
        assert_eq!(outcome.scenarios[2].failures, ["a: b"]);
    }

    #[test]
    fn a_scenario_names_the_pages_its_checks_refer_to() {
        let checks: Vec<Value> = serde_json::from_str(
            r#"[{"specReferences":[
                {"id":"MCP-Schema","url":"https://example.com"},
                {"id":"A","url":"https://modelcontextprotocol.io/specification/draft/basic/utilities/mrtr"},
                {"id":"SEP-2575","url":"https://github.com/x"}]}]"#,
        )
        .unwrap();
        assert_eq!(sections(&checks), ["basic/utilities/mrtr", "SEP-2575"]);
    }
}
