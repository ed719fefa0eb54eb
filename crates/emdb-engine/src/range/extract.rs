//! Removing records while walking over them, each by an operation of its own.

use emdb_index::{Entry, OrderedIndex};
use emdb_journal::Opened;

use super::{End, RangeWalk, copied};
use crate::engine::Extent;
use crate::{Namespace, Result};

type Record = (Vec<u8>, Vec<u8>);

/// What [`Namespace::extract_if`] removes.
pub struct ExtractIf<F> {
    namespace: Namespace,
    walk: Option<RangeWalk>,
    /// The hashes of the keys that the walk has fetched, where they are cheap to know.
    hashes: Vec<u64>,
    is_wanted: F,
}

impl<F: FnMut(&[u8], &[u8]) -> bool> ExtractIf<F> {
    pub(super) fn new(namespace: Namespace, walk: RangeWalk, is_wanted: F) -> Self {
        Self {
            namespace,
            walk: Some(walk.removing()),
            hashes: Vec::new(),
            is_wanted,
        }
    }

    fn step(&mut self) -> Result<Option<Record>> {
        loop {
            let Some(walk) = &mut self.walk else {
                return Ok(None);
            };
            let Some(found) = walk.entry(End::Front)? else {
                walk.stand.check()?;
                return Ok(None);
            };
            let (_, at, entry) = found;
            walk.fetch_index(at, &mut self.hashes);
            self.namespace.engine.check_open()?;
            let opened = Opened::new();
            let hash = self.hashes.get(at).copied();
            if let Some((hash, frame)) = walk.stand.still(entry, hash, &opened) {
                walk.remember(found);
                if !(self.is_wanted)(frame.key, frame.value) {
                    continue;
                }
                let (engine, space) = (&self.namespace.engine, self.namespace.space());
                let (own, batch) = (&walk.order, &mut walk.front.found);
                let forget = |order: &OrderedIndex| {
                    // A clear may have put another order in the place of the walk's.
                    let is_own = own.as_deref().is_some_and(|own| std::ptr::eq(own, order));
                    is_own && order.remove_found(batch, at)
                };
                if engine.remove_passed(space, (entry.location, hash), &frame, forget)? {
                    return Ok(Some(copied(&frame)));
                }
            }
            if let Some(record) = self.extract_changed(entry)? {
                return Ok(Some(record));
            }
        }
    }

    /// Removes the record of a key that has changed since the call, if what it has now is
    /// wanted.
    #[cold]
    fn extract_changed(&mut self, entry: Entry) -> Result<Option<Record>> {
        let Some(walk) = &self.walk else {
            return Ok(None);
        };
        let opened = Opened::new();
        let Some(seen) = walk.stand.see(entry, Extent::Whole, &opened)? else {
            return Ok(None);
        };
        let key = seen.key;
        loop {
            let Some(value) = self.namespace.get_zerocopy(key)? else {
                return Ok(None);
            };
            if !(self.is_wanted)(key, &value) {
                return Ok(None);
            }
            let swapped = self.namespace.compare_and_swap(key, Some(&value), None)?;
            if swapped.is_ok() {
                return Ok(Some((key.to_vec(), value.into_vec())));
            }
        }
    }
}

impl<F: FnMut(&[u8], &[u8]) -> bool> Iterator for ExtractIf<F> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step().transpose();
        if !matches!(result, Some(Ok(_))) {
            self.walk = None;
        }
        result
    }
}

impl<F> Drop for ExtractIf<F> {
    fn drop(&mut self) {
        if let Some(walk) = &mut self.walk {
            walk.end_removing();
        }
    }
}

impl<F: FnMut(&[u8], &[u8]) -> bool> std::iter::FusedIterator for ExtractIf<F> {}

#[cfg(test)]
mod tests;
