//! From what a user has, a key or a passphrase, to a key of 256 uniform bits.
//!
//! Promises that no stored parameters, whoever wrote them, can ask for more memory or time
//! than the ceilings here, and that no new slot is made below the floor.

use std::fmt;
use std::io;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::key::{Secret, hkdf};

/// The secret that opens a database. Wiped when dropped.
#[derive(Clone)]
#[non_exhaustive]
pub enum EncryptionInput {
    /// 32 bytes from a random generator or a key store. Not a password: nothing slows down
    /// whoever guesses it.
    RawKey([u8; 32]),
    /// A passphrase, which Argon2id turns into a key. Its UTF-8 bytes count as they are.
    Passphrase(String),
}

impl Drop for EncryptionInput {
    fn drop(&mut self) {
        match self {
            Self::RawKey(key) => key.zeroize(),
            Self::Passphrase(passphrase) => passphrase.zeroize(),
        }
    }
}

impl fmt::Debug for EncryptionInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RawKey(_) => "RawKey(..)",
            Self::Passphrase(_) => "Passphrase(..)",
        })
    }
}

/// What Argon2id (RFC 9106, version 1.3) is to cost. The default is RFC 9106's second
/// recommendation, for machines that cannot spare 2 GiB: 64 MiB, 3 passes, 4 lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// How often the memory is gone through.
    pub passes: u32,
    /// Parts of the memory that can be filled at the same time. This version fills them one
    /// after the other.
    pub lanes: u32,
}

impl KdfParams {
    /// The least that a new slot may cost, from OWASP's recommendations: 19 MiB, 2 passes, 1 lane.
    pub const FLOOR: Self = Self {
        memory_kib: 19 * 1024,
        passes: 2,
        lanes: 1,
    };
    /// The most that opening spends, in each of the three: 1 GiB, 64 passes, 64 lanes.
    pub const CEILING: Self = Self {
        memory_kib: 1 << 20,
        passes: 64,
        lanes: 64,
    };
    /// The most that opening spends in memory times passes: 4 GiB.
    const WORK_KIB_MAX: u64 = 4 << 20;

    /// Whether a slot can be opened at this price.
    fn check_ceiling(self) -> Result<(), Error> {
        let most = Self::CEILING;
        let work_kib = u64::from(self.memory_kib) * u64::from(self.passes);
        if self.memory_kib > most.memory_kib || self.passes > most.passes {
            Err(Error::InvalidParams("the key derivation costs too much"))
        } else if work_kib > Self::WORK_KIB_MAX {
            Err(Error::InvalidParams("memory times passes is above 4 GiB"))
        } else if self.lanes > most.lanes {
            Err(Error::InvalidParams(
                "the key derivation has too many lanes",
            ))
        } else if self.passes == 0 || self.lanes == 0 || self.memory_kib < 8 * self.lanes {
            Err(Error::InvalidParams("impossible key derivation"))
        } else {
            Ok(())
        }
    }

    /// Whether a slot may be made at this price.
    pub(crate) fn check_floor(self) -> Result<(), Error> {
        let least = Self::FLOOR;
        if self.memory_kib < least.memory_kib || self.passes < least.passes {
            return Err(Error::InvalidParams(
                "the key derivation is below 19 MiB or 2 passes",
            ));
        }
        self.check_ceiling()
    }
}

impl Default for KdfParams {
    fn default() -> Self {
        Self {
            memory_kib: 64 * 1024,
            passes: 3,
            lanes: 4,
        }
    }
}

/// How a slot's key comes from the [`EncryptionInput`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kdf {
    /// HKDF-SHA256 of a raw key.
    Hkdf,
    /// HKDF-SHA256 of Argon2id of a passphrase.
    Argon2id(KdfParams),
}

impl Kdf {
    /// The number that stands for the key derivation in a file; 0 is left for none.
    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::Hkdf => 1,
            Self::Argon2id(_) => 2,
        }
    }

    /// The cost as it is stored: all zero where there is none.
    pub(crate) const fn params(self) -> KdfParams {
        match self {
            Self::Hkdf => KdfParams {
                memory_kib: 0,
                passes: 0,
                lanes: 0,
            },
            Self::Argon2id(params) => params,
        }
    }

    /// The two keys of a slot: one that wraps, and one that is stored as the commitment.
    ///
    /// Both come from the input through HKDF with `context` in their names, so an input with
    /// any other context gives other keys.
    pub(crate) fn derive(
        self,
        input: &EncryptionInput,
        salt: &[u8; 16],
        context: &[u8],
    ) -> Result<SlotKeys, Error> {
        let argon;
        let material: &[u8; 32] = match (self, input) {
            (Self::Hkdf, EncryptionInput::RawKey(key)) => key,
            (Self::Argon2id(params), EncryptionInput::Passphrase(passphrase)) => {
                argon = argon2id(params, passphrase.as_bytes(), salt)?;
                argon.bytes()
            }
            _ => return Err(Error::KeyMismatch),
        };
        Ok(SlotKeys {
            wrapping: hkdf(material, salt, &[b"emdb 1 slot wrapping\0", context]),
            commitment: hkdf(material, salt, &[b"emdb 1 slot commitment\0", context]),
        })
    }
}

pub(crate) struct SlotKeys {
    pub(crate) wrapping: Secret,
    pub(crate) commitment: Secret,
}

fn argon2id(params: KdfParams, passphrase: &[u8], salt: &[u8]) -> Result<Secret, Error> {
    params.check_ceiling()?;
    let refused = |_| Error::InvalidParams("impossible key derivation");
    let params = Params::new(params.memory_kib, params.passes, params.lanes, Some(32));
    let params = params.map_err(refused)?;
    let mut memory = Zeroizing::new(Vec::<Block>::new());
    memory
        .try_reserve_exact(params.block_count())
        .map_err(|error| Error::System {
            attempt: "no memory for the key derivation",
            source: io::Error::new(io::ErrorKind::OutOfMemory, error),
        })?;
    memory.resize(params.block_count(), Block::default());
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut key = Secret::zero();
    argon
        .hash_password_into_with_memory(passphrase, salt, key.bytes_mut(), memory.as_mut_slice())
        .map_err(refused)?;
    Ok(key)
}

#[cfg(test)]
mod tests;
