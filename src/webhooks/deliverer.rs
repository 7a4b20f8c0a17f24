//! Delivers what waits: takes leases of lanes, sends what is first in each, notes what it came to. Bounded in all and for each webhook,
//! so that a receiver that is slow or away takes no more than its share: one that fails is asked by one attempt at a time. Not here:
//! the order of deliveries, and when they are tried again (`entities::webhook::lane`).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use entities::{
    SPANS, Store,
    auth::secret::Secret,
    clock,
    id::WebhookId,
    webhook::{
        delivery::{self, Model as Delivery},
        lane::{self, AttemptOutcome, DisableCode, DueWebhook, FailedAttempt, LaneLease, Settled},
        subject,
    },
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tracing::{Instrument as _, field::Empty};

use super::{
    Shared, body,
    metrics::WebhookMetrics,
    sender::{Sender, WebhookMessage},
};

use crate::log_waker::LOOK;

/// Attempts at one webhook at a time.
const PER_WEBHOOK: usize = 4;
/// Of all attempts, those at webhooks that fail: one in so many.
const SHARE_OF_FAILING: usize = 2;
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

/// How many lanes of a webhook are being delivered here.
#[derive(Clone, Copy, Debug)]
struct Busy {
    webhook: WebhookId,
    lanes: usize,
    is_failing: bool,
}

/// What is under way.
#[derive(Debug, Default)]
struct UnderWay(Mutex<Vec<Busy>>);

impl UnderWay {
    fn all(&self) -> MutexGuard<'_, Vec<Busy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Webhooks of which no further lane may be taken.
    fn saturated(&self) -> Vec<WebhookId> {
        let is_full = |busy: &&Busy| busy.lanes >= if busy.is_failing { 1 } else { PER_WEBHOOK };
        self.all().iter().filter(is_full).map(|busy| busy.webhook).collect()
    }

    fn failing(&self) -> usize {
        self.all().iter().filter(|busy| busy.is_failing).map(|busy| busy.lanes).sum()
    }

    /// How many further lanes of this webhook may be taken.
    fn room_for(&self, due: DueWebhook) -> usize {
        let lanes = self.all().iter().find(|busy| busy.webhook == due.id).map_or(0, |busy| busy.lanes);
        let most = if due.is_failing { 1 } else { PER_WEBHOOK };
        most.saturating_sub(lanes)
    }

    fn begin(&self, due: DueWebhook, lanes: usize) {
        let mut all = self.all();
        match all.iter_mut().find(|busy| busy.webhook == due.id) {
            Some(busy) => {
                busy.lanes += lanes;
                busy.is_failing = due.is_failing;
            }
            None => all.push(Busy { webhook: due.id, lanes, is_failing: due.is_failing }),
        }
    }

    fn end(&self, webhook: WebhookId) {
        let mut all = self.all();
        if let Some(busy) = all.iter_mut().find(|busy| busy.webhook == webhook) {
            busy.lanes -= 1;
        }
        all.retain(|busy| busy.lanes > 0);
    }
}

impl Deliverer {
    /// Delivers until it is stopped; what is under way then comes to its end.
    pub(super) async fn run(self, mut stopped: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let (slots, under_way) = (Arc::new(Semaphore::new(this.concurrency)), Arc::new(UnderWay::default()));
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
            let round = this.round(&slots, &under_way, &mut tasks, &stopped).await;
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
        slots: &Arc<Semaphore>,
        under_way: &Arc<UnderWay>,
        tasks: &mut JoinSet<()>,
        stopped: &watch::Receiver<bool>,
    ) -> Result<(), entities::Error> {
        loop {
            let free = slots.available_permits();
            if free == 0 || *stopped.borrow() {
                return Ok(());
            }
            let (mut begun, saturated) = (0, under_way.saturated());
            let most_failing = (self.concurrency / SHARE_OF_FAILING).max(1);
            // Those that fail must not fill the list when none of them may begin.
            let but_failing = under_way.failing() >= most_failing;
            for due in lane::due(&self.store, &saturated, but_failing, free).await? {
                if due.is_failing && under_way.failing() >= most_failing {
                    continue;
                }
                let room = under_way.room_for(due).min(slots.available_permits());
                if room == 0 {
                    continue;
                }
                let leases = lane::claim(&self.store, due.id, room, self.lease()).await?;
                if leases.is_empty() {
                    // Another instance was quicker.
                    continue;
                }
                under_way.begin(due, leases.len());
                for lease in leases {
                    begun += 1;
                    let slot = Arc::clone(slots).try_acquire_owned();
                    let (this, under_way, stopped) =
                        (Arc::clone(self), Arc::clone(under_way), stopped.clone());
                    tasks.spawn(async move {
                        this.deliver_lane(&lease, &stopped).await;
                        under_way.end(lease.webhook);
                        drop(slot);
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
