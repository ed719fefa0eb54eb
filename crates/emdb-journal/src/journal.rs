//! The journal itself: what a handle can do.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use emdb_format::{AnyFrame, FrameSpec, Header, POSITION_MAX, Stamp};

use crate::append::{BATCH, Busy, POSITION, STOP, Tail};
use crate::batch::{Backlog, Batch, HiddenFrom};
use crate::commit::GroupCommit;
use crate::doubt::Doubt;
use crate::error::Error;
use crate::extent::Extents;
use crate::gate::Gate;
use crate::lsn::Lsn;
use crate::medium::{Medium, Store};
use crate::options::{Options, SyncPolicy};
use crate::primitive::load_seq_cst;
use crate::recovery::{Opening, Recovered, Replayed, Scan};
use crate::seal::Seal;
use crate::sys;

mod ahead;
mod read;

use ahead::Growing;

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const POISONED: u8 = 2;

/// An append-only log.
///
/// All methods take `&self`; share it between threads by reference or in an `Arc`.
/// Dropping it closes it, silently.
pub struct Journal {
    core: Arc<Core>,
}

/// Sizes and positions of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalStats {
    /// Bytes from the front of the file to the end of the last frame.
    pub used_bytes: u64,
    /// Bytes of the file, prepared space included.
    pub file_bytes: u64,
    /// Position below which everything survives power loss.
    pub durable_position: u64,
    /// Bytes of a torn tail that opening cut off.
    pub torn_bytes_cut: u64,
    /// Most bytes one generation of the journal can have.
    pub used_bytes_max: u64,
}

pub(crate) struct Core {
    pub(crate) tail: Tail,
    pub(crate) hidden_from: HiddenFrom,
    pub(crate) extents: Extents,
    pub(crate) stamp: Stamp,
    /// `None` for a plaintext journal.
    pub(crate) seal: Option<Seal>,
    pub(crate) base_lsn: u64,
    pub(crate) store: Store,
    pub(crate) options: Options,
    state: AtomicU8,
    forks: u64,
    pub(crate) marker_tag: [u8; 16],
    pub(crate) medium: Box<dyn Medium>,
    pub(crate) commit: GroupCommit,
    pub(crate) gate: Gate,
    pub(crate) backlog: Backlog,
    /// Who replaces the sidecar; closing waits for it.
    sidecar: Gate,
    header: Mutex<Header>,
    torn_bytes_cut: u64,
    growing: Mutex<Growing>,
    grow_wanted: Condvar,
    /// For the threads that grow ahead and seal.
    pub(crate) me: Weak<Core>,
}

/// Gives a gate back, also on unwinding.
struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Journal {
    /// Opens the journal on `medium`, creating it if nothing was ever stored there,
    /// and calls `visit` with every frame that counts, in order.
    ///
    /// # Errors
    /// [`Error::MagicMismatch`], [`Error::VersionMismatch`] and [`Error::Corrupted`]
    /// leave everything untouched.
    pub fn open(
        medium: Box<dyn Medium>,
        options: Options,
        mut visit: impl FnMut(Replayed<'_>),
    ) -> Result<Self, Error> {
        let opening = Opening::new(medium, options)?;
        opening.replay(emdb_format::FIRST_POSITION, &mut |replayed| {
            visit(replayed);
            Ok::<(), Error>(())
        })?;
        opening.finish()
    }

    pub(crate) fn start(
        medium: Box<dyn Medium>,
        options: Options,
        header: Header,
        seal: Option<Seal>,
        extents: Extents,
        recovered: &Recovered,
    ) -> Self {
        let (tail, durable) = (recovered.tail, recovered.confirmed);
        let doubt = Doubt::new(&header, durable, tail);
        let core = Arc::new_cyclic(|me| Core {
            tail: Tail::new(tail),
            hidden_from: HiddenFrom::new(),
            extents,
            stamp: Stamp::new(&header.database_id, header.generation),
            seal,
            base_lsn: header.base_lsn,
            store: medium.store(),
            options,
            state: AtomicU8::new(OPEN),
            forks: sys::forks(),
            marker_tag: header.marker_tag,
            medium,
            commit: GroupCommit::new(durable.min(tail), doubt),
            gate: Gate::default(),
            backlog: Backlog::default(),
            sidecar: Gate::default(),
            header: Mutex::new(header),
            torn_bytes_cut: recovered.torn_bytes,
            growing: Mutex::new(Growing::default()),
            grow_wanted: Condvar::new(),
            me: Weak::clone(me),
        });
        Self { core }
    }

    #[cfg(all(test, feature = "encrypt"))]
    pub(crate) fn seal(&self) -> Option<&Seal> {
        self.core.seal.as_ref()
    }

    /// Gives the journal up: dropping it writes nothing.
    pub(crate) fn abandon(&self) {
        self.core.abandon();
    }

    /// Appends one frame and returns its LSN.
    ///
    /// # Durability
    /// The frame survives the death of this process. It survives power loss once
    /// [`durable_lsn`](Self::durable_lsn) has passed the returned LSN, and at once
    /// with [`SyncPolicy::EachAppend`](crate::SyncPolicy::EachAppend).
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::Io`] (no space) leave the journal unchanged;
    /// [`Error::Poisoned`] after a failed write or sync: reopen to continue.
    pub fn append(&self, spec: &FrameSpec<'_>) -> Result<Lsn, Error> {
        loop {
            match self.append_then(spec, |_| {})? {
                Ok(lsn) => {
                    self.sync_appended(lsn)?;
                    return Ok(lsn);
                }
                Err(Busy) => self.wait_for_batch("append")?,
            }
        }
    }

    /// Appends one frame and calls `publish` with its position, in the order of
    /// positions: when it runs, every frame before this one is whole and published,
    /// and none behind it is. It must be short and take no locks.
    ///
    /// Returns `Err(Busy)` inside `Ok`, without having done anything, while a batch
    /// holds the write side. Never syncs: let go of your locks, then call
    /// [`sync_appended`](Self::sync_appended).
    ///
    /// # Errors
    /// As [`append`](Self::append).
    #[inline]
    pub fn append_then(
        &self,
        spec: &FrameSpec<'_>,
        publish: impl FnOnce(u64),
    ) -> Result<Result<Lsn, Busy>, Error> {
        self.core.check_not_forked()?;
        self.core.append(spec, publish)
    }

    /// Syncs the frame at `lsn` if the policy is that every append is synced.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    #[inline]
    pub fn sync_appended(&self, lsn: Lsn) -> Result<(), Error> {
        if self.core.options.sync_policy == SyncPolicy::EachAppend {
            // Everything published covers the frame, and whoever else waits.
            let position = lsn.get() - self.core.base_lsn;
            return self.core.sync_to(position + 1);
        }
        Ok(())
    }

    /// Begins to load the space that the next append will store into.
    #[inline]
    pub fn prefetch_end(&self) {
        self.prefetch(self.core.tail.word.load(Ordering::Relaxed) & POSITION);
    }

    /// Whether a batch holds the write side.
    #[inline]
    pub fn is_batch_open(&self) -> bool {
        self.core.is_batch_open()
    }

    /// Waits until no batch holds the write side.
    ///
    /// # Errors
    /// [`Error::WriteInProgress`], naming `call`, if this thread holds it.
    pub fn wait_for_batch(&self, call: &'static str) -> Result<(), Error> {
        self.core.check_not_forked()?;
        self.core.gate.wait(call)?;
        self.core.begin_epoch_if_full(call)
    }

    /// Takes the write side for a batch; waits for whoever has it.
    ///
    /// # Errors
    /// [`Error::WriteInProgress`], naming `call`, if this thread holds it already.
    pub fn begin(&self, call: &'static str) -> Result<Batch, Error> {
        self.core.begin(call)
    }

    /// As [`begin`](Self::begin), but `None` once the deadline has passed. One that has
    /// passed already waits for nobody.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_until(
        &self,
        call: &'static str,
        deadline: Instant,
    ) -> Result<Option<Batch>, Error> {
        self.core.begin_until(call, Some(deadline))
    }

    /// Makes everything appended before the call survive power loss, whoever
    /// appended it. Calls at the same time share one sync.
    ///
    /// # Errors
    /// [`Error::Io`] if the sync fails. It is not retried: the journal is poisoned,
    /// later calls get [`Error::Poisoned`], and only reopening tells what survived.
    pub fn sync(&self) -> Result<(), Error> {
        self.core.check_open()?;
        if self.core.options.read_only {
            return Ok(());
        }
        let target = self.core.tail.published.load(Ordering::Acquire);
        self.core.sync_to(target)
    }

    /// Every frame whose LSN is below this survives power loss.
    pub fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.core.base_lsn + self.core.commit.durable())
    }

    /// The LSN that follows the last published frame.
    pub fn end_lsn(&self) -> Lsn {
        Lsn::new(self.core.base_lsn + self.published())
    }

    /// Position behind the last published frame.
    #[inline]
    pub fn published(&self) -> u64 {
        self.core.tail.published.load(Ordering::Acquire)
    }

    /// Frames at or above this position belong to a batch that is not committed.
    ///
    /// Load an index entry first and this after it: an entry at or above it is not
    /// to be seen yet.
    #[inline]
    pub fn hidden_from(&self) -> u64 {
        self.core.hidden_from.load(Ordering::SeqCst)
    }

    /// How many batches ended with something of them discarded.
    ///
    /// An index entry of a frame that was discarded must not be taken for that of one
    /// that was committed: a reader that met it while the batch was open finds this
    /// number, or [`hidden_from`](Self::hidden_from), to be another one afterwards.
    #[inline]
    pub fn discards(&self) -> u64 {
        self.core.hidden_from.discards()
    }

    /// A position that divides history: every frame below it is published, and
    /// everything that any thread has seen happen lies below it.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a writer before it failed.
    pub fn snapshot_position(&self) -> Result<u64, Error> {
        loop {
            let before = load_seq_cst(&self.core.hidden_from);
            let word = load_seq_cst(&self.core.tail.word) & POSITION;
            if before == load_seq_cst(&self.core.hidden_from) {
                let position = word.min(before);
                return match self.core.wait_published(position) {
                    Ok(()) => Ok(position),
                    // Reads go on after a failure: what was published stays readable.
                    Err(Error::Poisoned) => Ok(self.published().min(position)),
                    Err(error) => Err(error),
                };
            }
        }
    }

    /// Whether the journal is encrypted.
    #[inline]
    pub fn is_sealed(&self) -> bool {
        self.core.seal.is_some()
    }

    /// The cipher, if the journal is encrypted.
    #[cfg(feature = "encrypt")]
    pub fn cipher(&self) -> Option<emdb_crypto::Cipher> {
        self.core.seal.as_ref().map(Seal::cipher)
    }

    /// Bytes that a frame takes in this journal.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the key or the value is over the limit.
    #[inline]
    pub fn frame_len(&self, spec: &FrameSpec<'_>) -> Result<usize, Error> {
        Ok(match &self.core.seal {
            None => spec.encoded_len()?,
            Some(_) => spec.sealed_layout()?.len(),
        })
    }

    /// The LSN of a position.
    #[inline]
    pub fn lsn(&self, position: u64) -> Lsn {
        Lsn::new(self.core.base_lsn + position)
    }

    /// The newest header.
    pub fn header(&self) -> Header {
        *self.core.header()
    }

    /// What the frames' checksums start from.
    pub fn stamp(&self) -> Stamp {
        self.core.stamp
    }

    /// Records in the header that everything below `position` was synced, so that
    /// damage there can never pass for a torn tail. Syncs first what is not yet durable.
    ///
    /// # Errors
    /// [`Error::Io`] poisons the journal; [`Error::Corrupted`] if no published frame
    /// ends at `position`.
    pub fn confirm(&self, position: u64) -> Result<(), Error> {
        self.sync_below(position)?;
        self.core.confirm(position, None)
    }

    /// Syncs what is below a position that must have been published.
    fn sync_below(&self, position: u64) -> Result<(), Error> {
        self.core.check_open()?;
        if self.core.options.read_only {
            return Err(Error::ReadOnly);
        }
        if position > self.published() {
            return Err(Error::corrupted(position, "past the end of the journal"));
        }
        if position < self.published() {
            // The next opening walks the frames from here.
            self.check_frame(position)?;
        }
        self.core.sync_to(position)
    }

    /// Whether a sound frame begins at a position.
    fn check_frame(&self, position: u64) -> Result<(), Error> {
        let bytes = self.bytes_at_end(position)?;
        let lsn = self.core.base_lsn + position;
        AnyFrame::parse(bytes)
            .and_then(|frame| frame.verify_head(self.core.stamp, lsn))
            .map_err(|error| Error::corrupted(position, error.to_string()))
    }

    /// As [`confirm`](Self::confirm), and gives the checkpoint that is about to be taken
    /// at `position` a random name, which the header has from here on, beside that of the
    /// one `before`, which counts until the new one has taken its place (zeros for none).
    /// A checkpoint of another name belongs to another history.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub fn name_checkpoint(&self, position: u64, before: [u8; 16]) -> Result<[u8; 16], Error> {
        self.sync_below(position)?;
        let nonce = crate::recovery::random(&*self.core.medium)?;
        self.core.confirm(position, Some([nonce, before]))?;
        Ok(nonce)
    }

    /// Replaces the sidecar; see [`Medium::write_sidecar`]. One call runs at a time, and
    /// [`close`](Self::close) waits for it.
    ///
    /// # Errors
    /// As [`Medium::write_sidecar`]; nothing is poisoned. [`Error::WriteInProgress`] for
    /// a call inside of `write`.
    pub fn write_sidecar(
        &self,
        write: &mut dyn FnMut(&mut dyn std::io::Write) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        self.core.check_open()?;
        if self.core.options.read_only {
            return Err(Error::ReadOnly);
        }
        self.core.sidecar.take("write_sidecar")?;
        let _held = Held(&self.core.sidecar);
        // Again: once closed, the sidecar is somebody else's.
        self.core.check_open()?;
        let Some(seal) = &self.core.seal else {
            return self.core.medium.write_sidecar(write);
        };
        let published = self.published();
        self.core
            .medium
            .write_sidecar(&mut |out| seal.write_sidecar(published, out, write))
    }

    /// Reads every frame from position `from` up to the last published one, verifies
    /// it, and calls `visit` with those that count. `from` must be where a frame begins
    /// outside of every batch.
    ///
    /// # Errors
    /// [`Error::Corrupted`] at the first damaged frame, and whatever `visit` returns.
    pub fn replay<E: From<Error>>(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Replayed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.check_not_forked()?;
        let header = self.header();
        let scan = Scan::new(
            &self.core.extents,
            &header,
            self.core.seal.as_ref(),
            self.published(),
        );
        match scan.frames(from, visit)? {
            (_, None) => Ok(()),
            (end, Some(error)) => Err(Error::corrupted(end.position(), error.to_string()).into()),
        }
    }

    /// On a poisoned journal: waits until no writer stores or publishes any more.
    pub fn wait_for_writers(&self) {
        if self.core.is_poisoned() {
            self.core.wait_for_writers();
        }
    }

    /// Sizes and positions.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be looked at.
    pub fn stats(&self) -> Result<JournalStats, Error> {
        Ok(JournalStats {
            used_bytes: self.published(),
            file_bytes: self.core.medium.len()?,
            durable_position: self.core.commit.durable(),
            torn_bytes_cut: self.core.torn_bytes_cut,
            used_bytes_max: POSITION_MAX,
        })
    }

    /// Whether this process is the one that opened the journal.
    ///
    /// # Errors
    /// [`Error::Forked`] if it is a fork of that one.
    #[inline]
    pub fn check_not_forked(&self) -> Result<(), Error> {
        self.core.check_not_forked()
    }

    /// Whether this process is a fork of the one that opened the journal.
    pub fn is_forked(&self) -> bool {
        self.core.check_not_forked().is_err()
    }

    /// Whether the journal was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.core.options.read_only
    }

    /// Where the journal is.
    pub fn path(&self) -> &Path {
        self.core.medium.path()
    }

    /// Whether calls still work: an error says why not.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Forked`]. A poisoned journal can still be read.
    #[inline]
    pub fn check_open(&self) -> Result<(), Error> {
        self.core.check_open()
    }

    /// Whether calls still work.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.core.state.load(Ordering::Acquire) != CLOSED && self.core.forks == sys::forks()
    }

    /// Ends the journal: waits for appends, syncs, trims the file and records the
    /// clean end.
    ///
    /// # Errors
    /// The first error met; the journal is closed all the same. Not so for
    /// [`Error::WriteInProgress`], if this thread holds the write side or is writing the
    /// sidecar.
    pub fn close(&self) -> Result<(), Error> {
        self.core.check_open()?;
        self.core.sidecar.refuse_holder("close")?;
        self.core.close()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.core.forks != sys::forks() {
            // The thread and the file belong to the parent.
            return;
        }
        self.core.stop_growing();
        // Nobody borrows the journal any more, so a batch that still holds the write
        // side was leaked, and waiting for it would never end.
        if self.core.check_open().is_ok() && !self.core.gate.is_held() {
            // `close` tells the error; a drop has nobody to tell.
            let _ = self.core.close();
        }
    }
}

impl Core {
    fn header(&self) -> MutexGuard<'_, Header> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn is_batch_open(&self) -> bool {
        self.tail.word.load(Ordering::SeqCst) & BATCH != 0
    }

    /// How far writers have come, an open batch included.
    pub(crate) fn readable(&self) -> u64 {
        self.tail.readable.load(Ordering::Acquire)
    }

    /// Why appends are refused for good.
    #[cold]
    pub(crate) fn stopped(&self) -> Error {
        match self.state.load(Ordering::Acquire) {
            POISONED => Error::Poisoned,
            _ if self.options.read_only => Error::ReadOnly,
            _ => Error::Closed,
        }
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.state.load(Ordering::Acquire) == CLOSED {
            return Err(Error::Closed);
        }
        self.check_not_forked()
    }

    #[inline]
    pub(crate) fn check_not_forked(&self) -> Result<(), Error> {
        if self.forks == sys::forks() {
            Ok(())
        } else {
            Err(Error::Forked)
        }
    }

    /// Whether frames may still be stored; an error says why not.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        self.check_not_forked()?;
        if self.state.load(Ordering::Acquire) == OPEN {
            Ok(())
        } else {
            Err(self.stopped())
        }
    }

    #[inline]
    pub(crate) fn is_poisoned(&self) -> bool {
        self.state.load(Ordering::Acquire) == POISONED
    }

    pub(crate) fn check_not_poisoned(&self) -> Result<(), Error> {
        if self.is_poisoned() {
            Err(Error::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Refuses all later writes and syncs. The one place where that happens.
    pub(crate) fn poison(&self) {
        // A closed journal stays closed.
        let _ = self
            .state
            .compare_exchange(OPEN, POISONED, Ordering::AcqRel, Ordering::Acquire);
        self.tail.word.fetch_or(STOP, Ordering::SeqCst);
    }

    /// Writes the header slot that is not the newest, and syncs it.
    fn confirm(&self, position: u64, checkpoints: Option<[[u8; 16]; 2]>) -> Result<(), Error> {
        let mut header = self.header();
        // With the header locked, so that none is written once the journal is closed.
        self.check_writable()?;
        if position <= header.confirmed && checkpoints.is_none() {
            return Ok(());
        }
        if self.is_in_doubt() {
            // The newer slot must be on the disk before the older one is overwritten.
            self.sync_medium(|| self.medium.sync())?;
        }
        let [checkpoint, checkpoint_before] =
            checkpoints.unwrap_or([header.checkpoint, header.checkpoint_before]);
        let mut next = Header {
            sequence: header.sequence + 1,
            confirmed: position.max(header.confirmed),
            checkpoint,
            checkpoint_before,
            ..*header
        };
        if let Some(seal) = &self.seal {
            seal.authenticate(&mut next);
        }
        self.sync_medium(|| crate::recovery::write_header(&*self.medium, &next))?;
        *header = next;
        Ok(())
    }

    /// Gives the journal up: nothing is written any more, not even at the end.
    pub(crate) fn abandon(&self) {
        self.state.store(CLOSED, Ordering::Release);
        self.tail.word.fetch_or(STOP, Ordering::SeqCst);
    }

    fn close(self: &Arc<Self>) -> Result<(), Error> {
        if self.options.read_only {
            self.state.store(CLOSED, Ordering::Release);
            self.medium.release();
            return Ok(());
        }
        let batch = match self.begin("close") {
            Ok(batch) => batch,
            Err(error) => {
                if !matches!(error, Error::WriteInProgress(_)) {
                    // Nothing may be stored once somebody else owns the medium.
                    self.wait_for_writers();
                    self.stop_growing();
                    self.extents.stop();
                    self.set_closed();
                    self.release_medium();
                }
                return Err(error);
            }
        };
        let tail = batch.begin();
        self.tail.word.fetch_or(STOP, Ordering::SeqCst);
        self.stop_growing();
        self.extents.stop();
        let result = self.finish_file(tail);
        self.set_closed();
        // Who writes the sidecar may be waiting for the write side.
        drop(batch);
        self.release_medium();
        result
    }

    /// Lets others open the medium, once no sidecar is on its way any more.
    fn release_medium(&self) {
        // Only the thread that writes it is refused, and that one cannot close.
        let _ = self.sidecar.wait("close");
        self.medium.release();
    }

    /// From here on no header is written.
    fn set_closed(&self) {
        let _header = self.header();
        self.state.store(CLOSED, Ordering::Release);
    }

    /// A clean end: synced, trimmed, and recorded in the header in that order, so
    /// that a crash in between leaves a journal which needs recovery but lacks nothing.
    fn finish_file(&self, tail: u64) -> Result<(), Error> {
        self.sync_to(tail)?;
        let header = *self.header();
        if header.confirmed == tail && self.medium.len()? == tail {
            return Ok(());
        }
        if cfg!(windows) {
            // A mapped file cannot be cut there; the zeros behind the end do no harm.
            let _ = self.medium.truncate(tail);
        } else {
            self.medium.truncate(tail)?;
        }
        if header.confirmed == tail {
            // The header says so already; the cut has still to survive power loss.
            return self.sync_medium(|| self.medium.sync());
        }
        self.confirm(tail, None)
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}
