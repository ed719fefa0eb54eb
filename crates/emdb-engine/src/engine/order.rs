//! Keys in order: what keeps a namespace's ordered index beside its hash index.
//!
//! Both change together, in a writer's turn or under the write side, and while the
//! stripe of the key's hash is locked. So at every position they know the same keys.

use std::borrow::Cow;
use std::sync::Arc;

use emdb_index::{Cursor, Location, OrderedIndex};
use emdb_journal::Opened;

use super::Engine;
use crate::space::Space;
use crate::{Error, Result};

impl Engine {
    /// # Errors
    /// [`Error::InvalidConfig`] unless the database keeps its keys in order.
    pub(crate) fn check_ordered(&self) -> Result<()> {
        if self.range_scans {
            Ok(())
        } else {
            Err(Error::InvalidConfig(
                "ranges need EmdbBuilder::enable_range_scans(true)".to_owned(),
            ))
        }
    }

    /// The keys of an incarnation in order, alive or ended.
    pub(crate) fn order_of(&self, space: &Space, id: u32) -> Result<Arc<OrderedIndex>> {
        self.check_ordered()?;
        let past = space.past();
        if space.id() == id {
            if space.is_order_broken() {
                return Err(Error::corrupted(
                    0,
                    "the order of keys could not be kept over a damaged record; reopen",
                ));
            }
            return Ok(space.order());
        }
        let ended = past.ended.iter().find(|ended| ended.id == id);
        ended
            .and_then(|ended| ended.order.clone())
            .ok_or(Error::NamespaceDropped)
    }

    /// The key of the record at a location that an index has.
    pub(crate) fn key_at(&self, location: Location) -> Result<Cow<'_, [u8]>> {
        Ok(self.journal.key(location.get())?)
    }

    /// The key was not there before.
    #[inline]
    pub(super) fn order_insert(&self, space: &Space, key: &[u8], location: Location) {
        if self.range_scans {
            let inserted = space
                .order()
                .insert(key, location, |location| self.key_at(location));
            if inserted.is_err() {
                // A record was damaged that had been sound; the key would be missing.
                space.set_order_broken();
            }
        }
    }

    #[inline]
    pub(super) fn order_replace(&self, space: &Space, key: &[u8], old: u64, new: Location) {
        if self.range_scans
            && !Location::new(old).is_some_and(|old| space.order().replace_at(key, old, new))
        {
            space.set_order_broken();
        }
    }

    #[inline]
    pub(super) fn order_remove(&self, space: &Space, key: &[u8], old: u64) {
        if self.range_scans
            && !Location::new(old).is_some_and(|old| space.order().remove_at(key, old))
        {
            space.set_order_broken();
        }
    }

    /// Puts the keys of a namespace in order; nobody changes it meanwhile.
    pub(super) fn build_order(&self, space: &Arc<Space>) -> Result<()> {
        let opened = Opened::new();
        let mut keys: Vec<(u64, &[u8], Location)> = Vec::new();
        let mut entries = Vec::new();
        let mut next = Some(Cursor::default());
        while let Some(at) = next {
            next = self.copy_entries(space, space.id(), at, &mut entries)?;
            for entry in &entries {
                self.journal.prefetch(entry.location.get());
            }
            for entry in &entries {
                let position = entry.location.get();
                let frame = self.journal.frame(position, &opened)?;
                // A damaged key would stand where nobody looks for it.
                self.journal.verify_head(position, &frame)?;
                keys.push((first_bytes(frame.key), frame.key, entry.location));
            }
        }
        keys.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(b.1)));
        let sorted = keys.into_iter().map(|(_, key, location)| (key, location));
        let order = OrderedIndex::build(sorted)
            .map_err(|_| Error::corrupted(0, "two records of one key in the index"))?;
        space.set_order(order);
        Ok(())
    }
}

/// The first bytes of a key, so that most keys are compared without looking at them.
fn first_bytes(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(key) {
        *to = *from;
    }
    #[expect(clippy::big_endian_bytes, reason = "the first byte decides first")]
    u64::from_be_bytes(bytes)
}
