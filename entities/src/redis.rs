//! The one way to Redis. Redis is optional at run time: nothing here waits long, every failure is `Unavailable`, and
//! after some of them the breaker answers at once without asking, so that a slow or dead Redis costs latency and
//! never a request. Connects when first used; starting without Redis works. Not here: what is stored (`cache`),
//! what is told (`change`).

use std::{
    fmt,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use tracing::{Instrument as _, field::Empty};

mod breaker;
mod connect;
mod metrics;
mod sentinel;
pub mod shared_kv;
mod subscription;
mod url;

pub(crate) use connect::CheckedConnection;
pub use connect::{RedisDescription, ServerInfo};
pub use subscription::{Delivery, Subscription};
pub use url::RedisUrl;

use breaker::Breaker;
use connect::{Route, late};
use metrics::RedisMetrics;

use crate::telemetry::SPANS;

/// Connecting may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// A read may take this long: then the database is asked instead.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_millis(25);
/// Between two log lines about refused commands: a Redis that refuses one refuses thousands.
const COMPLAINTS: Duration = Duration::from_secs(10);
/// A write may take this long.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_millis(250);

/// Redis did not answer, or is not asked at present. What it was for has to do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis is unavailable")]
pub struct Unavailable;

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<RedisInner>,
}

struct RedisInner {
    route: Route,
    has_tls: bool,
    /// Shared by all commands; none while there is no connection.
    connection: RwLock<Option<CheckedConnection>>,
    /// One task connects at a time; when that last failed.
    connecting: tokio::sync::Mutex<Option<Instant>>,
    /// Runs on each new connection before anything else.
    connection_hook: RwLock<Option<Arc<Cmd>>>,
    /// When a refusal was last logged.
    complained: Mutex<Option<Instant>>,
    breaker: Mutex<Breaker>,
    metrics: RedisMetrics,
}

impl Redis {
    /// A handle that connects when it is first used. Metrics go into `registry`.
    pub fn new(url: &RedisUrl, registry: &mut Registry) -> Self {
        let inner = RedisInner {
            route: Route::new(&url.source),
            has_tls: url.source.has_tls(),
            connection: RwLock::default(),
            connecting: tokio::sync::Mutex::default(),
            connection_hook: RwLock::default(),
            complained: Mutex::default(),
            breaker: Mutex::default(),
            metrics: RedisMetrics::register(registry),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Runs one command.
    ///
    /// # Errors
    /// `Unavailable` when there is no answer within `timeout`, and at once while the breaker is open.
    pub async fn command<T: FromRedisValue>(
        &self,
        operation: &'static str,
        timeout: Duration,
        command: &Cmd,
    ) -> Result<T, Unavailable> {
        let run = async |mut connection: MultiplexedConnection| connection.req_packed_command(command).await;
        let value = self.run(operation, timeout, run).await?;
        redis::from_redis_value(value).map_err(|error| self.odd(operation, &error))
    }

    /// Runs a command, also while the breaker is open: for what others must be told, if there is any way to.
    ///
    /// # Errors
    /// `Unavailable` when there is no answer within `timeout`.
    pub(crate) async fn insist<T: FromRedisValue>(
        &self,
        operation: &'static str,
        timeout: Duration,
        command: &Cmd,
    ) -> Result<T, Unavailable> {
        let run = async |mut connection: MultiplexedConnection| connection.req_packed_command(command).await;
        // What was connected to last may still be what the others use: whether it is believed is asked afterwards.
        let last = self.inner.connection.read().expect("no panic happens under this lock").clone();
        let value = self.attempt(operation, timeout, last, run).await?;
        redis::from_redis_value(value).map_err(|error| self.odd(operation, &error))
    }

    /// Runs several commands in one round trip; the answers are in order.
    ///
    /// # Errors
    /// As `command`.
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        operation: &'static str,
        timeout: Duration,
        pipeline: &Pipeline,
    ) -> Result<T, Unavailable> {
        let run = async |mut connection: MultiplexedConnection| pipeline.query_async(&mut connection).await;
        self.run(operation, timeout, run).await
    }

    /// Appends an entry to a stream, of which about so many are kept.
    ///
    /// # Errors
    /// As `command`; the entry may be there all the same.
    pub async fn append(
        &self,
        stream: &str,
        most: u64,
        fields: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<(), Unavailable> {
        let mut command = redis::cmd("XADD");
        command.arg(stream).arg("MAXLEN").arg("~").arg(most).arg("*").arg(fields);
        self.command::<String>("append", timeout, &command).await.map(drop)
    }

    /// Tells everyone who listens on a channel.
    ///
    /// # Errors
    /// As `command`; nobody was told then.
    pub async fn publish(&self, channel: &str, payload: &[u8]) -> Result<(), Unavailable> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg(payload);
        self.command::<()>("publish", WRITE_TIMEOUT, &command).await
    }

    /// Listens on a channel, from now on and across losses of the connection.
    pub fn subscribe(&self, channel: &str) -> Subscription {
        Subscription::begin(self.clone(), channel.to_owned())
    }

    /// From now on every connection begins with this command; where it fails there is no connection. It gets
    /// one argument more: 1 where nobody can use another master than this one any more, and 0 where somebody
    /// may.
    pub(crate) fn set_connection_hook(&self, hook: Cmd) {
        let lock = "no panic happens under this lock";
        *self.inner.connection_hook.write().expect(lock) = Some(Arc::new(hook));
        // The one that may be there has begun without it.
        *self.inner.connection.write().expect(lock) = None;
    }

    /// A connection for one user, who waits on it.
    ///
    /// # Errors
    /// `Unavailable` when there is none in time.
    pub(crate) async fn dedicated(&self) -> Result<CheckedConnection, Unavailable> {
        self.open().await.map_err(|_| Unavailable)
    }

    /// Done when what comes on this connection is not to be believed any more: the sentinels name another
    /// master, or none.
    pub(crate) async fn until_replaced(&self, connection: &CheckedConnection) {
        self.inner.route.until_unconfirmed(connection.master.as_ref()).await;
    }

    /// Is what came on a connection of this term still to be believed? Where sentinels name the master, they
    /// have to do so again and again, without a break.
    pub(crate) fn confirms_term(&self, term: u64) -> bool {
        self.inner.route.confirmed_term() == Some(term)
    }

    /// The next command connects anew.
    pub(crate) fn disconnect(&self) {
        *self.inner.connection.write().expect("no panic happens under this lock") = None;
    }

    /// Tells the log why a connection of one user is of no use, if that is Redis's refusal.
    pub(crate) fn complain(&self, operation: &'static str, error: &RedisError) {
        if matches!(error.kind(), ErrorKind::Server(_)) && is_refusal(error) {
            self.log_refusal(operation, error);
        }
    }

    /// Whether the breaker lets commands through.
    pub fn is_up(&self) -> bool {
        self.breaker(Breaker::is_closed)
    }

    async fn run<T>(
        &self,
        operation: &'static str,
        timeout: Duration,
        run: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Unavailable> {
        if !self.breaker(|breaker| breaker.admit(Instant::now())) {
            self.inner.metrics.count(operation, "rejected");
            return Err(Unavailable);
        }
        self.attempt(operation, timeout, self.connection(), run).await
    }

    async fn attempt<T>(
        &self,
        operation: &'static str,
        timeout: Duration,
        known: Option<CheckedConnection>,
        run: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Unavailable> {
        let (inner, start) = (&*self.inner, Instant::now());
        let span = tracing::debug_span!(
            target: SPANS, "redis", otel.name = operation, otel.kind = "client", otel.status_code = Empty,
            db.system.name = "redis", db.operation.name = operation,
        );
        // The time to connect comes on top: it is spent once, and is bounded by itself.
        let connection = match known {
            Some(connection) => Ok(connection),
            None => self.connect().await,
        };
        let is_connected = connection.is_ok();
        let result = match connection {
            Err(error) => Err(error),
            Ok(CheckedConnection { connection, master }) => {
                match tokio::time::timeout(timeout, run(connection)).instrument(span.clone()).await {
                    // Another one may have taken its place before it answered, or nobody knows whether it has.
                    Ok(Ok(_)) if !inner.route.confirms(master.as_ref()) => {
                        inner.metrics.count(operation, "failed");
                        return Err(Unavailable);
                    }
                    Ok(result) => result,
                    Err(_) => Err(RedisError::from((ErrorKind::Io, "the answer did not come in time"))),
                }
            }
        };
        inner.metrics.observe(operation, start.elapsed());
        match result {
            Ok(value) => {
                self.breaker(Breaker::succeeded);
                inner.metrics.count(operation, "ok");
                self.report();
                Ok(value)
            }
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                // What is refused while a connection is made is refused to every command.
                Err(if is_connected && is_refusal(&error) {
                    self.odd(operation, &error)
                } else {
                    if is_connected {
                        // Whoever comes next connects anew: this one may be half dead, or to a master that is
                        // none any more.
                        self.disconnect();
                    }
                    self.failed(operation, &error)
                })
            }
        }
    }

    /// The one that all share, if it may be used.
    fn connection(&self) -> Option<CheckedConnection> {
        let connection = self.inner.connection.read().expect("no panic happens under this lock").clone();
        connection.filter(|connection| self.inner.route.confirms(connection.master.as_ref()))
    }

    async fn connect(&self) -> Result<CheckedConnection, RedisError> {
        let began = Instant::now();
        let mut failed_at = self.inner.connecting.lock().await;
        if let Some(connection) = self.connection() {
            return Ok(connection);
        }
        // Who has waited for an attempt that failed has failed with it: they do not try one after the other.
        if failed_at.is_some_and(|at| at >= began) {
            return Err(late());
        }
        let connection = self.open().await.inspect_err(|_| *failed_at = Some(Instant::now()))?;
        *self.inner.connection.write().expect("no panic happens under this lock") = Some(connection.clone());
        Ok(connection)
    }

    /// Notes a failure of Redis.
    fn failed(&self, operation: &'static str, error: &RedisError) -> Unavailable {
        let opened = self.breaker(|breaker| breaker.failed(Instant::now()));
        self.inner.metrics.count(operation, "failed");
        self.report();
        if opened {
            let error = connect::reason(error);
            tracing::warn!(operation, error, "Redis is not used until it answers again");
        }
        Unavailable
    }

    /// An answer that makes no sense: worth a look, but no sign that Redis is down.
    fn odd(&self, operation: &'static str, error: &dyn fmt::Display) -> Unavailable {
        self.breaker(Breaker::succeeded);
        self.inner.metrics.count(operation, "refused");
        self.log_refusal(operation, error);
        Unavailable
    }

    fn log_refusal(&self, operation: &'static str, error: &dyn fmt::Display) {
        let mut complained = self.inner.complained.lock().expect("no panic happens under this lock");
        if complained.is_none_or(|at| at.elapsed() > COMPLAINTS) {
            *complained = Some(Instant::now());
            tracing::warn!(operation, %error, "Redis refused a command");
        }
    }

    fn breaker<T>(&self, ask: impl FnOnce(&mut Breaker) -> T) -> T {
        ask(&mut self.inner.breaker.lock().expect("no panic happens under this lock"))
    }

    fn report(&self) {
        self.inner.metrics.state.set(i64::from(!self.is_up()));
    }
}

/// A refusal of one command (a wrong type, say) is this command's; anything else is Redis's.
fn is_refusal(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, CrossSlot, MasterDown, Moved, ReadOnly};
    match error.kind() {
        ErrorKind::Server(kind) => {
            !matches!(kind, Ask | BusyLoading | ClusterDown | CrossSlot | MasterDown | Moved | ReadOnly)
        }
        _ => false,
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("is_up", &self.is_up()).finish_non_exhaustive()
    }
}
