//! The log of events, `events`: one row for each transaction that has changed something, written within it.
//! Its order is that of its key. On PostgreSQL a row carries the number of its transaction, and is settled
//! once no older transaction is running: from then on nothing can appear before it, however long another
//! writer takes, and writers do not wait for each other. SQLite has one writer, whose rows are settled at
//! once. Not here: who follows the log (`follower`), what a change means to them.

use std::{fmt, num::ParseIntError, str::FromStr, sync::Arc};

use sea_orm::{
    DbBackend,
    entity::prelude::*,
    sea_query::{InsertStatement, Query},
};

use super::ChangeEvent;
use crate::{
    clock::{self, Time},
    database::{
        Database,
        sql::{Cells, Sql, record},
        transaction::SqlTransaction,
    },
    error::Error,
};

record! {
    /// A row of `events`: what one transaction has changed.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "events")]
    pub struct Model {
        /// First part of the key: on PostgreSQL the number of the transaction, on SQLite 0.
        #[sea_orm(primary_key, auto_increment = false)]
        pub transaction_id: i64,
        /// Second part of the key; unique by itself.
        #[sea_orm(primary_key, auto_increment = false)]
        pub number: i64,
        /// A list of `ChangeEvent`, as JSON.
        pub changes: String,
        /// When it was written, by the writer's clock.
        pub created_at: Time,
    }
}

/// An event belongs to nothing: it outlives what it speaks of.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The oldest transaction that is running, in PostgreSQL's words, as of the snapshot of the statement.
const HORIZON: &str = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
/// The first transaction that is yet to begin. Rows from there on came with the data of another cluster,
/// which counted by itself.
const FUTURE: &str = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint";

/// A row of the log, by the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    pub(crate) transaction_id: i64,
    pub(crate) number: i64,
    /// When it was written, milliseconds since 1970: tells rows apart that have the same numbers, which are
    /// given out again after the database was restored. The order does not need it.
    millis: i64,
}

/// Says to a client up to where it has been told: an event, and a change of it. Of no use to anybody but the
/// server, and no secret: what is told after it depends on who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeToken {
    pub(crate) position: EventPosition,
    /// The place of the change among those of its transaction.
    pub(crate) index: u32,
}

impl EventPosition {
    /// Before all rows.
    pub(crate) const ORIGIN: Self = Self { transaction_id: 0, number: 0, millis: 0 };

    /// What was noted as the parts of a position.
    pub(crate) const fn of_parts((transaction_id, number, millis): (i64, i64, i64)) -> Self {
        Self { transaction_id, number, millis }
    }

    /// What is to be noted of it.
    pub(crate) fn parts(self) -> (i64, i64, i64) {
        (self.transaction_id, self.number, self.millis)
    }
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EventPosition { transaction_id, number, millis } = self.position;
        write!(f, "{transaction_id:x}-{number:x}-{millis:x}-{:x}", self.index)
    }
}

/// A text that is not a resume token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a resume token")]
pub struct InvalidResumeToken;

impl From<ParseIntError> for InvalidResumeToken {
    fn from(_: ParseIntError) -> Self {
        Self
    }
}

impl FromStr for ResumeToken {
    type Err = InvalidResumeToken;

    fn from_str(text: &str) -> Result<Self, InvalidResumeToken> {
        let number = |text: &str| i64::from_str_radix(text, 16);
        let parts: Vec<&str> = text.split('-').collect();
        let [transaction_id, event, millis, index] = parts[..] else { return Err(InvalidResumeToken) };
        let position = EventPosition {
            transaction_id: number(transaction_id)?,
            number: number(event)?,
            millis: number(millis)?,
        };
        let token = Self { position, index: u32::from_str_radix(index, 16)? };
        // One text for each: what differs by a sign or a zero was not given out.
        if token.to_string() == text { Ok(token) } else { Err(InvalidResumeToken) }
    }
}

/// What one transaction has changed, as the log tells it.
#[derive(Clone, Debug)]
pub(crate) struct LoggedChanges {
    pub(crate) position: EventPosition,
    pub(crate) changes: Arc<[ChangeEvent]>,
    pub(crate) created_at: Time,
}

/// A row that is not settled yet: its number, and when it was written.
pub(crate) type Unsettled = (i64, Time);

/// The statement that notes what its transaction changes; it returns the number of the row.
pub(crate) fn insert(backend: DbBackend, changes: &[ChangeEvent]) -> InsertStatement {
    let json = serde_json::to_string(changes).expect("changes are plain data");
    let mut columns = vec![Column::Changes, Column::CreatedAt, Column::TransactionId];
    let mut values: Vec<Expr> = vec![Expr::val(json), Expr::val(clock::now())];
    if backend == DbBackend::Postgres {
        values.push(Expr::cust("pg_current_xact_id()::text::bigint"));
    } else {
        columns.push(Column::Number);
        let next = "(SELECT COALESCE(MAX(number), 0) + 1 FROM events WHERE transaction_id = 0)";
        values.extend([Expr::val(0_i64), Expr::cust(next)]);
    }
    let mut insert = Query::insert();
    insert.into_table(Entity).columns(columns).values_panic(values).returning_col(Column::Number);
    insert
}

/// The last row that is settled.
pub(crate) async fn end(database: &Database) -> Result<EventPosition, Error> {
    let mut sql = database.sql();
    select(&mut sql);
    if sql.is_postgres() {
        sql.push(" WHERE transaction_id < ").push(HORIZON);
    }
    sql.push(" ORDER BY transaction_id DESC, number DESC LIMIT 1");
    let last = database.on_primary().fetch("events.end", "events", sql, read).await?;
    Ok(last.first().map_or(EventPosition::ORIGIN, |last| last.position))
}

/// The rows after a position that are settled, so many at most, in order; none where the row at the position
/// is not there any more.
pub(crate) async fn after(
    database: &Database,
    position: EventPosition,
    most: u64,
) -> Result<Option<Vec<LoggedChanges>>, Error> {
    let mut sql = database.sql();
    select(&mut sql);
    sql.push(" WHERE ");
    compare(&mut sql, ">=", (position.transaction_id, position.number));
    if sql.is_postgres() {
        sql.push(" AND transaction_id < ").push(HORIZON);
    }
    order(&mut sql, most.saturating_add(1));
    let mut rows = database.on_primary().fetch("events.after", "events", sql, read).await?;
    if position == EventPosition::ORIGIN {
        return Ok(Some(rows));
    }
    if rows.first().is_none_or(|first| first.position != position) {
        return Ok(None);
    }
    rows.remove(0);
    Ok(Some(rows))
}

/// The row at this position; none, where it was removed, or the database was restored to a moment before it.
pub(crate) async fn at(database: &Database, position: EventPosition) -> Result<Option<LoggedChanges>, Error> {
    let mut sql = database.sql();
    select(&mut sql);
    sql.push(" WHERE transaction_id = ").bind(position.transaction_id);
    sql.push(" AND number = ").bind(position.number);
    if sql.is_postgres() {
        sql.push(" AND transaction_id < ").push(FUTURE);
    }
    let found = database.on_primary().fetch("events.at", "events", sql, read).await?;
    Ok(found.into_iter().next().filter(|found| found.position == position))
}

/// The rows that are not settled, so many at most, the oldest first. There are none on SQLite.
pub(crate) async fn unsettled(database: &Database, most: u64) -> Result<Vec<Unsettled>, Error> {
    let mut sql = database.sql();
    if !sql.is_postgres() {
        return Ok(Vec::new());
    }
    sql.push("SELECT number, created_at FROM events WHERE transaction_id >= ").push(HORIZON);
    sql.push(" AND transaction_id < ").push(FUTURE);
    order(&mut sql, most);
    let read = |cells: &mut Cells<'_>| Ok((cells.next()?, cells.next()?));
    database.on_primary().fetch("events.unsettled", "events", sql, read).await
}

/// What was changed since this moment, settled or not; of many rows, some.
pub(crate) async fn since(database: &Database, since: Time, most: u64) -> Result<Vec<ChangeEvent>, Error> {
    let mut sql = database.sql();
    select(&mut sql);
    if sql.is_postgres() {
        sql.push(" WHERE transaction_id < ").push(FUTURE);
    }
    sql.push(" ORDER BY transaction_id DESC, number DESC LIMIT ").bind(limit(most));
    let rows = database.on_primary().fetch("events.since", "events", sql, read).await?;
    let recent = rows.iter().filter(|row| row.created_at >= since);
    Ok(recent.flat_map(|row| row.changes.iter().copied()).collect())
}

/// The rows from this one on that are before `end`, so many at most, in order: the key, and when it was written.
pub(crate) async fn between(
    database: &Database,
    (from, end): ((i64, i64), EventPosition),
    most: u64,
) -> Result<Vec<((i64, i64), Time)>, Error> {
    let mut sql = database.sql();
    sql.push("SELECT transaction_id, number, created_at FROM events WHERE ");
    compare(&mut sql, ">=", from);
    sql.push(" AND ");
    compare(&mut sql, "<", (end.transaction_id, end.number));
    order(&mut sql, most);
    let read = |cells: &mut Cells<'_>| Ok(((cells.next()?, cells.next()?), cells.next()?));
    database.on_primary().fetch("events.oldest", "events", sql, read).await
}

/// Whether there are rows that came with the data of another cluster.
pub(crate) async fn has_foreign(database: &Database) -> Result<bool, Error> {
    let mut sql = database.sql();
    if !sql.is_postgres() {
        return Ok(false);
    }
    sql.push("SELECT number FROM events WHERE transaction_id >= ").push(FUTURE).push(" LIMIT 1");
    let read = |cells: &mut Cells<'_>| cells.next::<i64>();
    let found = database.on_primary().fetch("events.foreign", "events", sql, read).await?;
    Ok(!found.is_empty())
}

/// Removes rows from before this moment that came with the data of another cluster; says how many there were.
pub(crate) async fn remove_foreign(transaction: &SqlTransaction, before: Time) -> Result<u64, Error> {
    let mut sql = transaction.sql();
    sql.push("DELETE FROM events WHERE transaction_id >= ").push(FUTURE);
    sql.push(" AND created_at < ").bind(before);
    transaction.execute("events.remove_foreign", "events", sql).await
}

/// Removes what is not after this row of the log; says how many rows there were.
pub(crate) async fn remove_until(transaction: &SqlTransaction, row: (i64, i64)) -> Result<u64, Error> {
    let mut sql = transaction.sql();
    sql.push("DELETE FROM events WHERE ");
    compare(&mut sql, "<=", row);
    transaction.execute("events.remove", "events", sql).await
}

/// Compares rows with a row.
fn compare(sql: &mut Sql, operator: &str, (transaction_id, number): (i64, i64)) {
    sql.push("(transaction_id, number) ").push(operator).push(" (").bind(transaction_id);
    sql.push(", ").bind(number).push(")");
}

fn order(sql: &mut Sql, most: u64) {
    sql.push(" ORDER BY transaction_id, number LIMIT ").bind(limit(most));
}

fn limit(most: u64) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

fn select(sql: &mut Sql) {
    sql.push("SELECT transaction_id, number, changes, created_at FROM events");
}

fn read(cells: &mut Cells<'_>) -> Result<LoggedChanges, sea_orm::sqlx::Error> {
    let (transaction_id, number) = (cells.next()?, cells.next()?);
    let changes: String = cells.next()?;
    let created_at: Time = cells.next()?;
    let position = EventPosition { transaction_id, number, millis: created_at.timestamp_millis() };
    Ok(LoggedChanges { position, changes: changes_of(&changes), created_at })
}

/// What a newer program has written in another way is not known here, but something was changed.
fn changes_of(json: &str) -> Arc<[ChangeEvent]> {
    let changes: Result<Vec<ChangeEvent>, _> = serde_json::from_str(json);
    changes.unwrap_or_else(|_| vec![ChangeEvent::Unknown]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_token_is_read_as_it_was_written() {
        let position = EventPosition { transaction_id: 7_000_000_000, number: 31, millis: 1_790_000_000_123 };
        let token = ResumeToken { position, index: 4 };
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token));
        for other in
            ["", "1-2-3", "1-2-3-4-5", "g-1-1-1", "+1-2-3-4", "01-2-3-4", "1-2-3-", "1-2-3-100000000"]
        {
            assert_eq!(other.parse::<ResumeToken>(), Err(InvalidResumeToken), "{other}");
        }
    }
}
