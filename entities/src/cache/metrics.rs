//! Figures of the cache, by tier and type.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadLabels {
    tier: &'static str,
    r#type: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// Where a value was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// In this process.
    Local,
    /// In Redis.
    Redis,
}

/// What was found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Found {
    /// A valid value, or valid knowledge that there is none.
    Hit,
    /// Nothing.
    Absent,
    /// Something that was written to since.
    Invalidated,
    /// Something valid that is too old.
    Expired,
    /// Something that cannot be read.
    Corrupt,
    /// A value too old, used because the database failed.
    Stale,
}

impl Found {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Absent => "absent",
            Self::Invalidated => "invalidated",
            Self::Expired => "expired",
            Self::Corrupt => "corrupt",
            Self::Stale => "stale",
        }
    }
}

/// The figures.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reads: Family<ReadLabels, Counter>,
    durations: Family<OperationLabels, Histogram>,
    entries: Gauge,
    bytes: Gauge,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let durations = Family::<OperationLabels, Histogram>::new_with_constructor(|| {
            Histogram::new([
                0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25,
            ])
        });
        let metrics =
            Self { reads: Family::default(), durations, entries: Gauge::default(), bytes: Gauge::default() };
        registry.register(
            "cache_requests",
            "Keys looked for, by tier, type and result",
            metrics.reads.clone(),
        );
        registry.register(
            "cache_operation_duration_seconds",
            "Time of one round trip to Redis, by operation",
            metrics.durations.clone(),
        );
        registry.register("cache_entries", "Values held in this process", metrics.entries.clone());
        registry.register("cache_bytes", "Weight of the values held in this process", metrics.bytes.clone());
        metrics
    }

    pub(crate) fn read(&self, tier: Tier, of: &'static str, result: Found, keys: u64) {
        if keys > 0 {
            let tier = match tier {
                Tier::Local => "local",
                Tier::Redis => "redis",
            };
            let labels = ReadLabels { tier, r#type: of, result: result.as_str() };
            self.reads.get_or_create(&labels).inc_by(keys);
        }
    }

    pub(crate) fn round_trip(&self, operation: &'static str, elapsed: Duration) {
        self.durations.get_or_create(&OperationLabels { operation }).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn held(&self, entries: u64, bytes: u64) {
        self.entries.set(entries as i64);
        self.bytes.set(bytes as i64);
    }
}
