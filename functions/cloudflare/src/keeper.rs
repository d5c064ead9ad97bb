//! Keepers: one Durable Object per name, and in each a gateway with a memory of its own.
//!
//! The runtime keeps one instance of an object in the world; its requests share one thread
//! and one context, so one may wait for what another has begun. Nothing is stored: what a
//! keeper remembers ends with the instance, and the next request makes another.
//!
//! **Staying.** The runtime ends an object it takes for idle: within ten seconds one that
//! waits for nothing, and a stream nobody reads counts as nothing; within 70 to 140 seconds
//! one that is asked for nothing, whatever it waits for. So as long as an answer is open or
//! the gateway says that something is kept, a timer is waited for; and where that takes
//! longer than [`QUIET`], an alarm every [`TICK`] counts as being asked. Most are done
//! sooner, and cost no write.
//!
//! **Going.** A caller that drops its exchange aborts it; the object sees its request's
//! signal, or the cancelled body, and drops what answered it.

use std::cell::Cell;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use http::{Request, Response};
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::{self, Clock, HttpError, Platform, Unavailable};
use tidegate_gateway::{Gateway, Memory};
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::worker_sys;
use worker::{Context, DurableObject, Env, Result, State, console_error, durable_object};

use crate::MEMORY;
use crate::clock::WorkersClock;
use crate::door;
use crate::http::exchange;
use crate::platform::{Host, unavailable};

/// The binding's name in `wrangler.toml`.
const BINDING: &str = "TIDEGATE_KEEPER";
/// What is asked of a keeper is a path; the runtime wants a host before it.
const ORIGIN: &str = "https://keeper";
/// How long an object has had something under way when it sets its first alarm.
const QUIET: Duration = Duration::from_secs(20);
/// How often it is asked then: together well within 70 seconds.
const TICK: Duration = Duration::from_secs(30);
/// How often it looks whether it still has: well within ten seconds.
const LOOK: Duration = Duration::from_secs(5);

/// The port on the namespace of keepers.
pub struct Keepers {
    env: Env,
}

impl Keepers {
    /// The keepers of this deployment.
    pub fn new(env: Env) -> Self {
        Self { env }
    }
}

impl platform::Keeper for Keepers {
    async fn send(
        &self,
        name: &str,
        request: Request<Body>,
    ) -> std::result::Result<Response<Body>, Unavailable> {
        let keeper = self
            .env
            .durable_object(BINDING)
            .and_then(|keepers| keepers.get_by_name(name))
            .map_err(unavailable)?
            .into_rpc::<worker_sys::DurableObject>();
        let request = addressed(request)?;
        let answer = exchange(request, |raw| keeper.fetch_with_request(raw)).await;
        answer.map_err(|error| match error {
            HttpError::NotSent(reason) | HttpError::MaybeSent(reason) => Unavailable(reason),
        })
    }
}

/// The request with an address the runtime accepts.
fn addressed(mut request: Request<Body>) -> std::result::Result<Request<Body>, Unavailable> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let uri = format!("{ORIGIN}{path}").parse();
    *request.uri_mut() = uri.map_err(|_| Unavailable(format!("no path: {path}")))?;
    Ok(request)
}

/// One keeper. Named in `wrangler.toml`, where its migrations are.
#[durable_object(alarm)]
pub struct Keeper {
    state: State,
    env: Env,
    memory: Rc<Memory>,
    /// Shared with every answer that is open.
    open: Rc<()>,
    /// Whether a timer is waited for.
    held: Rc<Cell<bool>>,
}

impl DurableObject for Keeper {
    fn new(state: State, env: Env) -> Self {
        Self {
            state,
            env,
            memory: Rc::new(MEMORY.with(|isolate| Memory::beside(isolate))),
            open: Rc::default(),
            held: Rc::default(),
        }
    }

    async fn fetch(&self, request: worker::Request) -> Result<worker::Response> {
        let raw = request.inner();
        let Ok(request) = door::request(raw) else {
            return Ok(door::refused(door::BAD_REQUEST)?.into());
        };
        let gateway = self.gateway();
        let response = match select(pin!(gateway.keep(request)), pin!(door::gone(raw))).await {
            Either::Left((response, _)) => response,
            Either::Right(_) => return Ok(door::refused(door::CLIENT_GONE)?.into()),
        };
        let response = response.map(|body| self.opened(body));
        if self.is_busy() {
            self.stay();
        }
        Ok(door::response(response)?.into())
    }

    async fn alarm(&self) -> Result<worker::Response> {
        if self.is_busy() {
            self.stay();
            self.state.storage().set_alarm(TICK).await?;
        } else {
            // An object that stores nothing, not even that it had an alarm, costs nothing.
            self.state.storage().delete_all().await?;
        }
        worker::Response::empty()
    }
}

impl Keeper {
    fn host(&self) -> Host {
        // Both have the one method that is used of them, `waitUntil`.
        let state: &JsValue = self.state.as_raw();
        let ctx = state.clone().unchecked_into::<worker_sys::Context>();
        Host::new(self.env.clone(), Context::new(ctx))
    }

    fn gateway(&self) -> Gateway<Host> {
        Gateway::new(self.host(), Rc::clone(&self.memory))
    }

    /// The body of an answer, known to be open until it is dropped.
    fn opened(&self, body: Body) -> Body {
        match body {
            Body::Full(bytes) => Body::Full(bytes),
            Body::Stream(chunks) => {
                let open = Rc::clone(&self.open);
                Body::stream(chunks.inspect(move |_| {
                    let _shared = &open;
                }))
            }
        }
    }

    fn is_busy(&self) -> bool {
        is_busy(&self.gateway(), &Rc::downgrade(&self.open))
    }

    /// Sees to it that the object is not taken for idle while it is busy.
    fn stay(&self) {
        if self.held.replace(true) {
            return;
        }
        let (gateway, open) = (self.gateway(), Rc::downgrade(&self.open));
        let (held, storage) = (Rc::clone(&self.held), self.state.storage());
        self.host().defer(async move {
            let mut looks = 0;
            while is_busy(&gateway, &open) {
                WorkersClock.sleep(LOOK).await;
                looks += 1;
                if LOOK * looks == QUIET
                    && is_busy(&gateway, &open)
                    && let Err(error) = storage.set_alarm(TICK).await
                {
                    console_error!("a keeper has no alarm and may be ended: {error}");
                }
            }
            held.set(false);
        });
    }
}

/// Whether something is kept, or an answer open; the object itself shares `open` too.
fn is_busy(gateway: &Gateway<Host>, open: &Weak<()>) -> bool {
    gateway.kept() || open.strong_count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keepers_address_is_its_path_whatever_comes_before() {
        for uri in ["/calls/1?a=b", "http://elsewhere.example/calls/1?a=b"] {
            let request = Request::get(uri).body(Body::empty()).unwrap();
            let addressed = addressed(request).unwrap();
            assert_eq!(addressed.uri(), "https://keeper/calls/1?a=b");
        }
    }
}
