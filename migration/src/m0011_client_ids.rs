//! A submission's client id is unique for its account, not for all of them. The program before this one needs the unique
//! index over form and client id (it names it in `on conflict`), so that index stays for now, and an id that another
//! account has used on the form goes into a column of its own; a later release can put both into one. Only adds.
//!
//! Also what finds the versions of a form that an account has filled in, which it may therefore see.

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: &str = "
alter table form_submissions add column own_client_id uuid;
create unique index form_submissions_own_client on form_submissions (form_id, user_id, own_client_id)
    where own_client_id is not null;
create index form_submissions_versions on form_submissions (form_id, user_id, form_version);
";

const DOWN: &str = "
drop index form_submissions_versions;
drop index form_submissions_own_client;
alter table form_submissions drop column own_client_id;
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, DOWN).await
    }
}
