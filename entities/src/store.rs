//! The store room's handle: the database (and, later, the cache), and the one way a read reaches it. Every
//! statement has a name, is timed into a metric and, where a request asks for it, into that request's `Recorder`.
//! Not here: what is read (the domains), how pages are cut (`page`).

use std::{
    fmt,
    hash::Hash,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use rustc_hash::FxHashMap;
use sea_orm::{
    ConnectionTrait as _, Database, DatabaseConnection, DbBackend, Statement, Value, sqlx::postgres::PgRow,
};
use serde::Serialize;
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    auth::revocation::Revocations,
    cache::{
        Cache, CacheConfig, Cached, Moment, Touched,
        outbox::{self, Told},
    },
    database::{
        history::History,
        instance::Instance,
        pool::Pool,
        sql::{Cells, Record, Source, Sql},
    },
    error::Error,
    events as change,
    events::Announcer,
    redis::{Redis, texts::Texts},
    telemetry::SPANS,
};

pub mod list;
mod metrics;
mod open;
mod probe;
pub(crate) mod row;
mod writes;

pub(crate) use metrics::Metrics;
use open::{is_in_memory, make_private_file, options};
use probe::Probe;
use writes::Writes;

pub use writes::WriteFault;

/// How long closing the driver's pool may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// Where the database is and how it is used.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `postgres://…` or `sqlite:path`.
    pub url: String,
    /// Connections kept open at most. Few and busy ones win for short statements.
    pub max_connections: u32,
    /// How long connecting, or waiting for a free connection, may take.
    pub acquire_timeout: Duration,
}

/// The handle. Cheap to clone; a clone may carry a request's recorder.
#[derive(Clone)]
pub struct Store {
    db: DatabaseConnection,
    /// Only on PostgreSQL.
    pool: Option<Pool>,
    probe: Arc<Probe>,
    history: Arc<History>,
    instance: Arc<Instance>,
    /// SQLite without a file: the database lives as long as its one connection.
    is_in_memory: bool,
    metrics: Metrics,
    recorder: Option<Arc<Recorder>>,
    /// Tags cover what is read with it.
    is_covered: bool,
    announcer: Announcer,
    cache: Cache,
    /// Where others have to hear of what is written.
    told: Option<Arc<Told>>,
    /// Reads must not be older than this.
    floor: Option<Moment>,
    revocations: Arc<Revocations>,
    writer: Arc<tokio::sync::Mutex<()>>,
    writes: Arc<Writes>,
    texts: Texts,
}

impl Store {
    /// Connects. SQLite files are made when missing, in WAL mode.
    ///
    /// # Errors
    /// `Unavailable` when the URL is no database that can be reached within `acquire_timeout`; the message never
    /// contains the password.
    pub async fn connect(config: &DatabaseConfig, registry: &mut Registry) -> Result<Self, Error> {
        let is_in_memory = is_in_memory(&config.url);
        if !is_in_memory {
            make_private_file(&config.url)?;
        }
        let db = Database::connect(options(config)).await.map_err(Error::Unavailable)?;
        let metrics = Metrics::register(registry);
        let pool = (db.get_database_backend() == DbBackend::Postgres).then(|| {
            let options = db.get_postgres_connection_pool().connect_options();
            Pool::new(&options, config.max_connections, config.acquire_timeout, metrics.clone())
        });
        if let Some(pool) = &pool {
            pool.ping().await?;
        }
        metrics::follow_connections(&db, pool.clone(), registry);
        Ok(Self {
            probe: Arc::new(Probe::new(&db, is_in_memory)),
            history: Arc::default(),
            instance: Arc::default(),
            db,
            pool,
            is_in_memory,
            metrics,
            recorder: None,
            is_covered: false,
            announcer: Announcer::default(),
            cache: Cache::off(),
            told: None,
            texts: Texts::default(),
            floor: None,
            revocations: Arc::default(),
            writer: Arc::default(),
            writes: Arc::default(),
        })
    }

    /// The figures of statements and connections.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What migrations and demo data run on. On PostgreSQL it is opened for them; serving has a pool of its own.
    pub fn connection(&self) -> &DatabaseConnection {
        &self.db
    }

    /// The same store, reading through a cache; with a Redis it is one cache for all nodes. Metrics go into `registry`.
    #[must_use]
    pub fn with_cache(self, config: &CacheConfig, redis: Option<Redis>, registry: &mut Registry) -> Self {
        let cache = Cache::new(config, redis, registry);
        let told = cache.is_shared().then(Arc::default);
        let store = Self { cache, told, ..self };
        tokio::spawn(outbox::keep(store.clone(), store.told()));
        store
    }

    /// The same store, whose writes the servers of this database will hear of: for a process that cannot tell them, such
    /// as a command.
    #[must_use]
    pub fn leaving_bumps(self) -> Self {
        Self { told: Some(Arc::default()), ..self }
    }

    /// Where bumps are noted that were told; none, where nobody else needs to be.
    pub(crate) fn told(&self) -> Option<Arc<Told>> {
        // Without Redis others are told by whoever has one.
        self.told.clone().or_else(|| self.instance.has_sharing_others().then(Arc::default))
    }

    /// This server among those of the database.
    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Where the database was in its history.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// The same store, telling other nodes what it writes, hearing what they write, and sharing texts with them. Stores of one database share
    /// a namespace.
    #[must_use]
    pub fn with_relay(self, redis: &Redis, namespace: &str) -> Self {
        change::relay::begin(&self.announcer, redis, namespace);
        Self { texts: Texts::new(redis, namespace), ..self }
    }

    /// The same store for a reader who must see what was written up to a moment, on whatever node.
    #[must_use]
    pub fn not_before(&self, moment: Moment) -> Self {
        Self { floor: Some(moment), ..self.clone() }
    }

    /// How old reads may be.
    pub fn floor(&self) -> Option<Moment> {
        self.floor
    }

    /// The request that the statements are reported to.
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_deref()
    }

    /// What the nodes share beside the database.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// What is cached.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Reads through the cache.
    pub(crate) async fn cached<C: Cached>(
        &self,
        read: C,
        keys: &[C::Key],
    ) -> Result<FxHashMap<C::Key, Arc<C::Value>>, Error> {
        self.cache.read(self, read, keys).await
    }

    /// The same store for what tags cover.
    pub(crate) fn covered(&self) -> Self {
        Self { is_covered: true, ..self.clone() }
    }

    /// The same store, reporting to no request.
    pub(crate) fn unrecorded(&self) -> Self {
        Self { recorder: None, ..self.clone() }
    }

    /// Tells what is written, and lets others listen.
    pub fn announcer(&self) -> &Announcer {
        &self.announcer
    }

    /// What is known to be revoked.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// The turn to write, where there is one writer at a time.
    pub(crate) fn writer(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.writer)
    }

    /// One round trip: is the database there?
    ///
    /// # Errors
    /// `Unavailable` where not.
    pub async fn ping(&self) -> Result<(), Error> {
        match &self.pool {
            Some(pool) => pool.ping().await,
            None => self.db.ping().await.map_err(Error::Unavailable),
        }
    }

    /// Asks the database by a connection of its own, which nothing else waits for: however busy the others are, the answer
    /// is the database's. One caller at a time; `within` bounds the whole.
    ///
    /// # Errors
    /// `None` where there was no answer in time. After `close` the connection that is checked is a closed one.
    pub async fn probe<T>(
        &self,
        within: Duration,
        check: impl for<'a> FnOnce(&'a DatabaseConnection) -> BoxFuture<'a, T>,
    ) -> Option<T> {
        self.probe.ask(within, check).await
    }

    /// Why nothing can be stored now, as far as the last write says. A server writes every few seconds by itself
    /// (`instance::keep`), and twice a second as long as that fails.
    pub fn write_fault(&self) -> Option<WriteFault> {
        self.writes.fault()
    }

    pub(crate) fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Closes all connections; statements under way finish first, if they do so soon.
    pub async fn close(self) {
        self.probe.close().await;
        if let Some(pool) = &self.pool {
            pool.close().await;
        }
        match tokio::time::timeout(CLOSE_WITHIN, self.db.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "closing the database failed"),
            Err(_) => tracing::warn!("the database does not close in time; its connections are dropped"),
        }
    }

    /// The same store, reporting its statements to `recorder` too.
    #[must_use]
    pub fn recorded_by(&self, recorder: Arc<Recorder>) -> Self {
        Self { recorder: Some(recorder), ..self.clone() }
    }

    /// PostgreSQL's connections.
    pub(crate) fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        self.is_in_memory
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.db.get_database_backend()
    }

    pub(crate) fn sql(&self) -> Sql {
        Sql::new(self.backend())
    }

    /// Runs a statement and reads each row with `read`.
    pub(crate) async fn fetch<T>(
        &self,
        name: &'static str,
        table: &'static str,
        sql: Sql,
        mut read: impl FnMut(&mut Cells<'_>) -> Result<T, sea_orm::sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        let (text, values) = sql.into_parts();
        let timing = self.timing(name, table, &text);
        let Some(pool) = &self.pool else {
            return Box::pin(self.fetch_sqlite(timing, text, values, read)).await;
        };
        let mut rows = Vec::new();
        let take = |row: &PgRow| {
            rows.push(read(&mut Cells::of(Source::Postgres(row)))?);
            Ok(())
        };
        let result = pool.fetch((name, table), text, values, take).instrument(timing.span()).await;
        timing.finish(rows.len(), result.is_err());
        result.map(|()| rows)
    }

    async fn fetch_sqlite<T>(
        &self,
        timing: Timing<'_>,
        text: String,
        values: Vec<Value>,
        mut read: impl FnMut(&mut Cells<'_>) -> Result<T, sea_orm::sqlx::Error>,
    ) -> Result<Vec<T>, Error> {
        let (name, table) = (timing.name, timing.table);
        let statement = Statement::from_sql_and_values(self.backend(), text, values);
        let result = self.db.query_all_raw(statement).instrument(timing.span()).await;
        timing.finish(result.as_ref().map_or(0, Vec::len), result.is_err());
        let rows = result.map_err(|error| Error::of_statement(name, error))?;
        rows.iter()
            .map(|row| read(&mut Cells::of(Source::of(row))).map_err(|source| Error::Row { table, source }))
            .collect()
    }

    /// Begins to time a statement.
    pub(crate) fn timing(&self, name: &'static str, table: &'static str, text: &str) -> Timing<'_> {
        let explain = self.recorder.as_ref().filter(|recorder| recorder.texts).map(|_| text.to_owned());
        let span = tracing::debug_span!(
            target: SPANS, "sql", otel.name = name, otel.kind = "client", otel.status_code = Empty,
            db.operation.name = name, db.collection.name = table, db.response.returned_rows = Empty,
        );
        Timing { store: self, name, table, explain, span, start: Instant::now() }
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

/// A statement that is under way.
pub(crate) struct Timing<'a> {
    store: &'a Store,
    name: &'static str,
    table: &'static str,
    explain: Option<String>,
    span: Span,
    start: Instant,
}

impl Timing<'_> {
    /// What the statement runs in.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Reports the statement to the metrics and to the request's recorder.
    pub(crate) fn finish(self, rows: usize, failed: bool) {
        let elapsed = self.start.elapsed();
        self.store.metrics.observe(self.name, self.table, elapsed, failed);
        self.span.record("db.response.returned_rows", rows as u64);
        if failed {
            self.span.record("otel.status_code", "ERROR");
        }
        if let Some(recorder) = &self.store.recorder {
            recorder.add(self.name, self.explain, rows, elapsed);
            if !self.store.is_covered {
                recorder.add_gap();
            }
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("backend", &self.backend()).finish_non_exhaustive()
    }
}

/// How often one request waits for a Redis that does not answer.
const WAITS_IN_VAIN: u32 = 2;

/// The statements of one request, for its log line, for `extensions.explain` and for tests.
#[derive(Debug, Default)]
pub struct Recorder {
    texts: bool,
    count: AtomicU32,
    statements: Mutex<Vec<Executed>>,
    cache_reads: Mutex<Vec<CacheRead>>,
    waits_in_vain: AtomicU32,
    wrote: Mutex<Option<Moment>>,
    /// Only where somebody has asked for it.
    touched: Option<Mutex<Touched>>,
}

/// One batch of keys that went through the cache.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheRead {
    /// What was read.
    pub of: &'static str,
    /// `local` or `redis`.
    pub tier: &'static str,
    /// Keys by what was found: `hit`, or why not.
    pub keys: FxHashMap<&'static str, u64>,
    /// Age of the oldest value used, seconds.
    pub age_seconds: f64,
    /// What the first key depends on.
    pub tags: Vec<String>,
}

/// One statement that ran.
#[derive(Clone, Debug)]
pub struct Executed {
    /// Its name, `domain.verb`.
    pub name: &'static str,
    /// Its text with placeholders; only when texts were asked for.
    pub sql: Option<String>,
    /// Rows returned.
    pub rows: usize,
    /// Time from sending to the last row.
    pub elapsed: Duration,
}

impl Recorder {
    /// A recorder that counts and, with `texts`, keeps each statement.
    pub fn new(texts: bool) -> Self {
        Self { texts, ..Self::default() }
    }

    /// The same, collecting what the values that are read depend on, for `touched`.
    #[must_use]
    pub fn collecting(self) -> Self {
        Self { touched: Some(Mutex::default()), ..self }
    }

    /// Whether it collects what the values depend on.
    pub fn collects(&self) -> bool {
        self.touched.is_some()
    }

    /// What everything that was read so far depends on; `None` unless it is `collecting`.
    pub fn touched(&self) -> Option<Arc<Touched>> {
        Some(Arc::new(self.touched.as_ref()?.lock().expect("no panic happens under this lock").clone()))
    }

    /// Collects what these values depend on.
    pub(crate) fn touch<C: Cached>(
        &self,
        read: &C,
        keys: &[C::Key],
        found: &FxHashMap<C::Key, Arc<C::Value>>,
    ) {
        let Some(touched) = &self.touched else { return };
        let mut touched = touched.lock().expect("no panic happens under this lock");
        for key in keys {
            let value = found.get(key);
            touched.add(read.tags(*key, value.map(AsRef::as_ref)), read.is_strong());
            if value.is_none() && !read.keeps_absent() {
                touched.add_gap();
            }
        }
    }

    /// Notes that Redis was waited for and did not answer.
    pub(crate) fn waited_in_vain(&self) {
        self.waits_in_vain.fetch_add(1, Ordering::Relaxed);
    }

    /// Has this request waited for Redis in vain so often that it does without?
    pub(crate) fn has_lost_patience(&self) -> bool {
        self.waits_in_vain.load(Ordering::Relaxed) >= WAITS_IN_VAIN
    }

    fn add_gap(&self) {
        if let Some(touched) = &self.touched {
            touched.lock().expect("no panic happens under this lock").add_gap();
        }
    }

    /// Whether the statements themselves are kept.
    pub fn keeps_texts(&self) -> bool {
        self.texts
    }

    /// How many statements ran.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// The statements, in the order in which they finished.
    pub fn statements(&self) -> Vec<Executed> {
        self.statements.lock().expect("no panic happens under this lock").clone()
    }

    /// The batches that went through the cache.
    pub fn cache_reads(&self) -> Vec<CacheRead> {
        self.cache_reads.lock().expect("no panic happens under this lock").clone()
    }

    pub(crate) fn add_cache_read(&self, read: CacheRead) {
        self.cache_reads.lock().expect("no panic happens under this lock").push(read);
    }

    /// The moment of the last write that this request made: whoever reads at it or later sees the write.
    pub fn wrote(&self) -> Option<Moment> {
        *self.wrote.lock().expect("no panic happens under this lock")
    }

    pub(crate) fn set_wrote(&self, moment: Moment) {
        *self.wrote.lock().expect("no panic happens under this lock") = Some(moment);
    }

    /// Adds what ran elsewhere on this request's behalf (a batch shared with other requests).
    pub fn absorb(&self, other: &Self) {
        self.count.fetch_add(other.count(), Ordering::Relaxed);
        if self.texts {
            let executed = other.statements();
            self.statements.lock().expect("no panic happens under this lock").extend(executed);
            let reads = other.cache_reads();
            self.cache_reads.lock().expect("no panic happens under this lock").extend(reads);
        }
    }

    fn add(&self, name: &'static str, sql: Option<String>, rows: usize, elapsed: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.texts {
            let executed = Executed { name, sql, rows, elapsed };
            self.statements.lock().expect("no panic happens under this lock").push(executed);
        }
    }
}
