//! One keeper: a gateway, and whatever of it somebody outside holds or waits for. All of
//! that belongs to the keeper and ends with it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use futures_util::future::{FutureExt, LocalBoxFuture};
use futures_util::stream::{self, StreamExt};
use http::{Request, Response};
use tidegate_gateway::body::{Body, BodyError};
use tidegate_gateway::{Gateway, Memory};

use crate::Simulator;

/// One keeper while it lives.
pub(super) struct Place {
    gateway: Gateway<Simulator>,
    pub(super) deferred: Deferred,
    lives: RefCell<Vec<Weak<dyn Mortal>>>,
    dead: Cell<bool>,
}

type Deferred = Rc<RefCell<Vec<LocalBoxFuture<'static, ()>>>>;

impl Place {
    pub(super) fn new(template: &Simulator) -> Rc<Self> {
        let mut platform = Simulator {
            log: Rc::clone(&template.log),
            ..template.isolate()
        };
        platform.atomic.faults = template.atomic.faults.clone();
        platform.queue.faults = template.queue.faults.clone();
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
    pub(super) async fn answer(self: Rc<Self>, request: Request<Body>) -> Option<Response<Body>> {
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

    pub(super) fn is_busy(&self) -> bool {
        let mut lives = self.lives.borrow_mut();
        lives.retain(|life| life.strong_count() > 0);
        !lives.is_empty() || !self.deferred.borrow().is_empty() || self.gateway.kept()
    }

    pub(super) fn die(&self) {
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
