//! Events between instances: what is published here is sent over a Redis channel, and what others send there
//! is published here. Best effort by nature: whoever needs to be sure reads the truth when a
//! `ChangeEvent::Lagged` comes, and now and then anyway. Not here: the cache, which follows a log of its own,
//! and subscriptions, which follow that of events.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use super::{ChangeEvent, Changes, EventBus};
use crate::{
    id,
    redis::{Delivery, Redis, Unavailable},
};

#[derive(Serialize, Deserialize)]
struct Message {
    /// The sender: an instance ignores its own messages.
    #[serde(rename = "node")]
    instance: Uuid,
    changes: Vec<ChangeEvent>,
    /// `Changes::written`, as text.
    #[serde(default)]
    written: Option<String>,
    /// `Changes::event`.
    #[serde(default)]
    event: Option<i64>,
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("changes are plain data")
    }
}

/// Starts to relay, for as long as the process runs.
pub(crate) fn begin(events: &EventBus, redis: &Redis, namespace: &str) {
    let (instance, channel) = (id::new(), channel_of(namespace));
    tokio::spawn(send(events.clone(), redis.clone(), instance, channel.clone()));
    tokio::spawn(receive(events.clone(), redis.clone(), instance, channel));
}

fn channel_of(namespace: &str) -> String {
    format!("xp:{namespace}:changes")
}

/// What the account may not do that telling other instances of changes, and hearing of theirs, takes, in
/// Redis's words. Those who listen get a message without changes.
///
/// # Errors
/// `Unavailable` when Redis does not answer.
pub async fn missing_rights(redis: &Redis, namespace: &str) -> Result<Vec<String>, Unavailable> {
    let channel = channel_of(namespace);
    let mut publish = redis::cmd("PUBLISH");
    publish
        .arg(&channel)
        .arg(Message { instance: id::new(), changes: Vec::new(), written: None, event: None }.bytes());
    let mut missing = redis.refused_rights(&[redis::cmd("PING"), publish]).await?;
    missing.extend(redis.refused_subscription(&channel).await?);
    Ok(missing)
}

/// How often this process tries to tell the other instances that they have missed something.
const RETRY: Duration = Duration::from_millis(500);

async fn send(events: EventBus, redis: Redis, instance: Uuid, channel: String) {
    let mut own = events.subscribe_own();
    // Something could not be published: the others, whose own connections may be well, do not know that.
    let mut is_behind = false;
    loop {
        let next = async {
            match own.recv().await {
                Ok(changes) => Some(changes),
                Err(RecvError::Lagged(_)) => Some([ChangeEvent::Lagged].into()),
                Err(RecvError::Closed) => None,
            }
        };
        let next = tokio::select! {
            next = next => next,
            () = tokio::time::sleep(RETRY), if is_behind => Some([ChangeEvent::Lagged].into()),
        };
        let Some(changes) = next else { return };
        let changes = if is_behind { [ChangeEvent::Lagged].into() } else { changes };
        let written = changes.written.map(|version| version.to_string());
        let (event, changes) = (changes.event, changes.to_vec());
        let message = Message { instance, changes, written, event }.bytes();
        is_behind = redis.publish(&channel, &message).await.is_err();
    }
}

async fn receive(events: EventBus, redis: Redis, instance: Uuid, channel: String) {
    let mut subscription = redis.subscribe(&channel);
    loop {
        let changes: Changes = match subscription.next().await {
            Delivery::Gap => [ChangeEvent::Lagged].into(),
            Delivery::Message(message) => match serde_json::from_slice::<Message>(&message) {
                // Its own, or one of somebody who only tries whether it may.
                Ok(message) if message.instance == instance || message.changes.is_empty() => continue,
                Ok(message) => {
                    let written = message.written.and_then(|version| version.parse().ok());
                    Changes::new(message.changes, written).logged(message.event)
                }
                // From a version that writes otherwise.
                Err(_) => [ChangeEvent::Lagged].into(),
            },
        };
        events.publish_locally(changes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_only_newer_versions_know_leave_the_others_readable() {
        let (instance, form, submission) = (id::new(), id::new(), id::new());
        let json = serde_json::json!({ "node": instance, "changes": [
            { "kind": "flag_raised", "id": form, "more": { "than": ["this"] } },
            { "kind": "submission", "id": submission, "form": form, "user": null },
        ] });
        let message: Message = serde_json::from_value(json).expect("it can be read");
        let [ChangeEvent::Unknown, known @ ChangeEvent::Submission { .. }] = message.changes[..] else {
            panic!("{:?}", message.changes)
        };
        assert_eq!(known, ChangeEvent::Submission { id: submission.into(), form: form.into(), user: None });
        let lagged = serde_json::to_value(ChangeEvent::Lagged).expect("it is plain data");
        assert_eq!(lagged, serde_json::json!({ "kind": "missed" }), "what running versions read");
    }
}
