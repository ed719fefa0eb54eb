//! What a directory is made of: trunks of branches of leaves.

use std::ops::Bound;

use crate::hash::{MovingPlace, Place};

use super::{
    super::{
        fence::{Bytes, Fence},
        key::{Stub, common_len, count_below},
        leaf::Leaf,
    },
    list::{Cell, Handle, Lent, Pin},
};

/// A word for the height and the references, two for the tower, and what the
/// allocator adds to a node.
const NODE_OVERHEAD: usize = 8 + 16 + 16;
/// The counts of an `Arc`, and what the allocator adds to it.
const SHARED_OVERHEAD: usize = 16 + 16;
/// What the allocator adds to the parts of a block.
const BLOCK_OVERHEAD: usize = 3 * 16;
/// The same, and what it adds to the words.
const LEAF_OVERHEAD: usize = SHARED_OVERHEAD + 16;

/// Some leaves or branches that lie side by side. Never empty.
///
/// Between two of its children, the bound of the second is the end of the first. So a
/// search ends here, and all that it needs of the child can be loaded at once.
pub(in crate::ordered) struct Block<T> {
    /// All bounds but the first begin with it.
    prefix: Bytes,
    /// The first bytes after the prefix of all bounds but the first.
    heads: Box<[u64]>,
    /// All keys of a child are at or above.
    pub(super) lows: Box<[Bytes]>,
    pub(super) children: Box<[T]>,
    /// All keys of its last child are below.
    pub(super) high: Option<Bytes>,
}

pub(super) type Trunk = Block<Limb>;
pub(super) type Branch = Block<Twig>;

/// Where a branch is, and where its heads and its twigs are, or were a moment ago.
pub(super) struct Limb {
    pub(super) branch: Cell<Branch>,
    heads: MovingPlace,
    twigs: MovingPlace,
}

/// A leaf, where its words are, and about how many slots it has.
pub(super) struct Twig {
    pub(super) leaf: Handle<Leaf>,
    pub(super) words: Place,
    pub(super) len: usize,
}

impl Limb {
    fn new(branch: &Handle<Branch>) -> Self {
        // SAFETY: a branch is freed by who gives up the trunk that led to it, and that is who
        // makes this one.
        let [heads, twigs] = unsafe { branch.get() }.places().map(MovingPlace::new);
        Self {
            branch: Cell::new(branch),
            heads,
            twigs,
        }
    }

    /// Has it lead to another branch.
    pub(super) fn set(&self, branch: Branch) {
        let [heads, twigs] = branch.places();
        self.branch.set(Some(&Handle::new(branch)));
        self.heads.set(heads);
        self.twigs.set(twigs);
    }

    /// Its branch, as long as the trunk has not been given up.
    #[inline]
    pub(super) fn branch<'g>(&self, pin: &'g Pin) -> Option<Lent<'g, Branch>> {
        // SAFETY: `free` is called where no cell leads to the branch any more.
        unsafe { self.branch.lend(pin) }
    }

    /// Begins to load what a search in the branch is likely to look at.
    #[inline]
    pub(super) fn prefetch(&self, branch: Place, share: Option<Share>) {
        /// How many twigs a guess is off.
        const NEAR: usize = 4;
        branch.prefetch();
        self.heads.get().prefetch();
        if let Some(share) = share {
            let twigs = self.twigs.get();
            let near = share.of(twigs.bytes() / size_of::<Twig>());
            let (start, end) = (near.saturating_sub(NEAR), near + NEAR);
            let part = start * size_of::<Twig>()..end * size_of::<Twig>();
            twigs.prefetch_part(part);
        }
    }
}

impl Twig {
    pub(super) fn new(leaf: Leaf) -> Self {
        Self {
            words: leaf.place_of_words(),
            len: leaf.len(),
            leaf: Handle::new(leaf),
        }
    }

    /// The same leaf, with as many slots as it has by now.
    pub(super) fn again(&self) -> Self {
        Self {
            leaf: self.leaf.clone(),
            words: self.words,
            len: self.leaf().len(),
        }
    }

    /// Its leaf. The twig is of a branch that was found under a pin which still lives, or the
    /// structure mutex is held.
    pub(super) fn leaf(&self) -> &Leaf {
        // SAFETY: a leaf is freed under the structure mutex, after no branch that can be found
        // leads to it any more, and after who has found one under a pin.
        unsafe { self.leaf.get() }
    }
}

impl Branch {
    pub(super) fn of(twigs: Vec<(Bytes, Twig)>) -> Self {
        let last = twigs.last().map(|(_, twig)| twig.leaf());
        let high = last.and_then(|leaf| leaf.high().cloned());
        Self::new(twigs.into_iter(), high)
    }

    #[inline]
    pub(super) fn place(&self) -> Place {
        Place::of(std::slice::from_ref(self))
    }

    fn places(&self) -> [Place; 2] {
        [Place::of(&self.heads), Place::of(&self.children)]
    }

    /// Its leaves, for another branch.
    pub(super) fn twigs(&self) -> impl Iterator<Item = (Bytes, Twig)> + '_ {
        let twigs = self.children.iter().map(Twig::again);
        self.lows.iter().cloned().zip(twigs)
    }

    /// The memory of the branch without its leaves.
    pub(super) fn branch_bytes(&self) -> u64 {
        self.bytes() + SHARED_OVERHEAD as u64
    }
}

impl Trunk {
    pub(super) fn of(limbs: &[(Bytes, Handle<Branch>)]) -> Self {
        // SAFETY: as in `Limb::new`.
        let last = limbs.last().map(|(_, branch)| unsafe { branch.get() });
        let high = last.and_then(|branch| branch.high.clone());
        let limbs = limbs
            .iter()
            .map(|(low, branch)| (low.clone(), Limb::new(branch)));
        Self::new(limbs, high)
    }

    /// Its branches, for another trunk. Under the structure mutex.
    pub(super) fn limbs(&self) -> impl Iterator<Item = (Bytes, Handle<Branch>)> + '_ {
        let limbs = self.lows.iter().zip(&self.children);
        limbs.filter_map(|(low, limb)| Some((low.clone(), limb.branch.get()?)))
    }

    /// The memory of the trunk in the skip list without its branches.
    pub(super) fn node_bytes(&self) -> u64 {
        // The fence has the first of the bounds, too.
        let low = self.lows.first().map_or(0, Bytes::heap_bytes);
        self.bytes() + (size_of::<Fence>() + NODE_OVERHEAD + low) as u64
    }
}

impl<T> Block<T> {
    fn new(children: impl Iterator<Item = (Bytes, T)>, high: Option<Bytes>) -> Self {
        let (lows, children): (Vec<Bytes>, Vec<T>) = children.unzip();
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
            children: children.into(),
            high,
        }
    }

    /// The last child whose bound is within `bound`, as that of the block is; and what the
    /// key's head would be.
    #[inline]
    pub(super) fn last(&self, bound: Bound<&[u8]>) -> (usize, Option<u64>) {
        let (key, is_excluded) = match bound {
            Bound::Included(key) => (key, false),
            Bound::Excluded(key) => (key, true),
            Bound::Unbounded => return (self.heads.len(), None),
        };
        let Some(rest) = key.strip_prefix(self.prefix.as_slice()) else {
            let is_below = key < self.prefix.as_slice();
            return (if is_below { 0 } else { self.heads.len() }, None);
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
        (at + within.count(), Some(head))
    }

    /// How far behind the bound of the child at `at` a key with that head is. Not known at
    /// the ends.
    #[inline]
    pub(super) fn share(&self, at: usize, head: Option<u64>) -> Option<Share> {
        let below = *self.heads.get(at.checked_sub(1)?)?;
        let above = *self.heads.get(at)?;
        let behind = head?.saturating_sub(below) as f64;
        Some(Share(behind / above.saturating_sub(below) as f64))
    }

    /// The memory of the block without its children.
    fn bytes(&self) -> u64 {
        let heads = size_of_val(&*self.heads);
        let lows = size_of_val(&*self.lows);
        let all = self.lows.iter().chain(&self.high).chain([&self.prefix]);
        let long: usize = all.map(Bytes::heap_bytes).sum();
        let own = size_of::<Self>() + BLOCK_OVERHEAD;
        (own + heads + lows + long + size_of_val(&*self.children)) as u64
    }
}

/// What a key would have below it between two bounds if all keys were spread evenly: from
/// nothing, 0, to everything, 1.
#[derive(Clone, Copy)]
pub(super) struct Share(f64);

impl Share {
    /// How many of `count` children.
    #[inline]
    pub(super) fn of(self, count: usize) -> usize {
        ((self.0 * count as f64) as usize).min(count)
    }
}

pub(super) fn leaf_bytes(leaf: &Leaf) -> u64 {
    (size_of::<Leaf>() + LEAF_OVERHEAD + leaf.heap_bytes()) as u64
}
