//! Ranges of keys, in the order of their bytes.

mod bounds;
mod extract;
mod scan;
mod verbs;

use std::ops::Bound;
use std::sync::Arc;

use emdb_index::{Entry, Location, OrderedIndex, RangeBatch, RangeCursor};
use emdb_journal::{Frame, Opened};

use crate::builder::VerifyReads;
use crate::engine::{Engine, Extent};
use crate::iter::Stand;
use crate::{Error, Result};

pub use bounds::KeyRange;
pub use extract::ExtractIf;
pub(crate) use scan::Ground;

/// Entries asked for at once: first few, since most ranges are short, then more.
const FIRST_BATCH: usize = 16;
const LATER_BATCH: usize = 128;
/// Records that are fetched ahead of the one that comes next.
const AHEAD: usize = 32;

/// A walk over a range of keys from both ends.
pub(crate) struct RangeWalk {
    stand: Stand,
    /// `None` where the namespace did not exist.
    order: Option<Arc<OrderedIndex>>,
    left: RangeCursor<'static>,
    front: Batch,
    back: Batch,
}

/// Entries whose records are on their way into the cache, in the order of their end.
struct Batch {
    found: RangeBatch,
    at: usize,
    size: usize,
}

impl Batch {
    fn new(engine: &Engine) -> Self {
        Self {
            found: batch_for(engine),
            at: 0,
            size: 0,
        }
    }

    #[inline]
    fn next(&mut self) -> Option<(usize, Entry)> {
        let at = self.at;
        let next = *self.found.entries().get(at)?;
        self.at += 1;
        Some((at, next))
    }

    /// What the other end of the walk has fetched, and would come to last.
    fn last(&mut self) -> Option<(usize, Entry)> {
        let at = self.found.entries().len().checked_sub(1)?;
        if at < self.at {
            return None;
        }
        Some((at, self.found.pop()?))
    }
}

fn batch_for(engine: &Engine) -> RangeBatch {
    match engine.verify_reads {
        VerifyReads::Once => RangeBatch::remembering(),
        VerifyReads::Always | VerifyReads::Never => RangeBatch::default(),
    }
}

/// An entry, and where its record's soundness is remembered: which end's batch has it,
/// and where there.
type Found = (End, usize, Entry);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

impl RangeWalk {
    pub(crate) fn new(stand: Stand, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Result<Self> {
        stand.engine.check_ordered()?;
        let order = match stand.id {
            Some(id) => Some(stand.engine.order_of(&stand.space, id)?),
            None => None,
        };
        let [front, back] = [(), ()].map(|()| Batch::new(&stand.engine));
        Ok(Self {
            stand,
            order,
            left: RangeCursor::new(lower, upper),
            front,
            back,
        })
    }

    /// A walk over the keys that begin so.
    pub(crate) fn of_prefix(stand: Stand, prefix: &[u8]) -> Result<Self> {
        let end = bounds::prefix_end(prefix);
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        Self::new(stand, Bound::Included(prefix), upper)
    }

    fn entry(&mut self, end: End) -> Result<Option<Found>> {
        let engine = &self.stand.engine;
        let (near, far, far_end) = match end {
            End::Front => (&mut self.front, &mut self.back, End::Back),
            End::Back => (&mut self.back, &mut self.front, End::Front),
        };
        if let Some((at, entry)) = near.next() {
            if let Some(ahead) = near.found.entries().get(at + AHEAD) {
                engine.journal.prefetch_all(ahead.location.get());
            }
            return Ok(Some((end, at, entry)));
        }
        let Some(order) = &self.order else {
            return Ok(None);
        };
        near.at = 0;
        near.size = match near.size {
            0 => FIRST_BATCH,
            _ => LATER_BATCH,
        };
        let resolve = |location| engine.key_at(location);
        let (left, found) = (&mut self.left, &mut near.found);
        let more = match end {
            End::Front => order.next_batch(left, near.size, found, resolve)?,
            End::Back => order.next_back_batch(left, near.size, found, resolve)?,
        };
        if !more {
            near.found.clear();
            return Ok(far.last().map(|(at, entry)| (far_end, at, entry)));
        }
        for entry in found.entries().iter().take(AHEAD) {
            engine.journal.prefetch_all(entry.location.get());
        }
        Ok(near.next().map(|(at, entry)| (end, at, entry)))
    }

    /// Remembers that the record of an entry was read, and so verified.
    #[inline]
    fn remember(&self, (end, at, entry): Found) {
        if !entry.verified {
            let batch = match end {
                End::Front => &self.front,
                End::Back => &self.back,
            };
            batch.found.set_verified(at, entry);
        }
    }

    /// The walk, for a caller that uses `remove_found`.
    fn removing(mut self) -> Self {
        self.front.found = batch_for(&self.stand.engine).removing();
        self
    }

    /// Brings what the hash index knows of the records that come behind the one at `at` from
    /// the front on its way, and tells the hashes of their keys: none where it would have to
    /// open them for that.
    fn fetch_index(&self, at: usize, hashes: &mut Vec<u64>) {
        /// By then the records have been fetched.
        const INDEX_AHEAD: usize = AHEAD / 2;
        let engine = &self.stand.engine;
        if at == 0 {
            hashes.clear();
        }
        if engine.journal.is_sealed() {
            return;
        }
        let ahead = self.front.found.entries().get(hashes.len()..);
        let count = (at + INDEX_AHEAD).saturating_sub(hashes.len());
        for entry in ahead.unwrap_or_default().iter().take(count) {
            // Who comes to a damaged record meets the error.
            let key = engine.journal.key(entry.location.get());
            let hash = key.map_or(0, |key| engine.hash(&key));
            self.stand.space.index.prefetch(hash);
            hashes.push(hash);
        }
    }

    /// Gives memory back once nothing more is removed.
    fn end_removing(&mut self) {
        if let Some(order) = &self.order {
            order.shrink_after(&mut self.front.found);
        }
    }

    /// Hands the next record from that end to `take`; `None` once the ends have met.
    fn step<T>(&mut self, end: End, take: impl FnOnce(&Frame<'_>) -> T) -> Result<Option<T>> {
        self.step_placed(end, |_, frame| take(frame))
    }

    /// As `step`, with the place that the order has for the record: none if that is of a
    /// newer one.
    fn step_placed<T>(
        &mut self,
        end: End,
        take: impl FnOnce(Option<Location>, &Frame<'_>) -> T,
    ) -> Result<Option<T>> {
        loop {
            let Some(found) = self.entry(end)? else {
                self.stand.check()?;
                return Ok(None);
            };
            let (_, _, entry) = found;
            let opened = Opened::new();
            let seen = self.stand.see(entry, Extent::Whole, &opened)?;
            self.remember(found);
            if let Some(frame) = seen {
                let is_seen = self.stand.sees(entry.location);
                return Ok(Some(take(is_seen.then_some(entry.location), &frame)));
            }
        }
    }

    pub(crate) fn next<T>(&mut self, take: impl FnOnce(&Frame<'_>) -> T) -> Result<Option<T>> {
        self.step(End::Front, take)
    }

    pub(crate) fn next_placed<T>(
        &mut self,
        take: impl FnOnce(Option<Location>, &Frame<'_>) -> T,
    ) -> Result<Option<T>> {
        self.step_placed(End::Front, take)
    }

    pub(crate) fn next_back<T>(&mut self, take: impl FnOnce(&Frame<'_>) -> T) -> Result<Option<T>> {
        self.step(End::Back, take)
    }

    pub(crate) fn collect(mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut records = Vec::new();
        while let Some(record) = self.next(copied)? {
            records.push(record);
        }
        Ok(records)
    }
}

fn copied(frame: &Frame<'_>) -> (Vec<u8>, Vec<u8>) {
    (frame.key.to_vec(), frame.value.to_vec())
}

/// Records in the order of their keys' bytes, from either end.
///
/// A snapshot: later writes, removals and clears do not show. Damage met on the way
/// ends the iteration; [`error`](Self::error) tells it, and
/// [`Namespace::try_range_iter`](crate::Namespace::try_range_iter) gives it as an item.
///
/// While it lives, removed records keep their index entries; drop it when done.
pub struct NamespaceRangeIter {
    inner: TryRangeIter,
    error: Option<Error>,
}

/// Records of the default namespace in order; see [`NamespaceRangeIter`].
pub type EmdbRangeIter = NamespaceRangeIter;

/// As [`NamespaceRangeIter`], but damage is an item, after which the iteration ends.
pub struct TryRangeIter(Option<RangeWalk>);

impl NamespaceRangeIter {
    pub(crate) fn new(walk: RangeWalk) -> Self {
        Self {
            inner: TryRangeIter::new(walk),
            error: None,
        }
    }

    /// What ended the iteration early, damage for one.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

impl TryRangeIter {
    pub(crate) fn new(walk: RangeWalk) -> Self {
        Self(Some(walk))
    }

    fn step(&mut self, end: End) -> Option<Result<(Vec<u8>, Vec<u8>)>> {
        let result = self.0.as_mut()?.step(end, copied).transpose();
        if !matches!(result, Some(Ok(_))) {
            // The snapshot goes with it.
            self.0 = None;
        }
        result
    }
}

impl Iterator for TryRangeIter {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(End::Front)
    }
}

impl DoubleEndedIterator for TryRangeIter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(End::Back)
    }
}

impl Iterator for NamespaceRangeIter {
    type Item = (Vec<u8>, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        self.inner
            .next()?
            .map_err(|error| self.error = Some(error))
            .ok()
    }
}

impl DoubleEndedIterator for NamespaceRangeIter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.inner
            .next_back()?
            .map_err(|error| self.error = Some(error))
            .ok()
    }
}

impl std::iter::FusedIterator for TryRangeIter {}
impl std::iter::FusedIterator for NamespaceRangeIter {}
