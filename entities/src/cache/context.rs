//! What one request reads with. Not here: the cache itself, and what is written (`store`).

use std::{fmt, sync::Arc};

use super::{Recorder, Version};
use crate::database::{Database, replica::OnReplica};

/// What one request reads with: the database, who is told what was read, and how old a value may be. Cheap to clone.
#[derive(Clone)]
pub struct ReadContext {
    database: Database,
    recorder: Option<Arc<Recorder>>,
    not_before: Option<Version>,
}

impl ReadContext {
    /// Reads for no request, of any age.
    pub(crate) fn new(database: Database) -> Self {
        Self { database, recorder: None, not_before: None }
    }

    /// A context that reports to `recorder` too.
    pub(crate) fn recorded_by(&self, recorder: Arc<Recorder>) -> Self {
        let database = self.database.logged_in(Some(Arc::clone(recorder.log())));
        Self { database, recorder: Some(recorder), not_before: self.not_before }
    }

    /// A context that reports to no request.
    pub(super) fn unrecorded(&self) -> Self {
        Self { database: self.database.logged_in(None), recorder: None, not_before: self.not_before }
    }

    /// A context for a reader who must see what was written up to a version, on whatever instance.
    pub(crate) fn not_before(&self, version: Version) -> Self {
        Self { not_before: Some(version), ..self.clone() }
    }

    /// A context for statements whose results tags cover.
    pub(super) fn tracked(&self) -> Self {
        Self { database: self.database.tracked(), ..self.clone() }
    }

    /// A context whose reads run on this standby where they can.
    pub(super) fn reading_on(&self, replica: OnReplica) -> Self {
        Self { database: self.database.reading_on(replica), ..self.clone() }
    }

    /// A context whose reads run on the primary: a load within a load may need more than a standby has that
    /// will do for the other one.
    pub(super) fn on_primary(&self) -> Self {
        Self { database: self.database.on_primary(), ..self.clone() }
    }

    /// What is not cached is read from here.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The request that reads are reported to.
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_deref()
    }

    /// Reads must not be older than this.
    pub(crate) fn min_version(&self) -> Option<Version> {
        self.not_before
    }
}

impl fmt::Debug for ReadContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadContext").field("not_before", &self.not_before).finish_non_exhaustive()
    }
}
