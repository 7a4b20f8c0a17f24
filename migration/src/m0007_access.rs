//! Signing in: what a session's refresh tokens are made from, the epoch of an account's rights, the keys of access
//! tokens, and the list of what was revoked. Only adds, so that the program before this one runs on it.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

// `seq` comes from a row of its own that stays locked until the commit, so its order is the order of the commits: who
// has read up to a number has missed nothing before it. A sequence would promise no such thing.
const TABLES: &str = r#"
alter table users add column epoch bigint not null default 0;
alter table user_sessions add column refresh_salt text collate "C";
alter table user_sessions add column refresh_counter bigint;
alter table user_sessions add column refreshed_at timestamptz;
alter table user_sessions add column ends_at timestamptz;
create table signing_keys (
    kid text collate "C" not null primary key,
    public_key text collate "C" not null,
    sealed_key text collate "C" not null,
    created_at timestamptz not null,
    signs_from timestamptz not null,
    revoked_at timestamptz
);
create table revocations (
    seq bigint not null primary key,
    session_id uuid,
    user_id uuid,
    epoch bigint,
    created_at timestamptz not null,
    expires_at timestamptz not null
);
create table revocation_counter (
    seq bigint not null
);
insert into revocation_counter (seq) values (0);
"#;

const BACK: &str = r"
drop table revocation_counter;
drop table revocations;
drop table signing_keys;
alter table user_sessions drop column ends_at;
alter table user_sessions drop column refreshed_at;
alter table user_sessions drop column refresh_counter;
alter table user_sessions drop column refresh_salt;
alter table users drop column epoch;
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, TABLES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, BACK).await
    }
}
