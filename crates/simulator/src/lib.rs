//! The test world: every port of the gateway in memory, with time, staleness and faults as
//! fields, and [`contract`], the ports' promises as checks any host can run.
//!
//! A [`Simulator`] is one isolate. [`Simulator::isolate`] makes another that shares the
//! stores, the queue, the network, the keepers and the clock but has its own delays, faults,
//! deferred work and log. Nothing here sleeps, opens a socket or reads a real clock.

pub mod clock;
pub mod contract;

mod atomic;
mod fault;
mod http;
mod keeper;
mod kv;
mod queue;
mod run;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

use futures_util::future::{FutureExt, LocalBoxFuture};
use tidegate_gateway::platform::{LogLevel, Platform, Secret, Unavailable};

pub use crate::atomic::SimAtomic;
pub use crate::clock::SimClock;
pub use crate::fault::{Fault, Faults};
pub use crate::http::{End, Exchange, Server, SimHttp};
pub use crate::keeper::SimKeeper;
pub use crate::kv::{SimKv, WRITE_INTERVAL_MIN};
pub use crate::queue::SimQueue;
pub use crate::run::{Running, Stalled};

/// A limiter of the host's own whose window never ends.
#[derive(Debug, Default)]
struct Limiter {
    requests: Option<usize>,
    asked: BTreeMap<String, usize>,
}

/// One isolate of a simulated deployment.
pub struct Simulator {
    /// Time, shared by all isolates.
    pub clock: SimClock,
    /// This isolate's view of the eventually consistent store.
    pub kv: SimKv,
    /// This isolate's handle on the store that is linearizable per key.
    pub atomic: SimAtomic,
    /// The network, shared by all isolates.
    pub http: SimHttp,
    /// This isolate's handle on the queue.
    pub queue: SimQueue,
    /// This isolate's handle on the keepers.
    pub keeper: SimKeeper,
    short_lived: Rc<Cell<bool>>,
    limiters: Rc<RefCell<BTreeMap<String, Limiter>>>,
    secrets: Rc<RefCell<BTreeMap<String, Option<String>>>>,
    random: Rc<Cell<u64>>,
    deferred: Rc<RefCell<Vec<LocalBoxFuture<'static, ()>>>>,
    log: Rc<RefCell<Vec<(LogLevel, String)>>>,
}

impl Default for Simulator {
    fn default() -> Self {
        Self::new()
    }
}

impl Simulator {
    /// The first isolate of a new world.
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// The first isolate of a new world whose randomness follows from `seed`.
    pub fn seeded(seed: u64) -> Self {
        let clock = SimClock::default();
        let first = Self {
            kv: SimKv::new(&clock),
            atomic: SimAtomic::new(&clock),
            http: SimHttp::new(&clock),
            queue: SimQueue::new(&clock),
            keeper: SimKeeper::nowhere(),
            clock,
            short_lived: Rc::default(),
            limiters: Rc::default(),
            secrets: Rc::default(),
            random: Rc::new(Cell::new(seed)),
            deferred: Rc::default(),
            log: Rc::default(),
        };
        Self {
            keeper: SimKeeper::new(first.isolate()),
            ..first
        }
    }

    /// Another isolate of the same world.
    pub fn isolate(&self) -> Self {
        Self {
            clock: self.clock.clone(),
            kv: self.kv.isolate(),
            atomic: self.atomic.isolate(),
            http: self.http.clone(),
            queue: self.queue.isolate(),
            keeper: self.keeper.isolate(),
            short_lived: Rc::clone(&self.short_lived),
            limiters: Rc::clone(&self.limiters),
            secrets: Rc::clone(&self.secrets),
            random: Rc::clone(&self.random),
            deferred: Rc::default(),
            log: Rc::default(),
        }
    }

    /// Makes this a host whose instances come and go quickly, for all isolates.
    pub fn make_short_lived(&self) {
        self.short_lived.set(true);
    }

    /// Gives all isolates a limiter of the host's own, which admits `requests` of each subject,
    /// or never answers (`None`).
    pub fn bind_limiter(&self, binding: &str, requests: Option<usize>) {
        let limiter = Limiter {
            requests,
            ..Limiter::default()
        };
        self.limiters
            .borrow_mut()
            .insert(binding.to_owned(), limiter);
    }

    /// Sets a secret, for all isolates.
    pub fn set_secret(&self, name: &str, text: &str) {
        self.secrets
            .borrow_mut()
            .insert(name.to_owned(), Some(text.to_owned()));
    }

    /// Lets nobody find out whether a secret is set, until it is set.
    pub fn hide_secret(&self, name: &str) {
        self.secrets.borrow_mut().insert(name.to_owned(), None);
    }

    /// Runs `future` to its end, letting time jump whenever everything waits for it.
    ///
    /// # Panics
    /// When nothing can make progress: a test that gets there is wrong.
    #[track_caller]
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        match self.start(future).finish() {
            Ok(value) => value,
            Err(stalled) => stop(&stalled),
        }
    }

    /// Takes hold of `future` so that a test can go on step by step and move time between.
    pub fn start<'a, T>(&self, future: impl Future<Output = T> + 'a) -> Running<'a, T> {
        Running::new(&self.clock, future)
    }

    /// Runs the work this isolate deferred, and what that defers, until none is left. Work
    /// of keepers goes as far as it can beside that.
    ///
    /// # Panics
    /// When nothing can make progress: a test that gets there is wrong.
    #[track_caller]
    pub fn settle(&self) {
        loop {
            let work: Vec<_> = self.deferred.borrow_mut().drain(..).collect();
            if work.is_empty() {
                self.start(async {}).step();
                return;
            }
            self.run(futures_util::future::join_all(work));
        }
    }

    /// Loses the work this isolate deferred, as a crash does. Gives how much there was.
    pub fn lose_deferred(&self) -> usize {
        self.deferred.borrow_mut().drain(..).count()
    }

    /// The lines this isolate has logged, oldest first.
    pub fn log_lines(&self) -> Vec<(LogLevel, String)> {
        self.log.borrow().clone()
    }

    /// Takes the lines this isolate has logged, so that a test sees only what comes next.
    pub fn take_log(&self) -> Vec<(LogLevel, String)> {
        self.log.take()
    }
}

#[track_caller]
#[expect(
    clippy::panic,
    reason = "a stalled world is a defect of the test, which has no way to go on"
)]
fn stop(stalled: &Stalled) -> ! {
    panic!(
        "nothing can make progress; {} sleeps are pending and time stands still",
        stalled.sleepers
    );
}

impl Platform for Simulator {
    type Kv = SimKv;
    type Atomic = SimAtomic;
    type Http = SimHttp;
    type Queue = SimQueue;
    type Keeper = SimKeeper;
    type Clock = SimClock;

    fn kv(&self) -> &SimKv {
        &self.kv
    }

    fn atomic(&self) -> &SimAtomic {
        &self.atomic
    }

    fn http(&self) -> &SimHttp {
        &self.http
    }

    fn queue(&self) -> &SimQueue {
        &self.queue
    }

    fn keeper(&self) -> Option<&SimKeeper> {
        (!self.keeper.is_missing()).then_some(&self.keeper)
    }

    fn clock(&self) -> &SimClock {
        &self.clock
    }

    fn is_short_lived(&self) -> bool {
        self.short_lived.get()
    }

    async fn limiter(&self, binding: &str, subject: &str) -> Result<bool, Unavailable> {
        run::give_way().await;
        let within = self.limiters.borrow_mut().get_mut(binding).map(|limiter| {
            let asked = limiter.asked.entry(subject.to_owned()).or_default();
            *asked += 1;
            limiter.requests.map(|requests| *asked <= requests)
        });
        match within {
            Some(Some(within)) => Ok(within),
            Some(None) => std::future::pending().await,
            None => Err(Unavailable(format!("no binding {binding}"))),
        }
    }

    fn random(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = split_mix(&self.random).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    async fn secret(&self, name: &str) -> Result<Option<Secret>, Unavailable> {
        run::give_way().await;
        match self.secrets.borrow().get(name) {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(Secret::new(text.as_str()))),
            Some(None) => Err(Unavailable(format!("{name}: no answer"))),
        }
    }

    fn defer(&self, work: impl Future<Output = ()> + 'static) {
        self.deferred.borrow_mut().push(work.boxed_local());
    }

    fn log(&self, level: LogLevel, line: &str) {
        self.log.borrow_mut().push((level, line.to_owned()));
    }
}

/// The next number of SplitMix64: repeatable, and no two states give the same.
fn split_mix(state: &Cell<u64>) -> u64 {
    let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(next);
    let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_gateway::platform::Clock;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn waiting_takes_simulated_time_only() {
        let world = Simulator::new();
        let started = world.clock.now();
        world.run(async {
            let (one, two) = (world.clock.sleep(MINUTE), world.clock.sleep(MINUTE * 2));
            futures_util::future::join(one, two).await;
            world.clock.sleep(MINUTE).await;
        });
        assert_eq!(world.clock.now().since(started), MINUTE * 3);
    }

    #[test]
    fn time_stands_still_until_it_is_moved_when_it_may_not_jump() {
        let world = Simulator::new();
        world.clock.jump_when_idle(false);
        let mut sleeping = world.start(world.clock.sleep(MINUTE));
        assert!(sleeping.step().is_none());
        world.clock.advance(MINUTE - Duration::from_millis(1));
        assert!(sleeping.step().is_none());
        world.clock.advance(Duration::from_millis(1));
        assert!(sleeping.step().is_some());
        assert_eq!(
            world.start(world.clock.sleep(MINUTE)).finish(),
            Err(Stalled { sleepers: 1 })
        );
        assert_eq!(world.clock.sleepers(), 0, "a dropped sleep is forgotten");
    }

    #[test]
    #[should_panic = "nothing can make progress"]
    fn a_world_that_waits_for_nothing_says_so() {
        Simulator::new().run(std::future::pending::<()>());
    }

    #[test]
    fn deferred_work_runs_on_settling_and_is_lost_in_a_crash() {
        let world = Rc::new(Simulator::new());
        let inner = Rc::clone(&world);
        world.defer(async move {
            inner.clock.sleep(MINUTE).await;
            let innermost = Rc::clone(&inner);
            inner.defer(async move { innermost.log(LogLevel::Info, "done") });
        });
        assert!(world.log_lines().is_empty());
        world.settle();
        assert_eq!(world.take_log(), [(LogLevel::Info, "done".to_owned())]);
        world.defer(std::future::pending());
        assert_eq!(world.lose_deferred(), 1);
        world.settle();
    }

    #[test]
    fn randomness_repeats_for_a_seed_and_differs_between_isolates() {
        let draw = |world: &Simulator| {
            let mut out = [0; 20];
            world.random(&mut out);
            out
        };
        let one = Simulator::seeded(7);
        let (first, second) = (draw(&one), draw(&one.isolate()));
        assert_ne!(first, second);
        assert_eq!(draw(&Simulator::seeded(7)), first);
        assert_ne!(draw(&Simulator::seeded(8)), first);
    }
}
