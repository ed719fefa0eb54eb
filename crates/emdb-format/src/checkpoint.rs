//! The head of a checkpoint: which journal it belongs to, and where its parts lie.
//!
//! | bytes | field |
//! |-------|-------|
//! | 8 | magic |
//! | 4 | format version |
//! | 4 | length of the head with its checksum |
//! | 16 | database id |
//! | 8 | generation |
//! | 8 | position from which to replay; the image is the exact state there |
//! | 4 | next free namespace id |
//! | 8 | dead bytes below the replay position |
//! | 16 | the nonce which the journal's header has for this checkpoint |
//! | 8 | a check of the function that hashes keys |
//! | 4 | number of namespaces |
//! | | per namespace: name length (varint), name, id (varint), records, bytes of keys and values (8 each), offset and length of its index image (8 each), offset and length of the image of its keys' order (8 each) |
//! | 4 | CRC32C of the above |
//!
//! The images lie before the head, those of indexes at multiples of 4 KiB, each with
//! checksums of its own; the file is written front to back. Where the order of the keys
//! is not kept, the length of its image is 0. The file ends with a trailer:
//!
//! | bytes | field |
//! |-------|-------|
//! | 8 | where the head begins |
//! | 8 | the head's magic again |

use crate::bytes::{Reader, Writer};
use crate::error::FormatError;
use crate::limits::{FIRST_POSITION, FORMAT_VERSION, KEY_LEN_MAX, POSITION_MAX};
use crate::varint::varint_len;

const MAGIC: [u8; 8] = *b"emdbc2\r\n";
const FIXED_LEN: usize = 8 + 4 + 4 + 16 + 8 + 8 + 4 + 8 + 16 + 8 + 4;
const CRC_LEN: usize = 4;

/// One namespace in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSpace {
    /// The name; empty for the default namespace.
    pub name: String,
    /// Internal id of the incarnation.
    pub id: u32,
    /// Live records.
    pub records: u64,
    /// Bytes of live keys and values.
    pub logical_bytes: u64,
    /// Where the index image begins in the checkpoint file; a multiple of 4 KiB.
    pub image_offset: u64,
    /// Bytes of the index image.
    pub image_len: u64,
    /// Where the image of the keys' order begins in the checkpoint file.
    pub order_offset: u64,
    /// Bytes of that image; 0 if there is none.
    pub order_len: u64,
}

/// The head of a checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointHead {
    /// The database it belongs to.
    pub database_id: [u8; 16],
    /// The generation whose positions it holds.
    pub generation: u64,
    /// Position from which the journal is to be replayed.
    pub replay_from: u64,
    /// First namespace id that was never used.
    pub next_namespace: u32,
    /// Bytes of the journal below `replay_from` that no index needs.
    pub dead_bytes: u64,
    /// Random name of this checkpoint; the journal's header has it too.
    pub nonce: [u8; 16],
    /// Differs if the function that hashes keys does.
    pub hash_check: u64,
    /// The namespaces, the default one among them.
    pub spaces: Vec<CheckpointSpace>,
}

impl CheckpointHead {
    /// Bytes at the end of a checkpoint file by which its head is found.
    pub const TRAILER_LEN: usize = 8 + MAGIC.len();

    /// Bytes that [`encode`](Self::encode) gives; depends on names and ids only.
    pub fn encoded_len(&self) -> usize {
        let spaces: usize = self
            .spaces
            .iter()
            .map(|space| {
                varint_len(space.name.len() as u64)
                    + space.name.len()
                    + varint_len(u64::from(space.id))
                    + 6 * size_of::<u64>()
            })
            .sum();
        FIXED_LEN + spaces + CRC_LEN
    }

    /// Encodes the head.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if there are more namespaces than the head can count,
    /// or a name is longer than a key.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let len = self.encoded_len();
        let too_large = |what| FormatError::TooLarge {
            what,
            len: len as u64,
            max: u64::from(u32::MAX),
        };
        let mut bytes = vec![0; len];
        let mut out = Writer::new(&mut bytes);
        out.put(&MAGIC)?;
        out.u32(FORMAT_VERSION)?;
        out.u32(u32::try_from(len).map_err(|_| too_large("checkpoint head"))?)?;
        out.put(&self.database_id)?;
        out.u64(self.generation)?;
        out.u64(self.replay_from)?;
        out.u32(self.next_namespace)?;
        out.u64(self.dead_bytes)?;
        out.put(&self.nonce)?;
        out.u64(self.hash_check)?;
        out.u32(u32::try_from(self.spaces.len()).map_err(|_| too_large("namespace count"))?)?;
        for space in &self.spaces {
            if space.name.len() > KEY_LEN_MAX {
                return Err(FormatError::TooLarge {
                    what: "namespace name",
                    len: space.name.len() as u64,
                    max: KEY_LEN_MAX as u64,
                });
            }
            out.varint(space.name.len() as u64)?;
            out.put(space.name.as_bytes())?;
            out.varint(u64::from(space.id))?;
            out.u64(space.records)?;
            out.u64(space.logical_bytes)?;
            out.u64(space.image_offset)?;
            out.u64(space.image_len)?;
            out.u64(space.order_offset)?;
            out.u64(space.order_len)?;
        }
        let (body, crc) = bytes.split_at_mut(len - CRC_LEN);
        crc.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        Ok(bytes)
    }

    /// The trailer of a checkpoint file whose head begins at `offset`.
    pub fn trailer(offset: u64) -> [u8; Self::TRAILER_LEN] {
        let mut bytes = [0; Self::TRAILER_LEN];
        let mut out = Writer::new(&mut bytes);
        // The buffer has exactly the room for both fields.
        let _ = out.u64(offset).and_then(|()| out.put(&MAGIC));
        bytes
    }

    /// Where the head begins in a checkpoint file with this trailer.
    ///
    /// # Errors
    /// [`FormatError`] if it is none.
    pub fn offset(trailer: &[u8]) -> Result<u64, FormatError> {
        let mut reader = Reader::new(trailer, "checkpoint trailer");
        let offset = reader.u64().map_err(|_| FormatError::Magic)?;
        if reader.array::<8>()? != MAGIC {
            return Err(FormatError::Magic);
        }
        Ok(offset)
    }

    /// Reads the head of a whole checkpoint file.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_file(file: &[u8]) -> Result<Self, FormatError> {
        let trailer = file
            .len()
            .checked_sub(Self::TRAILER_LEN)
            .and_then(|at| file.get(at..));
        let offset = Self::offset(trailer.unwrap_or(&[]))?;
        let head = usize::try_from(offset).ok().and_then(|at| file.get(at..));
        Self::decode(head.ok_or(FormatError::Truncated("checkpoint file"))?)
    }

    /// Reads the head at the front of `bytes`.
    ///
    /// # Errors
    /// [`FormatError`] for anything but a whole head; the checkpoint is then to be
    /// ignored and the journal replayed.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "checkpoint head";
        let mut reader = Reader::new(bytes, WHAT);
        if reader.array::<8>().map_err(|_| FormatError::Magic)? != MAGIC {
            return Err(FormatError::Magic);
        }
        let version = reader.u32()?;
        if version != FORMAT_VERSION {
            return Err(FormatError::Version { found: version });
        }
        let len = reader.u32()? as usize;
        let mut whole = Reader::new(bytes, WHAT);
        let body = whole.take(
            len.checked_sub(CRC_LEN)
                .ok_or(FormatError::Malformed(WHAT))?,
        )?;
        if crc32c::crc32c(body) != whole.u32()? {
            return Err(FormatError::Checksum(WHAT));
        }
        let mut reader = Reader::new(body, WHAT);
        reader.take(8 + 4 + 4)?;
        let mut head = Self {
            database_id: reader.array()?,
            generation: reader.u64()?,
            replay_from: reader.u64()?,
            next_namespace: reader.u32()?,
            dead_bytes: reader.u64()?,
            nonce: reader.array()?,
            hash_check: reader.u64()?,
            spaces: Vec::new(),
        };
        let count = reader.u32()?;
        // Grows with what is really there, never with what `count` claims.
        for _ in 0..count {
            let name_len = reader.varint()? as usize;
            if name_len > KEY_LEN_MAX {
                return Err(FormatError::Malformed(WHAT));
            }
            let name = std::str::from_utf8(reader.take(name_len)?)
                .map_err(|_| FormatError::Malformed(WHAT))?
                .to_owned();
            head.spaces.push(CheckpointSpace {
                name,
                id: reader.varint_u32()?,
                records: reader.u64()?,
                logical_bytes: reader.u64()?,
                image_offset: reader.u64()?,
                image_len: reader.u64()?,
                order_offset: reader.u64()?,
                order_len: reader.u64()?,
            });
        }
        reader.end()?;
        if (FIRST_POSITION..=POSITION_MAX).contains(&head.replay_from) {
            Ok(head)
        } else {
            Err(FormatError::Malformed(WHAT))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> CheckpointHead {
        let space = |name: &str, id| CheckpointSpace {
            name: name.to_owned(),
            id,
            records: 5,
            logical_bytes: 6,
            image_offset: 4096,
            image_len: 8192,
            order_offset: 12_288,
            order_len: 700,
        };
        CheckpointHead {
            database_id: [1; 16],
            generation: 2,
            replay_from: 30_000,
            next_namespace: 4,
            dead_bytes: 5,
            nonce: [6; 16],
            hash_check: 7,
            spaces: vec![space("", 0), space("users", 300)],
        }
    }

    #[test]
    fn round_trip_with_bytes_behind() {
        let mut bytes = sample().encode().unwrap();
        assert_eq!(bytes.len(), sample().encoded_len());
        bytes.extend([0xff; 100]);
        assert_eq!(CheckpointHead::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn name_that_decoding_would_refuse_is_not_encoded() {
        let mut head = sample();
        head.spaces[1].name = "n".repeat(KEY_LEN_MAX);
        let bytes = head.encode().unwrap();
        assert_eq!(CheckpointHead::decode(&bytes), Ok(head.clone()));
        head.spaces[1].name.push('n');
        let refused = head.encode();
        assert!(
            matches!(refused, Err(FormatError::TooLarge { len, .. }) if len == 65_537),
            "{refused:?}"
        );
    }

    #[test]
    fn a_whole_file_is_read_from_its_end() {
        let mut file = vec![7; 4096];
        file.extend(sample().encode().unwrap());
        file.extend(CheckpointHead::trailer(4096));
        assert_eq!(CheckpointHead::decode_file(&file), Ok(sample()));
        for len in 0..file.len() {
            assert!(
                CheckpointHead::decode_file(&file[..len]).is_err(),
                "length {len}"
            );
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let bytes = sample().encode().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(CheckpointHead::decode(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(
                CheckpointHead::decode(&bytes[..len]).is_err(),
                "length {len}"
            );
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut whole = sample().encode().unwrap();
            whole.truncate(16);
            whole.extend(bytes);
            let _ = CheckpointHead::decode(&whole);
        }
    }
}
