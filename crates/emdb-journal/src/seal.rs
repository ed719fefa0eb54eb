//! Sealing: what is encrypted in a journal, with which key, and what proves that it is whole.
//!
//! - Frames are sealed with the key of the *epoch* in which their position lies. Each handle
//!   that writes begins an epoch of its own where it goes on, so no key and nonce meet twice,
//!   whatever was cut off, copied or put back: the nonce is the LSN, and the key is new.
//! - An epoch begins with an epoch frame, which authenticates itself and the epoch before it.
//!   So epochs can be neither dropped nor exchanged for those of another history, and within
//!   an epoch there is one frame for each LSN.
//! - Sync markers have a code, and nothing else is plain: no frame can be put in the place of
//!   another, not even dead space.
//! - The header has a code, and says in which epoch the last confirmed frame lies.

mod sidecar;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use emdb_crypto::{
    Cipher, EncryptionInput, Epoch, EpochKey, HeaderKey, KdfParams, KeySlot, MAX_BYTES_PER_EPOCH,
    MasterKey, Purpose, TAG_LEN, random_salt,
};
use emdb_format::{
    EPOCH_FRAME_LEN, EpochMark, FIRST_POSITION, Frame, FrameSpec, Header, Marker, SealedFrame,
    SealedLayout, Stamp,
};

use crate::error::Error;
use crate::opened::Opened;

pub(crate) use sidecar::SealedSidecar;

/// The key to an encrypted journal, and how a new one is encrypted.
#[derive(Debug, Clone)]
pub struct Encryption {
    input: EncryptionInput,
    cipher: Cipher,
    kdf: KdfParams,
}

impl Encryption {
    /// Opens with a key or a passphrase; a new journal gets the default cipher.
    pub fn new(input: EncryptionInput) -> Self {
        Self {
            input,
            cipher: Cipher::default(),
            kdf: KdfParams::default(),
        }
    }

    /// The cipher of a new journal. One that exists keeps its own.
    #[must_use]
    pub fn cipher(mut self, cipher: Cipher) -> Self {
        self.cipher = cipher;
        self
    }

    /// What deriving a key from the passphrase of a new journal is to cost.
    #[must_use]
    pub fn kdf(mut self, kdf: KdfParams) -> Self {
        self.kdf = kdf;
        self
    }
}

/// Room at the end of an epoch for what comes before frames.
const LEAD_BYTES: u64 = 4096;

/// What is authenticated with a large value, so that it passes for no head.
const LARGE_VALUE: &[u8] = &[1];

/// The keys of an open journal.
pub(crate) struct Seal {
    master: MasterKey,
    header: HeaderKey,
    cipher: Cipher,
    base_lsn: u64,
    /// Database id and generation: what all keys are bound to.
    context: [u8; 24],
    /// In the order of their positions; only ever appended to.
    epochs: boxcar::Vec<EpochAt>,
    /// What the sidecar says about the epochs before it.
    from_sidecar: OnceLock<Vec<(u64, [u8; 16])>>,
    /// Position up to which frames of the last epoch may reach.
    limit: AtomicU64,
    /// Bytes of an epoch up to which frames may reach.
    epoch_bytes: u64,
    /// A writer found that the epoch has no room for its frame.
    full: AtomicBool,
}

struct EpochAt {
    from: u64,
    salt: [u8; 16],
    key: OnceLock<EpochKey>,
}

impl EpochAt {
    fn new(from: u64, salt: [u8; 16]) -> Self {
        Self {
            from,
            salt,
            key: OnceLock::new(),
        }
    }
}

impl Seal {
    fn new(master: MasterKey, cipher: Cipher, header: &Header) -> Self {
        let mut context = [0; 24];
        let (id, generation) = context.split_at_mut(16);
        id.copy_from_slice(&header.database_id);
        generation.copy_from_slice(&header.generation.to_le_bytes());
        Self {
            header: master.header(),
            master,
            cipher,
            base_lsn: header.base_lsn,
            context,
            epochs: boxcar::Vec::new(),
            from_sidecar: OnceLock::new(),
            // Who cannot write begins no epoch, and finds that out elsewhere.
            limit: AtomicU64::new(u64::MAX),
            epoch_bytes: MAX_BYTES_PER_EPOCH - LEAD_BYTES,
            full: AtomicBool::new(false),
        }
    }

    /// The keys of the journal with this header; `None` for a plaintext one.
    pub(crate) fn of(
        header: &Header,
        encryption: Option<&Encryption>,
    ) -> Result<Option<Self>, Error> {
        let cipher = Cipher::from_byte(header.sealing.cipher)?;
        let (cipher, encryption) = match (cipher, encryption) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(Error::NotSealed),
            (Some(_), None) => return Err(Error::Sealed),
            (Some(cipher), Some(encryption)) => (cipher, encryption),
        };
        let mut result = Err(Error::Encryption("the header has no key".to_owned()));
        for slot in &header.sealing.key_slots {
            let Some(slot) = KeySlot::from_bytes(slot)? else {
                continue;
            };
            match slot.unwrap_key(&encryption.input, cipher, &header.database_id) {
                Ok(master) => {
                    result = Ok(master);
                    break;
                }
                Err(error) => result = Err(error.into()),
            }
        }
        let seal = Self::new(result?, cipher, header);
        let verified = seal
            .header
            .verify(&header.authenticated(), &header.sealing.code);
        match verified {
            Ok(()) => Ok(Some(seal)),
            Err(_) => Err(Error::corrupted(
                0,
                "the header was changed without the key",
            )),
        }
    }

    /// Makes the keys of a new journal, and stores them in its header.
    pub(crate) fn create(header: &mut Header, encryption: &Encryption) -> Result<Self, Error> {
        let Encryption { input, cipher, kdf } = encryption;
        let master = MasterKey::generate()?;
        let slot = KeySlot::wrap(&master, input, *cipher, *kdf, &header.database_id)?;
        header.sealing.cipher = cipher.to_byte();
        header.sealing.key_slots = [slot.to_bytes(), [0; KeySlot::BYTES]];
        let seal = Self::new(master, *cipher, header);
        seal.authenticate(header);
        Ok(seal)
    }

    /// Sets what the header says about the last confirmed frame, and its code.
    pub(crate) fn authenticate(&self, header: &mut Header) {
        header.sealing.epoch = self.salt_below(header.confirmed);
        self.sign_header(header);
    }

    fn sign_header(&self, header: &mut Header) {
        header.sealing.code = self.header.authenticate(&header.authenticated());
    }

    /// Has another key or passphrase open the journal, in place of the present one.
    pub(crate) fn wrap_anew(
        &self,
        header: &mut Header,
        encryption: &Encryption,
    ) -> Result<(), Error> {
        let Encryption { input, kdf, .. } = encryption;
        let slot = KeySlot::wrap(&self.master, input, self.cipher, *kdf, &header.database_id)?;
        header.sealing.key_slots = [slot.to_bytes(), [0; KeySlot::BYTES]];
        Ok(())
    }

    /// The next header to be written, all else as it is.
    pub(crate) fn next_header(&self, header: &Header) -> Header {
        let mut next = *header;
        next.sequence += 1;
        self.sign_header(&mut next);
        next
    }

    /// The cipher of the journal.
    pub(crate) fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Whether the frames that were read are those which the header confirmed.
    pub(crate) fn check_history(&self, header: &Header) -> Result<(), Error> {
        if header.sealing.epoch == self.salt_below(header.confirmed) {
            Ok(())
        } else {
            let reason = "these frames are not the ones that were confirmed here";
            Err(Error::corrupted(header.confirmed, reason))
        }
    }

    /// Salt of the epoch in which the last byte below a position lies.
    fn salt_below(&self, position: u64) -> [u8; 16] {
        self.epoch_at(position.saturating_sub(1))
            .map_or([0; 16], |(_, epoch)| epoch.salt)
    }

    /// Takes over what the sidecar says about the epochs before `from`, from where frames
    /// will be read; later ones are [met](Self::meet).
    pub(crate) fn read_from(&self, from: u64) {
        if from > FIRST_POSITION && self.epochs.count() == 0 {
            for (at, salt) in self.from_sidecar.get().into_iter().flatten() {
                if *at < from {
                    self.epochs.push(EpochAt::new(*at, *salt));
                }
            }
        }
    }

    /// Begins an epoch at a position that no frame has yet. Only for who opens the journal
    /// or holds the write side.
    pub(crate) fn begin_epoch(&self, from: u64) -> Result<(), Error> {
        if self.last().is_some_and(|last| last.from >= from) {
            return Err(Error::corrupted(
                from,
                "an epoch that begins behind the end",
            ));
        }
        self.epochs.push(EpochAt::new(from, random_salt()?));
        let limit = from.saturating_add(self.epoch_bytes);
        // Release: who sees it finds the epoch.
        self.limit.store(limit, Ordering::Release);
        self.full.store(false, Ordering::Release);
        Ok(())
    }

    fn last(&self) -> Option<&EpochAt> {
        self.epochs.get(self.epochs.count().checked_sub(1)?)
    }

    /// The epoch of a position, and its number.
    #[inline]
    fn epoch_at(&self, position: u64) -> Option<(usize, &EpochAt)> {
        let (mut low, mut high) = (0, self.epochs.count());
        // Most of what is read, and all that is written.
        let newest = high.checked_sub(1)?;
        match self.epochs.get(newest) {
            Some(epoch) if epoch.from <= position => return Some((newest, epoch)),
            _ => high = newest,
        }
        while low < high {
            let middle = low.midpoint(high);
            match self.epochs.get(middle) {
                Some(epoch) if epoch.from <= position => low = middle + 1,
                _ => high = middle,
            }
        }
        let number = low.checked_sub(1)?;
        Some((number, self.epochs.get(number)?))
    }

    #[inline]
    fn key_at(&self, position: u64) -> Result<&EpochKey, Error> {
        let (_, epoch) = self
            .epoch_at(position)
            .ok_or_else(|| Error::corrupted(position, "a frame before the first epoch"))?;
        Ok(self.key(epoch))
    }

    #[inline]
    fn key<'a>(&self, epoch: &'a EpochAt) -> &'a EpochKey {
        epoch.key.get_or_init(|| {
            let derived = Epoch {
                cipher: self.cipher,
                purpose: Purpose::Frames,
                salt: epoch.salt,
                first_nonce: self.base_lsn + epoch.from,
            };
            self.master.epoch(&derived, &self.context)
        })
    }

    /// Whether an epoch begins at a position, which its frame has to say.
    pub(crate) fn is_due(&self, position: u64) -> bool {
        self.last().is_some_and(|epoch| epoch.from == position)
    }

    /// Position up to which frames of the epoch may reach.
    #[inline]
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }

    /// Notes that the epoch has no room for some frame.
    pub(crate) fn set_full(&self) {
        self.full.store(true, Ordering::Release);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// The frame that announces the epoch which begins at a position.
    pub(crate) fn epoch_frame(
        &self,
        position: u64,
        stamp: Stamp,
    ) -> Result<[u8; EPOCH_FRAME_LEN], Error> {
        let (number, epoch) = self
            .epoch_at(position)
            .ok_or_else(|| Error::corrupted(position, "no epoch begins here"))?;
        let lsn = self.base_lsn + position;
        let tag = self
            .key(epoch)
            .seal_in_place(lsn, &self.salt_before(number), &mut [])?;
        let salt = epoch.salt;
        Ok(EpochMark { salt, tag }.encode_frame(stamp, lsn)?)
    }

    /// Salt of the epoch before that number: what an epoch frame authenticates beside itself.
    fn salt_before(&self, number: usize) -> [u8; 16] {
        number
            .checked_sub(1)
            .and_then(|before| self.epochs.get(before))
            .map_or([0; 16], |epoch| epoch.salt)
    }

    /// Takes note of an epoch frame that was read at a position.
    pub(crate) fn meet(&self, position: u64, mark: &EpochMark) -> Result<(), Error> {
        let forged = || Error::corrupted(position, "an epoch frame that was changed or moved");
        let known = self.epoch_at(position);
        let (number, new);
        let epoch = match known {
            Some((at, epoch)) if epoch.from == position => {
                number = at;
                epoch
            }
            before => {
                number = before.map_or(0, |(at, _)| at + 1);
                if number != self.epochs.count() {
                    return Err(forged());
                }
                new = EpochAt::new(position, mark.salt);
                &new
            }
        };
        let lsn = self.base_lsn + position;
        let opened =
            self.key(epoch)
                .open_in_place(lsn, &self.salt_before(number), &mut [], &mark.tag);
        if opened.is_err() || epoch.salt != mark.salt {
            return Err(forged());
        }
        if number == self.epochs.count() {
            self.epochs.push(EpochAt::new(position, mark.salt));
        }
        Ok(())
    }

    /// Gives a marker its code; `position` is that of its frame.
    pub(crate) fn sign(
        &self,
        position: u64,
        marker: &mut Marker,
        tag: &[u8; 16],
    ) -> Result<(), Error> {
        let key = self.key_at(position)?;
        let clear = marker.authenticated(tag, self.base_lsn + position);
        marker.code = key.seal_in_place(marker.lsn, &clear, &mut [])?;
        Ok(())
    }

    /// Whether the code of a marker is right; `position` is that of its frame.
    pub(crate) fn check(
        &self,
        position: u64,
        marker: &Marker,
        tag: &[u8; 16],
    ) -> Result<(), Error> {
        let clear = marker.authenticated(tag, self.base_lsn + position);
        self.key_at(position)?
            .open_in_place(marker.lsn, &clear, &mut [], &marker.code)
            .map_err(|_| Error::corrupted(position, "a sync marker that was changed or moved"))
    }

    /// Stores a frame into `out`, sealed as it is to stand at a position; gives its checksum.
    #[inline]
    pub(crate) fn seal(
        &self,
        position: u64,
        spec: &FrameSpec<'_>,
        layout: &SealedLayout,
        out: &mut [u8],
        stamp: Stamp,
    ) -> Result<u32, Error> {
        spec.store_unsealed(layout, out)?;
        self.seal_stored(position, layout, out, stamp)
    }

    /// Seals a frame whose parts were stored into `out`; gives its checksum.
    #[inline]
    pub(crate) fn seal_stored(
        &self,
        position: u64,
        layout: &SealedLayout,
        out: &mut [u8],
        stamp: Stamp,
    ) -> Result<u32, Error> {
        let key = self.key_at(position)?;
        let lsn = self.base_lsn + position;
        let (front, head) = out
            .split_at_mut_checked(layout.head().start)
            .ok_or_else(too_short)?;
        let clear = front.get(layout.clear()).ok_or_else(too_short)?;
        seal_part(key, lsn, clear, head, layout.head().len())?;
        if let Some(value) = layout.value() {
            let (_, sealed) = out
                .split_at_mut_checked(value.start)
                .ok_or_else(too_short)?;
            seal_part(
                key,
                lsn + value.start as u64,
                LARGE_VALUE,
                sealed,
                value.len(),
            )?;
        }
        Ok(layout.finish(out, stamp, lsn)?)
    }

    /// The value of the frame at the front of `bytes`, which stands at a position, if it is a
    /// plain record of the default namespace with this key. `None` says nothing.
    #[inline]
    pub(crate) fn plain_value<'b>(
        &self,
        position: u64,
        bytes: &[u8],
        key: &[u8],
        opened: &'b Opened,
    ) -> Option<&'b [u8]> {
        let (head, tag) = SealedFrame::small(bytes)?;
        let lsn = self.base_lsn + position;
        let mut room = crate::opened::spare();
        self.key_at(position)
            .ok()?
            .open_into(lsn, &[], head, tag, &mut room)
            .ok()?;
        SealedFrame::plain_value(opened.keep(room), key)
    }

    /// Keeps a copy of what was opened.
    pub(crate) fn keep<'b>(&self, bytes: Vec<u8>, opened: &'b Opened) -> &'b [u8] {
        opened.keep(bytes)
    }

    /// Opens a sealed frame; without its large value, if it has one, unless it is `whole`.
    #[inline]
    pub(crate) fn open<'b>(
        &self,
        position: u64,
        sealed: &SealedFrame<'b>,
        whole: bool,
        opened: &'b Opened,
    ) -> Result<Frame<'b>, Error> {
        let key = self.key_at(position)?;
        let lsn = self.base_lsn + position;
        let layout = sealed.layout();
        let forged = |_| Error::corrupted(position, "a frame that was changed without the key");
        let open = |lsn, clear, bytes, tag: &[u8]| {
            let mut opened = crate::opened::spare();
            let tag = tag.first_chunk::<TAG_LEN>().copied().unwrap_or_default();
            key.open_into(lsn, clear, bytes, &tag, &mut opened)
                .map(|()| opened)
        };
        let head = open(
            lsn,
            sealed.part(layout.clear()),
            sealed.part(layout.head()),
            sealed.part(layout.head_tag()),
        );
        let head = opened.keep(head.map_err(forged)?);
        let value = match (layout.value(), layout.value_tag()) {
            (Some(value), Some(tag)) if whole => {
                let lsn = lsn + value.start as u64;
                let value = open(lsn, LARGE_VALUE, sealed.part(value), sealed.part(tag));
                Some(opened.keep(value.map_err(forged)?))
            }
            _ => None,
        };
        sealed
            .frame(head, value)
            .map_err(|error| Error::corrupted(position, error.to_string()))
    }
}

/// Seals the first `len` of `bytes`, and puts the tag behind them.
#[inline]
fn seal_part(
    key: &EpochKey,
    nonce: u64,
    clear: &[u8],
    bytes: &mut [u8],
    len: usize,
) -> Result<(), Error> {
    let (part, rest) = bytes.split_at_mut_checked(len).ok_or_else(too_short)?;
    let tag = key.seal_in_place(nonce, clear, part)?;
    *rest.first_chunk_mut().ok_or_else(too_short)? = tag;
    Ok(())
}

#[cold]
fn too_short() -> Error {
    emdb_format::FormatError::Truncated("output buffer").into()
}

impl From<emdb_crypto::Error> for Error {
    fn from(error: emdb_crypto::Error) -> Self {
        match error {
            emdb_crypto::Error::KeyMismatch => Self::KeyMismatch,
            other => Self::Encryption(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
