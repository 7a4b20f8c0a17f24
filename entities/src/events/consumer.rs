//! Durable consumers of the log of events: who reads every event, over restarts and on whatever instance. A
//! consumer is a row with a name and the position up to where it has read. What it makes of events it writes
//! in the transaction that moves its position, so each event counts once; a lease, by the database's clock,
//! keeps other instances from doing the same work in vain, and is not what that depends on: a position is
//! moved only from where it was. A consumer begins at the end of the log. What it has not read yet is kept
//! for it, for twice `retention.events` at most: one that was abandoned does not hold the log for ever. Not
//! here: what consumers do with events.

use std::time::{Duration, Instant};

use sea_orm::entity::prelude::*;

use super::log::{self, EventPosition, LoggedChanges};
use crate::{
    clock::Time,
    database::{
        Database,
        sql::{Cells, Sql, record},
        transaction::SqlTransaction,
    },
    error::Error,
    id,
};

/// Rows of the log that are read at once.
const PAGE: u64 = 500;
/// How long a lease lasts that is not renewed: its holder is gone.
const LEASE: Duration = Duration::from_secs(10);
/// It is renewed when less than this is left.
const RENEW: Duration = Duration::from_secs(5);
/// What is taken for granted of a lease that was renewed by a transaction, besides.
const SLACK: Duration = Duration::from_secs(3);
/// How often a position is stored where there was nothing to do.
const NOTE: Duration = Duration::from_secs(5);

record! {
    /// A row of `event_consumers`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "event_consumers")]
    pub struct Model {
        /// Primary key: what the consumer is called.
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        /// The row of the log that was read last: the first part of its key.
        pub transaction_id: i64,
        /// The second part of its key.
        pub number: i64,
        /// When that row was written, milliseconds since 1970.
        pub millis: i64,
        /// The lease of the instance that reads.
        pub holder: Option<Uuid>,
        /// Until then nobody else reads.
        pub held_until: Option<Time>,
    }
}

/// A consumer belongs to nothing.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Makes a consumer, at this position, unless it is there. From now on until the end of the transaction it
/// does not end.
pub(crate) async fn begin(
    transaction: &SqlTransaction,
    name: &str,
    position: EventPosition,
) -> Result<(), Error> {
    let (transaction_id, number, millis) = position.parts();
    let mut sql = transaction.sql();
    sql.push("INSERT INTO event_consumers (name, transaction_id, number, millis) VALUES (").bind(name);
    sql.push(", ").bind(transaction_id).push(", ").bind(number).push(", ").bind(millis);
    // An update that changes nothing locks the row.
    sql.push(") ON CONFLICT (name) DO UPDATE SET name = excluded.name");
    transaction.execute("consumer.begin", "event_consumers", sql).await.map(drop)
}

/// Locks a consumer until the end of the transaction; whether there is one.
pub(crate) async fn lock(transaction: &SqlTransaction, name: &str) -> Result<bool, Error> {
    let mut sql = transaction.sql();
    sql.push("UPDATE event_consumers SET name = name WHERE name = ").bind(name);
    Ok(transaction.execute("consumer.lock", "event_consumers", sql).await? > 0)
}

/// Ends a consumer that was locked: nothing is kept for it any more.
pub(crate) async fn end(transaction: &SqlTransaction, name: &str) -> Result<(), Error> {
    let mut sql = transaction.sql();
    sql.push("DELETE FROM event_consumers WHERE name = ").bind(name);
    transaction.execute("consumer.end", "event_consumers", sql).await.map(drop)
}

/// The key of the first row of the log that some consumer still needs: the one that it has read last, since
/// it goes on from there.
pub(crate) async fn first_needed(database: &Database) -> Result<Option<(i64, i64)>, Error> {
    let mut sql = database.sql();
    sql.push("SELECT transaction_id, number FROM event_consumers ORDER BY transaction_id, number LIMIT 1");
    let read = |cells: &mut Cells<'_>| Ok((cells.next()?, cells.next()?));
    let found = database.on_primary().fetch("consumer.first", "event_consumers", sql, read).await?;
    Ok(found.into_iter().next())
}

/// A consumer as this instance reads for it.
#[derive(Debug)]
pub(crate) struct Consumer {
    name: String,
    /// Stands for this instance.
    holder: Uuid,
    /// Until when the lease lasts.
    held_until: Option<Instant>,
    /// What was read last, and the stored position behind which that is.
    read: Option<Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    stored: EventPosition,
    position: EventPosition,
    noted: Instant,
}

/// What comes of asking for more.
#[derive(Debug)]
pub(crate) enum Taken {
    /// There is no such consumer.
    Absent,
    /// Another instance reads.
    Held,
    /// There is nothing new.
    Nothing,
    /// Further rows of the log, in its order.
    Rows(Vec<LoggedChanges>),
    /// What comes next is not in the log any more, or another database took over.
    Lost,
}

impl Consumer {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), holder: id::new(), held_until: None, read: None }
    }

    /// The name of the consumer, by which the database knows it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What comes next, if it is this instance's turn.
    pub(crate) async fn take(&mut self, database: &Database) -> Result<Taken, Error> {
        let Some((stored, is_held)) = self.look(database).await? else {
            (self.read, self.held_until) = (None, None);
            return Ok(Taken::Absent);
        };
        if is_held {
            (self.read, self.held_until) = (None, None);
            return Ok(Taken::Held);
        }
        let position = match self.read {
            Some(read) if read.stored == stored => read.position,
            _ => {
                let noted = Instant::now();
                self.read = Some(Progress { stored, position: stored, noted });
                stored
            }
        };
        let Some(rows) = log::after(database, position, PAGE).await? else {
            return Ok(if self.hold(database, stored).await? { Taken::Lost } else { Taken::Held });
        };
        if rows.is_empty() {
            return Ok(Taken::Nothing);
        }
        Ok(if self.hold(database, stored).await? { Taken::Rows(rows) } else { Taken::Held })
    }

    /// The stored position, and whether somebody else reads.
    async fn look(&self, database: &Database) -> Result<Option<(EventPosition, bool)>, Error> {
        let mut sql = database.sql();
        sql.push("SELECT transaction_id, number, millis, holder IS NOT NULL AND holder <> ")
            .bind(self.holder);
        sql.push(" AND held_until > ").now_and(Duration::ZERO);
        sql.push(" FROM event_consumers WHERE name = ").bind(self.name.as_str());
        let read = |cells: &mut Cells<'_>| {
            let position = EventPosition::of_parts((cells.next()?, cells.next()?, cells.next()?));
            Ok((position, cells.next::<Option<bool>>()?.unwrap_or(false)))
        };
        let found = database.on_primary().fetch("consumer.look", "event_consumers", sql, read).await?;
        Ok(found.into_iter().next())
    }

    /// Takes the lease, or renews it; whether this instance has it.
    async fn hold(&mut self, database: &Database, stored: EventPosition) -> Result<bool, Error> {
        if self.held_until.is_some_and(|until| until > Instant::now() + RENEW) {
            return Ok(true);
        }
        let asked = Instant::now();
        let transaction = SqlTransaction::begin(database).await?;
        let mut sql = transaction.sql();
        sql.push("UPDATE event_consumers SET holder = ").bind(self.holder);
        sql.push(", held_until = ").now_and(LEASE);
        self.push_unmoved(&mut sql, stored);
        sql.push(" AND (holder IS NULL OR holder = ").bind(self.holder);
        sql.push(" OR held_until <= ").now_and(Duration::ZERO).push(")");
        let is_held = transaction.execute("consumer.hold", "event_consumers", sql).await? > 0;
        transaction.commit().await?;
        self.held_until = is_held.then_some(asked + LEASE);
        Ok(is_held)
    }

    fn push_unmoved(&self, sql: &mut Sql, stored: EventPosition) {
        let (transaction_id, number, millis) = stored.parts();
        sql.push(" WHERE name = ").bind(self.name.as_str());
        sql.push(" AND transaction_id = ").bind(transaction_id);
        sql.push(" AND number = ").bind(number);
        sql.push(" AND millis = ").bind(millis);
    }

    /// Moves the position within the transaction that stores what comes of the rows up to there: the first
    /// statement of it, so that whoever else tries waits. False: it was moved by somebody else, and this
    /// transaction must not be committed. Once it is committed, `moved` follows.
    pub(crate) async fn advance(
        &self,
        transaction: &SqlTransaction,
        to: EventPosition,
    ) -> Result<bool, Error> {
        let Some(read) = self.read else { return Ok(false) };
        let (transaction_id, number, millis) = to.parts();
        let mut sql = transaction.sql();
        sql.push("UPDATE event_consumers SET transaction_id = ").bind(transaction_id);
        sql.push(", number = ").bind(number).push(", millis = ").bind(millis);
        sql.push(", held_until = ").now_and(LEASE);
        self.push_unmoved(&mut sql, read.stored);
        sql.push(" AND holder = ").bind(self.holder);
        Ok(transaction.execute("consumer.advance", "event_consumers", sql).await? > 0)
    }

    /// The transaction that has moved the position is committed.
    pub(crate) fn moved(&mut self, to: EventPosition) {
        self.read = Some(Progress { stored: to, position: to, noted: Instant::now() });
        self.held_until = Some(Instant::now() + RENEW + SLACK);
    }

    /// There was nothing to do up to there. That is stored now and then only: whoever reads it again has
    /// nothing to do either.
    pub(crate) async fn pass(&mut self, database: &Database, to: EventPosition) -> Result<(), Error> {
        let Some(read) = &mut self.read else { return Ok(()) };
        read.position = to;
        if read.noted.elapsed() < NOTE {
            return Ok(());
        }
        self.advance_alone(database, to).await.map(drop)
    }

    /// Moves the position in a transaction of its own: what came of the rows up to there is stored elsewhere.
    /// False: it was moved by somebody else.
    pub(crate) async fn advance_alone(
        &mut self,
        database: &Database,
        to: EventPosition,
    ) -> Result<bool, Error> {
        let transaction = SqlTransaction::begin(database).await?;
        if !self.advance(&transaction, to).await? {
            return Ok(false);
        }
        transaction.commit().await?;
        self.moved(to);
        Ok(true)
    }

    /// Forgets what was read: the stored position is what counts.
    pub(crate) fn forget(&mut self) {
        (self.read, self.held_until) = (None, None);
    }
}
