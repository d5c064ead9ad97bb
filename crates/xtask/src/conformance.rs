//! `cargo xtask conformance`: the official MCP conformance suite, through the gateway.
//!
//! Names are un-prefixed and authentication is off, because the suite calls bare names and
//! cannot send a token. What fails must be in the committed baseline with a reason; what
//! passes must not be; and the committed table says what every scenario did.

mod baseline;
pub mod front;
mod lanes;
mod outcome;
mod stand;
mod suite;
mod table;

use std::path::Path;

use anyhow::{Result, bail};

use crate::arguments::{Arguments, unexpected};
use crate::conformance::baseline::Baseline;
use crate::conformance::front::Runtime;
use crate::conformance::lanes::{Lane, REVISIONS, Scenarios, TASKS};
use crate::conformance::outcome::Outcome;
use crate::conformance::stand::Stand;
use crate::conformance::suite::Suite;
use crate::conformance::table::Run;
use crate::layout::{Layout, read, write_atomically};
use crate::setup::{self, node};
use crate::test::Counts;

/// Shown by `cargo xtask conformance --help`.
pub const HELP: &str = "\
cargo xtask conformance [FLAG …]

Runs the official conformance suite through the gateway and compares with
tests/conformance/baseline.json: a failure that is not listed there fails the command, and
so does a listed one that passes. tests/conformance/TRACEABILITY.md is the whole result.

  --lane NAME,…        which lanes (default: all)
      same-era         in front of the suite's reference server, which speaks both eras
      across-eras      in front of a server that refuses the era of the requirements
      merged           two servers merged, names prefixed, behind an un-prefixing shim
      tasks            in front of tools that are tasks because the configuration says so
      upstream-tasks   in front of a server of the tasks extension
      upstream-half    the suite's client scenarios: its mock servers as upstreams
  --requirements 2026-07-28|2025-11-25|both   whose requirements (default: both)
  --direct             against the servers themselves, each in its own era
  --url URL            against a server that is already running
  --wrangler           with the gateway under wrangler instead of on bare workerd
  --spin               with the Spin component; compares with tests/conformance/spin.json,
                       where what fails on Spin alone has its reason
  --update-baseline    write what fails now into the baseline, to be given reasons, and
                       the table
";

struct Flags {
    lanes: Vec<Lane>,
    revisions: Vec<&'static str>,
    direct: bool,
    runtime: Runtime,
    url: Option<String>,
    update: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            lanes: Lane::ALL.to_vec(),
            revisions: REVISIONS.to_vec(),
            direct: false,
            runtime: Runtime::Workerd,
            url: None,
            update: false,
        }
    }
}

impl Flags {
    /// Whether the run shows what the committed files speak of.
    fn through_gateway(&self) -> bool {
        !self.direct && self.url.is_none()
    }

    /// What is known to fail, in `tests/conformance`.
    fn baseline(&self) -> &'static str {
        match self.runtime {
            Runtime::Workerd | Runtime::Wrangler => "baseline.json",
            Runtime::Spin => "spin.json",
        }
    }

    /// Whether the run shows all of it.
    fn whole(&self) -> bool {
        self.through_gateway()
            && self.runtime != Runtime::Spin
            && self.lanes.len() == Lane::ALL.len()
            && self.revisions.len() == REVISIONS.len()
    }
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<()> {
    let flags = parse(arguments)?;
    let complaints = compare(&Layout::find()?, &flags)?.complaints;
    if !complaints.is_empty() {
        bail!("{}", complaints.join("\n"));
    }
    Ok(())
}

/// The suite as a lane of `cargo xtask test`: a scenario passes if it does what the
/// baseline says. What the suite skips is not counted.
pub fn lane(layout: &Layout, runtime: Runtime) -> Result<Counts> {
    let flags = Flags {
        runtime,
        ..Flags::default()
    };
    let findings = compare(layout, &flags)?;
    for complaint in &findings.complaints {
        eprintln!("{complaint}");
    }
    let failed = findings.complaints.len() as u64;
    Ok(Counts {
        passed: findings.scenarios.saturating_sub(failed),
        failed,
    })
}

struct Findings {
    scenarios: u64,
    complaints: Vec<String>,
}

fn compare(layout: &Layout, flags: &Flags) -> Result<Findings> {
    setup::conformance(layout)?;
    let folder = layout.root().join("tests/conformance");
    let file = folder.join(flags.baseline());
    let mut baseline = if flags.through_gateway() {
        Baseline::load(&file)?
    } else {
        Baseline::default()
    };
    let runs = run_all(layout, flags)?;
    let mut complaints = Vec::new();
    for run in &runs {
        let lane = run.lane.name();
        if flags.update {
            baseline.accept(lane, run.revision, &run.outcome);
        }
        print(run, &baseline);
        complaints.extend(baseline.complaints(lane, run.revision, &run.outcome));
    }
    complaints.extend(unlike(&runs, &baseline));
    if flags.update && flags.through_gateway() {
        baseline.store(&file)?;
        println!("wrote {}", layout.relative(&file));
    }
    if flags.whole() {
        let table = table::render(&runs, &baseline);
        complaints.extend(keep(
            layout,
            &folder.join("TRACEABILITY.md"),
            &table,
            flags,
        )?);
    }
    let scenarios = runs.iter().map(|run| {
        let Outcome { scenarios } = &run.outcome;
        (scenarios.len() - run.outcome.skipped()) as u64
    });
    Ok(Findings {
        scenarios: scenarios.sum(),
        complaints,
    })
}

/// Where the merged endpoint does worse than the server's own: what is in front of it takes
/// the prefixes away, so nothing may tell them apart.
fn unlike(runs: &[Run], baseline: &Baseline) -> Vec<String> {
    let of = |lane: Lane| runs.iter().filter(move |run| run.lane == lane);
    let passes = |run: &Run, name: &str| {
        let mut scenarios = run.outcome.scenarios.iter();
        scenarios.any(|scenario| scenario.name == name && scenario.passed)
    };
    of(Lane::Merged)
        .flat_map(|merged| {
            let alone = of(Lane::SameEra).find(|run| run.revision == merged.revision);
            let sometimes = |name: &str| {
                let known = baseline.known(merged.lane.name(), merged.revision, name);
                known.is_some_and(|known| known.sometimes)
            };
            let failed = merged.outcome.scenarios.iter();
            failed
                .filter(|scenario| !scenario.passed && !sometimes(&scenario.name))
                .filter(|scenario| alone.is_some_and(|run| passes(run, &scenario.name)))
                .map(|scenario| format!("{} passes alone and fails merged", scenario.name))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Writes the table, or says that the committed one is not what was found.
fn keep(layout: &Layout, file: &Path, table: &str, flags: &Flags) -> Result<Option<String>> {
    let name = layout.relative(file);
    if flags.update {
        write_atomically(file, table.as_bytes())?;
        println!("wrote {name}");
        return Ok(None);
    }
    let same = file.exists() && read(file)? == table;
    Ok((!same).then(|| {
        format!("{name} is not what was found (`cargo xtask conformance --update-baseline`)")
    }))
}

fn run_all(layout: &Layout, flags: &Flags) -> Result<Vec<Run>> {
    let node = node::binary(layout)?;
    if let Some(url) = &flags.url {
        return flags
            .revisions
            .iter()
            .map(|revision| {
                let suite = Suite::new(layout, &node, "url", revision)?;
                let outcome = suite.requirements(url, revision, &[])?;
                Ok(Run {
                    lane: Lane::SameEra,
                    revision,
                    outcome,
                })
            })
            .collect();
    }
    let stand = Stand::start(layout, &flags.lanes, flags.direct, flags.runtime)?;
    let mut runs = Vec::new();
    for lane in &flags.lanes {
        let revisions = lane.revisions().iter();
        for revision in revisions.filter(|revision| flags.revisions.contains(revision)) {
            let outcome = run_one(layout, &node, &stand, *lane, revision)?;
            runs.push(Run {
                lane: *lane,
                revision,
                outcome,
            });
        }
    }
    Ok(runs)
}

fn run_one(
    layout: &Layout,
    node: &Path,
    stand: &Stand,
    lane: Lane,
    revision: &str,
) -> Result<Outcome> {
    let suite = Suite::new(layout, node, lane.name(), revision)?;
    match lane.scenarios() {
        // Those of tasks have a lane of their own, with a server that has some.
        Scenarios::Requirements => {
            suite.requirements(&stand.url(lane, revision)?, revision, &TASKS)
        }
        Scenarios::Server(names) => suite.scenarios(&stand.url(lane, revision)?, names),
        Scenarios::Client(names) => {
            let client = stand.client(layout)?;
            suite.client(client.command, &client.variables, names)
        }
    }
}

/// Prints the counts, and every scenario that failed with what failed in it.
fn print(run: &Run, baseline: &Baseline) {
    let lane = run.lane.name();
    let (scored, all_scored) = run.outcome.count(true);
    let (others, all_others) = run.outcome.count(false);
    let skipped = match run.outcome.skipped() {
        0 => String::new(),
        skipped => format!(" and {skipped} skipped by the suite"),
    };
    println!(
        "\n{lane}, {}: {scored}/{all_scored} scenarios passed \
         (and {others}/{all_others} that are not scored){skipped}",
        run.revision
    );
    for scenario in run.outcome.scenarios.iter().filter(|s| !s.passed) {
        let what = if scenario.skipped { "skipped" } else { "fails" };
        let mark = match baseline.known(lane, run.revision, &scenario.name) {
            Some(known) => format!("known: {}", known.reason),
            None => "UNEXPECTED".to_owned(),
        };
        println!("  {what:<7} {:<48} {mark}", scenario.name);
        for failure in &scenario.failures {
            println!("           {failure}");
        }
    }
}

fn parse(mut arguments: Arguments) -> Result<Flags> {
    let mut flags = Flags::default();
    while let Some(argument) = arguments.next()? {
        match argument.as_str() {
            "--lane" => flags.lanes = chosen(&arguments.text()?)?,
            "--requirements" => {
                let wanted = arguments.text()?;
                flags
                    .revisions
                    .retain(|known| wanted == *known || wanted == "both");
                if flags.revisions.is_empty() {
                    bail!("--requirements takes {} or both", REVISIONS.join(", "));
                }
            }
            "--direct" => flags.direct = true,
            "--wrangler" => flags.runtime = Runtime::Wrangler,
            "--spin" => flags.runtime = Runtime::Spin,
            "--url" => flags.url = Some(arguments.text()?),
            "--update-baseline" => flags.update = true,
            other => return unexpected(other),
        }
    }
    if flags.direct {
        // The others are about the gateway alone.
        flags.lanes.retain(|lane| {
            !matches!(
                lane,
                Lane::Merged | Lane::UpstreamTasks | Lane::UpstreamHalf
            )
        });
    }
    Ok(flags)
}

fn chosen(names: &str) -> Result<Vec<Lane>> {
    let known = Lane::ALL.map(Lane::name).join(", ");
    names
        .split(',')
        .map(|name| {
            let lane = Lane::ALL.into_iter().find(|lane| lane.name() == name);
            lane.ok_or_else(|| anyhow::anyhow!("no lane is called {name:?}; there are {known}"))
        })
        .collect()
}
