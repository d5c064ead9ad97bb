//! Refresh tokens that are good for one use, under random schedules: many isolates whose calls
//! need a new token at once, clients that leave, isolates that die, writes that fail, conflict
//! or happen all the same, and time that jumps.
//!
//! At every moment the one good token is stored, or in the hands of an isolate that lives. A
//! schedule follows from its number alone; one that fails says it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tidegate_gateway::seal::{Purpose, Sealer};
use tidegate_simulator::{Fault, Running};

use super::server::{Granter, world};
use super::user::{asking, connect, link_in};
use super::{LIFETIME, SECOND};
use crate::world::{Told, World, tool};

/// How many schedules are tried.
const SCHEDULES: u64 = 80;

#[test]
fn concurrent_refreshes_never_lose_a_rotated_token() {
    let mut seen = Seen::default();
    for number in 0..SCHEDULES {
        let run = catch_unwind(AssertUnwindSafe(|| Schedule::new(number).run(&mut seen)));
        if let Err(panic) = run {
            eprintln!("schedule {number} fails");
            resume_unwind(panic);
        }
    }
    assert!(
        seen.refreshed > SCHEDULES as usize && seen.left > 50 && seen.crashed > 50,
        "{seen:?}"
    );
    assert!(seen.died_with_it > 0 && seen.asked_anew > 0, "{seen:?}");
}

#[derive(Debug, Default)]
struct Seen {
    refreshed: usize,
    left: usize,
    crashed: usize,
    /// Isolates that died with the only good token.
    died_with_it: usize,
    /// Users that were asked anew for that.
    asked_anew: usize,
}

/// SplitMix64.
#[derive(Clone)]
struct Random(Rc<Cell<u64>>);

impl Random {
    fn below(&self, bound: usize) -> usize {
        let next = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

struct Schedule {
    random: Random,
    first: World,
    isolates: Vec<World>,
    granter: Rc<Granter>,
    /// Calls under way, and in which isolate.
    live: Vec<(usize, Running<'static, Told>)>,
    percent: Rc<Cell<usize>>,
    sealer: Sealer,
    /// Whether the only good token may have died with an isolate.
    lost: bool,
}

impl Schedule {
    fn new(number: u64) -> Self {
        let random = Random(Rc::new(Cell::new(
            number.wrapping_mul(0x5851_f42d_4c95_7f2d),
        )));
        let (first, granter) = world("user");
        connect(
            &first,
            &granter,
            &link_in(&first.call(asking())),
            "ada@files",
        );
        assert_eq!(first.tool("files__read").status, 200);
        let sealer = first.sim.run(Sealer::load(&*first.sim)).unwrap();
        let server = granter.server.borrow().clone().unwrap();
        server
            .head_delay
            .set(Duration::from_millis(50 * random.below(20) as u64));
        let mut schedule = Self {
            percent: Rc::new(Cell::new([0, 10, 40][random.below(3)])),
            isolates: Vec::new(),
            live: Vec::new(),
            lost: false,
            random,
            first,
            granter,
            sealer,
        };
        for _ in 0..4 {
            let isolate = schedule.isolate();
            schedule.isolates.push(isolate);
        }
        schedule
    }

    fn isolate(&self) -> World {
        let isolate = self.first.isolate();
        // It knows the issuer's keys: who leaves while they are fetched is another story.
        isolate.tool("nothing__here");
        let (random, percent) = (self.random.clone(), Rc::clone(&self.percent));
        isolate.sim.atomic.faults.decide(move |_| {
            let faults = [Fault::Fail, Fault::FailButPersist, Fault::Conflict];
            (random.below(100) < percent.get()).then(|| faults[random.below(3)])
        });
        isolate
    }

    /// The refresh token in the store.
    fn stored(&self) -> Option<String> {
        let atomic = &self.first.sim.atomic;
        let key = atomic
            .keys()
            .into_iter()
            .find(|key| key.starts_with("grant/"))?;
        let record: Value = serde_json::from_slice(&atomic.stored(&key)?).unwrap();
        let sealed = record["sealed"].as_str()?;
        let held: Value = self.sealer.open(Purpose::Grant, sealed).unwrap();
        Some(held["refresh"].as_str().unwrap().to_owned())
    }

    /// Whether the one good token is where everybody finds it.
    fn is_safe(&self) -> bool {
        let good = self.granter.refresh.borrow();
        assert!(good.len() <= 1, "one chain");
        good.keys().next() == self.stored().as_ref()
    }

    fn run(mut self, seen: &mut Seen) {
        for _ in 0..150 + self.random.below(150) {
            self.step(seen);
        }
        // Everything is well again, and whatever is under way comes to its end.
        self.percent.set(0);
        self.live_on();
        assert!(self.lost || self.is_safe(), "a rotated token was lost");
        if !self.lost {
            assert_eq!(self.granter.reused.get(), 0, "a token was used twice");
        }
        self.first.sim.clock.advance(LIFETIME + SECOND * 60);
        let told = self.first.isolate().tool("files__read");
        self.judge(&told);
        match told.status.as_u16() {
            200 => {}
            403 => {
                seen.asked_anew += 1;
                let told = self.first.call(asking());
                connect(&self.first, &self.granter, &link_in(&told), "ada@files");
                assert_eq!(self.first.isolate().tool("files__read").status, 200);
            }
            status => panic!("it never heals: {status} {}", told.text),
        }
        seen.refreshed += self.granter.asked_for("refresh_token");
    }

    fn step(&mut self, seen: &mut Seen) {
        match self.random.below(100) {
            0..12 => {
                let at = self.random.below(self.isolates.len());
                let call = self.isolates[at].start_call(tool("files__read"));
                self.live.push((at, call));
            }
            12..70 => self.go_on(),
            70..80 => self.isolates[self.random.below(self.isolates.len())].poll_deferred(),
            80..88 => self.pass(Duration::from_millis(self.random.below(300) as u64)),
            88..93 if self.is_safe() => {
                // An answer that is on its way is not kept there for minutes.
                self.live_on();
                self.pass(LIFETIME);
            }
            93..97 if !self.live.is_empty() => {
                seen.left += 1;
                drop(self.live.swap_remove(self.random.below(self.live.len())));
            }
            97 => self.crash(seen),
            _ => {}
        }
    }

    /// Lets everything that is under way come to its end, side by side, and be over for
    /// a while: longer than any answer is on its way.
    fn live_on(&mut self) {
        let mut calm = 0;
        for waited in 0..2_000 {
            let (mut at, mut told) = (0, Vec::new());
            while at < self.live.len() {
                match self.live[at].1.step() {
                    Some(ended) => {
                        told.push(ended);
                        drop(self.live.swap_remove(at));
                    }
                    None => at += 1,
                }
            }
            told.iter().for_each(|told| self.judge(told));
            self.isolates.iter().for_each(World::step_deferred);
            let given_up = self.lost && waited > 300;
            let over = self.live.is_empty() && (self.is_safe() || given_up);
            calm = if over { calm + 1 } else { 0 };
            if calm > 10 {
                return;
            }
            self.pass(Duration::from_millis(200));
        }
        panic!("it never ends");
    }

    fn go_on(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let at = self.random.below(self.live.len());
        for _ in 0..=self.random.below(8) {
            if let Some(told) = self.live[at].1.poll_once() {
                drop(self.live.swap_remove(at));
                self.judge(&told);
                return;
            }
        }
    }

    fn pass(&self, by: Duration) {
        self.first.sim.clock.advance(by);
    }

    /// An isolate dies with all that is under way in it.
    fn crash(&mut self, seen: &mut Seen) {
        seen.crashed += 1;
        let at = self.random.below(self.isolates.len());
        self.live.retain(|(isolate, _)| *isolate != at);
        self.isolates[at].lose_deferred();
        if !self.is_safe() {
            seen.died_with_it += 1;
            self.lost = true;
        }
        let another = self.isolate();
        self.isolates[at] = another;
    }

    /// A call is answered, or fails for what is wrong just now; nobody is asked for what is
    /// there.
    fn judge(&self, told: &Told) {
        match (told.status.as_u16(), self.lost) {
            (200, _) | (403, true) => {}
            (502, _) => assert_eq!(told.reason(), "no_credentials"),
            (status, _) => {
                let faults: Vec<_> = self
                    .isolates
                    .iter()
                    .flat_map(|i| i.events("fault"))
                    .collect();
                panic!("{status}: {} {faults:?}", told.text)
            }
        }
    }
}
