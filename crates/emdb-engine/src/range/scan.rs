//! Scans: records of a range in place, for who stays until the scan is over.
//!
//! Nothing is copied, counted or kept for a scan: it borrows what it stands on.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use emdb_index::{Entry, RangeBatch, RangeCursor};
use emdb_journal::Opened;

use super::{End, batch_for};
use crate::builder::VerifyReads;
use crate::engine::{Engine, Extent};
use crate::iter;
use crate::space::Space;
use crate::{Error, Result};

/// Entries asked for first: what a short scan needs, all of which are fetched, and no more,
/// since that costs as much as what is needed. Then four times as many each time, and at last
/// so many.
const FIRST: usize = 10;
const MOST: usize = 128;
/// Records that are fetched ahead of the one that is shown.
const AHEAD: usize = 16;

/// A namespace at one point in time: where a snapshot is open.
pub(crate) struct Ground<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) space: &'a Arc<Space>,
    /// The incarnation; `None` if there was none.
    pub(crate) id: Option<u32>,
    /// What is seen ends here.
    pub(crate) upto: u64,
    /// The lowest position that the transaction discarded in which this stands.
    pub(crate) discarded: Option<&'a AtomicU64>,
    /// What had expired then does not show; when the first record is met that can expire,
    /// if there is no other time.
    pub(crate) at_ms: Option<u64>,
}

impl Ground<'_> {
    /// Shows every record of a range in place, from one end on, until `visit` breaks.
    pub(crate) fn scan(
        mut self,
        (lower, upper): (Bound<&[u8]>, Bound<&[u8]>),
        end: End,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        let engine = self.engine;
        engine.check_ordered()?;
        let Some(id) = self.id else {
            return Ok(());
        };
        let is_plain = id == 0 && !engine.journal.is_sealed();
        let (is_plain, is_verified) = match engine.verify_reads {
            VerifyReads::Once => (is_plain, false),
            VerifyReads::Always => (false, false),
            VerifyReads::Never => (is_plain, true),
        };
        let mut left = RangeCursor::borrowing(lower, upper);
        // One more may be looked at.
        let mut batch = batch_for(engine).with_room(FIRST + 1);
        let mut size = FIRST;
        while self.fetch(id, &mut left, size, &mut batch, end)? {
            for (at, entry) in batch.entries().iter().enumerate() {
                if let Some(ahead) = batch.entries().get(at + AHEAD) {
                    engine.journal.prefetch_all(ahead.location.get());
                }
                let position = entry.location.get();
                let record = match (is_plain && position < self.upto, entry.verified) {
                    (false, _) => None,
                    (true, false) if !is_verified => engine.journal.verified_plain_record(position),
                    (true, _) => engine.journal.plain_record(position),
                };
                let flow = if let Some((key, value)) = record {
                    self.check()?;
                    if !entry.verified {
                        batch.set_verified(at, *entry);
                    }
                    visit(key, value)
                } else {
                    self.show(id, (at, *entry), &batch, &mut visit)?
                };
                if flow.is_break() {
                    return Ok(());
                }
            }
            size = (size * 4).min(MOST);
        }
        self.check()
    }

    #[inline]
    fn check(&self) -> Result<()> {
        iter::check_discarded(self.discarded, self.upto)
    }

    /// Finds the entries that come next, and begins to load their records.
    #[inline]
    fn fetch(
        &self,
        id: u32,
        left: &mut RangeCursor<'_>,
        size: usize,
        batch: &mut RangeBatch,
        end: End,
    ) -> Result<bool> {
        let engine = self.engine;
        let resolve = |location| engine.key_at(location);
        let fetch = |entries: &[Entry]| {
            for entry in entries.iter().take(AHEAD) {
                engine.journal.prefetch_all(entry.location.get());
            }
        };
        engine.with_order_of(self.space, id, |order| match end {
            End::Front => order.next_batch_fetching(left, size, batch, resolve, fetch),
            End::Back => order.next_back_batch_fetching(left, size, batch, resolve, fetch),
        })?
    }

    /// Shows the record of an entry, if it has one here, whatever it is.
    #[inline(never)]
    fn show(
        &mut self,
        id: u32,
        (at, entry): (usize, Entry),
        batch: &RangeBatch,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let (engine, opened) = (self.engine, Opened::new());
        let found = engine.entry_at(entry, id, self.upto, Extent::Whole, &opened);
        self.check()?;
        let found = found?;
        if !entry.verified {
            batch.set_verified(at, entry);
        }
        let Some((_, frame)) = found else {
            return Ok(ControlFlow::Continue(()));
        };
        if frame.expires_at_ms.is_some() {
            let at_ms = *self.at_ms.get_or_insert_with(|| engine.clock.now_ms());
            if engine.is_expired(&frame, Some(at_ms)) {
                return Ok(ControlFlow::Continue(()));
            }
        }
        Ok(visit(frame.key, frame.value))
    }
}

impl Engine {
    /// Calls `work` with a namespace as it is now.
    #[inline]
    pub(crate) fn with_ground<T>(
        &self,
        space: &Arc<Space>,
        work: impl FnOnce(Ground<'_>) -> Result<T>,
    ) -> Result<T> {
        self.check_open()?;
        if space.is_dropped() {
            return Err(Error::NamespaceDropped);
        }
        let snapshot = self.open_snapshot()?;
        let upto = snapshot.position();
        work(Ground {
            engine: self,
            space,
            id: space.id_at(upto),
            upto,
            discarded: None,
            at_ms: None,
        })
    }
}
