//! The log of events: what each transaction has changed, in an order that readers can follow without gaps.
//! Only adds, so that the program before this one runs on it.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

// The key is the order. On PostgreSQL a reader goes up to the oldest transaction that is still running,
// behind which nothing can appear any more; SQLite has one writer, whose numbers are in order. The first row
// is the position of a log in which nothing has happened yet.
const POSTGRES: &str = r#"
create table events (
    transaction_id bigint not null,
    number bigint generated always as identity,
    changes text collate "C" not null,
    created_at timestamptz not null,
    primary key (transaction_id, number)
);
insert into events (transaction_id, changes, created_at)
values (pg_current_xact_id()::text::bigint, '[]', '2000-01-01 00:00:00+00');
"#;

const SQLITE: &str = "
create table events (
    transaction_id bigint not null,
    number bigint not null,
    changes text not null,
    created_at timestamptz not null,
    primary key (transaction_id, number)
);
insert into events (transaction_id, number, changes, created_at)
values (0, 0, '[]', '2000-01-01T00:00:00.000000+00:00');
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run_either(manager, POSTGRES, SQLITE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "drop table events").await
    }
}
