//! How many connections to the database are open, as a figure: counted when somebody asks, and named by OpenTelemetry's
//! conventions. Not here: the connections themselves (`pool`, and the driver's pool of SQLite).

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};
use sea_orm::{DatabaseConnection, sqlx::SqlitePool};

use crate::database::pool::Pool;

/// Counts the connections of this database from now on.
pub(super) fn follow(db: &DatabaseConnection, pool: Option<Pool>, registry: &mut Registry) {
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
