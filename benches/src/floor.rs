//! The hand-written loops and bare system calls that the engine is compared with.

use std::fs::File;
use std::io;
#[cfg(unix)]
use std::os::unix::fs::FileExt;
#[cfg(windows)]
use std::os::windows::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use memmap2::{Mmap, MmapMut};
use polymur_hash::PolymurHash;

use crate::{KEY_BYTES, Records, VALUE_BYTES};

/// Bytes of a frame of one of our records.
const FRAME_BYTES: usize = 8 + KEY_BYTES + VALUE_BYTES;

/// Stores `count` frames into the map of a freshly preallocated file, checksummed.
///
/// # Errors
/// When the file cannot be prepared.
pub fn append_floor(path: &Path, records: Records, count: u64) -> io::Result<Duration> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let bytes = count * FRAME_BYTES as u64;
    allocate(&file, bytes)?;
    // SAFETY: nobody else has the file.
    let mut map = unsafe { MmapMut::map_mut(&file)? };
    let started = Instant::now();
    for (number, frame) in (0..count).zip(map.chunks_exact_mut(FRAME_BYTES)) {
        fill(frame, &records.key(number), &records.value(number));
    }
    Ok(started.elapsed())
}

fn fill(frame: &mut [u8], key: &[u8; KEY_BYTES], value: &[u8; VALUE_BYTES]) {
    frame[4] = 1;
    frame[5] = KEY_BYTES as u8;
    frame[6] = VALUE_BYTES as u8;
    frame[7] = 1;
    frame[8..8 + KEY_BYTES].copy_from_slice(key);
    frame[8 + KEY_BYTES..].copy_from_slice(value);
    let crc = crc32c::crc32c(&frame[4..]);
    frame[..4].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as i64) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)
}

/// A table like the engine's, but plain: 8-byte entries in cache-line buckets over
/// frames in a mapped file, without concurrency, versions or bounds to respect.
pub struct HandTable {
    buckets: Vec<[u64; 8]>,
    mask: u64,
    map: Mmap,
    hasher: PolymurHash,
}

impl HandTable {
    /// Builds the file and the table.
    ///
    /// # Errors
    /// When the file cannot be prepared.
    pub fn build(path: &Path, records: Records, count: u64) -> io::Result<Self> {
        append_floor(path, records, count)?;
        let file = File::open(path)?;
        // SAFETY: nobody writes the file any more.
        let map = unsafe { Mmap::map(&file)? };
        let hasher = PolymurHash::new(1);
        let slots = count * 4 / 3;
        let buckets = (slots / 8).next_power_of_two().max(2);
        let mut table = Self {
            buckets: vec![[0; 8]; buckets as usize],
            mask: buckets - 1,
            map,
            hasher,
        };
        for number in 0..count {
            let at = number * FRAME_BYTES as u64;
            let hash = table.hasher.hash(records.key(number));
            table.insert(hash, at);
        }
        Ok(table)
    }

    fn insert(&mut self, hash: u64, at: u64) {
        let entry = (hash >> 48) << 48 | (at + 1);
        let mut bucket = hash & self.mask;
        loop {
            let slots = &mut self.buckets[bucket as usize];
            if let Some(slot) = slots.iter_mut().find(|slot| **slot == 0) {
                *slot = entry;
                return;
            }
            bucket = (bucket + 1) & self.mask;
        }
    }

    /// Finds a key's value; computes the record's checksum if `verify`.
    #[inline]
    pub fn get(&self, key: &[u8], verify: bool) -> Option<&[u8]> {
        let hash = self.hasher.hash(key);
        let tag = hash >> 48;
        let mut bucket = hash & self.mask;
        loop {
            let slots = self.buckets.get(bucket as usize)?;
            for slot in slots {
                if *slot >> 48 == tag && *slot != 0 {
                    let at = (*slot & ((1 << 48) - 1)) as usize - 1;
                    let frame = self.map.get(at..at + FRAME_BYTES)?;
                    if &frame[8..8 + KEY_BYTES] == key {
                        if verify && crc32c::crc32c(&frame[4..]).to_le_bytes() != frame[..4] {
                            return None;
                        }
                        return Some(&frame[8 + KEY_BYTES..]);
                    }
                }
            }
            if slots.contains(&0) {
                return None;
            }
            bucket = (bucket + 1) & self.mask;
        }
    }
}

/// A preallocated file that is written and synced by bare system calls.
pub struct BareFile {
    file: File,
    at: u64,
}

impl BareFile {
    /// Preallocates 64 MiB.
    ///
    /// # Errors
    /// When there is no room.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        allocate(&file, 64 << 20)?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    /// Writes one frame behind the last and syncs it.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn write_and_sync(
        &mut self,
        key: &[u8; KEY_BYTES],
        value: &[u8; VALUE_BYTES],
    ) -> io::Result<()> {
        let mut frame = [0; FRAME_BYTES];
        fill(&mut frame, key, value);
        #[cfg(unix)]
        self.file.write_all_at(&frame, self.at)?;
        #[cfg(windows)]
        assert_eq!(self.file.seek_write(&frame, self.at)?, frame.len());
        self.at += FRAME_BYTES as u64;
        self.file.sync_data()
    }
}
