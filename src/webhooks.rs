//! Webhooks as a running server tells them: reads the log of events for them (`entities::webhook::expand`),
//! and sends what is to be delivered (`deliverer`), to addresses that it may call (`sender`). Any server does
//! either; leases in the database say whose turn it is. Where no webhook is enabled that costs one look a
//! second. Not here: who may be told what (`entities::webhook`).

mod body;
mod connector;
mod deliverer;
mod metrics;
mod sender;
mod under_way;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use entities::{
    Store,
    auth::secret::Secret,
    webhook::{
        expand::{Expanded, Expander, is_interesting},
        targets::TargetRules,
    },
};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use deliverer::Deliverer;
use metrics::WebhookMetrics;
use sender::Sender;

use crate::log_waker::{LOOK, LogWaker};

/// How long deliveries under way may take when the server ends.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How webhooks are told.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Addresses that webhooks may have.
    pub targets: TargetRules,
    /// How long an attempt may take in all.
    pub timeout: Duration,
    /// Attempts of this server at a time, all webhooks together.
    pub concurrency: usize,
}

/// What tells webhooks. Made once, with its metrics.
#[derive(Clone, Debug)]
pub struct Webhooks {
    settings: WebhookSettings,
    metrics: WebhookMetrics,
}

impl Webhooks {
    /// Webhooks that are told by these settings, with their metrics in `registry`.
    pub fn new(settings: WebhookSettings, registry: &mut Registry) -> Self {
        Self { settings, metrics: WebhookMetrics::register(registry) }
    }

    /// Begins to tell them, until it is stopped.
    pub fn start(&self, store: &Store, secret: &Secret) -> RunningWebhooks {
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::default());
        let deliverer = Deliverer {
            store: store.clone(),
            secret: secret.clone(),
            sender: Sender::new(self.settings.targets.clone(), self.settings.timeout),
            metrics: self.metrics.clone(),
            concurrency: self.settings.concurrency,
            shared: Arc::clone(&shared),
        };
        let expanding = tokio::spawn(expand(store.clone(), shared));
        let delivering = tokio::spawn(deliverer.run(stopped));
        RunningWebhooks { stop, expanding, delivering }
    }
}

/// Webhooks that are being told.
#[derive(Debug)]
pub struct RunningWebhooks {
    stop: watch::Sender<bool>,
    expanding: JoinHandle<()>,
    delivering: JoinHandle<()>,
}

impl RunningWebhooks {
    /// Begins nothing more, and waits a little for what is under way; what is not done then is done by
    /// another server, or the next.
    pub async fn stop(mut self) {
        self.expanding.abort();
        self.stop.send_replace(true);
        if tokio::time::timeout(END_WITHIN, &mut self.delivering).await.is_err() {
            self.delivering.abort();
        }
    }
}

impl Drop for RunningWebhooks {
    fn drop(&mut self) {
        self.expanding.abort();
        self.delivering.abort();
    }
}

/// What the reader of the log tells the deliverer.
#[derive(Debug, Default)]
struct Shared {
    /// Some webhook is enabled.
    is_used: AtomicBool,
    /// There is something to deliver.
    wake: Notify,
}

/// Reads the log for webhooks, for ever.
async fn expand(store: Store, shared: Arc<Shared>) {
    let mut expander = Expander::new(store.clone());
    // Only while there are webhooks: nobody else has to wait for this.
    let mut waker: Option<LogWaker> = None;
    let mut has_failed = false;
    loop {
        let expanded = expander.step().await;
        if let (Err(error), false) = (&expanded, has_failed) {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "the log of events cannot be read for webhooks; it is tried again"
            );
        }
        has_failed = expanded.is_err();
        let is_used = !matches!(expanded, Ok(Expanded::Unused));
        if shared.is_used.swap(is_used, Ordering::AcqRel) != is_used {
            shared.wake.notify_one();
        }
        match expanded {
            Ok(Expanded::Some(noted)) => {
                if let Some(waker) = &mut waker {
                    waker.found();
                }
                if noted > 0 {
                    shared.wake.notify_one();
                }
            }
            Ok(Expanded::Nothing) => {
                waker.get_or_insert_with(|| LogWaker::new(&store)).wait(is_interesting).await;
            }
            Ok(Expanded::Unused) | Err(_) => {
                waker = None;
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
