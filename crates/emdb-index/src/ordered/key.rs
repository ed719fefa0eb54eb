//! What a leaf knows of a key: ten bytes after the leaf's prefix, and whether
//! these are all of it. Beside it a slot has the location, and whether the record
//! there was verified.
//!
//! Invariant: stubs over the same prefix compare as their keys do, and equal
//! stubs that are whole are equal keys. Only equal stubs of longer keys must be
//! told apart by reading the records.

use crate::Location;

/// How many bytes of a key a stub holds.
pub(super) const KNOWN: usize = 10;
/// The length given for all keys longer than a stub.
const LONGER: usize = KNOWN + 1;
/// How often the two bytes and the length are one apart; see [`Stub::rest`].
const LENGTHS: u32 = 4;
/// The bit of a slot's second word above its location.
const VERIFIED: u64 = Location::MAX + 1;
/// Where the stub begins, above that.
const STUB_AT: u32 = VERIFIED.trailing_zeros() + 1;

const _: () = assert!(u16::MAX as u32 * LENGTHS + LONGER as u32 <= u32::MAX >> (STUB_AT - 32));

/// The beginning of a key after a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stub {
    /// The first eight bytes, as a number that compares as they do.
    pub(super) head: u64,
    /// Two bytes more as a number, times four, and the length of the key after the
    /// prefix, at most `LONGER`.
    ///
    /// Missing bytes are zero, so of two keys that differ only in zeros at
    /// their ends, the length says which is the shorter, and so the lower one. If the
    /// two bytes are not both zero, the length is at least nine: so whatever the bytes,
    /// the sum rises with them, and says what it was made of.
    pub(super) rest: u32,
}

impl Stub {
    #[inline]
    pub(super) fn new(key: &[u8]) -> Self {
        let mut bytes = [0; 16];
        match (key.first_chunk::<KNOWN>(), bytes.first_chunk_mut()) {
            (Some(from), Some(to)) => *to = *from,
            _ => bytes.iter_mut().zip(key).for_each(|(to, from)| *to = *from),
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
            rest: two * LENGTHS + len.min(LONGER) as u32,
        }
    }

    /// Whether the stub holds the whole key.
    #[inline]
    pub(super) fn is_whole(self) -> bool {
        self.len() != LONGER
    }

    /// Whether it can have been made of a key.
    pub(super) fn is_sound(self) -> bool {
        self.two() <= u32::from(u16::MAX) && self.len() <= LONGER
    }

    /// The two bytes after the first eight.
    #[inline]
    fn two(self) -> u32 {
        const LEN_MIN: u32 = 9;
        self.rest.saturating_sub(LEN_MIN) / LENGTHS
    }

    #[inline]
    fn len(self) -> usize {
        (self.rest - self.two() * LENGTHS) as usize
    }

    /// Calls `use_it` with the bytes that the stub holds.
    pub(super) fn with_bytes<T>(self, use_it: impl FnOnce(&[u8]) -> T) -> T {
        let two = u128::from(self.two()) << 48;
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
    /// [`Stub::rest`] above the verified bit above the location.
    pub(super) tail: u64,
}

impl Slot {
    #[inline]
    pub(super) fn new(stub: Stub, location: Location) -> Self {
        Self {
            head: stub.head,
            tail: u64::from(stub.rest) << STUB_AT | location.get(),
        }
    }

    #[inline]
    pub(super) fn stub(self) -> Stub {
        Stub {
            head: self.head,
            rest: (self.tail >> STUB_AT) as u32,
        }
    }

    /// `None` only for a slot that was never filled.
    #[inline]
    pub(super) fn location(self) -> Option<Location> {
        Location::new(self.tail & Location::MAX)
    }

    /// Whether someone has said that the record at the location is sound.
    #[inline]
    pub(super) fn is_verified(self) -> bool {
        self.tail & VERIFIED != 0
    }

    #[inline]
    pub(super) fn verified(self) -> Self {
        Self {
            tail: self.tail | VERIFIED,
            ..self
        }
    }

    pub(super) fn unverified(self) -> Self {
        Self {
            tail: self.tail & !VERIFIED,
            ..self
        }
    }

    #[inline]
    pub(super) fn is_at(self, location: Location) -> bool {
        self.tail & Location::MAX == location.get()
    }

    pub(super) fn with_stub(self, stub: Stub) -> Self {
        Self {
            head: stub.head,
            tail: u64::from(stub.rest) << STUB_AT | self.tail & (VERIFIED | Location::MAX),
        }
    }

    /// Nobody has verified the record at another location.
    pub(super) fn with_location(self, location: Location) -> Self {
        Self {
            head: self.head,
            tail: self.tail & !(VERIFIED | Location::MAX) | location.get(),
        }
    }
}

/// How many of the first words of a rising sequence are below another.
///
/// Compares the first word of every cache line, then those of one line: the
/// lines are loaded at the same time, where halving would wait for one after the other.
#[inline]
pub(super) fn count_below<T>(words: &[T], is_below: impl Fn(&T) -> bool) -> usize {
    /// Words of a cache line.
    const LINE: usize = 8;
    let is_below = |word| usize::from(is_below(word));
    let lines: usize = words.iter().step_by(LINE).map(is_below).sum();
    let Some(before) = lines.checked_sub(1) else {
        return 0;
    };
    let line = words.iter().skip(before * LINE).take(LINE);
    before * LINE + line.map(is_below).sum::<usize>()
}

/// How far a guess may be off for a search to end around it: a few times the distance
/// between a key and where it would be if the keys were spread evenly.
pub(super) const NEAR: usize = 12;

/// As `count_below`, where it is likely to be `near`.
#[inline]
pub(super) fn count_below_near<T>(
    words: &[T],
    near: usize,
    is_below: impl Fn(&T) -> bool,
) -> usize {
    let start = near.saturating_sub(NEAR);
    let end = near.saturating_add(NEAR).min(words.len());
    if let Some(around @ [first, .., last]) = words.get(start..end)
        && (start == 0 || is_below(first))
        && (end == words.len() || !is_below(last))
    {
        return start + count_below(around, is_below);
    }
    count_below(words, is_below)
}

/// How many bytes two keys have in common at their beginnings.
pub(super) fn common_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::{Slot, Stub, count_below, count_below_near};
    use crate::Location;

    #[test]
    fn stubs_compare_as_their_keys_and_hold_them() {
        let bytes = [0, 1, 2, 255];
        let mut keys: Vec<Vec<u8>> = (0..8).map(|len| vec![0; len]).collect();
        for head in [&[0; 8][..], b"12345678", &[255; 8]] {
            keys.push(head.to_vec());
            for ninth in bytes {
                keys.push([head, &[ninth]].concat());
                for tenth in bytes {
                    keys.push([head, &[ninth, tenth]].concat());
                    keys.push([head, &[ninth, tenth], b"more"].concat());
                }
            }
        }
        keys.sort();
        let stubs: Vec<_> = keys.iter().map(|key| Stub::new(key)).collect();
        assert!(stubs.is_sorted_by(|a, b| a < b));
        let location = Location::new(Location::MAX).expect("the largest");
        for (key, stub) in keys.iter().zip(stubs) {
            assert_eq!(stub.is_whole(), key.len() <= 10);
            assert!(stub.is_sound());
            stub.with_bytes(|known| assert_eq!(known, &key[..key.len().min(10)]));
            for slot in [
                Slot::new(stub, location),
                Slot::new(stub, location).verified(),
            ] {
                assert_eq!(slot.stub(), stub);
                assert_eq!(slot.location(), Some(location));
                assert!(!slot.unverified().is_verified());
            }
        }
    }

    #[test]
    fn only_the_same_location_stays_verified() {
        let [one, other] = [1, 2].map(|position| Location::new(position).expect("not zero"));
        let slot = Slot::new(Stub::new(b"key"), one);
        assert!(!slot.is_verified());
        let verified = slot.verified();
        assert!(verified.is_verified());
        assert!(verified.with_stub(Stub::new(b"ey")).is_verified());
        assert!(!verified.with_location(other).is_verified());
    }

    #[test]
    fn a_guess_changes_nothing_but_where_is_looked_first() {
        for len in [0, 1, 5, 12, 40, 96, 128] {
            let words: Vec<u64> = (0..len).map(|at| at / 3 * 10).collect();
            for sought in 0..len * 4 + 2 {
                let is_below = |word: &u64| *word < sought;
                let count = words.partition_point(is_below);
                assert_eq!(count_below(&words, is_below), count);
                for near in [0, 3, 11, 12, 13, 50, 90, 127, 128, 200, usize::MAX] {
                    assert_eq!(count_below_near(&words, near, is_below), count);
                }
            }
        }
    }
}
