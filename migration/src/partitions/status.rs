//! How well the months are prepared, for operators. Only reads.

use chrono::{DateTime, Utc};
use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend, Statement},
};

use super::{ACTIVITY, LOCATIONS, Partitioned, later, month_of};

/// Rows of a default partition that are counted; further ones are not.
const MOST_COUNTED: u32 = 1_000_000;
/// Months after this one that are looked for at most.
const FARTHEST: i32 = 120;

/// The partitions of a table that is kept by month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The table.
    pub table: &'static str,
    /// Months in a row after this one that have a partition; -1 where this month has none.
    pub months_ahead: i32,
    /// Rows that lie in no month's partition; a million where there are more.
    pub default_rows: u64,
}

/// How the tables stand at this moment; none on SQLite, which has no partitions.
///
/// # Errors
/// The database's.
pub async fn partition_status(
    db: &impl ConnectionTrait,
    now: DateTime<Utc>,
) -> Result<Vec<PartitionStatus>, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for partitioned in [LOCATIONS, ACTIVITY] {
        let present = partitioned.partitions(db).await?;
        let (mut month, mut months_ahead) = (month_of(now)?, -1);
        while months_ahead < FARTHEST && present.contains(&partitioned.partition(month)) {
            (month, months_ahead) = (later(month, 1)?, months_ahead + 1);
        }
        let default_rows = default_rows(db, partitioned).await?;
        all.push(PartitionStatus { table: partitioned.table, months_ahead, default_rows });
    }
    Ok(all)
}

async fn default_rows(
    db: &impl ConnectionTrait,
    Partitioned { table, .. }: Partitioned,
) -> Result<u64, DbErr> {
    let sql = format!("select count(*) from (select from {table}_default limit {MOST_COUNTED}) counted");
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    let count: i64 = row.map(|row| row.try_get_by_index(0)).transpose()?.unwrap_or_default();
    Ok(count.unsigned_abs())
}
