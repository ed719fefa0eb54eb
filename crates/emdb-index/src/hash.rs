//! The hash index: extendible hashing over segments of one page, read without
//! locks.
//!
//! A *directory* indexed by the highest bits of a hash's rank names the
//! *segment* that holds the hash. A full segment is split: its entries are
//! copied to two fresh segments, the directory is changed to name these, and
//! the old segment waits to be used again. So no entry ever moves where a
//! reader could miss it.
//!
//! # Why readers need no lock
//!
//! A reader loads the root, then a leaf, then words of the segment the leaf
//! names, each with Acquire.
//!
//! *Hits.* A word that the reader takes for its key was true at some moment
//! while it read. If the segment was then named by the directory, the word was
//! true when it was loaded. If the segment had been given up before, it was
//! frozen from the moment its copy began until the copies were published, so
//! the word was true at the latest at that publication; and the publication
//! came after the reader loaded its leaf, or the leaf would have been the new
//! one. If the segment had been taken into use again, its new contents are
//! copies of words which are frozen, too, until it is published, and true from
//! then on; they can only be taken for the key if they cover its hash.
//!
//! *Misses.* After a miss the leaf is loaded again, from the current root. If
//! it is the same, version included, the segment was in use for this hash all
//! the time, and in such a segment a key that is there all the time is found:
//! entries do not move, and nothing before them becomes EMPTY. The words were
//! loaded with Acquire and are always stored with Release, so a reader that
//! saw a word of a later use of the segment also sees that the leaf changed.
//! If the leaf changed, the search starts over.
//!
//! *Memory.* Segments and directories are used again, but not freed while the
//! index lives, and every word of either is valid at any time.
//!
//! *The verified bit* is set with a compare-and-swap of the whole word. The
//! word holds the location, and a location names one record for good, so the
//! bit is true wherever that word is, even in another segment.

#[expect(unsafe_code, reason = "segments are shared memory, used again")]
mod arena;
#[expect(unsafe_code, reason = "old directories stay readable")]
mod directory;
mod growth;
mod guard;
#[cfg_attr(
    all(target_arch = "x86_64", not(any(loom, miri))),
    expect(unsafe_code, reason = "one load for many atomic words")
)]
mod heads;
mod image;
mod lock;
#[expect(unsafe_code, reason = "the prefetch instruction")]
mod prefetch;
mod segment;
mod walk;
mod word;

use std::sync::atomic::{AtomicU64, Ordering as StdOrdering};

use crate::{
    Entry, Error, FindError, Verdict,
    primitive::{Mutex, Ordering},
};

use self::{
    arena::Arena,
    directory::{Directories, Leaf},
    growth::Shape,
    lock::Parking,
    walk::Tree,
    word::Hash,
};

pub(crate) use self::prefetch::{MovingPlace, Place};
pub use self::{
    guard::Guard,
    image::ImageMemory,
    walk::{Cursor, Detached},
};

/// A concurrent map from 64-bit hashes to [`Location`](crate::Location)s.
///
/// Many threads may use it at the same time. [`find`](Self::find) takes no
/// lock; [`lock`](Self::lock) locks the stripe of one hash for a change.
#[derive(Debug)]
pub struct HashIndex {
    directories: Directories,
    arena: Arena,
    parking: Parking,
    structure: Mutex<Structure>,
    /// Tells this index's [`Detached`] from those of others.
    id: u64,
}

/// What the structure mutex guards, besides the right to change leaves.
#[derive(Debug)]
struct Structure {
    shape: Shape,
    /// While there are any, segments are not merged.
    walks: u32,
    detached: Vec<Option<Tree>>,
    /// Every location of the image is below.
    image_end: u64,
}

impl Default for HashIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl HashIndex {
    /// An empty index, of a few kilobytes.
    #[must_use]
    pub fn new() -> Self {
        let arena = Arena::new();
        let mut shape = Shape::new();
        shape.add(0);
        let leaf = Leaf::new(arena.take_or_abort(), 0, 1);
        Self::of(arena, shape, |_| leaf)
    }

    /// An index of the segments that `leaf` names for rising ranks.
    fn of(arena: Arena, shape: Shape, leaf: impl FnMut(u64) -> Leaf) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let directories = Directories::new(shape.bits(), leaf);
        Self {
            directories,
            arena,
            parking: Parking::default(),
            structure: Mutex::new(Structure {
                shape,
                walks: 0,
                detached: Vec::new(),
                image_end: 0,
            }),
            id: NEXT.fetch_add(1, StdOrdering::Relaxed),
        }
    }

    /// Looks a key up.
    ///
    /// `check` sees each entry whose hash bits fit, and says whether its
    /// record has the key; see [`Verdict`].
    ///
    /// # Errors
    /// What `check` returned, or [`Error::Damaged`] if the entries of this hash
    /// come from an image and are damaged.
    ///
    /// # Examples
    ///
    /// See the [crate's](crate) example.
    #[inline]
    pub fn find<R, E>(
        &self,
        hash: u64,
        mut check: impl FnMut(Entry) -> Result<Verdict<R>, E>,
    ) -> Result<Option<R>, FindError<E>> {
        let hash = Hash::new(hash);
        let mut leaf = self.verified_leaf(hash.rank())?;
        loop {
            let segment = self.arena.segment(leaf.id());
            let found = segment.probe(hash, leaf.depth(), |slot, word| {
                match check(word.entry()?) {
                    Ok(Verdict::Pass) => None,
                    Ok(Verdict::Found(found)) => Some(Ok(found)),
                    Ok(Verdict::FoundAndVerified(found)) => {
                        // If the word has changed, the bit is not for it.
                        // Relaxed: publishes nothing; the word's Release goes on.
                        let _ = slot.compare_exchange(
                            word.0,
                            word.verified().0,
                            Ordering::Relaxed,
                            Ordering::Relaxed,
                        );
                        Some(Ok(found))
                    }
                    Err(error) => Some(Err(FindError::Check(error))),
                }
            });
            if let Some(found) = found {
                return found.map(Some);
            }
            let now = self.verified_leaf(hash.rank())?;
            if now == leaf {
                return Ok(None);
            }
            leaf = now;
        }
    }

    /// Begins to load what [`find`](Self::find) will look at first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        let hash = Hash::new(hash);
        let leaf = self.directories.root().leaf(hash.rank());
        prefetch::prefetch(self.arena.segment(leaf.id()).bucket(hash.home()));
    }

    /// The first entry whose hash bits fit, if there is one at hand: nearly always that
    /// of the key, if the key is there. `None` says nothing.
    #[inline]
    #[must_use]
    pub fn first_candidate(&self, hash: u64) -> Option<Entry> {
        let hash = Hash::new(hash);
        let leaf = self.directories.root().leaf(hash.rank());
        if leaf.is_unverified() {
            return None;
        }
        let segment = self.arena.segment(leaf.id());
        let pattern = hash.pattern(leaf.depth());
        let found = segment.candidate_at_home(hash, pattern);
        found.or_else(|| segment.first_candidate(hash, leaf.depth()))
    }

    /// The memory of this index in bytes, everything counted.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        size_of::<Self>() as u64 + self.arena.bytes() + self.directories.bytes()
    }

    /// The leaf that covers a rank, its segment verified.
    #[inline]
    fn verified_leaf(&self, rank: u64) -> Result<Leaf, Error> {
        let leaf = self.directories.root().leaf(rank);
        match leaf.is_unverified() {
            false => Ok(leaf),
            true => self.verify(self.directories.root(), rank),
        }
    }
}
