//! Running other programs so that nothing outlives us.
//!
//! Every program gets its own process group, and ending it ends the group: what npm or
//! wrangler start in turn goes with them. A [`Session`] also keeps a small reaper process
//! that ends the groups if this process dies without the chance to.

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::progress::{self, Step};
use crate::{clock, stop};

/// How long a group may take to end politely.
const GRACE: Duration = Duration::from_secs(3);

/// Lines of a failed program's log that are shown.
const LOG_TAIL: usize = 60;

/// Name of the hidden command that runs the reaper.
pub const REAPER: &str = "__reaper";

/// Variables a program started by `cargo run` carries that would mislead another cargo.
const CARGO_VARIABLES: [&str; 6] = [
    "CARGO",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_MANIFEST_PATH",
    "RUSTUP_TOOLCHAIN",
    "RUSTC",
];

/// What begins the names of those that describe the package that was run: a build script
/// that looks at its own would have its crate built anew for each.
const CARGO_PACKAGE: &str = "CARGO_PKG_";

/// A command that inherits nothing of the cargo that started us.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in CARGO_VARIABLES {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os() {
        let package = name
            .to_str()
            .is_some_and(|name| name.starts_with(CARGO_PACKAGE));
        if package {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// The same program, content with what every other leaves of the machine.
pub fn in_the_background(program: &Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", "19"])
        .arg(program.get_program())
        .args(program.get_args())
        .stdin(Stdio::null());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    if let Some(folder) = program.get_current_dir() {
        nice.current_dir(folder);
    }
    nice
}

/// Runs a program to its end, its output kept in `log`; shows the log's end if it fails.
pub fn run(title: &str, command: &mut Command, log: &Path) -> Result<()> {
    let status = run_status(title, command, log, None)?;
    if !status.success() {
        bail!("{}", failure(title, &status.to_string(), log));
    }
    Ok(())
}

/// Runs a program to its end and returns how it ended; fails only if it could not run,
/// ran over `limit`, or we were asked to stop.
pub fn run_status(
    title: &str,
    command: &mut Command,
    log: &Path,
    limit: Option<Duration>,
) -> Result<ExitStatus> {
    redirect(command, log)?;
    finish(title, command, limit)
}

fn finish(title: &str, command: &mut Command, limit: Option<Duration>) -> Result<ExitStatus> {
    stop::check()?;
    let mut step = Step::start(title);
    let mut child = spawn(command)?;
    loop {
        if let Some(status) = child.try_wait().context("lost a child process")? {
            step.end();
            return Ok(status);
        }
        let over = limit.is_some_and(|limit| step.lasted() > limit);
        if over || stop::asked() {
            end_group(group_of(&child)?, &mut || {
                child.try_wait().is_ok_and(|s| s.is_some())
            });
            step.end();
            stop::check()?;
            bail!("{title}: gave up after {} s", step_limit(limit));
        }
        step.beat();
        stop::glance();
    }
}

fn step_limit(limit: Option<Duration>) -> u64 {
    limit.map_or(0, |limit| limit.as_secs())
}

/// Runs a program to its end, its output kept in `log` for the caller to read.
pub fn run_captured(
    title: &str,
    command: &mut Command,
    log: &Path,
    limit: Duration,
) -> Result<ExitStatus> {
    to_log(command, log)?;
    finish(title, command, Some(limit))
}

/// Runs a program quietly and returns what it printed, or `None` if it failed.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn redirect(command: &mut Command, log: &Path) -> Result<()> {
    if progress::verbose() {
        command.stdout(std::io::stderr());
        return Ok(());
    }
    to_log(command, log)
}

fn to_log(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let copy = file.try_clone().context("cannot share a log file")?;
    command.stdout(file).stderr(copy);
    Ok(())
}

fn spawn(command: &mut Command) -> Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start `{program}`; is it installed and on the PATH?"))
}

/// What to show of a program that failed.
pub fn failure(title: &str, how: &str, log: &Path) -> String {
    if progress::verbose() {
        return format!("{title}: {how}");
    }
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
    format!("{title}: {how}\n{shown}\n(whole log: {})", log.display())
}

fn group_of(child: &Child) -> Result<Pid> {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("a child process has no id")
}

/// Asks a group to end, then ends it. `gone` reaps the leader so that an empty group
/// can be told from a living one.
fn end_group(group: Pid, gone: &mut dyn FnMut() -> bool) {
    let _ = kill_process_group(group, Signal::TERM);
    let asked_at = clock::instant();
    while asked_at.elapsed() < GRACE {
        gone();
        if test_kill_process_group(group).is_err() {
            return;
        }
        stop::glance();
    }
    let _ = kill_process_group(group, Signal::KILL);
    gone();
}

/// The programs one command keeps running, ended together.
pub struct Session {
    members: Vec<Member>,
    reaper: Child,
    orders: Option<ChildStdin>,
}

struct Member {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Session {
    /// A session without members.
    pub fn open() -> Result<Self> {
        let this = std::env::current_exe().context("cannot find this program")?;
        let mut reaper = Command::new(this);
        reaper
            .arg(REAPER)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut reaper = spawn(&mut reaper)?;
        let orders = reaper.stdin.take();
        Ok(Self {
            members: Vec::new(),
            reaper,
            orders,
        })
    }

    /// Starts a program that runs until the session ends.
    pub fn start(&mut self, name: &str, command: &mut Command, log: &Path) -> Result<()> {
        stop::check()?;
        redirect(command, log)?;
        let child = spawn(command)?;
        if let Some(orders) = &mut self.orders {
            let _ = writeln!(orders, "{}", child.id());
        }
        self.members.push(Member {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
        });
        Ok(())
    }

    /// Fails if a member has ended by itself or we were asked to stop.
    pub fn check(&mut self) -> Result<()> {
        stop::check()?;
        for member in &mut self.members {
            if let Some(status) = member.child.try_wait().context("lost a child process")? {
                let how = format!("ended unexpectedly ({status})");
                bail!("{}", failure(&member.name, &how, &member.log));
            }
        }
        Ok(())
    }

    /// Waits until `ready` holds, while every member lives.
    pub fn wait_until(
        &mut self,
        title: &str,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let mut step = Step::start(title);
        while !ready() {
            self.check()?;
            if step.lasted() > limit {
                let logs: Vec<String> = self
                    .members
                    .iter()
                    .map(|m| failure(&m.name, "still running", &m.log))
                    .collect();
                bail!(
                    "{title}: not ready after {} s\n{}",
                    limit.as_secs(),
                    logs.join("\n")
                );
            }
            step.beat();
            stop::glance();
        }
        step.end();
        Ok(())
    }

    /// Waits until somebody asks us to stop; fails if a member ends first.
    pub fn wait_for_stop(&mut self) -> Result<()> {
        while !stop::asked() {
            self.check()?;
            stop::glance();
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for member in self.members.iter_mut().rev() {
            if let Ok(group) = group_of(&member.child) {
                let child = &mut member.child;
                end_group(group, &mut || child.try_wait().is_ok_and(|s| s.is_some()));
            }
        }
        if let Some(mut orders) = self.orders.take() {
            let _ = writeln!(orders, "done");
        }
        let _ = self.reaper.wait();
    }
}

/// The reaper: remembers the groups it is told of and ends them when its input closes
/// without the word "done".
pub fn reap() {
    let mut groups = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line == "done" {
            return;
        }
        groups.extend(line.parse().ok().and_then(Pid::from_raw));
    }
    for group in groups {
        end_group(group, &mut || true);
    }
}
