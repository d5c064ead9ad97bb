//! What npm brings: wrangler with the Workers runtime, wasm-opt, the third-party MCP
//! programs, and a Node new enough to run them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::layout::{Layout, make_dir, read};
use crate::pins;
use crate::process::{self, command, output};

/// Installs the packages of `package-lock.json`, unless they are all there.
pub fn packages(layout: &Layout) -> Result<()> {
    if installed(layout) {
        return Ok(());
    }
    if output(command("npm").arg("--version")).is_none() {
        bail!(
            "npm is not installed.\nRemedy: install Node with npm from https://nodejs.org, \
             or `apt-get install npm`; any version will do, a current Node is then fetched."
        );
    }
    let mut install = command("npm");
    install
        .current_dir(layout.root())
        .args(["ci", "--no-audit", "--no-fund", "--loglevel=warn"]);
    process::run(
        "installing npm packages (wrangler, workerd, wasm-opt, test servers)",
        &mut install,
        &layout.log("npm")?,
    )
}

/// Whether every package the lock file wants for this machine is installed as it says.
fn installed(layout: &Layout) -> bool {
    let versions = |path: &Path| -> Option<Value> { serde_json::from_str(&read(path).ok()?).ok() };
    let wanted = versions(&layout.root().join("package-lock.json"));
    let present = versions(&layout.node_modules().join(".package-lock.json"));
    let (Some(wanted), Some(present)) = (wanted, present) else {
        return false;
    };
    let Some(packages) = wanted["packages"].as_object() else {
        return false;
    };
    packages
        .iter()
        .filter(|(path, package)| !path.is_empty() && package["optional"] != true)
        .all(|(path, package)| {
            present["packages"][path]["version"] == package["version"]
                && layout.root().join(path).exists()
        })
}

/// A Node new enough for wrangler: npm's, the system's, or the bare binary package.
pub fn binary(layout: &Layout) -> Result<PathBuf> {
    let fetched = layout.tools().join("node/bin/node");
    let candidates = [
        layout.node_modules().join("node/bin/node"),
        PathBuf::from("node"),
        fetched.clone(),
    ];
    if let Some(node) = candidates.into_iter().find(|node| new_enough(node)) {
        return Ok(node);
    }
    // The `node` package fetches its binary in an install script, which a careful npm
    // does not run; this package is that binary.
    fetch(layout)?;
    if !new_enough(&fetched) {
        let (major, minor) = pins::NODE_OLDEST;
        bail!(
            "no Node {major}.{minor} or newer could be found or fetched; install one from https://nodejs.org"
        );
    }
    Ok(fetched)
}

fn new_enough(node: &Path) -> bool {
    output(command(node).arg("--version")).is_some_and(|text| {
        let mut numbers = text.trim_start_matches('v').split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= pins::NODE_OLDEST,
            _ => false,
        }
    })
}

fn fetch(layout: &Layout) -> Result<()> {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let machine = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    };
    let package = format!("node-{system}-{machine}@{}", pins::NODE);
    let dir = layout.tools().join("node");
    make_dir(&dir)?;
    let log = layout.log("node")?;
    let mut pack = command("npm");
    pack.current_dir(&dir).args(["pack", "--silent", &package]);
    process::run(&format!("fetching {package}"), &mut pack, &log)?;
    let archive = std::fs::read_dir(&dir)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .context("npm pack left no archive")?;
    let mut unpack = command("tar");
    unpack
        .current_dir(&dir)
        .args(["-xzf"])
        .arg(&archive)
        .args(["--strip-components=1", "package/bin/node"]);
    process::run("unpacking Node", &mut unpack, &log)?;
    std::fs::remove_file(archive).context("cannot remove the unpacked archive")
}

/// A command that runs a JavaScript program of `node_modules` under the given Node, with
/// that Node first on the PATH for whatever the program starts.
pub fn script(layout: &Layout, node: &Path, program: &str) -> Result<Command> {
    let mut script = command(node);
    script
        .current_dir(layout.root())
        .arg(layout.node_modules().join(program));
    if let Some(dir) = node.parent().filter(|dir| dir.is_absolute()) {
        script.env("PATH", crate::toolchain::with_path(&[dir.to_path_buf()])?);
    }
    Ok(script)
}
