//! Search inside names and titles: trigram indexes where PostgreSQL has `pg_trgm`. Without it, and on SQLite, the
//! same queries give the same answers by reading every row.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend, TransactionTrait},
};

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const INDEXES: &str = "create index users_search_name on users using gin (search_name gin_trgm_ops); \
     create index forms_search_title on forms using gin (search_title gin_trgm_ops)";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        if let Err(error) = create_extension(manager).await {
            tracing::warn!(
                %error,
                mend = format!("create extension pg_trgm; {INDEXES}"),
                "searching names and titles stays slow: this role may not create the extension pg_trgm",
            );
            return Ok(());
        }
        ddl::run(manager, INDEXES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // The extension stays: it may be another's.
        ddl::run(manager, "drop index if exists users_search_name; drop index if exists forms_search_title")
            .await
    }
}

/// In a savepoint of its own, because a refusal would spoil the transaction around it.
async fn create_extension(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let attempt = manager.get_connection().begin().await?;
    match attempt.execute_unprepared("create extension if not exists pg_trgm").await {
        Ok(_) => attempt.commit().await,
        Err(error) => {
            attempt.rollback().await?;
            Err(error)
        }
    }
}
