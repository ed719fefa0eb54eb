//! Checking everything: every frame, and the indexes against the journal.

use std::collections::HashMap;
use std::sync::Arc;

use emdb_format::{CatalogChange, FIRST_POSITION};
use emdb_index::{Cursor, Entry, RangeBatch, RangeCursor};
use emdb_journal::{Error as Journal, Kind, Opened};

use super::read::Extent;
use super::{Engine, index_error};
use crate::space::Space;
use crate::stats::VerifyReport;
use crate::{Error, Result};

impl Engine {
    /// Reads every frame, verifies it, and compares what the indexes hold with it.
    /// Writers wait meanwhile. Works on a poisoned database, too.
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        self.check_open()?;
        self.journal.wait_for_batch("verify")?;
        for space in self.spaces() {
            self.check_index(&space)?;
        }
        // With the write side held, index and journal stand still together.
        let batch = match self.journal.begin("verify") {
            Ok(batch) => Some(batch),
            Err(Journal::ReadOnly) => None,
            Err(Journal::Poisoned) => {
                // Nobody begins to write any more; those who had begun are waited for.
                self.journal.wait_for_writers();
                None
            }
            Err(error) => return Err(error.into()),
        };
        let mut report = VerifyReport::default();
        let mut live: HashMap<u32, u64> = HashMap::from([(self.root.id(), 0)]);
        self.journal.replay(FIRST_POSITION, &mut |replayed| {
            let (position, frame) = (replayed.position, replayed.frame);
            report.frames += 1;
            report.bytes += frame.len() as u64;
            if frame.kind == Kind::Catalog {
                let change = CatalogChange::decode(frame.value)
                    .map_err(|error| Error::corrupted(position, error.to_string()))?;
                if let CatalogChange::Create(id) | CatalogChange::Clear(id) = change {
                    live.insert(id, 0);
                }
                return Ok(());
            }
            let replaces_live = match frame.previous {
                Some(link) => {
                    let opened = Opened::new();
                    replayed.head_at(link.position, &opened)?.kind == Kind::Put
                }
                None => false,
            };
            let count = live.entry(frame.namespace).or_default();
            match (frame.kind, replaces_live) {
                (Kind::Put, false) => *count += 1,
                (Kind::Tombstone, true) => *count = count.saturating_sub(1),
                (Kind::Put, true) => {}
                _ => return Err(Error::corrupted(position, "a tombstone of nothing")),
            }
            Ok::<(), Error>(())
        })?;
        let upto = self.journal.published();
        for space in self.spaces() {
            let id = space.id();
            let expected = live.get(&id).copied().unwrap_or(0);
            let mut found = 0;
            let mut entries = Vec::new();
            let mut next = Some(Cursor::default());
            while let Some(at) = next {
                next = space
                    .index
                    .copy_segment(at, &mut entries)
                    .map_err(index_error)?;
                for entry in &entries {
                    let position = entry.location.get();
                    let entry = Entry {
                        verified: false,
                        ..*entry
                    };
                    let opened = Opened::new();
                    let seen = self.entry_at(entry, id, upto, Extent::Whole, &opened)?;
                    let Some((location, frame)) = seen else {
                        continue;
                    };
                    let hash = self.hash(frame.key);
                    let through =
                        self.find_frame(&space, hash, frame.key, Extent::Head, upto, &opened)?;
                    let same = through.is_some_and(|through| through.is_same(&frame));
                    if !same || location.get() != position {
                        return Err(Error::corrupted(position, "not found through its index"));
                    }
                    found += 1;
                }
            }
            if found != expected || space.records() != expected {
                let reason = format!(
                    "namespace {:?}: {found} records indexed, {} counted, {expected} in the journal",
                    space.name,
                    space.records()
                );
                return Err(Error::corrupted(0, reason));
            }
            if self.check_ordered().is_ok() {
                self.verify_order(&space, upto, found)?;
            }
            report.records += found;
        }
        drop(batch);
        Ok(report)
    }

    /// Compares the order of keys with the index, which has so many `records`.
    fn verify_order(&self, space: &Arc<Space>, upto: u64, records: u64) -> Result<()> {
        let id = space.id();
        let order = self.order_of(space, id)?;
        let (mut found, mut last): (u64, Option<Vec<u8>>) = (0, None);
        let (mut range, mut batch) = (RangeCursor::default(), RangeBatch::default());
        while order.next_batch(&mut range, 128, &mut batch, |at| self.key_at(at))? {
            for entry in batch.entries() {
                let position = entry.location.get();
                let entry = Entry {
                    verified: false,
                    ..*entry
                };
                let opened = Opened::new();
                let seen = self.entry_at(entry, id, upto, Extent::Head, &opened)?;
                let Some((_, frame)) = seen else {
                    continue;
                };
                if last.is_some_and(|last| last.as_slice() >= frame.key) {
                    return Err(Error::corrupted(position, "a key out of order"));
                }
                let hash = self.hash(frame.key);
                let through =
                    self.find_frame(space, hash, frame.key, Extent::Head, upto, &opened)?;
                if !through.is_some_and(|through| through.is_same(&frame)) {
                    return Err(Error::corrupted(position, "in the order, not in the index"));
                }
                last = Some(frame.key.to_vec());
                found += 1;
            }
        }
        if found == records {
            Ok(())
        } else {
            let reason = format!(
                "namespace {:?}: {found} keys in order, {records} indexed",
                space.name
            );
            Err(Error::corrupted(0, reason))
        }
    }
}
