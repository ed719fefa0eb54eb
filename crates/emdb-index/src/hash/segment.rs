//! One segment: 64 buckets of eight slots, searched and rebuilt.
//!
//! Invariants of a segment that a directory names:
//! - An entry never moves. It may be replaced in place, keeping tag and
//!   displacement, or removed.
//! - If an entry is displaced by n buckets, the n buckets before it, from its
//!   home on, have no EMPTY slot. They had none when it came, and a bucket
//!   without EMPTY slots never gets one again: removal leaves DELETED there.
//!
//! So whoever finds an EMPTY slot in a bucket need not look further, whatever
//! writers do meanwhile.

use crate::{
    Entry,
    primitive::{AtomicU16, AtomicU32, AtomicU64, Ordering, store_over_swaps},
};

use super::{
    heads::Heads,
    lock::SegmentLock,
    word::{Hash, Pattern, Word},
};

#[cfg(not(loom))]
mod size {
    pub(in crate::hash) const BUCKETS: usize = 64;
    pub(in crate::hash) const SLOTS: usize = 8;
    /// A segment with so many used slots is rebuilt before the next insert.
    pub(in crate::hash) const USED_MAX: u32 = 440;
}
#[cfg(loom)]
mod size {
    pub(in crate::hash) const BUCKETS: usize = 2;
    pub(in crate::hash) const SLOTS: usize = 2;
    pub(in crate::hash) const USED_MAX: u32 = 2;
}
pub(super) use size::{BUCKETS, SLOTS, USED_MAX};

/// Slots in a segment.
pub(super) const WORDS: usize = BUCKETS * SLOTS;
/// The buckets an entry may be in: displacements 0 to `PROBES - 1`.
pub(super) const PROBES: usize = if BUCKETS < 8 { BUCKETS } else { 8 };

/// Eight slots in one cache line.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct Bucket([AtomicU64; SLOTS]);

/// The slots of one segment.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Segment([Bucket; BUCKETS]);

#[cfg(not(loom))]
const _: () = assert!(
    size_of::<Segment>() == 4096,
    "one page, and one image segment"
);

/// What is known about a segment, apart from its entries. All but the lock
/// belongs to the lock's holder, or to whoever has not yet published the
/// segment.
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub(super) lock: SegmentLock,
    live: AtomicU16,
    deleted: AtomicU16,
    /// Changes whenever the segment is used anew.
    pub(super) version: AtomicU32,
    /// What the image says about the segment's contents.
    pub(super) checksum: AtomicU32,
}

impl Meta {
    #[inline]
    pub(super) fn live(&self) -> u32 {
        u32::from(self.live.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn deleted(&self) -> u32 {
        u32::from(self.deleted.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn used(&self) -> u32 {
        self.live() + self.deleted()
    }

    #[inline]
    pub(super) fn set(&self, live: u32, deleted: u32) {
        self.live.store(live as u16, Ordering::Relaxed);
        self.deleted.store(deleted as u16, Ordering::Relaxed);
    }
}

/// A place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    bucket: usize,
    slot: usize,
}

impl Slot {
    /// The slot's displacement for that home bucket.
    #[inline]
    pub(super) fn distance(self, home: usize) -> usize {
        self.bucket.wrapping_sub(home) % BUCKETS
    }
}

/// What a search of a whole chain came to.
pub(super) enum Search {
    Found(Slot, Word),
    /// Not there; a free slot of the chain and its word, if it has one.
    Missing(Option<(Slot, Word)>),
}

impl Default for Segment {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Bucket::default()))
    }
}

impl Segment {
    #[inline]
    pub(super) fn bucket(&self, at: usize) -> &Bucket {
        &self.0[at % BUCKETS]
    }

    /// Shows every entry that may be the hash's to `check`, until it breaks.
    #[inline]
    pub(super) fn probe<B>(
        &self,
        hash: Hash,
        depth: u32,
        mut check: impl FnMut(&AtomicU64, Word) -> Option<B>,
    ) -> Option<B> {
        let pattern = hash.pattern(depth);
        for displacement in 0..PROBES {
            let bucket = self.bucket(hash.home() + displacement);
            let pattern = pattern.displaced(displacement);
            let heads = bucket.heads();
            for at in pattern.candidates(heads) {
                let word = bucket.word(at);
                if word.matches(pattern)
                    && let Some(result) = check(&bucket.0[at], word)
                {
                    return Some(result);
                }
            }
            if !Word::empty_slots(heads).is_empty() {
                break;
            }
        }
        None
    }

    /// The first slot of the home bucket that agrees with the pattern in what every entry
    /// has, if that is an entry of the hash: so nearly always that of the key.
    #[inline]
    pub(super) fn candidate_at_home(&self, hash: Hash, pattern: Pattern) -> Option<Entry> {
        let bucket = self.bucket(hash.home());
        let at = pattern.candidates(bucket.heads()).next()?;
        let word = bucket.word(at);
        if word.matches(pattern) {
            word.entry()
        } else {
            None
        }
    }

    /// The first entry that may be the hash's, wherever it is.
    #[cold]
    #[inline(never)]
    pub(super) fn first_candidate(&self, hash: Hash, depth: u32) -> Option<Entry> {
        self.probe(hash, depth, |_, word| word.entry())
    }

    /// The first free slot of the home bucket and its word, if the bucket alone shows that
    /// the hash has no entry: the common case of `search` for a new key.
    #[inline]
    pub(super) fn free_at_home(&self, hash: Hash, depth: u32) -> Option<(Slot, Word)> {
        let home = hash.home() % BUCKETS;
        let bucket = self.bucket(home);
        let heads = bucket.heads();
        if !hash.pattern(depth).candidates(heads).is_empty() {
            return None;
        }
        // A bucket that has an EMPTY slot has none that is DELETED.
        let slot = Word::empty_slots(heads).next()?;
        Some((Slot { bucket: home, slot }, Word::EMPTY))
    }

    /// Like [`Self::probe`], for the holder of the lock: remembers places.
    #[inline]
    pub(super) fn search<E>(
        &self,
        hash: Hash,
        depth: u32,
        mut is_it: impl FnMut(Word) -> Result<bool, E>,
    ) -> Result<Search, E> {
        let pattern = hash.pattern(depth);
        let mut free = None;
        for displacement in 0..PROBES {
            let at = (hash.home() + displacement) % BUCKETS;
            let bucket = self.bucket(at);
            let pattern = pattern.displaced(displacement);
            let heads = bucket.heads();
            for slot in pattern.candidates(heads) {
                let word = bucket.word(slot);
                if word.matches(pattern) && is_it(word)? {
                    return Ok(Search::Found(Slot { bucket: at, slot }, word));
                }
            }
            if free.is_none() {
                let first = Word::free_slots(heads).next();
                free = first.map(|slot| (Slot { bucket: at, slot }, bucket.word(slot)));
            }
            if !Word::empty_slots(heads).is_empty() {
                break;
            }
        }
        Ok(Search::Missing(free))
    }

    #[inline]
    pub(super) fn store(&self, at: Slot, word: Word) {
        // Release: pairs with the Acquire in `Bucket::load`, publishes the record.
        store_over_swaps(&self.0[at.bucket].0[at.slot], word.0);
    }

    /// Whether the slot's bucket has an EMPTY slot.
    #[inline]
    pub(super) fn ends_at(&self, at: Slot) -> bool {
        !Word::empty_slots(self.0[at.bucket].heads()).is_empty()
    }

    /// Every slot, one after the other.
    pub(super) fn copy(&self) -> Contents {
        Contents(std::array::from_fn(|at| self.0[at].load()))
    }

    /// Overwrites every slot of a segment that no directory names.
    pub(super) fn fill(&self, contents: &Contents) {
        for (bucket, words) in self.0.iter().zip(&contents.0) {
            for (slot, word) in bucket.0.iter().zip(words) {
                // Release: a reader that is still here on behalf of an earlier
                // use of the segment, and sees one of these words, also sees
                // that the directory no longer names that use.
                store_over_swaps(slot, word.0);
            }
        }
    }
}

impl Bucket {
    #[inline]
    pub(super) fn word(&self, at: usize) -> Word {
        // Acquire: pairs with the Release in `Segment::store` and `fill`; also
        // keeps the later look at the directory behind these loads.
        Word(self.0[at % SLOTS].load(Ordering::Acquire))
    }

    /// The slots, one after the other.
    #[inline]
    pub(super) fn load(&self) -> [Word; SLOTS] {
        std::array::from_fn(|at| self.word(at))
    }

    /// The upper halves of the slots' words.
    #[inline]
    fn heads(&self) -> Heads {
        Heads::of(self)
    }
}

/// The slots of a segment, outside any index.
#[derive(Clone, Debug)]
pub(super) struct Contents(pub(super) [[Word; SLOTS]; BUCKETS]);

impl Contents {
    pub(super) const fn new() -> Self {
        Self([[Word::EMPTY; SLOTS]; BUCKETS])
    }

    /// The entries, with the bucket each is in.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, Word)> + '_ {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(bucket, words)| words.iter().map(move |word| (bucket, *word)))
            .filter(|(_, word)| !word.is_free())
    }

    /// The bucket an entry is displaced from.
    pub(super) fn home(bucket: usize, word: Word) -> usize {
        bucket.wrapping_sub(word.displacement()) % BUCKETS
    }

    /// Puts an entry into the first bucket from its home that has room.
    pub(super) fn place(&mut self, home: usize, word: Word) -> bool {
        for displacement in 0..PROBES {
            let bucket = &mut self.0[(home + displacement) % BUCKETS];
            if let Some(slot) = bucket.iter_mut().find(|slot| slot.is_free()) {
                *slot = word.displaced(displacement);
                return true;
            }
        }
        false
    }

    /// The entries of the lower and the upper half as they are after a split, or `None`
    /// if one finds no room. `renew` gives an entry whose tag is worn out a new one.
    pub(super) fn halves<E>(
        &self,
        mut renew: impl FnMut(usize, Word) -> Result<Word, E>,
    ) -> Result<Option<[Self; 2]>, E> {
        let mut halves = [const { Self::new() }; 2];
        let mut used = [[0_u8; BUCKETS]; 2];
        for (bucket, words) in self.0.iter().enumerate() {
            for word in words.iter().filter(|word| !word.is_free()) {
                let home = Self::home(bucket, *word);
                let (word, split) = match word.split() {
                    Some(split) => (*word, split),
                    None => {
                        let renewed = renew(bucket, *word)?;
                        let Some(split) = renewed.split() else {
                            return Ok(None);
                        };
                        (renewed, split)
                    }
                };
                let half = usize::from(word.upper_half());
                let (mut to, mut displacement) = (home, 0);
                while usize::from(used[half][to]) >= SLOTS {
                    displacement += 1;
                    if displacement == PROBES {
                        return Ok(None);
                    }
                    to = (to + 1) % BUCKETS;
                }
                let slot = usize::from(used[half][to]) % SLOTS;
                halves[half].0[to][slot] = split.displaced(displacement);
                used[half][to] += 1;
            }
        }
        Ok(Some(halves))
    }

    /// Takes entries out without moving the others: `keep` says what becomes
    /// of each. A hole in a bucket which had no EMPTY slot is DELETED.
    pub(super) fn map<E>(
        &self,
        mut keep: impl FnMut(usize, Word) -> Result<Option<Word>, E>,
    ) -> Result<Self, E> {
        let mut result = Self::new();
        for (bucket, words) in self.0.iter().enumerate() {
            let hole = match words.contains(&Word::EMPTY) {
                true => Word::EMPTY,
                false => Word::DELETED,
            };
            for (slot, word) in words.iter().enumerate() {
                result.0[bucket][slot] = match *word {
                    word if word.is_free() => hole,
                    word => keep(bucket, word)?.unwrap_or(hole),
                };
            }
        }
        Ok(result)
    }

    /// How many entries there are, and how many DELETED.
    pub(super) fn count(&self) -> (u32, u32) {
        let [mut free, mut empty] = [0_u32; 2];
        for word in self.0.as_flattened() {
            free += u32::from(word.is_free());
            empty += u32::from(*word == Word::EMPTY);
        }
        (WORDS as u32 - free, free - empty)
    }
}
