//! One key, many isolates: random orders of calls, clients that go away, isolates that die,
//! writes that fail or happen all the same, upstreams that are cut off, and time that jumps.
//! The tool runs once at most, and nobody is given anything else than what came of that.
//!
//! A schedule follows from its number alone. One that fails says it, and
//! `TIDEGATE_SCHEDULE=<number>` runs it alone.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tidegate_gateway::platform::HttpError;
use tidegate_simulator::{Fault, Running};

use super::keyed;
use crate::world::{Said, Script, Setup, Step, Told, World, complete};

const SCHEDULES: u64 = 600;
const ISOLATES: usize = 5;

#[test]
fn a_tool_runs_at_most_once_for_a_key_whatever_happens() {
    let alone = std::env::var("TIDEGATE_SCHEDULE").ok();
    let alone: Option<u64> = alone.and_then(|number| number.parse().ok());
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for number in alone.map_or(0..SCHEDULES, |number| number..number + 1) {
        match catch_unwind(AssertUnwindSafe(|| Schedule::new(number).run())) {
            Ok(ended) => *seen.entry(ended).or_default() += 1,
            Err(panic) => {
                eprintln!("schedule {number}");
                resume_unwind(panic);
            }
        }
    }
    if alone.is_none() {
        for ended in ["done", "unknown", "made at last"] {
            assert!(seen.contains_key(ended), "never {ended}: {seen:?}");
        }
    }
}

/// SplitMix64.
#[derive(Clone)]
struct Random(Rc<Cell<u64>>);

impl Random {
    fn below(&self, bound: u64) -> u64 {
        let next = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn index(&self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}

struct Schedule {
    random: Random,
    isolates: Vec<World>,
    runs: Rc<Cell<usize>>,
    live: Vec<(usize, Running<'static, Told>)>,
    /// What a client was given.
    given: Option<String>,
}

impl Schedule {
    fn new(number: u64) -> Self {
        let random = Random(Rc::new(Cell::new(
            number.wrapping_mul(0x5851_f42d_4c95_7f2d),
        )));
        let runs: Rc<Cell<usize>> = Rc::default();
        let script = script(&random, &runs);
        let world = Setup::new()
            .upstream("up", &script)
            .config(&json!({ "idempotency": { "enabled": true } }))
            .start();
        world.list("tools/list");
        world.server("up").down.set(random.below(5) == 0);
        let mut isolates: Vec<World> = (1..ISOLATES).map(|_| world.isolate()).collect();
        isolates.push(world);
        let percent = [0, 5, 25][random.index(3)];
        for isolate in &isolates {
            let random = random.clone();
            isolate.sim.atomic.faults.decide(move |key| {
                if !key.starts_with("idempotency/") || random.below(100) >= percent {
                    return None;
                }
                let faults = [
                    Fault::Fail,
                    Fault::FailButPersist,
                    Fault::Conflict,
                    Fault::Silent,
                    Fault::SilentButPersist,
                ];
                Some(faults[random.index(faults.len())])
            });
        }
        Self {
            random,
            isolates,
            runs,
            live: Vec::new(),
            given: None,
        }
    }

    fn run(mut self) -> &'static str {
        for _ in 0..20 + self.random.below(120) {
            self.step();
            assert!(self.runs.get() <= 1, "run {} times", self.runs.get());
        }
        self.end()
    }

    fn step(&mut self) {
        let at = self.random.index(self.isolates.len());
        match self.random.below(100) {
            0..12 => {
                let call = self.isolates[at].start_call(keyed("k"));
                self.live.push((at, call));
            }
            12..70 => self.go_on(),
            70..78 => self.isolates[at].poll_deferred(),
            78..88 => self.pass(self.random.below(2_000)),
            88..90 => self.pass(self.random.below(120_000)),
            // A client goes away; sometimes its isolate with it.
            90..96 if !self.live.is_empty() => {
                let (at, call) = self.live.swap_remove(self.random.index(self.live.len()));
                drop(call);
                if self.random.below(2) == 0 {
                    self.isolates[at].lose_deferred();
                }
            }
            96 => self.isolates[at].sim.atomic.faults.outage(true),
            97 => self.isolates[at].sim.atomic.faults.outage(false),
            _ => self.isolates[0].server("up").down.set(false),
        }
    }

    fn pass(&self, ms: u64) {
        self.isolates[0]
            .sim
            .clock
            .advance(Duration::from_millis(ms));
    }

    fn go_on(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let at = self.random.index(self.live.len());
        for _ in 0..=self.random.below(8) {
            if let Some(told) = self.live[at].1.poll_once() {
                self.live.swap_remove(at);
                self.look(&told);
                return;
            }
        }
    }

    /// All who are given a result are given the same.
    fn look(&mut self, told: &Told) {
        let message = told.json();
        let Some(result) = message.get("result") else {
            return;
        };
        let text = result["content"][0]["text"].as_str().unwrap().to_owned();
        let given = self.given.get_or_insert_with(|| text.clone());
        assert_eq!(*given, text);
        assert_eq!(self.runs.get(), 1, "a result of nothing");
    }

    /// Nothing goes wrong any more, and all that is under way ends.
    fn end(mut self) -> &'static str {
        for isolate in &self.isolates {
            isolate.sim.atomic.faults.decide(|_| None);
            isolate.sim.atomic.faults.outage(false);
            isolate.lose_deferred();
        }
        self.live.clear();
        for isolate in &self.isolates {
            isolate.lose_deferred();
        }
        self.isolates[0].server("up").down.set(false);
        self.pass(300_000);
        let before = self.runs.get();
        let told = self.isolates[0].isolate().call(keyed("k"));
        self.look(&told);
        assert!(self.runs.get() <= 1);
        if told.json().get("result").is_some() {
            return match before {
                0 => "made at last",
                _ => "done",
            };
        }
        if told.reason() == "idempotency_outcome_unknown" {
            return "unknown";
        }
        // Its answer was an error; it was made now, or is said again.
        assert!(self.given.is_none());
        "failed"
    }
}

fn script(random: &Random, runs: &Rc<Cell<usize>>) -> Script {
    let script = Script::modern(&["a"]);
    let (habit, slow) = (random.below(10), random.below(8_000));
    let runs = Rc::clone(runs);
    script.on("tools/call", move |heard| {
        runs.set(runs.get() + 1);
        let result = complete(&format!("run {}", runs.get()));
        let slow = Duration::from_millis(slow);
        match habit {
            0 => Said::Error(-32603),
            1 => Said::NoAnswer(HttpError::MaybeSent("cut".to_owned())),
            2..5 => Said::Stream(vec![
                Step::Send(heard.progress(1)),
                Step::Wait(slow),
                Step::Send(heard.response(&result)),
            ]),
            5 => Said::Stream(vec![Step::Wait(slow), Step::Reset]),
            _ => Said::After(slow, Box::new(Said::Result(result))),
        }
    });
    script
}
