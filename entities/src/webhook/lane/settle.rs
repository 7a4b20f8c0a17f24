//! What an attempt came to: written down, with all that follows for the delivery, its lane and its webhook,
//! in one transaction. Not here: who makes attempts, and the pauses between them (`retry`).

use std::time::Duration;

use chrono::TimeDelta;

use super::{GIVE_UP_AFTER, LaneLease, has_more, lock_all, pause_after, rest_all};
use crate::{
    activity::{Action, ActivityEntry},
    clock::{self, Time},
    database::transaction::SqlTransaction,
    error::Error,
    events::ChangeEvent,
    id::NodeKind,
    store::{Store, transaction::Transaction},
    webhook::{
        Model as Webhook,
        delivery::{self, DeliveryStatus},
    },
};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The receiver has taken it.
    Delivered {
        /// The HTTP status of the answer.
        status: u16,
    },
    /// The webhook's owner may not be told of it any more: nothing was sent.
    Skipped,
    /// The receiver has not taken it.
    Failed(FailedAttempt),
}

/// Why the server disables a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisableCode {
    /// The receiver answers that it is gone.
    Gone,
    /// Nothing could be delivered for days.
    Failing,
    /// The webhook's secret cannot be read: nothing was sent, and what waits goes on waiting.
    Secret,
}

impl DisableCode {
    /// As it is logged: without what the receiver says, which may have names of hosts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "GONE",
            Self::Failing => "FAILING",
            Self::Secret => "SECRET",
        }
    }
}

/// An attempt that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The status, if it has answered.
    pub status: Option<u16>,
    /// Why, for the owner of the webhook.
    pub why: String,
    /// After how long it wants to be asked again.
    pub retry_after: Option<Duration>,
    /// No further attempt can succeed: the webhook is to be disabled.
    pub disables: Option<DisableCode>,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The lease had run out: another one goes on, and what this attempt came to is not noted.
    Lost,
    /// The next delivery of the lane may follow.
    Next,
    /// Nothing waits in the lane, or not yet; the lease is given back. It is tried again, or not any more.
    Rests {
        /// The delivery is tried again later.
        is_tried_again: bool,
        /// Why the webhook was disabled, if it was.
        disabled: Option<DisableCode>,
    },
}

impl LaneLease {
    /// Notes what an attempt came to, and what follows.
    ///
    /// # Errors
    /// The database's: nothing is noted, and the lease runs out.
    pub async fn settle(
        &self,
        store: &Store,
        (webhook, delivery): (&Webhook, &delivery::Model),
        outcome: &AttemptOutcome,
        lease: Duration,
    ) -> Result<Settled, Error> {
        let now = clock::now();
        let mut verdict = AttemptVerdict::of(webhook, delivery, outcome, now);
        let mut transaction = Transaction::begin(store).await?;
        if verdict.disabled.is_some() {
            lock_all(&transaction, self.webhook).await?;
        }
        if !self.keep(&transaction, lease).await? {
            return Ok(Settled::Lost);
        }
        let is_noted = note_state(&transaction, webhook, outcome, &verdict, now).await?;
        if let (Some(_), false, AttemptOutcome::Failed(failed)) = (&verdict.disabled, is_noted, outcome) {
            // It was changed since this attempt began: what the attempt says is of the webhook before.
            verdict = AttemptVerdict::again(delivery, failed, now);
        }
        note(&transaction, delivery, outcome, &verdict, now).await?;
        if verdict.gives_up_lane {
            give_up_old(&transaction, self, now).await?;
        }
        let disabled = verdict.disabled.as_ref().map(|(code, _)| *code);
        let settled = match verdict.again {
            _ if disabled.is_some() => {
                self.rest(&transaction, None).await?;
                rest_all(&transaction, self.webhook).await?;
                Settled::Rests { is_tried_again: verdict.status == DeliveryStatus::Pending, disabled }
            }
            Some(later) => {
                self.rest(&transaction, Some(later)).await?;
                Settled::Rests { is_tried_again: true, disabled }
            }
            // After the lane was locked: what was noted before is seen, what is noted later waits for this.
            None if has_more(&transaction, self).await? => Settled::Next,
            None => {
                self.rest(&transaction, None).await?;
                Settled::Rests { is_tried_again: false, disabled }
            }
        };
        if is_noted {
            transaction.changed(ChangeEvent::Webhook { id: webhook.id });
        }
        let Some(code) = disabled else {
            transaction.commit_unlogged().await?;
            return Ok(settled);
        };
        let (action, subject) = (Action::WebhookDisable, Some((NodeKind::Webhook, webhook.id.0)));
        let metadata = serde_json::json!({ "reason": code.as_str() });
        transaction.commit(ActivityEntry { user: None, action, subject, metadata }).await?;
        Ok(settled)
    }
}

/// Notes what an attempt says of its webhook: since when it fails, and that it is disabled. Not where
/// somebody has changed or disabled it since the attempt began. Whether anything was noted.
async fn note_state(
    transaction: &SqlTransaction,
    webhook: &Webhook,
    outcome: &AttemptOutcome,
    verdict: &AttemptVerdict,
    now: Time,
) -> Result<bool, Error> {
    let change = match outcome {
        AttemptOutcome::Delivered { .. } if webhook.failing_since.is_some() => Some(None),
        AttemptOutcome::Failed(_) if webhook.failing_since.is_none() => Some(Some(now)),
        _ => None,
    };
    if change.is_none() && verdict.disabled.is_none() {
        return Ok(false);
    }
    let mut sql = transaction.sql();
    sql.push("UPDATE webhooks SET failing_since = ").bind(change.unwrap_or(webhook.failing_since));
    if let Some((_, reason)) = &verdict.disabled {
        sql.push(", is_enabled = FALSE, disabled_at = ").bind(now);
        sql.push(", disabled_reason = ").bind(reason.clone());
    }
    sql.push(" WHERE id = ")
        .bind(webhook.id)
        .push(" AND is_enabled AND updated_at = ")
        .bind(webhook.updated_at);
    Ok(transaction.execute("webhook.note_state", "webhooks", sql).await? > 0)
}

/// What follows from an attempt for its delivery and its webhook.
struct AttemptVerdict {
    status: DeliveryStatus,
    /// After how long it is tried again.
    again: Option<Duration>,
    /// Why the webhook is disabled, in words for its owner.
    disabled: Option<(DisableCode, String)>,
    /// What has waited behind this delivery for as long as it was tried is given up with it.
    gives_up_lane: bool,
}

impl AttemptVerdict {
    fn done(status: DeliveryStatus) -> Self {
        Self { status, again: None, disabled: None, gives_up_lane: false }
    }

    fn of(webhook: &Webhook, delivery: &delivery::Model, outcome: &AttemptOutcome, now: Time) -> Self {
        let failed = match outcome {
            AttemptOutcome::Delivered { .. } => return Self::done(DeliveryStatus::Delivered),
            AttemptOutcome::Skipped => return Self::done(DeliveryStatus::Skipped),
            AttemptOutcome::Failed(failed) => failed,
        };
        if let Some(code) = failed.disables {
            let status =
                if code == DisableCode::Secret { DeliveryStatus::Pending } else { DeliveryStatus::Failed };
            return Self { disabled: Some((code, failed.why.clone())), ..Self::done(status) };
        }
        let mut verdict = Self::again(delivery, failed, now);
        if webhook.failing_since.is_some_and(|since| now - since >= give_up_after()) {
            let reason = format!("No delivery has succeeded for 3 days. The last one: {}", failed.why);
            verdict.disabled = Some((DisableCode::Failing, reason));
            // What waits goes on waiting for the webhook to be enabled.
            verdict.gives_up_lane = false;
        }
        verdict
    }

    /// Without anything that follows for the webhook.
    fn again(delivery: &delivery::Model, failed: &FailedAttempt, now: Time) -> Self {
        let first = delivery.first_attempt_at.unwrap_or(now);
        if now - first >= give_up_after() {
            return Self { gives_up_lane: true, ..Self::done(DeliveryStatus::Failed) };
        }
        let attempt = delivery.attempts.unsigned_abs().saturating_add(1);
        let pause = pause_after(attempt, (now - first).to_std().unwrap_or_default(), failed.retry_after);
        // The last attempt is at the end of that time.
        let left = (first + give_up_after() - now).to_std().unwrap_or_default();
        Self { again: Some(pause.min(left)), ..Self::done(DeliveryStatus::Pending) }
    }
}

fn give_up_after() -> TimeDelta {
    TimeDelta::from_std(GIVE_UP_AFTER).unwrap_or_default()
}

/// Gives up what waits in a lane since before the delivery that was given up just now was tried first. What
/// is delivered once more waits since somebody asked for that, and is not meant.
async fn give_up_old(transaction: &SqlTransaction, lane: &LaneLease, now: Time) -> Result<(), Error> {
    let mut sql = transaction.sql();
    sql.push("UPDATE webhook_deliveries SET status = ").bind(DeliveryStatus::Failed.as_str());
    sql.push(", next_attempt_at = NULL, finished_at = ").bind(now);
    sql.push(", last_error = ").bind("Given up unsent: what it waited for has failed for 3 days.");
    sql.push(" WHERE webhook_id = ").bind(lane.webhook).push(" AND form_id = ").bind(lane.form);
    sql.push(" AND status = 'PENDING' AND attempts = 0 AND created_at < ").bind(now - give_up_after());
    transaction.execute("webhook_delivery.give_up", "webhook_deliveries", sql).await.map(drop)
}

/// Writes down an attempt.
async fn note(
    transaction: &SqlTransaction,
    delivery: &delivery::Model,
    outcome: &AttemptOutcome,
    verdict: &AttemptVerdict,
    now: Time,
) -> Result<(), Error> {
    let (code, why, is_attempt) = match outcome {
        AttemptOutcome::Delivered { status } => (Some(*status), None, true),
        AttemptOutcome::Skipped => (None, None, false),
        AttemptOutcome::Failed(failed) => {
            // Nothing was sent without a secret.
            let is_attempt = failed.disables != Some(DisableCode::Secret);
            (failed.status, Some(failed.why.clone()), is_attempt)
        }
    };
    let mut sql = transaction.sql();
    sql.push("UPDATE webhook_deliveries SET status = ").bind(verdict.status.as_str());
    let next = verdict.again.map(|later| now + TimeDelta::from_std(later).unwrap_or_default());
    sql.push(", next_attempt_at = ").bind(next);
    if is_attempt {
        sql.push(", attempts = attempts + 1, last_attempt_at = ").bind(now);
        sql.push(", first_attempt_at = COALESCE(first_attempt_at, ").bind(now).push(")");
        sql.push(", last_status_code = ").bind(code.map(i32::from));
        sql.push(", last_error = ").bind(why);
    }
    if verdict.status != DeliveryStatus::Pending {
        sql.push(", finished_at = ").bind(now);
    }
    sql.push(" WHERE id = ").bind(delivery.id);
    transaction.execute("webhook_delivery.note", "webhook_deliveries", sql).await.map(drop)
}
