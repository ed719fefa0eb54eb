//! Which points in time somebody still reads at.
//!
//! Invariant: a snapshot is counted before its position is read, and a writer looks
//! at the count after it has reserved its own. So a writer that sees no snapshot
//! replaces nothing that one needs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use emdb_journal::Journal;

use crate::Result;
use crate::space::Space;

/// The open snapshots, and the tombstones kept for them.
#[derive(Default)]
pub(crate) struct Snapshots {
    open: AtomicUsize,
    positions: Mutex<BTreeMap<u64, usize>>,
    kept: AtomicUsize,
    tombstones: Mutex<VecDeque<KeptTombstone>>,
}

/// A tombstone that stays in the index until no snapshot is older.
pub(crate) struct KeptTombstone {
    pub(crate) space: Arc<Space>,
    pub(crate) hash: u64,
    pub(crate) position: u64,
}

impl Snapshots {
    fn positions(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a snapshot of now.
    pub(crate) fn open(&self, journal: &Journal) -> Result<u64> {
        let mut positions = self.positions();
        // SeqCst: before the position is read; see the module's invariant.
        self.open.fetch_add(1, Ordering::SeqCst);
        match journal.snapshot_position() {
            Ok(position) => {
                *positions.entry(position).or_default() += 1;
                Ok(position)
            }
            Err(error) => {
                self.open.fetch_sub(1, Ordering::SeqCst);
                Err(error.into())
            }
        }
    }

    /// Opens a snapshot at a position at which nothing can change meanwhile.
    pub(crate) fn open_at(&self, position: u64) {
        let mut positions = self.positions();
        self.open.fetch_add(1, Ordering::SeqCst);
        *positions.entry(position).or_default() += 1;
    }

    /// Closes a snapshot.
    pub(crate) fn close(&self, position: u64) {
        let mut positions = self.positions();
        if let Some(count) = positions.get_mut(&position) {
            *count -= 1;
            if *count == 0 {
                positions.remove(&position);
            }
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Snapshots open.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Whether no snapshot can need what a frame at `position` replaced.
    pub(crate) fn all_after(&self, position: u64) -> bool {
        self.positions()
            .keys()
            .next()
            .is_none_or(|oldest| *oldest > position)
    }

    /// Remembers a tombstone for later.
    pub(crate) fn keep(&self, tombstone: KeptTombstone) {
        let mut tombstones = self
            .tombstones
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        tombstones.push_back(tombstone);
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether tombstones wait to be removed.
    #[inline]
    pub(crate) fn has_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed) != 0
    }

    /// The oldest kept tombstone, if no snapshot needs it any more.
    pub(crate) fn take_unneeded(&self) -> Option<KeptTombstone> {
        let mut tombstones = self
            .tombstones
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let position = tombstones.front()?.position;
        if !self.all_after(position) {
            return None;
        }
        self.kept.fetch_sub(1, Ordering::Relaxed);
        tombstones.pop_front()
    }
}
