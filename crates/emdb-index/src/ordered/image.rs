//! The ordered index as bytes, and back.
//!
//! An image is position independent, written front to back, and made of
//! little-endian integers:
//!
//! | bytes | what                                                             |
//! |-------|------------------------------------------------------------------|
//! |       | n groups of leaves, one after the other, in the order of keys    |
//! | 8 * n | for each: its length (4), CRC32C of its bytes (4)                |
//! | 24    | magic (8), n (8), CRC32C of the n entries above (4), CRC32C of the 20 bytes before (4) |
//!
//! A group is some leaves. Of each:
//!
//! | bytes | what                                                             |
//! |-------|------------------------------------------------------------------|
//! | 4     | length of the lower bound                                        |
//! | 4     | length of the prefix                                             |
//! | 4     | number of slots, s                                               |
//! |       | the lower bound, then the prefix                                 |
//! | 8 * s | the first words of the slots, as the `key` module describes them |
//! | 8 * s | their second words, none of them verified                        |
//!
//! A leaf ends where the next one begins. Opening checks all of it and makes
//! leaves of it; nothing refers to the image then.

use std::sync::{OnceLock, atomic::AtomicUsize};

use crate::{Error, Location, primitive::Ordering};

use super::{
    OrderedIndex,
    directory::{Directory, LEAVES_FILLED, Pin},
    draft::SLOTS_MIN,
    fence::Bytes,
    key::Slot,
    leaf::{Leaf, SLOTS_MAX},
};

const MAGIC: [u8; 8] = *b"emdbord2";
const ENTRY_BYTES: usize = 8;
const END_BYTES: usize = 24;
/// Fewer groups are not worth another thread.
const GROUPS_A_THREAD: usize = 32;
/// More threads wait for memory, and for each other.
const THREADS_MAX: usize = 4;

impl OrderedIndex {
    /// Writes an image of the index to `sink`, front to back, and returns its
    /// length in bytes.
    ///
    /// `choose` says which location of the same key the image shall hold in place
    /// of one that is there, or `None` to leave the key out. For `resolve`, see
    /// [`OrderedIndex::insert`]; it is called only where leaves were merged meanwhile.
    ///
    /// Writers may go on. A key that is there all the time is seen exactly once.
    /// Takes O(n), and memory for a few leaves.
    ///
    /// # Errors
    /// What the closures return.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use emdb_index::{Location, OrderedIndex};
    ///
    /// let at = Location::new(1).expect("not zero");
    /// let index = OrderedIndex::build([("key", at)])?;
    /// let mut image = Vec::new();
    /// let len = index.write_image::<&str, Infallible>(
    ///     &mut |location| Ok(Some(location)),
    ///     |_| Ok("key"),
    ///     &mut |bytes| {
    ///         image.extend_from_slice(bytes);
    ///         Ok(())
    ///     },
    /// )?;
    /// assert_eq!(len, image.len() as u64);
    /// assert_eq!(OrderedIndex::from_image(&image, 2)?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_image<K: AsRef<[u8]>, E>(
        &self,
        choose: &mut dyn FnMut(Location) -> Result<Option<Location>, E>,
        mut resolve: impl FnMut(Location) -> Result<K, E>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let (mut entries, mut group, mut leaves) = (Vec::new(), Vec::new(), 0);
        let mut slots: Vec<Slot> = Vec::new();
        let mut len = 0;
        let mut next = Some(Bytes::default());
        while let Some(low) = next {
            let prefix;
            {
                let pin = Pin::new();
                let node = self.directory.find(low.as_slice(), &pin);
                let leaf = node.leaf();
                let is_merged = node.low().as_slice() < low.as_slice();
                leaf.read(|| {
                    slots.clear();
                    let start = match is_merged {
                        false => 0,
                        true => match leaf.search(low.as_slice(), &mut resolve)? {
                            Ok(at) | Err(at) => at,
                        },
                    };
                    slots.extend(leaf.slots().skip(start));
                    Ok(())
                })?;
                prefix = leaf.prefix().to_vec();
                next = leaf.high().cloned();
            }
            let mut kept = 0;
            for at in 0..slots.len() {
                let slot = slots.get(at).copied();
                let chosen = slot.and_then(Slot::location).map(&mut *choose);
                if let (Some(slot), Some(location)) = (slot, chosen.transpose()?.flatten())
                    && let Some(place) = slots.get_mut(kept)
                {
                    *place = slot.with_location(location);
                    kept += 1;
                }
            }
            slots.truncate(kept);
            put_leaf(&mut group, low.as_slice(), &prefix, &slots);
            leaves += 1;
            if leaves == LEAVES_FILLED || next.is_none() {
                entries.extend_from_slice(&(group.len() as u32).to_le_bytes());
                entries.extend_from_slice(&crc32c::crc32c(&group).to_le_bytes());
                sink(&group)?;
                len += group.len() as u64;
                group.clear();
                leaves = 0;
            }
        }
        let count = (entries.len() / ENTRY_BYTES) as u64;
        let end = end(count, crc32c::crc32c(&entries));
        entries.extend_from_slice(&end);
        sink(&entries)?;
        Ok(len + entries.len() as u64)
    }

    /// Makes an index of an image: `bytes` must be exactly what
    /// [`write_image`](Self::write_image) wrote, its locations below `max_position`.
    ///
    /// Checks all of it, in several threads if it is large, and copies it.
    /// No key is read: only the caller can know whether the keys are those of
    /// the records.
    ///
    /// # Errors
    /// [`Error::Damaged`] if this is not an image.
    pub fn from_image(bytes: &[u8], max_position: u64) -> Result<Self, Error> {
        let groups = groups(bytes).ok_or(Error::Damaged)?;
        let directory = Directory::new();
        let shoots: Vec<_> = groups.iter().map(|_| OnceLock::new()).collect();
        let taken = AtomicUsize::new(0);
        let work = || {
            let mut count = 0;
            // Relaxed: only which groups are left.
            while let at = taken.fetch_add(1, Ordering::Relaxed)
                && let (Some(group), Some(place)) = (groups.get(at), shoots.get(at))
            {
                let next = groups.get(at + 1).map(|next| next.bytes);
                let leaves = group.leaves(at == 0, next, max_position)?;
                count += leaves
                    .iter()
                    .map(|(_, leaf)| leaf.len() as u64)
                    .sum::<u64>();
                // Nobody else has taken this group.
                let _ = place.set(directory.sprout(leaves)?);
            }
            Some(count)
        };
        let count = in_threads(groups.len() / GROUPS_A_THREAD, work).ok_or(Error::Damaged)?;
        let shoots = shoots.into_iter().filter_map(OnceLock::into_inner);
        directory.graft(shoots, &Pin::new());
        Ok(Self::of(directory, count))
    }
}

/// Adds up what `work` returns in up to `count` threads, this one among them; without
/// another thread, this one does it all.
fn in_threads(count: usize, work: impl Fn() -> Option<u64> + Sync) -> Option<u64> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let helpers = match cfg!(loom) {
        true => 0,
        false => count.min(cores).min(THREADS_MAX).saturating_sub(1),
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers)
            .map_while(|_| {
                let builder = std::thread::Builder::new().name("emdb-order".to_owned());
                builder.spawn_scoped(scope, &work).ok()
            })
            .collect();
        let own = work();
        let others = helpers.into_iter().map(|helper| helper.join().ok()?);
        // All are waited for, whatever they say.
        let all: Vec<_> = others.chain([own]).collect();
        all.into_iter().sum()
    })
}

fn put_leaf(group: &mut Vec<u8>, low: &[u8], prefix: &[u8], slots: &[Slot]) {
    for len in [low.len(), prefix.len(), slots.len()] {
        group.extend_from_slice(&(len as u32).to_le_bytes());
    }
    group.extend_from_slice(low);
    group.extend_from_slice(prefix);
    group.extend(slots.iter().flat_map(|slot| slot.head.to_le_bytes()));
    group.extend(
        slots
            .iter()
            .flat_map(|slot| slot.unverified().tail.to_le_bytes()),
    );
}

/// The last bytes of an image.
fn end(count: u64, checksum: u32) -> [u8; END_BYTES] {
    let mut bytes = [0; END_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&count.to_le_bytes());
    bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..20]);
    bytes[20..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// A part of an image, not checked yet.
struct Group<'a> {
    bytes: &'a [u8],
    checksum: u32,
}

/// The groups of an image whose end and directory are as they were written.
fn groups(bytes: &[u8]) -> Option<Vec<Group<'_>>> {
    let (image, last) = bytes.split_last_chunk::<END_BYTES>()?;
    let (count, _) = last[8..].split_first_chunk()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    let split = image.len().checked_sub(count.checked_mul(ENTRY_BYTES)?)?;
    let (mut rest, directory) = image.split_at_checked(split)?;
    if end(count as u64, crc32c::crc32c(directory)) != *last {
        return None;
    }
    let mut groups = Vec::with_capacity(count);
    for [a, b, c, d, checksum @ ..] in directory.as_chunks::<ENTRY_BYTES>().0 {
        let len = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let bytes;
        (bytes, rest) = rest.split_at_checked(len)?;
        let checksum = u32::from_le_bytes(*checksum);
        groups.push(Group { bytes, checksum });
    }
    // Without a leaf, there would be none for any key.
    (rest.is_empty() && !groups.is_empty()).then_some(groups)
}

impl Group<'_> {
    /// Its leaves. `next` is the group behind it, whose checksum counts as well.
    fn leaves(
        &self,
        is_first: bool,
        next: Option<&[u8]>,
        max_position: u64,
    ) -> Option<Vec<(Bytes, Leaf)>> {
        if crc32c::crc32c(self.bytes) != self.checksum {
            return None;
        }
        let mut leaves = Vec::with_capacity(LEAVES_FILLED);
        let (mut slots, mut rest) = (Vec::with_capacity(SLOTS_MAX), self.bytes);
        if is_first && !LeafBytes::read(&mut { rest })?.low.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let leaf = LeafBytes::read(&mut rest)?;
            let above = match (rest.is_empty(), next) {
                (true, None) => None,
                (true, Some(mut next)) => Some(LeafBytes::read(&mut next)?.low),
                (false, _) => Some(LeafBytes::read(&mut { rest })?.low),
            };
            leaf.slots(&mut slots, max_position)?;
            if above.is_some_and(|above| above <= leaf.low) {
                return None;
            }
            // As much room as a fresh index has for so many.
            let room = slots.len().saturating_add(slots.len() / 8);
            let capacity = room.next_multiple_of(8).clamp(SLOTS_MIN, SLOTS_MAX);
            let (prefix, high) = (Bytes::new(leaf.prefix), above.map(Bytes::new));
            leaves.push((
                Bytes::new(leaf.low),
                Leaf::new(prefix, high, &slots, capacity),
            ));
        }
        (!leaves.is_empty()).then_some(leaves)
    }
}

/// A leaf in an image.
struct LeafBytes<'a> {
    low: &'a [u8],
    prefix: &'a [u8],
    heads: &'a [u8],
    tails: &'a [u8],
}

impl<'a> LeafBytes<'a> {
    /// Takes a leaf off the front of `bytes`.
    fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let lens;
        (lens, *bytes) = bytes.split_first_chunk::<12>()?;
        let (lens, _) = lens.as_chunks();
        let mut take = |len: usize| {
            let taken;
            (taken, *bytes) = bytes.split_at_checked(len)?;
            Some(taken)
        };
        let [low, prefix, slots] = [0, 1, 2].map(|at| u32::from_le_bytes(lens[at]) as usize);
        let words = slots.checked_mul(size_of::<u64>())?;
        Some(Self {
            low: take(low)?,
            prefix: take(prefix)?,
            heads: take(words)?,
            tails: take(words)?,
        })
    }

    /// Puts its slots into `slots`, if they are such as a leaf can have.
    fn slots(&self, slots: &mut Vec<Slot>, max_position: u64) -> Option<()> {
        slots.clear();
        let words = |bytes: &'a [u8]| bytes.as_chunks().0.iter().copied().map(u64::from_le_bytes);
        slots.extend(
            words(self.heads)
                .zip(words(self.tails))
                .take(SLOTS_MAX + 1)
                .map(|(head, tail)| Slot { head, tail }),
        );
        let is_sound = |slot: &Slot| {
            let location = slot.location();
            slot.stub().is_sound()
                && !slot.is_verified()
                && location.is_some_and(|at| at.get() < max_position)
        };
        let rises = slots.is_sorted_by_key(|slot| slot.stub());
        (slots.len() <= SLOTS_MAX && rises && slots.iter().all(is_sound)).then_some(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::{RangeBatch, RangeCursor};

    /// An image of these groups, all of whose checksums are right.
    fn image(groups: &[Vec<u8>]) -> Vec<u8> {
        let mut entries = Vec::new();
        for group in groups {
            entries.extend_from_slice(&(group.len() as u32).to_le_bytes());
            entries.extend_from_slice(&crc32c::crc32c(group).to_le_bytes());
        }
        let end = end(groups.len() as u64, crc32c::crc32c(&entries));
        [groups.concat(), entries, end.to_vec()].concat()
    }

    /// Whatever was let in can be walked to its end.
    fn open(groups: &[Vec<u8>]) -> Option<u64> {
        let index = OrderedIndex::from_image(&image(groups), Location::MAX).ok()?;
        let (mut range, mut batch, mut count) = (RangeCursor::default(), RangeBatch::default(), 0);
        let resolve = |_| Ok::<_, Infallible>(b"key");
        // More at once than a leaf has: no key is asked for.
        while let Ok(true) = index.next_batch(&mut range, SLOTS_MAX, &mut batch, resolve) {
            count += batch.entries().len() as u64;
        }
        assert!(count <= index.len());
        Some(count)
    }

    fn leaf(low: &[u8], prefix: &[u8], slots: &[Slot]) -> Vec<u8> {
        let mut group = Vec::new();
        put_leaf(&mut group, low, prefix, slots);
        group
    }

    #[test]
    fn leaves_that_cannot_be_are_refused_whatever_their_checksums_say() {
        let slot = |head| Slot {
            head,
            tail: 1 << 45 | 7,
        };
        let (first, second) = (leaf(b"", b"p", &[slot(1)]), leaf(b"q", b"q", &[slot(2)]));
        assert_eq!(open(&[first.clone(), second.clone()]), Some(2));
        assert_eq!(open(&[[first.clone(), second.clone()].concat()]), Some(2));
        // Bounds that do not begin with the empty key, or do not rise.
        assert_eq!(open(std::slice::from_ref(&second)), None);
        assert_eq!(open(&[first.clone(), first.clone()]), None);
        assert_eq!(open(&[first.clone(), second.clone(), second.clone()]), None);
        // Slots that do not rise, are too many, or are of no location or length.
        assert_eq!(open(&[leaf(b"", b"", &[slot(2), slot(1)])]), None);
        assert_eq!(open(&[leaf(b"", b"", &[slot(1); SLOTS_MAX])]), Some(128));
        assert_eq!(open(&[leaf(b"", b"", &[slot(1); SLOTS_MAX + 1])]), None);
        assert_eq!(
            open(&[leaf(
                b"",
                b"",
                &[Slot {
                    head: 1,
                    tail: 1 << 45
                }]
            )]),
            None
        );
        assert_eq!(
            open(&[leaf(
                b"",
                b"",
                &[Slot {
                    head: 1,
                    tail: 12 << 45 | 7
                }]
            )]),
            None
        );
        // Nothing, and groups of nothing.
        assert_eq!(open(&[]), None);
        assert_eq!(open(&[first, Vec::new(), second]), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            groups in proptest::collection::vec(proptest::collection::vec(0..4_u8, 0..60), 0..4),
            first: bool,
        ) {
            let mut groups = groups;
            if first {
                groups.insert(0, leaf(b"", b"", &[]));
            }
            let _ = open(&groups);
        }
    }
}
