//! `cargo xtask bench --limits`: clients that ask for ten times their limit, all at once, on
//! bare workerd: what is admitted beside what may be, and what counting asks of the stores.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::bench::echo::{AUTO, Echo, TASK, TOOL};
use crate::bench::load::Sample;
use crate::bench::wire::{Caller, Connection};
use crate::bench::{Flags, configuration};
use crate::dev::Options;
use crate::dev::gateway::Gateway;
use crate::issuer::keys::Claims;
use crate::layout::Layout;
use crate::progress::say;
use crate::{clock, stop};

/// What each client may in one window, and how many times that it asks.
const LIMIT: u32 = 8;
const DEMAND: u32 = 10;
/// One run lies within one window.
const WINDOW_S: u64 = 600;
/// How much of a window there must be left beyond the run.
const SPARE_S: u64 = 10;

/// One way of counting: its name, the tool it is for, and its limit.
struct Leg {
    name: &'static str,
    tool: &'static str,
    counter: &'static str,
    /// Whether it is one limit for all clients together.
    shared: bool,
}

const LEGS: [Leg; 3] = [
    Leg {
        name: "each client, through KV",
        tool: TOOL,
        counter: "kv",
        shared: false,
    },
    Leg {
        name: "each client, leased",
        tool: TASK,
        counter: "atomic",
        shared: false,
    },
    Leg {
        name: "all clients together, leased",
        tool: AUTO,
        counter: "atomic",
        shared: true,
    },
];

/// What came of one leg.
#[derive(Default)]
struct Outcome {
    asked: usize,
    refused: usize,
    /// Admissions of each client.
    admitted: Vec<usize>,
    micros: Vec<u32>,
    /// What was asked of the stores.
    used: BTreeMap<String, u64>,
    lasted: Duration,
    /// What was neither admitted nor refused.
    wrong: Vec<String>,
}

/// Runs it and prints what came of it.
pub fn run(layout: &Layout, flags: &Flags) -> Result<()> {
    let upstream = Echo::start()?;
    let clients = u32::try_from(flags.clients).context("too many clients")?;
    let rules: Vec<Value> = LEGS.iter().map(|leg| leg.rule(clients)).collect();
    let options = Options {
        raw: true,
        auth: true,
        config: Some(configuration(
            layout,
            "bench",
            json!({"limits": {"rules": rules}}),
        )?),
        metered: true,
        ..Options::bare("echo", &format!("http://127.0.0.1:{}/mcp", upstream.port))
    };
    let gateway = Gateway::start(layout, &options)?;
    let tokens = (0..clients).map(|number| token(&gateway, number));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let length = Duration::from_secs(flags.seconds);
    let mut outcomes = Vec::new();
    for leg in &LEGS {
        let left = WINDOW_S - clock::unix_seconds() % WINDOW_S;
        if left < flags.seconds + SPARE_S {
            say(&format!("waiting {left} s for a window that holds the run"));
            std::thread::sleep(Duration::from_secs(left));
        }
        say(&format!("{clients} clients for {length:?}: {}", leg.name));
        outcomes.push(leg.drive(&gateway, &tokens, length)?);
    }
    report(flags, clients, &mut outcomes)?;
    for (leg, outcome) in LEGS.iter().zip(&outcomes) {
        leg.verdict(clients, outcome)?;
    }
    Ok(())
}

/// A token of a principal of its own.
fn token(gateway: &Gateway, number: u32) -> Result<String> {
    let issuer = gateway.issuer.as_ref().context("there is no issuer")?;
    let mut claims = Claims::new(issuer.url(), &gateway.url);
    claims.set("sub", format!("client-{number}").into());
    issuer.mint(&claims)
}

/// What is asked of KV and of the objects so far, by name.
fn counted(gateway: &Gateway) -> Result<BTreeMap<String, u64>> {
    let raw = gateway.raw.as_ref().context("not on bare workerd")?;
    let mut all = raw.tally()?;
    let kv = raw.counts()?;
    all.insert("kv read".to_owned(), kv.reads);
    all.insert("kv write".to_owned(), kv.writes);
    Ok(all)
}

impl Leg {
    fn limit(&self, clients: u32) -> u32 {
        LIMIT * if self.shared { clients } else { 1 }
    }

    fn rule(&self, clients: u32) -> Value {
        let per = if self.shared {
            json!([])
        } else {
            json!(["principal"])
        };
        json!({
            "name": self.name, "per": per, "tools": [format!("echo__{}", self.tool)],
            "counter": self.counter,
            "rate": {"requests": self.limit(clients), "windowMs": WINDOW_S * 1_000},
        })
    }

    /// Most that may be admitted: one isolate serves all, and the run lies in one window.
    fn bound(&self, clients: u32) -> usize {
        let each = if self.shared { 1 } else { clients };
        usize::try_from(self.limit(clients) * each).unwrap_or(usize::MAX)
    }

    fn drive(&self, gateway: &Gateway, tokens: &[String], length: Duration) -> Result<Outcome> {
        let before = counted(gateway)?;
        let mut all = Outcome::default();
        let began = clock::instant();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0u32..)
                .zip(tokens)
                .map(|(number, token)| {
                    let caller = Caller {
                        port: gateway.port,
                        token: Some(token),
                        tasks: false,
                    };
                    scope.spawn(move || self.client(caller, number, length))
                })
                .collect();
            for thread in threads {
                let part = thread.join();
                let part = part.map_err(|_| anyhow!("a client's thread died"))??;
                all.asked += part.asked;
                all.refused += part.refused;
                all.admitted.extend(part.admitted);
                all.micros.extend(part.micros);
                all.wrong.extend(part.wrong);
            }
            Ok::<(), anyhow::Error>(())
        })?;
        all.lasted = began.elapsed();
        for (name, now) in counted(gateway)? {
            let then = before.get(&name).copied().unwrap_or(0);
            if now > then {
                all.used.insert(name, now - then);
            }
        }
        Ok(all)
    }

    /// One client: its calls evenly spread over the run, or as fast as they are answered.
    fn client(&self, caller: Caller<'_>, number: u32, length: Duration) -> Result<Outcome> {
        let arguments = json!({"text": "the tide"});
        let params = json!({"name": self.tool, "arguments": arguments});
        let request = caller.request("tools/call", self.tool, params);
        let (calls, began) = (LIMIT * DEMAND, clock::instant());
        let mut connection = Connection::open(caller.port)?;
        let (mut outcome, mut admitted) = (Outcome::default(), 0);
        // Not all in the same moment.
        let shift = length / calls * (number % 16) / 16;
        for call in 0..calls {
            stop::check()?;
            std::thread::sleep((length / calls * call + shift).saturating_sub(began.elapsed()));
            if began.elapsed() >= length {
                break;
            }
            let sent = clock::instant();
            outcome.asked += 1;
            match connection.exchange(&request) {
                Ok(answer) if answer.status == 200 => admitted += 1,
                Ok(answer) if answer.status == 429 => outcome.refused += 1,
                Ok(answer) => {
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    outcome.wrong.push(format!("{}: {text}", answer.status));
                }
                Err(error) => outcome.wrong.push(format!("{error:#}")),
            }
            let micros = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
            outcome.micros.push(micros);
        }
        outcome.admitted.push(admitted);
        Ok(outcome)
    }

    /// Fails if more was admitted than may be.
    fn verdict(&self, clients: u32, outcome: &Outcome) -> Result<()> {
        let (admitted, bound) = (outcome.total(), self.bound(clients));
        if admitted > bound || (!self.shared && outcome.most() > self.bound(1)) {
            bail!(
                "{}: {admitted} were admitted, and {bound} may be",
                self.name
            );
        }
        if let Some(first) = outcome.wrong.first() {
            let count = outcome.wrong.len();
            bail!(
                "{}: {count} calls were answered otherwise: {first}",
                self.name
            );
        }
        Ok(())
    }
}

impl Outcome {
    fn total(&self) -> usize {
        self.admitted.iter().sum()
    }

    /// The most one client was admitted.
    fn most(&self) -> usize {
        self.admitted.iter().copied().max().unwrap_or(0)
    }

    /// Operations of stores whose name begins so, per call.
    fn per_call(&self, store: &str) -> f64 {
        let names = self.used.iter().filter(|(name, _)| name.starts_with(store));
        let operations: u64 = names.map(|(_, times)| times).sum();
        let real = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        real(operations) / real(u64::try_from(self.asked.max(1)).unwrap_or(u64::MAX))
    }
}

fn report(flags: &Flags, clients: u32, outcomes: &mut [Outcome]) -> Result<()> {
    let mut rows = Vec::new();
    for (leg, outcome) in LEGS.iter().zip(outcomes) {
        let mut sample = Sample::of(std::mem::take(&mut outcome.micros), outcome.lasted);
        rows.push(json!({
            "counted": leg.name, "limit": leg.limit(clients), "asked": outcome.asked,
            "admitted": outcome.total(), "bound": leg.bound(clients),
            "mostOfOneClient": outcome.most(), "refused": outcome.refused,
            "wrong": outcome.wrong.len(), "seconds": outcome.lasted.as_secs_f64(),
            "kvPerCall": outcome.per_call("kv"), "atomicPerCall": outcome.per_call("store"),
            "p50Us": sample.percentile(50), "p99Us": sample.percentile(99), "used": outcome.used,
        }));
    }
    if flags.json {
        println!("{}", json!({"clients": clients, "legs": rows}));
        return Ok(());
    }
    println!("\n{clients} clients at {DEMAND} times their limit, one isolate");
    println!(
        "{:<30}{:>7}{:>7}{:>9}{:>7}{:>12}{:>9}{:>9}{:>12}{:>9}{:>9}",
        "counted for",
        "limit",
        "asked",
        "admitted",
        "bound",
        "most of one",
        "refused",
        "KV/call",
        "atomic/call",
        "p50 µs",
        "p99 µs"
    );
    for row in &rows {
        let real = |member: &str| row[member].as_f64().unwrap_or_default();
        // A JSON value is not padded.
        let whole = |member: &str| row[member].to_string();
        println!(
            "{:<30}{:>7}{:>7}{:>9}{:>7}{:>12}{:>9}{:>9.4}{:>12.4}{:>9}{:>9}",
            row["counted"].as_str().unwrap_or_default(),
            whole("limit"),
            whole("asked"),
            whole("admitted"),
            whole("bound"),
            whole("mostOfOneClient"),
            whole("refused"),
            real("kvPerCall"),
            real("atomicPerCall"),
            whole("p50Us"),
            whole("p99Us")
        );
    }
    Ok(())
}
