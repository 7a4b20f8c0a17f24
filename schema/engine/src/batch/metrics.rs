//! Figures of the batcher by loader. Labels are the loaders' constant names.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoaderLabel {
    loader: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    loader: &'static str,
    result: &'static str,
}

/// What batches did, as Prometheus reads it. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    sizes: Family<LoaderLabel, Histogram>,
    durations: Family<LoaderLabel, Histogram>,
    keys: Family<KeyLabels, Counter>,
}

impl Metrics {
    /// Metrics that are in the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let sizes = Family::<LoaderLabel, Histogram>::new_with_constructor(|| {
            Histogram::new([1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0])
        });
        let durations = Family::<LoaderLabel, Histogram>::new_with_constructor(|| {
            Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5])
        });
        let keys = Family::<KeyLabels, Counter>::default();
        registry.register("dataloader_batch_size", "Keys in a batch", sizes.clone());
        registry.register("dataloader_batch_duration_seconds", "Time of a batch", durations.clone());
        registry.register(
            "dataloader_keys",
            "Keys by what became of them: loaded, absent, failed, or deduplicated before loading",
            keys.clone(),
        );
        Self { sizes, durations, keys }
    }

    /// Keys that were asked for and already known or under way.
    pub(super) fn asked(&self, loader: &'static str, deduplicated: usize) {
        self.count(loader, "deduplicated", deduplicated);
    }

    pub(super) fn ran(
        &self,
        loader: &'static str,
        keys: usize,
        found: usize,
        failed: bool,
        elapsed: Duration,
    ) {
        self.sizes.get_or_create(&LoaderLabel { loader }).observe(keys as f64);
        self.durations.get_or_create(&LoaderLabel { loader }).observe(elapsed.as_secs_f64());
        if failed {
            self.count(loader, "failed", keys);
        } else {
            self.count(loader, "loaded", found);
            self.count(loader, "absent", keys - found);
        }
    }

    fn count(&self, loader: &'static str, result: &'static str, keys: usize) {
        if keys > 0 {
            self.keys.get_or_create(&KeyLabels { loader, result }).inc_by(keys as u64);
        }
    }
}
