//! The component compiled, and how long its instances live.
//!
//! As in Spin, an instance serves several requests, some of them at once, and is kept for
//! a moment after the last: what the component keeps in statics survives from one request
//! to the next, but not for long. A trap ends the instance and the requests it was serving;
//! one that computes at length keeps nobody else waiting.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};
use wasmtime::component::{Component, GuestTaskId, Linker};
use wasmtime::{Cache, Config, Engine, Result, Store, StoreContextMut};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::guest::{Guest, Shared, interfaces};

/// Requests an instance serves before another takes its place, as in Spin.
const REQUESTS_MAX: usize = 128;
/// Requests an instance serves at once, as in Spin.
const REQUESTS_AT_ONCE: usize = 16;
/// How long an instance is kept without work, as in Spin.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// How long an instance computes before it lets others.
const TURN: Duration = Duration::from_millis(10);

/// Makes instances of one component.
pub struct Instances {
    engine: Engine,
    shared: Shared,
    component: ProxyPre<Guest>,
}

impl Instances {
    /// Compiles the component and finds everything it imports.
    pub fn of(component: &Path, shared: Shared) -> Result<Self> {
        let mut config = Config::new();
        config
            .wasm_component_model_async(true)
            .epoch_interruption(true)
            // Kept for all components, where wasmtime keeps what it has compiled.
            .cache(Some(Cache::from_file(None)?));
        let engine = Engine::new(&config)?;
        take_turns(engine.clone());
        let component = Component::from_file(&engine, component)?;
        let mut linker = Linker::new(&engine);
        interfaces(&mut linker)?;
        let component = ServicePre::new(linker.instantiate_pre(&component)?)?;
        Ok(Self {
            engine,
            shared,
            component: ProxyPre::P3(component),
        })
    }
}

/// Ends everybody's turn again and again. A thread, because it must run even when every
/// task that could is waiting for its turn.
fn take_turns(engine: Engine) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(TURN);
            engine.increment_epoch();
        }
    });
}

impl HandlerState for Instances {
    type StoreData = Guest;
    type WorkerExpiration = Idle;
    type WorkerState = Reuse;

    async fn instantiate(&self) -> Result<Instance<Guest, Idle, Reuse>> {
        let mut store = Store::new(&self.engine, Guest::new(&self.shared));
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let proxy = self.component.instantiate_async(&mut store).await?;
        Ok(Instance {
            store,
            proxy,
            view: Guest::http,
            expiration: Idle::default(),
            state: Reuse,
        })
    }
}

/// Ends an instance that has had nothing to do for [`IDLE_MAX`]; one that works has no end.
#[derive(Default)]
pub struct Idle(Option<(Instant, Pin<Box<Sleep>>)>);

impl WorkerExpiration for Idle {
    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        status: WorkerStatus,
        since: Instant,
    ) -> Poll<()> {
        match status {
            WorkerStatus::Requests | WorkerStatus::PostReturn => {
                self.0 = None;
                Poll::Pending
            }
            WorkerStatus::Idle => {
                // An alarm set for an earlier rest says nothing about this one.
                let set = self.0.take().filter(|(earlier, _)| *earlier == since);
                let (_, alarm) = self
                    .0
                    .insert(set.unwrap_or_else(|| (since, alarm(since + IDLE_MAX))));
                alarm.as_mut().poll(context)
            }
        }
    }
}

fn alarm(at: Instant) -> Pin<Box<Sleep>> {
    Box::pin(sleep_until(at.into()))
}

/// How much one instance takes on.
pub struct Reuse;

impl WorkerState for Reuse {
    type StoreData = Guest;
    type RequestData = ();

    fn should_accept_request(&self, at_once: usize, so_far: usize) -> ShouldAccept {
        if so_far >= REQUESTS_MAX {
            ShouldAccept::Never
        } else if at_once >= REQUESTS_AT_ONCE {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _store: StoreContextMut<'_, Guest>,
        (): (),
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        // The component decides how long an answer may take.
        Box::pin(std::future::pending())
    }

    fn drop(&self, _store: Store<Guest>, result: Result<()>) {
        if let Err(error) = result {
            eprintln!("an instance ended: {error:?}");
        }
    }
}
