//! Checkpoints: the indexes' exact state at one point in time, so that opening need
//! not replay what came before.
//!
//! A checkpoint is taken at a snapshot. Its image is published in this order: the
//! journal is synced past the snapshot and the header says so; the image is written
//! to a temporary file, synced and renamed. So an image never knows more than what
//! survives of the journal.

mod pace;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use emdb_format::{CheckpointHead, CheckpointSpace};
use emdb_index::{Entry, OrderedIndex};
use emdb_journal::Opened;

use super::read::Extent;
use super::{Engine, find_error};
use crate::space::Space;
use crate::{Error, Result};
use pace::{Growth, Pace};

const ALIGN_BYTES: u64 = 4096;
/// A journal that grew by less since the last checkpoint is replayed in no time.
const WORTH_BYTES: u64 = 64 << 10;
/// How often a checkpoint starts again when namespaces are cleared under it, before it
/// keeps writers out.
const ATTEMPTS: u32 = 8;

/// When checkpoints are taken, and the thread that takes them.
pub(crate) struct Checkpoints {
    /// One at a time; the name of the last one, zeros for none.
    running: Mutex<[u8; 16]>,
    /// From where the last one replays.
    last: AtomicU64,
    /// The journal's position from which on a writer has to ask for the next one, or to
    /// wait for it. Changed with `pace` locked.
    due: AtomicU64,
    /// How writers go on while one is wanted; `None` if none is.
    pace: Mutex<Option<Pace>>,
    /// Told when `pace` is over.
    taken: Condvar,
    /// Whether the last one lacks an order of keys that opening had to make.
    incomplete: AtomicBool,
    /// Growth after which one is due; `None` for the default.
    every_bytes: Option<u64>,
    engine: OnceLock<Weak<Engine>>,
    helper: Mutex<Option<JoinHandle<()>>>,
    signal: Arc<Signal>,
}

/// What the helper thread waits for; outlives the engine.
#[derive(Default)]
struct Signal {
    request: Mutex<Request>,
    changed: Condvar,
}

#[derive(Default)]
struct Request {
    wanted: bool,
    stop: bool,
}

impl Signal {
    fn request(&self) -> MutexGuard<'_, Request> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a request; `false` when it is time to end.
    fn wait(&self) -> bool {
        let mut request = self.request();
        while !request.wanted && !request.stop {
            request = self
                .changed
                .wait(request)
                .unwrap_or_else(PoisonError::into_inner);
        }
        request.wanted = false;
        !request.stop
    }
}

/// A namespace as it was at the checkpoint's point in time.
struct Captured {
    space: Arc<Space>,
    /// `None` where the order is not kept, or may lack a key.
    order: Option<Arc<OrderedIndex>>,
    id: u32,
    epoch: u64,
    records: u64,
    logical_bytes: u64,
}

impl Checkpoints {
    pub(super) fn new(last: u64, name: [u8; 16], every_bytes: Option<u64>) -> Self {
        Self {
            running: Mutex::new(name),
            last: AtomicU64::new(last),
            due: AtomicU64::new(u64::MAX),
            pace: Mutex::new(None),
            taken: Condvar::new(),
            incomplete: AtomicBool::new(false),
            every_bytes,
            engine: OnceLock::new(),
            helper: Mutex::new(None),
            signal: Arc::default(),
        }
    }

    /// Says that the last checkpoint could have spared opening some work.
    pub(super) fn set_incomplete(&self) {
        self.incomplete.store(true, Ordering::Relaxed);
    }

    fn pace(&self) -> MutexGuard<'_, Option<Pace>> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has nobody ask for a checkpoint, or wait for one, before `due`.
    fn set_due(&self, due: u64) {
        let mut pace = self.pace();
        *pace = None;
        self.due.store(due, Ordering::Relaxed);
        self.taken.notify_all();
    }

    fn helper(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.helper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the helper thread without touching it: in a fork it does not exist.
    pub(super) fn forget(&mut self) {
        if let Ok(helper) = self.helper.get_mut() {
            std::mem::forget(helper.take());
        }
    }

    /// Ends the helper thread.
    pub(super) fn stop(&self) {
        let thread = self.helper().take();
        self.signal.request().stop = true;
        self.signal.changed.notify_all();
        self.set_due(u64::MAX);
        if let Some(thread) = thread
            // The helper itself may be the last to let go of the engine.
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

impl Engine {
    /// Says when the first checkpoint is due.
    pub(super) fn start_checkpoints(self: &Arc<Self>) {
        // A fresh engine's cell is empty.
        let _ = self.checkpoints.engine.set(Arc::downgrade(self));
        self.schedule_checkpoint(self.checkpoints.last.load(Ordering::Relaxed));
    }

    fn schedule_checkpoint(&self, last: u64) {
        let growth = self.checkpoint_growth();
        self.checkpoints.last.store(last, Ordering::Relaxed);
        self.checkpoints.set_due(last.saturating_add(growth.wanted));
    }

    fn checkpoint_growth(&self) -> Growth {
        self.checkpoints.every_bytes.map_or_else(
            || {
                let spaces = self.spaces();
                let index = spaces.iter().map(|space| space.index.memory_bytes());
                Growth::by_index(index.sum())
            },
            Growth::of,
        )
    }

    /// Has a checkpoint taken in the background if the journal has grown enough, or waits
    /// a little for it if it has grown too much; so many bytes were just written.
    #[inline]
    pub(crate) fn checkpoint_when_due(&self, bytes: u64) {
        if self.journal.published() >= self.checkpoints.due.load(Ordering::Relaxed) {
            self.checkpoint_is_due(bytes);
        }
    }

    #[cold]
    fn checkpoint_is_due(&self, bytes: u64) {
        let checkpoints = &self.checkpoints;
        let mut pace = checkpoints.pace();
        let published = self.journal.published();
        if published < checkpoints.due.load(Ordering::Relaxed) {
            return;
        }
        if pace.is_some() {
            return self.keep_pace(pace, bytes);
        }
        let last = checkpoints.last.load(Ordering::Relaxed);
        let new = Pace::new(&self.checkpoint_growth(), last, published);
        checkpoints.due.store(new.from(), Ordering::Relaxed);
        *pace = Some(new);
        drop(pace);
        if !self.request_checkpoint() {
            // Without the thread, checkpoints are taken at close only.
            checkpoints.set_due(u64::MAX);
        }
    }

    /// Waits until the journal may be as long as it is, or a checkpoint was taken, but for
    /// a time that what was written is worth.
    fn keep_pace(&self, mut pace: MutexGuard<'_, Option<Pace>>, bytes: u64) {
        let checkpoints = &self.checkpoints;
        let end = Instant::now() + pace::patience(bytes);
        while let Some(present) = pace.as_mut() {
            let now = Instant::now();
            let allowed = present.allowed(now);
            checkpoints.due.store(allowed, Ordering::Relaxed);
            if self.journal.published() < allowed || now >= end {
                return;
            }
            let wait = pace::STEP.min(end - now);
            let waited = checkpoints.taken.wait_timeout(pace, wait);
            pace = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells the thread; `false` if there is none.
    fn request_checkpoint(&self) -> bool {
        let checkpoints = &self.checkpoints;
        checkpoints.signal.request().wanted = true;
        checkpoints.signal.changed.notify_one();
        let mut helper = checkpoints.helper();
        if helper.is_none() {
            let Some(engine) = checkpoints.engine.get().cloned() else {
                return false;
            };
            let signal = Arc::clone(&checkpoints.signal);
            let builder = std::thread::Builder::new().name("emdb-checkpoint".to_owned());
            *helper = builder.spawn(move || run_helper(&signal, &engine)).ok();
        }
        helper.is_some()
    }

    /// Takes a checkpoint if the next opening is much faster with it.
    pub(crate) fn checkpoint_if_worth_it(&self) -> Result<()> {
        let last = self.checkpoints.last.load(Ordering::Relaxed);
        let has_grown = self.journal.published() >= last + WORTH_BYTES;
        let is_incomplete = self.checkpoints.incomplete.load(Ordering::Relaxed);
        if self.journal.is_read_only() || !(has_grown || is_incomplete) {
            return Ok(());
        }
        self.checkpoint()
    }

    /// Takes a checkpoint.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.check_open()?;
        self.journal.wait_for_batch("checkpoint")?;
        if self.journal.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let mut running = self
            .checkpoints
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut attempt = 1;
        let taken = loop {
            if let Some(at) = self.try_checkpoint(&mut running, attempt == ATTEMPTS)? {
                break at;
            }
            attempt = ATTEMPTS.min(attempt + 1);
        };
        self.schedule_checkpoint(taken);
        self.checkpoints.incomplete.store(false, Ordering::Relaxed);
        drop(running);
        Ok(())
    }

    /// One attempt; `None` if a namespace was cleared or dropped under it. That cannot
    /// happen to one that is `alone`: it has the write side all the time.
    fn try_checkpoint(&self, name: &mut [u8; 16], alone: bool) -> Result<Option<u64>> {
        for space in self.spaces() {
            self.check_index(&space)?;
        }
        let batch = self.journal.begin("checkpoint")?;
        let at = batch.begin();
        let captured: Vec<_> = self
            .spaces()
            .into_iter()
            .map(|space| Captured {
                id: space.id(),
                epoch: space.epoch(),
                records: space.records(),
                logical_bytes: space.logical_bytes(),
                order: self.order_of(&space, space.id()).ok(),
                space,
            })
            .collect();
        let head = CheckpointHead {
            database_id: self.journal.header().database_id,
            generation: self.journal.header().generation,
            replay_from: at,
            next_namespace: self.catalog.next_id(),
            dead_bytes: self.dead_bytes.load(Ordering::Relaxed),
            nonce: [0; 16],
            hash_check: self.hasher.check(),
            spaces: Vec::new(),
        };
        let snapshot = self.snapshots.open_at(at);
        let batch = alone.then_some(batch);
        let written = self.write_checkpoint(name, head, &captured);
        drop(batch);
        self.close_snapshot(&snapshot);
        Ok(written?.then_some(at))
    }

    fn write_checkpoint(
        &self,
        name: &mut [u8; 16],
        mut head: CheckpointHead,
        captured: &[Captured],
    ) -> Result<bool> {
        let at = head.replay_from;
        self.journal.sync()?;
        head.nonce = self.journal.name_checkpoint(at, *name)?;
        let mut failure = None;
        let mut whole = true;
        let written = self.journal.write_sidecar(&mut |out| match self
            .write_images(out, &mut head, captured)
        {
            Ok(true) => Ok(()),
            Ok(false) => {
                whole = false;
                Err(io::Error::from(io::ErrorKind::Interrupted))
            }
            Err(error) => {
                failure = Some(error);
                Err(io::Error::from(io::ErrorKind::Other))
            }
        });
        match (written, failure) {
            (Ok(()), _) => {
                *name = head.nonce;
                Ok(true)
            }
            (Err(_), Some(error)) => Err(error),
            (Err(_), None) if !whole => Ok(false),
            (Err(error), None) => Err(error.into()),
        }
    }

    fn write_images(
        &self,
        out: &mut dyn Write,
        head: &mut CheckpointHead,
        captured: &[Captured],
    ) -> Result<bool> {
        let at = head.replay_from;
        let mut offset = 0;
        for captured in captured {
            let Captured { space, id, .. } = captured;
            let mut tombstones = Vec::new();
            let mut resolve = |entry: Entry| {
                if entry.location.get() < at {
                    // Nothing newer hides it: no need to look at the record.
                    if entry.tombstone && captured.order.is_some() {
                        tombstones.push(entry.location);
                    }
                    return Ok((!entry.tombstone).then_some(entry.location));
                }
                let opened = Opened::new();
                let version = self.entry_at(entry, *id, at, Extent::Head, &opened)?;
                Ok::<_, Error>(version.map(|(location, _)| location))
            };
            let mut sink = |bytes: &[u8]| out.write_all(bytes).map_err(Error::from);
            let image_len = space
                .index
                .write_image(&mut resolve, &mut sink)
                .map_err(find_error)?;
            if space.epoch() != captured.epoch {
                // The index may have held something else already. The journal may lose
                // the frame that says so, therefore the image must not know it either.
                return Ok(false);
            }
            let mut stored = CheckpointSpace {
                name: space.name.clone(),
                id: *id,
                records: captured.records,
                logical_bytes: captured.logical_bytes,
                image_offset: offset,
                image_len,
                order_offset: offset + image_len,
                order_len: 0,
            };
            offset += image_len;
            if let Some(order) = &captured.order {
                tombstones.sort_unstable();
                let written = self.write_order(order, &stored, at, &tombstones, &mut sink)?;
                offset += written.bytes;
                // Better none than one with which something is wrong.
                if written.keys == stored.records {
                    stored.order_len = written.bytes;
                }
            }
            head.spaces.push(stored);
            let padding = offset.next_multiple_of(ALIGN_BYTES) - offset;
            let zeros = [0; ALIGN_BYTES as usize];
            out.write_all(zeros.get(..padding as usize).unwrap_or(&zeros))?;
            offset += padding;
        }
        out.write_all(&head.encode()?)?;
        out.write_all(&CheckpointHead::trailer(offset))?;
        Ok(true)
    }
}

/// Takes checkpoints when told to, until the engine is gone.
fn run_helper(signal: &Signal, engine: &Weak<Engine>) {
    while signal.wait() {
        let Some(engine) = engine.upgrade() else {
            return;
        };
        let unfinished = Unfinished(&engine);
        if engine.checkpoint().is_err() {
            // Opening takes longer until the next one succeeds.
            engine.schedule_checkpoint(engine.journal.published());
        }
        std::mem::forget(unfinished);
    }
}

/// A checkpoint for which nobody is to wait once this is dropped by a panic.
struct Unfinished<'a>(&'a Engine);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.checkpoints.set_due(u64::MAX);
    }
}

#[cfg(test)]
mod tests;
