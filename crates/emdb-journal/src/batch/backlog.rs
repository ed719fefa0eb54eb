//! Frames of a batch that are sealed some time after they were appended, many at once.
//!
//! To seal a small record takes longer than all else that its writer does for it, so a long
//! batch has a helper thread do it. A frame that is not sealed yet is in memory only, never in
//! the map. Whoever looks for it has it sealed, and does that itself unless it is being done
//! already; so nobody waits for a writer that is busy with something else.
//!
//! Invariants:
//! - Chunks are sealed and stored one at a time, in the order of their positions, and only in
//!   `seal_oldest`, which takes each out of the backlog first. So no position is sealed twice.
//! - They lie in prepared space, and are stored through the map: no input or output can fail.
//! - The batch stores nothing itself as long as something is in here.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use emdb_format::{BatchSum, FrameSpec, SealedLayout};

use super::{Batch, CLOSE_BYTES};
use crate::append::unmapped;
use crate::error::Error;
use crate::journal::Core;
use crate::seal::Seal;

/// Bytes of frames that are sealed together.
const CHUNK_BYTES: usize = 1 << 16;
/// Chunks that may wait for the helper.
const CHUNKS: usize = 8;
/// A batch that has as much as this gets a helper.
const HELPED_BYTES: u64 = 1 << 20;

/// What the open batch has appended but not stored.
#[derive(Default)]
pub(crate) struct Backlog {
    state: Mutex<State>,
    /// The helper waits here, for work.
    work: Condvar,
    /// Others wait here, for work that is being done.
    done: Condvar,
}

#[derive(Default)]
struct State {
    /// What the batch adds to.
    open: Chunk,
    /// What comes before it, oldest first.
    full: VecDeque<Chunk>,
    /// Somebody seals a chunk that comes before all of them.
    busy: bool,
    /// Threads that wait for something to be done.
    waiting: usize,
    /// The batch's sum, up to what is stored.
    sum: BatchSum,
    /// Why there will be no more of it.
    failed: Option<Error>,
    /// Bytes that the batch had in full chunks.
    full_bytes: u64,
    helper: Option<JoinHandle<()>>,
    helper_waits: bool,
    stop: bool,
    /// Memory to be used again.
    spare: Vec<Chunk>,
}

/// Frames, and markers between them, as they are to stand in the journal.
#[derive(Default)]
struct Chunk {
    /// Position of the first byte.
    from: u64,
    /// Their bytes up to `len`; what is behind that has no meaning.
    bytes: Vec<u8>,
    len: usize,
    /// Where those are that are still to be sealed.
    frames: Vec<(usize, SealedLayout)>,
}

impl Chunk {
    /// Adds a frame to what ends at a position, `lead` bytes behind it: those of a marker.
    fn add(
        &mut self,
        core: &Core,
        position: u64,
        lead: usize,
        spec: &FrameSpec<'_>,
        layout: &SealedLayout,
    ) -> Result<(), Error> {
        let start = self.len + lead;
        let end = start + layout.len();
        if self.bytes.len() < end {
            self.bytes.resize(end.next_power_of_two(), 0);
        }
        let frame = self.bytes.get_mut(start..end).unwrap_or_default();
        spec.store_unsealed(layout, frame)?;
        if lead != 0 {
            // It is sealed already: nothing else may come in its place.
            let marker = core.marker_frame(position).inspect_err(|_| core.poison());
            let (marker, _) = marker?;
            let to = self.bytes.get_mut(self.len..start).unwrap_or_default();
            for (to, byte) in to.iter_mut().zip(marker) {
                *to = byte;
            }
        }
        if self.len == 0 {
            self.from = position;
        }
        self.len = end;
        self.frames.push((start, *layout));
        Ok(())
    }

    fn clear(&mut self) {
        self.len = 0;
        self.frames.clear();
    }
}

impl State {
    /// Nothing more is added to the open chunk.
    fn close_open(&mut self) {
        let next = self.spare.pop().unwrap_or_default();
        let chunk = std::mem::replace(&mut self.open, next);
        self.full_bytes += chunk.len as u64;
        self.full.push_back(chunk);
    }
}

impl Backlog {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something was done.
    fn wait<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let state = self.done.wait(state);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    /// Nothing of it will be stored any more.
    fn fail(&self, error: Error) {
        let mut state = self.state();
        state.busy = false;
        state.open.clear();
        state.full.clear();
        state.failed.get_or_insert(error);
        drop(state);
        self.done.notify_all();
    }
}

impl Batch {
    /// Appends a frame that is to be sealed, if that can wait; gives its position.
    pub(super) fn append_unsealed(&mut self, spec: &FrameSpec<'_>) -> Result<Option<u64>, Error> {
        let core = &*self.core;
        let Some(seal) = &core.seal else {
            return Ok(None);
        };
        let layout = spec.sealed_layout()?;
        let is_due = self.cursor >= core.tail.marker_due.load(Ordering::Relaxed);
        if layout.value().is_some()
            || !core.is_stored_in_map(self.cursor)
            || is_due && seal.is_due(self.cursor)
        {
            return Ok(None);
        }
        let lead = if is_due {
            core.lead_len(self.cursor)
        } else {
            0
        };
        let position = self.cursor + lead;
        let end = position + layout.len() as u64;
        if end + CLOSE_BYTES > seal.limit() {
            return Ok(None);
        }
        core.check_writable()?;
        core.make_room(end + CLOSE_BYTES)?;
        let sum = (!self.has_backlog).then_some(self.sum);
        core.add_to_backlog(self.cursor, lead as usize, spec, &layout, sum)?;
        self.has_backlog = true;
        self.cursor = end;
        Ok(Some(position))
    }

    /// Has everything stored that was appended.
    pub(super) fn empty_backlog(&mut self) -> Result<(), Error> {
        if !self.has_backlog {
            return Ok(());
        }
        self.core.check_not_forked()?;
        self.has_backlog = false;
        match self.core.empty_backlog() {
            Ok(sum) => {
                self.sum = sum;
                Ok(())
            }
            Err(error) => {
                // What was not stored never was.
                self.cursor = self.core.tail.readable.load(Ordering::Acquire);
                Err(error)
            }
        }
    }
}

impl Core {
    /// Takes a frame that comes behind `position` by `lead` bytes, which a marker takes.
    /// What the batch had stored before had this `sum`, if it was empty here.
    fn add_to_backlog(
        &self,
        position: u64,
        lead: usize,
        spec: &FrameSpec<'_>,
        layout: &SealedLayout,
        sum: Option<BatchSum>,
    ) -> Result<(), Error> {
        let mut state = self.backlog.state();
        if let Some(sum) = sum {
            state.sum = sum;
        }
        state.open.add(self, position, lead, spec, layout)?;
        if state.open.len < CHUNK_BYTES {
            return Ok(());
        }
        state.close_open();
        if state.helper.is_none() && state.full_bytes >= HELPED_BYTES {
            state.helper = self.start_helper();
        }
        if state.helper.is_none() {
            drop(state);
            self.store_backlog(u64::MAX);
            return Ok(());
        }
        if state.helper_waits {
            self.backlog.work.notify_one();
        }
        while state.full.len() > CHUNKS {
            state = self.backlog.wait(state);
        }
        Ok(())
    }

    fn start_helper(&self) -> Option<JoinHandle<()>> {
        let core = self.me.upgrade()?;
        let builder = std::thread::Builder::new().name("emdb-seal".to_owned());
        // Without the thread, the batch seals for itself.
        builder.spawn(move || core.seal_when_told()).ok()
    }

    fn seal_when_told(&self) {
        let mut state = self.backlog.state();
        while !state.stop {
            if state.busy || state.full.is_empty() {
                state.helper_waits = true;
                let woken = self.backlog.work.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                state.helper_waits = false;
            } else {
                state = self.seal_oldest(state);
            }
        }
    }

    /// Has everything stored that the batch appended below a position.
    #[cold]
    pub(crate) fn store_backlog(&self, upto: u64) {
        if self.check_not_forked().is_err() {
            // Whoever has the lock did not come along.
            return;
        }
        let mut state = self.backlog.state();
        while self.readable() < upto {
            if state.busy {
                state = self.backlog.wait(state);
            } else if !state.full.is_empty() {
                state = self.seal_oldest(state);
            } else if state.open.len != 0 {
                state.close_open();
            } else {
                return;
            }
        }
    }

    /// As `store_backlog`, all of it; gives the sum of the batch.
    fn empty_backlog(&self) -> Result<BatchSum, Error> {
        self.store_backlog(u64::MAX);
        let mut state = self.backlog.state();
        match state.failed.take() {
            None => Ok(state.sum),
            Some(error) => Err(error),
        }
    }

    /// The batch is over, and the backlog empty.
    pub(super) fn end_backlog(&self) {
        if self.check_not_forked().is_err() {
            // Neither the helper nor whoever has the lock came along.
            return;
        }
        let mut state = self.backlog.state();
        state.full_bytes = 0;
        let Some(helper) = state.helper.take() else {
            return;
        };
        state.stop = true;
        state.spare.clear();
        drop(state);
        self.backlog.work.notify_one();
        // A panic there has been reported by the panic hook already.
        let _ = helper.join();
        self.backlog.state().stop = false;
    }

    /// Seals the oldest chunk and stores it; only while nobody else does.
    fn seal_oldest<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let (Some(mut chunk), Some(seal)) = (state.full.pop_front(), &self.seal) else {
            return state;
        };
        state.busy = true;
        let mut sum = state.sum;
        drop(state);
        let unfinished = Unfinished(self);
        let stored = self.store_chunk(seal, &mut chunk, &mut sum);
        std::mem::forget(unfinished);
        if let Err(error) = stored {
            self.poison();
            self.backlog.fail(error);
            return self.backlog.state();
        }
        chunk.clear();
        let mut state = self.backlog.state();
        state.busy = false;
        state.sum = sum;
        state.spare.push(chunk);
        if state.waiting != 0 {
            self.backlog.done.notify_all();
        }
        if state.helper_waits && !state.full.is_empty() {
            self.backlog.work.notify_one();
        }
        state
    }

    fn store_chunk(&self, seal: &Seal, chunk: &mut Chunk, sum: &mut BatchSum) -> Result<(), Error> {
        for (start, layout) in &chunk.frames {
            let frame = chunk.bytes.get_mut(*start..*start + layout.len());
            let position = chunk.from + *start as u64;
            let frame = frame.unwrap_or_default();
            sum.add(seal.seal_stored(position, layout, frame, self.stamp)?);
        }
        let bytes = chunk.bytes.get(..chunk.len).unwrap_or_default();
        self.extents
            .store(chunk.from, bytes.len() as u64, |to| {
                to.copy_from_slice(bytes);
            })
            .ok_or_else(|| unmapped(chunk.from))?;
        self.stored(chunk.from, chunk.from + bytes.len() as u64);
        Ok(())
    }
}

impl Core {
    /// Frames of the batch are stored between these positions, and so is all before them.
    pub(super) fn stored(&self, from: u64, end: u64) {
        /// How often it is looked whether space is running out.
        const GROW_BYTES: u64 = 1 << 18;
        if from / GROW_BYTES != end / GROW_BYTES {
            self.grow_ahead(end);
        }
        // Release: pairs with the Acquire in `readable`; the frames are whole.
        self.tail.readable.store(end, Ordering::Release);
    }
}

/// A chunk that is being sealed: poisons when dropped, so that nobody waits for it for ever,
/// and nothing is sealed in its place.
struct Unfinished<'a>(&'a Core);

impl Drop for Unfinished<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.poison();
        self.0.backlog.fail(Error::Poisoned);
    }
}
