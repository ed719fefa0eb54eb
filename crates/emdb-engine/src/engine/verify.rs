//! Checking everything: every frame, and the indexes against the journal.

use std::collections::HashMap;

use emdb_format::{CatalogChange, FIRST_POSITION};
use emdb_index::Cursor;
use emdb_journal::{Error as Journal, Kind, Opened};

use super::read::Extent;
use super::{Engine, index_error};
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
                Some(link) => replayed.frame_at(link.position)?.kind == Kind::Put,
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
                    let entry = emdb_index::Entry {
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
                    let same = through.is_some_and(|through| {
                        std::ptr::eq(through.key.as_ptr(), frame.key.as_ptr())
                    });
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
            report.records += found;
        }
        drop(batch);
        Ok(report)
    }
}
