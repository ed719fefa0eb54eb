//! Maps, and how the journal's space grows.
//!
//! Invariants:
//! - The bytes below `complete` (kept by `append`) are never written again while any
//!   map lives, so handing out `&[u8]` into them is sound.
//! - A map handed out as current stays mapped until the journal is dropped, and
//!   beyond that for as long as a [`PinnedBytes`] holds it.
//! - Only space below `prepared` is ever stored into, and only by whoever reserved it.
//! - The current map reaches at least to `prepared`, and `settled` is never above that.

use std::io;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use emdb_format::POSITION_MAX;
use memmap2::{MmapMut, MmapOptions, MmapRaw};

use crate::error::Error;
use crate::medium::Medium;
use crate::sys;

/// A stretch of memory that stands for the journal's bytes, from the front on.
///
/// A map may reach past the bytes that exist: address space is reserved once, and
/// pages become readable as the medium grows.
#[derive(Debug, Clone)]
pub struct Map(Arc<Region>);

#[derive(Debug)]
struct Region {
    base: *mut u8,
    len: usize,
    /// Whether pages are read-only until `Map::protect` opens them.
    protected: bool,
    #[cfg_attr(not(unix), expect(dead_code, reason = "keeps the memory mapped"))]
    memory: Memory,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held so that the memory stays mapped")]
enum Memory {
    File(MmapRaw),
    Anonymous(MmapMut),
}

// SAFETY: `base` points to memory owned by `memory`, which is itself `Send`, and
// nothing about it is tied to a thread.
unsafe impl Send for Region {}
// SAFETY: all access goes through `Map`, whose methods either read bytes that nobody
// writes any more or write bytes that only their caller reserved.
unsafe impl Sync for Region {}

impl Map {
    /// Address space reserved for a journal at first: enough that it rarely moves,
    /// little enough that a thousand journals fit an address space.
    pub const RESERVATION_BYTES: u64 = 64 << 30;

    /// Maps `file` from the front: `wanted` bytes, or as many of them as the system
    /// gives, but at least `needed`.
    ///
    /// # Errors
    /// When not even `needed` bytes can be mapped.
    pub fn file(file: &std::fs::File, needed: u64, wanted: u64) -> io::Result<Self> {
        let wanted = if sys::CAN_MAP_PAST_END {
            wanted
        } else {
            needed
        };
        let raw = shrinking(needed, wanted, |len| {
            MmapOptions::new().len(len).map_raw_read_only(file)
        })?;
        // Reads are of single records anywhere: reading more around each would fill the
        // memory with what nobody asked for. Who walks in order says so.
        #[cfg(unix)]
        let _ = raw.advise(memmap2::Advice::Random);
        let region = Region {
            base: raw.as_mut_ptr(),
            len: raw.len(),
            protected: true,
            memory: Memory::File(raw),
        };
        Ok(Self(Arc::new(region)))
    }

    /// Reserves anonymous, zero-filled memory that is taken up page by page.
    ///
    /// # Errors
    /// When not even `needed` bytes can be reserved.
    pub fn anonymous(needed: u64, wanted: u64) -> io::Result<Self> {
        let mut memory = shrinking(needed, wanted, |len| {
            MmapOptions::new().len(len).no_reserve_swap().map_anon()
        })?;
        let region = Region {
            base: memory.as_mut_ptr(),
            len: memory.len(),
            protected: false,
            memory: Memory::Anonymous(memory),
        };
        Ok(Self(Arc::new(region)))
    }

    /// Bytes of address space.
    #[expect(clippy::len_without_is_empty, reason = "a map is never empty")]
    pub fn len(&self) -> u64 {
        self.0.len as u64
    }

    /// Begins to read these bytes from the file, if they are of one; a hint.
    fn will_need(&self, from: u64, to: u64) {
        #[cfg(unix)]
        if let Memory::File(raw) = &self.0.memory
            && let Some((at, len)) = self.range(from, to.saturating_sub(from))
        {
            let _ = raw.advise_range(memmap2::Advice::WillNeed, at, len);
        }
        #[cfg(not(unix))]
        let _ = (from, to);
    }

    /// The same if the middle of them is not in memory: their ends may be there because their
    /// neighbours were read.
    fn fetch(&self, from: u64, to: u64) {
        #[cfg(unix)]
        if let Some((at, len)) = self.range(from, to.saturating_sub(from)) {
            let middle = at + len / 2;
            let page = middle - middle % sys::page_bytes() as usize;
            if !sys::is_resident(self.0.base.wrapping_add(page)) {
                self.will_need(from, to);
            }
        }
        #[cfg(not(unix))]
        let _ = (from, to);
    }

    #[inline]
    fn range(&self, position: u64, len: u64) -> Option<(usize, usize)> {
        let end = position.checked_add(len)?;
        (end <= self.len()).then_some((position as usize, len as usize))
    }

    /// The bytes from `position` on; `None` past the map.
    ///
    /// # Safety
    /// The bytes exist, and nobody writes them while the slice lives.
    #[inline]
    unsafe fn bytes(&self, position: u64, len: u64) -> Option<&[u8]> {
        let (at, len) = self.range(position, len)?;
        // SAFETY: `range` proved that `at` lies within the mapped region.
        let start = unsafe { self.0.base.add(at) };
        // SAFETY: `range` proved that `len` bytes from there are mapped; that they
        // exist and stay unchanged is this function's own condition.
        Some(unsafe { std::slice::from_raw_parts(start, len) })
    }

    /// Copies `bytes` to `position`, which the caller alone has reserved; `None` past
    /// the map.
    pub(crate) fn store(&self, position: u64, bytes: &[u8]) -> Option<()> {
        let to = self.reserved(position, bytes.len() as u64)?;
        // SAFETY: the bytes are mapped, and reserved for the caller alone.
        unsafe { &mut *to }.copy_from_slice(bytes);
        Some(())
    }

    /// Where the reserved bytes at `position` are, for the one caller that reserved them.
    #[inline]
    fn reserved(&self, position: u64, len: u64) -> Option<*mut [u8]> {
        let (at, len) = self.range(position, len)?;
        // SAFETY: `range` proved that `at` lies within the mapped region.
        let start = unsafe { self.0.base.add(at) };
        Some(ptr::slice_from_raw_parts_mut(start, len))
    }

    /// Zeroes the bytes from `from` up to `to`, for media that are memory.
    pub(crate) fn zero(&self, from: u64, to: u64) -> Option<()> {
        let (at, len) = self.range(from, to.saturating_sub(from))?;
        // SAFETY: `range` proved that `at` lies within the mapped region.
        let start = unsafe { self.0.base.add(at) };
        // SAFETY: `range` proved that `len` bytes from there are mapped. They are cut
        // off: above every complete byte, and no append runs while the log is cut.
        unsafe { ptr::write_bytes(start, 0, len) };
        Some(())
    }

    /// A copy of the bytes, for the simulated medium alone: it is for tests. Where others
    /// store meanwhile, as they may beside a sync, the copy has some of what was there before
    /// and some of what comes, as a disk does.
    pub(crate) fn copy(&self, position: u64, len: u64) -> Option<Vec<u8>> {
        let (at, len) = self.range(position, len)?;
        let mut copy = vec![0; len];
        // SAFETY: `range` proved that `at` lies within the mapped region.
        let start = unsafe { self.0.base.add(at) };
        // SAFETY: `range` proved that `len` bytes from there are mapped; of memory all of
        // them exist, and `copy` is as long, and elsewhere. Nothing refers to them, since they
        // may change; a store at the same time is a race that no rule of the language
        // allows, and that real media leave to the system.
        unsafe { ptr::copy_nonoverlapping(start, copy.as_mut_ptr(), len) };
        Some(copy)
    }

    /// Makes whole pages between `from` and `to` writable or read-only.
    fn protect(&self, from: u64, to: u64, writable: bool) -> io::Result<()> {
        if !self.0.protected {
            return Ok(());
        }
        let Some((at, len)) = self.range(from, to.min(self.len()).saturating_sub(from)) else {
            return Ok(());
        };
        // SAFETY: `range` proved that `at` lies within the mapped region.
        let start = unsafe { self.0.base.add(at) };
        // SAFETY: the pages belong to this region's map; making them read-only happens
        // only below `published`, where nobody stores any more.
        unsafe { sys::protect(start, len, writable) }
    }
}

/// Tries `wanted` bytes, then half of that and so on down to `needed`.
fn shrinking<T>(needed: u64, wanted: u64, map: impl Fn(usize) -> io::Result<T>) -> io::Result<T> {
    let needed = needed.max(1);
    let mut len = wanted.max(needed);
    loop {
        let bytes =
            usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        match map(bytes) {
            Ok(map) => return Ok(map),
            Err(error) if len == needed => return Err(error),
            Err(_) => len = (len / 2).max(needed),
        }
    }
}

/// Bytes of the journal that stay valid and unchanged for as long as this lives.
///
/// It holds the map, never the journal's lock. Cloning and dropping touch a
/// reference count that few other threads use.
#[derive(Clone)]
pub struct PinnedBytes(Pinned);

#[derive(Clone)]
enum Pinned {
    /// Complete bytes of the holder's map; made by `Mapped::pin` alone.
    Mapped {
        start: NonNull<u8>,
        len: usize,
        #[expect(dead_code, reason = "keeps the map")]
        holder: Arc<Holder>,
    },
    Copied(Arc<[u8]>),
}

// SAFETY: `start` leads to bytes that nobody writes, in a map that `holder` keeps; neither
// is tied to a thread.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl PinnedBytes {
    /// A copy, where the map does not hold the bytes as they are to be seen.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        Self(Pinned::Copied(bytes.into()))
    }
}

/// One of several reference counts of a map, on a cache line of its own.
#[repr(align(128))]
struct Holder(#[expect(dead_code, reason = "held so that it stays mapped")] Map);

impl Deref for PinnedBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Pinned::Mapped { start, len, .. } => {
                // SAFETY: `Mapped::pin` checked that these bytes of the holder's map are
                // complete, and complete bytes are never written again while it lives.
                unsafe { std::slice::from_raw_parts(start.as_ptr(), *len) }
            }
            Pinned::Copied(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for PinnedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes are users' data and stay out.
        f.debug_struct("PinnedBytes")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Enough for the threads of most machines. Asking how many there are means reading several of
/// the system's files, a good part of what an opening takes. A power of two.
const HOLDERS: usize = 64;

/// A map and its reference counts, spread so that threads rarely meet.
struct Mapped {
    /// Where `map` begins, at hand for reads.
    base: NonNull<u8>,
    map: Map,
    /// A power of two of them.
    holders: Box<[Arc<Holder>]>,
}

// SAFETY: `base` is that of `map`, which is `Send`.
unsafe impl Send for Mapped {}
// SAFETY: as above; `map` is `Sync`.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(map: Map) -> Box<Self> {
        let holders = (0..HOLDERS)
            .map(|_| Arc::new(Holder(map.clone())))
            .collect();
        // A map of no bytes would have no base; nothing is ever read of that.
        let base = NonNull::new(map.0.base).unwrap_or(NonNull::dangling());
        Box::new(Self { base, map, holders })
    }

    /// Keeps bytes alive if they are part of this map and below `complete`.
    #[inline]
    fn pin(&self, bytes: &[u8], complete: u64) -> Option<PinnedBytes> {
        let at = bytes.as_ptr().addr().checked_sub(self.base.addr().get())?;
        let end = at.checked_add(bytes.len())?;
        if end as u64 > complete || end > self.map.0.len {
            return None;
        }
        let holder = self.holders.get(thread_slot() & (self.holders.len() - 1))?;
        Some(PinnedBytes(Pinned::Mapped {
            start: NonNull::from(bytes).cast(),
            len: bytes.len(),
            holder: Arc::clone(holder),
        }))
    }
}

/// Which of a map's reference counts the calling thread uses.
#[inline]
fn thread_slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SLOT: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that is being torn down shares the first one.
    SLOT.try_with(|slot| *slot).unwrap_or(0)
}

/// The journal's space: what is mapped, what is prepared, what is complete.
pub(crate) struct Extents {
    /// The newest map. Release: pairs with the Acquire in `current`.
    current: AtomicPtr<Mapped>,
    /// Everything below is complete; lags behind `complete` so that readers of old
    /// records do not touch the line which every append writes.
    settled: AtomicU64,
    /// Space below can be stored into.
    prepared: AtomicU64,
    /// Prepared space below has been brought into memory, as far as that is done.
    populated: AtomicU64,
    /// Below, the system was asked to write what was stored.
    written_back: AtomicU64,
    growth: Mutex<Growth>,
    extent_bytes_max: u64,
    read_only: bool,
}

/// What only the growing thread needs.
struct Growth {
    /// Every map there ever was, the newest last; keeps `current` valid.
    #[expect(clippy::vec_box, reason = "`current` points into the boxes")]
    maps: Vec<Box<Mapped>>,
    /// Pages below are read-only.
    sealed: u64,
    /// The medium belongs to somebody else, or soon will.
    stopped: bool,
}

impl Extents {
    pub(crate) fn new(map: Map, tail: u64, extent_bytes_max: u64, read_only: bool) -> Self {
        let tail = tail.min(map.len());
        let mapped = Mapped::new(map);
        let current = AtomicPtr::new(ptr::from_ref(&*mapped).cast_mut());
        Self {
            current,
            settled: AtomicU64::new(tail),
            prepared: AtomicU64::new(tail),
            populated: AtomicU64::new(tail),
            written_back: AtomicU64::new(tail),
            growth: Mutex::new(Growth {
                maps: vec![mapped],
                sealed: page_floor(tail),
                stopped: false,
            }),
            extent_bytes_max: extent_bytes_max.max(MIN_EXTENT_BYTES),
            read_only,
        }
    }

    #[inline]
    fn current(&self) -> &Mapped {
        // Acquire: pairs with the Release in `grow`, which publishes the map.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: the pointer comes from a `Box` in `growth.maps`, which only grows
        // and is dropped with `self`.
        unsafe { &*current }
    }

    /// Complete bytes from `position` on, as far as is known without touching the
    /// line which appends write.
    #[inline]
    pub(crate) fn settled_bytes(&self, position: u64) -> Option<&[u8]> {
        let settled = self.settled();
        let len = settled.checked_sub(position)?;
        let base = self.current().base;
        // SAFETY: what is settled lies in the current map: `new` and `settle` see to it, maps
        // only grow, and whoever sees `settled` sees the map that was current then.
        let start = unsafe { base.add(position as usize) };
        // SAFETY: as above, `len` bytes from there are mapped; and they are complete, so they
        // are never written again.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), len as usize) })
    }

    /// Everything below is complete, and in the current map.
    #[inline]
    pub(crate) fn settled(&self) -> u64 {
        // Acquire: pairs with the Release in `settle`; the bytes are complete.
        self.settled.load(Ordering::Acquire)
    }

    /// The bytes from `position` up to `end`, all of which must be complete.
    #[inline]
    pub(crate) fn bytes_below(&self, position: u64, end: u64) -> Option<&[u8]> {
        let len = end.checked_sub(position)?;
        // SAFETY: `end` is `settled`, or the value of `complete` which the caller
        // loaded: bytes below either are never written again.
        unsafe { self.current().map.bytes(position, len) }
    }

    /// Keeps complete bytes of the current map alive beyond the journal; `None` for others.
    #[inline]
    pub(crate) fn pin(&self, bytes: &[u8], complete: u64) -> Option<PinnedBytes> {
        self.current().pin(bytes, complete)
    }

    /// As `pin`, of whatever map they are: it may have been replaced since they were handed
    /// out.
    #[cold]
    pub(crate) fn pin_older(&self, bytes: &[u8], complete: u64) -> Option<PinnedBytes> {
        let growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        let mut maps = growth.maps.iter().rev();
        maps.find_map(|mapped| mapped.pin(bytes, complete))
    }

    /// Begins to read these bytes from the file; a hint.
    pub(crate) fn will_need(&self, from: u64, to: u64) {
        self.current().map.will_need(from, to);
    }

    /// The same, for bytes that are read in a moment, and only if they are not in memory.
    pub(crate) fn fetch(&self, from: u64, to: u64) {
        self.current().map.fetch(from, to);
    }

    /// A hint for so many cache lines; any position will do.
    #[inline]
    pub(crate) fn prefetch(&self, position: u64, lines: usize) {
        const LINE_BYTES: usize = 64;
        #[cfg(target_arch = "x86_64")]
        let start = self.current().base.as_ptr().wrapping_add(position as usize);
        #[cfg(target_arch = "x86_64")]
        for line in 0..lines {
            let at = start
                .wrapping_add(line * LINE_BYTES)
                .cast_const()
                .cast::<i8>();
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (position, lines, LINE_BYTES);
    }

    #[inline]
    pub(crate) fn prepared(&self) -> u64 {
        // Acquire: pairs with the Release in `grow`; the map that holds the space is
        // visible to whoever sees the space.
        self.prepared.load(Ordering::Acquire)
    }

    /// Hands the reserved bytes at `position` to `fill`.
    #[inline]
    pub(crate) fn store<T>(
        &self,
        position: u64,
        len: u64,
        fill: impl FnOnce(&mut [u8]) -> T,
    ) -> Option<T> {
        let frame = self.current().map.reserved(position, len)?;
        // SAFETY: the bytes are mapped, and the caller reserved them, below `prepared`,
        // for itself alone.
        Some(fill(unsafe { &mut *frame }))
    }

    /// Says that everything below `position` is complete.
    #[inline]
    pub(crate) fn settle(&self, position: u64) {
        // Nobody stores behind what is prepared; and that far the current map reaches.
        let position = position.min(self.prepared());
        // Release: pairs with the Acquire in `settled`.
        self.settled.store(position, Ordering::Release);
    }

    /// Whether less than half of a large extent is left behind `end`.
    pub(crate) fn is_running_out(&self, end: u64) -> bool {
        const LARGE_BYTES: u64 = 4 << 20;
        let prepared = self.prepared();
        let extent = self.extent_bytes(prepared);
        extent >= LARGE_BYTES && prepared.saturating_sub(end) < extent / 2
    }

    /// The prepared space to be brought into memory next, if the writers at `end` have
    /// come near to it. A small journal is left alone: its pages cost little.
    pub(crate) fn to_populate(&self, end: u64) -> Option<(u64, u64)> {
        const STEP_BYTES: u64 = 2 << 20;
        const AHEAD_BYTES: u64 = 16 << 20;
        let from = self.populated.load(Ordering::Relaxed).max(end);
        let from = from.checked_next_multiple_of(STEP_BYTES)?;
        let to = from.checked_add(STEP_BYTES)?;
        let ahead = end.checked_add(AHEAD_BYTES.min(end / 2))?;
        (to <= ahead.min(self.prepared())).then_some((from, to))
    }

    pub(crate) fn set_populated(&self, to: u64) {
        // Relaxed: a hint.
        self.populated.fetch_max(to, Ordering::Relaxed);
    }

    /// The stored bytes to be written back next, if there are enough behind the writers at
    /// `end`, who store into none of them any more.
    pub(crate) fn to_write_back(&self, end: u64) -> Option<(u64, u64)> {
        const STEP_BYTES: u64 = 8 << 20;
        const BEHIND_BYTES: u64 = 2 << 20;
        let from = self.written_back.load(Ordering::Relaxed);
        let to = page_floor(end.saturating_sub(BEHIND_BYTES));
        let step = from.checked_add(STEP_BYTES)?;
        (step <= to).then_some((from, step))
    }

    pub(crate) fn set_written_back(&self, to: u64) {
        // Relaxed: a hint.
        self.written_back.fetch_max(to, Ordering::Relaxed);
    }

    fn extent_bytes(&self, prepared: u64) -> u64 {
        (prepared / 2).clamp(MIN_EXTENT_BYTES, self.extent_bytes_max)
    }

    /// Gives the newest map back.
    pub(crate) fn into_map(self) -> Map {
        self.current().map.clone()
    }

    /// Prepares no more space, and returns once none is being prepared: what a late
    /// writer prepares, or gives back on a full disk, must not meet the cut at the end
    /// or the next owner's records.
    pub(crate) fn stop(&self) {
        let mut growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        growth.stopped = true;
    }

    /// Prepares space up to at least `needed`; pages below `published` become read-only.
    /// Says whether there is as much now: after `stop`, nothing is done.
    ///
    /// # Errors
    /// When there is no room, nothing has changed.
    pub(crate) fn grow(
        &self,
        medium: &dyn Medium,
        needed: u64,
        published: u64,
    ) -> Result<bool, Error> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        if needed > POSITION_MAX {
            return Err(Error::TooLarge {
                what: "journal",
                len: needed,
                max: POSITION_MAX,
            });
        }
        let mut growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = self.prepared.load(Ordering::Relaxed);
        if needed <= prepared {
            return Ok(true);
        }
        if growth.stopped {
            return Ok(false);
        }
        let extent = self.extent_bytes(prepared);
        let wanted = page_ceil(needed.max(prepared.saturating_add(extent))).min(POSITION_MAX);
        let end = match medium.prepare(prepared, wanted) {
            Ok(()) => wanted,
            Err(_) if page_ceil(needed) < wanted => {
                let least = page_ceil(needed).min(POSITION_MAX);
                medium.prepare(prepared, least)?;
                least
            }
            Err(error) => return Err(error),
        };
        let sealed = page_floor(published);
        let protect_error = |attempt| move |e| Error::io(attempt, medium.path(), e);
        let open = protect_error("make space writable in");
        if end > self.current().map.len() {
            let wanted = end.saturating_mul(2).max(Map::RESERVATION_BYTES);
            let map = medium.map(end, wanted)?;
            if map.len() < end {
                return Err(Error::corrupted(end, "the map is too short"));
            }
            // Before it is used: others store into what is prepared already.
            map.protect(sealed, page_ceil(end), true).map_err(open)?;
            let mapped = Mapped::new(map);
            let current = ptr::from_ref(&*mapped).cast_mut();
            growth.maps.push(mapped);
            growth.sealed = sealed;
            // Release: pairs with the Acquire in `current`.
            self.current.store(current, Ordering::Release);
        } else {
            let map = &self.current().map;
            map.protect(sealed.max(growth.sealed), page_ceil(end), true)
                .map_err(open)?;
            if sealed > growth.sealed {
                map.protect(growth.sealed, sealed, false)
                    .map_err(protect_error("make space read-only in"))?;
                growth.sealed = sealed;
            }
        }
        // Release: pairs with the Acquire in `prepared`.
        self.prepared.store(end, Ordering::Release);
        Ok(true)
    }
}

/// Least space prepared at once; keeps a new journal small.
const MIN_EXTENT_BYTES: u64 = 32 << 10;
/// At least as large as any platform's page.
const PAGE_BYTES: u64 = 64 << 10;

fn page_floor(position: u64) -> u64 {
    position & !(sys::page_bytes().min(PAGE_BYTES) - 1)
}

fn page_ceil(position: u64) -> u64 {
    page_floor(position.saturating_add(sys::page_bytes().min(PAGE_BYTES) - 1))
}
