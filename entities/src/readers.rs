//! Connections that reads of PostgreSQL keep. The pool pings a connection whenever it comes back, which would be a second
//! round trip for each statement; so reads hold on to a few connections and take turns on them, first come, first
//! served. Writes go by the pool, which has connections left for them. A statement that fails, or whose caller goes
//! away, gives its connection back, and the pool finds out what is left of it. Not here: what is read.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use sea_orm::{
    ConnAcquireErr, DbErr, RuntimeErr, Value, Values,
    sqlx::{self, AssertSqlSafe, PgPool, Postgres, pool::PoolConnection, postgres::PgRow},
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    error::Error,
    store::{DatabaseConfig, Metrics},
};

/// How long a connection is kept until the pool gets to see to its age and health again.
const KEPT: Duration = Duration::from_mins(1);

/// The connections, and the turns on them.
pub(crate) struct Readers {
    pool: PgPool,
    turns: Semaphore,
    patience: Duration,
    metrics: Metrics,
    /// None once closed.
    idle: Mutex<Option<Vec<Kept>>>,
}

struct Kept {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Readers {
    /// A fifth of the pool, and one connection at least, stays for writes. None if that leaves nothing.
    pub(crate) fn of(pool: &PgPool, config: &DatabaseConfig, metrics: Metrics) -> Option<Self> {
        let most = config.max_connections - (config.max_connections / 5).max(1).min(config.max_connections);
        (most > 0).then(|| Self {
            pool: pool.clone(),
            turns: Semaphore::new(most as usize),
            patience: config.acquire_timeout,
            metrics,
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
        let asked = Instant::now();
        let _turn = self.turn().await?;
        let mut kept = self.connection().await?;
        self.metrics.waited(asked.elapsed());
        let query = sqlx::query_with(AssertSqlSafe(text), SqlxValues(Values(values)));
        let mut rows = query.fetch(&mut *kept.connection);
        let failed = |error| {
            // What broke this connection has most likely broken the others too.
            if is_lost(&error) {
                self.idle().as_mut().map(Vec::clear);
            }
            Error::Statement { statement: name, source: DbErr::Query(RuntimeErr::SqlxError(error.into())) }
        };
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            take(&row).map_err(|source| Error::Row { table, source })?;
        }
        drop(rows);
        self.keep(kept);
        Ok(())
    }

    /// Gives the connections back; those in use follow when they are done.
    pub(crate) fn close(&self) {
        self.idle().take();
    }

    /// Those that nobody uses now.
    pub(crate) fn idle_connections(&self) -> usize {
        self.idle().as_ref().map_or(0, Vec::len)
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
        let connection = Box::pin(self.pool.acquire()).await.map_err(|error| {
            Error::Unavailable(match error {
                sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
                sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
                error => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
            })
        })?;
        Ok(Kept { connection, since: Instant::now() })
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
