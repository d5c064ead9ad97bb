//! What one instance of the component can reach: the interfaces it may import, and what
//! the host keeps for it behind them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::Result;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::bindings::spin::{key_value, sqlite, variables};
use crate::key_value::Stores;
use crate::manifest::Given;
use crate::outbound::{Outbound, Sender};

/// Everything a component may import here.
pub fn interfaces(linker: &mut Linker<Guest>) -> Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)?;
    key_value::key_value::add_to_linker::<_, Spin>(linker, |guest| guest)?;
    sqlite::sqlite::add_to_linker::<_, Spin>(linker, |guest| guest)?;
    variables::variables::add_to_linker::<_, Spin>(linker, |guest| guest)
}

/// Names what Spin's own interfaces are implemented on: the whole [`Guest`].
pub struct Spin;

impl HasData for Spin {
    type Data<'a> = &'a mut Guest;
}

/// What all instances of one component share.
#[derive(Clone)]
pub struct Shared {
    /// What the manifest gives the component.
    pub given: Arc<Given>,
    /// The key-value stores.
    pub key_value: Stores,
    /// The folder the databases are in.
    pub databases: PathBuf,
    /// Sends requests.
    pub sender: Sender,
    /// How long those wait that do not say so.
    pub wait: Duration,
}

/// What belongs to one instance and ends with it.
pub struct Guest {
    /// What the component has opened.
    pub table: ResourceTable,
    /// What the manifest gives the component.
    pub given: Arc<Given>,
    /// The key-value stores.
    pub key_value: Stores,
    /// The folder the databases are in.
    pub databases: PathBuf,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
}

impl Guest {
    /// No arguments, environment, files or sockets. What it prints is printed.
    pub fn new(shared: &Shared) -> Self {
        let mut wasi = WasiCtx::builder();
        wasi.inherit_stdout().inherit_stderr();
        Self {
            table: ResourceTable::new(),
            given: Arc::clone(&shared.given),
            key_value: shared.key_value.clone(),
            databases: shared.databases.clone(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outbound: Outbound {
                sender: shared.sender.clone(),
                given: Arc::clone(&shared.given),
                wait: shared.wait,
            },
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.outbound,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}
