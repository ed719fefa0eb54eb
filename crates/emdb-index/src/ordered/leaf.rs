//! A leaf: the slots of one range of keys, sorted, read without a lock.
//!
//! Bounds, prefix and capacity of a leaf never change. Its slots do, in place:
//! by the holder of its lock, between two steps of `sequence`. A reader reads
//! the slots between two loads of `sequence`, and again if a change came
//! between. All slots are atomics, so a torn read gives wrong words, but
//! nothing worse; each of them was stored here once, so a location in it names
//! a record, if perhaps not the one of the stub beside it.

use std::ops::Range;

use crate::{
    Location,
    hash::Place,
    primitive::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, fence, lock, pause},
};

use super::{
    fence::Bytes,
    key::{Slot, Stub, count_below, count_below_near},
};

/// The most slots of a leaf.
#[cfg(not(loom))]
pub(super) const SLOTS_MAX: usize = 128;
#[cfg(loom)]
pub(super) const SLOTS_MAX: usize = 2;

/// The slots of the keys from a fence's bytes to `high`.
///
/// What readers look at comes first, on one or two cache lines.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Leaf {
    /// Odd while slots change.
    sequence: AtomicU64,
    len: AtomicU32,
    /// The stubs' heads, then as many tails.
    words: Box<[AtomicU64]>,
    /// All keys of the leaf begin with it.
    prefix: Bytes,
    writer: Mutex<Writer>,
    /// All keys of the leaf are below.
    high: Option<Bytes>,
}

/// Who may change a leaf, and what the last changes were.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) state: State,
    last: usize,
    /// How many inserts in a row came right behind the one before.
    rising: u32,
    /// How many came right before it.
    falling: u32,
}

/// Whether a leaf takes changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not yet: the leaf whose place it takes can still be found.
    Closed,
    Open,
    /// No longer: others have taken its place.
    Retired,
}

/// Where a key is in a leaf, as far as stubs tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    Found(usize),
    /// It would be there.
    Absent(usize),
    /// Equal to it, or right below or above it.
    Tied(Range<usize>),
}

/// The order in which keys came to a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trend {
    None,
    Rising,
    Falling,
}

impl Writer {
    /// So many inserts in a row are no chance.
    const TREND: u32 = 8;

    pub(super) fn note(&mut self, at: usize) {
        let next = self.last.wrapping_add(1);
        self.rising = if at == next {
            self.rising.saturating_add(1)
        } else {
            0
        };
        self.falling = if at == self.last {
            self.falling.saturating_add(1)
        } else {
            0
        };
        self.last = at;
    }

    pub(super) fn trend(&self) -> Trend {
        match (self.rising, self.falling) {
            (Self::TREND.., _) => Trend::Rising,
            (_, Self::TREND..) => Trend::Falling,
            _ => Trend::None,
        }
    }
}

impl Leaf {
    /// A closed leaf. It has room for all `slots`, and up to `capacity`.
    pub(super) fn new(prefix: Bytes, high: Option<Bytes>, slots: &[Slot], capacity: usize) -> Self {
        let capacity = capacity.max(slots.len());
        let room = capacity - slots.len();
        let zeros = || std::iter::repeat_n(0, room);
        let heads = slots.iter().map(|slot| slot.head).chain(zeros());
        let tails = slots.iter().map(|slot| slot.tail).chain(zeros());
        Self {
            sequence: AtomicU64::new(0),
            len: AtomicU32::new(slots.len() as u32),
            writer: Mutex::new(Writer {
                state: State::Closed,
                last: 0,
                rising: 0,
                falling: 0,
            }),
            high,
            prefix,
            words: heads.chain(tails).map(AtomicU64::new).collect(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }

    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Writer>> {
        self.writer.try_lock().ok()
    }

    pub(super) fn high(&self) -> Option<&Bytes> {
        self.high.as_ref()
    }

    /// Whether `key` is below the leaf's end.
    #[inline]
    pub(super) fn is_above(&self, key: &[u8]) -> bool {
        let high = self.high.as_ref();
        high.is_none_or(|high| key < high.as_slice())
    }

    pub(super) fn prefix(&self) -> &[u8] {
        self.prefix.as_slice()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        // Relaxed: `read` orders it, or the lock.
        self.len.load(Ordering::Relaxed) as usize
    }

    pub(super) fn capacity(&self) -> usize {
        self.words.len() / 2
    }

    pub(super) fn place_of_words(&self) -> Place {
        Place::of(&self.words)
    }

    /// Begins to load what readers look at, but for the slots.
    #[inline]
    pub(super) fn prefetch(&self) {
        Place::of(std::slice::from_ref(self)).prefetch();
    }

    /// Memory besides the value itself.
    pub(super) fn heap_bytes(&self) -> usize {
        let high = self.high.as_ref().map_or(0, Bytes::heap_bytes);
        size_of_val(&*self.words) + self.prefix.heap_bytes() + high
    }

    /// Calls `look` until nothing changed meanwhile.
    ///
    /// What it returned before, errors too, is as if it had never been.
    #[inline]
    pub(super) fn read<T>(&self, mut look: impl FnMut() -> T) -> T {
        let mut turn = 0;
        loop {
            // Acquire: pairs with the Release in `change`, receives the slots.
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let seen = look();
                // Acquire: pairs with the Release fence in `change`. If any slot
                // that `look` loaded is of a change, its odd number is seen below.
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return seen;
                }
            }
            pause(&mut turn);
        }
    }

    /// Where a key is, or where it would be.
    ///
    /// Within `read`, or under the lock, as all that looks at slots.
    #[inline]
    pub(super) fn search<K: AsRef<[u8]>, E>(
        &self,
        key: &[u8],
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
    ) -> Result<Result<usize, usize>, E> {
        match self.seek(key, None) {
            Sought::Found(at) => Ok(Ok(at)),
            Sought::Absent(at) => Ok(Err(at)),
            Sought::Tied(tied) => self.search_tied(tied, key, resolve),
        }
    }

    /// What the leaf itself knows of where a key is: looks around the slot `near` first.
    #[inline]
    pub(super) fn seek(&self, key: &[u8], near: Option<usize>) -> Sought {
        let Some(rest) = key.strip_prefix(self.prefix()) else {
            let is_below = key < self.prefix();
            return Sought::Absent(if is_below { 0 } else { self.len() });
        };
        let stub = Stub::new(rest);
        let equals = self.equals(stub, near);
        if equals.is_empty() {
            Sought::Absent(equals.start)
        } else if stub.is_whole() {
            Sought::Found(equals.start)
        } else {
            Sought::Tied(equals)
        }
    }

    /// Where a key is, or would be, among slots that its stub is equal to.
    pub(super) fn search_tied<K: AsRef<[u8]>, E>(
        &self,
        tied: Range<usize>,
        key: &[u8],
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
    ) -> Result<Result<usize, usize>, E> {
        let Range { mut start, mut end } = tied;
        while start < end {
            let middle = start.midpoint(end);
            let Some(location) = self.slot(middle).location() else {
                break;
            };
            match resolve(location)?.as_ref().cmp(key) {
                std::cmp::Ordering::Less => start = middle + 1,
                std::cmp::Ordering::Equal => return Ok(Ok(middle)),
                std::cmp::Ordering::Greater => end = middle,
            }
        }
        Ok(Err(start))
    }

    /// Where a key is whose record is at `location`.
    pub(super) fn search_location(&self, key: &[u8], location: Location) -> Option<usize> {
        let rest = key.strip_prefix(self.prefix())?;
        let mut equals = self.equals(Stub::new(rest), None);
        equals.find(|at| self.slot(*at).is_at(location))
    }

    /// The slots with that stub; if there are none, where they would be.
    #[inline]
    fn equals(&self, stub: Stub, near: Option<usize>) -> Range<usize> {
        let len = self.len();
        let heads = self.words.get(..len).unwrap_or_default();
        let is_below = |head: &AtomicU64| head.load(Ordering::Relaxed) < stub.head;
        let start = match near {
            Some(near) => count_below_near(heads, near, is_below),
            None => count_below(heads, is_below),
        };
        if start == len || self.head(start) != stub.head {
            return start..start;
        }
        // Most heads are there once.
        let end = match start + 1 < len && self.head(start + 1) == stub.head {
            true => partition(start..len, |at| self.head(at) == stub.head),
            false => start + 1,
        };
        let start = partition(start..end, |at| self.slot(at).stub() < stub);
        start..partition(start..end, |at| self.slot(at).stub() == stub)
    }

    #[inline]
    fn head(&self, at: usize) -> u64 {
        let word = self.words.get(at);
        word.map_or(0, |word| word.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn slot(&self, at: usize) -> Slot {
        // Acquire: pairs with the Release in `change`; whoever finds a location
        // here finds its record written.
        let tail = self.words.get(self.capacity() + at);
        Slot {
            head: self.head(at),
            tail: tail.map_or(0, |word| word.load(Ordering::Acquire)),
        }
    }

    /// The second words of some slots; their first words are left out.
    #[inline]
    pub(super) fn tails(&self, range: Range<usize>) -> impl DoubleEndedIterator<Item = Slot> + '_ {
        let (_, tails) = self.words.split_at(self.capacity());
        let tails = tails.get(range).unwrap_or_default().iter();
        // Acquire: as in `slot`.
        tails.map(|tail| Slot {
            head: 0,
            tail: tail.load(Ordering::Acquire),
        })
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.len()).map(|at| self.slot(at))
    }

    /// Puts a slot before the one at `at`. Under the lock, and only if there is room.
    pub(super) fn insert(&self, at: usize, slot: Slot) {
        let len = self.len();
        self.change(|heads, tails| {
            let range = at..len.saturating_add(1);
            if let (Some(heads), Some(tails)) = (heads.get(range.clone()), tails.get(range)) {
                shift_up(heads, slot.head);
                shift_up(tails, slot.tail);
                self.len.store(len as u32 + 1, Ordering::Relaxed);
            }
        });
    }

    /// Takes the slot at `at` out. Under the lock.
    pub(super) fn remove(&self, at: usize) {
        let len = self.len();
        self.change(|heads, tails| {
            if let (Some(heads), Some(tails)) = (heads.get(at..len), tails.get(at..len)) {
                shift_down(heads);
                shift_down(tails);
                self.len.store(len as u32 - 1, Ordering::Relaxed);
            }
        });
    }

    /// Stores another location for the key at `at`. Under the lock.
    pub(super) fn replace(&self, at: usize, location: Location) -> Option<Location> {
        let old = self.slot(at);
        if let Some(word) = self.words.get(self.capacity() + at) {
            // One word, so no reader can see half of it, and none need look again.
            // Release: pairs with the Acquire in `slot`, publishes the record.
            word.store(old.with_location(location).tail, Ordering::Release);
        }
        old.location()
    }

    /// Remembers that the record at `location` was verified, if that is still at `at`.
    ///
    /// Without the lock: a location names one record for good, so the bit is true
    /// wherever a writer that read the word puts it; if it had read it before, the bit
    /// is lost, and somebody verifies once more.
    pub(super) fn set_verified(&self, at: usize, location: Location) {
        let slot = self.slot(at);
        if slot.is_at(location)
            && let Some(word) = self.words.get(self.capacity() + at)
        {
            // Relaxed: publishes nothing; the word's Release goes on.
            let _ = word.compare_exchange(
                slot.tail,
                slot.verified().tail,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// Stores all slots anew. Under the lock, and only if there is room.
    pub(super) fn refill(&self, slots: &[Slot]) {
        self.change(|heads, tails| {
            for ((head, tail), slot) in heads.iter().zip(tails).zip(slots) {
                head.store(slot.head, Ordering::Relaxed);
                tail.store(slot.tail, Ordering::Release);
            }
            self.len.store(slots.len() as u32, Ordering::Relaxed);
        });
    }

    #[inline]
    fn change(&self, change: impl FnOnce(&[AtomicU64], &[AtomicU64])) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        // Release: pairs with the Acquire fence in `read`.
        fence(Ordering::Release);
        let (heads, tails) = self.words.split_at(self.capacity());
        change(heads, tails);
        // Release: pairs with the Acquire in `read`.
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }
}

/// Where the first place is at which `is_before` no longer holds.
#[inline]
fn partition(range: Range<usize>, is_before: impl Fn(usize) -> bool) -> usize {
    let Range { mut start, mut end } = range;
    while start < end {
        let middle = start.midpoint(end);
        match is_before(middle) {
            true => start = middle + 1,
            false => end = middle,
        }
    }
    start
}

/// Moves each word to the next place, and `word` to the first.
///
/// Release: a location may be received through any place it comes to.
#[inline]
fn shift_up(words: &[AtomicU64], mut word: u64) {
    for place in words {
        let next = place.load(Ordering::Relaxed);
        place.store(word, Ordering::Release);
        word = next;
    }
}

/// Moves each word but the first to the place before.
#[inline]
fn shift_down(words: &[AtomicU64]) {
    for (to, from) in words.iter().zip(words.iter().skip(1)) {
        to.store(from.load(Ordering::Relaxed), Ordering::Release);
    }
}
