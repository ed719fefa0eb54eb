//! The memory of segments: handed out by id, used again, never unmapped while
//! the index lives.
//!
//! Chunk k holds 2^(k+1) segments, so that a small index is small and the
//! table of chunks stays short. Memory of larger chunks is anonymous and takes
//! no room until touched; the last chunk is the memory of an image.
//!
//! Invariants: a [`SegmentId`] is made only here, after its chunk is in the
//! table; a chunk in the table stays there, at the same address, until the
//! arena is dropped.

use std::ptr::NonNull;
#[cfg(not(any(loom, miri)))]
use std::sync::Arc;

#[cfg(not(any(loom, miri)))]
use memmap2::MmapMut;

use crate::{
    Error,
    primitive::{AtomicPtr, Mutex, Ordering, lock},
};

use super::{
    ImageMemory,
    segment::{Meta, Segment},
};

/// Chunk k holds the ids with `id + FIRST` in `FIRST << k .. FIRST << k + 1`.
const FIRST: u32 = 2;
const CHUNKS: usize = 31;
/// Rows of the tables of chunks: chunk k is in the row of the highest bit of its ids + FIRST.
const ROWS: usize = u32::BITS as usize;
const IMAGE_CHUNK: usize = CHUNKS - 1;
const IMAGE_ID: u32 = (FIRST << IMAGE_CHUNK) - FIRST;
/// How many unused segments may keep their memory, whatever the size.
const UNUSED_MAX: usize = 64;
/// Segments in a huge page.
const BLOCK: u32 = (2 << 20) / size_of::<Segment>() as u32;
/// From so many segments on, blocks are made of huge pages beforehand: what
/// the last one wastes is then small against the whole.
const HUGE_FROM: u32 = 12 * BLOCK;
/// How many segments before the end of a block a thread makes the memory of the next one:
/// the kernel zeroes it for milliseconds, which no writer should wait for.
const AHEAD: u32 = BLOCK / 4;

/// Names a segment of the arena that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentId(u32);

impl SegmentId {
    /// For [`super::directory::Leaf`] alone, which holds what `get` gave.
    #[inline]
    pub(super) fn of_leaf(id: u32) -> Self {
        Self(id)
    }

    #[inline]
    pub(super) fn get(self) -> u32 {
        self.0
    }

    /// The chunk, and the segment in it.
    fn place(self) -> (usize, usize) {
        let chunk = self.row() - FIRST.ilog2() as usize;
        (chunk, self.in_row() - ((FIRST as usize) << chunk))
    }

    /// The chunk's row in the tables.
    #[inline]
    fn row(self) -> usize {
        // The lowest bit is never the highest, as FIRST is 2; so this cannot be 0.
        ((self.0 + FIRST) | 1).ilog2() as usize
    }

    /// The segment, counted from where the row's pointers begin.
    #[inline]
    fn in_row(self) -> usize {
        (self.0 + FIRST) as usize
    }
}

/// All segments of an index.
#[derive(Debug)]
pub(super) struct Arena {
    /// For each row where its chunk would begin if ids + FIRST were counted from 0, so that
    /// finding a segment takes no subtraction.
    segments: [AtomicPtr<Segment>; ROWS],
    metas: [AtomicPtr<Meta>; ROWS],
    stock: Mutex<Stock>,
}

#[derive(Debug)]
struct Stock {
    chunks: [Option<Chunk>; CHUNKS],
    /// The first id never handed out.
    next: u32,
    /// The end of the last block whose memory was made ahead.
    made: u32,
    /// Segments in no directory in use, with memory.
    unused: Vec<SegmentId>,
    /// Segments in no directory in use, whose memory was given back.
    released: Vec<SegmentId>,
    image: u32,
}

/// Keeps a chunk's memory.
#[derive(Debug)]
struct Chunk {
    #[cfg_attr(
        any(loom, miri, not(unix)),
        expect(dead_code, reason = "keeps the memory")
    )]
    memory: Memory,
    metas: Slice<Meta>,
}

#[derive(Debug)]
enum Memory {
    Heap(#[expect(dead_code, reason = "keeps the memory")] Slice<Segment>),
    #[cfg(not(any(loom, miri)))]
    Map(#[cfg_attr(not(unix), expect(dead_code, reason = "keeps the memory"))] Arc<MmapMut>),
    Image(#[expect(dead_code, reason = "keeps the memory")] Image),
}

/// A boxed slice that does not claim to be the only way to its elements.
#[derive(Debug)]
struct Slice<T>(NonNull<[T]>);

// SAFETY: it owns its elements, which are `Send` and `Sync`.
unsafe impl<T: Send + Sync> Send for Slice<T> {}

impl<T: Default> Slice<T> {
    fn new(len: usize) -> Self {
        let boxed: Box<[T]> = (0..len).map(|_| T::default()).collect();
        Self(NonNull::from(Box::leak(boxed)))
    }

    fn start(&self) -> *mut T {
        self.0.as_ptr().cast()
    }
}

impl<T> Drop for Slice<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::leak` in `new`, and is freed
        // here only.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The memory of an image, likewise.
struct Image(NonNull<dyn ImageMemory>);

// SAFETY: it owns an `ImageMemory`, which is `Send` and `Sync`.
unsafe impl Send for Image {}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Image")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::leak` in `ImageBytes::new`, and
        // is freed here only.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The bytes of an image, before its segments are taken over.
pub(super) struct ImageBytes {
    owner: Image,
    bytes: NonNull<[u8]>,
}

impl ImageBytes {
    pub(super) fn new(memory: Box<dyn ImageMemory>) -> Self {
        let owner = Image(NonNull::from(Box::leak(memory)));
        // SAFETY: the pointer was made from a box in the line above, and
        // nothing else refers to the memory.
        let memory = unsafe { &mut *owner.0.as_ptr() };
        let bytes = NonNull::from(memory.bytes_mut());
        Self { owner, bytes }
    }

    pub(super) fn get(&self) -> &[u8] {
        // SAFETY: `bytes_mut` gave exclusive access to these bytes for as long
        // as the owner is not used; the owner is in `self`, used by nobody.
        unsafe { self.bytes.as_ref() }
    }
}

impl Arena {
    pub(super) fn new() -> Self {
        Self {
            segments: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
            metas: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
            stock: Mutex::new(Stock {
                chunks: [const { None }; CHUNKS],
                next: 0,
                made: 0,
                unused: Vec::new(),
                released: Vec::new(),
                image: 0,
            }),
        }
    }

    #[inline]
    pub(super) fn segment(&self, id: SegmentId) -> &Segment {
        // Acquire: pairs with the Release in `add_chunk`.
        let row = self.segments[id.row()].load(Ordering::Acquire);
        let segment = row.wrapping_add(id.in_row());
        // SAFETY: ids are made only after their chunk is in the table. The row
        // begins the chunk's first id before the chunk, so this is one of its
        // segments: a row's ids are as many as the chunk has, and `take_image`
        // made ids only below `image`. The segment is valid memory, aligned,
        // made of atomics which any bytes are valid for, and not freed before
        // `self`.
        unsafe { &*segment }
    }

    #[inline]
    pub(super) fn meta(&self, id: SegmentId) -> &Meta {
        // Acquire: pairs with the Release in `add_chunk`.
        let row = self.metas[id.row()].load(Ordering::Acquire);
        let meta = row.wrapping_add(id.in_row());
        // SAFETY: as in `segment`; every chunk has a `Meta` for each segment,
        // made by `Slice::new` and not freed before `self`.
        unsafe { &*meta }
    }

    /// Hands out a segment with any contents that no directory in use names.
    /// Its version is one it never had, short of 2^25 uses.
    pub(super) fn take(&self) -> Result<SegmentId, Error> {
        let id = {
            let mut stock = lock(&self.stock);
            match stock.unused.pop().or_else(|| stock.released.pop()) {
                Some(id) => id,
                None => self.take_new(&mut stock)?,
            }
        };
        let version = &self.meta(id).version;
        version.store(
            version.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
        Ok(id)
    }

    /// As [`Self::take`], for callers that cannot go on without: ends the
    /// process when there is no memory, as a `Vec` would.
    pub(super) fn take_or_abort(&self) -> SegmentId {
        self.take().unwrap_or_else(|_| {
            std::alloc::handle_alloc_error(std::alloc::Layout::new::<Segment>())
        })
    }

    /// Takes back segments that no directory in use names. Readers may still
    /// look at them.
    pub(super) fn give_back(&self, ids: impl IntoIterator<Item = SegmentId>) {
        let mut stock = lock(&self.stock);
        stock.unused.extend(ids);
        if stock.unused.len() > UNUSED_MAX.max(stock.touched() / 32) {
            stock.release();
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let stock = lock(&self.stock);
        let segments = stock.touched() as u64;
        let metas: usize = stock
            .chunks
            .iter()
            .flatten()
            .map(|chunk| chunk.metas.0.len() * size_of::<Meta>())
            .sum();
        let lists = stock.unused.capacity() + stock.released.capacity();
        segments * size_of::<Segment>() as u64 + (metas + lists * size_of::<SegmentId>()) as u64
    }

    /// Takes over `count` segments that lie at `offset` in the image.
    /// Gives back the image if they do not lie on a page's boundary.
    pub(super) fn take_image(
        &self,
        image: ImageBytes,
        offset: usize,
        count: u32,
    ) -> Result<impl Fn(u32) -> SegmentId + use<>, ImageBytes> {
        let len = count as usize * size_of::<Segment>();
        let fits = offset
            .checked_add(len)
            .is_some_and(|end| end <= image.bytes.len());
        let start = image.bytes.as_ptr().cast::<u8>().wrapping_add(offset);
        if !fits || start.addr() % size_of::<Segment>() != 0 || count >= FIRST << 29 {
            return Err(image);
        }
        let mut stock = lock(&self.stock);
        stock.image = count;
        self.add_chunk(
            &mut stock,
            IMAGE_CHUNK,
            start.cast(),
            Memory::Image(image.owner),
            count as usize,
        );
        Ok(move |at: u32| SegmentId(IMAGE_ID + at.min(count.saturating_sub(1))))
    }

    fn take_new(&self, stock: &mut Stock) -> Result<SegmentId, Error> {
        let id = SegmentId(stock.next);
        self.provide_chunk(stock, id)?;
        stock.next += 1;
        stock.prefer_huge_pages(id);
        let ahead = SegmentId(id.0 + AHEAD);
        let (_, at) = ahead.place();
        if id.0 >= HUGE_FROM
            && at.is_multiple_of(BLOCK as usize)
            // Who needs the chunk meets the error.
            && self.provide_chunk(stock, ahead).is_ok()
        {
            stock.make_ahead(ahead);
        }
        Ok(id)
    }

    fn provide_chunk(&self, stock: &mut Stock, id: SegmentId) -> Result<(), Error> {
        let (chunk, _) = id.place();
        if chunk >= IMAGE_CHUNK {
            return Err(Error::Full);
        }
        if stock.chunks[chunk].is_none() {
            let count = (FIRST as usize) << chunk;
            let (start, memory) = allocate(chunk, count)?;
            self.add_chunk(stock, chunk, start, memory, count);
        }
        Ok(())
    }

    fn add_chunk(
        &self,
        stock: &mut Stock,
        at: usize,
        start: *mut Segment,
        memory: Memory,
        count: usize,
    ) {
        let metas = Slice::<Meta>::new(count);
        let first = (FIRST as usize) << at;
        let row = at + FIRST.ilog2() as usize;
        // Release: pairs with the Acquire in `segment` and `meta`.
        self.segments[row].store(start.wrapping_sub(first), Ordering::Release);
        self.metas[row].store(metas.start().wrapping_sub(first), Ordering::Release);
        stock.chunks[at] = Some(Chunk { memory, metas });
    }
}

/// Memory for a chunk's segments; the first chunk comes from the heap, which
/// cannot fail short of ending the process.
#[cfg(not(any(loom, miri)))]
fn allocate(chunk: usize, count: usize) -> Result<(*mut Segment, Memory), Error> {
    if chunk == 0 {
        let segments = Slice::new(count);
        return Ok((segments.start(), Memory::Heap(segments)));
    }
    let mut map = memmap2::MmapOptions::new()
        .len(count * size_of::<Segment>())
        .no_reserve_swap()
        .map_anon()
        .map_err(|_| Error::Full)?;
    Ok((map.as_mut_ptr().cast(), Memory::Map(Arc::new(map))))
}

#[cfg(any(loom, miri))]
fn allocate(_: usize, count: usize) -> Result<(*mut Segment, Memory), Error> {
    let segments = Slice::new(count);
    Ok((segments.start(), Memory::Heap(segments)))
}

impl Stock {
    /// How many segments have memory.
    fn touched(&self) -> usize {
        let mut end = self.next;
        if end > HUGE_FROM {
            let (chunk, at) = SegmentId(end).place();
            end += at.next_multiple_of(BLOCK as usize) as u32 - at as u32;
            debug_assert!(chunk < IMAGE_CHUNK);
        }
        (end.max(self.made) + self.image) as usize - self.released.len()
    }

    /// Random access to many small pages costs more for finding the pages than
    /// for the memory itself. But a huge page takes all of its memory at the
    /// first touch, so while the index is small, only blocks in full use are
    /// left to the system to be made huge.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    fn prefer_huge_pages(&self, new: SegmentId) {
        let (_, at) = new.place();
        let is_large = new.0 >= HUGE_FROM;
        let block = match at.is_multiple_of(BLOCK as usize) {
            true if is_large => at,
            true if at > 0 => at - BLOCK as usize,
            _ => return,
        };
        if let Some((map, offset, len)) = self.block(new, block) {
            // A wish: without huge pages all works as well.
            let _ = map.advise_range(memmap2::Advice::HugePage, offset, len);
        }
    }

    #[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
    fn prefer_huge_pages(&self, _: SegmentId) {}

    /// Has a thread make the memory of the block that begins with this segment. It lives
    /// for some milliseconds, and begins once in so many new segments that there are never
    /// many of them. It keeps the chunk, but nothing waits for it.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    #[cold]
    fn make_ahead(&mut self, first: SegmentId) {
        use memmap2::Advice::{HugePage, PopulateWrite};
        let (_, at) = first.place();
        let Some((map, offset, len)) = self.block(first, at) else {
            return;
        };
        let map = Arc::clone(map);
        let make = move || {
            // Wishes, too: what is not made here is made when it is touched. Both leave
            // what was stored there meanwhile as it is.
            let _ = map.advise_range(HugePage, offset, len);
            let _ = map.advise_range(PopulateWrite, offset, len);
        };
        let builder = std::thread::Builder::new().name("emdb-memory".to_owned());
        if builder.spawn(make).is_ok() {
            self.made = first.0 + BLOCK;
        }
    }

    #[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
    fn make_ahead(&mut self, _: SegmentId) {}

    /// The block that begins at `at` in the chunk of this segment: the chunk's map, the
    /// offset in it, and the length.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    fn block(&self, id: SegmentId, at: usize) -> Option<(&Arc<MmapMut>, usize, usize)> {
        let (chunk, _) = id.place();
        let Some(Chunk {
            memory: Memory::Map(map),
            ..
        }) = &self.chunks[chunk]
        else {
            return None;
        };
        let offset = at * size_of::<Segment>();
        let len = BLOCK as usize * size_of::<Segment>();
        (offset + len <= map.len()).then_some((map, offset, len))
    }

    /// Gives the memory of most unused segments back to the system.
    #[cold]
    fn release(&mut self) {
        self.unused.sort_unstable();
        let mut kept = Vec::new();
        for id in std::mem::take(&mut self.unused) {
            match kept.len() < UNUSED_MAX / 2 || !self.release_one(id) {
                true => kept.push(id),
                false => self.released.push(id),
            }
        }
        self.unused = kept;
    }

    #[cfg(all(unix, not(any(loom, miri))))]
    fn release_one(&self, id: SegmentId) -> bool {
        let (chunk, at) = id.place();
        // Only anonymous memory: that of an image would get its first contents
        // back, entries that are no longer true, and a reader may look.
        let Some(Chunk {
            memory: Memory::Map(map),
            ..
        }) = &self.chunks[chunk]
        else {
            return false;
        };
        let (offset, len) = (at * size_of::<Segment>(), size_of::<Segment>());
        // SAFETY: the range is one segment's, so it is inside the map; nobody
        // refers to it except readers through atomics, and to them the zeros,
        // or whatever else appears, are words as any other: EMPTY.
        let advised =
            unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len) };
        advised.is_ok()
    }

    #[cfg(not(all(unix, not(any(loom, miri)))))]
    fn release_one(&self, _: SegmentId) -> bool {
        false
    }
}

// Miri would take hours for so much memory, and none of it is a map there.
#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::{AHEAD, Arena, BLOCK, HUGE_FROM, Segment};

    #[test]
    fn memory_is_made_ahead_and_counted_only_in_large_indexes() {
        let arena = Arena::new();
        let mut spare_max = [0, 0];
        for taken in 1..=3 * HUGE_FROM {
            arena.take().expect("there is memory");
            // The heads of segments count, too, but take less than a fiftieth.
            let counted = arena.bytes() / size_of::<Segment>() as u64;
            let spare = counted.saturating_sub(u64::from(taken + taken / 50));
            let is_large = usize::from(taken > HUGE_FROM - AHEAD);
            spare_max[is_large] = spare.max(spare_max[is_large]);
        }
        assert_eq!(spare_max[0], 0);
        // The rest of a block, or of its last quarter and all of the next.
        assert!(spare_max[1] <= u64::from(BLOCK + AHEAD), "{spare_max:?}");
        if cfg!(target_os = "linux") {
            assert!(spare_max[1] > u64::from(BLOCK), "{spare_max:?}");
        }
    }

    #[test]
    fn an_index_may_go_while_its_memory_is_made() {
        for _ in 0..50 {
            let arena = Arena::new();
            for _ in 0..HUGE_FROM + 2 * BLOCK {
                arena.take().expect("there is memory");
            }
        }
    }
}
