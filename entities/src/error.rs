//! What can go wrong in the crate `entities`. These are internal errors: the crate `schema` masks them and logs them once.
//! Expected outcomes are not errors: absence is `None`, a refused cursor is `page::BadCursor`.

use sea_orm::{DbErr, sqlx};

/// A failure of the database, or of what it returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be reached, or no connection was free in time.
    #[error("the database is unavailable")]
    Unavailable(#[source] DbErr),
    /// A statement failed.
    #[error("statement `{statement}` failed")]
    Statement {
        /// The statement's name, `domain.verb`.
        statement: &'static str,
        /// The cause.
        #[source]
        source: DbErr,
    },
    /// A row does not have the shape that this version expects.
    #[error("a row of `{table}` could not be read")]
    Row {
        /// The table.
        table: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// Data that cannot be used as asked; says what and why.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// Sorts a driver's error into "not there" and "went wrong".
    pub fn of_statement(statement: &'static str, source: DbErr) -> Self {
        match source {
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Self::Unavailable(source),
            source => Self::Statement { statement, source },
        }
    }
}
