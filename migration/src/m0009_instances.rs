//! Which servers serve this database: each has a row that it renews while it lives. Only adds, so that the
//! program before this one runs on it.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

// A handful of rows: no index but the key.
const TABLE: &str = r"
create table instances (
    id uuid not null primary key,
    shares_cache boolean not null,
    seen_at timestamptz not null
);
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, TABLE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "drop table instances").await
    }
}
