//! Iterators: lazy, owned, and each a snapshot of the moment it was made.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use emdb_index::{Cursor, Entry, Location};
use emdb_journal::{Frame, Opened};

use crate::engine::{Extent, Handle, Standpoint};
use crate::range::Ground;
use crate::snapshots::Ticket;
use crate::space::Space;
use crate::{Error, Result};

/// Records looked ahead so that they are on their way into the cache.
const AHEAD: usize = 8;

/// A namespace at one point in time.
pub(crate) struct Stand {
    pub(crate) engine: Handle,
    pub(crate) space: Arc<Space>,
    pub(crate) id: Option<u32>,
    snapshot: Ticket,
    /// The lowest position that the transaction discarded in which this stands.
    discarded: Option<Arc<AtomicU64>>,
    /// What had expired then does not show.
    at_ms: u64,
}

impl Stand {
    /// What is committed now.
    pub(crate) fn now(engine: &Handle, space: &Arc<Space>) -> Result<Self> {
        engine.check_open()?;
        if space.is_dropped() {
            return Err(Error::NamespaceDropped);
        }
        let snapshot = engine.snapshots.open(&engine.journal)?;
        let id = space.id_at(snapshot.position());
        Ok(Self::over(
            engine,
            space,
            id,
            snapshot,
            engine.clock.now_ms(),
        ))
    }

    /// An incarnation at a position at which a snapshot is open that was taken then.
    pub(crate) fn at(
        engine: &Handle,
        space: &Arc<Space>,
        id: Option<u32>,
        position: u64,
        at_ms: u64,
    ) -> Result<Self> {
        engine.journal.check_not_forked()?;
        let snapshot = engine.snapshots.open_at(position);
        Ok(Self::over(engine, space, id, snapshot, at_ms))
    }

    /// What a transaction saw then.
    pub(crate) fn in_transaction(engine: &Handle, seen: Standpoint) -> Self {
        let now = engine.clock.now_ms();
        let mut stand = Self::over(engine, &seen.space, Some(seen.id), seen.snapshot, now);
        stand.discarded = Some(seen.discarded);
        stand
    }

    fn over(
        engine: &Handle,
        space: &Arc<Space>,
        id: Option<u32>,
        snapshot: Ticket,
        at_ms: u64,
    ) -> Self {
        Self {
            engine: engine.clone(),
            space: Arc::clone(space),
            id,
            snapshot,
            discarded: None,
            at_ms,
        }
    }

    /// Whether what it stands on was discarded.
    pub(crate) fn check(&self) -> Result<()> {
        check_discarded(self.discarded.as_deref(), self.snapshot.position())
    }

    /// The same, to be borrowed.
    pub(crate) fn ground(&self) -> Ground<'_> {
        Ground {
            engine: &self.engine,
            space: &self.space,
            id: self.id,
            upto: self.snapshot.position(),
            discarded: self.discarded.as_deref(),
            at_ms: Some(self.at_ms),
        }
    }

    /// Whether what is at a location was there at this moment.
    #[inline]
    pub(crate) fn sees(&self, location: Location) -> bool {
        location.get() < self.snapshot.position()
    }

    /// The frame of an entry and the hash of its key, if it is seen here and still is what
    /// everybody sees. `None` says nothing. The hash may be known already.
    #[inline]
    pub(crate) fn still<'a>(
        &'a self,
        entry: Entry,
        hash: Option<u64>,
        opened: &'a Opened,
    ) -> Option<(u64, Frame<'a>)> {
        if !self.sees(entry.location) || self.id != Some(self.space.id()) {
            return None;
        }
        self.engine.still_newest(&self.space, entry, hash, opened)
    }

    /// The record that an index entry stands for, if it has one here.
    pub(crate) fn see<'a>(
        &'a self,
        entry: Entry,
        extent: Extent,
        opened: &'a Opened,
    ) -> Result<Option<Frame<'a>>> {
        let Some(id) = self.id else {
            return Ok(None);
        };
        let upto = self.snapshot.position();
        let found = self.engine.entry_at(entry, id, upto, extent, opened);
        self.check()?;
        let frame = found?.map(|(_, frame)| frame);
        Ok(frame.filter(|frame| !self.engine.is_expired(frame, Some(self.at_ms))))
    }
}

/// Whether something below `upto` was discarded, on which somebody stands.
#[inline]
pub(crate) fn check_discarded(discarded: Option<&AtomicU64>, upto: u64) -> Result<()> {
    match discarded {
        // SeqCst: after the entry was loaded; see `Staging::undo`.
        Some(discarded) if discarded.load(Ordering::SeqCst) < upto => Err(
            Error::TransactionAborted("an iterator outlived what it stands on"),
        ),
        _ => Ok(()),
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.engine.close_snapshot(&self.snapshot);
    }
}

/// A walk over a namespace in no particular order.
pub(crate) struct Walk {
    stand: Stand,
    next: Option<Cursor>,
    entries: Vec<Entry>,
    at: usize,
    extent: Extent,
}

impl Walk {
    pub(crate) fn new(stand: Stand, extent: Extent) -> Self {
        Self {
            stand,
            next: Some(Cursor::default()),
            entries: Vec::new(),
            at: 0,
            extent,
        }
    }

    /// Calls `visit` with every record in place, until it breaks.
    pub(crate) fn for_each(
        mut self,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        while let Some(flow) = self.next(|frame| visit(frame.key, frame.value))? {
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// How many records there are.
    pub(crate) fn count(mut self) -> Result<usize> {
        let mut count = 0;
        while self.next(|_| ())?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// The next key.
    pub(crate) fn next_key(&mut self) -> Result<Option<Vec<u8>>> {
        self.next(|frame| frame.key.to_vec())
    }

    /// Hands the next record to `take`; `None` at the end.
    pub(crate) fn next<T>(&mut self, take: impl FnOnce(&Frame<'_>) -> T) -> Result<Option<T>> {
        loop {
            while let Some(entry) = self.entries.get(self.at) {
                let entry = *entry;
                self.at += 1;
                if let Some(ahead) = self.entries.get(self.at + AHEAD) {
                    self.stand.engine.journal.prefetch(ahead.location.get());
                }
                let opened = Opened::new();
                if let Some(frame) = self.stand.see(entry, self.extent, &opened)? {
                    return Ok(Some(take(&frame)));
                }
            }
            let (Some(at), Some(id)) = (self.next, self.stand.id) else {
                self.stand.check()?;
                return Ok(None);
            };
            self.at = 0;
            let (engine, space) = (&self.stand.engine, &self.stand.space);
            self.next = engine.copy_entries(space, id, at, &mut self.entries)?;
        }
    }
}

/// The records of a namespace, in no particular order.
///
/// A snapshot: later writes, removals and clears do not show. Damage met on the way
/// ends the iteration; [`error`](Self::error) tells it, and
/// [`Namespace::try_iter`](crate::Namespace::try_iter) gives it as an item.
///
/// While it lives, removed records keep their index entries; drop it when done.
pub struct NamespaceIter {
    inner: TryIter,
    error: Option<Error>,
}

/// The records of the default namespace; see [`NamespaceIter`].
pub type EmdbIter = NamespaceIter;

/// The keys of a namespace, in no particular order; values above 16 KiB are not read.
///
/// Otherwise as [`NamespaceIter`].
pub struct NamespaceKeyIter {
    inner: TryKeyIter,
    error: Option<Error>,
}

/// The keys of the default namespace; see [`NamespaceKeyIter`].
pub type EmdbKeyIter = NamespaceKeyIter;

/// As [`NamespaceIter`], but damage is an item, after which the iteration ends.
pub struct TryIter(Option<Walk>);

/// As [`NamespaceKeyIter`], but damage is an item, after which the iteration ends.
pub struct TryKeyIter(Option<Walk>);

impl NamespaceIter {
    pub(crate) fn new(walk: Walk) -> Self {
        Self {
            inner: TryIter::new(walk),
            error: None,
        }
    }

    /// What ended the iteration early, damage for one.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

impl NamespaceKeyIter {
    pub(crate) fn new(walk: Walk) -> Self {
        Self {
            inner: TryKeyIter::new(walk),
            error: None,
        }
    }

    /// What ended the iteration early, damage for one.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

impl TryIter {
    pub(crate) fn new(walk: Walk) -> Self {
        Self(Some(walk))
    }
}

impl TryKeyIter {
    pub(crate) fn new(walk: Walk) -> Self {
        Self(Some(walk))
    }
}

impl Iterator for NamespaceIter {
    type Item = (Vec<u8>, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        self.inner
            .next()?
            .map_err(|error| self.error = Some(error))
            .ok()
    }
}

impl Iterator for NamespaceKeyIter {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Self::Item> {
        self.inner
            .next()?
            .map_err(|error| self.error = Some(error))
            .ok()
    }
}

impl Iterator for TryIter {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        advance(&mut self.0, |frame| {
            (frame.key.to_vec(), frame.value.to_vec())
        })
    }
}

impl Iterator for TryKeyIter {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        advance(&mut self.0, |frame| frame.key.to_vec())
    }
}

/// The next item; the walk, and its snapshot with it, goes at the end.
fn advance<T>(walk: &mut Option<Walk>, take: impl FnOnce(&Frame<'_>) -> T) -> Option<Result<T>> {
    let result = walk.as_mut()?.next(take).transpose();
    if !matches!(result, Some(Ok(_))) {
        *walk = None;
    }
    result
}

impl std::iter::FusedIterator for NamespaceIter {}
impl std::iter::FusedIterator for NamespaceKeyIter {}
impl std::iter::FusedIterator for TryIter {}
impl std::iter::FusedIterator for TryKeyIter {}
