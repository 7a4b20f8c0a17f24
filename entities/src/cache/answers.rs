//! Whole answers, held in this process under the stamps of everything that they were made of. They stay here: another
//! version of the program would make them otherwise, and what they are made of is shared anyway. Not here: which
//! answers, and who may get them (the crate `schema` names them).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use uuid::Uuid;

use super::{
    Cache, DependencySet, ReadContext, Retention, Tag, Version,
    entry::{CacheEntry, CacheKey, Header},
    metrics::{LookupResult, Tier},
    read::{self, hash},
    stats::CacheStats,
    table::Slot,
};

/// Which answer, and to whom: everything that decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AnswerName(CacheKey);

impl AnswerName {
    /// The name for these arguments, which no others have.
    pub fn of(arguments: &impl Serialize) -> Self {
        Self(CacheKey { of: hash(&(ANSWER, arguments)), id: Uuid::nil() })
    }
}

const ANSWER: &str = "answer";

/// What a tag takes, about: it is in a set that is half empty, and its slot in the header.
const TAG_BYTES: usize = 2 * size_of::<Tag>() + size_of::<Slot>();

impl Cache {
    /// The first of these answers that is held here and still true; decided without reading anything it was made of.
    pub(crate) async fn answer<V: Send + Sync + 'static>(
        &self,
        context: &ReadContext,
        names: &[AnswerName],
    ) -> Option<Arc<V>> {
        let inner = self.inner.as_ref()?;
        let (mut stats, mut found) = (CacheStats::default(), None);
        let mut why = LookupResult::Absent;
        for name in names {
            match read::find_valid(inner, context, name.0).await {
                Ok(entry) => {
                    stats.add(LookupResult::Hit, entry.age(Instant::now()));
                    found = entry.value();
                    break;
                }
                Err(LookupResult::Absent) => {}
                Err(other) => why = other,
            }
        }
        if found.is_none() {
            stats.add(why, Duration::ZERO);
        }
        stats.report(&inner.metrics, context.recorder(), (Tier::Local, ANSWER), Vec::new);
        found
    }

    /// Holds an answer of `bytes` bytes until something it depends on is written, or `retention` is over.
    /// `version` must have been taken before anything was read for it. What has no tags cannot be held.
    pub fn insert_answer<V: Send + Sync + 'static>(
        &self,
        name: AnswerName,
        answer: Arc<V>,
        bytes: usize,
        retention: Retention,
        dependencies: &DependencySet,
        version: Version,
    ) {
        let Some(inner) = self.inner.as_ref().filter(|_| dependencies.is_complete() && version.epoch != 0)
        else {
            return;
        };
        let slots: Box<[Slot]> = dependencies.tags().map(Tag::slot).collect();
        // A short answer may have been made of very much.
        let bytes = bytes.saturating_add(slots.len() * TAG_BYTES);
        let (at, took, is_strong) = (Instant::now(), Duration::ZERO, dependencies.is_strong());
        let header = Header { version, slots, at, took, ttl: retention.ttl, is_strong };
        inner.insert(name.0, &CacheEntry::of_bytes(header, Some(answer), bytes));
    }
}
