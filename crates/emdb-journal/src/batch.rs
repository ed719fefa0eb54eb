//! Batches: runs of frames that count only as a whole.
//!
//! A batch holds the write side: it sets a bit in the reservation word, waits until
//! all that was reserved is published, and appends beyond the reserved position
//! with a cursor of its own. Readers learn of its frames early but look past them
//! through `hidden_from` until the batch is committed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use emdb_format::{BatchSum, Commit, Discard, FrameSpec, Kind, marker_frame_len};

use crate::append::{BATCH, POSITION, STOP};
use crate::error::Error;
use crate::journal::Core;
use crate::lsn::Lsn;
use crate::options::SyncPolicy;

/// Kept free behind a batch so that it can always be closed.
const CLOSE_BYTES: u64 = 256;
/// How often a batch looks whether space is running out.
const GROW_BYTES: u64 = 1 << 18;

/// Who holds the write side, or the sidecar.
#[derive(Default)]
pub(crate) struct Gate {
    owner: Mutex<Option<ThreadId>>,
    free: Condvar,
}

impl Gate {
    fn owner(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it for this thread; waits for whoever has it.
    pub(crate) fn take(&self, call: &'static str) -> Result<(), Error> {
        *self.wait_free(call)? = Some(std::thread::current().id());
        Ok(())
    }

    /// Refuses a call on the thread that holds it.
    pub(crate) fn refuse_holder(&self, call: &'static str) -> Result<(), Error> {
        match *self.owner() {
            Some(holder) if holder == std::thread::current().id() => {
                Err(Error::WriteInProgress(call))
            }
            _ => Ok(()),
        }
    }

    /// Waits until nobody holds it.
    pub(crate) fn wait(&self, call: &'static str) -> Result<(), Error> {
        drop(self.wait_free(call)?);
        Ok(())
    }

    fn wait_free(&self, call: &'static str) -> Result<MutexGuard<'_, Option<ThreadId>>, Error> {
        let mut owner = self.owner();
        while let Some(holder) = *owner {
            if holder == std::thread::current().id() {
                return Err(Error::WriteInProgress(call));
            }
            owner = self
                .free
                .wait(owner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(owner)
    }

    /// Whether somebody holds it.
    pub(crate) fn is_held(&self) -> bool {
        self.owner().is_some()
    }

    pub(crate) fn release(&self) {
        *self.owner() = None;
        self.free.notify_all();
    }
}

/// The write side, held by one thread: frames appended through it become visible
/// and count together, or not at all.
///
/// Dropping it without [`commit`](Self::commit) discards what was appended.
pub struct Batch<'a> {
    core: &'a Core,
    begin: u64,
    cursor: u64,
    count: u64,
    sum: BatchSum,
    /// Holds the write side.
    open: bool,
    /// Nothing is to be discarded any more.
    closed: bool,
}

impl Core {
    /// Takes the write side; waits for whoever has it.
    pub(crate) fn begin(&self, call: &'static str) -> Result<Batch<'_>, Error> {
        self.check_open()?;
        if self.options.read_only {
            return Err(Error::ReadOnly);
        }
        self.gate.take(call)?;
        let word = self.tail.word.fetch_or(BATCH, Ordering::SeqCst);
        let begin = word & POSITION;
        let mut batch = Batch {
            core: self,
            begin,
            cursor: begin,
            count: 0,
            sum: BatchSum::default(),
            open: true,
            closed: false,
        };
        if word & STOP != 0 {
            batch.finish();
            return Err(self.stopped());
        }
        if let Err(error) = self.wait_published(begin) {
            batch.finish();
            return Err(error);
        }
        // SeqCst: ordered before the index entries of this batch, which readers load
        // before they load this word.
        self.hidden_from.store(begin, Ordering::SeqCst);
        Ok(batch)
    }
}

impl Batch<'_> {
    /// Position at which the batch began: what readers see ends here.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// Frames appended that count.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Appends a frame and gives its position. Readers of the journal can look at the
    /// frame at once; whether they believe it is theirs to decide by
    /// [`Journal::hidden_from`](crate::Journal::hidden_from).
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::Io`] leave the batch as it was.
    /// [`Error::Poisoned`] after a failed write.
    pub fn append(&mut self, spec: &FrameSpec<'_>) -> Result<u64, Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        let spec = FrameSpec {
            batch: true,
            ..*spec
        };
        let (position, checksum) = self.append_frame(&spec, CLOSE_BYTES)?;
        self.sum.add(checksum);
        self.count += 1;
        Ok(position)
    }

    fn append_frame(&mut self, spec: &FrameSpec<'_>, margin: u64) -> Result<(u64, u32), Error> {
        let core = self.core;
        core.check_writable()?;
        let head = spec.head(core.stamp)?;
        let len = (head.as_bytes().len() + spec.key.len() + spec.value.len()) as u64;
        let marker = if self.cursor >= core.tail.marker_due.load(Ordering::Relaxed) {
            marker_frame_len(self.cursor) as u64
        } else {
            0
        };
        let position = self.cursor + marker;
        let end = position + len;
        core.check_reach(end + margin)?;
        if end + margin > core.extents.prepared() {
            core.grow(end + margin)?;
        }
        if marker != 0 {
            core.store_marker(self.cursor)?;
        }
        let checksum = core.store(position, &head, spec, len)?;
        self.cursor = end;
        if position / GROW_BYTES != end / GROW_BYTES {
            core.grow_ahead(end);
        }
        // Release: pairs with the Acquire in `readable`; the frame is whole.
        core.tail.readable.store(end, Ordering::Release);
        Ok((position, checksum))
    }

    /// Appends the frame that makes the batch count, so that [`commit`](Self::commit)
    /// can fail no more but for a sync. Nothing can be appended any more, and dropping the
    /// batch does not discard it any more.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed write; the batch does not count then.
    pub fn seal(&mut self) -> Result<(), Error> {
        if self.count > 0 && !self.closed {
            let value = Commit {
                count: self.count,
                sum: self.sum,
            }
            .encode();
            let spec = FrameSpec {
                batch: true,
                ..FrameSpec::new(Kind::Commit, b"", &value)
            };
            self.append_frame(&spec, 0)?;
        }
        // From here on the batch counts, whatever happens.
        self.closed = true;
        Ok(())
    }

    /// Makes the batch count, calls `visible` while nobody can see it yet, then lets
    /// everybody see all of it at once.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed write; the batch does not count then.
    pub fn commit(mut self, visible: impl FnOnce()) -> Result<Lsn, Error> {
        self.seal()?;
        visible();
        let end = self.cursor;
        let core = self.core;
        self.finish();
        if core.options.sync_policy == SyncPolicy::EachAppend {
            core.sync_to(end)?;
        }
        Ok(Lsn::new(core.base_lsn + end))
    }

    /// Commits a batch of exactly one frame, which then needs no commit frame: `spec`
    /// is appended as a plain frame, `visible` gets its position.
    ///
    /// # Errors
    /// As [`append`](Self::append); the batch then does not count. A batch that
    /// already has frames is discarded, with [`Error::WriteInProgress`].
    pub fn commit_single(
        mut self,
        spec: &FrameSpec<'_>,
        visible: impl FnOnce(u64),
    ) -> Result<Lsn, Error> {
        if self.cursor != self.begin {
            return Err(Error::WriteInProgress("a single commit"));
        }
        let spec = FrameSpec {
            batch: false,
            ..*spec
        };
        let (position, _) = self.append_frame(&spec, 0)?;
        self.closed = true;
        visible(position);
        let end = self.cursor;
        let core = self.core;
        self.finish();
        if core.options.sync_policy == SyncPolicy::EachAppend {
            core.sync_to(end)?;
        }
        Ok(Lsn::new(core.base_lsn + position))
    }

    /// Gives the write side back; everything up to the cursor is published.
    fn finish(&mut self) {
        self.open = false;
        let core = self.core;
        if self.cursor != self.begin {
            // Only the holder of the write side moves the position while BATCH is set;
            // STOP may be set by a failed sync at any time and must not be lost.
            let moved = self.cursor - self.begin;
            core.tail.word.fetch_add(moved, Ordering::SeqCst);
            core.extents.settle(self.cursor);
            // Release: pairs with the Acquire in `wait_published`.
            core.tail.published.store(self.cursor, Ordering::Release);
        }
        // SeqCst: the point in time at which the batch happens, for single reads
        // and for snapshots alike.
        core.hidden_from.store(u64::MAX, Ordering::SeqCst);
        core.tail.word.fetch_and(!BATCH, Ordering::SeqCst);
        core.gate.release();
    }

    /// The end of what was appended so far.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        if self.cursor != self.begin && !self.closed {
            let value = Discard { from: self.begin }.encode();
            let spec = FrameSpec {
                batch: true,
                ..FrameSpec::new(Kind::Discard, b"", &value)
            };
            if self.append_frame(&spec, 0).is_err() {
                // Room was kept, so only a failed write gets here; recovery finds
                // the batch unfinished and discards it.
                self.core.poison();
            }
        }
        self.finish();
    }
}

/// The word that hides a batch's frames from readers, on a line that plain appends
/// never write.
#[repr(align(128))]
pub(crate) struct HiddenFrom(AtomicU64);

impl HiddenFrom {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl std::ops::Deref for HiddenFrom {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        &self.0
    }
}
