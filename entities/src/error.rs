//! What can go wrong in the crate `entities`, and what each failure means to whoever asked: whether anything
//! was done, and whether the same may be tried again. The crate `schema` gives these meanings codes and logs
//! what is behind them. Expected outcomes are not errors: absence is `None`, a refused cursor is
//! `page::BadCursor`.

use std::{borrow::Cow, time::Duration};

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, sqlx};

/// How many times what lost a race against others is run again.
const CONTENDED_AGAIN: u32 = 3;

/// A failure of the database, or of what it returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be reached, or no connection was free in time.
    #[error("the database is unavailable")]
    Unavailable(#[source] DbErr),
    /// The database takes no writes: it is a standby, or was told so.
    #[error("the database is read-only")]
    ReadOnly(#[source] DbErr),
    /// COMMIT was sent, and whether it was carried out was not said.
    #[error("the database did not say whether it has committed")]
    OutcomeUnknown(#[source] DbErr),
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

/// What a failure means to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was done, and later it may be.
    Unavailable,
    /// Nothing was done, because others wrote the same at the same time.
    Contended,
    /// Nothing was done, because it took too long.
    TimedOut,
    /// It is done, or it is not.
    OutcomeUnknown,
    /// Nothing was done, and nothing will be: what was asked cannot be.
    Refused,
    /// Nothing was done. Something is wrong with this program or with its data.
    Internal,
}

impl Error {
    /// Sorts a driver's error into "not there" and "went wrong".
    pub fn of_statement(statement: &'static str, source: DbErr) -> Self {
        match source {
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Self::Unavailable(source),
            source => Self::Statement { statement, source },
        }
    }

    /// What this error means to whoever asked.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Unavailable(_) | Self::ReadOnly(_) => Failure::Unavailable,
            Self::OutcomeUnknown(_) => Failure::OutcomeUnknown,
            Self::Refused(_) => Failure::Refused,
            Self::Row { .. } => Failure::Internal,
            Self::Statement { .. } => self.driver_code().map_or(Failure::Internal, |code| failure_of(&code)),
        }
    }

    /// How many times the same may be run again at once, on another connection: nothing of it was done, and it may well
    /// go better.
    pub fn repeats(&self) -> u32 {
        match self {
            // Who has waited in vain for a connection has waited long enough.
            Self::Unavailable(DbErr::Conn(_)) | Self::ReadOnly(_) => 1,
            _ if self.failure() == Failure::Contended => CONTENDED_AGAIN,
            _ => 0,
        }
    }

    /// Whether the database may be there in a moment: it cannot be reached, starts, ends, or has no room for another
    /// connection. Not where it refuses this account or does not know the database.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) => true,
            Self::Unavailable(DbErr::Conn(RuntimeErr::SqlxError(cause))) => match &**cause {
                // A proxy that has no server hangs up, which the driver takes for a strange answer.
                sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => true,
                sqlx::Error::Database(cause) => {
                    cause.code().is_some_and(|code| failure_of(&code) == Failure::Unavailable)
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// The code that the database gave: SQLSTATE, or SQLite's extended result code.
    pub(crate) fn driver_code(&self) -> Option<Cow<'_, str>> {
        let (Self::Unavailable(source)
        | Self::ReadOnly(source)
        | Self::OutcomeUnknown(source)
        | Self::Statement { source, .. }) = self
        else {
            return None;
        };
        let (DbErr::Conn(cause) | DbErr::Exec(cause) | DbErr::Query(cause)) = source else { return None };
        let RuntimeErr::SqlxError(cause) = cause else { return None };
        let sqlx::Error::Database(cause) = &**cause else { return None };
        cause.code()
    }

    /// The driver could not do it.
    pub(crate) fn unavailable(error: sqlx::Error) -> Self {
        Self::Unavailable(DbErr::Conn(RuntimeErr::SqlxError(error.into())))
    }

    /// No connection was free in time.
    pub(crate) fn no_connection_in_time() -> Self {
        Self::Unavailable(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))
    }
}

/// How long to wait before something is run again for the `number`th time, from 1: whoever was in the way
/// must not meet it again at the same moment.
pub fn pause_before(number: u32) -> Duration {
    Duration::from_millis(fastrand::u64(1..=10) << number.min(4))
}

/// SQLSTATE has five characters (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
pub(crate) const SQLSTATE_LENGTH: usize = 5;

/// The primary result code of SQLite is in the last byte of an extended one (<https://sqlite.org/rescode.html>).
pub(crate) fn primary_of(sqlite_code: &str) -> Option<u32> {
    sqlite_code.parse::<u32>().ok().map(|code| code & 0xff)
}

fn failure_of(code: &str) -> Failure {
    if code.len() == SQLSTATE_LENGTH {
        return match code {
            // Serialization failure, deadlock.
            "40001" | "40P01" => Failure::Contended,
            // Statement time-out, lock time-out.
            "57014" | "55P03" => Failure::TimedOut,
            // Read-only, input or output failed.
            "25006" | "25P03" | "58030" => Failure::Unavailable,
            // No room, no memory, no connection; the server ends, starts, or is gone.
            _ if ["53", "08"].iter().any(|class| code.starts_with(class)) || code.starts_with("57P") => {
                Failure::Unavailable
            }
            _ => Failure::Internal,
        };
    }
    match primary_of(code) {
        // SQLITE_BUSY, SQLITE_LOCKED.
        Some(5 | 6) => Failure::TimedOut,
        // SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN.
        Some(8 | 10 | 13 | 14) => Failure::Unavailable,
        _ => Failure::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_either_database_says_what_it_means() {
        for (codes, failure) in [
            (&["40001", "40P01"][..], Failure::Contended),
            (&["57014", "55P03", "5", "517", "6"], Failure::TimedOut),
            (
                &["25006", "25P03", "53100", "53300", "57P01", "57P03", "08006", "58030", "13", "8", "778"],
                Failure::Unavailable,
            ),
            (&["42P01", "23505", "22P02", "XX000", "1", "19", "nonsense"], Failure::Internal),
        ] {
            for code in codes {
                assert_eq!(failure_of(code), failure, "{code}");
            }
        }
    }

    #[test]
    fn what_may_have_been_done_is_never_run_again() {
        let lost = || DbErr::Conn(RuntimeErr::SqlxError(sqlx::Error::WorkerCrashed.into()));
        assert_eq!(Error::Unavailable(lost()).repeats(), 1);
        assert_eq!(Error::ReadOnly(lost()).repeats(), 1);
        assert_eq!(Error::OutcomeUnknown(lost()).repeats(), 0);
        assert_eq!(Error::no_connection_in_time().repeats(), 0);
        assert_eq!(Error::Refused("x".into()).repeats(), 0);
    }
}
