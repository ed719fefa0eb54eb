//! Where nonces are made, and nowhere else.
//!
//! A key and a nonce must never seal two things. The key is new for each epoch, whose salt
//! is random; the nonce is a number that its caller never uses twice in an epoch: the LSN
//! of a frame, the number of a part of a checkpoint. So nothing random is stored with what
//! is sealed, and copies of a file that go on by themselves do not share a key.

use std::fmt;

use crate::aead::{Aead, Cipher, NONCE_LEN, TAG_LEN};
use crate::error::Error;
use crate::key::Secret;

/// Length of the salt of an epoch in bytes.
pub const SALT_LEN: usize = 16;
/// How many bytes of LSNs an epoch spans at most: 64 GiB. [`EpochKey::seal_in_place`] refuses
/// nonces beyond it.
///
/// Both ciphers are far from their bounds there: 2^32 blocks under one key give an attacker a
/// chance of about 2^-64 to tell AES-GCM from random bytes.
pub const MAX_BYTES_PER_EPOCH: u64 = 1 << 36;
/// How many frames an epoch holds at most. It follows from [`MAX_BYTES_PER_EPOCH`] where the
/// nonce is a position, since no sealed frame is shorter than 16 bytes.
pub const MAX_FRAMES_PER_EPOCH: u64 = 1 << 32;
const _: () = assert!(MAX_BYTES_PER_EPOCH / TAG_LEN as u64 <= MAX_FRAMES_PER_EPOCH);

/// What an epoch's key seals. Keys of different purposes have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Frames of the journal; the nonce is the LSN.
    Frames,
    /// The parts of a checkpoint; the nonce is the part's number. That all of them together
    /// stay within a few times [`MAX_BYTES_PER_EPOCH`] is up to the caller.
    Checkpoint,
}

impl Purpose {
    pub(crate) const fn label(self) -> &'static [u8] {
        match self {
            Self::Frames => b"emdb 1 epoch of frames\0",
            Self::Checkpoint => b"emdb 1 epoch of a checkpoint\0",
        }
    }
}

/// What, beside the master key, makes the key of an epoch. Nothing of it is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The cipher of the database.
    pub cipher: Cipher,
    /// What is sealed.
    pub purpose: Purpose,
    /// Random, and never used again: see [`random_salt`](crate::random_salt).
    pub salt: [u8; SALT_LEN],
    /// The lowest nonce. An epoch is [`MAX_BYTES_PER_EPOCH`] nonces long.
    pub first_nonce: u64,
}

/// The key of one epoch, ready to use. Wiped when dropped.
pub struct EpochKey {
    aead: Aead,
    first_nonce: u64,
    #[cfg(feature = "audit")]
    id: crate::audit::KeyId,
}

impl EpochKey {
    pub(crate) fn new(epoch: &Epoch, key: &Secret) -> Self {
        Self {
            aead: Aead::new(epoch.cipher, key.bytes()),
            first_nonce: epoch.first_nonce,
            #[cfg(feature = "audit")]
            id: crate::audit::KeyId::of(epoch.cipher, key),
        }
    }

    /// Seals `buf` in place and returns its tag. `aad` stays in the clear and is authenticated.
    ///
    /// The nonce must not have been used with this key, not even for bytes that were never
    /// stored, or that were stored and cut off again.
    ///
    /// # Errors
    /// [`Error::EpochExhausted`] if the nonce is below the epoch's first one or
    /// [`MAX_BYTES_PER_EPOCH`] or more above it; nothing was sealed.
    #[inline]
    pub fn seal_in_place(
        &self,
        nonce: u64,
        aad: &[u8],
        buf: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Error> {
        let within = nonce.checked_sub(self.first_nonce);
        if within.is_none_or(|distance| distance >= MAX_BYTES_PER_EPOCH) {
            return Err(Error::EpochExhausted);
        }
        #[cfg(feature = "audit")]
        crate::audit::record(self.id, nonce);
        self.aead.seal(&nonce_bytes(nonce), aad, buf)
    }

    /// Opens `buf` in place.
    ///
    /// # Errors
    /// [`Error::Damaged`] if anything differs from what was sealed: key, nonce, `aad`, bytes or
    /// tag. `buf` is then as it was.
    #[inline]
    pub fn open_in_place(
        &self,
        nonce: u64,
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Error> {
        self.aead.open(&nonce_bytes(nonce), aad, buf, tag)
    }

    /// Opens `sealed` and appends what was sealed to `out`.
    ///
    /// # Errors
    /// [`Error::Damaged`] as for [`open_in_place`](Self::open_in_place). `out` is then as it was.
    #[inline]
    pub fn open_into(
        &self,
        nonce: u64,
        aad: &[u8],
        sealed: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let len = out.len();
        out.extend_from_slice(sealed);
        let (_, added) = out.split_at_mut(len);
        let opened = self.open_in_place(nonce, aad, added, tag);
        if opened.is_err() {
            out.truncate(len);
        }
        opened
    }
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochKey(..)")
    }
}

/// Four zeros, then the number, little-endian.
fn nonce_bytes(nonce: u64) -> [u8; NONCE_LEN] {
    let mut bytes = [0; NONCE_LEN];
    let (_, number) = bytes.split_at_mut(4);
    number.copy_from_slice(&nonce.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests;
