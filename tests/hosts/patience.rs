//! A person takes half a minute to answer, and another gateway hears the answer.
//!
//! Two gateways run as processes of their own and share nothing but their objects. Every
//! question is asked through one of them; whatever answers it is sent to the other. The
//! clients' SDK and the upstreams' are not ours, in either era.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::client::{node, root};
use crate::gateway::{Gateway, Host};
use crate::upstream::{Crossroads, one_era};
use crate::world::text;

/// How long the person thinks.
const THINKS: Duration = Duration::from_secs(30);
/// What the gateway gives an upstream: longer than the person.
const TIMEOUT_MS: u64 = 90_000;
/// A tool of both upstreams that asks for a name and greets.
const TOOL: &str = "test_input_required_result_elicitation";

/// The era of the client as its SDK calls the way to it, and the era of the upstream.
type Cell = (&'static str, &'static str);

const CELLS: [Cell; 4] = [
    ("auto", "modern"),
    ("auto", "legacy"),
    ("legacy", "modern"),
    ("legacy", "legacy"),
];

pub fn trials() -> Vec<Trial> {
    let world: Arc<OnceLock<Patience>> = Arc::default();
    let claim = |cell: Cell| {
        let (client, upstream) = cell;
        let client = if client == "auto" { "modern" } else { client };
        let name = format!(
            "patience::a {client} client answers a {upstream} upstream after half a minute, \
             through another process"
        );
        let world = Arc::clone(&world);
        Trial::test(name, move || {
            world.get_or_init(Patience::run).holds(cell);
            Ok(())
        })
    };
    cells().map(claim).collect()
}

/// What the host can do: without keepers, nothing holds a legacy upstream's stream until a
/// modern client retries.
fn cells() -> impl Iterator<Item = Cell> {
    let keepers = Host::chosen() == Host::Workerd;
    let cells = CELLS.into_iter();
    cells.filter(move |cell| keepers || *cell != ("auto", "legacy"))
}

/// What came of all four cells, which wait side by side.
struct Patience {
    gateway: Gateway,
    crossroads: Crossroads,
    told: BTreeMap<Cell, Value>,
}

impl Patience {
    fn run() -> Self {
        let upstream =
            |era: &str| json!({ "name": era, "url": one_era(era), "timeoutMs": TIMEOUT_MS });
        let upstreams = json!([upstream("legacy"), upstream("modern")]);
        let gateway =
            Gateway::start_with("patience", json!({ "upstreams": upstreams }), &["--twin"]);
        let crossroads = Crossroads::start(gateway.ports());
        let token = |upstream: &str| gateway.mint(&["--audience", &gateway.server(upstream)]);
        let clients: Vec<_> = cells()
            .map(|cell| (cell, start(&crossroads, token(cell.1), cell)))
            .collect();
        let told = clients
            .into_iter()
            .map(|(cell, client)| (cell, said(client)));
        Self {
            gateway,
            crossroads,
            told: told.collect(),
        }
    }

    fn holds(&self, cell: Cell) {
        let (client, upstream) = cell;
        let told = &self.told[&cell];
        assert_eq!(text(told, "/text"), "Hello, Ada!", "{told}");
        assert_eq!(told["asked"].as_array().map(Vec::len), Some(1), "{told}");
        let took = Duration::from_millis(told["took_ms"].as_u64().expect("took_ms"));
        assert!(took >= THINKS, "the person was not waited for: {told}");

        let (_, twin) = self.gateway.ports();
        let path = path(upstream);
        let kind = if client == "auto" {
            "tools/call"
        } else {
            "response"
        };
        let answers = self.crossroads.answers();
        let answer = answers
            .iter()
            .find(|each| each["path"] == path && each["answer"] == kind);
        let answer = answer.unwrap_or_else(|| panic!("no answer was posted: {answers:?}"));
        assert_eq!(answer["port"], twin, "{answer}");
        if Host::chosen() == Host::Spin {
            // It writes no line for each request.
            return;
        }
        let log = self.gateway.logged_by_twin();
        assert!(
            log.contains(&format!("POST {path}")),
            "the twin did not serve it: {log}"
        );
    }
}

fn path(upstream: &str) -> String {
    format!("/servers/{upstream}/mcp")
}

fn start(crossroads: &Crossroads, token: &str, (client, upstream): Cell) -> Child {
    let mut command = Command::new(node());
    command
        .arg(root().join("tests/hosts/clients/patient.mjs"))
        .args(["--url", &crossroads.at(&path(upstream))])
        .args(["--era", client, "--tool", TOOL, "--token", token])
        .args(["--thinks-ms", &THINKS.as_millis().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command.spawn().expect("node starts")
}

fn said(client: Child) -> Value {
    let output = client.wait_with_output().expect("a client that ends");
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"))
}
