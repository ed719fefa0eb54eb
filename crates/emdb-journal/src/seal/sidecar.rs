//! The sealed sidecar: parts of 1 MiB, each sealed, behind a salt.
//!
//! | bytes | field |
//! |-------|-------|
//! | 8 | magic |
//! | 16 | salt |
//! | | the parts: up to 1 MiB sealed (only the last may be shorter), then 16 bytes of tag |
//!
//! The nonce of a part is its number. Whether it is the last one is authenticated with it, in
//! one byte. The parts together hold the epochs of the journal (a count of 8 bytes; for each,
//! its position of 8 bytes and its salt), zeros up to a multiple of 4,096, then the contents.

use std::io::{self, Write};

use emdb_crypto::{Epoch, EpochKey, Purpose, SALT_LEN, TAG_LEN, random_salt};
use memmap2::MmapMut;

use super::Seal;
use crate::medium::SidecarMemory;

const MAGIC: [u8; 8] = *b"emdbcs\r\n";
const FRONT_LEN: usize = MAGIC.len() + SALT_LEN;
const PART_LEN: usize = 1 << 20;
const SEALED_PART_LEN: usize = PART_LEN + TAG_LEN;
const ALIGN: usize = 4096;
const EPOCH_LEN: usize = 8 + SALT_LEN;

impl Seal {
    fn sidecar_key(&self, salt: [u8; SALT_LEN]) -> EpochKey {
        let epoch = Epoch {
            cipher: self.cipher,
            purpose: Purpose::Checkpoint,
            salt,
            first_nonce: 0,
        };
        self.master.epoch(&epoch, &self.context)
    }

    /// Has `write` write a sidecar, and seals it on the way; nothing stays nothing.
    /// `published` is where the journal ends, at least.
    pub(crate) fn write_sidecar(
        &self,
        published: u64,
        out: &mut dyn Write,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut parts = Parts {
            seal: self,
            published,
            out,
            key: None,
            number: 0,
            part: Vec::new(),
        };
        write(&mut parts)?;
        parts.finish()
    }

    /// The epochs whose frames have been published, as the sidecar tells them.
    fn encode_epochs(&self, published: u64) -> Vec<u8> {
        let announced = || self.epochs.iter().filter(|(_, at)| at.from < published);
        let count = announced().count() as u64;
        let mut bytes = count.to_le_bytes().to_vec();
        for (_, epoch) in announced() {
            bytes.extend_from_slice(&epoch.from.to_le_bytes());
            bytes.extend_from_slice(&epoch.salt);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes
    }

    /// Opens a sealed sidecar; `None` if it is none, or damaged, or another's.
    pub(crate) fn open_sidecar(
        &self,
        memory: &mut dyn SidecarMemory,
    ) -> Option<Box<dyn SidecarMemory>> {
        let (front, sealed) = memory.bytes_mut().split_at_checked(FRONT_LEN)?;
        let (magic, salt) = front.split_first_chunk()?;
        if *magic != MAGIC || sealed.is_empty() {
            return None;
        }
        let key = self.sidecar_key(*salt.first_chunk()?);
        let mut opened = open_parts(&key, sealed)?;
        let (epochs, start) = decode_epochs(&opened)?;
        // Another checkpoint that is read later, of this handle, knows the same or more.
        let _ = self.from_sidecar.set(epochs);
        // The contents keep their alignment, and the map its start.
        opened.get_mut(start..)?;
        Some(Box::new(Contents { opened, start }))
    }
}

/// Seals what is written, part by part.
struct Parts<'a> {
    seal: &'a Seal,
    published: u64,
    out: &'a mut dyn Write,
    key: Option<EpochKey>,
    number: u64,
    part: Vec<u8>,
}

impl Parts<'_> {
    fn begin(&mut self) -> io::Result<()> {
        let salt = random_salt().map_err(io::Error::other)?;
        self.out.write_all(&MAGIC)?;
        self.out.write_all(&salt)?;
        self.key = Some(self.seal.sidecar_key(salt));
        let epochs = self.seal.encode_epochs(self.published);
        self.put(&epochs)
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.part.len() == PART_LEN {
                self.seal_part(false)?;
            }
            let room = PART_LEN.saturating_sub(self.part.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.part.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn seal_part(&mut self, last: bool) -> io::Result<()> {
        // Taken before anything can fail: sealed once more, it would be as it was.
        let mut part = std::mem::take(&mut self.part);
        let number = self.number;
        self.number += 1;
        if let Some(key) = &self.key {
            let tag = key
                .seal_in_place(number, &[u8::from(last)], &mut part)
                .map_err(io::Error::other)?;
            self.out.write_all(&part)?;
            self.out.write_all(&tag)?;
        }
        part.clear();
        self.part = part;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if self.key.is_some() {
            self.seal_part(true)?;
        }
        Ok(())
    }
}

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.key.is_none() && !bytes.is_empty() {
            self.begin()?;
        }
        self.put(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // What is not a whole part yet can go only at the end.
        self.out.flush()
    }
}

/// What a sealed sidecar holds, opened.
struct Contents {
    opened: MmapMut,
    start: usize,
}

impl SidecarMemory for Contents {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.opened.get_mut(self.start..).unwrap_or_default()
    }
}

/// Opens all parts, on as many threads as there are processors.
fn open_parts(key: &EpochKey, sealed: &[u8]) -> Option<MmapMut> {
    let parts = sealed.len().div_ceil(SEALED_PART_LEN);
    let len = sealed.len().checked_sub(parts.checked_mul(TAG_LEN)?)?;
    let mut opened = MmapMut::map_anon(len.max(1)).ok()?;
    #[cfg(target_os = "linux")]
    // Fewer faults; without it, it only takes longer.
    let _ = opened.advise(memmap2::Advice::HugePage);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = parts.div_ceil(threads.clamp(1, 8)).max(1);
    let open = |first: usize, sealed: &[u8], opened: &mut [u8]| {
        let pairs = sealed
            .chunks(SEALED_PART_LEN)
            .zip(opened.chunks_mut(PART_LEN));
        let mut numbered = pairs.enumerate();
        numbered.all(|(at, (sealed, opened))| {
            let number = first + at;
            let is_last = number + 1 == parts;
            let Some((bytes, tag)) = sealed.split_last_chunk::<TAG_LEN>() else {
                return false;
            };
            let Some(opened) = opened.get_mut(..bytes.len()) else {
                return false;
            };
            opened.copy_from_slice(bytes);
            key.open_in_place(number as u64, &[u8::from(is_last)], opened, tag)
                .is_ok()
        })
    };
    let sound = std::thread::scope(|scope| {
        let stretches = sealed
            .chunks(each * SEALED_PART_LEN)
            .zip(opened.chunks_mut(each * PART_LEN))
            .enumerate();
        let threads: Vec<_> = stretches
            .map(|(at, (sealed, opened))| {
                let open = &open;
                scope.spawn(move || open(at * each, sealed, opened))
            })
            .collect();
        threads
            .into_iter()
            .all(|thread| thread.join().unwrap_or(false))
    });
    sound.then_some(opened)
}

/// The epochs, and where the contents start behind them.
#[expect(clippy::type_complexity, reason = "positions and salts")]
fn decode_epochs(bytes: &[u8]) -> Option<(Vec<(u64, [u8; SALT_LEN])>, usize)> {
    let (count, rest) = bytes.split_first_chunk::<8>()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    let len = count.checked_mul(EPOCH_LEN)?;
    let epochs = rest.get(..len)?.chunks_exact(EPOCH_LEN).map(|epoch| {
        let (from, salt) = epoch.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*from), *salt.first_chunk()?))
    });
    let start = len.checked_add(8)?.next_multiple_of(ALIGN);
    Some((epochs.collect::<Option<_>>()?, start))
}
