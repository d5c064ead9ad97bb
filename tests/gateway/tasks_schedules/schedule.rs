//! One schedule: a task, and a random order of everything that can happen to it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_gateway::Consumed;
use tidegate_gateway::platform::Clock;
use tidegate_gateway::time::Timestamp;
use tidegate_simulator::{Fault, Faults, Running};

use super::minted::Minted;
use super::model::Model;
use crate::tasks::{TASKS, cancel, get};
use crate::world::{Ask, Heard, Said, Script, Setup, Step, Told, World, complete, modern};

/// Where the task is run, how it comes about, and what its upstream speaks.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub kept: bool,
    pub auto: bool,
    pub legacy: bool,
}

/// How schedules have ended: a search must have seen all of it.
#[derive(Default, Debug)]
pub struct Seen(BTreeMap<String, usize>);

impl Seen {
    pub fn add(&mut self, ended: Ended) {
        *self.0.entry(ended.0).or_default() += 1;
    }

    pub fn check(&self) {
        for ended in ["completed", "failed", "cancelled", "expired", "refused"] {
            assert!(self.0.contains_key(ended), "never {ended}: {self:?}");
        }
    }
}

/// How one schedule has ended.
pub struct Ended(String);

/// SplitMix64.
#[derive(Clone)]
struct Random(Rc<Cell<u64>>);

impl Random {
    fn below(&self, bound: u64) -> u64 {
        let next = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn index(&self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}

/// Something that is under way.
enum Live {
    Create(Running<'static, Told>),
    /// A poll, and whether the task had ended before.
    Get(Running<'static, Told>, bool),
    Cancel(Running<'static, Told>),
    Update(Running<'static, Told>),
    /// A delivery; copies are not given back to the queue.
    Consume(Bytes, bool, Running<'static, Consumed>),
    Dead(Bytes, Running<'static, Consumed>),
    Sweep(Running<'static, ()>),
}

pub struct Schedule {
    kind: Kind,
    random: Random,
    /// Takes requests; the others take messages.
    front: World,
    consumers: Vec<World>,
    model: Rc<RefCell<Model>>,
    live: Vec<Live>,
    due: Vec<Bytes>,
    handle: Option<String>,
    /// What the client was told instead of a handle.
    refused: Option<String>,
    faults: Vec<Faults>,
    /// Whether somebody waits for an answer that never comes.
    silent: Rc<Cell<bool>>,
    healthy: bool,
    answers: usize,
    /// When it all began.
    began: Timestamp,
}

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(3600);
/// How old what isolates read from KV may be.
const LAGS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_secs(60),
];

impl Schedule {
    pub fn new(kind: Kind, number: u64) -> Self {
        let random = Random(Rc::new(Cell::new(
            number.wrapping_mul(0x5851_f42d_4c95_7f2d),
        )));
        let model = Rc::new(RefCell::new(Model::new(random.chance(30))));
        let script = script(kind, &random, &model);
        let rule = json!({
            "name": "up__a",
            "execution": if kind.auto { "auto" } else { "task" },
            "taskAfterMs": 1000,
            "idempotent": model.borrow().is_idempotent(),
            "timeoutMs": 120_000,
        });
        let front = Setup::new().upstream("up", &script).rule(rule).start();
        front.sim.keeper.missing(!kind.kept);
        if random.chance(20) {
            front.server("up").down.set(true);
        }
        let consumers = vec![front.isolate(), front.isolate()];
        // What was published is there for everybody.
        front.sim.clock.advance(LAGS[2]);
        for isolate in consumers.iter().chain([&front]) {
            isolate.sim.kv.lag.set(LAGS[random.index(LAGS.len())]);
        }
        let began = front.sim.clock.now();
        let mut schedule = Self {
            kind,
            random,
            front,
            consumers,
            model,
            live: Vec::new(),
            due: Vec::new(),
            handle: None,
            refused: None,
            faults: Vec::new(),
            silent: Rc::default(),
            healthy: false,
            answers: 0,
            began,
        };
        schedule.arrange_faults();
        schedule
    }

    /// Lets writes go wrong, of all isolates and in keepers.
    fn arrange_faults(&mut self) {
        let percent = [0, 3, 15][self.random.index(3)];
        let isolates = self.consumers.iter().chain([&self.front]);
        let (atomic, queue) = self.front.sim.keeper.inner_faults();
        self.faults = vec![atomic, queue, self.front.sim.keeper.faults.clone()];
        for isolate in isolates {
            self.faults.push(isolate.sim.atomic.faults.clone());
            self.faults.push(isolate.sim.queue.faults.clone());
        }
        for faults in &self.faults {
            let (random, silent) = (self.random.clone(), Rc::clone(&self.silent));
            faults.decide(move |_| {
                if !random.chance(percent) {
                    return None;
                }
                let fault = match random.below(8) {
                    0 | 1 => Fault::Fail,
                    2 | 3 => Fault::FailButPersist,
                    4 | 5 => Fault::Conflict,
                    6 => Fault::Silent,
                    _ => Fault::SilentButPersist,
                };
                let is_silent = matches!(fault, Fault::Silent | Fault::SilentButPersist);
                silent.set(silent.get() || is_silent);
                Some(fault)
            });
        }
    }

    pub fn run(mut self) -> Ended {
        self.live.push(Live::Create(self.front.start_call(ask())));
        let steps = 20 + self.random.below(100);
        for _ in 0..steps {
            self.step();
            self.look();
        }
        self.heal();
        self.end()
    }

    /// What is stored is held against the model.
    fn look(&self) {
        let mut keys = self.front.sim.atomic.keys();
        keys.retain(|key| key.starts_with("task/"));
        assert!(keys.len() <= 1);
        let stored = keys
            .first()
            .and_then(|key| self.front.sim.atomic.stored(key));
        self.model.borrow_mut().look(stored);
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..50 => self.go_on(),
            50..60 => self.front.poll_deferred(),
            60..70 => self.pass(Duration::from_millis(self.random.below(1500))),
            70..74 => self.pass(SECOND * u32::try_from(self.random.below(30)).unwrap()),
            74 => self.pass(SECOND * 65),
            75..83 => self.deliver(),
            83..87 => self.poll(),
            87 => self.cancel(),
            88..93 => self.update(),
            93..95 => self.crash(),
            95 => self.kill(),
            96 => {
                let faults = &self.faults[self.random.index(self.faults.len())];
                faults.outage(self.random.chance(50));
            }
            97 => self.give_up(),
            98 => self.front.server("up").down.set(self.random.chance(40)),
            _ => match self.random.chance(10) {
                true => self.pass(TTL),
                false => self.sweep(),
            },
        }
    }

    fn pass(&self, by: Duration) {
        self.front.sim.clock.advance(by);
    }

    /// Lets one thing that is under way go on for a bit.
    fn go_on(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let at = self.random.index(self.live.len());
        for _ in 0..=self.random.below(6) {
            if self.poll_live(at, false) {
                return;
            }
            self.look();
        }
    }

    /// Goes on with what is under way; whether it has ended.
    fn poll_live(&mut self, at: usize, far: bool) -> bool {
        let live = &mut self.live[at];
        let ended = match live {
            Live::Create(run) => poll(run, far).map(Over::Created),
            Live::Get(run, after) => poll(run, far).map(|told| Over::Polled(told, *after)),
            Live::Cancel(run) => poll(run, far).map(Over::Cancelled),
            Live::Update(run) => poll(run, far).map(Over::Updated),
            Live::Consume(_, _, run) => poll(run, far).map(Over::Consumed),
            Live::Dead(_, run) => poll(run, far).map(Over::Consumed),
            Live::Sweep(run) => poll(run, far).map(|()| Over::Done),
        };
        let Some(over) = ended else { return false };
        let live = self.live.swap_remove(at);
        self.look();
        self.over(live, over);
        true
    }

    fn over(&mut self, live: Live, over: Over) {
        match over {
            Over::Created(told) => self.created(&told),
            Over::Polled(told, after) => {
                if self.answers_in_words(&told) {
                    self.model.borrow().polled(told.result(), after);
                }
            }
            Over::Cancelled(told) => {
                if self.answers_in_words(&told) {
                    assert!(self.model.borrow().has_ended(), "cancelled, and goes on");
                }
            }
            Over::Updated(told) => drop(self.answers_in_words(&told)),
            Over::Consumed(consumed) => {
                if let (
                    Live::Consume(message, false, _) | Live::Dead(message, _),
                    Consumed::Retry { after },
                ) = (live, consumed)
                {
                    self.front.sim.queue.put_back(message, after);
                }
            }
            Over::Done => {}
        }
    }

    fn created(&mut self, told: &Told) {
        let message = told.json();
        match message["result"]["resultType"].as_str() {
            Some("task") => {
                let handle = message["result"]["taskId"].as_str().unwrap();
                self.handle = Some(handle.to_owned());
                let created = &mut self.model.borrow_mut().created_ms;
                // Unless its time was over before it was made.
                let late = self.front.sim.clock.now() >= self.began + TTL;
                assert!(created.is_some() || late, "a handle of nothing");
                created.get_or_insert(self.began.0);
            }
            Some(_) => {
                assert!(self.kind.auto && self.model.borrow().executions() > 0);
                self.refused = Some("answered".to_owned());
            }
            None => {
                told.error();
                let unsettled = told.reason() == "task_unsettled";
                if !self.kind.auto && !unsettled {
                    self.model.borrow_mut().deny();
                }
                self.refused = Some("refused".to_owned());
            }
        }
    }

    /// A handle that was given resolves until its time is over, and only a fault is an
    /// excuse for an error.
    fn answers_in_words(&self, told: &Told) -> bool {
        if told.json().get("result").is_some() {
            return true;
        }
        let code = told.code();
        if self.is_expired() {
            // The token may be over as well.
            assert!(matches!(code, -32602 | -32603 | -31000), "{told:?}");
        } else {
            assert_eq!(code, -32603, "{told:?}");
            assert!(!self.healthy, "{told:?}");
        }
        false
    }

    fn is_expired(&self) -> bool {
        let ttl = u64::try_from(TTL.as_millis()).unwrap();
        let created = self.model.borrow().created_ms;
        created.is_some_and(|created| self.front.sim.clock.now().0 >= created + ttl)
    }

    fn deliver(&mut self) {
        self.due.extend(self.front.sim.queue.take());
        if self.due.is_empty() {
            return;
        }
        let message = self.due.swap_remove(self.random.index(self.due.len()));
        if self.random.chance(20) {
            self.consume(message.clone(), true);
        }
        self.consume(message, false);
    }

    fn consume(&mut self, message: Bytes, copy: bool) {
        let consumer = &self.consumers[self.random.index(self.consumers.len())];
        let run = consumer.start_consuming(message.clone());
        self.live.push(Live::Consume(message, copy, run));
    }

    /// The queue gives up on a message.
    fn give_up(&mut self) {
        self.due.extend(self.front.sim.queue.take());
        if let Some(message) = self.due.pop() {
            let run = self.consumers[0].start_giving_up(message.clone());
            self.live.push(Live::Dead(message, run));
        }
    }

    /// The timer fires.
    fn sweep(&mut self) {
        let run = self.consumers[1].start_tick();
        self.live.push(Live::Sweep(run));
    }

    fn poll(&mut self) {
        if let Some(handle) = &self.handle {
            let run = self.front.start_call(get(handle));
            let after = self.model.borrow().has_ended();
            self.live.push(Live::Get(run, after));
        }
    }

    fn cancel(&mut self) {
        if let Some(handle) = &self.handle {
            let run = self.front.start_call(cancel(handle));
            self.live.push(Live::Cancel(run));
        }
    }

    /// Answers some of what is asked, or what is not.
    fn update(&mut self) {
        let Some(handle) = self.handle.clone() else {
            return;
        };
        let mut keys = self.model.borrow().open();
        keys.retain(|_| self.healthy || self.random.chance(70));
        if keys.is_empty() {
            keys.push(format!("elicitation-{}", self.random.below(4)));
        }
        let mut responses = json!({});
        for key in keys {
            self.answers += 1;
            let value = format!("v{}", self.answers);
            self.model.borrow_mut().give(&key, &value);
            responses[&key] = json!({ "action": "accept", "content": { "name": value } });
        }
        let params = json!({ "taskId": handle, "inputResponses": responses });
        let run = self
            .front
            .start_call(modern("tasks/update", params).with_tasks());
        self.live.push(Live::Update(run));
    }

    /// Ends something that is under way; its message comes again.
    fn crash(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let at = self.random.index(self.live.len());
        let live = self.live.swap_remove(at);
        self.drop_live(live);
        if self.random.chance(30) {
            self.front.lose_deferred();
        }
    }

    fn drop_live(&mut self, live: Live) {
        match live {
            Live::Create(_) => self.refused = Some("gone".to_owned()),
            Live::Consume(message, false, _) => self.due.push(message),
            Live::Dead(message, _) => self.due.push(message),
            Live::Get(..)
            | Live::Cancel(_)
            | Live::Update(_)
            | Live::Consume(..)
            | Live::Sweep(_) => {}
        }
    }

    /// Ends keepers.
    fn kill(&self) {
        for name in self.front.sim.keeper.names() {
            self.front.sim.keeper.kill(&name);
        }
    }

    /// Nothing goes wrong any more, and time passes.
    fn heal(&mut self) {
        for faults in &self.faults {
            faults.decide(|_| None);
            faults.outage(false);
        }
        self.front.server("up").down.set(false);
        self.healthy = true;
        // What goes on was begun when things went wrong.
        let mut begun = self.live.len();
        if self.silent.get() {
            for live in std::mem::take(&mut self.live) {
                self.drop_live(live);
            }
            self.kill();
            self.front.lose_deferred();
            begun = 0;
        }
        self.healthy = begun == 0;
        self.settle();
        self.sweep_up();
    }

    /// The sweep goes over everything; over what nobody polls again, since it may have begun in
    /// the middle.
    fn sweep_up(&mut self) {
        let unknown = self.handle.is_none();
        let often = if unknown { 4 } else { 1 };
        for _ in 0..often {
            self.pass(SECOND * 65);
            self.sweep();
            self.settle();
        }
        // The sweep goes by the directory, which refuses no task that it cannot enter.
        let keys = self.front.sim.atomic.keys();
        let entered = keys.iter().any(|key| key.starts_with("directory/"));
        let open = self.model.borrow().is_open() && !self.is_expired();
        // What has a message is gone on with.
        let left = open && self.front.sim.queue.waiting() == 0;
        assert!(!(unknown && entered && left), "left open for ever");
    }

    /// Whatever is under way comes to its end.
    fn settle(&mut self) {
        for _ in 0..80 {
            self.front.step_deferred();
            let mut at = 0;
            while at < self.live.len() {
                if !self.poll_live(at, true) {
                    at += 1;
                }
            }
            self.look();
            let idle = self.live.is_empty();
            self.healthy |= idle;
            self.due.extend(self.front.sim.queue.take());
            let ended = self.model.borrow().has_ended() || self.is_expired();
            if idle && self.due.is_empty() && (ended || self.handle.is_none()) {
                return;
            }
            for message in std::mem::take(&mut self.due) {
                self.consume(message, false);
            }
            let client =
                |live: &Live| !matches!(live, Live::Consume(..) | Live::Dead(..) | Live::Sweep(_));
            if !self.live.iter().any(client) {
                self.poll();
                if !self.model.borrow().open().is_empty() {
                    self.update();
                }
            }
            self.pass(SECOND * 5);
        }
    }

    fn end(self) -> Ended {
        let Some(handle) = &self.handle else {
            return Ended(
                self.refused
                    .clone()
                    .unwrap_or_else(|| "never answered".to_owned()),
            );
        };
        let told = self.front.isolate().call(get(handle));
        if self.is_expired() {
            assert_eq!(told.code(), -32602);
            return Ended("expired".to_owned());
        }
        let task = told.result();
        assert!(self.model.borrow().has_ended(), "lost: {task}");
        self.model.borrow().polled(task, true);
        Ended(task["status"].as_str().unwrap().to_owned())
    }
}

/// What something that was under way came to.
enum Over {
    Created(Told),
    Polled(Told, bool),
    Cancelled(Told),
    Updated(Told),
    Consumed(Consumed),
    Done,
}

fn poll<T>(run: &mut Running<'static, T>, far: bool) -> Option<T> {
    match far {
        true => run.step(),
        false => run.poll_once(),
    }
}

fn ask() -> Ask {
    let capabilities = json!({ "elicitation": { "form": {} }, "extensions": { TASKS: {} } });
    modern("tools/call", json!({ "name": "up__a", "arguments": {} }))
        .meta("clientCapabilities", capabilities)
}

/// An upstream whose tool does one of the things tools do.
fn script(kind: Kind, random: &Random, model: &Rc<RefCell<Model>>) -> Script {
    let script = match kind.legacy {
        true => Script::legacy("2025-11-25", &["a"]),
        false => Script::modern(&["a"]),
    };
    let (habit, slow) = (
        random.below(12),
        Duration::from_millis(random.below(40_000)),
    );
    let slow = if random.chance(30) {
        Duration::ZERO
    } else {
        slow
    };
    let rounds = 1 + usize::try_from(random.below(2)).unwrap();
    let answered: Rc<RefCell<Vec<String>>> = Rc::default();
    let (heard_model, heard_answers) = (Rc::clone(model), Rc::clone(&answered));
    script.on("", move |heard| {
        let id = heard.message["id"].as_str().unwrap();
        let value = heard.message["result"]["content"]["name"].as_str();
        heard_model.borrow_mut().answer(id, value);
        heard_answers.borrow_mut().push(id.to_owned());
        Said::Raw(202, "text/plain", Vec::new())
    });
    let model = Rc::clone(model);
    let minted = Minted::new(random.below(6));
    minted.answer_in(&script);
    script.on("tools/call", move |heard: &Heard| {
        let state = heard.params()["requestState"].as_str().unwrap_or_default();
        let number = model.borrow_mut().execute(state);
        let answers = heard.params()["inputResponses"].as_object();
        for answer in answers.into_iter().flat_map(serde_json::Map::values) {
            model.borrow().hear(answer["content"]["name"].as_str());
        }
        let mut result = complete(&format!("run {number}"));
        let said = match habit {
            0 => Said::Error(-32603),
            1 => Said::NoAnswer(tidegate_gateway::platform::HttpError::MaybeSent(
                "cut".to_owned(),
            )),
            2..6 if kind.legacy => {
                return Said::Stream(conversation(heard, number, rounds, &answered, &result));
            }
            2..6 if state.len() < rounds => Said::Result(requires(state)),
            6 => {
                result["isError"] = json!(true);
                Said::Result(result)
            }
            // To a call that has not become a task its own would be passed on.
            10.. if !kind.legacy && !kind.auto => minted.mint(result),
            _ => Said::Result(result),
        };
        Said::After(slow, Box::new(said))
    });
    script
}

fn requires(state: &str) -> Value {
    let params = json!({ "mode": "form", "message": "?", "requestedSchema": schema() });
    let request = json!({ "method": "elicitation/create", "params": params });
    json!({
        "resultType": "input_required",
        "inputRequests": { "a": request, "b": request },
        "requestState": format!("{state}x"),
    })
}

/// The steps of a legacy upstream's stream that asks, once or twice.
fn conversation(
    heard: &Heard,
    run: usize,
    rounds: usize,
    answered: &Rc<RefCell<Vec<String>>>,
    result: &Value,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 0..rounds {
        let id = format!("{run}-{round}");
        let params = json!({ "message": "?", "requestedSchema": schema() });
        steps.push(Step::Send(json!({
            "jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params,
        })));
        let answered = Rc::clone(answered);
        steps.push(Step::Until(Rc::new(move || {
            answered.borrow().contains(&id)
        })));
    }
    steps.push(Step::Send(heard.response(result)));
    steps
}

fn schema() -> Value {
    json!({ "type": "object", "properties": { "name": { "type": "string" } } })
}
