//! Creating, clearing and dropping namespaces: one frame each.

use std::sync::Arc;
use std::sync::{MutexGuard, PoisonError};

use dashmap::DashMap;
use emdb_format::CatalogChange;
use emdb_index::HashIndex;
use emdb_journal::{FrameSpec, Kind};

use super::{Catalog, Engine};
use crate::space::Space;
use crate::{Error, Result};

impl Catalog {
    pub(super) fn new(spaces: DashMap<String, Arc<Space>>, next_id: u32) -> Self {
        Self {
            spaces,
            next_id: std::sync::Mutex::new(next_id),
        }
    }

    pub(super) fn next_id(&self) -> MutexGuard<'_, u32> {
        self.next_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The namespace of that name, if there is one.
    pub(crate) fn find_space(&self, name: &str) -> Result<Option<Arc<Space>>> {
        self.check_open()?;
        Ok(self
            .catalog
            .spaces
            .get(name)
            .map(|space| Arc::clone(&space)))
    }

    /// The namespace of that name, created if it is missing.
    pub(crate) fn create_space(&self, name: &str) -> Result<Arc<Space>> {
        if name.is_empty() {
            return Err(Error::InvalidConfig(
                "a namespace's name is empty".to_owned(),
            ));
        }
        if let Some(space) = self.find_space(name)? {
            return Ok(space);
        }
        self.journal.wait_for_batch("namespace")?;
        let mut next_id = self.catalog.next_id();
        if let Some(space) = self.find_space(name)? {
            return Ok(space);
        }
        let id = *next_id;
        let value = CatalogChange::Create(id).encode();
        let batch = self.journal.begin("namespace")?;
        let mut created = None;
        batch.commit_single(
            &FrameSpec::new(Kind::Catalog, name.as_bytes(), &value),
            |position| {
                let space = Space::new(name.to_owned(), id, position, HashIndex::new());
                let space = Arc::new(space);
                self.catalog
                    .spaces
                    .insert(name.to_owned(), Arc::clone(&space));
                created = Some(space);
            },
        )?;
        *next_id = bump(id)?;
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
        self.journal.wait_for_batch(call)?;
        let mut next_id = self.catalog.next_id();
        let batch = self.journal.begin(call)?;
        if space.is_dropped() {
            return Err(Error::NamespaceDropped);
        }
        let id = *next_id;
        let drops = matches!(change(id), CatalogChange::Drop(_));
        let value = change(if drops { space.id() } else { id }).encode();
        // What every record took in the journal, but for the heads of unusual ones.
        const FRAME_OVERHEAD: u64 = 8;
        let dead = space.logical_bytes() + space.records() * FRAME_OVERHEAD;
        let spec = FrameSpec::new(Kind::Catalog, space.name.as_bytes(), &value);
        let result = batch.commit_single(&spec, |position| {
            if drops {
                space.set_dropped();
                self.catalog.spaces.remove(&space.name);
            }
            space.end(position, id);
            self.add_dead(dead);
        });
        *next_id = bump(id)?;
        space.release_past(|ended| self.snapshots.all_after(ended));
        result?;
        Ok(())
    }

    /// The names of all namespaces but the default one, sorted.
    pub(crate) fn space_names(&self) -> Result<Vec<String>> {
        self.check_open()?;
        let mut names: Vec<_> = self
            .catalog
            .spaces
            .iter()
            .map(|space| space.key().clone())
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

fn bump(id: u32) -> Result<u32> {
    let max = u64::from(u32::MAX);
    id.checked_add(1).ok_or(Error::TooLarge {
        what: "number of namespaces",
        len: max + 1,
        max,
    })
}
