//! What one request has read and written: its statements, its batches of keys, what its values depend on, and
//! the version of its last write. For its log line, for `extensions.explain`, for whole answers and for
//! tests. Not here: how statements are timed (`database`).

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU32, Ordering},
};

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{DependencySet, Tag, Version};
use crate::{
    database::statement_log::{Executed, StatementLog},
    idempotency::Claim,
};

/// How often one request waits for a Redis that does not answer.
const MAX_REDIS_TIMEOUTS: u32 = 2;

/// What one request has read and written.
#[derive(Debug, Default)]
pub struct Recorder {
    statements: Arc<StatementLog>,
    cache_reads: Mutex<Vec<CacheRead>>,
    cache_hits: AtomicU32,
    redis_timeouts: AtomicU32,
    wrote: Mutex<Option<Version>>,
    commits: Commits,
    claim: Option<Arc<Claim>>,
    /// Only where somebody has asked for it.
    dependencies: Option<Mutex<DependencySet>>,
}

/// How many times COMMIT was sent for one request. Cheap to clone; whoever runs the request has it too, and
/// knows at any moment whether something of it may be stored.
#[derive(Clone, Debug, Default)]
pub struct Commits(Arc<AtomicU32>);

impl Commits {
    /// How many so far.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// COMMIT is about to be sent.
    fn note(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// One batch of keys that went through the cache.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheRead {
    /// What was read.
    pub of: &'static str,
    /// `local` or `redis`.
    pub tier: &'static str,
    /// Keys by what was found: `hit`, or why not.
    pub keys: FxHashMap<&'static str, u64>,
    /// Age of the oldest value used, seconds.
    pub age_seconds: f64,
    /// What the first key depends on.
    pub tags: Vec<String>,
}

impl Recorder {
    /// A recorder that counts and, with `texts`, keeps each statement.
    pub fn new(texts: bool) -> Self {
        Self { statements: Arc::new(StatementLog::new(texts)), ..Self::default() }
    }

    /// A recorder that also collects what the values that are read depend on, for `dependencies`.
    #[must_use]
    pub fn collecting(self) -> Self {
        let statements = Arc::new(self.statements.noting_untracked());
        Self { dependencies: Some(Mutex::default()), statements, ..self }
    }

    /// A recorder that counts in `commits` how many times COMMIT is sent.
    #[must_use]
    pub fn counting(self, commits: Commits) -> Self {
        Self { commits, ..self }
    }

    /// A recorder of a request with a key, whose transactions note under this claim what they store.
    #[must_use]
    pub fn claimed(self, claim: Arc<Claim>) -> Self {
        Self { claim: Some(claim), ..self }
    }

    /// The claim of a request with a key.
    pub fn claim(&self) -> Option<&Claim> {
        self.claim.as_deref()
    }

    /// How many times COMMIT was sent for this request.
    pub fn commits(&self) -> u32 {
        self.commits.count()
    }

    pub(crate) fn note_commit(&self) {
        self.commits.note();
    }

    /// Whether it collects what the values depend on.
    pub fn collects(&self) -> bool {
        self.dependencies.is_some()
    }

    /// What everything that was read so far depends on; `None` unless it is `collecting`.
    pub fn dependencies(&self) -> Option<Arc<DependencySet>> {
        let mut dependencies = lock(self.dependencies.as_ref()?).clone();
        dependencies.add_untracked(self.statements.untracked());
        Some(Arc::new(dependencies))
    }

    /// Collects what values depend on: for each of these keys, its tags, and whether they cover all of it.
    pub(super) fn record_dependencies(&self, is_strong: bool, keys: impl Iterator<Item = (Vec<Tag>, bool)>) {
        let Some(dependencies) = &self.dependencies else { return };
        let mut dependencies = lock(dependencies);
        for (tags, is_tracked) in keys {
            dependencies.add(tags, is_strong);
            if !is_tracked {
                dependencies.mark_incomplete();
            }
        }
    }

    /// Where the request's statements are noted.
    pub(super) fn log(&self) -> &Arc<StatementLog> {
        &self.statements
    }

    /// Notes that Redis was waited for and did not answer.
    pub(super) fn count_redis_timeout(&self) {
        self.redis_timeouts.fetch_add(1, Ordering::Relaxed);
    }

    /// Has this request waited for Redis in vain so often that it does without?
    pub(super) fn redis_budget_exhausted(&self) -> bool {
        self.redis_timeouts.load(Ordering::Relaxed) >= MAX_REDIS_TIMEOUTS
    }

    /// Whether the statements themselves are kept.
    pub fn keeps_texts(&self) -> bool {
        self.statements.keeps_texts()
    }

    /// How many statements ran.
    pub fn count(&self) -> u32 {
        self.statements.count()
    }

    /// The statements, in the order in which they finished.
    pub fn statements(&self) -> Vec<Executed> {
        self.statements.statements()
    }

    /// The batches that went through the cache.
    pub fn cache_reads(&self) -> Vec<CacheRead> {
        lock(&self.cache_reads).clone()
    }

    /// How many keys were found in the cache, in its own memory or in Redis; those of batches that were shared with
    /// other requests included.
    pub fn cache_hits(&self) -> u32 {
        self.cache_hits.load(Ordering::Relaxed)
    }

    pub(super) fn count_cache_hits(&self, keys: u64) {
        self.cache_hits.fetch_add(u32::try_from(keys).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(super) fn add_cache_read(&self, read: CacheRead) {
        lock(&self.cache_reads).push(read);
    }

    /// The version of the last write that this request made: whoever reads at it or later sees the write.
    pub fn written_version(&self) -> Option<Version> {
        *lock(&self.wrote)
    }

    pub(crate) fn set_written_version(&self, version: Version) {
        *lock(&self.wrote) = Some(version);
    }

    /// Adds what ran elsewhere on this request's behalf (a batch shared with other requests).
    pub fn absorb(&self, other: &Self) {
        self.statements.absorb(&other.statements);
        self.count_cache_hits(other.cache_hits().into());
        if self.keeps_texts() {
            let reads = other.cache_reads();
            lock(&self.cache_reads).extend(reads);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic happens under this lock")
}
