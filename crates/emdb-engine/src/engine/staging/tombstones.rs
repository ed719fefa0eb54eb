//! Taking tombstones out of the indexes, once a commit has made them everybody's.

use std::sync::Arc;

use emdb_index::Location;

use super::Touched;
use super::apply::AHEAD;
use super::touched::{Removed, Sweeps, Swept, UNORDERED};
use crate::engine::Engine;
use crate::snapshots::KeptTombstone;
use crate::space::Space;

impl Engine {
    /// After a commit: removes the tombstones it left in the indexes, or has them kept
    /// for the snapshots that need them.
    pub(super) fn remove_tombstones(&self, touched: &mut [Touched]) {
        let Some(last) = touched.iter().filter_map(Touched::last_removed).max() else {
            return;
        };
        // A snapshot that is opened from here on sees the commit.
        let needed = !self.snapshots.all_after(last);
        for touched in touched.iter_mut().filter(|touched| !touched.gone) {
            let space = &touched.space;
            if needed {
                for Removed { position, hash } in touched.all_removed() {
                    self.snapshots.keep(KeptTombstone {
                        space: Arc::clone(space),
                        hash,
                        position,
                    });
                }
            } else {
                self.remove_unneeded(touched);
                if !self.snapshots.has_kept() {
                    // There is nothing to pass any more.
                    space.dead_ends.forget();
                }
            }
        }
    }

    /// Removes tombstones, unless newer versions have taken their places.
    fn remove_unneeded(&self, touched: &Touched) {
        let space = &touched.space;
        if let [only] = touched.removed.as_slice()
            && touched.all_removed().nth(1).is_none()
        {
            self.remove_tombstone(space, only.hash, only.position);
            return;
        }
        // First from the order: whoever takes the keys for alive where the hash index has no
        // tombstone is right.
        if self.range_scans {
            self.order_remove_all(space, &touched.removed_sorted);
            let sorted = touched.removed_sorted.len();
            let unsorted = touched.removed.len().saturating_sub(sorted);
            let unsorted = touched.removed.get(..unsorted).unwrap_or_default();
            for some in unsorted.chunks(UNORDERED) {
                let sorted = self.sorted(space, some.iter().map(|removed| removed.position));
                self.order_remove_all(space, &sorted);
            }
        }
        for Sweeps { direction, all, .. } in &touched.swept {
            self.order_remove_swept(space, all, *direction);
        }
        self.remove_entries(space, &touched.removed, |removed| *removed);
        for Sweeps { all, .. } in &touched.swept {
            self.remove_entries(space, all, Swept::removed);
        }
    }

    fn remove_entries<T>(&self, space: &Space, all: &[T], removed: impl Fn(&T) -> Removed) {
        for (at, one) in all.iter().enumerate() {
            if let Some(ahead) = all.get(at + AHEAD) {
                space.index.prefetch(removed(ahead).hash);
            }
            let Removed { position, hash } = removed(one);
            self.remove_entry(space, hash, position, || ());
        }
    }

    /// Removes a tombstone's entries, unless a newer version has taken its place.
    pub(crate) fn remove_tombstone(&self, space: &Space, hash: u64, position: u64) {
        self.remove_entry(space, hash, position, || {
            if let Some(location) = Location::new(position)
                && let Ok(key) = self.key_at(location)
            {
                self.order_forget(space, &key, location);
            }
        });
    }

    /// Removes a tombstone's entry in the hash index, unless a newer version has taken its
    /// place, and then calls `removed`.
    fn remove_entry(&self, space: &Space, hash: u64, position: u64, removed: impl FnOnce()) {
        // An index that cannot be locked is damaged, and rebuilt when it is used.
        if let Some(location) = Location::new(position)
            && let Ok(mut guard) = space.index.lock(hash)
            && guard
                .find_location(location)
                .is_some_and(|entry| entry.tombstone)
        {
            guard.remove();
            removed();
        }
    }
}
