//! News between nodes: what is announced here goes out over a channel of Redis, and what others say there is announced
//! here. Best effort by nature: whoever needs to be sure reads the truth when a `Change::Missed` comes, and now and
//! then anyway. Not here: the cache, which follows a log of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use super::{Announcer, Change, Changes};
use crate::{
    id,
    redis::{Heard, Redis},
};

#[derive(Serialize, Deserialize)]
struct Letter {
    /// Who says so: nobody listens to themselves.
    node: Uuid,
    changes: Vec<Change>,
    /// `Changes::written`, as text.
    #[serde(default)]
    written: Option<String>,
}

/// Starts to relay, for as long as the process runs.
pub(crate) fn begin(announcer: &Announcer, redis: &Redis, namespace: &str) {
    let (node, channel) = (id::new(), format!("xp:{namespace}:changes"));
    tokio::spawn(send(announcer.clone(), redis.clone(), node, channel.clone()));
    tokio::spawn(receive(announcer.clone(), redis.clone(), node, channel));
}

/// How often this process tries to tell the others that they have missed something.
const TELL_AGAIN: Duration = Duration::from_millis(500);

async fn send(announcer: Announcer, redis: Redis, node: Uuid, channel: String) {
    let mut own = announcer.listen_to_own();
    // Something could not be told: the others, whose own connections may be well, do not know that.
    let mut is_behind = false;
    loop {
        let next = async {
            match own.recv().await {
                Ok(changes) => Some(changes),
                Err(RecvError::Lagged(_)) => Some([Change::Missed].into()),
                Err(RecvError::Closed) => None,
            }
        };
        let next = tokio::select! {
            next = next => next,
            () = tokio::time::sleep(TELL_AGAIN), if is_behind => Some([Change::Missed].into()),
        };
        let Some(changes) = next else { return };
        let changes = if is_behind { [Change::Missed].into() } else { changes };
        let written = changes.written.map(|moment| moment.to_string());
        let letter = Letter { node, changes: changes.to_vec(), written };
        let letter = serde_json::to_vec(&letter).expect("changes are plain data");
        is_behind = redis.publish(&channel, &letter).await.is_err();
    }
}

async fn receive(announcer: Announcer, redis: Redis, node: Uuid, channel: String) {
    let mut subscription = redis.subscribe(&channel);
    loop {
        let changes: Changes = match subscription.next().await {
            Heard::Gap => [Change::Missed].into(),
            Heard::Message(letter) => match serde_json::from_slice::<Letter>(&letter) {
                Ok(letter) if letter.node == node => continue,
                Ok(letter) => {
                    let written = letter.written.and_then(|moment| moment.parse().ok());
                    Changes::new(letter.changes, written)
                }
                // From a version that writes otherwise.
                Err(_) => [Change::Missed].into(),
            },
        };
        announcer.pass_on(changes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_only_newer_versions_know_leave_the_others_readable() {
        let (node, form, submission) = (id::new(), id::new(), id::new());
        let json = serde_json::json!({ "node": node, "changes": [
            { "kind": "flag_raised", "id": form, "more": { "than": ["this"] } },
            { "kind": "submission", "id": submission, "form": form, "user": null },
        ] });
        let letter: Letter = serde_json::from_value(json).expect("it can be read");
        let [Change::Unknown, known @ Change::Submission { .. }] = letter.changes[..] else {
            panic!("{:?}", letter.changes)
        };
        assert_eq!(known, Change::Submission { id: submission.into(), form: form.into(), user: None });
    }
}
