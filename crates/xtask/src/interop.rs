//! `cargo xtask interop`: third-party clients through the gateway to third-party servers.
//!
//! Every client does the same with every server, at the server's own endpoint: it lists and
//! calls tools, reads a resource, gets a prompt, completes an argument and follows progress.
//! `tests/hosts/INTEROP.md` is what came of it.

mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::arguments::{Arguments, unexpected};
use crate::conformance::front::{self, Runtime};
use crate::http;
use crate::interop::table::{Cell, Table};
use crate::layout::{Layout, read, write_atomically};
use crate::process::{self, Session, command};
use crate::setup::{self, node, python};
use crate::test::Counts;

/// Shown by `cargo xtask interop --help`.
pub const HELP: &str = "\
cargo xtask interop [--update]

Runs third-party clients through the gateway against third-party servers and compares with
tests/hosts/INTEROP.md.

  --update    write that file
";

/// How long one client may take with one server.
const CELL_LIMIT: Duration = Duration::from_secs(120);

/// How long a server may take to answer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What every client is asked to do; the scripts in `tests/hosts/clients` know how.
const STEPS: [&str; 6] = [
    "tools", "call", "resource", "prompt", "complete", "progress",
];

/// A server, and one era the gateway speaks to it.
struct Upstream {
    /// In the configuration.
    name: &'static str,
    /// In the table.
    label: &'static str,
    era: &'static str,
    /// What `fixtures.json` calls what it serves.
    fixture: &'static str,
    server: Server,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Python,
    TypeScript,
    Rust,
    Everything,
}

const UPSTREAMS: [Upstream; 7] = [
    Upstream {
        name: "python-modern",
        label: "PyPI `mcp` 2.3, everything-server",
        era: "modern",
        fixture: "reference",
        server: Server::Python,
    },
    Upstream {
        name: "python-legacy",
        label: "PyPI `mcp` 2.3, everything-server",
        era: "legacy",
        fixture: "reference",
        server: Server::Python,
    },
    Upstream {
        name: "typescript-modern",
        label: "npm `@modelcontextprotocol/server` 2.4, `createMcpHandler`",
        era: "modern",
        fixture: "reference",
        server: Server::TypeScript,
    },
    Upstream {
        name: "typescript-legacy",
        label: "npm `@modelcontextprotocol/server` 2.4, `createMcpHandler`",
        era: "legacy",
        fixture: "reference",
        server: Server::TypeScript,
    },
    Upstream {
        name: "rust-modern",
        label: "crate `rmcp` 3.9",
        era: "modern",
        fixture: "reference",
        server: Server::Rust,
    },
    Upstream {
        name: "rust-legacy",
        label: "crate `rmcp` 3.9",
        era: "legacy",
        fixture: "reference",
        server: Server::Rust,
    },
    Upstream {
        name: "everything-legacy",
        label: "npm `@modelcontextprotocol/server-everything` 2026.8",
        era: "legacy",
        fixture: "everything",
        server: Server::Everything,
    },
];

/// The one client that is no script.
const RUST_CLIENT: &str = "rmcp";

/// A client script and what its SDK is called.
struct Client {
    label: &'static str,
    script: &'static str,
    words: &'static [&'static str],
}

const CLIENTS: [Client; 9] = [
    client(
        "npm `@modelcontextprotocol/client` 2.4, `auto`",
        "npm_client.mjs",
        &[],
    ),
    client(
        "npm `@modelcontextprotocol/client` 2.4, `legacy`",
        "npm_client.mjs",
        &["--era", "legacy"],
    ),
    client("npm `@modelcontextprotocol/sdk` 1.32", "npm_sdk.mjs", &[]),
    client("PyPI `mcp` 2.3", "pypi_mcp2.py", &[]),
    client("PyPI `mcp` 1.30", "pypi_mcp1.py", &[]),
    client("PyPI `fastmcp` 4.1", "fastmcp_client.py", &[]),
    client("crate `rmcp` 3.9, `Discover`", RUST_CLIENT, &[]),
    client(
        "crate `rmcp` 3.9, `Initialize`",
        RUST_CLIENT,
        &["--era", "legacy"],
    ),
    client("npm `mcp-remote` 0.15", "mcp_remote.mjs", &[]),
];

const fn client(
    label: &'static str,
    script: &'static str,
    words: &'static [&'static str],
) -> Client {
    Client {
        label,
        script,
        words,
    }
}

/// Runs the command.
pub fn run(mut arguments: Arguments) -> Result<()> {
    let mut update = false;
    while let Some(argument) = arguments.next()? {
        match argument.as_str() {
            "--update" => update = true,
            other => return unexpected(other),
        }
    }
    let (counts, complaint) = compare(&Layout::find()?, update)?;
    if let Some(complaint) = complaint {
        bail!("{complaint}");
    }
    println!(
        "{} of {} cells work",
        counts.passed,
        counts.passed + counts.failed
    );
    Ok(())
}

/// The table as a lane of `cargo xtask test`: it holds while the committed one is true.
pub fn lane(layout: &Layout) -> Result<Counts> {
    let (counts, complaint) = compare(layout, false)?;
    let failed = u64::from(complaint.is_some());
    if let Some(complaint) = complaint {
        eprintln!("{complaint}");
    }
    Ok(Counts {
        passed: counts.passed,
        failed,
    })
}

fn compare(layout: &Layout, update: bool) -> Result<(Counts, Option<String>)> {
    setup::conformance(layout)?;
    let mut session = Session::open()?;
    let rust = rmcp(layout)?;
    let upstreams = start(layout, &rust, &mut session)?;
    let gateway = front::gateway(layout, "interop", upstreams, Vec::new(), Runtime::Workerd)?;
    let mut table = Table::default();
    for client in &CLIENTS {
        for upstream in &UPSTREAMS {
            let url = format!(
                "http://127.0.0.1:{}/servers/{}/mcp",
                gateway.port, upstream.name
            );
            let cell = cell(
                layout,
                program(layout, &rust, client)?,
                client,
                upstream,
                &url,
            )?;
            table.push(client.label, (upstream.label, upstream.era), cell);
        }
    }
    let counts = table.counts();
    let text = table.render();
    print!("{text}");
    let file = layout.root().join("tests/hosts/INTEROP.md");
    let name = layout.relative(&file);
    if update {
        write_atomically(&file, text.as_bytes())?;
        println!("wrote {name}");
        return Ok((counts, None));
    }
    let same = file.exists() && read(&file)? == text;
    let complaint = format!("{name} is not what was found (`cargo xtask interop --update`)");
    Ok((counts, (!same).then_some(complaint)))
}

/// Starts every server once; gives them as the configuration names upstreams.
fn start(layout: &Layout, rust: &Path, session: &mut Session) -> Result<Vec<Value>> {
    let node = node::binary(layout)?;
    let script = |path: &str| layout.root().join(path);
    let mut ports = Vec::new();
    for server in [
        Server::Python,
        Server::TypeScript,
        Server::Rust,
        Server::Everything,
    ] {
        let port = http::free_port(0)?;
        let port_word = port.to_string();
        let (name, mut program) = match server {
            Server::Python => {
                let mut program = command(python::reference_server(layout)?);
                program.args(["--port", &port_word]);
                ("python", program)
            }
            Server::TypeScript => {
                let mut program = command(&node);
                program.arg(script("tests/hosts/upstreams/typescript.mjs"));
                program.args(["--port", &port_word]);
                ("typescript", program)
            }
            Server::Rust => {
                let mut program = command(rust);
                program.args(["serve", "--port", &port_word]);
                ("rust", program)
            }
            Server::Everything => {
                let everything = "@modelcontextprotocol/server-everything/dist/index.js";
                let mut program = node::script(layout, &node, everything)?;
                program.args(["streamableHttp"]).env("PORT", &port_word);
                let loopback = script("crates/xtask/js/loopback.mjs");
                program.env("NODE_OPTIONS", format!("--import={}", loopback.display()));
                ("everything", program)
            }
        };
        let log = layout.log(&format!("interop-{name}"))?;
        session.start(name, &mut program, &log)?;
        ports.push((server, port));
    }
    session.wait_until("starting the servers", START_LIMIT, || {
        ports.iter().all(|(_, port)| http::accepts(*port))
    })?;
    UPSTREAMS
        .iter()
        .map(|upstream| {
            let found = ports.iter().find(|(server, _)| *server == upstream.server);
            let (_, port) = found.context("a server was not started")?;
            let url = format!("http://127.0.0.1:{port}/mcp");
            Ok(json!({"name": upstream.name, "url": url, "era": upstream.era}))
        })
        .collect()
}

fn cell(
    layout: &Layout,
    mut run: Command,
    client: &Client,
    upstream: &Upstream,
    url: &str,
) -> Result<Cell> {
    let title = format!("{} → {} ({})", client.label, upstream.name, upstream.era);
    let log = layout.log(&format!("interop-{}-{}", client.script, upstream.name))?;
    run.args(["--url", url, "--fixture", upstream.fixture])
        .args(["--scenario", &format!("connect,{}", STEPS.join(","))])
        .args(client.words);
    process::run_captured(&title, &mut run, &log, CELL_LIMIT)?;
    let printed = read(&log)?;
    let seen: Vec<Value> = printed
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let told = |step: &str| seen.iter().find(|line| line["scenario"] == step);
    let era = told("connect").and_then(|line| line["ok"]["era"].as_str());
    let failed = STEPS
        .iter()
        .filter(|step| !told(step).is_some_and(|line| works(step, &line["ok"])));
    Ok(Cell {
        era: era.map(str::to_owned),
        failed: failed.map(|step| (*step).to_owned()).collect(),
    })
}

/// Whether what a client reports of a step is what the step is for.
fn works(step: &str, told: &Value) -> bool {
    let text = || told["text"].as_str().is_some_and(|text| !text.is_empty());
    let some = |name: &str| told[name].as_array().is_some_and(|list| !list.is_empty());
    match step {
        "tools" => some("names"),
        "call" => text() && told["is_error"] == false,
        // The reference server's completion has no suggestions to make.
        "complete" => told["values"].is_array(),
        "progress" => some("arrivals"),
        _ => text(),
    }
}

fn program(layout: &Layout, rust: &Path, client: &Client) -> Result<Command> {
    let scripts = layout.root().join("tests/hosts/clients");
    if client.script == RUST_CLIENT {
        let mut program = command(rust);
        program.arg("client");
        program.arg("--fixtures").arg(scripts.join("fixtures.json"));
        return Ok(program);
    }
    let script = scripts.join(client.script);
    let interpreter: PathBuf = match client.script {
        "pypi_mcp2.py" => python::beside(&python::reference_server(layout)?),
        "pypi_mcp1.py" => python::legacy_client(layout)?,
        "fastmcp_client.py" => python::task_server(layout)?,
        _ => node::binary(layout)?,
    };
    let mut program = command(interpreter);
    program
        .arg(script)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // The bridge keeps what it was granted where it is told to.
        .env("MCP_REMOTE_CONFIG_DIR", layout.dev().join("mcp-remote"));
    Ok(program)
}

/// The Rust SDK's server and client.
fn rmcp(layout: &Layout) -> Result<PathBuf> {
    let title = "building a server and a client on rmcp (the first time takes minutes)";
    process::run(title, &mut build_rmcp(layout), &layout.log("interop-rmcp")?)?;
    Ok(rmcp_target(layout).join("debug/interop-rmcp"))
}

/// What builds them.
pub fn build_rmcp(layout: &Layout) -> Command {
    let mut build = command("cargo");
    build
        .current_dir(layout.root())
        .args(["build", "--quiet", "--locked"])
        .args(["--manifest-path", "tests/hosts/rmcp/Cargo.toml"])
        .env("CARGO_TARGET_DIR", rmcp_target(layout));
    build
}

/// Where their dependencies stay apart from ours.
fn rmcp_target(layout: &Layout) -> PathBuf {
    layout.tools().join("rmcp-interop")
}
