//! The runtime is killed in the middle of everything and started again on the same state.
//!
//! Local queues live in memory, so a kill also loses every message: what a queue would bring
//! again is found by the polls of clients.

use std::collections::BTreeMap;
use std::fs;
use std::process::Child;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::call::{Call, send};
use crate::gateway::{self, Gateway, Host};
use crate::minute::runs;
use crate::stopwatch::{Stopwatch, wait_for};
use crate::upstream;
use crate::world::text;

/// How long what is to be under way before the kill may take.
const BEFORE: Duration = Duration::from_secs(30);
/// How long everything may take to end after the start: a lease and the wait for a message
/// that never comes are a minute each.
const AFTER: Duration = Duration::from_secs(180);
/// How often clients poll.
const POLL: Duration = Duration::from_secs(1);
/// Tasks made one after the other until one of them surely waits in the queue.
const LINE: [&str; 8] = [
    "line 0", "line 1", "line 2", "line 3", "line 4", "line 5", "line 6", "line 7",
];
/// A message waits while the delivery before it is worked on, for a second: one sent this
/// soon after the work of that delivery began is still there when the runtime is killed.
const SOON: Duration = Duration::from_millis(500);

type Claim = fn(&Restart);

const CLAIMS: [(&str, Claim); 5] = [
    (
        "a task that waited in the queue is run by the next runtime",
        Restart::queued,
    ),
    (
        "a task that ran fails with the reason and was not run again",
        Restart::running,
    ),
    (
        "a task that ran is run again where its rule says that this does no harm",
        Restart::repeated,
    ),
    (
        "a task that waited for its client takes the answer after the kill",
        Restart::asking,
    ),
    (
        "no poll finds a task unknown, or back from its end",
        Restart::truthful,
    ),
];

pub fn trials(restart: &Arc<OnceLock<Restart>>) -> Vec<Trial> {
    let claim = |(title, claim): (&str, Claim)| {
        let restart = Arc::clone(restart);
        Trial::test(format!("restart::{title}"), move || {
            claim(restart.get_or_init(Restart::run));
            Ok(())
        })
    };
    // On Spin whoever has answered works on the queue at once, and none need wait; `spin`
    // has some that do.
    let waits = usize::from(Host::chosen() == Host::Spin);
    CLAIMS.into_iter().skip(waits).map(claim).collect()
}

/// What came of it.
pub struct Restart {
    /// What each poll said, by the label of the task's work; the first before the kill.
    polls: BTreeMap<&'static str, Vec<Value>>,
    /// How often each was begun: when the runtime had been killed, and in the end.
    runs: BTreeMap<&'static str, (u64, u64)>,
}

/// A gateway and the tasks of one client, by the label of their work.
struct Stage {
    worker: String,
    gateway: Gateway,
    tasks: BTreeMap<&'static str, String>,
}

impl Restart {
    pub fn run() -> Self {
        let (mut stage, child) = Stage::set();
        stage.submit("work", 20, "running");
        stage.submit("work_again", 20, "repeated");
        stage.submit("ask_and_work", 1, "asking");
        wait_for("tasks that run and ask", BEFORE, || {
            let begun = ["running", "repeated"].map(|label| runs(&stage.worker, label));
            let asks = stage.get("asking")["status"] == "input_required";
            (begun == [1, 1] && asks).then_some(())
        });
        let mut polls: BTreeMap<_, Vec<Value>> = BTreeMap::new();
        for label in ["running", "repeated", "asking"] {
            polls.insert(label, vec![stage.get(label)]);
        }
        stage.line_up();
        kill_runtime(&child);
        let killed: BTreeMap<_, _> = stage.runs();
        gateway::end(child);
        stage.again();
        stage.answer("asking");
        stage.watch(&mut polls);
        let end = stage.runs();
        let runs = killed
            .into_iter()
            .map(|(label, then)| (label, (then, end[label])));
        Self {
            polls,
            runs: runs.collect(),
        }
    }

    /// Says so soon where it came to nothing.
    pub fn holds(&self) {
        assert!(!self.polls.is_empty());
    }

    fn end(&self, label: &str) -> &Value {
        self.polls[label].last().expect("polls")
    }

    fn queued(&self) {
        let line = LINE
            .iter()
            .filter_map(|label| self.runs.get_key_value(label));
        let waited: Vec<_> = line.filter(|(_, (killed, _))| *killed == 0).collect();
        assert!(!waited.is_empty(), "none waited: {:?}", self.runs);
        for (label, (_, runs)) in waited {
            let end = self.end(label);
            assert_eq!(end["status"], "completed", "{label}: {end}");
            assert_eq!(*runs, 1, "{label}: {end}");
        }
    }

    fn running(&self) {
        let end = self.end("running");
        assert_eq!(end["status"], "failed", "{end}");
        assert!(text(end, "/error/message").contains("lost"), "{end}");
        assert_eq!(self.runs["running"].1, 1, "{end}");
    }

    fn repeated(&self) {
        let end = self.end("repeated");
        assert_eq!(end["status"], "completed", "{end}");
        assert_eq!(self.runs["repeated"].1, 2, "{end}");
    }

    fn asking(&self) {
        let end = self.end("asking");
        assert_eq!(end["status"], "completed", "{end}");
        let said = text(end, "/result/content/0/text");
        assert_eq!(said, "asking is done, Ada", "{end}");
        assert_eq!(self.runs["asking"].1, 1, "{end}");
    }

    fn truthful(&self) {
        for (label, polls) in &self.polls {
            let mut ended: Option<&Value> = None;
            for poll in polls {
                let status = text(poll, "/status");
                match ended {
                    Some(end) => assert_eq!(poll, end, "{label} is back from its end"),
                    None if !["working", "input_required"].contains(&status) => ended = Some(poll),
                    None => {}
                }
            }
            assert!(ended.is_some(), "{label} has not ended: {polls:?}");
        }
    }
}

impl Stage {
    fn set() -> (Self, Child) {
        let worker = upstream::worker();
        let flags = ["--auth", "off", "--fresh", "--port", "0"];
        let (gateway, child) = Gateway::spawn("restart", configuration(&worker), &flags);
        let stage = Self {
            worker,
            gateway,
            tasks: BTreeMap::new(),
        };
        (stage, child)
    }

    /// Starts the gateway again where it was.
    fn again(&mut self) {
        let port = self.gateway.port().to_string();
        let flags = ["--auth", "off", "--port", &port];
        let settings = configuration(&self.worker);
        let (gateway, child) = Gateway::spawn("restart", settings, &flags);
        gateway::end_later(child);
        self.gateway = gateway;
    }

    fn ask(&self, call: Call, asks: bool) -> Value {
        let capabilities = "/params/_meta/io.modelcontextprotocol~1clientCapabilities";
        let mut declared = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
        if asks {
            declared["elicitation"] = json!({ "form": {} });
        }
        let mut answer = send(&self.gateway.mcp(), &call.at(capabilities, declared)).json();
        let result = answer["result"].take();
        assert!(result.is_object(), "{answer}");
        result
    }

    fn submit(&mut self, tool: &str, seconds: u64, label: &'static str) {
        let arguments = json!({ "seconds": seconds, "label": label }).to_string();
        let call = Call::tool(&format!("worker__{tool}")).with_arguments(&arguments);
        let created = self.ask(call, true);
        self.tasks
            .insert(label, text(&created, "/taskId").to_owned());
    }

    /// Makes tasks, each when the one before it has begun, until one waits behind that.
    fn line_up(&mut self) {
        for label in LINE {
            let begun = Stopwatch::start();
            self.submit("work", 1, label);
            let first = label == LINE[0];
            if !first && begun.elapsed() < SOON && runs(&self.worker, label) == 0 {
                return;
            }
            wait_for("a task that begins", BEFORE, || {
                (runs(&self.worker, label) == 1).then_some(())
            });
        }
    }

    fn get(&self, label: &str) -> Value {
        self.ask(
            Call::modern("tasks/get", json!({ "taskId": self.tasks[label] })),
            false,
        )
    }

    /// Answers what the task asks, as it asks it now.
    fn answer(&self, label: &str) {
        let state = self.get(label);
        assert_eq!(state["status"], "input_required", "{state}");
        let asked = state["inputRequests"].as_object().expect("questions");
        let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
        let answers: BTreeMap<_, _> = asked.keys().map(|key| (key, &answer)).collect();
        let params = json!({ "taskId": self.tasks[label], "inputResponses": answers });
        self.ask(Call::modern("tasks/update", params), false);
    }

    /// Polls all tasks until all have ended, and a few times more.
    fn watch(&self, polls: &mut BTreeMap<&'static str, Vec<Value>>) {
        let (watch, mut more) = (Stopwatch::start(), 3);
        while more > 0 && watch.elapsed() < AFTER {
            let mut open = false;
            for label in self.tasks.keys() {
                let state = self.get(label);
                open |= ["working", "input_required"].contains(&text(&state, "/status"));
                polls.entry(label).or_default().push(state);
            }
            more -= u32::from(!open);
            std::thread::sleep(POLL);
        }
    }

    fn runs(&self) -> BTreeMap<&'static str, u64> {
        let labels = self.tasks.keys();
        labels
            .map(|label| (*label, runs(&self.worker, label)))
            .collect()
    }
}

fn configuration(worker: &str) -> Value {
    json!({
        "upstreams": [{ "name": "worker", "url": worker }],
        "tools": [
            { "name": "worker__work", "execution": "task" },
            { "name": "worker__work_again", "execution": "task", "idempotent": true },
            { "name": "worker__ask_and_work", "execution": "task" },
        ],
        "tasks": { "pollIntervalMs": 500, "pollLimit": { "requests": 100_000 } },
    })
}

/// The programs that are runtimes, as processes are called.
const RUNTIMES: [&str; 3] = ["workerd", "spin-host", "spin"];

/// Kills every runtime below a gateway, at once and without a word.
fn kill_runtime(gateway: &Child) {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // "PID (NAME) STATE PARENT …", and a name may hold anything.
        let Some((head, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let (pid, name) = head.split_once(" (").unwrap_or_default();
        let parent = rest
            .split(' ')
            .nth(1)
            .and_then(|parent| parent.parse::<i32>().ok());
        if let (Ok(pid), Some(parent)) = (pid.parse::<i32>(), parent) {
            parents.insert(pid, (parent, RUNTIMES.contains(&name)));
        }
    }
    let own = i32::try_from(gateway.id()).expect("a process");
    let below = |mut pid: i32| loop {
        match parents.get(&pid) {
            Some((parent, _)) if *parent == own => break true,
            Some((parent, _)) => pid = *parent,
            None => break false,
        }
    };
    let runtimes = parents.iter().filter(|(pid, (_, is))| *is && below(**pid));
    let killed = runtimes
        .filter_map(|(pid, _)| Pid::from_raw(*pid))
        .map(|pid| kill_process(pid, Signal::KILL).expect("a killed runtime"));
    assert!(killed.count() > 0, "there is no runtime to kill");
}
