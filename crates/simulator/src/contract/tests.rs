//! The simulator keeps the contract, and the contract notices a platform that does not.

mod keeper;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::{
    AtomicStore, Clock, LogLevel, Secret, Swap, Unavailable, Version,
};
use tidegate_gateway::time::Timestamp;

use super::*;
use crate::{Fault, SimAtomic, SimClock, SimHttp, SimKv, SimQueue, Simulator};

fn broken<P: Platform>(world: &Simulator, platform: &P) -> Vec<&'static str> {
    let checks = world.run(run(platform));
    checks
        .into_iter()
        .filter(|check| check.outcome.is_err())
        .map(|check| check.name)
        .collect()
}

#[test]
fn the_simulator_keeps_every_promise() {
    let world = Simulator::new();
    world
        .http
        .serve("server", |request: http::Request<Body>| async move {
            let redirect = Response::builder()
                .status(302)
                .header("location", "/elsewhere");
            let answer = if request.uri().path() == "/redirect" {
                redirect
            } else {
                Response::builder()
            };
            Ok(answer.body(Body::empty()).unwrap())
        });
    let checks = world.run(run_beside(&world, Some("http://server")));
    for check in &checks {
        assert_eq!(check.outcome, Ok(()), "{}", check.name);
    }
    assert_eq!(checks.len(), 41);
    assert_eq!(report(&checks)["passed"], true);
    assert!(
        world.kv.too_fast().is_empty(),
        "the contract itself writes no key twice in a second"
    );
}

#[test]
fn two_runs_in_one_world_do_not_disturb_each_other() {
    let world = Simulator::new();
    assert_eq!(broken(&world, &world), [""; 0]);
    assert_eq!(broken(&world, &world), [""; 0]);
}

#[test]
fn a_stale_reader_fails_only_where_seeing_a_write_is_the_point() {
    let world = Simulator::new();
    world.kv.lag.set(Duration::from_secs(60));
    assert_eq!(
        broken(&world, &world),
        [
            "a written value is seen soon where nobody else writes",
            "the last of two writes wins",
            "KV values are kept byte for byte under the longest key",
            "a value is readable within its lifetime",
        ]
    );
}

#[test]
fn an_outage_breaks_every_promise_of_its_port_and_no_other() {
    let world = Simulator::new();
    world.atomic.faults.outage(true);
    assert_eq!(broken(&world, &world).len(), 21);
    let world = Simulator::new();
    world.kv.faults.outage(true);
    assert_eq!(broken(&world, &world).len(), 6);
    let world = Simulator::new();
    world.keeper.faults.outage(true);
    assert_eq!(broken(&world, &world).len(), 7);
    let world = Simulator::new();
    world.queue.faults.outage(true);
    assert_eq!(
        broken(&world, &world),
        ["the queue takes the largest message"]
    );
}

#[test]
fn a_host_without_keepers_keeps_every_promise() {
    let world = Simulator::new();
    world.keeper.missing(true);
    assert_eq!(broken(&world, &world), [""; 0]);
}

#[test]
fn a_conflict_out_of_nowhere_is_noticed() {
    let world = Simulator::new();
    world.atomic.faults.arrange("contract/", 1, Fault::Conflict);
    assert_eq!(
        broken(&world, &world),
        ["a swap that expects absence writes an absent record"]
    );
}

/// How [`Flawed`] departs from the contract.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// Looks, gives way, then writes: what a get-then-put store does.
    SwapsAreNotAtomic,
    /// Reads a counter, gives way, then answers from what it read.
    AdditionsAreLost,
    /// Keeps everything for a day.
    NothingExpires,
    /// Every addition sets the expiry anew.
    CountersAreProlonged,
    /// Never waits at all.
    WaitsAreAnsweredAtOnce,
    /// Looks when the time is over, not before.
    WaitsLookAtTheEnd,
    /// Waits for the next write, whatever was written before.
    WaitsMissWhatWas,
    /// Lets so many wait, and never notices that one has gone.
    WaitsAreNeverForgotten,
}

struct Flawed {
    world: Simulator,
    atomic: FlawedAtomic,
    keeper: keeper::FlawedKeeper,
    constant_random: bool,
}

struct FlawedAtomic {
    inner: SimAtomic,
    clock: SimClock,
    flaw: Option<Flaw>,
    waits: std::cell::Cell<usize>,
}

impl FlawedAtomic {
    fn expiry(&self, asked: Timestamp) -> Timestamp {
        if self.flaw == Some(Flaw::NothingExpires) {
            asked + Duration::from_secs(86_400)
        } else {
            asked
        }
    }

    async fn pause(&self) {
        Clock::sleep(&self.clock, Duration::from_millis(5)).await;
    }
}

impl AtomicStore for FlawedAtomic {
    async fn get(&self, key: &str) -> Result<Option<(Version, Bytes)>, Unavailable> {
        self.inner.get(key).await
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<Version>,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<Swap, Unavailable> {
        if self.flaw != Some(Flaw::SwapsAreNotAtomic) {
            return self
                .inner
                .swap(key, expected, value, self.expiry(expires_at))
                .await;
        }
        if self.inner.get(key).await?.map(|(version, _)| version) != expected {
            return Ok(Swap::Conflict);
        }
        self.pause().await;
        loop {
            let present = self.inner.get(key).await?.map(|(version, _)| version);
            if let Swap::Done(version) = self
                .inner
                .swap(key, present, value.clone(), expires_at)
                .await?
            {
                return Ok(Swap::Done(version));
            }
        }
    }

    async fn wait(
        &self,
        key: &str,
        seen: Option<Version>,
        within: Duration,
    ) -> Result<Option<(Version, Bytes)>, Unavailable> {
        match self.flaw {
            Some(Flaw::WaitsAreAnsweredAtOnce) => self.inner.get(key).await,
            Some(Flaw::WaitsLookAtTheEnd) => {
                Clock::sleep(&self.clock, within).await;
                self.inner.get(key).await
            }
            Some(Flaw::WaitsMissWhatWas) => {
                let present = self.inner.get(key).await?.map(|(version, _)| version);
                self.inner.wait(key, present, within).await
            }
            Some(Flaw::WaitsAreNeverForgotten) => {
                self.waits.set(self.waits.get() + 1);
                if self.waits.get() > 64 {
                    return self.inner.get(key).await;
                }
                self.inner.wait(key, seen, within).await
            }
            _ => self.inner.wait(key, seen, within).await,
        }
    }

    async fn add(&self, key: &str, delta: i64, expires_at: Timestamp) -> Result<i64, Unavailable> {
        match self.flaw {
            Some(Flaw::AdditionsAreLost) => {
                let before = self.inner.add(key, 0, expires_at).await?;
                self.pause().await;
                self.inner.add(key, delta, expires_at).await?;
                Ok(before + delta)
            }
            Some(Flaw::CountersAreProlonged) => {
                let sum = self
                    .inner
                    .add(key, delta, expires_at + Duration::from_secs(86_400))
                    .await?;
                Ok(sum)
            }
            _ => self.inner.add(key, delta, self.expiry(expires_at)).await,
        }
    }
}

impl Platform for Flawed {
    type Kv = SimKv;
    type Atomic = FlawedAtomic;
    type Http = SimHttp;
    type Queue = SimQueue;
    type Keeper = keeper::FlawedKeeper;
    type Clock = SimClock;

    fn kv(&self) -> &SimKv {
        &self.world.kv
    }
    fn atomic(&self) -> &FlawedAtomic {
        &self.atomic
    }
    fn http(&self) -> &SimHttp {
        &self.world.http
    }
    fn queue(&self) -> &SimQueue {
        &self.world.queue
    }
    fn keeper(&self) -> Option<&keeper::FlawedKeeper> {
        Some(&self.keeper)
    }
    fn clock(&self) -> &SimClock {
        &self.world.clock
    }
    fn random(&self, out: &mut [u8]) {
        if self.constant_random {
            out.fill(7)
        } else {
            self.world.random(out)
        }
    }
    fn secret(&self, name: &str) -> impl Future<Output = Result<Option<Secret>, Unavailable>> {
        self.world.secret(name)
    }
    fn defer(&self, work: impl Future<Output = ()> + 'static) {
        self.world.defer(work);
    }
    fn log(&self, level: LogLevel, line: &str) {
        self.world.log(level, line);
    }
}

fn flawed(flaw: Option<Flaw>) -> Flawed {
    let world = Simulator::new();
    let atomic = FlawedAtomic {
        inner: world.atomic.isolate(),
        clock: world.clock.clone(),
        flaw,
        waits: std::cell::Cell::default(),
    };
    Flawed {
        keeper: keeper::FlawedKeeper::new(world.keeper.isolate()),
        world,
        atomic,
        constant_random: false,
    }
}

#[test]
fn a_store_that_is_not_atomic_or_keeps_things_too_long_is_caught() {
    let racing = [
        "of concurrent swaps on an absent record exactly one wins",
        "of concurrent swaps on a present record exactly one wins",
    ];
    let expiring = [
        "a record is unreadable after it expired",
        "an expired record counts as absent",
        "an expired counter begins again at zero",
        "a counter keeps the expiry it was created with",
        "a wait sees its record expire",
    ];
    for (flaw, caught) in [
        (Flaw::SwapsAreNotAtomic, &racing[..]),
        (
            Flaw::AdditionsAreLost,
            &["concurrent additions are all counted"],
        ),
        (Flaw::NothingExpires, &expiring),
        (Flaw::CountersAreProlonged, &expiring[2..4]),
    ] {
        let platform = flawed(Some(flaw));
        assert_eq!(broken(&platform.world, &platform), caught);
    }
}

#[test]
fn a_store_that_does_not_really_wait_is_caught() {
    let at_once = "a wait ends at once where the record is not as seen";
    let woken = [
        "a wait ends when the record is replaced",
        "a wait for an absent record ends when it is made",
        "of all who wait for one record each sees it change",
    ];
    let unchanged = "a wait that sees no change ends when its time is over";
    let expired = "a wait sees its record expire";
    let dropped = "waits that are given up are forgotten";
    let mut answered = woken.to_vec();
    answered.extend([unchanged, expired, dropped]);
    let mut blind = vec![at_once];
    blind.extend(woken);
    blind.push(dropped);
    for (flaw, caught) in [
        (Flaw::WaitsAreAnsweredAtOnce, answered),
        (Flaw::WaitsLookAtTheEnd, blind),
        (Flaw::WaitsMissWhatWas, vec![at_once]),
        (Flaw::WaitsAreNeverForgotten, vec![dropped]),
    ] {
        let platform = flawed(Some(flaw));
        assert_eq!(broken(&platform.world, &platform), caught);
    }
}

#[test]
fn randomness_that_is_constant_is_caught() {
    let platform = Flawed {
        constant_random: true,
        ..flawed(None)
    };
    assert_eq!(
        broken(&platform.world, &platform),
        ["randomness fills the whole buffer and never repeats"]
    );
}
