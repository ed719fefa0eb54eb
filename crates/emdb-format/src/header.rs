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
//! | 97 | 7 | zero |
//! | 104 | 224 | two key slots of 112 bytes; all zero for an empty one |
//! | 328 | 8 | zero |
//! | 336 | 16 | nonce of the newest checkpoint, zero for none |
//! | 352 | 16 | nonce of the checkpoint that it takes the place of, zero for none |
//! | 368 | 16 | salt of the epoch of the last confirmed frame, zero for none |
//! | 384 | 3676 | zero |
//! | 4060 | 32 | code that authenticates all of the above, zero in a plaintext database |
//! | 4092 | 4 | CRC32C of the above |

use crate::bytes::{Reader, Writer};
use crate::error::FormatError;
use crate::limits::{FIRST_POSITION, FORMAT_VERSION, HEADER_SLOT_BYTES, POSITION_MAX};

const MAGIC: [u8; 8] = *b"emdb\x00\r\n\x1a";
const CRC_AT: usize = HEADER_SLOT_BYTES - size_of::<u32>();
const CODE_LEN: usize = 32;
const CODE_AT: usize = CRC_AT - CODE_LEN;
const KEY_SLOT_LEN: usize = 112;
const ZERO_LEN: usize = CODE_AT - 384;

/// A wrapped master key. What its bytes mean is decided in `emdb-crypto`.
pub type KeySlot = [u8; KEY_SLOT_LEN];

/// How the database is sealed; all zero for a plaintext one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sealing {
    /// Cipher id, 0 for none.
    pub cipher: u8,
    /// Each opens the database by itself. All zero for an empty one.
    pub key_slots: [KeySlot; 2],
    /// Salt of the epoch in which the last confirmed frame lies; zero if there is none.
    pub epoch: [u8; 16],
    /// Authenticates the header: made with a key from its [`authenticated`](Header::authenticated)
    /// bytes.
    pub code: [u8; CODE_LEN],
}

impl Default for Sealing {
    fn default() -> Self {
        Self {
            cipher: 0,
            key_slots: [[0; KEY_SLOT_LEN]; 2],
            epoch: [0; 16],
            code: [0; CODE_LEN],
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
    /// Name of the checkpoint that the newest one takes the place of: it counts, too, as
    /// the newest one may have been named and never written.
    pub checkpoint_before: [u8; 16],
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

    /// What the code of a sealed database authenticates: every byte of the slot before it.
    pub fn authenticated(&self) -> [u8; CODE_AT] {
        let bytes = self.encode();
        bytes.first_chunk().copied().unwrap_or([0; CODE_AT])
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
        out.put(&[0; 7])?;
        for key_slot in &self.sealing.key_slots {
            out.put(key_slot)?;
        }
        out.put(&[0; 8])?;
        out.put(&self.checkpoint)?;
        out.put(&self.checkpoint_before)?;
        out.put(&self.sealing.epoch)?;
        out.put(&[0; ZERO_LEN])?;
        out.put(&self.sealing.code)
    }

    /// Whether a checkpoint of that name belongs to this journal.
    pub fn names(&self, checkpoint: &[u8; 16]) -> bool {
        const NONE: [u8; 16] = [0; 16];
        *checkpoint != NONE && [&self.checkpoint, &self.checkpoint_before].contains(&checkpoint)
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
        let zero = reader.u32()? == 0;
        let sequence = reader.u64()?;
        let database_id = reader.array()?;
        let generation = reader.u64()?;
        let base_lsn = reader.u64()?;
        let confirmed = reader.u64()?;
        let hash_seed = reader.array()?;
        let marker_tag = reader.array()?;
        let cipher = reader.u8()?;
        let zero = reader.array()? == [0; 7] && zero;
        let key_slots = [reader.array()?, reader.array()?];
        let zero = reader.array()? == [0; 8] && zero;
        let checkpoint = reader.array()?;
        let checkpoint_before = reader.array()?;
        let epoch = reader.array()?;
        let zero = reader.array()? == [0; ZERO_LEN] && zero;
        let header = Self {
            sequence,
            database_id,
            generation,
            base_lsn,
            confirmed,
            hash_seed,
            marker_tag,
            sealing: Sealing {
                cipher,
                key_slots,
                epoch,
                code: reader.array()?,
            },
            checkpoint,
            checkpoint_before,
        };
        let sound = zero
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
                key_slots: [[7; 112], [8; 112]],
                epoch: [8; 16],
                code: [9; 32],
            },
            checkpoint: [10; 16],
            checkpoint_before: [11; 16],
        }
    }

    #[test]
    fn every_field_comes_back() {
        assert!(Header::decode(&sample().encode()) == Ok(sample()));
    }

    #[test]
    fn everything_but_code_and_checksum_is_authenticated() {
        let header = sample();
        let bytes = header.authenticated();
        assert_eq!(bytes[..], header.encode()[..4060]);
        let mut other = header;
        other.sealing.code = [1; 32];
        assert!(other.authenticated() == bytes);
        other.sealing.key_slots[1][111] ^= 1;
        assert!(other.authenticated() != bytes);
    }

    #[test]
    fn zeros_that_are_none_are_malformed() {
        let bytes = sample().encode();
        for at in (12..16).chain(97..104).chain(328..336).chain(384..4060) {
            let mut bytes = bytes;
            bytes[at] = 1;
            let crc = crc32c::crc32c(&bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            let read = Header::decode(&bytes);
            assert!(read == Err(FormatError::Malformed("header")), "byte {at}");
        }
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
