//! The third-party clients, each behind a script in `clients/` that prints what it saw.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::world::Fixture;

/// A client nobody here wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// npm `@modelcontextprotocol/client` 2.x.
    Npm2,
    /// npm `@modelcontextprotocol/sdk` 1.x.
    Npm1,
    /// PyPI `mcp` 2.x.
    Pypi2,
    /// PyPI `mcp` 1.x.
    Pypi1,
}

pub const CLIENTS: [Client; 4] = [Client::Npm2, Client::Npm1, Client::Pypi2, Client::Pypi1];
/// Those that speak 2026-07-28.
pub const MODERN: [Client; 2] = [Client::Npm2, Client::Pypi2];
/// Those that open with `initialize`.
pub const LEGACY: [Client; 2] = [Client::Npm1, Client::Pypi1];

/// What a client is asked to do.
#[derive(Clone)]
pub struct Request<'a> {
    pub url: String,
    pub token: Option<&'a str>,
    pub fixture: Fixture,
    pub prefix: String,
    /// Names of scenarios, separated by commas.
    pub scenarios: &'a str,
    /// A tool to call in place of the fixture's, and its arguments.
    pub tool: Option<(&'a str, &'a str)>,
    pub times: u32,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self {
            url: String::new(),
            token: None,
            fixture: Fixture::Everything,
            prefix: String::new(),
            scenarios: "",
            tool: None,
            times: 1,
        }
    }
}

/// What a client saw of one scenario: the line its script printed.
#[derive(Clone, Debug)]
pub struct Seen(pub Value);

impl Seen {
    /// What came back; fails if the client's SDK refused.
    pub fn ok(&self) -> &Value {
        self.0
            .get("ok")
            .unwrap_or_else(|| panic!("the client reports: {}", self.0))
    }

    /// What the SDK said when it refused; fails if it was content.
    pub fn failed(&self) -> &Value {
        self.0
            .get("failed")
            .unwrap_or_else(|| panic!("expected a refusal, the client reports: {}", self.0))
    }

    /// Wall time of the scenario.
    pub fn elapsed_ms(&self) -> u64 {
        self.0["elapsed_ms"]
            .as_u64()
            .unwrap_or_else(|| panic!("no elapsed_ms in {}", self.0))
    }

    /// The HTTP responses it got, in order.
    pub fn http(&self) -> Vec<&Value> {
        self.0["http"].as_array().into_iter().flatten().collect()
    }

    /// The first response with this status.
    pub fn response(&self, status: u16) -> &Value {
        let found = self
            .http()
            .into_iter()
            .find(|each| each["status"] == status);
        found.unwrap_or_else(|| panic!("no response with status {status} in {}", self.0))
    }
}

impl Client {
    /// As the claims name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Npm2 => "npm client 2",
            Self::Npm1 => "npm sdk 1",
            Self::Pypi2 => "PyPI mcp 2",
            Self::Pypi1 => "PyPI mcp 1",
        }
    }

    pub fn is_modern(self) -> bool {
        MODERN.contains(&self)
    }

    /// Runs the script and collects what it printed, by scenario.
    pub fn run(self, request: &Request<'_>) -> BTreeMap<String, Seen> {
        let mut command = self.command();
        command.args(["--url", &request.url, "--prefix", &request.prefix]);
        command.args([
            "--fixture",
            request.fixture.name(),
            "--scenario",
            request.scenarios,
        ]);
        command.args(["--times", &request.times.to_string()]);
        if let Some(token) = request.token {
            command.args(["--token", token]);
        }
        if let Some((tool, arguments)) = request.tool {
            command.args(["--tool", tool, "--args", arguments]);
        }
        let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| {
            panic!(
                "{} cannot be started ({e}); `cargo xtask test` installs it",
                self.label()
            );
        });
        let printed = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        let reports: BTreeMap<_, _> = printed
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|line| Some((line["scenario"].as_str()?.to_owned(), Seen(line))))
            .collect();
        assert!(
            !reports.is_empty(),
            "{} reported nothing: {complaint}",
            self.label()
        );
        reports
    }

    /// Runs a single scenario.
    pub fn run_one(self, request: &Request<'_>) -> Seen {
        let mut reports = self.run(request);
        reports
            .remove(request.scenarios)
            .unwrap_or_else(|| panic!("{} reported {reports:?}", self.label()))
    }

    fn command(self) -> Command {
        let (program, script) = match self {
            Self::Npm2 => (node(), "npm_client.mjs"),
            Self::Npm1 => (node(), "npm_sdk.mjs"),
            Self::Pypi2 => (python("py-mcp2"), "pypi_mcp2.py"),
            Self::Pypi1 => (python("py-mcp1"), "pypi_mcp1.py"),
        };
        let mut command = Command::new(program);
        command.arg(root().join("tests/hosts/clients").join(script));
        // Nothing is written beside the sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// The repository.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("tests/ is inside the repository")
        .to_owned()
}

/// Cargo's build directory, where `cargo xtask` installs tools.
pub fn target() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The command line tool: `cargo xtask dev` has built it for the gateway that is asked.
pub fn tidegate() -> PathBuf {
    target().join("debug/tidegate")
}

/// The Node that `package.json` pins.
pub fn node() -> PathBuf {
    root().join("node_modules/node/bin/node")
}

/// The interpreter of one of the virtual environments.
pub fn python(environment: &str) -> PathBuf {
    target().join("tools").join(environment).join("bin/python")
}
