//! Sealed frames: the envelope of a record that only the key's owner can read.
//!
//! This module lays the parts out; it knows no cipher. Who has the key seals the parts of a
//! frame in place after [`FrameSpec::store_unsealed`] and before [`SealedLayout::finish`], and
//! opens copies of them to get a [`Frame`] by [`SealedFrame::frame`].
//!
//! | bytes | field | present |
//! |-------|-------|---------|
//! | 4 | CRC32C of all that follows but a large value, started from the [`Stamp`] and the LSN | always |
//! | 1 | flags: 0x80, or 0x81 with a large value | always |
//! | 1 to 3 | length of the head, varint | always |
//! | 1 to 5 | value length, varint | large value |
//! | 4 | CRC32C of the large value's bytes and tag as they stand here, started from the stamp | large value |
//! | | head, sealed | always |
//! | 16 | tag of the head | always |
//! | | value, sealed | large value |
//! | 16 | tag of the value | large value |
//!
//! The head, once opened, is a flags byte as plain frames have it, the key length, the
//! optional fields in the order of plain frames, the key, and the value unless it is large.
//! A value above 16 KiB is large: it is sealed by itself, so that a key can be read without it.

use std::ops::Range;

use crate::bytes::{Reader, Writer};
use crate::error::FormatError;
use crate::frame::{Frame, FrameSpec, Stamp, is_plain_put};
use crate::limits::{KEY_LEN_MAX, VALUE_INLINE_MAX, VALUE_LEN_MAX};
use crate::varint::varint_len;

const CRC_LEN: usize = size_of::<u32>();
const SEALED: u8 = 0x80;
const SEALED_LARGE: u8 = 0x81;
const TAG_LEN: usize = 16;
/// Flags, key length, namespace, expiry and previous version.
const FIELDS_MAX: usize = 1 + 3 + 5 + 10 + 15;
const HEAD_LEN_MAX: usize = FIELDS_MAX + KEY_LEN_MAX + VALUE_INLINE_MAX;

/// Where the parts of a sealed frame lie, counted from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedLayout {
    /// Where flags and lengths end.
    clear_end: usize,
    head_at: usize,
    head_len: usize,
    value_len: Option<usize>,
    /// Bytes of the whole frame, which everything asks for.
    len: usize,
}

impl SealedLayout {
    #[inline]
    fn new(head_len: usize, value_len: Option<usize>) -> Self {
        let value_len_len = value_len.map_or(0, |len| varint_len(len as u64));
        let clear_end = CRC_LEN + 1 + varint_len(head_len as u64) + value_len_len;
        let (value_crc_len, value_and_tag_len) =
            value_len.map_or((0, 0), |len| (CRC_LEN, len + TAG_LEN));
        let head_at = clear_end + value_crc_len;
        Self {
            clear_end,
            head_at,
            head_len,
            value_len,
            len: head_at + head_len + TAG_LEN + value_and_tag_len,
        }
    }

    /// Bytes of the whole frame.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// What is in the clear and authenticated with the head: flags and lengths of a frame
    /// with a large value. A frame without one has nothing there that the tag does not
    /// tell already, since it depends on the length of what is sealed.
    #[inline]
    pub fn clear(&self) -> Range<usize> {
        match self.value_len {
            None => CRC_LEN..CRC_LEN,
            Some(_) => CRC_LEN..self.clear_end,
        }
    }

    /// Flags and lengths.
    fn lengths(&self) -> Range<usize> {
        CRC_LEN..self.clear_end
    }

    /// The head; its nonce is the frame's LSN.
    #[inline]
    pub fn head(&self) -> Range<usize> {
        self.head_at..self.head_at + self.head_len
    }

    /// The head's tag.
    #[inline]
    pub fn head_tag(&self) -> Range<usize> {
        let end = self.head().end;
        end..end + TAG_LEN
    }

    /// A large value; its nonce is the LSN of its first byte.
    #[inline]
    pub fn value(&self) -> Option<Range<usize>> {
        let at = self.head_tag().end;
        self.value_len.map(|len| at..at + len)
    }

    /// The tag of a large value.
    #[inline]
    pub fn value_tag(&self) -> Option<Range<usize>> {
        self.value().map(|value| value.end..value.end + TAG_LEN)
    }

    /// Gives a frame, all of whose parts are sealed, its checksums; returns that of the frame.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] if `frame` has not the layout's length.
    #[inline]
    pub fn finish(&self, frame: &mut [u8], stamp: Stamp, lsn: u64) -> Result<u32, FormatError> {
        const WRONG: FormatError = FormatError::Truncated("output buffer");
        if frame.len() != self.len() {
            return Err(WRONG);
        }
        let (head, value) = frame
            .split_at_mut_checked(self.head_tag().end)
            .ok_or(WRONG)?;
        if self.value_len.is_some() {
            let crc = stamp.checksum(value).to_le_bytes();
            let at = self.clear_end..self.head_at;
            head.get_mut(at).ok_or(WRONG)?.copy_from_slice(&crc);
        }
        let (crc, covered) = head.split_first_chunk_mut::<CRC_LEN>().ok_or(WRONG)?;
        let checksum = stamp.checksum_at(lsn, covered);
        *crc = checksum.to_le_bytes();
        Ok(checksum)
    }
}

impl FrameSpec<'_> {
    /// How the frame is laid out when it is sealed.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if the key or the value is over the limit.
    #[inline]
    pub fn sealed_layout(&self) -> Result<SealedLayout, FormatError> {
        let fields = self.fields_len()?;
        let head = 1 + varint_len(self.key.len() as u64) + fields + self.key.len();
        Ok(if self.value.len() > VALUE_INLINE_MAX {
            SealedLayout::new(head, Some(self.value.len()))
        } else {
            SealedLayout::new(head + self.value.len(), None)
        })
    }

    /// Stores what is in the clear, and what is still to be sealed, where they belong.
    /// Checksums and tags are left alone.
    ///
    /// Never let `out` be the file, or memory that stands for it.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] if `out` has not the layout's length;
    /// [`FormatError::Malformed`] if the link to the previous version is impossible.
    #[inline]
    pub fn store_unsealed(&self, layout: &SealedLayout, out: &mut [u8]) -> Result<(), FormatError> {
        if out.len() != layout.len() {
            return Err(FormatError::Truncated("output buffer"));
        }
        match self.store_short(layout, out) {
            Some(()) => Ok(()),
            None => self.store_any(layout, out),
        }
    }

    #[inline(never)]
    fn store_any(&self, layout: &SealedLayout, out: &mut [u8]) -> Result<(), FormatError> {
        const WRONG: FormatError = FormatError::Truncated("output buffer");
        let mut clear = Writer::new(out.get_mut(layout.lengths()).ok_or(WRONG)?);
        match layout.value_len {
            None => {
                clear.u8(SEALED)?;
                clear.varint(layout.head_len as u64)?;
            }
            Some(len) => {
                clear.u8(SEALED_LARGE)?;
                clear.varint(layout.head_len as u64)?;
                clear.varint(len as u64)?;
            }
        }
        let mut head = Writer::new(out.get_mut(layout.head()).ok_or(WRONG)?);
        head.u8(self.flags())?;
        head.varint(self.key.len() as u64)?;
        self.write_fields(&mut head)?;
        head.put(self.key)?;
        match layout.value() {
            None => head.put(self.value),
            Some(value) => {
                let value = out.get_mut(value).ok_or(WRONG)?;
                if value.len() != self.value.len() {
                    return Err(WRONG);
                }
                value.copy_from_slice(self.value);
                Ok(())
            }
        }
    }
}

impl FrameSpec<'_> {
    /// What `store_unsealed` does with nearly every record: one with a short key, and
    /// without optional fields. `None` says that this is another one.
    #[inline]
    fn store_short(&self, layout: &SealedLayout, out: &mut [u8]) -> Option<()> {
        let flags = self.flags();
        if !is_plain_put(flags) || self.key.len() >= 0x80 || layout.value_len.is_some() {
            return None;
        }
        let (front, rest) = out.split_at_mut_checked(layout.head_at + 2)?;
        let len = layout.head_len;
        match front {
            [_, _, _, _, sealed, low, inner, key_len] => {
                (*sealed, *low) = (SEALED, len as u8);
                (*inner, *key_len) = (flags, self.key.len() as u8);
            }
            [_, _, _, _, sealed, low, high, inner, key_len] => {
                (*sealed, *low, *high) = (SEALED, len as u8 | 0x80, (len >> 7) as u8);
                (*inner, *key_len) = (flags, self.key.len() as u8);
            }
            _ => return None,
        }
        let (key, rest) = rest.split_at_mut_checked(self.key.len())?;
        let (value, _) = rest.split_at_mut_checked(self.value.len())?;
        key.copy_from_slice(self.key);
        value.copy_from_slice(self.value);
        Some(())
    }
}

/// A sealed frame as it lies in the journal.
///
/// Parsing checks bounds only. The checksum tells whether the bytes are those that were
/// written there; whether the key's owner wrote them is told by opening.
#[derive(Debug, Clone, Copy)]
pub struct SealedFrame<'a> {
    layout: SealedLayout,
    bytes: &'a [u8],
    crc: u32,
    value_crc: Option<u32>,
}

impl<'a> SealedFrame<'a> {
    /// Parses the sealed frame at the front of `bytes`, which may go on behind it.
    ///
    /// # Errors
    /// As [`Frame::parse`]; [`FormatError::Malformed`] for a plain frame, too.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, "frame");
        let crc = reader.u32()?;
        let flags = reader.u8()?;
        if flags == 0 {
            return Err(FormatError::Empty);
        }
        let head_len = reader.varint()?;
        if head_len > HEAD_LEN_MAX as u64 {
            return Err(FormatError::Malformed("frame lengths"));
        }
        let (value_len, value_crc) = match flags {
            SEALED => (None, None),
            SEALED_LARGE => {
                let len = reader.varint()?;
                if len > VALUE_LEN_MAX as u64 || len <= VALUE_INLINE_MAX as u64 {
                    return Err(FormatError::Malformed("frame lengths"));
                }
                (Some(len as usize), Some(reader.u32()?))
            }
            _ => return Err(FormatError::Malformed("frame flags")),
        };
        let layout = SealedLayout::new(head_len as usize, value_len);
        let bytes = bytes
            .get(..layout.len())
            .ok_or(FormatError::Truncated("frame"))?;
        Ok(Self {
            layout,
            bytes,
            crc,
            value_crc,
        })
    }

    /// Head and tag of the frame at the front of `bytes`, if it is sealed and without a large
    /// value: the common case of [`parse`](Self::parse), in a few instructions. `None` says
    /// nothing.
    #[inline]
    pub fn small(bytes: &[u8]) -> Option<(&[u8], &[u8; TAG_LEN])> {
        let [_, _, _, _, flags, low, high] = *bytes.first_chunk::<7>()?;
        let (at, len) = match (flags, low, high) {
            (SEALED, ..0x80, _) => (6, usize::from(low)),
            (SEALED, _, ..0x80) => (7, usize::from(low & 0x7f) | usize::from(high) << 7),
            _ => return None,
        };
        let (head, rest) = bytes.get(at..)?.split_at_checked(len)?;
        Some((head, rest.first_chunk()?))
    }

    /// The value, if this is the opened head of a record of the default namespace with this
    /// key, without expiry or link. `None` says nothing.
    #[inline]
    pub fn plain_value<'b>(head: &'b [u8], key: &[u8]) -> Option<&'b [u8]> {
        let ([flags, key_len], rest) = head.split_first_chunk()?;
        if !is_plain_put(*flags) || *key_len >= 0x80 || usize::from(*key_len) != key.len() {
            return None;
        }
        let (stored, value) = rest.split_at_checked(key.len())?;
        (stored == key).then_some(value)
    }

    /// Where the parts lie in [`bytes`](Self::bytes).
    pub fn layout(&self) -> &SealedLayout {
        &self.layout
    }

    /// The whole frame.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// A part of the frame.
    pub fn part(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or(&[])
    }

    /// Checks everything but a large value against the checksum.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] if a byte differs from what was written at `lsn`.
    pub fn verify_head(&self, stamp: Stamp, lsn: u64) -> Result<(), FormatError> {
        if stamp.checksum_at(lsn, self.covered()) == self.crc {
            Ok(())
        } else {
            Err(FormatError::Checksum("frame"))
        }
    }

    /// Checks every byte against the checksums.
    ///
    /// # Errors
    /// As [`verify_head`](Self::verify_head).
    pub fn verify(&self, stamp: Stamp, lsn: u64) -> Result<(), FormatError> {
        self.verify_head(stamp, lsn)?;
        let value = self.part(self.layout.head_tag().end..self.bytes.len());
        match self.value_crc {
            Some(crc) if stamp.checksum(value) != crc => Err(FormatError::Checksum("value")),
            _ => Ok(()),
        }
    }

    fn covered(&self) -> &'a [u8] {
        self.part(CRC_LEN..self.layout.head_tag().end)
    }

    /// The frame, from the parts as they are once opened. `value` is the large value;
    /// without it, the value of a frame that has one is left out: it is empty, and only its
    /// [length](Frame::value_len) is told.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] and [`FormatError::Truncated`] for what no writer seals.
    pub fn frame<'b>(
        &self,
        head: &'b [u8],
        value: Option<&'b [u8]>,
    ) -> Result<Frame<'b>, FormatError>
    where
        'a: 'b,
    {
        let value = match (self.layout.value_len, value) {
            (Some(len), Some(value)) if len != value.len() => {
                return Err(FormatError::Truncated("value"));
            }
            (Some(len), value) => Some((value.unwrap_or(&[]), len)),
            (None, _) => None,
        };
        Frame::opened(head, value, self.bytes.len(), self.crc, self.covered())
    }
}

/// A frame, sealed or not: what can be told of both without a key.
#[derive(Debug, Clone, Copy)]
pub enum AnyFrame<'a> {
    /// A plain frame.
    Plain(Frame<'a>),
    /// A sealed one.
    Sealed(SealedFrame<'a>),
}

impl<'a> AnyFrame<'a> {
    /// Parses the frame at the front of `bytes`, which may go on behind it.
    ///
    /// # Errors
    /// As [`Frame::parse`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        match bytes.get(CRC_LEN) {
            Some(flags) if flags & SEALED != 0 => SealedFrame::parse(bytes).map(Self::Sealed),
            _ => Frame::parse(bytes).map(Self::Plain),
        }
    }

    /// Bytes of the whole frame.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(frame) => frame.len(),
            Self::Sealed(frame) => frame.bytes().len(),
        }
    }

    /// Checks everything but a value above 16 KiB.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] if a byte differs from what was written at `lsn`.
    pub fn verify_head(&self, stamp: Stamp, lsn: u64) -> Result<(), FormatError> {
        match self {
            Self::Plain(frame) => frame.verify_head(stamp, lsn),
            Self::Sealed(frame) => frame.verify_head(stamp, lsn),
        }
    }

    /// Checks every byte of the frame.
    ///
    /// # Errors
    /// As [`verify_head`](Self::verify_head).
    pub fn verify(&self, stamp: Stamp, lsn: u64) -> Result<(), FormatError> {
        match self {
            Self::Plain(frame) => frame.verify(stamp, lsn),
            Self::Sealed(frame) => frame.verify(stamp, lsn),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Kind, Previous};

    const LSN: u64 = 77_777;

    fn stamp() -> Stamp {
        Stamp::new(&[9; 16], 3)
    }

    /// Stores a frame under a cipher that changes nothing.
    fn stored(spec: &FrameSpec<'_>) -> Vec<u8> {
        let layout = spec.sealed_layout().unwrap();
        let mut bytes = vec![0; layout.len()];
        spec.store_unsealed(&layout, &mut bytes).unwrap();
        layout.finish(&mut bytes, stamp(), LSN).unwrap();
        bytes
    }

    fn check(spec: &FrameSpec<'_>) {
        let mut bytes = stored(spec);
        let len = bytes.len();
        bytes.extend_from_slice(b"what follows");
        let sealed = SealedFrame::parse(&bytes).unwrap();
        assert_eq!(sealed.bytes().len(), len);
        sealed.verify(stamp(), LSN).unwrap();
        assert!(sealed.verify(stamp(), LSN + 1).is_err());
        let layout = sealed.layout();
        let head = sealed.part(layout.head());
        let value = layout.value().map(|value| sealed.part(value));
        let frame = sealed.frame(head, value).unwrap();
        assert_eq!(
            (frame.kind, frame.batch, frame.namespace),
            (spec.kind, spec.batch, spec.namespace)
        );
        assert_eq!(
            (frame.expires_at_ms, frame.previous),
            (spec.expires_at_ms, spec.previous)
        );
        assert_eq!((frame.key, frame.value), (spec.key, spec.value));
        assert_eq!((frame.len(), frame.value_len()), (len, spec.value.len()));
        frame.verify(stamp(), 0).unwrap();
    }

    #[test]
    fn a_record_costs_at_most_24_bytes_more_than_plain() {
        let spec = FrameSpec::new(Kind::Put, &[1; 24], &[2; 150]);
        let plain = spec.encoded_len().unwrap();
        assert!(spec.sealed_layout().unwrap().len() <= plain + 24);
        let spec = FrameSpec::new(Kind::Put, &[1; 24], &[2; 16_384]);
        let plain = spec.encoded_len().unwrap();
        assert!(spec.sealed_layout().unwrap().len() <= plain + 24);
    }

    #[test]
    fn a_large_value_may_be_left_out() {
        let value = vec![5; 16_385];
        let bytes = stored(&FrameSpec::new(Kind::Put, b"key", &value));
        let sealed = SealedFrame::parse(&bytes).unwrap();
        let frame = sealed
            .frame(sealed.part(sealed.layout().head()), None)
            .unwrap();
        assert_eq!((frame.key, frame.value), (&b"key"[..], &b""[..]));
        assert_eq!(frame.value_len(), value.len());
        assert!(frame.has_large_value());
        assert_eq!(
            sealed
                .frame(sealed.part(sealed.layout().head()), Some(&value[1..]))
                .err(),
            Some(FormatError::Truncated("value"))
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for value in [vec![5; 20], vec![5; 16_385]] {
            let bytes = stored(&FrameSpec::new(Kind::Put, b"key", &value));
            for bit in (0..400).chain((bytes.len() * 8).saturating_sub(400)..bytes.len() * 8) {
                let mut damaged = bytes.clone();
                let Some(byte) = damaged.get_mut(bit / 8) else {
                    continue;
                };
                *byte ^= 1 << (bit % 8);
                let sealed = SealedFrame::parse(&damaged);
                assert!(
                    sealed.is_err() || sealed.is_ok_and(|it| it.verify(stamp(), LSN).is_err()),
                    "bit {bit}"
                );
            }
        }
    }

    #[test]
    fn plain_and_sealed_frames_are_not_taken_for_each_other() {
        let spec = FrameSpec::new(Kind::Put, b"key", b"value");
        assert!(Frame::parse(&stored(&spec)).is_err());
        let mut plain = vec![0; spec.encoded_len().unwrap()];
        spec.encode_into(&mut plain, stamp(), LSN).unwrap();
        assert!(SealedFrame::parse(&plain).is_err());
        assert!(matches!(
            SealedFrame::parse(&[0; 64]),
            Err(FormatError::Empty)
        ));
    }

    proptest! {
        #[test]
        fn every_frame_comes_back(
            key in proptest::collection::vec(any::<u8>(), 0..300),
            value_len in prop_oneof![0_usize..300, 16_380_usize..16_390, Just(100_000)],
            kind in prop_oneof![Just(Kind::Put), Just(Kind::Tombstone), Just(Kind::Catalog)],
            batch in any::<bool>(),
            namespace in prop_oneof![Just(0), any::<u32>()],
            expires_at_ms in any::<Option<u64>>(),
            position in proptest::option::of(0_u64..1 << 43),
        ) {
            let value = vec![3; value_len];
            let previous = position.map(|at| Previous::link(at, None, None));
            check(&FrameSpec { batch, namespace, expires_at_ms, previous, ..FrameSpec::new(kind, &key, &value) });
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(sealed) = SealedFrame::parse(&bytes) {
                let _ = sealed.verify(stamp(), LSN);
                let _ = sealed.frame(sealed.part(sealed.layout().head()), None);
                let _ = sealed.frame(&bytes, Some(&bytes));
            }
            let _ = Frame::opened(&bytes, None, 0, 0, &[]);
        }
    }
}
