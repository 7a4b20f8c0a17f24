//! The months of the two tables that grow for ever. Each has a default partition, so no row is ever refused;
//! rows that came before their month was made move into it when it is (`partitions::copy` where there are
//! many). SQLite has no partitions: there, all of this does nothing.
//!
//! Each partition is made in a transaction of its own, which holds the default partition as briefly as it
//! can: whoever reads without a bound on time waits for it.

mod copy;
mod status;

use std::collections::HashSet;

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, Statement},
};

use crate::{Done, Turn, Work, ddl, locked};

pub use status::{PartitionStatus, partition_status};

/// Rows of a month that are moved out of the default partition at once, while readers wait; more are copied beforehand.
const MOVED_AT_ONCE: u32 = 1_000;

/// A table kept by month, and the column that says which.
#[derive(Clone, Copy)]
pub(crate) struct Partitioned {
    table: &'static str,
    column: &'static str,
}

pub(crate) const LOCATIONS: Partitioned = Partitioned { table: "user_locations", column: "timestamp" };
pub(crate) const ACTIVITY: Partitioned = Partitioned { table: "user_activity_logs", column: "created_at" };

/// Makes the partitions of this month (by the database's clock) and of the `months_ahead` after it; answers how
/// many were missing.
///
/// # Errors
/// The database's; also where others do not let go of a table for minutes. What was made before stays.
pub async fn ensure_partitions(db: &DatabaseConnection, months_ahead: u32) -> Result<u32, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(0);
    }
    let now = Statement::from_string(DbBackend::Postgres, "select now()");
    let now = db.query_one_raw(now).await?.ok_or_else(|| DbErr::RecordNotFound("now()".to_owned()))?;
    let months = Span::ahead(now.try_get_by_index(0)?, months_ahead)?;
    Ok(months.ensure(db, Turn::Wait).await?.unwrap_or_default())
}

/// `ensure_partitions` by the clock of who calls; `None` where another process changes the schema now. For
/// servers, once a day and each time a month begins.
///
/// # Errors
/// The database's; also where others do not let go of a table for minutes. What was made before stays.
pub async fn try_ensure_partitions(
    db: &DatabaseConnection,
    now: DateTime<Utc>,
    months_ahead: u32,
) -> Result<Option<u32>, DbErr> {
    Span::ahead(now, months_ahead)?.ensure(db, Turn::Try).await
}

/// Makes the partitions of every month from `from`'s to `to`'s; answers how many were missing.
///
/// # Errors
/// As `ensure_partitions`.
pub async fn ensure_partitions_between(
    db: &DatabaseConnection,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<u32, DbErr> {
    let months = Span { first: month_of(from)?, last: month_of(to)? };
    Ok(months.ensure(db, Turn::Wait).await?.unwrap_or_default())
}

/// Creates a partitioned table with its default partition; on SQLite the table alone.
pub(crate) async fn create_parent(
    manager: &SchemaManager<'_>,
    Partitioned { table, column }: &Partitioned,
    create_table: &str,
) -> Result<(), DbErr> {
    let postgres = format!(
        "{create_table} partition by range (\"{column}\"); \
         create table {table}_default partition of {table} default"
    );
    ddl::run_either(manager, &postgres, create_table).await
}

/// Months in a row, both included; a month is its first day.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    first: NaiveDate,
    last: NaiveDate,
}

impl Span {
    /// The month of a moment, and as many after it.
    fn ahead(now: DateTime<Utc>, months: u32) -> Result<Self, DbErr> {
        let first = month_of(now)?;
        Ok(Self { first, last: later(first, months)? })
    }

    /// Makes the partitions of these months; how many were missing.
    async fn ensure(self, db: &DatabaseConnection, turn: Turn) -> Result<Option<u32>, DbErr> {
        if db.get_database_backend() != DbBackend::Postgres {
            return Ok(Some(0));
        }
        let mut made = 0;
        for table in [LOCATIONS, ACTIVITY] {
            let mut what = What::Next;
            loop {
                let part = Part { table, months: self, what };
                let Some(done) = locked(db, Work::Months(part), turn).await? else { return Ok(None) };
                what = match done {
                    Done::Nothing => break,
                    Done::Changed(count) => {
                        made += count;
                        What::Next
                    }
                    Done::Copying(page) => What::Copy { page },
                    Done::Copied => What::Swap,
                };
            }
        }
        Ok(Some(made))
    }
}

/// One transaction's share of making months.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    table: Partitioned,
    months: Span,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// The next month that is missing, if it has few rows; otherwise copying begins.
    Next,
    /// Rows from this page of the default partition on.
    Copy { page: u32 },
    /// The copies become the partitions.
    Swap,
}

impl Part {
    pub(crate) async fn run(self, locked: &DatabaseTransaction) -> Result<Done, DbErr> {
        let Self { table, months, what } = self;
        match what {
            What::Next => next(locked, table, months).await,
            What::Copy { page } => copy::some(locked, table, page).await,
            What::Swap => copy::swap(locked, table).await,
        }
    }
}

async fn next(locked: &DatabaseTransaction, table: Partitioned, months: Span) -> Result<Done, DbErr> {
    if copy::has_begun(locked, table).await? {
        return Ok(Done::Copying(0));
    }
    let missing = missing(locked, table, months).await?;
    let Some(month) = missing.first().copied() else { return Ok(Done::Nothing) };
    for month in &missing {
        if early_rows(locked, table, *month).await? > i64::from(MOVED_AT_ONCE) {
            copy::begin(locked, table, &missing).await?;
            return Ok(Done::Copying(0));
        }
    }
    make(locked, table, month).await?;
    Ok(Done::Changed(1))
}

/// The months that have no partition.
async fn missing(
    locked: &DatabaseTransaction,
    table: Partitioned,
    months: Span,
) -> Result<Vec<NaiveDate>, DbErr> {
    let present = table.partitions(locked).await?;
    let (mut missing, mut month) = (Vec::new(), months.first);
    while month <= months.last {
        if !present.contains(&table.partition(month)) {
            missing.push(month);
        }
        month = later(month, 1)?;
    }
    Ok(missing)
}

/// How many rows of a month came before it; of many, not all are counted.
async fn early_rows(
    locked: &DatabaseTransaction,
    Partitioned { table, column }: Partitioned,
    month: NaiveDate,
) -> Result<i64, DbErr> {
    let (from, to) = bounds(month)?;
    let most = MOVED_AT_ONCE + 1;
    let sql = format!(
        "select count(*) from (select from {table}_default \
         where \"{column}\" >= '{from}' and \"{column}\" < '{to}' limit {most}) early"
    );
    let row = locked.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?.unwrap_or_default())
}

/// Attaching takes a weaker lock on the parent than creating in place, so readers of other months go on.
/// Writers stand still for that moment: one that was on its way into the default partition would find a month
/// there that it may not have any more, and fail. Behind somebody who does not let go of the table they wait
/// a tenth of a second at a time.
async fn make(locked: &DatabaseTransaction, partitioned: Partitioned, month: NaiveDate) -> Result<(), DbErr> {
    let ((from, to), name) = (bounds(month)?, partitioned.partition(month));
    let Partitioned { table, column } = partitioned;
    let sql = format!(
        "create table {name} (like {table} including defaults including constraints including indexes);
         set local lock_timeout = '100ms';
         lock table only {table} in share row exclusive mode;
         lock table {table}_default in access exclusive mode;
         with early as (
             delete from {table}_default where \"{column}\" >= '{from}' and \"{column}\" < '{to}' returning *
         ) insert into {name} select * from early;
         alter table {table} attach partition {name} for values from ('{from}') to ('{to}')"
    );
    locked.execute_unprepared(&sql).await.map(drop)
}

impl Partitioned {
    /// The name of a month's partition.
    fn partition(&self, month: NaiveDate) -> String {
        format!("{}_{}", self.table, month.format("%Y_%m"))
    }

    /// The names of all its partitions.
    async fn partitions(&self, db: &impl ConnectionTrait) -> Result<HashSet<String>, DbErr> {
        let sql = format!(
            "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
             where i.inhparent = '{}'::regclass",
            self.table
        );
        let rows = db.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
        rows.iter().map(|row| row.try_get_by_index(0)).collect()
    }
}

/// When a month begins and when it is over.
fn bounds(month: NaiveDate) -> Result<(String, String), DbErr> {
    Ok((format!("{month} 00:00:00+00"), format!("{} 00:00:00+00", later(month, 1)?)))
}

fn month_of(time: DateTime<Utc>) -> Result<NaiveDate, DbErr> {
    time.date_naive().with_day(1).ok_or_else(out_of_range)
}

fn later(month: NaiveDate, months: u32) -> Result<NaiveDate, DbErr> {
    month.checked_add_months(Months::new(months)).ok_or_else(out_of_range)
}

fn out_of_range() -> DbErr {
    DbErr::Custom("the time is too far away for a partition".to_owned())
}
