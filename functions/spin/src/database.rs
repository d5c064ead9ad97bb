//! The one SQL database: three tables, made when an instance first asks for any.
//!
//! Statements run alone, each atomic by itself: connections to the database may be shared,
//! so a transaction over several could take in somebody else's. Whatever must be atomic is
//! therefore one statement, and says what it came to by `RETURNING`.

use std::cell::OnceCell;
use std::rc::Rc;

use spin_sdk::sqlite::{Connection, Error, RowResult, Value};
use tidegate_gateway::platform::Unavailable;

/// The database's label in `spin.toml`.
const LABEL: &str = "default";

/// Times are milliseconds since 1970.
const TABLES: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS atomic_record (
        key TEXT PRIMARY KEY NOT NULL,
        version INTEGER NOT NULL,
        value BLOB NOT NULL,
        expires_at INTEGER NOT NULL
    )",
    "CREATE INDEX IF NOT EXISTS atomic_record_expiry ON atomic_record (expires_at)",
    "CREATE TABLE IF NOT EXISTS atomic_counter (
        key TEXT PRIMARY KEY NOT NULL,
        sum INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
    )",
    "CREATE INDEX IF NOT EXISTS atomic_counter_expiry ON atomic_counter (expires_at)",
    "CREATE TABLE IF NOT EXISTS outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        message BLOB NOT NULL,
        deliveries INTEGER NOT NULL,
        due_at INTEGER NOT NULL
    )",
    "CREATE INDEX IF NOT EXISTS outbox_due ON outbox (due_at)",
];

thread_local! {
    /// Opened once per instance, with its tables there.
    static CONNECTION: OnceCell<Rc<Connection>> = const { OnceCell::new() };
}

/// Runs one statement and gives its rows.
pub async fn run(
    statement: &str,
    parameters: impl IntoIterator<Item = Value>,
) -> Result<Vec<RowResult>, Unavailable> {
    let connection = connection().await?;
    on(&connection, statement, parameters).await
}

async fn connection() -> Result<Rc<Connection>, Unavailable> {
    if let Some(connection) = CONNECTION.with(|connection| connection.get().cloned()) {
        return Ok(connection);
    }
    let opened = Connection::open(LABEL).await.map_err(unavailable)?;
    for table in TABLES {
        on(&opened, table, []).await?;
    }
    // Another request may have been faster; then its connection is the one that is kept.
    Ok(CONNECTION.with(|connection| Rc::clone(connection.get_or_init(|| Rc::new(opened)))))
}

async fn on(
    connection: &Connection,
    statement: &str,
    parameters: impl IntoIterator<Item = Value>,
) -> Result<Vec<RowResult>, Unavailable> {
    let rows = connection.execute(statement, parameters).await;
    rows.map_err(unavailable)?
        .collect()
        .await
        .map_err(unavailable)
}

fn unavailable(error: Error) -> Unavailable {
    Unavailable(match error {
        Error::NoSuchDatabase => format!("there is no SQLite database `{LABEL}`"),
        Error::AccessDenied => {
            format!("spin.toml does not give this component the SQLite database `{LABEL}`")
        }
        Error::InvalidConnection => "the connection is not valid".to_owned(),
        Error::DatabaseFull => "the database is full".to_owned(),
        Error::Io(reason) => reason,
    })
}

/// A row is not as its statement says.
pub fn odd_row() -> Unavailable {
    Unavailable("a row of the database is not as expected".to_owned())
}

/// A count of milliseconds, or any other that is never negative, as SQLite holds it.
pub fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_that_is_searched_for_has_an_index() {
        let named = |statement: &str, before: &str| {
            let rest = statement.strip_prefix(before)?;
            Some(rest.split([' ', '(']).next()?.to_owned())
        };
        for table in TABLES {
            let Some(name) = named(table, "CREATE TABLE IF NOT EXISTS ") else {
                continue;
            };
            let time = ["expires_at", "due_at"]
                .into_iter()
                .find(|column| table.contains(column))
                .unwrap();
            let index = format!(" ON {name} ({time})");
            assert!(TABLES.iter().any(|each| each.ends_with(&index)), "{name}");
        }
    }
}
