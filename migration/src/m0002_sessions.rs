//! Sign-ins. A session that has ended stays, with the reason, until someone asks for its removal: nothing in this
//! schema is deleted by cascade, because rows that vanish unasked stay in caches.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &str = r"
create table user_sessions (
    id uuid not null primary key,
    user_id uuid not null references users (id),
    is_active boolean not null,
    name text,
    ip_address text,
    user_agent text,
    created_at timestamptz not null,
    last_activity timestamptz not null,
    expires_at timestamptz not null,
    revoked_at timestamptz,
    end_reason text check (end_reason in
        ('SIGNED_OUT', 'REVOKED_BY_USER', 'REVOKED_BY_ADMIN', 'EXPIRED', 'CREDENTIALS_CHANGED',
        'TOKEN_REUSE'))
);
create index user_sessions_active on user_sessions (user_id, is_active, expires_at) where is_active;
create index user_sessions_of_user on user_sessions (user_id, created_at desc, id desc);
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, TABLES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "drop table user_sessions").await
    }
}
