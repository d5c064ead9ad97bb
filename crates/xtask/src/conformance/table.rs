//! `tests/conformance/TRACEABILITY.md`: every scenario, at every revision, in every lane,
//! with the part of the specification it is about and, where it fails, the reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::conformance::baseline::Baseline;
use crate::conformance::lanes::{Lane, REVISIONS};
use crate::conformance::outcome::{Outcome, Scenario};
use crate::pins;

/// One run of a lane at a revision.
pub struct Run {
    /// The lane.
    pub lane: Lane,
    /// The revision.
    pub revision: &'static str,
    /// What it showed.
    pub outcome: Outcome,
}

/// The whole file.
pub fn render(runs: &[Run], baseline: &Baseline) -> String {
    let mut text = format!(
        "# Conformance, scenario by scenario\n\n\
         Written by `cargo xtask conformance --update-baseline` from a run of \
         `@modelcontextprotocol/conformance` {}; `cargo xtask test` fails when it is no longer \
         true. Scenarios are counted, not checks; one the suite itself skips counts neither as \
         passed nor as failed.\n\n",
        pins::CONFORMANCE
    );
    lanes(&mut text, runs);
    for revision in REVISIONS {
        scenarios(&mut text, runs, revision);
    }
    exceptions(&mut text, runs, baseline);
    text
}

fn lanes(text: &mut String, runs: &[Run]) {
    text.push_str(
        "## Lanes\n\n| Lane | Upstream | Revision | Scored | Others |\n|---|---|---|---|---|\n",
    );
    for run in runs {
        let (scored, all_scored) = run.outcome.count(true);
        let (others, all_others) = run.outcome.count(false);
        let skipped = match run.outcome.skipped() {
            0 => String::new(),
            skipped => format!(", {skipped} skipped"),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {scored}/{all_scored} | {others}/{all_others}{skipped} |",
            run.lane.name(),
            run.lane.about(),
            run.revision,
        );
    }
}

fn scenarios(text: &mut String, runs: &[Run], revision: &str) {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.revision == revision).collect();
    let mut rows: Vec<&str> = Vec::new();
    for scenario in runs.iter().flat_map(|run| &run.outcome.scenarios) {
        if !rows.contains(&scenario.name.as_str()) {
            rows.push(&scenario.name);
        }
    }
    let names: Vec<&str> = runs.iter().map(|run| run.lane.name()).collect();
    let _ = writeln!(
        text,
        "\n## {revision}\n\n`*`: run and reported, not scored by the suite.\n\n\
         | Scenario | Specification | {} |\n|---|---|{}",
        names.join(" | "),
        "---|".repeat(names.len()),
    );
    for row in rows {
        let found: BTreeMap<&str, &Scenario> = runs
            .iter()
            .filter_map(|run| Some((run.lane.name(), find(&run.outcome, row)?)))
            .collect();
        let star = if found.values().any(|s| s.scored) {
            ""
        } else {
            " \\*"
        };
        let section = found.values().map(|s| s.sections.join(", "));
        let section = section.max_by_key(String::len).unwrap_or_default();
        let results: Vec<&str> = names
            .iter()
            .map(|lane| match found.get(lane) {
                Some(scenario) if scenario.passed => "passes",
                Some(scenario) if scenario.skipped => "skipped",
                Some(_) => "**fails**",
                None => "",
            })
            .collect();
        let _ = writeln!(
            text,
            "| `{row}`{star} | {section} | {} |",
            results.join(" | ")
        );
    }
}

fn exceptions(text: &mut String, runs: &[Run], baseline: &Baseline) {
    text.push_str(
        "\n## Exceptions\n\n| Lane | Revision | Scenario | Specification | Reason |\n|---|---|---|---|---|\n",
    );
    for run in runs {
        let failed = run.outcome.scenarios.iter().filter(|s| !s.passed);
        for scenario in failed {
            let lane = run.lane.name();
            let known = baseline.known(lane, run.revision, &scenario.name);
            let (section, reason) = known
                .map(|known| (known.section.as_str(), known.reason.as_str()))
                .unwrap_or_default();
            let _ = writeln!(
                text,
                "| {lane} | {} | `{}` | {section} | {reason} |",
                run.revision, scenario.name
            );
        }
    }
}

fn find<'a>(outcome: &'a Outcome, name: &str) -> Option<&'a Scenario> {
    outcome.scenarios.iter().find(|s| s.name == name)
}
