//! What a delivery is about, as the owner of its webhook may see it at this moment. Read from the primary and
//! not from the cache: what is told must not be older than its event. Not here: how it is written down (the
//! server).

use sea_orm::entity::prelude::*;

use super::{Model, WebhookEvent, delivery, may_hear};
use crate::{database::Database, error::Error, form, id::SubmissionId, submission, user};

/// What a delivery is about.
#[derive(Clone, Debug)]
pub enum DeliverySubject {
    /// A submission, and its form.
    Submission(Box<submission::Model>),
    /// A form.
    Form(Box<form::Row>),
}

/// What this delivery is about. None where it is gone, or the owner of the webhook may not see it any more.
///
/// # Errors
/// The database's.
pub async fn of(
    database: &Database,
    webhook: &Model,
    delivery: &delivery::Model,
) -> Result<Option<DeliverySubject>, Error> {
    let database = database.on_primary();
    let owner: Option<user::Row> =
        database.one("webhook.owner", user::Entity::find_by_id(webhook.owner_id)).await?;
    let Some(owner) = owner.filter(|owner| owner.is_active) else { return Ok(None) };
    let form: Option<form::Row> =
        database.one("webhook.form", form::Entity::find_by_id(delivery.form_id)).await?;
    let Some(form) = form.filter(|form| may_hear(owner.id, owner.role, form.owner_id)) else {
        return Ok(None);
    };
    if delivery.event != WebhookEvent::SubmissionCreated {
        return Ok(Some(DeliverySubject::Form(Box::new(form))));
    }
    let find = submission::Entity::find_by_id(SubmissionId(delivery.subject_id));
    let submission: Option<submission::Model> = database.one("webhook.submission", find).await?;
    Ok(submission.map(|submission| DeliverySubject::Submission(Box::new(submission))))
}
