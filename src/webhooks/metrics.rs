//! The figures of webhooks.

use std::time::Duration;

use entities::{clock, webhook::delivery::WaitingDeliveries};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

const BUCKETS_SECONDS: [f64; 9] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// The figures. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct WebhookMetrics {
    results: Family<ResultLabels, Counter>,
    seconds: Histogram,
    waiting: Gauge,
    oldest: Gauge,
}

impl WebhookMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            results: Family::default(),
            seconds: Histogram::new(BUCKETS_SECONDS),
            waiting: Gauge::default(),
            oldest: Gauge::default(),
        };
        registry.register(
            "webhook_delivery_attempts",
            "Attempts to deliver events to webhooks, by what they came to: delivered, retried (it is \
             tried again), failed (given up), skipped (the owner may not see it any more), lost \
             (another server had taken over)",
            metrics.results.clone(),
        );
        registry.register(
            "webhook_delivery_duration_seconds",
            "How long receivers of webhooks take to answer",
            metrics.seconds.clone(),
        );
        registry.register(
            "webhook_waiting_deliveries",
            "Deliveries that wait for webhooks that are enabled, as every server sees them",
            metrics.waiting.clone(),
        );
        registry.register(
            "webhook_oldest_delivery_seconds",
            "For how long the oldest of them has waited",
            metrics.oldest.clone(),
        );
        metrics
    }

    pub(super) fn count(&self, result: &'static str) {
        self.results.get_or_create(&ResultLabels { result }).inc();
    }

    pub(super) fn observe(&self, elapsed: Duration) {
        self.seconds.observe(elapsed.as_secs_f64());
    }

    pub(super) fn set_waiting(&self, waiting: WaitingDeliveries) {
        self.waiting.set(waiting.count);
        let age = waiting.oldest.map_or(0, |oldest| (clock::now() - oldest).num_seconds().max(0));
        self.oldest.set(age);
    }
}
