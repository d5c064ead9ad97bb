//! What a host adds to the simulator: it keeps deferred work where a test can drive it
//! beside requests, and lets the test hold on to what the gateway owns.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::Value;
use tidegate_gateway::platform::{LogLevel, Platform, Secret, Unavailable};
use tidegate_simulator::{SimAtomic, SimClock, SimHttp, SimKeeper, SimKv, SimQueue, Simulator};

/// One isolate's host.
pub struct Host {
    pub sim: Rc<Simulator>,
    deferred: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    lines: RefCell<Vec<String>>,
    /// Lines a test has put behind it.
    forgotten: Cell<usize>,
    audits: Cell<usize>,
}

impl Host {
    pub fn new(sim: &Rc<Simulator>) -> Rc<Self> {
        Rc::new(Self {
            sim: Rc::clone(sim),
            deferred: RefCell::default(),
            lines: RefCell::default(),
            forgotten: Cell::default(),
            audits: Cell::default(),
        })
    }

    /// Every line of the log, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// The lines of one event since the test last forgot.
    pub fn events(&self, event: &str) -> Vec<Value> {
        let begin = format!(r#"{{"event":"{event}""#);
        let lines = self.lines.borrow();
        let since = lines.iter().skip(self.forgotten.get());
        since
            .filter(|line| line.starts_with(&begin))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// How many calls have been recorded.
    pub fn audits(&self) -> usize {
        self.audits.get()
    }

    /// Lets the test see only what comes next.
    pub fn forget(&self) {
        self.forgotten.set(self.lines.borrow().len());
    }

    /// Drives all deferred work, and what that defers, until none is left.
    pub fn drive(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|context| {
            let mut waiting = Vec::new();
            loop {
                let work = self.deferred.take();
                if work.is_empty() {
                    break;
                }
                for mut future in work {
                    if future.poll_unpin(context).is_pending() {
                        waiting.push(future);
                    }
                }
            }
            if waiting.is_empty() {
                return Poll::Ready(());
            }
            self.deferred.replace(waiting);
            Poll::Pending
        })
    }

    /// Loses the deferred work, as a crash does.
    pub fn lose_deferred(&self) {
        // Dropped outside the borrow: what is dropped may defer.
        while !self.deferred.borrow().is_empty() {
            drop(self.deferred.take());
        }
    }
}

/// The platform as the gateway owns it.
pub struct Isolate(pub Rc<Host>);

impl Platform for Isolate {
    type Kv = SimKv;
    type Atomic = SimAtomic;
    type Http = SimHttp;
    type Queue = SimQueue;
    type Keeper = SimKeeper;
    type Clock = SimClock;

    fn kv(&self) -> &SimKv {
        self.0.sim.kv()
    }

    fn atomic(&self) -> &SimAtomic {
        self.0.sim.atomic()
    }

    fn http(&self) -> &SimHttp {
        self.0.sim.http()
    }

    fn queue(&self) -> &SimQueue {
        self.0.sim.queue()
    }

    fn keeper(&self) -> Option<&SimKeeper> {
        self.0.sim.keeper()
    }

    fn clock(&self) -> &SimClock {
        self.0.sim.clock()
    }

    fn is_short_lived(&self) -> bool {
        self.0.sim.is_short_lived()
    }

    fn limiter(
        &self,
        binding: &str,
        subject: &str,
    ) -> impl Future<Output = Result<bool, Unavailable>> {
        self.0.sim.limiter(binding, subject)
    }

    fn random(&self, out: &mut [u8]) {
        self.0.sim.random(out);
    }

    fn secret(&self, name: &str) -> impl Future<Output = Result<Option<Secret>, Unavailable>> {
        self.0.sim.secret(name)
    }

    fn defer(&self, work: impl Future<Output = ()> + 'static) {
        self.0.deferred.borrow_mut().push(work.boxed_local());
    }

    fn log(&self, _: LogLevel, line: &str) {
        self.0.lines.borrow_mut().push(line.to_owned());
        let audit = line.starts_with(r#"{"event":"audit""#);
        self.0.audits.set(self.0.audits.get() + usize::from(audit));
    }
}
