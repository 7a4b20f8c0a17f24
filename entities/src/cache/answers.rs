//! Whole answers, held in this process under the stamps of everything that they were made of. They stay here: another
//! version of the program would make them otherwise, and what they are made of is shared anyway. Not here: which
//! answers, and who may get them (the front room names them).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use uuid::Uuid;

use super::{
    Cache, Kept, Moment, ReadContext, Tag, Touched,
    entry::{Entry, Header, Key},
    metrics::{Found, Tier},
    read::{self, hash},
    table::Slot,
    tally::Tally,
};

/// Which answer, and to whom: everything that decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerName(Key);

impl AnswerName {
    /// The name for these arguments, which no others have.
    pub fn of(arguments: &impl Serialize) -> Self {
        Self(Key { of: hash(&(ANSWER, arguments)), id: Uuid::nil() })
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
        let (mut tally, mut found) = (Tally::default(), None);
        let mut why = Found::Absent;
        for name in names {
            match read::made(inner, context, name.0).await {
                Ok(entry) => {
                    tally.add(Found::Hit, entry.age(Instant::now()));
                    found = entry.value();
                    break;
                }
                Err(Found::Absent) => {}
                Err(other) => why = other,
            }
        }
        if found.is_none() {
            tally.add(why, Duration::ZERO);
        }
        tally.report(&inner.metrics, context.recorder(), (Tier::Local, ANSWER), Vec::new);
        found
    }

    /// Holds an answer of `bytes` bytes until something it depends on is written, or `kept` is over. `loaded` must have
    /// been taken before anything was read for it. What has no tags cannot be held.
    pub fn keep_answer<V: Send + Sync + 'static>(
        &self,
        name: AnswerName,
        answer: Arc<V>,
        bytes: usize,
        kept: Kept,
        touched: &Touched,
        loaded: Moment,
    ) {
        let Some(inner) = self.inner.as_ref().filter(|_| touched.is_whole() && loaded.0.epoch != 0) else {
            return;
        };
        let slots: Box<[Slot]> = touched.tags().map(Tag::slot).collect();
        // A short answer may have been made of very much.
        let bytes = bytes.saturating_add(slots.len() * TAG_BYTES);
        let (at, took, is_strong) = (Instant::now(), Duration::ZERO, touched.is_strong());
        let header = Header { loaded: loaded.0, slots, at, took, ttl: kept.ttl, is_strong };
        inner.keep(name.0, &Entry::of_bytes(header, Some(answer), bytes));
    }
}
