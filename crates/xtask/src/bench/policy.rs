//! `cargo xtask bench --policy`: what it costs to decide by a policy, by the number of its
//! rules: a list, of which each tool is decided, and a call. Gateways whose policies differ in
//! nothing else are asked in turn, by one client.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::bench::echo::{Echo, TOOL};
use crate::bench::load::Sample;
use crate::bench::wire::{Caller, Connection};
use crate::bench::{configuration, policy_of};
use crate::dev::Options;
use crate::dev::gateway::Gateway;
use crate::layout::Layout;
use crate::progress::say;
use crate::{clock, stop};

/// Rules of each policy; none: there is no policy.
const RULES: [usize; 4] = [0, 1, 10, 100];
/// Tools of the upstream.
const TOOLS: usize = 200;
/// Requests of each kind that do not count.
const WARM_UP: usize = 20;

/// One gateway, and what its answers took.
struct Leg {
    rules: usize,
    gateway: Gateway,
    connection: Connection,
    list: Vec<u32>,
    call: Vec<u32>,
}

/// Runs it and prints what came of it.
pub fn run(layout: &Layout, as_json: bool, count: usize) -> Result<()> {
    if count == 0 {
        bail!("--policy wants at least one request");
    }
    let upstream = Echo::listing(TOOLS)?;
    let url = format!("http://127.0.0.1:{}/mcp", upstream.port);
    let mut legs = Vec::new();
    for rules in RULES {
        say(&format!("a gateway with {rules} rules …"));
        legs.push(Leg::start(layout, &url, rules)?);
    }
    for number in 0..count + WARM_UP {
        stop::check()?;
        for leg in &mut legs {
            leg.ask(number >= WARM_UP)?;
        }
    }
    report(as_json, legs);
    Ok(())
}

impl Leg {
    fn start(layout: &Layout, url: &str, rules: usize) -> Result<Self> {
        let besides = match rules {
            0 => json!({}),
            rules => json!({"policy": policy_of(rules)}),
        };
        let options = Options {
            raw: true,
            config: Some(configuration(layout, &format!("policy-{rules}"), besides)?),
            ..Options::bare("echo", url)
        };
        let gateway = Gateway::start(layout, &options)?;
        Ok(Self {
            rules,
            connection: Connection::open(gateway.port)?,
            gateway,
            list: Vec::new(),
            call: Vec::new(),
        })
    }

    /// One list and one call.
    fn ask(&mut self, counts: bool) -> Result<()> {
        let caller = Caller {
            port: self.gateway.port,
            token: None,
            tasks: false,
        };
        let call = json!({"name": TOOL, "arguments": {"text": "high water"}});
        let last = format!("\"{TOOL}_{}\"", TOOLS - 1);
        for (request, expected, took) in [
            (
                caller.request("tools/list", "", json!({})),
                last.as_str(),
                &mut self.list,
            ),
            (
                caller.request("tools/call", TOOL, call),
                "high water",
                &mut self.call,
            ),
        ] {
            let sent = clock::instant();
            let answer = self.connection.exchange(&request)?;
            let micros = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
            let said = String::from_utf8_lossy(&answer.body);
            if answer.status != 200 || !said.contains(expected) {
                bail!("{} rules: {} {said}", self.rules, answer.status);
            }
            if counts {
                took.push(micros);
            }
        }
        Ok(())
    }
}

fn report(as_json: bool, legs: Vec<Leg>) {
    let rows = legs.into_iter().map(|leg| {
        let p50 = |micros| Sample::of(micros, Duration::ZERO).percentile(50);
        (leg.rules, p50(leg.list), p50(leg.call))
    });
    if as_json {
        let rows = rows.map(|(rules, list, call)| {
            json!({"rules": rules, "tools": TOOLS, "listP50Us": list, "callP50Us": call})
        });
        println!("{}", rows.collect::<Value>());
        return;
    }
    let list = format!("list of {TOOLS}");
    println!("\n{:<12}{list:>14}{:>14}", "p50 in µs", "call");
    for (rules, list, call) in rows {
        println!("{:<12}{list:>14}{call:>14}", format!("{rules} rules"));
    }
}
