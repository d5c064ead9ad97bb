//! The atomic store: SQLite, each operation one statement.
//!
//! **Linearizable per key**, because SQLite has one writer at a time and every condition
//! (the version, the expiry) is in the statement that writes. (Spin's key-value store has a
//! compare-and-swap as well, but two swaps on an absent key can both win there.)
//!
//! **Waiting** is asking again: records change in other instances, on other machines, and
//! nothing here could hear of it. The pauses grow, so that a long wait costs a few reads a
//! second.

use std::time::Duration;

use bytes::Bytes;
use spin_sdk::sqlite::{RowResult, Value};
use tidegate_gateway::platform::{AtomicStore, Clock, Swap, Unavailable, Version, WAIT_MAX};
use tidegate_gateway::time::Timestamp;

use crate::clock::{WasiClock, now};
use crate::database::{integer, odd_row, run};

/// A record made anew begins with the time, at this many versions per millisecond, so that
/// no version comes back after a record was swept away.
const VERSIONS_PER_MS: u64 = 1 << 20;

/// First pause of a wait.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause of a wait: what one change may be seen late by.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// Expired rows removed by one statement: others wait for it to end.
const SWEEP_MAX: u32 = 500;
/// Statements of one sweep for each table. One sweep goes with about two thousand requests
/// ([`crate::drain`]), and a request may leave a few rows.
const PORTIONS_MAX: u32 = 20;

const GET: &str = "SELECT version, value FROM atomic_record WHERE key = ?1 AND expires_at > ?2";

/// The value only if the version is another: most looks of a wait find nothing new.
const LOOK: &str = "SELECT version, CASE version WHEN ?3 THEN NULL ELSE value END
    FROM atomic_record WHERE key = ?1 AND expires_at > ?2";

const CREATE: &str = "INSERT INTO atomic_record (key, version, value, expires_at)
    VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (key) DO UPDATE SET
        version = max(atomic_record.version + 1, excluded.version),
        value = excluded.value,
        expires_at = excluded.expires_at
    WHERE atomic_record.expires_at <= ?5
    RETURNING version";

const REPLACE: &str = "UPDATE atomic_record
    SET version = version + 1, value = ?3, expires_at = ?4
    WHERE key = ?1 AND version = ?2 AND expires_at > ?5
    RETURNING version";

const ADD: &str = "INSERT INTO atomic_counter (key, sum, expires_at) VALUES (?1, ?2, ?3)
    ON CONFLICT (key) DO UPDATE SET
        sum = CASE WHEN atomic_counter.expires_at <= ?4 THEN 0 ELSE atomic_counter.sum END
            + excluded.sum,
        expires_at = CASE WHEN atomic_counter.expires_at <= ?4
            THEN excluded.expires_at ELSE atomic_counter.expires_at END
    RETURNING sum";

const SWEEP: [&str; 2] = [
    "DELETE FROM atomic_record WHERE key IN
        (SELECT key FROM atomic_record WHERE expires_at <= ?1 LIMIT ?2)
        RETURNING 1",
    "DELETE FROM atomic_counter WHERE key IN
        (SELECT key FROM atomic_counter WHERE expires_at <= ?1 LIMIT ?2)
        RETURNING 1",
];

/// The port on the database.
pub struct Records;

type Record = Option<(Version, Bytes)>;

impl AtomicStore for Records {
    async fn get(&self, key: &str) -> Result<Record, Unavailable> {
        let rows = run(GET, [key.into(), time(now())]).await?;
        rows.into_iter().next().map(record).transpose()
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<Version>,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<Swap, Unavailable> {
        let now = now();
        let (statement, version) = match expected {
            None => (CREATE, Version(now.0.saturating_mul(VERSIONS_PER_MS))),
            Some(version) => (REPLACE, version),
        };
        let parameters = [
            key.into(),
            integer(version.0),
            Value::Blob(value.into()),
            time(expires_at),
            time(now),
        ];
        match run(statement, parameters).await?.first() {
            Some(row) => row
                .get::<u64>(0)
                .map(|version| Swap::Done(Version(version)))
                .ok_or_else(odd_row),
            None => Ok(Swap::Conflict),
        }
    }

    async fn wait(
        &self,
        key: &str,
        seen: Option<Version>,
        within: Duration,
    ) -> Result<Record, Unavailable> {
        let until = now() + within.min(WAIT_MAX);
        let mut pause = PAUSE_MIN;
        loop {
            let look = [
                key.into(),
                time(now()),
                seen.map_or(Value::Null, |v| integer(v.0)),
            ];
            let found = run(LOOK, look).await?.into_iter().next();
            let version = found.as_ref().and_then(|row| row.get(0)).map(Version);
            if version != seen {
                return found.map(record).transpose();
            }
            let left = until.since(now());
            if left.is_zero() {
                return self.get(key).await;
            }
            WasiClock.sleep(pause.min(left)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn add(&self, key: &str, delta: i64, expires_at: Timestamp) -> Result<i64, Unavailable> {
        let parameters = [
            key.into(),
            Value::Integer(delta),
            time(expires_at),
            time(now()),
        ];
        let rows = run(ADD, parameters).await?;
        rows.first().and_then(|row| row.get(0)).ok_or_else(odd_row)
    }
}

/// Removes what has expired, or a large part of it. Nothing depends on it but the size of the
/// database.
pub async fn sweep() -> Result<(), Unavailable> {
    for statement in SWEEP {
        in_portions(async || {
            let removed = run(statement, [time(now()), Value::from(SWEEP_MAX)]).await?;
            Ok(removed.len())
        })
        .await?;
    }
    Ok(())
}

/// Removes one portion after another while they are full; each says how many rows it had.
async fn in_portions(
    portion: impl AsyncFn() -> Result<usize, Unavailable>,
) -> Result<(), Unavailable> {
    for _ in 0..PORTIONS_MAX {
        if portion().await? < SWEEP_MAX as usize {
            break;
        }
    }
    Ok(())
}

fn record(row: RowResult) -> Result<(Version, Bytes), Unavailable> {
    let mut values = row.values.into_iter();
    match (values.next(), values.next()) {
        (Some(Value::Integer(version)), Some(Value::Blob(value))) => {
            let version = u64::try_from(version).map_err(|_| odd_row())?;
            Ok((Version(version), value.into()))
        }
        _ => Err(odd_row()),
    }
}

fn time(at: Timestamp) -> Value {
    integer(at.0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt;

    use super::*;

    /// How many rows are left of these.
    fn swept(rows: usize) -> usize {
        let left = Cell::new(rows);
        let portion = async || {
            let removed = left.get().min(SWEEP_MAX as usize);
            left.set(left.get() - removed);
            Ok(removed)
        };
        in_portions(portion).now_or_never().unwrap().unwrap();
        left.get()
    }

    #[test]
    fn a_sweep_goes_on_while_it_finds_much_and_has_an_end() {
        let most = (PORTIONS_MAX * SWEEP_MAX) as usize;
        for (rows, left) in [(0, 0), (7, 0), (most, 0), (most + 7, 7)] {
            assert_eq!(swept(rows), left, "of {rows}");
        }
    }
}
