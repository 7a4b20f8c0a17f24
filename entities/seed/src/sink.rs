//! Where rows go: binary COPY on PostgreSQL, rows of VALUES on SQLite, all of a seed in one transaction. Not here:
//! what is in the rows.

use std::sync::Arc;

use entities::{Error, Store};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, Statement, TransactionTrait, Value,
    sqlx::{self, Executor as _, Postgres, Transaction},
};
use uuid::Uuid;

use crate::{Micros, Progress, time};

/// A table and the columns that are written, in the order of the cells.
pub(crate) struct Target {
    pub(crate) table: &'static str,
    pub(crate) columns: &'static [&'static str],
}

/// One value. Only what the tables have.
pub(crate) enum Cell {
    Null,
    Bool(bool),
    Int(i32),
    Float(f64),
    Id(Uuid),
    Time(Micros),
    Text(String),
    /// A JSON document as text.
    Json(String),
}

macro_rules! cells_from {
    ($($type:ty => $variant:ident),+) => {$(
        impl From<$type> for Cell {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )+};
}
cells_from!(bool => Bool, i32 => Int, f64 => Float, Uuid => Id, &str => Text, String => Text);

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Rows on their way, at most `ROWS` of them in memory.
pub(crate) struct Loader<'a> {
    sink: Sink,
    progress: &'a mut (dyn FnMut(Progress) + Send),
    /// Tables that are finished, with their rows.
    pub(crate) loaded: Vec<(&'static str, u64)>,
}

enum Sink {
    Postgres(Transaction<'static, Postgres>),
    Sqlite(DatabaseTransaction),
}

/// Rows sent at once: some hundred kilobytes.
const ROWS: usize = 4_000;

/// Values in one statement of SQLite, which takes 32,766.
const SQLITE_VALUES: usize = 8_000;

impl<'a> Loader<'a> {
    pub(crate) async fn begin(
        store: &Store,
        progress: &'a mut (dyn FnMut(Progress) + Send),
    ) -> Result<Self, Error> {
        let sink = match store.connection().get_database_backend() {
            DbBackend::Postgres => {
                let pool = store.connection().get_postgres_connection_pool();
                let mut transaction = pool.begin().await.map_err(driver).map_err(failed)?;
                let relax = "set local statement_timeout = 0";
                transaction.execute(relax).await.map_err(driver).map_err(failed)?;
                Sink::Postgres(transaction)
            }
            _ => Sink::Sqlite(store.connection().begin().await.map_err(failed)?),
        };
        Ok(Self { sink, progress, loaded: Vec::new() })
    }

    /// Writes every row of `rows` and reports on the way.
    pub(crate) async fn load<const N: usize>(
        &mut self,
        target: &Target,
        total: usize,
        rows: impl Iterator<Item = [Cell; N]> + Send,
    ) -> Result<(), Error> {
        let mut rows = rows.fuse();
        let mut done = 0;
        loop {
            let batch: Vec<[Cell; N]> = rows.by_ref().take(ROWS).collect();
            if batch.is_empty() {
                break;
            }
            done += batch.len() as u64;
            match &mut self.sink {
                Sink::Postgres(transaction) => copy(transaction, target, &batch).await,
                Sink::Sqlite(transaction) => insert(transaction, target, batch).await,
            }
            .map_err(failed)?;
            (self.progress)(Progress { table: target.table, done, total: total as u64 });
        }
        self.loaded.push((target.table, done));
        Ok(())
    }

    /// Keeps everything. Answers what was loaded.
    pub(crate) async fn commit(self) -> Result<Vec<(&'static str, u64)>, Error> {
        match self.sink {
            Sink::Postgres(transaction) => transaction.commit().await.map_err(driver),
            Sink::Sqlite(transaction) => transaction.commit().await,
        }
        .map_err(failed)?;
        Ok(self.loaded)
    }
}

pub(crate) fn failed(error: DbErr) -> Error {
    Error::of_statement("seed.load", error)
}

/// An error of the driver itself, as SeaORM would show it.
fn driver(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error)))
}

async fn copy<const N: usize>(
    transaction: &mut Transaction<'static, Postgres>,
    Target { table, columns }: &Target,
    rows: &[[Cell; N]],
) -> Result<(), DbErr> {
    let mut data = Vec::with_capacity(rows.len() * N * 16 + 32);
    data.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
    data.extend_from_slice(&[0; 8]); // no flags, no extension
    for row in rows {
        data.extend_from_slice(&(N as i16).to_be_bytes());
        for cell in row {
            encode(cell, &mut data);
        }
    }
    data.extend_from_slice(&(-1_i16).to_be_bytes());

    let statement = format!("copy {table} ({}) from stdin (format binary)", quoted(columns));
    let mut copy = transaction.copy_in_raw(&statement).await.map_err(driver)?;
    copy.send(data).await.map_err(driver)?;
    copy.finish().await.map(drop).map_err(driver)
}

/// A length and the type's binary form; a length of -1 is NULL.
fn encode(cell: &Cell, data: &mut Vec<u8>) {
    /// Microseconds from 1970 to 2000, PostgreSQL's epoch.
    const EPOCH: Micros = 946_684_800_000_000;

    let mut put = |bytes: &[u8]| {
        data.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        data.extend_from_slice(bytes);
    };
    match cell {
        Cell::Null => data.extend_from_slice(&(-1_i32).to_be_bytes()),
        Cell::Bool(value) => put(&[u8::from(*value)]),
        Cell::Int(value) => put(&value.to_be_bytes()),
        Cell::Float(value) => put(&value.to_be_bytes()),
        Cell::Id(value) => put(value.as_bytes()),
        Cell::Time(value) => put(&(value - EPOCH).to_be_bytes()),
        Cell::Text(value) => put(value.as_bytes()),
        Cell::Json(value) => {
            data.extend_from_slice(&(value.len() as i32 + 1).to_be_bytes());
            data.push(1); // the version of the form
            data.extend_from_slice(value.as_bytes());
        }
    }
}

async fn insert<const N: usize>(
    transaction: &DatabaseTransaction,
    Target { table, columns }: &Target,
    rows: Vec<[Cell; N]>,
) -> Result<(), DbErr> {
    let row = format!("({})", vec!["?"; N].join(", "));
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let some: Vec<[Cell; N]> = rows.by_ref().take(SQLITE_VALUES / N).collect();
        let marks = vec![row.as_str(); some.len()].join(", ");
        let sql = format!("insert into {table} ({}) values {marks}", quoted(columns));
        let values = some.into_iter().flatten().map(value);
        transaction.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    }
    Ok(())
}

fn value(cell: Cell) -> Value {
    match cell {
        Cell::Null => Value::String(None),
        Cell::Bool(value) => value.into(),
        Cell::Int(value) => value.into(),
        Cell::Float(value) => value.into(),
        Cell::Id(value) => value.into(),
        Cell::Time(value) => time(value).into(),
        Cell::Text(value) | Cell::Json(value) => value.into(),
    }
}

fn quoted(columns: &[&str]) -> String {
    format!("\"{}\"", columns.join("\", \""))
}
