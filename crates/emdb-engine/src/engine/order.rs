//! Keys in order: what keeps a namespace's ordered index beside its hash index.
//!
//! Both change together, in a writer's turn or under the write side, and while the
//! stripe of the key's hash is locked. So at every position they know the same keys.

mod build;
mod stored;

use std::borrow::Cow;
use std::sync::Arc;

use emdb_index::{Location, OrderedIndex};
use emdb_journal::Opened;

use super::Engine;
use crate::builder::VerifyReads;
use crate::space::Space;
use crate::{Error, Result};

pub(super) use stored::StoredOrders;

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
        let position = location.get();
        // A damaged key would lead to the wrong place. Who read all keys to put them in
        // order has verified them.
        if self.keys_unread && self.verify_reads != VerifyReads::Never {
            let opened = Opened::new();
            let frame = self.journal.frame(position, &opened)?;
            self.journal.verify_head(position, &frame)?;
        }
        Ok(self.journal.key(position)?)
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
}
