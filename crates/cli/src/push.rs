//! Publishing: one KV value, written by wrangler.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidegate_gateway::config::ConfigFamily;
use tidegate_gateway::keyspace::Key;

use crate::args::Push;
use crate::{Failure, finding};

/// The KV binding the gateway reads.
const BINDING: &str = "TIDEGATE_KV";
/// Names a node 22 or later, as a program or the folder it is in.
const NODE: &str = "TIDEGATE_NODE";

/// Compiles and publishes.
pub fn push(push: &Push, out: &mut impl Write) -> Result<(), Failure> {
    let loaded = crate::load_or_report(&push.source)?;
    if let Some(refused) = loaded.refused_remotely().filter(|_| push.target.remote) {
        write!(
            std::io::stderr(),
            "{}",
            finding::text(&[refused], &loaded.files)
        )?;
        return Err(Failure::Problems);
    }
    let (snapshot, bytes) = crate::snapshot(loaded)?;
    let (digest, size) = (&snapshot.digest, bytes.len());
    let key = Key::<ConfigFamily>::single();
    if push.target.dry_run {
        writeln!(
            out,
            "would publish `{}` with digest {digest} ({size} bytes)",
            key.as_str()
        )?;
        return Ok(());
    }
    let file = tempfile::Builder::new()
        .prefix("tidegate-")
        .suffix(".json")
        .tempfile()?;
    file.as_file().write_all(&bytes)?;
    let mut command = wrangler(push)?;
    command
        .args(["kv", "key", "put", "--binding", BINDING, key.as_str()])
        .arg("--path")
        .arg(file.path());
    command.arg("--config").arg(&push.wrangler_config);
    match &push.persist_to {
        _ if push.target.remote => command.arg("--remote"),
        Some(folder) => command.arg("--local").arg("--persist-to").arg(folder),
        None => command.arg("--local"),
    };
    finish(command)?;
    let place = if push.target.remote {
        "the deployed namespace"
    } else {
        "the local namespace"
    };
    writeln!(out, "published digest {digest} ({size} bytes) to {place}")?;
    Ok(())
}

/// Runs wrangler. What it says is shown only when it fails.
fn finish(mut command: Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::inherit()).output().map_err(|error| {
        Failure::Failed(format!(
            "{program} cannot be run: {error}; `npm install` here, or give --wrangler PATH"
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let mut err = std::io::stderr().lock();
    err.write_all(&output.stdout)?;
    err.write_all(&output.stderr)?;
    Err(Failure::Failed(format!(
        "wrangler failed ({}); nothing was published, or it is unknown",
        output.status
    )))
}

fn wrangler(push: &Push) -> Result<Command, Failure> {
    let config = &push.wrangler_config;
    if !config.is_file() {
        let message = format!(
            "{}: no such file; give the wrangler configuration with --wrangler-config",
            config.display()
        );
        return Err(Failure::Usage(message));
    }
    let modules = node_modules(config);
    let program = match (&push.wrangler, &modules) {
        (Some(program), _) => program.clone().into_os_string(),
        (None, Some(modules)) => modules.join(".bin/wrangler").into_os_string(),
        (None, None) => OsString::from("wrangler"),
    };
    let mut command = Command::new(program);
    // Publishing works without anybody looking on: no banner, no metrics, no questions.
    for setting in [
        "WRANGLER_SEND_METRICS",
        "WRANGLER_SEND_ERROR_REPORTS",
        "CLOUDFLARE_CF_FETCH_ENABLED",
    ] {
        command.env(setting, "false");
    }
    command
        .env("WRANGLER_HIDE_BANNER", "true")
        .env("NO_COLOR", "1");
    if let Some(path) = path_with_node(modules.as_deref()) {
        command.env("PATH", path);
    }
    Ok(command)
}

/// The `node_modules` with wrangler, in the folder of its configuration or above.
fn node_modules(config: &Path) -> Option<PathBuf> {
    let config = config.canonicalize().ok()?;
    config
        .ancestors()
        .skip(1)
        .map(|folder| folder.join("node_modules"))
        .find(|m| m.join(".bin/wrangler").exists())
}

/// `PATH` with a node that wrangler can run on in front: the one named by `TIDEGATE_NODE`,
/// or the one npm installed beside wrangler.
fn path_with_node(modules: Option<&Path>) -> Option<OsString> {
    let named = env::var_os(NODE).map(PathBuf::from).map(|node| {
        let folder = if node.is_file() {
            node.parent().map(Path::to_owned)
        } else {
            None
        };
        folder.unwrap_or(node)
    });
    let installed = || {
        modules
            .map(|modules| modules.join("node/bin"))
            .filter(|folder| folder.join("node").is_file())
    };
    let folder = named.or_else(installed)?;
    let rest = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(folder.as_os_str().to_owned()).chain(split(&rest))).ok()
}

fn split(path: &OsStr) -> Vec<OsString> {
    env::split_paths(path)
        .map(PathBuf::into_os_string)
        .collect()
}
