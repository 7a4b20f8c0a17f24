//! A transaction of the database: its connection and its statements. Not here: what a write of the store does besides
//! (its entry in the activity log, revocations, what it invalidates and announces: `store::transaction`).

use std::{sync::Arc, time::Instant};

use sea_orm::{
    DbBackend, DbErr, Value,
    sqlx::{self, AssertSqlSafe, SqlSafeStr as _, postgres::PgRow, sqlite::SqliteRow},
};
use tokio::sync::Mutex;
use tracing::Instrument as _;

use crate::{
    database::{
        Database,
        pool::PooledConnection,
        sql::{Cells, RowSource, Sql},
    },
    error::Error,
};

mod sqlite;

use sqlite::Writer;

/// A transaction under way. Dropped without `commit`, it is rolled back.
pub(crate) struct SqlTransaction {
    database: Database,
    /// One statement at a time.
    statements: Mutex<Statements>,
}

/// What a transaction's statements run on.
struct Statements {
    connection: Connection,
    /// All statements so far have come to their end. SQLite may have rolled back by itself after one that did not, and
    /// would run the next one outside of the transaction; PostgreSQL would answer COMMIT by rolling back.
    is_whole: bool,
}

enum Connection {
    Postgres(PooledConnection),
    Sqlite(Writer),
}

impl SqlTransaction {
    /// Begins to write.
    ///
    /// # Errors
    /// The database's: nothing was done.
    pub(crate) async fn begin(database: &Database) -> Result<Self, Error> {
        Self::begin_now(database).await.inspect_err(|error| database.opened.writes.failed(error))
    }

    async fn begin_now(database: &Database) -> Result<Self, Error> {
        let asked = Instant::now();
        let opened = &database.opened;
        let connection = if let Some(pool) = &opened.pool {
            Connection::Postgres(pool.begin().await?)
        } else {
            let turn = Arc::clone(&opened.writer).lock_owned().await;
            let pool = opened.db.get_sqlite_connection_pool();
            Connection::Sqlite(Writer::begin(pool, turn, opened.is_in_memory).await?)
        };
        opened.metrics.waited(asked.elapsed());
        let statements = Mutex::new(Statements { connection, is_whole: true });
        Ok(Self { database: database.clone(), statements })
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.database.backend()
    }

    pub(crate) fn sql(&self) -> Sql {
        self.database.sql()
    }

    /// Runs a statement and reads each row with `read`.
    pub(crate) async fn fetch<T>(
        &self,
        name: &'static str,
        table: &'static str,
        sql: Sql,
        mut read: impl FnMut(&mut Cells<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        let mut rows = Vec::new();
        let take = |row: RowSource<'_>| {
            rows.push(read(&mut Cells::of(row))?);
            Ok(())
        };
        self.run(name, table, sql, take).await?;
        Ok(rows)
    }

    /// Runs a statement that returns no rows; says how many it changed.
    pub(crate) async fn execute(
        &self,
        name: &'static str,
        table: &'static str,
        sql: Sql,
    ) -> Result<u64, Error> {
        self.run(name, table, sql, |_| Ok(())).await
    }

    /// Runs a statement, hands its rows over, and says how many it changed.
    async fn run(
        &self,
        name: &'static str,
        table: &'static str,
        sql: Sql,
        mut take: impl FnMut(RowSource<'_>) -> Result<(), sqlx::Error>,
    ) -> Result<u64, Error> {
        let (text, values) = sql.into_parts();
        let timing = self.database.timing(name, table, &text, &values);
        let mut rows = 0;
        let counted = |row: RowSource<'_>| {
            rows += 1;
            take(row)
        };
        let result = self.run_now(name, table, text, values, counted).instrument(timing.span()).await;
        // Of a statement without rows: how many it changed.
        let count = if rows == 0 { result.as_ref().copied().unwrap_or_default() as usize } else { rows };
        timing.finish(count, result.is_err());
        result.inspect_err(|error| self.database.opened.writes.failed(error))
    }

    async fn run_now(
        &self,
        name: &'static str,
        table: &'static str,
        text: String,
        values: Vec<Value>,
        mut take: impl FnMut(RowSource<'_>) -> Result<(), sqlx::Error>,
    ) -> Result<u64, Error> {
        let mut statements = self.statements.lock().await;
        // Also where this future is dropped in the middle.
        if !std::mem::replace(&mut statements.is_whole, false) {
            return Err(is_over(name));
        }
        let changed = match &mut statements.connection {
            Connection::Postgres(pooled) => {
                let text = AssertSqlSafe(text).into_sql_str();
                pooled
                    .run((name, table), text, values, &mut |row: &PgRow| take(RowSource::Postgres(row)))
                    .await?
            }
            Connection::Sqlite(writer) => {
                let mut take = |row: &SqliteRow| take(RowSource::Sqlite(row));
                writer.run((name, table), text, values, &mut take).await?
            }
        };
        statements.is_whole = true;
        Ok(changed)
    }

    /// Commits.
    ///
    /// # Errors
    /// The database's: nothing is stored. `OutcomeUnknown` where that was not said. Where it is `Ok`, the
    /// database has said that all is committed.
    pub(crate) async fn commit(self) -> Result<(), Error> {
        let Self { database, statements } = self;
        let (result, writes) = (statements.into_inner().commit().await, &database.opened.writes);
        match &result {
            Ok(()) => writes.stored(),
            Err(error) => writes.failed(error),
        }
        result
    }
}

impl Statements {
    /// # Errors
    /// Where it is `Ok`, the database has said that all is committed.
    async fn commit(self) -> Result<(), Error> {
        match self.connection {
            _ if !self.is_whole => Err(is_over("commit")),
            Connection::Postgres(pooled) => pooled.commit().await,
            Connection::Sqlite(writer) => writer.commit().await,
        }
    }
}

fn is_over(statement: &'static str) -> Error {
    let source = DbErr::Custom("a statement of the transaction before it did not come to its end".to_owned());
    Error::Statement { statement, source }
}
