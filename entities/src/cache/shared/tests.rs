//! What this instance alone knows of invalidations: those that Redis has not taken yet. Not here: Redis
//! itself (`tests/it`).

use prometheus_client::registry::Registry;

use super::*;

const SLOT: Slot = 30;

const fn at(epoch: u64, sequence: u64) -> Version {
    Version { epoch, sequence }
}

/// An instance that nothing answers, and its mirror, which shows a table of epoch 7 after 19 invalidations.
fn instance() -> (SharedCache, VersionTable) {
    let silent = "redis://127.0.0.1:1".parse().expect("a URL");
    let table = VersionTable::new(7);
    table.apply_logged(&[SLOT], 19);
    (SharedCache::new(Redis::new(&silent, &mut Registry::default()), "test"), table)
}

fn numbers(shared: &SharedCache) -> Vec<(Slot, u64)> {
    shared.pending().iter().map(|(slot, pending)| (*slot, pending.number)).collect()
}

#[test]
fn a_pending_invalidation_gets_its_published_version() {
    let (shared, table) = instance();
    shared.add_pending(&table, &[SLOT]);
    assert!(!table.is_valid(at(7, 1_000), &[SLOT]));
    shared.resolve_pending(&table, &numbers(&shared), 20);
    assert!(!table.is_valid(at(7, 19), &[SLOT]) && table.is_valid(at(7, 20), &[SLOT]));
    assert!(shared.pending().is_empty());
}

/// Published as 20; then another instance invalidates the same slot as 21, and the mirror sees both before
/// this instance goes on.
#[test]
fn a_later_remote_invalidation_outlasts_a_pending_one() {
    let (shared, table) = instance();
    shared.add_pending(&table, &[SLOT]);
    let pending = numbers(&shared);
    shared.apply_logged(&table, &[SLOT], 20);
    shared.apply_logged(&table, &[SLOT], 21);
    shared.resolve_pending(&table, &pending, 20);
    assert!(!table.is_valid(at(7, 20), &[SLOT]), "read before 21 was written");
    assert!(table.is_valid(at(7, 21), &[SLOT]));
}

#[test]
fn later_own_and_loaded_invalidations_outlast_a_pending_one() {
    let (shared, table) = instance();
    shared.add_pending(&table, &[SLOT]);
    let pending = numbers(&shared);
    shared.mark_published(&table, &[SLOT], 21);
    shared.resolve_pending(&table, &pending, 20);
    assert!(!table.is_valid(at(7, 20), &[SLOT]) && table.is_valid(at(7, 21), &[SLOT]));

    shared.add_pending(&table, &[SLOT]);
    let pending = numbers(&shared);
    shared.replace_table(&table, at(7, 30), &[(SLOT, 29)]);
    shared.resolve_pending(&table, &pending, 28);
    assert!(!table.is_valid(at(7, 28), &[SLOT]) && table.is_valid(at(7, 29), &[SLOT]));
}

#[test]
fn a_pending_invalidation_moves_to_a_new_table() {
    let (shared, table) = instance();
    shared.add_pending(&table, &[SLOT]);
    shared.replace_table(&table, at(8, 5), &[(SLOT, 3)]);
    assert!(!table.is_valid(at(8, 1_000), &[SLOT]));
    // Noted again: numbers of what is pending only grow, whatever table it is.
    shared.add_pending(&table, &[SLOT]);
    shared.resolve_pending(&table, &numbers(&shared), 6);
    assert!(!table.is_valid(at(8, 5), &[SLOT]) && table.is_valid(at(8, 6), &[SLOT]));
}

#[test]
fn a_pending_invalidation_is_newer_than_redis() {
    let (shared, table) = instance();
    assert!(shared.pending_among(&[SLOT]).is_empty());
    shared.add_pending(&table, &[SLOT]);
    let pending = shared.pending_among(&[SLOT - 1, SLOT]);
    assert_eq!(pending, [SLOT]);
    // Published while the answer is on its way.
    shared.resolve_pending(&table, &numbers(&shared), 20);
    let stamps = stamped(&[SLOT - 1, SLOT], &[4, 19], &pending);
    assert_eq!((stamps[&(SLOT - 1)], stamps[&SLOT]), (4, u64::MAX));
}
