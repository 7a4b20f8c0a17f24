//! When a background task looks at the log of events: at once when a change is told, a few times more for as
//! long as it may wait for older transactions, and once a second anyway. Not here: what is read
//! (`entities::events`), what is done with it.

use std::time::Duration;

use entities::{
    Store,
    events::{ChangeEvent, Changes},
};
use tokio::sync::broadcast::{self, error::RecvError};

/// Between two looks where nobody tells of a change.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Between a change that was told and the look for it, so that several are read at once; and each further
/// look, for as long as the change waits for older transactions.
const LOOKS_AFTER: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(320),
];

/// Says when to look again.
#[derive(Debug)]
pub(crate) struct LogWaker {
    heard: broadcast::Receiver<Changes>,
    /// Looks since a change was told, or something was found.
    looks: usize,
}

impl LogWaker {
    /// Hears of what changes from now on.
    pub(crate) fn new(store: &Store) -> Self {
        Self { heard: store.events().subscribe(), looks: 0 }
    }

    /// Something was found: there may be more.
    pub(crate) fn found(&mut self) {
        self.looks = 0;
    }

    /// Nothing was found: waits until it is time for the next look. Only changes that concern somebody make
    /// it come early.
    pub(crate) async fn wait(&mut self, concerns: impl Fn(&ChangeEvent) -> bool) {
        if let Some(pause) = LOOKS_AFTER.get(self.looks) {
            tokio::time::sleep(*pause).await;
            self.looks += 1;
        } else if tokio::time::timeout(LOOK, self.until_told(concerns)).await.is_ok() {
            // The looks that follow are for all that was told so far.
            self.heard = self.heard.resubscribe();
            self.looks = 0;
        }
    }

    async fn until_told(&mut self, concerns: impl Fn(&ChangeEvent) -> bool) {
        loop {
            match self.heard.recv().await {
                Ok(changes) if changes.iter().any(&concerns) => return,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
