//! The header slots: all that is needed to open a journal.
//!
//! Two slots of 4 KiB, at 0 and 8 KiB, are written alternately; the valid one with
//! the higher sequence number counts.
//!
//! | offset | bytes | field |
//! |--------|-------|-------|
//! | 0 | 8 | magic |
//! | 8 | 4 | format version |
//! | 12 | 4 | zero |
//! | 16 | 8 | sequence number |
//! | 24 | 16 | database id |
//! | 40 | 8 | generation |
//! | 48 | 8 | base LSN: the LSN of position 0 |
//! | 56 | 8 | confirmed position |
//! | 64 | 16 | hash seed |
//! | 80 | 16 | marker tag |
//! | 96 | 1 | cipher, 0 for none |
//! | 97 | 1 | key derivation, 0 for none |
//! | 98 | 2 | zero |
//! | 100 | 12 | key derivation cost: memory in KiB, passes, lanes (4 bytes each) |
//! | 112 | 32 | key derivation salt |
//! | 144 | 160 | two wrapped master keys of 80 bytes |
//! | 304 | 32 | key commitment |
//! | 336 | 16 | nonce of the newest checkpoint, zero for none |
//! | 352 | 3740 | zero |
//! | 4092 | 4 | CRC32C of the above |

use crate::bytes::{Reader, Writer};
use crate::error::FormatError;
use crate::limits::{FIRST_POSITION, FORMAT_VERSION, HEADER_SLOT_BYTES, POSITION_MAX};

const MAGIC: [u8; 8] = *b"emdb\x00\r\n\x1a";
const CRC_AT: usize = HEADER_SLOT_BYTES - size_of::<u32>();
const WRAPPED_LEN: usize = 80;
const ZERO_LEN: usize = CRC_AT - 352;

/// A wrapped master key.
pub type KeySlot = [u8; WRAPPED_LEN];

/// How the database is sealed; all zero for a plaintext one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sealing {
    /// Cipher id, 0 for none.
    pub cipher: u8,
    /// Key derivation id, 0 for none.
    pub kdf: u8,
    /// Memory of the key derivation in KiB.
    pub kdf_memory_kib: u32,
    /// Passes of the key derivation.
    pub kdf_passes: u32,
    /// Lanes of the key derivation.
    pub kdf_lanes: u32,
    /// Salt of the key derivation.
    pub salt: [u8; 32],
    /// The master key, wrapped; the second is in use only while a key is changed.
    pub wrapped: [KeySlot; 2],
    /// Commitment that tells a wrong key from a damaged file.
    pub commitment: [u8; 32],
}

impl Default for Sealing {
    fn default() -> Self {
        Self {
            cipher: 0,
            kdf: 0,
            kdf_memory_kib: 0,
            kdf_passes: 0,
            kdf_lanes: 0,
            salt: [0; 32],
            wrapped: [[0; WRAPPED_LEN]; 2],
            commitment: [0; 32],
        }
    }
}

/// The contents of a header slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which write of the header this is; slot `sequence % 2` holds it.
    pub sequence: u64,
    /// Random id, the same for the life of the database.
    pub database_id: [u8; 16],
    /// Which life of the journal file this is, counted from 1.
    pub generation: u64,
    /// LSN of position 0.
    pub base_lsn: u64,
    /// Everything below this position is known to have been synced.
    pub confirmed: u64,
    /// Key of the index's hash function.
    pub hash_seed: [u8; 16],
    /// Random tag of this generation's sync markers.
    pub marker_tag: [u8; 16],
    /// How the database is sealed.
    pub sealing: Sealing,
    /// Random name of the newest checkpoint; one with another name belongs to another
    /// history of the database, such as that of a copy.
    pub checkpoint: [u8; 16],
}

impl Header {
    /// Encodes the slot.
    pub fn encode(&self) -> [u8; HEADER_SLOT_BYTES] {
        let mut bytes = [0; HEADER_SLOT_BYTES];
        let (body, crc) = bytes.split_at_mut(CRC_AT);
        // The body has room for every field; the unit tests read each one back.
        let _ = self.encode_fields(&mut Writer::new(body));
        crc.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        bytes
    }

    fn encode_fields(&self, out: &mut Writer<'_>) -> Result<(), FormatError> {
        out.put(&MAGIC)?;
        out.u32(FORMAT_VERSION)?;
        out.u32(0)?;
        out.u64(self.sequence)?;
        out.put(&self.database_id)?;
        out.u64(self.generation)?;
        out.u64(self.base_lsn)?;
        out.u64(self.confirmed)?;
        out.put(&self.hash_seed)?;
        out.put(&self.marker_tag)?;
        out.u8(self.sealing.cipher)?;
        out.u8(self.sealing.kdf)?;
        out.u16(0)?;
        out.u32(self.sealing.kdf_memory_kib)?;
        out.u32(self.sealing.kdf_passes)?;
        out.u32(self.sealing.kdf_lanes)?;
        out.put(&self.sealing.salt)?;
        for wrapped in &self.sealing.wrapped {
            out.put(wrapped)?;
        }
        out.put(&self.sealing.commitment)?;
        out.put(&self.checkpoint)
    }

    /// The version of a slot whose magic and checksum are right, whether or not
    /// [`decode`](Self::decode) reads it. Where this is another version than ours, the
    /// other slot must not be believed: that version has written to the file since.
    pub fn whole_slot_version(bytes: &[u8]) -> Option<u32> {
        let mut reader = Reader::new(bytes, "header");
        let mut whole = Reader::new(bytes, "header");
        let body = whole.take(CRC_AT).ok()?;
        let sound =
            reader.array::<8>().ok()? == MAGIC && crc32c::crc32c(body) == whole.u32().ok()?;
        if sound { reader.u32().ok() } else { None }
    }

    /// Reads one slot.
    ///
    /// # Errors
    /// [`FormatError::Magic`] if the bytes are something else,
    /// [`FormatError::Version`] if they come from another version of the format,
    /// and [`FormatError::Checksum`] or [`FormatError::Malformed`] for damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "header");
        if reader.array::<8>().map_err(|_| FormatError::Magic)? != MAGIC {
            return Err(FormatError::Magic);
        }
        let version = reader.u32()?;
        let mut whole = Reader::new(bytes, "header");
        let body = whole.take(CRC_AT)?;
        if crc32c::crc32c(body) != whole.u32()? {
            // A newer version may keep its checksum elsewhere.
            return Err(if version > FORMAT_VERSION {
                FormatError::Version { found: version }
            } else {
                FormatError::Checksum("header")
            });
        }
        if version != FORMAT_VERSION {
            return Err(FormatError::Version { found: version });
        }
        let zero = reader.u32()?;
        let header = Self {
            sequence: reader.u64()?,
            database_id: reader.array()?,
            generation: reader.u64()?,
            base_lsn: reader.u64()?,
            confirmed: reader.u64()?,
            hash_seed: reader.array()?,
            marker_tag: reader.array()?,
            sealing: Sealing {
                cipher: reader.u8()?,
                kdf: reader.u8()?,
                kdf_memory_kib: {
                    if reader.u16()? != 0 {
                        return Err(FormatError::Malformed("header"));
                    }
                    reader.u32()?
                },
                kdf_passes: reader.u32()?,
                kdf_lanes: reader.u32()?,
                salt: reader.array()?,
                wrapped: [reader.array()?, reader.array()?],
                commitment: reader.array()?,
            },
            checkpoint: reader.array()?,
        };
        let rest = reader.take(ZERO_LEN)?;
        let sound = zero == 0
            && rest.iter().all(|byte| *byte == 0)
            && header.generation > 0
            && (FIRST_POSITION..=POSITION_MAX).contains(&header.confirmed)
            && header.base_lsn.checked_add(POSITION_MAX).is_some();
        if sound {
            Ok(header)
        } else {
            Err(FormatError::Malformed("header"))
        }
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The seed stays out: who knows it can aim collisions at the index.
        f.debug_struct("Header")
            .field("sequence", &self.sequence)
            .field("generation", &self.generation)
            .field("base_lsn", &self.base_lsn)
            .field("confirmed", &self.confirmed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample() -> Header {
        Header {
            sequence: 3,
            database_id: [1; 16],
            generation: 2,
            base_lsn: 77,
            confirmed: 20_000,
            hash_seed: [4; 16],
            marker_tag: [5; 16],
            sealing: Sealing {
                cipher: 1,
                kdf: 2,
                kdf_memory_kib: 3,
                kdf_passes: 4,
                kdf_lanes: 5,
                salt: [6; 32],
                wrapped: [[7; 80], [8; 80]],
                commitment: [9; 32],
            },
            checkpoint: [10; 16],
        }
    }

    #[test]
    fn every_field_comes_back() {
        assert!(Header::decode(&sample().encode()) == Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = sample().encode();
        bytes[8] = 2;
        assert!(Header::decode(&bytes) == Err(FormatError::Version { found: 2 }));
        assert!(Header::whole_slot_version(&bytes).is_none());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert!(Header::decode(&bytes) == Err(FormatError::Version { found: 2 }));
        assert!(Header::whole_slot_version(&bytes) == Some(2));
        assert!(Header::whole_slot_version(&sample().encode()) == Some(1));
        assert!(Header::whole_slot_version(&bytes[..100]).is_none());
        assert!(Header::decode(b"PK\x03\x04 something else") == Err(FormatError::Magic));
        assert!(Header::decode(&[]) == Err(FormatError::Magic));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = Header::decode(&bytes);
        }
    }
}
