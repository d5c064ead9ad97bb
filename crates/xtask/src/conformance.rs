//! `cargo xtask conformance`: the official MCP conformance suite, through the gateway.
//!
//! The gateway stands in front of the suite's reference server with names un-prefixed and
//! authentication off, because the suite calls bare names and cannot send a token. What
//! fails must be in the committed baseline with a reason; what passes must not be.

mod baseline;
mod outcome;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::arguments::{Arguments, unexpected};
use crate::conformance::baseline::Baseline;
use crate::conformance::outcome::Outcome;
use crate::dev::Options;
use crate::dev::gateway::Gateway;
use crate::http;
use crate::layout::{Layout, make_dir, read};
use crate::process::{self, Session, command};
use crate::setup::{self, node, python};
use crate::test::Counts;

/// Shown by `cargo xtask conformance --help`.
pub const HELP: &str = "\
cargo xtask conformance [FLAG …]

Runs the official conformance suite through the gateway against its reference server, and
compares with tests/conformance/baseline.json: a failure that is not listed there fails
the command, and so does a listed one that passes.

  --requirements 2026-07-28|2025-11-25|both   whose requirements (default: both)
  --direct             against the reference server itself, without the gateway
  --url URL            against a server that is already running
  --raw                with the gateway on bare workerd
  --update-baseline    write what fails now into the baseline, to be given reasons
";

/// The revisions the suite has requirements for.
const REVISIONS: [&str; 2] = ["2026-07-28", "2025-11-25"];

/// How long one run of the suite may take: a scenario may take 30 seconds to time out.
const SUITE_LIMIT: Duration = Duration::from_secs(900);

struct Flags {
    revisions: Vec<&'static str>,
    direct: bool,
    raw: bool,
    url: Option<String>,
    update: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            revisions: REVISIONS.to_vec(),
            direct: false,
            raw: false,
            url: None,
            update: false,
        }
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
/// baseline says.
pub fn lane(layout: &Layout) -> Result<Counts> {
    let findings = compare(layout, &Flags::default())?;
    for complaint in &findings.complaints {
        eprintln!("{complaint}");
    }
    let failed = findings.complaints.len() as u64;
    Ok(Counts {
        passed: findings.scored.saturating_sub(failed),
        failed,
    })
}

struct Findings {
    scored: u64,
    complaints: Vec<String>,
}

fn compare(layout: &Layout, flags: &Flags) -> Result<Findings> {
    setup::conformance(layout)?;
    let node = node::binary(layout)?;
    let mut session = Session::open()?;
    let target = Target::start(layout, flags, &mut session)?;

    let file = layout.root().join("tests/conformance/baseline.json");
    let through_gateway = !flags.direct && flags.url.is_none();
    let mut baseline = if through_gateway {
        Baseline::load(&file)?
    } else {
        Baseline::default()
    };
    let mut findings = Findings {
        scored: 0,
        complaints: Vec::new(),
    };
    for revision in &flags.revisions {
        let outcome = run_suite(layout, &node, target.url(), revision)?;
        if flags.update {
            baseline.accept(revision, &outcome);
        }
        outcome.print(revision, &baseline, &results_dir(layout, revision));
        findings.scored += outcome.scored().count() as u64;
        findings
            .complaints
            .extend(baseline.complaints(revision, &outcome));
    }
    if flags.update && through_gateway {
        baseline.store(&file)?;
        println!("wrote {}", layout.relative(&file));
    }
    Ok(findings)
}

fn parse(mut arguments: Arguments) -> Result<Flags> {
    let mut flags = Flags::default();
    while let Some(argument) = arguments.next()? {
        match argument.as_str() {
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
            "--raw" => flags.raw = true,
            "--url" => flags.url = Some(arguments.text()?),
            "--update-baseline" => flags.update = true,
            other => return unexpected(other),
        }
    }
    Ok(flags)
}

/// What the suite talks to, for as long as it does.
enum Target {
    Url(String),
    Gateway(Box<Gateway>),
}

impl Target {
    fn start(layout: &Layout, flags: &Flags, session: &mut Session) -> Result<Self> {
        if let Some(url) = &flags.url {
            return Ok(Self::Url(url.clone()));
        }
        let reference = start_reference(layout, session)?;
        if flags.direct {
            return Ok(Self::Url(reference));
        }
        let options = Options {
            raw: flags.raw,
            ..Options::bare("reference", &reference)
        };
        Ok(Self::Gateway(Box::new(Gateway::start(layout, &options)?)))
    }

    fn url(&self) -> &str {
        match self {
            Self::Url(url) => url,
            Self::Gateway(gateway) => &gateway.url,
        }
    }
}

fn start_reference(layout: &Layout, session: &mut Session) -> Result<String> {
    let port = http::free_port(0)?;
    let mut server = command(python::reference_server(layout)?);
    server.args(["--port", &port.to_string()]);
    session.start(
        "the reference server",
        &mut server,
        &layout.log("reference-server")?,
    )?;
    session.wait_until(
        "starting the reference server",
        Duration::from_secs(60),
        || http::accepts(port),
    )?;
    Ok(format!("http://127.0.0.1:{port}/mcp"))
}

fn results_dir(layout: &Layout, revision: &str) -> PathBuf {
    layout.dev().join("conformance").join(revision)
}

fn run_suite(layout: &Layout, node: &Path, url: &str, revision: &str) -> Result<Outcome> {
    let results = results_dir(layout, revision);
    let _ = std::fs::remove_dir_all(&results);
    make_dir(&results)?;
    let log = layout.log(&format!("conformance-{revision}"))?;
    let suite = "@modelcontextprotocol/conformance";
    let mut run = node::script(layout, node, &format!("{suite}/dist/index.js"))?;
    run.args([
        "server",
        "--url",
        url,
        "--requirements",
        revision,
        "--output-dir",
    ])
    .arg(&results);
    // Its exit status says whether everything passed; the summary says what did not. The
    // output is read from the log, so it goes there even when the terminal is asked for.
    run.env("NO_COLOR", "1");
    let title = format!("running the suite for {revision}");
    process::run_captured(&title, &mut run, &log, SUITE_LIMIT)?;
    let requirements = layout
        .node_modules()
        .join(format!("{suite}/requirements/{revision}.yaml"));
    let outcome = Outcome::read(&read(&log)?, &read(&requirements)?)?;
    if outcome.scenarios.iter().all(|s| !s.ran) {
        bail!("{}", process::failure("the suite", "left no summary", &log));
    }
    Ok(outcome)
}
