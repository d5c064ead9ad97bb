//! The circuits as their definition reads, and that ours agree with it whatever happens in
//! which order: the reference keeps the whole history and looks through it from the start.

use super::tests::RULE;
use super::*;
use crate::config::FailureRate;

/// One circuit.
#[derive(Default)]
struct Reference {
    /// Outcomes while closed, since the circuit last closed.
    closed: Vec<(Timestamp, Outcome)>,
    /// When a call succeeded.
    successes: Vec<Timestamp>,
    /// Until when calls are refused, once it is open.
    until: Option<Timestamp>,
    /// When each probe since it opened was let through.
    probes: Vec<Timestamp>,
    probed: bool,
}

impl Reference {
    fn would_pass(&self, now: Timestamp, rule: &CircuitBreaker) -> bool {
        let Some(until) = self.until else {
            return true;
        };
        now >= until && self.waiting(now, rule) < rule.half_open_max_requests as usize
    }

    /// Probes whose outcome is still waited for.
    fn waiting(&self, now: Timestamp, rule: &CircuitBreaker) -> usize {
        let lease = Duration::from_millis(rule.reset_interval_ms).min(PROBE_LEASE_MAX);
        let latest = self.probes.last();
        let over = latest.is_some_and(|latest| now.since(*latest) >= lease);
        if over { 0 } else { self.probes.len() }
    }

    fn pass(&mut self, now: Timestamp, rule: &CircuitBreaker) {
        if self.until.is_some() {
            if self.waiting(now, rule) == 0 {
                self.probes.clear();
            }
            self.probes.push(now);
            self.probed = true;
        }
    }

    fn probing(&self) -> bool {
        self.until.is_some() && self.probed
    }

    /// Learns an outcome; tells whether it opens the circuit.
    fn learns(&mut self, now: Timestamp, outcome: Outcome, rule: &CircuitBreaker) -> bool {
        if outcome == Outcome::Success {
            self.successes.push(now);
        }
        if self.until.is_some() {
            let opens = self.probed && outcome == Outcome::Failure;
            if opens {
                self.open(now + Duration::from_millis(rule.reset_interval_ms));
            } else if self.probed {
                self.until = None;
                self.probed = false;
                self.probes.clear();
                self.closed.clear();
            }
            return opens;
        }
        self.closed.push((now, outcome));
        let failed = |(_, outcome): &&(Timestamp, Outcome)| *outcome == Outcome::Failure;
        let in_a_row = self.closed.iter().rev().take_while(failed).count();
        let opens = outcome == Outcome::Failure
            && (in_a_row >= rule.failure_threshold as usize || self.too_often(now, rule));
        if opens {
            self.open(now + Duration::from_millis(rule.reset_interval_ms));
        }
        opens
    }

    fn too_often(&self, now: Timestamp, rule: &CircuitBreaker) -> bool {
        let Some(rate) = &rule.failure_rate else {
            return false;
        };
        let slot = |at: Timestamp| at.0 / (rate.window_ms / 10);
        let within: Vec<Outcome> = self
            .closed
            .iter()
            .filter(|(at, _)| slot(*at) + 10 > slot(now))
            .map(|(_, outcome)| *outcome)
            .collect();
        let failures = within.iter().filter(|o| **o == Outcome::Failure).count();
        within.len() >= rate.minimum_calls as usize
            && failures as f64 / within.len() as f64 >= f64::from(rate.percent) / 100.0
    }

    fn hears(&mut self, now: Timestamp, trip: Trip, rule: &CircuitBreaker) {
        let reset = now + Duration::from_millis(rule.reset_interval_ms);
        let answered = self.successes.iter().any(|at| *at >= trip.opened_at);
        if self.until.is_none() && !answered && trip.until > now {
            self.open(trip.until.min(reset));
        }
    }

    fn open(&mut self, until: Timestamp) {
        self.until = Some(until);
        self.probes.clear();
        self.probed = false;
        self.closed.clear();
    }
}

/// An isolate: an upstream and its tools.
struct Isolate {
    own: Breaker,
    tools: Vec<Breaker>,
    reference: Reference,
    tool_references: Vec<Reference>,
}

impl Isolate {
    fn new(tools: usize) -> Self {
        Self {
            own: Breaker::default(),
            tools: vec![Breaker::default(); tools],
            reference: Reference::default(),
            tool_references: (0..tools).map(|_| Reference::default()).collect(),
        }
    }

    fn paired<T>(&mut self, tool: Option<usize>, change: impl FnOnce(&mut Pair) -> T) -> T {
        let mut pair = Pair {
            own: self.own.clone(),
            tool: tool.map(|tool| self.tools[tool].clone()),
        };
        let made = change(&mut pair);
        self.own = pair.own;
        if let (Some(tool), Some(breaker)) = (tool, pair.tool) {
            self.tools[tool] = breaker;
        }
        made
    }

    /// Whether a call passes, by ours and by the definition.
    fn admit(&mut self, now: Timestamp, tool: Option<usize>, rule: &CircuitBreaker) -> [bool; 2] {
        let ours = self.paired(tool, |pair| pair.admit(now, rule)) == Admission::Pass;
        let tool = tool.map(|tool| &mut self.tool_references[tool]);
        let would = self.reference.would_pass(now, rule)
            && tool.as_ref().is_none_or(|tool| tool.would_pass(now, rule));
        if would {
            self.reference.pass(now, rule);
            if let Some(tool) = tool {
                tool.pass(now, rule);
            }
        }
        [ours, would]
    }

    /// Which circuits an outcome opens, by ours and by the definition.
    fn record(
        &mut self,
        now: Timestamp,
        tool: Option<usize>,
        seen: Seen,
        rule: &CircuitBreaker,
    ) -> [Opened; 2] {
        let ours = self.paired(tool, |pair| pair.record(now, seen, rule));
        let (reference, tools) = (&mut self.reference, &mut self.tool_references);
        let mut opened = Opened::default();
        let apart = tool.is_some();
        let counts = match seen {
            Seen::Answered | Seen::Unreached => true,
            Seen::Unwell => !apart || reference.probing(),
        };
        let outcome = match seen {
            Seen::Answered => Outcome::Success,
            Seen::Unreached | Seen::Unwell => Outcome::Failure,
        };
        if counts {
            opened.own = reference.learns(now, outcome, rule);
        }
        if let Some(tool) = tool.and_then(|tool| tools.get_mut(tool))
            && (seen != Seen::Unreached || tool.probing())
        {
            opened.tool = tool.learns(now, outcome, rule);
        }
        [ours, opened]
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn rule(&mut self) -> CircuitBreaker {
        let rate = FailureRate {
            percent: 1 + self.below(100) as u32,
            window_ms: 1_000 + self.below(60_000),
            minimum_calls: 1 + self.below(12) as u32,
        };
        CircuitBreaker {
            failure_threshold: 1 + self.below(9) as u32,
            reset_interval_ms: 100 + self.below(90_000),
            half_open_max_requests: 1 + self.below(3) as u32,
            failure_rate: (self.below(3) > 0).then_some(rate),
            ..RULE
        }
    }
}

/// How often what was compared happened: a schedule in which nothing opens shows nothing.
#[derive(Debug, Default)]
struct Happened {
    passed: u32,
    refused: u32,
    opened: u32,
    opened_for_a_tool: u32,
    heard: u32,
}

/// One random schedule of calls, outcomes and news among `isolates` isolates.
fn schedule(seed: u64, isolates: usize, tools: usize, happened: &mut Happened) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let rule = random.rule();
    let mut all: Vec<Isolate> = (0..isolates).map(|_| Isolate::new(tools)).collect();
    let mut published: Vec<Trip> = Vec::new();
    let mut now = Timestamp(1_000_000);
    let pace = [50, 1_000, rule.reset_interval_ms / 2 + 2][random.below(3) as usize];
    let failing = 2 + random.below(4);
    for step in 0..400 {
        now = now + Duration::from_millis(random.below(pace));
        let isolate = &mut all[random.below(isolates as u64) as usize];
        let tool = random.below(tools as u64 + 1).checked_sub(1);
        let tool = tool.map(|tool| tool as usize);
        let at = format!("seed {seed}, step {step}, {rule:?}");
        match random.below(9) {
            0..4 => {
                let [ours, definition] = isolate.admit(now, tool, &rule);
                assert_eq!(ours, definition, "{at}: {:?}", isolate.own);
                happened.passed += u32::from(ours);
                happened.refused += u32::from(!ours);
            }
            4..8 => {
                let seen = match random.below(failing) {
                    0 => Seen::Answered,
                    n if n % 2 == 0 => Seen::Unreached,
                    _ => Seen::Unwell,
                };
                let [ours, definition] = isolate.record(now, tool, seen, &rule);
                assert_eq!(ours, definition, "{at}: {:?}", isolate.own);
                happened.opened += u32::from(ours.own);
                happened.opened_for_a_tool += u32::from(ours.tool);
                if let Some(until) = isolate.own.open_until().filter(|_| ours.own) {
                    published.push(Trip {
                        opened_at: now,
                        until,
                    });
                }
            }
            _ => {
                // What the store shows may be long out of date.
                let behind = random.below(3) as usize + 1;
                let trip = published.len().checked_sub(behind);
                if let Some(trip) = trip.map(|at| published[at]) {
                    happened.heard += u32::from(isolate.own.hear(now, trip, &rule));
                    isolate.reference.hears(now, trip, &rule);
                }
            }
        }
        let refuses = isolate.own.refuses(now, &rule).is_some();
        let definition = !isolate.reference.would_pass(now, &rule);
        assert_eq!(refuses, definition, "{at}: {:?}", isolate.own);
    }
    let later = now + Duration::from_millis(rule.reset_interval_ms) + PROBE_LEASE_MAX;
    for isolate in &mut all {
        for tool in [None].into_iter().chain((0..tools).map(Some)) {
            let refused = isolate.paired(tool, |pair| pair.refuses(later, &rule));
            assert_eq!(refused, None, "seed {seed}: never wedged");
        }
    }
}

#[test]
fn one_circuit_agrees_with_its_definition_in_every_random_history() {
    let mut happened = Happened::default();
    for seed in 1..=400 {
        schedule(seed, 1, 0, &mut happened);
    }
    assert!(happened.passed > 10_000 && happened.refused > 10_000 && happened.opened > 1_000);
}

#[test]
fn circuits_of_tools_and_of_other_isolates_agree_with_their_definition() {
    let mut happened = Happened::default();
    for seed in 1..=400 {
        schedule(seed, 3, 2, &mut happened);
    }
    assert!(happened.passed > 10_000 && happened.refused > 10_000 && happened.opened > 1_000);
    assert!(
        happened.opened_for_a_tool > 500 && happened.heard > 100,
        "{happened:?}"
    );
}
