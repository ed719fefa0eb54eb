//! Which leaf holds a key: a skip list of leaves by their fences.
//!
//! Invariant: for every key, at every moment, the last fence at or below it
//! belongs to a leaf that covers it. Several leaves may cover a key for a
//! while; then all of them are closed, locked or retired, and do not change.

use std::ops::Bound;

use crate::primitive::{AtomicU64, Ordering, pause};

use super::{
    fence::{Bytes, Fence},
    leaf::{Leaf, State},
};

#[cfg(not(loom))]
mod list;
#[cfg(loom)]
mod model;
#[cfg(loom)]
use model as list;

pub(super) use list::{Node, Pin};

/// A word for the height and the references, two for the tower, and what the
/// allocator adds to a node and to the words of its leaf.
const NODE_OVERHEAD: usize = 8 + 16 + 16 + 16;

pub(super) struct Directory {
    list: list::List,
    versions: AtomicU64,
    bytes: AtomicU64,
}

impl Directory {
    pub(super) fn new() -> Self {
        Self {
            list: list::List::new(),
            versions: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// The leaf that covers a key.
    #[inline]
    pub(super) fn find<'g>(&'g self, key: &[u8], pin: &'g Pin) -> Node<'g> {
        let mut turn = 0;
        loop {
            if let Some(node) = self.list.last(Bound::Included(key), pin)
                && node.leaf().is_above(key)
            {
                return node;
            }
            pause(&mut turn);
        }
    }

    /// The leaf that covers the keys right below `key`, or the last leaf. There
    /// is none below the empty key.
    pub(super) fn find_below<'g>(&'g self, key: Option<&[u8]>, pin: &'g Pin) -> Option<Node<'g>> {
        let bound = match key {
            Some([]) => return None,
            Some(key) => Bound::Excluded(key),
            None => Bound::Unbounded,
        };
        let mut turn = 0;
        loop {
            if let Some(node) = self.list.last(bound, pin) {
                let covers = match (node.leaf().high(), key) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(high), Some(key)) => key <= high.as_slice(),
                };
                if covers {
                    return Some(node);
                }
            }
            pause(&mut turn);
        }
    }

    /// Puts closed leaves in the place of others that cover the same keys, and opens them.
    ///
    /// The caller holds the locks of the old leaves, and marks them as retired
    /// before it lets go. The first new leaf has the bound of the first old one.
    pub(super) fn exchange(&self, old: &[&Node<'_>], new: Vec<(Bytes, Leaf)>, pin: &Pin) {
        // From behind: until the first new leaf is there, which hides the first
        // old one, this covers what the others do not.
        let added = new.into_iter().rev();
        let added: Vec<_> = added.map(|(low, leaf)| self.add(low, leaf, pin)).collect();
        // From behind, too: what is removed leaves its keys to the first new leaf.
        for node in old.iter().rev() {
            self.bytes
                .fetch_sub(node_bytes(node.low(), node.leaf()), Ordering::Relaxed);
            self.list.remove(node);
        }
        // Only now: whoever still finds an old leaf must not miss a change.
        for node in added {
            node.with_leaf(|leaf| leaf.lock().state = State::Open, pin);
        }
    }

    /// Adds a leaf for good, before anyone else knows this directory.
    pub(super) fn push(&self, low: Bytes, leaf: Leaf, pin: &Pin) {
        let added = self.add(low, leaf, pin);
        added.with_leaf(|leaf| leaf.lock().state = State::Open, pin);
    }

    fn add<'g>(&'g self, low: Bytes, leaf: Leaf, pin: &Pin) -> list::Added<'g> {
        self.bytes
            .fetch_add(node_bytes(&low, &leaf), Ordering::Relaxed);
        // Relaxed: that they differ is enough, and those of one bound are given
        // out one after the other under the structure mutex.
        let version = self.versions.fetch_add(1, Ordering::Relaxed);
        self.list.add(Fence { low, version }, leaf, pin)
    }

    /// The memory of all leaves and their nodes, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn node_bytes(low: &Bytes, leaf: &Leaf) -> u64 {
    let node = size_of::<Fence>() + size_of::<Leaf>() + NODE_OVERHEAD;
    (node + low.heap_bytes() + leaf.heap_bytes()) as u64
}
