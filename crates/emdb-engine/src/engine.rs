//! What all handles share, and the order of its locks.
//!
//! Locks are taken in this order, and none is taken twice:
//!
//! 1. the checkpoint mutex (`Checkpoints`),
//! 2. the write side of the journal (a batch),
//! 3. what the open transaction has staged,
//! 4. the list of spaces with a past, then a space's `past`,
//! 5. one stripe of one index (a guard),
//! 6. the kept tombstones, then the snapshots without a slot.
//!
//! Whoever ends an incarnation waits for every stripe of it with 4 locked; so nobody who
//! holds a stripe asks for anything of the past.
//!
//! A plain writer holds a stripe when it appends. If a batch has the write side then,
//! the writer lets go of the stripe, waits and starts again: the batch may need it.

mod batch;
mod catalog;
mod checkpoint;
#[cfg_attr(
    not(feature = "ttl"),
    expect(dead_code, reason = "files may hold records that expire")
)]
mod expire;
mod order;
mod passed;
mod read;
mod recover;
mod replay;
mod staging;
mod timer;
mod verify;
mod write;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::hash::KeyHasher;
use emdb_index::FindError;
use emdb_journal::Journal;

pub(crate) use batch::OpenBatch;
pub(crate) use catalog::Catalog;
pub(crate) use checkpoint::Checkpoints;
use order::StoredOrders;
pub(crate) use read::Extent;
pub(crate) use recover::open;
pub(crate) use staging::{Patience, Staging, Standpoint, Sweep};
pub(crate) use timer::Timer;
pub(crate) use write::Step;

use crate::builder::VerifyReads;
use crate::clock::{Clock, TimeSource};
use crate::snapshots::{Snapshots, Ticket};
use crate::space::Space;
use crate::stats::EmdbStats;
use crate::{Error, Result};

/// A database in use.
pub(crate) struct Engine {
    pub(crate) journal: Journal,
    hasher: KeyHasher,
    pub(crate) verify_reads: VerifyReads,
    pub(crate) root: Arc<Space>,
    catalog: Catalog,
    pub(crate) snapshots: Snapshots,
    /// What the transaction that has the write side has done so far.
    staging: Mutex<Staging>,
    /// Whether every index is known to be sound or broken.
    all_checked: AtomicBool,
    dead_bytes: AtomicU64,
    pub(crate) checkpoints: Checkpoints,
    sync_timer: Timer,
    sweep_timer: Timer,
    default_ttl: Option<Duration>,
    range_scans: bool,
    /// Whether an order of keys may come from a checkpoint, so that not all keys it
    /// stands on were read and verified.
    keys_unread: bool,
    pub(crate) clock: Clock,
    handles: AtomicUsize,
}

/// What users' handles and iterators hold. The database closes when the last one goes,
/// there and then, even if the helper thread is still at work on it.
pub(crate) struct Handle(Arc<Engine>);

/// What opening decided.
pub(crate) struct EngineOptions {
    pub(crate) verify_reads: VerifyReads,
    pub(crate) checkpoint_bytes: Option<u64>,
    pub(crate) sync_every: Option<Duration>,
    pub(crate) sweep_every: Option<Duration>,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) range_scans: bool,
    pub(crate) time_source: Option<TimeSource>,
    pub(crate) read_only: bool,
}

impl Engine {
    /// The hash that decides where a key lies in every index.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    /// Whether calls still work.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        self.journal.check_open().map_err(Error::from)
    }

    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.journal.sync()?)
    }

    pub(crate) fn stats(&self) -> Result<EmdbStats> {
        self.check_open()?;
        let journal = self.journal.stats()?;
        let mut stats = EmdbStats {
            live_records: 0,
            namespace_count: 0,
            logical_size_bytes: 0,
            file_size_bytes: journal.used_bytes,
            preallocated_bytes: journal.file_bytes.saturating_sub(journal.used_bytes),
            range_scans_enabled: self.range_scans,
            encrypted: self.journal.is_sealed(),
            dead_bytes: self.dead_bytes.load(Ordering::Relaxed),
            index_bytes: 0,
            durable_lsn: self.journal.durable_lsn().get(),
            last_lsn: self.journal.end_lsn().get(),
            torn_bytes_cut: journal.torn_bytes_cut,
            snapshots_open: self.snapshots.count(),
            pinned_bytes: 0,
            file_size_bytes_max: journal.used_bytes_max,
        };
        for space in self.spaces() {
            stats.live_records = stats
                .live_records
                .saturating_add(usize::try_from(space.records()).unwrap_or(usize::MAX));
            stats.logical_size_bytes += space.logical_bytes();
            stats.index_bytes += space.index.memory_bytes() + space.order_bytes();
            stats.namespace_count += 1;
        }
        // The default namespace is not counted.
        stats.namespace_count = stats.namespace_count.saturating_sub(1);
        Ok(stats)
    }

    /// The default namespace and every other.
    pub(crate) fn spaces(&self) -> Vec<Arc<Space>> {
        let mut spaces = vec![Arc::clone(&self.root)];
        spaces.extend(self.catalog.spaces());
        spaces
    }

    /// Ends the database for every handle: checkpoint, sync, trim, unlock.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_open()?;
        self.roll_back_others("close")?;
        let closed = self.close_journal();
        if matches!(closed, Err(Error::WriteInProgress(_))) {
            self.allow_transactions();
        }
        closed
    }

    fn close_journal(&self) -> Result<()> {
        self.journal.wait_for_batch("close")?;
        let checkpoint = self.checkpoint_if_worth_it();
        let closed = self.journal.close();
        self.sync_timer.stop();
        self.sweep_timer.stop();
        // A missing checkpoint costs time at the next opening; a failed sync, data.
        closed?;
        checkpoint
    }

    /// Does a kept tombstone's removal once no snapshot needs it; a few at a time, so
    /// that no writer pays for what many left behind.
    #[cold]
    pub(crate) fn remove_kept_tombstones(&self) {
        for kept in self.snapshots.take_unneeded() {
            self.remove_tombstone(&kept.space, kept.hash, kept.position);
        }
    }

    /// Copies some index entries of an incarnation, alive or ended.
    pub(crate) fn copy_entries(
        &self,
        space: &Arc<Space>,
        id: u32,
        at: emdb_index::Cursor,
        entries: &mut Vec<emdb_index::Entry>,
    ) -> Result<Option<emdb_index::Cursor>> {
        // An iterator reads on once the database is closed, but not in a fork, where who
        // holds a lock may be missing.
        self.journal.check_not_forked()?;
        loop {
            // Held so that the incarnation does not end in the middle of the copy.
            let past = space.past();
            let copied = if space.id() == id {
                space.index.copy_segment(at, entries)
            } else {
                match past.ended.iter().find(|ended| ended.id == id) {
                    Some(ended) => space.index.copy_detached(&ended.contents, at, entries),
                    None => return Err(Error::NamespaceDropped),
                }
            };
            drop(past);
            match copied {
                Ok(next) if !space.is_broken() => return Ok(next),
                Ok(_) => return Err(read::broken()),
                Err(emdb_index::Error::Damaged) if space.id() == id => self.rebuild(space)?,
                Err(error) => return Err(index_error(error)),
            }
        }
    }

    /// Closes a snapshot and gives back what only it needed.
    #[inline]
    pub(crate) fn close_snapshot(&self, ticket: &Ticket) {
        if self.journal.is_forked() {
            return;
        }
        self.snapshots.close(ticket);
        self.release_past();
    }

    #[inline]
    fn lock<'a>(&self, space: &'a Arc<Space>, hash: u64) -> Result<emdb_index::Guard<'a>> {
        loop {
            if space.is_broken() {
                return Err(read::broken());
            }
            match space.index.lock(hash) {
                Ok(guard) => return Ok(guard),
                Err(error) => self.repair(space, error)?,
            }
        }
    }

    /// Makes an index sound that said it is damaged.
    #[cold]
    fn repair(&self, space: &Arc<Space>, error: emdb_index::Error) -> Result<()> {
        match error {
            emdb_index::Error::Damaged => self.rebuild(space),
            error => Err(index_error(error)),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.journal.is_forked() {
            // The helper threads, their locks and the file belong to the parent.
            self.checkpoints.forget();
            self.sync_timer.forget();
            self.sweep_timer.forget();
        }
    }
}

impl Handle {
    fn new(engine: Arc<Engine>) -> Self {
        engine.handles.fetch_add(1, Ordering::Relaxed);
        Self(engine)
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl Deref for Handle {
    type Target = Engine;

    #[inline]
    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // AcqRel: whoever drops the last one sees what the others did.
        if self.0.handles.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        if self.journal.is_forked() {
            return;
        }
        // First, since the helper may be waiting for its write side.
        self.roll_back_leaked();
        self.checkpoints.stop();
        if self.check_open().is_ok() {
            // `close` tells errors; dropping the last handle is silent.
            let _ = self.close();
        }
        // Closing did that, unless it could not close.
        self.sync_timer.stop();
        self.sweep_timer.stop();
    }
}

impl Engine {
    /// As `lock`, for who holds the write side: the index has been checked before.
    fn lock_in_batch<'a>(&self, space: &'a Space, hash: u64) -> Result<emdb_index::Guard<'a>> {
        if space.is_broken() {
            return Err(read::broken());
        }
        space.index.lock(hash).map_err(index_error)
    }

    /// Checks every index that comes from an image throughout, once, since one that
    /// turns out damaged cannot be rebuilt by the thread that has the write side.
    #[inline]
    fn check_indexes(&self) {
        if !self.all_checked.load(Ordering::Acquire) {
            self.check_indexes_now();
        }
    }

    #[cold]
    fn check_indexes_now(&self) {
        let spaces = self.spaces();
        for space in &spaces {
            // An index that cannot be rebuilt says so when it is used.
            let _ = self.check_index(space);
        }
        // What is added from here on begins sound.
        if spaces.iter().all(|space| space.is_checked()) {
            self.all_checked.store(true, Ordering::Release);
        }
    }

    /// Checks an index that comes from an image throughout, once, and rebuilds it if
    /// it is damaged. To be done before the write side is taken.
    fn check_index(&self, space: &Arc<Space>) -> Result<()> {
        if !space.is_checked() {
            let mut entries = Vec::new();
            let mut next = Some(emdb_index::Cursor::default());
            while let Some(at) = next {
                next = match space.index.copy_segment(at, &mut entries) {
                    Ok(next) => next,
                    Err(emdb_index::Error::Damaged) => {
                        self.rebuild(space)?;
                        None
                    }
                    Err(error) => return Err(index_error(error)),
                };
            }
            if !space.is_checked() {
                space.set_checked(true);
            }
        }
        if space.is_broken() {
            Err(read::broken())
        } else {
            Ok(())
        }
    }
}

fn index_error(error: emdb_index::Error) -> Error {
    match error {
        emdb_index::Error::Full => Error::TooLarge {
            what: "number of keys with equal hashes",
            len: 0,
            max: 0,
        },
        other => Error::corrupted(0, other.to_string()),
    }
}

/// For index operations on an index that cannot be damaged, or whose damage the
/// caller has ruled out.
fn find_error(error: FindError<Error>) -> Error {
    match error {
        FindError::Check(error) => error,
        FindError::Index(error) => index_error(error),
    }
}
