//! The servers that serve one database. Each says so in a row that it renews while it lives, and looks for
//! the others twice a second. Without Redis, or with another Redis or namespace than theirs, a server does
//! not hear what others write: as long as there is such a server, nothing is cached, so that nothing is
//! answered that is older than a second. Subscribers hear of it a moment later than they would, as the log
//! and `xp doctor` say. Another one lives if its row changes, whatever its clock shows; clocks that differ
//! are told of. Where a long transaction keeps everybody from writing to SQLite, no row can change, and
//! nobody grows older. Not here: how servers with Redis hear of each other (`shared`, and `relay` of the
//! events).

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use rustc_hash::{FxHashMap, FxHashSet};
use sea_orm::{Set, entity::prelude::*, sea_query::OnConflict};

use super::Cache;
use crate::{
    clock::{self, Time},
    database::{Database, sql::record, transaction::SqlTransaction},
    error::Error,
    id,
};

/// Clocks that differ by more are told of.
const MOST_SKEW: TimeDelta = TimeDelta::seconds(30);
/// Once it was told of, they have to come as close as this before it is told again.
const CLOSE_AGAIN: TimeDelta = TimeDelta::seconds(25);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(5);
/// A sign of life that is later than this was held up.
const BEAT_AT_LATEST: Duration = Duration::from_secs(6);
/// A server that has given no sign for so long, while signs could be given, is gone.
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
        /// Which cache it shares with others (`Cache::id`); none: it has no Redis, or could not reach it yet.
        pub cache_id: Option<Uuid>,
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
    /// Its last sign of life.
    beaten: Mutex<Option<Instant>>,
    /// The cache that this server shares with others, as it said with its last sign of life.
    cache_id: Mutex<Option<Uuid>>,
    has_others: AtomicBool,
    has_sharing_others: AtomicBool,
    beats: Mutex<Beats>,
    /// How far the clock of another server is ahead, seconds; of several, what differs most.
    clock_skew: Gauge<f64, AtomicU64>,
}

/// The last signs of life, with their numbers: the newest one that a server shows says how far it is.
#[derive(Debug, Default)]
struct Beats {
    /// How many there were before these.
    before: u64,
    last: VecDeque<Time>,
    /// The number of the last one that is stored.
    stored: Option<u64>,
}

/// Signs of life that are remembered.
const BEATS: usize = 64;

impl Default for Instance {
    fn default() -> Self {
        let (has_others, has_sharing_others) = (AtomicBool::default(), AtomicBool::default());
        let (beaten, cache_id, beats) = (Mutex::default(), Mutex::default(), Mutex::default());
        let clock_skew = Gauge::default();
        Self { id: id::new(), beaten, cache_id, has_others, has_sharing_others, beats, clock_skew }
    }
}

impl Instance {
    /// Shows what it knows of the others' clocks.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "instance_clock_skew_seconds",
            "How far the clock of another server of this database is ahead of this one's; of several, what \
             differs most",
            self.clock_skew.clone(),
        );
    }

    /// Of its row.
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// The number of this sign of life of this process.
    pub(super) fn number_of(&self, beat: Time) -> Option<u64> {
        let beats = self.beats();
        let place = beats.last.iter().rposition(|known| *known == beat)?;
        Some(beats.before + place as u64)
    }

    /// The number of the last sign of life that is stored.
    pub(super) fn stored_beat(&self) -> Option<u64> {
        self.beats().stored
    }

    /// Gives a sign of life soon, and says which number it will have at least.
    pub(super) fn beat_soon(&self) -> u64 {
        self.set_beaten(None);
        let beats = self.beats();
        beats.before + beats.last.len() as u64
    }

    /// Notes a sign of life that is about to be stored. Also one whose storing fails may be there.
    fn add_beat(&self, beat: Time) -> u64 {
        let mut beats = self.beats();
        if beats.last.len() == BEATS {
            beats.last.pop_front();
            beats.before += 1;
        }
        beats.last.push_back(beat);
        beats.before + beats.last.len() as u64 - 1
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another server with a Redis serves the same database: it has to hear what this one writes.
    pub(crate) fn has_sharing_others(&self) -> bool {
        self.has_sharing_others.load(Ordering::Acquire)
    }

    fn cache_id(&self) -> Option<Uuid> {
        *self.cache_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_beaten(&self, at: Option<Instant>) {
        *self.beaten.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Has it given a sign of life within this time?
    fn has_beaten_within(&self, time: Duration) -> bool {
        self.beaten.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < time)
    }
}

/// Another server.
struct Other {
    shares: bool,
    cache_id: Option<Uuid>,
    seen_at: Time,
    /// How long its row has not changed, as far as it could.
    silent: Duration,
    /// It has given a sign since it was found.
    lives: bool,
    /// How far its clock was ahead when it gave its last sign, give or take the time between two looks.
    ahead: TimeDelta,
}

/// Says that this server is there and looks for others, for as long as it is polled. The one does not wait
/// for the other.
pub(crate) async fn run(database: &Database, cache: &Cache, instance: &Instance) {
    let beating = keep_beating(database, cache, instance);
    let looking = keep_looking(database, cache, instance);
    futures_util::future::join(beating, looking).await;
}

async fn keep_beating(database: &Database, cache: &Cache, instance: &Instance) {
    loop {
        // Also to see whether writes are stored again.
        let is_due = !instance.has_beaten_within(BEAT) || database.write_fault().is_some();
        if is_due && Box::pin(beat(database, cache, instance)).await.is_ok() {
            instance.set_beaten(Some(Instant::now()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn keep_looking(database: &Database, cache: &Cache, instance: &Instance) {
    let mut others = FxHashMap::default();
    let (mut looked, mut warned) = (Instant::now(), Warned::default());
    loop {
        // While the database is away nothing is known, and nothing changes.
        if let Ok(rows) = Box::pin(look(database)).await {
            // Restored from a time before this server.
            if !rows.iter().any(|row| row.id == instance.id) {
                instance.set_beaten(None);
            }
            // Who could not write just now is not taken for dead, whatever it was that held everybody up.
            let passed = looked.elapsed().min(LOOK * 2);
            let passed = if instance.has_beaten_within(BEAT_AT_LATEST) { passed } else { Duration::ZERO };
            looked = Instant::now();
            update(&mut others, rows.into_iter().filter(|row| row.id != instance.id), passed);
            react(cache, instance, &others, &mut warned).await;
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

/// The servers of one database that have given a sign of late, as far as clocks agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstanceCounts {
    /// All of them.
    pub all: usize,
    /// Those of them that share a cache by Redis.
    pub sharing: usize,
    /// How many different caches those share: more than one is a mistake.
    pub caches: usize,
}

/// Counts the servers.
///
/// # Errors
/// The database's.
pub(crate) async fn count(database: &Database) -> Result<InstanceCounts, Error> {
    let since = clock::now() - TimeDelta::seconds(GONE_AFTER.as_secs() as i64);
    let rows = look(database).await?;
    let alive = || rows.iter().filter(|row| row.seen_at >= since);
    let caches: FxHashSet<Uuid> = alive().filter_map(|row| row.cache_id).collect();
    let sharing = alive().filter(|row| row.shares_cache).count();
    Ok(InstanceCounts { all: alive().count(), sharing, caches: caches.len() })
}

/// Takes note of the others' rows; `passed` is how long they could have changed since the last time.
fn update(others: &mut FxHashMap<Uuid, Other>, rows: impl Iterator<Item = Model>, passed: Duration) {
    let mut found: FxHashMap<Uuid, Other> = FxHashMap::default();
    for Model { id, shares_cache: shares, seen_at, cache_id } in rows {
        let silent = Duration::ZERO;
        let other = match others.remove(&id) {
            Some(known) if known.seen_at == seen_at => Other { silent: known.silent + passed, ..known },
            Some(_) => {
                let ahead = seen_at - clock::now();
                Other { shares, cache_id, seen_at, silent, lives: true, ahead }
            }
            // It may have been written long ago.
            None => Other { shares, cache_id, seen_at, silent, lives: false, ahead: TimeDelta::zero() },
        };
        found.insert(id, other);
    }
    *others = found;
}

fn stale(others: &FxHashMap<Uuid, Other>, after: Duration) -> impl Iterator<Item = Uuid> {
    others.iter().filter(move |(_, other)| other.silent > after).map(|(id, _)| *id)
}

/// What the log was told of.
#[derive(Default)]
struct Warned {
    others: bool,
    split: bool,
    clocks: bool,
}

async fn react(cache: &Cache, instance: &Instance, others: &FxHashMap<Uuid, Other>, warned: &mut Warned) {
    let present = || others.values().filter(|other| other.silent <= GONE_AFTER);
    let (any, sharing) = (present().next().is_some(), present().any(|other| other.shares));
    instance.has_sharing_others.store(sharing, Ordering::Release);
    let skew = present().map(|other| other.ahead).max_by_key(TimeDelta::abs).unwrap_or_default();
    compare_clocks(instance, skew, warned);
    if cache.is_shared() {
        let own = instance.cache_id();
        let differs = |other: &&Other| own.is_some() && other.cache_id.is_some() && other.cache_id != own;
        let is_split = present().any(|other| differs(&other));
        cache.set_split(is_split).await;
        if is_split != warned.split && (!is_split || present().any(|other| differs(&other) && other.lives)) {
            warned.split = is_split;
            say_split(is_split);
        }
        return;
    }
    if instance.has_others.swap(any, Ordering::AcqRel) != any {
        cache.suspend(any);
    }
    let lives = present().any(|other| other.lives);
    if lives && !std::mem::replace(&mut warned.others, true) {
        tracing::warn!(
            "another server serves this database and this one runs without Redis: nothing is cached here, \
             and subscribers hear a quarter of a second later what the other one writes; set REDIS_URL for \
             all servers, or run one"
        );
    }
    if !any && std::mem::replace(&mut warned.others, false) {
        tracing::info!("this server serves the database alone again, and caches");
    }
}

/// Nothing here depends on the others' clocks; what people see of times, and how long tokens are good, does.
fn compare_clocks(instance: &Instance, skew: TimeDelta, warned: &mut Warned) {
    instance.clock_skew.set(skew.as_seconds_f64());
    let differ = skew.abs() > MOST_SKEW;
    if differ && !warned.clocks {
        tracing::warn!(
            seconds = skew.num_seconds(),
            "the clock of another server of this database differs from this one's by more than half a \
             minute; set both by NTP"
        );
    }
    warned.clocks = differ || (warned.clocks && skew.abs() > CLOSE_AGAIN);
}

fn say_split(is_split: bool) {
    if is_split {
        tracing::warn!(
            "another server of this database uses another Redis or another redis.namespace: nothing is \
             cached meanwhile, and subscribers hear a quarter of a second later what the other one writes; \
             give all servers the same REDIS_URL and redis.namespace"
        );
    } else {
        tracing::info!(
            "all servers of this database use the same Redis and redis.namespace again, and cache"
        );
    }
}

/// Gives a sign of life. On SQLite it does not wait for its turn to write: it would stand behind all that came before,
/// however long that takes, and the server would look dead.
async fn beat(database: &Database, cache: &Cache, instance: &Instance) -> Result<(), Error> {
    let (cache_id, seen_at) = (cache.id().await, clock::now());
    let number = instance.add_beat(seen_at);
    let server = ActiveModel {
        id: Set(instance.id),
        shares_cache: Set(cache.is_shared()),
        seen_at: Set(seen_at),
        cache_id: Set(cache_id),
    };
    let again = OnConflict::column(Column::Id).update_columns([Column::SeenAt, Column::CacheId]).to_owned();
    let insert = Entity::insert(server).on_conflict(again);
    database.write_alone("instance.beat", Entity, &insert).await?;
    instance.beats().stored = Some(number);
    *instance.cache_id.lock().unwrap_or_else(PoisonError::into_inner) = cache_id;
    Ok(())
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
    use crate::database::DatabaseOptions;

    #[test]
    fn another_server_is_alive_when_its_row_changes() {
        let (mut others, id, first) = (FxHashMap::default(), id::new(), clock::now());
        let row = |seen_at| std::iter::once(Model { id, shares_cache: false, seen_at, cache_id: None });
        update(&mut others, row(first), LOOK);
        update(&mut others, row(first), LOOK);
        assert!(!others[&id].lives, "it may have been killed before");
        update(&mut others, row(first + TimeDelta::seconds(5)), LOOK);
        assert!(others[&id].lives);
        for _ in 0..100 {
            update(&mut others, row(first + TimeDelta::seconds(5)), Duration::ZERO);
        }
        assert_eq!(stale(&others, Duration::ZERO).count(), 0, "nobody could write in the meantime");
        update(&mut others, row(first + TimeDelta::seconds(5)), GONE_AFTER);
        assert_eq!(stale(&others, GONE_AFTER).count(), 0);
        update(&mut others, row(first + TimeDelta::seconds(5)), LOOK);
        assert_eq!(stale(&others, GONE_AFTER).collect::<Vec<_>>(), [id]);
        update(&mut others, std::iter::empty(), LOOK);
        assert!(others.is_empty(), "it left");
    }

    #[tokio::test]
    async fn a_heartbeat_does_not_wait_for_writers() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = DatabaseOptions {
            max_connections: 3,
            acquire_timeout: Duration::from_secs(5),
            ..DatabaseOptions::at(format!("sqlite:{}", folder.path().join("xp.db").display()))
        };
        let database = Database::connect(&config, &mut Registry::default()).await.expect("it opens");
        migration::up(database.connection()).await.expect("the tables are made");
        let (cache, instance) = (Cache::off(), Instance::default());
        let turn = database.turn_to_write().await;
        let beating = beat(&database, &cache, &instance);
        let beaten = tokio::time::timeout(Duration::from_secs(4), beating).await;
        assert!(beaten.is_ok_and(|beaten| beaten.is_ok()), "the turn of a writer is not needed");
        drop(turn);
        // A transaction that writes has the file for itself.
        let writing = SqlTransaction::begin(&database).await.expect("it begins");
        let mut beating = Box::pin(beat(&database, &cache, &instance));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut beating).await.is_err());
        writing.commit().await.expect("it is committed");
        assert!(beating.await.is_ok());
        assert_eq!(look(&database).await.expect("it is read").len(), 1);
    }
}
