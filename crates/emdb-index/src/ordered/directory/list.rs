//! The skip list, and how it is kept from freeing what is being read.

use std::ops::Bound;

use crossbeam_epoch::Guard;
use crossbeam_skiplist::base::{Entry, RefEntry, SkipList};

use crate::ordered::{
    fence::{Bytes, Fence},
    leaf::Leaf,
};

pub(in crate::ordered) struct List(SkipList<Fence, Leaf>);

/// While it lives, nothing is freed that its thread may look at.
pub(in crate::ordered) struct Pin(Guard);

/// A leaf in the list, or one that was there a moment ago.
pub(in crate::ordered) struct Node<'g>(Entry<'g, 'g, Fence, Leaf>);

/// A leaf that was just added.
pub(super) struct Added<'g>(RefEntry<'g, Fence, Leaf>);

impl Pin {
    #[inline]
    pub(in crate::ordered) fn new() -> Self {
        Self(crossbeam_epoch::pin())
    }
}

impl<'g> Node<'g> {
    #[inline]
    pub(in crate::ordered) fn leaf(&self) -> &'g Leaf {
        self.0.value()
    }

    /// All keys of the leaf are at or above.
    #[inline]
    pub(in crate::ordered) fn low(&self) -> &'g Bytes {
        &self.0.key().low
    }
}

impl Added<'_> {
    pub(super) fn with_leaf(self, use_it: impl FnOnce(&Leaf), pin: &Pin) {
        use_it(self.0.value());
        self.0.release(&pin.0);
    }
}

impl List {
    pub(super) fn new() -> Self {
        Self(SkipList::new(crossbeam_epoch::default_collector().clone()))
    }

    /// The last leaf whose fence is within the bound.
    #[inline]
    pub(super) fn last<'g>(&'g self, bound: Bound<&[u8]>, pin: &'g Pin) -> Option<Node<'g>> {
        self.0.upper_bound(bound, &pin.0).map(Node)
    }

    pub(super) fn add(&self, fence: Fence, leaf: Leaf, pin: &Pin) -> Added<'_> {
        Added(self.0.insert(fence, leaf, &pin.0))
    }

    pub(super) fn remove(&self, node: &Node<'_>) {
        node.0.remove();
    }
}
