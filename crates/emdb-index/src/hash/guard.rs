//! The writer's side: one locked stripe.
//!
//! Invariant: while a guard lives, the directory names its segment for its
//! hash, and nobody else changes the segment except for verified bits.

use crate::{Entry, Error, FindError, Location};

use super::{
    HashIndex,
    directory::Leaf,
    segment::{Meta, Search, Segment, Slot, USED_MAX},
    word::{Hash, Word},
};

/// Exclusive right to change the entries of one stripe of hashes.
///
/// The calls of one change come in this order: [`find`](Self::find), then
/// [`replace`](Self::replace) or [`remove`](Self::remove) if it found the key,
/// or else [`make_room`](Self::make_room) and [`insert`](Self::insert).
///
/// A thread that holds a guard must not lock another hash of the same index.
#[derive(Debug)]
#[must_use]
pub struct Guard<'a> {
    pub(super) index: &'a HashIndex,
    pub(super) hash: Hash,
    pub(super) leaf: Leaf,
    pub(super) segment: &'a Segment,
    pub(super) meta: &'a Meta,
    pub(super) place: Place,
    pub(super) shrinks: bool,
}

/// What the calls before have found out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Unknown,
    /// The key is not there, and neither is a free slot.
    Nowhere,
    /// The key is not there, but this free slot is.
    Free(Slot, Word),
    /// The slot is free and may be used.
    Ready(Slot, Word),
    Found(Slot, Word),
}

impl Guard<'_> {
    /// Looks a key up and remembers its slot, or a free one.
    ///
    /// # Errors
    /// What `is_key` returns.
    #[inline]
    pub fn find<E>(
        &mut self,
        is_key: impl FnMut(Entry) -> Result<bool, E>,
    ) -> Result<Option<Entry>, E> {
        if let Some((at, word)) = self.segment.free_at_home(self.hash, self.leaf.depth()) {
            self.place = Place::Free(at, word);
            return Ok(None);
        }
        self.find_beyond(is_key)
    }

    /// As `find`, for all keys.
    #[inline(never)]
    fn find_beyond<E>(
        &mut self,
        mut is_key: impl FnMut(Entry) -> Result<bool, E>,
    ) -> Result<Option<Entry>, E> {
        self.place = Place::Unknown;
        let is_it = |word: Word| word.entry().map_or(Ok(false), &mut is_key);
        let found = self.segment.search(self.hash, self.leaf.depth(), is_it)?;
        self.place = match found {
            Search::Found(at, word) => Place::Found(at, word),
            Search::Missing(Some((at, word))) => Place::Free(at, word),
            Search::Missing(None) => Place::Nowhere,
        };
        match self.place {
            Place::Found(_, word) => Ok(word.entry()),
            _ => Ok(None),
        }
    }

    /// Finds the entry that has exactly this location.
    #[inline]
    pub fn find_location(&mut self, location: Location) -> Option<Entry> {
        let found =
            self.find(|entry| Ok::<_, std::convert::Infallible>(entry.location == location));
        match found {
            Ok(entry) => entry,
        }
    }

    /// Makes sure that [`insert`](Self::insert) has a slot. May split the
    /// segment.
    ///
    /// `rehash` gives the hash of the record at a location; it is needed for
    /// few entries, long after they came.
    ///
    /// # Errors
    /// [`Error::Full`] if there is no room, [`Error::Damaged`] if `rehash` gave
    /// a hash that cannot be the entry's, or what `rehash` returned. The
    /// entries are as they were.
    #[inline]
    pub fn make_room<E>(
        &mut self,
        mut rehash: impl FnMut(Location) -> Result<u64, E>,
    ) -> Result<(), FindError<E>> {
        loop {
            if matches!(self.place, Place::Unknown | Place::Found(..)) {
                self.place = Place::Unknown;
                let Ok(_) = self.find(|_| Ok::<_, std::convert::Infallible>(false));
            }
            match self.place {
                Place::Ready(..) => return Ok(()),
                Place::Free(at, word) if word != Word::EMPTY || self.meta.used() < USED_MAX => {
                    self.place = Place::Ready(at, word);
                    return Ok(());
                }
                _ => self.grow(&mut rehash)?,
            }
        }
    }

    /// Puts an entry into the slot that [`make_room`](Self::make_room) made.
    ///
    /// Does nothing if it made none.
    #[inline]
    pub fn insert(&mut self, location: Location, tombstone: bool) {
        let Place::Ready(at, free) = self.place else {
            debug_assert!(false, "`insert` without `make_room`");
            return;
        };
        let pattern = self.hash.pattern(self.leaf.depth());
        let pattern = pattern.displaced(at.distance(self.hash.home()));
        let word = Word::new(pattern, location, tombstone);
        self.segment.store(at, word);
        let reused = u32::from(free == Word::DELETED);
        self.meta
            .set(self.meta.live() + 1, self.meta.deleted() - reused);
        self.place = Place::Found(at, word);
    }

    /// Gives the found entry another location; it is no longer verified.
    ///
    /// Does nothing if none was found.
    #[inline]
    pub fn replace(&mut self, location: Location, tombstone: bool) {
        let Place::Found(at, word) = self.place else {
            debug_assert!(false, "`replace` without an entry found");
            return;
        };
        let word = word.replaced(location, tombstone);
        self.segment.store(at, word);
        self.place = Place::Found(at, word);
    }

    /// Removes the found entry.
    ///
    /// Does nothing if none was found.
    #[inline]
    pub fn remove(&mut self) {
        let Place::Found(at, _) = self.place else {
            debug_assert!(false, "`remove` without an entry found");
            return;
        };
        let ends = self.segment.ends_at(at);
        let word = if ends { Word::EMPTY } else { Word::DELETED };
        self.segment.store(at, word);
        self.meta
            .set(self.meta.live() - 1, self.meta.deleted() + u32::from(!ends));
        self.place = Place::Unknown;
        self.shrinks = true;
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.shrinks {
            self.shrink();
        }
        self.meta.lock.unlock(&self.index.parking);
    }
}

impl HashIndex {
    /// Locks the stripe of that hash.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the stripe comes from an image and is damaged.
    #[inline]
    pub fn lock(&self, hash: u64) -> Result<Guard<'_>, Error> {
        let hash = Hash::new(hash);
        loop {
            let leaf = self.verified_leaf(hash.rank())?;
            let meta = self.arena.meta(leaf.id());
            meta.lock.lock(&self.parking);
            // The segment may have been given up while this thread waited.
            if self.directories.root().leaf(hash.rank()) == leaf {
                return Ok(Guard {
                    index: self,
                    hash,
                    leaf,
                    segment: self.arena.segment(leaf.id()),
                    meta,
                    place: Place::Unknown,
                    shrinks: false,
                });
            }
            meta.lock.unlock(&self.parking);
        }
    }

    /// Waits until every guard that is held now has been dropped.
    ///
    /// Guards may be taken meanwhile and are not waited for; a caller that must have
    /// none first makes sure that whoever takes one lets go of it unused.
    pub fn wait_for_guards(&self) {
        let mut next = Some(0_u64);
        while let Some(rank) = next {
            let leaf = self.directories.root().leaf(rank);
            let meta = self.arena.meta(leaf.id());
            meta.lock.lock(&self.parking);
            let current = self.directories.root().leaf(rank) == leaf;
            meta.lock.unlock(&self.parking);
            // A segment that was given up meanwhile is looked up again.
            if current {
                next = (rank | leaf.span()).checked_add(1);
            }
        }
    }
}
