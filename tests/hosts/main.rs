//! The gateway on its real runtime, seen from outside: clients and upstreams nobody here
//! wrote, tokens of the development issuer, raw HTTP where a client would not misbehave.
//!
//! Needs what `cargo xtask` installs, so it runs only when `TIDEGATE_HOSTS=1` says that is
//! there; otherwise no test is registered. With `TIDEGATE_URL` and `TIDEGATE_TOKEN` the
//! claims that hold for any gateway whose first upstream is `everything`, without rules for
//! its tools, are made about that one.
//!
//! They are about the Worker, or with `TIDEGATE_HOST=spin` about the Spin component. What is
//! claimed of `crates/spin-host` alone needs `TIDEGATE_SPIN_HOST`, that program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "every panic here is a failed claim"
)]
#![allow(
    missing_docs,
    reason = "a test binary has no readers but its own modules"
)]

mod attack;
#[path = "../attacks/mod.rs"]
mod attacks;
mod audit;
mod call;
mod client;
mod contract;
mod fault;
#[path = "../faults/mod.rs"]
mod faults;
mod gateway;
mod limit;
mod load;
mod login;
mod minute;
mod old;
mod operator;
mod outage;
mod patience;
mod probe;
mod refusal;
mod restart;
mod revocation;
mod spin;
mod stopwatch;
mod stores;
mod task;
mod task_legacy;
mod upstream;
mod wire;
mod work;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::world::World;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = spin::trials();
    if std::env::var("TIDEGATE_HOSTS").is_ok_and(|value| value == "1") {
        trials.extend(worker_trials(&Arc::new(World::default())));
    }
    if trials.is_empty() {
        eprintln!(
            "Host tests need a running runtime: `cargo xtask test` sets it up and runs them. None are run now."
        );
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    gateway::end_all(!conclusion.has_failed());
    conclusion.exit_code()
}

fn worker_trials(world: &Arc<World>) -> Vec<Trial> {
    let mut trials = Vec::new();
    let (minute, restart) = (Arc::default(), Arc::default());
    if world.starts_its_own() {
        // What takes a minute begins before everything else, and is asked about after it.
        trials.push(minute::beginning(&minute, &restart));
    }
    trials.extend(work::trials(world));
    trials.extend(wire::trials(world));
    if world.starts_its_own() {
        trials.extend(task::trials(world));
        trials.extend(task_legacy::trials(world));
        trials.extend(operator::trials(world));
        trials.extend(refusal::trials(world));
        trials.extend(limit::trials(world));
        trials.extend(outage::trials(world));
        trials.extend(fault::trials());
        trials.extend(stores::trials());
        trials.extend(audit::trials(world));
        trials.extend(contract::trials(world));
        trials.extend(attack::trials(world));
        trials.extend(login::trials(world));
        trials.extend(revocation::trials(world));
        trials.extend(old::trials());
        trials.extend(patience::trials());
        trials.extend(load::trials(world));
        trials.extend(minute::trials(&minute));
        trials.extend(restart::trials(&restart));
    }
    trials
}
