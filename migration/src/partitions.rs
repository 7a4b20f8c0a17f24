//! The months of the two tables that grow for ever. Each has a default partition, so no row is ever refused; rows
//! that came before their month was made move into it when it is. SQLite has no partitions: there, all of this
//! does nothing.

use std::collections::HashSet;

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, Statement},
};

use crate::{Work, ddl, locked};

/// A table kept by month, and the column that says which.
pub(crate) struct Partitioned {
    table: &'static str,
    column: &'static str,
}

pub(crate) const LOCATIONS: Partitioned = Partitioned { table: "user_locations", column: "timestamp" };
pub(crate) const ACTIVITY: Partitioned = Partitioned { table: "user_activity_logs", column: "created_at" };

/// Makes the partitions of this month (by the database's clock) and of the `months_ahead` after it; answers how
/// many were missing. Call it at the start and then once a day.
pub async fn ensure_partitions(db: &DatabaseConnection, months_ahead: u32) -> Result<u32, DbErr> {
    locked(db, Work::Months(months_ahead)).await
}

/// Makes the partitions of every month from `from`'s to `to`'s; answers how many were missing.
pub async fn ensure_partitions_between(
    db: &DatabaseConnection,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<u32, DbErr> {
    locked(db, Work::Between(month_of(from)?, month_of(to)?)).await
}

/// `ensure_partitions` for who holds the lock.
pub(crate) async fn ahead(locked: &DatabaseTransaction, months: u32) -> Result<u32, DbErr> {
    if locked.get_database_backend() != DbBackend::Postgres {
        return Ok(0);
    }
    let now = Statement::from_string(DbBackend::Postgres, "select now()");
    let now = locked.query_one_raw(now).await?.ok_or_else(|| DbErr::RecordNotFound("now()".to_owned()))?;
    let first = month_of(now.try_get_by_index(0)?)?;
    between(locked, first, later(first, months)?).await
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

/// `ensure_partitions_between` for who holds the lock.
pub(crate) async fn between(
    locked: &DatabaseTransaction,
    first: NaiveDate,
    last: NaiveDate,
) -> Result<u32, DbErr> {
    if locked.get_database_backend() != DbBackend::Postgres {
        return Ok(0);
    }
    let mut made = 0;
    for partitioned in [LOCATIONS, ACTIVITY] {
        let present = names(locked, &partitioned).await?;
        let mut month = first;
        while month <= last {
            let name = format!("{}_{}", partitioned.table, month.format("%Y_%m"));
            if !present.contains(&name) {
                make(locked, &partitioned, &name, month).await?;
                made += 1;
            }
            month = later(month, 1)?;
        }
    }
    Ok(made)
}

/// Attaching takes a weaker lock on the parent than creating in place, so readers and writers of other months go
/// on. Only the default partition stands still, while rows of the new month leave it.
async fn make(
    locked: &DatabaseTransaction,
    Partitioned { table, column }: &Partitioned,
    name: &str,
    month: NaiveDate,
) -> Result<(), DbErr> {
    let (from, to) = (format!("{month} 00:00:00+00"), format!("{} 00:00:00+00", later(month, 1)?));
    let sql = format!(
        "create table {name} (like {table} including defaults including constraints);
         lock table {table}_default in access exclusive mode;
         with early as (
             delete from {table}_default where \"{column}\" >= '{from}' and \"{column}\" < '{to}' returning *
         ) insert into {name} select * from early;
         alter table {table} attach partition {name} for values from ('{from}') to ('{to}')"
    );
    locked.execute_unprepared(&sql).await.map(drop)
}

async fn names(
    locked: &DatabaseTransaction,
    Partitioned { table, .. }: &Partitioned,
) -> Result<HashSet<String>, DbErr> {
    let sql = format!(
        "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent = '{table}'::regclass"
    );
    let rows = locked.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
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
