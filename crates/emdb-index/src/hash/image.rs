//! The index as bytes, and back.
//!
//! An image is position independent, written front to back, and made of
//! little-endian integers:
//!
//! | bytes    | what                                                          |
//! |----------|---------------------------------------------------------------|
//! | 4096 * n | the segments, in the order of the ranks they cover            |
//! | 8 * n    | for each: CRC32C of its bytes (4), its depth (1), zeros (3)   |
//! | 24       | magic (8), n (8), CRC32C of the n entries above (4), CRC32C of the 20 bytes before (4) |
//!
//! A segment is its 512 words, as the `word` module describes them, without
//! verified bits and tombstones.
//!
//! Opening checks the end and the directory. A segment is checked when it is
//! first looked at: until then its leaf is marked unverified.

use crate::{
    Entry, Error, FindError, Location,
    primitive::{Ordering, lock},
};

use super::{
    HashIndex,
    arena::{Arena, ImageBytes},
    directory::{DEPTH_MAX, Directory, Leaf},
    growth::{SKEW_MAX, Shape},
    segment::{Contents, WORDS},
    word::Word,
};

const MAGIC: [u8; 8] = *b"emdbidx1";
const SEGMENT_BYTES: usize = WORDS * size_of::<u64>();
const ENTRY_BYTES: usize = 8;
const END_BYTES: usize = 24;

/// Memory that holds an image and can be written to, privately.
///
/// [`HashIndex::from_image`] keeps it as long as the index lives.
pub trait ImageMemory: Send + Sync {
    /// All of the memory. Called once.
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl ImageMemory for Vec<u8> {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl ImageMemory for memmap2::MmapMut {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl HashIndex {
    /// Writes an image of the index to `sink`, front to back, and returns its
    /// length in bytes.
    ///
    /// `resolve` says which location the image shall hold in place of an entry,
    /// or `None` to leave it out. It must leave out tombstones or give them the
    /// location of a record that is none, since the image has no flags.
    ///
    /// Writers may go on; each stripe is locked while it is copied, and not
    /// while `resolve` and `sink` run. The calling thread must hold no guard. If the
    /// contents are [exchanged](Self::exchange) meanwhile, the image is of no use.
    ///
    /// # Errors
    /// What `resolve` and `sink` return; [`Error::Damaged`] if the index itself
    /// came from an image and a segment of that is damaged.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use emdb_index::{HashIndex, Location};
    ///
    /// let index = HashIndex::new();
    /// let mut image = Vec::new();
    /// let len = index.write_image::<Infallible>(
    ///     &mut |entry| Ok((!entry.tombstone).then_some(entry.location)),
    ///     &mut |bytes| {
    ///         image.extend_from_slice(bytes);
    ///         Ok(())
    ///     },
    /// )?;
    /// assert_eq!(len, image.len() as u64);
    /// let index = HashIndex::from_image(Box::new(image), 0, len as usize, Location::MAX)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_image<E>(
        &self,
        resolve: &mut dyn FnMut(Entry) -> Result<Option<Location>, E>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, FindError<E>> {
        let _walk = Walk::begin(self);
        let mut directory = Vec::new();
        let mut buffer = Vec::with_capacity(SEGMENTS_AT_ONCE * SEGMENT_BYTES);
        let mut len = 0_u64;
        let mut next = Some(0_u64);
        while let Some(rank) = next {
            // Segments are split meanwhile, but not merged, so this is where one begins.
            let (leaf, contents) = self.copy_locked(rank)?;
            next = (rank | leaf.span()).checked_add(1);
            let contents = contents.map(|_, word| {
                let location = word.entry().map(&mut *resolve).transpose()?.flatten();
                Ok(location.map(|location| word.for_image(location)))
            });
            let bytes = contents.map_err(FindError::Check)?.to_bytes();
            directory.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            directory.extend_from_slice(&[leaf.depth() as u8, 0, 0, 0]);
            buffer.extend_from_slice(&bytes);
            if buffer.len() == SEGMENTS_AT_ONCE * SEGMENT_BYTES || next.is_none() {
                sink(&buffer).map_err(FindError::Check)?;
                len += buffer.len() as u64;
                buffer.clear();
            }
        }
        let end = End {
            count: (directory.len() / ENTRY_BYTES) as u64,
            checksum: crc32c::crc32c(&directory),
        };
        directory.extend_from_slice(&end.encode());
        sink(&directory).map_err(FindError::Check)?;
        Ok(len + directory.len() as u64)
    }

    /// Makes an index of an image, using its memory in place where it can:
    /// `len` bytes from `offset` on must be exactly what
    /// [`write_image`](Self::write_image) wrote.
    ///
    /// Reads the image's directory only, not its entries: these are checked
    /// when they are first looked at. The memory is used in place if the image
    /// begins on a 4096-byte boundary, and copied otherwise.
    ///
    /// # Errors
    /// [`Error::Damaged`] if this is not an image.
    pub fn from_image(
        memory: Box<dyn ImageMemory>,
        offset: usize,
        len: usize,
        max_position: u64,
    ) -> Result<Self, Error> {
        let image = ImageBytes::new(memory);
        let layout = Layout::decode(image.get(), offset, len)?;
        let count = layout.depths.len() as u32;
        let arena = Arena::new();
        let mut leaves = Vec::with_capacity(layout.depths.len());
        let ids: Vec<_> = match arena.take_image(image, offset, count) {
            Ok(id) => (0..count).map(id).collect(),
            Err(image) => {
                let segments = image.get().get(offset..).unwrap_or_default();
                let mut ids = Vec::with_capacity(count as usize);
                for bytes in segments
                    .as_chunks::<SEGMENT_BYTES>()
                    .0
                    .iter()
                    .take(count as usize)
                {
                    let id = arena.take()?;
                    arena.segment(id).fill(&Contents::from_bytes(bytes));
                    ids.push(id);
                }
                ids
            }
        };
        let mut shape = Shape::new();
        for (id, (depth, checksum)) in ids.into_iter().zip(layout.depths) {
            let meta = arena.meta(id);
            meta.checksum.store(checksum, Ordering::Relaxed);
            leaves.push(Leaf::new(id, depth, meta.version.load(Ordering::Relaxed)).unverified());
            shape.add(depth);
        }
        let (mut at, mut start) = (0, 0);
        let index = Self::of(arena, shape, |rank| {
            if leaves[at].start(rank) != start {
                (at, start) = (at + 1, rank);
            }
            leaves[at]
        });
        lock(&index.structure).image_end = max_position;
        Ok(index)
    }

    /// Checks the segment that covers a rank, unless it is checked already.
    #[cold]
    #[inline(never)]
    pub(super) fn verify(&self, directory: &Directory, rank: u64) -> Result<Leaf, Error> {
        let structure = lock(&self.structure);
        let leaf = directory.leaf(rank);
        if !leaf.is_unverified() {
            return Ok(leaf);
        }
        let meta = self.arena.meta(leaf.id());
        let contents = self.arena.segment(leaf.id()).copy();
        let is_sound = contents
            .0
            .as_flattened()
            .iter()
            .all(|word| word.is_sound(structure.image_end));
        let checksum = crc32c::crc32c(&contents.to_bytes());
        if checksum != meta.checksum.load(Ordering::Relaxed) || !is_sound {
            return Err(Error::Damaged);
        }
        let (live, deleted) = contents.count();
        meta.set(live, deleted);
        directory.set(rank, leaf.verified());
        Ok(leaf.verified())
    }

    /// A copy of the segment that covers a rank, at one moment.
    fn copy_locked(&self, rank: u64) -> Result<(Leaf, Contents), Error> {
        loop {
            let leaf = self.verified_leaf(rank)?;
            let meta = self.arena.meta(leaf.id());
            meta.lock.lock(&self.parking);
            let is_current = self.directories.root().leaf(rank) == leaf;
            let contents = is_current.then(|| self.arena.segment(leaf.id()).copy());
            meta.lock.unlock(&self.parking);
            if let Some(contents) = contents {
                return Ok((leaf, contents));
            }
        }
    }
}

/// How many segments go to the sink in one call.
const SEGMENTS_AT_ONCE: usize = 16;

/// Keeps segments from being merged.
struct Walk<'a>(&'a HashIndex);

impl<'a> Walk<'a> {
    fn begin(index: &'a HashIndex) -> Self {
        lock(&index.structure).walks += 1;
        Self(index)
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        lock(&self.0.structure).walks -= 1;
    }
}

/// The last bytes of an image.
struct End {
    count: u64,
    checksum: u32,
}

impl End {
    fn encode(&self) -> [u8; END_BYTES] {
        let mut bytes = [0; END_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..20]);
        bytes[20..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; END_BYTES]) -> Option<Self> {
        let (count, _) = bytes[8..].split_first_chunk()?;
        let (checksum, _) = bytes[16..].split_first_chunk()?;
        let end = Self {
            count: u64::from_le_bytes(*count),
            checksum: u32::from_le_bytes(*checksum),
        };
        (end.encode() == bytes).then_some(end)
    }
}

/// What the directory of an image says.
struct Layout {
    /// Depth and checksum of each segment, in the order of their ranks. The
    /// segments cover every rank once.
    depths: Vec<(u32, u32)>,
}

impl Layout {
    fn decode(bytes: &[u8], offset: usize, len: usize) -> Result<Self, Error> {
        let layout = || {
            let image = bytes.get(offset..offset.checked_add(len)?)?;
            let (image, end) = image.split_last_chunk()?;
            let end = End::decode(*end)?;
            let count = usize::try_from(end.count).ok()?;
            let split = count.checked_mul(SEGMENT_BYTES)?;
            let directory = image.get(split..)?;
            if directory.len() != count.checked_mul(ENTRY_BYTES)?
                || u32::try_from(count).is_err()
                || crc32c::crc32c(directory) != end.checksum
            {
                return None;
            }
            let (entries, _) = directory.as_chunks::<ENTRY_BYTES>();
            let depths = entries.iter().map(|[a, b, c, d, depth, zeros @ ..]| {
                (*zeros == [0; 3])
                    .then_some((u32::from(*depth), u32::from_le_bytes([*a, *b, *c, *d])))
            });
            let depths: Vec<_> = depths.collect::<Option<_>>()?;
            covers_all(&depths).then_some(Self { depths })
        };
        layout().ok_or(Error::Damaged)
    }
}

/// Whether the segments cover every rank once, and the directory for them is
/// not out of proportion.
fn covers_all(depths: &[(u32, u32)]) -> bool {
    const ALL: u64 = 1 << DEPTH_MAX;
    let mut start = 0_u64;
    for (depth, _) in depths {
        if *depth > DEPTH_MAX || start >= ALL {
            return false;
        }
        let span = ALL >> depth;
        if !start.is_multiple_of(span) {
            return false;
        }
        start += span;
    }
    let bits = depths.iter().map(|(depth, _)| *depth).max().unwrap_or(0);
    start == ALL && 1 << bits <= SKEW_MAX * depths.len() as u64
}

impl Contents {
    fn to_bytes(&self) -> [u8; SEGMENT_BYTES] {
        let mut bytes = [0; SEGMENT_BYTES];
        let (places, _) = bytes.as_chunks_mut();
        for (place, word) in places.iter_mut().zip(self.0.as_flattened()) {
            *place = word.0.to_le_bytes();
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; SEGMENT_BYTES]) -> Self {
        let mut contents = Self::new();
        let (places, _) = bytes.as_chunks();
        for (place, word) in places.iter().zip(contents.0.as_flattened_mut()) {
            *word = Word(u64::from_le_bytes(*place));
        }
        contents
    }
}
