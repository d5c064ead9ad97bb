//! Clients that come in bursts, over every number of isolates and every staleness: what is
//! admitted beside the stated bound, for limits counted through KV and for leased ones.
//! `cargo test -p tests --test gateway limits_bound::bursts -- --nocapture` prints the tables.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_gateway::config::Rate;
use tidegate_gateway::limits::seat::{REST, ROW, SEATS};
use tidegate_gateway::limits::{
    HIDDEN_SHARE, Method, REPORT_DELAY_MAX, REPORT_INTERVAL, WRITE_SHARE, look_interval,
};
use tidegate_gateway::platform::Clock;
use tidegate_gateway::time::Timestamp;

use super::fleet::{Fleet, densest};

const ISOLATES: [usize; 8] = [1, 2, 5, 10, 20, 50, 100, 200];
const STALENESS_S: [u64; 6] = [0, 1, 10, 30, 60, 90];
const SECOND: Duration = Duration::from_secs(1);

/// What is limited, and how much is asked.
#[derive(Clone, Copy)]
struct Setting {
    how: &'static str,
    exact: bool,
    rate: Rate,
    /// How many times the limit is asked for in each window.
    demand: u64,
    windows: u64,
}

const KV: Setting = Setting {
    how: "counted through KV",
    exact: false,
    rate: Rate {
        requests: 100,
        window_ms: 60_000,
    },
    demand: 10,
    windows: 3,
};

/// Of which a chunk is ten requests.
const LEASED: Setting = Setting {
    how: "leased",
    exact: true,
    rate: Rate {
        requests: 640,
        window_ms: 60_000,
    },
    demand: 3,
    windows: 2,
};

impl Setting {
    /// How many calls come in one window.
    fn calls(&self) -> u64 {
        self.demand * u64::from(self.rate.requests)
    }
}

/// How the calls of one window come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clients {
    /// Evenly, each call to the next isolate.
    Even,
    /// All within the first ten seconds of the window, each to the next isolate.
    Together,
    /// Fifty at once to one isolate, then to another.
    Sticky,
}

impl Clients {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Even, "even: each call to the next isolate"),
        (
            Self::Together,
            "together: a window's calls within ten seconds",
        ),
        (
            Self::Sticky,
            "sticky: fifty at once to one isolate, then to another",
        ),
    ];

    /// When after the beginning the call of this number comes, and to which isolate.
    fn arrival(self, setting: &Setting, call: u64, isolates: u64) -> (Duration, usize) {
        let (each, window_ms) = (setting.calls(), setting.rate.window_ms);
        let (window, within) = (call / each, call % each);
        let (ms, turn) = match self {
            Self::Even => (within * window_ms / each, call),
            Self::Together => (within * 10_000 / each, call),
            Self::Sticky => (within / 50 * 50 * window_ms / each, call / 50),
        };
        let isolate = usize::try_from(turn % isolates).unwrap();
        (Duration::from_millis(window * window_ms + ms), isolate)
    }
}

/// What became of one combination.
struct Cell {
    /// Most admitted in one bucket.
    admitted: usize,
    bound: usize,
    /// Operations of the store that counts, per call.
    operations: f64,
}

#[test]
fn limits_counted_through_kv_stay_within_their_bound() {
    table(KV, |cell, told| {
        assert!(cell.admitted <= cell.bound, "{told}: {}", cell.admitted);
    });
}

#[test]
fn leased_limits_are_never_exceeded_and_at_least_half_is_admitted() {
    table(LEASED, |cell, told| {
        assert!(cell.admitted <= cell.bound, "{told}: {}", cell.admitted);
        assert!(cell.admitted * 2 >= cell.bound, "{told}: {}", cell.admitted);
        assert!(cell.operations <= 0.5, "{told}: {}", cell.operations);
    });
}

#[expect(
    clippy::print_stdout,
    reason = "the table is what `--nocapture` is for"
)]
fn table(setting: Setting, check: impl Fn(&Cell, &str)) {
    let Setting {
        how, rate, demand, ..
    } = setting;
    let limit = rate.requests;
    for (clients, name) in Clients::ALL {
        let head = STALENESS_S.map(|s| format!("{:>22}", format!("{s} s stale")));
        let mut lines = vec![
            format!("\n{how}, clients {name}; {demand} x {limit} per minute are asked:"),
            "most admitted in a window / bound (operations of the store that counts, per call)"
                .to_owned(),
            format!("isolates{}", head.concat()),
        ];
        for isolates in ISOLATES {
            let mut row = format!("{isolates:8}");
            for staleness in STALENESS_S {
                let cell = simulate(setting, clients, isolates, SECOND * staleness as u32);
                check(
                    &cell,
                    &format!("{name}, {isolates} isolates, {staleness} s"),
                );
                let Cell {
                    admitted,
                    bound,
                    operations,
                } = cell;
                let text = format!("{admitted} / {bound} ({operations:.3})");
                row.push_str(&format!("{text:>22}"));
            }
            lines.push(row);
        }
        // At once: the other table is made beside this one.
        println!("{}", lines.join("\n"));
    }
}

fn simulate(setting: Setting, clients: Clients, isolates: usize, staleness: Duration) -> Cell {
    let Setting {
        exact,
        rate,
        windows,
        ..
    } = setting;
    let mut fleet = Fleet::new(isolates, staleness, isolates as u64);
    fleet.method = match exact {
        true => Method::Exact,
        false => Method::Rough,
    };
    let start = Timestamp(fleet.clock.now().0.div_ceil(rate.window_ms) * rate.window_ms);
    let calls = windows * setting.calls();
    let mut admitted = vec![0; usize::try_from(windows).unwrap()];
    let mut asked: BTreeMap<usize, Vec<Timestamp>> = BTreeMap::new();
    for call in 0..calls {
        let (after, isolate) = clients.arrival(&setting, call, isolates as u64);
        fleet.advance_to(start + after);
        let now = fleet.clock.now();
        asked.entry(isolate).or_default().push(now);
        if fleet.ask(isolate, &[("l", rate)]).is_ok() {
            let window = now.since(start).as_millis() as u64 / rate.window_ms;
            admitted[usize::try_from(window).unwrap()] += 1;
        }
    }
    fleet.advance(SECOND * 60);
    assert_eq!(fleet.too_fast(), [""; 0], "a key was written too fast");
    let (reads, writes) = fleet.operations();
    let operations = match exact {
        true => fleet.atomic_operations() as u64,
        false => reads + writes,
    };
    Cell {
        admitted: admitted.into_iter().max().unwrap_or(0),
        bound: match exact {
            true => rate.requests as usize,
            false => bound(rate, isolates, staleness, &asked),
        },
        operations: operations as f64 / calls as f64,
    }
}

/// `L + (s − 1) × min(L, p × h + m) + (n − s) × min(L, q)`, with `m` and `q` as these calls
/// came.
fn bound(
    rate: Rate,
    isolates: usize,
    staleness: Duration,
    asked: &BTreeMap<usize, Vec<Timestamp>>,
) -> usize {
    let limit = rate.requests as usize;
    let share = WRITE_SHARE * u32::try_from(isolates).unwrap();
    let report = share.clamp(REPORT_INTERVAL, REPORT_DELAY_MAX) * 2;
    let passes = if isolates <= ROW { 1 } else { 2 };
    let seen_after = REST + report + (report + staleness + look_interval(rate)) * passes;
    let most = |span: Duration| asked.values().map(|times| densest(times, span)).max();
    let within = most(seen_after).unwrap_or(0);
    let bucket = most(Duration::from_millis(rate.window_ms)).unwrap_or(0);
    let hidden = passes as usize * (limit / HIDDEN_SHARE as usize);
    let seated = isolates.min(SEATS);
    limit + (seated - 1) * limit.min(hidden + within) + (isolates - seated) * limit.min(bucket)
}
