//! Sinks: message queues that every event is published to, as CloudEvents: Redis streams, RabbitMQ (AMQP
//! 0.9.1) and NATS JetStream. At least once, and of one form or account in order; a consumer that must not
//! count twice keeps the ids that it has seen. One server at a time publishes to a sink, by a lease in the
//! database; another one goes on where it ended. Not here: webhooks, which people make in the graph.

mod amqp;
mod cloud_event;
mod metrics;
mod nats;
mod publisher;
mod redis_stream;
mod target;

use std::time::Duration;

use entities::{
    Store,
    events::{EventExport, Exported},
};
use prometheus_client::registry::Registry;
use tokio::task::{JoinHandle, JoinSet};

use metrics::SinkMetrics;
use publisher::{Batch, Publisher};

use crate::{
    error_chain::chain,
    log_waker::{LOOK, LogWaker},
};

pub use target::SinkUrl;

/// How long it is waited for a connection at a time.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries at a sink that does not take events: the first pause, and the longest.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// The sinks of a server. Made once, with their metrics.
#[derive(Clone, Debug)]
pub struct Sinks {
    urls: Vec<SinkUrl>,
    source: String,
    metrics: SinkMetrics,
}

impl Sinks {
    /// Sinks at these URLs, with their metrics in `registry`; `source` is the attribute of that name of each
    /// CloudEvent.
    pub fn new(urls: Vec<SinkUrl>, source: String, registry: &mut Registry) -> Self {
        Self { urls, source, metrics: SinkMetrics::register(registry) }
    }

    /// Begins to publish. It ends when what is returned is dropped; what is not published then is published
    /// by another server, or the next.
    pub fn start(&self, store: &Store) -> JoinSet<()> {
        let mut running = JoinSet::new();
        for url in &self.urls {
            let sink = Sink {
                export: EventExport::new(store.database(), url.consumer()),
                url: url.clone(),
                publisher: None,
                opening: None,
                source: self.source.clone(),
                waker: LogWaker::new(store),
                metrics: self.metrics.of(url.name()),
            };
            running.spawn(sink.run());
        }
        running
    }
}

/// One sink, as this server publishes to it.
struct Sink {
    url: SinkUrl,
    source: String,
    export: EventExport,
    /// A connection, once there was something to publish.
    publisher: Option<Publisher>,
    /// One in the making. It is not given up: a broker that takes the connection and says nothing would get
    /// another one each time.
    opening: Option<JoinHandle<Result<Publisher, String>>>,
    waker: LogWaker,
    metrics: metrics::OfSink,
}

impl Sink {
    async fn run(mut self) {
        let mut batch = Batch::default();
        let (mut pause, mut has_failed) = (TRY_AGAIN.0, false);
        loop {
            let step = self.step(&mut batch).await;
            match step {
                Ok(Step::Published) => {
                    if has_failed {
                        tracing::info!(sink = self.url.name(), "events are published again");
                    }
                    self.waker.found();
                    (pause, has_failed) = (TRY_AGAIN.0, false);
                }
                Ok(Step::Nothing) => {
                    (pause, has_failed) = (TRY_AGAIN.0, false);
                    self.waker.wait(|_| true).await;
                }
                Ok(Step::Elsewhere) => {
                    // Who publishes next connects then.
                    self.publisher = None;
                    (batch, pause, has_failed) = (Batch::default(), TRY_AGAIN.0, false);
                    self.metrics.set_lag(Duration::ZERO);
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => {
                    if !has_failed {
                        tracing::warn!(
                            sink = self.url.name(),
                            error,
                            "events cannot be published; nothing is lost as long as the log has them \
                             (retention.events)"
                        );
                    }
                    has_failed = true;
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(TRY_AGAIN.1);
                }
            }
        }
    }

    /// Publishes what comes next.
    async fn step(&mut self, batch: &mut Batch) -> Result<Step, String> {
        let transactions = match self.export.next().await.map_err(|error| described(&error))? {
            Exported::Nothing => {
                self.metrics.set_lag(Duration::ZERO);
                return Ok(Step::Nothing);
            }
            Exported::Elsewhere => return Ok(Step::Elsewhere),
            Exported::Transactions(transactions) => transactions,
        };
        if let Some(first) = transactions.first() {
            let age = entities::clock::now() - first.written_at;
            self.metrics.set_lag(age.to_std().unwrap_or_default());
        }
        let Some(publisher) = &self.publisher else {
            // Then it is asked again what comes next: a connection may take longer than the lease lasts.
            self.open().await.inspect_err(|_| self.metrics.count_failure())?;
            return Ok(Step::Published);
        };
        let published = batch.publish(publisher, &transactions).await;
        self.metrics.count(&published);
        if published.failure.is_some() && !publisher.is_usable() {
            self.publisher = None;
        }
        if let Some(last) = published.up_to
            && !self.export.published(last).await.map_err(|error| described(&error))?
        {
            return Ok(Step::Elsewhere);
        }
        published.failure.map_or(Ok(Step::Published), Err)
    }

    /// Connects, and makes what is published to where that is missing.
    async fn open(&mut self) -> Result<(), String> {
        let (target, source) = (self.url.target.clone(), self.source.clone());
        let opening = self.opening.get_or_insert_with(|| tokio::spawn(Publisher::open(target, source)));
        let Ok(opened) = tokio::time::timeout(CONNECT_WITHIN, opening).await else {
            return Err("the connection is not made yet".to_owned());
        };
        self.opening = None;
        self.publisher = Some(opened.map_err(|error| error.to_string())??);
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(opening) = &self.opening {
            opening.abort();
        }
    }
}

enum Step {
    Nothing,
    Elsewhere,
    Published,
}

/// An error with what it comes from. Addresses in it are masked: they may have passwords.
fn described(error: &dyn std::error::Error) -> String {
    entities::masked::text(&chain(error))
}
