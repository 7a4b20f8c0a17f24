//! One write: a transaction that ends with its entry in the activity log, or leaves nothing. `commit` takes that entry,
//! so a mutation without one does not compile. Changes noted on the way are announced after the commit, never
//! before. Not here: what is written (the domains), what follows from a change (`change`'s listeners).

use std::time::Instant;

use sea_orm::{
    ConnectionTrait as _, DatabaseTransaction, DbBackend, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait as _,
};
use tokio::sync::OwnedMutexGuard;
use tracing::Instrument as _;

use crate::{
    activity::Entry,
    cache::{outbox, tag},
    change::{Change, Changes},
    error::Error,
    revocation::{self, Revocation},
    sql::{Cell, Cells, Sql},
    store::Store,
};

/// A transaction under way. Dropped without `commit`, it is rolled back.
pub(crate) struct Transaction {
    store: Store,
    db: DatabaseTransaction,
    changes: Vec<Change>,
    revoked: Vec<Revocation>,
    /// SQLite has one writer at a time: writers of this process queue here, in order, instead of polling its lock.
    turn: Option<OwnedMutexGuard<()>>,
}

impl Transaction {
    /// Begins to write.
    pub(crate) async fn begin(store: &Store) -> Result<Self, Error> {
        let asked = Instant::now();
        let is_sqlite = store.backend() == DbBackend::Sqlite;
        let turn = if is_sqlite { Some(store.writer().lock_owned().await) } else { None };
        let options = TransactionOptions {
            // A transaction that reads first and writes later would fail instead of waiting.
            sqlite_transaction_mode: is_sqlite.then_some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let begun = store.connection().begin_with_options(options).await;
        let db = begun.map_err(|error| Error::of_statement("begin", error))?;
        store.metrics().waited(asked.elapsed());
        Ok(Self { store: store.clone(), db, changes: Vec::new(), revoked: Vec::new(), turn })
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
        read: impl FnMut(&mut Cells<'_>) -> Result<T, sea_orm::sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        self.store.fetch_on(&self.db, name, table, sql, read).await
    }

    /// Runs a statement of one column.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method is not general enough over lifetimes"
    )]
    pub(crate) async fn column<T: Cell>(
        &self,
        name: &'static str,
        table: &'static str,
        sql: Sql,
    ) -> Result<Vec<T>, Error> {
        self.fetch(name, table, sql, |cells| cells.next()).await
    }

    /// Runs a statement that returns no rows; says how many it changed.
    pub(crate) async fn execute(
        &self,
        name: &'static str,
        table: &'static str,
        sql: Sql,
    ) -> Result<u64, Error> {
        let (text, values) = sql.into_parts();
        let timing = self.store.timing(name, table, &text);
        let statement = Statement::from_sql_and_values(self.store.backend(), text, values);
        let executing = self.db.execute_raw(statement).instrument(timing.span());
        let result = executing.await.map(|done| done.rows_affected());
        timing.finish(result.as_ref().copied().unwrap_or_default() as usize, result.is_err());
        result.map_err(|error| Error::of_statement(name, error))
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
        let tags = tag::of_changes(&self.changes);
        let left = match (self.store.told(), tags.is_empty()) {
            (Some(told), false) => Some((told, outbox::write(&self, &tags).await?)),
            _ => None,
        };
        // In a task of its own: a caller who goes away now must not lose the announcement of what is committed.
        let committing = tokio::spawn(async move {
            let Self { store, db, changes, revoked, turn } = self;
            let result = db.commit().await;
            drop(turn);
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
        let result = committing.await.expect("committing does not panic and is not aborted");
        result.map_err(|error| Error::of_statement("commit", error))
    }
}
