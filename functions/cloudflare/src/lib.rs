//! Tidegate on Cloudflare Workers.
//!
//! Five doors, as the runtime has them: a client's request, a batch of queue messages, the
//! timer, and the Durable Objects behind the atomic store ([`cell`]) and behind the keepers
//! ([`keeper`]). Each builds what it is for, calls it, and converts; nothing is decided here. What an isolate remembers
//! between events lives in one thread-local. A panic, always a defect, is written to the
//! console by the SDK, which then starts the instance anew.

mod atomic;
mod body;
mod cell;
mod clock;
mod door;
mod headers;
mod http;
mod keeper;
mod kv;
mod platform;
mod queue;
mod random;
#[cfg(feature = "selftest")]
mod selftest;

use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use tidegate_gateway::{Gateway, Memory};
use worker::{Context, Env, event, web_sys};

use platform::Host;

thread_local! {
    /// One isolate, one thread, one memory. No future is kept in it: this runtime does not
    /// let one event wait for I/O another has started.
    static MEMORY: Rc<Memory> = Rc::default();
}

fn gateway(env: Env, ctx: Context) -> Gateway<Host> {
    Gateway::new(Host::new(env, ctx), MEMORY.with(Rc::clone))
}

#[event(fetch)]
async fn serve(raw: web_sys::Request, env: Env, ctx: Context) -> worker::Result<web_sys::Response> {
    let Ok(request) = door::request(&raw) else {
        return door::refused(door::BAD_REQUEST);
    };
    #[cfg(feature = "selftest")]
    if request.uri().path() == selftest::PATH {
        return door::response(selftest::answer(&Host::new(env, ctx), &request).await);
    }
    let gateway = gateway(env, ctx);
    // A client that goes away takes its request with it: what is under way is dropped.
    match select(pin!(gateway.serve(request)), pin!(door::gone(&raw))).await {
        Either::Left((response, _)) => door::response(response),
        Either::Right(_) => door::refused(door::CLIENT_GONE),
    }
}

/// The exports the SDK's event macros would write, by hand where they take away what is
/// needed: each message as it came, and one context type for every event.
mod exports {
    use std::panic::AssertUnwindSafe;

    use worker::wasm_bindgen::JsValue;
    use worker::wasm_bindgen::prelude::wasm_bindgen;
    use worker::worker_sys::{self, MessageBatch, ScheduledEvent};
    use worker::{Context, Env};

    use super::gateway;

    type Settled = Result<JsValue, JsValue>;

    #[wasm_bindgen(wasm_bindgen = ::worker::wasm_bindgen, wasm_bindgen_futures = ::worker::wasm_bindgen_futures, js_sys = ::worker::js_sys)]
    pub async fn queue(batch: MessageBatch, env: Env, ctx: worker_sys::Context) -> Settled {
        let gateway = gateway(env, Context::new(ctx));
        AssertUnwindSafe(crate::queue::consume(&gateway, &batch)).await;
        // Never an error: every message is settled on its own, and one would retry them all.
        Ok(JsValue::UNDEFINED)
    }

    #[wasm_bindgen(wasm_bindgen = ::worker::wasm_bindgen, wasm_bindgen_futures = ::worker::wasm_bindgen_futures, js_sys = ::worker::js_sys)]
    pub async fn scheduled(_event: ScheduledEvent, env: Env, ctx: worker_sys::Context) -> Settled {
        AssertUnwindSafe(gateway(env, Context::new(ctx)).tick()).await;
        Ok(JsValue::UNDEFINED)
    }
}
