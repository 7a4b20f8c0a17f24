//! What a write has changed for the caches of all nodes, from its commit until they were told. Only adds, so that the
//! program before this one runs on it.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

// Rows live for a fraction of a second: no index but the key, and no column that nobody reads.
const TABLE: &str = r#"
create table cache_outbox (
    id uuid not null primary key,
    slots text collate "C" not null
);
"#;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, TABLE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "drop table cache_outbox").await
    }
}
