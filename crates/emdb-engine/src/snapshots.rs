//! Which points in time somebody still reads at.
//!
//! Invariant: a snapshot is counted, and has a slot, before its position is read, and a
//! writer looks after it has reserved its own. So a writer that sees no snapshot
//! replaces nothing that one needs.
//!
//! A slot that is taken but has no position yet counts as older than everything. All of
//! this is SeqCst: each side stores, then looks at what the other stores.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize as StaticCounter, Ordering};
use std::sync::{Arc, PoisonError};

use emdb_journal::Journal;

#[cfg(loom)]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};
#[cfg(not(loom))]
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

use crate::Result;
use crate::space::Space;

/// Snapshots beyond these are kept behind a mutex. A model has few.
const SLOTS: usize = if cfg!(loom) { 1 } else { 32 };
/// What a slot holds that nobody has.
const FREE: u64 = u64::MAX;
/// What a slot holds until its snapshot knows its position.
const OLDEST: u64 = 0;

/// The open snapshots, and the tombstones kept for them.
pub(crate) struct Snapshots {
    open: AtomicUsize,
    slots: [Slot; SLOTS],
    /// Snapshots that found no slot.
    rest_count: AtomicUsize,
    rest: Mutex<BTreeMap<u64, usize>>,
    kept: AtomicUsize,
    /// Whether it is worth a look if the oldest kept tombstone is still needed.
    freed: AtomicBool,
    tombstones: Mutex<VecDeque<KeptTombstone>>,
}

/// On a cache line of its own, so that threads do not slow each other down.
#[repr(align(64))]
struct Slot(AtomicU64);

/// An open snapshot. Give it back with [`Snapshots::close`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket {
    position: u64,
    slot: Option<usize>,
}

impl Ticket {
    /// What the snapshot sees ends here.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.position
    }
}

/// A tombstone that stays in the index until no snapshot is older.
pub(crate) struct KeptTombstone {
    pub(crate) space: Arc<Space>,
    pub(crate) hash: u64,
    pub(crate) position: u64,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            slots: std::array::from_fn(|_| Slot(AtomicU64::new(FREE))),
            rest_count: AtomicUsize::new(0),
            rest: Mutex::new(BTreeMap::new()),
            kept: AtomicUsize::new(0),
            freed: AtomicBool::new(false),
            tombstones: Mutex::new(VecDeque::new()),
        }
    }
}

impl Snapshots {
    fn rest(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tombstones(&self) -> MutexGuard<'_, VecDeque<KeptTombstone>> {
        self.tombstones
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a snapshot of now.
    #[inline]
    pub(crate) fn open(&self, journal: &Journal) -> Result<Ticket> {
        self.open_with(|| Ok(journal.snapshot_position()?))
    }

    /// Opens a snapshot at a position at which nothing can change meanwhile, or at
    /// which another one is open.
    pub(crate) fn open_at(&self, position: u64) -> Ticket {
        match self.open_with(|| Ok(position)) {
            Ok(ticket) => ticket,
            // Only reading the position fails.
            Err(_) => Ticket {
                position,
                slot: None,
            },
        }
    }

    #[inline]
    fn open_with(&self, position: impl FnOnce() -> Result<u64>) -> Result<Ticket> {
        self.open.fetch_add(1, Ordering::SeqCst);
        let taken = self.take_slot();
        let Some((at, slot)) = taken else {
            return self.open_without_slot(position);
        };
        match position() {
            Ok(position) => {
                // Release: who still sees the slot without a position takes it for older.
                slot.store(position, Ordering::Release);
                Ok(Ticket {
                    position,
                    slot: Some(at),
                })
            }
            Err(error) => {
                slot.store(FREE, Ordering::SeqCst);
                self.open.fetch_sub(1, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// A free slot, now taken: nearly always the one this thread had before.
    #[inline]
    fn take_slot(&self) -> Option<(usize, &AtomicU64)> {
        let first = first_slot();
        (0..SLOTS).find_map(|step| {
            let at = (first + step) % SLOTS;
            let Slot(slot) = self.slots.get(at)?;
            let is_free = slot.load(Ordering::Relaxed) == FREE
                && slot
                    .compare_exchange(FREE, OLDEST, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok();
            is_free.then_some((at, slot))
        })
    }

    #[cold]
    fn open_without_slot(&self, position: impl FnOnce() -> Result<u64>) -> Result<Ticket> {
        // Who looks for the oldest waits for the mutex, and so for the position.
        let mut rest = self.rest();
        self.rest_count.fetch_add(1, Ordering::SeqCst);
        match position() {
            Ok(position) => {
                *rest.entry(position).or_default() += 1;
                Ok(Ticket {
                    position,
                    slot: None,
                })
            }
            Err(error) => {
                self.rest_count.fetch_sub(1, Ordering::SeqCst);
                self.open.fetch_sub(1, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// Closes a snapshot.
    #[inline]
    pub(crate) fn close(&self, ticket: &Ticket) {
        match ticket.slot.and_then(|at| self.slots.get(at)) {
            Some(Slot(slot)) => slot.store(FREE, Ordering::SeqCst),
            None => self.close_without_slot(ticket.position),
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
        if self.has_kept() {
            self.freed.store(true, Ordering::SeqCst);
        }
    }

    #[cold]
    fn close_without_slot(&self, position: u64) {
        let mut rest = self.rest();
        if let Some(count) = rest.get_mut(&position) {
            *count -= 1;
            if *count == 0 {
                rest.remove(&position);
            }
            self.rest_count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Snapshots open.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        // Loom takes a SeqCst load for an Acquire one, which may give an older value; an
        // exchange gives none but the newest there.
        #[cfg(loom)]
        return self.open.fetch_add(0, Ordering::SeqCst);
        #[cfg(not(loom))]
        self.open.load(Ordering::SeqCst)
    }

    /// The oldest position that is read at; at most what snapshots will have that are
    /// opened from here on.
    fn oldest(&self) -> u64 {
        if self.count() == 0 {
            return FREE;
        }
        let positions = self.slots.iter().map(|Slot(at)| at.load(Ordering::SeqCst));
        let mut oldest = positions.min().unwrap_or(FREE);
        if self.rest_count.load(Ordering::SeqCst) > 0 {
            let rest = self.rest();
            oldest = oldest.min(rest.keys().next().copied().unwrap_or(FREE));
        }
        oldest
    }

    /// Whether no snapshot can need what a frame at `position` replaced.
    pub(crate) fn all_after(&self, position: u64) -> bool {
        self.oldest() > position
    }

    /// Remembers a tombstone for later.
    pub(crate) fn keep(&self, tombstone: KeptTombstone) {
        let mut tombstones = self.tombstones();
        let is_first = tombstones.is_empty();
        tombstones.push_back(tombstone);
        self.kept.fetch_add(1, Ordering::SeqCst);
        // Whoever closes the last snapshot from here on sees that there is one.
        if is_first || self.count() == 0 {
            self.freed.store(true, Ordering::SeqCst);
        }
    }

    /// Whether tombstones wait to be removed.
    #[inline]
    pub(crate) fn has_kept(&self) -> bool {
        self.kept.load(Ordering::SeqCst) != 0
    }

    /// Whether tombstones may be there that nobody needs any more.
    #[inline]
    pub(crate) fn has_unneeded(&self) -> bool {
        self.freed.load(Ordering::Relaxed)
    }

    /// Takes the oldest kept tombstones that no snapshot needs any more: a few, or more
    /// if very many are left.
    pub(crate) fn take_unneeded(&self) -> Vec<KeptTombstone> {
        const FEW: usize = 4;
        const MANY: usize = 64;
        let mut tombstones = self.tombstones();
        // Before looking: a snapshot that is closed after that says so again.
        self.freed.store(false, Ordering::SeqCst);
        let oldest = self.oldest();
        let at_once = (FEW + tombstones.len() / (1 << 14)).min(MANY);
        let mut taken = Vec::with_capacity(at_once);
        while taken.len() < at_once
            && tombstones
                .front()
                .is_some_and(|first| first.position < oldest)
            && let Some(tombstone) = tombstones.pop_front()
        {
            taken.push(tombstone);
        }
        self.kept.fetch_sub(taken.len(), Ordering::SeqCst);
        if taken.len() == at_once {
            self.freed.store(true, Ordering::SeqCst);
        }
        let spare = tombstones.capacity() / 4;
        if spare > 1024 && tombstones.len() < spare {
            tombstones.shrink_to(spare);
        }
        taken
    }
}

/// Where a thread begins to look for a slot.
#[inline]
fn first_slot() -> usize {
    static NEXT: StaticCounter = StaticCounter::new(0);
    thread_local! {
        static FIRST: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that is ending has no such number any more.
    FIRST.try_with(|first| *first).unwrap_or(0)
}

#[cfg(test)]
mod tests;
