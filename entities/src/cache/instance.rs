//! The servers that serve one database. Each says so in a row that it renews while it lives, and looks for the others twice
//! a second. Without Redis a server does not hear what others write: as long as there is another one, it keeps nothing in
//! its cache, so that nothing it answers is older than half a second. Subscribers still do not hear what others write, which
//! the log and `xp doctor` say. No clocks are compared: another one lives if its row changes. Not here: how servers with
//! Redis hear of each other (`shared`, and `relay` of the events).

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use rustc_hash::FxHashMap;
use sea_orm::{Set, entity::prelude::*, sea_query::OnConflict};

use super::Cache;
use crate::{
    clock::{self, Time},
    database::{Database, sql::record, transaction::SqlTransaction},
    error::Error,
    id,
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(5);
/// Who has given no sign for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(16);
/// And its row goes, after so long.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(1);
/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

record! {
    /// A row of `instances`: a server.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "instances")]
    pub struct Model {
        /// Primary key: made when the server starts.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        /// It has a Redis.
        pub shares_cache: bool,
        /// Its last sign of life, by its own clock.
        pub seen_at: Time,
    }
}

/// A server belongs to nothing.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// This server, and what it knows of others.
#[derive(Debug)]
pub(crate) struct Instance {
    id: Uuid,
    has_others: AtomicBool,
    has_sharing_others: AtomicBool,
}

impl Default for Instance {
    fn default() -> Self {
        Self { id: id::new(), has_others: AtomicBool::default(), has_sharing_others: AtomicBool::default() }
    }
}

impl Instance {
    /// Another server with a Redis serves the same database: it has to hear what this one writes.
    pub(crate) fn has_sharing_others(&self) -> bool {
        self.has_sharing_others.load(Ordering::Acquire)
    }
}

/// Another server.
struct Other {
    shares: bool,
    seen_at: Time,
    /// When its row was seen to change, or was found.
    changed: Instant,
    /// It has given a sign since it was found.
    lives: bool,
}

/// Says that this server is there and looks for others, for as long as it is polled.
pub(crate) async fn keep(database: &Database, cache: &Cache, instance: &Instance) {
    let mut others = FxHashMap::default();
    let (mut beaten, mut warned) = (None::<Instant>, false);
    loop {
        // Also to see whether writes are stored again.
        let is_due = beaten.is_none_or(|at| at.elapsed() >= BEAT) || database.write_fault().is_some();
        if is_due && Box::pin(beat(database, cache, instance)).await.is_ok() {
            beaten = Some(Instant::now());
        }
        // While the database is away nothing is known, and nothing changes.
        if let Ok(rows) = Box::pin(look(database)).await {
            // Restored from a time before this server.
            if !rows.iter().any(|row| row.id == instance.id) {
                beaten = None;
            }
            note(&mut others, rows.into_iter().filter(|row| row.id != instance.id));
            react(cache, instance, &others, &mut warned);
            let old: Vec<Uuid> = stale(&others, FORGOTTEN_AFTER).collect();
            if !old.is_empty() {
                let _ = Box::pin(remove(database, &old)).await;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// This server ends.
pub(crate) async fn leave(database: &Database, instance: &Instance) {
    let _ = tokio::time::timeout(LEAVE_WITHIN, remove(database, &[instance.id])).await;
}

/// How many servers have given a sign of late, as far as clocks agree, and how many of them share a cache by Redis.
///
/// # Errors
/// The database's.
pub(crate) async fn count(database: &Database) -> Result<(usize, usize), Error> {
    let since = clock::now() - TimeDelta::seconds(GONE_AFTER.as_secs() as i64);
    let rows = look(database).await?;
    let alive: Vec<&Model> = rows.iter().filter(|row| row.seen_at >= since).collect();
    Ok((alive.len(), alive.iter().filter(|row| row.shares_cache).count()))
}

fn note(others: &mut FxHashMap<Uuid, Other>, rows: impl Iterator<Item = Model>) {
    let mut found: FxHashMap<Uuid, Other> = FxHashMap::default();
    for Model { id, shares_cache: shares, seen_at } in rows {
        let changed = Instant::now();
        let other = match others.remove(&id) {
            Some(known) if known.seen_at == seen_at => known,
            Some(_) => Other { shares, seen_at, changed, lives: true },
            None => Other { shares, seen_at, changed, lives: false },
        };
        found.insert(id, other);
    }
    *others = found;
}

fn stale(others: &FxHashMap<Uuid, Other>, after: Duration) -> impl Iterator<Item = Uuid> {
    others.iter().filter(move |(_, other)| other.changed.elapsed() > after).map(|(id, _)| *id)
}

fn react(cache: &Cache, instance: &Instance, others: &FxHashMap<Uuid, Other>, warned: &mut bool) {
    let present = || others.values().filter(|other| other.changed.elapsed() <= GONE_AFTER);
    let (any, sharing) = (present().next().is_some(), present().any(|other| other.shares));
    instance.has_sharing_others.store(sharing, Ordering::Release);
    if cache.is_shared() {
        return;
    }
    if instance.has_others.swap(any, Ordering::AcqRel) != any {
        cache.suspend(any);
    }
    let lives = present().any(|other| other.lives);
    if lives && !std::mem::replace(warned, true) {
        tracing::warn!(
            "another server serves this database and this one has no Redis: nothing is cached here, and subscribers do not \
             hear what the other one writes; set REDIS_URL for all servers, or run one"
        );
    }
    if !any && std::mem::replace(warned, false) {
        tracing::info!("this server serves the database alone again, and caches");
    }
}

async fn beat(database: &Database, cache: &Cache, instance: &Instance) -> Result<(), Error> {
    let now = clock::now();
    let transaction = SqlTransaction::begin(database).await?;
    let server =
        ActiveModel { id: Set(instance.id), shares_cache: Set(cache.is_shared()), seen_at: Set(now) };
    let again = OnConflict::column(Column::Id).update_column(Column::SeenAt).to_owned();
    transaction.write("instance.beat", Entity, &Entity::insert(server).on_conflict(again)).await?;
    transaction.commit().await
}

async fn look(database: &Database) -> Result<Vec<Model>, Error> {
    database.all("instance.look", Entity::find()).await
}

async fn remove(database: &Database, ids: &[Uuid]) -> Result<(), Error> {
    let transaction = SqlTransaction::begin(database).await?;
    let delete = Entity::delete_many().filter(transaction.is_any(Column::Id, ids));
    transaction.write("instance.remove", Entity, &delete).await?;
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_server_is_there_when_it_is_found_and_lives_when_its_row_changes() {
        let (mut others, id, first) = (FxHashMap::default(), id::new(), clock::now());
        let row = |seen_at| std::iter::once(Model { id, shares_cache: false, seen_at });
        note(&mut others, row(first));
        note(&mut others, row(first));
        assert!(!others[&id].lives, "it may have been killed before");
        note(&mut others, row(first + TimeDelta::seconds(5)));
        assert!(others[&id].lives);
        assert_eq!(stale(&others, Duration::from_hours(1)).count(), 0);
        assert_eq!(stale(&others, Duration::ZERO).collect::<Vec<_>>(), [id]);
        note(&mut others, std::iter::empty());
        assert!(others.is_empty(), "it left");
    }
}
