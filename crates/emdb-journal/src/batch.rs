//! Batches: runs of frames that count only as a whole.
//!
//! A batch holds the write side: it sets a bit in the reservation word, waits until
//! all that was reserved is published, and appends beyond the reserved position
//! with a cursor of its own. Readers learn of its frames early but look past them
//! through `hidden_from` until the batch is committed.

mod backlog;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use emdb_format::{
    BatchSum, Commit, Discard, EPOCH_FRAME_LEN, FrameSpec, Head, Kind, SealedLayout,
    marker_frame_len,
};

pub(crate) use backlog::Backlog;

use crate::append::{BATCH, POSITION, STOP};
use crate::error::Error;
use crate::journal::Core;
use crate::lsn::Lsn;
use crate::options::SyncPolicy;
use crate::primitive::AtomicU64;
use crate::seal::Seal;

/// Kept free behind a batch so that it can always be closed.
const CLOSE_BYTES: u64 = 256;
/// Bytes of frames that are gathered before they are stored.
const GATHERED_BYTES: usize = 1 << 16;
/// Room that is made for the first of them.
const GATHERED_MIN: usize = 1 << 10;
/// Up to so many bytes behind a sync they are written, so that the next sync need not write
/// all of a large page for them; see [`Store::Mixed`](crate::medium::Store::Mixed).
const GATHERED_WRITTEN_BYTES: u64 = 1 << 20;

/// The write side, held by one thread: frames appended through it become visible
/// and count together, or not at all.
///
/// Dropping it without [`commit`](Self::commit) discards what was appended. It may be
/// handed to another thread, which then calls [`adopt`](Self::adopt).
pub struct Batch {
    core: Arc<Core>,
    begin: u64,
    cursor: u64,
    /// Where the run began that is not closed.
    first: Option<u64>,
    count: u64,
    sum: BatchSum,
    /// Frames that come at the cursor once they are stored, and room for more.
    gathered: Vec<u8>,
    gathered_len: usize,
    /// Frames before the cursor may still have to be sealed; the sum is with them.
    has_backlog: bool,
    /// Where the last frames ended that were gathered, and then written.
    written: u64,
    /// Some frame does not count, though readers may have met it.
    discarded: bool,
    /// Holds the write side.
    open: bool,
    /// Nothing is to be discarded any more.
    closed: bool,
}

/// A point in a batch to which it can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    position: u64,
    count: u64,
}

impl Mark {
    /// Where the next frame comes, or the marker before it.
    pub fn position(&self) -> u64 {
        self.position
    }
}

/// How a frame is encoded.
enum Form<'a> {
    Plain(Head),
    Sealed(&'a Seal, SealedLayout),
}

impl Core {
    /// Takes the write side; waits for whoever has it.
    pub(crate) fn begin(self: &Arc<Self>, call: &'static str) -> Result<Batch, Error> {
        // Only a deadline has it give up.
        self.begin_until(call, None)?.ok_or(Error::Closed)
    }

    /// As `begin`, but gives up at the deadline.
    pub(crate) fn begin_until(
        self: &Arc<Self>,
        call: &'static str,
        deadline: Option<Instant>,
    ) -> Result<Option<Batch>, Error> {
        self.check_open()?;
        if self.options.read_only {
            return Err(Error::ReadOnly);
        }
        if !self.gate.take_until(call, deadline)? {
            return Ok(None);
        }
        let word = self.tail.word.fetch_or(BATCH, Ordering::SeqCst);
        let begin = word & POSITION;
        let mut batch = Batch {
            core: Arc::clone(self),
            begin,
            cursor: begin,
            first: None,
            count: 0,
            sum: BatchSum::default(),
            gathered: Vec::new(),
            gathered_len: 0,
            has_backlog: false,
            written: 0,
            discarded: false,
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
        Ok(Some(batch))
    }
}

impl Core {
    /// Begins an epoch at the position where whoever holds the write side goes on, by what
    /// comes before the next frame and `len` bytes.
    fn begin_epoch(&self, from: u64, len: u64) -> Result<(), Error> {
        let Some(seal) = &self.seal else {
            return Ok(());
        };
        // Room first: if the position stayed where it is, a writer who looked at it before
        // could store a frame there, with nothing before it that tells its epoch.
        let marker_at = from + EPOCH_FRAME_LEN as u64;
        let end = marker_at + marker_frame_len(marker_at) as u64 + len;
        self.check_reach(end)?;
        if end > self.extents.prepared() {
            self.grow(end)?;
        }
        seal.begin_epoch(from)?;
        // Whatever comes next there comes behind the epoch's frame.
        self.tail.marker_due.store(from, Ordering::Release);
        Ok(())
    }

    /// Begins an epoch if the present one is full.
    pub(crate) fn begin_epoch_if_full(self: &Arc<Self>, call: &'static str) -> Result<(), Error> {
        if !self.seal.as_ref().is_some_and(Seal::is_full) {
            return Ok(());
        }
        let mut batch = self.begin(call)?;
        if self.seal.as_ref().is_some_and(Seal::is_full) {
            self.begin_epoch(batch.cursor, 0)?;
            // The position moves on, so that no writer goes on with what it saw before.
            let end = batch.cursor + self.lead_len(batch.cursor);
            self.store_lead(batch.cursor)?;
            batch.cursor = end;
            self.tail.readable.store(end, Ordering::Release);
        }
        batch.closed = true;
        batch.finish();
        Ok(())
    }
}

impl Batch {
    /// Makes this thread the one that holds the write side, and that gets
    /// [`Error::WriteInProgress`] where others wait.
    pub fn adopt(&self) {
        self.core.gate.adopt();
    }

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
        self.store_gathered()?;
        let spec = FrameSpec {
            batch: true,
            ..*spec
        };
        if let Some(position) = self.append_unsealed(&spec)? {
            self.add(position);
            return Ok(position);
        }
        let (position, checksum) = self.append_frame(&spec, CLOSE_BYTES)?;
        self.sum.add(checksum);
        self.add(position);
        Ok(position)
    }

    fn add(&mut self, position: u64) {
        self.count += 1;
        self.first.get_or_insert(position);
    }

    /// As [`append`](Self::append), but nobody can look at the frame before
    /// [`store_gathered`](Self::store_gathered), which stores many at once.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn gather(&mut self, spec: &FrameSpec<'_>) -> Result<u64, Error> {
        let position = self.cursor();
        let core = &*self.core;
        let is_alone = core.seal.is_some()
            || self.gathered_len >= GATHERED_BYTES
            || position >= core.tail.marker_due.load(Ordering::Relaxed);
        if is_alone || self.closed {
            return self.append(spec);
        }
        core.check_not_forked()?;
        core.check_writable()?;
        let spec = FrameSpec {
            batch: true,
            ..*spec
        };
        let head = spec.head(core.stamp)?;
        let len = head.as_bytes().len() + spec.key.len() + spec.value.len();
        core.make_room(position + len as u64 + CLOSE_BYTES)?;
        let range = self.gathered_len..self.gathered_len + len;
        if self.gathered.len() < range.end {
            self.gathered.resize((range.end * 2).max(GATHERED_MIN), 0);
        }
        let frame = self.gathered.get_mut(range).unwrap_or_default();
        let checksum = spec.store(&head, frame, core.stamp, core.base_lsn + position)?;
        self.gathered_len += len;
        self.sum.add(checksum);
        self.add(position);
        Ok(position)
    }

    /// Stores the frames that were gathered, so that readers of the journal can look at them.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed write.
    pub fn store_gathered(&mut self) -> Result<(), Error> {
        if self.gathered_len == 0 {
            return Ok(());
        }
        let core = &*self.core;
        core.check_not_forked()?;
        core.check_writable()?;
        let position = self.cursor;
        let end = self.cursor();
        // Among many, a write costs less than what a store makes dirty.
        let is_written = core.is_written_after(position, self.written)
            && position.saturating_sub(core.commit.durable()) < GATHERED_WRITTEN_BYTES;
        let gathered = self.gathered.get(..self.gathered_len).unwrap_or_default();
        let stored = if is_written {
            self.written = end;
            core.write_bytes(position, gathered)
        } else {
            core.store_bytes(position, gathered)
        };
        stored.inspect_err(|_| core.poison())?;
        self.gathered_len = 0;
        self.move_to(end);
        Ok(())
    }

    /// Everything up to `end` is stored.
    fn move_to(&mut self, end: u64) {
        self.core.stored(self.cursor, end);
        self.cursor = end;
    }

    /// Says that frames appended so far do not count any more once the batch is committed,
    /// though readers may have met them: as after a discard, they are to look again.
    pub fn overrule(&mut self) {
        self.discarded = true;
    }

    /// The present point, for [`discard_from`](Self::discard_from).
    pub fn mark(&self) -> Mark {
        Mark {
            position: self.cursor(),
            count: self.count,
        }
    }

    /// Cancels what was appended since `mark` was made in this batch. Marks made since
    /// then are void.
    ///
    /// # Errors
    /// [`Error::Io`] (no space) leaves the batch as it was. [`Error::Poisoned`] after a
    /// failed write.
    pub fn discard_from(&mut self, mark: &Mark) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        self.store_gathered()?;
        let Some(first) = self.first else {
            return Ok(());
        };
        if mark.position >= self.cursor {
            return Ok(());
        }
        let checksum = self.append_discard(mark.position.max(first), CLOSE_BYTES)?;
        self.discarded = true;
        if mark.position <= first {
            self.first = None;
            self.count = 0;
            self.sum = BatchSum::default();
        } else {
            self.count = mark.count.min(self.count);
            self.sum.add(checksum);
        }
        Ok(())
    }

    fn append_discard(&mut self, from: u64, margin: u64) -> Result<u32, Error> {
        let value = Discard { from }.encode();
        let spec = FrameSpec {
            batch: true,
            ..FrameSpec::new(Kind::Discard, b"", &value)
        };
        let (_, checksum) = self.append_frame(&spec, margin)?;
        Ok(checksum)
    }

    fn append_frame(&mut self, spec: &FrameSpec<'_>, margin: u64) -> Result<(u64, u32), Error> {
        self.empty_backlog()?;
        let core = &*self.core;
        core.check_not_forked()?;
        core.check_writable()?;
        let (form, len) = match &core.seal {
            None => {
                let head = spec.head(core.stamp)?;
                let len = head.as_bytes().len() + spec.key.len() + spec.value.len();
                (Form::Plain(head), len as u64)
            }
            Some(seal) => {
                let layout = spec.sealed_layout()?;
                let len = layout.len() as u64;
                if self.cursor + len + margin > seal.limit() {
                    core.begin_epoch(self.cursor, len + margin)?;
                }
                (Form::Sealed(seal, layout), len)
            }
        };
        let lead = if self.cursor >= core.tail.marker_due.load(Ordering::Relaxed) {
            core.lead_len(self.cursor)
        } else {
            0
        };
        let position = self.cursor + lead;
        let end = position + len;
        core.make_room(end + margin)?;
        let stored = if lead == 0 {
            Ok(())
        } else {
            core.store_lead(self.cursor)
        };
        let stored = stored.and_then(|()| match &form {
            Form::Plain(head) if core.is_written_after(position, self.written) => {
                core.write_frame(position, head, spec, len)
            }
            Form::Plain(head) => core.store(position, head, spec, len),
            Form::Sealed(seal, layout) => core.store_sealed(seal, position, layout, spec),
        });
        // What was sealed for this place must not be sealed anew.
        let checksum = stored.inspect_err(|_| core.poison())?;
        self.move_to(end);
        Ok((position, checksum))
    }

    /// Appends the frame that makes the batch count, so that [`commit`](Self::commit)
    /// can fail no more but for a sync. Nothing can be appended any more, and dropping the
    /// batch does not discard it any more.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed write; the batch does not count then.
    pub fn seal(&mut self) -> Result<(), Error> {
        if self.closed {
            return Ok(());
        }
        self.store_gathered()?;
        self.empty_backlog()?;
        if self.count > 0 {
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
        } else if let Some(first) = self.first {
            self.append_discard(first, 0)?;
        }
        // From here on the batch counts, whatever happens.
        self.closed = true;
        Ok(())
    }

    /// Makes the batch count, calls `visible` while nobody can see it yet, then lets
    /// everybody see all of it at once. What `visible` returns is dropped after that, and
    /// before anybody else can write.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed write; the batch does not count then.
    pub fn commit<T>(mut self, visible: impl FnOnce() -> T) -> Result<Lsn, Error> {
        self.seal()?;
        let held = visible();
        let end = self.cursor;
        self.finish_with(held);
        let core = &*self.core;
        if core.options.sync_policy == SyncPolicy::EachAppend {
            core.sync_to(end)?;
        }
        Ok(Lsn::new(core.base_lsn + end))
    }

    /// Commits a batch of exactly one frame, which then needs no commit frame: `spec`
    /// is appended as a plain frame, `visible` gets its position, and is called as by
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    /// As [`append`](Self::append); the batch then does not count. A batch that
    /// already has frames is discarded, with [`Error::WriteInProgress`].
    pub fn commit_single<T>(
        self,
        spec: &FrameSpec<'_>,
        visible: impl FnOnce(u64) -> T,
    ) -> Result<Lsn, Error> {
        let core = Arc::clone(&self.core);
        let lsn = self.commit_single_unsynced(spec, visible)?;
        if core.options.sync_policy == SyncPolicy::EachAppend {
            core.sync_to(lsn.get() - core.base_lsn + 1)?;
        }
        Ok(lsn)
    }

    /// As [`commit_single`](Self::commit_single), but never syncs: let go of your locks,
    /// then call [`Journal::sync_appended`](crate::Journal::sync_appended).
    ///
    /// # Errors
    /// As [`commit_single`](Self::commit_single).
    pub fn commit_single_unsynced<T>(
        mut self,
        spec: &FrameSpec<'_>,
        visible: impl FnOnce(u64) -> T,
    ) -> Result<Lsn, Error> {
        if self.cursor() != self.begin {
            return Err(Error::WriteInProgress("a single commit"));
        }
        let spec = FrameSpec {
            batch: false,
            ..*spec
        };
        let (position, _) = self.append_frame(&spec, 0)?;
        self.closed = true;
        let held = visible(position);
        self.finish_with(held);
        Ok(Lsn::new(self.core.base_lsn + position))
    }

    /// Gives the write side back; everything up to the cursor is published.
    fn finish(&mut self) {
        self.finish_with(());
    }

    /// As `finish`; drops `held` once everything can be seen.
    fn finish_with<T>(&mut self, held: T) {
        self.open = false;
        let core = &*self.core;
        if core.seal.is_some() {
            core.end_backlog();
        }
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
        core.hidden_from.show(self.discarded);
        drop(held);
        core.tail.word.fetch_and(!BATCH, Ordering::SeqCst);
        core.gate.release();
    }

    /// The end of what was appended so far.
    pub fn cursor(&self) -> u64 {
        self.cursor + self.gathered_len as u64
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.open || self.core.check_not_forked().is_err() {
            return;
        }
        if !self.closed {
            self.discarded |= self.cursor != self.begin;
            // What was never stored needs no discard.
            if let Some(first) = self.first.filter(|first| *first < self.cursor)
                && self.append_discard(first, 0).is_err()
            {
                // Room was kept, so only a failed write gets here; recovery finds
                // the batch unfinished and discards it.
                self.core.poison();
            }
        }
        self.finish();
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("begin", &self.begin)
            .field("cursor", &self.cursor)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// The word that hides a batch's frames from readers, on a line that plain appends
/// never write.
///
/// Invariant: while no batch is open it is above every position, and it is another
/// number after a batch of which something was discarded. So a reader that found it
/// the same before and after it loaded an index entry did not load what was discarded.
#[repr(align(128))]
pub(crate) struct HiddenFrom {
    word: AtomicU64,
    discards: AtomicU64,
}

impl HiddenFrom {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(u64::MAX),
            discards: AtomicU64::new(0),
        }
    }

    /// Batches that ended with something of them discarded.
    #[inline]
    pub(crate) fn discards(&self) -> u64 {
        self.discards.load(Ordering::SeqCst)
    }

    /// Ends the hiding; only for who holds the write side.
    fn show(&self, discarded: bool) {
        // SeqCst: a reader that meets the word stored below counts one more.
        let discards = self.discards.load(Ordering::Relaxed) + u64::from(discarded);
        if discarded {
            self.discards.store(discards, Ordering::SeqCst);
        }
        self.word.store(u64::MAX - discards, Ordering::SeqCst);
    }
}

impl std::ops::Deref for HiddenFrom {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        &self.word
    }
}
