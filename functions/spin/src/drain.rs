//! Who works on the queue, and when: any instance, after it has answered.
//!
//! Spin has no trigger for rows in a database, and a wake-up may always be lost. So a
//! message is looked for by several who need not agree:
//!
//! - the instance that sent it, right after its response (or after the delay);
//! - every instance from time to time, after the responses it gives; one of them every five
//!   minutes also looks for tasks that have lost their message;
//! - whoever calls [`TIMER`]: a cron job or a timer, for a deployment nobody else calls.
//!
//! That each is worked on by one at a time is the lease's affair ([`crate::outbox`]). A task
//! whose client polls is therefore found by a poll, even if everything else fails: by the
//! first that an instance with a place for it answers ([`AT_ONCE`]).

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use http::{HeaderMap, StatusCode, header};
use spin_sdk::wasip3::spawn;
use tidegate_gateway::platform::{AtomicStore, Clock, LogLevel, Platform, Swap, Unavailable};
use tidegate_gateway::{Consumed, Gateway};

use crate::atomic::{self, Records};
use crate::clock::{WasiClock, now};
use crate::outbox::{Delivery, LEASE};
use crate::platform::Host;

/// The path a timer calls, with `Authorization: Bearer` and the secret [`TIMER_SECRET`]. Where
/// that is not set the path is not there.
pub const TIMER: &str = "/timer";
/// The secret, as the gateway would name it.
const TIMER_SECRET: &str = "TIDEGATE_TIMER_SECRET";
/// How long a timer's call is kept waiting for the work it finds; the work goes on after.
const TIMER_WAIT: Duration = Duration::from_secs(20);

/// Messages one instance works on at once: as many as Spin gives it requests before it takes
/// another one, so tasks that run for long leave no poll without a place. They wait for their
/// upstreams nearly all the time, and hold a result of 8 MiB each at most.
const AT_ONCE: u32 = 128;
/// How often a message is delivered again before it is given up, as `max_retries` in
/// `wrangler.toml` has it: that of a slow task comes about once a minute while the task runs.
const RETRIES_MAX: u32 = 100;
/// How often it is delivered in all.
const DELIVERIES_MAX: u32 = 1 + RETRIES_MAX;
/// How often a lease is renewed: twice before it lapses, should one renewal fail.
const RENEW_EVERY: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// Longest delay an instance waits for by itself; who looks later finds the rest.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often an instance looks after its responses.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often tasks are looked after that nobody asks for, as the `crons` of `wrangler.toml`
/// have it, if anybody is answered meanwhile.
const TICK_EVERY: Duration = Duration::from_secs(5 * 60);
/// The record that says that they have been; none of the gateway's own is called so.
const TICKED: &str = "spin-ticked";
/// One look in this many sweeps out what has expired.
const SWEEP_ONE_IN: u8 = 16;

thread_local! {
    static STATE: State = const {
        State { working: Cell::new(0), missed: Cell::new(false), looked_ms: Cell::new(0) }
    };
}

/// What an instance knows of its own work.
struct State {
    /// Workers that run.
    working: Cell<u32>,
    /// Somebody woke them while there were enough: they look once more before they end.
    missed: Cell<bool>,
    /// When the last look was.
    looked_ms: Cell<u64>,
}

/// Has what is due after `delay` worked on by this instance, if it lives that long.
pub fn wake(delay: Duration) {
    if delay > WAIT_MAX {
        return;
    }
    spawn(async move {
        if !delay.is_zero() {
            WasiClock.sleep(delay).await;
        }
        all_due().await;
    });
}

/// Looks for work after a response, unless this instance has just done so.
pub fn look() {
    let now = now().0;
    let due = STATE.with(|state| {
        let due = now.saturating_sub(state.looked_ms.get()) >= as_ms(LOOK_EVERY);
        if due {
            state.looked_ms.set(now);
        }
        due
    });
    if due {
        spawn(tick_sometimes());
        spawn(async {
            all_due().await;
            sweep_sometimes().await;
        });
    }
}

/// Answers a timer, when nothing more is due or [`TIMER_WAIT`] is over. `None` if there is no
/// such path.
pub async fn timer(gateway: &Gateway<Host>, headers: &HeaderMap) -> Option<StatusCode> {
    let secret = match Host.secret(TIMER_SECRET).await {
        Ok(secret) => secret?,
        Err(error) => {
            report("the timer's secret cannot be read", &error);
            return Some(StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if !given.is_some_and(|given| equal(given.as_bytes(), secret.expose().as_bytes())) {
        return Some(StatusCode::UNAUTHORIZED);
    }
    gateway.tick().await;
    let (done, finished) = oneshot::channel();
    spawn(async move {
        all_due().await;
        sweep_sometimes().await;
        let _ = done.send(());
    });
    select(finished, pin!(WasiClock.sleep(TIMER_WAIT))).await;
    Some(StatusCode::NO_CONTENT)
}

/// Compares without telling by the time it takes where the two differ.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let differ = |seen, (a, b): (&u8, &u8)| seen | (a ^ b);
    one.len() == other.len() && one.iter().zip(other).fold(0, differ) == 0
}

/// Works on messages until none is due.
async fn all_due() {
    let Some(_seat) = Seat::take() else {
        return;
    };
    let gateway = crate::gateway();
    loop {
        match Delivery::take().await {
            Ok(Some(delivery)) => {
                // Where there is one message there may be more, and nobody who looks soon: a
                // timer calls once a minute, and this message may take many.
                wake(Duration::ZERO);
                work(&gateway, &delivery).await;
            }
            Ok(None) if STATE.with(|state| state.missed.take()) => {}
            Ok(None) => return,
            Err(error) => return report("the queue cannot be read", &error),
        }
    }
}

/// A worker's place among those at once; given back however it ends.
struct Seat;

impl Seat {
    /// One that is free. If none is, whoever has one looks once more.
    fn take() -> Option<Self> {
        STATE.with(|state| {
            let working = state.working.get();
            if working >= AT_ONCE {
                state.missed.set(true);
                return None;
            }
            state.working.set(working + 1);
            Some(Self)
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        STATE.with(|state| state.working.set(state.working.get().saturating_sub(1)));
    }
}

/// Hands one message to the gateway and settles it.
async fn work(gateway: &Gateway<Host>, delivery: &Delivery) {
    let settled = match consumed(gateway, delivery).await {
        Consumed::Done => delivery.done().await,
        Consumed::Retry { after } => {
            let settled = delivery.retry(after).await;
            wake(after);
            settled
        }
    };
    if let Err(error) = settled {
        report(
            "a queue message could not be settled and will come again",
            &error,
        );
    }
}

/// What the gateway makes of a message, whose lease is renewed meanwhile.
async fn consumed(gateway: &Gateway<Host>, delivery: &Delivery) -> Consumed {
    let consumed = async {
        match delivery.count > DELIVERIES_MAX {
            true => gateway.consume_dead(&delivery.message).await,
            false => gateway.consume(&delivery.message).await,
        }
    };
    match select(pin!(consumed), pin!(renewed(delivery))).await {
        Either::Left((consumed, _)) => consumed,
        Either::Right((never, _)) => match never {},
    }
}

/// Renews a delivery's lease again and again.
async fn renewed(delivery: &Delivery) -> Infallible {
    loop {
        WasiClock.sleep(RENEW_EVERY).await;
        if let Err(error) = delivery.renew().await {
            report("a queue message's lease was not renewed", &error);
        }
    }
}

/// Calls the gateway as a timer would, if no instance has for [`TICK_EVERY`]: who makes the
/// record anew is the one.
async fn tick_sometimes() {
    let until = now() + TICK_EVERY;
    match Records.swap(TICKED, None, Bytes::new(), until).await {
        Ok(Swap::Done(_)) => crate::gateway().tick().await,
        Ok(Swap::Conflict) => {}
        Err(error) => report("tasks were not looked after", &error),
    }
}

async fn sweep_sometimes() {
    let mut dice = [0];
    Host.random(&mut dice);
    if dice[0] % SWEEP_ONE_IN == 0
        && let Err(error) = atomic::sweep().await
    {
        report("expired records were not removed", &error);
    }
}

fn report(what: &str, error: &Unavailable) {
    Host.log(LogLevel::Error, &format!("{what}: {error}"));
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_given_up_after_as_many_deliveries_as_on_cloudflare() {
        let wrangler = include_str!("../../../wrangler.toml");
        let consumer = wrangler
            .split("[[queues.consumers]]")
            .find(|part| part.contains("dead_letter_queue"));
        let retries = format!("\nmax_retries = {RETRIES_MAX}\n");
        assert!(consumer.is_some_and(|part| part.contains(&retries)));
    }

    #[test]
    fn slow_tasks_leave_a_place_for_a_quick_one_in_every_instance() {
        let slow: Vec<_> = (1..128).filter_map(|_| Seat::take()).collect();
        let quick = Seat::take();
        assert!(slow.len() == 127 && quick.is_some());
        assert!(Seat::take().is_none() && STATE.with(|state| state.missed.take()));
        drop(quick);
        assert!(Seat::take().is_some());
    }

    #[test]
    fn lost_tasks_are_looked_for_as_often_as_on_cloudflare() {
        let crons = format!("\ncrons = [\"*/{} * * * *\"]\n", TICK_EVERY.as_secs() / 60);
        assert!(include_str!("../../../wrangler.toml").contains(&crons));
    }
}
