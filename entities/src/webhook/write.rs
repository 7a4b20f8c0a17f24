//! Changing webhooks: made, changed, removed, given another secret; and what was delivered is delivered once
//! more. Each function is one transaction with its entry in the activity log, which never has an address or a
//! secret: both let people in elsewhere. While a webhook is enabled the consumer of the log is there that
//! makes its deliveries. Not here: deliveries.

use chrono::TimeDelta;
use sea_orm::{ActiveValue::Unchanged, QuerySelect as _, Set, entity::prelude::*};
use serde_json::json;

use super::{ActiveModel, CONSUMER, Column, Entity, Model, WebhookEvent, delivery, form, lane, may_hear};
use crate::{
    activity::{Action, ActivityEntry},
    auth::secret::Secret,
    clock,
    database::{role::Role, scope::Scope},
    error::Error,
    events::{ChangeEvent, consumer, log},
    form as forms,
    id::{FormId, NodeKind, UserId, WebhookDeliveryId, WebhookId},
    store::{Store, transaction::Transaction},
    user,
    webhook::{delivery::DeliveryStatus, secret::WebhookSecret},
};

/// Webhooks of one account at most.
pub const MOST_WEBHOOKS: u64 = 100;
/// Forms of one webhook at most, where it is not told of all.
pub const MOST_FORMS: usize = 100;
/// How long the secret before signs besides the new one.
pub const BOTH_SIGN: TimeDelta = TimeDelta::hours(24);
/// Deliveries that go at once with their webhook.
const REMOVED_AT_ONCE: u64 = 5_000;

/// Why nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookError {
    /// There is no such webhook or delivery, or the caller may not see it.
    NotFound,
    /// There is no such form, or the owner of the webhook may not see it: the place in the list.
    NoForm(usize),
    /// The owner of the webhook has not made this form: the place in the list.
    NotOwned(usize),
    /// The account has too many webhooks.
    TooMany,
    /// It is disabled.
    Disabled,
}

/// A new webhook.
#[derive(Debug)]
pub struct NewWebhook {
    /// Where it is told, which was checked.
    pub url: String,
    /// Of what.
    pub events: Vec<WebhookEvent>,
    /// Of these forms; none: of all of its owner's, or of all where the owner is an administrator.
    pub forms: Option<Vec<FormId>>,
    /// What deliveries are signed with.
    pub secret: WebhookSecret,
}

/// What a change answers: the webhook, or why not.
pub type ChangedWebhook = Result<Result<WebhookId, WebhookError>, Error>;

/// Makes a webhook of the account that asks. Whether it may at all, the caller has asked.
///
/// # Errors
/// The database's.
pub async fn create(
    store: &Store,
    sealing: &Secret,
    (owner, role): (UserId, Role),
    new: NewWebhook,
) -> ChangedWebhook {
    let position = log::end(store.database()).await?;
    let transaction = Transaction::begin(store).await?;
    consumer::begin(&transaction, CONSUMER, position).await?;
    let count = Entity::find().select_only().column(Column::Id).filter(Column::OwnerId.eq(owner));
    let own: Vec<WebhookId> = transaction.column("webhook.own", Entity, &count.limit(MOST_WEBHOOKS)).await?;
    if own.len() as u64 >= MOST_WEBHOOKS {
        return Ok(Err(WebhookError::TooMany));
    }
    if let Err(refusal) = check_forms(&transaction, (owner, role), new.forms.as_deref()).await? {
        return Ok(Err(refusal));
    }
    let (id, now, (from_transaction_id, from_number, _)) = (WebhookId::new(), clock::now(), position.parts());
    let webhook = ActiveModel {
        id: Set(id),
        owner_id: Set(owner),
        url: Set(new.url),
        events: Set(names_of(&new.events)),
        has_all_forms: Set(new.forms.is_none()),
        is_enabled: Set(true),
        secret: Set(new.secret.seal(sealing, id)),
        from_transaction_id: Set(from_transaction_id),
        from_number: Set(from_number),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    };
    transaction.insert("webhook.insert", webhook).await?;
    insert_forms(&transaction, id, new.forms.as_deref()).await?;
    let events: Vec<_> = new.events.iter().map(|event| event.wire_name()).collect();
    commit(transaction, owner, Action::WebhookCreate, id, json!({ "events": events })).await?;
    Ok(Ok(id))
}

/// New values for what is given.
#[derive(Debug, Default)]
pub struct WebhookUpdate {
    /// Another address, which was checked.
    pub url: Option<String>,
    /// Other events.
    pub events: Option<Vec<WebhookEvent>>,
    /// Other forms; `Some(None)`: all.
    pub forms: Option<Option<Vec<FormId>>>,
    /// Enables or disables it.
    pub is_enabled: Option<bool>,
}

/// Changes a webhook.
///
/// # Errors
/// The database's.
pub async fn update(
    store: &Store,
    scope: &Scope,
    actor: UserId,
    id: WebhookId,
    update: WebhookUpdate,
) -> ChangedWebhook {
    let position = log::end(store.database()).await?;
    let transaction = Transaction::begin(store).await?;
    // Whoever makes deliveries holds the consumer, then lanes, then the webhook: whoever changes one takes
    // them in this order.
    if update.is_enabled == Some(true) {
        consumer::begin(&transaction, CONSUMER, position).await?;
    } else {
        consumer::lock(&transaction, CONSUMER).await?;
    }
    if update.is_enabled.is_some() || update.url.is_some() {
        lane::lock_all(&transaction, id).await?;
    }
    let Some(webhook) = find_locked(&transaction, scope, id).await? else {
        return Ok(Err(WebhookError::NotFound));
    };
    let now = clock::now();
    let mut changed = ActiveModel { id: Unchanged(id), updated_at: Set(now), ..Default::default() };
    let mut fields = Vec::new();
    if let Some(url) = update.url {
        fields.push("url");
        if url != webhook.url && webhook.is_enabled && update.is_enabled != Some(false) {
            // What the address before has failed says nothing of this one.
            changed.failing_since = Set(None);
            lane::wake_all(&transaction, id).await?;
        }
        changed.url = Set(url);
    }
    if let Some(events) = update.events {
        fields.push("events");
        changed.events = Set(names_of(&events));
    }
    if let Some(forms) = update.forms {
        let owner = user::Entity::find_by_id(webhook.owner_id);
        let owner: Option<user::Row> = transaction.one("webhook.owner", owner).await?;
        let role = owner.map_or(Role::Viewer, |owner| owner.role);
        if let Err(refusal) = check_forms(&transaction, (webhook.owner_id, role), forms.as_deref()).await? {
            return Ok(Err(refusal));
        }
        fields.push("formIds");
        changed.has_all_forms = Set(forms.is_none());
        let delete = form::Entity::delete_many().filter(form::Column::WebhookId.eq(id));
        transaction.write("webhook.remove_forms", form::Entity, &delete).await?;
        insert_forms(&transaction, id, forms.as_deref()).await?;
    }
    match update.is_enabled {
        Some(true) if !webhook.is_enabled => {
            fields.push("isEnabled");
            changed.is_enabled = Set(true);
            changed.disabled_at = Set(None);
            changed.disabled_reason = Set(None);
            changed.failing_since = Set(None);
            let (from_transaction_id, from_number, _) = position.parts();
            changed.from_transaction_id = Set(from_transaction_id);
            changed.from_number = Set(from_number);
            lane::wake_all(&transaction, id).await?;
        }
        Some(false) if webhook.is_enabled => {
            fields.push("isEnabled");
            changed.is_enabled = Set(false);
            changed.disabled_at = Set(Some(now));
            lane::rest_all(&transaction, id).await?;
        }
        _ => {}
    }
    transaction.update("webhook.update", changed).await?;
    commit(transaction, actor, Action::WebhookUpdate, id, json!({ "fields": fields })).await?;
    Ok(Ok(id))
}

/// Gives a webhook another secret. The one before goes on signing as well for a day.
///
/// # Errors
/// The database's.
pub async fn rotate_secret(
    store: &Store,
    sealing: &Secret,
    scope: &Scope,
    actor: UserId,
    (id, secret): (WebhookId, &WebhookSecret),
) -> ChangedWebhook {
    let transaction = Transaction::begin(store).await?;
    let Some(webhook) = find_locked(&transaction, scope, id).await? else {
        return Ok(Err(WebhookError::NotFound));
    };
    let now = clock::now();
    let before = webhook.usable_secret(sealing);
    let changed = ActiveModel {
        id: Unchanged(id),
        secret: Set(secret.seal(sealing, id)),
        previous_secret_until: Set(before.as_ref().map(|_| now + BOTH_SIGN)),
        previous_secret: Set(before),
        updated_at: Set(now),
        ..Default::default()
    };
    transaction.update("webhook.update", changed).await?;
    commit(transaction, actor, Action::WebhookRotateSecret, id, json!({})).await?;
    Ok(Ok(id))
}

/// Removes a webhook, and what waits for it.
///
/// # Errors
/// The database's.
pub async fn delete(store: &Store, scope: &Scope, actor: UserId, id: WebhookId) -> ChangedWebhook {
    delete_as(store, scope, Some(actor), id).await
}

/// Removes a webhook of an account whose person is erased, and some of its deliveries; no actor: the operator does it.
///
/// # Errors
/// The database's.
pub(crate) async fn delete_of_erased(store: &Store, id: WebhookId) -> ChangedWebhook {
    delete_as(store, &Scope::All, None, id).await
}

async fn delete_as(store: &Store, scope: &Scope, actor: Option<UserId>, id: WebhookId) -> ChangedWebhook {
    let transaction = Transaction::begin(store).await?;
    // In the order in which deliveries are made.
    consumer::lock(&transaction, CONSUMER).await?;
    lane::lock_all(&transaction, id).await?;
    if find_locked(&transaction, scope, id).await?.is_none() {
        return Ok(Err(WebhookError::NotFound));
    }
    transaction.write("webhook.delete", Entity, &Entity::delete_many().filter(Column::Id.eq(id))).await?;
    delivery::remove_of(&transaction, id, REMOVED_AT_ONCE).await?;
    commit(transaction, actor, Action::WebhookDelete, id, json!({})).await?;
    Ok(Ok(id))
}

/// Delivers something once more, behind what waits for the same form; what waits itself is tried at once.
///
/// # Errors
/// The database's.
pub async fn redeliver(
    store: &Store,
    scope: &Scope,
    actor: UserId,
    id: WebhookDeliveryId,
) -> Result<Result<WebhookDeliveryId, WebhookError>, Error> {
    let found = delivery::by_ids(store, scope, &[id]).await?;
    let Some(seen) = found.get(&id) else { return Ok(Err(WebhookError::NotFound)) };
    let mut transaction = Transaction::begin(store).await?;
    // First the lane, as deliverers do.
    let webhook: Option<Model> = transaction.one("webhook.find", Entity::find_by_id(seen.webhook_id)).await?;
    match webhook {
        None => return Ok(Err(WebhookError::NotFound)),
        Some(webhook) if !webhook.is_enabled => return Ok(Err(WebhookError::Disabled)),
        Some(_) => {}
    }
    lane::wake(&transaction, &[(seen.webhook_id, seen.form_id)], true).await?;
    let find = delivery::Entity::find_by_id(id);
    let Some(row) = transaction.one::<delivery::Model>("webhook_delivery.find", find).await? else {
        return Ok(Err(WebhookError::NotFound));
    };
    if row.status != DeliveryStatus::Pending {
        delivery::put_last(&transaction, id).await?;
    }
    transaction.changed(ChangeEvent::Webhook { id: seen.webhook_id });
    let subject = Some((NodeKind::WebhookDelivery, id.0));
    let entry =
        ActivityEntry { user: Some(actor), action: Action::WebhookRedeliver, subject, metadata: json!({}) };
    transaction.commit(entry).await?;
    Ok(Ok(id))
}

/// The webhook, if the scope reaches it. Nobody else changes it before this transaction ends.
async fn find_locked(
    transaction: &Transaction,
    scope: &Scope,
    id: WebhookId,
) -> Result<Option<Model>, Error> {
    let found: Option<Model> =
        transaction.one("webhook.lock", Entity::find_by_id(id).lock_exclusive()).await?;
    Ok(found.filter(|found| scope.administers() || scope.user() == Some(found.owner_id)))
}

/// May the account be told of these forms?
async fn check_forms(
    transaction: &Transaction,
    (owner, role): (UserId, Role),
    ids: Option<&[FormId]>,
) -> Result<Result<(), WebhookError>, Error> {
    let Some(ids) = ids else { return Ok(Ok(())) };
    let find = forms::Entity::find().filter(transaction.is_any(forms::Column::Id, ids));
    let found: Vec<forms::Row> = transaction.all("webhook.check_forms", find).await?;
    let scope = Scope::of(owner, role);
    for (place, id) in ids.iter().enumerate() {
        match found.iter().find(|form| form.id == *id).filter(|form| form.is_visible_to(&scope)) {
            None => return Ok(Err(WebhookError::NoForm(place))),
            Some(form) if !may_hear(owner, role, form.owner_id) => {
                return Ok(Err(WebhookError::NotOwned(place)));
            }
            Some(_) => {}
        }
    }
    Ok(Ok(()))
}

async fn insert_forms(
    transaction: &Transaction,
    webhook: WebhookId,
    forms: Option<&[FormId]>,
) -> Result<(), Error> {
    let rows = forms.into_iter().flatten();
    let rows: Vec<_> =
        rows.map(|form| form::ActiveModel { webhook_id: Set(webhook), form_id: Set(*form) }).collect();
    if !rows.is_empty() {
        transaction.write("webhook.insert_forms", form::Entity, &form::Entity::insert_many(rows)).await?;
    }
    Ok(())
}

fn names_of(events: &[WebhookEvent]) -> String {
    events.iter().map(|event| event.as_str()).collect::<Vec<_>>().join(",")
}

async fn commit(
    mut transaction: Transaction,
    actor: impl Into<Option<UserId>>,
    action: Action,
    webhook: WebhookId,
    metadata: serde_json::Value,
) -> Result<(), Error> {
    transaction.changed(ChangeEvent::Webhook { id: webhook });
    let subject = Some((NodeKind::Webhook, webhook.0));
    transaction.commit(ActivityEntry { user: actor.into(), action, subject, metadata }).await
}
