//! Tells all that is stored of one person, as one JSON document (`docs/personal-data.schema.json`). It is written as it
//! is read, a page at a time and in the order of keys, so that memory does not grow with the history; all of it is of
//! one moment. Left out are secrets and what only the program needs. Not here: where the document goes.

use std::io::{self, Write};

use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    Select,
};
use serde_json::{Value, json};

use super::in_order;
use crate::{
    activity, clock,
    database::{
        snapshot::Snapshot,
        sql::{Json, Record},
    },
    error::Error,
    form,
    id::{FormId, UserId, WebhookId},
    idempotency, location, session,
    store::Store,
    submission, user, webhook,
};

/// Names the shape of the document.
pub const FORMAT: &str = "xp-graph-personal-data/1";

/// Rows of a few columns that are read at once.
const SMALL_ROWS: u64 = 1_000;
/// Rows at once where each may have half a megabyte.
const LARGE_ROWS: u64 = 16;

/// Why a document was not written, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database's.
    #[error(transparent)]
    Database(#[from] Error),
    /// It cannot be written.
    #[error("the document cannot be written")]
    Write(#[from] io::Error),
}

/// Writes all that is stored of the person of an account; how many rows of each kind that are. None: there is no such
/// account, and nothing was written.
///
/// # Errors
/// The database's, or the writer's: what was written so far is no document.
pub async fn export(
    store: &Store,
    user: UserId,
    out: &mut (dyn Write + Send),
) -> Result<Option<Vec<(&'static str, u64)>>, ExportError> {
    let snapshot = Snapshot::begin(store.database()).await?;
    let find = user::Entity::find_by_id(user);
    let found: Option<user::Model> = snapshot.one("user.export", find).await?;
    let Some(account) = found else { return Ok(None) };
    let mut exporter = Exporter { snapshot, user, out, counts: Vec::new() };
    exporter.run(&account).await?;
    let Exporter { snapshot, out, counts, .. } = exporter;
    snapshot.end().await?;
    out.flush()?;
    Ok(Some(counts))
}

struct Exporter<'a> {
    snapshot: Snapshot,
    user: UserId,
    out: &'a mut (dyn Write + Send),
    /// The lists so far, and how long each is.
    counts: Vec<(&'static str, u64)>,
}

impl Exporter<'_> {
    async fn run(&mut self, account: &user::Model) -> Result<(), ExportError> {
        let head = json!({ "format": FORMAT, "exportedAt": clock::now() });
        write!(self.out, "{{\n\"format\":{},\n\"exportedAt\":{}", head["format"], head["exportedAt"])?;
        write!(self.out, ",\n\"account\":{}", account_json(account))?;
        self.sessions().await?;
        self.forms().await?;
        self.versions().await?;
        self.submissions().await?;
        self.last_location().await?;
        self.locations().await?;
        self.activity().await?;
        self.webhooks().await?;
        self.keyed_requests().await?;
        self.out.write_all(b"\n}\n")?;
        Ok(())
    }

    /// Begins a list.
    fn begin(&mut self, name: &'static str) -> io::Result<()> {
        self.counts.push((name, 0));
        write!(self.out, ",\n\"{name}\":[")
    }

    /// Writes the next one of the list.
    fn item(&mut self, item: &Value) -> io::Result<()> {
        let Some((_, count)) = self.counts.last_mut() else { return Ok(()) };
        *count += 1;
        let before = if *count == 1 { "\n" } else { ",\n" };
        write!(self.out, "{before}{item}")
    }

    fn end(&mut self) -> io::Result<()> {
        self.out.write_all(b"]")
    }

    /// Writes rows into the list, page by page: `select` finds those after a row.
    async fn pages<R: Record>(
        &mut self,
        statement: &'static str,
        page: u64,
        select: impl Fn(Option<&R>) -> Select<R::Entity>,
        json: impl Fn(&R) -> Value,
    ) -> Result<(), ExportError> {
        let mut last: Option<R> = None;
        loop {
            let rows: Vec<R> = self.snapshot.all(statement, select(last.as_ref()).limit(page)).await?;
            for row in &rows {
                self.item(&json(row))?;
            }
            let is_full = rows.len() as u64 == page;
            last = rows.into_iter().next_back();
            if !is_full {
                return Ok(());
            }
        }
    }

    async fn sessions(&mut self) -> Result<(), ExportError> {
        use session::{Column, Entity, Model};
        let user = self.user;
        self.begin("sessions")?;
        let select = |last: Option<&Model>| {
            let key = last.map(|row| [row.created_at.into(), row.id.into()]);
            in_order(Entity::find().filter(Column::UserId.eq(user)), [Column::CreatedAt, Column::Id], key)
        };
        let json = |row: &Model| {
            json!({
                "id": row.id, "isActive": row.is_active, "name": row.name, "ipAddress": row.ip_address,
                "userAgent": row.user_agent, "createdAt": row.created_at, "lastActivity": row.last_activity,
                "expiresAt": row.expires_at, "endsAt": row.ends_at, "refreshedAt": row.refreshed_at,
                "revokedAt": row.revoked_at, "endReason": row.end_reason.map(session::EndReason::as_str),
            })
        };
        self.pages("session.export", SMALL_ROWS, select, json).await?;
        Ok(self.end()?)
    }

    async fn forms(&mut self) -> Result<(), ExportError> {
        use form::{Column, Entity, Model};
        let user = self.user;
        self.begin("forms")?;
        let select = |last: Option<&Model>| {
            let key = last.map(|row| [row.created_at.into(), row.id.into()]);
            in_order(Entity::find().filter(Column::OwnerId.eq(user)), [Column::CreatedAt, Column::Id], key)
        };
        let json = |row: &Model| {
            json!({
                "id": row.id, "title": row.title, "description": row.description,
                "status": row.status.as_str(), "version": row.version,
                "draft": row.draft.as_ref().map(Json::to_value), "draftRevision": row.draft_revision,
                "createdAt": row.created_at, "updatedAt": row.updated_at, "publishedAt": row.published_at,
            })
        };
        self.pages("form.export", LARGE_ROWS, select, json).await?;
        Ok(self.end()?)
    }

    /// The versions that the person has published, of whomever's forms.
    async fn versions(&mut self) -> Result<(), ExportError> {
        use form::version::{Column, Entity, Model};
        let user = self.user;
        self.begin("formVersions")?;
        let select = |last: Option<&Model>| {
            let key = last.map(|row| [row.id.into()]);
            in_order(Entity::find().filter(Column::PublishedBy.eq(user)), [Column::Id], key)
        };
        let json = |row: &Model| {
            json!({
                "id": row.id, "formId": row.form_id, "number": row.number,
                "definition": row.definition.to_value(), "hash": row.hash, "publishedAt": row.published_at,
            })
        };
        self.pages("form_version.export", LARGE_ROWS, select, json).await?;
        Ok(self.end()?)
    }

    async fn submissions(&mut self) -> Result<(), ExportError> {
        use submission::{Column, Entity, Model};
        let user = self.user;
        self.begin("submissions")?;
        let select = |last: Option<&Model>| {
            let key = last.map(|row| [row.created_at.into(), row.id.into()]);
            in_order(Entity::find().filter(Column::UserId.eq(user)), [Column::CreatedAt, Column::Id], key)
        };
        let json = |row: &Model| {
            json!({
                "id": row.id, "formId": row.form_id, "formVersion": row.form_version,
                "sessionId": row.session_id, "clientId": row.client_id(), "data": row.data.to_value(),
                "locationId": row.location_id, "createdAt": row.created_at,
            })
        };
        self.pages("submission.export", LARGE_ROWS, select, json).await?;
        Ok(self.end()?)
    }

    async fn last_location(&mut self) -> Result<(), ExportError> {
        use location::last::{Entity, Model};
        let found: Option<Model> =
            self.snapshot.one("location.export_last", Entity::find_by_id(self.user)).await?;
        let json = found.map_or(Value::Null, |row| {
            json!({
                "id": row.id, "sessionId": row.session_id, "timestamp": row.timestamp,
                "receivedAt": row.received_at, "latitude": row.latitude, "longitude": row.longitude,
                "accuracy": row.accuracy, "altitude": row.altitude, "speed": row.speed,
                "heading": row.heading,
            })
        });
        Ok(write!(self.out, ",\n\"lastLocation\":{json}")?)
    }

    async fn locations(&mut self) -> Result<(), ExportError> {
        use location::{Column, Entity, Model};
        let user = self.user;
        self.begin("locations")?;
        let select = |last: Option<&Model>| {
            let key = last.map(|row| [row.timestamp.into(), row.id.into()]);
            in_order(Entity::find().filter(Column::UserId.eq(user)), [Column::Timestamp, Column::Id], key)
        };
        let json = |row: &Model| {
            json!({
                "id": row.id, "sessionId": row.session_id, "timestamp": row.timestamp,
                "receivedAt": row.received_at, "latitude": row.latitude, "longitude": row.longitude,
                "accuracy": row.accuracy, "altitude": row.altitude, "speed": row.speed,
                "heading": row.heading,
            })
        };
        self.pages("location.export", SMALL_ROWS, select, json).await?;
        Ok(self.end()?)
    }

    /// What the person has done, and what was done to the account.
    async fn activity(&mut self) -> Result<(), ExportError> {
        use activity::{Column, Entity, Model};
        let user = self.user;
        self.begin("activityLogs")?;
        let select = |last: Option<&Model>| {
            let key = last.map(|row| [row.created_at.into(), row.id.into()]);
            let theirs = Condition::any().add(Column::UserId.eq(user)).add(Column::SubjectId.eq(user.0));
            in_order(Entity::find().filter(theirs), [Column::CreatedAt, Column::Id], key)
        };
        let json = |row: &Model| {
            json!({
                "id": row.id, "userId": row.user_id, "actionType": row.action_type,
                "subjectId": row.subject_id, "subjectType": row.subject_type,
                "metadata": row.metadata.to_value(), "createdAt": row.created_at,
            })
        };
        self.pages("activity.export", SMALL_ROWS, select, json).await?;
        Ok(self.end()?)
    }

    async fn webhooks(&mut self) -> Result<(), ExportError> {
        use webhook::{Column, Entity, Row, form as named};
        let owned = Entity::find().filter(Column::OwnerId.eq(self.user)).order_by_asc(Column::Id);
        // There are few of one account.
        let webhooks: Vec<Row> = self.snapshot.all("webhook.export", owned).await?;
        let ids: Vec<WebhookId> = webhooks.iter().map(|webhook| webhook.id).collect();
        let forms = named::Entity::find()
            .filter(named::Column::WebhookId.is_in(ids.iter().copied()))
            .order_by_asc(named::Column::FormId);
        let forms: Vec<named::Model> = self.snapshot.all("webhook.export_forms", forms).await?;
        self.begin("webhooks")?;
        for row in &webhooks {
            let told = forms.iter().filter(|form| form.webhook_id == row.id);
            let told: Vec<FormId> = told.map(|form| form.form_id).collect();
            let events: Vec<&str> = row.events().iter().map(|event| event.as_str()).collect();
            self.item(&json!({
                "id": row.id, "url": row.url, "events": events,
                "formIds": (!row.has_all_forms).then_some(told), "isEnabled": row.is_enabled,
                "disabledAt": row.disabled_at, "disabledReason": row.disabled_reason,
                "failingSince": row.failing_since, "previousSecretUntil": row.previous_secret_until,
                "createdAt": row.created_at, "updatedAt": row.updated_at,
            }))?;
        }
        self.end()?;
        self.begin("webhookDeliveries")?;
        for id in ids {
            self.deliveries(id).await?;
        }
        Ok(self.end()?)
    }

    async fn deliveries(&mut self, webhook: WebhookId) -> Result<(), ExportError> {
        use webhook::delivery::{Column, Entity, Model};
        let select = |last: Option<&Model>| {
            let key = last.map(|row| [row.created_at.into(), row.id.into()]);
            in_order(
                Entity::find().filter(Column::WebhookId.eq(webhook)),
                [Column::CreatedAt, Column::Id],
                key,
            )
        };
        let json = |row: &Model| {
            json!({
                "id": row.id, "webhookId": row.webhook_id, "formId": row.form_id,
                "event": row.event.as_str(), "subjectId": row.subject_id, "happenedAt": row.happened_at,
                "status": row.status.as_str(), "attempts": row.attempts,
                "firstAttemptAt": row.first_attempt_at, "lastAttemptAt": row.last_attempt_at,
                "nextAttemptAt": row.next_attempt_at, "lastStatusCode": row.last_status_code,
                "lastError": row.last_error, "createdAt": row.created_at, "finishedAt": row.finished_at,
            })
        };
        self.pages("webhook_delivery.export", SMALL_ROWS, select, json).await
    }

    /// The answers to mutations with an idempotency key, which are kept for a while.
    async fn keyed_requests(&mut self) -> Result<(), ExportError> {
        use idempotency::{Column, Entity, Model};
        let user = self.user;
        self.begin("keyedRequests")?;
        let select = |last: Option<&Model>| {
            let key = last.map(|row| [row.id.into()]);
            in_order(Entity::find().filter(Column::UserId.eq(user)), [Column::Id], key)
        };
        let json = |row: &Model| {
            let parsed = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
            let stored: Vec<Value> = row.stored.lines().map(parsed).collect();
            let codes = row.codes.as_deref().unwrap_or_default();
            let codes: Vec<&str> = codes.split(',').filter(|code| !code.is_empty()).collect();
            json!({
                "createdAt": row.created_at, "stored": stored,
                "answer": row.answer.as_deref().map(parsed), "codes": codes,
            })
        };
        self.pages("idempotency.export", LARGE_ROWS, select, json).await?;
        Ok(self.end()?)
    }
}

fn account_json(account: &user::Model) -> Value {
    json!({
        "id": account.id, "email": account.email, "displayName": account.display_name,
        "role": account.role.as_str(), "isActive": account.is_active,
        "hasPassword": account.password_hash.is_some(), "createdAt": account.created_at,
        "updatedAt": account.updated_at, "lastLogin": account.last_login,
    })
}
