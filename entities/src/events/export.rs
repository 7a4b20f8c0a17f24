//! Events for other systems: what a process reads that publishes every event elsewhere, at least once and in
//! the order of the log. One instance at a time reads for an export; another goes on where it ended. Not
//! here: where events are published (the server), how the position is kept (`consumer`).

use super::{
    ChangeEvent, ResumeToken,
    consumer::{self, Consumer, Taken},
    log::{self, EventPosition, LoggedChanges},
};
use crate::{
    clock::Time,
    database::{Database, transaction::SqlTransaction},
    error::Error,
};

/// Reads the log for one destination.
#[derive(Debug)]
pub struct EventExport {
    database: Database,
    consumer: Consumer,
}

/// What one transaction has changed.
#[derive(Clone, Debug)]
pub struct ExportedTransaction {
    position: EventPosition,
    /// When it was written.
    pub written_at: Time,
    /// The transaction's changes, in the order in which they were noted.
    pub events: Vec<ExportedEvent>,
}

/// One change.
#[derive(Clone, Debug)]
pub struct ExportedEvent {
    /// The event's id: unique, and the same each time that the event is read.
    pub id: String,
    /// The event's place in the log, as text that sorts in the log's order.
    pub sequence: String,
    /// What has changed.
    pub change: ChangeEvent,
}

impl ExportedTransaction {
    /// Tells it from others.
    pub fn position(&self) -> EventPosition {
        self.position
    }

    fn of(row: &LoggedChanges) -> Self {
        let position = row.position;
        let (transaction_id, number, _) = position.parts();
        let events = row.changes.iter().zip(0_u32..).map(|(change, index)| ExportedEvent {
            id: ResumeToken { position, index }.to_string(),
            sequence: format!("{transaction_id:016x}{number:016x}{index:08x}"),
            change: *change,
        });
        Self { position, written_at: row.created_at, events: events.collect() }
    }
}

/// What is to be published next.
#[derive(Debug)]
pub enum Exported {
    /// Nothing now.
    Nothing,
    /// Another instance publishes.
    Elsewhere,
    /// Transactions to be published, in the order of the log.
    Transactions(Vec<ExportedTransaction>),
}

impl EventExport {
    /// For the destination of this name, of this instance.
    pub fn new(database: &Database, name: String) -> Self {
        Self { database: database.on_primary(), consumer: Consumer::new(name) }
    }

    /// What comes next. An export that is new begins with what is written from now on.
    ///
    /// # Errors
    /// The database's.
    pub async fn next(&mut self) -> Result<Exported, Error> {
        let next = self.try_next().await;
        if next.is_err() {
            self.consumer.forget();
        }
        next
    }

    async fn try_next(&mut self) -> Result<Exported, Error> {
        let database = self.database.clone();
        match self.consumer.take(&database).await? {
            Taken::Absent => {
                let end = log::end(&database).await?;
                let transaction = SqlTransaction::begin(&database).await?;
                consumer::begin(&transaction, self.consumer.name(), end).await?;
                transaction.commit().await?;
                Ok(Exported::Nothing)
            }
            Taken::Held => Ok(Exported::Elsewhere),
            Taken::Nothing => Ok(Exported::Nothing),
            Taken::Rows(rows) => {
                Ok(Exported::Transactions(rows.iter().map(ExportedTransaction::of).collect()))
            }
            Taken::Lost => {
                let end = log::end(&database).await?;
                if self.consumer.advance_alone(&database, end).await? {
                    tracing::warn!(
                        export = self.consumer.name(),
                        "events that were to be published are not in the log any more: nothing has read \
                         them for twice retention.events, or another database took over"
                    );
                }
                Ok(Exported::Nothing)
            }
        }
    }

    /// Everything up to this transaction was published. False: another instance has taken over.
    ///
    /// # Errors
    /// The database's: it may be published again.
    pub async fn published(&mut self, last: EventPosition) -> Result<bool, Error> {
        let advanced = self.consumer.advance_alone(&self.database, last).await;
        if !matches!(advanced, Ok(true)) {
            self.consumer.forget();
        }
        advanced
    }
}
