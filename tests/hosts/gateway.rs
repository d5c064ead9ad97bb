//! A gateway as a developer starts it: `cargo xtask dev`, ended as Ctrl-C would.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client::root;
use crate::stopwatch::{Stopwatch, wait_for};

/// What opens the operators' door of every gateway started here.
pub const ADMIN_TOKEN: &str = "the-operators-token-of-these-tests";
/// How long a gateway may take to answer: the first start in a checkout builds it.
const START_MAX: Duration = Duration::from_secs(900);
/// How long it may take to end what it started.
const END_MAX: Duration = Duration::from_secs(10);

/// What a gateway runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Cloudflare's runtime.
    Workerd,
    /// `spin up`, or `crates/spin-host`.
    Spin,
}

impl Host {
    /// The one `TIDEGATE_HOST` names.
    pub fn chosen() -> Self {
        match std::env::var("TIDEGATE_HOST").as_deref() {
            Ok("spin") => Self::Spin,
            Ok(other) => {
                panic!("TIDEGATE_HOST={other}: there is only spin, or nothing for workerd")
            }
            Err(_) => Self::Workerd,
        }
    }
}

/// Everything started, to be ended after the last claim: trials share it, so none may end it.
static STARTED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Where each gateway keeps its log and state.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Held while a gateway starts: two at once would build the function over each other. Says
/// whether one did not: the next would take as long to fail in the same way.
static FAILED: Mutex<bool> = Mutex::new(false);

/// Has `child` ended after the last claim.
pub fn end_later(child: Child) {
    STARTED.lock().unwrap().push(child);
}

/// Ends one: politely, so that a gateway can end what it started in turn, and then surely.
pub fn end(mut child: Child) {
    // `cargo run` becomes the program it runs: this is the gateway's own process.
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(process) = process {
        let _ = kill_process(process, Signal::INT);
    }
    let watch = Stopwatch::start();
    while watch.elapsed() < END_MAX && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Ends everything started, latest first. Its logs and state stay only where a claim failed.
pub fn end_all(all_held: bool) {
    let children = std::mem::take(&mut *STARTED.lock().unwrap());
    children.into_iter().rev().for_each(end);
    let folders = std::mem::take(&mut *FOLDERS.lock().unwrap());
    for folder in folders.iter().filter(|_| all_held) {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// A gateway that answers.
pub struct Gateway {
    url: String,
    token: String,
    issuer: Option<String>,
    twin: Option<u16>,
    log: Option<PathBuf>,
    meters: Value,
    minted: Mutex<BTreeMap<String, &'static str>>,
}

impl Gateway {
    /// The one `TIDEGATE_URL` and `TIDEGATE_TOKEN` name, if they do.
    pub fn named_by_environment() -> Option<Self> {
        let url = std::env::var("TIDEGATE_URL").ok()?;
        let token = std::env::var("TIDEGATE_TOKEN").unwrap_or_default();
        Some(Self {
            url: origin(&url),
            token,
            issuer: None,
            twin: None,
            log: None,
            meters: Value::Null,
            minted: Mutex::default(),
        })
    }

    /// Starts one with `settings` beside the members every configuration needs.
    pub fn start(name: &str, settings: Value) -> Self {
        Self::start_with(name, settings, &[])
    }

    /// Starts one with flags of `cargo xtask dev` besides.
    pub fn start_with(name: &str, settings: Value, flags: &[&str]) -> Self {
        let flags = [&["--fresh", "--port", "0"], flags].concat();
        let (gateway, child) = Self::spawn(name, settings, &flags);
        end_later(child);
        gateway
    }

    /// Starts one with these flags alone; whoever asked for it ends it.
    pub fn spawn(name: &str, settings: Value, flags: &[&str]) -> (Self, Child) {
        let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            !*failed,
            "no gateway starts; the first claim that asked for one says why"
        );
        *failed = true;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join("hosts")
            .join(name);
        std::fs::create_dir_all(&folder).expect("a folder for the configuration");
        let config = folder.join("tidegate.yaml");
        // JSON is YAML.
        std::fs::write(&config, configuration(name, settings).to_string())
            .expect("a written configuration");
        let ready = folder.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let said = folder.join("dev.log");

        let mut command = xtask();
        command.args(["dev", "--no-demo"]);
        command.args(flags);
        if Host::chosen() == Host::Spin {
            command.arg("--spin");
        }
        command
            .arg("--config")
            .arg(&config)
            .arg("--ready-file")
            .arg(&ready);
        let output = File::create(&said).expect("a log file");
        command
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output);
        let mut child = command.spawn().expect("cargo starts");
        let told = wait_for(
            &format!("gateway `{name}`, see {}", said.display()),
            START_MAX,
            || {
                let ended = child.try_wait().ok().flatten();
                assert!(
                    ended.is_none(),
                    "gateway `{name}`: {}",
                    std::fs::read_to_string(&said).unwrap_or_default()
                );
                let text = std::fs::read_to_string(&ready).ok()?;
                serde_json::from_str::<Value>(&text).ok()
            },
        );
        *failed = false;
        let log = told["log"].as_str().map(PathBuf::from);
        FOLDERS
            .lock()
            .unwrap()
            .extend(log.as_deref().and_then(Path::parent).map(Path::to_owned));
        let gateway = Self {
            url: origin(told["url"].as_str().expect("url in the ready file")),
            // There is none where the issuers are the configuration's own.
            token: told["token"].as_str().unwrap_or_default().to_owned(),
            issuer: told["issuer"].as_str().map(str::to_owned),
            twin: told["twin"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok()),
            log,
            meters: told["meters"].clone(),
            minted: Mutex::default(),
        };
        (gateway, child)
    }

    /// The federated endpoint.
    pub fn mcp(&self) -> String {
        self.at("/mcp")
    }

    /// One upstream's own endpoint.
    pub fn server(&self, upstream: &str) -> String {
        self.at(&format!("/servers/{upstream}/mcp"))
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Its own port, and that of its twin.
    pub fn ports(&self) -> (u16, u16) {
        let twin = self.twin.expect("a gateway started with a twin");
        (self.port(), twin)
    }

    pub fn port(&self) -> u16 {
        let port = self.url.rsplit_once(':').map(|(_, port)| port.parse());
        port.expect("a port in the URL").expect("a port")
    }

    /// The port of the meter before one of its stores, started with `--metered`.
    pub fn meter(&self, store: &str) -> u64 {
        self.meters[store].as_u64().expect("a meter")
    }

    /// The token minted at its start.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A token of the same issuer: `arguments` as `cargo xtask token` takes them.
    pub fn mint(&self, arguments: &[&str]) -> &'static str {
        let mut minted = self.minted.lock().unwrap();
        minted.entry(arguments.join(" ")).or_insert_with(|| {
            let mut arguments = arguments.to_vec();
            let own_audience = self.mcp();
            if !arguments.contains(&"--audience") {
                arguments.extend(["--audience", &own_audience]);
            }
            if let Some(issuer) = &self.issuer {
                arguments.extend(["--issuer", issuer]);
            }
            let output = xtask()
                .arg("token")
                .args(&arguments)
                .output()
                .expect("cargo starts");
            let token = String::from_utf8(output.stdout)
                .expect("a token is text")
                .trim()
                .to_owned();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                token.matches('.').count(),
                2,
                "cargo xtask token {arguments:?}: {token} {complaint}"
            );
            token.leak()
        })
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        self.issuer.as_deref().expect("an issuer of ours")
    }

    /// Where it keeps its state.
    pub fn folder(&self) -> &Path {
        let log = self.log.as_deref().and_then(Path::parent);
        log.expect("the ready file names the gateway's `log`")
    }

    /// A token for a client of this name, so that its limits are its own.
    pub fn mint_for(&self, subject: &str) -> &'static str {
        self.mint(&["--claims", &json!({ "sub": subject }).to_string()])
    }

    /// What its twin logged so far.
    pub fn logged_by_twin(&self) -> String {
        let log = self
            .log
            .as_ref()
            .expect("the ready file names the gateway's `log`");
        let log = log.with_file_name("twin").join("gateway.log");
        std::fs::read_to_string(&log).unwrap_or_else(|e| panic!("{}: {e}", log.display()))
    }

    /// What the gateway logged so far.
    pub fn logged(&self) -> String {
        let log = self
            .log
            .as_ref()
            .expect("the ready file names the gateway's `log`");
        std::fs::read_to_string(log).unwrap_or_else(|e| panic!("{}: {e}", log.display()))
    }
}

fn configuration(name: &str, settings: Value) -> Value {
    let mut config = json!({
        "apiVersion": "tidegate/v1",
        "kind": "Gateway",
        "metadata": { "name": name, "owner": "tests", "environment": "dev" },
        // Replaced by where it really runs, but a configuration is whole without that.
        "publicUrl": "http://127.0.0.1:8787",
        "authentication": {
            "type": "jwt",
            "issuers": [{ "issuer": "http://127.0.0.1:9787", "jwksUri": "http://127.0.0.1:9787/jwks.json" }],
        },
    });
    let members = config.as_object_mut().expect("an object");
    members.extend(
        settings
            .as_object()
            .cloned()
            .expect("settings are an object"),
    );
    config
}

fn origin(url: &str) -> String {
    url.trim_end_matches("/mcp")
        .trim_end_matches('/')
        .to_owned()
}

/// `cargo xtask`.
pub fn xtask() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .arg("xtask")
        .env("TIDEGATE_ADMIN_TOKEN", ADMIN_TOKEN)
        .current_dir(root())
        .stdin(Stdio::null());
    command
}
