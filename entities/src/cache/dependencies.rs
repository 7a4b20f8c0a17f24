//! What one request's values depend on, collected while it reads, where somebody has asked for it: it stamps a whole
//! answer, and it labels answers for caches further out. Not here: the stamps themselves (`table`).

use rustc_hash::FxHashSet;

use super::Tag;

/// What the values of one request depend on: all tags of everything that was read through the cache, whether it was
/// found there or not. Also filled where the cache is off.
#[derive(Clone, Debug, Default)]
pub struct DependencySet {
    tags: FxHashSet<Tag>,
    is_strong: bool,
    has_untracked: bool,
}

impl DependencySet {
    /// The tags, in no order.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.tags.iter()
    }

    /// Something of a type was read that must be checked against Redis at each read.
    pub fn is_strong(&self) -> bool {
        self.is_strong
    }

    /// Everything that was read has tags. False where a statement ran that no tag covers (a search, the activity
    /// log): then the tags label the answer, and cannot tell when it is outdated.
    pub fn is_complete(&self) -> bool {
        !self.has_untracked
    }

    pub(crate) fn add(&mut self, tags: Vec<Tag>, is_strong: bool) {
        self.tags.extend(tags);
        self.is_strong |= is_strong;
    }

    pub(crate) fn mark_untracked(&mut self) {
        self.has_untracked = true;
    }
}
