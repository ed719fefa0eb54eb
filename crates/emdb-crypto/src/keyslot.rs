//! Key slots: the master key as it is stored, wrapped by what a user has.
//!
//! | offset | bytes | field |
//! |--------|-------|-------|
//! | 0 | 1 | key derivation: 1 HKDF of a raw key, 2 Argon2id of a passphrase; 0 for an empty slot |
//! | 1 | 3 | zero |
//! | 4 | 4 | Argon2id: memory in KiB, else zero |
//! | 8 | 4 | Argon2id: passes, else zero |
//! | 12 | 4 | Argon2id: lanes, else zero |
//! | 16 | 16 | salt |
//! | 32 | 32 | commitment |
//! | 64 | 32 | sealed master key |
//! | 96 | 16 | tag |
//!
//! Integers are little-endian. With `material` the raw key, or the 32 bytes that
//! Argon2id (version 1.3) makes of the passphrase with the salt:
//!
//! ```text
//! context    = cipher (1 byte) || bytes 0 to 15 of the slot || database id (16 bytes)
//! wrapping   = HKDF-SHA256(material, salt, "emdb 1 slot wrapping" || 0x00 || context)
//! commitment = HKDF-SHA256(material, salt, "emdb 1 slot commitment" || 0x00 || context)
//! sealed     = AEAD(key: wrapping, nonce: 12 zeros, no associated data, master key)
//! ```
//!
//! The commitment is compared before anything is opened. AES-GCM and ChaCha20-Poly1305 commit
//! to no key: sealed bytes can be made that open under many of them, and trying such a slot
//! would tell something of the passphrase. A hash of the key has no such second key.
//! The nonce can be constant, since each wrapping key is used once: its salt is random.

use subtle::ConstantTimeEq;

use crate::aead::{Aead, Cipher, TAG_LEN};
use crate::error::Error;
use crate::kdf::{EncryptionInput, Kdf, KdfParams};
use crate::key::{MasterKey, random};

const HEAD_LEN: usize = 16;
const SALT_LEN: usize = 16;
const COMMITMENT_LEN: usize = 32;
const SEALED_LEN: usize = 32;

/// A wrapped master key. Nothing in it is secret, and it needs no secret to be read or stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySlot {
    kdf: Kdf,
    salt: [u8; SALT_LEN],
    commitment: [u8; COMMITMENT_LEN],
    sealed: [u8; SEALED_LEN],
    tag: [u8; TAG_LEN],
}

impl KeySlot {
    /// Length of a stored slot.
    pub const BYTES: usize = HEAD_LEN + SALT_LEN + COMMITMENT_LEN + SEALED_LEN + TAG_LEN;

    /// Wraps `master` so that `input` opens it, for a database that seals with `cipher`.
    ///
    /// `params` say what the derivation costs if `input` is a passphrase; else they are not used.
    /// With the default it takes 64 MiB of memory and a good part of a second.
    ///
    /// # Errors
    /// [`Error::InvalidParams`] for an empty passphrase, and for parameters below
    /// [`KdfParams::FLOOR`] or above [`KdfParams::CEILING`]. [`Error::System`] if there are no
    /// random bytes, or not enough memory.
    pub fn wrap(
        master: &MasterKey,
        input: &EncryptionInput,
        cipher: Cipher,
        params: KdfParams,
        database_id: &[u8; 16],
    ) -> Result<Self, Error> {
        let kdf = match input {
            EncryptionInput::RawKey(_) => Kdf::Hkdf,
            EncryptionInput::Passphrase(passphrase) => {
                if passphrase.is_empty() {
                    return Err(Error::InvalidParams("the passphrase is empty"));
                }
                params.check_floor()?;
                Kdf::Argon2id(params)
            }
        };
        let mut salt = [0; SALT_LEN];
        random(&mut salt)?;
        Self::wrap_with(master, input, cipher, kdf, salt, database_id)
    }

    fn wrap_with(
        master: &MasterKey,
        input: &EncryptionInput,
        cipher: Cipher,
        kdf: Kdf,
        salt: [u8; SALT_LEN],
        database_id: &[u8; 16],
    ) -> Result<Self, Error> {
        let keys = kdf.derive(input, &salt, &context(cipher, kdf, database_id))?;
        let (sealed, tag) = master.seal(&Aead::new(cipher, keys.wrapping.bytes()))?;
        Ok(Self {
            kdf,
            salt,
            commitment: *keys.commitment.bytes(),
            sealed,
            tag,
        })
    }

    /// The master key, if `input` is what the slot was made with.
    ///
    /// Takes the time and memory that the slot's parameters say, which are below
    /// [`KdfParams::CEILING`].
    ///
    /// # Errors
    /// [`Error::KeyMismatch`] for another key or passphrase, a raw key where a passphrase is needed
    /// or the reverse, another cipher or another database. [`Error::Damaged`] if the input is right
    /// and the wrapped key is not. [`Error::InvalidParams`] for parameters above the ceiling
    /// or impossible ones, [`Error::System`] if there is not enough memory.
    pub fn unwrap_key(
        &self,
        input: &EncryptionInput,
        cipher: Cipher,
        database_id: &[u8; 16],
    ) -> Result<MasterKey, Error> {
        let context = context(cipher, self.kdf, database_id);
        let keys = self.kdf.derive(input, &self.salt, &context)?;
        if !bool::from(keys.commitment.bytes().ct_eq(&self.commitment)) {
            return Err(Error::KeyMismatch);
        }
        let aead = Aead::new(cipher, keys.wrapping.bytes());
        MasterKey::open(&aead, &self.sealed, &self.tag)
    }

    /// How the key comes from the input: whether a raw key or a passphrase opens the slot, and
    /// what it costs.
    pub fn kdf(&self) -> Kdf {
        self.kdf
    }

    /// The slot as it is stored.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let head = head(self.kdf);
        let parts: [&[u8]; 5] = [&head, &self.salt, &self.commitment, &self.sealed, &self.tag];
        fill(&mut bytes, &parts);
        bytes
    }

    /// Reads a stored slot; `None` for an empty one, which is all zero.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a key derivation that is not known, [`Error::Damaged`] for bytes
    /// that no version writes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Option<Self>, Error> {
        if *bytes == [0; Self::BYTES] {
            return Ok(None);
        }
        let (found_head, rest) = split::<HEAD_LEN>(bytes)?;
        let (salt, rest) = split(rest)?;
        let (commitment, rest) = split(rest)?;
        let (sealed, rest) = split(rest)?;
        let (tag, _) = split(rest)?;
        let (first, params) = split::<4>(&found_head)?;
        let (memory, params) = split(params)?;
        let (passes, params) = split(params)?;
        let (lanes, _) = split(params)?;
        let kdf = match first {
            [1, ..] => Kdf::Hkdf,
            [2, ..] => Kdf::Argon2id(KdfParams {
                memory_kib: u32::from_le_bytes(memory),
                passes: u32::from_le_bytes(passes),
                lanes: u32::from_le_bytes(lanes),
            }),
            [0, ..] => return Err(Error::Damaged),
            [id, ..] => {
                let what = "key derivation";
                return Err(Error::Unsupported { what, id });
            }
        };
        if head(kdf) != found_head {
            return Err(Error::Damaged);
        }
        Ok(Some(Self {
            kdf,
            salt,
            commitment,
            sealed,
            tag,
        }))
    }
}

/// What the keys of a slot are bound to: everything that says how to use them.
fn context(cipher: Cipher, kdf: Kdf, database_id: &[u8; 16]) -> [u8; 1 + HEAD_LEN + 16] {
    let mut context = [0; 1 + HEAD_LEN + 16];
    fill(
        &mut context,
        &[&[cipher.to_byte()], &head(kdf), database_id],
    );
    context
}

/// The first bytes of a slot.
fn head(kdf: Kdf) -> [u8; HEAD_LEN] {
    let KdfParams {
        memory_kib,
        passes,
        lanes,
    } = kdf.params();
    let mut head = [0; HEAD_LEN];
    fill(
        &mut head,
        &[
            &[kdf.to_byte(), 0, 0, 0],
            &memory_kib.to_le_bytes(),
            &passes.to_le_bytes(),
            &lanes.to_le_bytes(),
        ],
    );
    head
}

/// Joins parts whose lengths make up that of `out`.
fn fill(out: &mut [u8], parts: &[&[u8]]) {
    debug_assert_eq!(out.len(), parts.concat().len());
    let bytes = parts.iter().copied().flatten();
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

fn split<const LEN: usize>(bytes: &[u8]) -> Result<([u8; LEN], &[u8]), Error> {
    let (first, rest) = bytes.split_first_chunk().ok_or(Error::Damaged)?;
    Ok((*first, rest))
}

#[cfg(test)]
mod tests;
