//! Ranges of keys, in the order of their bytes.

mod bounds;
mod verbs;

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use emdb_index::{Entry, Location, OrderedIndex, RangeCursor};
use emdb_journal::{Frame, Opened};

use crate::engine::Extent;
use crate::iter::Stand;
use crate::{Error, Result};

pub use bounds::KeyRange;
pub use verbs::ExtractIf;

/// Locations asked for at once: first few, since most ranges are short, then more.
const FIRST_BATCH: usize = 16;
const LATER_BATCH: usize = 128;

/// A walk over a range of keys from both ends.
pub(crate) struct RangeWalk {
    stand: Stand,
    /// `None` where the namespace did not exist.
    order: Option<Arc<OrderedIndex>>,
    left: RangeCursor,
    front: Batch,
    back: Batch,
}

/// Locations that are on their way into the cache, in the order of their end.
#[derive(Default)]
struct Batch {
    locations: Vec<Location>,
    at: usize,
    size: usize,
}

impl Batch {
    fn next(&mut self) -> Option<Location> {
        let next = self.locations.get(self.at).copied();
        self.at += usize::from(next.is_some());
        next
    }

    /// What the other end of the walk has fetched, and would come to last.
    fn last(&mut self) -> Option<Location> {
        if self.at < self.locations.len() {
            self.locations.pop()
        } else {
            None
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
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
        Ok(Self {
            stand,
            order,
            left: RangeCursor::new(lower, upper),
            front: Batch::default(),
            back: Batch::default(),
        })
    }

    /// A walk over the keys that begin so.
    pub(crate) fn of_prefix(stand: Stand, prefix: &[u8]) -> Result<Self> {
        let end = bounds::prefix_end(prefix);
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        Self::new(stand, Bound::Included(prefix), upper)
    }

    fn location(&mut self, end: End) -> Result<Option<Location>> {
        let (near, far) = match end {
            End::Front => (&mut self.front, &mut self.back),
            End::Back => (&mut self.back, &mut self.front),
        };
        if let Some(location) = near.next() {
            return Ok(Some(location));
        }
        let Some(order) = &self.order else {
            return Ok(None);
        };
        near.at = 0;
        near.size = match near.size {
            0 => FIRST_BATCH,
            _ => LATER_BATCH,
        };
        let engine = &self.stand.engine;
        let resolve = |location| engine.key_at(location);
        let (left, locations) = (&mut self.left, &mut near.locations);
        let more = match end {
            End::Front => order.next_batch(left, near.size, locations, resolve)?,
            End::Back => order.next_back_batch(left, near.size, locations, resolve)?,
        };
        if !more {
            near.locations.clear();
            return Ok(far.last());
        }
        for location in &near.locations {
            engine.journal.prefetch(location.get());
        }
        Ok(near.next())
    }

    /// Hands the next record from that end to `take`; `None` once the ends have met.
    fn step<T>(&mut self, end: End, take: impl FnOnce(&Frame<'_>) -> T) -> Result<Option<T>> {
        loop {
            let Some(location) = self.location(end)? else {
                self.stand.check()?;
                return Ok(None);
            };
            let entry = Entry {
                location,
                verified: false,
                tombstone: false,
            };
            let opened = Opened::new();
            if let Some(frame) = self.stand.see(entry, Extent::Whole, &opened)? {
                return Ok(Some(take(&frame)));
            }
        }
    }

    pub(crate) fn next<T>(&mut self, take: impl FnOnce(&Frame<'_>) -> T) -> Result<Option<T>> {
        self.step(End::Front, take)
    }

    pub(crate) fn next_back<T>(&mut self, take: impl FnOnce(&Frame<'_>) -> T) -> Result<Option<T>> {
        self.step(End::Back, take)
    }

    /// Shows every record in place, until `visit` breaks.
    pub(crate) fn scan(
        mut self,
        backwards: bool,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        let end = if backwards { End::Back } else { End::Front };
        while let Some(flow) = self.step(end, |frame| visit(frame.key, frame.value))? {
            if flow.is_break() {
                break;
            }
        }
        Ok(())
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
