//! Connections that reads of PostgreSQL keep. The pool pings a connection whenever it comes back, which would be a second
//! round trip for each statement; so reads hold on to a few connections and take turns on them, first come, first
//! served. Writes go by the pool, which has connections left for them. A statement that fails gives its connection back,
//! and the pool finds out what is left of it. A statement whose caller goes away is cancelled first, so that PostgreSQL
//! works for nobody who waits no more. Not here: what is read.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use sea_orm::{
    ConnAcquireErr, DbErr, RuntimeErr, Value, Values,
    sqlx::{
        self, AssertSqlSafe, ConnectOptions as _, PgConnection, PgPool, Postgres,
        pool::PoolConnection,
        postgres::{PgConnectOptions, PgRow},
    },
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{error::Error, store::DatabaseConfig};

/// How long a connection is kept until the pool gets to see to its age and health again.
const KEPT: Duration = Duration::from_mins(1);
/// How long cancelling a statement may take; its own time-out ends it soon anyway.
const CANCEL_WITHIN: Duration = Duration::from_secs(1);

/// The connections, and the turns on them.
pub(crate) struct Readers {
    pool: PgPool,
    turns: Semaphore,
    patience: Duration,
    canceller: Arc<Canceller>,
    /// None once closed.
    idle: Mutex<Option<Vec<Kept>>>,
}

struct Kept {
    connection: PoolConnection<Postgres>,
    /// The number of the process that serves it.
    backend: i32,
    since: Instant,
}

/// A connection while a statement runs on it.
struct Running<'r> {
    readers: &'r Readers,
    kept: Option<Kept>,
}

/// Tells PostgreSQL to stop working on a statement, by a connection of its own.
struct Canceller {
    options: Arc<PgConnectOptions>,
    connection: tokio::sync::Mutex<Option<PgConnection>>,
}

impl Readers {
    /// A fifth of the pool, and one connection at least, stays for writes. None if that leaves nothing.
    pub(crate) fn of(pool: &PgPool, config: &DatabaseConfig) -> Option<Self> {
        let most = config.max_connections - (config.max_connections / 5).max(1).min(config.max_connections);
        (most > 0).then(|| Self {
            pool: pool.clone(),
            turns: Semaphore::new(most as usize),
            patience: config.acquire_timeout,
            canceller: Arc::new(Canceller {
                options: pool.connect_options(),
                connection: tokio::sync::Mutex::default(),
            }),
            idle: Mutex::new(Some(Vec::new())),
        })
    }

    /// Runs a statement and hands its rows over as they arrive. What is rare on the way is boxed: this future is part of
    /// every batch, and small ones are cheaper to make.
    pub(crate) async fn fetch(
        &self,
        (name, table): (&'static str, &'static str),
        text: String,
        values: Vec<Value>,
        mut take: impl FnMut(&PgRow) -> Result<(), sqlx::Error>,
    ) -> Result<(), Error> {
        let _turn = self.turn().await?;
        let mut running = Running { readers: self, kept: Some(self.connection().await?) };
        let query = sqlx::query_with(AssertSqlSafe(text), SqlxValues(Values(values)));
        let mut rows = query.fetch(running.connection());
        let result = loop {
            match rows.try_next().await {
                Ok(None) => break Ok(()),
                Ok(Some(row)) => {
                    if let Err(source) = take(&row) {
                        break Err(Error::Row { table, source });
                    }
                }
                Err(error) => {
                    // What broke this connection has most likely broken the others too.
                    if is_lost(&error) {
                        self.idle().as_mut().map(Vec::clear);
                    }
                    let source = DbErr::Query(RuntimeErr::SqlxError(error.into()));
                    break Err(Error::Statement { statement: name, source });
                }
            }
        };
        drop(rows);
        // After an error it is dropped, and so given back.
        let kept = running.kept.take().filter(|_| result.is_ok());
        if let Some(kept) = kept {
            self.keep(kept);
        }
        result
    }

    /// Gives the connections back; those in use follow when they are done.
    pub(crate) fn close(&self) {
        self.idle().take();
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        let waiting = Box::pin(tokio::time::timeout(self.patience, self.turns.acquire())).await;
        let turn =
            waiting.map_err(|_| Error::Unavailable(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)))?;
        Ok(turn.expect("the turns are never closed"))
    }

    async fn connection(&self) -> Result<Kept, Error> {
        // An old one is dropped here, and so given back.
        let kept = self.idle().as_mut().and_then(Vec::pop).filter(|kept| kept.since.elapsed() < KEPT);
        if let Some(kept) = kept {
            return Ok(kept);
        }
        Box::pin(self.open()).await.map_err(|error| {
            Error::Unavailable(match error {
                sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
                sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
                error => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
            })
        })
    }

    async fn open(&self) -> Result<Kept, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let backend = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?;
        Ok(Kept { connection, backend, since: Instant::now() })
    }

    fn keep(&self, kept: Kept) {
        if let Some(idle) = self.idle().as_mut() {
            idle.push(kept);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<Kept>>> {
        self.idle.lock().expect("no panic happens under this lock")
    }
}

impl Running<'_> {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.kept.as_mut().expect("it is there until the statement has ended").connection
    }
}

/// The caller went away in the middle of a statement.
impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(Kept { connection, backend, .. }) = self.kept.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return drop(connection.leak()) };
        let canceller = Arc::clone(&self.readers.canceller);
        drop(runtime.spawn(async move {
            let cancelling = tokio::time::timeout(CANCEL_WITHIN, canceller.cancel(backend)).await;
            if !matches!(cancelling, Ok(Ok(()))) {
                tracing::warn!(
                    ?cancelling,
                    "a statement could not be cancelled; it runs until its own time-out"
                );
            }
            // Only now may somebody else get it: what was cancelled was this statement and no other.
            drop(connection);
        }));
    }
}

impl Canceller {
    async fn cancel(&self, backend: i32) -> Result<(), sqlx::Error> {
        let mut kept = self.connection.lock().await;
        if let Some(mut connection) = kept.take()
            && Self::ask(&mut connection, backend).await.is_ok()
        {
            *kept = Some(connection);
            return Ok(());
        }
        let mut connection = self.options.connect().await?;
        Self::ask(&mut connection, backend).await?;
        *kept = Some(connection);
        Ok(())
    }

    async fn ask(connection: &mut PgConnection, backend: i32) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_cancel_backend($1)").bind(backend).execute(connection).await.map(drop)
    }
}

/// Is the connection gone? Class 57P is a server that shuts down, or whose operator ended the connection.
fn is_lost(error: &sqlx::Error) -> bool {
    let shut_down =
        |error: &dyn sqlx::error::DatabaseError| error.code().is_some_and(|code| code.starts_with("57P"));
    matches!(error, sqlx::Error::Io(_)) || error.as_database_error().is_some_and(shut_down)
}

/// Giving a connection back takes a runtime; with the last handle gone there may be none, nor is there a pool to go to.
impl Drop for Readers {
    fn drop(&mut self) {
        for kept in self.idle().take().into_iter().flatten() {
            drop(kept.connection.leak());
        }
    }
}
