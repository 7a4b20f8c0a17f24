//! What is sent: `type`, `timestamp` and `data`, as Standard Webhooks has it. `data` has the fields of the
//! graph under their names, so that what is not in it can be asked for by the ids. Not here: who may see it
//! (`entities::webhook::subject`).

use bytes::Bytes;
use entities::webhook::{delivery::Model, subject::DeliverySubject};
use serde_json::{Value, json};

/// The body of a delivery.
pub(super) fn of(delivery: &Model, subject: &DeliverySubject) -> Bytes {
    let data = match subject {
        DeliverySubject::Submission(submission) => json!({
            "__typename": "Submission",
            "id": submission.id.to_string(),
            "form": { "id": submission.form_id.to_string() },
            "formVersion": submission.form_version,
            "user": by_id(submission.user_id.map(|id| id.to_string())),
            "clientId": submission.client_id().map(|id| id.to_string()),
            "location": by_id(submission.location_id.map(|id| id.to_string())),
            "data": submission.data.to_value(),
            "createdAt": submission.created_at,
        }),
        DeliverySubject::Form(form) => json!({
            "__typename": "Form",
            "id": form.id.to_string(),
            "title": form.title,
            "description": form.description,
            "status": form.status.as_str(),
            "version": form.version,
            "owner": { "id": form.owner_id.to_string() },
            "createdAt": form.created_at,
            "updatedAt": form.updated_at,
            "publishedAt": form.published_at,
        }),
    };
    let body = json!({ "type": delivery.event.wire_name(), "timestamp": delivery.happened_at, "data": data });
    body.to_string().into()
}

fn by_id(id: Option<String>) -> Value {
    id.map_or(Value::Null, |id| json!({ "id": id }))
}
