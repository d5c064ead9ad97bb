//! Keepers: one Durable Object per name, and in each a gateway with a memory of its own.
//!
//! The runtime keeps one instance of an object in the world; its requests share one thread
//! and one context, so one may wait for what another has begun. Nothing is stored: what a
//! keeper remembers ends with the instance, and the next request makes another.
//!
//! **Staying.** The runtime ends an object nobody has asked anything for 70 to 140 seconds,
//! whatever is still under way in it. As long as the gateway says that something is kept,
//! an alarm every [`TICK`] counts as being asked.
//!
//! **Going.** A caller that drops its exchange aborts it; the object sees its request's
//! signal, or the cancelled body, and drops what answered it.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use http::{Request, Response};
use tidegate_gateway::body::Body;
use tidegate_gateway::platform::{self, HttpError, Unavailable};
use tidegate_gateway::{Gateway, Memory};
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::worker_sys;
use worker::{Context, DurableObject, Env, Result, State, durable_object};

use crate::door;
use crate::http::exchange;
use crate::platform::{Host, unavailable};

/// The binding's name in `wrangler.toml`.
const BINDING: &str = "TIDEGATE_KEEPER";
/// What is asked of a keeper is a path; the runtime wants a host before it.
const ORIGIN: &str = "https://keeper";
/// How often an object with something under way is asked: well within 70 seconds.
const TICK: Duration = Duration::from_secs(30);

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
    /// Whether an alarm of this instance is to come.
    armed: Cell<bool>,
}

impl DurableObject for Keeper {
    fn new(state: State, env: Env) -> Self {
        Self {
            state,
            env,
            memory: Rc::default(),
            armed: Cell::new(false),
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
        // A body that is still to come may begin something too.
        if gateway.kept() || matches!(response.body(), Body::Stream(_)) {
            self.stay().await?;
        }
        Ok(door::response(response)?.into())
    }

    async fn alarm(&self) -> Result<worker::Response> {
        self.armed.set(false);
        if self.gateway().kept() {
            self.stay().await?;
        } else {
            // An object that stores nothing, not even that it had an alarm, costs nothing.
            self.state.storage().delete_all().await?;
        }
        worker::Response::empty()
    }
}

impl Keeper {
    fn gateway(&self) -> Gateway<Host> {
        // Both have the one method that is used of them, `waitUntil`.
        let state: &JsValue = self.state.as_raw();
        let ctx = state.clone().unchecked_into::<worker_sys::Context>();
        let host = Host::new(self.env.clone(), Context::new(ctx));
        Gateway::new(host, Rc::clone(&self.memory))
    }

    /// Sees to it that the object is asked again before it is taken for idle.
    async fn stay(&self) -> Result<()> {
        if self.armed.replace(true) {
            return Ok(());
        }
        self.state.storage().set_alarm(TICK).await
    }
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
