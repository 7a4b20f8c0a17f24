//! Change events: each transaction notes its changes in the log of events (`log`), which is the truth:
//! subscriptions follow it (`follower`), and miss nothing. Once it is committed the changes are published as
//! well, which is quick and best effort: here to listeners of this process, over `relay` to other instances.
//! Not here: who may see a changed row (the reader decides that when it reads the row), what a change means
//! to caches (`tags`).

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

pub mod consumer;
mod export;
mod follower;
pub mod log;
pub(crate) mod relay;
mod tags;
pub use export::{EventExport, Exported, ExportedEvent, ExportedTransaction};
pub(crate) use follower::{EventLog, Sources};
pub use follower::{EventWatch, WatchEnd, Watched};
pub use log::{EventPosition, InvalidResumeToken, ResumeToken};
pub use relay::missing_rights;
pub use tags::{ReadSet, tags_of};

use crate::{
    cache::Version,
    id::{FormId, LocationId, NodeKind, SessionId, SubmissionId, UserId, WebhookId},
};

/// One changed row. Carries ids only: whoever cares reads the row, under its own rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ChangeEvent {
    /// An account was made or changed.
    User {
        /// The account.
        id: UserId,
    },
    /// A session began or changed.
    Session {
        /// The session.
        id: SessionId,
        /// The account that the session belongs to.
        user: UserId,
    },
    /// A session ended.
    SessionEnded {
        /// The session.
        id: SessionId,
        /// The account that the session belongs to.
        user: UserId,
    },
    /// A form, its draft or its versions changed.
    Form {
        /// The form.
        id: FormId,
        /// The account that owns the form.
        owner: UserId,
        /// What was done to it. Programs from before this was told say nothing of it.
        #[serde(default)]
        change: FormChange,
    },
    /// A submission was stored.
    Submission {
        /// The submission.
        id: SubmissionId,
        /// What was filled in.
        form: FormId,
        /// The account that filled it in.
        user: Option<UserId>,
    },
    /// A webhook was made, changed or removed, or its state changed.
    Webhook {
        /// The webhook.
        id: WebhookId,
    },
    /// Changes of other instances may have been missed: whoever needs to be sure reads the database again.
    #[serde(rename = "missed")]
    Lagged,
    /// An account has a new newest position.
    LastLocation {
        /// The position.
        id: LocationId,
        /// The account that was there.
        user: UserId,
    },
    /// Positions of an account were stored, of which none is its newest.
    Locations {
        /// The account that was there.
        user: UserId,
    },
    /// Rows were removed, or emptied: they were kept for long enough, or a person's data was erased.
    Removed {
        /// The kind of rows that were removed.
        of: Removal,
    },
    /// Nothing has changed but that the activity log has one more entry.
    Activity,
    /// A kind of change that only newer versions know, told by one of them. Nobody waits for it here, but who
    /// must be sure of something reads the truth again.
    #[serde(other)]
    Unknown,
}

/// What is removed after a time (`retention`), or with a person's data (`personal_data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// Sessions that have ended.
    Sessions,
    /// Positions.
    Locations,
    /// Entries of the activity log.
    ActivityLogs,
    /// Submissions.
    Submissions,
}

/// What was done to a form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormChange {
    /// The form was made.
    Created,
    /// The form's title or description changed.
    Updated,
    /// The form's draft was saved.
    Drafted,
    /// A version of the form was published.
    Published,
    /// The form was opened, closed or archived.
    StatusChanged,
    /// Something else, or not known here.
    #[default]
    #[serde(other)]
    Other,
}

impl Removal {
    /// The type of what is removed.
    pub(crate) fn kind(self) -> NodeKind {
        match self {
            Self::Sessions => NodeKind::Session,
            Self::Locations => NodeKind::Location,
            Self::ActivityLogs => NodeKind::ActivityLog,
            Self::Submissions => NodeKind::Submission,
        }
    }
}

/// The changes of one transaction.
#[derive(Clone, Debug)]
pub struct Changes {
    all: Arc<[ChangeEvent]>,
    /// The version of the write, where instances share a cache. Events may arrive before the cache has
    /// applied it: who reads a changed row because of them must not get what was there before.
    pub written: Option<Version>,
    /// The number of their row in the log; none from a program that has none.
    event: Option<i64>,
    number: u64,
}

/// Changes published by this process so far.
static PUBLISHED: AtomicU64 = AtomicU64::new(0);

impl Changes {
    /// Changes written at a version.
    pub(crate) fn new(all: impl Into<Arc<[ChangeEvent]>>, written: Option<Version>) -> Self {
        Self { all: all.into(), written, event: None, number: PUBLISHED.fetch_add(1, Ordering::Relaxed) }
    }

    /// They are in the log.
    pub(crate) fn logged(self, event: Option<i64>) -> Self {
        Self { event, ..self }
    }

    /// Which publication this is: every subscriber of this process gets the same number for the same transaction, and
    /// another one for the next, also where the same rows changed again.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Deref for Changes {
    type Target = [ChangeEvent];

    fn deref(&self) -> &[ChangeEvent] {
        &self.all
    }
}

impl<T: Into<Arc<[ChangeEvent]>>> From<T> for Changes {
    fn from(all: T) -> Self {
        Self::new(all, None)
    }
}

/// Transactions that a slow listener may be behind before it loses some.
const BACKLOG: usize = 4_096;

/// Publishes changes to all subscribers in this process, and passes on those of other instances.
#[derive(Clone, Debug)]
pub struct EventBus {
    everything: broadcast::Sender<Changes>,
    own: broadcast::Sender<Changes>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self { everything: broadcast::Sender::new(BACKLOG), own: broadcast::Sender::new(BACKLOG) }
    }
}

impl EventBus {
    /// Publishes committed changes, here and on other instances.
    pub fn publish(&self, changes: Changes) {
        if !changes.is_empty() {
            // Fails only when nobody listens.
            let _ = self.own.send(changes.clone());
            self.publish_locally(changes);
        }
    }

    /// Publishes changes in this process only: those that were published elsewhere, or that every instance
    /// finds by itself.
    pub(crate) fn publish_locally(&self, changes: Changes) {
        let _ = self.everything.send(changes);
    }

    /// Everything that is published from now on, by any instance. A listener that is too slow gets `Lagged`: as with
    /// `ChangeEvent::Lagged`, it must read the truth again.
    pub fn subscribe(&self) -> broadcast::Receiver<Changes> {
        self.everything.subscribe()
    }

    /// What this instance publishes.
    pub fn subscribe_own(&self) -> broadcast::Receiver<Changes> {
        self.own.subscribe()
    }
}
