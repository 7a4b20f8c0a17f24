//! Names, titles, descriptions and names of sessions in one normal form (NFC), as they are stored and searched from now
//! on; those from before may have come decomposed, from macOS for one. Changes values only, so that the program before
//! this one runs on it. What that program still writes while both run is not composed by anybody.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, Value},
};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use crate::ddl;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// The tables and their columns that people write.
const TEXTS: [(&str, &[&str]); 3] = [
    ("users", &["display_name", "search_name"]),
    ("forms", &["title", "search_title", "description"]),
    ("user_sessions", &["name"]),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, columns) in TEXTS {
            match manager.get_database_backend() {
                DbBackend::Postgres => ddl::run(manager, &postgres(table, columns)).await?,
                _ => compose(manager, table, columns).await?,
            }
        }
        Ok(())
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        // Both spellings are the same text.
        Ok(())
    }
}

/// PostgreSQL composes by itself, where its encoding is Unicode; in others nothing decomposed can be stored.
fn postgres(table: &str, columns: &[&str]) -> String {
    let set = columns.iter().map(|column| format!("{column} = normalize({column}, nfc)"));
    let matching = columns.iter().map(|column| format!("{column} is not nfc normalized"));
    let (set, matching) = (set.collect::<Vec<_>>().join(", "), matching.collect::<Vec<_>>().join(" or "));
    format!(
        "do $$ begin if getdatabaseencoding() = 'UTF8' then update {table} set {set} where {matching}; end \
         if; end $$"
    )
}

/// Rows that are read at once.
const ROWS: i64 = 1_000;

/// SQLite knows no normal forms.
async fn compose(manager: &SchemaManager<'_>, table: &str, columns: &[&str]) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let run =
        |sql: String, values: Vec<Value>| Statement::from_sql_and_values(DbBackend::Sqlite, sql, values);
    let set: Vec<String> = columns.iter().map(|column| format!("{column} = ?")).collect();
    let (select, update) = (
        format!(
            "select rowid, {} from {table} where rowid > ? order by rowid limit {ROWS}",
            columns.join(", ")
        ),
        format!("update {table} set {} where rowid = ?", set.join(", ")),
    );
    let mut last = 0_i64;
    loop {
        let rows = db.query_all_raw(run(select.clone(), vec![last.into()])).await?;
        let Some(end) = rows.last() else { return Ok(()) };
        last = end.try_get_by_index(0)?;
        for row in rows {
            let texts: Vec<Option<String>> =
                (1..=columns.len()).map(|at| row.try_get_by_index(at)).collect::<Result<_, _>>()?;
            if texts.iter().flatten().all(|text| is_nfc(text)) {
                continue;
            }
            let composed = texts.into_iter().map(|text| text.map(|text| text.nfc().collect::<String>()));
            let mut values: Vec<Value> = composed.map(Value::from).collect();
            values.push(row.try_get_by_index::<i64>(0)?.into());
            db.execute_raw(run(update.clone(), values)).await?;
        }
    }
}
