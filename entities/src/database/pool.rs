//! The connections to PostgreSQL that serving uses: one set for reads and writes, lent for one statement or one
//! transaction at a time, and looked after here. What a connection is lent for always has a bound in time, and none that
//! may lie is lent again:
//!
//! - one whose BEGIN, COMMIT or ROLLBACK failed, or did not come to its end, is closed;
//! - one whose statement was given up (its request was over) is asked to cancel it and to answer, within a second; it is
//!   closed otherwise, and the idle ones have to answer before they are lent again;
//! - one that was idle for a second has to answer before it is lent: a server that vanished without a word, a firewall that
//!   forgot the connection, and a server that closed it are found out before a request depends on it;
//! - a BEGIN that found its connection closed runs once more on a new one; statements that change nothing are run again
//!   by who asked for them (`database`).
//!
//! While the server is away (`breaker`) nobody waits for it: what needs a connection fails at once, and the server is asked
//! in the background until it answers. What is lent to write has said that it can be written to: after a failover, the
//! server under the same name may be another one, or the same one that may no longer be written to.
//!
//! TCP's own bounds (keepalive, `TCP_USER_TIMEOUT`) cannot be set through the driver, and would not help against a middle
//! box that acknowledges what it no longer passes on. Nothing here waits for the kernel: closing a socket does not block.
//! Not here: what is read; SQLite, whose connections are the driver's pool's; migrations and demo data, which use that too.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::{
    ConnAcquireErr, DbErr, Value,
    sqlx::{
        self, ConnectOptions as _, Connection as _, PgConnection, SqlStr,
        error::DatabaseError,
        postgres::{PgConnectOptions, PgRow},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{timeout, timeout_at},
};

use crate::{database::metrics::DatabaseMetrics, error::Error};

mod breaker;
mod cancel;
mod pooled;

use breaker::PostgresBreaker;
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
/// An attempt to connect that was given up after so long says that the server does not answer.
const CONNECT_IN_VAIN: Duration = Duration::from_millis(500);
/// Between two looks whether a server that was away is there again.
const LOOK_FOR_IT: Duration = Duration::from_millis(200);
/// How long such a look may take.
const LOOK_AT_MOST: Duration = Duration::from_secs(1);
/// A server that takes no writes is asked again after this time.
const READ_ONLY_FOR: Duration = Duration::from_millis(200);
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
    breaker: PostgresBreaker,
    canceller: Canceller,
    idle: Mutex<Idle>,
    open: Arc<AtomicUsize>,
}

struct Idle {
    /// The one used last comes last. None once closed.
    sessions: Option<Vec<Session>>,
    /// Those that have not answered since then have to answer before they are lent.
    doubted: Option<Instant>,
    /// A new connection said then that the server takes no writes.
    read_only: Option<Instant>,
}

/// An open connection.
struct Session {
    connection: PgConnection,
    /// The number of the process that serves it.
    backend: i32,
    /// When it was opened, the server took no writes.
    is_read_only: bool,
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
            breaker: PostgresBreaker::new(metrics.breaker_state()),
            metrics,
            canceller: Canceller::new(options.clone()),
            idle: Mutex::new(Idle { sessions: Some(Vec::new()), doubted: None, read_only: None }),
            open: Arc::default(),
            options: options.clone(),
        }))
    }

    /// Runs a statement that changes nothing and hands its rows over as they arrive.
    ///
    /// # Errors
    /// `Unavailable` without a connection, or where it was lost; the statement's own; `Row` where `take` fails.
    pub(crate) async fn fetch(
        &self,
        names: (&'static str, &'static str),
        text: SqlStr,
        values: Vec<Value>,
        mut take: impl FnMut(&PgRow) -> Result<(), sqlx::Error>,
    ) -> Result<(), Error> {
        let asked = Instant::now();
        let mut pooled = self.lend(Purpose::Read).await?;
        self.0.metrics.waited(asked.elapsed());
        pooled.run(names, text, values, &mut take).await.map(drop)
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
        self.fetch(("ping", "none"), SqlStr::from_static("SELECT 1"), Vec::new(), nothing).await
    }

    /// The server did not answer for a while, and does not yet.
    pub(crate) fn is_away(&self) -> bool {
        self.0.breaker.is_away()
    }

    async fn lend(&self, purpose: Purpose) -> Result<PooledConnection, Error> {
        let shared = &self.0;
        shared.check_that_it_is_there()?;
        let deadline = tokio::time::Instant::now() + shared.acquire_timeout;
        let turn = shared.turn(purpose, deadline).await?;
        // It may have gone away while others had their turn.
        shared.check_that_it_is_there()?;
        let found = shared.take_idle()?;
        // One that could not be written to makes room for a new one: the server may be another one by now.
        let found = found.filter(|(session, _)| purpose == Purpose::Read || !session.is_read_only);
        let Some((session, must_answer)) = found else {
            let session = Box::pin(shared.open_for(purpose, deadline)).await?;
            return Ok(PooledConnection::new(self.clone(), session, turn, true));
        };
        if !must_answer {
            return Ok(PooledConnection::new(self.clone(), session, turn, false));
        }
        let session = Box::pin(async {
            match shared.prove(session).await {
                Some(session) => Ok(session),
                None => shared.open_for(purpose, deadline).await,
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
        waiting.await.map_err(|_| Error::no_connection_in_time())
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

    /// # Errors
    /// `Unavailable` while the server is away.
    fn check_that_it_is_there(&self) -> Result<(), Error> {
        let is_away = self.breaker.is_away();
        let away = || Error::Unavailable(DbErr::Custom("PostgreSQL is away".to_owned()));
        if is_away { Err(away()) } else { Ok(()) }
    }

    /// A new connection that can do what it is wanted for.
    async fn open_for(
        self: &Arc<Self>,
        purpose: Purpose,
        deadline: tokio::time::Instant,
    ) -> Result<Session, Error> {
        let is_write = purpose == Purpose::Write;
        let read_only = || Error::ReadOnly(DbErr::Custom("this server takes no writes".to_owned()));
        let found = |at: Instant| at.elapsed() < READ_ONLY_FOR;
        if is_write && self.idle().read_only.is_some_and(found) {
            return Err(read_only());
        }
        let session = self.open_until(deadline).await?;
        if is_write && session.is_read_only {
            self.idle().read_only = Some(Instant::now());
            self.give_back(session);
            return Err(read_only());
        }
        Ok(session)
    }

    async fn open_until(self: &Arc<Self>, deadline: tokio::time::Instant) -> Result<Session, Error> {
        let attempt = Attempt { pool: self, began: Instant::now(), is_over: false };
        let opened = timeout_at(deadline, self.open()).await;
        attempt.end(&opened);
        opened.map_err(|_| Error::no_connection_in_time())?.map_err(Error::unavailable)
    }

    async fn open(&self) -> Result<Session, sqlx::Error> {
        let open = Open(Arc::clone(&self.open));
        open.0.fetch_add(1, Ordering::Relaxed);
        let mut connection = self.options.connect().await?;
        let (backend, is_read_only) = sqlx::query_as(WHAT_IT_IS).fetch_one(&mut connection).await?;
        let now = Instant::now();
        Ok(Session { connection, backend, is_read_only, opened: now, answered: now, _open: open })
    }

    /// The server did not answer. After a few times nobody waits for it any more.
    fn failed(self: &Arc<Self>) {
        if !self.breaker.failed() {
            return;
        }
        self.forget_idle();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(look_for_it(Arc::downgrade(self))));
        }
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

/// The number of the process, and whether it takes no writes: it is a standby, or was told so.
const WHAT_IT_IS: &str =
    "SELECT pg_backend_pid(), pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";

/// An attempt to open a connection. Also one that its caller gives up says something about the server.
struct Attempt<'a> {
    pool: &'a Arc<PoolInner>,
    began: Instant,
    is_over: bool,
}

impl Attempt<'_> {
    fn end<E>(mut self, opened: &Result<Result<Session, sqlx::Error>, E>) {
        self.is_over = true;
        match opened {
            Ok(Ok(_)) => self.pool.breaker.succeeded(),
            // There is a server, which has no room.
            Ok(Err(error)) if is_crowded(error) => {}
            // It may have begun when there was hardly time left.
            Err(_) if self.began.elapsed() <= CONNECT_IN_VAIN => {}
            Ok(Err(_)) | Err(_) => self.pool.failed(),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.began.elapsed() > CONNECT_IN_VAIN {
            self.pool.failed();
        }
    }
}

/// Class 53 is a server without room for another connection.
fn is_crowded(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code.starts_with("53"))
}

/// Asks a server that is away until it answers, or nobody wants to know any more.
async fn look_for_it(pool: Weak<PoolInner>) {
    loop {
        tokio::time::sleep(LOOK_FOR_IT).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.breaker.is_away() || pool.idle().sessions.is_none() {
            return;
        }
        match timeout(LOOK_AT_MOST, pool.open()).await {
            Ok(Ok(session)) => {
                pool.give_back(session);
                pool.breaker.succeeded();
                return;
            }
            Ok(Err(error)) if is_crowded(&error) => pool.breaker.succeeded(),
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// The statement time-out that the server is told at the start of each connection.
fn statement_timeout(options: &PgConnectOptions) -> Option<Duration> {
    let (_, rest) = options.get_options()?.rsplit_once("statement_timeout=")?;
    let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis)
}
