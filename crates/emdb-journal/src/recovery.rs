//! Finds the end of the log: clean, torn tail, or corrupt.
//!
//! Invariant: after `finish`, every frame below the tail was decoded and checked or
//! lies below the position from which replay began, and nothing above the tail will
//! ever be read. Nothing is written before `finish`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use emdb_format::{
    Discard, FIRST_POSITION, FORMAT_VERSION, FormatError, Frame, FrameSpec, HEADER_BYTES,
    HEADER_SLOT_BYTES, HEADER_SLOTS, Header, Kind, Sealing,
};

use crate::error::Error;
use crate::extent::{Extents, Map};
use crate::journal::Journal;
use crate::medium::Medium;
use crate::opened::Opened;
use crate::options::Options;
use crate::seal::{Encryption, Seal};
use crate::sidecar::Sidecar;
use crate::sys;

mod scan;

use scan::corrupt;

pub(crate) use scan::Scan;

/// A journal between opening and use: read what it holds, then [`finish`](Self::finish).
pub struct Opening {
    medium: Box<dyn Medium>,
    options: Options,
    header: Header,
    seal: Option<Seal>,
    extents: Extents,
    len: u64,
    recovered: Mutex<Option<Recovered>>,
}

/// A frame that counts.
#[derive(Clone, Copy)]
pub struct Replayed<'a> {
    /// Its position.
    pub position: u64,
    /// The frame, verified.
    pub frame: &'a Frame<'a>,
    scan: &'a Scan<'a>,
}

impl Replayed<'_> {
    /// The frame at an earlier position; not verified. A large value may be left out if it
    /// is sealed.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if there is no frame.
    pub fn head_at<'b>(&'b self, position: u64, opened: &'b Opened) -> Result<Frame<'b>, Error> {
        self.scan.head(position, opened)
    }
}

impl std::fmt::Debug for Replayed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replayed")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// What replay found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Position behind the last good frame.
    pub tail: u64,
    /// Bytes behind it that were written but cannot be used.
    pub torn_bytes: u64,
    /// Everything below is proven to have been synced.
    pub confirmed: u64,
    /// Where a batch began that was never closed.
    pub open_batch: Option<u64>,
}

impl Opening {
    /// Reads the header of the journal on `medium`, or makes a new journal there.
    ///
    /// # Errors
    /// [`Error::MagicMismatch`], [`Error::VersionMismatch`], [`Error::Corrupted`] if
    /// the file cannot be a journal of this version; it is left untouched.
    /// [`Error::ReadOnly`] if it would have to be created.
    pub fn new(medium: Box<dyn Medium>, options: Options) -> Result<Self, Error> {
        Self::open(medium, options, None)
    }

    /// As [`new`](Self::new), for an encrypted journal; a new one is encrypted.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::KeyMismatch`] for another key or passphrase than the
    /// journal's, [`Error::NotSealed`] if the journal is not encrypted, and
    /// [`Error::Encryption`] if a key cannot be derived. All of them leave it untouched.
    #[cfg(feature = "encrypt")]
    pub fn new_encrypted(
        medium: Box<dyn Medium>,
        options: Options,
        encryption: &Encryption,
    ) -> Result<Self, Error> {
        Self::open(medium, options, Some(encryption))
    }

    /// A new journal for the same database as another one, of the next generation: its LSNs
    /// are above all of that one. The medium must be empty.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::TooLarge`] if no LSNs are left.
    #[cfg(feature = "encrypt")]
    pub fn successor(
        medium: Box<dyn Medium>,
        options: Options,
        encryption: Option<&Encryption>,
        of: &Journal,
    ) -> Result<Self, Error> {
        let old = of.header();
        let base_lsn = of.end_lsn().get();
        if base_lsn > u64::MAX - emdb_format::POSITION_MAX {
            return Err(Error::TooLarge {
                what: "history",
                len: base_lsn,
                max: u64::MAX - emdb_format::POSITION_MAX,
            });
        }
        if !medium.is_empty()? {
            return Err(Error::corrupted(0, "a file in the place of a new one"));
        }
        let header = Header {
            database_id: old.database_id,
            generation: old.generation.saturating_add(1),
            base_lsn,
            ..first_header(&*medium)?
        };
        create(&*medium, header, encryption)?;
        Self::open(medium, options, encryption)
    }

    /// Has another key or passphrase open the journal, and the present one no longer. The
    /// cipher stays, and nothing is encrypted anew.
    ///
    /// # Durability
    /// Survives power loss once it returns. A crash meanwhile leaves the present key in use,
    /// or the new one.
    ///
    /// # Errors
    /// [`Error::NotSealed`], [`Error::ReadOnly`], [`Error::Encryption`] change nothing;
    /// [`Error::Io`].
    #[cfg(feature = "encrypt")]
    pub fn change_key(&mut self, to: &Encryption) -> Result<(), Error> {
        let seal = self.seal.as_ref().ok_or(Error::NotSealed)?;
        if self.options.read_only {
            return Err(Error::ReadOnly);
        }
        let mut header = self.header;
        seal.wrap_anew(&mut header, to)?;
        // Both slots, so that the old key opens neither.
        for _ in 0..2 {
            header = seal.next_header(&header);
            write_header(&*self.medium, &header)?;
        }
        self.header = header;
        Ok(())
    }

    fn open(
        medium: Box<dyn Medium>,
        options: Options,
        encryption: Option<&Encryption>,
    ) -> Result<Self, Error> {
        // Whatever the medium: the journal's locks and threads stay behind in a fork.
        sys::watch_forks();
        if medium.is_empty()? {
            if options.read_only {
                return Err(Error::ReadOnly);
            }
            create(&*medium, first_header(&*medium)?, encryption)?;
        }
        let len = medium.len()?;
        let wanted = len.saturating_mul(16).max(Map::RESERVATION_BYTES);
        let wanted = if options.read_only { len } else { wanted };
        let map = medium.map(len, wanted)?;
        let extents = Extents::new(map, len, options.extent_bytes_max, options.read_only);
        let front = extents
            .bytes_below(0, len.min(HEADER_BYTES as u64))
            .unwrap_or(&[]);
        let mut header = read_header(front)?;
        let seal = Seal::of(&header, encryption)?;
        if !options.read_only {
            medium.remove_unfinished(&header);
            if let Some(seal) = &seal
                && other_slot_may_differ(front, &header)
            {
                // A key was being changed: the one before must not open the other slot.
                header = seal.next_header(&header);
                write_header(&*medium, &header)?;
            }
        }
        if header.confirmed > len {
            return Err(Error::corrupted(
                len,
                format!(
                    "the file ends here, but {} bytes were synced",
                    header.confirmed
                ),
            ));
        }
        Ok(Self {
            medium,
            options,
            header,
            seal,
            extents,
            len,
            recovered: Mutex::new(None),
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.len
    }

    /// The sidecar, if there is one that can be read; it is only a cache.
    pub fn sidecar(&self) -> Option<Sidecar<'_>> {
        Sidecar::new(&*self.medium, self.seal.as_ref())
    }

    /// Whether there is a sidecar with anything in it, readable or not.
    pub fn has_sidecar(&self) -> bool {
        let memory = self.medium.sidecar().ok().flatten();
        memory.is_some_and(|mut memory| !memory.bytes_mut().is_empty())
    }

    #[cfg(all(test, feature = "encrypt"))]
    pub(crate) fn seal_mut(&mut self) -> Option<&mut Seal> {
        self.seal.as_mut()
    }

    /// Whether the journal is encrypted.
    pub fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// Reads frames from position `from`, which must be where a frame begins outside
    /// of every batch, and calls `visit` with those that count. May be called again,
    /// from another position.
    ///
    /// # Errors
    /// [`Error::Corrupted`] for damage below the confirmed position, and whatever
    /// `visit` returns.
    pub fn replay<E: From<Error>>(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Replayed<'_>) -> Result<(), E>,
    ) -> Result<Recovered, E> {
        if let Some(seal) = &self.seal {
            seal.read_from(from);
        }
        let scan = Scan::new(&self.extents, &self.header, self.seal.as_ref(), self.len);
        let (end, damage) = scan.frames(from, visit)?;
        let torn_bytes = match damage {
            Some(error) => scan.examine_tail(&*self.medium, end.at, error)?,
            None => 0,
        };
        if let Some(seal) = &self.seal {
            seal.check_history(&self.header)?;
        }
        let recovered = Recovered {
            tail: end.at,
            torn_bytes,
            confirmed: end.confirmed,
            open_batch: end.open_batch,
        };
        *self.recovered() = Some(recovered);
        Ok(recovered)
    }

    /// The frame at `position`, not verified, for visitors that look back. A large value
    /// may be left out if it is sealed.
    ///
    /// # Errors
    /// [`Error::Corrupted`] if there is no frame.
    pub fn head<'a>(&'a self, position: u64, opened: &'a Opened) -> Result<Frame<'a>, Error> {
        let scan = Scan::new(&self.extents, &self.header, self.seal.as_ref(), self.len);
        scan.head(position, opened)
    }

    fn recovered(&self) -> MutexGuard<'_, Option<Recovered>> {
        self.recovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts a torn tail and gives the journal.
    ///
    /// # Errors
    /// [`Error::Io`] if the cut fails; opening again tries it again.
    pub fn finish(self) -> Result<Journal, Error> {
        let recovered = *self.recovered();
        let recovered = match recovered {
            Some(recovered) => recovered,
            None => {
                // Who knows the epochs has read them all.
                let from = match self.seal {
                    None => self.header.confirmed,
                    Some(_) => FIRST_POSITION,
                };
                self.replay(from, &mut |_| Ok::<(), Error>(()))?
            }
        };
        let Self {
            medium,
            options,
            header,
            seal,
            ..
        } = self;
        let tail = recovered.tail;
        if recovered.torn_bytes > 0 && !options.read_only {
            // Before anything is appended: a good frame behind the cut must not come
            // back to life when a new frame has taken the bad one's place.
            medium.truncate(tail)?;
            medium.sync()?;
        }
        if let Some(seal) = &seal
            && !options.read_only
        {
            seal.begin_epoch(tail)?;
        }
        let map = self.extents.into_map();
        let extents = Extents::new(map, tail, options.extent_bytes_max, options.read_only);
        let journal = Journal::start(medium, options, header, seal, extents, &recovered);
        if let Some(begin) = recovered.open_batch
            && !options.read_only
        {
            let value = Discard { from: begin }.encode();
            let discarded = journal.append(&FrameSpec {
                batch: true,
                ..FrameSpec::new(Kind::Discard, b"", &value)
            });
            if let Err(error) = discarded {
                // Closing would confirm an end inside of a batch.
                journal.abandon();
                return Err(error);
            }
        }
        Ok(journal)
    }
}

/// The newer of the valid slots.
fn read_header(front: &[u8]) -> Result<Header, Error> {
    let mut newest: Option<Header> = None;
    let mut failure: Option<FormatError> = None;
    for at in HEADER_SLOTS {
        let slot = front.get(at as usize..).unwrap_or(&[]);
        let slot = slot.get(..HEADER_SLOT_BYTES).unwrap_or(slot);
        if let Some(found) = Header::whole_slot_version(slot)
            && found != FORMAT_VERSION
        {
            // Its writer may have changed what the older slot says about the file.
            return Err(FormatError::Version { found }.into());
        }
        match Header::decode(slot) {
            Ok(header) => {
                if newest.is_none_or(|newest| newest.sequence < header.sequence) {
                    newest = Some(header);
                }
            }
            Err(error) => {
                // What says most about the file wins: a version, then damage, then
                // no resemblance at all.
                let weight = |error: &FormatError| match error {
                    FormatError::Version { .. } => 2,
                    FormatError::Magic => 0,
                    _ => 1,
                };
                if failure
                    .as_ref()
                    .is_none_or(|old| weight(old) < weight(&error))
                {
                    failure = Some(error);
                }
            }
        }
    }
    match (newest, failure) {
        (Some(header), _) => Ok(header),
        (None, Some(FormatError::Magic) | None) => Err(Error::MagicMismatch),
        (None, Some(FormatError::Version { found })) => Err(FormatError::Version { found }.into()),
        (None, Some(error)) => Err(corrupt(0, error)),
    }
}

/// Whether the slot that does not count may hold the master key under another key.
fn other_slot_may_differ(front: &[u8], header: &Header) -> bool {
    let at = HEADER_SLOTS.get(((header.sequence + 1) % 2) as usize);
    let from = at.and_then(|at| front.get(*at as usize..));
    let Some(slot) = from.and_then(|from| from.get(..HEADER_SLOT_BYTES)) else {
        return false;
    };
    match Header::decode(slot) {
        Ok(other) => other.sealing.key_slots != header.sealing.key_slots,
        // A write that was cut short may have left the key slots as they were.
        Err(_) => slot.iter().any(|byte| *byte != 0),
    }
}

/// Writes a header to the slot its sequence number names, and syncs it.
pub(crate) fn write_header(medium: &dyn Medium, header: &Header) -> Result<(), Error> {
    store_header(medium, header)?;
    medium.sync()
}

/// Writes a header to the slot its sequence number names.
pub(crate) fn store_header(medium: &dyn Medium, header: &Header) -> Result<(), Error> {
    let at = HEADER_SLOTS
        .get((header.sequence % 2) as usize)
        .copied()
        .unwrap_or(0);
    medium.write_at(at, &header.encode())
}

/// The header of a new database.
fn first_header(medium: &dyn Medium) -> Result<Header, Error> {
    Ok(Header {
        sequence: 1,
        database_id: random(medium)?,
        generation: 1,
        base_lsn: 0,
        confirmed: FIRST_POSITION,
        hash_seed: random(medium)?,
        marker_tag: random(medium)?,
        sealing: Sealing::default(),
        checkpoint: [0; 16],
        checkpoint_before: [0; 16],
    })
}

fn create(
    medium: &dyn Medium,
    mut header: Header,
    encryption: Option<&Encryption>,
) -> Result<(), Error> {
    let seal = match encryption {
        Some(encryption) => Some(Seal::create(&mut header, encryption)?),
        None => None,
    };
    let mut bytes = vec![0; HEADER_BYTES];
    // Both slots, so that damage to one leaves the other.
    for (at, sequence) in HEADER_SLOTS.into_iter().zip([0, 1]) {
        header.sequence = sequence;
        if let Some(seal) = &seal {
            seal.authenticate(&mut header);
        }
        let slot = header.encode();
        if let Some(target) = bytes.get_mut(at as usize..at as usize + slot.len()) {
            target.copy_from_slice(&slot);
        }
    }
    medium.create(&bytes)
}

pub(crate) fn random(medium: &dyn Medium) -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Io {
        attempt: format!("get random bytes for {}", medium.path().display()),
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}
