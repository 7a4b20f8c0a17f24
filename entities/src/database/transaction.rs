//! One write: a transaction that ends with its entry in the activity log, or leaves nothing. `commit` takes that entry,
//! so a mutation without one does not compile. Changes noted on the way are announced after the commit, never
//! before. Not here: what is written (the domains), what follows from a change (`change`'s listeners).

use std::time::Instant;

use sea_orm::{
    DbBackend, DbErr, Value,
    sqlx::{self, AssertSqlSafe, SqlSafeStr as _, postgres::PgRow, sqlite::SqliteRow},
};
use tokio::sync::Mutex;
use tracing::Instrument as _;

use crate::{
    activity::Entry,
    auth::revocation::{self, Revocation},
    cache::outbox,
    database::{
        pool::Lent,
        sql::{Cells, Source, Sql},
    },
    error::Error,
    events::{Change, Changes, tags_of},
    store::Store,
};

mod sqlite;

use sqlite::Writer;

/// A transaction under way. Dropped without `commit`, it is rolled back.
pub(crate) struct Transaction {
    store: Store,
    /// One statement at a time.
    statements: Mutex<Statements>,
    changes: Vec<Change>,
    revoked: Vec<Revocation>,
}

/// What a transaction's statements run on.
struct Statements {
    connection: Connection,
    /// All statements so far have come to their end. SQLite may have rolled back by itself after one that did not, and
    /// would run the next one outside of the transaction; PostgreSQL would answer COMMIT by rolling back.
    is_whole: bool,
}

enum Connection {
    Postgres(Lent),
    Sqlite(Writer),
}

impl Transaction {
    /// Begins to write.
    ///
    /// # Errors
    /// The database's: nothing was done.
    pub(crate) async fn begin(store: &Store) -> Result<Self, Error> {
        Self::begin_now(store).await.inspect_err(|error| store.writes().failed(error))
    }

    async fn begin_now(store: &Store) -> Result<Self, Error> {
        let asked = Instant::now();
        let connection = if let Some(pool) = store.pool() {
            Connection::Postgres(pool.begin().await?)
        } else {
            let turn = store.writer().lock_owned().await;
            let pool = store.connection().get_sqlite_connection_pool();
            Connection::Sqlite(Writer::begin(pool, turn, store.is_in_memory()).await?)
        };
        store.metrics().waited(asked.elapsed());
        let statements = Mutex::new(Statements { connection, is_whole: true });
        Ok(Self { store: store.clone(), statements, changes: Vec::new(), revoked: Vec::new() })
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.store.backend()
    }

    pub(crate) fn sql(&self) -> Sql {
        self.store.sql()
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
        let take = |row: Source<'_>| {
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
        mut take: impl FnMut(Source<'_>) -> Result<(), sqlx::Error>,
    ) -> Result<u64, Error> {
        let (text, values) = sql.into_parts();
        let timing = self.store.timing(name, table, &text);
        let mut rows = 0;
        let counted = |row: Source<'_>| {
            rows += 1;
            take(row)
        };
        let result = self.run_now(name, table, text, values, counted).instrument(timing.span()).await;
        // Of a statement without rows: how many it changed.
        let count = if rows == 0 { result.as_ref().copied().unwrap_or_default() as usize } else { rows };
        timing.finish(count, result.is_err());
        result.inspect_err(|error| self.store.writes().failed(error))
    }

    async fn run_now(
        &self,
        name: &'static str,
        table: &'static str,
        text: String,
        values: Vec<Value>,
        mut take: impl FnMut(Source<'_>) -> Result<(), sqlx::Error>,
    ) -> Result<u64, Error> {
        let mut statements = self.statements.lock().await;
        // Also where this future is dropped in the middle.
        if !std::mem::replace(&mut statements.is_whole, false) {
            return Err(is_over(name));
        }
        let changed = match &mut statements.connection {
            Connection::Postgres(lent) => {
                let text = AssertSqlSafe(text).into_sql_str();
                lent.run((name, table), text, values, &mut |row: &PgRow| take(Source::Postgres(row))).await?
            }
            Connection::Sqlite(writer) => {
                let mut take = |row: &SqliteRow| take(Source::Sqlite(row));
                writer.run((name, table), text, values, &mut take).await?
            }
        };
        statements.is_whole = true;
        Ok(changed)
    }

    /// Notes a change, to be announced once it is committed.
    pub(crate) fn changed(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Takes something back: from the commit on it is no longer good.
    pub(crate) fn revoke(&mut self, revocation: Revocation) {
        self.revoked.push(revocation);
    }

    /// Writes the entry, commits, and announces the changes.
    ///
    /// # Errors
    /// The database's; after an error of the commit itself it is unknown whether the write happened.
    pub(crate) async fn commit(self, entry: Entry) -> Result<(), Error> {
        entry.write(&self).await?;
        self.commit_unlogged().await
    }

    /// Commits what is no mutation of a client: upkeep that the server does by itself.
    pub(crate) async fn commit_unlogged(self) -> Result<(), Error> {
        if !self.revoked.is_empty() {
            revocation::write(&self, &self.revoked).await?;
        }
        // Told once it is committed; if this process does not get to that, another one finds it here.
        let tags = tags_of(&self.changes);
        let left = match (self.store.told(), tags.is_empty()) {
            (Some(told), false) => Some((told, outbox::write(&self, &tags).await?)),
            _ => None,
        };
        // In a task of its own: a caller who goes away now must not lose the announcement of what is committed.
        let committing = tokio::spawn(async move {
            let Self { store, statements, changes, revoked } = self;
            let result = statements.into_inner().commit().await;
            match &result {
                Ok(()) => store.writes().stored(),
                Err(error) => store.writes().failed(error),
            }
            // Before the caller hears of the write: who reads after the answer must not get older data. Also where the commit
            // failed: it may have happened all the same, and if not, a bump costs a miss.
            let written = store.cache().invalidate_by_tag(&tags).await;
            if result.is_ok() {
                if let (Some(_), Some((told, id))) = (written, left) {
                    told.add(id);
                }
                if let (Some(moment), Some(recorder)) = (written, store.recorder()) {
                    recorder.set_wrote(moment);
                }
                revocation::announce(&store, &revoked);
                store.announcer().announce(Changes::new(changes, written));
            }
            result
        });
        committing.await.expect("committing does not panic and is not aborted")
    }
}

impl Statements {
    /// # Errors
    /// Where it is `Ok`, the database has said that all is committed.
    async fn commit(self) -> Result<(), Error> {
        match self.connection {
            _ if !self.is_whole => Err(is_over("commit")),
            Connection::Postgres(lent) => lent.commit().await,
            Connection::Sqlite(writer) => writer.commit().await,
        }
    }
}

fn is_over(statement: &'static str) -> Error {
    let source = DbErr::Custom("a statement of the transaction before it did not come to its end".to_owned());
    Error::Statement { statement, source }
}
