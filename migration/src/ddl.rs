//! One text for two databases. Steps are written in PostgreSQL's dialect; for SQLite the types are exchanged for
//! the forms in which SeaORM stores them there. Not here: anything that only one of the two has (partitions,
//! `GiST`, trigrams), which stands in the step that needs it.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend},
};

/// PostgreSQL's words and SQLite's for the same thing. UUIDs are 16-byte blobs and times are ISO 8601 text in
/// SQLite; both keep their order. SQLite compares text by bytes unless told otherwise.
const WORDS: [(&str, &str); 5] = [
    (" uuid", " blob"),
    (" timestamptz", " text"),
    (" jsonb", " text"),
    (" double precision", " real"),
    (" collate \"C\"", ""),
];

/// Runs statements, separated by semicolons, in the database's own words.
pub(crate) async fn run(manager: &SchemaManager<'_>, sql: &str) -> Result<(), DbErr> {
    let sql = match manager.get_database_backend() {
        DbBackend::Sqlite => WORDS.iter().fold(sql.to_owned(), |sql, (from, to)| sql.replace(from, to)),
        _ => sql.to_owned(),
    };
    manager.get_connection().execute_unprepared(&sql).await.map(drop)
}

/// Runs the first text on PostgreSQL, the second on SQLite.
pub(crate) async fn run_either(
    manager: &SchemaManager<'_>,
    postgres: &str,
    sqlite: &str,
) -> Result<(), DbErr> {
    let sql = if manager.get_database_backend() == DbBackend::Postgres { postgres } else { sqlite };
    run(manager, sql).await
}
