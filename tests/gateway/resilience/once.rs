//! Retries, fallback, circuits and bulkheads together, under random failures: no tool that
//! may not run twice ever does, and every call is answered in its time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_gateway::platform::{Clock, HttpError};

use crate::world::{Heard, Said, Script, Setup, Step, World, complete, modern};

const CALLS: usize = 400;
/// The whole time of a call.
const TOTAL: Duration = Duration::from_secs(12);

/// How often the tool ran, by call.
type Runs = Rc<RefCell<BTreeMap<u64, u32>>>;

#[test]
fn whatever_fails_nothing_runs_twice_that_may_not_and_nothing_takes_too_long() {
    let mut outcomes = BTreeMap::new();
    let mut repeated = 0;
    for seed in 1..=8 {
        let runs = Runs::default();
        let world = world(seed, &runs);
        for first in (0..CALLS as u64).step_by(4) {
            let started = world.sim.clock.now();
            let calls = (first..first + 4).map(|call| world.answering(ask(call)));
            for told in world.sim.run(join_all(calls)) {
                *outcomes.entry(told.status.as_u16()).or_insert(0) += 1;
            }
            let took = world.sim.clock.now().since(started);
            assert!(took <= TOTAL, "seed {seed}, call {first}: {took:?}");
            world.later(Duration::from_secs(first % 3));
        }
        for (call, runs) in runs.borrow().iter() {
            assert!(
                is_repeatable(*call) || *runs <= 1,
                "seed {seed}, call {call}: {runs}"
            );
            repeated += usize::from(*runs > 1);
        }
    }
    assert!(
        repeated > 100,
        "{repeated} idempotent calls were made again"
    );
    assert!(outcomes[&200] > 1_000, "{outcomes:?}");
    assert!(outcomes.len() >= 3, "{outcomes:?}");
}

/// Every other call is of a tool that may run twice.
fn is_repeatable(call: u64) -> bool {
    call.is_multiple_of(2)
}

fn ask(call: u64) -> crate::world::Ask {
    let name = match is_repeatable(call) {
        true => "first__again",
        false => "first__plain",
    };
    let params = json!({ "name": name, "arguments": { "q": call.to_string() } });
    modern("tools/call", params).header("accept", "application/json")
}

fn world(seed: u64, runs: &Runs) -> World {
    let scripts = ["first", "second"].map(|_| Script::modern(&["plain", "again"]));
    let random = Rc::new(Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    for script in &scripts {
        let (runs, random) = (Rc::clone(runs), Rc::clone(&random));
        script.on("tools/call", move |heard| answer(heard, &random, &runs));
    }
    let members = json!({
        "timeoutMs": 5_000,
        "fallback": "second",
        "bulkhead": { "maxCalls": 3, "waitMs": 500 },
        "retry": { "attemptTimeoutMs": 2_500, "hedgeAfterMs": 700, "budgetPercent": 100, "budgetPerSecond": 10 },
    });
    let mut second = members.clone();
    second.as_object_mut().unwrap().remove("fallback");
    Setup::new()
        .upstream_with("first", &scripts[0], &members)
        .upstream_with("second", &scripts[1], &second)
        .rule(json!({ "name": "first__again", "idempotent": true }))
        .config(&json!({
            "limits": { "requestTimeoutMs": TOTAL.as_millis() as u64 },
            "circuitBreaker": {
                "failureThreshold": 8, "resetIntervalMs": 2_000, "perTool": true, "shared": true,
                "failureRate": { "percent": 80, "windowMs": 10_000 },
            },
        }))
        .start()
}

/// One of the ways in which a call can go; in most of them the tool has run.
fn answer(heard: &Heard, random: &Cell<u64>, runs: &Runs) -> Said {
    let mut next = random.get();
    next ^= next << 13;
    next ^= next >> 7;
    next ^= next << 17;
    random.set(next);
    let call = heard.params()["arguments"]["q"].as_str().unwrap();
    let ran = || *runs.borrow_mut().entry(call.parse().unwrap()).or_default() += 1;
    let good = || Said::Result(complete("done"));
    match next % 12 {
        0 => Said::NoAnswer(HttpError::NotSent("refused".to_owned())),
        1 => Said::Later(429, "1"),
        way => {
            ran();
            match way {
                2 => Said::NoAnswer(HttpError::MaybeSent("cut".to_owned())),
                3 => Said::Raw(502, "text/plain", Vec::new()),
                4 => Said::Later(503, "1"),
                5 => Said::After(Duration::from_secs(3_600), Box::new(good())),
                6 => Said::Stream(vec![Step::Send(Value::Null), Step::Reset]),
                7 => Said::After(Duration::from_secs(2), Box::new(good())),
                _ => good(),
            }
        }
    }
}
