//! How the tables stand, as figures: months that are ready, rows that lie in no month, and sizes. Looked up
//! now and then, not when somebody asks; on SQLite there are none. And how upkeep went. The names of tables
//! are those of the schema, so they are few.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use entities::{Store, clock::Time};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabels {
    db_collection_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    task: &'static str,
    outcome: &'static str,
}

/// How an attempt at a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunOutcome {
    /// It is done.
    Done,
    /// Another process is at it, or changes the schema.
    Busy,
    /// It failed, and is tried again.
    Failed,
}

impl RunOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }
}

/// The figures. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TableFigures {
    months_ahead: Family<TableLabels, Gauge>,
    default_rows: Family<TableLabels, Gauge>,
    table_bytes: Family<TableLabels, Gauge>,
    index_bytes: Family<TableLabels, Gauge>,
    runs: Family<RunLabels, Counter>,
    removed_rows: Counter,
    /// Whether this month has its partitions; `None` where that is not known, and on SQLite.
    this_month: Arc<Mutex<Option<bool>>>,
}

impl TableFigures {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let figures = Self::default();
        registry.register(
            "database_partition_months_ahead",
            "Months in a row after this one that have a partition, by table; -1 where this month has none",
            figures.months_ahead.clone(),
        );
        registry.register(
            "database_partition_default_rows",
            "Rows that lie in no month's partition, by table; a million where there are more",
            figures.default_rows.clone(),
        );
        registry.register(
            "database_table_size_bytes",
            "Rows on the disk, all partitions together, by table",
            figures.table_bytes.clone(),
        );
        registry.register(
            "database_index_size_bytes",
            "Indexes on the disk, all partitions together, by table",
            figures.index_bytes.clone(),
        );
        registry.register(
            "upkeep_runs",
            "Attempts of this process to make partitions and to remove what is too old, by task and outcome",
            figures.runs.clone(),
        );
        registry.register(
            "retention_removed_rows",
            "Rows that this process has removed because they were too old, without those of whole months",
            figures.removed_rows.clone(),
        );
        figures
    }

    pub(super) fn ran(&self, task: &'static str, outcome: RunOutcome) {
        self.runs.get_or_create(&RunLabels { task, outcome: outcome.as_str() }).inc();
    }

    pub(super) fn removed(&self, rows: u64) {
        self.removed_rows.inc_by(rows);
    }

    /// Whether this month has its partitions; `None` while that is not known, and on SQLite.
    pub(crate) fn has_this_month(&self) -> Option<bool> {
        *self.this_month.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the tables. Where that fails, what was seen before stays.
    pub(super) async fn measure(&self, store: &Store, now: Time) {
        let db = store.connection();
        let measured = async {
            let status = migration::partition_status(db, now).await?;
            if !status.is_empty() {
                let has_all = status.iter().all(|status| status.months_ahead >= 0);
                *self.this_month.lock().unwrap_or_else(PoisonError::into_inner) = Some(has_all);
            }
            for status in status {
                set(&self.months_ahead, status.table, i64::from(status.months_ahead));
                set(&self.default_rows, status.table, status.default_rows as i64);
            }
            for size in migration::table_sizes(db).await? {
                set(&self.table_bytes, &size.table, size.table_bytes);
                set(&self.index_bytes, &size.table, size.index_bytes);
            }
            Ok::<(), Box<dyn Error + Send + Sync>>(())
        };
        if let Err(error) = measured.await {
            tracing::info!(error = &*error as &dyn Error, "the tables cannot be measured now");
        }
    }
}

fn set(gauges: &Family<TableLabels, Gauge>, table: &str, value: i64) {
    gauges.get_or_create(&TableLabels { db_collection_name: table.to_owned() }).set(value);
}
