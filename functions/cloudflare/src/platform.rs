//! The ports, gathered for one event.
//!
//! Bindings are looked up when they are used: most requests touch two of them, and a
//! missing one is an [`Unavailable`] of that port, not a dead function.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use tidegate_gateway::platform::{LogLevel, Platform, Secret, Unavailable};
use worker::js_sys::{self, futures::future_to_promise};
use worker::wasm_bindgen::{JsCast, JsValue, throw_str};
use worker::{Context, Env, SecretStore, console_debug, console_error, console_log, console_warn};

use crate::atomic::Cells;
use crate::clock::WorkersClock;
use crate::http::Fetch;
use crate::keeper::Keepers;
use crate::kv::WorkersKv;
use crate::queue::WorkersQueue;

/// Everything this host gives the gateway, for one event.
pub struct Host {
    env: Env,
    ctx: Context,
    kv: WorkersKv,
    atomic: Cells,
    queue: WorkersQueue,
    keepers: Keepers,
}

impl Host {
    /// The host of one event; costs no call into the runtime.
    pub fn new(env: Env, ctx: Context) -> Self {
        Self {
            kv: WorkersKv::new(env.clone()),
            atomic: Cells::new(env.clone()),
            queue: WorkersQueue::new(env.clone()),
            keepers: Keepers::new(env.clone()),
            env,
            ctx,
        }
    }
}

impl Platform for Host {
    type Kv = WorkersKv;
    type Atomic = Cells;
    type Http = Fetch;
    type Queue = WorkersQueue;
    type Keeper = Keepers;
    type Clock = WorkersClock;

    fn kv(&self) -> &Self::Kv {
        &self.kv
    }

    fn atomic(&self) -> &Self::Atomic {
        &self.atomic
    }

    fn http(&self) -> &Self::Http {
        &Fetch
    }

    fn queue(&self) -> &Self::Queue {
        &self.queue
    }

    fn keeper(&self) -> Option<&Self::Keeper> {
        Some(&self.keepers)
    }

    fn clock(&self) -> &Self::Clock {
        &WorkersClock
    }

    async fn limiter(&self, binding: &str, subject: &str) -> Result<bool, Unavailable> {
        let limiter = self.env.rate_limiter(binding).map_err(unavailable)?;
        let outcome = limiter.limit(subject.to_owned()).await;
        Ok(outcome.map_err(unavailable)?.success)
    }

    fn random(&self, out: &mut [u8]) {
        if crate::random::fill(out).is_err() {
            // Going on would make guessable keys and identifiers. This ends the event.
            throw_str("crypto.getRandomValues failed");
        }
    }

    async fn secret(&self, name: &str) -> Result<Option<Secret>, Unavailable> {
        let value = js_sys::Reflect::get(&self.env, &JsValue::from_str(name));
        let value = value.map_err(unavailable)?;
        if let Some(own) = value.as_string() {
            return Ok(Some(Secret::new(own)));
        }
        if !value.is_object() {
            return Ok(None);
        }
        // One of the account's: bound from Secrets Store, and asked for.
        let found = SecretStore::from(value).get().await;
        let found = found.map_err(|error| Unavailable(format!("{name}: {error}")))?;
        Ok(found.map(Secret::new))
    }

    fn defer(&self, work: impl Future<Output = ()> + 'static) {
        let promise = future_to_promise(AssertUnwindSafe(async move {
            work.await;
            Ok(JsValue::UNDEFINED)
        }));
        if let Err(error) = self.ctx.as_ref().wait_until(&promise) {
            // The work runs while the response does; nothing may depend on more than that.
            console_warn!("waitUntil refused: {}", reason(&error));
        }
    }

    fn log(&self, level: LogLevel, line: &str) {
        match level {
            LogLevel::Debug => console_debug!("{line}"),
            LogLevel::Info => console_log!("{line}"),
            LogLevel::Warn => console_warn!("{line}"),
            LogLevel::Error => console_error!("{line}"),
        }
    }
}

/// What the runtime said, in one line.
pub fn reason(error: &JsValue) -> String {
    match error.dyn_ref::<js_sys::Error>() {
        Some(error) => format!(
            "{}: {}",
            String::from(error.name()),
            String::from(error.message())
        ),
        None => error.as_string().unwrap_or_else(|| format!("{error:?}")),
    }
}

/// A store's failure as the port names it.
pub fn unavailable(error: impl Into<JsValue>) -> Unavailable {
    Unavailable(reason(&error.into()))
}
