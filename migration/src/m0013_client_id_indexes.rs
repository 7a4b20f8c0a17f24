//! The indexes of a submission's client id (`m0011_client_ids`), and what finds the versions of a form that
//! an account has filled in, which it may therefore see. Building them lets reads of the table go on and
//! makes writes wait. Where they were built beforehand (`create index concurrently`, with these names),
//! nothing is left to do. Only adds.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement},
};

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: &str = "
create unique index if not exists form_submissions_own_client
    on form_submissions (form_id, user_id, own_client_id)
    where own_client_id is not null;
create index if not exists form_submissions_versions on form_submissions (form_id, user_id, form_version);
";

const DOWN: &str = "
drop index if exists form_submissions_versions;
drop index if exists form_submissions_own_client;
";

/// What a `create index concurrently` that did not come to its end leaves behind: it is there, and is not used.
const BROKEN: &str = "select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid \
    where i.indrelid = 'form_submissions'::regclass and not i.indisvalid \
    and c.relname in ('form_submissions_own_client', 'form_submissions_versions')";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            let rows = Statement::from_string(DbBackend::Postgres, BROKEN);
            for row in manager.get_connection().query_all_raw(rows).await? {
                ddl::run(manager, &format!("drop index {}", row.try_get_by_index::<String>(0)?)).await?;
            }
        }
        ddl::run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        ddl::run(manager, DOWN).await
    }
}
