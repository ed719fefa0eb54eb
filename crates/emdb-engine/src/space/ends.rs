//! What is known to be dead at both ends of a namespace's order, so that pops need not
//! pass the tombstones of earlier ones again.
//!
//! Invariant: no key within has a live newest version, that of the open batch included.
//! Whoever stores a record says so, in a writer's turn or under the write side;
//! pops come under the write side.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use emdb_index::RangeCursor;

/// An end of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    First,
    Last,
}

/// The dead keys at both ends.
#[derive(Debug, Default)]
pub(crate) struct DeadEnds {
    /// Whether there may be any: most namespaces never have.
    any: AtomicBool,
    edges: Mutex<Edges>,
}

#[derive(Debug, Default)]
struct Edges {
    first: Edge,
    last: Edge,
}

/// The keys up to this one are dead, seen from the end.
#[derive(Debug, Default)]
struct Edge {
    reach: Reach,
    key: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Reach {
    #[default]
    Nowhere,
    Before,
    Through,
}

impl Edge {
    fn set(&mut self, reach: Reach, key: &[u8]) {
        self.reach = reach;
        self.key.clear();
        self.key.extend_from_slice(key);
    }

    /// What is alive begins or ends here.
    fn bound(&self) -> Bound<&[u8]> {
        match self.reach {
            Reach::Nowhere => Bound::Unbounded,
            Reach::Before => Bound::Included(&self.key),
            Reach::Through => Bound::Excluded(&self.key),
        }
    }
}

impl DeadEnds {
    fn edges(&self) -> MutexGuard<'_, Edges> {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has whoever asks for these wait.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.edges()
    }

    /// The rest of the order.
    pub(crate) fn rest(&self) -> RangeCursor<'static> {
        let edges = self.edges();
        RangeCursor::new(edges.first.bound(), edges.last.bound())
    }

    /// Every key between the end and this one is dead, and with `through` this one too.
    pub(crate) fn reach(&self, end: End, key: &[u8], through: bool) {
        let reach = if through {
            Reach::Through
        } else {
            Reach::Before
        };
        let mut edges = self.edges();
        match end {
            End::First => edges.first.set(reach, key),
            End::Last => edges.last.set(reach, key),
        }
        // Release: pairs with the Acquire in `revive`; the journal orders the writers, too.
        self.any.store(true, Ordering::Release);
    }

    /// A record is stored for this key, or taken back to.
    #[inline]
    pub(crate) fn revive(&self, key: &[u8]) {
        if self.any.load(Ordering::Acquire) {
            self.revive_slowly(key);
        }
    }

    #[inline(never)]
    fn revive_slowly(&self, key: &[u8]) {
        let mut edges = self.edges();
        let Edges { first, last } = &mut *edges;
        if first.reach != Reach::Nowhere && key <= first.key.as_slice() {
            first.set(Reach::Before, key);
        }
        if last.reach != Reach::Nowhere && key >= last.key.as_slice() {
            last.set(Reach::Before, key);
        }
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&self) {
        if self.any.load(Ordering::Acquire) {
            let mut edges = self.edges();
            *edges = Edges::default();
            self.any.store(false, Ordering::Release);
        }
    }
}
