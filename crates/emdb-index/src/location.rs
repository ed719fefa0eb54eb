//! Where a record is, and what the index says about it.
//!
//! A [`Location`] is an opaque integer to the index; the caller gives it
//! meaning.

use std::num::NonZeroU64;

/// The position of a record: 44 bits, never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Location(NonZeroU64);

impl Location {
    /// The largest position a location can hold.
    pub const MAX: u64 = (1 << 44) - 1;

    /// Makes a location, or `None` if `position` is zero or above [`Self::MAX`].
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_index::Location;
    ///
    /// assert_eq!(Location::new(7).map(Location::get), Some(7));
    /// assert_eq!(Location::new(0), None);
    /// assert_eq!(Location::new(Location::MAX + 1), None);
    /// ```
    #[inline]
    #[must_use]
    pub const fn new(position: u64) -> Option<Self> {
        if position > Self::MAX {
            return None;
        }
        match NonZeroU64::new(position) {
            Some(position) => Some(Self(position)),
            None => None,
        }
    }

    /// The position.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// What the index holds for one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the record is.
    pub location: Location,
    /// Whether someone has said that the record's checksum is right.
    pub verified: bool,
    /// Whether the record says that its key is gone.
    pub tombstone: bool,
}

/// What a check says of an entry whose hash bits fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<R> {
    /// Another key: look on.
    Pass,
    /// The key looked for.
    Found(R),
    /// The key looked for, and its record has just been checked: remember that
    /// in the entry, unless the entry has changed meanwhile.
    FoundAndVerified(R),
}
