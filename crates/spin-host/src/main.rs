//! `spin-host`: serves one WASI component over HTTP, so that anyone with only cargo can run
//! and test the Spin function.
//!
//! It implements the real WIT interfaces, through wasmtime: `wasi:http/handler@0.3` towards
//! the client, and `wasi:cli`, `wasi:clocks`, `wasi:random` (0.2 and 0.3) towards the
//! component. It keeps instances as Spin does ([`instances`]). A component that imports
//! anything else does not start here, and the error names the import.
//!
//! Its limits. It listens on loopback only, speaks HTTP/1.1 without TLS, and reads no
//! `spin.toml`: there are no routes, variables, key-value stores or triggers besides HTTP.
//! Requests a component sends are refused, as Spin refuses what `allowed_outbound_hosts`
//! does not list. A component that computes without end is not ended. It is for
//! development and tests; `spin` is for serving.

#![expect(
    clippy::print_stdout,
    reason = "a program that serves tells its caller where"
)]

mod guest;
mod instances;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use wasmtime::error::Context;
use wasmtime::{Result, bail};

use crate::instances::Instances;

const HELP: &str = "\
spin-host [--listen ADDRESS:PORT] COMPONENT.wasm

Serves the component over HTTP until it is told to stop (SIGINT or SIGTERM). Prints
`listening on http://ADDRESS:PORT` when it answers.

  --listen   a loopback address; port 0 takes a free one (default 127.0.0.1:3000)
";

/// Where `spin up` listens, too.
const LISTEN: &str = "127.0.0.1:3000";

struct Options {
    listen: SocketAddr,
    component: PathBuf,
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
    let (mut listen, mut component) = (LISTEN.to_owned(), None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("listen") => listen = arguments.value()?.to_string_lossy().into_owned(),
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Value(path) if component.is_none() => component = Some(PathBuf::from(path)),
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
    let component = component.context("no component given; --help shows how")?;
    Ok(Some(Options { listen, component }))
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
    let instances = Instances::of(&options.component)
        .with_context(|| format!("cannot run {}", options.component.display()))?;
    println!("listening on http://{}", listener.local_addr()?);
    let stop = async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    serve::until(listener, instances, stop).await;
    Ok(())
}
