//! Figures of Redis.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// Figures of Redis.
pub(super) struct RedisMetrics {
    commands: Family<Labels, Counter>,
    durations: Family<Operation, Histogram>,
    /// Each time another server was named as the master.
    pub(super) master_changes: Counter,
    /// Of the breaker: 0 is closed, 1 open.
    pub(super) state: Gauge,
}

impl RedisMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let durations = Family::<Operation, Histogram>::new_with_constructor(|| {
            Histogram::new([
                0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25,
            ])
        });
        let metrics = Self {
            commands: Family::default(),
            durations,
            master_changes: Counter::default(),
            state: Gauge::default(),
        };
        registry.register(
            "redis_commands",
            "Round trips to Redis, by operation and outcome",
            metrics.commands.clone(),
        );
        registry.register(
            "cache_operation_duration_seconds",
            "Time of one round trip to Redis, by operation",
            metrics.durations.clone(),
        );
        registry.register(
            "redis_master_changes",
            "Times a majority of the sentinels has named another Redis as the master",
            metrics.master_changes.clone(),
        );
        registry.register("circuit_breaker_state", "Redis: 0 closed, 1 open", metrics.state.clone());
        metrics
    }

    pub(super) fn count(&self, operation: &'static str, outcome: &'static str) {
        self.commands.get_or_create(&Labels { operation, outcome }).inc();
    }

    pub(super) fn observe(&self, operation: &'static str, elapsed: Duration) {
        self.durations.get_or_create(&Operation { operation }).observe(elapsed.as_secs_f64());
    }
}
