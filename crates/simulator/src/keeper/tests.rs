use std::time::Duration;

use bytes::Bytes;
use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt};
use tidegate_gateway::platform::{Clock, Platform};

use super::*;
use crate::fault::Fault;

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
            Clock::sleep(&clock, Duration::from_secs(1)).await;
            counted.set(counted.get() + 1);
        }
    };
    place.deferred.borrow_mut().push(work.boxed_local());
    drop(place);
    world.clock.jump_when_idle(false);
    for seen in 0..3 {
        world.settle();
        assert_eq!(count.get(), seen);
        world.clock.advance(Duration::from_secs(1));
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
