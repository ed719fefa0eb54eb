//! Creating, clearing and dropping namespaces: one frame each.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use emdb_format::CatalogChange;
use emdb_index::HashIndex;
use emdb_journal::{FrameSpec, Kind};

use super::Engine;
use crate::space::{Exchanging, Next, Space};
use crate::{Error, Result};

/// Which namespaces there are, beside the default one. Changes only under the write side.
pub(crate) struct Catalog {
    spaces: DashMap<String, Arc<Space>>,
    next_id: AtomicU32,
    /// Namespaces, the default one and dropped ones included, that held something
    /// which snapshots may need.
    past: Mutex<Vec<Arc<Space>>>,
    past_count: AtomicUsize,
    /// For who rebuilds an index where nobody can have the write side.
    rebuilding: Mutex<()>,
}

impl Catalog {
    pub(super) fn new(spaces: DashMap<String, Arc<Space>>, next_id: u32) -> Self {
        Self {
            spaces,
            next_id: AtomicU32::new(next_id),
            past: Mutex::default(),
            past_count: AtomicUsize::new(0),
            rebuilding: Mutex::default(),
        }
    }

    /// The id of the next incarnation; under the write side.
    pub(super) fn next_id(&self) -> u32 {
        self.next_id.load(Ordering::Acquire)
    }

    /// Says that ids below are used; under the write side.
    pub(super) fn set_next_id(&self, id: u32) {
        self.next_id.store(id, Ordering::Release);
    }

    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.rebuilding
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Every namespace but the default one.
    pub(super) fn spaces(&self) -> impl Iterator<Item = Arc<Space>> {
        self.spaces.iter().map(|entry| Arc::clone(entry.value()))
    }

    /// Adds a namespace; in the turn of the frame that creates it, or of its batch.
    pub(super) fn add(&self, space: Arc<Space>) {
        self.spaces.insert(space.name.clone(), space);
    }

    /// Ends the incarnation of a namespace; see [`Space::end`].
    pub(super) fn end(&self, space: &Arc<Space>, next: Next, drops: bool) -> Exchanging {
        // Held, so that nobody takes the namespace for one without a past in between.
        let mut past = self.past();
        if !past.iter().any(|other| Arc::ptr_eq(other, space)) {
            past.push(Arc::clone(space));
            self.past_count.store(past.len(), Ordering::SeqCst);
        }
        // A snapshot that does not find it here any more finds it in the past.
        if drops {
            self.spaces.remove(&space.name);
        }
        space.end(next, drops)
    }

    fn past(&self) -> MutexGuard<'_, Vec<Arc<Space>>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The namespace of that name, if there is one.
    pub(crate) fn find_space(&self, name: &str) -> Result<Option<Arc<Space>>> {
        self.check_open()?;
        let found = self.catalog.spaces.get(name);
        // One that a transaction creates is there an instant before its other effects.
        Ok(found
            .filter(|space| space.created < self.journal.hidden_from())
            .map(|space| Arc::clone(&space)))
    }

    /// The namespace of that name, created if it is missing.
    pub(crate) fn create_space(&self, name: &str) -> Result<Arc<Space>> {
        check_name(name)?;
        if let Some(space) = self.find_space(name)? {
            return Ok(space);
        }
        let batch = self.journal.begin("namespace")?;
        if let Some(space) = self.catalog.spaces.get(name) {
            return Ok(Arc::clone(&space));
        }
        let id = self.catalog.next_id();
        self.catalog.set_next_id(bump(id)?);
        let value = CatalogChange::Create(id).encode();
        let mut created = None;
        batch.commit_single(
            &FrameSpec::new(Kind::Catalog, name.as_bytes(), &value),
            |position| {
                let space = Space::new(name.to_owned(), id, position, HashIndex::new());
                let space = Arc::new(space);
                self.catalog.add(Arc::clone(&space));
                created = Some(space);
            },
        )?;
        created.ok_or(Error::NamespaceDropped)
    }

    /// Empties a namespace, whatever its size.
    pub(crate) fn clear(&self, space: &Arc<Space>) -> Result<()> {
        self.end_space(space, "clear", CatalogChange::Clear)?;
        Ok(())
    }

    /// Drops a namespace; tells whether there was one.
    pub(crate) fn drop_space(&self, name: &str) -> Result<bool> {
        let Some(space) = self.find_space(name)? else {
            return Ok(false);
        };
        match self.end_space(&space, "drop_namespace", CatalogChange::Drop) {
            Ok(()) => Ok(true),
            // Another thread was quicker.
            Err(Error::NamespaceDropped) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn end_space(
        &self,
        space: &Arc<Space>,
        call: &'static str,
        change: fn(u32) -> CatalogChange,
    ) -> Result<()> {
        self.check_open()?;
        let batch = self.journal.begin(call)?;
        if space.is_dropped() {
            return Err(Error::NamespaceDropped);
        }
        let id = self.catalog.next_id();
        self.catalog.set_next_id(bump(id)?);
        let drops = matches!(change(id), CatalogChange::Drop(_));
        let value = change(if drops { space.id() } else { id }).encode();
        let dead = dead_bytes_of(space.records(), space.logical_bytes());
        let spec = FrameSpec::new(Kind::Catalog, space.name.as_bytes(), &value);
        let result = batch.commit_single(&spec, |position| {
            self.add_dead(dead);
            self.catalog.end(space, Next::empty(id, position), drops)
        });
        self.release_past();
        result?;
        Ok(())
    }

    /// Gives back what namespaces held before they were cleared or dropped, where no
    /// snapshot needs it.
    #[inline]
    pub(crate) fn release_past(&self) {
        if self.catalog.past_count.load(Ordering::SeqCst) > 0 {
            let mut past = self.catalog.past();
            // Loaded before the snapshots are looked at: what a batch ends that is still hidden
            // belongs to whoever opens one now.
            let hidden_from = self.journal.hidden_from();
            let unneeded = |ended| ended < hidden_from && self.snapshots.all_after(ended);
            past.retain(|space| space.release_past(unneeded));
            self.catalog.past_count.store(past.len(), Ordering::SeqCst);
        }
    }

    /// The names of all namespaces but the default one, sorted.
    pub(crate) fn space_names(&self) -> Result<Vec<String>> {
        self.check_open()?;
        let hidden_from = self.journal.hidden_from();
        let mut names: Vec<_> = self
            .catalog
            .spaces
            .iter()
            .filter(|space| space.created < hidden_from)
            .map(|space| space.key().clone())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The namespaces that a snapshot at `position` sees, the default one not included,
    /// each with the id it had.
    pub(crate) fn spaces_at(&self, position: u64) -> Vec<(Arc<Space>, u32)> {
        // In this order: what leaves the first list is in the second one before.
        let mut spaces: Vec<_> = self.catalog.spaces().collect();
        for space in &*self.catalog.past() {
            if !space.name.is_empty() && !spaces.iter().any(|other| Arc::ptr_eq(other, space)) {
                spaces.push(Arc::clone(space));
            }
        }
        let alive = |space: Arc<Space>| space.id_at(position).map(|id| (space, id));
        spaces.into_iter().filter_map(alive).collect()
    }

    /// The namespace that had this name at a snapshot at `position`, with its id.
    pub(crate) fn space_at(&self, name: &str, position: u64) -> Option<(Arc<Space>, u32)> {
        let alive = self.catalog.spaces.get(name);
        let alive = alive.map(|space| Arc::clone(&space));
        let past: Vec<_> = self.catalog.past().iter().map(Arc::clone).collect();
        let of_name = past.into_iter().filter(|space| space.name == name);
        let mut spaces = alive.into_iter().chain(of_name);
        spaces.find_map(|space| space.id_at(position).map(|id| (space, id)))
    }
}

/// Checks the name of a namespace that may have to be created.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        let reason = "a namespace's name is empty".to_owned();
        return Err(Error::InvalidConfig(reason));
    }
    Ok(())
}

/// What so many live records take in the journal, but for the heads of unusual ones.
pub(super) fn dead_bytes_of(records: u64, logical_bytes: u64) -> u64 {
    const FRAME_OVERHEAD: u64 = 8;
    logical_bytes + records * FRAME_OVERHEAD
}

/// The id after this one.
pub(super) fn bump(id: u32) -> Result<u32> {
    let max = u64::from(u32::MAX);
    id.checked_add(1).ok_or(Error::TooLarge {
        what: "number of namespaces",
        len: max + 1,
        max,
    })
}

#[cfg(test)]
mod tests;
