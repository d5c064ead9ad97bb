//! The function under `wrangler dev`: KV, Queue and Durable Object emulated, offline.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use crate::layout::{Layout, write_private};
use crate::process::Session;
use crate::setup::node;

/// Starts `wrangler dev` with a bundle, its state in `dir/state`.
pub fn start(
    layout: &Layout,
    node: &Path,
    dir: &Path,
    bundle: &Path,
    port: u16,
    variables: &[(String, String)],
    session: &mut Session,
) -> Result<()> {
    let file = dir.join("dev.vars");
    let lines: String = variables
        .iter()
        .map(|(name, value)| format!("{name}={}\n", Value::from(value.as_str())))
        .collect();
    write_private(&file, lines.as_bytes())?;
    let mut wrangler = node::script(layout, node, "wrangler/bin/wrangler.js")?;
    wrangler
        .arg("dev")
        .arg(bundle.join("index.js"))
        .args(["--local", "--ip", "127.0.0.1", "--inspector-port", "0"])
        .args(["--port", &port.to_string()])
        .args(["--show-interactive-dev-session=false", "--log-level", "log"])
        .arg("--persist-to")
        .arg(dir.join("state"))
        .arg("--env-file")
        .arg(&file)
        .env("TIDEGATE_PREBUILT", "1");
    environment(layout, dir, &mut wrangler)?;
    session.start("wrangler dev", &mut wrangler, &dir.join("gateway.log"))
}

/// What keeps wrangler on this machine, and finds it a Node new enough.
pub fn environment(layout: &Layout, dir: &Path, command: &mut Command) -> Result<()> {
    let node = node::binary(layout)?;
    // A bare name is found on the PATH already.
    let mut first: Vec<PathBuf> = node
        .parent()
        .filter(|dir| dir.is_absolute())
        .map(Path::to_path_buf)
        .into_iter()
        .collect();
    first.push(layout.node_modules().join(".bin"));
    command
        .env("PATH", crate::toolchain::with_path(&first)?)
        .env("CI", "1")
        .env("WRANGLER_SEND_METRICS", "false")
        .env("WRANGLER_SEND_ERROR_REPORTS", "false")
        .env("WRANGLER_HIDE_BANNER", "true")
        .env("CLOUDFLARE_CF_FETCH_ENABLED", "false")
        // Several gateways may run here at once; they must not find each other.
        .env("WRANGLER_REGISTRY_PATH", dir.join("registry"))
        .env("WRANGLER_LOG_PATH", dir.join("wrangler"));
    Ok(())
}
