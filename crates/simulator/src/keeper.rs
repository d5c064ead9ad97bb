//! Keepers: one per name in a world, each a gateway with a memory of its own.
//!
//! An answer and its body are driven by the one who waits for them, what a keeper defers by
//! every future that is driven in this world. Neither belongs to the asking isolate, so all
//! of a keeper can die at once.

mod place;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use http::{Request, Response};
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::{Keeper, LogLevel, Unavailable};

use crate::Simulator;
use crate::fault::{Faults, unavailable};
use crate::run::give_way;
use place::Place;

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

    /// What goes wrong with the atomic store and the queue inside keepers, all of them.
    pub fn inner_faults(&self) -> (Faults, Faults) {
        let world = self.world.upgrade();
        let template = world.as_ref().map(|world| &world.template);
        template.map_or_else(Default::default, |template| {
            let (atomic, queue) = (&template.atomic, &template.queue);
            (atomic.faults.clone(), queue.faults.clone())
        })
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
        if let Some(fault) = fault.filter(|fault| !fault.persists()) {
            return fault.told().await;
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
            Some(fault) => fault.told().await,
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

#[cfg(test)]
mod tests;
