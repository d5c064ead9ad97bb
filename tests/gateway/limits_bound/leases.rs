//! Exact limits under cheap and dear calls, several limits at once, isolates that end, and a
//! store of whose answers some are lost.

use std::time::Duration;

use tidegate_gateway::config::Rate;
use tidegate_gateway::limits::Method;
use tidegate_simulator::Fault;

use super::fleet::Fleet;

/// What is counted in both limits, and in the first alone.
const LIMITS: [(&str, Rate); 2] = [("wide", rate(90)), ("narrow", rate(60))];
const DEAREST: u32 = 40;
const ISOLATES: usize = 4;

const fn rate(requests: u32) -> Rate {
    Rate {
        requests,
        window_ms: 31 * 24 * 60 * 60 * 1_000,
    }
}

#[test]
fn dear_calls_and_several_limits_never_overshoot_and_strand_nothing() {
    for seed in 1..25 {
        for unsure in [false, true] {
            check(seed, unsure);
        }
    }
}

fn check(seed: u64, unsure: bool) {
    let mut fleet = Fleet::new(ISOLATES, Duration::ZERO, seed);
    fleet.method = Method::Exact;
    let mut random = seed;
    let mut below = move |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let faults = fleet.isolates[0].0.sim.atomic.faults.clone();
    let mut lost = below;
    faults.decide(move |_| (unsure && lost(4) == 0).then_some(Fault::FailButPersist));
    let mut admitted = [0, 0];
    for _ in 0..300 {
        let isolate = usize::try_from(below(ISOLATES as u64)).unwrap();
        let cost = match below(3) {
            0 => DEAREST,
            1 => 7,
            _ => 1,
        };
        let both = below(2) == 0;
        let limits = if both { &LIMITS[..] } else { &LIMITS[..1] };
        if fleet.ask_dear(isolate, limits, cost).is_ok() {
            admitted[0] += cost;
            admitted[1] += if both { cost } else { 0 };
        }
        match below(4) {
            0 => fleet.replace(isolate),
            // Some goes on while work is deferred.
            1 | 2 => fleet.advance(Duration::from_millis(1)),
            _ => {}
        }
    }
    for ((name, rate), admitted) in LIMITS.iter().zip(admitted) {
        let told = format!("{name}, seed {seed}, unsure {unsure}: {admitted}");
        assert!(admitted <= rate.requests, "{told}");
    }
    if !unsure {
        assert!(
            admitted[0] * 2 >= LIMITS[0].1.requests,
            "seed {seed}: {admitted:?}"
        );
    }
}
