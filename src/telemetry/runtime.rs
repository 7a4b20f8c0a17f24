//! What the runtime's threads do, read when somebody asks.

use std::{fmt, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use tokio::runtime::{Handle, RuntimeMetrics};

#[derive(Debug)]
pub(super) struct Runtime(RuntimeMetrics);

impl Runtime {
    /// The runtime that this is called in; `None` outside of any.
    pub(super) fn current() -> Option<Self> {
        Handle::try_current().ok().map(|handle| Self(handle.metrics()))
    }

    fn of_workers<T: std::iter::Sum>(&self, each: impl Fn(&RuntimeMetrics, usize) -> T) -> T {
        (0..self.0.num_workers()).map(|worker| each(&self.0, worker)).sum()
    }
}

impl Collector for Runtime {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut tell = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let gauge = |count: usize| ConstGauge::new(count as i64);
        tell("tokio_workers", "Threads that run tasks", &gauge(self.0.num_workers()))?;
        tell("tokio_alive_tasks", "Tasks that have not ended", &gauge(self.0.num_alive_tasks()))?;
        tell(
            "tokio_global_queue_depth",
            "Tasks that wait for any worker",
            &gauge(self.0.global_queue_depth()),
        )?;
        let busy: Duration = self.of_workers(RuntimeMetrics::worker_total_busy_duration);
        tell(
            "tokio_worker_busy_seconds",
            "Time that the workers spent on tasks",
            &ConstCounter::new(busy.as_secs_f64()),
        )?;
        let parks: u64 = self.of_workers(RuntimeMetrics::worker_park_count);
        tell(
            "tokio_worker_parks",
            "How often a worker found nothing to do and went to sleep",
            &ConstCounter::new(parks),
        )
    }
}
