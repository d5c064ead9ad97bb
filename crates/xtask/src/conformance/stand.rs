//! What the lanes measure: the fixtures, and gateways in front of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::conformance::front::{self, Runtime};
use crate::conformance::lanes::{CLIENT, LEGACY, Lane};
use crate::dev::gateway::Gateway;
use crate::http;
use crate::layout::Layout;
use crate::process::{Session, command};
use crate::setup::python;

/// How long a fixture may take to answer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long the gateway waits for a fixture, in its configuration's words.
const TIMEOUT_MS: u64 = 60_000;

/// The server that speaks both eras.
const REFERENCE: &str = "reference";

/// The same server with its own tongue cut: only sessions, only the stateless era.
const ERAS: [&str; 2] = ["legacy", "modern"];

/// The server of the tasks extension, and one with the same tools without it.
const TASKS: &str = "tasks";
const PLAIN: &str = "plain";

/// Its tools that the gateway makes tasks of, and when: as the scenarios want them. A time in
/// milliseconds stands for `auto`: a call that takes longer becomes a task.
const TASK_TOOLS: [(&str, Option<u64>); 6] = [
    // Also called by who declares no tasks, and must be answered then.
    ("slow_compute", Some(100)),
    ("failing_job", None),
    ("protocol_error_job", None),
    ("confirm_delete", None),
    ("multi_input", None),
    // Its question is asked at once, its greeting takes longer.
    ("test_tool_with_task", Some(1_000)),
];

/// Where the fixtures are, below the repository's root.
const FIXTURES: &str = "tests/conformance/fixtures";

/// Everything started, to be ended together.
pub struct Stand {
    // First: the gateways end before what they call.
    gateways: Vec<Gateway>,
    session: Session,
    /// Fixture → its URL.
    fixtures: BTreeMap<&'static str, String>,
    /// Client scenario → its upstream's name and the port the gateway expects it at.
    legs: BTreeMap<&'static str, (String, u16)>,
    shim: Option<u16>,
    direct: bool,
}

/// How the client under test is to be started.
pub struct ClientCommand {
    /// The words; the suite splits them at spaces.
    pub command: &'static str,
    /// What it reads from its environment.
    pub variables: Vec<(String, String)>,
}

impl Stand {
    /// Starts what these lanes need.
    pub fn start(layout: &Layout, lanes: &[Lane], direct: bool, runtime: Runtime) -> Result<Self> {
        let mut stand = Self {
            gateways: Vec::new(),
            session: Session::open()?,
            fixtures: BTreeMap::new(),
            legs: BTreeMap::new(),
            shim: None,
            direct,
        };
        stand.start_fixtures(layout, lanes)?;
        if lanes.contains(&Lane::UpstreamHalf) {
            for (index, scenario) in CLIENT.into_iter().enumerate() {
                let leg = (format!("leg-{index}"), http::free_port(0)?);
                stand.legs.insert(scenario, leg);
            }
        }
        if !direct {
            if lanes.iter().any(|lane| *lane != Lane::Merged) {
                let upstreams = stand.upstreams();
                let tools = stand.tools();
                let gateway = front::gateway(layout, "apart", upstreams, tools, runtime)?;
                stand.gateways.push(gateway);
            }
            if lanes.contains(&Lane::Merged) {
                // Without those that do not answer until their scenario runs.
                let mut upstreams = stand.upstreams();
                upstreams.retain(|upstream| upstream["name"].as_str().is_some_and(is_merged));
                let tools = Vec::new();
                let gateway = front::gateway(layout, "merged", upstreams, tools, runtime)?;
                stand.gateways.push(gateway);
                stand.start_shim(layout)?;
            }
        }
        Ok(stand)
    }

    /// What the suite is to talk to, for a lane of server scenarios.
    pub fn url(&self, lane: Lane, revision: &str) -> Result<String> {
        let upstream = match (lane, revision) {
            (Lane::AcrossEras, LEGACY) => ERAS[usize::from(!self.direct)],
            (Lane::AcrossEras, _) => ERAS[usize::from(self.direct)],
            (Lane::Tasks, _) if !self.direct => PLAIN,
            (Lane::Tasks | Lane::UpstreamTasks, _) => TASKS,
            (Lane::SameEra | Lane::Merged | Lane::UpstreamHalf, _) => REFERENCE,
        };
        if self.direct {
            let url = self.fixtures.get(upstream).cloned();
            return url.with_context(|| format!("{upstream} was not started"));
        }
        if let (Lane::Merged, Some(port)) = (lane, self.shim) {
            return Ok(format!("http://127.0.0.1:{port}/{upstream}/mcp"));
        }
        Ok(format!("{}/servers/{upstream}/mcp", self.origin()?))
    }

    /// The client whose calls the gateway passes on to the suite's mock servers.
    pub fn client(&self, layout: &Layout) -> Result<ClientCommand> {
        let python = python::reference_server(layout)?;
        let bin = python.parent().context("the environment has no folder")?;
        let path = crate::toolchain::with_path(&[bin.to_path_buf()])?;
        let client = python::conformance_client(layout)?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let variables = [
            ("PATH", path.to_string_lossy().into_owned()),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
            ("TIDEGATE_LEG_GATEWAY", self.origin()?),
            ("TIDEGATE_LEG_PORTS", json!(self.legs).to_string()),
            ("TIDEGATE_LEG_CLIENT", text(client)),
        ];
        Ok(ClientCommand {
            // Relative to the root, where it runs: the way there may have spaces in it.
            command: "python tests/conformance/fixtures/client_leg.py",
            variables: variables
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        })
    }

    fn origin(&self) -> Result<String> {
        let gateway = self.gateways.first().context("no gateway was started")?;
        Ok(format!("http://127.0.0.1:{}", gateway.port))
    }

    /// Every fixture, as the configuration names upstreams.
    fn upstreams(&self) -> Vec<Value> {
        let legs = self.legs.values();
        let legs = legs.map(|(name, port)| (name.as_str(), format!("http://127.0.0.1:{port}/mcp")));
        let fixtures = self.fixtures.iter().map(|(name, url)| (*name, url.clone()));
        fixtures
            .chain(legs)
            .map(|(name, url)| json!({"name": name, "url": url, "timeoutMs": TIMEOUT_MS}))
            .collect()
    }

    /// Rules for the tools of the server without tasks.
    fn tools(&self) -> Vec<Value> {
        let rules = TASK_TOOLS
            .iter()
            .filter(|_| self.fixtures.contains_key(PLAIN));
        rules
            .map(|(tool, after)| {
                let name = format!("{PLAIN}__{tool}");
                match after {
                    Some(after) => json!({"name": name, "execution": "auto", "taskAfterMs": after}),
                    None => json!({"name": name, "execution": "task"}),
                }
            })
            .collect()
    }

    fn start_fixtures(&mut self, layout: &Layout, lanes: &[Lane]) -> Result<()> {
        let needed = |wanted: &[Lane]| wanted.iter().any(|lane| lanes.contains(lane));
        let mut ports = Vec::new();
        if needed(&[Lane::SameEra, Lane::Merged]) {
            ports.push(self.start_fixture(
                layout,
                REFERENCE,
                &python::reference_server(layout)?,
                &[],
            )?);
        }
        for era in ERAS {
            if needed(&[Lane::AcrossEras]) || (era == ERAS[0] && needed(&[Lane::Merged])) {
                let script = script(layout, "one_era.py");
                let python = python::beside(&python::reference_server(layout)?);
                ports.push(self.start_fixture(layout, era, &python, &[&script, era])?);
            }
        }
        if needed(&[Lane::UpstreamTasks]) || (self.direct && needed(&[Lane::Tasks])) {
            let script = script(layout, "task_server.py");
            let python = python::task_server(layout)?;
            ports.push(self.start_fixture(layout, TASKS, &python, &[&script])?);
        }
        if needed(&[Lane::Tasks]) && !self.direct {
            let script = script(layout, "plain_server.py");
            let python = python::beside(&python::reference_server(layout)?);
            ports.push(self.start_fixture(layout, PLAIN, &python, &[&script])?);
        }
        self.session
            .wait_until("starting the fixtures", START_LIMIT, || {
                ports.iter().all(|port| http::accepts(*port))
            })
    }

    fn start_fixture(
        &mut self,
        layout: &Layout,
        name: &'static str,
        program: &Path,
        words: &[&str],
    ) -> Result<u16> {
        let port = http::free_port(0)?;
        let mut server = command(program);
        server
            .args(words)
            .args(["--port", &port.to_string()])
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let log = layout.log(&format!("fixture-{name}"))?;
        self.session.start(name, &mut server, &log)?;
        let url = format!("http://127.0.0.1:{port}/mcp");
        self.fixtures.insert(name, url);
        Ok(port)
    }

    fn start_shim(&mut self, layout: &Layout) -> Result<()> {
        let gateway = self.gateways.last().context("no gateway was started")?;
        let port = http::free_port(0)?;
        let mut shim = command(crate::setup::node::binary(layout)?);
        shim.arg(script(layout, "unprefix.mjs"))
            .args(["--port", &port.to_string()])
            .arg("--gateway")
            .arg(format!("http://127.0.0.1:{}", gateway.port));
        let log = layout.log("unprefix")?;
        self.session
            .start("the un-prefixing shim", &mut shim, &log)?;
        self.session
            .wait_until("starting the un-prefixing shim", START_LIMIT, || {
                http::accepts(port)
            })?;
        self.shim = Some(port);
        Ok(())
    }
}

/// Whether the merged lane shows this server: the reference server and one that speaks the
/// older era alone, so that the lists mix eras.
fn is_merged(name: &str) -> bool {
    [REFERENCE, ERAS[0]].contains(&name)
}

fn script(layout: &Layout, name: &str) -> String {
    let script = layout.root().join(FIXTURES).join(name);
    script.to_string_lossy().into_owned()
}
