//! The one way to Redis. Redis is optional at run time: nothing here waits long, every failure is `Unavailable`, and
//! after some of them the breaker answers at once without asking, so that a slow or dead Redis costs latency and
//! never a request. Connects when first used; starting without Redis works. Not here: what is stored (`cache`),
//! what is told (`change`).

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo,
    Pipeline, RedisError, ServerErrorKind,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tracing::{Instrument as _, field::Empty};

mod breaker;
pub mod shared_kv;
mod subscription;

pub use subscription::{Delivery, Subscription};

use breaker::Breaker;

use crate::telemetry::SPANS;

/// Connecting may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// A read may take this long: then the database is asked instead.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_millis(25);
/// Between two log lines about refused commands: a Redis that refuses one refuses thousands.
const COMPLAINTS: Duration = Duration::from_secs(10);
/// A write may take this long.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_millis(250);

/// What was sent and is not acknowledged for so long ends the connection, whoever waits on it (`TCP_USER_TIMEOUT`).
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// After so long without a word the system asks whether the other end is there, and as often until it answers (keepalive).
const SILENCE: Duration = Duration::from_secs(2);
/// Questions without an answer that end the connection.
const QUESTIONS: u32 = 3;

/// Redis did not answer, or is not asked at present. What it was for has to do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis is unavailable")]
pub struct Unavailable;

/// Where Redis is: `redis://[user:password@]host[:port][/database]`, `rediss://…` with TLS, or
/// `redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/database]`.
#[derive(Clone)]
pub struct RedisUrl {
    text: String,
    source: RedisSource,
}

#[derive(Clone)]
enum RedisSource {
    Node(Client),
    /// Addresses of sentinels, the name of the master, and how to talk to it.
    Sentinel {
        sentinels: Vec<String>,
        master: String,
        database: i64,
        user: Option<String>,
        password: Option<String>,
    },
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let source = match text.strip_prefix("redis+sentinel://") {
            Some(rest) => RedisSource::sentinel(rest)?,
            None if ["redis://", "rediss://"].iter().any(|scheme| text.starts_with(scheme)) => {
                let wrong = |_| "expected the URL of a Redis server, such as redis://host:6379".to_owned();
                RedisSource::Node(reachable(text).and_then(Client::open).map_err(wrong)?)
            }
            None => return Err("it must begin with redis://, rediss:// or redis+sentinel://".to_owned()),
        };
        Ok(Self { text: text.to_owned(), source })
    }
}

impl RedisSource {
    fn sentinel(rest: &str) -> Result<Self, String> {
        let (account, rest) =
            rest.rsplit_once('@').map_or((None, rest), |(account, rest)| (Some(account), rest));
        let mut parts = rest.splitn(3, '/');
        let hosts = parts.next().unwrap_or_default();
        let master = parts
            .next()
            .filter(|name| !name.is_empty())
            .ok_or("the name of the master is missing: redis+sentinel://host:26379,host:26379/mymaster")?;
        let database =
            parts.next().map_or(Ok(0), str::parse).map_err(|_| "the database is a number".to_owned())?;
        let sentinels = hosts.split(',').map(|host| format!("redis://{host}")).collect();
        let (user, password) = match account.map(|account| account.split_once(':').unwrap_or(("", account))) {
            None => (None, None),
            Some(("", password)) => (None, Some(password.to_owned())),
            Some((user, password)) => (Some(user.to_owned()), Some(password.to_owned())),
        };
        Ok(Self::Sentinel { sentinels, master: master.to_owned(), database, user, password })
    }

    /// The instance to talk to now: sentinels are asked again for each connection, since the master moves.
    async fn client(&self) -> Result<Client, RedisError> {
        match self {
            Self::Node(client) => Ok(client.clone()),
            Self::Sentinel { sentinels, master, database, user, password } => {
                let mut info = redis::RedisConnectionInfo::default().set_db(*database);
                if let Some(user) = user {
                    info = info.set_username(user);
                }
                if let Some(password) = password {
                    info = info.set_password(password);
                }
                let node = SentinelNodeConnectionInfo::default()
                    .set_redis_connection_info(info)
                    .set_tcp_settings(tcp_settings());
                let sentinels = sentinels.iter().map(|url| reachable(url.as_str()));
                let sentinels = sentinels.collect::<Result<Vec<_>, _>>()?;
                let mut client =
                    SentinelClient::build(sentinels, master, Some(node), SentinelServerType::Master)?;
                client.async_get_client().await
            }
        }
    }
}

/// How to connect, so that a server that vanishes without a word is noticed on every connection.
fn reachable(url: &str) -> Result<ConnectionInfo, RedisError> {
    Ok(url.into_connection_info()?.set_tcp_settings(tcp_settings()))
}

fn tcp_settings() -> TcpSettings {
    let asking = TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE).with_retries(QUESTIONS);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(asking);
    // Other systems have no such bound; each command has its own.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED);
    settings
}

impl fmt::Display for RedisUrl {
    /// With the account and secret parameters masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::masked::url(&self.text))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<RedisInner>,
}

struct RedisInner {
    source: RedisSource,
    /// Shared by all commands; none while there is no connection.
    connection: RwLock<Option<MultiplexedConnection>>,
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
            source: url.source.clone(),
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
        let value = self.attempt(operation, timeout, run).await?;
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

    /// Tells everyone who listens on a channel.
    ///
    /// # Errors
    /// As `command`; nobody was told then.
    pub async fn publish(&self, channel: &str, payload: &[u8]) -> Result<(), Unavailable> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg(payload);
        self.command::<()>("publish", WRITE_TIMEOUT, &command).await
    }

    /// Which Redis it says it is; other servers of its kind say which one they are like.
    ///
    /// # Errors
    /// As `command`.
    pub async fn version(&self) -> Result<String, Unavailable> {
        let mut command = redis::cmd("INFO");
        command.arg("server");
        let told: String = self.command("version", WRITE_TIMEOUT, &command).await?;
        let version = told.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(version.unwrap_or("unknown").trim().to_owned())
    }

    /// Listens on a channel, from now on and across losses of the connection.
    pub fn subscribe(&self, channel: &str) -> Subscription {
        Subscription::begin(self.clone(), channel.to_owned())
    }

    /// From now on every connection begins with this command; where it fails there is no connection.
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
    pub(crate) async fn dedicated(&self) -> Result<MultiplexedConnection, Unavailable> {
        self.open().await.map_err(|_| Unavailable)
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
        self.attempt(operation, timeout, run).await
    }

    async fn attempt<T>(
        &self,
        operation: &'static str,
        timeout: Duration,
        run: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Unavailable> {
        let (inner, start) = (&*self.inner, Instant::now());
        let span = tracing::debug_span!(
            target: SPANS, "redis", otel.name = operation, otel.kind = "client", otel.status_code = Empty,
            db.system.name = "redis", db.operation.name = operation,
        );
        let known = inner.connection.read().expect("no panic happens under this lock").clone();
        // The time to connect comes on top: it is spent once, and is bounded by itself.
        let connection = match known {
            Some(connection) => Ok(connection),
            None => self.connect().await,
        };
        let result = match connection {
            Err(error) => Err(error),
            Ok(connection) => {
                match tokio::time::timeout(timeout, run(connection)).instrument(span.clone()).await {
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
                Err(self.failed(operation, &error))
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let began = Instant::now();
        let mut failed_at = self.inner.connecting.lock().await;
        if let Some(connection) = &*self.inner.connection.read().expect("no panic happens under this lock") {
            return Ok(connection.clone());
        }
        // Who has waited for an attempt that failed has failed with it: they do not try one after the other.
        if failed_at.is_some_and(|at| at >= began) {
            return Err(RedisError::from((ErrorKind::Io, "the connection was not made in time")));
        }
        let connection = self.open().await.inspect_err(|_| *failed_at = Some(Instant::now()))?;
        *self.inner.connection.write().expect("no panic happens under this lock") = Some(connection.clone());
        Ok(connection)
    }

    /// Without its type: to see that a request's future is `Send`, the compiler would look through the whole client.
    fn open(&self) -> BoxFuture<'_, Result<MultiplexedConnection, RedisError>> {
        Box::pin(self.open_now())
    }

    async fn open_now(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            // Each command has its own.
            .set_response_timeout(None);
        let connect = async {
            let client = self.inner.source.client().await?;
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let hook = self.inner.connection_hook.read().expect("no panic happens under this lock").clone();
            if let Some(hook) = hook {
                connection.req_packed_command(&hook).await?.extract_error()?;
            }
            Ok(connection)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(RedisError::from((ErrorKind::Io, "the connection was not made in time"))))
    }

    /// Notes a failure. A refusal of one command (a wrong type, say) is this command's; anything else is Redis's.
    fn failed(&self, operation: &'static str, error: &RedisError) -> Unavailable {
        use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly};
        let is_refusal = match error.kind() {
            ErrorKind::Server(kind) => !matches!(kind, BusyLoading | ClusterDown | MasterDown | ReadOnly),
            _ => false,
        };
        if is_refusal {
            return self.odd(operation, error);
        }
        // Whoever comes next connects anew: this one may be half dead, or to a master that is none any more.
        *self.inner.connection.write().expect("no panic happens under this lock") = None;
        let opened = self.breaker(|breaker| breaker.failed(Instant::now()));
        self.inner.metrics.count(operation, "failed");
        self.report();
        if opened {
            tracing::warn!(operation, %error, "Redis is not used until it answers again");
        }
        Unavailable
    }

    /// An answer that makes no sense: worth a look, but no sign that Redis is down.
    fn odd(&self, operation: &'static str, error: &dyn fmt::Display) -> Unavailable {
        self.breaker(Breaker::succeeded);
        self.inner.metrics.count(operation, "refused");
        let mut complained = self.inner.complained.lock().expect("no panic happens under this lock");
        if complained.is_none_or(|at| at.elapsed() > COMPLAINTS) {
            *complained = Some(Instant::now());
            tracing::warn!(operation, %error, "Redis refused a command");
        }
        Unavailable
    }

    fn breaker<T>(&self, ask: impl FnOnce(&mut Breaker) -> T) -> T {
        ask(&mut self.inner.breaker.lock().expect("no panic happens under this lock"))
    }

    fn report(&self) {
        self.inner.metrics.state.set(i64::from(!self.is_up()));
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("is_up", &self.is_up()).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// Figures of Redis.
struct RedisMetrics {
    commands: Family<Labels, Counter>,
    durations: Family<Operation, Histogram>,
    state: Gauge,
}

impl RedisMetrics {
    fn register(registry: &mut Registry) -> Self {
        let durations = Family::<Operation, Histogram>::new_with_constructor(|| {
            Histogram::new([
                0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25,
            ])
        });
        let metrics = Self { commands: Family::default(), durations, state: Gauge::default() };
        registry.register(
            "redis_commands",
            "Round trips to Redis, by operation and outcome",
            metrics.commands.clone(),
        );
        registry.register(
            "cache_operation_duration_seconds",
            "Time of one round trip to Redis, by operation",
            metrics.durations.clone(),
        );
        registry.register("circuit_breaker_state", "Redis: 0 closed, 1 open", metrics.state.clone());
        metrics
    }

    fn count(&self, operation: &'static str, outcome: &'static str) {
        self.commands.get_or_create(&Labels { operation, outcome }).inc();
    }

    fn observe(&self, operation: &'static str, elapsed: Duration) {
        self.durations.get_or_create(&Operation { operation }).observe(elapsed.as_secs_f64());
    }
}
