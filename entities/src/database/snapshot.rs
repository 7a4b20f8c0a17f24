//! Several reads of one moment: what is written meanwhile does not show in any of them, and no writer waits. Not here:
//! what is read.

use sea_orm::{
    AccessMode, ConnectionTrait as _, DatabaseTransaction, DbBackend, IsolationLevel, QueryTrait as _,
    Select, Statement, TransactionOptions, TransactionTrait as _,
};
use tracing::Instrument as _;

use super::{
    Database,
    sql::{Cells, Record, RowSource, Sql},
    statement::select_of,
};
use crate::error::Error;

/// A transaction that only reads. It is of the driver's own connections, on which nothing bounds how long it takes: for
/// commands.
pub(crate) struct Snapshot {
    database: Database,
    transaction: DatabaseTransaction,
}

impl Snapshot {
    /// The database as it is now: on PostgreSQL as of the first read (`REPEATABLE READ`), and so on SQLite, whose
    /// readers see one moment by themselves.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn begin(database: &Database) -> Result<Self, Error> {
        let is_postgres = database.backend() == DbBackend::Postgres;
        let options = TransactionOptions {
            isolation_level: is_postgres.then_some(IsolationLevel::RepeatableRead),
            access_mode: is_postgres.then_some(AccessMode::ReadOnly),
            sqlite_transaction_mode: None,
        };
        let begun = database.connection().begin_with_options(options).await;
        let transaction = begun.map_err(|error| Error::of_statement("snapshot.begin", error))?;
        Ok(Self { database: database.clone(), transaction })
    }

    /// Rows that a select finds; of each only what `R` has.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn all<R: Record>(
        &self,
        name: &'static str,
        select: Select<R::Entity>,
    ) -> Result<Vec<R>, Error> {
        let (table, backend) = (R::table(), self.database.backend());
        let (text, values) = Sql::built(backend, select_of::<R>(select).as_query()).into_parts();
        let timing = self.database.timing(name, table, &text, &values);
        let statement = Statement::from_sql_and_values(backend, text, values);
        let result = self.transaction.query_all_raw(statement).instrument(timing.span()).await;
        timing.finish(result.as_ref().map_or(0, Vec::len), result.is_err());
        let rows = result.map_err(|error| Error::of_statement(name, error))?;
        let read = |row| R::read(&mut Cells::of(RowSource::of(row)));
        rows.iter().map(|row| read(row).map_err(|source| Error::Row { table, source })).collect()
    }

    /// The row that a select finds, if there is one; of it only what `R` has.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn one<R: Record>(
        &self,
        name: &'static str,
        select: Select<R::Entity>,
    ) -> Result<Option<R>, Error> {
        Ok(self.all(name, select).await?.into_iter().next())
    }

    /// Lets go of it.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn end(self) -> Result<(), Error> {
        self.transaction.rollback().await.map_err(|error| Error::of_statement("snapshot.end", error))
    }
}
