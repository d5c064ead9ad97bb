//! The Durable Object behind the atomic store: one object, one record.
//!
//! A record is a value with a version, or a counter, and the time it expires.
//!
//! **Why this is linearizable.** The runtime keeps one instance of an object in the world,
//! on one thread. An operation first waits for its request's body; from there to its write
//! it calls only the synchronous SQL interface, so no other operation can run between what
//! it read and what it wrote: each takes effect at one instant. The *input gate* keeps
//! further events out while storage is waited for, and the *output gate* holds the response
//! back until the write is durable: what a caller has been told cannot be lost. A write and
//! its alarm are issued without a wait in between and so commit together: no record is ever
//! left without the alarm that removes it.
//!
//! **Expiry.** A record is unreadable from `expires_at` on by comparison; the alarm, which
//! may come late, only frees the space. After it the object holds nothing and costs nothing.
//!
//! **Versions** are at least the time of writing in milliseconds and always above the last
//! one, so that a version from before an expiry does not fit the record made after it.
//!
//! Limits of the runtime: a value up to 2 MB, about a thousand operations a second per key.

mod record;

use std::cell::Cell;

use tidegate_gateway::platform::Version;
use tidegate_gateway::time::Timestamp;
use worker::js_sys;
use worker::wasm_bindgen::JsValue;
use worker::{
    Date, DurableObject, Env, Request, Response, ResponseBuilder, Result, ScheduledTime, State,
    durable_object,
};

use crate::atomic::{Operation, VERSION, status};
use record::{Content, Record, next};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS record (id INTEGER PRIMARY KEY CHECK (id = 0), \
    version INTEGER, value BLOB, counter TEXT, expires_at INTEGER NOT NULL)";
const EXISTS: &str = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'record'";
const READ: &str = "SELECT version, value, counter, expires_at FROM record";
const WRITE: &str =
    "REPLACE INTO record (id, version, value, counter, expires_at) VALUES (0, ?, ?, ?, ?)";

/// One record, under one key. Named in `wrangler.toml`, where its migrations are.
#[durable_object(alarm)]
pub struct AtomicCell {
    state: State,
    /// Whether the table is known to exist. A read must not make one: an object that was
    /// only ever asked would stay for ever.
    has_table: Cell<bool>,
}

impl DurableObject for AtomicCell {
    fn new(state: State, _env: Env) -> Self {
        Self {
            state,
            has_table: Cell::new(false),
        }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let Some(operation) = Operation::parse(&request.path()) else {
            return Ok(answer(400).empty());
        };
        match operation {
            Operation::Get => self.get(),
            Operation::Swap {
                expected,
                expires_at,
            } => {
                let value = request.bytes().await?;
                self.swap(expected, value, expires_at).await
            }
            Operation::Add { delta, expires_at } => self.add(delta, expires_at).await,
        }
    }

    async fn alarm(&self) -> Result<Response> {
        match self.load()? {
            Some(record) => self.arm(record.expires_at).await?,
            None => {
                self.has_table.set(false);
                self.state.storage().delete_all().await?;
            }
        }
        Ok(answer(status::DONE).empty())
    }
}

impl AtomicCell {
    fn get(&self) -> Result<Response> {
        match self.load()? {
            None => Ok(answer(status::ABSENT).empty()),
            Some(Record {
                content: Content::Value { version, value },
                ..
            }) => Ok(answer(status::DONE)
                .with_header(VERSION, &version.0.to_string())?
                .fixed(value)),
            Some(Record {
                content: Content::Counter(_),
                ..
            }) => Err(WRONG_KIND.into()),
        }
    }

    async fn swap(
        &self,
        expected: Option<Version>,
        value: Vec<u8>,
        expires_at: Timestamp,
    ) -> Result<Response> {
        let current = match self.load()? {
            None => None,
            Some(Record {
                content: Content::Value { version, .. },
                ..
            }) => Some(version),
            Some(Record {
                content: Content::Counter(_),
                ..
            }) => return Err(WRONG_KIND.into()),
        };
        if current != expected {
            return Ok(answer(status::CONFLICT).empty());
        }
        let version = next(current, now());
        self.store(Record {
            content: Content::Value { version, value },
            expires_at,
        })
        .await?;
        Ok(answer(status::DONE)
            .with_header(VERSION, &version.0.to_string())?
            .empty())
    }

    async fn add(&self, delta: i64, expires_at: Timestamp) -> Result<Response> {
        let (sum, expires_at) = match self.load()? {
            None => (delta, expires_at),
            Some(Record {
                content: Content::Counter(count),
                expires_at,
            }) => (count.saturating_add(delta), expires_at),
            Some(Record {
                content: Content::Value { .. },
                ..
            }) => return Err(WRONG_KIND.into()),
        };
        self.store(Record {
            content: Content::Counter(sum),
            expires_at,
        })
        .await?;
        Ok(answer(status::DONE).fixed(sum.to_string().into_bytes()))
    }

    /// The record, if there is one that has not expired.
    fn load(&self) -> Result<Option<Record>> {
        let sql = self.state.storage().sql();
        if !self.has_table.get() {
            self.has_table
                .set(sql.exec(EXISTS, None)?.raw().next().is_some());
        }
        if !self.has_table.get() {
            return Ok(None);
        }
        let row = sql.exec(READ, None)?.raw().next().transpose()?;
        let record = row.map(Record::from_row).transpose()?;
        Ok(record.filter(|record| now() < record.expires_at))
    }

    async fn store(&self, record: Record) -> Result<()> {
        let record = record.bounded();
        let expires_at = record.expires_at;
        let sql = self.state.storage().sql();
        if !self.has_table.get() {
            sql.exec(CREATE, None)?;
            self.has_table.set(true);
        }
        sql.exec(WRITE, record.into_row()?)?;
        self.arm(expires_at).await
    }

    async fn arm(&self, at: Timestamp) -> Result<()> {
        let date = js_sys::Date::new(&JsValue::from_f64(at.0 as f64));
        self.state
            .storage()
            .set_alarm(ScheduledTime::new(date))
            .await
    }
}

const WRONG_KIND: &str = "this key holds the other kind of record";

fn now() -> Timestamp {
    Timestamp(Date::now().as_millis())
}

fn answer(status: u16) -> ResponseBuilder {
    Response::builder().with_status(status)
}
