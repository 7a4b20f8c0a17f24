//! A connection taken from the pool: it runs statements, and knows whether it can be used again afterwards. Not here:
//! which connection is taken, and by whom.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sea_orm::{
    DbErr, RuntimeErr, Value, Values,
    sqlx::{
        self, AssertSqlSafe, Connection as _, Either, Executor as _, SqlStr, error::DatabaseError,
        postgres::PgRow,
    },
};
use sea_query_sqlx::SqlxValues;
use tokio::time::timeout;

use super::{Pool, Purpose, Session, Turn};
use crate::{
    database::{Pooler, open::bounds},
    error::Error,
};

/// How long BEGIN may take: it waits for nothing.
const BEGIN_WITHIN: Duration = Duration::from_secs(1);
/// How long COMMIT may take where statements have no limit of their own.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may take to be ready again after a statement was given up.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// Whether a connection can be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionState {
    /// It has answered everything.
    Ready,
    /// It has something to answer still.
    Busy,
    /// Nobody may use it again.
    Broken,
}

/// A connection of the pool, given back when it is dropped.
pub(crate) struct PooledConnection {
    pool: Pool,
    session: Option<Session>,
    turn: Option<Turn>,
    state: ConnectionState,
    in_transaction: bool,
    /// It has answered just before it was lent.
    is_proven: bool,
    /// It was found closed, or did not answer, when a transaction was to begin or to end.
    was_closed: bool,
}

impl PooledConnection {
    pub(super) fn new(pool: Pool, session: Session, turn: Turn, is_proven: bool) -> Self {
        Self {
            pool,
            session: Some(session),
            turn: Some(turn),
            state: ConnectionState::Ready,
            in_transaction: false,
            is_proven,
            was_closed: false,
        }
    }

    /// The connection itself.
    pub(super) fn session(&self) -> &Session {
        self.session.as_ref().expect("it is there until it is given back")
    }

    /// It has answered just before it was lent: trying again on another one would help nobody.
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// BEGIN found it closed, and had no answer at all.
    pub(super) fn was_closed_before_an_answer(&self) -> bool {
        self.was_closed
    }

    /// A new connection in the place of this one, for the same turn to write.
    pub(super) async fn replace(&mut self) -> Result<(), Error> {
        drop(self.session.take());
        let deadline = tokio::time::Instant::now() + self.pool.0.acquire_timeout;
        self.session = Some(self.pool.0.open_for(Purpose::Write, deadline).await?);
        (self.state, self.is_proven, self.was_closed) = (ConnectionState::Ready, true, false);
        Ok(())
    }

    /// Runs a statement, hands its rows over as they arrive, and says how many it changed.
    ///
    /// # Errors
    /// `Unavailable` where the connection was lost or the answer did not come in time, `ReadOnly` where the
    /// server takes no writes; the statement's own; `Row` where `take` fails.
    pub(crate) async fn run(
        &mut self,
        (name, table): (&'static str, &'static str),
        text: SqlStr,
        values: Vec<Value>,
        take: &mut impl FnMut(&PgRow) -> Result<(), sqlx::Error>,
    ) -> Result<u64, Error> {
        let limit = self.pool.0.limit;
        let (mut changed, mut misread) = (0, None);
        self.state = ConnectionState::Busy;
        let connection = &mut self.session.as_mut().expect("it is there until it is given back").connection;
        // What is prepared by name is there for who has the connection next, and not for this one.
        let is_kept = self.pool.0.pooler != Pooler::Transaction;
        let query = sqlx::query_with(text, SqlxValues(Values(values))).persistent(is_kept);
        let mut answers = connection.fetch_many(query);
        let reading = async {
            while let Some(answer) = answers.try_next().await? {
                match answer {
                    Either::Left(done) => changed += done.rows_affected(),
                    Either::Right(row) => {
                        if let Err(error) = take(&row) {
                            misread = Some(error);
                            break;
                        }
                    }
                }
            }
            Ok::<(), sqlx::Error>(())
        };
        let read = match limit {
            Some(limit) => timeout(limit, reading).await.ok(),
            None => Some(reading.await),
        };
        drop(answers);
        match (read, misread) {
            (Some(Ok(())), None) => {
                self.answered();
                Ok(changed)
            }
            // What is left of the answer is read when it is given back.
            (Some(Ok(())), Some(source)) => Err(Error::Row { table, source }),
            (Some(Err(error)), _) if is_lost(&error) => {
                self.state = ConnectionState::Broken;
                self.pool.0.forget_idle();
                Err(Error::unavailable(error))
            }
            // The server has changed its role; so it has for the others.
            (Some(Err(error)), _) if is_read_only(&error) => {
                self.state = ConnectionState::Broken;
                self.pool.0.forget_idle();
                Err(Error::ReadOnly(DbErr::Query(RuntimeErr::SqlxError(error.into()))))
            }
            (Some(Err(error)), _) => {
                if matches!(error, sqlx::Error::Database(_)) {
                    self.answered();
                }
                let source = DbErr::Query(RuntimeErr::SqlxError(error.into()));
                Err(Error::Statement { statement: name, source })
            }
            (None, _) => Err(self.is_late()),
        }
    }

    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        self.in_transaction = true;
        let pool = &self.pool.0;
        match (pool.pooler, pool.statement_timeout) {
            (Pooler::Transaction, Some(limit)) => {
                let set = bounds(limit).map(|(setting, value)| format!("; SET LOCAL {setting} = {value}"));
                self.command(format!("BEGIN{}", set.concat()), BEGIN_WITHIN).await
            }
            _ => self.command("BEGIN", BEGIN_WITHIN).await,
        }
    }

    /// # Errors
    /// The server's: nothing is committed. `OutcomeUnknown` where there was no answer; this connection will not be used
    /// again.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        if self.state != ConnectionState::Ready {
            let source = DbErr::Custom("a statement of the transaction did not come to its end".to_owned());
            return Err(Error::Statement { statement: "commit", source });
        }
        let limit = self.pool.0.limit.unwrap_or(COMMIT_WITHIN);
        self.command("COMMIT", limit).await.map_err(|error| match error {
            Error::Unavailable(source) => Error::OutcomeUnknown(source),
            error => error,
        })?;
        self.in_transaction = false;
        *self.pool.0.written() = Some(self.session().server);
        Ok(())
    }

    /// Ends a transaction that only reads. Where that fails, the connection is closed.
    pub(super) async fn end_reading(mut self) {
        self.in_transaction = self.command("COMMIT", BEGIN_WITHIN).await.is_err();
    }

    /// BEGIN or COMMIT. Where it does not come to its end, for whatever reason, the connection is done for.
    async fn command(&mut self, command: impl Into<String>, within: Duration) -> Result<(), Error> {
        let command = command.into();
        let statement = if command == "COMMIT" { "commit" } else { "begin" };
        self.state = ConnectionState::Broken;
        let connection = &mut self.session.as_mut().expect("it is there until it is given back").connection;
        match timeout(within, connection.execute(sqlx::raw_sql(AssertSqlSafe(command)))).await {
            Ok(Ok(_)) => {
                self.answered();
                Ok(())
            }
            Ok(Err(error)) if is_lost(&error) => {
                self.was_closed = true;
                self.pool.0.forget_idle();
                Err(Error::unavailable(error))
            }
            Ok(Err(error)) => {
                let source = DbErr::Exec(RuntimeErr::SqlxError(error.into()));
                Err(Error::Statement { statement, source })
            }
            Err(_) => {
                self.was_closed = true;
                Err(self.is_late())
            }
        }
    }

    fn answered(&mut self) {
        self.state = ConnectionState::Ready;
        if let Some(session) = &mut self.session {
            session.answered = Instant::now();
        }
        self.pool.0.breaker.succeeded();
    }

    /// No answer, long after there should have been one.
    fn is_late(&mut self) -> Error {
        self.state = ConnectionState::Broken;
        self.pool.0.doubt();
        self.pool.0.failed();
        let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "PostgreSQL did not answer in time");
        Error::unavailable(sqlx::Error::Io(late))
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        match self.state {
            ConnectionState::Ready if !self.in_transaction => self.pool.0.give_back(session),
            ConnectionState::Broken => drop(session),
            // Which process of the server works on it is not known, so it cannot be cancelled.
            ConnectionState::Busy if self.pool.0.pooler == Pooler::Transaction => drop(session),
            ConnectionState::Ready | ConnectionState::Busy => {
                // Without a runtime there is nobody who could wait: it closes, and the server rolls back.
                let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
                let (pool, turn) = (self.pool.clone(), self.turn.take());
                let restoring =
                    restore(pool, session, self.state == ConnectionState::Busy, self.in_transaction);
                drop(runtime.spawn(async move {
                    restoring.await;
                    // Only now is there room for somebody else.
                    drop(turn);
                }));
            }
        }
    }
}

/// Ends what a connection is in the middle of and gives it back, or closes it where it does not answer.
async fn restore(pool: Pool, mut session: Session, is_busy: bool, in_transaction: bool) {
    if is_busy {
        // Before anybody else may have it: what is cancelled is this statement and no other.
        pool.0.hosts[session.host].canceller.cancel(session.backend).await;
    }
    let connection = &mut session.connection;
    let ending = async {
        if in_transaction {
            connection.execute(sqlx::raw_sql("ROLLBACK")).await.map(drop)
        } else {
            connection.ping().await
        }
    };
    if let Ok(Ok(())) = timeout(READY_WITHIN, ending).await {
        session.answered = Instant::now();
        pool.0.give_back(session);
    } else {
        tracing::warn!(
            "a connection to PostgreSQL did not answer after its statement was given up; it is closed"
        );
        drop(session);
        pool.0.doubt();
        pool.0.failed();
    }
}

/// The server takes no writes (SQLSTATE 25006).
fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "25006")
}

/// Is the connection gone? Class 57P is a server that shuts down, or whose operator or time-out ended the connection;
/// 25P03 a transaction that did nothing for too long; class 08 what a proxy in between says.
fn is_lost(error: &sqlx::Error) -> bool {
    let ends_it = |error: &dyn sqlx::error::DatabaseError| {
        let code = error.code();
        code.is_some_and(|code| code.starts_with("57P") || code.starts_with("08") || code == "25P03")
    };
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        error => error.as_database_error().is_some_and(ends_it),
    }
}
