//! Appending: reserve, store, publish.
//!
//! Positions only move forward: `reserved >= readable >= published`. A frame below
//! `readable` is whole in the map; below `published` it is also in whatever index
//! the publishing closure keeps. Frames are published in the order of their
//! positions, and `append` returns only after its own turn, so nothing it
//! acknowledged lies behind another writer's hole.

use std::sync::atomic::Ordering;

use emdb_format::{
    EPOCH_FRAME_LEN, FrameSpec, Head, MARKER_DISTANCE, Marker, POSITION_MAX, SealedLayout,
    marker_frame_len,
};

use crate::error::Error;
use crate::journal::Core;
use crate::lsn::Lsn;
use crate::medium::Store;
use crate::primitive::{AtomicU64, pause};
use crate::seal::Seal;

/// Set in the reservation word while a batch holds the write side.
pub(crate) const BATCH: u64 = 1 << 63;
/// Set in the reservation word once writing has ended: closed or poisoned.
pub(crate) const STOP: u64 = 1 << 62;
/// The position in the reservation word.
pub(crate) const POSITION: u64 = STOP - 1;

const MARKER_FRAME_MAX: usize = 192;
/// Bytes behind a sync that are not stored through the map; see [`Store::Mixed`].
const WRITTEN_BYTES: u64 = 16 << 10;
/// Frames up to this are put together on the stack before they are written.
const SMALL_FRAME_BYTES: u64 = 512;
/// Sealed frames up to these are put together on the stack, too.
const SMALLER_SEALED_BYTES: usize = 256;
const SMALL_SEALED_BYTES: usize = SMALL_FRAME_BYTES as usize;

/// Why an append was not even tried: a batch holds the write side.
///
/// Let go of every lock, call [`Journal::wait_for_batch`](crate::Journal::wait_for_batch)
/// and start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// What every append writes, on cache lines that readers of settled records never touch.
#[repr(align(128))]
pub(crate) struct Tail {
    /// Position up to which space is reserved, with [`BATCH`] and [`STOP`].
    pub(crate) word: AtomicU64,
    /// Every frame below is whole in the map, those of an open batch included.
    pub(crate) readable: AtomicU64,
    /// Every frame below is whole and known to the indexes.
    pub(crate) published: AtomicU64,
    /// The append that starts at or above this position writes a marker first.
    pub(crate) marker_due: AtomicU64,
    /// Reserved bytes that will never be published.
    pub(crate) abandoned: AtomicU64,
}

impl Tail {
    pub(crate) fn new(position: u64) -> Self {
        Self {
            word: AtomicU64::new(position),
            readable: AtomicU64::new(position),
            published: AtomicU64::new(position),
            marker_due: AtomicU64::new(position),
            abandoned: AtomicU64::new(0),
        }
    }
}

impl Core {
    /// Appends one frame, and calls `publish` with its position once every frame
    /// before it is whole, before anything after it is published.
    #[inline]
    pub(crate) fn append(
        &self,
        spec: &FrameSpec<'_>,
        publish: impl FnOnce(u64),
    ) -> Result<Result<Lsn, Busy>, Error> {
        if let Some(seal) = &self.seal {
            return self.append_sealed(seal, spec, publish);
        }
        let head = spec.head(self.stamp)?;
        let len = (head.as_bytes().len() + spec.key.len() + spec.value.len()) as u64;
        self.append_with(
            len,
            (u64::MAX, || {}),
            |position| self.store(position, &head, spec, len),
            publish,
        )
    }

    #[inline(never)]
    fn append_sealed(
        &self,
        seal: &Seal,
        spec: &FrameSpec<'_>,
        publish: impl FnOnce(u64),
    ) -> Result<Result<Lsn, Busy>, Error> {
        let layout = spec.sealed_layout()?;
        self.append_with(
            layout.len() as u64,
            (seal.limit(), || seal.set_full()),
            |position| self.store_sealed(seal, position, &layout, spec),
            publish,
        )
    }

    /// Reserves `len` bytes, has them stored, and publishes them. Where they would reach
    /// over the limit it does nothing but what comes with it.
    #[inline]
    fn append_with(
        &self,
        len: u64,
        limit: (u64, impl FnOnce()),
        store: impl FnOnce(u64) -> Result<u32, Error>,
        publish: impl FnOnce(u64),
    ) -> Result<Result<Lsn, Busy>, Error> {
        let (start, position, end) = loop {
            // Relaxed: the exchange below orders what matters.
            let word = self.tail.word.load(Ordering::Relaxed);
            if word > POSITION {
                if word & STOP != 0 {
                    return Err(self.stopped());
                }
                return Ok(Err(Busy));
            }
            let lead = if word >= self.tail.marker_due.load(Ordering::Relaxed) {
                self.lead_len(word)
            } else {
                0
            };
            let end = word + lead + len;
            if end > limit.0 {
                limit.1();
                return Ok(Err(Busy));
            }
            if end > self.extents.prepared() {
                self.grow(end)?;
                continue;
            }
            // SeqCst: a snapshot registers before it reads the word, and the writer
            // looks for snapshots after this; one of them sees the other.
            let reserved = self.tail.word.compare_exchange_weak(
                word,
                end,
                Ordering::SeqCst,
                Ordering::Relaxed,
            );
            if reserved.is_ok() {
                break (word, word + lead, end);
            }
        };
        let hole = Hole {
            core: self,
            len: end - start,
        };
        if position != start {
            self.store_lead(start)?;
        }
        store(position)?;
        self.wait_turn(start)?;
        // Release: pairs with the Acquire in `readable`; the frame is whole.
        self.tail.readable.store(end, Ordering::Release);
        std::mem::forget(hole);
        let turn = Turn {
            core: self,
            start,
            end,
        };
        publish(position);
        drop(turn);
        Ok(Ok(Lsn::new(self.base_lsn + position)))
    }

    /// Waits until everything below `start` is published.
    #[inline]
    fn wait_turn(&self, start: u64) -> Result<(), Error> {
        // Acquire: pairs with the Release in `Turn::drop` of the writer before.
        if self.tail.published.load(Ordering::Acquire) == start {
            return Ok(());
        }
        self.wait_published(start)
    }

    /// Waits until everything below `position` is published.
    pub(crate) fn wait_published(&self, position: u64) -> Result<(), Error> {
        let mut spins = 0_u32;
        while self.tail.published.load(Ordering::Acquire) < position {
            if let Err(error) = self.check_writable() {
                // Whoever ended the journal may have published in between.
                if self.tail.published.load(Ordering::Acquire) >= position {
                    break;
                }
                return Err(error);
            }
            pause(&mut spins);
        }
        Ok(())
    }

    /// After the end of a poisoned journal: waits until no writer stores any more.
    pub(crate) fn wait_for_writers(&self) {
        let reserved = self.tail.word.load(Ordering::SeqCst) & POSITION;
        loop {
            let published = self.tail.published.load(Ordering::Acquire);
            let abandoned = self.tail.abandoned.load(Ordering::Acquire);
            if published.saturating_add(abandoned) >= reserved {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Makes room up to `end`.
    #[cold]
    pub(crate) fn grow(&self, end: u64) -> Result<(), Error> {
        let published = self.tail.published.load(Ordering::Acquire);
        if self.extents.grow(&*self.medium, end, published)? {
            Ok(())
        } else {
            Err(self.stopped())
        }
    }

    /// Stores a whole frame at a reserved position; gives its checksum.
    #[inline]
    pub(crate) fn store(
        &self,
        position: u64,
        head: &Head,
        spec: &FrameSpec<'_>,
        len: u64,
    ) -> Result<u32, Error> {
        let lsn = self.base_lsn + position;
        if self.is_stored_in_map(position) {
            let stored = self.extents.store(position, len, |frame| {
                spec.store(head, frame, self.stamp, lsn)
            });
            return Ok(stored.ok_or_else(|| unmapped(position))??);
        }
        self.write_frame(position, head, spec, len)
    }

    /// As `store`, by a write.
    pub(crate) fn write_frame(
        &self,
        position: u64,
        head: &Head,
        spec: &FrameSpec<'_>,
        len: u64,
    ) -> Result<u32, Error> {
        let lsn = self.base_lsn + position;
        let (mut small, mut large);
        let frame = if len <= SMALL_FRAME_BYTES {
            small = [0; SMALL_FRAME_BYTES as usize];
            small.get_mut(..len as usize).unwrap_or_default()
        } else {
            large = vec![0; len as usize];
            &mut large[..]
        };
        let checksum = spec.store(head, frame, self.stamp, lsn)?;
        self.write_bytes(position, frame)?;
        Ok(checksum)
    }

    /// Seals a frame, and stores it at a reserved position; gives its checksum.
    #[inline]
    pub(crate) fn store_sealed(
        &self,
        seal: &Seal,
        position: u64,
        layout: &SealedLayout,
        spec: &FrameSpec<'_>,
    ) -> Result<u32, Error> {
        let (mut smaller, mut small, mut large);
        // Never in the map itself: what is not sealed yet could reach the disk.
        let room = if layout.len() <= SMALLER_SEALED_BYTES {
            // Most records; less to be zeroed.
            smaller = [0; SMALLER_SEALED_BYTES];
            &mut smaller[..]
        } else if layout.len() <= SMALL_SEALED_BYTES {
            small = [0; SMALL_SEALED_BYTES];
            &mut small[..]
        } else {
            large = vec![0; layout.len()];
            &mut large[..]
        };
        let frame = room.get_mut(..layout.len()).unwrap_or_default();
        let checksum = seal.seal(position, spec, layout, frame, self.stamp)?;
        self.store_bytes(position, frame)?;
        Ok(checksum)
    }

    /// Stores a frame, or several, that are ready at a reserved position.
    #[inline]
    pub(crate) fn store_bytes(&self, position: u64, frame: &[u8]) -> Result<(), Error> {
        if self.is_stored_in_map(position) {
            self.extents
                .store(position, frame.len() as u64, |to| {
                    to.copy_from_slice(frame);
                })
                .ok_or_else(|| unmapped(position))
        } else {
            self.write_bytes(position, frame)
        }
    }

    /// As `store_bytes`, by a write.
    pub(crate) fn write_bytes(&self, position: u64, bytes: &[u8]) -> Result<(), Error> {
        self.written(self.medium.write_at(position, bytes))
    }

    #[inline]
    pub(crate) fn is_stored_in_map(&self, position: u64) -> bool {
        match self.store {
            Store::Mapped => true,
            Store::Mixed => position.saturating_sub(self.commit.durable()) >= WRITTEN_BYTES,
            Store::Written => false,
        }
    }

    /// Whether what comes at a position is written though much may lie between it and what
    /// is durable: right behind what was, up to `end`, so that nothing there is stored.
    #[inline]
    pub(crate) fn is_written_after(&self, position: u64, end: u64) -> bool {
        let end = end.max(self.commit.durable());
        self.store == Store::Mixed && position.saturating_sub(end) < WRITTEN_BYTES
    }

    /// Bytes of what comes before the next frame at a position where a marker is due.
    #[cold]
    pub(crate) fn lead_len(&self, position: u64) -> u64 {
        let marker_at = position + self.epoch_frame_len(position);
        marker_at - position + marker_frame_len(marker_at) as u64
    }

    fn epoch_frame_len(&self, position: u64) -> u64 {
        match &self.seal {
            Some(seal) if seal.is_due(position) => EPOCH_FRAME_LEN as u64,
            _ => 0,
        }
    }

    /// Stores at a reserved position what comes before the next frame there: the frame of
    /// an epoch that begins, then a marker.
    #[cold]
    pub(crate) fn store_lead(&self, position: u64) -> Result<(), Error> {
        let epoch_len = self.epoch_frame_len(position);
        if let Some(seal) = &self.seal
            && epoch_len != 0
        {
            self.store_bytes(position, &seal.epoch_frame(position, self.stamp)?)?;
        }
        self.store_marker(position + epoch_len)
    }

    fn store_marker(&self, position: u64) -> Result<(), Error> {
        let (frame, len) = self.marker_frame(position)?;
        self.store_bytes(position, frame.get(..len).unwrap_or(&[]))
    }

    /// The frame of the marker that is due at a position, and its length.
    pub(crate) fn marker_frame(
        &self,
        position: u64,
    ) -> Result<([u8; MARKER_FRAME_MAX], usize), Error> {
        let mut frame = [0; MARKER_FRAME_MAX];
        // AcqRel: pairs with the Release in `sync_to`. A sync that ends before this is
        // in the marker; one that ends after it makes the next marker due. The other
        // way round, a sync in between would go without a marker.
        self.tail.marker_due.swap(
            position.saturating_add(MARKER_DISTANCE / 2),
            Ordering::AcqRel,
        );
        let synced = self.base_lsn + self.commit.durable();
        let mut marker = Marker::at(self.base_lsn, position, synced);
        if let Some(seal) = &self.seal {
            seal.sign(position, &mut marker, &self.marker_tag)?;
        }
        let len = marker.encode_frame(
            &mut frame,
            &self.marker_tag,
            self.stamp,
            self.base_lsn,
            position,
        )?;
        Ok((frame, len))
    }

    /// A failed write into prepared space poisons: its hole can never be filled.
    fn written(&self, result: Result<(), Error>) -> Result<(), Error> {
        if result.is_err() {
            self.poison();
        }
        result
    }

    /// Has space prepared up to `end`.
    #[inline]
    pub(crate) fn make_room(&self, end: u64) -> Result<(), Error> {
        self.check_reach(end)?;
        if end > self.extents.prepared() {
            self.grow(end)?;
        }
        Ok(())
    }

    /// Checks that a position can be reached at all.
    pub(crate) fn check_reach(&self, end: u64) -> Result<(), Error> {
        if end > POSITION_MAX {
            return Err(Error::TooLarge {
                what: "journal",
                len: end,
                max: POSITION_MAX,
            });
        }
        Ok(())
    }
}

#[cold]
pub(crate) fn unmapped(position: u64) -> Error {
    Error::corrupted(position, "reserved space is not mapped")
}

/// Reserved space whose frame is not whole: poisons when dropped, since the hole can
/// never be filled and whoever waits behind it must not wait for ever.
struct Hole<'a> {
    core: &'a Core,
    len: u64,
}

impl Drop for Hole<'_> {
    #[cold]
    fn drop(&mut self) {
        self.core.poison();
        // Release: pairs with the Acquire in `wait_for_writers`.
        self.core
            .tail
            .abandoned
            .fetch_add(self.len, Ordering::Release);
    }
}

/// A writer's turn to publish; passes it on even if the closure panics, since the
/// frame is whole by then.
struct Turn<'a> {
    core: &'a Core,
    start: u64,
    end: u64,
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        const SETTLE_BYTES: u64 = 1 << 18;
        let settles = self.start / SETTLE_BYTES != self.end / SETTLE_BYTES;
        if settles {
            // While it is still this writer's turn, so that it never moves back.
            self.core.extents.settle(self.end);
        }
        // Release: pairs with the Acquire in `wait_turn` and `wait_published`.
        self.core.tail.published.store(self.end, Ordering::Release);
        if settles {
            self.core.grow_ahead(self.end);
        }
    }
}
