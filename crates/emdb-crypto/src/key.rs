//! The master key and what is derived from it. Keys live on the heap, so that moving one
//! leaves no copy behind, and are wiped when dropped.

use std::fmt;
use std::io;

use hkdf::Hkdf;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::aead::{Aead, KEY_LEN};
use crate::epoch::{Epoch, EpochKey, SALT_LEN};
use crate::error::Error;

/// 256 secret bits.
pub(crate) struct Secret(Box<Zeroizing<[u8; KEY_LEN]>>);

impl Secret {
    pub(crate) fn zero() -> Self {
        Self(Box::default())
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; KEY_LEN] {
        &mut self.0
    }
}

/// HKDF-SHA256 (RFC 5869) for 32 bytes. `info` is joined, so all of its parts but the last
/// must have a fixed length or an end of their own.
pub(crate) fn hkdf(material: &[u8], salt: &[u8], info: &[&[u8]]) -> Secret {
    let mut key = Secret::zero();
    let expanded =
        Hkdf::<Sha256>::new(Some(salt), material).expand_multi_info(info, key.bytes_mut());
    // Never a key of zeros.
    assert!(expanded.is_ok(), "HKDF makes up to 8,160 bytes");
    key
}

/// A salt for an [`Epoch`].
///
/// # Errors
/// [`Error::System`] if the system gives no random bytes.
pub fn random_salt() -> Result<[u8; SALT_LEN], Error> {
    let mut salt = [0; SALT_LEN];
    random(&mut salt)?;
    Ok(salt)
}

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|error| Error::System {
        attempt: "no random bytes",
        source: io::Error::other(error.to_string()),
    })
}

/// The key of a database: 32 random bytes that never change and never leave this crate but
/// wrapped in a [`KeySlot`](crate::KeySlot). Wiped when dropped.
pub struct MasterKey(Secret);

impl MasterKey {
    #[cfg(test)]
    pub(crate) fn known(bytes: [u8; KEY_LEN]) -> Self {
        let mut key = Secret::zero();
        *key.bytes_mut() = bytes;
        Self(key)
    }

    /// A new random key, for a new database.
    ///
    /// # Errors
    /// [`Error::System`] if the system gives no random bytes.
    pub fn generate() -> Result<Self, Error> {
        let mut key = Secret::zero();
        random(key.bytes_mut())?;
        Ok(Self(key))
    }

    /// The key of an epoch. `context` is authenticated with all that the key ever seals, at
    /// no cost a seal; put in what stays the same in an epoch (database id, generation). What
    /// else is authenticated by itself: the epoch, the nonce, and the length of what is sealed.
    pub fn epoch(&self, epoch: &Epoch, context: &[u8]) -> EpochKey {
        let info: &[&[u8]] = &[
            epoch.purpose.label(),
            &[epoch.cipher.to_byte()],
            &epoch.first_nonce.to_le_bytes(),
            context,
        ];
        let key = hkdf(self.0.bytes(), &epoch.salt, info);
        EpochKey::new(epoch, &key)
    }

    /// The key that authenticates the headers of the database.
    pub fn header(&self) -> HeaderKey {
        HeaderKey(hkdf(self.0.bytes(), &[], &[b"emdb 1 header\0"]))
    }

    pub(crate) fn seal(&self, aead: &Aead) -> Result<([u8; KEY_LEN], [u8; 16]), Error> {
        let mut sealed = Zeroizing::new(*self.0.bytes());
        let tag = aead.seal(&[0; 12], &[], &mut sealed[..])?;
        Ok((*sealed, tag))
    }

    pub(crate) fn open(aead: &Aead, sealed: &[u8; KEY_LEN], tag: &[u8; 16]) -> Result<Self, Error> {
        let mut key = Secret::zero();
        *key.bytes_mut() = *sealed;
        aead.open(&[0; 12], &[], key.bytes_mut(), tag)?;
        Ok(Self(key))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// Authenticates headers with HMAC-SHA256. Wiped when dropped.
///
/// A header stays readable, and this tells whether somebody without the key has edited it.
pub struct HeaderKey(Secret);

impl HeaderKey {
    /// The code of `header`: all of its bytes that count, in one piece.
    pub fn authenticate(&self, header: &[u8]) -> [u8; 32] {
        self.mac(header).finalize().into_bytes().into()
    }

    /// Compares the code of `header` with the stored one, in constant time.
    ///
    /// # Errors
    /// [`Error::Damaged`] if they differ.
    pub fn verify(&self, header: &[u8], code: &[u8; 32]) -> Result<(), Error> {
        let mac = self.mac(header);
        mac.verify(code.into()).map_err(|_| Error::Damaged)
    }

    fn mac(&self, header: &[u8]) -> Hmac<Sha256> {
        // HMAC takes a key of one block as it is, and fills up a shorter one with zeros.
        let mut block = Zeroizing::new([0; 64]);
        let (key, _) = block.split_at_mut(KEY_LEN);
        key.copy_from_slice(self.0.bytes());
        let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
        mac.update(header);
        mac
    }
}

impl fmt::Debug for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderKey(..)")
    }
}

#[cfg(test)]
mod tests;
