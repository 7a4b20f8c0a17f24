//! Lanes: what one webhook has to be told of one form, one delivery after the other. Whoever delivers holds a lease of the lane, by
//! the database's clock; one that is not renewed runs out, and another instance goes on with the delivery that was under
//! way: it comes twice then, under one id. Lanes do not wait for each other. Not here: HTTP; what makes deliveries (`expand`).

use std::time::Duration;

use chrono::TimeDelta;
use sea_orm::{QueryOrder as _, QuerySelect as _, entity::prelude::*};

use super::{Model as Webhook, delivery};
use crate::{
    activity::{Action, ActivityEntry},
    clock::{self, Time},
    database::{
        Database,
        sql::{Cells, Sql, record},
        transaction::SqlTransaction,
    },
    error::Error,
    events::ChangeEvent,
    id::{self, FormId, NodeKind, WebhookId},
    store::{Store, transaction::Transaction},
};
use delivery::DeliveryStatus;

mod retry;
pub use retry::{GIVE_UP_AFTER, pause_after};

record! {
    /// A row of `webhook_lanes`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "webhook_lanes")]
    pub struct Model {
        /// First part of the primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub webhook_id: WebhookId,
        /// Second part of the primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub form_id: FormId,
        /// When something is to be delivered; none: nothing waits.
        pub due_at: Option<Time>,
        /// Who delivers.
        pub lease: Option<Uuid>,
        /// Until then nobody else does.
        pub leased_until: Option<Time>,
    }
}

/// The webhook that a lane is of.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// Who is told.
    #[sea_orm(belongs_to = "super::Entity", from = "Column::WebhookId", to = "super::Column::Id")]
    Webhook,
}

impl ActiveModelBehavior for ActiveModel {}

/// The right to deliver what is next in a lane.
#[derive(Clone, Debug)]
pub struct LaneLease {
    /// Who is told.
    pub webhook: WebhookId,
    /// Of which form.
    pub form: FormId,
    lease: Uuid,
}

/// A webhook for which something is to be delivered now.
#[derive(Clone, Copy, Debug)]
pub struct DueWebhook {
    /// The webhook.
    pub id: WebhookId,
    /// The last attempt at this webhook has failed.
    pub is_failing: bool,
}

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

/// Something waits in these lanes. Where something has waited before, they stay as they are; unless it is to be tried at once.
pub(super) async fn wake(
    transaction: &SqlTransaction,
    lanes: &[(WebhookId, FormId)],
    at_once: bool,
) -> Result<(), Error> {
    let mut sql = transaction.sql();
    sql.push("INSERT INTO webhook_lanes (webhook_id, form_id, due_at) VALUES ");
    for (index, (webhook, form)) in lanes.iter().enumerate() {
        sql.push(if index == 0 { "(" } else { ", (" }).bind(*webhook).push(", ").bind(*form).push(", ");
        sql.now_and(Duration::ZERO).push(")");
    }
    sql.push(" ON CONFLICT (webhook_id, form_id) DO UPDATE SET due_at = ");
    sql.push(if at_once { "excluded.due_at" } else { "COALESCE(webhook_lanes.due_at, excluded.due_at)" });
    transaction.execute("webhook_lane.wake", "webhook_lanes", sql).await.map(drop)
}

/// Locks the lanes of a webhook, always in one order. Whoever changes several of them, or the webhook as well, does this first, since
/// deliverers lock their lane before the webhook.
pub(super) async fn lock_all(transaction: &SqlTransaction, webhook: WebhookId) -> Result<(), Error> {
    let mut sql = transaction.sql();
    if !sql.is_postgres() {
        // There is one writer.
        return Ok(());
    }
    sql.push("SELECT 1").from("webhook_lanes").push(" WHERE t.webhook_id = ").bind(webhook);
    sql.push(" ORDER BY t.form_id FOR UPDATE");
    transaction.fetch("webhook_lane.lock_all", "webhook_lanes", sql, |_| Ok(())).await.map(drop)
}

/// Nothing is delivered to a webhook any more, until `wake_all`. Its lanes are locked.
pub(super) async fn rest_all(transaction: &SqlTransaction, webhook: WebhookId) -> Result<(), Error> {
    let mut sql = transaction.sql();
    sql.push("UPDATE webhook_lanes SET due_at = NULL WHERE due_at IS NOT NULL AND webhook_id = ")
        .bind(webhook);
    transaction.execute("webhook_lane.rest_all", "webhook_lanes", sql).await.map(drop)
}

/// Tries all that waits for a webhook again, with all its time before it. Its lanes are locked.
pub(super) async fn wake_all(transaction: &SqlTransaction, webhook: WebhookId) -> Result<(), Error> {
    let mut sql = transaction.sql();
    sql.push("UPDATE webhook_lanes SET due_at = ").now_and(Duration::ZERO);
    sql.push(" WHERE webhook_id = ").bind(webhook);
    sql.push(" AND EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.webhook_id = webhook_lanes.webhook_id");
    sql.push(" AND d.form_id = webhook_lanes.form_id AND d.status = 'PENDING')");
    transaction.execute("webhook_lane.wake_all", "webhook_lanes", sql).await?;
    let mut sql = transaction.sql();
    sql.push(
        "UPDATE webhook_deliveries SET first_attempt_at = NULL, next_attempt_at = NULL WHERE webhook_id = ",
    );
    sql.bind(webhook).push(" AND status = 'PENDING' AND first_attempt_at IS NOT NULL");
    transaction.execute("webhook_delivery.begin_again", "webhook_deliveries", sql).await.map(drop)
}

fn push_due(sql: &mut Sql) {
    sql.push("t.due_at <= ").now_and(Duration::ZERO);
    sql.push(" AND (t.leased_until IS NULL OR t.leased_until <= ").now_and(Duration::ZERO).push(")");
}

/// The webhooks for which something is to be delivered now and nobody is at it, so many at most, those that have waited longest first;
/// `but_failing`: without those that fail.
///
/// # Errors
/// The database's.
pub async fn due(
    store: &Store,
    but: &[WebhookId],
    but_failing: bool,
    most: usize,
) -> Result<Vec<DueWebhook>, Error> {
    let database = store.database().on_primary();
    let mut sql = database.sql();
    sql.push("SELECT w.id, w.failing_since IS NOT NULL").from("webhook_lanes");
    sql.push(" JOIN webhooks w ON w.id = t.webhook_id WHERE w.is_enabled AND ");
    push_due(&mut sql);
    if but_failing {
        sql.push(" AND w.failing_since IS NULL");
    }
    if !but.is_empty() {
        sql.push(" AND NOT (t.webhook_id").any_id(but).push(")");
    }
    sql.push(" GROUP BY w.id, w.failing_since ORDER BY min(t.due_at) LIMIT ").bind(most as i64);
    let read = |cells: &mut Cells<'_>| Ok(DueWebhook { id: cells.next()?, is_failing: cells.next()? });
    database.fetch("webhook_lane.due", "webhook_lanes", sql, read).await
}

/// Takes leases of lanes of a webhook, for so long, so many at most.
///
/// # Errors
/// The database's.
pub async fn claim(
    store: &Store,
    webhook: WebhookId,
    most: usize,
    lease: Duration,
) -> Result<Vec<LaneLease>, Error> {
    let transaction = SqlTransaction::begin(&store.database().on_primary()).await?;
    let mut sql = transaction.sql();
    sql.push("SELECT t.form_id").from("webhook_lanes").push(" WHERE t.webhook_id = ").bind(webhook);
    sql.push(" AND ");
    push_due(&mut sql);
    sql.push(" ORDER BY t.due_at LIMIT ").bind(most as i64);
    if sql.is_postgres() {
        sql.push(" FOR UPDATE SKIP LOCKED");
    }
    let read = |cells: &mut Cells<'_>| cells.next();
    let forms: Vec<FormId> = transaction.fetch("webhook_lane.find", "webhook_lanes", sql, read).await?;
    if forms.is_empty() {
        return Ok(Vec::new());
    }
    let id = id::new();
    let mut sql = transaction.sql();
    sql.push("UPDATE webhook_lanes SET lease = ").bind(id).push(", leased_until = ").now_and(lease);
    sql.push(" WHERE webhook_id = ").bind(webhook).push(" AND form_id").any_id(&forms);
    transaction.execute("webhook_lane.claim", "webhook_lanes", sql).await?;
    transaction.commit().await?;
    Ok(forms.into_iter().map(|form| LaneLease { webhook, form, lease: id }).collect())
}

impl LaneLease {
    fn push_held(&self, sql: &mut Sql) {
        sql.push(" WHERE webhook_id = ").bind(self.webhook).push(" AND form_id = ").bind(self.form);
        sql.push(" AND lease = ").bind(self.lease);
    }

    /// Keeps the lease for so long from now on; false: it has run out, and somebody else has one. The lane does not change before
    /// the end of the transaction.
    async fn keep(&self, transaction: &SqlTransaction, lease: Duration) -> Result<bool, Error> {
        let mut sql = transaction.sql();
        sql.push("UPDATE webhook_lanes SET leased_until = ").now_and(lease);
        self.push_held(&mut sql);
        Ok(transaction.execute("webhook_lane.keep", "webhook_lanes", sql).await? > 0)
    }

    /// Gives the lease back; `due`: when something is to be delivered next, unless the webhook is disabled.
    async fn rest(&self, transaction: &SqlTransaction, due: Option<Duration>) -> Result<(), Error> {
        let mut sql = transaction.sql();
        sql.push("UPDATE webhook_lanes SET lease = NULL, leased_until = NULL, due_at = ");
        match due {
            Some(later) => {
                sql.push(
                    "CASE WHEN EXISTS (SELECT 1 FROM webhooks w WHERE w.id = webhook_id AND w.is_enabled)",
                );
                sql.push(" THEN ").now_and(later).push(" END");
            }
            None => drop(sql.push("NULL")),
        }
        self.push_held(&mut sql);
        transaction.execute("webhook_lane.rest", "webhook_lanes", sql).await.map(drop)
    }

    /// Gives the lease back before its turn is over, so that others go on at once.
    ///
    /// # Errors
    /// The database's; the lease runs out then.
    pub async fn give_back(&self, store: &Store) -> Result<(), Error> {
        let transaction = SqlTransaction::begin(&store.database().on_primary()).await?;
        if self.keep(&transaction, Duration::ZERO).await? {
            let due = has_more(&transaction, self).await?.then_some(Duration::ZERO);
            self.rest(&transaction, due).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    /// What is next, with its webhook as it is now. None where nothing waits, or the webhook is disabled.
    ///
    /// # Errors
    /// The database's.
    pub async fn head(&self, store: &Store) -> Result<Option<(Webhook, delivery::Model)>, Error> {
        let database = store.database().on_primary();
        let webhook: Option<Webhook> =
            database.one("webhook.find", super::Entity::find_by_id(self.webhook)).await?;
        let Some(webhook) = webhook.filter(|webhook| webhook.is_enabled) else { return Ok(None) };
        let head = head_of(&database, self).await?;
        Ok(head.map(|head| (webhook, head)))
    }

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

/// Notes what an attempt says of its webhook: since when it fails, and that it is disabled. Not where somebody has changed or disabled it
/// since the attempt began. Whether anything was noted.
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

/// Gives up what waits in a lane since before the delivery that was given up just now was tried first. What is delivered once more waits
/// since somebody asked for that, and is not meant.
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

async fn head_of(database: &Database, lane: &LaneLease) -> Result<Option<delivery::Model>, Error> {
    let find = delivery::Entity::find()
        .filter(delivery::Column::WebhookId.eq(lane.webhook))
        .filter(delivery::Column::FormId.eq(lane.form))
        .filter(Expr::cust("status = 'PENDING'"))
        .order_by_asc(delivery::Column::Sequence)
        .limit(1);
    database.one("webhook_delivery.head", find).await
}

async fn has_more(transaction: &SqlTransaction, lane: &LaneLease) -> Result<bool, Error> {
    let mut sql = transaction.sql();
    sql.push("SELECT 1").from("webhook_deliveries").push(" WHERE t.webhook_id = ").bind(lane.webhook);
    sql.push(" AND t.form_id = ").bind(lane.form).push(" AND t.status = 'PENDING' LIMIT 1");
    let found = transaction.fetch("webhook_delivery.more", "webhook_deliveries", sql, |_| Ok(())).await?;
    Ok(!found.is_empty())
}
