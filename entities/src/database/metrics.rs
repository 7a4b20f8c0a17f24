//! SQL figures, named by OpenTelemetry's conventions: statements by name and table, and the pool's connections, which
//! are counted when somebody asks.

use std::{fmt, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};
use sea_orm::{DatabaseConnection, sqlx::SqlitePool};

use crate::database::pool::Pool;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatementLabels {
    db_operation_name: &'static str,
    db_collection_name: &'static str,
}

/// The figures.
#[derive(Clone)]
pub(crate) struct Metrics {
    durations: Family<StatementLabels, Histogram>,
    errors: Family<StatementLabels, Counter>,
    waits: Histogram,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let durations = Family::<StatementLabels, Histogram>::new_with_constructor(|| {
            Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5])
        });
        let waits = Histogram::new([0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 2.5]);
        let metrics = Self { durations, errors: Family::default(), waits };
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
        metrics
    }

    pub(super) fn observe(&self, name: &'static str, table: &'static str, elapsed: Duration, failed: bool) {
        let labels = StatementLabels { db_operation_name: name, db_collection_name: table };
        self.durations.get_or_create(&labels).observe(elapsed.as_secs_f64());
        if failed {
            self.errors.get_or_create(&labels).inc();
        }
    }

    /// Somebody has a connection after this time.
    pub(crate) fn waited(&self, elapsed: Duration) {
        self.waits.observe(elapsed.as_secs_f64());
    }
}

/// Counts the connections of this database from now on.
pub(super) fn follow_connections(db: &DatabaseConnection, pool: Option<Pool>, registry: &mut Registry) {
    let connections = match pool {
        Some(pool) => Connections::Postgres(pool),
        None => Connections::Sqlite(db.get_sqlite_connection_pool().clone()),
    };
    registry.register_collector(Box::new(connections));
}

enum Connections {
    Postgres(Pool),
    Sqlite(SqlitePool),
}

impl Connections {
    /// All that are open, and those of them that nobody uses.
    fn count(&self) -> (usize, usize) {
        match self {
            Self::Postgres(pool) => pool.count(),
            Self::Sqlite(pool) => (pool.size() as usize, pool.num_idle()),
        }
    }
}

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (open, idle) = self.count();
        let help = "Connections to the database, by what they do";
        let mut counts =
            encoder.encode_descriptor("db_client_connection_count", help, None, MetricType::Gauge)?;
        for (state, count) in [("idle", idle), ("used", open.saturating_sub(idle))] {
            let labels = [("db_client_connection_state", state)];
            ConstGauge::new(count as i64).encode(counts.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connections").field(&self.count()).finish()
    }
}
