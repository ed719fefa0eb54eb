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
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use emdb_crypto::{Epoch, EpochKey, Purpose, SALT_LEN, TAG_LEN, random_salt};
use memmap2::MmapMut;

use super::Seal;

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

    /// Gets ready to read a sealed sidecar; `None` if it is none, or damaged, or another's.
    pub(crate) fn open_sidecar(&self, memory: &[u8]) -> Option<SealedSidecar> {
        let (front, sealed) = memory.split_at_checked(FRONT_LEN)?;
        let (magic, salt) = front.split_first_chunk()?;
        if *magic != MAGIC || sealed.is_empty() {
            return None;
        }
        let parts = sealed.len().div_ceil(SEALED_PART_LEN);
        let mut sidecar = SealedSidecar {
            key: self.sidecar_key(*salt.first_chunk()?),
            parts,
            len: sealed.len().checked_sub(parts.checked_mul(TAG_LEN)?)?,
            start: 0,
            near: None,
        };
        let (epochs, start) = sidecar.epochs(memory)?;
        // Another checkpoint that is read later, of this handle, knows the same or more.
        let _ = self.from_sidecar.set(epochs);
        sidecar.start = start;
        // If it is not the last one, there were more.
        sidecar.near(memory, parts - 1)?;
        Some(sidecar)
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

/// A sealed sidecar that is read. It is given the sidecar's bytes with each call.
pub(crate) struct SealedSidecar {
    key: EpochKey,
    /// How many.
    parts: usize,
    /// Bytes of all parts together, opened.
    len: usize,
    /// Where the contents start in these.
    start: usize,
    /// The part that was read last, and its number.
    near: Option<(usize, Vec<u8>)>,
}

impl SealedSidecar {
    /// Bytes of the contents.
    pub(crate) fn contents_len(&self) -> usize {
        self.len.saturating_sub(self.start)
    }

    /// Opens a piece of the contents, which is copied.
    pub(crate) fn read(&mut self, memory: &[u8], piece: Range<usize>) -> Option<Vec<u8>> {
        let piece = self.checked(&piece)?;
        self.read_joined(memory, piece)
    }

    /// Opens a piece of the contents into memory of its own, on as many threads as there are
    /// processors.
    pub(crate) fn open(&self, memory: &[u8], piece: Range<usize>) -> Option<MmapMut> {
        /// What a thread opens at a time. More than a page, however large pages are: two
        /// threads that need the same one would make it twice.
        const STRETCH_LEN: usize = 4 * PART_LEN;
        let piece = self.checked(&piece)?;
        let mut opened = MmapMut::map_anon(piece.len().max(1)).ok()?;
        #[cfg(target_os = "linux")]
        // Fewer faults; without it, it only takes longer.
        let _ = opened.advise(memmap2::Advice::HugePage);
        let mut stretches = Vec::new();
        let (mut at, mut rest) = (piece.start, opened.get_mut(..piece.len())?);
        while !rest.is_empty() {
            let len = rest.len().min(STRETCH_LEN - at % STRETCH_LEN);
            let (stretch, behind) = rest.split_at_mut(len);
            stretches.push((at, stretch));
            (at, rest) = (at + len, behind);
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(stretches.len()).min(8);
        let stretches = Mutex::new(stretches.into_iter());
        let next = || {
            let mut stretches = stretches.lock().unwrap_or_else(PoisonError::into_inner);
            stretches.next()
        };
        let open = || {
            while let Some((at, stretch)) = next() {
                self.open_stretch(memory, at, stretch)?;
            }
            Some(())
        };
        let sound = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads)
                // What no thread can be had for, this one does.
                .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, open).ok())
                .collect();
            let all = others.into_iter().map(|it| it.join().ok().flatten());
            // This thread first: the others are joined only then.
            std::iter::once_with(open).chain(all).all(|it| it.is_some())
        });
        sound.then_some(opened)
    }

    /// A piece of the contents, as one of all parts together.
    fn checked(&self, piece: &Range<usize>) -> Option<Range<usize>> {
        let (start, end) = (
            self.start.checked_add(piece.start)?,
            self.start.checked_add(piece.end)?,
        );
        (start <= end && end <= self.len).then_some(start..end)
    }

    fn read_joined(&mut self, memory: &[u8], piece: Range<usize>) -> Option<Vec<u8>> {
        let mut read = Vec::with_capacity(piece.len());
        while read.len() < piece.len() {
            let at = piece.start + read.len();
            let part = self.near(memory, at / PART_LEN)?;
            let part = part.get(at % PART_LEN..)?;
            read.extend_from_slice(part.get(..piece.end - at).unwrap_or(part));
        }
        Some(read)
    }

    /// The epochs, and where the contents start behind them.
    #[expect(clippy::type_complexity, reason = "positions and salts")]
    fn epochs(&mut self, memory: &[u8]) -> Option<(Vec<(u64, [u8; SALT_LEN])>, usize)> {
        let count = u64::from_le_bytes(*self.near(memory, 0)?.first_chunk()?);
        let len = usize::try_from(count).ok()?.checked_mul(EPOCH_LEN)?;
        let epochs = 8..len.checked_add(8)?;
        let start = epochs.end.checked_next_multiple_of(ALIGN)?;
        if start > self.len {
            return None;
        }
        let bytes = self.read_joined(memory, epochs)?;
        let epochs = bytes.chunks_exact(EPOCH_LEN).map(|epoch| {
            let (from, salt) = epoch.split_first_chunk::<8>()?;
            Some((u64::from_le_bytes(*from), *salt.first_chunk()?))
        });
        Some((epochs.collect::<Option<_>>()?, start))
    }

    /// A part, opened; the last one read is still there.
    fn near(&mut self, memory: &[u8], number: usize) -> Option<&[u8]> {
        let mut near = self.near.take();
        if near.as_ref().is_none_or(|(at, _)| *at != number) {
            near = Some((number, self.open_part(memory, number)?));
        }
        self.near = near;
        self.near.as_ref().map(|(_, part)| &part[..])
    }

    fn open_part(&self, memory: &[u8], number: usize) -> Option<Vec<u8>> {
        let mut part = vec![0; self.part_len(number)];
        self.open_part_into(memory, number, &mut part)?;
        Some(part)
    }

    /// Opens what lies at a position, all parts together.
    fn open_stretch(&self, memory: &[u8], mut at: usize, mut out: &mut [u8]) -> Option<()> {
        while !out.is_empty() {
            let (number, within) = (at / PART_LEN, at % PART_LEN);
            let len = self.part_len(number).checked_sub(within)?.min(out.len());
            let (now, later) = out.split_at_mut(len);
            if len == self.part_len(number) {
                self.open_part_into(memory, number, now)?;
            } else {
                let part = self.open_part(memory, number)?;
                now.copy_from_slice(part.get(within..within + len)?);
            }
            (at, out) = (at + len, later);
        }
        Some(())
    }

    fn part_len(&self, number: usize) -> usize {
        let before = number.saturating_mul(PART_LEN);
        self.len.saturating_sub(before).min(PART_LEN)
    }

    /// Opens a whole part into memory of its length.
    fn open_part_into(&self, memory: &[u8], number: usize, out: &mut [u8]) -> Option<()> {
        let at = number
            .checked_mul(SEALED_PART_LEN)?
            .checked_add(FRONT_LEN)?;
        let (bytes, rest) = memory.get(at..)?.split_at_checked(out.len())?;
        let is_last = number + 1 == self.parts;
        out.copy_from_slice(bytes);
        self.key
            .open_in_place(
                number as u64,
                &[u8::from(is_last)],
                out,
                rest.first_chunk::<TAG_LEN>()?,
            )
            .ok()
    }
}
