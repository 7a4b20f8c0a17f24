//! The foundations: every table, index and partition of the store, one file per step, for PostgreSQL and SQLite.
//!
//! Not here: what rows mean and how they are read, which is the business of `entities`.
//!
//! Invariants:
//! - Steps are additive (expand first, contract a release later), so that old code runs on the new schema.
//! - Whatever changes the schema runs in a transaction under one lock, each step in its own on PostgreSQL, so
//!   any number of processes may start at the same time and a failed step leaves nothing behind.
//! - Old programs go on reading and writing meanwhile: on PostgreSQL a step waits one second for a table at
//!   most, because whoever comes after it waits behind it. Then it lets go and tries again.
//! - Text that is ordered or compared sorts by bytes, and times sort as text, so both databases agree.

#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod ddl;
mod m0001_users;
mod m0002_sessions;
mod m0003_forms;
mod m0004_locations;
mod m0005_activity;
mod m0006_search;
mod m0007_access;
mod m0008_outbox;
mod m0009_instances;
mod m0010_composed;
mod m0011_client_ids;
mod m0012_exchanges;
mod m0013_client_id_indexes;
mod m0014_cache_ids;
mod m0015_idempotency;
mod m0016_events;
mod m0017_webhooks;
mod m0018_idempotency_accounts;
mod partitions;
mod sizes;

use std::{collections::HashSet, time::Duration};

use sea_orm_migration::{
    prelude::*,
    sea_orm::{
        ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, RuntimeErr,
        SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, sqlx,
    },
};

pub use partitions::{
    PartitionStatus, ensure_partitions, ensure_partitions_between, partition_status, try_ensure_partitions,
};
pub use sizes::{TableSize, table_sizes};

/// One step of the schema and whether this database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The step's name, which is its file's.
    pub name: String,
    /// It has run here.
    pub applied: bool,
}

/// Runs the steps that are missing and makes the partitions of this month and the next three. Safe to repeat and
/// to run in many processes at once. A database that a newer program has already changed is left as it is.
///
/// # Errors
/// The database's; on PostgreSQL also where a step does not get its table for minutes. What was done before
/// stays, and the next call goes on from there.
pub async fn up(db: &DatabaseConnection) -> Result<(), DbErr> {
    while locked(db, Work::Up, Turn::Wait).await? != Some(Done::Nothing) {}
    ensure_partitions(db, MONTHS_AHEAD).await.map(drop)
}

/// Takes back the last `count` steps, data and all.
pub async fn down(db: &DatabaseConnection, count: u32) -> Result<(), DbErr> {
    locked(db, Work::Down(count), Turn::Wait).await.map(drop)
}

/// Every step in order. Steps of a newer program that has been here come last. Only reads.
pub async fn status(db: &DatabaseConnection) -> Result<Vec<Step>, DbErr> {
    steps(db).await
}

/// How many steps are missing. Only reads.
pub async fn pending(db: &DatabaseConnection) -> Result<u32, DbErr> {
    Ok(steps(db).await?.iter().filter(|step| !step.applied).count() as u32)
}

/// Lets the planner learn the tables, after many rows came at once.
pub async fn analyze(db: &DatabaseConnection) -> Result<(), DbErr> {
    // Named tables: a plain ANALYZE would also try the system's and warn about each.
    let sql = match db.get_database_backend() {
        DbBackend::Postgres => {
            "analyze users, user_sessions, user_activity_logs, forms, form_versions, form_submissions, \
             user_locations, user_last_locations"
        }
        _ => "analyze",
    };
    db.execute_unprepared(sql).await.map(drop)
}

/// Partitions made ahead of time: enough for a quarter without a restart.
const MONTHS_AHEAD: u32 = 3;

/// The key of PostgreSQL's advisory lock, which whoever changes the schema holds: any number, the same in
/// every version of the program.
pub const LOCK: i64 = 0x7870_6772_6170_6801;

/// How long a step waits for a table, while others wait behind it: at first, and each time twice as long
/// until the most.
const LOCK_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Then it lets the others go on for so long.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// And gives up after so many tries: five minutes. Whoever starts the program starts it again.
const LOCK_TRIES: u32 = 150;

/// How often a locked SQLite file is tried; each try already waits for the connection's `busy_timeout`.
const SQLITE_TRIES: u32 = 20;

struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_users::Migration),
            Box::new(m0002_sessions::Migration),
            Box::new(m0003_forms::Migration),
            Box::new(m0004_locations::Migration),
            Box::new(m0005_activity::Migration),
            Box::new(m0006_search::Migration),
            Box::new(m0007_access::Migration),
            Box::new(m0008_outbox::Migration),
            Box::new(m0009_instances::Migration),
            Box::new(m0010_composed::Migration),
            Box::new(m0011_client_ids::Migration),
            Box::new(m0012_exchanges::Migration),
            Box::new(m0013_client_id_indexes::Migration),
            Box::new(m0014_cache_ids::Migration),
            Box::new(m0015_idempotency::Migration),
            Box::new(m0016_events::Migration),
            Box::new(m0017_webhooks::Migration),
            Box::new(m0018_idempotency_accounts::Migration),
        ]
    }
}

/// Our own steps, then those that only the database knows. SeaORM's list refuses the latter; but during a rolling
/// update an old program must be able to start on the new schema.
async fn steps(db: &impl ConnectionTrait) -> Result<Vec<Step>, DbErr> {
    let mut applied = applied(db).await?;
    let mut steps: Vec<Step> = Migrator::migrations()
        .iter()
        .map(|step| Step { name: step.name().to_owned(), applied: applied.contains(step.name()) })
        .collect();
    for step in &steps {
        applied.remove(&step.name);
    }
    let mut newer: Vec<Step> = applied.into_iter().map(|name| Step { name, applied: true }).collect();
    newer.sort_by(|a, b| a.name.cmp(&b.name));
    steps.append(&mut newer);
    Ok(steps)
}

async fn applied(db: &impl ConnectionTrait) -> Result<HashSet<String>, DbErr> {
    let backend = db.get_database_backend();
    let known = match backend {
        DbBackend::Postgres => "select to_regclass('seaql_migrations') is not null",
        _ => "select exists (select 1 from sqlite_master where name = 'seaql_migrations')",
    };
    let known = db.query_one_raw(Statement::from_string(backend, known)).await?;
    if !known.map(|row| row.try_get_by_index(0)).transpose()?.unwrap_or(false) {
        return Ok(HashSet::new());
    }
    let rows =
        db.query_all_raw(Statement::from_string(backend, "select version from seaql_migrations")).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// What changes the schema, in one transaction.
#[derive(Clone, Copy)]
enum Work {
    /// The next step that is missing, on SQLite all of them.
    Up,
    /// Takes back as many.
    Down(u32),
    /// The next thing to do for the months of a table.
    Months(partitions::Part),
}

/// What a transaction has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// Nothing was left to be done.
    Nothing,
    /// This many steps or partitions.
    Changed(u32),
    /// Rows have to be copied before partitions can be made of them, from this page of the default partition on.
    Copying(u32),
    /// All rows are copied.
    Copied,
}

/// Whether to wait until nobody else changes the schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Wait,
    /// Nothing is done where somebody does.
    Try,
}

impl Work {
    async fn run(self, locked: &DatabaseTransaction) -> Result<Done, DbErr> {
        match self {
            Self::Up => {
                let missing = steps(locked).await?.iter().filter(|step| !step.applied).count() as u32;
                if missing == 0 {
                    return Ok(Done::Nothing);
                }
                let at_once = if locked.get_database_backend() == DbBackend::Postgres { 1 } else { missing };
                Migrator::up(locked, Some(at_once)).await?;
                Ok(Done::Changed(at_once))
            }
            Self::Down(count) => Migrator::down(locked, Some(count)).await.map(|()| Done::Changed(count)),
            Self::Months(part) => part.run(locked).await,
        }
    }
}

/// Does it while nobody else changes the schema, wholly or not at all. Where others hold a table for too
/// long, lets go of everything, so that those who wait behind get their turn, and begins again. `None` where
/// it was not this one's turn.
async fn locked(db: &DatabaseConnection, work: Work, turn: Turn) -> Result<Option<Done>, DbErr> {
    let (mut tries, mut wait) = (1, LOCK_WAIT.0);
    loop {
        let Some(locked) = begin_locked(db, turn, wait).await? else { return Ok(None) };
        match work.run(&locked).await {
            Ok(done) => return locked.commit().await.map(|()| Some(done)),
            Err(error) if tries < LOCK_TRIES && has_waited_too_long(&error) => {
                locked.rollback().await?;
                tracing::info!(tries, "a table that a migration changes is in use; it is tried again");
                (tries, wait) = (tries + 1, (wait * 2).min(LOCK_WAIT.1));
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(error) => {
                locked.rollback().await.ok();
                return Err(error);
            }
        }
    }
}

/// PostgreSQL's `lock_not_available` and `deadlock_detected`.
fn has_waited_too_long(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return false;
    };
    let Some(code) = error.as_database_error().and_then(sqlx::error::DatabaseError::code) else {
        return false;
    };
    code == "55P03" || code == "40P01"
}

/// A transaction that no second one of this kind can run beside, whose statements wait so long for a table.
/// The lock goes with the transaction, so it works behind a connection pooler and cannot be left behind by a
/// process that dies.
async fn begin_locked(
    db: &DatabaseConnection,
    turn: Turn,
    wait: Duration,
) -> Result<Option<DatabaseTransaction>, DbErr> {
    if db.get_database_backend() == DbBackend::Postgres {
        let locked = db.begin().await?;
        // The server's own limits are meant for requests, not for waiting here or building an index.
        locked.execute_unprepared("set local statement_timeout = 0; set local lock_timeout = 0").await?;
        if turn == Turn::Try {
            let asking = format!("select pg_try_advisory_xact_lock({LOCK})");
            let row = locked.query_one_raw(Statement::from_string(DbBackend::Postgres, asking)).await?;
            if !row.map(|row| row.try_get_by_index(0)).transpose()?.unwrap_or(false) {
                return locked.rollback().await.map(|()| None);
            }
        } else {
            locked.execute_unprepared(&format!("select pg_advisory_xact_lock({LOCK})")).await?;
        }
        // Opening any table, PostgreSQL takes note of what was changed before this one's turn; names of
        // tables alone would be looked up in what it knew when the transaction began.
        locked.execute_unprepared("select from pg_class limit 0").await?;
        locked.execute_unprepared(&format!("set local lock_timeout = {}", wait.as_millis())).await?;
        return Ok(Some(locked));
    }
    let immediate = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let mut tries = 1;
    loop {
        match db.begin_with_options(immediate).await {
            Err(error) if tries < SQLITE_TRIES && error.to_string().contains("locked") => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => return answer.map(Some),
        }
    }
}
