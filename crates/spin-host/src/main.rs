//! `spin-host`: runs the components of a `spin.toml`, so that anyone with only cargo can run
//! and test the Spin function.
//!
//! It implements the interfaces a component meets in Spin 4.1, not its own: through wasmtime
//! `wasi:http@0.3` both ways, `wasi:cli`, `wasi:clocks` and `wasi:random` (0.2 and 0.3), and
//! by itself `spin:key-value@3.0`, `spin:sqlite@3.1` and `spin:variables@3.0` (`wit/`). It
//! keeps instances as Spin does ([`instances`]), lets a component reach only what its
//! manifest lists ([`manifest`], [`allowed`]), and is called like `spin up`. A component that
//! imports anything else does not start here, and the error names the import.
//!
//! Its limits. It listens on loopback only and speaks HTTP/1.1 without TLS. The HTTP trigger
//! alone, its routes without named segments; no `runtime-config.toml`: key-value stores
//! and databases are SQLite files in the state folder. Of the headers Spin adds it sets
//! `spin-client-addr`. Of the times an outbound request may set, that for connecting is passed
//! over. A component that computes without end is not ended, and nothing limits its memory.
//! It is for development and tests; `spin` is for serving.

#![expect(
    clippy::print_stdout,
    reason = "a program that serves tells its caller where"
)]

mod allowed;
mod bindings;
mod files;
mod guest;
mod instances;
mod key_value;
mod manifest;
mod outbound;
mod serve;
mod sqlite;
mod variables;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use wasmtime::error::Context;
use wasmtime::{Result, bail};

use crate::guest::Shared;
use crate::instances::Instances;
use crate::key_value::Stores;
use crate::manifest::Application;
use crate::serve::Components;

const HELP: &str = "\
spin-host [--from SPIN.TOML] [--listen ADDRESS:PORT] [--state-dir DIR]
          [--variable NAME=VALUE|NAME=@FILE]… [--key-value KEY=VALUE]…
          [--outbound-wait SECONDS]

Serves the components of a manifest over HTTP until it is told to stop (SIGINT or SIGTERM).
Prints `listening on http://ADDRESS:PORT` when it answers. Options are those of `spin up`,
but for the last.

  --from       the manifest (default spin.toml)
  --listen     a loopback address; port 0 takes a free one (default 127.0.0.1:3000)
  --state-dir  where stores and databases are kept (default .spin beside the manifest)
  --variable   the value of a variable, or the file it stands in
  --key-value  writes a value into the default key-value store first
  --outbound-wait  how long a request waits for its answer, and for more of it, that does not
               say how long it would (default 600, which is what Spin has)
";

/// Where `spin up` listens, too.
const LISTEN: &str = "127.0.0.1:3000";
/// The key-value store `--key-value` writes to.
const DEFAULT_STORE: &str = "default";

struct Options {
    listen: SocketAddr,
    manifest: PathBuf,
    state: PathBuf,
    variables: BTreeMap<String, String>,
    values: Vec<(String, String)>,
    wait: Duration,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let Some(options) = options(lexopt::Parser::from_env())? else {
        print!("{HELP}");
        return Ok(());
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(run(options))?;
    // Instances that still rest end with the process: dropped one by one, each would be
    // reported as if it had failed.
    std::mem::forget(runtime);
    Ok(())
}

/// What the caller asks for; nothing if that is help.
fn options(mut arguments: lexopt::Parser) -> Result<Option<Options>> {
    use lexopt::Arg;
    let (mut listen, mut manifest, mut state) = (LISTEN.to_owned(), None, None);
    let (mut variables, mut values) = (BTreeMap::new(), Vec::new());
    let mut wait = outbound::WAIT;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("listen") => listen = text(&mut arguments)?,
            Arg::Long("from") | Arg::Short('f') => manifest = Some(text(&mut arguments)?.into()),
            Arg::Long("state-dir") => state = Some(text(&mut arguments)?.into()),
            Arg::Long("variable") => {
                let (name, value) = pair(&text(&mut arguments)?)?;
                variables.insert(name, content(value)?);
            }
            Arg::Long("key-value") => values.push(pair(&text(&mut arguments)?)?),
            Arg::Long("outbound-wait") => {
                let seconds = text(&mut arguments)?;
                let seconds = seconds
                    .parse::<u64>()
                    .with_context(|| format!("--outbound-wait takes seconds, not {seconds:?}"))?;
                wait = Duration::from_secs(seconds);
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long(_) | Arg::Short(_) | Arg::Value(_) => {
                return Err(argument.unexpected().into());
            }
        }
    }
    let listen = listen
        .parse::<SocketAddr>()
        .with_context(|| format!("--listen takes ADDRESS:PORT, not {listen:?}"))?;
    if !listen.ip().is_loopback() {
        bail!("{listen} is not a loopback address; this host is for development and tests");
    }
    let manifest = manifest.unwrap_or_else(|| PathBuf::from("spin.toml"));
    let state = state.unwrap_or_else(|| manifest.with_file_name(".spin"));
    Ok(Some(Options {
        listen,
        manifest,
        state,
        variables,
        values,
        wait,
    }))
}

fn text(arguments: &mut lexopt::Parser) -> Result<String> {
    Ok(arguments.value()?.to_string_lossy().into_owned())
}

/// Reads `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String)> {
    let (name, value) = text
        .split_once('=')
        .with_context(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// The value itself, or what is in the file it names with an `@`.
fn content(value: String) -> Result<String> {
    match value.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}")),
        None => Ok(value),
    }
}

/// The components by the routes that lead to them, with the state folder there and filled.
fn components(options: &Options) -> Result<Components> {
    let application = Application::read(&options.manifest, &options.variables)?;
    let state = &options.state;
    std::fs::create_dir_all(state).with_context(|| format!("cannot create {}", state.display()))?;
    let key_value = Stores::open(&state.join("key_value.db"))?;
    for (key, value) in &options.values {
        key_value.set(DEFAULT_STORE, key, value.as_bytes())?;
    }
    let sender = outbound::sender();
    let Application { components, routes } = application;
    let components = components.into_iter().map(|(id, given)| {
        let source = given.source.clone();
        let shared = Shared {
            given: Arc::new(given),
            key_value: key_value.clone(),
            databases: state.clone(),
            sender: sender.clone(),
            wait: options.wait,
        };
        let instances = Instances::of(&source, shared)
            .with_context(|| format!("cannot run {}", source.display()))?;
        Ok((id, instances))
    });
    Ok(Components::new(routes, components.collect::<Result<_>>()?))
}

async fn run(options: Options) -> Result<()> {
    // Before anything that takes time: who stops us early must be heard, too.
    let (mut interrupted, mut terminated) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let components = components(&options)?;
    println!("listening on http://{}", listener.local_addr()?);
    let stop = async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    serve::until(listener, components, stop).await;
    Ok(())
}
