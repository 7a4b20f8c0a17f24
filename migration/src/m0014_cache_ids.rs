//! Which cache each server uses: servers of one database that use different ones do not hear of each other's
//! writes. Only adds, so that the program before this one runs on it.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "alter table instances add column cache_id uuid").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "alter table instances drop column cache_id").await
    }
}
