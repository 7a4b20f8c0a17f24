//! Accounts. `email` and `search_name` are lower-cased by the application, because the two databases disagree
//! about lower case outside ASCII.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &str = r#"
create table users (
    id uuid not null primary key,
    email text collate "C" not null check (email = lower(email)),
    display_name text collate "C" not null,
    search_name text collate "C" not null,
    role text collate "C" not null check (role in ('ADMIN', 'MANAGER', 'EDITOR', 'COLLECTOR', 'VIEWER')),
    is_active boolean not null,
    password_hash text,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    last_login timestamptz
);
create unique index users_email on users (email);
create index users_email_active on users (email, is_active) where is_active;
create index users_email_id on users (email, id);
create index users_display_name on users (display_name, id);
create index users_created on users (created_at desc, id desc);
"#;

// Accounts that never signed in count as the oldest. A query has to repeat the expression letter by letter, and
// the epoch must be a literal in it: a bound value does not match the index.
const LAST_LOGIN: &str = "create index users_last_login on users \
     (coalesce(last_login, '1970-01-01 00:00:00+00'::timestamptz) desc, id desc)";

// The text that SQLx writes for this time, so that it compares with stored ones.
const LAST_LOGIN_SQLITE: &str = "create index users_last_login on users \
     (coalesce(last_login, '1970-01-01T00:00:00+00:00') desc, id desc)";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, TABLES).await?;
        ddl::run_either(manager, LAST_LOGIN, LAST_LOGIN_SQLITE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "drop table users").await
    }
}
