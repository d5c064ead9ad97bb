//! Running the suite: a program from npm that leaves a folder per scenario.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::conformance::outcome::{Outcome, required};
use crate::layout::{Layout, make_dir, read};
use crate::process;
use crate::setup::node;

const PACKAGE: &str = "@modelcontextprotocol/conformance";

/// How long one run of the suite may take: a scenario may take 30 seconds to time out.
const SUITE_LIMIT: Duration = Duration::from_secs(900);

/// How long one scenario may take.
const SCENARIO_LIMIT: Duration = Duration::from_secs(90);

/// How long a client under test may take, in the suite's own words.
const CLIENT_TIMEOUT_MS: &str = "30000";

/// What the suite's folders are called before a server scenario's name.
const SERVER_PREFIX: &str = "server-";

/// The suite, and where one run leaves its results.
pub struct Suite<'a> {
    layout: &'a Layout,
    node: &'a Path,
    /// Names the run in logs.
    run: String,
    results: PathBuf,
}

impl<'a> Suite<'a> {
    /// For one run, its results of an earlier time cleared.
    pub fn new(layout: &'a Layout, node: &'a Path, lane: &str, revision: &str) -> Result<Self> {
        let results = layout.dev().join("conformance").join(lane).join(revision);
        let _ = std::fs::remove_dir_all(&results);
        make_dir(&results)?;
        let run = format!("{lane}-{revision}");
        Ok(Self {
            layout,
            node,
            run,
            results,
        })
    }

    /// Everything a revision asks of the server at `url`, but for the named scenarios.
    pub fn requirements(&self, url: &str, revision: &str, without: &[&str]) -> Result<Outcome> {
        let log = self.layout.log(&format!("conformance-{}", self.run))?;
        let mut run = self.command("server")?;
        run.args(["--url", url, "--requirements", revision]);
        // Its exit status says whether everything passed; the results say what did not.
        let title = format!("running the suite: {}", self.run);
        process::run_captured(&title, &mut run, &log, SUITE_LIMIT)?;
        let sets = self
            .layout
            .node_modules()
            .join(format!("{PACKAGE}/requirements/{revision}.yaml"));
        let mut wanted = required(&read(&sets)?)?;
        wanted.retain(|(name, _)| !without.contains(&name.as_str()));
        let outcome = Outcome::read(&self.results, SERVER_PREFIX, &wanted)?;
        if outcome.scenarios.iter().all(|s| !s.ran) {
            bail!("{}", process::failure("the suite", "left no results", &log));
        }
        Ok(outcome)
    }

    /// Single scenarios against the server at `url`. Without a revision: with one, the
    /// suite would leave out those of an extension.
    pub fn scenarios(&self, url: &str, names: &[&str]) -> Result<Outcome> {
        for name in names {
            let mut run = self.command("server")?;
            run.args(["--url", url, "--scenario", name]);
            self.run_one(name, &mut run)?;
        }
        let wanted: Vec<_> = names
            .iter()
            .map(|name| ((*name).to_owned(), false))
            .collect();
        Outcome::read(&self.results, SERVER_PREFIX, &wanted)
    }

    /// Single scenarios against the client `command` starts, with `variables` for it.
    pub fn client(
        &self,
        command: &str,
        variables: &[(String, String)],
        names: &[&str],
    ) -> Result<Outcome> {
        let mut gave_up = Vec::new();
        for name in names {
            let mut run = self.command("client")?;
            run.args(["--command", command, "--scenario", name])
                .args(["--timeout", CLIENT_TIMEOUT_MS])
                .envs(variables.iter().map(|(name, value)| (name, value)));
            // A client that breaks off may leave checks that all passed.
            if !self.run_one(name, &mut run)? {
                gave_up.push(*name);
            }
        }
        let wanted: Vec<_> = names
            .iter()
            .map(|name| ((*name).to_owned(), true))
            .collect();
        let mut outcome = Outcome::read(&self.results, "", &wanted)?;
        for scenario in &mut outcome.scenarios {
            let content = scenario.passed || scenario.skipped;
            if content && gave_up.contains(&scenario.name.as_str()) {
                (scenario.passed, scenario.skipped) = (false, false);
                let text = "the suite was not content, though no check failed";
                scenario.failures.push(text.to_owned());
            }
        }
        Ok(outcome)
    }

    fn run_one(&self, name: &str, run: &mut Command) -> Result<bool> {
        let log = self
            .layout
            .log(&format!("conformance-{}-{name}", self.run))?;
        let title = format!("{}: {name}", self.run);
        let status = process::run_captured(&title, run, &log, SCENARIO_LIMIT)?;
        Ok(status.success())
    }

    fn command(&self, role: &str) -> Result<Command> {
        let mut run = node::script(self.layout, self.node, &format!("{PACKAGE}/dist/index.js"))?;
        run.args([role, "--output-dir"])
            .arg(&self.results)
            .env("NO_COLOR", "1");
        Ok(run)
    }
}
