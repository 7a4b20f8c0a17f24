//! The stamps: for each slot the sequence number of its last invalidation, and the newest number of all.
//! Without Redis this table is the truth; with Redis it is this instance's mirror of the shared one. Of fixed
//! size: 2^20 words, 8 MiB.
//!
//! An entry is valid if nothing that it depends on was invalidated after the number that was read BEFORE it was loaded.
//! So a slow load that began before a write is stored with an old number and is invalid from the start: no lock, no
//! clock and no compare-and-set is needed.

use std::{
    fmt,
    ops::Range,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

/// A word of the table.
pub(crate) type Slot = u32;
/// Words of the table; the first ones are reserved.
pub(crate) const WORDS: usize = 1 << 20;
/// The words that tags fall into.
pub(crate) const SLOTS: Range<Slot> = 16..WORDS as Slot;

/// A version of the cached data: how many invalidations the table had seen. As text `epoch.sequence`, which clients
/// send back to read their own writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Which table: a new one has another epoch. 0 is no table: nothing is valid.
    pub(crate) epoch: u64,
    /// Invalidations so far.
    pub(crate) sequence: u64,
}

impl Version {
    /// The later one of two of the same table; of different tables, this one.
    #[must_use]
    pub fn latest(self, other: Self) -> Self {
        if self.epoch == other.epoch && other.sequence > self.sequence { other } else { self }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

impl FromStr for Version {
    type Err = ();

    /// Takes any two numbers: a version that never existed only costs a read its shortcut.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, sequence) = text.split_once('.').ok_or(())?;
        let (epoch, sequence) = (epoch.parse().map_err(drop)?, sequence.parse().map_err(drop)?);
        Ok(Self { epoch, sequence })
    }
}

/// The version of the last invalidation of each slot.
pub(crate) struct VersionTable {
    words: Box<[AtomicU64]>,
    epoch: AtomicU64,
    sequence: AtomicU64,
}

impl VersionTable {
    /// An empty table of this epoch.
    pub(crate) fn new(epoch: u64) -> Self {
        // Zeroed pages are taken from the system only when they are written to.
        let words = std::iter::repeat_with(AtomicU64::default).take(WORDS).collect();
        Self { words, epoch: AtomicU64::new(epoch), sequence: AtomicU64::new(1) }
    }

    /// The current version. Taken BEFORE a load begins, it stamps what the load returns.
    pub(crate) fn current(&self) -> Version {
        // The epoch first and last: a table that is being replaced must not lend its epoch to a new sequence.
        let epoch = self.epoch.load(Ordering::Acquire);
        let sequence = self.sequence.load(Ordering::Acquire);
        if self.epoch.load(Ordering::Acquire) == epoch {
            Version { epoch, sequence }
        } else {
            Version::default()
        }
    }

    /// Is what was loaded at this version and depends on these slots still what the database says?
    pub(crate) fn is_valid(&self, version: Version, slots: &[Slot]) -> bool {
        let is_current = || version.epoch == self.epoch.load(Ordering::Acquire);
        // The epoch first and last: a table that is being replaced has empty slots for a moment.
        version.epoch != 0
            && is_current()
            && slots.iter().all(|slot| self.words[*slot as usize].load(Ordering::Acquire) <= version.sequence)
            && is_current()
    }

    /// Notes an invalidation of the truth (no Redis): the next number for all slots.
    pub(crate) fn invalidate(&self, slots: &[Slot]) {
        let sequence = self.sequence.fetch_add(1, Ordering::AcqRel) + 1;
        self.mark(slots, sequence);
    }

    /// Notes an invalidation that was made elsewhere. Slots first: whoever reads the new number must see them.
    pub(crate) fn apply_logged(&self, slots: &[Slot], sequence: u64) {
        self.mark(slots, sequence);
        self.sequence.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Raises slots without moving on: what this instance wrote counts here at once, before the log brings it back.
    pub(crate) fn mark(&self, slots: &[Slot], sequence: u64) {
        for slot in slots {
            self.words[*slot as usize].fetch_max(sequence, Ordering::AcqRel);
        }
    }

    /// The number of a slot's last invalidation.
    pub(crate) fn last_invalidation(&self, slot: Slot) -> u64 {
        self.words[slot as usize].load(Ordering::Acquire)
    }

    /// Takes back a number that a slot was raised to, if nothing has raised it since.
    pub(crate) fn restore(&self, slot: Slot, from: u64, to: u64) {
        // Anything else than `from` is newer.
        let _ = self.words[slot as usize].compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Nothing is valid from now on, until another table is taken over.
    pub(crate) fn forget(&self) {
        self.epoch.store(0, Ordering::Release);
    }

    /// The truth (no Redis) begins anew: nothing that was loaded before is valid.
    pub(crate) fn renew(&self) {
        // A table that is forgotten stays so.
        let next = |epoch: u64| (epoch != 0).then_some(epoch + 1);
        let _ = self.epoch.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// Takes over another table: nothing that was loaded before is valid if the epoch is new.
    pub(crate) fn replace(&self, at: Version, words: impl Iterator<Item = (Slot, u64)>) {
        if self.epoch.swap(0, Ordering::AcqRel) != at.epoch {
            self.words.iter().for_each(|word| word.store(0, Ordering::Release));
            self.sequence.store(0, Ordering::Release);
        }
        for (slot, value) in words {
            self.words[slot as usize].fetch_max(value, Ordering::AcqRel);
        }
        self.sequence.fetch_max(at.sequence, Ordering::AcqRel);
        self.epoch.store(at.epoch, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loads_before_an_invalidation_are_invalid() {
        let version_table = VersionTable::new(9);
        let before = version_table.current();
        assert!(version_table.is_valid(before, &[20, 21]));
        version_table.invalidate(&[21]);
        assert!(!version_table.is_valid(before, &[20, 21]));
        assert!(version_table.is_valid(before, &[20]), "other slots are not touched");
        assert!(version_table.is_valid(version_table.current(), &[20, 21]));
    }

    #[test]
    fn a_table_that_is_forgotten_is_not_renewed() {
        let version_table = VersionTable::new(1);
        let before = version_table.current();
        version_table.forget();
        version_table.renew();
        assert!(
            !version_table.is_valid(before, &[]) && !version_table.is_valid(version_table.current(), &[])
        );
    }

    #[test]
    fn nothing_is_valid_without_a_table() {
        let version_table = VersionTable::new(0);
        assert!(!version_table.is_valid(version_table.current(), &[]));
        assert!(!VersionTable::new(1).is_valid(Version { epoch: 2, sequence: 99 }, &[]));
    }

    #[test]
    fn a_new_table_invalidates_everything() {
        let version_table = VersionTable::new(5);
        let old = version_table.current();
        version_table.replace(Version { epoch: 5, sequence: 8 }, [(30, 8)].into_iter());
        assert!(version_table.is_valid(old, &[31]));
        assert!(!version_table.is_valid(old, &[30]));
        version_table.replace(Version { epoch: 6, sequence: 2 }, std::iter::empty());
        assert!(!version_table.is_valid(old, &[31]));
        assert_eq!(version_table.current(), Version { epoch: 6, sequence: 2 });
        assert!(version_table.is_valid(version_table.current(), &[30]));
    }
}
