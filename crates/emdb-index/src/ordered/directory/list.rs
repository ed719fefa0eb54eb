//! The skip list, and how it is kept from freeing what is being read.

use std::ops::Bound;

use crossbeam_epoch::Guard;
use crossbeam_skiplist::base::{Entry, SkipList};

use super::{Fence, Trunk};

pub(in crate::ordered) use std::sync::Arc;

pub(super) struct List(SkipList<Fence, Trunk>);

/// While it lives, nothing is freed that its thread may look at.
pub(in crate::ordered) struct Pin(Guard);

/// A trunk in the list, or one that was there a moment ago.
pub(super) struct Held<'g>(Entry<'g, 'g, Fence, Trunk>);

impl Pin {
    #[inline]
    pub(in crate::ordered) fn new() -> Self {
        Self(crossbeam_epoch::pin())
    }
}

impl Held<'_> {
    #[inline]
    pub(super) fn trunk(&self) -> &Trunk {
        self.0.value()
    }
}

impl List {
    pub(super) fn new() -> Self {
        Self(SkipList::new(crossbeam_epoch::default_collector().clone()))
    }

    /// The last trunk whose fence is within the bound.
    #[inline]
    pub(super) fn last<'g>(&'g self, bound: Bound<&[u8]>, pin: &'g Pin) -> Option<Held<'g>> {
        self.0.upper_bound(bound, &pin.0).map(Held)
    }

    pub(super) fn add(&self, fence: Fence, trunk: Trunk, pin: &Pin) {
        self.0.insert(fence, trunk, &pin.0).release(&pin.0);
    }

    pub(super) fn remove(&self, trunk: &Held<'_>) {
        trunk.0.remove();
    }
}
