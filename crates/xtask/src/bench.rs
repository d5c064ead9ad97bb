//! `cargo xtask bench`: what the gateway costs per call.
//!
//! One run drives the same upstream in turn directly, through a Worker that only passes
//! requests on, and through the gateway (both on one bare workerd, with state in memory), so
//! that all legs see the same machine. The numbers compare the legs; they are no promise
//! about Cloudflare's network.

mod cold;
mod echo;
mod limits;
mod load;
mod policy;
mod tasks;
mod tokens;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::arguments::{Arguments, unexpected};
use crate::bench::echo::{Echo, TASK, TOOL};
use crate::bench::load::{Load, Sample};
use crate::bench::wire::Caller;
use crate::dev::Options;
use crate::dev::gateway::Gateway;
use crate::dev::raw::{KvCounts, RawHost};
use crate::http;
use crate::layout::{Layout, make_dir, write_atomically};
use crate::progress::say;

/// Shown by `cargo xtask bench --help`.
pub const HELP: &str = "\
cargo xtask bench [FLAG …]

Calls an echo tool directly, through a Worker that only passes on, through the gateway, and
through one with everything on, in turn, and compares. What is added, is to the pass-through.

  --seconds N        length of each leg (default 5; with --limits 60)
  --connections N    connections kept busy, one request at a time each (default 8)
  --rounds N         how often the legs alternate (default 2)
  --auth dev|off     whether the gateway checks a token (default dev)
  --spin             the Spin component as well: its calls, its size and what a new instance
                     costs, beside the Worker's
  --json             print the result as JSON

  --tasks N          instead, N tasks of many principals, to their ends: how long they take,
                     and what each asks of the queue and the stores; then what a quick call
                     costs that could have become one
  --limits           instead, clients at ten times their limit for a minute: what is admitted
                     beside the bound, and what counting asks of the stores, for limits counted
                     through KV and leased ones
  --clients N        clients that submit and poll tasks (default 50), or reach for their limit
                     (default 200)
  --work-ms N        how long the tool takes (default 100)

  --tokens N         instead, N tokens of each signature algorithm, each sent twice: what
                     verifying one costs, and what one costs that is remembered
  --policy N         instead, N lists of 200 tools and N calls under policies of 0, 1, 10 and
                     100 rules: what deciding costs
";

/// How long each leg runs before it counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// The operators' token of the busy gateway, and the secret that holds it.
const OPERATOR: &str = "the-operators-token-of-the-benchmark";
const ADMIN_TOKEN: &str = "TIDEGATE_ADMIN_TOKEN";
/// How many rules the policy of the busy gateway has.
const RULES: usize = 10;
/// A limit no run reaches, so that calls are counted and none is refused.
const LIMIT_REQUESTS: u32 = 1_000_000;
const LIMIT_WINDOW_MS: u32 = 60_000;

struct Flags {
    seconds: u64,
    connections: usize,
    rounds: u32,
    auth: bool,
    spin: bool,
    json: bool,
    tasks: Option<usize>,
    limits: bool,
    clients: usize,
    work_ms: u64,
    tokens: Option<usize>,
    policy: Option<usize>,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<()> {
    let flags = parse(arguments)?;
    let layout = Layout::find()?;
    if let Some(count) = flags.tasks {
        return tasks::run(&layout, &flags, count);
    }
    if let Some(count) = flags.tokens {
        return tokens::run(&layout, flags.json, count);
    }
    if let Some(count) = flags.policy {
        return policy::run(&layout, flags.json, count);
    }
    if flags.limits {
        return limits::run(&layout, &flags);
    }
    let upstream = Echo::start()?.port;
    let url = format!("http://127.0.0.1:{upstream}/mcp");
    let options = Options {
        raw: true,
        auth: flags.auth,
        config: Some(configuration(&layout, "bench", json!({}))?),
        pass_through: Some(url.clone()),
        ..Options::bare("echo", &url)
    };
    let gateway = Gateway::start(&layout, &options)?;
    let raw = gateway
        .raw
        .as_ref()
        .context("the gateway is not on bare workerd")?;
    let passing = raw.pass_through.context("nothing passes requests on")?;
    // Both workers are built from one tree and share nothing else.
    let busy = Gateway::start(
        &layout,
        &Options {
            config: Some(configuration(&layout, "busy", everything(&url))?),
            pass_through: None,
            prefix: Some(true),
            upstreams: Vec::new(),
            secrets: vec![(ADMIN_TOKEN.to_owned(), OPERATOR.to_owned())],
            ..options.clone()
        },
    )?;
    switch_off(busy.port, &format!("echo__{TASK}"))?;
    let spin = match flags.spin {
        true => Some(on_spin(&layout, &url, &options)?),
        false => None,
    };
    let load = |port, token, tool: &str| {
        let caller = Caller {
            port,
            token,
            tasks: false,
        };
        Load::new(caller, tool, flags.connections)
    };
    let mut legs = vec![
        Leg::new("directly", load(upstream, None, TOOL), None),
        Leg::new("through a pass-through", load(passing, None, TOOL), None),
        Leg::new(
            "through the gateway",
            load(gateway.port, gateway.token.as_deref(), TOOL),
            Some(raw),
        ),
        Leg::new(
            "with everything on",
            load(busy.port, busy.token.as_deref(), &format!("echo__{TOOL}")),
            busy.raw.as_ref(),
        ),
    ];
    if let Some(spin) = &spin {
        let load = load(spin.port, spin.token.as_deref(), TOOL);
        legs.push(Leg::new("through it on Spin", load, None));
    }
    // All warm: connections open, keys and catalogs cached.
    for leg in &legs {
        leg.load.drive(WARM_UP)?;
    }
    for round in 1..=flags.rounds {
        for leg in &mut legs {
            say(&format!("round {round} of {}: {}", flags.rounds, leg.name));
            let before = leg.counts()?;
            leg.sample
                .add(leg.load.drive(Duration::from_secs(flags.seconds))?);
            let after = leg.counts()?;
            leg.kv.add(&before, &after);
            leg.kv_in_all = after;
        }
    }
    report(&flags, &mut legs);
    match &spin {
        Some(spin) => cold::report(&layout, &gateway.dir.join("raw"), spin),
        None => Ok(()),
    }
}

/// The component in front of the same upstream, with the same configuration.
fn on_spin(layout: &Layout, upstream: &str, worker: &Options) -> Result<Gateway> {
    let options = Options {
        auth: worker.auth,
        config: worker.config.clone(),
        port: Some(0),
        spin: true,
        ..Options::bare("echo", upstream)
    };
    Gateway::start(layout, &options)
}

/// One way to the upstream.
struct Leg<'a> {
    name: &'static str,
    load: Load,
    /// Whose KV counts, where the way is through a gateway on bare workerd.
    host: Option<&'a RawHost>,
    sample: Sample,
    /// What it asked of KV while it was measured.
    kv: KvCounts,
    /// The same from the start.
    kv_in_all: KvCounts,
}

impl<'a> Leg<'a> {
    fn new(name: &'static str, load: Load, host: Option<&'a RawHost>) -> Self {
        Self {
            name,
            load,
            host,
            sample: Sample::default(),
            kv: KvCounts::default(),
            kv_in_all: KvCounts::default(),
        }
    }

    fn counts(&self) -> Result<KvCounts> {
        self.host
            .map_or_else(|| Ok(KvCounts::default()), RawHost::counts)
    }
}

/// Switches a tool off that nobody calls, so that there are switches to look at.
fn switch_off(port: u16, tool: &str) -> Result<()> {
    let body = json!({"kind": "tool", "value": tool, "reason": "nobody calls it"}).to_string();
    let authorization = format!("Bearer {OPERATOR}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    let limit = Duration::from_secs(10);
    let path = "/admin/switches";
    let answer = http::request(port, "POST", path, &headers, body.as_bytes(), limit)?;
    if answer.status != 200 {
        let said = String::from_utf8_lossy(&answer.body);
        bail!("{path} answered {}: {said}", answer.status);
    }
    Ok(())
}

/// A configuration that counts calls, as a gateway in use does, and never refuses one.
fn configuration(layout: &Layout, name: &str, besides: Value) -> Result<PathBuf> {
    let file = layout.dev().join(format!("{name}.yaml"));
    make_dir(&layout.dev())?;
    let mut config = json!({
        "apiVersion": "tidegate/v1",
        "kind": "Gateway",
        "metadata": {"name": "bench", "owner": "bench", "environment": "dev"},
        "publicUrl": "http://127.0.0.1:8787",
        "authentication": {"type": "none"},
        "upstreams": [],
        "limits": {"perClient": {"requests": LIMIT_REQUESTS, "windowMs": LIMIT_WINDOW_MS}},
    });
    if let (Value::Object(config), Value::Object(besides)) = (&mut config, besides) {
        config.extend(besides);
    }
    write_atomically(&file, config.to_string().as_bytes())?;
    Ok(file)
}

/// A policy of so many rules, of which the last allows and the others never hold.
fn policy_of(rules: usize) -> Value {
    let denials = (1..rules).map(|number| {
        json!({"name": format!("deny-{number}"), "effect": "deny", "tools": ["*"],
            "when": format!("args.text == 'never {number}' && principal.subject != ''")})
    });
    let allow = json!({"name": "allow", "effect": "allow", "tools": ["*"]});
    json!({"rules": denials.chain([allow]).collect::<Vec<_>>()})
}

/// Whatever can be asked for about every call without a store of its own in its path: limits
/// of both kinds, a quota, circuits per tool, a policy, the tool's own rule, keys that no call
/// has, and of the upstream a canary, a mirror, a fallback, retries and a bulkhead.
fn everything(upstream: &str) -> Value {
    let rate = json!({"requests": LIMIT_REQUESTS, "windowMs": LIMIT_WINDOW_MS});
    let tool = format!("echo__{TOOL}");
    // The same server, which does not look at the path.
    let version = |name: &str| format!("{upstream}/{name}");
    json!({
        "upstreams": [
            {"name": "echo", "url": upstream,
                "canary": {"url": version("canary"), "weightPercent": 10,
                    "rollback": {"maxP95Ms": 10_000}},
                "mirror": {"url": version("mirror"), "percent": 1},
                "fallback": "spare",
                "retry": {"hedgeAfterMs": 30_000},
                "bulkhead": {"maxCalls": 1_000, "waitMs": 1_000}},
            {"name": "spare", "url": version("spare")},
        ],
        "idempotency": {"enabled": true},
        "limits": {
            "perClient": rate,
            "rules": [
                {"name": "tenant", "rate": rate, "per": ["tenant"]},
                {"name": "tool", "rate": rate, "per": ["principal", "tool"], "tools": [tool]},
                {"name": "exact", "rate": rate, "per": ["principal"], "counter": "atomic"},
            ],
            "quotas": [{"name": "month", "unit": "calls", "limit": LIMIT_REQUESTS, "period": "month",
                "per": ["principal"]}],
            "requestTimeoutMs": 30_000,
            "maxRequestsAtOnce": 1_000,
        },
        "circuitBreaker": {"failureRate": {"percent": 50}, "perTool": true, "shared": true},
        "policy": policy_of(RULES),
        "tools": [{"name": tool, "rateLimit": rate, "idempotent": true, "readOnly": true}],
    })
}

fn parse(mut arguments: Arguments) -> Result<Flags> {
    let mut flags = Flags {
        seconds: 5,
        connections: 8,
        rounds: 2,
        auth: true,
        spin: false,
        json: false,
        tasks: None,
        limits: false,
        clients: 50,
        work_ms: 100,
        tokens: None,
        policy: None,
    };
    let (mut seconds, mut clients) = (None, None);
    while let Some(argument) = arguments.next()? {
        match argument.as_str() {
            "--seconds" => seconds = Some(arguments.parsed("number of seconds")?),
            "--connections" => flags.connections = arguments.parsed("number of connections")?,
            "--rounds" => flags.rounds = arguments.parsed("number of rounds")?,
            "--auth" => flags.auth = arguments.choice("auth", "dev", "off")?,
            "--spin" => flags.spin = true,
            "--json" => flags.json = true,
            "--tasks" => flags.tasks = Some(arguments.parsed("number of tasks")?),
            "--tokens" => flags.tokens = Some(arguments.parsed("number of tokens")?),
            "--policy" => flags.policy = Some(arguments.parsed("number of requests")?),
            "--limits" => flags.limits = true,
            "--clients" => clients = Some(arguments.parsed("number of clients")?),
            "--work-ms" => flags.work_ms = arguments.parsed("number of milliseconds")?,
            other => return unexpected(other),
        }
    }
    if flags.limits {
        (flags.seconds, flags.clients) = (60, 200);
    }
    flags.seconds = seconds.unwrap_or(flags.seconds);
    flags.clients = clients.unwrap_or(flags.clients);
    Ok(flags)
}

fn report(flags: &Flags, legs: &mut [Leg<'_>]) {
    let direct = legs[0].sample.per_second();
    let passing = [50, 99].map(|percent| legs[1].sample.percentile(percent));
    if flags.json {
        let legs: Vec<_> = legs
            .iter_mut()
            .map(|leg| {
                json!({"name": leg.name, "callsPerSecond": leg.sample.per_second(),
                    "p50Us": leg.sample.percentile(50), "p99Us": leg.sample.percentile(99),
                    "addedP50Us": i64::from(leg.sample.percentile(50)) - i64::from(passing[0]),
                    "addedP99Us": i64::from(leg.sample.percentile(99)) - i64::from(passing[1]),
                    "calls": leg.sample.calls(), "errors": leg.sample.errors,
                    "kvReads": leg.kv.reads, "kvWrites": leg.kv.writes,
                    "kvReadsInAll": leg.kv_in_all.reads, "kvWritesInAll": leg.kv_in_all.writes})
            })
            .collect();
        println!(
            "{}",
            json!({"connections": flags.connections, "legs": legs})
        );
        return;
    }
    println!(
        "\n{:<24}{:>10}{:>9}{:>9}{:>9}{:>11}{:>11}{:>8}{:>8}{:>10}{:>10}",
        format!("{} connections", flags.connections),
        "calls/s",
        "share",
        "p50 µs",
        "p99 µs",
        "added p50",
        "added p99",
        "calls",
        "errors",
        "KV reads",
        "KV writes"
    );
    for leg in &mut *legs {
        println!(
            "{:<24}{:>10.0}{:>8.1}%{:>9}{:>9}{:>11}{:>11}{:>8}{:>8}{:>10}{:>10}",
            leg.name,
            leg.sample.per_second(),
            100.0 * leg.sample.per_second() / direct,
            leg.sample.percentile(50),
            leg.sample.percentile(99),
            i64::from(leg.sample.percentile(50)) - i64::from(passing[0]),
            i64::from(leg.sample.percentile(99)) - i64::from(passing[1]),
            leg.sample.calls(),
            leg.sample.errors,
            leg.kv.reads,
            leg.kv.writes
        );
    }
    for leg in legs.iter().filter(|leg| leg.host.is_some()) {
        let kv = leg.kv_in_all;
        println!(
            "KV {} from the start, warming up included: {} reads, {} writes",
            leg.name, kv.reads, kv.writes
        );
    }
}
