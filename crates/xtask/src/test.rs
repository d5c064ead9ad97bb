//! `cargo xtask test`: everything a change must pass, in the order that fails soonest.
//!
//! Each lane is something a developer can run alone. All lanes run even if one fails, and
//! a table says what each found.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::arguments::{Arguments, unexpected};
use crate::build::{self, Profile};
use crate::conformance::front::Runtime;
use crate::layout::{Layout, read};
use crate::process::{self, Session, command};
use crate::progress::say;
use crate::{clock, conformance, interop, schemas, setup, size, stop};

/// Shown by `cargo xtask test --help`.
pub const HELP: &str = "\
cargo xtask test [--only LANE,…] [--list]

Runs every lane, or those named, and ends with `N passed, M failed`.

  fmt          formatting
  clippy       lints, warnings forbidden
  unit         values, the gateway on the simulator, dependency rules
  schemas      kv-schemas/ is what the code defines
  functions    both functions build for their wasm targets
  size         the Workers bundle is within its budget
  hosts        the functions on their runtimes, with third-party clients
  conformance  the official MCP conformance suite, against its baseline
  interop      third-party clients against third-party servers, against its table
  spin         hosts and conformance for the Spin component, and its host (the first build
               takes minutes)
";

/// The crate that is no member of the workspace.
const SPIN_HOST: &str = "crates/spin-host/Cargo.toml";

/// How long one lane's program may take.
const LANE_LIMIT: Duration = Duration::from_secs(3600);

/// How many claims about a host are made at once: most of their time they wait.
const HOSTS_THREADS: &str = "4";

/// What a lane found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests, builds or scenarios that are as they should be.
    pub passed: u64,
    /// Those that are not.
    pub failed: u64,
}

impl Counts {
    /// One thing that passed.
    pub const ONE: Self = Self {
        passed: 1,
        failed: 0,
    };
}

type Lane = (&'static str, fn(&Layout) -> Result<Counts>);

const LANES: [Lane; 10] = [
    ("fmt", |layout| {
        check(
            layout,
            "fmt",
            cargo(layout).args(["fmt", "--check", "--all"]),
        )?;
        let mut host = cargo(layout);
        host.args(["fmt", "--check", "--manifest-path", SPIN_HOST]);
        check(layout, "fmt-spin-host", &mut host)
    }),
    ("clippy", |layout| {
        let mut clippy = cargo(layout);
        clippy.args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-Dwarnings",
        ]);
        check(layout, "clippy", &mut clippy)
    }),
    ("unit", |layout| {
        tests(
            layout,
            "unit",
            cargo(layout).args(["test", "--workspace", "--no-fail-fast"]),
        )
    }),
    ("schemas", |layout| {
        schemas::write(layout, true).map(|()| Counts::ONE)
    }),
    ("functions", functions),
    ("size", |_| {
        size::run(Arguments::from([""; 0])).map(|()| Counts::ONE)
    }),
    ("hosts", |layout| {
        setup::cloudflare(layout)?;
        setup::conformance(layout)?;
        tests(layout, "hosts", &mut hosts(layout))
    }),
    ("conformance", |layout| {
        conformance::lane(layout, Runtime::Workerd)
    }),
    ("interop", interop::lane),
    ("spin", spin),
];

/// Runs the command.
pub fn run(mut arguments: Arguments) -> Result<()> {
    let mut only: Option<Vec<String>> = None;
    while let Some(argument) = arguments.next()? {
        match argument.as_str() {
            "--only" => {
                only = Some(arguments.text()?.split(',').map(str::to_owned).collect());
            }
            "--list" => {
                LANES.iter().for_each(|(name, _)| println!("{name}"));
                return Ok(());
            }
            other => return unexpected(other),
        }
    }
    let lanes = select(only.as_deref())?;
    let layout = Layout::find()?;
    let _ahead = build_ahead(&layout, &lanes)?;
    let rows = lanes
        .iter()
        .map(|lane| run_lane(&layout, lane))
        .collect::<Result<Vec<_>>>()?;
    summarize(&rows)
}

fn select(only: Option<&[String]>) -> Result<Vec<Lane>> {
    let Some(only) = only else {
        return Ok(LANES.to_vec());
    };
    if let Some(unknown) = only
        .iter()
        .find(|name| LANES.iter().all(|(lane, _)| name != lane))
    {
        bail!("no lane is called {unknown:?}; --list shows them");
    }
    Ok(LANES
        .into_iter()
        .filter(|(lane, _)| only.iter().any(|name| name == lane))
        .collect())
}

/// Builds what a later lane is going to need and takes minutes, while earlier ones leave
/// something of the machine. That lane waits for what is not yet done, and says what failed.
fn build_ahead(layout: &Layout, lanes: &[Lane]) -> Result<Session> {
    // Nothing comes before the first lane: there is no time to build ahead of it in.
    let later = |wanted| lanes.iter().skip(1).any(|(name, _)| *name == wanted);
    let mut session = Session::open()?;
    let mut start = |name: &str, program: &Command| {
        let log = layout.log(&format!("ahead-{name}"))?;
        session.start(name, &mut process::in_the_background(program), &log)
    };
    if later("interop") {
        start("rmcp", &interop::build_rmcp(layout))?;
    }
    if later("spin") {
        let spin = |subcommand| build::spin_host_cargo(layout, subcommand);
        start("spin-host", &spin("build"))?;
        start("spin-clippy", &spin("clippy"))?;
        start("spin-test", spin("test").arg("--no-run"))?;
    }
    Ok(session)
}

struct Row {
    name: &'static str,
    counts: Counts,
    lasted: Duration,
}

fn run_lane(layout: &Layout, (name, lane): &Lane) -> Result<Row> {
    stop::check()?;
    let began = clock::instant();
    let counts = lane(layout).unwrap_or_else(|error| {
        eprintln!("\n{name} failed: {error:#}\n");
        Counts {
            passed: 0,
            failed: 1,
        }
    });
    stop::check()?;
    say(&format!(
        "{name}: {} passed, {} failed",
        counts.passed, counts.failed
    ));
    Ok(Row {
        name,
        counts,
        lasted: began.elapsed(),
    })
}

fn summarize(rows: &[Row]) -> Result<()> {
    println!(
        "\n{:<14}{:>10}{:>8}{:>8}",
        "lane", "seconds", "passed", "failed"
    );
    for row in rows {
        println!(
            "{:<14}{:>10.1}{:>8}{:>8}",
            row.name,
            row.lasted.as_secs_f32(),
            row.counts.passed,
            row.counts.failed
        );
    }
    let passed: u64 = rows.iter().map(|row| row.counts.passed).sum();
    let failed: u64 = rows.iter().map(|row| row.counts.failed).sum();
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        bail!("not everything passed");
    }
    Ok(())
}

fn cargo(layout: &Layout) -> Command {
    let mut cargo = command("cargo");
    cargo
        .current_dir(layout.root())
        .env("CARGO_TARGET_DIR", layout.target());
    cargo
}

/// Runs a program that either passes or fails as a whole.
fn check(layout: &Layout, lane: &str, program: &mut Command) -> Result<Counts> {
    process::run(lane, program, &layout.log(&format!("test-{lane}"))?)?;
    Ok(Counts::ONE)
}

/// Runs a program that reports tests, and counts them.
fn tests(layout: &Layout, lane: &str, program: &mut Command) -> Result<Counts> {
    let log = layout.log(&format!("test-{lane}"))?;
    let status = process::run_captured(lane, program, &log, LANE_LIMIT)?;
    let mut counts = count(&read(&log)?);
    if !status.success() {
        eprintln!("{}", process::failure(lane, &status.to_string(), &log));
        // A test program that does not even build reports nothing.
        counts.failed = counts.failed.max(1);
    }
    Ok(counts)
}

/// Adds up the `test result:` lines.
fn count(output: &str) -> Counts {
    let number = |line: &str, word: &str| -> u64 {
        line.split([';', '.'])
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
            .unwrap_or(0)
    };
    output
        .lines()
        .filter(|line| line.starts_with("test result:"))
        .fold(Counts::default(), |sum, line| Counts {
            passed: sum.passed + number(line, "passed"),
            failed: sum.failed + number(line, "failed"),
        })
}

fn functions(layout: &Layout) -> Result<Counts> {
    let tools = setup::cloudflare(layout)?;
    build::cloudflare(layout, &tools, Profile::Release, false).context("functions/cloudflare")?;
    let toolchain = setup::spin(layout)?;
    build::spin(layout, &toolchain, Profile::Release, false).context("functions/spin")?;
    Ok(Counts {
        passed: 2,
        failed: 0,
    })
}

/// The host is no member of the workspace, so the lanes above do not lint it.
fn spin(layout: &Layout) -> Result<Counts> {
    setup::conformance(layout)?;
    build::spin(layout, &setup::spin(layout)?, Profile::Release, false)?;
    let host = build::spin_host(layout)?;
    let mut clippy = build::spin_host_cargo(layout, "clippy");
    clippy.args(["--quiet", "--", "-Dwarnings"]);
    check(layout, "spin-clippy", &mut clippy)?;
    let mut unit = build::spin_host_cargo(layout, "test");
    let unit = tests(layout, "spin-host", &mut unit)?;
    let mut hosts = hosts(layout);
    hosts
        .env("TIDEGATE_HOST", "spin")
        .env("TIDEGATE_SPIN_HOST", host);
    let hosts = tests(layout, "spin", &mut hosts)?;
    let suite = conformance::lane(layout, Runtime::Spin)?;
    let all = [unit, hosts, suite];
    Ok(Counts {
        passed: all.iter().map(|counts| counts.passed).sum(),
        failed: all.iter().map(|counts| counts.failed).sum(),
    })
}

/// The claims about a function on its runtime.
fn hosts(layout: &Layout) -> Command {
    let mut hosts = cargo(layout);
    hosts
        // Not `--package`: see `dev::cli::build`.
        .args(["test", "--workspace", "--test", "hosts", "--"])
        .args(["--nocapture", "--test-threads", HOSTS_THREADS])
        .env("TIDEGATE_HOSTS", "1");
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_all_test_programs_are_added() {
        let output = "running 2 tests\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 10 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n";
        assert_eq!(
            count(output),
            Counts {
                passed: 12,
                failed: 3
            }
        );
        assert_eq!(count("error: could not compile"), Counts::default());
    }

    #[test]
    fn an_unknown_lane_is_refused_and_known_ones_keep_their_order() {
        let words = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert!(select(Some(&words(&["fmt", "speling"]))).is_err());
        let chosen = select(Some(&words(&["size", "fmt"]))).unwrap();
        let names: Vec<_> = chosen.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["fmt", "size"]);
    }
}
