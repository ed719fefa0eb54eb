//! Sync markers: the journal's own proof of how far it has been synced.
//!
//! A marker lies at a multiple of 64 bytes inside a filler frame, whose key is the
//! padding up to there and whose value is the marker.
//!
//! | offset | bytes | field |
//! |--------|-------|-------|
//! | 0 | 16 | the generation's random tag |
//! | 16 | 8 | the marker's own LSN |
//! | 24 | 8 | LSN below which everything was synced before the marker was written |
//! | 32 | 16 | what authenticates the marker in a sealed journal, else zero |
//! | 48 | 12 | zero |
//! | 60 | 4 | CRC32C of the above, started from the stamp |

use crate::bytes::{Reader, Writer};
use crate::error::FormatError;
use crate::frame::{FrameSpec, Kind, Stamp};
use crate::limits::{MARKER_ALIGN, MARKER_BYTES};

/// Head of a filler frame with up to 127 bytes of padding and a marker.
const FILLER_HEAD: u64 = 4 + 1 + 1 + 1;
const ZERO_LEN: usize = 12;
const AUTHENTICATED_LEN: usize = 32 + 8;
const PADDING: [u8; MARKER_ALIGN as usize] = [0; MARKER_ALIGN as usize];

/// A sync marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// LSN of the marker's first byte.
    pub lsn: u64,
    /// Everything below this LSN was on stable storage when the marker was written.
    pub synced: u64,
    /// What authenticates the marker in a sealed journal; zero in another.
    pub code: [u8; 16],
}

impl Marker {
    /// The marker of a filler frame that begins at `position`, without a code; `base` is
    /// the LSN of position 0.
    pub fn at(base: u64, position: u64, synced: u64) -> Self {
        let marker_at = position
            .saturating_add(FILLER_HEAD)
            .saturating_add(padding_at(position));
        Self {
            lsn: base.saturating_add(marker_at),
            synced,
            code: [0; 16],
        }
    }

    /// What the code authenticates: the marker's first bytes, and the LSN at which its frame
    /// begins. Otherwise the padding could grow over the frame before it.
    pub fn authenticated(&self, tag: &[u8; 16], frame_lsn: u64) -> [u8; AUTHENTICATED_LEN] {
        let mut bytes = [0; AUTHENTICATED_LEN];
        let mut out = Writer::new(&mut bytes);
        // There is room for the four fields.
        let _ = self
            .encode_fields(&mut out, tag)
            .and_then(|()| out.u64(frame_lsn));
        bytes
    }

    fn encode_fields(&self, out: &mut Writer<'_>, tag: &[u8; 16]) -> Result<(), FormatError> {
        out.put(tag)?;
        out.u64(self.lsn)?;
        out.u64(self.synced)
    }

    /// The marker's bytes.
    pub fn encode(&self, tag: &[u8; 16], stamp: Stamp) -> [u8; MARKER_BYTES] {
        let mut bytes = [0; MARKER_BYTES];
        let (body, crc) = bytes.split_at_mut(MARKER_BYTES - size_of::<u32>());
        let mut out = Writer::new(body);
        // The body has room for the fields.
        let _ = self
            .encode_fields(&mut out, tag)
            .and_then(|()| out.put(&self.code));
        crc.copy_from_slice(&stamp.checksum(body).to_le_bytes());
        bytes
    }

    /// Reads a marker of this generation; `None` if the bytes are none, or if the
    /// marker did not stand at `lsn` when it was written.
    pub fn decode(bytes: &[u8], tag: &[u8; 16], stamp: Stamp, lsn: u64) -> Option<Self> {
        if !bytes.starts_with(tag) {
            return None;
        }
        let mut reader = Reader::new(bytes, "marker");
        let body = reader.take(MARKER_BYTES - size_of::<u32>()).ok()?;
        let crc = reader.u32().ok()?;
        if stamp.checksum(body) != crc {
            return None;
        }
        let mut reader = Reader::new(body, "marker");
        reader.take(tag.len()).ok()?;
        let marker = Self {
            lsn: reader.u64().ok()?,
            synced: reader.u64().ok()?,
            code: reader.array().ok()?,
        };
        let zeros = reader.take(ZERO_LEN).ok()?;
        (marker.lsn == lsn && marker.synced <= lsn && zeros.iter().all(|byte| *byte == 0))
            .then_some(marker)
    }

    /// Encodes a filler frame that begins at `position` and holds the marker at the
    /// first aligned place; `base` is the LSN of position 0. The marker must be
    /// [`at`](Self::at) that position.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] if `out` is shorter than [`marker_frame_len`].
    pub fn encode_frame(
        &self,
        out: &mut [u8],
        tag: &[u8; 16],
        stamp: Stamp,
        base: u64,
        position: u64,
    ) -> Result<usize, FormatError> {
        let padding = padding_at(position);
        let key = PADDING
            .get(..padding as usize)
            .ok_or(FormatError::Malformed("padding"))?;
        let value = self.encode(tag, stamp);
        FrameSpec::new(Kind::Filler, key, &value).encode_into(
            out,
            stamp,
            base.saturating_add(position),
        )
    }
}

/// Bytes of a filler frame that begins at `position` and holds a marker; at most 134.
#[inline]
pub fn marker_frame_len(position: u64) -> usize {
    (FILLER_HEAD + padding_at(position)) as usize + MARKER_BYTES
}

#[inline]
fn padding_at(position: u64) -> u64 {
    let end = position.wrapping_add(FILLER_HEAD);
    end.wrapping_neg() % MARKER_ALIGN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn marker_frames_are_aligned_and_found(position in 16_384_u64..1 << 43, base in 0_u64..1 << 50) {
            let stamp = Stamp::new(&[3; 16], 9);
            let tag = [0xab; 16];
            let mut bytes = vec![0; marker_frame_len(position)];
            let made = Marker::at(base, position, base + 5);
            let len = made.encode_frame(&mut bytes, &tag, stamp, base, position).unwrap();
            prop_assert_eq!(len, bytes.len());
            prop_assert!(len <= 134);
            let frame = Frame::parse(&bytes).unwrap();
            prop_assert!(frame.verify(stamp, base + position).is_ok());
            prop_assert_eq!(frame.kind, Kind::Filler);
            let at = position + (len - MARKER_BYTES) as u64;
            prop_assert_eq!(at % MARKER_ALIGN, 0);
            let marker = Marker::decode(frame.value, &tag, stamp, base + at);
            prop_assert_eq!(marker, Some(Marker { lsn: base + at, synced: base + 5, code: [0; 16] }));
            prop_assert_eq!(Marker::decode(frame.value, &tag, stamp, base + at + 64), None);
            prop_assert_eq!(Marker::decode(frame.value, &[0; 16], stamp, base + at), None);
        }

        #[test]
        fn a_flipped_bit_is_no_marker(bit in 0_usize..MARKER_BYTES * 8) {
            let stamp = Stamp::new(&[3; 16], 9);
            let tag = [0xab; 16];
            let mut bytes = Marker { lsn: 64, synced: 10, code: [7; 16] }.encode(&tag, stamp);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Marker::decode(&bytes, &tag, stamp, 64), None);
        }
    }
}
