//! `spin:sqlite`: one SQLite file per label. Each time a component opens one it has a
//! connection of its own, with rusqlite's settings, as in Spin.

use std::sync::{Arc, Mutex};

use rusqlite::params_from_iter;
use rusqlite::types::{Value as Held, ValueRef};
use wasmtime::Result;
use wasmtime::component::{Accessor, FutureReader, Resource, StreamReader};

use crate::bindings::spin::sqlite::sqlite::{
    Error, Host, HostConnection, HostConnectionWithStore, QueryResult, RowResult, Value,
};
use crate::files::{self, File};
use crate::guest::{Guest, Spin};

/// A database a component has opened.
pub struct Database(File);

impl Guest {
    fn open_database(&mut self, label: &str) -> Result<Result<Resource<Database>, Error>> {
        let known = &self.given.sqlite_databases;
        if !known.iter().any(|each| each == label) {
            return Ok(Err(Error::AccessDenied));
        }
        let path = self.databases.join(format!("sqlite.{label}.db"));
        match rusqlite::Connection::open(path) {
            Ok(connection) => {
                let database = Database(Arc::new(Mutex::new(connection)));
                Ok(Ok(self.table.push(database)?))
            }
            Err(error) => Ok(Err(Error::Io(error.to_string()))),
        }
    }

    fn database(&self, connection: &Resource<Database>) -> Result<File> {
        Ok(self.table.get(connection)?.0.clone())
    }
}

fn query(
    connection: &rusqlite::Connection,
    statement: &str,
    parameters: Vec<Value>,
) -> rusqlite::Result<QueryResult> {
    let mut statement = connection.prepare_cached(statement)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let width = columns.len();
    let rows = statement
        .query_map(params_from_iter(parameters.into_iter().map(held)), |row| {
            let values = (0..width)
                .map(|column| row.get_ref(column).and_then(value))
                .collect::<rusqlite::Result<_>>()?;
            Ok(RowResult { values })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(QueryResult { columns, rows })
}

fn held(value: Value) -> Held {
    match value {
        Value::Integer(number) => Held::Integer(number),
        Value::Real(number) => Held::Real(number),
        Value::Text(text) => Held::Text(text),
        Value::Blob(bytes) => Held::Blob(bytes),
        Value::Null => Held::Null,
    }
}

fn value(held: ValueRef<'_>) -> rusqlite::Result<Value> {
    Ok(match held {
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(text) => Value::Text(std::str::from_utf8(text)?.to_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        ValueRef::Null => Value::Null,
    })
}

fn io(error: &rusqlite::Error) -> Error {
    Error::Io(error.to_string())
}

impl Host for Guest {}

impl HostConnection for Guest {
    async fn open(&mut self, label: String) -> Result<Result<Resource<Database>, Error>> {
        self.open_database(&label)
    }

    async fn execute(
        &mut self,
        connection: Resource<Database>,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<Result<QueryResult, Error>> {
        let file = self.database(&connection)?;
        let done = files::on(&file, move |file| query(file, &statement, parameters)).await?;
        Ok(done.map_err(|error| io(&error)))
    }

    fn last_insert_rowid(&mut self, connection: Resource<Database>) -> Result<i64> {
        Ok(files::lock(&self.database(&connection)?).last_insert_rowid())
    }

    fn changes(&mut self, connection: Resource<Database>) -> Result<u64> {
        Ok(files::lock(&self.database(&connection)?).changes())
    }

    fn drop(&mut self, connection: Resource<Database>) -> Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

type Rows = (
    Vec<String>,
    StreamReader<RowResult>,
    FutureReader<Result<(), Error>>,
);

impl<T: Send + 'static> HostConnectionWithStore<T> for Spin {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        label: String,
    ) -> Result<Result<Resource<Database>, Error>> {
        accessor.with(|mut access| access.get().open_database(&label))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Database>,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<Result<Rows, Error>> {
        let file = accessor.with(|mut access| access.get().database(&connection))?;
        let done = files::on(&file, move |file| query(file, &statement, parameters)).await?;
        let QueryResult { columns, rows } = match done {
            Ok(done) => done,
            Err(error) => return Ok(Err(io(&error))),
        };
        accessor.with(|mut access| {
            Ok(Ok((
                columns,
                StreamReader::new(&mut access, rows)?,
                FutureReader::new(&mut access, async { wasmtime::error::Ok(Ok(())) })?,
            )))
        })
    }

    async fn last_insert_rowid_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Database>,
    ) -> Result<i64> {
        accessor.with(|mut access| access.get().last_insert_rowid(connection))
    }

    async fn changes_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Database>,
    ) -> Result<u64> {
        accessor.with(|mut access| access.get().changes(connection))
    }
}
