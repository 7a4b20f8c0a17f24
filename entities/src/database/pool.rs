//! The connections to PostgreSQL that serving uses: one set for reads and writes, lent for one statement or
//! one transaction at a time, and looked after here. What a connection is lent for always has a bound in
//! time, and none that may lie is lent again:
//!
//! - one whose BEGIN, COMMIT or ROLLBACK failed, or did not come to its end, is closed;
//! - one whose statement was given up (its request was over) is asked to cancel it and to answer, within a
//!   second; it is closed otherwise, and the idle ones have to answer before they are lent again;
//! - one that was idle for a second has to answer before it is lent: a server that vanished without a word, a
//!   firewall that forgot the connection, and a server that closed it are found out before a request depends
//!   on it;
//! - a BEGIN that found its connection closed runs once more on a new one; statements that change nothing are run again
//!   by who asked for them (`database`).
//!
//! While the server is away (`breaker`) nobody waits for it: what needs a connection fails at once, and the
//! server is asked in the background until it answers. What is lent to write has said that it can be written
//! to: after a failover, the server under the same name may be another one, or the same one that may no
//! longer be written to.
//!
//! Of several servers (`hosts`), connections lead to the one that is no standby, and to another one as soon
//! as that takes over.
//!
//! TCP's own bounds (keepalive, `TCP_USER_TIMEOUT`) cannot be set through the driver, and would not help
//! against a middle box that acknowledges what it no longer passes on. Nothing here waits for the kernel:
//! closing a socket does not block. Not here: what is read; SQLite, whose connections are the driver's
//! pool's; migrations and demo data, which use that too.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::{
    ConnAcquireErr, DbErr, Value,
    sqlx::{
        self, Connection as _, PgConnection, PgPool, SqlStr,
        error::DatabaseError,
        postgres::{PgConnectOptions, PgRow},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{timeout, timeout_at},
};

use crate::{
    database::{DatabaseOptions, Pooler, metrics::DatabaseMetrics},
    error::Error,
};

mod breaker;
mod cancel;
mod hosts;
mod pooled;
mod server;

use breaker::PostgresBreaker;
use cancel::Canceller;
pub(crate) use pooled::PooledConnection;
pub(super) use server::server_id;
pub(crate) use server::{ServerId, Watch};

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

/// How many connections there are, and how long things may take.
pub(super) struct PoolLimits {
    size: u32,
    acquire_timeout: Duration,
    statement_timeout: Option<Duration>,
    pooler: Pooler,
}

impl PoolLimits {
    pub(super) fn of(config: &DatabaseOptions) -> Self {
        let DatabaseOptions { max_connections, acquire_timeout, statement_timeout, pooler, .. } = *config;
        Self { size: max_connections.max(1), acquire_timeout, statement_timeout, pooler }
    }

    /// These limits where no pooler is in between.
    pub(super) fn without_pooler(self) -> Self {
        Self { pooler: Pooler::None, ..self }
    }
}

/// The connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool(Arc<PoolInner>);

struct PoolInner {
    /// Servers of one database, of which one takes writes; at least one.
    hosts: Vec<Host>,
    /// The one that took writes last.
    leader: AtomicUsize,
    /// The highest timeline that one of several servers was on which takes writes.
    timeline: AtomicI64,
    /// What else connects to the leader.
    following: Option<PgPool>,
    size: u32,
    /// As many as there may be connections.
    all: Arc<Semaphore>,
    /// Neither reads nor writes may have all of them.
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    /// How long a turn and a new connection may take together.
    acquire_timeout: Duration,
    pooler: Pooler,
    /// How long PostgreSQL may work on a statement.
    statement_timeout: Option<Duration>,
    /// How long a statement may take.
    limit: Option<Duration>,
    metrics: DatabaseMetrics,
    breaker: PostgresBreaker,
    idle: Mutex<Idle>,
    open: Arc<AtomicUsize>,
    /// The server that has committed last.
    written: Mutex<Option<ServerId>>,
}

/// A server.
struct Host {
    options: PgConnectOptions,
    canceller: Canceller,
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
    server: ServerId,
    /// The place of its server among the hosts.
    host: usize,
    /// When it was opened, the server took no writes.
    is_read_only: bool,
    /// It takes none because it is a standby.
    is_standby: bool,
    /// How far a standby had replayed the log then, in bytes.
    position: i64,
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
    /// Connections to whichever of these servers takes writes; `following` connects to the same one. A fifth
    /// of them, and one at least, is always left for reads, and as many for writes.
    pub(crate) fn new(
        hosts: Vec<PgConnectOptions>,
        following: Option<PgPool>,
        limits: &PoolLimits,
        metrics: DatabaseMetrics,
    ) -> Self {
        let share = limits.size.saturating_sub((limits.size / 5).max(1)).max(1);
        Self::with_share(hosts, following, limits, (share, true), metrics)
    }

    /// Connections to a standby, all of them for reads.
    pub(super) fn for_reads(
        options: &PgConnectOptions,
        limits: &PoolLimits,
        metrics: DatabaseMetrics,
    ) -> Self {
        Self::with_share(vec![options.clone()], None, limits, (limits.size, false), metrics)
    }

    fn with_share(
        hosts: Vec<PgConnectOptions>,
        following: Option<PgPool>,
        limits: &PoolLimits,
        (share, is_primary): (u32, bool),
        metrics: DatabaseMetrics,
    ) -> Self {
        let turns = |count: u32| Arc::new(Semaphore::new(count as usize));
        let PoolLimits { size, acquire_timeout, statement_timeout, pooler } = *limits;
        let host = |options: PgConnectOptions| Host { canceller: Canceller::new(options.clone()), options };
        Self(Arc::new(PoolInner {
            size,
            all: turns(size),
            reads: turns(share),
            writes: turns(share),
            acquire_timeout,
            pooler,
            statement_timeout,
            limit: statement_timeout.map(|limit| limit + LATE),
            breaker: PostgresBreaker::new(metrics.breaker_state(), is_primary),
            metrics,
            idle: Mutex::new(Idle { sessions: Some(Vec::new()), doubted: None, read_only: None }),
            open: Arc::default(),
            written: Mutex::default(),
            hosts: hosts.into_iter().map(host).collect(),
            leader: AtomicUsize::new(0),
            timeline: AtomicI64::new(0),
            following,
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
        if self.0.pooler != Pooler::Transaction {
            return pooled.run(names, text, values, &mut take).await.map(drop);
        }
        // The driver sends one statement as several messages, and the pooler could give each of them to another server.
        Box::pin(async {
            pooled.begin().await?;
            pooled.run(names, text, values, &mut take).await?;
            // All rows are there; nothing was changed that could be lost.
            pooled.end_reading().await;
            Ok(())
        })
        .await
    }

    /// Like `fetch`, on a connection to the server that is watched. `None`: there is none now, and nothing was run.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub(super) async fn fetch_from(
        &self,
        watch: &Watch,
        names: (&'static str, &'static str),
        text: SqlStr,
        values: Vec<Value>,
        mut take: impl FnMut(&PgRow) -> Result<(), sqlx::Error>,
    ) -> Result<Option<()>, Error> {
        let mut pooled = self.lend(Purpose::Read).await?;
        if !watch.covers(pooled.session()) {
            return Ok(None);
        }
        pooled.run(names, text, values, &mut take).await.map(|_| Some(()))
    }

    /// What is said on a connection is not there for the next statement.
    pub(super) fn lends_transactions(&self) -> bool {
        self.0.pooler == Pooler::Transaction
    }

    /// How the server is reached that took writes last.
    pub(super) fn leader(&self) -> &PgConnectOptions {
        &self.0.hosts[self.0.leader.load(Ordering::Relaxed)].options
    }

    /// The server that has committed last, if one has.
    pub(super) fn written(&self) -> Option<ServerId> {
        *self.0.written()
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
            self.metrics.turns.none();
            return Ok(Turn { _kind: kind, _any: any });
        }
        let (closed, waiting_now) = ("the turns are never closed", self.metrics.turns.begin());
        let waiting = Box::pin(timeout_at(deadline, async {
            let kind = Arc::clone(kind).acquire_owned().await.expect(closed);
            Turn { _kind: kind, _any: Arc::clone(&self.all).acquire_owned().await.expect(closed) }
        }));
        let turn = waiting.await;
        drop(waiting_now);
        turn.map_err(|_| Error::no_connection_in_time())
    }

    /// The one used last, and whether it has to answer before it is lent. An error once closed.
    fn take_idle(&self) -> Result<Option<(Session, bool)>, Error> {
        let mut idle = self.idle();
        let doubted = idle.doubted;
        let closed = || Error::Unavailable(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed));
        let sessions = idle.sessions.as_mut().ok_or_else(closed)?;
        // An old one is closed here, and one to a server that took the writes before.
        let leader = self.leader.load(Ordering::Relaxed);
        let is_good = |session: &Session| session.opened.elapsed() < OLDEST && session.host == leader;
        let session = sessions.pop().filter(is_good);
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

    fn written(&self) -> MutexGuard<'_, Option<ServerId>> {
        self.written.lock().expect("no panic happens under this lock")
    }
}

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
