//! Many isolates of one deployment, all counting the same principal, driven by a list of
//! arrivals. Deferred work runs when its sleep ends, between the arrivals.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_gateway::Memory;
use tidegate_gateway::auth::{Principal, PrincipalId};
use tidegate_gateway::config::Rate;
use tidegate_gateway::error::{Error, Rejection};
use tidegate_gateway::limits::standing::Standings;
use tidegate_gateway::limits::{self, Limit, Method};
use tidegate_gateway::platform::{
    Clock, KvStore, LogLevel, NoKeeper, Platform, Secret, Unavailable,
};
use tidegate_gateway::time::Timestamp;
use tidegate_simulator::{Running, SimAtomic, SimClock, SimHttp, SimKv, SimQueue, Simulator};

/// One isolate: the simulator's ports, its operations on KV counted, its deferred work run
/// in time.
pub struct Isolate {
    pub sim: Simulator,
    kv: CountedKv,
    pub clock: AlarmClock,
    deferred: Rc<RefCell<Vec<Running<'static, ()>>>>,
}

/// The simulator's KV, every operation noted. Writes may linger before they arrive.
pub struct CountedKv {
    inner: SimKv,
    pub reads: Cell<u64>,
    pub writes: RefCell<BTreeMap<String, Vec<Timestamp>>>,
    pub linger: Cell<Duration>,
    clock: AlarmClock,
}

/// The simulator's clock, which also tells when the next sleep ends, and may be wrong.
#[derive(Clone)]
pub struct AlarmClock {
    inner: SimClock,
    alarms: Rc<RefCell<BTreeMap<Timestamp, usize>>>,
    /// How much later than the true time it shows.
    pub early: Rc<Cell<Duration>>,
}

/// All isolates.
pub struct Fleet {
    pub isolates: Vec<(Rc<Isolate>, Rc<Memory>)>,
    pub clock: SimClock,
    alarms: Rc<RefCell<BTreeMap<Timestamp, usize>>>,
    subject: PrincipalId,
    /// How limits are counted.
    pub method: Method<'static>,
    first: Simulator,
    lag: Duration,
}

impl Fleet {
    /// `count` isolates whose reads of KV are `lag` old.
    pub fn new(count: usize, lag: Duration, seed: u64) -> Self {
        let first = Simulator::seeded(seed);
        first.clock.jump_when_idle(false);
        let clock = first.clock.clone();
        let alarms = Rc::default();
        let isolates = (0..count)
            .map(|_| (Isolate::of(&first, lag, &alarms), Rc::default()))
            .collect();
        Self {
            isolates,
            clock,
            alarms,
            subject: Principal::anonymous().id,
            method: Method::Rough,
            first,
            lag,
        }
    }

    /// Puts a new isolate in the place of one, which is asked nothing any more. What it has
    /// deferred is still done, and its writes are still counted.
    pub fn replace(&mut self, isolate: usize) {
        let new = Isolate::of(&self.first, self.lag, &self.alarms);
        let old = std::mem::replace(&mut self.isolates[isolate], (new, Rc::default()));
        self.isolates.push(old);
    }

    /// Keys that were written twice within a second, by whomever.
    pub fn too_fast(&self) -> Vec<String> {
        self.first.kv.too_fast()
    }

    /// Operations on the linearizable store by all isolates.
    pub fn atomic_operations(&self) -> usize {
        self.first.atomic.operations("")
    }

    /// Asks one isolate for one admission within `rates`; the refusal's `retry_after`.
    pub fn ask(&self, isolate: usize, rates: &[(&str, Rate)]) -> Result<(), Duration> {
        match self.ask_dear(isolate, rates, 1) {
            Ok(()) => Ok(()),
            Err(Error::Rejection(Rejection::RateLimited { retry_after, .. })) => Err(retry_after),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// Asks for one that counts as `cost` requests, with whatever the stores do.
    pub fn ask_dear(&self, isolate: usize, rates: &[(&str, Rate)], cost: u32) -> Result<(), Error> {
        let (platform, memory) = &self.isolates[isolate];
        let limits: Vec<Limit<'_>> = rates
            .iter()
            .map(|(name, rate)| Limit {
                name,
                rate: *rate,
                subject: self.subject.as_str(),
                cost,
                method: self.method,
                own: true,
            })
            .collect();
        let mut standings = Standings::default();
        let admitted = limits::admit(platform, memory, &limits, &mut standings);
        let mut asking = Running::new(&self.clock, admitted);
        asking.step().expect("nothing here takes time")
    }

    /// Lets time pass until `then`, and deferred work be done meanwhile.
    pub fn advance_to(&self, then: Timestamp) {
        self.work();
        loop {
            let next = self.alarms.borrow().keys().next().copied();
            match next {
                Some(alarm) if alarm <= then => {
                    self.alarms.borrow_mut().remove(&alarm);
                    self.clock.set(alarm.max(self.clock.now()));
                    self.work();
                }
                Some(_) | None => break,
            }
        }
        self.clock.set(then);
    }

    pub fn advance(&self, by: Duration) {
        self.advance_to(self.clock.now() + by);
    }

    fn work(&self) {
        for (isolate, _) in &self.isolates {
            loop {
                let mut begun = std::mem::take(&mut *isolate.deferred.borrow_mut());
                let before = begun.len();
                begun.retain_mut(|work| work.step().is_none());
                let ended = before - begun.len();
                isolate.deferred.borrow_mut().extend(begun);
                if ended == 0 {
                    break;
                }
            }
        }
    }

    /// Reads and writes of KV by all isolates.
    pub fn operations(&self) -> (u64, u64) {
        let reads = self
            .isolates
            .iter()
            .map(|(isolate, _)| isolate.kv.reads.get())
            .sum();
        let writes = self
            .isolates
            .iter()
            .flat_map(|(isolate, _)| isolate.kv.times())
            .count();
        (reads, writes as u64)
    }

    /// The least time between two writes of one key, by whomever.
    pub fn least_interval(&self) -> Option<Duration> {
        let mut by_key: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
        for (isolate, _) in &self.isolates {
            for (key, times) in isolate.kv.writes.borrow().iter() {
                by_key.entry(key.clone()).or_default().extend(times);
            }
        }
        let least = by_key.into_values().filter_map(|mut times| {
            times.sort();
            times.windows(2).map(|pair| pair[1].since(pair[0])).min()
        });
        least.min()
    }
}

/// The most of `times` (in order) within any `span`.
pub fn densest(times: &[Timestamp], span: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, time) in times.iter().enumerate() {
        while *time >= times[first] + span {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

impl Isolate {
    fn of(
        first: &Simulator,
        lag: Duration,
        alarms: &Rc<RefCell<BTreeMap<Timestamp, usize>>>,
    ) -> Rc<Self> {
        let sim = first.isolate();
        let inner = first.isolate().kv;
        inner.lag.set(lag);
        let clock = AlarmClock {
            inner: sim.clock.clone(),
            alarms: Rc::clone(alarms),
            early: Rc::default(),
        };
        let kv = CountedKv {
            inner,
            reads: Cell::default(),
            writes: RefCell::default(),
            linger: Cell::default(),
            clock: clock.clone(),
        };
        Rc::new(Self {
            sim,
            kv,
            clock,
            deferred: Rc::default(),
        })
    }

    /// Whether KV fails every operation of this isolate.
    pub fn outage(&self, outage: bool) {
        self.kv.inner.faults.outage(outage);
    }

    /// How long this isolate's writes take to arrive.
    pub fn linger(&self, linger: Duration) {
        self.kv.linger.set(linger);
    }
}

impl CountedKv {
    fn times(&self) -> Vec<Timestamp> {
        self.writes.borrow().values().flatten().copied().collect()
    }
}

impl KvStore for CountedKv {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, Unavailable> {
        self.reads.set(self.reads.get() + 1);
        self.inner.get(key).await
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), Unavailable> {
        if !self.linger.get().is_zero() {
            self.clock.sleep(self.linger.get()).await;
        }
        self.writes
            .borrow_mut()
            .entry(key.to_owned())
            .or_default()
            .push(self.clock.inner.now());
        self.inner.put(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<(), Unavailable> {
        self.inner.delete(key).await
    }
}

impl Clock for AlarmClock {
    fn now(&self) -> Timestamp {
        self.inner.now() + self.early.get()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        *self
            .alarms
            .borrow_mut()
            .entry(self.inner.now() + duration)
            .or_default() += 1;
        self.inner.sleep(duration)
    }
}

impl Platform for Isolate {
    type Kv = CountedKv;
    type Atomic = SimAtomic;
    type Http = SimHttp;
    type Queue = SimQueue;
    type Keeper = NoKeeper;
    type Clock = AlarmClock;

    fn kv(&self) -> &CountedKv {
        &self.kv
    }

    fn atomic(&self) -> &SimAtomic {
        &self.sim.atomic
    }

    fn http(&self) -> &SimHttp {
        &self.sim.http
    }

    fn queue(&self) -> &SimQueue {
        &self.sim.queue
    }

    fn keeper(&self) -> Option<&NoKeeper> {
        None
    }

    fn clock(&self) -> &AlarmClock {
        &self.clock
    }

    fn random(&self, out: &mut [u8]) {
        self.sim.random(out);
    }

    fn secret(&self, name: &str) -> impl Future<Output = Result<Option<Secret>, Unavailable>> {
        self.sim.secret(name)
    }

    fn defer(&self, work: impl Future<Output = ()> + 'static) {
        self.deferred
            .borrow_mut()
            .push(Running::new(&self.clock.inner, work));
    }

    fn log(&self, level: LogLevel, line: &str) {
        self.sim.log(level, line);
    }
}
