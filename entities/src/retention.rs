//! What is old goes: positions, the activity log, sessions that have ended, invalidations that nobody took,
//! events, deliveries of webhooks. Whole months of the first two at once, as partitions; the rest in chunks,
//! the oldest first, so that what is left at any moment is all there is from some time on. Positions and the
//! log are people's data: of those only what was asked for. What was removed is told the caches in the
//! transaction that does it.
//!
//! Several servers may try at once: on PostgreSQL one transaction at a time does it, and none while the
//! schema is changed. Not here: requests with an idempotency key and revocations, which their own modules
//! remove; when it is done (the server).

mod locations;
mod months;
mod sessions;

use std::time::Duration;

use chrono::TimeDelta;
use sea_orm::{QueryOrder as _, QuerySelect as _, entity::prelude::*};

use crate::{
    activity,
    cache::outbox,
    clock::Time,
    error::{Error, Failure},
    events::{ChangeEvent, Removal, consumer, log},
    id::ActivityLogId,
    store::{Store, transaction::Transaction},
    webhook::delivery,
};

/// Rows that are removed in one transaction at most.
pub(crate) const CHUNK: u64 = 1_000;
/// Between two chunks, for others to write.
pub(crate) const BREATH: Duration = Duration::from_millis(20);

/// How long things are kept; none: for ever.
#[derive(Clone, Copy, Debug)]
pub struct RetentionTimes {
    /// Positions, by device time, and with them the newest positions of accounts.
    pub locations: Option<Duration>,
    /// Entries of the activity log.
    pub activity: Option<Duration>,
    /// Sessions, from their end.
    pub sessions: Duration,
    /// Invalidations. Longer than anything is cached.
    pub outbox: Duration,
    /// Events, for those who come back to them. What a consumer has not read yet stays for twice as long.
    pub events: Duration,
    /// Deliveries of webhooks, from their end.
    pub deliveries: Duration,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Whole months.
    pub months: u64,
    /// Rows besides.
    pub rows: u64,
}

impl Removed {
    /// Was there anything?
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Removes what is older than it may be at this moment. `None` where others do it, or change the schema
/// (which is done under the advisory lock `schema_lock`); what is removed so far stays removed.
///
/// # Errors
/// The database's; what is removed so far stays removed.
pub async fn remove_old(
    store: &Store,
    times: &RetentionTimes,
    now: Time,
    schema_lock: i64,
) -> Result<Option<Removed>, Error> {
    let upkeep = Upkeep { store, schema_lock };
    let mut removed = Removed::default();
    let steps = async {
        if let Some(before) = times.locations.and_then(|kept| before(now, kept)) {
            removed.rows += upkeep.remove_last_locations(before).await?;
            removed.months += upkeep.drop_months(&months::LOCATIONS, before).await?;
            removed.rows += upkeep.remove_locations(before).await?;
        }
        if let Some(before) = times.activity.and_then(|kept| before(now, kept)) {
            removed.months += upkeep.drop_months(&months::ACTIVITY, before).await?;
            removed.rows += upkeep.remove_activity(before).await?;
        }
        if let Some(before) = before(now, times.sessions) {
            removed.rows += upkeep.remove_sessions(before).await?;
        }
        if let Some(before) = before(now, times.outbox) {
            removed.rows += upkeep.remove_invalidations(before).await?;
        }
        if let Some(old) = before(now, times.events) {
            let very_old = before(now, times.events.saturating_mul(2)).unwrap_or(Time::MIN_UTC);
            removed.rows += upkeep.remove_events(old, very_old).await?;
        }
        if let Some(before) = before(now, times.deliveries) {
            removed.rows += upkeep.remove_deliveries(before).await?;
        }
        Ok(())
    };
    match steps.await {
        Ok(()) => Ok(Some(removed)),
        Err(Stopped::NotItsTurn) => Ok(None),
        Err(Stopped::Failed(error)) => Err(error),
    }
}

/// The moment that this was ago; none: before all times.
fn before(now: Time, kept: Duration) -> Option<Time> {
    TimeDelta::from_std(kept).ok().and_then(|kept| now.checked_sub_signed(kept))
}

/// Why it does not go on.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// Others do it, or change the schema.
    NotItsTurn,
    /// The database's.
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Stopped {
    /// Others hold a table, or were in the way.
    fn is_for_a_lock(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        matches!(error.failure(), Failure::TimedOut | Failure::Contended)
    }
}

/// One time of removing.
pub(crate) struct Upkeep<'a> {
    pub(crate) store: &'a Store,
    /// The advisory lock of who changes the schema.
    pub(crate) schema_lock: i64,
}

impl Upkeep<'_> {
    /// Begins to remove something of this table, if it is this one's turn. What is to be removed is known
    /// before: a commit says that writes are stored, which one of nothing cannot know (`database::writes`).
    /// Rows that are being copied into partitions stay until they are there: the copies would bring them
    /// back.
    pub(crate) async fn begin(&self, table: &str) -> Result<Transaction, Stopped> {
        let transaction = Transaction::begin(self.store).await?;
        let mut sql = transaction.sql();
        if !sql.is_postgres() {
            return Ok(transaction);
        }
        sql.push("SELECT 1 WHERE pg_try_advisory_xact_lock(").bind(self.schema_lock).push(")");
        if transaction.fetch("retention.turn", "pg_locks", sql, |_| Ok(())).await?.is_empty() {
            return Err(Stopped::NotItsTurn);
        }
        let mut sql = transaction.sql();
        sql.push("SELECT 1 FROM pg_class c WHERE c.relname = ").bind(format!("{table}_next"));
        sql.push(" AND pg_table_is_visible(c.oid)");
        let copies = transaction.fetch("retention.copies", "pg_class", sql, |_| Ok(())).await?;
        if copies.is_empty() { Ok(transaction) } else { Err(Stopped::NotItsTurn) }
    }

    /// Begins to delete rows. Not while nothing can be stored: that succeeds on a full disk, and would be
    /// taken for the end of it. Whole months go also then, which makes room.
    async fn begin_to_delete(&self, table: &str) -> Result<Transaction, Stopped> {
        if self.store.database().write_fault().is_some() {
            return Err(Stopped::NotItsTurn);
        }
        self.begin(table).await
    }

    /// Entries of the log that are not in a whole old month.
    async fn remove_activity(&self, before: Time) -> Result<u64, Stopped> {
        use activity::{Column, Entity};
        let find = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::CreatedAt.lt(before))
            .order_by_asc(Column::CreatedAt)
            .limit(CHUNK);
        let mut removed = 0;
        loop {
            let ids: Vec<ActivityLogId> = self.store.database().column("activity.old", Entity, &find).await?;
            if ids.is_empty() {
                return Ok(removed);
            }
            let mut transaction = self.begin_to_delete(Entity.table_name()).await?;
            let delete = Entity::delete_many()
                .filter(transaction.is_any(Column::Id, &ids))
                .filter(Column::CreatedAt.lt(before));
            removed += transaction.write("activity.remove", Entity, &delete).await?;
            transaction.changed(ChangeEvent::Removed { of: Removal::ActivityLogs });
            transaction.commit_unlogged().await?;
            if (ids.len() as u64) < CHUNK {
                return Ok(removed);
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// The oldest events. Of those that are old enough the last one stays, so that whoever was told it finds
    /// what comes after it; and what some consumer has yet to read, unless it is very old: then nobody reads
    /// for it any more.
    async fn remove_events(&self, before: Time, very_old: Time) -> Result<u64, Stopped> {
        let database = self.store.database();
        let end = log::end(database).await?;
        let needed = consumer::first_needed(database).await?;
        let (mut removed, mut from) = (0, (0, 0));
        loop {
            let oldest = log::between(database, (from, end), CHUNK).await?;
            // Only from the start: what is left is all there is from some row on.
            let may_go = |(key, created_at): &&((i64, i64), Time)| {
                *created_at < before && (*created_at < very_old || needed.is_none_or(|needed| *key <= needed))
            };
            let old: Vec<_> = oldest.iter().take_while(may_go).collect();
            let Some((until, _)) = old.len().checked_sub(2).and_then(|last| old.get(last)) else { break };
            let transaction = self.begin_to_delete("events").await?;
            removed += log::remove_until(&transaction, *until).await?;
            transaction.commit_unlogged().await?;
            from = *until;
            tokio::time::sleep(BREATH).await;
        }
        if log::has_foreign(database).await? {
            let transaction = self.begin_to_delete("events").await?;
            removed += log::remove_foreign(&transaction, before).await?;
            transaction.commit_unlogged().await?;
        }
        Ok(removed)
    }

    /// Deliveries that are done.
    async fn remove_deliveries(&self, before: Time) -> Result<u64, Stopped> {
        let mut removed = 0;
        loop {
            let ids = delivery::old(self.store.database(), before, CHUNK).await?;
            if ids.is_empty() {
                return Ok(removed);
            }
            let transaction = self.begin_to_delete("webhook_deliveries").await?;
            removed += delivery::remove(&transaction, &ids).await?;
            transaction.commit_unlogged().await?;
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Invalidations that nobody took, where no server caches.
    async fn remove_invalidations(&self, before: Time) -> Result<u64, Stopped> {
        let mut removed = 0;
        loop {
            let ids = outbox::older_than(self.store.database(), before, CHUNK).await?;
            if ids.is_empty() {
                return Ok(removed);
            }
            let transaction = self.begin_to_delete("cache_outbox").await?;
            let count = outbox::remove_in(&transaction, &ids).await?;
            transaction.commit_unlogged().await?;
            removed += count;
            if count < CHUNK {
                return Ok(removed);
            }
            tokio::time::sleep(BREATH).await;
        }
    }
}
