//! The skip list, and how it is kept from freeing what is being read.

use std::ops::Bound;

use crossbeam_epoch::Guard;
use crossbeam_skiplist::base::{Entry, SkipList};

use super::{Branch, Fence};

pub(in crate::ordered) use std::sync::Arc;

pub(super) struct List(SkipList<Fence, Branch>);

/// While it lives, nothing is freed that its thread may look at.
pub(in crate::ordered) struct Pin(Guard);

/// A branch in the list, or one that was there a moment ago.
pub(super) struct Held<'g>(Entry<'g, 'g, Fence, Branch>);

impl Pin {
    #[inline]
    pub(in crate::ordered) fn new() -> Self {
        Self(crossbeam_epoch::pin())
    }
}

impl Held<'_> {
    #[inline]
    pub(super) fn branch(&self) -> &Branch {
        self.0.value()
    }
}

impl List {
    pub(super) fn new() -> Self {
        Self(SkipList::new(crossbeam_epoch::default_collector().clone()))
    }

    /// The last branch whose fence is within the bound.
    #[inline]
    pub(super) fn last<'g>(&'g self, bound: Bound<&[u8]>, pin: &'g Pin) -> Option<Held<'g>> {
        self.0.upper_bound(bound, &pin.0).map(Held)
    }

    pub(super) fn add(&self, fence: Fence, branch: Branch, pin: &Pin) {
        self.0.insert(fence, branch, &pin.0).release(&pin.0);
    }

    pub(super) fn remove(&self, branch: &Held<'_>) {
        branch.0.remove();
    }
}
