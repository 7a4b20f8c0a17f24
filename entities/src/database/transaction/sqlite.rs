//! A transaction on SQLite. BEGIN, COMMIT and ROLLBACK are sent as they are: the driver's own count of open
//! transactions is wrong after SQLite has rolled one back by itself (`SQLITE_FULL`, `SQLITE_IOERR`,
//! `SQLITE_NOMEM`; see <https://sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction>),
//! and every later "commit" would be the release of a savepoint within a transaction that never ends. SQLite
//! takes BEGIN only where no transaction is open and COMMIT only where one is, so that what both have
//! answered is committed. A connection on which one of the three fails, or does not come to its end, is
//! closed. Not here: what is written.

use futures_util::TryStreamExt as _;
use sea_orm::{
    DbErr, RuntimeErr, Value, Values,
    sqlx::{
        self, AssertSqlSafe, Either, Executor as _, Sqlite, SqlitePool, pool::PoolConnection,
        sqlite::SqliteRow,
    },
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::OwnedMutexGuard;

use crate::error::{Error, primary_of};

/// `SQLITE_IOERR`.
const IO_ERROR: u32 = 10;

/// The connection of a transaction, and the turn to write.
pub(super) struct Writer {
    connection: Option<PoolConnection<Sqlite>>,
    /// SQLite has one writer at a time: writers of this process queue here, in order, instead of polling its
    /// lock. The turn ends with the transaction.
    turn: Option<OwnedMutexGuard<()>>,
    /// BEGIN, COMMIT or ROLLBACK is under way, or has failed.
    is_broken: bool,
    in_transaction: bool,
    /// The database lives as long as its connection.
    is_in_memory: bool,
}

impl Writer {
    pub(super) async fn begin(
        pool: &SqlitePool,
        turn: OwnedMutexGuard<()>,
        is_in_memory: bool,
    ) -> Result<Self, Error> {
        let connection = pool.acquire().await.map_err(Error::unavailable)?;
        let mut writer = Self {
            connection: Some(connection),
            turn: Some(turn),
            is_broken: false,
            in_transaction: true,
            is_in_memory,
        };
        // A transaction that reads first and writes later would fail instead of waiting.
        writer.command("begin", "BEGIN IMMEDIATE").await?;
        Ok(writer)
    }

    /// Runs a statement, hands its rows over, and says how many it changed.
    pub(super) async fn run(
        &mut self,
        (name, table): (&'static str, &'static str),
        text: String,
        values: Vec<Value>,
        take: &mut impl FnMut(&SqliteRow) -> Result<(), sqlx::Error>,
    ) -> Result<u64, Error> {
        let mut changed = 0;
        let query = sqlx::query_with(AssertSqlSafe(text), SqlxValues(Values(values)));
        let mut answers = self.connection().fetch_many(query);
        let failed = |error: sqlx::Error| {
            let source = DbErr::Query(RuntimeErr::SqlxError(error.into()));
            Error::Statement { statement: name, source }
        };
        while let Some(answer) = answers.try_next().await.map_err(failed)? {
            match answer {
                Either::Left(done) => changed += done.rows_affected(),
                Either::Right(row) => take(&row).map_err(|source| Error::Row { table, source })?,
            }
        }
        Ok(changed)
    }

    /// # Errors
    /// SQLite's: nothing is committed. `OutcomeUnknown` where the disk failed: what was written may be found again.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        self.command("commit", "COMMIT").await.map_err(|error| {
            let has_failed = error.driver_code().and_then(|code| primary_of(&code)) == Some(IO_ERROR);
            match error {
                Error::Statement { source, .. } if has_failed => Error::OutcomeUnknown(source),
                error => error,
            }
        })?;
        self.in_transaction = false;
        Ok(())
    }

    async fn command(&mut self, name: &'static str, command: &'static str) -> Result<(), Error> {
        self.is_broken = true;
        let done = self.connection().execute(sqlx::raw_sql(command)).await;
        done.map_err(|error| {
            let source = DbErr::Exec(RuntimeErr::SqlxError(error.into()));
            Error::Statement { statement: name, source }
        })?;
        self.is_broken = false;
        Ok(())
    }

    fn connection(&mut self) -> &mut PoolConnection<Sqlite> {
        self.connection.as_mut().expect("it is there until the end")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if !self.in_transaction && !self.is_broken {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // Nobody could wait for it: it closes, which rolls back.
            return drop(connection.detach());
        };
        let (turn, is_broken, is_in_memory) = (self.turn.take(), self.is_broken, self.is_in_memory);
        drop(runtime.spawn(async move {
            let ended = if is_broken && !is_in_memory {
                false
            } else {
                connection.execute(sqlx::raw_sql("ROLLBACK")).await.is_ok()
            };
            if !ended && !is_in_memory {
                tracing::warn!("a transaction did not come to its end; its connection is closed");
                let _ = connection.close().await;
            }
            // Only now may somebody else begin.
            drop(turn);
        }));
    }
}
