//! SQL figures, named by OpenTelemetry's conventions: statements by name and table, how long they waited for a connection,
//! and whether PostgreSQL is there. Not here: how many connections there are (`connections`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatementLabels {
    db_operation_name: &'static str,
    db_collection_name: &'static str,
}

/// How long others that use the connections made everybody wait for one, since the start. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct ConnectionWaits(Arc<(AtomicU64, AtomicU64)>);

impl ConnectionWaits {
    /// Somebody has a connection after this time.
    pub fn waited(&self, elapsed: Duration) {
        let (count, nanoseconds) = &*self.0;
        nanoseconds.fetch_add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have waited or not, and how long all together.
    pub fn sum(&self) -> (u64, Duration) {
        let (count, nanoseconds) = &*self.0;
        (count.load(Ordering::Relaxed), Duration::from_nanos(nanoseconds.load(Ordering::Relaxed)))
    }
}

/// The figures.
#[derive(Clone)]
pub(crate) struct DatabaseMetrics {
    durations: Family<StatementLabels, Histogram>,
    errors: Family<StatementLabels, Counter>,
    waits: Histogram,
    breaker: Gauge,
    /// Of the waits those for others, without connecting and asking.
    pub(super) turns: ConnectionWaits,
}

impl DatabaseMetrics {
    /// Figures that nobody sees: those of a server beside the one that is written to, which has its own.
    pub(super) fn unregistered() -> Self {
        let durations = Family::<StatementLabels, Histogram>::new_with_constructor(|| {
            Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5])
        });
        let waits = Histogram::new([0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 2.5]);
        let (errors, breaker, turns) = Default::default();
        Self { durations, errors, waits, breaker, turns }
    }

    /// Those of a server beside this one, whose connections are waited for as these are.
    pub(super) fn beside(&self) -> Self {
        Self { turns: self.turns.clone(), ..Self::unregistered() }
    }

    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        registry.register(
            "db_client_operation_duration_seconds",
            "Time from sending a statement to its last row",
            metrics.durations.clone(),
        );
        registry.register("db_client_operation_errors", "Statements that failed", metrics.errors.clone());
        registry.register(
            "db_client_connection_wait_time_seconds",
            "Time until a read of PostgreSQL, or a transaction, had its connection",
            metrics.waits.clone(),
        );
        registry.register(
            "database_breaker_state",
            "PostgreSQL: 0 it answers, 1 it is away and not waited for",
            metrics.breaker.clone(),
        );
        metrics
    }

    pub(super) fn observe(&self, name: &'static str, table: &'static str, elapsed: Duration, failed: bool) {
        let labels = StatementLabels { db_operation_name: name, db_collection_name: table };
        self.durations.get_or_create(&labels).observe(elapsed.as_secs_f64());
        if failed {
            self.errors.get_or_create(&labels).inc();
        }
    }

    /// Where the breaker shows its state.
    pub(super) fn breaker_state(&self) -> Gauge {
        self.breaker.clone()
    }

    /// Somebody has a connection after this time.
    pub(crate) fn waited(&self, elapsed: Duration) {
        self.waits.observe(elapsed.as_secs_f64());
    }
}
