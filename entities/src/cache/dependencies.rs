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
    /// Tables that were read by statements which no tag covers.
    untracked: FxHashSet<&'static str>,
    /// Of something that is absent it is not known when it will be there.
    is_incomplete: bool,
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
        self.untracked.is_empty() && !self.is_incomplete
    }

    pub(crate) fn add(&mut self, tags: Vec<Tag>, is_strong: bool) {
        self.tags.extend(tags);
        self.is_strong |= is_strong;
    }

    /// The tables that were read by statements which no tag covers.
    pub fn untracked_tables(&self) -> impl Iterator<Item = &'static str> {
        self.untracked.iter().copied()
    }

    pub(crate) fn add_untracked(&mut self, tables: Vec<&'static str>) {
        self.untracked.extend(tables);
    }

    /// Something was looked for that is not there, and its tags do not tell when it comes.
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    pub(crate) fn mark_incomplete(&mut self) {
        self.is_incomplete = true;
    }
}
