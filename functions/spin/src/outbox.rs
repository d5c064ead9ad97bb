//! The queue: rows of the database, each due at a time and leased to whoever takes it.
//!
//! A message is durable before [`Outbox::send`] returns. Taking one is a single statement
//! that moves the time it is due to the end of a lease and counts the delivery; the count is
//! also what tells this delivery from a later one, so nobody settles what is no longer
//! theirs. A lease that is not renewed lapses and the message is due again: a worker that
//! dies loses nothing. Who works on messages, and when, is in [`crate::drain`].

use std::time::Duration;

use bytes::Bytes;
use spin_sdk::sqlite::Value;
use tidegate_gateway::platform::{Queue, Unavailable};
use tidegate_gateway::time::Timestamp;

use crate::clock::now;
use crate::database::{integer, odd_row, run};
use crate::drain;

/// How long a message belongs to whoever took it, unless they say that they still live.
pub const LEASE: Duration = Duration::from_secs(30);

const SEND: &str = "INSERT INTO outbox (message, deliveries, due_at) VALUES (?1, 0, ?2)";

const TAKE: &str = "UPDATE outbox SET deliveries = deliveries + 1, due_at = ?2
    WHERE id = (SELECT id FROM outbox WHERE due_at <= ?1 ORDER BY due_at LIMIT 1)
    RETURNING id, deliveries, message";

const DUE_AT: &str = "UPDATE outbox SET due_at = ?3 WHERE id = ?1 AND deliveries = ?2";

const DONE: &str = "DELETE FROM outbox WHERE id = ?1 AND deliveries = ?2";

/// The port on the database.
pub struct Outbox;

impl Queue for Outbox {
    async fn send(&self, message: Bytes, delay: Duration) -> Result<(), Unavailable> {
        let due_at = now() + delay;
        run(SEND, [Value::Blob(message.into()), integer(due_at.0)]).await?;
        drain::wake(delay);
        Ok(())
    }
}

/// One delivery of a message.
pub struct Delivery {
    id: i64,
    /// How often the message has been delivered, this time included.
    pub count: u32,
    /// What was sent.
    pub message: Vec<u8>,
}

impl Delivery {
    /// Takes the message that is due the longest.
    pub async fn take() -> Result<Option<Self>, Unavailable> {
        let now = now();
        let rows = run(TAKE, [integer(now.0), integer((now + LEASE).0)]).await?;
        let Some(row) = rows.into_iter().next() else {
            return Ok(None);
        };
        let mut values = row.values.into_iter();
        match (values.next(), values.next(), values.next()) {
            (Some(Value::Integer(id)), Some(Value::Integer(count)), Some(Value::Blob(message))) => {
                let count = u32::try_from(count).map_err(|_| odd_row())?;
                Ok(Some(Self { id, count, message }))
            }
            _ => Err(odd_row()),
        }
    }

    /// Says that it is still worked on.
    pub async fn renew(&self) -> Result<(), Unavailable> {
        self.due(now() + LEASE).await
    }

    /// Has it delivered again.
    pub async fn retry(&self, after: Duration) -> Result<(), Unavailable> {
        self.due(now() + after).await
    }

    async fn due(&self, at: Timestamp) -> Result<(), Unavailable> {
        let [id, count] = self.name();
        run(DUE_AT, [id, count, integer(at.0)]).await.map(drop)
    }

    /// Removes it: it is done with.
    pub async fn done(&self) -> Result<(), Unavailable> {
        run(DONE, self.name()).await.map(drop)
    }

    fn name(&self) -> [Value; 2] {
        [Value::Integer(self.id), Value::from(self.count)]
    }
}
