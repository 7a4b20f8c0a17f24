//! Positions by month, and the newest of each account. On PostgreSQL a month is a partition (`partitions`), so old
//! ones go away at once and recent ones stay small; SQLite has one plain table.

use sea_orm_migration::prelude::*;

use crate::{ddl, partitions};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const HISTORY: &str = r#"
create table user_locations (
    id uuid not null,
    user_id uuid not null,
    session_id uuid,
    "timestamp" timestamptz not null,
    received_at timestamptz not null,
    latitude double precision not null,
    longitude double precision not null,
    accuracy double precision,
    altitude double precision,
    speed double precision,
    heading double precision,
    primary key (id, "timestamp")
)"#;

const INDEXES: &str = r#"
create index user_locations_of_user on user_locations (user_id, "timestamp" desc, id desc);
create index user_locations_of_session on user_locations (session_id, "timestamp" desc, id desc);

create table user_last_locations (
    user_id uuid not null primary key,
    id uuid not null,
    session_id uuid,
    "timestamp" timestamptz not null,
    received_at timestamptz not null,
    latitude double precision not null,
    longitude double precision not null,
    accuracy double precision,
    altitude double precision,
    speed double precision,
    heading double precision
);
create index user_last_locations_newest on user_last_locations ("timestamp" desc, id desc);
"#;

const AREA: &str =
    "create index user_last_locations_area on user_last_locations using gist (point(longitude, latitude))";
const AREA_SQLITE: &str =
    "create index user_last_locations_area on user_last_locations (latitude, longitude)";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        partitions::create_parent(manager, &partitions::LOCATIONS, HISTORY).await?;
        ddl::run(manager, INDEXES).await?;
        ddl::run_either(manager, AREA, AREA_SQLITE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "drop table user_last_locations; drop table user_locations").await
    }
}
