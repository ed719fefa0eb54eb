//! Many records at once: a fresh index from sorted records, and sorted batches.

use std::iter::Peekable;

use crate::{Error, Location};

use super::{
    OrderedIndex,
    directory::{Directory, LEAVES_FILLED, Pin, Shoot},
    draft::Draft,
    fence::Bytes,
    key::{Slot, Stub, common_len},
    leaf::{Leaf, SLOTS_MAX},
};

/// Leaves are left some room for keys that come later.
const FILLED: usize = SLOTS_MAX - SLOTS_MAX / 8;
/// How many records of a batch are held at once.
const RUN: usize = 1024;

/// Builds an [`OrderedIndex`] from records that come in the order of their keys.
///
/// # Examples
///
/// ```
/// use emdb_index::{Location, OrderedBuilder};
///
/// let mut builder = OrderedBuilder::new();
/// for (position, key) in ["apple", "pear", "plum"].iter().enumerate() {
///     let location = Location::new(position as u64 + 1).expect("small");
///     builder.push(key.as_bytes(), location)?;
/// }
/// assert_eq!(builder.finish().len(), 3);
/// # Ok::<(), emdb_index::Error>(())
/// ```
pub struct OrderedBuilder {
    directory: Directory,
    shoots: Vec<Shoot>,
    /// The leaves of the branch to come.
    leaves: Vec<(Bytes, Leaf)>,
    len: u64,
    low: Bytes,
    /// The keys of the leaf to come, one after the other, and where each ends.
    keys: Vec<u8>,
    ends: Vec<(usize, Location)>,
}

impl std::fmt::Debug for OrderedBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrderedBuilder")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Default for OrderedBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl OrderedBuilder {
    /// Begins with nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            directory: Directory::new(),
            shoots: Vec::new(),
            leaves: Vec::new(),
            len: 0,
            low: Bytes::default(),
            keys: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Adds a record. Amortized cost: O(1), and O(log n) for each leaf.
    ///
    /// # Errors
    /// [`Error::Unsorted`] if the key is not above the one before. It is not added.
    pub fn push(&mut self, key: &[u8], location: Location) -> Result<(), Error> {
        if let Some(last) = self.ends.len().checked_sub(1) {
            let last = self.key(last);
            if key <= last {
                return Err(Error::Unsorted);
            }
            if self.ends.len() >= FILLED {
                let bound = key.get(..=common_len(last, key)).unwrap_or(key);
                let bound = Bytes::new(bound);
                self.seal(Some(bound.clone()));
                self.low = bound;
            }
        }
        self.keys.extend_from_slice(key);
        self.ends.push((self.keys.len(), location));
        self.len += 1;
        Ok(())
    }

    /// The index of all records that were pushed.
    #[must_use]
    pub fn finish(mut self) -> OrderedIndex {
        self.seal(None);
        self.directory.graft(self.shoots, &Pin::new());
        OrderedIndex::of(self.directory, self.len)
    }

    fn key(&self, at: usize) -> &[u8] {
        let end_of = |at: usize| self.ends.get(at).map_or(0, |(end, _)| *end);
        let start = at.checked_sub(1).map_or(0, end_of);
        self.keys.get(start..end_of(at)).unwrap_or_default()
    }

    /// Makes a leaf of the keys at hand.
    fn seal(&mut self, high: Option<Bytes>) {
        let count = self.ends.len();
        let (first, last) = (self.key(0), self.key(count.saturating_sub(1)));
        let common = common_len(first, last);
        let slots: Vec<_> = self
            .ends
            .iter()
            .enumerate()
            .map(|(at, (_, location))| {
                let rest = self.key(at).get(common..).unwrap_or_default();
                Slot::new(Stub::new(rest), *location)
            })
            .collect();
        let prefix = Bytes::new(first.get(..common).unwrap_or_default());
        let leaf = Leaf::new(prefix, high, &slots, SLOTS_MAX);
        let is_last = leaf.high().is_none();
        self.leaves.push((std::mem::take(&mut self.low), leaf));
        if is_last || self.leaves.len() >= LEAVES_FILLED {
            let leaves = std::mem::take(&mut self.leaves);
            self.shoots.extend(self.directory.sprout(leaves));
        }
        self.keys.clear();
        self.ends.clear();
    }
}

impl OrderedIndex {
    /// An index of records in the order of their keys.
    ///
    /// Takes O(n); much faster than inserting them. Where reading keys can
    /// fail, use [`OrderedBuilder`].
    ///
    /// # Errors
    /// [`Error::Unsorted`] if a key is not above the one before.
    pub fn build<B: AsRef<[u8]>>(
        records: impl IntoIterator<Item = (B, Location)>,
    ) -> Result<Self, Error> {
        let mut builder = OrderedBuilder::new();
        for (key, location) in records {
            builder.push(key.as_ref(), location)?;
        }
        Ok(builder.finish())
    }

    /// Inserts records, or replaces those of equal keys. Returns how many keys were new.
    ///
    /// Much faster than single inserts if the records come in the order of their
    /// keys; right in any order: of equal keys, the last record counts. Readers
    /// may see a part of the batch.
    ///
    /// Takes O(log n) for each leaf changed, and O(1) for each record in it and
    /// each of the batch. For `resolve`, see [`Self::insert`].
    ///
    /// # Errors
    /// What `resolve` returned. Records before may have been inserted; a
    /// second attempt with the same batch is fine.
    pub fn insert_sorted_batch<K: AsRef<[u8]>, B: AsRef<[u8]>, E>(
        &self,
        batch: impl IntoIterator<Item = (B, Location)>,
        mut resolve: impl FnMut(Location) -> Result<K, E>,
    ) -> Result<u64, E> {
        let mut batch = batch.into_iter().peekable();
        let mut run = Vec::new();
        let mut new = 0;
        while next_run(&mut batch, &mut run) {
            let mut rest = run.as_slice();
            while !rest.is_empty() {
                let (count, added) = self.insert_run(rest, &mut resolve)?;
                new += added;
                rest = rest.get(count..).unwrap_or_default();
            }
        }
        Ok(new)
    }

    /// Inserts as many of the records, whose keys rise, as belong to the leaf of the
    /// first. Returns how many that were, and how many were new.
    fn insert_run<K: AsRef<[u8]>, B: AsRef<[u8]>, E>(
        &self,
        run: &[(B, Location)],
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
    ) -> Result<(usize, u64), E> {
        let Some((first, location)) = run.first() else {
            return Ok((0, 0));
        };
        let (first, pin) = (first.as_ref(), Pin::new());
        self.with_leaf(first, &pin, |node, writer| {
            let leaf = node.leaf();
            let count = run.partition_point(|(key, _)| leaf.is_above(key.as_ref()));
            if count <= 1 {
                let old = self.insert_into((node, writer), (first, *location), resolve, &pin)?;
                return Ok((1, u64::from(old.is_none())));
            }
            let mut draft = Draft::of(leaf);
            let records = run.get(..count).unwrap_or_default();
            let is_appended = leaf.high().is_none()
                && matches!(leaf.search(first, resolve)?, Err(at) if at == leaf.len());
            let new = draft.merge(records, resolve)? as u64;
            match draft.fits(leaf) {
                true => leaf.refill(&draft.slots),
                false => self.put_draft((node, writer), draft, is_appended, resolve, &pin),
            }
            self.count(new);
            Ok((count, new))
        })
    }
}

/// Moves the next records to `run`, as long as their keys rise; tells whether there
/// were any.
pub(super) fn next_run<B: AsRef<[u8]>>(
    batch: &mut Peekable<impl Iterator<Item = (B, Location)>>,
    run: &mut Vec<(B, Location)>,
) -> bool {
    run.clear();
    run.extend(batch.next());
    while let Some(next) = batch.next_if(|(key, _)| {
        let last = run.last().map(|(last, _)| last.as_ref());
        run.len() < RUN && last.is_some_and(|last| last < key.as_ref())
    }) {
        run.push(next);
    }
    !run.is_empty()
}
