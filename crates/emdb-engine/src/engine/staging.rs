//! What the transaction that has the write side has done so far.
//!
//! Its records go into the journal as frames of a batch and into the indexes at once,
//! where `hidden_from` hides them from everybody else. So nothing is kept here for a
//! record, but for a removed one its position and hash, and the position of one that is
//! still to come into the order of keys. The last few records stored are held back, so that
//! the memory which each needs is on its way before it is looked at, and so that a
//! transaction of one record becomes a plain frame.
//!
//! A namespace that it clears goes on, for the transaction alone, as another one that
//! takes its place when the transaction is committed.
//!
//! Invariant: as long as a batch is in here, the write side belongs to the transaction
//! of this `number`; ending it takes the batch out first.

mod apply;
mod clear;
mod doomed;
mod pop;
mod tombstones;
mod touched;
mod undo;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use emdb_format::CatalogChange;
use emdb_index::HashIndex;
use emdb_journal::{Batch, Frame, FrameSpec, Kind, Mark, this_thread};

use super::catalog::{bump, check_name};
use super::{Engine, Extent, Step};
use crate::snapshots::Ticket;
use crate::space::{Delta, Exchanging, Space};
use crate::{Error, Result};

pub(crate) use doomed::Sweep;
pub(super) use touched::Swept;

use apply::Queue;
use doomed::Doomed;
use touched::Touched;

/// The open transaction, if there is one; otherwise memory to be used again.
pub(crate) struct Staging {
    batch: Option<Batch>,
    number: u64,
    owner: Option<ThreadId>,
    patience: Patience,
    /// Transactions are refused from here on.
    closing: bool,
    /// Why it can only be rolled back.
    failed: Option<&'static str>,
    /// The default namespace first.
    touched: Vec<Touched>,
    queue: Queue,
    /// They come before what is in the queue.
    doomed: Doomed,
    savepoints: Vec<Saved>,
    next_savepoint: u64,
    next_id: u32,
    /// The lowest position that was discarded since then, for iterators made at
    /// different times.
    discarded: Vec<Arc<AtomicU64>>,
}

/// What closing the database does about a transaction of another thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It is a call that is running: wait for it.
    Wait,
    /// It may never end: roll it back.
    RollBack,
}

/// A point to which the transaction can be taken back.
struct Saved {
    number: u64,
    mark: Mark,
    deltas: Vec<Delta>,
}

/// Where an iterator in a transaction stands.
pub(crate) struct Standpoint {
    pub(crate) space: Arc<Space>,
    pub(crate) id: u32,
    pub(crate) snapshot: Ticket,
    pub(crate) discarded: Arc<AtomicU64>,
}

impl Staging {
    pub(super) fn new(root: Arc<Space>) -> Self {
        Self {
            batch: None,
            number: 0,
            owner: None,
            patience: Patience::Wait,
            closing: false,
            failed: None,
            touched: vec![Touched::new(root, false)],
            queue: Queue::default(),
            doomed: Doomed::default(),
            savepoints: Vec::new(),
            next_savepoint: 0,
            next_id: 0,
            discarded: Vec::new(),
        }
    }

    /// Takes the batch out, and forgets everything about the transaction.
    fn reset(&mut self) -> Option<Batch> {
        self.touched.truncate(1);
        if let Some(root) = self.touched.first_mut() {
            root.forget();
        }
        self.queue.clear();
        self.doomed.clear();
        self.savepoints.clear();
        self.discarded.clear();
        self.failed = None;
        self.batch.take()
    }

    /// Where an iterator made now learns that what it stands on was discarded.
    fn discarded_from_now(&mut self) -> Arc<AtomicU64> {
        const NOTHING: u64 = u64::MAX;
        if let Some(last) = self.discarded.last()
            && last.load(Ordering::Relaxed) == NOTHING
        {
            return Arc::clone(last);
        }
        // What no iterator has any more is nobody's business.
        self.discarded.retain(|one| Arc::strong_count(one) > 1);
        let fresh = Arc::new(AtomicU64::new(NOTHING));
        self.discarded.push(Arc::clone(&fresh));
        fresh
    }

    /// Brings the order of a namespace's keys up to date.
    fn put_in_order(&mut self, engine: &Engine, at: usize) -> Result<()> {
        self.drain(engine)?;
        let cursor = self.batch.as_ref().ok_or(Error::Closed)?.cursor();
        if let Some(touched) = self.touched.get_mut(at) {
            touched.put_in_order(engine, cursor);
        }
        Ok(())
    }

    fn touched(&self, at: usize) -> Result<&Touched> {
        let touched = self.touched.get(at).filter(|touched| !touched.gone);
        touched.ok_or(Error::NamespaceDropped)
    }

    fn touch(&mut self, space: &Arc<Space>) -> Result<usize> {
        let same = |touched: &Touched| !touched.gone && Arc::ptr_eq(&touched.base, space);
        if let Some(at) = self.touched.iter().position(same) {
            return Ok(at);
        }
        if space.is_dropped() {
            return Err(Error::NamespaceDropped);
        }
        self.touched.push(Touched::new(Arc::clone(space), false));
        Ok(self.touched.len() - 1)
    }
}

impl Engine {
    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the write side for a transaction; gives its number, or `None` once the
    /// time is up.
    pub(crate) fn begin(
        &self,
        call: &'static str,
        timeout: Option<Duration>,
        patience: Patience,
    ) -> Result<Option<u64>> {
        self.check_open()?;
        self.check_indexes();
        // A deadline that cannot be told is as good as none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let batch = match deadline {
            None => self.journal.begin(call)?,
            Some(deadline) => match self.journal.begin_until(call, deadline)? {
                Some(batch) => batch,
                None => return Ok(None),
            },
        };
        let mut staging = self.staging();
        if staging.closing {
            return Err(Error::Closed);
        }
        staging.number += 1;
        staging.owner = Some(this_thread());
        staging.patience = patience;
        staging.next_id = self.catalog.next_id();
        if let Some(root) = staging.touched.first_mut() {
            root.id = root.space.id();
        }
        staging.batch = Some(batch);
        Ok(Some(staging.number))
    }

    /// The transaction of that number, from now on this thread's.
    fn open_staging(&self, number: u64) -> Result<MutexGuard<'_, Staging>> {
        self.check_open()?;
        let mut staging = self.staging();
        let here = this_thread();
        match &staging.batch {
            Some(batch) if staging.number == number => {
                if staging.owner != Some(here) {
                    batch.adopt();
                    staging.owner = Some(here);
                }
            }
            // Closing the database rolled it back.
            _ => return Err(Error::Closed),
        }
        match staging.failed {
            Some(reason) => Err(Error::TransactionAborted(reason)),
            None => Ok(staging),
        }
    }

    /// Makes all of the transaction visible at once. An error rolls it back, but for a
    /// sync that failed.
    pub(crate) fn commit(&self, number: u64) -> Result<()> {
        let mut staging = self.open_staging(number)?;
        let mut bytes = 0;
        if staging.is_single() {
            self.commit_single(staging)?;
        } else {
            let sealed = staging.seal(self);
            if let Err(error) = sealed {
                let batch = staging.roll_back(self);
                drop(staging);
                drop(batch);
                return Err(error);
            }
            let mut touched = staging.touched.split_off(1);
            if let Some(root) = staging.touched.first_mut() {
                let fresh = Touched::new(Arc::clone(&root.base), false);
                touched.push(std::mem::replace(root, fresh));
            }
            let next_id = staging.next_id;
            let batch = staging.reset();
            drop(staging);
            if let Some(batch) = batch {
                bytes = batch.cursor() - batch.begin();
                let committed = batch.commit(|| self.publish(&mut touched, next_id));
                self.remove_tombstones(&mut touched);
                self.release_past();
                committed?;
            }
        }
        if self.snapshots.has_unneeded() {
            self.remove_kept_tombstones();
        }
        self.checkpoint_when_due(bytes);
        Ok(())
    }

    /// Readers of what was cleared wait until the answer is dropped.
    fn publish(&self, touched: &mut [Touched], next_id: u32) -> Vec<Exchanging> {
        let mut exchanging = Vec::new();
        for touched in touched.iter_mut().filter(|touched| !touched.gone) {
            match self.exchange(touched) {
                Some(cleared) => exchanging.push(cleared),
                None => touched.space.apply(&touched.delta),
            }
            touched.space.will_expire_at(touched.earliest_expiry_ms);
            self.add_dead(touched.delta.dead_bytes);
            if touched.created {
                self.catalog.add(Arc::clone(&touched.space));
            }
        }
        self.catalog.set_next_id(next_id);
        exchanging
    }

    /// Undoes all of the transaction.
    pub(crate) fn roll_back(&self, number: u64) -> Result<()> {
        self.journal.check_not_forked()?;
        let mut staging = self.staging();
        if staging.number != number || staging.batch.is_none() {
            return Err(Error::Closed);
        }
        let batch = staging.roll_back(self);
        drop(staging);
        // Discards the frames and gives the write side back.
        drop(batch);
        Ok(())
    }

    /// Ends the transaction of another thread for good, and lets none begin.
    pub(crate) fn roll_back_others(&self, call: &'static str) -> Result<()> {
        let mut staging = self.staging();
        let is_own = staging.owner == Some(this_thread());
        if staging.batch.is_some() && is_own {
            return Err(Error::WriteInProgress(call));
        }
        staging.closing = true;
        let batch = match staging.patience {
            Patience::RollBack => staging.roll_back(self),
            Patience::Wait => None,
        };
        drop(staging);
        drop(batch);
        Ok(())
    }

    /// Ends a transaction that was leaked; nobody has a handle any more.
    pub(super) fn roll_back_leaked(&self) {
        let batch = self.staging().roll_back(self);
        drop(batch);
    }

    /// Undoes what `roll_back_others` did about transactions to come.
    pub(crate) fn allow_transactions(&self) {
        self.staging().closing = false;
    }

    /// The place of a namespace in the transaction.
    pub(crate) fn touch(&self, number: u64, space: &Arc<Space>) -> Result<usize> {
        self.open_staging(number)?.touch(space)
    }

    /// The place of the namespace of that name, if there is one.
    pub(crate) fn touch_name(&self, number: u64, name: &str) -> Result<Option<usize>> {
        let mut staging = self.open_staging(number)?;
        self.find_in(&mut staging, name)
    }

    fn find_in(&self, staging: &mut Staging, name: &str) -> Result<Option<usize>> {
        let is_it = |touched: &Touched| !touched.gone && touched.space.name == name;
        // The default namespace has no name.
        if let Some(at) = staging.touched.iter().skip(1).position(is_it) {
            return Ok(Some(at + 1));
        }
        match self.find_space(name)? {
            Some(space) => staging.touch(&space).map(Some),
            None => Ok(None),
        }
    }

    /// The place of the namespace of that name; the transaction creates it if it is
    /// missing.
    pub(crate) fn create_in(&self, number: u64, name: &str) -> Result<usize> {
        check_name(name)?;
        let mut staging = self.open_staging(number)?;
        if let Some(at) = self.find_in(&mut staging, name)? {
            return Ok(at);
        }
        staging.drain(self)?;
        let id = staging.next_id;
        let next_id = bump(id)?;
        let value = CatalogChange::Create(id).encode();
        let batch = staging.batch.as_mut().ok_or(Error::Closed)?;
        let position = batch.append(&FrameSpec::new(Kind::Catalog, name.as_bytes(), &value))?;
        staging.next_id = next_id;
        let space = Space::new(name.to_owned(), id, position, HashIndex::new());
        staging.touched.push(Touched::new(Arc::new(space), true));
        Ok(staging.touched.len() - 1)
    }

    /// The names of the namespaces that the transaction sees.
    pub(crate) fn names_in(&self, number: u64) -> Result<Vec<String>> {
        let mut names = self.space_names()?;
        let staging = self.open_staging(number)?;
        let created = |touched: &&Touched| touched.created && !touched.gone;
        let created = staging.touched.iter().filter(created);
        names.extend(created.map(|touched| touched.space.name.clone()));
        names.sort_unstable();
        Ok(names)
    }

    /// Records in a namespace, as the transaction sees them.
    pub(crate) fn len_in(&self, number: u64, at: usize) -> Result<u64> {
        let mut staging = self.open_staging(number)?;
        staging.drain(self)?;
        let touched = staging.touched(at)?;
        let records = touched.space.records();
        Ok(records.saturating_add_signed(touched.delta.records))
    }

    /// The present state, for an iterator.
    pub(crate) fn standpoint(&self, number: u64, at: usize) -> Result<Standpoint> {
        let mut staging = self.open_staging(number)?;
        staging.drain(self)?;
        let upto = staging.batch.as_ref().ok_or(Error::Closed)?.cursor();
        let discarded = staging.discarded_from_now();
        let touched = staging.touched(at)?;
        Ok(Standpoint {
            space: Arc::clone(&touched.space),
            id: touched.id,
            snapshot: self.snapshots.open_at(upto),
            discarded,
        })
    }

    /// As `standpoint`, for a look at the order of keys.
    pub(crate) fn ordered_standpoint(&self, number: u64, at: usize) -> Result<Standpoint> {
        let mut staging = self.open_staging(number)?;
        staging.put_in_order(self, at)?;
        drop(staging);
        self.standpoint(number, at)
    }

    /// A namespace, and where what the transaction sees now ends.
    fn sight(&self, number: u64, at: usize) -> Result<(Arc<Space>, u64)> {
        let mut staging = self.open_staging(number)?;
        staging.drain(self)?;
        let upto = staging.batch.as_ref().ok_or(Error::Closed)?.cursor();
        Ok((Arc::clone(&staging.touched(at)?.space), upto))
    }

    /// The name of a namespace.
    pub(crate) fn name_in(&self, number: u64, at: usize) -> Result<String> {
        let staging = self.open_staging(number)?;
        Ok(staging.touched(at)?.space.name.clone())
    }

    /// Changes one key; `decide` sees the value that the transaction sees.
    pub(crate) fn change_in<'v, T>(
        &self,
        number: u64,
        at: usize,
        key: &[u8],
        decide: impl FnOnce(Option<&[u8]>) -> Step<'v, T>,
    ) -> Result<T> {
        self.change_frame_in(number, at, key, |stored| {
            let seen = stored.filter(|frame| !self.is_expired(frame, None));
            decide(seen.map(|frame| frame.value))
        })
    }

    /// As `change_in`; `decide` sees also a record that has expired.
    pub(crate) fn change_frame_in<'v, T>(
        &self,
        number: u64,
        at: usize,
        key: &[u8],
        decide: impl FnOnce(Option<&Frame<'_>>) -> Step<'v, T>,
    ) -> Result<T> {
        let mut staging = self.open_staging(number)?;
        staging.drain(self)?;
        staging.change(self, at, self.hash(key), key, Extent::Whole, decide)
    }

    /// The point to which the transaction can be taken back: its present state.
    pub(crate) fn savepoint(&self, number: u64) -> Result<u64> {
        let mut staging = self.open_staging(number)?;
        staging.drain(self)?;
        let mark = staging.batch.as_ref().ok_or(Error::Closed)?.mark();
        let saved = Saved {
            number: staging.next_savepoint,
            mark,
            deltas: staging.touched.iter().map(|at| at.delta).collect(),
        };
        staging.next_savepoint += 1;
        let number = saved.number;
        staging.savepoints.push(saved);
        Ok(number)
    }

    /// Forgets a savepoint that nobody asks for any more.
    pub(crate) fn forget_savepoint(&self, number: u64, savepoint: u64) {
        if let Ok(mut staging) = self.open_staging(number) {
            staging.savepoints.retain(|saved| saved.number != savepoint);
        }
    }

    /// Says that the transaction can only be rolled back.
    pub(crate) fn fail(&self, number: u64, reason: &'static str) {
        if let Ok(mut staging) = self.open_staging(number) {
            staging.failed = Some(reason);
        }
    }
}
