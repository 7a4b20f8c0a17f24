//! Delivers what waits: takes leases of lanes, sends what is first in each, notes what it came to. Not here:
//! how many at a time, and for whom (`under_way`), the order of deliveries, and when they are tried again
//! (`entities::webhook::lane`).

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use entities::{
    SPANS, Store,
    auth::secret::Secret,
    clock,
    webhook::{
        delivery::{self, Model as Delivery},
        lane::{self, AttemptOutcome, DisableCode, FailedAttempt, LaneLease, Settled},
        subject,
    },
};
use tokio::{sync::watch, task::JoinSet};
use tracing::{Instrument as _, field::Empty};

use super::{
    Shared, body,
    metrics::WebhookMetrics,
    sender::{Sender, WebhookMessage},
    under_way::UnderWay,
};

use crate::log_waker::LOOK;

/// Deliveries of a lane, one after the other, before others have their turn.
const TURN: usize = 20;
/// How long such a turn lasts at most; the delivery that is under way then is the last one.
const TURN_TIME: Duration = Duration::from_secs(2);
/// How much longer than an attempt a lease lasts: what is done around it.
const LEASE_MARGIN: Duration = Duration::from_secs(15);
/// Between two counts of what waits.
const MEASURE: Duration = Duration::from_secs(15);

pub(super) struct Deliverer {
    pub(super) store: Store,
    pub(super) secret: Secret,
    pub(super) sender: Sender,
    pub(super) metrics: WebhookMetrics,
    pub(super) concurrency: usize,
    pub(super) shared: Arc<Shared>,
}

impl Deliverer {
    /// Delivers until it is stopped; what is under way then comes to its end.
    pub(super) async fn run(self, mut stopped: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let under_way = UnderWay::new(this.concurrency);
        let (mut tasks, mut has_failed, mut measured) = (JoinSet::new(), false, None::<Instant>);
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => break,
                () = this.shared.wake.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            while tasks.try_join_next().is_some() {}
            if !this.shared.is_used.load(Ordering::Acquire) {
                this.metrics.set_waiting(delivery::WaitingDeliveries::default());
                continue;
            }
            let round = this.round(&under_way, &mut tasks, &stopped).await;
            if let (Err(error), false) = (&round, has_failed) {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "what is to be delivered to webhooks cannot be read; it is tried again"
                );
            }
            has_failed = round.is_err();
            if measured.is_none_or(|at| at.elapsed() >= MEASURE) {
                measured = Some(Instant::now());
                if let Ok(waiting) = delivery::waiting(&this.store).await {
                    this.metrics.set_waiting(waiting);
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Begins what can be begun now.
    async fn round(
        self: &Arc<Self>,
        under_way: &Arc<UnderWay>,
        tasks: &mut JoinSet<()>,
        stopped: &watch::Receiver<bool>,
    ) -> Result<(), entities::Error> {
        loop {
            let free = under_way.free();
            if free == 0 || *stopped.borrow() {
                return Ok(());
            }
            let mut begun = 0;
            // Those for whom nothing may begin must not fill the list.
            for due in lane::due(&self.store, &under_way.except(), free).await? {
                let room = under_way.room_for(&due);
                if room == 0 {
                    continue;
                }
                // None where another instance was quicker.
                let leases = lane::claim(&self.store, due.id, room, self.lease()).await?;
                for lease in leases {
                    begun += 1;
                    let (this, busy, stopped) = (Arc::clone(self), under_way.begin(due), stopped.clone());
                    tasks.spawn(async move {
                        this.deliver_lane(&lease, &stopped).await;
                        drop(busy);
                        // There is room for another one.
                        this.shared.wake.notify_one();
                    });
                }
            }
            if begun == 0 {
                return Ok(());
            }
        }
    }

    fn lease(&self) -> Duration {
        self.sender.timeout() + LEASE_MARGIN
    }

    /// Delivers what is first in a lane, and what follows, for a turn.
    async fn deliver_lane(&self, lane: &LaneLease, stopped: &watch::Receiver<bool>) {
        let began = Instant::now();
        for _ in 0..TURN {
            match self.deliver_next(lane).await {
                Ok(Settled::Next) if !*stopped.borrow() && began.elapsed() < TURN_TIME => {}
                Ok(Settled::Next) => break,
                Ok(Settled::Lost | Settled::Rests { .. }) => return,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        webhook = %lane.webhook,
                        "a delivery could not be noted; it is sent again"
                    );
                    // Its lease runs out.
                    return;
                }
            }
        }
        if let Err(error) = lane.give_back(&self.store).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "a lease could not be given back");
        }
    }

    async fn deliver_next(&self, lane: &LaneLease) -> Result<Settled, entities::Error> {
        let Some((webhook, delivery)) = lane.head(&self.store).await? else {
            lane.give_back(&self.store).await?;
            return Ok(Settled::Rests { is_tried_again: false, disabled: None });
        };
        let span = tracing::debug_span!(
            target: SPANS, "webhook", otel.name = "webhook.deliver", otel.kind = "client",
            webhook.id = %webhook.id, webhook.delivery_id = %delivery.id, http.request.method = "POST",
            http.response.status_code = Empty, otel.status_code = Empty,
        );
        let outcome = async {
            let Some(subject) = subject::of(self.store.database(), &webhook, &delivery).await? else {
                return Ok(AttemptOutcome::Skipped);
            };
            let secrets = webhook.secrets(&self.secret, clock::now());
            if secrets.is_empty() {
                let why = "The secret of the webhook was sealed with another auth.secret: rotate it, then \
                           enable the webhook.";
                return Ok(AttemptOutcome::Failed(FailedAttempt {
                    why: why.to_owned(),
                    disables: Some(DisableCode::Secret),
                    ..FailedAttempt::default()
                }));
            }
            let (id, body) = (delivery.id.to_string(), body::of(&delivery, &subject));
            Ok::<_, entities::Error>(self.send(&webhook.url, (&id, body), &secrets).await)
        };
        let outcome = outcome.instrument(span.clone()).await?;
        match &outcome {
            AttemptOutcome::Delivered { status } => drop(span.record("http.response.status_code", *status)),
            AttemptOutcome::Failed(_) => drop(span.record("otel.status_code", "ERROR")),
            AttemptOutcome::Skipped => {}
        }
        let settled = lane.settle(&self.store, (&webhook, &delivery), &outcome, self.lease()).await?;
        self.report(&delivery, &outcome, settled);
        Ok(settled)
    }

    async fn send(
        &self,
        url: &str,
        (id, body): (&str, Bytes),
        secrets: &[entities::webhook::secret::WebhookSecret],
    ) -> AttemptOutcome {
        let began = Instant::now();
        let outcome = self.sender.send(WebhookMessage { id, url, body, secrets }).await;
        self.metrics.observe(began.elapsed());
        outcome
    }

    fn report(&self, delivery: &Delivery, outcome: &AttemptOutcome, settled: Settled) {
        let (is_tried_again, disabled) = match settled {
            Settled::Rests { is_tried_again, disabled } => (is_tried_again, disabled),
            Settled::Next | Settled::Lost => (false, None),
        };
        self.metrics.count(match outcome {
            _ if settled == Settled::Lost => "lost",
            AttemptOutcome::Delivered { .. } => "delivered",
            AttemptOutcome::Skipped => "skipped",
            AttemptOutcome::Failed(_) if is_tried_again => "retried",
            AttemptOutcome::Failed(_) => "failed",
        });
        if let Some(code) = disabled {
            // What the receiver says is for the owner of the webhook only.
            tracing::warn!(
                webhook = %delivery.webhook_id, delivery = %delivery.id, why = code.as_str(),
                "a webhook is disabled: nothing can be delivered to it"
            );
        }
    }
}
