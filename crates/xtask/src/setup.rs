//! `cargo xtask setup`: everything a fresh machine lacks, installed at the pinned versions.
//!
//! Each part looks first and does nothing when what it provides is already there, so the
//! other commands call it every time.

pub mod debian;
pub mod node;
pub mod python;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::arguments::{Arguments, unexpected};
use crate::layout::Layout;
use crate::process::{self, command, output};
use crate::progress::say;
use crate::toolchain::{Target, Toolchain};
use crate::{pins, toolchain};

/// Shown by `cargo xtask setup --help`.
pub const HELP: &str = "\
cargo xtask setup [PART …]

Installs what is missing, at the pinned versions. The other commands do this by themselves.

Parts: cloudflare (default), spin, conformance, all

Environment:
  TIDEGATE_WASM_TOOLCHAIN=rustup|debian|DIR   which Rust builds the wasm
";

/// Runs the command.
pub fn run(mut arguments: Arguments) -> Result<()> {
    let layout = Layout::find()?;
    let mut parts = Vec::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            flag if flag.starts_with('-') => return unexpected(&flag),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        parts.push("cloudflare".to_owned());
    }
    for part in parts {
        match part.as_str() {
            "cloudflare" => drop(cloudflare(&layout)?),
            "spin" => drop(spin(&layout)?),
            "conformance" => conformance(&layout)?,
            "all" => {
                cloudflare(&layout)?;
                spin(&layout)?;
                conformance(&layout)?;
            }
            other => {
                bail!("no part is called {other:?}; parts: cloudflare, spin, conformance, all")
            }
        }
    }
    say("everything is installed");
    Ok(())
}

/// What building and running the Cloudflare function takes.
pub fn cloudflare(layout: &Layout) -> Result<CloudflareTools> {
    node::packages(layout)?;
    let tools = CloudflareTools {
        toolchain: Toolchain::choose(layout, Target::Workers)?,
        worker_build: cargo_install(layout, "worker-build", pins::WORKER_BUILD, true)?,
        // Without --locked: the published lock file names a yanked version.
        wasm_bindgen: cargo_install(layout, "wasm-bindgen-cli", pins::WASM_BINDGEN, false)?,
        node: node::binary(layout)?,
    };
    let _ = std::fs::remove_dir_all(build_dir(layout));
    Ok(tools)
}

/// What building the Spin component takes.
pub fn spin(layout: &Layout) -> Result<Toolchain> {
    Toolchain::choose(layout, Target::Spin)
}

/// What the conformance suite takes.
pub fn conformance(layout: &Layout) -> Result<()> {
    node::packages(layout)?;
    node::binary(layout)?;
    python::reference_server(layout)?;
    python::conformance_client(layout)?;
    python::legacy_client(layout)?;
    python::task_server(layout)?;
    Ok(())
}

/// The tools that turn the function into a Worker.
pub struct CloudflareTools {
    /// Compiles to wasm.
    pub toolchain: toolchain::Toolchain,
    /// Drives the build.
    pub worker_build: PathBuf,
    /// Generates the JavaScript glue.
    pub wasm_bindgen: PathBuf,
    /// Runs wrangler, esbuild and wasm-opt.
    pub node: PathBuf,
}

/// A program from crates.io in `target/tools/bin`, at exactly this version; built with
/// the native toolchain if it is not there yet.
pub fn cargo_install(layout: &Layout, name: &str, version: &str, locked: bool) -> Result<PathBuf> {
    let tools = layout.tools();
    let program = tools.join("bin").join(program_of(name));
    if installed_version(&program).as_deref() == Some(version) {
        return Ok(program);
    }
    let mut install = command("cargo");
    install
        .args([
            "install",
            "--quiet",
            "--force",
            name,
            "--version",
            version,
            "--root",
        ])
        .arg(&tools)
        .env("CARGO_TARGET_DIR", build_dir(layout))
        // They run for a second per build: what they take to compile matters more.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256");
    if locked {
        install.arg("--locked");
    }
    let title = format!("building {name} {version} (once, some minutes)");
    process::run(&title, &mut install, &layout.log(name)?)?;
    Ok(program)
}

/// Where tools are compiled: together, because they share dependencies.
fn build_dir(layout: &Layout) -> PathBuf {
    layout.tools().join("build")
}

fn program_of(package: &str) -> &str {
    package.strip_suffix("-cli").unwrap_or(package)
}

fn installed_version(program: &Path) -> Option<String> {
    let text = output(command(program).arg("--version"))?;
    text.split_ascii_whitespace().last().map(str::to_owned)
}
