//! Which leaf holds a key: a skip list of branches, each a short sorted block of
//! leaves, by their lower bounds.
//!
//! Branches do not change; another one takes the place of a branch whose leaves
//! change. So the skip list stays short, and its nodes in the processor's caches.
//!
//! Invariant: for every key, at every moment, the last fence at or below it
//! belongs to a branch, and the last bound there at or below it to a leaf, that covers it.
//! Several leaves may cover a key for a while; then all of them are closed,
//! locked or retired, and do not change.

use std::ops::Bound;

use crate::{
    hash::Place,
    primitive::{AtomicU64, Ordering, pause},
};

use super::{
    fence::{Bytes, Fence},
    key::{Stub, common_len, count_below},
    leaf::{Leaf, State},
};

#[cfg(not(loom))]
mod list;
#[cfg(loom)]
mod model;
#[cfg(loom)]
use model as list;

use list::Held;

pub(super) use list::{Arc, Pin};

/// The most leaves of a branch.
#[cfg(not(loom))]
const LEAVES_MAX: usize = 48;
#[cfg(loom)]
const LEAVES_MAX: usize = 2;
/// To how much branches are filled.
pub(super) const LEAVES_FILLED: usize = LEAVES_MAX - LEAVES_MAX / 4;
/// With fewer, a branch is merged with the next one.
const LEAVES_MIN: usize = LEAVES_MAX / 4;

/// A word for the height and the references, two for the tower, and what the
/// allocator adds to a node and to both of its blocks.
const NODE_OVERHEAD: usize = 8 + 16 + 3 * 16;
/// The counts of an `Arc`, and what the allocator adds to it and to the words.
const LEAF_OVERHEAD: usize = 16 + 2 * 16;

pub(super) struct Directory {
    list: list::List,
    versions: AtomicU64,
    bytes: AtomicU64,
}

/// Some leaves that lie side by side. Never empty.
///
/// Between two of its leaves, the bound of the second is the end of the first. So a
/// search ends here, and all that it needs of the leaf can be loaded at once.
pub(super) struct Branch {
    /// All bounds but the first begin with it.
    prefix: Bytes,
    /// The first bytes after the prefix of all bounds but the first.
    heads: Box<[u64]>,
    /// All keys of a leaf are at or above.
    lows: Box<[Bytes]>,
    leaves: Box<[Child]>,
    /// All keys of its last leaf are below.
    high: Option<Bytes>,
}

/// A leaf, and where its words are.
struct Child {
    leaf: Arc<Leaf>,
    heads: Place,
}

/// A leaf in the directory, or one that was there a moment ago.
pub(super) struct Node<'g> {
    branch: Held<'g>,
    /// Where it is in the branch.
    at: usize,
}

impl Node<'_> {
    #[inline]
    pub(super) fn leaf(&self) -> &Leaf {
        &self.branch.branch().leaves[self.at].leaf
    }

    /// To keep the leaf for longer than the pin.
    pub(super) fn shared_leaf(&self) -> Arc<Leaf> {
        Arc::clone(&self.branch.branch().leaves[self.at].leaf)
    }

    /// All keys of the leaf are at or above.
    #[inline]
    pub(super) fn low(&self) -> &Bytes {
        &self.branch.branch().lows[self.at]
    }

    /// All keys of the leaf are below.
    #[inline]
    pub(super) fn high(&self) -> Option<&Bytes> {
        self.branch.branch().high_of(self.at)
    }
}

impl Branch {
    fn new(leaves: Vec<(Bytes, Arc<Leaf>)>) -> Self {
        let high = leaves.last().and_then(|(_, leaf)| leaf.high().cloned());
        let (lows, leaves): (Vec<Bytes>, Vec<_>) = leaves
            .into_iter()
            .map(|(low, leaf)| {
                let heads = leaf.place_of_heads();
                (low, Child { leaf, heads })
            })
            .unzip();
        let inner = lows.get(1..).unwrap_or_default();
        let prefix = match (inner.first(), inner.last()) {
            (Some(first), Some(last)) => {
                let (first, last) = (first.as_slice(), last.as_slice());
                first.get(..common_len(first, last)).unwrap_or_default()
            }
            _ => &[],
        };
        let head = |low: &Bytes| {
            let rest = low.as_slice().get(prefix.len()..);
            Stub::new(rest.unwrap_or_default()).head
        };
        Self {
            prefix: Bytes::new(prefix),
            heads: inner.iter().map(head).collect(),
            lows: lows.into(),
            leaves: leaves.into(),
            high,
        }
    }

    /// The last leaf whose bound is within `bound`, as that of the branch is.
    #[inline]
    fn last(&self, bound: Bound<&[u8]>) -> usize {
        let (key, is_excluded) = match bound {
            Bound::Included(key) => (key, false),
            Bound::Excluded(key) => (key, true),
            Bound::Unbounded => return self.heads.len(),
        };
        let Some(rest) = key.strip_prefix(self.prefix.as_slice()) else {
            let is_below = key < self.prefix.as_slice();
            return if is_below { 0 } else { self.heads.len() };
        };
        let head = Stub::new(rest).head;
        let at = count_below(&self.heads, |other| *other < head);
        let equals = self
            .heads
            .iter()
            .skip(at)
            .zip(self.lows.iter().skip(at + 1));
        let within = equals.take_while(|(other, low)| {
            **other == head
                && match is_excluded {
                    true => low.as_slice() < key,
                    false => low.as_slice() <= key,
                }
        });
        at + within.count()
    }

    /// The end of the leaf at `at`.
    #[inline]
    fn high_of(&self, at: usize) -> Option<&Bytes> {
        self.lows.get(at + 1).or(self.high.as_ref())
    }

    fn entries(&self) -> impl Iterator<Item = (Bytes, Arc<Leaf>)> + '_ {
        let leaves = self.leaves.iter().map(|child| Arc::clone(&child.leaf));
        self.lows.iter().cloned().zip(leaves)
    }

    /// The memory of the branch without its leaves.
    fn bytes(&self) -> u64 {
        let node = size_of::<Fence>() + size_of::<Self>() + NODE_OVERHEAD;
        let heads = size_of_val(&*self.heads);
        let lows = size_of_val(&*self.lows);
        // The fence has the first of them, too.
        let all = self.lows.iter().chain(self.lows.first());
        let all = all.chain(&self.high).chain([&self.prefix]);
        let long: usize = all.map(Bytes::heap_bytes).sum();
        (node + heads + lows + long + size_of_val(&*self.leaves)) as u64
    }
}

fn leaf_bytes(leaf: &Leaf) -> u64 {
    (size_of::<Leaf>() + LEAF_OVERHEAD + leaf.heap_bytes()) as u64
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
            if let Some(node) = self.last(Bound::Included(key), pin)
                && node.high().is_none_or(|high| key < high.as_slice())
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
            if let Some(node) = self.last(bound, pin) {
                let covers = match (node.high(), key) {
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

    #[inline]
    fn last<'g>(&'g self, bound: Bound<&[u8]>, pin: &'g Pin) -> Option<Node<'g>> {
        let held = self.list.last(bound, pin)?;
        let branch = held.branch();
        let at = branch.last(bound);
        if let Some(child) = branch.leaves.get(at) {
            child.leaf.prefetch();
            child.heads.prefetch();
        }
        Some(Node { branch: held, at })
    }

    /// Puts closed leaves in the place of others, side by side, that cover the
    /// same keys, and opens them.
    ///
    /// The caller holds the structure mutex and the locks of the old leaves, and marks
    /// these as retired before it lets go. The first new leaf has the bound of
    /// the first old one.
    pub(super) fn exchange(&self, old: &[&Node<'_>], new: Vec<(Bytes, Leaf)>, pin: &Pin) {
        let Some(first) = old.first() else { return };
        let new: Vec<_> = new
            .into_iter()
            .map(|(low, leaf)| (low, Arc::new(leaf)))
            .collect();
        let opened: Vec<_> = new.iter().map(|(_, leaf)| Arc::clone(leaf)).collect();

        // The branch they were found in may have been exchanged since.
        let node = self.find(first.low().as_slice(), pin);
        let at = node.at;
        let mut entries: Vec<_> = node.branch.branch().entries().collect();
        let mut branches = vec![node.branch];
        let count = (entries.len() + new.len()).saturating_sub(old.len());
        if at + old.len() > entries.len() || count < LEAVES_MIN {
            let high = branches[0].branch().high.as_ref();
            let next = high.map(|high| self.find(high.as_slice(), pin).branch);
            if let Some(next) = next {
                entries.extend(next.branch().entries());
                branches.push(next);
            }
        }
        let end = entries.len().min(at + old.len());
        let gone: u64 = entries[at..end]
            .iter()
            .map(|(_, leaf)| leaf_bytes(leaf))
            .sum();
        let added: u64 = new.iter().map(|(_, leaf)| leaf_bytes(leaf)).sum();
        entries.splice(at..end, new);

        self.bytes.fetch_add(added, Ordering::Relaxed);
        self.add(entries, pin);
        // From behind: what is removed leaves its keys to the first new branch,
        // which hides the first old one.
        for branch in branches.iter().rev() {
            let bytes = branch.branch().bytes();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.list.remove(branch);
        }
        self.bytes.fetch_sub(gone, Ordering::Relaxed);
        // Only now: whoever still finds an old leaf must not miss a change.
        for leaf in opened {
            leaf.lock().state = State::Open;
        }
    }

    /// Adds leaves for good, above all others, before anyone else knows this directory.
    pub(super) fn push(&self, leaves: Vec<(Bytes, Leaf)>, pin: &Pin) {
        let open = |(low, leaf): (Bytes, Leaf)| {
            self.bytes.fetch_add(leaf_bytes(&leaf), Ordering::Relaxed);
            leaf.lock().state = State::Open;
            (low, Arc::new(leaf))
        };
        self.add(leaves.into_iter().map(open).collect(), pin);
    }

    /// Adds branches of these leaves.
    fn add(&self, mut leaves: Vec<(Bytes, Arc<Leaf>)>, pin: &Pin) {
        // From behind: until the first new branch is there, the old one covers
        // what the others do not.
        while !leaves.is_empty() {
            let pieces = match leaves.len() {
                ..=LEAVES_MAX => 1,
                count => count.div_ceil(LEAVES_FILLED),
            };
            let piece = leaves.split_off(leaves.len() - leaves.len() / pieces);
            let Some((low, _)) = piece.first() else {
                return;
            };
            // Relaxed: those of one bound are given out under the structure mutex.
            let version = self.versions.fetch_add(1, Ordering::Relaxed);
            let low = low.clone();
            let branch = Branch::new(piece);
            self.bytes.fetch_add(branch.bytes(), Ordering::Relaxed);
            self.list.add(Fence { low, version }, branch, pin);
        }
    }

    /// The memory of all leaves and branches, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
