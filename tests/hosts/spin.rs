//! The Spin component on `crates/spin-host`: what a client of it sees, that the host outlives
//! a client that misbehaves, that nothing is lost when it is killed, and that a timer alone
//! finds what was left.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use tidegate_gateway::config::Snapshot;

use crate::call::{Call, get, send};
use crate::client::root;
use crate::gateway::end_later;
use crate::minute::runs;
use crate::stopwatch::wait_for;
use crate::upstream::{closed_url, everything, free_port, mcp_at, worker_on};
use crate::world::text;

/// How long the host may take to end.
const END_MAX: Duration = Duration::from_secs(10);

/// How long a raw exchange may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);

/// Seals handles; the same before and after a restart.
const SEALING_KEY: &str = "tidegate_sealing_key=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A tool that takes as long as it is told to.
const SLOW: &str = "here__trigger-long-running-operation";
/// How long a call may take.
const RUN_MAX_MS: u64 = 6_000;
/// By then a task that can run does.
const BEFORE_THE_KILL: Duration = Duration::from_millis(1_500);
/// How long what needs no waiting may take.
const PROMPT: Duration = Duration::from_secs(10);
/// A message's lease, and then that of a run in the task's record, may both have to lapse.
const LEASES_MAX: Duration = Duration::from_secs(120);
/// More than one instance works on at once.
const TASKS: usize = 160;
/// How many of them are made at the same time.
const MAKERS: usize = 4;
/// How long each runs: all have been made by then.
const WORK_S: u64 = 20;
/// How often the timer calls.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// What the timer shows.
const TIMER_SECRET: &str = "tick";
/// How often a task is asked for.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// What no HTTP client sends.
const MALFORMED: [&str; 5] = [
    "\u{16}\u{3}\u{1}tide",
    "tide\r\n\r\n",
    "GET /health HTTP/1.1\r\nconnection: close\r\n\r\n",
    "GET /health HTTP/1.1\r\nhost: two words\r\nconnection: close\r\n\r\n",
    "POST /mcp HTTP/1.1\r\nhost: here\r\ncontent-length: tide\r\n\r\n",
];

/// What must hold at this address.
type Claim = fn(&str);

/// What must hold of the host.
type HostClaim = fn(&OsString);

/// Started by the first claim that needs it and shared by the others.
type Shared = Arc<Mutex<Option<String>>>;

/// None unless the environment names the program.
pub fn trials() -> Vec<Trial> {
    let Some(host) = std::env::var_os("TIDEGATE_SPIN_HOST").map(Arc::new) else {
        return Vec::new();
    };
    let shared = Shared::default();
    let claims: [(&str, Claim); 4] = [
        ("liveness is answered whole", liveness),
        (
            "what is not configured is refused in plain words",
            refuses_unconfigured,
        ),
        (
            "a malformed request is answered 400 and ends nothing",
            outlives_malformed_requests,
        ),
        ("one connection carries several requests", keeps_alive),
    ];
    let mut trials: Vec<_> = claims
        .map(|(name, claim)| {
            let (host, shared) = (Arc::clone(&host), Arc::clone(&shared));
            trial(name, move || claim(&url(&host, &shared)))
        })
        .into();
    let claims: [(&str, HostClaim); 5] = [
        ("it stops when it is told to", stops),
        (
            "an upstream may be silent for longer than the host waits by itself",
            outwaits_the_host,
        ),
        (
            "the timer's path is there for who knows its secret alone",
            timer_is_guarded,
        ),
        (
            "nothing is lost when the host is killed in mid-task",
            survives_a_kill,
        ),
        (
            "the timer alone finds the tasks that waited when the host was killed",
            timer_finds_what_waited,
        ),
    ];
    trials.extend(claims.map(|(name, claim)| {
        let host = Arc::clone(&host);
        trial(name, move || claim(&host))
    }));
    trials
}

fn trial(name: &str, claim: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(format!("spin::{name}"), move || {
        claim();
        Ok::<(), Failed>(())
    })
}

/// A folder for the state of one claim, empty.
fn state(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join("spin")
        .join(name);
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

/// Starts the host on `spin.toml`; gives where it listens.
fn start(host: &OsString, state: &Path, arguments: &[String]) -> (Child, String) {
    let mut child = Command::new(host)
        .arg("--from")
        .arg(root().join("spin.toml"))
        .args(["--listen", "127.0.0.1:0", "--state-dir"])
        .arg(state)
        .args(["--variable", SEALING_KEY])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the host starts");
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("its output"))
        .read_line(&mut said)
        .expect("a line it prints");
    let url = said.trim().strip_prefix("listening on ");
    let url = url.unwrap_or_else(|| panic!("the host said {said:?}"));
    (child, url.to_owned())
}

fn url(host: &OsString, shared: &Shared) -> String {
    let mut shared = shared
        .lock()
        .expect("a host that started for an earlier claim");
    shared
        .get_or_insert_with(|| {
            let (child, url) = start(host, &state("shared"), &[]);
            end_later(child);
            url
        })
        .clone()
}

fn liveness(url: &str) {
    let answer = get(&format!("{url}/health"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["status"], "ok", "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    // Chunked, it would cost a client on a kept connection a round trip of delay.
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    assert_eq!(answer.header("transfer-encoding"), "", "{answer:?}");
}

fn refuses_unconfigured(url: &str) {
    let answer = send(
        &format!("{url}/mcp"),
        &Call::modern("tools/list", json!({})),
    );
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("tidegate compile"), "{answer:?}");
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
}

fn outlives_malformed_requests(url: &str) {
    for request in MALFORMED {
        let answer = exchange(url, request);
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{request:?}: {answer:?}"
        );
    }
    // Half a request, and then nobody.
    drop(connect(
        url,
        "POST /mcp HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\nti",
    ));
    liveness(url);
}

fn keeps_alive(url: &str) {
    const TIMES: usize = 3;
    let kept = "GET /health HTTP/1.1\r\nhost: here\r\n\r\n".repeat(TIMES - 1);
    let last = "GET /health HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    let answers = exchange(url, &(kept + last));
    assert_eq!(
        answers.matches("HTTP/1.1 200 OK").count(),
        TIMES,
        "{answers:?}"
    );
}

fn stops(host: &OsString) {
    let (mut child, url) = start(host, &state("stops"), &[]);
    liveness(&url);
    // A connection nobody uses does not keep it.
    let _idle = connect(&url, "");
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(process.expect("a process"), Signal::TERM).expect("a signal sent");
    let ended = wait_for("the end of the host", END_MAX, || {
        child.try_wait().expect("a child of ours")
    });
    assert!(ended.success(), "{ended}");
}

fn timer_is_guarded(host: &OsString) {
    let arguments = [timer_secret(), published(closed_url())];
    let (child, url) = start(host, &state("timer"), &arguments);
    end_later(child);
    assert_eq!(tick(&url, None), 401);
    assert_eq!(tick(&url, Some("tock")), 401);
    assert_eq!(tick(&url, Some(TIMER_SECRET)), 204);
}

fn timer_secret() -> String {
    format!("--variable=tidegate_timer_secret={TIMER_SECRET}")
}

/// Calls as a timer does; gives the status.
fn tick(url: &str, token: Option<&str>) -> u16 {
    let call = Call::modern("tools/list", json!({}));
    let call = token.map_or(call.clone(), |token| call.with_token(token));
    send(&format!("{url}/timer"), &call).status
}

/// More tasks than an instance works on, so some wait in the queue when the host is killed.
/// Until all have run nobody asks for them, and nobody else calls.
fn timer_finds_what_waited(host: &OsString) {
    let (state, port) = (state("timer-alone"), free_port());
    let worker = worker_on(port);
    let arguments = [timer_secret(), published(mcp_at(port))];
    let (child, url) = start(host, &state, &arguments);
    let mut killed = Killed(child);
    let labels: Vec<_> = (0..TASKS).map(|n| format!("task {n}")).collect();
    let begin = |label: &String| {
        let arguments = json!({ "seconds": WORK_S, "label": label }).to_string();
        task(&url, "here__work", &arguments)
    };
    let begin_all = |labels: &[String]| labels.iter().map(begin).collect::<Vec<_>>();
    let tasks: Vec<_> = std::thread::scope(|scope| {
        let makers = labels.chunks(TASKS / MAKERS);
        let makers = makers.map(|labels| scope.spawn(|| begin_all(labels)));
        let makers: Vec<_> = makers.collect();
        let made = makers.into_iter().map(|maker| maker.join().expect("tasks"));
        made.flatten().collect()
    });
    let counts = || -> Vec<u64> { labels.iter().map(|label| runs(&worker, label)).collect() };
    wait_for("a task that runs", PROMPT, || {
        (runs(&worker, &labels[0]) > 0).then_some(())
    });
    killed.now();

    let then = counts();
    let waited = then.iter().filter(|count| **count == 0).count();
    assert!(waited > 0, "none waited");
    let (child, url) = start(host, &state, &arguments);
    end_later(child);
    wait_for("a run of each task", LEASES_MAX, || {
        std::thread::sleep(TICK_EVERY);
        assert_eq!(tick(&url, Some(TIMER_SECRET)), 204);
        counts().iter().all(|count| *count > 0).then_some(())
    });
    for (task, count) in tasks.iter().zip(then) {
        let end = ends(&url, task, LEASES_MAX);
        // What ran had done its work, or may have: it is not run again, and says so.
        if count == 0 || text(&end, "/result/status") == "completed" {
            ended(&end, "completed");
        } else {
            ended(&end, "failed");
            assert!(end.to_string().contains("was lost"), "{end}");
        }
    }
    assert_eq!(counts(), [1; TASKS]);
}

/// Its tool says something at the end of each of its two steps alone.
fn outwaits_the_host(host: &OsString) {
    let arguments = ["--outbound-wait=1".to_owned(), published(everything())];
    let (child, url) = start(host, &state("outwaits"), &arguments);
    end_later(child);
    let silent = task(&url, SLOW, r#"{"duration":4,"steps":2}"#);
    ended(&ends(&url, &silent, PROMPT), "completed");
}

/// One task is over, one runs, and one has just been made when the host is killed. It is
/// started again, on another port, with what it left in its files.
fn survives_a_kill(host: &OsString) {
    let state = state("killed");
    let config = published(everything());
    let (child, url) = start(host, &state, std::slice::from_ref(&config));
    let mut killed = Killed(child);
    let over = task(&url, "here__get-sum", r#"{"a":20,"b":22}"#);
    ended(&ends(&url, &over, PROMPT), "completed");
    let running = task(&url, SLOW, r#"{"duration":4,"steps":2}"#);
    std::thread::sleep(BEFORE_THE_KILL);
    let made = task(&url, "here__get-sum", r#"{"a":1,"b":2}"#);
    killed.now();

    let (child, url) = start(host, &state, &[config]);
    end_later(child);
    let kept = ends(&url, &over, PROMPT);
    ended(&kept, "completed");
    assert!(kept.to_string().contains("42"), "{kept}");
    // It may have run: it is not run again, and says so.
    let lost = ends(&url, &running, LEASES_MAX);
    ended(&lost, "failed");
    assert!(lost.to_string().contains("was lost"), "{lost}");
    // Whether it had begun nobody can say: it has run, or it may have and says so.
    let made = ends(&url, &made, LEASES_MAX);
    match text(&made, "/result/status") {
        "completed" => assert!(made.to_string().contains("of 1 and 2 is 3"), "{made}"),
        _ => {
            ended(&made, "failed");
            assert!(made.to_string().contains("was lost"), "{made}");
        }
    }
}

fn ended(told: &Value, status: &str) {
    assert_eq!(told["result"]["status"], status, "{told}");
}

/// A host that does not outlive its claim, whatever becomes of that.
struct Killed(Child);

impl Killed {
    fn now(&mut self) {
        self.0.kill().expect("a signal sent");
        self.0.wait().expect("a child of ours");
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Publishes a gateway in front of one upstream, whose tools are all tasks.
fn published(upstream: String) -> String {
    let config = json!({
        "apiVersion": "tidegate/v1",
        "kind": "Gateway",
        "metadata": { "name": "spin", "owner": "tests", "environment": "dev" },
        "publicUrl": "http://127.0.0.1:3000",
        "authentication": { "type": "none" },
        "upstreams": [{ "name": "here", "url": upstream, "timeoutMs": RUN_MAX_MS }],
        "tools": [{ "name": "here__*", "execution": "task" }],
        "tasks": { "maxOpenPerPrincipal": 1_000 },
    });
    let config = serde_json::from_value(config).expect("a configuration");
    let snapshot = Snapshot::compile(config, 0).expect("a snapshot");
    let snapshot = serde_json::to_string(&snapshot).expect("a snapshot as JSON");
    Snapshot::parse(snapshot.as_bytes()).expect("a snapshot the gateway takes");
    format!("--key-value=config={snapshot}")
}

/// Has a tool called as a task; gives the task's id.
fn task(url: &str, tool: &str, arguments: &str) -> String {
    let call = Call::tool(tool).with_arguments(arguments).declaring_tasks();
    let created = send(&format!("{url}/mcp"), &call).json();
    text(&created, "/result/taskId").to_owned()
}

/// Polls a task until it is over; gives what it says then.
fn ends(url: &str, task: &str, within: Duration) -> Value {
    wait_for(&format!("the end of {task}"), within, || {
        std::thread::sleep(POLL_EVERY);
        let get = Call::modern("tasks/get", json!({ "taskId": task })).declaring_tasks();
        let told = send(&format!("{url}/mcp"), &get).json();
        (text(&told, "/result/status") != "working").then_some(told)
    })
}

fn connect(url: &str, request: &str) -> TcpStream {
    let address = url.strip_prefix("http://").expect("an HTTP address");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(EXCHANGE_MAX))
        .expect("a timeout");
    stream
        .write_all(request.as_bytes())
        .expect("a request sent");
    stream
}

/// Sends text as it is and reads until the host closes the connection.
fn exchange(url: &str, request: &str) -> String {
    let mut stream = connect(url, request);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
