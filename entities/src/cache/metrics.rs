//! Figures of the cache, by tier and type.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadLabels {
    tier: &'static str,
    r#type: &'static str,
    result: &'static str,
}

/// Where a value was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// In this process.
    Local,
    /// In Redis.
    Redis,
}

impl Tier {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis => "redis",
        }
    }
}

/// What was found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LookupResult {
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
    /// Redis did not say whether anything is valid.
    Unchecked,
}

impl LookupResult {
    /// Each in its place.
    pub(crate) const ALL: [Self; 7] = [
        Self::Hit,
        Self::Absent,
        Self::Invalidated,
        Self::Expired,
        Self::Corrupt,
        Self::Stale,
        Self::Unchecked,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Absent => "absent",
            Self::Invalidated => "invalidated",
            Self::Expired => "expired",
            Self::Corrupt => "corrupt",
            Self::Stale => "stale",
            Self::Unchecked => "unchecked",
        }
    }
}

/// What became of an invalidation that its writer could not publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// Another instance has published it.
    Taken,
    /// The writer itself could in the end.
    Published,
    /// Nobody had taken it in time.
    Timeout,
    /// It was not waited for, since that was in vain a moment ago.
    Skipped,
}

impl Handover {
    fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Published => "published",
            Self::Timeout => "timeout",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandoverLabels {
    outcome: &'static str,
}

/// The figures.
#[derive(Clone, Debug)]
pub(crate) struct CacheMetrics {
    reads: Family<ReadLabels, Counter>,
    handovers: Family<HandoverLabels, Counter>,
    outbox_age: Gauge<f64, AtomicU64>,
    entries: Gauge,
    bytes: Gauge,
}

impl CacheMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let (reads, handovers, outbox_age, entries, bytes) = Default::default();
        let metrics = Self { reads, handovers, outbox_age, entries, bytes };
        registry.register(
            "cache_requests",
            "Keys looked for, by tier, type and result",
            metrics.reads.clone(),
        );
        registry.register(
            "cache_handovers",
            "Writes whose instance could not tell Redis and left that to another one, by outcome",
            metrics.handovers.clone(),
        );
        registry.register(
            "cache_outbox_oldest_seconds",
            "Age of the oldest invalidation that waits in the database to be published; 0 where none does",
            metrics.outbox_age.clone(),
        );
        registry.register("cache_entries", "Values held in this process", metrics.entries.clone());
        registry.register("cache_bytes", "Weight of the values held in this process", metrics.bytes.clone());
        metrics
    }

    pub(crate) fn read(&self, tier: Tier, of: &'static str, result: LookupResult, keys: u64) {
        if keys > 0 {
            let labels = ReadLabels { tier: tier.as_str(), r#type: of, result: result.as_str() };
            self.reads.get_or_create(&labels).inc_by(keys);
        }
    }

    pub(crate) fn handed_over(&self, outcome: Handover) {
        self.handovers.get_or_create(&HandoverLabels { outcome: outcome.as_str() }).inc();
    }

    pub(crate) fn set_outbox_age(&self, age: Duration) {
        self.outbox_age.set(age.as_secs_f64());
    }

    pub(crate) fn set_size(&self, entries: u64, bytes: u64) {
        self.entries.set(entries as i64);
        self.bytes.set(bytes as i64);
    }
}
