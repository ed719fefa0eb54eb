//! Taking the first or the last record out.
//!
//! The order of keys says which key comes next, and what it has unless the transaction changed
//! some key since the order was asked; then the hash index says that. So the order
//! need not know the removals of the transaction, and the keys that come next can be
//! fetched together: only a record that is stored, or an undo, makes them void.

use std::sync::Arc;

use emdb_index::{Entry, RangeBatch, RangeCursor};
use emdb_journal::{Frame, Kind, Opened};

use super::{Staging, Touched};
use crate::builder::VerifyReads;
use crate::engine::read::Extent;
use crate::engine::{Engine, Step};
use crate::space::End;
use crate::{Error, Result};

type Record = (Vec<u8>, Vec<u8>);

/// The most keys fetched together. The first time it is one, since few pops follow
/// each other, and then twice as many as before.
const TOGETHER: usize = 64;
/// So many changes are brought into the order at once for the sake of the keys that come next.
const FEW: usize = 64;

/// The keys that come next at an end, where their records are, and their hashes.
#[derive(Default)]
pub(super) struct Ahead {
    keys: Vec<(Entry, u64)>,
    at: usize,
    batch: RangeBatch,
    /// How many changes have nothing to do with these keys: the order knew them, or they were
    /// pops at this end since then.
    known: Option<u64>,
    /// What is left of the order behind them.
    rest: Option<RangeCursor<'static>>,
}

impl Ahead {
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.at = 0;
        self.known = None;
        self.rest = None;
    }
}

impl Staging {
    /// The key that comes next at that end, whatever it has.
    fn next_key(&mut self, engine: &Engine, at: usize, end: End) -> Result<Option<(Entry, u64)>> {
        let touched = self.touched(at)?;
        let ahead = match end {
            End::First => &touched.first,
            End::Last => &touched.last,
        };
        let is_due = ahead.at == ahead.keys.len();
        if is_due {
            let begins = ahead.rest.is_none();
            if begins {
                // Where the live keys begin is known once everything is done.
                self.drain(engine)?;
            }
            let touched = self.touched(at)?;
            let is_behind = !touched.is_abreast(end) && touched.unordered.len() <= FEW;
            if begins && touched.unordered_puts || is_behind {
                self.put_in_order(engine, at)?;
            }
        }
        let touched = self.touched.get_mut(at).ok_or(Error::NamespaceDropped)?;
        if is_due {
            touched.fetch(engine, end)?;
        }
        let ahead = touched.ahead(end);
        let next = ahead.keys.get(ahead.at).copied();
        ahead.at += usize::from(next.is_some());
        Ok(next)
    }
}

impl Touched {
    /// Whether the keys that were fetched at this end have what the order said.
    fn is_abreast(&self, end: End) -> bool {
        let ahead = match end {
            End::First => &self.first,
            End::Last => &self.last,
        };
        ahead.known == Some(self.changes)
    }

    fn ahead(&mut self, end: End) -> &mut Ahead {
        match end {
            End::First => &mut self.first,
            End::Last => &mut self.last,
        }
    }

    /// Finds the keys that come next, and brings what they need on its way.
    fn fetch(&mut self, engine: &Engine, end: End) -> Result<()> {
        let order = engine.order_of(&self.space, self.id)?;
        let space = Arc::clone(&self.space);
        let known = self.is_ordered().then_some(self.changes);
        let ahead = self.ahead(end);
        let known = known.or(ahead.known);
        let mut rest = ahead.rest.take().unwrap_or_else(|| space.dead_ends.rest());
        let max = (ahead.keys.len() * 2).clamp(1, TOGETHER);
        let batch = &mut ahead.batch;
        let resolve = |location| engine.key_at(location);
        match end {
            End::First => order.next_batch(&mut rest, max, batch, resolve)?,
            End::Last => order.next_back_batch(&mut rest, max, batch, resolve)?,
        };
        for entry in batch.entries() {
            engine.journal.prefetch_all(entry.location.get());
        }
        ahead.clear();
        for entry in ahead.batch.entries() {
            let hash = engine.hash(&engine.key_at(entry.location)?);
            space.index.prefetch(hash);
            ahead.keys.push((*entry, hash));
        }
        ahead.known = known;
        ahead.rest = Some(rest);
        Ok(())
    }

    /// A record came in for this key.
    pub(super) fn stored(&mut self, key: &[u8]) {
        self.space.dead_ends.revive(key);
        self.forget_ahead();
    }

    pub(super) fn forget_ahead(&mut self) {
        self.first.clear();
        self.last.clear();
    }
}

impl Engine {
    /// Removes the record at that end in the transaction.
    pub(crate) fn pop_in(&self, number: u64, at: usize, end: End) -> Result<Option<Record>> {
        self.check_ordered()?;
        let mut guard = self.open_staging(number)?;
        let staging = &mut *guard;
        let popped = self.pop_staged(staging, at, end);
        if popped.is_err()
            && let Some(touched) = staging.touched.get_mut(at)
        {
            // What was not removed comes next again.
            touched.forget_ahead();
        }
        popped
    }

    fn pop_staged(&self, staging: &mut Staging, at: usize, end: End) -> Result<Option<Record>> {
        staging.drain_but_doomed(self, at, end)?;
        while let Some((entry, hash)) = staging.next_key(self, at, end)? {
            let opened = Opened::new();
            if !staging.is_untouched()
                && let touched = staging.touched(at)?
                && let Some(frame) = self.newest_at(touched, end, (entry, hash), &opened)
            {
                staging.doom(self, (at, Some(end)), (entry.location, hash), &frame)?;
                if let Some(touched) = staging.touched.get_mut(at) {
                    let known = &mut touched.ahead(end).known;
                    *known = known.map(|known| known + 1);
                }
                return Ok(Some((frame.key.to_vec(), frame.value.to_vec())));
            }
            if let Some(popped) = self.pop_alone(staging, (at, end), (entry, hash))? {
                return Ok(Some(popped));
            }
        }
        Ok(None)
    }

    /// The frame that a key which came next at that end has, if it is live. `None` says
    /// nothing.
    fn newest_at<'a>(
        &'a self,
        touched: &Touched,
        end: End,
        (entry, hash): (Entry, u64),
        opened: &'a Opened,
    ) -> Option<Frame<'a>> {
        let space = &touched.space;
        if !touched.is_abreast(end) {
            let newest = self.still_newest(space, entry, Some(hash), opened);
            return newest.map(|(_, frame)| frame);
        }
        let position = entry.location.get();
        let frame = self.journal.frame(position, opened).ok()?;
        let verify = match self.verify_reads {
            VerifyReads::Once => !entry.verified,
            VerifyReads::Always => true,
            VerifyReads::Never => false,
        };
        if verify {
            self.journal.verify(position, &frame).ok()?;
        }
        let is_live = frame.kind == Kind::Put
            && frame.namespace == touched.id
            && !self.is_expired(&frame, None);
        is_live.then_some(frame)
    }

    /// Removes the record of a key, if it has one.
    #[cold]
    fn pop_alone(
        &self,
        staging: &mut Staging,
        (at, end): (usize, End),
        (entry, hash): (Entry, u64),
    ) -> Result<Option<Record>> {
        staging.drain(self)?;
        let position = entry.location.get();
        let opened = Opened::new();
        let frame = self.journal.head(position, &opened)?;
        let take = |stored: Option<&Frame<'_>>| {
            if !stored.is_some_and(|stored| stored.is_same(&frame)) {
                // Nobody has verified yet that this was the key.
                self.journal.verify_head(position, &frame)?;
            }
            let seen = stored.filter(|stored| !self.is_expired(stored, None));
            Ok(seen.map(|stored| (stored.key.to_vec(), stored.value.to_vec())))
        };
        let single = staging.is_untouched();
        let popped = if single {
            // It may stay the only change.
            let space = &staging.touched(at)?.space;
            let key = frame.key;
            let opened = Opened::new();
            let stored = self.find_own_frame(space, hash, key, Extent::Whole, u64::MAX, &opened)?;
            let popped: Result<_> = take(stored.as_ref());
            if let Ok(Some(_)) = popped {
                self.hold(staging, at, hash, key, None)?;
            }
            popped
        } else {
            let key = frame.key;
            staging.change(self, at, hash, key, Extent::Whole, |stored| {
                match take(stored) {
                    Ok(Some(record)) => Step::Remove(Ok(Some(record))),
                    other => Step::Keep(other),
                }
            })?
        }?;
        // What is held back may yet fail.
        let is_dead = popped.is_none() || !single;
        let ends = &staging.touched(at)?.space.dead_ends;
        ends.reach(end, frame.key, is_dead);
        Ok(popped)
    }
}

#[cfg(test)]
mod tests;
