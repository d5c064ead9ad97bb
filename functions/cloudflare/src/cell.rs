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
//! **Waiting.** A request that waits stays open, and keeps the object in memory, until a
//! swap, the expiry or its own time ends it. Nothing is waited for between the look at the
//! record and the place among those who wait, so no write falls between. No storage is
//! waited for meanwhile, so the input gate stays open for the swap that ends the wait.
//!
//! Limits of the runtime: a row up to 2 MB (`ATOMIC_VALUE_MAX` stays below it), about a thousand operations a second per key.

mod record;
mod waiting;

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tidegate_gateway::platform::{Clock, Version, WAIT_MAX};
use tidegate_gateway::time::Timestamp;
use worker::js_sys;
use worker::wasm_bindgen::JsValue;
use worker::{
    Date, DurableObject, Env, Request, Response, ResponseBuilder, Result, ScheduledTime, State,
    durable_object,
};

use crate::atomic::{Operation, VERSION, status};
use crate::clock::WorkersClock;
use crate::door;
use record::{Content, Record, next};
use waiting::Waiting;

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
    waiting: Waiting,
}

impl DurableObject for AtomicCell {
    fn new(state: State, _env: Env) -> Self {
        Self {
            state,
            has_table: Cell::new(false),
            waiting: Waiting::default(),
        }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let Some(operation) = Operation::parse(&request.path()) else {
            return Ok(answer(400).empty());
        };
        match operation {
            Operation::Get => found(self.load()?),
            Operation::Wait { seen, within } => {
                // Whoever goes away is not waited for any longer.
                let (wait, gone) = (self.wait(seen, within), door::gone(request.inner()));
                match select(pin!(wait), pin!(gone)).await {
                    Either::Left((record, _)) => found(record?),
                    Either::Right(_) => Ok(answer(door::CLIENT_GONE).empty()),
                }
            }
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
                self.waiting.changed();
                self.has_table.set(false);
                self.state.storage().delete_all().await?;
            }
        }
        Ok(answer(status::DONE).empty())
    }
}

impl AtomicCell {
    /// The record once it is no longer as `seen`, or as it is when `within` is over.
    async fn wait(&self, seen: Option<Version>, within: Duration) -> Result<Option<Record>> {
        let until = now() + within.min(WAIT_MAX);
        loop {
            let record = self.load()?;
            let left = until.since(now());
            if version(record.as_ref())? != seen || left.is_zero() {
                return Ok(record);
            }
            let Some(change) = self.waiting.change() else {
                return Ok(record);
            };
            // The alarm may come late: the expiry is looked out for here too.
            let lives = record.map(|record| record.expires_at.since(now()));
            let over = WorkersClock.sleep(lives.map_or(left, |lives| lives.min(left)));
            select(change, pin!(over)).await;
        }
    }

    async fn swap(
        &self,
        expected: Option<Version>,
        value: Vec<u8>,
        expires_at: Timestamp,
    ) -> Result<Response> {
        let current = version(self.load()?.as_ref())?;
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
        self.waiting.changed();
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

/// The version of a record that holds a value.
fn version(record: Option<&Record>) -> Result<Option<Version>> {
    match record.map(|record| &record.content) {
        None => Ok(None),
        Some(Content::Value { version, .. }) => Ok(Some(*version)),
        Some(Content::Counter(_)) => Err(WRONG_KIND.into()),
    }
}

/// The answer that shows a record.
fn found(record: Option<Record>) -> Result<Response> {
    match record.map(|record| record.content) {
        None => Ok(answer(status::ABSENT).empty()),
        Some(Content::Value { version, value }) => Ok(answer(status::DONE)
            .with_header(VERSION, &version.0.to_string())?
            .fixed(value)),
        Some(Content::Counter(_)) => Err(WRONG_KIND.into()),
    }
}

const WRONG_KIND: &str = "this key holds the other kind of record";

fn now() -> Timestamp {
    Timestamp(Date::now().as_millis())
}

fn answer(status: u16) -> ResponseBuilder {
    Response::builder().with_status(status)
}
