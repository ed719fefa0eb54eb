//! Taking a transaction back, all of it or to a savepoint, while it is still hidden.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use emdb_index::Location;
use emdb_journal::{Batch, Kind, Opened};

use super::{Staging, Touched};
use crate::engine::{Engine, Extent};
use crate::snapshots::KeptTombstone;
use crate::space::Delta;
use crate::{Error, Result};

impl Staging {
    /// Undoes everything. Dropping the batch then discards the frames and gives the
    /// write side back.
    pub(super) fn roll_back(&mut self, engine: &Engine) -> Option<Batch> {
        let batch = self.batch.as_ref()?;
        let (begin, end) = (batch.begin(), batch.cursor());
        self.undo(engine, begin, end);
        self.reset()
    }

    /// Puts every entry that frames from `from` on changed back to what it was before.
    fn undo(&mut self, engine: &Engine, from: u64, end: u64) {
        for discarded in &self.discarded {
            // SeqCst: an iterator looks after it has loaded an entry, which is taken
            // back after this.
            discarded.fetch_min(from, Ordering::SeqCst);
        }
        for touched in &mut self.touched {
            touched.undo_clears(from);
            // Of what was only held back, too.
            touched.forget_from(from);
        }
        if from >= end {
            return;
        }
        let begin = self.batch.as_ref().map_or(from, Batch::begin);
        let touched: HashMap<u32, &Touched> = self
            .touched
            .iter()
            .map(|touched| (touched.id, touched))
            .collect();
        let mut position = from;
        while position < end {
            let opened = Opened::new();
            let Ok(frame) = engine.journal.any_head(position, &opened) else {
                return;
            };
            if matches!(frame.kind, Kind::Put | Kind::Tombstone) && frame.batch {
                // Only a version that leads out of what is undone tells what was before.
                let before = frame.previous.map(|link| link.position);
                if before.is_none_or(|before| before < from)
                    && let Some(touched) = touched.get(&frame.namespace)
                {
                    let own = before.is_some_and(|before| before >= begin);
                    engine.undo_key(touched, position, frame.key, before, own);
                }
            }
            position += frame.len() as u64;
        }
        // A sweep may have passed over what came back.
        for touched in &self.touched {
            touched.space.will_expire_at(0);
        }
    }
}

impl Engine {
    /// Takes the transaction back to a savepoint, which stays.
    pub(crate) fn roll_back_to(&self, number: u64, savepoint: u64) -> Result<()> {
        let mut guard = self.open_staging(number)?;
        let staging = &mut *guard;
        let Some(at) = staging
            .savepoints
            .iter()
            .position(|saved| saved.number == savepoint)
        else {
            let reason = "the savepoint is not of this transaction, or was taken back itself";
            return Err(Error::InvalidConfig(reason.to_owned()));
        };
        let Some(saved) = staging.savepoints.get(at) else {
            return Ok(());
        };
        let (mark, deltas) = (saved.mark, saved.deltas.clone());
        let batch = staging.batch.as_mut().ok_or(Error::Closed)?;
        let end = batch.cursor();
        // First what can fail: an error changes nothing.
        batch.discard_from(&mark)?;
        staging.queue.clear();
        staging.doomed.clear();
        staging.savepoints.truncate(at + 1);
        staging.undo(self, mark.position(), end);
        for (at, touched) in staging.touched.iter_mut().enumerate() {
            let before = deltas.get(at);
            touched.gone |= touched.created && before.is_none();
            touched.delta = before.copied().unwrap_or_else(Delta::default);
        }
        Ok(())
    }

    /// Takes a key back to `before`. Its first version to go is at `from`.
    fn undo_key(&self, touched: &Touched, from: u64, key: &[u8], before: Option<u64>, own: bool) {
        let (space, hash) = (&touched.space, self.hash(key));
        space.dead_ends.revive(key);
        let Ok(mut guard) = self.lock_in_batch(space, hash) else {
            return;
        };
        let opened = Opened::new();
        let newest = self.newest(&mut guard, touched.id, key, Extent::Head, &opened);
        if !matches!(newest, Ok(Some(_))) {
            return;
        }
        let before = before.and_then(Location::new);
        if self.range_scans && from < touched.ordered_upto {
            self.order_restore(space, key, before);
        }
        let Some(location) = before else {
            guard.remove();
            return;
        };
        let tombstone = self
            .journal
            .head(location.get(), &opened)
            .is_ok_and(|frame| frame.kind == Kind::Tombstone);
        guard.replace(location, tombstone);
        drop(guard);
        if tombstone && !own {
            // Whoever was to remove it may have found it replaced, and forgotten it.
            self.snapshots.keep(KeptTombstone {
                space: Arc::clone(space),
                hash,
                position: location.get(),
            });
        }
    }
}
