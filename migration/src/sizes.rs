//! How large the tables are, for operators. Only reads, and no row.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend, Statement},
};

/// A table with all its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// The table.
    pub table: String,
    /// Bytes of its rows on the disk, those of long values included.
    pub table_bytes: i64,
    /// Bytes of its indexes.
    pub index_bytes: i64,
}

/// Each table of ours: those that the steps make, by their names and not by what else is in the schema.
const TABLES: &str = "(
    'users', 'user_sessions', 'user_activity_logs', 'user_locations', 'user_last_locations',
    'forms', 'form_versions', 'form_submissions',
    'signing_keys', 'revocations', 'cache_outbox', 'instances', 'idempotency_keys', 'events',
    'event_consumers', 'webhooks', 'webhook_forms', 'webhook_lanes', 'webhook_deliveries')";

/// The sizes of all tables; none on SQLite, where one file has everything.
///
/// # Errors
/// The database's.
pub async fn table_sizes(db: &impl ConnectionTrait) -> Result<Vec<TableSize>, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(Vec::new());
    }
    let sql = format!(
        "select c.relname::text, coalesce(sum(pg_table_size(p.relid)), 0)::bigint, \
         coalesce(sum(pg_indexes_size(p.relid)), 0)::bigint \
         from pg_class c cross join lateral pg_partition_tree(c.oid) p \
         where c.relname in {TABLES} and c.relkind in ('r', 'p') and pg_table_is_visible(c.oid) \
         group by c.relname order by c.relname"
    );
    let rows = db.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    let read = |row: &sea_orm_migration::sea_orm::QueryResult| {
        let (table, table_bytes, index_bytes) =
            (row.try_get_by_index(0)?, row.try_get_by_index(1)?, row.try_get_by_index(2)?);
        Ok(TableSize { table, table_bytes, index_bytes })
    };
    rows.iter().map(read).collect()
}
