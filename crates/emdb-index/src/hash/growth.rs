//! How the index grows and shrinks: one segment is split in two, two halves
//! are merged, or one is cleared of DELETED slots.
//!
//! Each of these copies into fresh segments, which nobody can see, publishes
//! their leaves, and gives the old ones back. The old ones are not changed
//! before that.
//!
//! Lock order: one segment lock (a merge tries for a second one and never
//! waits for it), then the structure mutex, then the mutexes of the arena and
//! the directories. A fresh segment's lock is taken under the structure mutex;
//! whoever else holds it holds a stale leaf, and lets go without waiting. So
//! may a guard whose contents were exchanged: a merge, which is all it could
//! still want, never waits for the structure mutex either.

use crate::{
    Error, FindError, Location,
    primitive::{MutexGuard, Ordering, lock},
};

use super::{
    HashIndex, Structure,
    arena::SegmentId,
    directory::{DEPTH_MAX, Leaf},
    guard::{Guard, Place},
    segment::{Contents, USED_MAX},
    word::{Hash, Word},
};

/// A leaf of the directory stands for at least one segment in so many leaves:
/// bounds the directory by the segments, whatever the hashes.
pub(super) const SKEW_MAX: u64 = 64;
/// Two halves with no more entries than this become one; a full segment with
/// no more entries than this is cleared of DELETED slots instead of split. The
/// distance to [`USED_MAX`] is how many changes pay for the next copy.
const MERGED_MAX: u32 = USED_MAX * 11 / 12;
/// A merge undoes at most so many splits. An entry knows at least so many bits
/// more of its rank than chose its segment, so a cursor can tell exactly which
/// entries of a merged segment it has passed.
const MERGES_MAX: u32 = 14;
/// How many removals pass between two looks at the other half.
const SHRINK_EVERY: u32 = 16;

/// The shape of the directory in use.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// How many segments there are of each depth.
    depths: [u32; DEPTH_MAX as usize + 1],
    /// The greatest depth there ever was.
    peak: u32,
}

impl Shape {
    pub(super) fn new() -> Self {
        Self {
            depths: [0; DEPTH_MAX as usize + 1],
            peak: 0,
        }
    }

    pub(super) fn add(&mut self, depth: u32) {
        self.depths[depth as usize] += 1;
        self.peak = self.peak.max(depth);
    }

    fn take(&mut self, depth: u32) {
        self.depths[depth as usize] -= 1;
    }

    /// The greatest depth in use.
    pub(super) fn bits(&self) -> u32 {
        let bits = self.depths.iter().rposition(|count| *count > 0);
        bits.unwrap_or(0) as u32
    }

    pub(super) fn segments(&self) -> u64 {
        self.depths.iter().map(|count| u64::from(*count)).sum()
    }

    fn may_split(&self, depth: u32) -> bool {
        let grows = depth + 1 > self.bits();
        depth < DEPTH_MAX && (!grows || 1 << (depth + 1) <= SKEW_MAX * (self.segments() + 1))
    }

    fn may_merge(&self, depth: u32) -> bool {
        depth + MERGES_MAX >= self.peak && 1 << self.bits() <= SKEW_MAX * (self.segments() - 1)
    }
}

impl Guard<'_> {
    /// Makes the stripe roomier: splits its segment or clears it.
    #[cold]
    #[inline(never)]
    pub(super) fn grow<E>(
        &mut self,
        rehash: &mut dyn FnMut(Location) -> Result<u64, E>,
    ) -> Result<(), FindError<E>> {
        let old = self.segment.copy();
        if self.meta.deleted() > 0
            && self.meta.live() <= MERGED_MAX
            && let Some(cleared) = cleared(&old)
        {
            self.renew(&cleared)?;
            return Ok(());
        }
        let depth = self.leaf.depth();
        // Refuse before the caller reads records for nothing.
        if !lock(&self.index.structure).shape.may_split(depth) {
            return Err(Error::Full.into());
        }
        let start = self.leaf.start(self.hash.rank());
        let leaf = self.leaf;
        let mut renew = |bucket, word: Word| {
            let Some(entry) = word.entry() else {
                return Ok(word);
            };
            let hash = Hash::new(rehash(entry.location).map_err(FindError::Check)?);
            let is_its =
                hash.home() == Contents::home(bucket, word) && leaf.start(hash.rank()) == start;
            if !is_its {
                return Err(FindError::Index(Error::Damaged));
            }
            Ok(word.retagged(hash, depth))
        };
        if let Some([lower, upper]) = old.halves(&mut renew)? {
            self.split(&lower, &upper)?;
            return Ok(());
        }
        let old = old.map(|bucket, word| match word.split() {
            Some(_) => Ok(Some(word)),
            None => renew(bucket, word).map(Some),
        })?;
        self.split(&half(&old, false), &half(&old, true))?;
        Ok(())
    }

    /// Replaces the segment by one with other contents for the same ranks.
    fn renew(&mut self, contents: &Contents) -> Result<(), Error> {
        let index = self.index;
        let mut structure = lock(&index.structure);
        let fresh = index.fresh(contents, self.leaf.depth())?;
        index.directories.root().set(self.hash.rank(), fresh);
        self.move_to(fresh, &mut structure);
        Ok(())
    }

    fn split(&mut self, lower: &Contents, upper: &Contents) -> Result<(), Error> {
        let index = self.index;
        let depth = self.leaf.depth();
        let mut structure = lock(&index.structure);
        if !structure.shape.may_split(depth) {
            return Err(Error::Full);
        }
        let lower = index.fresh(lower, depth + 1)?;
        let upper = match index.fresh(upper, depth + 1) {
            Ok(upper) => upper,
            Err(error) => {
                index.meta_unlock(lower);
                index.arena.give_back([lower.id()]);
                return Err(error);
            }
        };
        structure.shape.take(depth);
        structure.shape.add(depth + 1);
        structure.shape.add(depth + 1);
        index.fit_directory(&structure);
        let start = self.leaf.start(self.hash.rank());
        let middle = start | (lower.span() + 1);
        let root = index.directories.root();
        root.set(start, lower);
        root.set(middle, upper);
        let (mine, other) = match self.hash.rank() < middle {
            true => (lower, upper),
            false => (upper, lower),
        };
        index.meta_unlock(other);
        self.move_to(mine, &mut structure);
        Ok(())
    }

    /// Merges with the other half, and again, while both are small.
    #[cold]
    #[inline(never)]
    pub(super) fn shrink(&mut self) {
        while self.meta.live().is_multiple_of(SHRINK_EVERY) && self.merge() {}
    }

    fn merge(&mut self) -> bool {
        let index = self.index;
        let Some(depth) = self.leaf.depth().checked_sub(1) else {
            return false;
        };
        let rank = self.hash.rank();
        let other_rank = rank ^ (self.leaf.span() + 1);
        let other = index.directories.root().leaf(other_rank);
        let meta = index.arena.meta(other.id());
        if other.depth() != self.leaf.depth()
            || other.is_unverified()
            || self.meta.live() + meta.live() > MERGED_MAX
            || !meta.lock.try_lock()
        {
            return false;
        }
        // From here on the other half cannot change, if it still is one.
        let merged = (index.directories.root().leaf(other_rank) == other)
            .then(|| {
                let mine = (self.segment.copy(), rank > other_rank);
                let others = (index.arena.segment(other.id()).copy(), rank < other_rank);
                merged([&mine, &others])
            })
            .flatten()
            .and_then(|contents| {
                // Who has it may be waiting for this guard's own segment, to use it anew.
                let mut structure = index.structure.try_lock().ok()?;
                let root = index.directories.root();
                // The contents may have been exchanged since this guard was taken.
                let current = root.leaf(rank) == self.leaf && root.leaf(other_rank) == other;
                if structure.walks > 0 || !current || !structure.shape.may_merge(depth) {
                    return None;
                }
                let fresh = index.fresh(&contents, depth).ok()?;
                structure.shape.take(depth + 1);
                structure.shape.take(depth + 1);
                structure.shape.add(depth);
                index.directories.root().set(rank, fresh);
                index.fit_directory(&structure);
                self.move_to(fresh, &mut structure);
                Some(())
            });
        meta.lock.unlock(&index.parking);
        if merged.is_some() {
            index.arena.give_back([other.id()]);
        }
        merged.is_some()
    }

    /// Goes on with a locked, published segment instead of the one before.
    fn move_to(&mut self, leaf: Leaf, _structure: &mut MutexGuard<'_, Structure>) {
        let index = self.index;
        let old = std::mem::replace(&mut self.leaf, leaf);
        self.segment = index.arena.segment(leaf.id());
        self.meta = index.arena.meta(leaf.id());
        self.place = Place::Unknown;
        index.meta_unlock(old);
        index.arena.give_back([old.id()]);
    }
}

impl HashIndex {
    /// A locked segment with these contents, in no directory yet.
    pub(super) fn fresh(&self, contents: &Contents, depth: u32) -> Result<Leaf, Error> {
        self.arena.take().map(|id| self.fill(id, contents, depth))
    }

    pub(super) fn fill(&self, id: SegmentId, contents: &Contents, depth: u32) -> Leaf {
        let meta = self.arena.meta(id);
        meta.lock.lock(&self.parking);
        self.arena.segment(id).fill(contents);
        let (live, deleted) = contents.count();
        meta.set(live, deleted);
        Leaf::new(id, depth, meta.version.load(Ordering::Relaxed))
    }

    pub(super) fn meta_unlock(&self, leaf: Leaf) {
        self.arena.meta(leaf.id()).lock.unlock(&self.parking);
    }

    /// Gives the root as many bits as the deepest segment needs, or one more:
    /// a single pair that is merged and split in turn does not count.
    fn fit_directory(&self, structure: &Structure) {
        let root = self.directories.root();
        let bits = structure.shape.bits();
        if root.bits() < bits || root.bits() > bits + 1 {
            let new = self.directories.make(bits, |rank| root.leaf(rank));
            if let Some(old) = self.directories.publish(new) {
                self.directories.retire(old);
            }
        }
    }
}

/// The same entries without DELETED slots, or `None` if they do not fit so.
fn cleared(old: &Contents) -> Option<Contents> {
    let mut new = Contents::new();
    old.entries()
        .all(|(bucket, word)| new.place(Contents::home(bucket, word), word))
        .then_some(new)
}

/// The entries of one half, none of them worn out, for a segment of its own.
fn half(old: &Contents, upper: bool) -> Contents {
    let mut new = Contents::new();
    let fits = old
        .entries()
        .filter(|(_, word)| word.upper_half() == upper)
        .all(|(bucket, word)| {
            let home = Contents::home(bucket, word);
            word.split().is_none_or(|word| new.place(home, word))
        });
    if fits {
        return new;
    }
    // In the places they have now they fit.
    let kept = old.map(|_, word| {
        let kept = (word.upper_half() == upper).then(|| word.split());
        Ok::<_, std::convert::Infallible>(kept.flatten())
    });
    let Ok(kept) = kept;
    kept
}

/// The entries of both halves, or `None` if they do not fit.
fn merged(halves: [&(Contents, bool); 2]) -> Option<Contents> {
    let mut new = Contents::new();
    halves
        .into_iter()
        .flat_map(|(half, upper)| half.entries().map(|entry| (*upper, entry)))
        .all(|(upper, (bucket, word))| {
            let word: Word = word.merged(upper);
            new.place(Contents::home(bucket, word), word)
        })
        .then_some(new)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{convert::Infallible, sync::mpsc, thread, time::Duration};

    use super::{HashIndex, Location, lock};

    /// Otherwise both might wait for ever: a guard of contents that were exchanged, and
    /// who uses its segment anew.
    #[test]
    fn dropping_a_guard_never_waits_for_a_change_of_the_structure() {
        const KEYS: u64 = 2000;
        let index = HashIndex::new();
        let hash = |key: u64| key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let location = |key| Location::new(1000 + key).expect("a small position");
        for key in 0..KEYS {
            let mut guard = index.lock(hash(key)).expect("no image is damaged");
            let rehash = |at: Location| Ok::<_, Infallible>(hash(at.get() - 1000));
            guard.make_room(rehash).expect("there is room");
            guard.insert(location(key), false);
        }
        let structure = lock(&index.structure);
        let segments = structure.shape.segments();
        assert!(segments > 2);
        let (sender, ended) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                for key in 0..KEYS {
                    let mut guard = index.lock(hash(key)).expect("no image is damaged");
                    assert!(guard.find_location(location(key)).is_some());
                    guard.remove();
                }
                // Nobody listens any more once the test has failed.
                let _ = sender.send(());
            });
            let ended = ended.recv_timeout(Duration::from_secs(60));
            drop(structure);
            assert!(ended.is_ok(), "a guard waits");
        });
    }
}
