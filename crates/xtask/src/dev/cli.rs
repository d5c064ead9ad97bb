//! The `tidegate` command line tool, as `dev` uses it: check, compile and push a
//! configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::dev::wrangler;
use crate::layout::Layout;
use crate::process::{self, command};

/// Builds the command line tool with the native toolchain; gives its program.
pub fn build(layout: &Layout) -> Result<PathBuf> {
    let mut build = command("cargo");
    build
        .current_dir(layout.root())
        // Not `--package`: that chooses other features of what is shared, and so builds most
        // of what `cargo test --workspace` has built once more.
        .args(["build", "--quiet", "--workspace", "--bin", "tidegate"])
        .env("CARGO_TARGET_DIR", layout.target());
    process::run(
        "building the tidegate command",
        &mut build,
        &layout.log("build-cli")?,
    )?;
    Ok(layout.target().join("debug/tidegate"))
}

/// Checks a configuration file as its author wrote it, so that errors name its lines.
pub fn check(layout: &Layout, cli: &Path, file: &Path, dir: &Path) -> Result<()> {
    let file =
        std::path::absolute(file).with_context(|| format!("cannot resolve {}", file.display()))?;
    let mut check = tidegate(layout, cli, "check", &file);
    process::run(
        "checking the configuration",
        &mut check,
        &dir.join("check.log"),
    )
}

/// Compiles a configuration; gives the snapshot's file.
pub fn compile(layout: &Layout, cli: &Path, config: &Path, dir: &Path) -> Result<PathBuf> {
    let snapshot = dir.join("snapshot.json");
    let mut compile = tidegate(layout, cli, "compile", config);
    compile.arg("--out").arg(&snapshot);
    process::run(
        "compiling the configuration",
        &mut compile,
        &dir.join("push.log"),
    )?;
    Ok(snapshot)
}

/// Publishes a configuration to the KV store wrangler emulates in `dir/state`.
pub fn push(layout: &Layout, cli: &Path, config: &Path, dir: &Path) -> Result<()> {
    let mut push = tidegate(layout, cli, "push", config);
    push.arg("--local")
        .arg("--persist-to")
        .arg(dir.join("state"))
        .arg("--wrangler-config")
        .arg(layout.root().join("wrangler.toml"));
    wrangler::environment(layout, dir, &mut push)?;
    process::run(
        "publishing the configuration to local KV",
        &mut push,
        &dir.join("push.log"),
    )
}

fn tidegate(layout: &Layout, cli: &Path, verb: &str, config: &Path) -> Command {
    let mut tidegate = command(cli);
    tidegate
        .current_dir(layout.root())
        .arg(verb)
        .arg("--config")
        .arg(config);
    tidegate
}
