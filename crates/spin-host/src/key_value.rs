//! `spin:key-value`: every store a table of one SQLite file, as Spin's default is.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::{OptionalExtension, params};
use wasmtime::Result;
use wasmtime::component::{Accessor, FutureReader, Resource, StreamReader};

use crate::bindings::spin::key_value::key_value::{Error, Host, HostStore, HostStoreWithStore};
use crate::files::{self, File};
use crate::guest::{Guest, Spin};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS key_value (
    store TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (store, key)
)";

/// All stores.
#[derive(Clone)]
pub struct Stores(File);

/// One store a component has opened.
pub struct Store {
    stores: Stores,
    label: String,
}

impl Stores {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = rusqlite::Connection::open(path)?;
        connection.execute(TABLE, [])?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Writes a value from outside a component.
    pub fn set(&self, label: &str, key: &str, value: &[u8]) -> Result<()> {
        Ok(set(&files::lock(&self.0), label, key, value)?)
    }
}

fn set(file: &rusqlite::Connection, label: &str, key: &str, value: &[u8]) -> rusqlite::Result<()> {
    let statement = "INSERT INTO key_value (store, key, value) VALUES (?1, ?2, ?3)
        ON CONFLICT (store, key) DO UPDATE SET value = excluded.value";
    file.prepare_cached(statement)?
        .execute(params![label, key, value])
        .map(drop)
}

/// Runs `work` on the file of an open store.
async fn on<T: 'static, R: Send + 'static>(
    accessor: &Accessor<T, Spin>,
    store: &Resource<Store>,
    work: impl FnOnce(&rusqlite::Connection, &str) -> rusqlite::Result<R> + Send + 'static,
) -> Result<Result<R, Error>> {
    let (file, label) = accessor.with(|mut access| {
        let store = access.get().table.get(store)?;
        wasmtime::error::Ok((store.stores.0.clone(), store.label.clone()))
    })?;
    let done = files::on(&file, move |file| work(file, &label)).await?;
    Ok(done.map_err(|error| Error::Other(error.to_string())))
}

impl Host for Guest {}

impl HostStore for Guest {
    fn drop(&mut self, store: Resource<Store>) -> Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostStoreWithStore<T> for Spin {
    async fn open(
        accessor: &Accessor<T, Self>,
        label: String,
    ) -> Result<Result<Resource<Store>, Error>> {
        accessor.with(|mut access| {
            let guest = access.get();
            if !guest.given.key_value_stores.contains(&label) {
                return Ok(Err(Error::AccessDenied));
            }
            let stores = guest.key_value.clone();
            Ok(Ok(guest.table.push(Store { stores, label })?))
        })
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, Error>> {
        on(accessor, &store, move |file, label| {
            file.prepare_cached("SELECT value FROM key_value WHERE store = ?1 AND key = ?2")?
                .query_row([label, &key], |row| row.get(0))
                .optional()
        })
        .await
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), Error>> {
        on(accessor, &store, move |file, label| {
            set(file, label, &key, &value)
        })
        .await
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
    ) -> Result<Result<(), Error>> {
        on(accessor, &store, move |file, label| {
            file.prepare_cached("DELETE FROM key_value WHERE store = ?1 AND key = ?2")?
                .execute([label, &key])
                .map(drop)
        })
        .await
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
    ) -> Result<Result<bool, Error>> {
        on(accessor, &store, move |file, label| {
            file.prepare_cached("SELECT 1 FROM key_value WHERE store = ?1 AND key = ?2")?
                .exists([label, &key])
        })
        .await
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        store: Resource<Store>,
    ) -> Result<(StreamReader<String>, FutureReader<Result<(), Error>>)> {
        let keys = on(accessor, &store, |file, label| {
            file.prepare_cached("SELECT key FROM key_value WHERE store = ?1")?
                .query_map([label], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()
        })
        .await?;
        let (keys, result) = match keys {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        accessor.with(|mut access| {
            Ok((
                StreamReader::new(&mut access, keys)?,
                FutureReader::new(&mut access, async { wasmtime::error::Ok(result) })?,
            ))
        })
    }
}
