//! News between nodes: what is announced here goes out over a channel of Redis, and what others say there is announced
//! here. Best effort by nature: whoever needs to be sure reads the truth when a `Change::Missed` comes, and now and
//! then anyway. Not here: the cache, which follows a log of its own.

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

async fn send(announcer: Announcer, redis: Redis, node: Uuid, channel: String) {
    let mut own = announcer.listen_to_own();
    loop {
        let changes = match own.recv().await {
            Ok(changes) => changes,
            Err(RecvError::Lagged(_)) => [Change::Missed].into(),
            Err(RecvError::Closed) => return,
        };
        let written = changes.written.map(|moment| moment.to_string());
        let letter = Letter { node, changes: changes.to_vec(), written };
        let letter = serde_json::to_vec(&letter).expect("changes are plain data");
        // Lost while Redis is away: the others hear of a gap when they are back.
        let _ = redis.publish(&channel, &letter).await;
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
                // From a version that knows more kinds of changes.
                Err(_) => [Change::Missed].into(),
            },
        };
        announcer.pass_on(changes);
    }
}
