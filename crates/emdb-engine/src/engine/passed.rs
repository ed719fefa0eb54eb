//! Removing a record that a walk over the order of keys has passed, by an operation of its own.

use std::sync::Arc;

use emdb_index::{Location, OrderedIndex};
use emdb_journal::{Frame, FrameSpec, Kind};

use super::Engine;
use super::write::Newest;
use crate::snapshots::KeptTombstone;
use crate::space::Space;
use crate::{Error, Result};

impl Engine {
    /// Removes the record at a location, whose key has that hash, unless the key has another
    /// one by now or none; tells whether it did. The caller has verified it, and has a snapshot
    /// open that has passed the key. `forget` takes it out of the order if it knows where it is.
    pub(crate) fn remove_passed(
        &self,
        space: &Arc<Space>,
        (location, hash): (Location, u64),
        frame: &Frame<'_>,
        mut forget: impl FnMut(&OrderedIndex) -> bool,
    ) -> Result<bool> {
        const CALL: &str = "extract_if";
        /// The caller's own snapshot.
        const UNNEEDING: usize = 1;
        let key = frame.key;
        self.check_open()?;
        self.journal.prefetch_end();
        loop {
            let mut kept = None;
            let appended = {
                let mut guard = self.lock(space, hash)?;
                // As for any writer.
                if self.journal.is_batch_open() {
                    drop(guard);
                    self.journal.wait_for_batch(CALL)?;
                    continue;
                }
                if space.is_dropped() {
                    return Err(Error::NamespaceDropped);
                }
                let is_newest = guard.find_location(location).is_some();
                if !is_newest || space.id() != frame.namespace || self.is_expired(frame, None) {
                    return Ok(false);
                }
                let newest = Newest {
                    position: location.get(),
                    frame: *frame,
                };
                let spec = FrameSpec {
                    namespace: frame.namespace,
                    previous: Some(self.link(&newest)),
                    ..FrameSpec::new(Kind::Tombstone, key, b"")
                };
                let delta = self.delta(&spec, Some(frame));
                self.journal.append_then(&spec, |position| {
                    let Some(tombstone) = Location::new(position) else {
                        return;
                    };
                    if self.snapshots.count() == UNNEEDING {
                        guard.remove();
                        self.order_remove_found(space, key, location.get(), &mut forget);
                    } else {
                        guard.replace(tombstone, true);
                        kept = Some(position);
                        self.order_replace(space, key, location.get(), tombstone, Kind::Tombstone);
                    }
                    space.apply(&delta);
                    self.add_dead(delta.dead_bytes);
                })?
            };
            let Ok(lsn) = appended else {
                self.journal.wait_for_batch(CALL)?;
                continue;
            };
            if let Some(position) = kept {
                self.snapshots.keep(KeptTombstone {
                    space: Arc::clone(space),
                    hash,
                    position,
                });
            } else if self.snapshots.has_unneeded() {
                self.remove_kept_tombstones();
            }
            self.checkpoint_when_due(0);
            self.journal.sync_appended(lsn)?;
            return Ok(true);
        }
    }
}
