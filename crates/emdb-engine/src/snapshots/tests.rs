//! Opening, closing, and what is kept meanwhile.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use emdb_index::HashIndex;

use super::*;

fn tombstone(position: u64) -> KeptTombstone {
    KeptTombstone {
        space: Arc::new(Space::new(String::new(), 0, 0, HashIndex::new())),
        hash: position,
        position,
    }
}

#[test]
fn more_snapshots_than_slots_are_all_known() {
    let snapshots = Snapshots::default();
    let mut open: Vec<_> = (1..=100).map(|at| snapshots.open_at(at * 10)).collect();
    assert_eq!(snapshots.count(), 100);
    // The oldest first, so both those with a slot and those without.
    for at in 1..=100 {
        assert!(snapshots.all_after(at * 10 - 1), "{at}");
        assert!(!snapshots.all_after(at * 10), "{at}");
        snapshots.close(&open.remove(0));
    }
    assert_eq!(snapshots.count(), 0);
    assert!(snapshots.all_after(u64::MAX - 1));
}

#[test]
fn a_snapshot_whose_position_is_not_known_yet_counts_as_the_oldest() {
    let snapshots = Snapshots::default();
    let ticket = snapshots.open_with(|| {
        assert!(!snapshots.all_after(1));
        assert_eq!(snapshots.count(), 1);
        Ok(7)
    });
    assert!(snapshots.all_after(6));
    snapshots.close(&ticket.unwrap());
    let refused = snapshots.open_with(|| Err(crate::Error::Closed));
    assert!(refused.is_err());
    assert_eq!(snapshots.count(), 0);
    assert!(snapshots.all_after(1));
}

#[test]
fn kept_tombstones_are_given_back_once_no_snapshot_needs_them() {
    let snapshots = Snapshots::default();
    let (old, young) = (snapshots.open_at(100), snapshots.open_at(200));
    for position in [110, 120, 210] {
        snapshots.keep(tombstone(position));
    }
    let taken = |snapshots: &Snapshots| -> Vec<u64> {
        let taken = snapshots.take_unneeded().into_iter();
        taken.map(|tombstone| tombstone.position).collect()
    };
    assert!(snapshots.has_unneeded(), "the first one is worth a look");
    assert_eq!(taken(&snapshots), []);
    assert!(!snapshots.has_unneeded());
    snapshots.close(&old);
    assert!(snapshots.has_unneeded());
    assert_eq!(taken(&snapshots), [110, 120]);
    assert_eq!(taken(&snapshots), []);
    snapshots.close(&young);
    assert!(snapshots.has_unneeded());
    assert_eq!(taken(&snapshots), [210]);
    assert_eq!(taken(&snapshots), []);
    assert!(!snapshots.has_unneeded());
}

#[test]
fn a_tombstone_kept_after_the_last_snapshot_went_is_given_back() {
    let snapshots = Snapshots::default();
    let leaked = snapshots.open_at(1);
    snapshots.keep(tombstone(5));
    assert!(snapshots.take_unneeded().is_empty());
    snapshots.close(&leaked);
    snapshots.keep(tombstone(6));
    assert!(snapshots.has_unneeded());
    assert_eq!(snapshots.take_unneeded().len(), 2);
}
