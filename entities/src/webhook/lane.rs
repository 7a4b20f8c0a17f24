//! Lanes: what one webhook has to be told of one form, one delivery after the other. Whoever delivers holds a
//! lease of the lane, by the database's clock; one that is not renewed runs out, and another instance goes on
//! with the delivery that was under way: it comes twice then, under one id. Lanes do not wait for each other.
//! Not here: what an attempt came to (`settle`); HTTP; what makes deliveries (`expand`).

use std::time::Duration;

use sea_orm::{QueryOrder as _, QuerySelect as _, entity::prelude::*};

use super::{Model as Webhook, delivery};
use crate::{
    clock::Time,
    database::{
        Database,
        sql::{Cells, Sql, record},
        transaction::SqlTransaction,
    },
    error::Error,
    id::{self, FormId, UserId, WebhookId},
    store::Store,
};
mod retry;
mod settle;
pub use retry::{GIVE_UP_AFTER, pause_after};
pub use settle::{AttemptOutcome, DisableCode, FailedAttempt, Settled};

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
        /// The lease of the instance that delivers; none: nobody does.
        pub lease: Option<Uuid>,
        /// Until then nobody else does.
        pub leased_until: Option<Time>,
    }
}

/// The webhook that a lane is of.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The webhook that the lane belongs to.
    #[sea_orm(belongs_to = "super::Entity", from = "Column::WebhookId", to = "super::Column::Id")]
    Webhook,
}

impl ActiveModelBehavior for ActiveModel {}

/// The right to deliver what is next in a lane.
#[derive(Clone, Debug)]
pub struct LaneLease {
    /// The webhook that the lane belongs to.
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
    /// Whose it is.
    pub owner: UserId,
    /// The last attempt at this webhook has failed.
    pub is_failing: bool,
}

/// What is left out of what is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueExcept {
    /// These webhooks.
    pub webhooks: Vec<WebhookId>,
    /// These, where they fail: each has one attempt at a time.
    pub if_failing: Vec<WebhookId>,
    /// The webhooks of these accounts that do not fail.
    pub owners: Vec<UserId>,
    /// All that fail.
    pub failing: bool,
}

/// Something waits in these lanes. Where something has waited before, they stay as they are; unless it is to
/// be tried at once.
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

/// Locks the lanes of a webhook, always in one order. Whoever changes several of them, or the webhook as
/// well, does this first, since deliverers lock their lane before the webhook.
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

/// The webhooks for which something is to be delivered now and nobody is at it, so many at most, those that
/// have waited longest first.
///
/// # Errors
/// The database's.
pub async fn due(store: &Store, except: &DueExcept, most: usize) -> Result<Vec<DueWebhook>, Error> {
    let database = store.database().on_primary();
    let mut sql = database.sql();
    sql.push("SELECT w.id, w.owner_id, w.failing_since IS NOT NULL").from("webhook_lanes");
    sql.push(" JOIN webhooks w ON w.id = t.webhook_id WHERE w.is_enabled AND ");
    push_due(&mut sql);
    if except.failing {
        sql.push(" AND w.failing_since IS NULL");
    }
    if !except.webhooks.is_empty() {
        sql.push(" AND NOT (w.id").any_id(&except.webhooks).push(")");
    }
    if !except.if_failing.is_empty() {
        sql.push(" AND NOT (w.failing_since IS NOT NULL AND w.id").any_id(&except.if_failing).push(")");
    }
    if !except.owners.is_empty() {
        sql.push(" AND NOT (w.failing_since IS NULL AND w.owner_id").any_id(&except.owners).push(")");
    }
    sql.push(" GROUP BY w.id, w.owner_id, w.failing_since ORDER BY min(t.due_at) LIMIT ").bind(most as i64);
    let read = |cells: &mut Cells<'_>| {
        Ok(DueWebhook { id: cells.next()?, owner: cells.next()?, is_failing: cells.next()? })
    };
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

    /// Keeps the lease for so long from now on; false: it has run out, and somebody else has one. The lane
    /// does not change before the end of the transaction.
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
