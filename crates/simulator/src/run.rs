//! Driving futures on one thread against simulated time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::clock::SimClock;

/// A future that has been started and is driven by hand.
pub struct Running<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    clock: SimClock,
    woken: Arc<Flag>,
}

/// Nothing can make progress: every task waits for something that will not happen by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stalled {
    /// Sleeps that time would end, were it moved.
    pub sleepers: usize,
}

impl<'a, T> Running<'a, T> {
    /// Takes hold of `future` without polling it.
    pub fn new(clock: &SimClock, future: impl Future<Output = T> + 'a) -> Self {
        Self {
            future: Box::pin(future),
            clock: clock.clone(),
            woken: Arc::default(),
        }
    }

    /// Goes as far as possible without moving time, and so does what goes on beside;
    /// `Some` when it is done. Must not be called again after that.
    pub fn step(&mut self) -> Option<T> {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        let mut done = None;
        loop {
            self.woken.0.store(false, Ordering::Relaxed);
            if done.is_none()
                && let Poll::Ready(value) = self.future.as_mut().poll(&mut context)
            {
                done = Some(value);
            }
            self.clock.poll_beside(&mut context);
            if !self.woken.0.load(Ordering::Relaxed) {
                return done;
            }
        }
    }

    /// Goes as far as the next place where others may come between, and so does what goes on
    /// beside; `Some` when it is done. Must not be called again after that.
    pub fn poll_once(&mut self) -> Option<T> {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        let polled = self.future.as_mut().poll(&mut context);
        self.clock.poll_beside(&mut context);
        match polled {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    /// Goes on to the end, letting time jump to the next sleeper whenever nothing else can
    /// happen.
    pub fn finish(mut self) -> Result<T, Stalled> {
        loop {
            if let Some(value) = self.step() {
                return Ok(value);
            }
            if !self.clock.jump() {
                return Err(Stalled {
                    sleepers: self.clock.sleepers(),
                });
            }
        }
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Gives way once, so that operations begun together interleave.
pub(crate) async fn give_way() {
    let mut gave_way = false;
    std::future::poll_fn(|context| {
        if gave_way {
            return Poll::Ready(());
        }
        gave_way = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
