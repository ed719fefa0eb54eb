//! Replay: from the frames of a journal to what they change in the indexes.
//!
//! A long replay has two threads: one reads and verifies, the other applies, behind it
//! and in the same order. What is found is the same as with one.

use std::mem;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;

use crate::hash::KeyHasher;
use emdb_index::Location;
use emdb_journal::{Frame, Kind, Opening};

use super::{find_error, index_error};
use crate::space::{Delta, Space};
use crate::{Error, Result};

/// Changes handed on at a time.
const PART: usize = 1024;
/// Parts that may wait to be applied.
const WAITING: usize = 16;
/// Less than this is replayed before a second thread has got going.
const WORTH_BYTES: u64 = 32 << 20;

/// Shows the frame at an earlier position, not verified; a large value may be left out.
pub(super) type LookBack<'a> = dyn Fn(u64, &mut dyn FnMut(&Frame<'_>)) -> Result<()> + 'a;

/// What a verified frame changes, so that whoever applies it need not read it again.
pub(super) struct Change {
    pub(super) hash: u64,
    pub(super) position: u64,
    /// Position of the version that is replaced.
    previous: Option<u64>,
    pub(super) namespace: u32,
    /// Bytes of key and value.
    logical_len: u32,
    frame_len: u32,
    pub(super) kind: Kind,
}

impl Change {
    pub(super) fn new(hasher: &KeyHasher, position: u64, frame: &Frame<'_>) -> Self {
        // Lengths are bounded by the format.
        let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        Self {
            hash: hasher.hash(frame.key),
            position,
            previous: frame.previous.map(|link| link.position),
            namespace: frame.namespace,
            logical_len: len(frame.key.len() + frame.value_len()),
            frame_len: len(frame.len()),
            kind: frame.kind,
        }
    }

    /// Applies it to its namespace. The frame said itself which version it replaces, so
    /// no key is compared and nothing else is read but the sizes of that.
    pub(super) fn apply(
        &self,
        space: &Space,
        hasher: &KeyHasher,
        look_back: &LookBack<'_>,
        keep_tombstone: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Delta> {
        let position = self.position;
        let corrupted = |reason| Error::corrupted(position, reason);
        let location = Location::new(position).ok_or_else(|| corrupted("impossible position"))?;
        let mut guard = space.index.lock(self.hash).map_err(index_error)?;
        let mut delta = Delta::default();
        let mut in_index = false;
        if let Some(previous) = self.previous {
            in_index = Location::new(previous)
                .is_some_and(|location| guard.find_location(location).is_some());
            let mut was_live = false;
            look_back(previous, &mut |old| {
                was_live = old.kind == Kind::Put;
                if was_live {
                    delta.remove(old);
                }
            })?;
            if was_live && !in_index {
                return Err(corrupted("the version that is replaced is not indexed"));
            }
        }
        match (self.kind, in_index) {
            (Kind::Put, true) => guard.replace(location, false),
            (Kind::Put, false) => {
                guard
                    .make_room(|location| {
                        let mut hash = 0;
                        look_back(location.get(), &mut |old| hash = hasher.hash(old.key))?;
                        Ok(hash)
                    })
                    .map_err(find_error)?;
                guard.insert(location, false);
            }
            (Kind::Tombstone, true) if keep_tombstone(position) => guard.replace(location, true),
            (Kind::Tombstone, true) => guard.remove(),
            _ => return Err(corrupted("a tombstone of nothing")),
        }
        drop(guard);
        match self.kind {
            Kind::Put => delta.put(self.logical_len.into()),
            _ => delta.dead_bytes += u64::from(self.frame_len),
        }
        space.apply(&delta);
        Ok(delta)
    }
}

/// Reads the journal from `from` on and calls `apply` with what its records change, in
/// order, a part at a time.
///
/// # Errors
/// What `apply` returned, before whatever is wrong with the journal behind that.
pub(super) fn changes(
    opening: &Opening,
    from: u64,
    hasher: &KeyHasher,
    apply: &mut dyn FnMut(&[Change]) -> Result<()>,
) -> Result<()> {
    let len = opening.file_bytes().saturating_sub(from);
    let is_worth_it = len >= WORTH_BYTES
        && thread::available_parallelism().is_ok_and(|threads| threads.get() > 1);
    thread::scope(|scope| {
        if is_worth_it {
            let (sender, parts) = mpsc::sync_channel(WAITING);
            let (done, used) = mpsc::channel();
            let mut hand_on = move |part| {
                // Nobody receives once a part could not be applied: that error counts.
                sender.send(part).map_err(|_| Error::Closed)?;
                Ok(used.try_recv().unwrap_or_default())
            };
            let reader = thread::Builder::new()
                .name("emdb-replay".to_owned())
                .spawn_scoped(scope, move || read(opening, from, hasher, &mut hand_on));
            if let Ok(reader) = reader {
                let applied = parts.iter().try_for_each(|part: Vec<Change>| {
                    apply(&part)?;
                    // The reader may have come to its end.
                    let _ = done.send(part);
                    Ok(())
                });
                drop(parts);
                let read = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
                return applied.and(read);
            }
        }
        read(opening, from, hasher, &mut |part| {
            apply(&part)?;
            Ok(part)
        })
    })
}

/// Reads the journal and hands its changes on in parts, each for an empty one.
fn read(
    opening: &Opening,
    from: u64,
    hasher: &KeyHasher,
    hand_on: &mut dyn FnMut(Vec<Change>) -> Result<Vec<Change>>,
) -> Result<()> {
    let mut part = Vec::with_capacity(PART);
    let end = opening.replay(from, &mut |replayed| {
        part.push(Change::new(hasher, replayed.position, replayed.frame));
        if part.len() == PART {
            part = hand_on(mem::take(&mut part))?;
            part.clear();
            part.reserve_exact(PART);
        }
        Ok(())
    });
    // What lies before the end counts, whatever is wrong there. Nothing is left of a
    // part that could not be handed on.
    hand_on(part)?;
    end.map(drop)
}
