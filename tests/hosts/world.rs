//! What the claims are made about: one gateway per configuration, started when first asked
//! for, and what each client saw when it worked through it.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use serde_json::{Value, json};

use crate::client::{Client, Request, Seen};
use crate::gateway::Gateway;
use crate::upstream::{Recorder, Silent, closed_url, everything, reference};

/// How long the troubled configuration gives an upstream, in milliseconds.
pub const PATIENCE_MS: u64 = 1_500;
/// Calls a client may make to the limited tool, and to the limited gateway.
pub const LIMIT: u32 = 3;
/// The only scope `everything__get-sum` asks for.
pub const SCOPE: &str = "harbour:write";
/// The only role `reference__test_image_content` asks for.
pub const ROLE: &str = "pilot";
/// Answered directly or as a task, as the client declares.
pub const AUTO_TASK: &str = "patient__trigger-long-running-operation";
/// Always a task.
pub const TASK_ONLY: &str = "patient__get-sum";
/// May be a task, and asks.
pub const ASKS: &str = "patient__trigger-elicitation-request";
/// Called at most [`LIMIT`] times a minute by each client.
pub const LIMITED: &str = "everything__get-tiny-image";

/// An upstream the work is done on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fixture {
    /// npm server-everything: legacy.
    Everything,
    /// The Python SDK's conformance server: modern.
    Reference,
}

impl Fixture {
    pub fn name(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Reference => "reference",
        }
    }

    pub fn prefix(self) -> String {
        format!("{}__", self.name())
    }
}

type Reports = BTreeMap<String, Seen>;
type Once<T> = OnceLock<T>;

/// Everything is started once and kept until the last claim was made.
#[derive(Default)]
pub struct World {
    ordinary: Once<Gateway>,
    limited: Once<Gateway>,
    troubled: Once<Gateway>,
    recorders: Once<(Recorder, Recorder)>,
    silent: Once<Silent>,
    work: Mutex<BTreeMap<(Client, Fixture), &'static Once<Reports>>>,
}

impl World {
    /// Whether gateways are ours to configure, or one that already runs was named.
    pub fn starts_its_own(&self) -> bool {
        std::env::var_os("TIDEGATE_URL").is_none()
    }

    /// Both fixtures behind recorders, one of them twice: its second name has the tasks.
    pub fn ordinary(&self) -> &Gateway {
        self.ordinary.get_or_init(|| {
            if let Some(running) = Gateway::named_by_environment() {
                return running;
            }
            let (legacy, modern) = self.recorders();
            Gateway::start(
                "ordinary",
                json!({
                    "upstreams": [
                        { "name": "everything", "url": legacy.url() },
                        { "name": "reference", "url": modern.url() },
                        { "name": "patient", "url": legacy.url() },
                    ],
                    "tools": [
                        { "name": AUTO_TASK, "execution": "auto", "taskAfterMs": 500 },
                        { "name": TASK_ONLY, "execution": "task" },
                        { "name": ASKS, "execution": "auto" },
                        { "name": LIMITED, "rateLimit": { "requests": LIMIT, "windowMs": 60_000 } },
                        { "name": "everything__get-sum", "requiredScopes": [SCOPE] },
                        { "name": "reference__test_image_content", "requiredRoles": [ROLE] },
                    ],
                    "tasks": { "pollIntervalMs": 500 },
                }),
            )
        })
    }

    /// At most [`LIMIT`] calls a minute by each client, whatever the tool.
    pub fn limited(&self) -> &Gateway {
        self.limited.get_or_init(|| {
            let upstream = json!({ "name": "everything", "url": self.recorders().0.url() });
            let limits = json!({ "perClient": { "requests": LIMIT, "windowMs": 60_000 } });
            Gateway::start(
                "limited",
                json!({ "upstreams": [upstream], "limits": limits }),
            )
        })
    }

    /// One upstream that works, one nobody listens for, one that accepts and says nothing.
    pub fn troubled(&self) -> &Gateway {
        self.troubled.get_or_init(|| {
            let silent = self.silent.get_or_init(Silent::start);
            let upstreams = json!([
                { "name": "everything", "url": self.recorders().0.url(), "timeoutMs": PATIENCE_MS },
                { "name": "closed", "url": closed_url(), "timeoutMs": PATIENCE_MS },
                { "name": "silent", "url": silent.url(), "timeoutMs": PATIENCE_MS },
                { "name": "mute", "url": silent.url(), "era": "modern", "timeoutMs": PATIENCE_MS },
            ]);
            Gateway::start("troubled", json!({ "upstreams": upstreams }))
        })
    }

    /// The recorders in front of the legacy and the modern fixture.
    pub fn recorders(&self) -> &(Recorder, Recorder) {
        self.recorders
            .get_or_init(|| (Recorder::start(everything()), Recorder::start(reference())))
    }

    /// What `client` saw of `scenario` when it worked with `fixture` through `/mcp`.
    pub fn seen(&self, client: Client, fixture: Fixture, scenario: &str) -> Seen {
        let cell = *self
            .work
            .lock()
            .unwrap()
            .entry((client, fixture))
            .or_insert_with(|| Box::leak(Box::default()));
        let reports = cell.get_or_init(|| {
            let gateway = self.ordinary();
            client.run(&Request {
                url: gateway.mcp(),
                token: Some(gateway.token()),
                fixture,
                prefix: fixture.prefix(),
                scenarios: "connect,tools,call,resource,templates,prompt,complete,progress,parallel",
                ..Request::default()
            })
        });
        reports
            .get(scenario)
            .unwrap_or_else(|| panic!("{client:?} did not report {scenario}"))
            .clone()
    }
}

/// The text of a member that must be there.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} in {value}"))
}

/// The texts of an array that must be there.
pub fn texts<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    let list = list.unwrap_or_else(|| panic!("no array at {pointer} in {value}"));
    list.iter().filter_map(Value::as_str).collect()
}
