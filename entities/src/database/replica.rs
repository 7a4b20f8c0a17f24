//! A standby of the database that reads may run on: its connections, what runs on it, and the figures of it.
//! Not here: how far it is (`watcher`), which reads may run on it (`cache::replicas`).

use std::{
    fmt,
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use sea_orm::{
    Value,
    sqlx::{
        self, SqlStr,
        postgres::{PgConnectOptions, PgRow},
    },
};
use tokio::sync::watch;

use super::{
    DatabaseOptions,
    metrics::DatabaseMetrics,
    open::direct,
    pool::{Pool, PoolLimits, Watch},
    sql::{Cells, RowSource},
};
use crate::error::Error;

mod watcher;

pub(crate) use super::pool::ServerId;
pub(crate) use watcher::{WatchedServer, Watcher};

/// A standby. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Replica(Arc<ReplicaInner>);

struct ReplicaInner {
    name: Arc<str>,
    options: PgConnectOptions,
    pool: Pool,
    running: AtomicUsize,
    /// How long a statement may take here, before it runs on the primary in the time that is left.
    patience: Duration,
    /// Something was said of it in the log.
    was_told: AtomicBool,
    in_rotation: watch::Sender<bool>,
    metrics: ReplicaMetrics,
}

/// Why a read that could have run on a standby ran on the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// No standby was far enough in time.
    Behind,
    /// The standby lacked a write that the value depends on.
    Outdated,
    /// No standby is in rotation.
    OutOfRotation,
    /// The standby failed, or did not answer before it was taken out of rotation.
    Failed,
}

impl Fallback {
    fn name(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Outdated => "outdated",
            Self::OutOfRotation => "out_of_rotation",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    server: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FallbackLabels {
    reason: &'static str,
}

/// The figures of all standbys.
#[derive(Clone, Default)]
pub(super) struct ReplicaMetrics {
    reads: Family<ServerLabels, Counter>,
    fallbacks: Family<FallbackLabels, Counter>,
    lag: Family<ServerLabels, Gauge<f64, AtomicU64>>,
    in_rotation: Family<ServerLabels, Gauge>,
}

impl ReplicaMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "database_replica_reads",
            "Statements that a standby has answered",
            metrics.reads.clone(),
        );
        registry.register(
            "database_replica_fallbacks",
            "Reads that could have run on a standby and ran on the primary: none was far enough (behind), \
             what it brought had changed (outdated), none may be asked (out_of_rotation), it failed (failed)",
            metrics.fallbacks.clone(),
        );
        registry.register(
            "database_replica_lag_seconds",
            "How old the oldest change is that a standby does not show yet; nothing is said of one that does \
             not answer",
            metrics.lag.clone(),
        );
        registry.register(
            "database_replica_in_rotation",
            "Whether reads may run on a standby: 1 or 0",
            metrics.in_rotation.clone(),
        );
        metrics
    }
}

impl Replica {
    /// The standby at this URL; nothing is connected yet.
    ///
    /// # Errors
    /// `Unavailable` where it is no URL of a PostgreSQL server.
    pub(super) fn new(
        url: &str,
        config: &DatabaseOptions,
        (metrics, of_primary): (ReplicaMetrics, &DatabaseMetrics),
    ) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url).map_err(Error::unavailable)?;
        let options = direct(options, config.statement_timeout);
        let name = format!("{}:{}", options.get_host(), options.get_port()).into();
        let limits = PoolLimits::of(config).without_pooler();
        let pool = Pool::for_reads(&options, &limits, of_primary.beside());
        let patience = config.statement_timeout.map_or(Duration::MAX, |limit| limit / 4);
        let (running, was_told) = (AtomicUsize::new(0), AtomicBool::new(false));
        let in_rotation = watch::Sender::new(false);
        let replica = ReplicaInner { name, options, pool, running, patience, was_told, in_rotation, metrics };
        Ok(Self(Arc::new(replica)))
    }

    /// `host:port`.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Makes a watcher of this standby, which asks by a connection of its own.
    pub(crate) fn watcher(&self) -> Watcher {
        Watcher::new(self.0.options.clone())
    }

    /// How many statements it works on.
    pub(crate) fn running(&self) -> usize {
        self.0.running.load(Ordering::Relaxed)
    }

    /// Whether reads may run on it.
    pub(crate) fn is_in_rotation(&self) -> bool {
        *self.0.in_rotation.borrow()
    }

    /// Lets reads run on it, or not: statements under way are given up then, and run on the primary.
    pub(crate) fn set_in_rotation(&self, is_in: bool, why: &str) {
        let ReplicaInner { name, in_rotation, was_told, metrics, .. } = &*self.0;
        let has_changed = in_rotation.send_replace(is_in) != is_in;
        if (has_changed || !was_told.load(Ordering::Relaxed)) && (is_in || !why.is_empty()) {
            was_told.store(true, Ordering::Relaxed);
            if is_in {
                tracing::info!(replica = &**name, "reads run on this standby");
            } else {
                tracing::warn!(replica = &**name, why, "no reads run on this standby");
            }
        }
        metrics.in_rotation.get_or_create(&self.labels()).set(is_in.into());
    }

    /// Notes how far it is behind.
    pub(crate) fn set_lag(&self, seconds: f64) {
        self.0.metrics.lag.get_or_create(&self.labels()).set(seconds);
    }

    /// Nobody knows how far it is behind.
    pub(crate) fn forget_lag(&self) {
        self.0.metrics.lag.remove(&self.labels());
    }

    /// Notes that a read ran on the primary instead.
    pub(crate) fn note(&self, fallback: Fallback) {
        self.0.metrics.fallbacks.get_or_create(&FallbackLabels { reason: fallback.name() }).inc();
    }

    fn labels(&self) -> ServerLabels {
        ServerLabels { server: self.0.name.to_string() }
    }

    pub(super) async fn close(&self) {
        self.0.pool.close().await;
    }
}

/// Counts a statement for as long as it runs.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn on(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Replica").field(&self.0.name).finish()
    }
}

/// A standby that is far enough for some reads.
#[derive(Clone, Debug)]
pub(crate) struct OnReplica {
    pub(crate) replica: Replica,
    /// What says that it is.
    pub(crate) watch: Watch,
}

impl OnReplica {
    /// Runs a statement that changes nothing, and reads each row. `None`: the primary has to be asked.
    ///
    /// # Errors
    /// Only one that the primary would have as well: a row that cannot be read.
    pub(super) async fn fetch<T>(
        &self,
        names: (&'static str, &'static str),
        text: &SqlStr,
        values: &[Value],
        read: &impl Fn(&mut Cells<'_>) -> Result<T, sqlx::Error>,
    ) -> Option<Result<Vec<T>, Error>> {
        let ReplicaInner { pool, running, in_rotation, metrics, patience, .. } = &*self.replica.0;
        let mut rotation = in_rotation.subscribe();
        let mut rows = Vec::new();
        let take = |row: &PgRow| {
            rows.push(read(&mut Cells::of(RowSource::Postgres(row)))?);
            Ok(())
        };
        let _running = Running::on(running);
        let result = tokio::select! {
            result = pool.fetch_from(&self.watch, names, text.clone(), values.to_vec(), take) => Some(result),
            _ = rotation.wait_for(|is_in| !is_in) => None,
            () = tokio::time::sleep(*patience) => None,
        };
        match result {
            Some(Ok(Some(()))) => {
                metrics.reads.get_or_create(&self.replica.labels()).inc();
                Some(Ok(rows))
            }
            // A row that cannot be read here cannot be read from the primary either.
            Some(Err(error @ Error::Row { .. })) => Some(Err(error)),
            // Replay was in the way of the statement, the standby is away or lacks something, or it is no
            // longer the server that is watched.
            Some(Ok(None) | Err(_)) | None => {
                self.replica.note(Fallback::Failed);
                None
            }
        }
    }
}
