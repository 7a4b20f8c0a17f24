//! When the last refresh tokens of a session were exchanged: each gets the newest one for ten seconds after its own
//! exchange, also if its successor was exchanged meanwhile. Only adds.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, r#"alter table user_sessions add column exchanges text collate "C""#).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "alter table user_sessions drop column exchanges").await
    }
}
