//! The two ciphers behind one face. Which nonce a key is used with is decided in `epoch.rs`.

use std::hint::black_box;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use crate::error::Error;

/// Length of an authentication tag in bytes.
pub const TAG_LEN: usize = 16;
pub(crate) const KEY_LEN: usize = 32;
pub(crate) const NONCE_LEN: usize = 12;

/// The cipher of a database. Both have keys of 256 bits and tags of 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Cipher {
    /// AES-256 in Galois/counter mode (NIST SP 800-38D). The faster one where instructions
    /// for AES are used: on x86 if the processor has them, on ARM64 if built to use them.
    #[default]
    Aes256Gcm,
    /// ChaCha20 with Poly1305 (RFC 8439). The better one without such instructions.
    ChaCha20Poly1305,
}

impl Cipher {
    /// The number that stands for the cipher in a file: 1 or 2. 0 is left for plaintext.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The cipher for which a number stands, `None` for 0: plaintext.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a number that is not known: a newer version wrote it.
    pub const fn from_byte(byte: u8) -> Result<Option<Self>, Error> {
        match byte {
            0 => Ok(None),
            1 => Ok(Some(Self::Aes256Gcm)),
            2 => Ok(Some(Self::ChaCha20Poly1305)),
            id => Err(Error::Unsupported { what: "cipher", id }),
        }
    }
}

/// A cipher with its key, expanded. Wiped when dropped.
pub(crate) enum Aead {
    Aes(Box<Aes256Gcm>),
    ChaCha(Box<ChaCha20Poly1305>),
}

impl Aead {
    pub(crate) fn new(cipher: Cipher, key: &[u8; KEY_LEN]) -> Self {
        match cipher {
            Cipher::Aes256Gcm => Self::Aes(Box::new(Aes256Gcm::new(key.into()))),
            Cipher::ChaCha20Poly1305 => Self::ChaCha(Box::new(ChaCha20Poly1305::new(key.into()))),
        }
    }

    /// Fails only for more bytes than the cipher may seal under one nonce: about 64 GiB.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Error> {
        let tag = match self {
            Self::Aes(aead) => aead.encrypt_in_place_detached(nonce.into(), aad, buf),
            Self::ChaCha(aead) => aead.encrypt_in_place_detached(nonce.into(), aad, buf),
        };
        tag.map(Into::into).map_err(|_| Error::EpochExhausted)
    }

    /// Leaves `buf` sealed if the tag is wrong: both ciphers compare it first.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Error> {
        let opened = match self {
            Self::Aes(aead) => aead.decrypt_in_place_detached(nonce.into(), aad, buf, tag.into()),
            Self::ChaCha(aead) => {
                aead.decrypt_in_place_detached(nonce.into(), aad, buf, tag.into())
            }
        };
        opened.map_err(|_| Error::Damaged)
    }
}

impl Drop for Aead {
    fn drop(&mut self) {
        // The ciphers wipe their keys, but not the key of GCM's hash, which is derived from
        // one. Another key takes its place; the compiler must believe that somebody looks.
        if let Self::Aes(aead) = self {
            **aead = Aes256Gcm::new(&[0; KEY_LEN].into());
            black_box(aead);
        }
    }
}

#[cfg(test)]
mod tests;
