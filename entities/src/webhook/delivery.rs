//! Deliveries: one event that one webhook is told of, with what became of it. Its id is the `webhook-id` of
//! all its attempts. Not cached: each attempt changes them, and those who look want to see that. Not here:
//! their order and who sends them (`lane`).

use std::sync::Arc;

use futures_util::FutureExt as _;
use rustc_hash::FxHashMap;
use sea_orm::{ActiveValue, IdenStatic as _, entity::prelude::*};
use serde::{Deserialize, Serialize};

use super::WebhookEvent;
use crate::{
    clock::Time,
    database::{
        Database,
        page::{Keyset, by_time},
        scope::Scope,
        sql::{Cells, Sql, record},
        text_enum::text_enum,
        transaction::SqlTransaction,
    },
    error::Error,
    id::{FormId, WebhookDeliveryId, WebhookId},
    store::{
        Store,
        list::{Filtering, List, Names},
        row::Finder,
    },
};

text_enum! {
    /// What became of a delivery.
    DeliveryStatus {
        /// It waits for its turn, or for the next attempt.
        Pending = "PENDING",
        /// The receiver has taken it.
        Delivered = "DELIVERED",
        /// It was given up.
        Failed = "FAILED",
        /// The owner of the webhook may not see any more what it is about.
        Skipped = "SKIPPED",
    }
}

record! {
    /// A row of `webhook_deliveries`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
    #[sea_orm(table_name = "webhook_deliveries")]
    pub struct Model {
        /// Primary key.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: WebhookDeliveryId,
        /// Who is told.
        pub webhook_id: WebhookId,
        /// The form that the event is about: those of one form are told in order.
        pub form_id: FormId,
        /// Their order.
        pub sequence: i64,
        /// What has happened.
        pub event: WebhookEvent,
        /// The submission or the form.
        pub subject_id: Uuid,
        /// When it has happened.
        pub happened_at: Time,
        /// What became of it.
        pub status: DeliveryStatus,
        /// How often it was tried.
        pub attempts: i32,
        /// When it was tried first, since it waits.
        pub first_attempt_at: Option<Time>,
        /// When it was tried last.
        pub last_attempt_at: Option<Time>,
        /// When it is tried again.
        pub next_attempt_at: Option<Time>,
        /// How the receiver has answered last.
        pub last_status_code: Option<i32>,
        /// Why the last attempt failed.
        pub last_error: Option<String>,
        /// When it was noted that this is to be told.
        pub created_at: Time,
        /// When it was delivered, given up or skipped.
        pub finished_at: Option<Time>,
    }
}

/// Whose it is. The database does not keep it: those of a webhook that is removed go a moment later.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// Who is told.
    #[sea_orm(belongs_to = "super::Entity", from = "Column::WebhookId", to = "super::Column::Id", skip_fk)]
    Webhook,
}

impl ActiveModelBehavior for ActiveModel {}

/// Whoever sees the webhook sees its deliveries. Those of one that was removed are seen by nobody until they
/// are gone, too.
fn push_scope(sql: &mut Sql, scope: &Scope) {
    sql.push(" AND EXISTS (SELECT 1 FROM webhooks w WHERE ").column_of("w", super::Column::Id);
    sql.push(" = ").column(Column::WebhookId);
    match scope {
        _ if scope.administers() => {}
        Scope::Of { user, .. } => {
            sql.push(" AND ").column_of("w", super::Column::OwnerId).push(" = ").bind(*user);
        }
        Scope::All | Scope::Nothing => {
            sql.push(" AND FALSE");
        }
    }
    sql.push(")");
}

/// Deliveries by id, as far as the scope reaches.
///
/// # Errors
/// The database's.
pub async fn by_ids(
    store: &Store,
    scope: &Scope,
    ids: &[WebhookDeliveryId],
) -> Result<FxHashMap<WebhookDeliveryId, Arc<Model>>, Error> {
    let matching = |sql: &mut Sql| {
        sql.filter(Column::Id).any_id(ids);
        push_scope(sql, scope);
    };
    store.by_keys("webhook_delivery.by_ids", matching, |row: &Model| row.id).await
}

/// `by_ids`, as edges load it.
pub static BY_IDS: Finder<WebhookDeliveryId, Model> =
    Finder::scoped("webhook_delivery.by_ids", |store, scope, ids| by_ids(store, scope, ids).boxed());

/// Newest first.
pub static KEYSET: Keyset<Model> = Keyset {
    name: "webhook_deliveries.created_at",
    descending: true,
    keys: &by_time!(CreatedAt, created_at),
};

/// Which deliveries a list has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Filter {
    /// Of any of these webhooks.
    pub webhook_ids: Option<Vec<WebhookId>>,
    /// Any of these.
    pub statuses: Option<Vec<DeliveryStatus>>,
}

impl Filtering for Filter {}

impl Filter {
    fn push(&self, sql: &mut Sql, scope: &Scope) {
        push_scope(sql, scope);
        if let Some(webhooks) = &self.webhook_ids {
            sql.and(Column::WebhookId).any_id(webhooks);
        }
        if let Some(statuses) = &self.statuses {
            sql.and(Column::Status).any_text(statuses);
        }
    }
}

/// All deliveries.
pub static ALL: List<Model, Filter> = List::new(
    Names { page: "webhook_delivery.page", count: "webhook_delivery.count", parent: None },
    Filter::push,
);

/// Each webhook's deliveries.
pub static OF_WEBHOOKS: List<Model, Filter> = List::new(
    Names {
        page: "webhook_delivery.pages_of_webhooks",
        count: "webhook_delivery.counts_of_webhooks",
        parent: Some(|| Column::WebhookId.as_str()),
    },
    Filter::push,
);

/// The number that the next delivery gets, where the database does not count by itself.
pub(super) async fn next_sequence(transaction: &SqlTransaction) -> Result<Option<i64>, Error> {
    let mut sql = transaction.sql();
    if sql.is_postgres() {
        return Ok(None);
    }
    sql.push("SELECT COALESCE(MAX(sequence), 0) + 1 FROM webhook_deliveries");
    let read = |cells: &mut Cells<'_>| cells.next::<i64>();
    let next = transaction.fetch("webhook_delivery.next", "webhook_deliveries", sql, read).await?;
    Ok(next.first().copied())
}

/// Takes the next number.
pub(super) fn take(sequence: &mut Option<i64>) -> ActiveValue<i64> {
    match sequence {
        None => ActiveValue::NotSet,
        Some(next) => {
            *next += 1;
            ActiveValue::Set(*next - 1)
        }
    }
}

/// Has a delivery wait again, behind all that wait.
pub(super) async fn put_last(transaction: &SqlTransaction, id: WebhookDeliveryId) -> Result<(), Error> {
    let mut sql = transaction.sql();
    sql.push("UPDATE webhook_deliveries SET status = ").bind(DeliveryStatus::Pending.as_str());
    sql.push(", first_attempt_at = NULL, next_attempt_at = NULL, finished_at = NULL, sequence = ");
    if sql.is_postgres() {
        sql.push("nextval(pg_get_serial_sequence('webhook_deliveries', 'sequence'))");
    } else {
        sql.push("(SELECT MAX(sequence) + 1 FROM webhook_deliveries)");
    }
    sql.push(" WHERE id = ").bind(id);
    transaction.execute("webhook_delivery.put_last", "webhook_deliveries", sql).await.map(drop)
}

/// Removes deliveries of a webhook, so many at most.
pub(crate) async fn remove_of(
    transaction: &SqlTransaction,
    webhook: WebhookId,
    most: u64,
) -> Result<u64, Error> {
    let mut sql = transaction.sql();
    sql.push(
        "DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM webhook_deliveries WHERE webhook_id = ",
    );
    sql.bind(webhook).push(" LIMIT ").bind(most as i64).push(")");
    transaction.execute("webhook_delivery.remove", "webhook_deliveries", sql).await
}

/// Deliveries that may go: finished before this moment, or noted before it and waiting since then; and those
/// of webhooks that were removed. One statement for each, which an index answers: there may be very many rows
/// that stay.
pub(crate) async fn old(
    database: &Database,
    before: Time,
    most: u64,
) -> Result<Vec<WebhookDeliveryId>, Error> {
    let (database, most) = (database.on_primary(), most as i64);
    let select = || {
        let mut sql = database.sql();
        sql.push("SELECT t.id").from("webhook_deliveries").push(" WHERE ");
        sql
    };
    let read = |cells: &mut Cells<'_>| cells.next();
    let mut finished = select();
    finished.push("t.finished_at < ").bind(before).push(" LIMIT ").bind(most);
    let found = database.fetch("webhook_delivery.old", "webhook_deliveries", finished, read).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    let mut waiting = select();
    waiting.push("t.created_at < ").bind(before).push(" AND t.status = 'PENDING'");
    waiting.push(" AND (t.last_attempt_at IS NULL OR t.last_attempt_at < ").bind(before).push(") LIMIT ");
    waiting.bind(most);
    let found = database.fetch("webhook_delivery.old_waiting", "webhook_deliveries", waiting, read).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    let removed = removed_webhooks(&database).await?;
    if removed.is_empty() {
        return Ok(Vec::new());
    }
    let mut orphans = select();
    orphans.push("t.webhook_id").any_id(&removed).push(" LIMIT ").bind(most);
    database.fetch("webhook_delivery.orphans", "webhook_deliveries", orphans, read).await
}

/// Some webhooks that were removed and have deliveries. Goes from one webhook to the next in the index,
/// however many deliveries each has.
async fn removed_webhooks(database: &Database) -> Result<Vec<WebhookId>, Error> {
    let mut sql = database.sql();
    sql.push(
        "WITH RECURSIVE told (id) AS (
            SELECT (SELECT d.webhook_id FROM webhook_deliveries d ORDER BY d.webhook_id LIMIT 1)
            UNION ALL SELECT (SELECT d.webhook_id FROM webhook_deliveries d WHERE d.webhook_id > told.id
                ORDER BY d.webhook_id LIMIT 1) FROM told WHERE told.id IS NOT NULL
        ) SELECT t.id FROM told t WHERE t.id IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM webhooks w WHERE w.id = t.id) LIMIT 100",
    );
    let read = |cells: &mut Cells<'_>| cells.next();
    database.fetch("webhook_delivery.removed_webhooks", "webhook_deliveries", sql, read).await
}

/// Removes these.
pub(crate) async fn remove(transaction: &SqlTransaction, ids: &[WebhookDeliveryId]) -> Result<u64, Error> {
    let delete = Entity::delete_many().filter(transaction.is_any(Column::Id, ids));
    transaction.write("webhook_delivery.remove", Entity, &delete).await
}

/// What waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaitingDeliveries {
    /// How many deliveries wait.
    pub count: i64,
    /// When the oldest of them was noted.
    pub oldest: Option<Time>,
}

/// How many deliveries wait for webhooks that are enabled, and since when.
///
/// # Errors
/// The database's.
pub async fn waiting(store: &Store) -> Result<WaitingDeliveries, Error> {
    let mut sql = store.sql();
    sql.push("SELECT count(*), min(t.created_at)").from("webhook_deliveries");
    sql.push(" JOIN webhooks w ON w.id = t.webhook_id WHERE t.status = 'PENDING' AND w.is_enabled");
    let read = |cells: &mut Cells<'_>| Ok(WaitingDeliveries { count: cells.next()?, oldest: cells.next()? });
    let database = store.database().on_primary();
    let found = database.fetch("webhook_delivery.waiting", "webhook_deliveries", sql, read).await?;
    Ok(found.first().copied().unwrap_or_default())
}
