//! The metrics of sinks. Not here: when they change.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::publisher::PublishOutcome;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabels {
    sink: String,
}

#[derive(Clone, Debug)]
pub(super) struct SinkMetrics {
    published: Family<SinkLabels, Counter>,
    failures: Family<SinkLabels, Counter>,
    lag: Family<SinkLabels, Gauge>,
}

/// The metrics of one sink.
pub(super) struct OfSink {
    published: Counter,
    failures: Counter,
    lag: Gauge,
}

impl SinkMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let (published, failures, lag) = (Family::default(), Family::default(), Family::default());
        registry.register("sink_events", "Events that a sink has confirmed", Family::clone(&published));
        registry.register(
            "sink_failures",
            "Events that a sink did not confirm, and connections that it did not take; both are tried again",
            Family::clone(&failures),
        );
        registry.register(
            "sink_lag_seconds",
            "Age of the oldest event that this server has yet to publish; 0 when all are published",
            Family::clone(&lag),
        );
        Self { published, failures, lag }
    }

    pub(super) fn of(&self, sink: &str) -> OfSink {
        let labels = SinkLabels { sink: sink.to_owned() };
        OfSink {
            published: self.published.get_or_create(&labels).clone(),
            failures: self.failures.get_or_create(&labels).clone(),
            lag: self.lag.get_or_create(&labels).clone(),
        }
    }
}

impl OfSink {
    pub(super) fn count(&self, published: &PublishOutcome) {
        self.published.inc_by(published.events);
        self.failures.inc_by(published.failures);
    }

    pub(super) fn count_failure(&self) {
        self.failures.inc();
    }

    pub(super) fn set_lag(&self, lag: Duration) {
        self.lag.set(i64::try_from(lag.as_secs()).unwrap_or(i64::MAX));
    }
}
