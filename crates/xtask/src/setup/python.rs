//! Python programs for the tests, each in a virtual environment under `target/tools`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::layout::{Layout, make_dir};
use crate::pins;
use crate::process::{self, command, output};

/// The conformance suite's reference server: part of the Python SDK's source distribution,
/// and not published by itself.
pub fn reference_server(layout: &Layout) -> Result<PathBuf> {
    let environment = layout.tools().join("py-mcp2");
    let server = environment.join("bin/mcp-everything-server");
    if server.exists() && has(&environment, pins::PYTHON_MCP) {
        return Ok(server);
    }
    let log = layout.log("python")?;
    let requirement = format!("mcp=={}", pins::PYTHON_MCP);
    create(&environment, &log)?;
    install(
        &environment,
        &[&requirement, "click", "starlette", "uvicorn"],
        &log,
    )?;

    let example = sources(&environment, &log)?.join("examples/servers/everything-server");
    let mut package = pip(&environment);
    package.args(["install", "--no-deps"]).arg(example);
    process::run("installing the reference server", &mut package, &log)?;
    if !server.exists() {
        bail!(
            "{} is missing after installing it; see {}",
            server.display(),
            log.display()
        );
    }
    Ok(server)
}

/// The client the SDK's authors run the suite against: in the same sources, and not
/// published either.
pub fn conformance_client(layout: &Layout) -> Result<PathBuf> {
    let environment = layout.tools().join("py-mcp2");
    let client = environment.join("conformance-client.py");
    if !client.exists() {
        reference_server(layout)?;
        let log = layout.log("python")?;
        let original = sources(&environment, &log)?.join(".github/actions/conformance/client.py");
        std::fs::copy(&original, &client)
            .with_context(|| format!("cannot copy {}", original.display()))?;
    }
    Ok(client)
}

/// The unpacked sources of the SDK.
fn sources(environment: &Path, log: &Path) -> Result<PathBuf> {
    let folder = environment.join("src");
    let sources = folder.join(format!("mcp-{}", pins::PYTHON_MCP));
    if sources.exists() {
        return Ok(sources);
    }
    make_dir(&folder)?;
    let requirement = format!("mcp=={}", pins::PYTHON_MCP);
    let mut download = pip(environment);
    // Only this package from source; what builds it may come ready-made.
    download.current_dir(&folder).args([
        "download",
        "--no-deps",
        "--no-binary",
        "mcp",
        &requirement,
    ]);
    process::run(
        &format!("fetching the sources of {requirement}"),
        &mut download,
        log,
    )?;
    let mut unpack = command("tar");
    unpack
        .current_dir(&folder)
        .arg("-xzf")
        .arg(format!("mcp-{}.tar.gz", pins::PYTHON_MCP));
    process::run("unpacking them", &mut unpack, log)?;
    Ok(sources)
}

/// A Python with the one third-party engine of the tasks extension.
pub fn task_server(layout: &Layout) -> Result<PathBuf> {
    let environment = layout.tools().join("py-fastmcp");
    if version(&environment, "fastmcp").as_deref() != Some(pins::FASTMCP) {
        let log = layout.log("python-fastmcp")?;
        create(&environment, &log)?;
        let requirement = format!("fastmcp[tasks]=={}", pins::FASTMCP);
        install(&environment, &[&requirement], &log)?;
    }
    Ok(environment.join("bin/python"))
}

/// The Python a script of an environment runs with.
pub fn beside(script: &Path) -> PathBuf {
    script.with_file_name("python")
}

/// A Python with the SDK's previous major, a client of the legacy era.
pub fn legacy_client(layout: &Layout) -> Result<PathBuf> {
    let environment = layout.tools().join("py-mcp1");
    if !has(&environment, pins::PYTHON_MCP_LEGACY) {
        let log = layout.log("python-legacy")?;
        create(&environment, &log)?;
        let requirement = format!("mcp=={}", pins::PYTHON_MCP_LEGACY);
        install(&environment, &[&requirement], &log)?;
    }
    Ok(environment.join("bin/python"))
}

fn has(environment: &Path, wanted: &str) -> bool {
    version(environment, "mcp").as_deref() == Some(wanted)
}

fn version(environment: &Path, package: &str) -> Option<String> {
    let script = format!("import importlib.metadata as m; print(m.version('{package}'))");
    output(command(environment.join("bin/python")).args(["-c", &script]))
}

fn create(environment: &Path, log: &Path) -> Result<()> {
    if output(command("python3").arg("--version")).is_none() {
        bail!(
            "python3 is not installed.\nRemedy: `apt-get install python3-venv`, or install it \
             from https://python.org."
        );
    }
    let _ = std::fs::remove_dir_all(environment);
    let mut create = command("python3");
    create.args(["-m", "venv"]).arg(environment);
    process::run("making a Python environment", &mut create, log)
        .context("on Debian and Ubuntu this needs `apt-get install python3-venv`")
}

fn install(environment: &Path, requirements: &[&str], log: &Path) -> Result<()> {
    let mut install = pip(environment);
    install.args(["install", "--quiet"]).args(requirements);
    process::run(
        &format!("installing {}", requirements.join(" ")),
        &mut install,
        log,
    )
}

fn pip(environment: &Path) -> std::process::Command {
    let mut pip = command(environment.join("bin/python"));
    pip.args(["-m", "pip", "--disable-pip-version-check"]);
    pip
}
