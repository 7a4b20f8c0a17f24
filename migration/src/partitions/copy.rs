//! Months of which many rows lie in the default partition already. Moving those at once would hold the table
//! for as long as that takes, and moving them by and by would hide what is on its way. So the months are made
//! beside the table, together with a new default partition: a trigger repeats there what is written to the
//! default partition from then on, what was there before is copied a few pages at a time, and when both have
//! the same rows they change places in one transaction that touches no row. Readers see each row once at any
//! time.
//!
//! All of it can be repeated: a process that ends in the middle leaves copies behind that the next one
//! completes, and two at once copy the same. Not here: which months are made, and those with few rows.

use chrono::NaiveDate;
use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement},
};

use super::{Partitioned, bounds};
use crate::Done;

/// Pages of the default partition that are copied in one transaction: some thousand rows.
const PAGES: u32 = 64;

/// Is there a copy of this table that has not become its partitions yet?
pub(super) async fn has_begun(
    locked: &DatabaseTransaction,
    Partitioned { table, .. }: Partitioned,
) -> Result<bool, DbErr> {
    let sql = format!("select to_regclass('{table}_next') is not null");
    let row = locked.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?.unwrap_or(false))
}

/// Makes these months beside the table. Writers of the default partition wait for the moment that this takes,
/// so that what is written before it can be seen by those who copy.
pub(super) async fn begin(
    locked: &DatabaseTransaction,
    partitioned: Partitioned,
    months: &[NaiveDate],
) -> Result<(), DbErr> {
    let Partitioned { table, column } = partitioned;
    let mut sql = vec![format!(
        "create table {table}_next (like {table} including defaults including constraints including indexes)
             partition by range (\"{column}\");
         create table {table}_next_default partition of {table}_next default;"
    )];
    for month in months {
        let ((from, to), name) = (bounds(*month)?, partitioned.partition(*month));
        // The condition says what the partition's bounds say: with it, attaching reads no row.
        sql.push(format!(
            "create table {name} partition of {table}_next for values from ('{from}') to ('{to}');
             alter table {name} add constraint {name}_bounds
                 check (\"{column}\" >= '{from}' and \"{column}\" < '{to}');"
        ));
    }
    sql.push(format!(
        "create function {table}_copy() returns trigger language plpgsql as $$ begin
             insert into {table}_next values (new.*) on conflict do nothing;
             return null;
         end $$;
         create trigger copy after insert on {table}_default for each row execute function {table}_copy();"
    ));
    locked.execute_unprepared(&sql.concat()).await?;
    tracing::info!(table, months = months.len(), "rows are copied out of the default partition");
    Ok(())
}

/// Copies the rows of some pages.
pub(super) async fn some(
    locked: &DatabaseTransaction,
    partitioned: Partitioned,
    page: u32,
) -> Result<Done, DbErr> {
    // Another process was faster.
    if !has_begun(locked, partitioned).await? {
        return Ok(Done::Changed(0));
    }
    let (table, end) = (partitioned.table, page.saturating_add(PAGES));
    let size = format!(
        "select pg_relation_size('{table}_default') > {page}::bigint * current_setting('block_size')::bigint"
    );
    let row = locked.query_one_raw(Statement::from_string(DbBackend::Postgres, size)).await?;
    if !row.map(|row| row.try_get_by_index(0)).transpose()?.unwrap_or(false) {
        return Ok(Done::Copied);
    }
    let copy = format!(
        "insert into {table}_next select * from {table}_default \
         where ctid >= '({page},0)'::tid and ctid < '({end},0)'::tid on conflict do nothing"
    );
    locked.execute_unprepared(&copy).await?;
    Ok(Done::Copying(end))
}

/// Puts the copies in the place of the default partition; answers how many months there are more.
pub(super) async fn swap(locked: &DatabaseTransaction, partitioned: Partitioned) -> Result<Done, DbErr> {
    if !has_begun(locked, partitioned).await? {
        return Ok(Done::Changed(0));
    }
    let Partitioned { table, .. } = partitioned;
    let sql = format!(
        "select c.relname::text, pg_get_expr(c.relpartbound, c.oid)
         from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = '{table}_next'::regclass and c.relname <> '{table}_next_default'"
    );
    let rows = locked.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    let mut sql = vec![format!(
        "lock table only {table} in access exclusive mode;
         drop trigger copy on {table}_default;
         drop function {table}_copy();
         alter table {table} detach partition {table}_default;
         drop table {table}_default;"
    )];
    for row in &rows {
        let (name, bounds): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        sql.push(format!(
            "alter table {table}_next detach partition {name};
             alter table {table} attach partition {name} {bounds};
             alter table {name} drop constraint {name}_bounds;"
        ));
    }
    sql.push(format!(
        "alter table {table}_next detach partition {table}_next_default;
         drop table {table}_next;
         alter table {table}_next_default rename to {table}_default;
         alter table {table} attach partition {table}_default default;"
    ));
    locked.execute_unprepared(&sql.concat()).await?;
    tracing::info!(table, months = rows.len(), "months were made out of the default partition");
    Ok(Done::Changed(rows.len() as u32))
}
