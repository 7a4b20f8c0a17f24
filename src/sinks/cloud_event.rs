//! An event as a CloudEvent (CloudEvents 1.0, JSON format), with the extensions `partitionkey` and
//! `sequence`. It says what was changed by ids, and not how: whoever may see it asks the graph. Not here: how
//! it is sent.

use entities::{
    clock::Time,
    events::{ChangeEvent, ExportedEvent, FormChange},
};
use serde::Serialize;
use serde_json::{Value, json};

/// The media type of the JSON format (CloudEvents, JSON event format, §3).
pub(super) const CONTENT_TYPE: &str = "application/cloudevents+json";
/// Before the names of what has happened.
const PREFIX: &str = "xp.";

/// One event.
pub(super) struct CloudEvent {
    /// No other has it, and it has it each time that it is sent.
    pub(super) id: String,
    /// What has happened, as `xp.submission.created`.
    pub(super) kind: String,
    /// What it happened to: a form, or an account. Events of the same key are sent in order.
    pub(super) key: String,
    /// The event in the JSON format.
    pub(super) json: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
struct Envelope<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: Time,
    datacontenttype: &'static str,
    partitionkey: &'a str,
    sequence: &'a str,
    data: Value,
}

impl CloudEvent {
    /// A change; none where it tells others nothing.
    pub(super) fn of(event: &ExportedEvent, time: Time, source: &str) -> Option<Self> {
        let (kind, subject, key, data) = told(event.change)?;
        let kind = format!("{PREFIX}{kind}");
        let envelope = Envelope {
            specversion: "1.0",
            id: &event.id,
            source,
            kind: &kind,
            subject: &subject,
            time,
            datacontenttype: "application/json",
            partitionkey: &key,
            sequence: &event.sequence,
            data,
        };
        let json = serde_json::to_string(&envelope).ok()?;
        Some(Self { id: event.id.clone(), kind, key, json })
    }
}

/// What has happened, to what, under which key, and the ids.
fn told(change: ChangeEvent) -> Option<(&'static str, String, String, Value)> {
    Some(match change {
        ChangeEvent::User { id } => {
            ("user.changed", id.to_string(), id.to_string(), json!({ "userId": id.to_string() }))
        }
        ChangeEvent::Session { id, user } => {
            let data = json!({ "sessionId": id.to_string(), "userId": user.to_string() });
            ("session.changed", id.to_string(), user.to_string(), data)
        }
        ChangeEvent::SessionEnded { id, user } => {
            let data = json!({ "sessionId": id.to_string(), "userId": user.to_string() });
            ("session.ended", id.to_string(), user.to_string(), data)
        }
        ChangeEvent::Form { id, owner, change } => {
            let kind = match change {
                FormChange::Created => "form.created",
                FormChange::Updated => "form.updated",
                FormChange::Drafted => "form.drafted",
                FormChange::Published => "form.published",
                FormChange::StatusChanged => "form.status_changed",
                FormChange::Other => "form.changed",
            };
            let data = json!({ "formId": id.to_string(), "ownerId": owner.to_string() });
            (kind, id.to_string(), id.to_string(), data)
        }
        ChangeEvent::Submission { id, form, user } => {
            let user = user.map(|user| user.to_string());
            let data = json!({ "submissionId": id.to_string(), "formId": form.to_string(), "userId": user });
            ("submission.created", id.to_string(), form.to_string(), data)
        }
        ChangeEvent::LastLocation { id, user } => {
            let data = json!({ "locationId": id.to_string(), "userId": user.to_string() });
            ("location.changed", id.to_string(), user.to_string(), data)
        }
        ChangeEvent::Locations { user } => {
            ("location.recorded", user.to_string(), user.to_string(), json!({ "userId": user.to_string() }))
        }
        // What people have set, and what is removed after a time, is of no use to other systems.
        ChangeEvent::Webhook { .. }
        | ChangeEvent::Activity
        | ChangeEvent::Removed { .. }
        | ChangeEvent::Lagged
        | ChangeEvent::Unknown => return None,
    })
}

#[cfg(test)]
mod tests {
    use entities::{
        clock,
        id::{FormId, SubmissionId},
    };

    use super::*;

    #[test]
    fn an_event_has_the_attributes_of_the_specification() {
        let (id, form) = (SubmissionId::new(), FormId::new());
        let change = ChangeEvent::Submission { id, form, user: None };
        let exported =
            |change| ExportedEvent { id: "2f-1-0-0".to_owned(), sequence: "2f".to_owned(), change };
        let event = CloudEvent::of(&exported(change), clock::now(), "/xp").expect("it is told");
        let json: Value = serde_json::from_str(&event.json).expect("JSON");
        assert_eq!(json["specversion"], "1.0");
        assert_eq!((json["id"].as_str(), json["source"].as_str()), (Some("2f-1-0-0"), Some("/xp")));
        assert_eq!((json["type"].as_str(), &event.key), (Some("xp.submission.created"), &form.to_string()));
        assert_eq!(
            json["data"],
            json!({ "submissionId": id.to_string(), "formId": form.to_string(), "userId": null })
        );
        assert!(CloudEvent::of(&exported(ChangeEvent::Unknown), clock::now(), "/xp").is_none());
    }
}
