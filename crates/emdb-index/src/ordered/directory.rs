//! Which leaf holds a key: a skip list of trunks, each a short sorted block of branches,
//! each of these one of leaves, by their lower bounds.
//!
//! Blocks do not change, but for the branches that a trunk leads to: one whose leaves change
//! is exchanged there. Only where branches are split or merged, others take the place of
//! their trunk. So the skip list stays very short, a search looks at words that lie side by
//! side, and an exchange reads and writes what it changes, not what lies beside it.
//!
//! Branches and leaves are freed here, by who takes them out: blocks that lead to them come
//! and go.
//!
//! Invariant: for every key, at every moment, the last fence at or below it belongs to a
//! trunk, the last bound there at or below it to a branch, and the last one there to a
//! leaf, that covers it.
//! Several leaves may cover a key for a while; then all of them are closed,
//! locked or retired, and do not change.

use std::ops::Bound;

use crate::primitive::{AtomicU64, Ordering, pause};

use super::{
    fence::{Bytes, Fence},
    key::NEAR,
    leaf::{Leaf, State},
};

mod block;
#[cfg(not(loom))]
mod list;
#[cfg(loom)]
mod model;
#[cfg(loom)]
use model as list;

use block::{Branch, Trunk, Twig, leaf_bytes};
use list::{Handle, Held, Lent};

pub(super) use list::{Arc, Pin};

/// The most children of a block.
const CHILDREN_MAX: usize = match (cfg!(loom), cfg!(test)) {
    (false, false) => 48,
    (false, true) => 4,
    (true, _) => 2,
};
/// With fewer, a block is merged with the next one.
const CHILDREN_MIN: usize = CHILDREN_MAX / 4;
/// To how much blocks are filled.
const CHILDREN_FILLED: usize = CHILDREN_MAX - CHILDREN_MAX / 4;
/// How many leaves a new branch should have.
pub(super) const LEAVES_FILLED: usize = CHILDREN_FILLED;

pub(super) struct Directory {
    list: list::List,
    versions: AtomicU64,
    bytes: AtomicU64,
}

/// What an exchange has taken out, and nothing leads to any more.
struct Gone {
    twigs: Vec<Twig>,
    branches: Vec<Handle<Branch>>,
}

/// Leaves that are to become a branch of a directory.
pub(super) struct Shoot(Vec<(Bytes, Leaf)>);

/// A leaf in the directory, or one that was there a moment ago.
pub(super) struct Node<'g> {
    trunk: Held<'g>,
    branch: Lent<'g, Branch>,
    /// Where its branch is in the trunk.
    branch_at: usize,
    /// Where it is in the branch.
    at: usize,
    /// What the branch would have as the head of the key that was looked for.
    head: Option<u64>,
}

impl Node<'_> {
    #[inline]
    pub(super) fn leaf(&self) -> &Leaf {
        self.branch.children[self.at].leaf()
    }

    /// Begins to load all that a search in the leaf may look at.
    #[inline]
    fn prefetch(&self) {
        if let Some(twig) = self.branch.children.get(self.at) {
            self.leaf().prefetch();
            twig.words.prefetch_part(0..twig.words.bytes() / 2);
        }
    }

    /// Begins to load what a search for the key is likely to look at, and so many slots from
    /// there on. Returns about which slot the key has.
    #[inline]
    fn prefetch_near(&self, count: usize) -> Option<usize> {
        const WORD_BYTES: usize = size_of::<u64>();
        let twig = self.branch.children.get(self.at)?;
        let Some(share) = self.branch.share(self.at, self.head) else {
            self.prefetch();
            return None;
        };
        self.leaf().prefetch();
        let near = share.of(twig.len);
        let (start, end) = (near.saturating_sub(NEAR), near + NEAR);
        let tails = twig.words.bytes() / 2;
        let heads = start * WORD_BYTES..tails.min(end * WORD_BYTES);
        twig.words.prefetch_part(heads);
        let end = tails + (end + count) * WORD_BYTES;
        twig.words.prefetch_part(tails + start * WORD_BYTES..end);
        Some(near)
    }

    /// To keep the leaf for longer than the pin.
    pub(super) fn shared_leaf(&self) -> Arc<Leaf> {
        // SAFETY: as in `Twig::leaf`.
        unsafe { self.branch.children[self.at].leaf.share() }
    }

    /// All keys of the leaf are at or above.
    #[inline]
    pub(super) fn low(&self) -> &Bytes {
        &self.branch.lows[self.at]
    }

    /// All keys of the leaf are below.
    #[inline]
    pub(super) fn high(&self) -> Option<&Bytes> {
        let next = self.branch.lows.get(self.at + 1);
        next.or(self.branch.high.as_ref())
    }

    /// Whether there is another leaf behind it in its trunk. The search that led here has
    /// compared that one's bound then.
    #[inline]
    fn is_followed(&self) -> bool {
        let trunk = self.trunk.trunk();
        self.at + 1 < self.branch.children.len() || self.branch_at + 1 < trunk.children.len()
    }
}

/// Cuts children into as many as a block should have, the last ones first.
fn cut<T>(mut entries: Vec<T>) -> impl DoubleEndedIterator<Item = Vec<T>> {
    let mut pieces = Vec::new();
    while !entries.is_empty() {
        pieces.push(match entries.len() {
            ..=CHILDREN_MAX => std::mem::take(&mut entries),
            len => entries.split_off(len - len / len.div_ceil(CHILDREN_FILLED)),
        });
    }
    pieces.into_iter()
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
        self.find_then(key, pin, Node::prefetch)
    }

    /// The leaf that covers a key, and about which slot it has there, for a scan of so many.
    #[inline]
    pub(super) fn find_near<'g>(
        &'g self,
        key: &[u8],
        count: usize,
        pin: &'g Pin,
    ) -> (Node<'g>, Option<usize>) {
        let mut near = None;
        let node = self.find_then(key, pin, |node| near = node.prefetch_near(count));
        (node, near)
    }

    /// As `find`; calls `prefetch` before it is sure.
    #[inline]
    fn find_then<'g>(
        &'g self,
        key: &[u8],
        pin: &'g Pin,
        mut prefetch: impl FnMut(&Node<'g>),
    ) -> Node<'g> {
        let mut turn = 0;
        loop {
            if let Some(node) = self.last(Bound::Included(key), pin) {
                prefetch(&node);
                if node.is_followed() || node.high().is_none_or(|high| key < high.as_slice()) {
                    return node;
                }
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
                node.prefetch();
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
        let trunk = held.trunk();
        let (branch_at, head) = trunk.last(bound);
        let limb = trunk.children.get(branch_at)?;
        let branch = limb.branch(pin)?;
        limb.prefetch(branch.place(), trunk.share(branch_at, head));
        let (at, head) = branch.last(bound);
        Some(Node {
            trunk: held,
            branch,
            branch_at,
            at,
            head,
        })
    }

    /// Puts closed leaves in the place of others, side by side, that cover the
    /// same keys, and opens them.
    ///
    /// The caller holds the structure mutex and the locks of the old leaves, and marks
    /// these as retired before it lets go. The first new leaf has the bound of
    /// the first old one.
    pub(super) fn exchange(&self, old: &[&Node<'_>], new: Vec<(Bytes, Leaf)>, pin: &Pin) {
        let Some(first) = old.first() else { return };
        let new = new.into_iter().map(|(low, leaf)| (low, Twig::new(leaf)));
        let new: Vec<_> = new.collect();
        let opened: Vec<_> = new.iter().map(|(_, twig)| twig.again()).collect();
        let added = opened.iter().map(|twig| leaf_bytes(twig.leaf()));
        self.bytes.fetch_add(added.sum(), Ordering::Relaxed);

        // The branch they were found in may have been exchanged since.
        let node = self.find(first.low().as_slice(), pin);
        let before = node.branch.children.len();
        let after = (before + new.len()).saturating_sub(old.len());
        let fits = node.at + old.len() <= before;
        let gone = if fits && (CHILDREN_MIN..=CHILDREN_MAX).contains(&after) {
            self.exchange_in_branch(&node, old.len(), new)
        } else {
            self.exchange_branches(node, old.len(), new, pin)
        };
        // Only now: whoever still finds an old leaf must not miss a change.
        for twig in opened {
            twig.leaf().lock().state = State::Open;
        }
        let leaves = gone.twigs.iter().map(|twig| leaf_bytes(twig.leaf()));
        // SAFETY: as in `Limb::new`.
        let branches = gone
            .branches
            .iter()
            .map(|branch| unsafe { branch.get() }.branch_bytes());
        let bytes = leaves.sum::<u64>() + branches.sum::<u64>();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        for branch in gone.branches {
            // SAFETY: no cell leads to it any more: that of its trunk leads to another branch, or,
            // as those of trunks before it, to nothing.
            unsafe { branch.free_after(pin) };
        }
        for twig in gone.twigs {
            // SAFETY: the only branches that lead to it are not found any more.
            unsafe { twig.leaf.free_after(pin) };
        }
    }

    /// Puts leaves in the place of so many from that node on, all of one branch.
    fn exchange_in_branch(&self, node: &Node<'_>, old: usize, new: Vec<(Bytes, Twig)>) -> Gone {
        let limb = &node.trunk.trunk().children[node.branch_at];
        let mut twigs: Vec<_> = node.branch.twigs().collect();
        let gone = twigs.splice(node.at..node.at + old, new);
        let gone = Gone {
            twigs: gone.map(|(_, twig)| twig).collect(),
            branches: limb.branch.get().into_iter().collect(),
        };
        let branch = Branch::of(twigs);
        self.bytes
            .fetch_add(branch.branch_bytes(), Ordering::Relaxed);
        limb.set(branch);
        gone
    }

    /// Puts leaves in the place of so many from that node on, and others in the place of the
    /// branches and trunks.
    fn exchange_branches(
        &self,
        node: Node<'_>,
        old: usize,
        new: Vec<(Bytes, Twig)>,
        pin: &Pin,
    ) -> Gone {
        let Node {
            trunk,
            branch,
            branch_at,
            at,
            ..
        } = node;
        let mut limbs: Vec<_> = trunk.trunk().limbs().collect();
        let mut trunks = vec![trunk];
        let mut twigs: Vec<_> = branch.twigs().collect();
        let mut branches_end = branch_at + 1;
        let count = |twigs: usize| (twigs + new.len()).saturating_sub(old);
        while at + old > twigs.len() || count(twigs.len()) < CHILDREN_MIN {
            if branches_end == limbs.len() {
                self.take_next(&mut trunks, &mut limbs, pin);
            }
            let Some((_, next)) = limbs.get(branches_end) else {
                break;
            };
            // SAFETY: as in `Limb::new`.
            twigs.extend(unsafe { next.get() }.twigs());
            branches_end += 1;
        }
        let end = twigs.len().min(at + old);
        let gone = twigs.splice(at..end, new).map(|(_, twig)| twig).collect();
        let grown = cut(twigs).rev().filter_map(|twigs| {
            let low = twigs.first()?.0.clone();
            Some((low, self.grow(twigs)))
        });
        let grown: Vec<_> = grown.collect();
        let branches = limbs.splice(branch_at..branches_end, grown);
        let gone = Gone {
            twigs: gone,
            branches: branches.map(|(_, branch)| branch).collect(),
        };
        if limbs.len() < CHILDREN_MIN && trunks.len() == 1 {
            self.take_next(&mut trunks, &mut limbs, pin);
        }
        self.add(limbs, pin);
        // From behind: what is removed leaves its keys to the first new trunk,
        // which hides the first old one.
        for held in trunks.iter().rev() {
            let trunk = held.trunk();
            self.bytes.fetch_sub(trunk.node_bytes(), Ordering::Relaxed);
            self.list.remove(held);
            // Whoever has it still must not find what goes on changing without it.
            trunk.children.iter().for_each(|limb| limb.branch.set(None));
        }
        gone
    }

    /// A branch of these leaves.
    fn grow(&self, twigs: Vec<(Bytes, Twig)>) -> Handle<Branch> {
        let branch = Branch::of(twigs);
        self.bytes
            .fetch_add(branch.branch_bytes(), Ordering::Relaxed);
        Handle::new(branch)
    }

    /// Adds the next trunk, and its branches, to those that are exchanged.
    fn take_next<'g>(
        &'g self,
        trunks: &mut Vec<Held<'g>>,
        limbs: &mut Vec<(Bytes, Handle<Branch>)>,
        pin: &'g Pin,
    ) {
        // SAFETY: as in `Limb::new`.
        let last = limbs.last().map(|(_, branch)| unsafe { branch.get() });
        let high = last.and_then(|branch| branch.high.clone());
        if let Some(next) = high.map(|high| self.find(high.as_slice(), pin).trunk) {
            limbs.extend(next.trunk().limbs());
            trunks.push(next);
        }
    }

    /// Opens leaves that are to become a branch, for a directory that nobody else knows yet.
    pub(super) fn sprout(&self, leaves: Vec<(Bytes, Leaf)>) -> Option<Shoot> {
        for (_, leaf) in &leaves {
            self.bytes.fetch_add(leaf_bytes(leaf), Ordering::Relaxed);
            leaf.lock().state = State::Open;
        }
        (!leaves.is_empty()).then_some(Shoot(leaves))
    }

    /// Adds branches of its own for good, side by side, before anyone else knows this directory.
    pub(super) fn graft(&self, shoots: impl IntoIterator<Item = Shoot>, pin: &Pin) {
        let limbs = shoots.into_iter().filter_map(|Shoot(leaves)| {
            let twigs = leaves.into_iter().map(|(low, leaf)| (low, Twig::new(leaf)));
            let twigs: Vec<_> = twigs.collect();
            let low = twigs.first()?.0.clone();
            Some((low, self.grow(twigs)))
        });
        self.add(limbs.collect(), pin);
    }

    /// Adds trunks of these branches.
    fn add(&self, limbs: Vec<(Bytes, Handle<Branch>)>, pin: &Pin) {
        // From behind: until the first new trunk is there, the old one covers
        // what the others do not.
        for limbs in cut(limbs) {
            let Some((low, _)) = limbs.first() else {
                return;
            };
            // Relaxed: those of one bound are given out under the structure mutex.
            let version = self.versions.fetch_add(1, Ordering::Relaxed);
            let low = low.clone();
            let trunk = Trunk::of(&limbs);
            self.bytes.fetch_add(trunk.node_bytes(), Ordering::Relaxed);
            self.list.add(Fence { low, version }, trunk, pin);
        }
    }

    /// The memory of all leaves, branches and trunks, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.list.visit(|trunk| {
            for (_, branch) in trunk.limbs() {
                // SAFETY: as in `Limb::new`.
                for twig in &unsafe { branch.get() }.children {
                    // SAFETY: nobody else knows the directory any more, and what was taken out
                    // of it is not found here.
                    unsafe { twig.leaf.clone().free() };
                }
                // SAFETY: as above.
                unsafe { branch.free() };
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
