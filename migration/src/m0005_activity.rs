//! The activity log, by month like positions. It outlives what it speaks of, so it has no foreign keys.

use sea_orm_migration::prelude::*;

use crate::{ddl, partitions};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLE: &str = r#"
create table user_activity_logs (
    id uuid not null,
    user_id uuid,
    action_type text collate "C" not null,
    subject_id uuid,
    subject_type text,
    metadata jsonb not null,
    created_at timestamptz not null,
    primary key (id, created_at)
)"#;

const INDEXES: &str = "
create index user_activity_logs_created on user_activity_logs (created_at desc, id desc);
create index user_activity_logs_of_user on user_activity_logs (user_id, created_at desc, id desc);
create index user_activity_logs_of_action
    on user_activity_logs (user_id, action_type, created_at desc, id desc);
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        partitions::create_parent(manager, &partitions::ACTIVITY, TABLE).await?;
        ddl::run(manager, INDEXES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "drop table user_activity_logs").await
    }
}
