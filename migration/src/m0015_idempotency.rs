//! Requests that carry an idempotency key: what each has stored and was answered, so that the same again does
//! nothing twice. Only adds, so that the program before this one runs on it.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

// Rows are found by their id, and removed by their age.
const TABLE: &str = r#"
create table idempotency_keys (
    id uuid not null primary key,
    fingerprint text collate "C" not null,
    claim uuid not null,
    claimed_until timestamptz not null,
    stored text collate "C" not null,
    answer text collate "C",
    codes text collate "C",
    cache_token text collate "C",
    created_at timestamptz not null
);
create index idempotency_keys_created on idempotency_keys (created_at);
"#;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, TABLE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "drop table idempotency_keys").await
    }
}
