//! A submission's client id is unique for its account, not for all of them. The program before this one needs
//! the unique index over form and client id (it names it in `on conflict`), so that index stays for now, and
//! an id that another account has used on the form goes into a column of its own; a later release can put
//! both into one. Only adds, and only what is quick: the column's indexes are built by a step of their own
//! (`m0013_client_id_indexes`).

use sea_orm_migration::prelude::*;

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// May be there already: operators of a large table add it and build its indexes beforehand.
const UP: &str = "alter table form_submissions add column if not exists own_client_id uuid";
const UP_SQLITE: &str = "alter table form_submissions add column own_client_id uuid";
const DOWN: &str = "alter table form_submissions drop column own_client_id";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run_either(manager, UP, UP_SQLITE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, DOWN).await
    }
}
