//! How far the approximate limiter overshoots, and what it costs the store: the claims of
//! `tidegate_gateway::limits`, held against a fleet of isolates over many combinations of
//! isolates, staleness and rate. `--nocapture` prints the table.

mod bursts;
mod fleet;
mod leases;
mod writers;

use std::time::Duration;

use fleet::{Fleet, densest};
use tidegate_gateway::config::Rate;
use tidegate_gateway::limits::seat::{REST, ROW, SEATS};
use tidegate_gateway::limits::{
    HIDDEN_SHARE, KEYS_MAX, REPORT_DELAY_MAX, REPORT_INTERVAL, WRITE_SHARE, look_interval,
};
use tidegate_gateway::platform::Clock;
use tidegate_gateway::time::Timestamp;

const SECOND: Duration = Duration::from_secs(1);

/// One combination, and how many times the limit is asked for.
struct Case {
    isolates: usize,
    staleness: Duration,
    rate: Rate,
    demand: f64,
}

/// What became of it.
struct Result {
    offered: usize,
    /// Most admitted in one bucket, and in any window of its length.
    bucket: usize,
    window: usize,
    admitted: usize,
    operations_per_call: f64,
    seats_drawn: usize,
    least_interval: Option<Duration>,
}

#[test]
fn all_isolates_together_stay_within_the_stated_bound() {
    println!(
        "isolates  stale_s  limit/window  demand  offered  admitted  bucket  bound  n*limit  any_window  kv/call  seats_drawn  s_between_writes"
    );
    let rates = [(20, 10), (60, 60), (320, 60), (600, 600)];
    for (requests, window_s) in rates {
        let rate = Rate {
            requests,
            window_ms: window_s * 1_000,
        };
        for isolates in [1, 2, 3, 5, 10, 20, 50] {
            for staleness in [0, 1, 15, 60, 90] {
                for demand in [0.9, 4.0] {
                    check(&Case {
                        isolates,
                        staleness: SECOND * staleness,
                        rate,
                        demand,
                    });
                }
            }
        }
    }
}

#[test]
fn more_isolates_than_seats_stay_within_the_stated_bound() {
    for isolates in [70, 500] {
        check(&Case {
            isolates,
            staleness: SECOND,
            rate: Rate {
                requests: 60,
                window_ms: 60_000,
            },
            demand: 40.0,
        });
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the table is what `--nocapture` is for"
)]
fn check(case: &Case) {
    let result = simulate(case);
    let (limit, isolates) = (case.rate.requests as usize, case.isolates);
    let bound = bound(case);
    let window = Duration::from_millis(case.rate.window_ms);
    println!(
        "{isolates:8}  {:7}  {limit:5}/{:<6}  {:6}  {:7}  {:8}  {:6}  {bound:5}  {:7}  {:10}  {:7.3}  {:11}  {:16.3}",
        case.staleness.as_secs(),
        window.as_secs(),
        case.demand,
        result.offered,
        result.admitted,
        result.bucket,
        isolates * limit,
        result.window,
        result.operations_per_call,
        result.seats_drawn,
        result
            .least_interval
            .map_or(f64::NAN, |interval| interval.as_secs_f64()),
    );
    let told = format!(
        "{isolates} isolates, staleness {:?}, {limit} per {window:?}",
        case.staleness
    );
    assert!(
        result.bucket <= bound,
        "{told}: {} in one bucket, bound {bound}",
        result.bucket
    );
    assert!(
        result.window <= 2 * bound,
        "{told}: {} in one window",
        result.window
    );
    if isolates == 1 {
        assert!(
            result.bucket <= limit && result.window < 2 * limit,
            "{told}"
        );
    }
}

/// `L + (s − 1) × min(L, p × h + m) + (n − s) × min(L, q)`: `m` is what one isolate is asked
/// within the time an admission takes to be seen, `q` what it is asked in a bucket.
fn bound(case: &Case) -> usize {
    let limit = case.rate.requests as usize;
    let isolates = u32::try_from(case.isolates).unwrap();
    let report = (WRITE_SHARE * isolates).clamp(REPORT_INTERVAL, REPORT_DELAY_MAX) * 2;
    let look = look_interval(case.rate);
    let passes = if case.isolates <= ROW { 1 } else { 2 };
    let seen_after = REST + report + (report + case.staleness + look) * passes;
    let asked_per_isolate = case.demand * limit as f64 / case.isolates as f64;
    let within = asked_per_isolate * seen_after.as_millis() as f64 / case.rate.window_ms as f64;
    // Arrivals come evenly, give or take one.
    let asked = |within: f64| within.ceil() as usize + 1;
    let hidden = passes as usize * (limit / HIDDEN_SHARE as usize);
    let seated = case.isolates.min(SEATS);
    limit
        + (seated - 1) * limit.min(hidden + asked(within))
        + (case.isolates - seated) * limit.min(asked(asked_per_isolate))
}

/// Asks for `demand` times the limit for several windows, spread over all isolates.
fn simulate(case: &Case) -> Result {
    let fleet = Fleet::new(case.isolates, case.staleness, case.isolates as u64);
    let window = case.rate.window_ms;
    // From the start of a bucket, so that buckets can be told by the time.
    let start = Timestamp(fleet.clock.now().0.div_ceil(window) * window);
    let calls = (case.demand * f64::from(case.rate.requests) * 4.0) as u64;
    let mut random = case.isolates as u64 + case.staleness.as_secs() * 1_000;
    let mut order: Vec<usize> = (0..case.isolates).collect();
    let mut admitted = Vec::new();
    for call in 0..calls {
        let turn = call as usize % case.isolates;
        if turn == 0 {
            shuffle(&mut order, &mut random);
        }
        fleet.advance_to(Timestamp(start.0 + call * 4 * window / calls));
        if fleet.ask(order[turn], &[("per-client", case.rate)]).is_ok() {
            admitted.push(fleet.clock.now());
        }
    }
    fleet.advance(SECOND * 60);
    assert_eq!(fleet.too_fast(), [""; 0], "a key was written too fast");
    let least_interval = fleet.least_interval();
    assert!(least_interval.is_none_or(|interval| interval >= REPORT_INTERVAL));
    let (reads, writes) = fleet.operations();
    let buckets = (0..5).map(|n| {
        let from = Timestamp(start.0 + n * window);
        admitted
            .iter()
            .filter(|at| (from..Timestamp(from.0 + window)).contains(at))
            .count()
    });
    Result {
        offered: calls as usize / 4,
        bucket: buckets.max().unwrap_or(0),
        window: densest(&admitted, Duration::from_millis(window)),
        admitted: admitted.len(),
        operations_per_call: (reads + writes) as f64 / calls as f64,
        seats_drawn: fleet.atomic_operations(),
        least_interval,
    }
}

fn shuffle(order: &mut [usize], random: &mut u64) {
    for last in (1..order.len()).rev() {
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (*random >> 33) as usize % (last + 1));
    }
}

#[test]
fn a_burst_in_one_isolate_is_seen_by_the_next_after_the_staleness() {
    let rate = Rate {
        requests: 20,
        window_ms: 60_000,
    };
    let fleet = Fleet::new(2, SECOND * 5, 1);
    align(&fleet, rate);
    let admitted = (0..30)
        .filter(|_| fleet.ask(0, &[("t", rate)]).is_ok())
        .count();
    assert_eq!(admitted, 20);
    fleet.advance(REPORT_INTERVAL * 2 + SECOND * 5);
    assert!(fleet.ask(1, &[("t", rate)]).is_err());
}

#[test]
fn a_refused_client_that_waits_as_told_is_admitted() {
    let rate = Rate {
        requests: 7,
        window_ms: 60_000,
    };
    let fleet = Fleet::new(1, Duration::ZERO, 2);
    fleet.advance(Duration::from_millis(12_345));
    while fleet.ask(0, &[("t", rate)]).is_ok() {}
    for _ in 0..20 {
        let wait = fleet.ask(0, &[("t", rate)]).unwrap_err();
        fleet.advance(wait - Duration::from_millis(1));
        assert!(fleet.ask(0, &[("t", rate)]).is_err());
        fleet.advance(Duration::from_millis(1));
        assert_eq!(fleet.ask(0, &[("t", rate)]), Ok(()));
    }
}

#[test]
fn a_call_is_counted_in_all_its_limits_or_in_none() {
    let (wide, narrow) = (
        Rate {
            requests: 10,
            window_ms: 60_000,
        },
        Rate {
            requests: 3,
            window_ms: 60_000,
        },
    );
    let fleet = Fleet::new(1, Duration::ZERO, 3);
    align(&fleet, wide);
    let both = [("per-client", wide), ("files__read", narrow)];
    assert_eq!((0..20).filter(|_| fleet.ask(0, &both).is_ok()).count(), 3);
    assert_eq!(
        (0..20)
            .filter(|_| fleet.ask(0, &[("per-client", wide)]).is_ok())
            .count(),
        7
    );
}

#[test]
fn a_store_that_is_down_refuses_nobody_and_its_return_is_noticed() {
    let rate = Rate {
        requests: 10,
        window_ms: 600_000,
    };
    let fleet = Fleet::new(3, Duration::ZERO, 4);
    align(&fleet, rate);
    fleet
        .isolates
        .iter()
        .for_each(|(isolate, _)| isolate.outage(true));
    for isolate in 0..3 {
        assert_eq!(
            (0..20)
                .filter(|_| fleet.ask(isolate, &[("t", rate)]).is_ok())
                .count(),
            10
        );
        assert_eq!(
            fleet.isolates[isolate].0.sim.log_lines().len(),
            1,
            "it is said once"
        );
    }
    fleet
        .isolates
        .iter()
        .for_each(|(isolate, _)| isolate.outage(false));
    for _ in 0..4 {
        fleet.advance(SECOND * 40);
        assert!((0..3).all(|isolate| fleet.ask(isolate, &[("t", rate)]).is_err()));
    }
    // In the next bucket thirty admissions are known to all: they fade slowly.
    fleet.advance(SECOND * 600);
    assert!((0..3).all(|isolate| fleet.ask(isolate, &[("t", rate)]).is_err()));
}

#[test]
fn a_counter_in_use_is_not_forgotten_for_others() {
    let rate = Rate {
        requests: 10,
        window_ms: 600_000,
    };
    let fleet = Fleet::new(1, Duration::ZERO, 7);
    align(&fleet, rate);
    fleet.isolates[0].0.outage(true);
    let mut admitted = 0;
    for round in 0..40 {
        admitted += usize::from(fleet.ask(0, &[("in use", rate)]).is_ok());
        for other in 0..KEYS_MAX / 8 {
            let name = format!("other {round} {other}");
            assert_eq!(fleet.ask(0, &[(&name, rate)]), Ok(()));
        }
    }
    assert_eq!(admitted, 10);
}

#[test]
fn a_hundred_calls_a_second_cost_few_operations() {
    let [client, tool, close] = [12_000, 9_000, 6_100].map(|requests| Rate {
        requests,
        window_ms: 60_000,
    });
    let (one, two) = (
        &[("per-client", client)][..],
        &[("per-client", client), ("files__read", tool)][..],
    );
    for (isolates, limits, most) in [
        (1, one, 0.01),
        (1, two, 0.02),
        (4, one, 0.03),
        (8, one, 0.05),
        (50, one, 0.0),
        (50, &[("per-client", close)], 0.3),
    ] {
        let fleet = Fleet::new(isolates, SECOND * 60, 5);
        for call in 0..12_000 {
            assert_eq!(fleet.ask(call % isolates, limits), Ok(()));
            fleet.advance(Duration::from_millis(10));
        }
        let (reads, writes) = fleet.operations();
        println!(
            "{isolates} isolates, {} limits: {:.4} reads and {:.4} writes per call",
            limits.len(),
            reads as f64 / 12e3,
            writes as f64 / 12e3
        );
        assert!((reads + writes) as f64 / 12e3 <= most);
    }
}

#[test]
fn a_client_far_below_its_limit_costs_no_operations() {
    let rate = Rate {
        requests: 600,
        window_ms: 60_000,
    };
    let fleet = Fleet::new(1, Duration::ZERO, 6);
    for _ in 0..60 {
        assert_eq!(fleet.ask(0, &[("per-client", rate)]), Ok(()));
        fleet.advance(SECOND * 25);
    }
    assert_eq!(fleet.operations(), (0, 0));
}

/// Moves on to the start of a bucket.
fn align(fleet: &Fleet, rate: Rate) {
    fleet.advance_to(Timestamp(
        fleet.clock.now().0.div_ceil(rate.window_ms) * rate.window_ms,
    ));
}
