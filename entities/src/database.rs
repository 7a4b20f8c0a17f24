//! The database: its connections, statements and transactions, the order of lists, and who may read which rows. Every
//! statement has a name, is timed into a metric and, where a request asks for it, into that request's log. Not here:
//! what is read and written (the domains), what is remembered of it (`cache`).

use std::{
    fmt,
    hash::Hash,
    str::FromStr as _,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use rustc_hash::FxHashMap;
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DbBackend, Statement, Value,
    sqlx::{
        AssertSqlSafe, SqlSafeStr as _, SqlStr,
        postgres::{PgConnectOptions, PgRow},
    },
};
use tracing::{Instrument as _, Span, field::Empty};
use uuid::Uuid;

use crate::{
    error::{Error, pause_before},
    telemetry::SPANS,
};

mod connections;
pub(crate) mod history;
mod metrics;
mod notifications;
mod open;
pub mod page;
mod plan;
mod pool;
mod probe;
pub(crate) mod replica;
pub mod role;
pub mod scope;
pub(crate) mod snapshot;
pub(crate) mod sql;
mod statement;
pub mod statement_log;
pub(crate) mod text_enum;
pub(crate) mod transaction;
mod writes;

use history::{History, Place};
use metrics::DatabaseMetrics;
pub use metrics::{ConnectionWaits, WaitSum};
pub use open::split_hosts;
use open::{is_in_memory, make_private_file, options, serving};
use pool::{Pool, PoolLimits, ServerId};
use probe::Probe;
use replica::{OnReplica, Replica, ReplicaMetrics, Watcher};
use sql::{Cells, Record, RowSource, Sql};
use statement_log::{Executed, StatementLog};
pub use writes::WriteFault;
use writes::Writes;

/// How long closing the driver's pool may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// Where the database is and how it is used.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    /// `postgres://…` or `sqlite:path`.
    pub url: String,
    /// Connections kept open at most. Few and busy ones win for short statements.
    pub max_connections: u32,
    /// How long connecting, or waiting for a free connection, may take.
    pub acquire_timeout: Duration,
    /// How long PostgreSQL may work on one statement; none: as long as it takes.
    pub statement_timeout: Option<Duration>,
    /// What is between this process and PostgreSQL.
    pub pooler: Pooler,
    /// Leads to this database without a pooler in between, for what needs connections of its own: migrations, and the
    /// upkeep of partitions. None: `url`.
    pub direct_url: Option<String>,
    /// Standbys of a PostgreSQL, for reads.
    pub replicas: ReplicaOptions,
}

/// A program between this process and PostgreSQL that lends connections, as `PgBouncer` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// There is none.
    #[default]
    None,
    /// It lends a connection for as long as this process keeps its own (`pool_mode = session`).
    Session,
    /// It lends a connection for one transaction (`pool_mode = transaction`): no setting and no prepared
    /// statement outlives that.
    Transaction,
}

impl DatabaseOptions {
    /// This database, with five connections at most and nothing else said.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 5,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: None,
            pooler: Pooler::None,
            direct_url: None,
            replicas: ReplicaOptions::default(),
        }
    }
}

/// Where the standbys are and how they are used.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// `postgres://…`, one for each server.
    pub urls: Vec<String>,
    /// How long a read waits for a standby to be far enough, before it runs on the primary.
    pub wait: Duration,
    /// A standby that is further behind is not read from.
    pub max_lag: Duration,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self { urls: Vec::new(), wait: Duration::from_millis(5), max_lag: Duration::from_secs(10) }
    }
}

/// How a standby is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// It takes writes of its own.
    NotStandby,
    /// Bytes of the log that it does not show yet.
    BytesBehind(u64),
}

/// The handle of the database. Cheap to clone; a clone may carry the log of a request's statements.
#[derive(Clone)]
pub struct Database {
    opened: Arc<Opened>,
    log: Option<Arc<StatementLog>>,
    /// Tags of the cache cover what is read with this handle.
    is_tracked: bool,
    /// Where reads with this handle run, if they can.
    on_replica: Option<OnReplica>,
}

/// A database that is open.
struct Opened {
    db: DatabaseConnection,
    /// Only on PostgreSQL.
    pool: Option<Pool>,
    replicas: Vec<Replica>,
    replica_options: ReplicaOptions,
    /// What `db` connects to can be listened to.
    can_listen: bool,
    probe: Probe,
    history: History,
    /// SQLite without a file: the database lives as long as its one connection.
    is_in_memory: bool,
    metrics: DatabaseMetrics,
    /// The turn to write, where there is one writer at a time.
    writer: Arc<tokio::sync::Mutex<()>>,
    writes: Writes,
}

impl Database {
    /// Connects. SQLite files are made when missing, in WAL mode.
    ///
    /// # Errors
    /// `Unavailable` when the URL is no database that can be reached within `acquire_timeout`; the message never
    /// contains the password.
    pub async fn connect(config: &DatabaseOptions, registry: &mut Registry) -> Result<Self, Error> {
        let is_in_memory = is_in_memory(&config.url);
        if !is_in_memory {
            make_private_file(&config.url)?;
        }
        let db = sea_orm::Database::connect(options(config)).await.map_err(Error::Unavailable)?;
        let metrics = DatabaseMetrics::register(registry);
        let pool = match db.get_database_backend() {
            DbBackend::Postgres => Some(open_pool(&db, config, metrics.clone()).await?),
            _ => None,
        };
        let replicas = match &config.replicas.urls[..] {
            [] => Vec::new(),
            urls => {
                let replica_metrics = ReplicaMetrics::register(registry);
                let replica = |url: &String| Replica::new(url, config, (replica_metrics.clone(), &metrics));
                urls.iter().map(replica).collect::<Result<_, _>>()?
            }
        };
        connections::follow(&db, pool.clone(), registry);
        let probe = Probe::new(&db, is_in_memory);
        let (history, writer) = (History::default(), Arc::default());
        let writes = Writes::default();
        let is_direct = config.pooler != Pooler::Transaction || config.direct_url.is_some();
        let opened = Opened {
            can_listen: pool.is_some() && is_direct,
            db,
            pool,
            replicas,
            replica_options: config.replicas.clone(),
            probe,
            history,
            is_in_memory,
            metrics,
            writer,
            writes,
        };
        Ok(Self { opened: Arc::new(opened), log: None, is_tracked: false, on_replica: None })
    }

    /// A handle that notes its statements in `log` too.
    pub(crate) fn logged_in(&self, log: Option<Arc<StatementLog>>) -> Self {
        Self { log, ..self.clone() }
    }

    /// A handle for statements whose results tags cover.
    pub(crate) fn tracked(&self) -> Self {
        Self { is_tracked: true, ..self.clone() }
    }

    /// A handle whose reads run on this standby where they can.
    pub(crate) fn reading_on(&self, replica: OnReplica) -> Self {
        Self { on_replica: Some(replica), ..self.clone() }
    }

    /// A handle whose reads run on the primary.
    pub(crate) fn on_primary(&self) -> Self {
        Self { on_replica: None, ..self.clone() }
    }

    /// The standbys that reads may run on.
    pub(crate) fn replicas(&self) -> &[Replica] {
        &self.opened.replicas
    }

    /// The names of the standbys (`host:port`), and whether reads run on them now.
    pub fn replica_names(&self) -> Vec<(String, bool)> {
        let state = |replica: &Replica| (replica.name().to_string(), replica.is_in_rotation());
        self.replicas().iter().map(state).collect()
    }

    /// Looks at each standby, and how far it is behind the primary.
    pub async fn inspect_replicas(&self, within: Duration) -> Vec<(String, Result<ReplicaState, Error>)> {
        let mut found = Vec::new();
        for replica in self.replicas() {
            found.push((replica.name().to_string(), self.inspect(replica, within).await));
        }
        found
    }

    async fn inspect(&self, replica: &Replica, within: Duration) -> Result<ReplicaState, Error> {
        let nobody = Uuid::nil();
        let primary = match self.watcher() {
            Some(mut watcher) => watcher.look(nobody, within).await?,
            None => return Ok(ReplicaState::NotStandby),
        };
        let standby = replica.watcher().look(nobody, within).await?;
        Ok(if standby.is_standby {
            ReplicaState::BytesBehind((primary.watch.position - standby.watch.position).max(0) as u64)
        } else {
            ReplicaState::NotStandby
        })
    }

    pub(crate) fn replica_options(&self) -> &ReplicaOptions {
        &self.opened.replica_options
    }

    /// Makes a watcher of the primary, which asks by a connection of its own; none on SQLite.
    pub(crate) fn watcher(&self) -> Option<Watcher> {
        let pool = self.pool()?;
        if pool.lends_transactions() {
            let directly = self.opened.db.get_postgres_connection_pool().connect_options();
            return Some(Watcher::new(directly.as_ref().clone()));
        }
        Some(Watcher::of_primary(pool.clone()))
    }

    /// Which server has committed last for this process, if one has.
    pub(crate) fn written(&self) -> Option<ServerId> {
        self.pool().and_then(Pool::written)
    }

    /// What migrations and demo data run on. On PostgreSQL it is opened for them; serving has a pool of its own.
    pub fn connection(&self) -> &DatabaseConnection {
        &self.opened.db
    }

    /// Holds the turn to write, so that writers of this process wait.
    #[cfg(test)]
    pub(crate) async fn turn_to_write(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.opened.writer).lock_owned().await
    }

    /// PostgreSQL's connections.
    fn pool(&self) -> Option<&Pool> {
        self.opened.pool.as_ref()
    }

    /// One round trip: is the database there?
    ///
    /// # Errors
    /// `Unavailable` where not.
    pub async fn ping(&self) -> Result<(), Error> {
        match self.pool() {
            Some(pool) => pool.ping().await,
            None => self.opened.db.ping().await.map_err(Error::Unavailable),
        }
    }

    /// Asks the database by a connection of its own, which nothing else waits for: however busy the others
    /// are, the answer is the database's. One caller at a time; `within` bounds the whole.
    ///
    /// # Errors
    /// `None` where there was no answer in time. After `close` the connection that is checked is a closed one.
    pub async fn probe<T>(
        &self,
        within: Duration,
        check: impl for<'a> Fn(&'a DatabaseConnection) -> BoxFuture<'a, T>,
    ) -> Option<T> {
        self.opened.probe.ask(within, check).await
    }

    /// Whether PostgreSQL's server is there, asked by a new connection within this time; also where it
    /// refuses that one. Always for SQLite.
    pub async fn is_reachable(&self, within: Duration) -> bool {
        self.opened.probe.is_reachable(within).await
    }

    /// How long those who use the connections make others wait; nobody waits where `SQLite` is the database.
    pub fn connection_waits(&self) -> &ConnectionWaits {
        &self.opened.metrics.turns
    }

    /// The database did not answer for a while, and does not yet: what needs it fails at once.
    pub fn is_away(&self) -> bool {
        self.pool().is_some_and(Pool::is_away)
    }

    /// Why nothing can be stored now, as far as the last write says. A server writes every few seconds by itself
    /// (`Store::stay_registered`), and twice a second as long as that fails.
    pub fn write_fault(&self) -> Option<WriteFault> {
        self.opened.writes.fault()
    }

    /// Has the database gone back in time since this was last asked? (`history`)
    pub(crate) async fn has_gone_back(&self) -> bool {
        self.opened.history.has_gone_back(self).await
    }

    /// What follows from its going back is done.
    pub(crate) fn acknowledge_going_back(&self) {
        self.opened.history.acknowledge();
    }

    /// Where its history is now; none where that cannot be told.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn look_at_place(&self) -> Result<Option<Place>, Error> {
        History::place(self).await
    }

    /// Where its history was when that was last asked; none where that cannot be told.
    pub(crate) fn place(&self) -> Option<Place> {
        self.opened.history.last()
    }

    /// Closes all connections; statements under way finish first, if they do so soon.
    pub async fn close(self) {
        self.opened.probe.close().await;
        for replica in &self.opened.replicas {
            replica.close().await;
        }
        if let Some(pool) = self.pool() {
            pool.close().await;
        }
        match tokio::time::timeout(CLOSE_WITHIN, self.opened.db.close_by_ref()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "closing the database failed"),
            Err(_) => tracing::warn!("the database does not close in time; its connections are dropped"),
        }
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.opened.db.get_database_backend()
    }

    pub(crate) fn sql(&self) -> Sql {
        Sql::new(self.backend())
    }

    /// Runs a statement and reads each row with `read`: again from the first, where the statement is run again.
    pub(crate) async fn fetch<T>(
        &self,
        name: &'static str,
        table: &'static str,
        sql: Sql,
        read: impl Fn(&mut Cells<'_>) -> Result<T, sea_orm::sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        let (text, values) = sql.into_parts();
        let timing = self.timing(name, table, &text, &values);
        let Some(pool) = self.pool() else {
            return Box::pin(self.fetch_sqlite(timing, text, values, read)).await;
        };
        let text = AssertSqlSafe(Arc::<str>::from(text)).into_sql_str();
        if let Some(replica) = &self.on_replica {
            let reading = Box::pin(replica.fetch((name, table), &text, &values, &read));
            if let Some(result) = reading.instrument(timing.span()).await {
                timing
                    .on(replica.replica.name())
                    .finish(result.as_ref().map_or(0, Vec::len), result.is_err());
                return result;
            }
        }
        let read_all = fetch_postgres(pool, (name, table), &text, &values, &read);
        let mut result = read_all.instrument(timing.span()).await;
        // Rare, so boxed: this future is part of every batch, and small ones are cheaper to make.
        if result.as_ref().is_err_and(|error| error.repeats() > 0) {
            let again = Box::pin(async {
                let mut number = 1;
                while result.as_ref().is_err_and(|error| error.repeats() >= number) {
                    tokio::time::sleep(pause_before(number)).await;
                    result = fetch_postgres(pool, (name, table), &text, &values, &read).await;
                    number += 1;
                }
                result
            });
            result = again.instrument(timing.span()).await;
        }
        timing.finish(result.as_ref().map_or(0, Vec::len), result.is_err());
        result
    }

    async fn fetch_sqlite<T>(
        &self,
        timing: Timing<'_>,
        text: String,
        values: Vec<Value>,
        read: impl Fn(&mut Cells<'_>) -> Result<T, sea_orm::sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        let (name, table) = (timing.name, timing.table);
        let statement = Statement::from_sql_and_values(self.backend(), text, values);
        let result = self.opened.db.query_all_raw(statement).instrument(timing.span()).await;
        timing.finish(result.as_ref().map_or(0, Vec::len), result.is_err());
        let rows = result.map_err(|error| Error::of_statement(name, error))?;
        rows.iter()
            .map(|row| {
                read(&mut Cells::of(RowSource::of(row))).map_err(|source| Error::Row { table, source })
            })
            .collect()
    }

    /// Begins to time a statement.
    fn timing(&self, name: &'static str, table: &'static str, text: &str, values: &[Value]) -> Timing<'_> {
        let explains = self.log.as_ref().is_some_and(|log| log.keeps_texts());
        let explain = explains.then(|| (text.to_owned(), values.to_vec()));
        let span = tracing::debug_span!(
            target: SPANS, "sql", otel.name = name, otel.kind = "client", otel.status_code = Empty,
            db.operation.name = name, db.collection.name = table, db.response.returned_rows = Empty,
        );
        Timing {
            database: self,
            name,
            table,
            explain,
            span,
            start: Instant::now(),
            server: None,
            is_noted: false,
        }
    }

    /// Rows by key in one statement: what `matching` adds after `SELECT … FROM … t`. Text: every batch read is one of
    /// these (`benches/statements.rs`).
    pub(crate) async fn by_keys<R: Record, K: Eq + Hash>(
        &self,
        name: &'static str,
        matching: impl FnOnce(&mut Sql),
        key: impl Fn(&R) -> K,
    ) -> Result<FxHashMap<K, Arc<R>>, Error> {
        let mut sql = self.sql();
        sql.push("SELECT ").push(R::COLUMNS).from(R::table());
        matching(&mut sql);
        let rows = self.fetch(name, R::table(), sql, |cells| R::read(cells)).await?;
        Ok(rows.into_iter().map(|row| (key(&row), Arc::new(row))).collect())
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("backend", &self.backend()).finish_non_exhaustive()
    }
}

/// Opens the connections for serving. What `db` connects to afterwards is the server that takes the writes.
async fn open_pool(
    db: &DatabaseConnection,
    config: &DatabaseOptions,
    metrics: DatabaseMetrics,
) -> Result<Pool, Error> {
    let urls = split_hosts(&config.url);
    let options = |url: &String| PgConnectOptions::from_str(url).map(|options| serving(options, config));
    let hosts = urls.iter().map(options).collect::<Result<_, _>>().map_err(Error::unavailable)?;
    // Without a pooler the two connect to the same servers.
    let following = config.direct_url.is_none().then(|| db.get_postgres_connection_pool().clone());
    let pool = Pool::new(hosts, following, &PoolLimits::of(config), metrics);
    pool.ping().await?;
    Ok(pool)
}

/// Runs a statement that changes nothing, and reads each row.
async fn fetch_postgres<T>(
    pool: &Pool,
    names: (&'static str, &'static str),
    text: &SqlStr,
    values: &[Value],
    read: &impl Fn(&mut Cells<'_>) -> Result<T, sea_orm::sqlx::Error>,
) -> Result<Vec<T>, Error> {
    let mut rows = Vec::new();
    let take = |row: &PgRow| {
        rows.push(read(&mut Cells::of(RowSource::Postgres(row)))?);
        Ok(())
    };
    pool.fetch(names, text.clone(), values.to_vec(), take).await?;
    Ok(rows)
}

/// A statement that is under way.
struct Timing<'a> {
    database: &'a Database,
    name: &'static str,
    table: &'static str,
    /// The statement's text and values, where the request's log keeps them.
    explain: Option<(String, Vec<Value>)>,
    span: Span,
    start: Instant,
    /// The standby that answered.
    server: Option<Arc<str>>,
    /// It is in the request's log.
    is_noted: bool,
}

impl Timing<'_> {
    /// What the statement runs in.
    fn span(&self) -> Span {
        self.span.clone()
    }

    /// The standby of this name has answered.
    fn on(mut self, server: &Arc<str>) -> Self {
        self.server = Some(Arc::clone(server));
        self
    }

    /// Reports the statement to the metrics and to the request's log.
    fn finish(mut self, rows: usize, failed: bool) {
        let elapsed = self.start.elapsed();
        self.database.opened.metrics.observe(self.name, self.table, elapsed, failed);
        self.span.record("db.response.returned_rows", rows as u64);
        if failed {
            self.span.record("otel.status_code", "ERROR");
        }
        self.note(Some(rows), elapsed);
    }

    /// Notes the statement in the request's log, if it has one; without `rows` it was stopped.
    fn note(&mut self, rows: Option<usize>, elapsed: Duration) {
        let database = self.database;
        let Some(log) = &database.log else { return };
        let (name, table, began) = (self.name, self.table, self.start);
        let (sql, values) = self.explain.take().unzip();
        let (values, server) = (values.unwrap_or_default(), self.server.take());
        log.add(|| Executed { name, table, sql, values, rows, began, elapsed, server });
        if !database.is_tracked {
            log.note_untracked(table);
        }
        self.is_noted = true;
    }
}

/// A statement that nobody waits for any more is what a slow request has waited for last.
impl Drop for Timing<'_> {
    fn drop(&mut self) {
        if !self.is_noted {
            self.note(None, self.start.elapsed());
        }
    }
}
