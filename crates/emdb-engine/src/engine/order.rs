//! Keys in order: what keeps a namespace's ordered index beside its hash index.
//!
//! Both change together, in a writer's turn or under the write side, and while the
//! stripe of the key's hash is locked. So at every position they know the same keys.
//!
//! But for batches: one brings its keys into the order later, sorted, before it is
//! committed or looks at the order itself. Until then the order leads to earlier versions.
//! And the tombstones that it leaves go out of the order before they leave the hash index.

mod build;
mod sort;
mod stored;

use std::borrow::Cow;
use std::sync::Arc;

use emdb_index::{Direction, Location, OrderedIndex};
use emdb_journal::{Kind, Opened};

use super::Engine;
use super::staging::Swept;
use crate::builder::VerifyReads;
use crate::space::Space;
use crate::{Error, Result};

pub(super) use sort::Placed;
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
        let order = if space.id() == id {
            (!space.is_order_broken()).then(|| space.order())
        } else {
            let ended = past.ended.iter().find(|ended| ended.id == id);
            ended.ok_or(Error::NamespaceDropped)?.order.clone()
        };
        order.ok_or_else(|| {
            Error::corrupted(
                0,
                "the order of keys could not be kept over a damaged record; reopen",
            )
        })
    }

    /// Calls `work` with the keys of an incarnation in order. It must not write.
    #[inline]
    pub(crate) fn with_order_of<T>(
        &self,
        space: &Space,
        id: u32,
        work: impl FnOnce(&OrderedIndex) -> T,
    ) -> Result<T> {
        space.with_living_order(id, |order| match order {
            Some(order) => Ok(work(order)),
            None => Ok(work(&*self.order_of(space, id)?)),
        })
    }

    /// The key of the record at a location that an index has.
    pub(crate) fn key_at(&self, location: Location) -> Result<Cow<'_, [u8]>> {
        let position = location.get();
        // A damaged key would lead to the wrong place. Who read all keys to put them in
        // order has verified them.
        if self.keys_unread && self.verify_reads != VerifyReads::Never {
            return Ok(self.journal.verified_key(position)?);
        }
        Ok(self.journal.key(position)?)
    }

    /// The key was not there before.
    #[inline]
    pub(super) fn order_insert(&self, space: &Space, key: &[u8], location: Location) {
        if self.range_scans {
            space.dead_ends.revive(key);
            let inserted = space
                .with_order(|order| order.insert(key, location, |location| self.key_at(location)));
            if inserted.is_err() {
                // A record was damaged that had been sound; the key would be missing.
                space.set_order_broken();
            }
        }
    }

    /// The key was there, with a record or a tombstone at `old`.
    #[inline]
    pub(super) fn order_replace(
        &self,
        space: &Space,
        key: &[u8],
        old: u64,
        new: Location,
        kind: Kind,
    ) {
        if !self.range_scans {
            return;
        }
        if kind == Kind::Put {
            space.dead_ends.revive(key);
        }
        let replace = |old| space.with_order(|order| order.replace_at(key, old, new));
        if !Location::new(old).is_some_and(replace) {
            self.order_replace_gone(space, key, old, new);
        }
    }

    /// A tombstone may be gone from the order already; anything else must be there.
    #[cold]
    fn order_replace_gone(&self, space: &Space, key: &[u8], old: u64, new: Location) {
        let opened = Opened::new();
        let frame = self.journal.head(old, &opened);
        if frame.is_ok_and(|frame| frame.kind == Kind::Tombstone) {
            self.order_insert(space, key, new);
        } else {
            space.set_order_broken();
        }
    }

    #[inline]
    pub(super) fn order_remove(&self, space: &Space, key: &[u8], old: u64) {
        let remove = |old| space.with_order(|order| order.remove_at(key, old));
        if self.range_scans && !Location::new(old).is_some_and(remove) {
            space.set_order_broken();
        }
    }

    /// As `order_remove`, for who may know where the key is: `forget` says whether it did.
    #[inline]
    pub(super) fn order_remove_found(
        &self,
        space: &Space,
        key: &[u8],
        old: u64,
        forget: impl FnOnce(&OrderedIndex) -> bool,
    ) {
        if !space.with_order(forget) {
            self.order_remove(space, key, old);
        }
    }

    /// Takes the key of a tombstone out, unless it is gone already.
    pub(super) fn order_forget(&self, space: &Space, key: &[u8], tombstone: Location) {
        if self.range_scans {
            space.with_order(|order| order.remove_at(key, tombstone));
        }
    }

    /// Sorts these records of a namespace by their keys.
    pub(super) fn sorted(
        &self,
        space: &Space,
        positions: impl Iterator<Item = u64>,
    ) -> Vec<Placed> {
        sort::by_key(&self.journal, positions).unwrap_or_else(|_| {
            space.set_order_broken();
            Vec::new()
        })
    }

    /// Brings the newest of these records of a namespace into its order; those of equal
    /// keys come oldest first.
    pub(super) fn order_all(&self, space: &Space, sorted: &[Placed]) {
        let done = self.with_keys(sorted, |records| {
            space
                .order()
                .insert_sorted_batch(records, |location| self.key_at(location))
        });
        if !matches!(done, Ok(Ok(_))) {
            space.set_order_broken();
        }
    }

    /// Takes the keys of these tombstones out of the order, but for those that have a
    /// newer record there.
    pub(super) fn order_remove_all(&self, space: &Space, sorted: &[Placed]) {
        let done = self.with_keys(sorted, |records| space.order().remove_sorted_batch(records));
        if done.is_err() {
            space.set_order_broken();
        }
    }

    /// Puts tombstones in the place of the records that they remove, which the order has.
    pub(super) fn order_replace_swept(&self, space: &Space, swept: &[Swept], way: Direction) {
        self.order_swept(space, swept, |order, key, rest| {
            let pairs = rest.iter().map(|swept| (swept.old, swept.tombstone));
            let replaced = order.replace_run(key, pairs, way);
            if replaced == 0 {
                // It leads to something else, of which it should not.
                space.set_order_broken();
            }
            replaced
        });
    }

    /// Takes the keys of tombstones out of the order, but for those that have a newer
    /// record there.
    pub(super) fn order_remove_swept(&self, space: &Space, swept: &[Swept], way: Direction) {
        self.order_swept(space, swept, |order, key, rest| {
            order.remove_run(key, rest.iter().map(|swept| swept.tombstone), way)
        });
    }

    /// Has `change` do as many as it can at once, given the key of the first.
    fn order_swept(
        &self,
        space: &Space,
        swept: &[Swept],
        change: impl Fn(&OrderedIndex, &[u8], &[Swept]) -> usize,
    ) {
        if swept.is_empty() {
            return;
        }
        let (order, mut rest) = (space.order(), swept);
        while let Some(first) = rest.first() {
            let Ok(key) = self.key_at(first.tombstone) else {
                space.set_order_broken();
                return;
            };
            let changed = change(&order, &key, rest);
            rest = rest.get(changed.max(1)..).unwrap_or_default();
        }
    }

    /// Gives the key the location that it has without what was undone, or none.
    pub(super) fn order_restore(&self, space: &Space, key: &[u8], before: Option<Location>) {
        let (order, resolve) = (space.order(), |location| self.key_at(location));
        let restored = match before {
            Some(location) => order.insert(key, location, resolve),
            None => order.remove(key, resolve),
        };
        if restored.is_err() {
            space.set_order_broken();
        }
    }

    /// Hands the keys of records to `take`.
    fn with_keys<'a, T>(
        &'a self,
        sorted: &[Placed],
        take: impl FnOnce(&mut dyn Iterator<Item = (Cow<'a, [u8]>, Location)>) -> T,
    ) -> Result<T> {
        let mut failed = None;
        let mut records = sorted.iter().enumerate().map_while(|(at, placed)| {
            if let Some(ahead) = sorted.get(at + sort::AHEAD) {
                self.journal.prefetch(ahead.position);
            }
            let location = Location::new(placed.position)?;
            let key = self.key_at(location).map_err(|error| failed = Some(error));
            Some((key.ok()?, location))
        });
        let taken = take(&mut records);
        failed.map_or(Ok(taken), Err)
    }
}
