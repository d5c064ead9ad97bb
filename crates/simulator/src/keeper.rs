//! Keepers: one per name in a world, each a gateway with a memory of its own.
//!
//! What is kept is driven by whoever asks: an answer and its body by the one who waits for
//! them, deferred work by every future that is driven in this world. Nothing here is owned
//! by the asking isolate, so all of it can die at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use futures_util::future::{FutureExt, LocalBoxFuture};
use futures_util::stream::{self, StreamExt};
use http::{Request, Response};
use tidegate_gateway::body::{Body, BodyError};
use tidegate_gateway::platform::{Keeper, LogLevel, Unavailable};
use tidegate_gateway::{Gateway, Memory};

use crate::Simulator;
use crate::fault::{Fault, Faults, unavailable};
use crate::run::give_way;

/// One isolate's handle on the keepers of its world.
pub struct SimKeeper {
    world: Weak<World>,
    /// Isolates own the keepers. A keeper knows of the others and owns none, or a world
    /// would own itself.
    owned: Option<Rc<World>>,
    /// What goes wrong for this isolate; a request's key is the keeper's name.
    pub faults: Faults,
}

struct World {
    /// What every keeper's platform is an isolate of.
    template: Simulator,
    places: RefCell<BTreeMap<String, Rc<Place>>>,
    missing: Cell<bool>,
    forget_idle: Cell<bool>,
}

/// One keeper while it lives.
struct Place {
    gateway: Gateway<Simulator>,
    deferred: Deferred,
    lives: RefCell<Vec<Weak<dyn Mortal>>>,
    dead: Cell<bool>,
}

type Deferred = Rc<RefCell<Vec<LocalBoxFuture<'static, ()>>>>;

impl SimKeeper {
    /// The keepers of the world `template` is of.
    pub(crate) fn new(template: Simulator) -> Self {
        let world = Rc::new_cyclic(|world| World {
            template: Simulator {
                keeper: Self {
                    world: Weak::clone(world),
                    ..Self::nowhere()
                },
                ..template
            },
            places: RefCell::default(),
            missing: Cell::default(),
            forget_idle: Cell::default(),
        });
        Self {
            world: Rc::downgrade(&world),
            owned: Some(world),
            faults: Faults::default(),
        }
    }

    /// A handle on no world.
    pub(crate) fn nowhere() -> Self {
        Self {
            world: Weak::new(),
            owned: None,
            faults: Faults::default(),
        }
    }

    /// Another isolate's handle on the same keepers, without faults of its own.
    pub(crate) fn isolate(&self) -> Self {
        Self {
            world: Weak::clone(&self.world),
            owned: self.owned.clone(),
            faults: Faults::default(),
        }
    }

    /// Whether the hosts of this world have no keepers at all.
    pub fn missing(&self, missing: bool) {
        if let Some(world) = self.world.upgrade() {
            world.missing.set(missing);
        }
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.world.upgrade().is_none_or(|world| world.missing.get())
    }

    /// Whether a keeper in which nothing is under way is found empty by the next request:
    /// hosts end idle keepers when they like.
    pub fn forget_idle(&self, forget: bool) {
        if let Some(world) = self.world.upgrade() {
            world.forget_idle.set(forget);
        }
    }

    /// The keepers that live now.
    pub fn names(&self) -> Vec<String> {
        let world = self.world.upgrade();
        world.map_or_else(Vec::new, |world| {
            world.places.borrow().keys().cloned().collect()
        })
    }

    /// Whether something is under way in this keeper.
    pub fn is_busy(&self, name: &str) -> bool {
        self.place(name).is_some_and(|place| place.is_busy())
    }

    /// Ends a keeper: what it remembers, waits for and streams is gone at once. Gives
    /// whether there was one.
    pub fn kill(&self, name: &str) -> bool {
        let world = self.world.upgrade();
        let place = world.and_then(|world| world.places.borrow_mut().remove(name));
        place.map(|place| place.die()).is_some()
    }

    /// The lines keepers have logged, dead ones too, oldest first.
    pub fn log_lines(&self) -> Vec<(LogLevel, String)> {
        let world = self.world.upgrade();
        world.map_or_else(Vec::new, |world| world.template.log_lines())
    }

    fn place(&self, name: &str) -> Option<Rc<Place>> {
        self.world.upgrade()?.places.borrow().get(name).cloned()
    }
}

impl Keeper for SimKeeper {
    async fn send(
        &self,
        name: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Unavailable> {
        give_way().await;
        let fault = self.faults.writing(name)?;
        if matches!(fault, Some(Fault::Fail | Fault::Conflict)) {
            return Err(unavailable("Fail"));
        }
        let place = match self.world.upgrade() {
            Some(world) => world.find(name),
            None => return Err(unavailable("the world is over")),
        };
        let response = place
            .answer(request)
            .await
            .ok_or_else(|| unavailable("the keeper died"))?;
        give_way().await;
        match fault {
            None => Ok(response),
            Some(fault) => Err(unavailable(&format!("{fault:?}"))),
        }
    }
}

impl World {
    fn find(&self, name: &str) -> Rc<Place> {
        let mut places = self.places.borrow_mut();
        if self.forget_idle.get() && places.get(name).is_some_and(|place| !place.is_busy()) {
            places.remove(name);
        }
        let place = places
            .entry(name.to_owned())
            .or_insert_with(|| Place::new(&self.template));
        Rc::clone(place)
    }
}

impl Place {
    fn new(template: &Simulator) -> Rc<Self> {
        let platform = Simulator {
            log: Rc::clone(&template.log),
            ..template.isolate()
        };
        let place = Rc::new(Self {
            deferred: Rc::clone(&platform.deferred),
            gateway: Gateway::new(platform, Rc::new(Memory::default())),
            lives: RefCell::default(),
            dead: Cell::default(),
        });
        let weak = Rc::downgrade(&place);
        template.clock.go_beside(poll_fn(move |context| {
            match weak.upgrade().filter(|place| !place.dead.get()) {
                Some(place) => place.drive(context),
                None => Poll::Ready(()),
            }
        }));
        place
    }

    /// The keeper's answer; `None` when it dies before.
    async fn answer(self: Rc<Self>, request: Request<Body>) -> Option<Response<Body>> {
        let place = Rc::clone(&self);
        let keep = async move { place.gateway.keep(request).await };
        let life = self.live(keep.boxed_local());
        let response =
            poll_fn(|context| life.poll(context, |keep, context| keep.poll_unpin(context))).await?;
        let (head, body) = response.into_parts();
        let body = match body {
            Body::Full(bytes) => Body::Full(bytes),
            Body::Stream(chunks) => {
                let life = self.live(chunks);
                Body::stream(stream::unfold(Some(life), |life| async {
                    let life = life?;
                    let next = poll_fn(|context| {
                        life.poll(context, |chunks, context| chunks.poll_next_unpin(context))
                    });
                    match next.await {
                        Some(chunk) => Some((chunk?, Some(life))),
                        None => Some((Err(BodyError("the keeper died".to_owned())), None)),
                    }
                }))
            }
        };
        Some(Response::from_parts(head, body))
    }

    /// Lets `inner` live no longer than this keeper.
    fn live<T: 'static>(&self, inner: T) -> Rc<Life<T>> {
        let life = Rc::new(Life {
            inner: RefCell::new(Some(inner)),
            dead: Cell::new(self.dead.get()),
            waker: RefCell::default(),
        });
        let mut lives = self.lives.borrow_mut();
        lives.retain(|life| life.strong_count() > 0);
        let weak = Rc::downgrade(&life);
        lives.push(weak);
        life
    }

    /// Lets deferred work go on.
    fn drive(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = Vec::new();
        loop {
            let work = self.deferred.take();
            if work.is_empty() {
                break;
            }
            for mut future in work {
                if !self.dead.get() && future.poll_unpin(context).is_pending() {
                    waiting.push(future);
                }
            }
        }
        if self.dead.get() {
            return Poll::Ready(());
        }
        self.deferred.borrow_mut().append(&mut waiting);
        Poll::Pending
    }

    fn is_busy(&self) -> bool {
        let mut lives = self.lives.borrow_mut();
        lives.retain(|life| life.strong_count() > 0);
        !lives.is_empty() || !self.deferred.borrow().is_empty() || self.gateway.kept()
    }

    fn die(&self) {
        self.dead.set(true);
        for life in self.lives.take() {
            if let Some(life) = life.upgrade() {
                life.end();
            }
        }
        // Dropped outside the borrow: what is dropped may defer.
        while !self.deferred.borrow().is_empty() {
            drop(self.deferred.take());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.die();
    }
}

/// Something of a keeper that somebody outside holds.
struct Life<T> {
    /// Absent while it is polled, and when it is over.
    inner: RefCell<Option<T>>,
    dead: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

trait Mortal {
    fn end(&self);
}

impl<T> Mortal for Life<T> {
    fn end(&self) {
        self.dead.set(true);
        drop(self.inner.take());
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Life<T> {
    /// Polls what lives; `None` when it has ended.
    fn poll<R>(
        &self,
        context: &mut Context<'_>,
        poll: impl FnOnce(&mut T, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<Option<R>> {
        let Some(mut inner) = self.inner.take() else {
            return Poll::Ready(None);
        };
        self.waker.replace(Some(context.waker().clone()));
        let polled = poll(&mut inner, context);
        // It may have been ended from inside.
        if self.dead.get() {
            return Poll::Ready(None);
        }
        self.inner.replace(Some(inner));
        polled.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidegate_gateway::platform::Platform;

    use super::*;

    fn ping(body: Body) -> Request<Body> {
        Request::post("http://keeper/ping").body(body).unwrap()
    }

    /// A request's body that is open until it is dropped.
    fn open_end() -> Body {
        Body::stream(stream::pending())
    }

    async fn id(world: &Simulator, name: &str) -> Result<Bytes, Unavailable> {
        let response = world.keeper.send(name, ping(Body::empty())).await?;
        Ok(response.into_body().read(100).await.unwrap())
    }

    #[test]
    fn a_keeper_is_one_for_all_isolates_and_remembers_until_it_dies() {
        let world = Simulator::new();
        let other = world.isolate();
        let first = world.run(id(&world, "a")).unwrap();
        assert_eq!(world.run(id(&other, "a")).unwrap(), first);
        assert_ne!(world.run(id(&world, "b")).unwrap(), first);
        assert_eq!(other.keeper.names(), ["a", "b"]);
        assert!(other.keeper.kill("a") && !other.keeper.kill("a"));
        assert_ne!(world.run(id(&world, "a")).unwrap(), first);
    }

    #[test]
    fn an_idle_keeper_can_be_forgotten_but_not_a_busy_one() {
        let world = Simulator::new();
        world.keeper.forget_idle(true);
        let first = world.run(id(&world, "a")).unwrap();
        assert_ne!(world.run(id(&world, "a")).unwrap(), first);
        let open = world.run(world.keeper.send("a", ping(open_end()))).unwrap();
        assert!(world.keeper.is_busy("a"));
        let second = world.run(id(&world, "a")).unwrap();
        assert_eq!(world.run(id(&world, "a")).unwrap(), second);
        drop(open);
        assert!(!world.keeper.is_busy("a"));
    }

    #[test]
    fn whoever_waits_for_a_keeper_that_dies_hears_of_it() {
        let world = Simulator::new();
        let late = Request::post("http://keeper/ping?late").body(open_end());
        let mut waiting = world.start(world.keeper.send("a", late.unwrap()));
        assert!(waiting.step().is_none());
        let response = world.run(world.keeper.send("a", ping(open_end())));
        let mut chunks = response.unwrap().into_body().into_stream();
        assert!(world.run(chunks.next()).unwrap().is_ok());
        world.keeper.kill("a");
        assert!(waiting.step().unwrap().is_err());
        assert!(world.run(chunks.next()).unwrap().is_err());
        assert!(world.run(chunks.next()).is_none());
    }

    #[test]
    fn a_keeper_can_be_out_of_reach_or_its_answer_lost_or_there_is_none() {
        let world = Simulator::new();
        let other = world.isolate();
        world.keeper.faults.outage(true);
        assert!(world.run(id(&world, "a")).is_err());
        assert!(world.run(id(&other, "b")).is_ok());
        world.keeper.faults.outage(false);
        world.keeper.faults.arrange("a", 1, Fault::Fail);
        assert!(world.run(id(&world, "a")).is_err());
        assert_eq!(world.keeper.names(), ["b"]);
        world.keeper.faults.arrange("a", 1, Fault::FailButPersist);
        assert!(world.run(id(&world, "a")).is_err());
        assert_eq!(world.keeper.names(), ["a", "b"]);
        world.keeper.missing(true);
        assert!(other.keeper().is_none());
    }

    #[test]
    fn what_a_keeper_defers_goes_on_when_nobody_asks_it_and_dies_with_it() {
        let world = Simulator::new();
        world.run(id(&world, "a")).unwrap();
        let place = world.keeper.place("a").unwrap();
        let (count, clock) = (Rc::new(Cell::new(0)), world.clock.clone());
        let counted = Rc::clone(&count);
        let work = async move {
            loop {
                tidegate_gateway::platform::Clock::sleep(&clock, std::time::Duration::from_secs(1))
                    .await;
                counted.set(counted.get() + 1);
            }
        };
        place.deferred.borrow_mut().push(work.boxed_local());
        drop(place);
        world.clock.jump_when_idle(false);
        for seen in 0..3 {
            world.settle();
            assert_eq!(count.get(), seen);
            world.clock.advance(std::time::Duration::from_secs(1));
        }
        assert!(world.keeper.is_busy("a"));
        world.keeper.kill("a");
        assert_eq!(Rc::strong_count(&count), 1, "what was deferred is gone");
        world.settle();
        assert_eq!(world.clock.sleepers(), 0);
    }

    #[test]
    fn a_world_ends_with_all_its_keepers() {
        let world = Simulator::new();
        let response = world.run(world.keeper.send("a", ping(open_end())));
        let mut chunks = response.unwrap().into_body().into_stream();
        let clock = world.clock.clone();
        drop(world);
        let mut rest = crate::Running::new(&clock, chunks.next());
        assert!(rest.step().unwrap().unwrap().is_err());
    }
}
