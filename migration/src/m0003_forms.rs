//! Forms, their published versions, and what was filled in. Answers outlive accounts, sessions and positions, so
//! those columns are no foreign keys.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &str = r#"
create table forms (
    id uuid not null primary key,
    owner_id uuid not null references users (id),
    title text collate "C" not null,
    search_title text collate "C" not null,
    description text,
    status text collate "C" not null check (status in ('DRAFT', 'OPEN', 'CLOSED', 'ARCHIVED')),
    version integer not null,
    draft jsonb,
    draft_revision integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    published_at timestamptz
);
create index forms_of_owner on forms (owner_id, created_at desc, id desc);
create index forms_created on forms (created_at desc, id desc);
create index forms_updated on forms (updated_at desc, id desc);
create index forms_title on forms (title, id);
create index forms_status on forms (status, created_at desc, id desc);

create table form_versions (
    id uuid not null primary key,
    form_id uuid not null references forms (id),
    number integer not null,
    definition jsonb not null,
    json_schema jsonb not null,
    hash text not null,
    published_at timestamptz not null,
    published_by uuid
);
create unique index form_versions_of_form on form_versions (form_id, number desc);

create table form_submissions (
    id uuid not null primary key,
    form_id uuid not null references forms (id),
    form_version integer not null,
    user_id uuid,
    session_id uuid,
    client_id uuid,
    data jsonb not null,
    location_id uuid,
    created_at timestamptz not null
);
create unique index form_submissions_client on form_submissions (form_id, client_id);
create index form_submissions_of_form on form_submissions (form_id, created_at desc, id desc);
create index form_submissions_of_user on form_submissions (user_id, created_at desc, id desc);
create index form_submissions_of_both on form_submissions (form_id, user_id, created_at desc, id desc);
"#;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, TABLES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, "drop table form_submissions; drop table form_versions; drop table forms").await
    }
}
