//! The directory: which segment covers which ranks.
//!
//! A directory of `bits` bits has one [`Leaf`] for each value of the highest
//! `bits` bits of a rank; a segment of smaller depth has several equal leaves
//! in a row. Leaves are changed under the structure mutex, and read by anyone.
//!
//! Directories are never freed before the index, only used again, so a reader
//! may hold on to an old one. Every leaf in every directory, old or new, names
//! a segment that exists, because leaves are only made from a [`SegmentId`].

use crate::primitive::{AtomicPtr, AtomicU64, Mutex, Ordering, lock};

use super::arena::SegmentId;

/// No segment is deeper than this.
pub(super) const DEPTH_MAX: u32 = 40;

const DEPTH_AT: u32 = 32;
const UNVERIFIED: u64 = 1 << 38;
const VERSION_AT: u32 = 39;

/// A segment as the directory names it.
///
/// | bits   | field                                            |
/// |--------|--------------------------------------------------|
/// | 0..32  | segment id                                       |
/// | 32..38 | depth: rank bits shared by all of its entries    |
/// | 38     | from an image, and not verified yet              |
/// | 39..64 | version: how often the segment was used anew     |
///
/// So equal leaves, read one after the other, mean that the segment was in use
/// for the same ranks all the time between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf(u64);

impl Leaf {
    pub(super) fn new(id: SegmentId, depth: u32, version: u32) -> Self {
        debug_assert!(depth <= DEPTH_MAX);
        let (depth, version) = (u64::from(depth), u64::from(version));
        Self(u64::from(id.get()) | depth << DEPTH_AT | version << VERSION_AT)
    }

    #[inline]
    pub(super) fn id(self) -> SegmentId {
        SegmentId::of_leaf(self.0 as u32)
    }

    #[inline]
    pub(super) fn depth(self) -> u32 {
        (self.0 >> DEPTH_AT) as u32 % 64
    }

    #[inline]
    pub(super) fn is_unverified(self) -> bool {
        self.0 & UNVERIFIED != 0
    }

    pub(super) fn unverified(self) -> Self {
        Self(self.0 | UNVERIFIED)
    }

    pub(super) fn verified(self) -> Self {
        Self(self.0 & !UNVERIFIED)
    }

    /// The lowest rank the segment covers, if it covers `rank`.
    pub(super) fn start(self, rank: u64) -> u64 {
        rank & !self.span()
    }

    /// How many ranks the segment covers, less one.
    pub(super) fn span(self) -> u64 {
        u64::MAX >> self.depth()
    }
}

/// One array of leaves.
#[derive(Debug)]
pub(super) struct Directory {
    bits: u32,
    /// By how much half a rank is shifted to find its leaf.
    shift: u32,
    leaves: Box<[AtomicU64]>,
}

impl Directory {
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    #[inline]
    fn index(&self, rank: u64) -> usize {
        // Two shifts, because `bits` may be 0.
        (rank >> 1 >> self.shift) as usize
    }

    #[inline]
    pub(super) fn leaf(&self, rank: u64) -> Leaf {
        // Acquire: pairs with the Release in `set`, receives the segment.
        Leaf(self.leaves[self.index(rank)].load(Ordering::Acquire))
    }

    /// Makes `leaf` cover all ranks that share its depth's bits with `rank`.
    pub(super) fn set(&self, rank: u64, leaf: Leaf) {
        let start = leaf.start(rank);
        let (first, last) = (self.index(start), self.index(start | leaf.span()));
        for entry in &self.leaves[first..=last] {
            // Release: pairs with the Acquire in `leaf`, publishes the segment.
            entry.store(leaf.0, Ordering::Release);
        }
    }
}

/// All directories of an index: the root, and those that readers may still
/// look at.
#[derive(Debug)]
pub(super) struct Directories {
    root: AtomicPtr<Directory>,
    pool: Mutex<Pool>,
}

/// A directory made by [`Directories::make`].
#[derive(Clone, Copy, Debug)]
pub(super) struct DirectoryId(usize);

#[derive(Debug, Default)]
struct Pool {
    all: Vec<Owned>,
    unused: Vec<DirectoryId>,
    root: Option<DirectoryId>,
}

/// What `Box::into_raw` gave: a box, but one that does not claim to be the
/// only way to the directory.
#[derive(Clone, Copy, Debug)]
struct Owned(*mut Directory);

// SAFETY: it owns a `Directory`, which is `Send` and `Sync`.
unsafe impl Send for Owned {}

impl Directories {
    /// A root directory with a leaf for each first rank, called in order.
    pub(super) fn new(bits: u32, leaf: impl FnMut(u64) -> Leaf) -> Self {
        let new = Self {
            root: AtomicPtr::new(std::ptr::null_mut()),
            pool: Mutex::new(Pool::default()),
        };
        let id = new.make(bits, leaf);
        new.publish(id);
        new
    }

    /// The directory in use.
    #[inline]
    pub(super) fn root(&self) -> &Directory {
        // Acquire: pairs with the Release in `publish`, receives the leaves.
        let root = self.root.load(Ordering::Acquire);
        // SAFETY: `new` and `publish` only ever store pointers from `make`,
        // and what those point to is freed in `drop` and nowhere else.
        unsafe { &*root }
    }

    /// The directory made under that id.
    pub(super) fn get(&self, id: DirectoryId) -> &Directory {
        let owned = lock(&self.pool).all[id.0];
        // SAFETY: the pointer came from `Box::into_raw` in `make`, and is
        // freed in `drop` and nowhere else.
        unsafe { &*owned.0 }
    }

    /// Makes a directory, or uses one anew, with a leaf for each first rank.
    ///
    /// Readers with an old root may see the new leaves early, or old and new
    /// ones mixed; the `hash` module says why that is harmless.
    pub(super) fn make(&self, bits: u32, mut leaf: impl FnMut(u64) -> Leaf) -> DirectoryId {
        let reused = {
            let mut pool = lock(&self.pool);
            let fits = |id: &DirectoryId| self.bits_of(&pool, *id) == bits;
            let at = pool.unused.iter().position(fits);
            at.map(|at| pool.unused.swap_remove(at))
        };
        let rank = |index: usize| (index as u64) << 1 << (63 - bits);
        if let Some(id) = reused {
            for (index, entry) in self.get(id).leaves.iter().enumerate() {
                entry.store(leaf(rank(index)).0, Ordering::Release);
            }
            return id;
        }
        let leaves = (0..1_usize << bits)
            .map(|index| AtomicU64::new(leaf(rank(index)).0))
            .collect();
        let owned = Owned(Box::into_raw(Box::new(Directory {
            bits,
            shift: 63 - bits,
            leaves,
        })));
        let mut pool = lock(&self.pool);
        pool.all.push(owned);
        DirectoryId(pool.all.len() - 1)
    }

    /// Makes a directory the root, and gives back the one that was.
    pub(super) fn publish(&self, id: DirectoryId) -> Option<DirectoryId> {
        let mut pool = lock(&self.pool);
        // Release: pairs with the Acquire in `root`, publishes the leaves.
        self.root.store(pool.all[id.0].0, Ordering::Release);
        pool.root.replace(id)
    }

    /// Lets a directory, which is not the root, be used anew.
    pub(super) fn retire(&self, id: DirectoryId) {
        lock(&self.pool).unused.push(id);
    }

    pub(super) fn bytes(&self) -> u64 {
        let pool = lock(&self.pool);
        (0..pool.all.len())
            .map(|at| 1_u64 << self.bits_of(&pool, DirectoryId(at)))
            .map(|leaves| leaves * size_of::<Leaf>() as u64 + size_of::<Directory>() as u64)
            .sum()
    }

    fn bits_of(&self, pool: &Pool, id: DirectoryId) -> u32 {
        // SAFETY: as in `get`.
        let directory = unsafe { &*pool.all[id.0].0 };
        directory.bits
    }
}

impl Drop for Directories {
    fn drop(&mut self) {
        for owned in std::mem::take(&mut lock(&self.pool).all) {
            // SAFETY: the pointer came from `Box::into_raw` in `make`, the
            // list holds each once, and `&mut self` proves that every
            // reference given out by `root` and `get` is gone.
            drop(unsafe { Box::from_raw(owned.0) });
        }
    }
}
