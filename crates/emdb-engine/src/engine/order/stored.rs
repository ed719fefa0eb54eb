//! The order of keys in checkpoints: writing it, and making indexes of it.
//!
//! It is only a cache. Where it is missing, damaged or does not fit, the keys are read.

use std::collections::HashMap;

use emdb_format::{CheckpointHead, CheckpointSpace};
use emdb_index::{Entry, Location, OrderedIndex};
use emdb_journal::{Kind, Opened, Sidecar, SidecarMemory};

use super::build::{Key, rank};
use crate::engine::{Engine, Extent};
use crate::{Error, Result};

/// The orders in a checkpoint, and what was replayed since.
pub(in crate::engine) struct StoredOrders {
    /// The image for each namespace in the checkpoint, by id; `None` if it is of no use.
    images: HashMap<u32, Option<Box<dyn SidecarMemory>>>,
    /// Locations are below.
    at: u64,
    /// Positions of the records replayed since then, in this order.
    replayed: Vec<u64>,
    replayed_max: usize,
}

/// What was written of an order.
pub(in crate::engine) struct Written {
    pub(in crate::engine) bytes: u64,
    pub(in crate::engine) keys: u64,
}

impl StoredOrders {
    pub(in crate::engine) fn new(head: &CheckpointHead) -> Self {
        /// As many are read in no time.
        const FEW: u64 = 1 << 16;
        let records = head.spaces.iter().map(|space| space.records);
        let records = records.fold(0, u64::saturating_add);
        Self {
            images: HashMap::new(),
            at: head.replay_from,
            replayed: Vec::new(),
            replayed_max: usize::try_from(records.max(FEW)).unwrap_or(usize::MAX),
        }
    }

    /// Takes the order of a namespace out of the checkpoint.
    pub(in crate::engine) fn add(&mut self, space: &CheckpointSpace, sidecar: &mut Sidecar<'_>) {
        let image = sidecar.open(space.order_offset, space.order_len);
        self.images.insert(space.id, image);
    }

    /// Says that a record was replayed.
    pub(in crate::engine) fn note(&mut self, position: u64) {
        if self.replayed.len() < self.replayed_max {
            self.replayed.push(position);
        } else {
            // So many changes are not worth making.
            self.replayed = Vec::new();
            self.replayed_max = 0;
            self.images.values_mut().for_each(|image| *image = None);
        }
    }
}

/// The records of one namespace that were replayed.
type Changes<'a> = Vec<(Key<'a>, Kind)>;

impl Engine {
    /// Writes the order of keys as it was at the position `at`, where a snapshot is open.
    /// `tombstones` are those below that the index has, sorted.
    pub(in crate::engine) fn write_order(
        &self,
        order: &OrderedIndex,
        space: &CheckpointSpace,
        at: u64,
        tombstones: &[Location],
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Written> {
        let mut keys = 0;
        let mut choose = |location: Location| {
            let chosen = if location.get() < at {
                // Which of the kept tombstones this is, only the hash index knows.
                let is_gone = tombstones.binary_search(&location).is_ok();
                (!is_gone).then_some(location)
            } else {
                let entry = Entry {
                    location,
                    verified: false,
                    tombstone: false,
                };
                let opened = Opened::new();
                let version = self.entry_at(entry, space.id, at, Extent::Head, &opened)?;
                version.map(|(location, _)| location)
            };
            keys += u64::from(chosen.is_some());
            Ok::<_, Error>(chosen)
        };
        let bytes = order.write_image(&mut choose, |location| self.key_at(location), sink)?;
        Ok(Written { bytes, keys })
    }

    /// Gives every namespace the order of its keys; nobody changes them meanwhile.
    pub(in crate::engine) fn restore_orders(&self, stored: Option<StoredOrders>) -> Result<()> {
        let Some(mut stored) = stored else {
            return self
                .spaces()
                .iter()
                .try_for_each(|space| self.build_order(space));
        };
        let opened = Opened::new();
        let mut changes = self.changes(&stored.replayed, &opened)?;
        for space in self.spaces() {
            let image = stored.images.remove(&space.id());
            let is_stored = image.is_some();
            let order = image.flatten().and_then(|mut image| {
                let order = OrderedIndex::from_image(image.bytes_mut(), stored.at).ok()?;
                drop(image);
                let changes = changes.remove(&space.id()).unwrap_or_default();
                self.apply_changes(&order, changes).ok()?;
                (order.len() == space.records()).then_some(order)
            });
            match order {
                Some(order) => space.set_order(order),
                None => {
                    self.build_order(&space)?;
                    if is_stored {
                        self.checkpoints.set_incomplete();
                    }
                }
            }
        }
        Ok(())
    }

    /// The records at these positions, by namespace.
    fn changes<'a>(
        &'a self,
        replayed: &[u64],
        opened: &'a Opened,
    ) -> Result<HashMap<u32, Changes<'a>>> {
        let mut changes: HashMap<u32, Changes<'_>> = HashMap::new();
        for position in replayed {
            let frame = self.journal.head(*position, opened)?;
            let Some(location) = Location::new(*position) else {
                continue;
            };
            let key = Key {
                rank: rank(frame.key, &[]),
                bytes: frame.key,
                location,
            };
            changes
                .entry(frame.namespace)
                .or_default()
                .push((key, frame.kind));
        }
        Ok(changes)
    }

    fn apply_changes(&self, order: &OrderedIndex, mut changes: Changes<'_>) -> Result<()> {
        changes.sort_unstable_by(|(a, _), (b, _)| {
            a.order(b).then_with(|| a.location.cmp(&b.location))
        });
        // The last one of each key counts.
        let last = changes.chunk_by(|(a, _), (b, _)| a.bytes == b.bytes);
        let last = last.filter_map(<[_]>::last);
        let (there, gone): (Vec<_>, Vec<_>) = last.partition(|(_, kind)| *kind == Kind::Put);
        let there = there.into_iter().map(|(key, _)| (key.bytes, key.location));
        order.insert_sorted_batch(there, |location| self.key_at(location))?;
        for (key, _) in gone {
            order.remove(key.bytes, |location| self.key_at(location))?;
        }
        Ok(())
    }
}
