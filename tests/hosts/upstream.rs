//! The upstreams behind the gateways: two real MCP servers, a recorder in front of each,
//! and two that do not answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::call::get;
use crate::client::{node, python, root};
use crate::gateway;
use crate::stopwatch::wait_for;

/// How long an upstream may take to listen.
const START_MAX: Duration = Duration::from_secs(30);

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
    listener.local_addr().expect("a bound address").port()
}

/// An MCP endpoint nobody listens for.
pub fn closed_url() -> String {
    mcp_at(free_port())
}

/// The endpoint of an upstream on this port.
pub fn mcp_at(port: u16) -> String {
    format!("http://127.0.0.1:{port}/mcp")
}

/// Starts npm server-everything, kept to loopback; returns its endpoint.
pub fn everything() -> String {
    let port = free_port();
    let modules = root().join("node_modules/@modelcontextprotocol/server-everything");
    let mut command = Command::new(node());
    command
        .arg("--import")
        .arg(root().join("tests/hosts/upstreams/loopback.mjs"));
    command
        .arg(modules.join("dist/index.js"))
        .arg("streamableHttp")
        .env("PORT", port.to_string());
    listen(command, port)
}

/// Starts the Python SDK's conformance server; returns its endpoint.
pub fn reference() -> String {
    let port = free_port();
    let program = python("py-mcp2").with_file_name("mcp-everything-server");
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string()]);
    listen(command, port)
}

/// Starts the same server speaking one era alone; returns its endpoint.
pub fn one_era(era: &str) -> String {
    let port = free_port();
    let mut command = Command::new(python("py-mcp2"));
    command
        .arg(root().join("tests/conformance/fixtures/one_era.py"))
        .arg(era)
        .args(["--port", &port.to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    listen(command, port)
}

/// Starts a server whose tools take as long as they are told; returns its endpoint.
pub fn worker() -> String {
    worker_on(free_port())
}

/// The same on this port.
pub fn worker_on(port: u16) -> String {
    let mut command = Command::new(python("py-mcp2"));
    command
        .arg(root().join("tests/hosts/upstreams/worker.py"))
        .arg(port.to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    listen(command, port)
}

/// Starts a server that knows only HTTP+SSE; returns where its stream is.
pub fn old_server() -> String {
    let port = free_port();
    let mut command = Command::new(python("py-mcp1"));
    command
        .arg(root().join("tests/hosts/upstreams/old_server.py"))
        .arg(port.to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    listen(command, port).replace("/mcp", "/sse")
}

fn listen(mut command: Command, port: u16) -> String {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    gateway::end_later(child.unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}")));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait_for("the upstream's port", START_MAX, || {
        TcpStream::connect(address).ok()
    });
    mcp_at(port)
}

/// A pass-through that remembers the head of every request it passed on.
pub struct Recorder {
    port: u16,
}

impl Recorder {
    pub fn start(upstream: String) -> Self {
        Self {
            port: stand_before("recorder.mjs", &["--upstream", &upstream]),
        }
    }

    pub fn url(&self) -> String {
        mcp_at(self.port)
    }

    /// The heads recorded so far: `{"method", "path", "headers"}` each.
    pub fn recorded(&self) -> Vec<Value> {
        let answer = get(&format!("http://127.0.0.1:{}/recorded", self.port));
        answer.json().as_array().expect("an array of heads").clone()
    }
}

/// A pass-through before two gateways: what answers a question goes to the second.
pub struct Crossroads {
    port: u16,
}

impl Crossroads {
    pub fn start((asks, hears): (u16, u16)) -> Self {
        let (asks, hears) = (asks.to_string(), hears.to_string());
        Self {
            port: stand_before("crossroads.mjs", &["--asks", &asks, "--hears", &hears]),
        }
    }

    pub fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The answers so far: `{"answer", "path", "port", "status"}` each.
    pub fn answers(&self) -> Vec<Value> {
        let answer = get(&self.at("/answers"));
        answer.json().as_array().expect("an array").clone()
    }
}

/// Starts npm `oidc-provider` as an authorization server that lets `client` ask about
/// tokens; returns its URL.
pub fn oidc_provider((client, secret): (&str, &str)) -> String {
    let port = stand_before("idp.mjs", &["--client", client, "--secret", secret]);
    format!("http://127.0.0.1:{port}")
}

/// Starts a script of `upstreams/` that says its port first; returns that.
fn stand_before(script: &str, arguments: &[&str]) -> u16 {
    let mut command = Command::new(node());
    command
        .arg(root().join("tests/hosts/upstreams").join(script))
        .args(arguments);
    let mut child: Child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("a piped stdout");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("the script's port");
    let told: Value = serde_json::from_str(&line).expect("the script's port as JSON");
    gateway::end_later(child);
    u16::try_from(told["port"].as_u64().expect("a port")).expect("a port")
}

/// Accepts connections and never says a word.
pub struct Silent {
    port: u16,
}

impl Silent {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let port = listener.local_addr().expect("a bound address").port();
        std::thread::spawn(move || {
            // Kept, not dropped: a closed connection would be an answer of a kind.
            let mut held = Vec::new();
            for stream in listener.incoming() {
                held.push(stream);
            }
        });
        Self { port }
    }

    pub fn url(&self) -> String {
        mcp_at(self.port)
    }
}

/// Answers every request with a redirection; gives its origin.
pub fn redirecting() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
    let port = listener.local_addr().expect("a bound address").port();
    std::thread::spawn(move || {
        let answer = "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\
            connection: close\r\n\r\n";
        for mut stream in listener.incoming().flatten() {
            // A request without a body is all there is to read, and fits.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://127.0.0.1:{port}")
}
