//! The ordered index: a skip list of trunks of branches of leaves, each leaf a sorted block of
//! slots, read without locks.
//!
//! A slot is the location of a record and what the leaf knows of its key: the
//! first ten bytes after the prefix that all keys of the leaf share. Where
//! these do not tell two keys apart, the caller is asked for a key.
//!
//! # Why readers need no lock
//!
//! *A leaf* changes in place, under its lock, between two steps of a sequence number;
//! readers read again when it moved. Its bounds never change.
//!
//! *A split* makes leaves aside, and a branch that has them in the place of the old one, to
//! which the trunk leads from then on. Where that would have too many leaves, there is a trunk
//! of more branches, which hides the one before, as its fence is higher. Nobody can change the
//! new leaves until the old one cannot be found any more, and the old one is locked and then
//! retired. So whoever reads the old leaf began before any change to the new ones. Merges go
//! the same way.
//!
//! *A scan* reads one leaf, whose bounds say where it goes on. So it sees every key
//! that stays exactly once, however leaves are split and merged meanwhile.
//!
//! # Locks
//!
//! A leaf's lock, then those of leaves beside it (tried, never waited for), then
//! the structure mutex, then for a moment those of leaves that are not open yet.
//! Whoever waits for a leaf to be opened holds no other lock.

mod build;
mod cell;
mod change;
mod cursor;
#[expect(unsafe_code, reason = "leaves and branches are freed by hand")]
mod directory;
mod draft;
mod fence;
mod image;
mod key;
mod leaf;
mod sweep;

use crate::{
    Location,
    primitive::{AtomicU64, Mutex, Ordering, lock},
};

use self::{
    directory::{Directory, Node, Pin},
    draft::SLOTS_MIN,
    fence::Bytes,
    key::{Slot, Stub},
    leaf::{Leaf, State, Writer},
};

pub use self::{
    build::OrderedBuilder,
    cell::OrderedCell,
    cursor::{RangeBatch, RangeCursor},
    sweep::Direction,
};

/// A concurrent map from keys, in the order of their bytes, to [`Location`]s.
///
/// It stores no keys. Where it must know one, it asks for it through `resolve`,
/// a closure from a location to the key of the record there. It asks only for
/// locations it was given, but also for some that were replaced or removed at the same
/// moment. `resolve` may be called while a leaf is locked: it must not call
/// the index.
///
/// Readers take no lock. Writers lock a leaf, of up to 128 keys.
///
/// # Examples
///
/// ```
/// use std::{convert::Infallible, ops::Bound};
/// use emdb_index::{Location, OrderedIndex, RangeBatch, RangeCursor};
///
/// // The "journal": records by position. Position 0 is never a location.
/// let records = ["", "pear", "apple", "plum"];
/// let key_at = |location: Location| Ok::<_, Infallible>(records[location.get() as usize]);
///
/// let index = OrderedIndex::new();
/// for position in 1..records.len() as u64 {
///     let location = Location::new(position).expect("positions start at 1");
///     index.insert(records[position as usize].as_bytes(), location, key_at)?;
/// }
///
/// let mut range = RangeCursor::new(Bound::Included(b"b"), Bound::Unbounded);
/// let (mut keys, mut batch) = (Vec::new(), RangeBatch::default());
/// while index.next_batch(&mut range, 16, &mut batch, key_at)? {
///     let found = batch.entries().iter();
///     keys.extend(found.map(|entry| records[entry.location.get() as usize]));
/// }
/// assert_eq!(keys, ["pear", "plum"]);
/// # Ok::<(), Infallible>(())
/// ```
pub struct OrderedIndex {
    directory: Directory,
    /// Held while leaves are exchanged.
    structure: Mutex<()>,
    len: AtomicU64,
}

impl Default for OrderedIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for OrderedIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrderedIndex")
            .field("len", &self.len())
            .field("memory_bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}

impl OrderedIndex {
    /// An empty index, of less than a kilobyte.
    #[must_use]
    pub fn new() -> Self {
        let directory = Directory::new();
        let leaf = Leaf::new(Bytes::default(), None, &[], SLOTS_MIN);
        let shoot = directory.sprout(vec![(Bytes::default(), leaf)]);
        directory.graft(shoot, &Pin::new());
        Self::of(directory, 0)
    }

    fn of(directory: Directory, len: u64) -> Self {
        Self {
            directory,
            structure: Mutex::new(()),
            len: AtomicU64::new(len),
        }
    }

    /// How many keys there are. Exact when nobody is writing; O(1).
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there are no keys. As exact as [`Self::len`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory of this index in bytes, all of its leaves counted; O(1).
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        size_of::<Self>() as u64 + self.directory.memory_bytes()
    }

    /// Stores the location of a key, and returns the one it had.
    ///
    /// Takes O(log n), and moves at most a leaf. `resolve` is called if there are
    /// keys with the same ten bytes after the leaf's prefix, for a few of them,
    /// and then now and then for all keys of a leaf.
    ///
    /// # Errors
    /// What `resolve` returned. Nothing has changed.
    ///
    /// # Examples
    ///
    /// See [`OrderedIndex`].
    pub fn insert<K: AsRef<[u8]>, E>(
        &self,
        key: &[u8],
        location: Location,
        mut resolve: impl FnMut(Location) -> Result<K, E>,
    ) -> Result<Option<Location>, E> {
        let pin = Pin::new();
        self.with_leaf(key, &pin, |node, writer| {
            self.insert_into((node, writer), (key, location), &mut resolve, &pin)
        })
    }

    /// Stores the location `new` of a key if it has the location `old`. Returns
    /// whether it had. `old` must not be a location of another key.
    ///
    /// Takes O(log n), reads no key and so cannot fail.
    pub fn replace_at(&self, key: &[u8], old: Location, new: Location) -> bool {
        self.with_leaf(key, &Pin::new(), |node, _| {
            let found = node.leaf().search_location(key, old);
            if let Some(at) = found {
                node.leaf().replace(at, new);
            }
            found.is_some()
        })
    }

    /// Removes a key, and returns the location it had.
    ///
    /// Takes O(log n), and moves at most two leaves. For `resolve`, see [`Self::insert`].
    ///
    /// # Errors
    /// What `resolve` returned. Nothing has changed.
    pub fn remove<K: AsRef<[u8]>, E>(
        &self,
        key: &[u8],
        mut resolve: impl FnMut(Location) -> Result<K, E>,
    ) -> Result<Option<Location>, E> {
        let pin = Pin::new();
        self.with_leaf(key, &pin, |node, writer| {
            let Ok(at) = node.leaf().search(key, &mut resolve)? else {
                return Ok(None);
            };
            let location = node.leaf().slot(at).location();
            self.remove_from((node, writer), at, &pin);
            Ok(location)
        })
    }

    /// Removes a key if it has the location `old`. Returns whether it had. `old`
    /// must not be a location of another key.
    ///
    /// Takes O(log n), reads no key and so cannot fail.
    pub fn remove_at(&self, key: &[u8], old: Location) -> bool {
        let pin = Pin::new();
        self.with_leaf(key, &pin, |node, writer| {
            let found = node.leaf().search_location(key, old);
            if let Some(at) = found {
                self.remove_from((node, writer), at, &pin);
            }
            found.is_some()
        })
    }

    fn insert_into<K: AsRef<[u8]>, E>(
        &self,
        (node, writer): (&Node<'_>, &mut Writer),
        (key, location): (&[u8], Location),
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
        pin: &Pin,
    ) -> Result<Option<Location>, E> {
        let leaf = node.leaf();
        let at = match leaf.search(key, resolve)? {
            Ok(at) => return Ok(leaf.replace(at, location)),
            Err(at) => at,
        };
        match key.strip_prefix(leaf.prefix()) {
            Some(rest) if leaf.len() < leaf.capacity() => {
                leaf.insert(at, Slot::new(Stub::new(rest), location));
                writer.note(at);
            }
            _ => self.insert_anew((node, writer), at, (key, location), resolve, pin),
        }
        self.count(1);
        Ok(None)
    }

    fn remove_from(&self, (node, writer): (&Node<'_>, &mut Writer), at: usize, pin: &Pin) {
        node.leaf().remove(at);
        self.uncount(1);
        self.shrink(node, writer, pin);
    }

    fn count(&self, new: u64) {
        self.len.fetch_add(new, Ordering::Relaxed);
    }

    fn uncount(&self, gone: u64) {
        self.len.fetch_sub(gone, Ordering::Relaxed);
    }

    /// Locks the leaf of a key for a change.
    fn with_leaf<T>(
        &self,
        key: &[u8],
        pin: &Pin,
        change: impl FnOnce(&Node<'_>, &mut Writer) -> T,
    ) -> T {
        loop {
            let node = self.directory.find(key, pin);
            let mut writer = node.leaf().lock();
            match writer.state {
                State::Open => return change(&node, &mut writer),
                // Others have taken its place already.
                State::Retired => {}
                State::Closed => {
                    // Opened before the structure mutex is free.
                    drop(writer);
                    drop(lock(&self.structure));
                }
            }
        }
    }
}
