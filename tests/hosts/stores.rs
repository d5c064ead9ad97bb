//! What the gateway stands on is put out of reach, one after the other, on the real runtime:
//! what clients are told meanwhile, and that nothing is half begun.
//!
//! On bare workerd, where meters stand before KV, the queue and the objects and can cut them
//! off; the databases of the Spin host have no such door.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;

use crate::call::{Call, send};
use crate::faults::PATIENCE;
use crate::faults::outages::{Asked, Outage, Store, outages};
use crate::gateway::{Gateway, Host};
use crate::minute::runs;
use crate::stopwatch::{Stopwatch, wait_for};
use crate::upstream;

/// How long a task that was begun may take to end, and how long one that was not is given to
/// show that it was.
const END_MAX: Duration = Duration::from_secs(30);
const A_WHILE: Duration = Duration::from_secs(3);
/// Most calls of the tool with the exact limit.
const LIMIT: u32 = 100;

pub fn trials() -> Vec<Trial> {
    if Host::chosen() != Host::Workerd {
        return Vec::new();
    }
    let stage: Arc<OnceLock<Stage>> = Arc::default();
    let trials = outages().into_iter().map(|row| {
        let stage = Arc::clone(&stage);
        Trial::test(format!("stores::{row}"), move || {
            stage.get_or_init(Stage::set).holds(row);
            Ok(())
        })
    });
    trials.collect()
}

/// One gateway, one server under three names. Rows take turns.
struct Stage {
    gateway: Gateway,
    worker: String,
    turn: Mutex<()>,
}

impl Stage {
    fn set() -> Self {
        let worker = upstream::worker();
        let named = |name: &str| json!({ "name": name, "url": worker, "timeoutMs": 2_000 });
        let exact = json!({
            "name": "exact", "rate": { "requests": LIMIT, "windowMs": 60_000 },
            "counter": "atomic", "tools": ["exact__work"],
        });
        let settings = json!({
            "upstreams": [named("direct"), named("long"), named("exact")],
            "tools": [{ "name": "long__work", "execution": "task" }],
            "limits": { "rules": [exact] },
        });
        let stage = Self {
            gateway: Gateway::start_with("stores", settings, &["--raw", "--metered"]),
            worker,
            turn: Mutex::default(),
        };
        // Everything has been in use when it is lost.
        for asked in [Asked::Call, Asked::List, Asked::Task, Asked::Exact] {
            let call = stage.call(asked, "first");
            assert_eq!(send(&stage.gateway.mcp(), &call).status, 200, "{asked:?}");
        }
        stage
    }

    fn holds(&self, row: Outage) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let label = row.to_string();
        let call = self.call(row.asked, &label);
        self.cut(row.store, true);
        let watch = Stopwatch::start();
        let answer = send(&self.gateway.mcp(), &call);
        let took = watch.elapsed();
        self.cut(row.store, false);
        let code = answer.json()["error"]["code"].as_i64();
        assert_eq!((answer.status, code), (row.status, row.code), "{answer:?}");
        assert!(took < PATIENCE, "{took:?}: {answer:?}");
        let ran = || usize::try_from(runs(&self.worker, &label)).unwrap_or(usize::MAX);
        wait_for("as many runs as there should be", END_MAX, || {
            (ran() >= row.runs).then_some(())
        });
        std::thread::sleep(A_WHILE);
        assert_eq!(ran(), row.runs, "{answer:?}");
    }

    fn call(&self, asked: Asked, label: &str) -> Call {
        let tool = |upstream: &str| {
            let arguments = json!({ "seconds": 0, "label": label });
            json!({ "name": format!("{upstream}__work"), "arguments": arguments })
        };
        let call = match asked {
            Asked::Call => Call::modern("tools/call", tool("direct")),
            Asked::OldCall => Call::legacy("tools/call", tool("direct")),
            Asked::List => Call::modern("tools/list", json!({})),
            Asked::Task => Call::modern("tools/call", tool("long")).declaring_tasks(),
            Asked::Exact => Call::modern("tools/call", tool("exact")),
        };
        call.with_token(self.gateway.token())
    }

    fn cut(&self, store: Store, off: bool) {
        let port = self.gateway.meter(store.name());
        let word = if off { "cut" } else { "join" };
        let told = ureq::post(format!("http://127.0.0.1:{port}/")).send(word);
        assert!(told.is_ok_and(|answer| answer.status() == 200), "{word}");
    }
}
