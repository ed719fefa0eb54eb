//! The bits of one entry and of the hash it is found by.
//!
//! | bits   | field                                                             |
//! |--------|-------------------------------------------------------------------|
//! | 0..44  | location; zero in the words [`Word::EMPTY`] and [`Word::DELETED`] |
//! | 44     | verified                                                          |
//! | 45     | tombstone                                                         |
//! | 46..49 | displacement: buckets between the home bucket and this one        |
//! | 49..64 | tag                                                               |
//!
//! The tag is the bits of the hash's rank that follow those which chose the
//! segment, highest first, closed by a sentinel 1 and filled up with zeros. A
//! new tag holds 14 bits. A split consumes the highest one (`tag << 1`), and a
//! merge puts it back. Invariant: every tag keeps at least [`TAG_BITS_MIN`]
//! bits above its sentinel, so that one masked comparison rules out most
//! entries.

use crate::{Entry, Location};

use super::{
    heads::{Heads, Slots},
    segment::BUCKETS,
};

const LOCATION: u64 = Location::MAX;
const VERIFIED: u64 = 1 << 44;
const TOMBSTONE: u64 = 1 << 45;
const DISPLACEMENT_AT: u32 = 46;
const DISPLACEMENT: u64 = 0b111 << DISPLACEMENT_AT;
const TAG_AT: u32 = 49;
const TAG: u64 = u64::MAX << TAG_AT;
const SENTINEL_NEW: u64 = 1 << TAG_AT;
const TAG_BITS: u32 = 64 - TAG_AT - 1;
/// Every tag holds at least so many bits of its hash.
pub(super) const TAG_BITS_MIN: u32 = 7;
/// The bits that can be compared in every entry, whatever its age.
const PREFILTER: u64 = u64::MAX << (64 - TAG_BITS_MIN) | DISPLACEMENT;

const _: () = assert!(LOCATION < VERIFIED && TAG_BITS == 14);
const _: () = assert!(LOCATION & PREFILTER == 0 && PREFILTER << u32::BITS == 0);
const _: () = assert!(TAG << u32::BITS == 0 && TOMBSTONE << u32::BITS == 0);

/// A hash, taken apart into what the index uses of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hash {
    /// Monotone in the hash, but denser at the low end by a factor of about
    /// two. The directory is indexed by its highest bits, so segments over
    /// the low end fill first, and splits are spread evenly over a doubling
    /// instead of all coming at once.
    rank: u64,
    home: usize,
}

impl Hash {
    #[inline]
    pub(super) fn new(hash: u64) -> Self {
        // rank = hash * (A + B * hash) in units of 2^64, close to 2^hash - 1.
        // The sum cannot overflow: `high(B, hash)` is below B, and A + B = 2^64.
        const A: u64 = 0xA810_624D_D2F1_A9FC; // 0.6565
        const B: u64 = A.wrapping_neg();
        let high = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64;
        Self {
            rank: high(hash, A + high(B, hash)),
            // The low bits are independent of the high bits of the rank.
            home: hash as usize % BUCKETS,
        }
    }

    #[inline]
    pub(super) fn rank(self) -> u64 {
        self.rank
    }

    #[inline]
    pub(super) fn home(self) -> usize {
        self.home
    }

    /// The bits an entry of this hash has in a segment of that depth, in a
    /// bucket so far from home; below the tag's end they mean nothing.
    #[inline]
    pub(super) fn pattern(self, depth: u32) -> Pattern {
        Pattern((self.rank << depth) & TAG)
    }
}

/// The tag and displacement looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern(u64);

impl Pattern {
    #[inline]
    pub(super) fn displaced(self, displacement: usize) -> Self {
        Self(self.0 | (displacement as u64) << DISPLACEMENT_AT)
    }

    /// The slots whose entries agree in what every entry has; rules out most, but proves
    /// nothing.
    #[inline]
    pub(super) fn candidates(self, heads: Heads) -> Slots {
        heads.with(head(self.0 & PREFILTER), head(PREFILTER))
    }
}

#[inline]
const fn head(word: u64) -> u32 {
    (word >> u32::BITS) as u32
}

/// One slot of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// A slot that ends the search for a key.
    pub(super) const EMPTY: Self = Self(0);
    /// A slot without an entry, but which does not end the search.
    pub(super) const DELETED: Self = Self(TOMBSTONE);

    /// A new entry.
    #[inline]
    pub(super) fn new(pattern: Pattern, location: Location, tombstone: bool) -> Self {
        let flag = if tombstone { TOMBSTONE } else { 0 };
        let tag = pattern.0 & !SENTINEL_NEW | SENTINEL_NEW;
        Self(tag | location.get() | flag)
    }

    /// The same hash bits in the same place, with another location.
    #[inline]
    pub(super) fn replaced(self, location: Location, tombstone: bool) -> Self {
        let flag = if tombstone { TOMBSTONE } else { 0 };
        Self(self.0 & (TAG | DISPLACEMENT) | location.get() | flag)
    }

    #[inline]
    pub(super) fn verified(self) -> Self {
        Self(self.0 | VERIFIED)
    }

    /// No entry: empty or deleted.
    #[inline]
    pub(super) fn is_free(self) -> bool {
        self.0 & LOCATION == 0
    }

    #[inline]
    pub(super) fn entry(self) -> Option<Entry> {
        let location = Location::new(self.0 & LOCATION)?;
        Some(Entry {
            location,
            verified: self.0 & VERIFIED != 0,
            tombstone: self.0 & TOMBSTONE != 0,
        })
    }

    /// The half that [`Heads`] are of.
    #[cfg_attr(
        all(target_arch = "x86_64", not(any(loom, miri))),
        expect(dead_code, reason = "the heads are loaded without")
    )]
    #[inline]
    pub(super) fn head(self) -> u32 {
        head(self.0)
    }

    /// The EMPTY slots. Every other word has a bit in its head: an entry the sentinel, and
    /// DELETED the tombstone's.
    #[inline]
    pub(super) fn empty_slots(heads: Heads) -> Slots {
        heads.with(head(Self::EMPTY.0), u32::MAX)
    }

    /// The slots without an entry: those without a sentinel.
    #[inline]
    pub(super) fn free_slots(heads: Heads) -> Slots {
        heads.with(0, head(TAG))
    }

    /// Whether this is an entry and all its hash bits fit.
    #[inline]
    pub(super) fn matches(self, pattern: Pattern) -> bool {
        let tag = self.0 & TAG;
        // The bits above the sentinel.
        let known = !(tag ^ tag.wrapping_sub(1));
        !self.is_free() && (self.0 ^ pattern.0) & (known | DISPLACEMENT) == 0
    }

    #[inline]
    pub(super) fn displacement(self) -> usize {
        ((self.0 & DISPLACEMENT) >> DISPLACEMENT_AT) as usize
    }

    #[inline]
    pub(super) fn displaced(self, displacement: usize) -> Self {
        Self(self.0 & !DISPLACEMENT | (displacement as u64) << DISPLACEMENT_AT)
    }

    /// The hash bits this tag still holds.
    #[inline]
    pub(super) fn tag_bits(self) -> u32 {
        (64 - 1_u32).saturating_sub((self.0 & TAG).trailing_zeros())
    }

    /// Which half of its segment the entry belongs to.
    #[inline]
    pub(super) fn upper_half(self) -> bool {
        self.0 >> 63 == 1
    }

    /// The entry as it is after a split, or `None` if its tag is worn out.
    #[inline]
    pub(super) fn split(self) -> Option<Self> {
        // The sentinel is below the bits that every tag keeps.
        const LAST: u64 = 1 << (64 - 1 - TAG_BITS_MIN);
        (self.0 & TAG & (LAST - 1) != 0).then_some(Self((self.0 & TAG) << 1 | self.0 & !TAG))
    }

    /// The entry with the tag of a hash, read again, for that depth.
    pub(super) fn retagged(self, hash: Hash, depth: u32) -> Self {
        let tag = hash.pattern(depth).0 & !SENTINEL_NEW | SENTINEL_NEW;
        Self(self.0 & !TAG | tag)
    }

    /// The entry as it is after its segment became a half of a larger one.
    pub(super) fn merged(self, upper_half: bool) -> Self {
        let tag = self.0 & TAG;
        let half = u64::from(upper_half) << 63;
        // A full tag gives up its last bit and keeps its sentinel.
        Self(self.0 & !TAG | tag >> 1 & TAG | half | tag & SENTINEL_NEW)
    }

    /// The largest rank this entry's hash can have, given where its segment
    /// starts.
    pub(super) fn rank_max(self, start: u64, depth: u32) -> u64 {
        let bits = self.tag_bits();
        let known = (self.0 & TAG) & !(u64::MAX.checked_shr(bits).unwrap_or(0));
        let unknown = u64::MAX.checked_shr(depth + bits).unwrap_or(0);
        start | known >> depth | unknown
    }

    /// The entry as an image may hold it: no flags.
    pub(super) fn for_image(self, location: Location) -> Self {
        self.replaced(location, false)
    }

    /// Whether an image may hold this word.
    pub(super) fn is_sound(self, position_end: u64) -> bool {
        if self.is_free() {
            return self == Self::EMPTY || self == Self::DELETED;
        }
        let bits = self.tag_bits();
        self.0 & LOCATION < position_end
            && self.0 & (VERIFIED | TOMBSTONE) == 0
            && (TAG_BITS_MIN..=TAG_BITS).contains(&bits)
            && self.displacement() < super::segment::PROBES
    }
}
