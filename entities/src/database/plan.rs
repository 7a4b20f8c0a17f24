//! How the database carries out a statement that a request has run: its plan, for people who look at one answer in
//! development. Not here: which statements those are (`statement_log`), who may see their plans (the graph).

use super::{
    Database,
    sql::{Cell as _, RowSource, Sql},
    statement_log::Executed,
};
use crate::error::Error;

const NAME: &str = "database.plan";
/// The column of SQLite's `EXPLAIN QUERY PLAN` that has the text; PostgreSQL's plans have one column.
const SQLITE_DETAIL: usize = 3;

impl Database {
    /// The plan of a statement with the values that it ran with, line by line. With `runs_again`, PostgreSQL
    /// runs a `SELECT` once more and measures it (`ANALYZE, BUFFERS`); what writes never runs again. `None`
    /// where the statement's text was not kept.
    ///
    /// # Errors
    /// As for any statement.
    pub async fn plan(&self, executed: &Executed, runs_again: bool) -> Result<Option<Vec<String>>, Error> {
        let Some(text) = &executed.sql else { return Ok(None) };
        let measures = runs_again && text.starts_with("SELECT ");
        let mut sql: Sql = self.sql();
        sql.push(match (sql.is_postgres(), measures) {
            (true, true) => "EXPLAIN (ANALYZE, BUFFERS) ",
            (true, false) => "EXPLAIN ",
            (false, _) => "EXPLAIN QUERY PLAN ",
        });
        let sql = sql.with(text, executed.values.clone());
        let lines = self.fetch(NAME, executed.table, sql, |cells| {
            let row = cells.row();
            let column = if matches!(row, RowSource::Postgres(_)) { 0 } else { SQLITE_DETAIL };
            String::read(row, column)
        });
        lines.await.map(Some)
    }
}
