//! `cargo xtask bench --tasks`: tasks under load. Clients of many principals submit all of
//! them and poll each to its end; the upstream knows how often each ran, and the meters what
//! they asked of the queue and the stores.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::bench::echo::{AUTO, Echo, TASK, TOOL};
use crate::bench::load::{Load, Sample};
use crate::bench::wire::{Caller, Connection};
use crate::bench::{Flags, WARM_UP, configuration};
use crate::dev::Options;
use crate::dev::gateway::Gateway;
use crate::http;
use crate::issuer::keys::Claims;
use crate::layout::Layout;
use crate::progress::say;
use crate::{clock, stop};

/// How many principals the clients share.
const PRINCIPALS: usize = 25;
/// How often clients poll, in milliseconds, as the gateway tells them.
const POLL_MS: u64 = 1_000;
/// How long after its submission a task counts as lost.
const TASK_LIMIT: Duration = Duration::from_secs(300);

/// What came of the tasks, and what they took.
#[derive(Default)]
struct Outcome {
    /// From the call to the handle, in microseconds.
    submitted: Vec<u32>,
    /// From the call to the poll that saw its end.
    ended: Vec<u32>,
    polls: u64,
    /// What went wrong, in words.
    wrong: Vec<String>,
    lasted: Duration,
    /// What was asked of the upstream, the queue and the stores.
    used: BTreeMap<String, u64>,
    /// Tasks that ran, and those that ran more than once.
    ran: usize,
    again: usize,
}

/// Calls that are quick, of a tool without a rule and of one that may become a task.
struct Quick {
    sync: Sample,
    auto: Sample,
}

/// Runs it and prints what came of it.
pub fn run(layout: &Layout, flags: &Flags, count: usize) -> Result<()> {
    let upstream = Echo::start()?;
    let rules = json!({
        "tools": [
            {"name": format!("echo__{TASK}"), "execution": "task"},
            {"name": format!("echo__{AUTO}"), "execution": "auto"},
        ],
        "tasks": {"pollIntervalMs": POLL_MS},
    });
    let options = Options {
        raw: true,
        auth: true,
        config: Some(configuration(layout, "bench", rules)?),
        metered: true,
        ..Options::bare("echo", &format!("http://127.0.0.1:{}/mcp", upstream.port))
    };
    let gateway = Gateway::start(layout, &options)?;
    let principals = PRINCIPALS.min(flags.clients);
    let tokens = (0..principals).map(|number| token(&gateway, number));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let clients: Vec<Client<'_>> = (0..flags.clients)
        .zip(tokens.iter().cycle())
        .map(|(number, token)| Client {
            number,
            caller: Caller {
                port: gateway.port,
                token: Some(token),
                tasks: true,
            },
        })
        .collect();
    let first = clients.first().context("there are no clients")?;
    say("one task, to warm up");
    first.work("warm", 0..1, 0)?;
    say(&format!("{count} tasks of {} clients", flags.clients));
    let mut outcome = drive(&gateway, &upstream, &clients, flags, count)?;
    say("quick calls");
    let mut quick = Quick::measure(flags, first.caller)?;
    report(flags, &mut outcome, &mut quick, count)?;
    outcome.verdict(count)
}

/// Everything the meters count, by name.
fn counted(gateway: &Gateway, upstream: &Echo) -> Result<BTreeMap<String, u64>> {
    let raw = gateway.raw.as_ref().context("not on bare workerd")?;
    let mut all = raw.tally()?;
    let kv = raw.counts()?;
    all.insert("kv read".to_owned(), kv.reads);
    all.insert("kv write".to_owned(), kv.writes);
    for (method, times) in upstream.heard().methods {
        all.insert(format!("upstream {method}"), times);
    }
    Ok(all)
}

fn token(gateway: &Gateway, number: usize) -> Result<String> {
    let issuer = gateway.issuer.as_ref().context("there is no issuer")?;
    let mut claims = Claims::new(issuer.url(), &gateway.url);
    claims.set("sub", format!("principal-{number}").into());
    issuer.mint(&claims)
}

/// Has all clients do their share at once.
fn drive(
    gateway: &Gateway,
    upstream: &Echo,
    clients: &[Client<'_>],
    flags: &Flags,
    count: usize,
) -> Result<Outcome> {
    let before = counted(gateway, upstream)?;
    let began = clock::instant();
    let mut all = Outcome::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter()
            .map(|client| {
                let share = |number: usize| number * count / clients.len();
                let tasks = share(client.number)..share(client.number + 1);
                scope.spawn(move || client.work("task", tasks, flags.work_ms))
            })
            .collect();
        for thread in threads {
            let part = thread.join();
            let part = part.map_err(|_| anyhow!("a client's thread died"))??;
            all.submitted.extend(part.submitted);
            all.ended.extend(part.ended);
            all.polls += part.polls;
            all.wrong.extend(part.wrong);
        }
        Ok::<(), anyhow::Error>(())
    })?;
    all.lasted = began.elapsed();
    for (name, now) in counted(gateway, upstream)? {
        let then = before.get(&name).copied().unwrap_or(0);
        if now > then {
            all.used.insert(name, now - then);
        }
    }
    let calls = upstream.heard().calls;
    let calls = calls.iter().filter(|(text, _)| text.starts_with("task "));
    for (_, times) in calls {
        all.ran += 1;
        all.again += usize::from(*times > 1);
    }
    Ok(all)
}

impl Outcome {
    /// Fails if a task was lost or ran twice.
    fn verdict(&self, count: usize) -> Result<()> {
        if !self.wrong.is_empty() || self.ran != count || self.again > 0 {
            bail!(
                "of {count} tasks {} came to nothing, {} never ran and {} ran again; {}",
                self.wrong.len(),
                count.saturating_sub(self.ran),
                self.again,
                self.wrong.first().map_or("", String::as_str)
            );
        }
        Ok(())
    }
}

/// One client.
struct Client<'a> {
    number: usize,
    caller: Caller<'a>,
}

/// A task of a client.
struct Open {
    handle: String,
    text: String,
    since: std::time::Instant,
}

impl Client<'_> {
    /// Submits the tasks of these numbers, one after the other, and polls them to their ends.
    fn work(&self, kind: &str, tasks: std::ops::Range<usize>, work_ms: u64) -> Result<Outcome> {
        let mut connection = Connection::open(self.caller.port)?;
        let (mut outcome, mut open) = (Outcome::default(), Vec::new());
        for number in tasks {
            stop::check()?;
            let text = format!("{kind} {number}");
            let arguments = json!({"text": text, "ms": work_ms});
            let params = json!({"name": TASK, "arguments": arguments});
            let request = self.caller.request("tools/call", TASK, params);
            let since = clock::instant();
            let answer = connection.exchange(&request).and_then(|a| result(&a));
            match answer.as_ref().map(|result| result["taskId"].as_str()) {
                Ok(Some(handle)) => {
                    outcome.submitted.push(micros(since));
                    let handle = handle.to_owned();
                    open.push(Open {
                        handle,
                        text,
                        since,
                    });
                }
                _ => outcome
                    .wrong
                    .push(format!("no handle for {text}: {answer:?}")),
            }
        }
        while !open.is_empty() {
            stop::check()?;
            let round = clock::instant();
            let mut left = Vec::new();
            for task in open {
                outcome.polls += 1;
                match self.poll(&mut connection, &task) {
                    Ok(true) => outcome.ended.push(micros(task.since)),
                    Ok(false) if task.since.elapsed() < TASK_LIMIT => left.push(task),
                    Ok(false) => outcome.wrong.push(format!("{} never ended", task.text)),
                    Err(error) => outcome.wrong.push(format!("{}: {error:#}", task.text)),
                }
            }
            open = left;
            let pause = Duration::from_millis(POLL_MS).saturating_sub(round.elapsed());
            std::thread::sleep(if open.is_empty() {
                Duration::ZERO
            } else {
                pause
            });
        }
        Ok(outcome)
    }

    /// Whether the task has ended as it should.
    fn poll(&self, connection: &mut Connection, task: &Open) -> Result<bool> {
        let params = json!({"taskId": task.handle});
        let request = self.caller.request("tasks/get", &task.handle, params);
        let state = result(&connection.exchange(&request)?)?;
        match state["status"].as_str() {
            Some("working") => Ok(false),
            Some("completed") if state["result"]["content"][0]["text"] == task.text => Ok(true),
            _ => bail!("{state}"),
        }
    }
}

fn micros(since: std::time::Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// The result in an answer.
fn result(answer: &http::Response) -> Result<Value> {
    let text = String::from_utf8_lossy(&answer.body);
    // Of a stream, the last event.
    let last = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("data:"));
    let message: Value = serde_json::from_str(last.unwrap_or(&text))
        .with_context(|| format!("status {}: {text}", answer.status))?;
    match message.get("result") {
        Some(result) => Ok(result.clone()),
        None => bail!("status {}: {text}", answer.status),
    }
}

impl Quick {
    /// Both in turn, so that they see the same machine.
    fn measure(flags: &Flags, caller: Caller<'_>) -> Result<Self> {
        let load = |tool| Load::new(caller, tool, flags.connections);
        let (sync, auto) = (load(TOOL), load(AUTO));
        let mut quick = Self {
            sync: sync.drive(WARM_UP)?,
            auto: auto.drive(WARM_UP)?,
        };
        for _ in 0..flags.rounds {
            let length = Duration::from_secs(flags.seconds);
            quick.sync.add(sync.drive(length)?);
            quick.auto.add(auto.drive(length)?);
        }
        Ok(quick)
    }
}

fn report(flags: &Flags, outcome: &mut Outcome, quick: &mut Quick, count: usize) -> Result<()> {
    let total = u32::try_from(count.max(1)).context("too many tasks")?;
    let times = |micros: &[u32]| {
        let mut sample = Sample::of(micros.to_vec(), outcome.lasted);
        [50, 90, 99, 100].map(|percent| sample.percentile(percent) / 1_000)
    };
    let (submitted, ended) = (times(&outcome.submitted), times(&outcome.ended));
    let per_second = f64::from(total) / outcome.lasted.as_secs_f64();
    let (sync, auto) = (quick.sync.per_second(), quick.auto.per_second());
    if flags.json {
        let mut used = Map::new();
        for (name, times) in &outcome.used {
            used.insert(name.clone(), json!(times));
        }
        println!(
            "{}",
            json!({"tasks": count, "clients": flags.clients, "workMs": flags.work_ms,
                "completed": outcome.ended.len(), "wrong": outcome.wrong.len(),
                "ranAgain": outcome.again, "tasksPerSecond": per_second,
                "handleMs": submitted, "endMs": ended, "polls": outcome.polls, "used": used,
                "quickSyncPerSecond": sync, "quickAutoPerSecond": auto})
        );
        return Ok(());
    }
    println!(
        "\n{count} tasks of {} ms, {} clients of {PRINCIPALS} principals: {} completed in {:.1} s, {per_second:.0}/s",
        flags.work_ms,
        flags.clients,
        outcome.ended.len(),
        outcome.lasted.as_secs_f64()
    );
    println!(
        "{:<28}{:>8}{:>8}{:>8}{:>8}",
        "ms", "p50", "p90", "p99", "max"
    );
    for (name, [p50, p90, p99, max]) in [("to the handle", submitted), ("to the end", ended)] {
        println!("{name:<28}{p50:>8}{p90:>8}{p99:>8}{max:>8}");
    }
    println!("{:<28}{:>8}{:>10}", "asked", "times", "per task");
    let polls = ("client poll".to_owned(), outcome.polls);
    for (name, times) in outcome.used.clone().into_iter().chain([polls]) {
        let per_task = f64::from(u32::try_from(times).unwrap_or(u32::MAX)) / f64::from(total);
        println!("{name:<28}{times:>8}{per_task:>10.2}");
    }
    println!(
        "a quick call, {} connections: {sync:.0}/s, p50 {} µs; one that could become a task: \
         {auto:.0}/s, p50 {} µs, {:.0}% of it",
        flags.connections,
        quick.sync.percentile(50),
        quick.auto.percentile(50),
        100.0 * auto / sync
    );
    Ok(())
}
