//! Removing records that come one after the other in the order of keys.
//!
//! Their tombstones are gathered in the journal, and the index hears of all of them at once.
//! Whoever looks at the index or stores something has that done first.

use emdb_index::{Direction, Location};
use emdb_journal::{Batch, Frame, FrameSpec, Kind};

use super::Staging;
use super::apply::AHEAD;
use super::touched::Swept;
use crate::engine::Engine;
use crate::engine::write::Newest;
use crate::space::End;
use crate::{Error, Result};

/// The most that the index does not know of.
const DOOMED: usize = 1024;

/// Records of one namespace that have a tombstone in the batch, but not in the index yet.
#[derive(Default)]
pub(super) struct Doomed {
    at: usize,
    /// What else is between that end of the order and the last of them is dead.
    end: Option<End>,
    records: Vec<Swept>,
}

impl Doomed {
    pub(super) fn clear(&mut self) {
        self.records.clear();
    }
}

/// How far a walk over the order of keys knows what the transaction has done, since
/// nobody but the walk itself did anything.
pub(crate) struct Sweep {
    cursor: u64,
    held: usize,
}

impl Staging {
    /// Applies everything that is held back, but for what belongs with the next record
    /// from that end.
    pub(super) fn drain_but_doomed(&mut self, engine: &Engine, at: usize, end: End) -> Result<()> {
        let belongs = self.doomed.at == at && self.doomed.end == Some(end);
        if belongs && self.queue.is_empty() {
            return Ok(());
        }
        self.drain(engine)
    }

    /// Removes the record that is at `location`, the newest of its key, which has that hash.
    /// Nothing else is held back but what belongs with it.
    pub(super) fn doom(
        &mut self,
        engine: &Engine,
        (at, end): (usize, Option<End>),
        (location, hash): (Location, u64),
        frame: &Frame<'_>,
    ) -> Result<()> {
        if self.doomed.records.len() >= DOOMED {
            self.settle(engine)?;
        }
        let batch = self.batch.as_mut().ok_or(Error::Closed)?;
        let touched = self.touched.get_mut(at).ok_or(Error::NamespaceDropped)?;
        let newest = Newest {
            position: location.get(),
            frame: *frame,
        };
        let spec = FrameSpec {
            namespace: touched.id,
            previous: Some(engine.link(&newest)),
            ..FrameSpec::new(Kind::Tombstone, frame.key, b"")
        };
        let position = batch.gather(&spec)?;
        touched.delta.remove(frame);
        touched.delta.dead_bytes += batch.cursor().saturating_sub(position);
        let record = Swept {
            old: location,
            tombstone: Location::new(position)
                .ok_or_else(|| Error::corrupted(position, "impossible position"))?,
            hash,
        };
        let direction = match end {
            None | Some(End::First) => Direction::Rising,
            Some(End::Last) => Direction::Falling,
        };
        touched.note_swept(record, direction);
        self.doomed.at = at;
        self.doomed.end = end;
        self.doomed.records.push(record);
        Ok(())
    }

    /// Has the index know of the tombstones.
    pub(super) fn settle(&mut self, engine: &Engine) -> Result<()> {
        if self.doomed.records.is_empty() {
            return Ok(());
        }
        let settled = self.settle_all(engine);
        if settled.is_err() {
            self.failed = Some("records could not be removed");
        }
        self.doomed.clear();
        settled
    }

    fn settle_all(&mut self, engine: &Engine) -> Result<()> {
        self.batch.as_mut().ok_or(Error::Closed)?.store_gathered()?;
        let Doomed { at, end, records } = &self.doomed;
        let space = &self.touched(*at)?.space;
        for (number, record) in records.iter().enumerate() {
            if let Some(ahead) = records.get(number + AHEAD) {
                space.index.prefetch(ahead.hash);
            }
            let mut guard = engine.lock_in_batch(space, record.hash)?;
            if guard.find_location(record.old).is_none() {
                let position = record.old.get();
                return Err(Error::corrupted(position, "a record that an index has not"));
            }
            guard.replace(record.tombstone, true);
        }
        if let (Some(end), Some(last)) = (end, records.last())
            && let Ok(key) = engine.journal.key(last.old.get())
        {
            space.dead_ends.reach(*end, &key, true);
        }
        Ok(())
    }
}

impl Engine {
    /// For a walk over the order of keys in the transaction that begins now.
    pub(crate) fn begin_sweep(&self, number: u64) -> Result<Sweep> {
        let mut staging = self.open_staging(number)?;
        staging.drain(self)?;
        let cursor = staging.batch.as_ref().ok_or(Error::Closed)?.cursor();
        Ok(Sweep { cursor, held: 0 })
    }

    /// Removes the record that a walk over the order has come to in the transaction;
    /// `location` is that of the order.
    pub(crate) fn sweep_in(
        &self,
        (number, at): (u64, usize),
        sweep: &mut Sweep,
        location: Location,
        frame: &Frame<'_>,
    ) -> Result<()> {
        let hash = self.hash(frame.key);
        let mut guard = self.open_staging(number)?;
        let staging = &mut *guard;
        let cursor = |staging: &Staging| staging.batch.as_ref().map_or(0, Batch::cursor);
        if cursor(staging) != sweep.cursor || staging.queue.len() != sweep.held {
            // The transaction did something else meanwhile: perhaps to this key.
            drop(guard);
            return self.remove_in(number, at, frame.key, |_| ()).map(drop);
        }
        if staging.is_untouched() && sweep.held == 0 {
            // It may stay the only one.
            sweep.held = 1;
            return self.hold(staging, at, hash, frame.key, None);
        }
        if !staging.queue.is_empty() {
            staging.drain(self)?;
            sweep.held = 0;
        }
        staging.doom(self, (at, None), (location, hash), frame)?;
        sweep.cursor = cursor(staging);
        Ok(())
    }
}
