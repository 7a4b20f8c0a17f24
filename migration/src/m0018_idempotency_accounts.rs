//! Whose a request with an idempotency key is: its id is a hash, so the requests of an account could not be found when
//! its data is to be told or erased. Rows from before have no account, and go with their age. Only adds, so that the
//! program before this one runs on it.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "alter table idempotency_keys add column user_id uuid").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "alter table idempotency_keys drop column user_id").await
    }
}
