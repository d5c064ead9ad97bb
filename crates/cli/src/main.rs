//! `tidegate`: checks, compiles and publishes a gateway's configuration, and looks after the
//! tasks of one that runs.
//!
//! What `check` accepts the gateway accepts: both ask the same code. Secrets stay
//! references, which this program never resolves; what it signs with it is told by the
//! environment. Exit codes: 0, all is well; 1, the
//! configuration has problems, or publishing failed, or the gateway refused; 2, it was
//! called wrongly.

mod args;
mod document;
mod door;
mod finding;
mod health;
mod init;
mod keys;
mod load;
mod manifest;
mod overlay;
mod policy;
mod push;
mod request_token;
mod revoke;
mod store;
mod structure;
mod suggest;
mod switches;
mod tasks;
mod usage;
mod wrangler;
mod yaml;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, iter};

use clap::Parser;
use serde_json::{Value, json};
use tidegate_gateway::config::{Authentication, Config, Snapshot};

use args::{Arguments, Command, Format, Source};
use load::{LoadError, Loaded};

/// Why a command did not do what it was asked.
pub enum Failure {
    /// The files have problems, already printed.
    Problems,
    /// Something outside went wrong, in words.
    Failed(String),
    /// It was called wrongly, in words.
    Usage(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::stdout().lock();
    let done = run(arguments.command, &mut out).and_then(|()| Ok(out.flush()?));
    let (code, message) = match done {
        Ok(()) => (0, None),
        Err(Failure::Problems) => (1, None),
        Err(Failure::Failed(message)) => (1, Some(message)),
        Err(Failure::Usage(message)) => (2, Some(message)),
    };
    if let Some(message) = message {
        // Nothing is left to do when not even this can be written.
        let _ = writeln!(io::stderr(), "tidegate: {message}");
    }
    ExitCode::from(code)
}

fn run(command: Command, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        Command::Check {
            source,
            spin,
            wrangler,
            format,
        } => {
            let hosts = Manifests {
                spin: spin.as_deref(),
                wrangler: wrangler.as_deref(),
            };
            check(&source, &hosts, format, out)
        }
        Command::Compile { source, out: file } => compile(&source, file.as_deref(), out),
        Command::Push(push) => push::push(&push, out),
        Command::Health(door) => health::health(&door, out),
        Command::Kill(kill) => switches::kill(&kill, out),
        Command::Revive(revive) => switches::revive(&revive, out),
        Command::Tasks(asked) => tasks::tasks(asked, out),
        Command::Usage(asked) => usage::usage(&asked, out),
        Command::Schema { out: folder } => schema(folder.as_deref(), out),
        Command::Policy { command } => match command {
            args::Policy::Test {
                source,
                cases,
                strict,
            } => policy::test(&cases, strict, &load_or_report(&source)?, out),
            args::Policy::Explain(asked) => {
                policy::explain(&asked, &load_or_report(&asked.source)?, out)
            }
        },
        Command::Init { file, force } => init::init(&file, force, out),
        Command::Keys { command } => keys::run(&command, out),
        Command::Revoke(revoke) => revoke::run(&revoke, out),
        Command::RequestToken(call) => request_token::sign(&call, out),
    }
}

fn check(
    source: &Source,
    manifests: &Manifests<'_>,
    format: Format,
    out: &mut impl Write,
) -> Result<(), Failure> {
    match (load_for(source, manifests)?, format) {
        (Ok(loaded), Format::Text) => {
            writeln!(
                out,
                "{}: ok: {}",
                loaded.files.join(" + "),
                summary(&loaded.config)?
            )?;
            Ok(())
        }
        (Ok(loaded), Format::Json) => {
            let digest = Snapshot::compile(loaded.config, 0)?.digest;
            print_json(
                &json!({ "ok": true, "digest": digest, "problems": [] }),
                out,
            )
        }
        (Err(LoadError::Problems { findings, files }), Format::Json) => {
            print_json(
                &json!({ "ok": false, "problems": finding::as_json(&findings, &files) }),
                out,
            )?;
            Err(Failure::Problems)
        }
        (Err(error), _) => Err(report(error)?),
    }
}

/// What hosts are told besides the configuration, as far as it is to be looked at.
struct Manifests<'a> {
    spin: Option<&'a Path>,
    wrangler: Option<&'a Path>,
}

/// Loads the configuration; what the manifests lack for it is a problem of it.
fn load_for(
    source: &Source,
    manifests: &Manifests<'_>,
) -> Result<Result<Loaded, LoadError>, Failure> {
    let loaded = load::load(&source.config, source.env.as_deref());
    let Ok(configuration) = &loaded else {
        return Ok(loaded);
    };
    let mut findings = Vec::new();
    if let Some(path) = manifests.spin {
        findings.extend(manifest::check(path, configuration)?);
    }
    if let Some(path) = manifests.wrangler {
        findings.extend(wrangler::check(path, configuration)?);
    }
    if findings.is_empty() {
        return Ok(loaded);
    }
    let files = configuration.files.clone();
    Ok(Err(LoadError::Problems { findings, files }))
}

fn compile(source: &Source, file: Option<&Path>, out: &mut impl Write) -> Result<(), Failure> {
    let (_, bytes) = snapshot(load_or_report(source)?)?;
    match file {
        Some(file) => fs::write(file, &bytes)
            .map_err(|error| Failure::Failed(format!("{}: {error}", file.display()))),
        None => Ok(out.write_all(&bytes)?),
    }
}

fn schema(folder: Option<&Path>, out: &mut impl Write) -> Result<(), Failure> {
    let Some(folder) = folder else {
        return print_json(&structure::config_schema(), out);
    };
    for (name, schema) in [
        ("tidegate", structure::config_schema()),
        ("config", structure::snapshot_schema()),
    ] {
        let file = folder.join(format!("{name}.schema.json"));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&file, pretty(&schema)?))
            .map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
        writeln!(out, "{}", file.display())?;
    }
    Ok(())
}

/// Loads the configuration, or prints what is wrong with it.
fn load_or_report(source: &Source) -> Result<Loaded, Failure> {
    match load::load(&source.config, source.env.as_deref()) {
        Ok(loaded) => Ok(loaded),
        Err(error) => Err(report(error)?),
    }
}

/// Problems go to stderr, so that stdout is the result or nothing.
fn report(error: LoadError) -> io::Result<Failure> {
    Ok(match error {
        LoadError::Unusable(message) => Failure::Usage(message),
        LoadError::Problems { findings, files } => {
            let mut err = io::stderr().lock();
            write!(err, "{}", finding::text(&findings, &files))?;
            let plural = if findings.len() == 1 { "" } else { "s" };
            writeln!(err, "{} problem{plural}", findings.len())?;
            Failure::Problems
        }
    })
}

/// The snapshot as published, and checked as the gateway will check it.
fn snapshot(loaded: Loaded) -> Result<(Snapshot, Vec<u8>), Failure> {
    let snapshot = Snapshot::compile(loaded.config, now_ms())?;
    let bytes = serde_json::to_vec(&snapshot)?;
    let snapshot = Snapshot::parse(&bytes)
        .map_err(|reason| Failure::Failed(format!("not publishable: {reason}")))?;
    Ok((snapshot, bytes))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a native program may ask the machine for the time"
)]
fn now_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn summary(config: &Config) -> Result<String, Failure> {
    let digest = Snapshot::compile(config.clone(), 0)?.digest;
    let issuers = match &config.authentication {
        Authentication::Jwt {
            issuers,
            gateway_keys,
            revocation: _,
        } => {
            let keys = if *gateway_keys { ", gateway keys" } else { "" };
            format!("{} issuer(s){keys}", issuers.len())
        }
        Authentication::None => "authentication OFF".to_owned(),
    };
    let (upstreams, rules) = (config.upstreams.len(), config.tools.len());
    Ok(format!(
        "{upstreams} upstream(s), {rules} tool rule(s), {issuers}, digest {digest}"
    ))
}

fn print_json(value: &Value, out: &mut impl Write) -> Result<(), Failure> {
    Ok(out.write_all(pretty(value)?.as_bytes())?)
}

fn pretty(value: &Value) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(value)?
        .chars()
        .chain(iter::once('\n'))
        .collect())
}
