//! One write: a transaction that ends with its entry in the activity log, or leaves nothing. `commit` takes that entry
//! (`activity`), so a mutation without one does not compile. Changes noted on the way are published after the commit,
//! never before. Not here: how statements run (`database::transaction`), what is written (the domains), what follows
//! from a change (the listeners of `events`).

use std::ops::Deref;

use sea_orm::sea_query::{CommonTableExpression, InsertStatement, WithClause};
use uuid::Uuid;

use crate::{
    auth::revocation::{self, Revocation},
    cache::{Tag, outbox},
    database::{
        sql::{Cells, Sql},
        transaction::SqlTransaction,
    },
    error::Error,
    events::{ChangeEvent, Changes, log, tags_of},
    idempotency::Claim,
    store::Store,
};

/// A write under way. Dropped without `commit`, it is rolled back.
pub(crate) struct Transaction {
    store: Store,
    statements: SqlTransaction,
    changes: Vec<ChangeEvent>,
    tags: Vec<Tag>,
    revoked: Vec<Revocation>,
    result: serde_json::Value,
}

/// Statements run on it as on a transaction of the database.
impl Deref for Transaction {
    type Target = SqlTransaction;

    fn deref(&self) -> &SqlTransaction {
        &self.statements
    }
}

impl Transaction {
    /// Begins to write.
    ///
    /// # Errors
    /// The database's: nothing was done.
    pub(crate) async fn begin(store: &Store) -> Result<Self, Error> {
        let statements = SqlTransaction::begin(store.database()).await?;
        Ok(Self {
            store: store.clone(),
            statements,
            changes: Vec::new(),
            tags: Vec::new(),
            revoked: Vec::new(),
            result: serde_json::Value::Null,
        })
    }

    /// Notes a change, to be published once it is committed.
    pub(crate) fn changed(&mut self, change: ChangeEvent) {
        self.changes.push(change);
    }

    /// Notes a tag whose values end with the commit, besides those that follow from changes: nobody is told more of it.
    pub(crate) fn invalidates(&mut self, tag: Tag) {
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
    }

    /// Takes something back: from the commit on it is no longer good.
    pub(crate) fn revoke(&mut self, revocation: Revocation) {
        self.revoked.push(revocation);
    }

    /// Notes what the same request has to be told if it comes again, besides what the entry in the activity
    /// log is about.
    pub(crate) fn results_in(&mut self, result: impl FnOnce() -> serde_json::Value) {
        if self.claim().is_some() {
            self.result = result();
        }
    }

    fn claim(&self) -> Option<&Claim> {
        self.store.context().recorder()?.claim()
    }

    /// Notes, where the request has a key, what is about to be committed for it.
    pub(crate) async fn note_for_repeats(&mut self, subject: Option<Uuid>) -> Result<(), Error> {
        let result = std::mem::take(&mut self.result);
        match self.claim() {
            // In a place of its own: requests without a key have no room for it in their futures.
            Some(claim) => Box::pin(claim.note(&self.statements, subject, result)).await,
            None => Ok(()),
        }
    }

    /// Commits what is no mutation of a client: upkeep that the server does by itself.
    ///
    /// # Errors
    /// The database's: nothing is stored. `OutcomeUnknown` where that was not said.
    pub(crate) async fn commit_unlogged(self) -> Result<(), Error> {
        self.commit_with(None).await
    }

    /// Commits, together with what this statement writes into the activity log if there is one.
    ///
    /// # Errors
    /// The database's: nothing is stored. `OutcomeUnknown` where that was not said.
    pub(crate) async fn commit_with(mut self, entry: Option<InsertStatement>) -> Result<(), Error> {
        if entry.is_some() && self.changes.is_empty() {
            self.changed(ChangeEvent::Activity);
        }
        if !self.revoked.is_empty() {
            revocation::write(&self, &self.revoked).await?;
        }
        // Published once it is committed; if this process does not get to that, another one finds it here.
        let mut tags = tags_of(&self.changes);
        tags.extend(self.tags.iter().cloned());
        let left = match (self.store.published(), tags.is_empty()) {
            (Some(published), false) => {
                let is_left = self.store.leaves_invalidations();
                let notifies = is_left && self.store.cache().hands_over();
                Some((published, outbox::write(&self, &tags, is_left, notifies).await?))
            }
            _ => None,
        };
        let event = self.write_logs(entry).await?;
        if let Some(recorder) = self.store.context().recorder() {
            recorder.note_commit();
        }
        // In a task of its own: a caller who goes away now must not keep others from hearing of what is committed.
        let committing = tokio::spawn(async move {
            let Self { store, statements, changes, revoked, .. } = self;
            let result = statements.commit().await;
            // Before the caller hears of the write: who reads after the answer must not get older data. Also
            // where the commit failed: it may have happened all the same, and if not, an invalidation costs a
            // miss.
            let written = store.cache().invalidate_by_tag(&tags).await;
            if result.is_ok() {
                match (written, left) {
                    (Some(_), Some((published, invalidation))) => published.add(invalidation.id()),
                    (None, Some((published, invalidation))) if store.has_sharing_others() => {
                        let (cache, database) = (store.cache(), store.database());
                        Box::pin(cache.hand_over(database, &published, invalidation)).await;
                    }
                    _ => {}
                }
                if let (Some(version), Some(recorder)) = (written, store.context().recorder()) {
                    recorder.set_written_version(version);
                }
                store.revocations().take_in(&revoked);
                store.events().publish(Changes::new(changes, written).logged(event));
            }
            result
        });
        committing.await.expect("committing does not panic and is not aborted")
    }

    /// Writes what the transaction did into the logs; returns the number of its row in the log of events, if
    /// it changed something. PostgreSQL is asked once for both: the rows that are locked would stay so for
    /// another round trip.
    async fn write_logs(&self, entry: Option<InsertStatement>) -> Result<Option<i64>, Error> {
        if self.changes.is_empty() {
            return Ok(None);
        }
        let event = log::insert(self.backend(), &self.changes);
        let (name, sql) = match entry {
            Some(entry) if self.sql().is_postgres() => {
                let entry = CommonTableExpression::new().table_name("entry").query(entry).to_owned();
                let both = event.with(WithClause::new().cte(entry).to_owned());
                ("activity.insert_with_event", Sql::built(self.backend(), &both))
            }
            entry => {
                if let Some(entry) = entry {
                    let sql = Sql::built(self.backend(), &entry);
                    self.execute("activity.insert", "user_activity_logs", sql).await?;
                }
                ("events.insert", Sql::built(self.backend(), &event))
            }
        };
        let read = |cells: &mut Cells<'_>| cells.next::<i64>();
        let numbers = self.fetch(name, "events", sql, read).await?;
        Ok(numbers.first().copied())
    }
}
