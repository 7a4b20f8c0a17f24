//! The connections to PostgreSQL that serving uses: one set for reads and writes, lent for one statement or one
//! transaction at a time, and looked after here. What a connection is lent for always has a bound in time, and none that
//! may lie is lent again:
//!
//! - one whose BEGIN, COMMIT or ROLLBACK failed, or did not come to its end, is closed;
//! - one whose statement was given up (its request was over) is asked to cancel it and to answer, within a second; it is
//!   closed otherwise, and the idle ones have to answer before they are lent again;
//! - one that was idle for a second has to answer before it is lent: a server that vanished without a word, a firewall that
//!   forgot the connection, and a server that closed it are found out before a request depends on it;
//! - a read that found its connection closed before anything was answered, and a BEGIN, run once more on a new one.
//!
//! TCP's own bounds (keepalive, `TCP_USER_TIMEOUT`) cannot be set through the driver, and would not help against a middle
//! box that acknowledges what it no longer passes on. Nothing here waits for the kernel: closing a socket does not block.
//! Not here: what is read; SQLite, whose connections are the driver's pool's; migrations and demo data, which use that too.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::{
    ConnAcquireErr, DbErr, RuntimeErr, Value,
    sqlx::{
        self, AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqlSafeStr as _,
        postgres::{PgConnectOptions, PgRow},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{timeout, timeout_at},
};

use crate::{database::metrics::DatabaseMetrics, error::Error};

mod cancel;
mod pooled;

use cancel::Canceller;
pub(crate) use pooled::PooledConnection;

/// A connection is trusted for so long after it has last answered.
const TRUSTED: Duration = Duration::from_secs(1);
/// How long an idle connection may take to say that it is there.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// A connection is replaced after this time, so that a server behind a name that moved is found.
const OLDEST: Duration = Duration::from_mins(30);
/// A connection that nobody needed for so long is closed.
const IDLE_AT_MOST: Duration = Duration::from_mins(10);
/// How long closing everything may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// PostgreSQL ends a statement at its own time-out; an answer that is later than this beyond it will not come.
const LATE: Duration = Duration::from_secs(1);

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// One statement that changes nothing.
    Read,
    /// A transaction.
    Write,
}

/// The connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool(Arc<PoolInner>);

struct PoolInner {
    options: PgConnectOptions,
    size: u32,
    /// As many as there may be connections.
    all: Arc<Semaphore>,
    /// Neither reads nor writes may have all of them.
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    /// How long a turn and a new connection may take together.
    acquire_timeout: Duration,
    /// How long a statement may take.
    limit: Option<Duration>,
    metrics: DatabaseMetrics,
    canceller: Canceller,
    idle: Mutex<Idle>,
    open: Arc<AtomicUsize>,
}

struct Idle {
    /// The one used last comes last. None once closed.
    sessions: Option<Vec<Session>>,
    /// Those that have not answered since then have to answer before they are lent.
    doubted: Option<Instant>,
}

/// An open connection.
struct Session {
    connection: PgConnection,
    /// The number of the process that serves it.
    backend: i32,
    opened: Instant,
    answered: Instant,
    _open: Open,
}

/// Counts a connection for as long as it is open.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to one connection.
struct Turn {
    _kind: OwnedSemaphorePermit,
    _any: OwnedSemaphorePermit,
}

impl Pool {
    /// Of `size` connections at most. A fifth of them, and one at least, is always left for reads, and as many for writes.
    pub(crate) fn new(
        options: &PgConnectOptions,
        size: u32,
        acquire_timeout: Duration,
        metrics: DatabaseMetrics,
    ) -> Self {
        let size = size.max(1);
        let share = size.saturating_sub((size / 5).max(1)).max(1);
        let turns = |count: u32| Arc::new(Semaphore::new(count as usize));
        Self(Arc::new(PoolInner {
            size,
            all: turns(size),
            reads: turns(share),
            writes: turns(share),
            acquire_timeout,
            limit: statement_timeout(options).map(|limit| limit + LATE),
            metrics,
            canceller: Canceller::new(options.clone()),
            idle: Mutex::new(Idle { sessions: Some(Vec::new()), doubted: None }),
            open: Arc::default(),
            options: options.clone(),
        }))
    }

    /// Runs a statement that changes nothing and hands its rows over as they arrive. What is rare on the way is boxed:
    /// this future is part of every batch, and small ones are cheaper to make.
    ///
    /// # Errors
    /// `Unavailable` without a connection, or where it was lost twice; the statement's own; `Row` where `take` fails.
    pub(crate) async fn fetch(
        &self,
        names: (&'static str, &'static str),
        text: String,
        values: Vec<Value>,
        mut take: impl FnMut(&PgRow) -> Result<(), sqlx::Error>,
    ) -> Result<(), Error> {
        let asked = Instant::now();
        let mut pooled = self.lend(Purpose::Read).await?;
        self.0.metrics.waited(asked.elapsed());
        let text = AssertSqlSafe(Arc::<str>::from(text)).into_sql_str();
        let again = (!pooled.is_proven()).then(|| (text.clone(), values.clone()));
        let result = pooled.run(names, text, values, &mut take).await;
        match (result, again) {
            (Err(_), Some((text, values))) if pooled.was_closed_before_an_answer() => {
                Box::pin(async {
                    pooled.replace().await?;
                    pooled.run(names, text, values, &mut take).await.map(drop)
                })
                .await
            }
            (result, _) => result.map(drop),
        }
    }

    /// Begins a transaction; what is lent is rolled back or closed unless it is committed.
    ///
    /// # Errors
    /// `Unavailable` without a connection; the server's refusal.
    pub(crate) async fn begin(&self) -> Result<PooledConnection, Error> {
        let mut pooled = self.lend(Purpose::Write).await?;
        match pooled.begin().await {
            // Nothing can have been done.
            Err(_) if !pooled.is_proven() && pooled.was_closed_before_an_answer() => {
                pooled.replace().await?;
                pooled.begin().await?;
            }
            result => result?,
        }
        Ok(pooled)
    }

    /// Is the server there? One round trip on one of the connections.
    ///
    /// # Errors
    /// `Unavailable` where not.
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        let nothing = |_: &PgRow| Ok(());
        self.fetch(("ping", "none"), "SELECT 1".to_owned(), Vec::new(), nothing).await
    }

    async fn lend(&self, purpose: Purpose) -> Result<PooledConnection, Error> {
        let shared = &self.0;
        let deadline = tokio::time::Instant::now() + shared.acquire_timeout;
        let turn = shared.turn(purpose, deadline).await?;
        let Some((session, must_answer)) = shared.take_idle()? else {
            let session = Box::pin(shared.open_until(deadline)).await?;
            return Ok(PooledConnection::new(self.clone(), session, turn, true));
        };
        if !must_answer {
            return Ok(PooledConnection::new(self.clone(), session, turn, false));
        }
        let session = Box::pin(async {
            match shared.prove(session).await {
                Some(session) => Ok(session),
                None => shared.open_until(deadline).await,
            }
        });
        Ok(PooledConnection::new(self.clone(), session.await?, turn, true))
    }

    /// Closes all connections; statements under way finish first, if they do so soon. What is still in use then closes
    /// when it is given back.
    pub(crate) async fn close(&self) {
        let shared = &self.0;
        let idle = shared.idle().sessions.take();
        let _ = timeout(CLOSE_WITHIN, async {
            // Says good-bye: the server need not find out by itself.
            for session in idle.into_iter().flatten() {
                let _ = session.connection.close().await;
            }
            let _ = shared.all.acquire_many(shared.size).await;
        })
        .await;
    }

    /// All connections that are open, and those of them that nobody uses.
    pub(crate) fn count(&self) -> (usize, usize) {
        let idle = self.0.idle().sessions.as_ref().map_or(0, Vec::len);
        (self.0.open.load(Ordering::Relaxed).max(idle), idle)
    }
}

impl PoolInner {
    async fn turn(&self, purpose: Purpose, deadline: tokio::time::Instant) -> Result<Turn, Error> {
        let kind = match purpose {
            Purpose::Read => &self.reads,
            Purpose::Write => &self.writes,
        };
        if let Ok(kind) = Arc::clone(kind).try_acquire_owned()
            && let Ok(any) = Arc::clone(&self.all).try_acquire_owned()
        {
            return Ok(Turn { _kind: kind, _any: any });
        }
        let closed = "the turns are never closed";
        let waiting = Box::pin(timeout_at(deadline, async {
            let kind = Arc::clone(kind).acquire_owned().await.expect(closed);
            Turn { _kind: kind, _any: Arc::clone(&self.all).acquire_owned().await.expect(closed) }
        }));
        waiting.await.map_err(|_| none_in_time())
    }

    /// The one used last, and whether it has to answer before it is lent. An error once closed.
    fn take_idle(&self) -> Result<Option<(Session, bool)>, Error> {
        let mut idle = self.idle();
        let doubted = idle.doubted;
        let closed = || Error::Unavailable(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed));
        let sessions = idle.sessions.as_mut().ok_or_else(closed)?;
        // An old one is closed here.
        let session = sessions.pop().filter(|session| session.opened.elapsed() < OLDEST);
        Ok(session.map(|session| {
            let is_doubted = doubted.is_some_and(|at| session.answered < at);
            let must_answer = is_doubted || session.answered.elapsed() > TRUSTED;
            (session, must_answer)
        }))
    }

    /// The connection, if it answers. If not, the others that are idle are most likely lost too.
    async fn prove(&self, mut session: Session) -> Option<Session> {
        if let Ok(Ok(())) = timeout(ANSWER_WITHIN, session.connection.ping()).await {
            session.answered = Instant::now();
            return Some(session);
        }
        tracing::info!("an idle connection to PostgreSQL was lost; the idle ones are replaced");
        self.forget_idle();
        None
    }

    async fn open_until(&self, deadline: tokio::time::Instant) -> Result<Session, Error> {
        let opening = async {
            let open = Open(Arc::clone(&self.open));
            open.0.fetch_add(1, Ordering::Relaxed);
            let mut connection = self.options.connect().await?;
            let backend = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
            let now = Instant::now();
            Ok(Session { connection, backend, opened: now, answered: now, _open: open })
        };
        let opened = timeout_at(deadline, opening).await.map_err(|_| none_in_time())?;
        opened.map_err(unavailable)
    }

    /// Somebody else may have it. Those at the other end of the row have not been needed for the longest time.
    fn give_back(&self, session: Session) {
        let mut old = Vec::new();
        if let Some(sessions) = &mut self.idle().sessions {
            let stale =
                sessions.iter().take_while(|session| session.answered.elapsed() > IDLE_AT_MOST).count();
            old.extend(sessions.drain(..stale));
            sessions.push(session);
        }
        drop(old);
    }

    /// What broke one connection has most likely broken the others too.
    fn forget_idle(&self) {
        let lost = self.idle().sessions.as_mut().map(std::mem::take);
        drop(lost);
    }

    /// Something did not answer: who is idle has to, before it is lent.
    fn doubt(&self) {
        self.idle().doubted = Some(Instant::now());
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().expect("no panic happens under this lock")
    }
}

/// The statement time-out that the server is told at the start of each connection.
fn statement_timeout(options: &PgConnectOptions) -> Option<Duration> {
    let (_, rest) = options.get_options()?.rsplit_once("statement_timeout=")?;
    let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis)
}

fn none_in_time() -> Error {
    Error::Unavailable(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))
}

fn unavailable(error: sqlx::Error) -> Error {
    Error::Unavailable(DbErr::Conn(RuntimeErr::SqlxError(error.into())))
}
