//! What a leaf knows of a key: ten bytes after the leaf's prefix, and whether
//! these are all of it.
//!
//! Invariant: stubs over the same prefix compare as their keys do, and equal
//! stubs that are whole are equal keys. Only equal stubs of longer keys must be
//! told apart by reading the records.

use crate::Location;

/// How many bytes of a key a stub holds.
pub(super) const KNOWN: usize = 10;
/// The length given for all keys longer than a stub.
const LONGER: usize = KNOWN + 1;
const LENGTH_BITS: u32 = 4;
/// Bits of a slot's second word that are a location.
const LOCATION_BITS: u32 = Location::MAX.trailing_ones();

/// The beginning of a key after a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stub {
    /// The first eight bytes, as a number that compares as they do.
    pub(super) head: u64,
    /// Two bytes more, then the length of the key after the prefix, at most `LONGER`.
    ///
    /// Missing bytes are zero, so of two keys that differ only in zeros at
    /// their ends, the length says which is the shorter, and so the lower one.
    pub(super) rest: u32,
}

impl Stub {
    #[inline]
    pub(super) fn new(key: &[u8]) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(key.iter().take(KNOWN)) {
            *to = *from;
        }
        Self::of(bytes, key.len())
    }

    /// Of a key whose first ten bytes, padded with zeros, are `bytes`.
    #[inline]
    fn of(bytes: [u8; 16], len: usize) -> Self {
        let number = u128::from_le_bytes(bytes).swap_bytes();
        let two = (number >> 48) as u32 & 0xFFFF;
        Self {
            head: (number >> 64) as u64,
            rest: two << LENGTH_BITS | len.min(LONGER) as u32,
        }
    }

    /// Whether the stub holds the whole key.
    #[inline]
    pub(super) fn is_whole(self) -> bool {
        self.len() != LONGER
    }

    /// Whether it can have been made of a key.
    pub(super) fn is_sound(self) -> bool {
        self.len() <= LONGER
    }

    fn len(self) -> usize {
        self.rest as usize & ((1 << LENGTH_BITS) - 1)
    }

    /// Calls `use_it` with the bytes that the stub holds.
    pub(super) fn with_bytes<T>(self, use_it: impl FnOnce(&[u8]) -> T) -> T {
        let two = u128::from(self.rest >> LENGTH_BITS) << 48;
        let bytes = (u128::from(self.head) << 64 | two)
            .swap_bytes()
            .to_le_bytes();
        use_it(bytes.get(..self.len().min(KNOWN)).unwrap_or_default())
    }

    /// The stub of the same key after a prefix that lacks `more` at its end.
    pub(super) fn after_shorter_prefix(self, more: &[u8]) -> Self {
        self.with_bytes(|known| {
            let mut bytes = [0; 16];
            for (to, from) in bytes.iter_mut().zip(more.iter().chain(known).take(KNOWN)) {
                *to = *from;
            }
            // Stays above KNOWN for a key that is longer than its stub.
            Self::of(bytes, more.len().saturating_add(self.len()))
        })
    }

    /// The stub of the same key after a prefix that is `more` bytes longer, if
    /// this one holds all it takes.
    pub(super) fn after_longer_prefix(self, more: usize) -> Option<Self> {
        self.with_bytes(|known| match self.is_whole() {
            true => known.get(more..).map(Self::new),
            false => None,
        })
    }
}

/// A stub and the location of its key's record: what a leaf stores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) head: u64,
    /// [`Stub::rest`] above the location.
    pub(super) tail: u64,
}

impl Slot {
    #[inline]
    pub(super) fn new(stub: Stub, location: Location) -> Self {
        Self {
            head: stub.head,
            tail: u64::from(stub.rest) << LOCATION_BITS | location.get(),
        }
    }

    #[inline]
    pub(super) fn stub(self) -> Stub {
        Stub {
            head: self.head,
            rest: (self.tail >> LOCATION_BITS) as u32,
        }
    }

    /// `None` only for a slot that was never filled.
    #[inline]
    pub(super) fn location(self) -> Option<Location> {
        Location::new(self.tail & Location::MAX)
    }

    #[inline]
    pub(super) fn is_at(self, location: Location) -> bool {
        self.tail & Location::MAX == location.get()
    }

    pub(super) fn with_stub(self, stub: Stub) -> Self {
        Self {
            head: stub.head,
            tail: u64::from(stub.rest) << LOCATION_BITS | self.tail & Location::MAX,
        }
    }

    pub(super) fn with_location(self, location: Location) -> Self {
        Self {
            head: self.head,
            tail: self.tail & !Location::MAX | location.get(),
        }
    }
}

/// How many bytes two keys have in common at their beginnings.
pub(super) fn common_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
