//! What was written, as news: each transaction notes its changes, and they are told once it is committed. Listeners
//! of this process get them here; caches, live queries and the end of sessions follow from them. Not here: how the
//! news reaches other nodes (`relay`), who may see a changed row (the reader decides that when it reads the row).

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

pub(crate) mod relay;
mod tags;
pub use tags::tags_of;

use crate::{
    cache::Moment,
    id::{FormId, LocationId, SessionId, SubmissionId, UserId},
};

/// One changed row. Carries ids only: whoever cares reads the row, under its own rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Change {
    /// An account was made or changed.
    User {
        /// The account.
        id: UserId,
    },
    /// A session began or changed.
    Session {
        /// The session.
        id: SessionId,
        /// Whose it is.
        user: UserId,
    },
    /// A session ended.
    SessionEnded {
        /// The session.
        id: SessionId,
        /// Whose it was.
        user: UserId,
    },
    /// A form, its draft or its versions changed.
    Form {
        /// The form.
        id: FormId,
        /// Whose it is.
        owner: UserId,
    },
    /// A submission was stored.
    Submission {
        /// The submission.
        id: SubmissionId,
        /// What was filled in.
        form: FormId,
        /// Who filled it in.
        user: Option<UserId>,
    },
    /// Changes of other nodes may not have been heard: read the truth again.
    Missed,
    /// An account has a new newest position.
    LastLocation {
        /// The position.
        id: LocationId,
        /// Whose it is.
        user: UserId,
    },
    /// A kind of change that only newer versions know, told by one of them. Nobody waits for it here, but who must be sure
    /// of something reads the truth again.
    #[serde(other)]
    Unknown,
}

/// The changes of one transaction.
#[derive(Clone, Debug)]
pub struct Changes {
    all: Arc<[Change]>,
    /// When it was written, where nodes share a cache. News may travel faster than what the cache follows: who reads a
    /// changed row because of them must not get what was there before.
    pub written: Option<Moment>,
    number: u64,
}

/// Announcements of this process so far.
static ANNOUNCEMENTS: AtomicU64 = AtomicU64::new(0);

impl Changes {
    /// Changes written at a moment.
    pub(crate) fn new(all: impl Into<Arc<[Change]>>, written: Option<Moment>) -> Self {
        Self { all: all.into(), written, number: ANNOUNCEMENTS.fetch_add(1, Ordering::Relaxed) }
    }

    /// Which announcement this is: every listener of this process gets the same number for the same transaction, and
    /// another one for the next, also where the same rows changed again.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Deref for Changes {
    type Target = [Change];

    fn deref(&self) -> &[Change] {
        &self.all
    }
}

impl<T: Into<Arc<[Change]>>> From<T> for Changes {
    fn from(all: T) -> Self {
        Self::new(all, None)
    }
}

/// Transactions that a slow listener may be behind before it loses some.
const BACKLOG: usize = 4_096;

/// Tells changes to everyone in this process who listens, and takes part in what other nodes tell.
#[derive(Clone, Debug)]
pub struct Announcer {
    everything: broadcast::Sender<Changes>,
    own: broadcast::Sender<Changes>,
}

impl Default for Announcer {
    fn default() -> Self {
        Self { everything: broadcast::Sender::new(BACKLOG), own: broadcast::Sender::new(BACKLOG) }
    }
}

impl Announcer {
    /// Tells committed changes, here and on other nodes.
    pub fn announce(&self, changes: Changes) {
        if !changes.is_empty() {
            // Fails only when nobody listens.
            let _ = self.own.send(changes.clone());
            self.pass_on(changes);
        }
    }

    /// Tells changes in this process only: those that were announced elsewhere, or that every node finds by itself.
    pub(crate) fn pass_on(&self, changes: Changes) {
        let _ = self.everything.send(changes);
    }

    /// Everything that is announced from now on, by any node. A listener that is too slow gets `Lagged`: as with
    /// `Change::Missed`, it must read the truth again.
    pub fn listen(&self) -> broadcast::Receiver<Changes> {
        self.everything.subscribe()
    }

    /// What this node announces.
    pub fn listen_to_own(&self) -> broadcast::Receiver<Changes> {
        self.own.subscribe()
    }
}
