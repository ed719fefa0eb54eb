//! Scans: the locations of a range of keys, a few at a time, from both ends.

use std::ops::Bound;

use crate::{Entry, Location};

use super::{
    OrderedIndex,
    directory::{Arc, Node, Pin},
    fence::Bytes,
    key::Slot,
    leaf::{Leaf, SLOTS_MAX, Sought, State},
};

/// What is left of a range of keys that is being scanned.
///
/// It holds keys, nothing of an index, and may be kept for as long as one likes.
/// See [`OrderedIndex::next_batch`].
#[derive(Clone, Debug)]
pub struct RangeCursor<'k> {
    lower: Edge<'k>,
    upper: Edge<'k>,
    is_done: bool,
}

/// One end of a range.
#[derive(Clone, Debug)]
enum Edge<'k> {
    Open,
    Included(Key<'k>),
    Excluded(Key<'k>),
    /// The key of that record, which is not in the range any more. It is read
    /// only if the scan goes on: few do.
    Seen(Location),
}

/// A key that the caller gave, or that was met.
#[derive(Clone, Debug)]
enum Key<'k> {
    Given(&'k [u8]),
    Met(Bytes),
}

impl<'k> Edge<'k> {
    fn new(bound: Bound<&'k [u8]>) -> Self {
        match bound {
            Bound::Included(key) => Self::Included(Key::Given(key)),
            Bound::Excluded(key) => Self::Excluded(Key::Given(key)),
            Bound::Unbounded => Self::Open,
        }
    }

    fn owned(bound: Bound<&[u8]>) -> Self {
        match bound {
            Bound::Included(key) => Self::Included(Key::Met(Bytes::new(key))),
            Bound::Excluded(key) => Self::Excluded(Key::Met(Bytes::new(key))),
            Bound::Unbounded => Self::Open,
        }
    }

    /// Replaces a location by its key.
    fn settle<K: AsRef<[u8]>, E>(
        &mut self,
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
    ) -> Result<(), E> {
        if let Self::Seen(location) = self {
            *self = Self::Excluded(Key::Met(Bytes::new(resolve(*location)?.as_ref())));
        }
        Ok(())
    }

    #[inline]
    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Included(key) | Self::Excluded(key) => Some(key.as_slice()),
            Self::Open | Self::Seen(_) => None,
        }
    }

    fn is_included(&self) -> bool {
        matches!(self, Self::Included(_))
    }
}

impl Key<'_> {
    #[inline]
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Given(key) => key,
            Self::Met(key) => key.as_slice(),
        }
    }
}

impl RangeCursor<'static> {
    /// The range between two bounds. It may be empty, or its bounds the wrong way round.
    #[must_use]
    pub fn new(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Self {
        Self {
            lower: Edge::owned(lower),
            upper: Edge::owned(upper),
            is_done: false,
        }
    }
}

impl<'k> RangeCursor<'k> {
    /// As [`new`](RangeCursor::new), without a copy of the bounds.
    #[must_use]
    pub fn borrowing(lower: Bound<&'k [u8]>, upper: Bound<&'k [u8]>) -> Self {
        Self {
            lower: Edge::new(lower),
            upper: Edge::new(upper),
            is_done: false,
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }
}

/// Some entries of a range; see [`OrderedIndex::next_batch`].
#[derive(Debug, Default)]
pub struct RangeBatch {
    entries: Vec<Entry>,
    /// Where they are, if some are to be removed, or verified ones to be remembered and some
    /// are not yet.
    leaf: Option<Arc<Leaf>>,
    remembers: bool,
    removes: bool,
    /// How many entries were removed from the leaf.
    removed: usize,
    /// Whether all of them were verified.
    is_verified: bool,
    /// The slot of the first; those of others follow, or come before.
    start: usize,
    is_back: bool,
}

impl RangeBatch {
    /// A batch for a caller that verifies records and uses [`Self::set_verified`].
    #[must_use]
    pub fn remembering() -> Self {
        Self {
            remembers: true,
            ..Self::default()
        }
    }

    /// The batch, for a caller that uses [`OrderedIndex::remove_found`].
    #[must_use]
    pub fn removing(mut self) -> Self {
        self.removes = true;
        self
    }

    /// The batch, with room for so many entries.
    #[must_use]
    pub fn with_room(mut self, entries: usize) -> Self {
        self.entries.reserve_exact(entries);
        self
    }

    /// The entries. None is called a tombstone: the order of keys does not know.
    #[inline]
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Takes the last entry out.
    pub fn pop(&mut self) -> Option<Entry> {
        self.entries.pop()
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.leaf = None;
        self.removed = 0;
    }

    /// Remembers in the index that the record of an entry, the one that is or was at
    /// `at`, has been verified: the entry is [`verified`](Entry::verified) from then on, until it
    /// is replaced. Does nothing without [`Self::remembering`].
    ///
    /// Only a hint: what a writer does at the same moment may undo it.
    pub fn set_verified(&self, at: usize, entry: Entry) {
        if let (Some(leaf), Some(slot)) = (&self.leaf, self.slot_of(at)) {
            leaf.set_verified(slot, entry.location);
        }
    }

    /// Where in the leaf the entry is that is or was at `at`, if nobody else changed the leaf.
    fn slot_of(&self, at: usize) -> Option<usize> {
        match self.is_back {
            // Those before it were removed first.
            false => self.start.checked_add(at)?.checked_sub(self.removed),
            true => self.start.checked_sub(at),
        }
    }
}

/// All keys.
impl Default for RangeCursor<'_> {
    fn default() -> Self {
        Self::borrowing(Bound::Unbounded, Bound::Unbounded)
    }
}

impl OrderedIndex {
    /// Moves the entries of the lowest keys left in a range to `out`, which is
    /// cleared first: at least one and at most `max` (at least 1), in the order of keys. Returns
    /// whether there were any.
    ///
    /// A batch comes from one leaf, so it may be shorter than `max` before the
    /// end. Takes no lock and holds nothing between two calls; writers may go
    /// on. A key that is there during the whole scan is seen exactly once, and
    /// no key twice; of a key whose location is replaced meanwhile, the old or
    /// the new location is seen.
    ///
    /// Costs O(log n) for the leaf, and O(1) for each location. `resolve` is
    /// called to go on where the batch before ended within a leaf, and where ten
    /// bytes after the common prefix of a leaf do not tell a bound from its keys.
    ///
    /// # Errors
    /// What `resolve` returned. The range is as before.
    ///
    /// # Examples
    ///
    /// See [`OrderedIndex`].
    pub fn next_batch<K: AsRef<[u8]>, E>(
        &self,
        range: &mut RangeCursor<'_>,
        max: usize,
        out: &mut RangeBatch,
        mut resolve: impl FnMut(Location) -> Result<K, E>,
    ) -> Result<bool, E> {
        self.batch(range, max, out, &mut resolve, |_| (), false)
    }

    /// Like [`Self::next_batch`], and calls `fetch` with the entries that are likely to be in
    /// the batch as soon as they are known, before any of their keys is asked for: to bring
    /// their records on their way.
    ///
    /// # Errors
    /// As [`Self::next_batch`].
    pub fn next_batch_fetching<K: AsRef<[u8]>, E>(
        &self,
        range: &mut RangeCursor<'_>,
        max: usize,
        out: &mut RangeBatch,
        mut resolve: impl FnMut(Location) -> Result<K, E>,
        fetch: impl FnMut(&[Entry]),
    ) -> Result<bool, E> {
        self.batch(range, max, out, &mut resolve, fetch, false)
    }

    /// Like [`Self::next_batch`], with the highest keys left in the range, in falling order.
    ///
    /// # Errors
    /// As [`Self::next_batch`].
    pub fn next_back_batch<K: AsRef<[u8]>, E>(
        &self,
        range: &mut RangeCursor<'_>,
        max: usize,
        out: &mut RangeBatch,
        mut resolve: impl FnMut(Location) -> Result<K, E>,
    ) -> Result<bool, E> {
        self.batch(range, max, out, &mut resolve, |_| (), true)
    }

    /// As [`Self::next_batch_fetching`], from the end as [`Self::next_back_batch`].
    ///
    /// # Errors
    /// As [`Self::next_batch`].
    pub fn next_back_batch_fetching<K: AsRef<[u8]>, E>(
        &self,
        range: &mut RangeCursor<'_>,
        max: usize,
        out: &mut RangeBatch,
        mut resolve: impl FnMut(Location) -> Result<K, E>,
        fetch: impl FnMut(&[Entry]),
    ) -> Result<bool, E> {
        self.batch(range, max, out, &mut resolve, fetch, true)
    }

    #[inline]
    fn batch<K: AsRef<[u8]>, E>(
        &self,
        range: &mut RangeCursor<'_>,
        max: usize,
        out: &mut RangeBatch,
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
        mut fetch: impl FnMut(&[Entry]),
        is_back: bool,
    ) -> Result<bool, E> {
        if out.removed > 0 {
            self.shrink_after(out);
        }
        out.clear();
        if range.is_done {
            return Ok(false);
        }
        // A leaf has no more.
        let max = max.clamp(1, SLOTS_MAX);
        range.lower.settle(resolve)?;
        range.upper.settle(resolve)?;
        let pin = Pin::new();
        while !range.is_done {
            let upper = &range.upper;
            let mut near = None;
            let node = match is_back {
                false => {
                    let key = range.lower.key().unwrap_or_default();
                    let (node, around) = self.directory.find_near(key, max, &pin);
                    near = around;
                    Some(node)
                }
                true if upper.is_included() => {
                    upper.key().map(|key| self.directory.find(key, &pin))
                }
                true => self.directory.find_below(upper.key(), &pin),
            };
            let Some(node) = node else {
                range.is_done = true;
                break;
            };
            let mut seen = copy((&node, near), range, max, out, resolve, is_back)?;
            fetch(&out.entries);
            if seen.is_first_unsure {
                if let Err(error) = out.settle_first(range, resolve) {
                    out.clear();
                    return Err(error);
                }
                if out.entries.len() > max {
                    out.entries.pop();
                    seen.is_rest = false;
                }
            }
            let last = out.entries.last().map(|entry| entry.location);
            range.pass(&node, seen.is_rest, last, is_back);
            if last.is_some() {
                if out.removes || out.remembers && !out.is_verified {
                    out.leaf = Some(node.shared_leaf());
                }
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl OrderedIndex {
    /// Removes the key of the entry of a batch that is at `at`, if the leaf that
    /// the batch came from still has it where it was. Returns whether it had; if not,
    /// nothing is known, and [`remove_at`](Self::remove_at) finds out. Entries are to be removed
    /// in their order, and the batch must be [`RangeBatch::removing`] and of this index.
    ///
    /// Moves at most a leaf, and searches for nothing. The leaf's memory is given back with
    /// [`shrink_after`](Self::shrink_after).
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_index::{Location, OrderedIndex, RangeBatch, RangeCursor};
    ///
    /// let at = |position| Location::new(position).expect("small");
    /// let index = OrderedIndex::build([("a", at(1)), ("b", at(2)), ("c", at(3))])?;
    /// let mut batch = RangeBatch::default().removing();
    /// let key_at = |_| Ok::<_, emdb_index::Error>("");
    /// assert!(index.next_batch(&mut RangeCursor::default(), 8, &mut batch, key_at)?);
    /// assert!(index.remove_found(&mut batch, 1));
    /// assert!(!index.remove_found(&mut batch, 1));
    /// assert!(index.remove_found(&mut batch, 2));
    /// index.shrink_after(&mut batch);
    /// assert_eq!(index.len(), 1);
    /// # Ok::<(), emdb_index::Error>(())
    /// ```
    pub fn remove_found(&self, batch: &mut RangeBatch, at: usize) -> bool {
        let (Some(entry), Some(slot)) = (batch.entries.get(at), batch.slot_of(at)) else {
            return false;
        };
        let Some(leaf) = batch.leaf.as_ref().filter(|_| batch.removes) else {
            return false;
        };
        let writer = leaf.lock();
        let is_there = writer.state == State::Open && slot < leaf.len();
        if !is_there || !leaf.slot(slot).is_at(entry.location) {
            return false;
        }
        leaf.remove(slot);
        drop(writer);
        self.uncount(1);
        batch.removed += 1;
        true
    }

    /// Gives memory back where [`remove_found`](Self::remove_found) removed entries of a batch.
    /// Done by itself when the batch is filled anew.
    pub fn shrink_after(&self, batch: &mut RangeBatch) {
        if batch.removed == 0 {
            return;
        }
        let pin = Pin::new();
        let high = batch.leaf.as_ref().and_then(|leaf| leaf.high());
        // The leaf, or what has taken its place.
        if let Some(node) = self.directory.find_below(high.map(Bytes::as_slice), &pin) {
            let mut writer = node.leaf().lock();
            if writer.state == State::Open {
                self.shrink(&node, &mut writer, &pin);
            }
        }
        batch.clear();
    }
}

/// What stands for the location of a slot that was never filled.
const NOWHERE: Location = match Location::new(Location::MAX) {
    Some(location) => location,
    None => unreachable!(),
};

/// What a batch saw of a leaf.
#[derive(Clone, Copy)]
struct Seen {
    /// Whether that was all of the range that is in the leaf, not only some, up to the
    /// last location copied.
    is_rest: bool,
    /// Whether the first entry may be before the range. Then there may be one entry more
    /// than were asked for.
    is_first_unsure: bool,
}

impl RangeBatch {
    /// Drops the first entry if its key is not in the range.
    fn settle_first<K: AsRef<[u8]>, E>(
        &mut self,
        range: &RangeCursor<'_>,
        resolve: &mut impl FnMut(Location) -> Result<K, E>,
    ) -> Result<(), E> {
        if let (Some(first), Some(lower)) = (self.entries.first(), range.lower.key()) {
            let is_in = match resolve(first.location)?.as_ref().cmp(lower) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => range.lower.is_included(),
                std::cmp::Ordering::Greater => true,
            };
            if !is_in {
                self.entries.remove(0);
                self.start += 1;
            }
        }
        Ok(())
    }
}

#[inline]
fn copy<K: AsRef<[u8]>, E>(
    (node, near): (&Node<'_>, Option<usize>),
    range: &RangeCursor<'_>,
    max: usize,
    out: &mut RangeBatch,
    resolve: &mut impl FnMut(Location) -> Result<K, E>,
    is_back: bool,
) -> Result<Seen, E> {
    let leaf = node.leaf();
    out.is_back = is_back;
    leaf.read(|| {
        out.entries.clear();
        // A bound outside the leaf needs no search. From the front, the leaf was found by it.
        let lower = range
            .lower
            .key()
            .filter(|key| !is_back || *key >= node.low().as_slice());
        let mut is_first_unsure = false;
        let start = match lower.map(|key| (key, leaf.seek(key, near))) {
            None => 0,
            Some((_, Sought::Found(at))) => at + usize::from(!range.lower.is_included()),
            Some((_, Sought::Absent(at))) => at,
            // To be read when the records around it are on their way, too.
            Some((_, Sought::Tied(tied))) if !is_back && tied.len() == 1 => {
                is_first_unsure = true;
                tied.start
            }
            Some((key, Sought::Tied(tied))) => match leaf.search_tied(tied, key, resolve)? {
                Ok(at) => at + usize::from(!range.lower.is_included()),
                Err(at) => at,
            },
        };
        let upper = range.upper.key();
        let upper = upper.filter(|key| node.high().is_none_or(|high| *key < high.as_slice()));
        let end = match upper.map(|key| leaf.search(key, resolve)).transpose()? {
            None => leaf.len(),
            Some(Ok(at)) if range.upper.is_included() => at + 1,
            Some(Ok(at) | Err(at)) => at,
        };
        let count = end.saturating_sub(start);
        let taken = count.min(max + usize::from(is_first_unsure));
        let mut is_verified = true;
        let entry = |slot: Slot| {
            is_verified &= slot.is_verified();
            Entry {
                // Without one, the slot is from the middle of a change, and read again.
                location: slot.location().unwrap_or(NOWHERE),
                verified: slot.is_verified(),
                tombstone: false,
            }
        };
        out.entries.reserve(taken);
        if is_back {
            out.start = end.saturating_sub(1);
            let slots = leaf.tails(end.saturating_sub(taken)..end).rev();
            out.entries.extend(slots.map(entry));
        } else {
            out.start = start;
            let slots = leaf.tails(start..start.saturating_add(taken));
            out.entries.extend(slots.map(entry));
        }
        out.is_verified = is_verified;
        Ok(Seen {
            is_rest: taken == count,
            is_first_unsure: is_first_unsure && taken > 0,
        })
    })
}

impl<'k> RangeCursor<'k> {
    /// Takes what was seen off the range: the rest of it that is in the leaf, or all up to
    /// the last location.
    fn pass(&mut self, node: &Node<'_>, is_rest: bool, last: Option<Location>, is_back: bool) {
        let edge = match (is_rest, last) {
            (false, Some(last)) => Some(Edge::Seen(last)),
            _ if is_back => self.edge_below(node),
            _ => self.edge_above(node),
        };
        match edge {
            Some(edge) if is_back => self.upper = edge,
            Some(edge) => self.lower = edge,
            None => self.is_done = true,
        }
    }

    /// Where the range goes on above a leaf, if it does.
    fn edge_above(&self, node: &Node<'_>) -> Option<Edge<'k>> {
        let high = node.high()?;
        let goes_on = match &self.upper {
            Edge::Included(key) => key.as_slice() >= high.as_slice(),
            Edge::Excluded(key) => key.as_slice() > high.as_slice(),
            Edge::Open | Edge::Seen(_) => true,
        };
        goes_on.then(|| Edge::Included(Key::Met(high.clone())))
    }

    /// Where the range goes on below a leaf, if it does.
    fn edge_below(&self, node: &Node<'_>) -> Option<Edge<'k>> {
        let low = node.low().as_slice();
        let goes_on = match self.lower.key() {
            Some(key) => key < low,
            None => !low.is_empty(),
        };
        goes_on.then(|| Edge::Excluded(Key::Met(node.low().clone())))
    }
}
