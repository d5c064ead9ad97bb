//! Tools that take a minute, driven to their ends by the clients' own support for tasks, and
//! tools that become tasks only if they take long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::call::{Answer, Call, send};
use crate::client::{Client, MODERN, Request, Seen};
use crate::gateway::Gateway;
use crate::restart::Restart;
use crate::stopwatch::{Stopwatch, wait_for};
use crate::upstream;
use crate::world::text;

/// A call that takes longer becomes a task.
const THRESHOLD: Duration = Duration::from_secs(1);
/// Longest a call that becomes a task at once may take.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Longest a short task may take.
const SHORT: Duration = Duration::from_secs(30);

/// What takes a minute, begun once.
pub struct Minute {
    gateway: Gateway,
    worker: String,
    clients: Mutex<BTreeMap<Client, JoinHandle<Seen>>>,
}

/// Has everything begin that takes a minute.
pub fn beginning(minute: &Arc<OnceLock<Minute>>, restart: &Arc<OnceLock<Restart>>) -> Trial {
    let (minute, restart) = (Arc::clone(minute), Arc::clone(restart));
    let title = "minute::a tool that takes a minute is a task at once";
    Trial::test(title, move || {
        let minute = minute.get_or_init(Minute::begin);
        std::thread::spawn(move || restart.get_or_init(Restart::run).holds());
        minute.at_once();
        Ok(())
    })
}

pub fn trials(minute: &Arc<OnceLock<Minute>>) -> Vec<Trial> {
    let claim = |title: String, claim: Box<dyn FnOnce(&Minute) + Send>| {
        let minute = Arc::clone(minute);
        Trial::test(title, move || {
            claim(minute.get_or_init(Minute::begin));
            Ok(())
        })
    };
    let mut trials = vec![
        claim(
            "minute::an `auto` tool that is quick is answered directly".to_owned(),
            Box::new(Minute::quick),
        ),
        claim(
            "minute::an `auto` tool that takes long becomes a task, and ran once".to_owned(),
            Box::new(Minute::slow),
        ),
    ];
    trials.extend(MODERN.map(|client| {
        let title = format!(
            "minute::{}: drives a tool of a minute to its end, answering what it asks",
            client.label()
        );
        claim(title, Box::new(move |minute| minute.driven_by(client)))
    }));
    trials
}

impl Minute {
    fn begin() -> Self {
        let worker = upstream::worker();
        let gateway = Gateway::start(
            "minute",
            json!({
                "upstreams": [{ "name": "worker", "url": worker }],
                "tools": [
                    { "name": "worker__work", "execution": "task" },
                    { "name": "worker__ask_and_work", "execution": "task" },
                    {
                        "name": "worker__work_maybe",
                        "execution": "auto",
                        "taskAfterMs": u64::try_from(THRESHOLD.as_millis()).expect("milliseconds"),
                    },
                ],
                "tasks": { "pollIntervalMs": 500 },
            }),
        );
        let clients = MODERN.map(|client| {
            let (url, token) = (gateway.mcp(), gateway.token().to_owned());
            let arguments = json!({ "seconds": 60, "label": client.label() }).to_string();
            let drive = move || {
                client.run_one(&Request {
                    url,
                    token: Some(&token),
                    scenarios: "task",
                    tool: Some(("worker__ask_and_work", &arguments)),
                    ..Request::default()
                })
            };
            (client, std::thread::spawn(drive))
        });
        Self {
            gateway,
            worker,
            clients: Mutex::new(clients.into()),
        }
    }

    fn call(&self, tool: &str, seconds: f64, label: &str) -> Value {
        let arguments = json!({ "seconds": seconds, "label": label }).to_string();
        let call = Call::tool(tool)
            .with_arguments(&arguments)
            .declaring_tasks();
        self.send(&call).json()
    }

    fn send(&self, call: &Call) -> Answer {
        let call = call.clone().with_token(self.gateway.token());
        send(&self.gateway.mcp(), &call)
    }

    fn get(&self, id: &str) -> Value {
        let get = Call::modern("tasks/get", json!({ "taskId": id })).declaring_tasks();
        self.send(&get).json()["result"].take()
    }

    fn at_once(&self) {
        let watch = Stopwatch::start();
        let created = self.call("worker__work", 60.0, "at once");
        assert!(watch.elapsed() < AT_ONCE, "{created}");
        let id = text(&created, "/result/taskId");
        assert_eq!(self.get(id)["status"], "working", "{created}");
        let cancel = Call::modern("tasks/cancel", json!({ "taskId": id })).declaring_tasks();
        self.send(&cancel);
        assert_eq!(self.get(id)["status"], "cancelled", "{created}");
    }

    fn quick(&self) {
        let answer = self.call("worker__work_maybe", 0.0, "quick");
        let said = text(&answer, "/result/content/0/text");
        assert_eq!(said, "quick is done", "{answer}");
        assert_eq!(runs(&self.worker, "quick"), 1);
    }

    fn slow(&self) {
        let watch = Stopwatch::start();
        let created = self.call("worker__work_maybe", 4.0, "slow");
        assert!(watch.elapsed() >= THRESHOLD, "{created}");
        let id = text(&created, "/result/taskId");
        let state = wait_for("the end of the task", SHORT, || {
            let state = self.get(id);
            (state["status"] != "working").then_some(state)
        });
        assert_eq!(state["status"], "completed", "{state}");
        assert_eq!(text(&state, "/result/content/0/text"), "slow is done");
        assert_eq!(runs(&self.worker, "slow"), 1, "it was handed over");
    }

    fn driven_by(&self, client: Client) {
        let running = self.clients.lock().unwrap().remove(&client);
        let seen = running.expect("begun").join().expect("a client that ends");
        let task = seen.ok();
        assert_eq!(task["kind"], "task", "{task}");
        assert_eq!(
            task["asked"],
            json!(["worker: What is your name?"]),
            "{task}"
        );
        assert_eq!(task["status"], "completed", "{task}");
        let said = format!("{} is done, Ada", client.label());
        assert_eq!(text(task, "/text"), said, "{task}");
        assert!(seen.elapsed_ms() >= 60_000, "{task}");
        assert_eq!(runs(&self.worker, client.label()), 1);
    }
}

/// How often work was begun, as the upstream itself tells.
pub fn runs(worker: &str, label: &str) -> u64 {
    let arguments = json!({ "label": label }).to_string();
    let answer = send(worker, &Call::tool("runs").with_arguments(&arguments)).json();
    let count = text(&answer, "/result/content/0/text").parse();
    count.unwrap_or_else(|_| panic!("{answer}"))
}
