//! Frames: the checksummed envelope of every record.
//!
//! | bytes | field | present |
//! |-------|-------|---------|
//! | 4 | CRC32C of all that follows, started from the [`Stamp`] and the LSN; without the value when the value has its own checksum | always |
//! | 1 | flags | always, never 0 |
//! | 1 to 3 | key length, varint | always |
//! | 1 to 5 | value length, varint | always |
//! | 4 | CRC32C of the value, started from the stamp | value length > 16 KiB |
//! | 1 to 5 | namespace id, varint | flag |
//! | 1 to 10 | expiry in Unix milliseconds, varint | flag |
//! | 2 to 15 | previous version: position (varint), rank (1), distance from there to the jump target (varint, rank above 1) | flag |
//! | | key, then value | always |
//!
//! Flags, from the lowest bit: kind (3 bits), batch, namespace, expiry,
//! previous version, sealed. All integers are little-endian.

use crate::bytes::{Reader, Writer};
use crate::error::FormatError;
use crate::limits::{KEY_LEN_MAX, POSITION_MAX, VALUE_INLINE_MAX, VALUE_LEN_MAX};
use crate::varint::{varint, varint_len};

const CRC_LEN: usize = size_of::<u32>();
const FLAGS_AT: usize = CRC_LEN;
const LENGTHS_AT: usize = FLAGS_AT + 1;
/// Longest head: checksum, flags, lengths, value checksum, namespace, expiry, previous version.
const HEAD_MAX: usize = LENGTHS_AT + 3 + 5 + 4 + 5 + 10 + (7 + 1 + 7) + 1;

const KIND_MASK: u8 = 0b0000_0111;
const BATCH: u8 = 0b0000_1000;
const NAMESPACE: u8 = 0b0001_0000;
const EXPIRY: u8 = 0b0010_0000;
const PREVIOUS: u8 = 0b0100_0000;
const SEALED: u8 = 0b1000_0000;

const RANK_MAX: u8 = 63;

/// What a frame means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A key has a value.
    Put = 1,
    /// A key is gone.
    Tombstone = 2,
    /// A batch is whole; see [`Commit`](crate::Commit).
    Commit = 3,
    /// A batch, or its later part, does not count; see [`Discard`](crate::Discard).
    Discard = 4,
    /// A namespace was created, cleared or dropped; see [`CatalogChange`](crate::CatalogChange).
    Catalog = 5,
    /// Dead space; may hold a sync [`Marker`](crate::Marker).
    Filler = 6,
    /// Frames about the journal itself: the value's first byte tells which.
    Extended = 7,
}

impl Kind {
    #[inline]
    fn from_flags(flags: u8) -> Result<Self, FormatError> {
        Ok(match flags & KIND_MASK {
            1 => Self::Put,
            2 => Self::Tombstone,
            3 => Self::Commit,
            4 => Self::Discard,
            5 => Self::Catalog,
            6 => Self::Filler,
            7 => Self::Extended,
            _ => return Err(FormatError::Malformed("frame flags")),
        })
    }
}

/// What ties a frame to its database and generation.
///
/// The checksum of a frame starts from the stamp mixed with the frame's LSN, so
/// bytes of another database, of an earlier generation or from another place in
/// the journal never pass for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u32);

impl Stamp {
    /// The stamp of a database's generation.
    pub fn new(database_id: &[u8; 16], generation: u64) -> Self {
        let crc = crc32c::crc32c(database_id);
        Self(crc32c::crc32c_append(crc, &generation.to_le_bytes()))
    }

    #[inline]
    fn at(self, lsn: u64) -> u32 {
        // Fibonacci hashing: neighbouring LSNs differ in about half of the bits.
        self.0 ^ (lsn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }

    /// The checksum of `bytes` as part of a frame at `lsn`.
    #[inline]
    pub fn checksum_at(self, lsn: u64, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.at(lsn), bytes)
    }

    /// The checksum of `bytes` wherever they lie in this generation.
    #[inline]
    pub fn checksum(self, bytes: &[u8]) -> u32 {
        // In parts: a long run at once is read at three places 8 KiB apart, which the processor
        // fetches more slowly from memory than one place after the other.
        let parts = bytes.chunks(16 << 10);
        parts.fold(self.0, crc32c::crc32c_append)
    }
}

/// Where the version that a frame replaces lies, and a shortcut further back.
///
/// Versions of a key form a list with skewed jump pointers (Myers, "An applicative
/// random-access stack", Information Processing Letters 17(5), 1983): a frame of
/// rank r jumps over 2^r - 1 versions, so finding the newest version below some
/// LSN takes O(log n) steps. A chain never leaves its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// Position of the version before this one.
    pub position: u64,
    /// 1 for a jump to `position` itself; r for a jump over 2^r - 1 versions.
    pub rank: u8,
    /// Position that the jump leads to; at most `position`.
    pub jump: u64,
}

impl Previous {
    /// The link that a frame carries when it replaces the version at `position`.
    ///
    /// `link` is that version's own link, and `jump_link` the link of the version
    /// which `link.jump` leads to; both are `None` at the end of a chain.
    #[inline]
    pub fn link(position: u64, link: Option<Previous>, jump_link: Option<Previous>) -> Self {
        let plain = Self {
            position,
            rank: 1,
            jump: position,
        };
        let (Some(link), Some(jump_link)) = (link, jump_link) else {
            return plain;
        };
        if link.rank != jump_link.rank || link.rank >= RANK_MAX {
            return plain;
        }
        Self {
            position,
            rank: link.rank + 1,
            jump: jump_link.jump,
        }
    }
}

/// The head of a frame, ready to be stored before the key; its checksum is not set yet.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    bytes: [u8; HEAD_MAX],
    len: usize,
}

impl Head {
    /// The head's bytes; the first four are zero until the frame is sealed by its checksum.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Not inline: it would make every copy of a head one of any length.
    #[inline(never)]
    fn store(&self, out: &mut [u8]) -> Option<()> {
        out.get_mut(..self.len)?.copy_from_slice(self.as_bytes());
        Some(())
    }
}

/// A frame to be written.
#[derive(Debug, Clone, Copy)]
pub struct FrameSpec<'a> {
    /// What the frame means.
    pub kind: Kind,
    /// Whether the frame is part of a batch.
    pub batch: bool,
    /// Internal id of the namespace; 0 takes no space.
    pub namespace: u32,
    /// When the record expires, in Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    /// The version which this frame replaces.
    pub previous: Option<Previous>,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

impl<'a> FrameSpec<'a> {
    /// A plain frame in the default namespace.
    #[inline]
    pub fn new(kind: Kind, key: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            kind,
            batch: false,
            namespace: 0,
            expires_at_ms: None,
            previous: None,
            key,
            value,
        }
    }

    /// Bytes the whole frame takes; at most 8 beside key and value for a plain
    /// record with a key below 128 bytes and a value below 16 KiB.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if the key or the value is over the limit.
    #[inline]
    pub fn encoded_len(&self) -> Result<usize, FormatError> {
        let mut head =
            LENGTHS_AT + varint_len(self.key.len() as u64) + varint_len(self.value.len() as u64);
        if self.value.len() > VALUE_INLINE_MAX {
            head += CRC_LEN;
        }
        Ok(head + self.fields_len()? + self.key.len() + self.value.len())
    }

    /// Bytes of the optional fields: namespace, expiry, previous version.
    #[inline]
    pub(crate) fn fields_len(&self) -> Result<usize, FormatError> {
        self.check_lengths()?;
        let mut len = 0;
        if self.namespace != 0 {
            len += varint_len(u64::from(self.namespace));
        }
        if let Some(at) = self.expires_at_ms {
            len += varint_len(at);
        }
        if let Some(previous) = self.previous {
            len += varint_len(previous.position) + 1;
            if previous.rank > 1 {
                len += varint_len(previous.position.wrapping_sub(previous.jump));
            }
        }
        Ok(len)
    }

    /// The frame's head, without the checksum.
    ///
    /// The checksum of a value above 16 KiB is computed here, so that this can be
    /// done before the frame's LSN is known and outside of every lock.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if the key or the value is over the limit;
    /// [`FormatError::Malformed`] if the link to the previous version is impossible.
    #[inline]
    pub fn head(&self, stamp: Stamp) -> Result<Head, FormatError> {
        self.check_lengths()?;
        let mut bytes = [0; HEAD_MAX];
        let mut out = Writer::new(&mut bytes);
        out.u32(0)?;
        out.u8(self.flags())?;
        out.varint(self.key.len() as u64)?;
        out.varint(self.value.len() as u64)?;
        if self.value.len() > VALUE_INLINE_MAX {
            out.u32(stamp.checksum(self.value))?;
        }
        self.write_fields(&mut out)?;
        let len = out.position();
        Ok(Head { bytes, len })
    }

    #[inline]
    pub(crate) fn flags(&self) -> u8 {
        let mut flags = self.kind as u8;
        if self.batch {
            flags |= BATCH;
        }
        if self.namespace != 0 {
            flags |= NAMESPACE;
        }
        if self.expires_at_ms.is_some() {
            flags |= EXPIRY;
        }
        if self.previous.is_some() {
            flags |= PREVIOUS;
        }
        flags
    }

    /// Writes the optional fields.
    #[inline]
    pub(crate) fn write_fields(&self, out: &mut Writer<'_>) -> Result<(), FormatError> {
        if self.namespace != 0 {
            out.varint(u64::from(self.namespace))?;
        }
        if let Some(at) = self.expires_at_ms {
            out.varint(at)?;
        }
        if let Some(previous) = self.previous {
            check_previous(&previous)?;
            out.varint(previous.position)?;
            out.u8(previous.rank)?;
            if previous.rank > 1 {
                out.varint(previous.position.wrapping_sub(previous.jump))?;
            }
        }
        Ok(())
    }

    /// Encodes the frame to the front of `out`, as it stands at `lsn`.
    ///
    /// # Errors
    /// As [`head`](Self::head), and [`FormatError::Truncated`] if `out` is shorter
    /// than [`encoded_len`](Self::encoded_len).
    pub fn encode_into(
        &self,
        out: &mut [u8],
        stamp: Stamp,
        lsn: u64,
    ) -> Result<usize, FormatError> {
        let head = self.head(stamp)?;
        let len = head.len + self.key.len() + self.value.len();
        let frame = out
            .get_mut(..len)
            .ok_or(FormatError::Truncated("output buffer"))?;
        self.store(&head, frame, stamp, lsn)?;
        Ok(len)
    }

    /// Stores the frame, its head made before, and gives its checksum.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] if `out` has not exactly the frame's length.
    #[inline]
    pub fn store(
        &self,
        head: &Head,
        out: &mut [u8],
        stamp: Stamp,
        lsn: u64,
    ) -> Result<u32, FormatError> {
        const SHORT: usize = 16;
        const WRONG: FormatError = FormatError::Truncated("output buffer");
        // The head of nearly every frame, and some of the key's place: one copy of a
        // length that the compiler knows.
        match (out.first_chunk_mut(), head.bytes.first_chunk::<SHORT>()) {
            (Some(to), Some(from)) if head.len <= SHORT => *to = *from,
            _ => head.store(out).ok_or(WRONG)?,
        }
        let body = out.get_mut(head.len..).ok_or(WRONG)?;
        let (key, value) = body.split_at_mut_checked(self.key.len()).ok_or(WRONG)?;
        if value.len() != self.value.len() {
            return Err(WRONG);
        }
        key.copy_from_slice(self.key);
        value.copy_from_slice(self.value);
        let covered_len = if self.value.len() > VALUE_INLINE_MAX {
            head.len + self.key.len()
        } else {
            out.len()
        };
        let covered = out.get_mut(..covered_len).ok_or(WRONG)?;
        let (crc, covered) = covered.split_first_chunk_mut().ok_or(WRONG)?;
        let checksum = stamp.checksum_at(lsn, covered);
        *crc = checksum.to_le_bytes();
        Ok(checksum)
    }

    #[inline]
    fn check_lengths(&self) -> Result<(), FormatError> {
        if self.key.len() > KEY_LEN_MAX {
            return Err(too_large("key", self.key.len(), KEY_LEN_MAX));
        }
        if self.value.len() > VALUE_LEN_MAX {
            return Err(too_large("value", self.value.len(), VALUE_LEN_MAX));
        }
        Ok(())
    }
}

/// A frame as it lies in the journal.
///
/// Parsing checks bounds only; believe nothing of it before [`verify`](Self::verify)
/// (or [`verify_head`](Self::verify_head), for everything but a large value).
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// What the frame means.
    pub kind: Kind,
    /// Whether the frame is part of a batch.
    pub batch: bool,
    /// Internal id of the namespace.
    pub namespace: u32,
    /// When the record expires, in Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    /// The version which this frame replaces.
    pub previous: Option<Previous>,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    crc: u32,
    own_value: OwnValue,
    covered: &'a [u8],
    len: usize,
}

/// What a frame has beside its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnValue {
    /// Everything is under the frame's checksum.
    None,
    /// The value has this checksum.
    Checksum(u32),
    /// The frame was sealed, and was authenticated when it was opened.
    Authentic,
    /// The frame was sealed and has a large value of this length.
    AuthenticLarge(u32),
}

impl<'a> Frame<'a> {
    /// Parses the frame at the front of `bytes`, which may go on behind it.
    ///
    /// # Errors
    /// [`FormatError::Empty`] in prepared space, [`FormatError::Truncated`] and
    /// [`FormatError::Malformed`] for bytes that are no frame.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (crc, rest) = bytes
            .split_first_chunk::<CRC_LEN>()
            .ok_or(FormatError::Truncated("frame"))?;
        let (&flags, mut tail) = rest.split_first().ok_or(FormatError::Truncated("frame"))?;
        if flags == 0 {
            return Err(FormatError::Empty);
        }
        let kind = Kind::from_flags(flags)?;
        let (key_len, used) = varint(tail, "frame lengths")?;
        tail = tail.get(used..).ok_or(FormatError::Truncated("frame"))?;
        let (value_len, used) = varint(tail, "frame lengths")?;
        tail = tail.get(used..).ok_or(FormatError::Truncated("frame"))?;
        if key_len > KEY_LEN_MAX as u64 || value_len > VALUE_LEN_MAX as u64 {
            return Err(FormatError::Malformed("frame lengths"));
        }
        let (key_len, value_len) = (key_len as usize, value_len as usize);

        let mut fields = Fields::default();
        let own_value_checksum = value_len > VALUE_INLINE_MAX;
        if own_value_checksum || flags & (NAMESPACE | EXPIRY | PREVIOUS | SEALED) != 0 {
            (fields, tail) = Fields::parse(tail, flags, own_value_checksum)?;
        }
        let (key, tail) = tail
            .split_at_checked(key_len)
            .ok_or(FormatError::Truncated("frame"))?;
        let (value, tail) = tail
            .split_at_checked(value_len)
            .ok_or(FormatError::Truncated("frame"))?;
        let len = bytes.len() - tail.len();
        let covered_len = if own_value_checksum {
            len - value_len
        } else {
            len
        };
        let covered = bytes
            .get(CRC_LEN..covered_len)
            .ok_or(FormatError::Truncated("frame"))?;
        Ok(Self {
            kind,
            batch: flags & BATCH != 0,
            namespace: fields.namespace,
            expires_at_ms: fields.expires_at_ms,
            previous: fields.previous,
            key,
            value,
            crc: u32::from_le_bytes(*crc),
            own_value: fields.value_crc.map_or(OwnValue::None, OwnValue::Checksum),
            covered,
            len,
        })
    }

    /// A frame that was sealed: its head as it is once opened, and a large value with its length.
    pub(crate) fn opened(
        head: &'a [u8],
        large: Option<(&'a [u8], usize)>,
        len: usize,
        crc: u32,
        covered: &'a [u8],
    ) -> Result<Self, FormatError> {
        let (&flags, tail) = head
            .split_first()
            .ok_or(FormatError::Truncated("frame head"))?;
        if flags & SEALED != 0 {
            return Err(FormatError::Malformed("frame flags"));
        }
        let kind = Kind::from_flags(flags)?;
        let (key_len, used) = varint(tail, "frame lengths")?;
        let tail = tail
            .get(used..)
            .ok_or(FormatError::Truncated("frame head"))?;
        if key_len > KEY_LEN_MAX as u64 {
            return Err(FormatError::Malformed("frame lengths"));
        }
        let (fields, tail) = Fields::parse(tail, flags, false)?;
        let (key, inline) = tail
            .split_at_checked(key_len as usize)
            .ok_or(FormatError::Truncated("frame head"))?;
        let (value, own_value) = match large {
            None if inline.len() <= VALUE_INLINE_MAX => (inline, OwnValue::Authentic),
            Some((value, len)) if inline.is_empty() && len <= VALUE_LEN_MAX => {
                (value, OwnValue::AuthenticLarge(len as u32))
            }
            _ => return Err(FormatError::Malformed("frame lengths")),
        };
        Ok(Self {
            kind,
            batch: flags & BATCH != 0,
            namespace: fields.namespace,
            expires_at_ms: fields.expires_at_ms,
            previous: fields.previous,
            key,
            value,
            crc,
            own_value,
            covered,
            len,
        })
    }

    /// Length of the value in bytes, also where it was left out; see
    /// [`SealedFrame::frame`](crate::SealedFrame::frame).
    #[inline]
    pub fn value_len(&self) -> usize {
        match self.own_value {
            OwnValue::AuthenticLarge(len) => len as usize,
            _ => self.value.len(),
        }
    }

    /// Whether both are the frame that stands at one place of the journal.
    #[inline]
    pub fn is_same(&self, other: &Frame<'_>) -> bool {
        std::ptr::eq(self.covered.as_ptr(), other.covered.as_ptr())
    }

    /// The value, if the frame at the front of `bytes` is a plain record of the default
    /// namespace with this key: the common case of [`parse`](Self::parse), in a few
    /// instructions. `None` says nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use emdb_format::{Frame, FrameSpec, Kind, Stamp};
    ///
    /// let spec = FrameSpec::new(Kind::Put, b"key", b"value");
    /// let mut bytes = vec![0; spec.encoded_len()?];
    /// spec.encode_into(&mut bytes, Stamp::new(&[0; 16], 1), 0)?;
    /// assert_eq!(Frame::plain_value(&bytes, b"key"), Some(&b"value"[..]));
    /// assert_eq!(Frame::plain_value(&bytes, b"yek"), None);
    /// # Ok::<(), emdb_format::FormatError>(())
    /// ```
    #[inline]
    pub fn plain_value<'b>(bytes: &'b [u8], key: &[u8]) -> Option<&'b [u8]> {
        let (frame, head_and_key_len) = plain_frame(bytes, key)?;
        frame.get(head_and_key_len..)
    }

    /// As [`plain_value`](Self::plain_value), whatever its key, which is given with the value.
    #[inline]
    pub fn plain_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let [_, _, _, _, flags, key_len, low, high] = *bytes.first_chunk::<8>()?;
        if !is_plain_put(flags) || key_len >= 0x80 {
            return None;
        }
        let (head_len, value_len) = plain_value_len(low, high)?;
        let (key, rest) = bytes
            .get(head_len..)?
            .split_at_checked(usize::from(key_len))?;
        Some((key, rest.get(..value_len)?))
    }

    /// As [`plain_value`](Self::plain_value), for a frame at `lsn` whose checksum is right.
    #[inline]
    pub fn verified_plain_value<'b>(
        bytes: &'b [u8],
        key: &[u8],
        stamp: Stamp,
        lsn: u64,
    ) -> Option<&'b [u8]> {
        let (frame, head_and_key_len) = plain_frame(bytes, key)?;
        let (crc, covered) = frame.split_first_chunk::<CRC_LEN>()?;
        let is_right = stamp.checksum_at(lsn, covered) == u32::from_le_bytes(*crc);
        frame.get(head_and_key_len..).filter(|_| is_right)
    }

    /// As [`plain_record`](Self::plain_record), for a frame at `lsn` whose checksum is right.
    #[inline]
    pub fn verified_plain_record(bytes: &[u8], stamp: Stamp, lsn: u64) -> Option<(&[u8], &[u8])> {
        let [_, _, _, _, _, key_len, low, high] = *bytes.first_chunk::<8>()?;
        let (key, value) = Self::plain_record(bytes)?;
        let (head_len, value_len) = plain_value_len(low, high)?;
        let frame = bytes.get(..head_len + usize::from(key_len) + value_len)?;
        let (crc, covered) = frame.split_first_chunk::<CRC_LEN>()?;
        let is_right = stamp.checksum_at(lsn, covered) == u32::from_le_bytes(*crc);
        is_right.then_some((key, value))
    }

    /// Bytes of the whole frame.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The frame's checksum; what a batch sums up.
    #[inline]
    pub fn checksum(&self) -> u32 {
        self.crc
    }

    /// Whether the value has a checksum of its own, which `verify_head` does not check.
    #[inline]
    pub fn has_large_value(&self) -> bool {
        matches!(
            self.own_value,
            OwnValue::Checksum(_) | OwnValue::AuthenticLarge(_)
        )
    }

    /// Checks everything but a value above 16 KiB.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] if a byte differs from what was written at `lsn`.
    #[inline]
    pub fn verify_head(&self, stamp: Stamp, lsn: u64) -> Result<(), FormatError> {
        if self.is_authentic() || stamp.checksum_at(lsn, self.covered) == self.crc {
            Ok(())
        } else {
            Err(FormatError::Checksum("frame"))
        }
    }

    /// Checks every byte of the frame.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] if a byte differs from what was written at `lsn`.
    #[inline]
    pub fn verify(&self, stamp: Stamp, lsn: u64) -> Result<(), FormatError> {
        self.verify_head(stamp, lsn)?;
        match self.own_value {
            OwnValue::Checksum(crc) if stamp.checksum(self.value) != crc => {
                Err(FormatError::Checksum("value"))
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn is_authentic(&self) -> bool {
        matches!(
            self.own_value,
            OwnValue::Authentic | OwnValue::AuthenticLarge(_)
        )
    }
}

#[derive(Default)]
struct Fields {
    value_crc: Option<u32>,
    namespace: u32,
    expires_at_ms: Option<u64>,
    previous: Option<Previous>,
}

impl Fields {
    #[inline(never)]
    fn parse(
        bytes: &[u8],
        flags: u8,
        own_value_checksum: bool,
    ) -> Result<(Self, &[u8]), FormatError> {
        if flags & SEALED != 0 {
            // A `SealedFrame`, which only who has the key can read.
            return Err(FormatError::Malformed("frame flags"));
        }
        let mut reader = Reader::new(bytes, "frame fields");
        let mut fields = Self::default();
        if own_value_checksum {
            fields.value_crc = Some(reader.u32()?);
        }
        if flags & NAMESPACE != 0 {
            fields.namespace = reader.varint_u32()?;
            if fields.namespace == 0 {
                return Err(FormatError::Malformed("frame namespace"));
            }
        }
        if flags & EXPIRY != 0 {
            fields.expires_at_ms = Some(reader.varint()?);
        }
        if flags & PREVIOUS != 0 {
            let position = reader.varint()?;
            let rank = reader.u8()?;
            let distance = if rank > 1 { reader.varint()? } else { 0 };
            let jump = position
                .checked_sub(distance)
                .ok_or(FormatError::Malformed("previous version"))?;
            let previous = Previous {
                position,
                rank,
                jump,
            };
            check_previous(&previous)?;
            fields.previous = Some(previous);
        }
        let left = reader.left();
        let rest = bytes
            .get(bytes.len().saturating_sub(left)..)
            .ok_or(FormatError::Truncated("frame fields"))?;
        Ok((fields, rest))
    }
}

fn check_previous(previous: &Previous) -> Result<(), FormatError> {
    let Previous {
        position,
        rank,
        jump,
    } = *previous;
    let sound = position < POSITION_MAX
        && jump <= position
        && (1..=RANK_MAX).contains(&rank)
        && (rank > 1 || jump == position);
    if sound {
        Ok(())
    } else {
        Err(FormatError::Malformed("previous version"))
    }
}

/// The frame at the front of `bytes` if it is a plain record with this key, and the
/// length of its head and key.
#[inline]
fn plain_frame<'b>(bytes: &'b [u8], key: &[u8]) -> Option<(&'b [u8], usize)> {
    let [_, _, _, _, flags, key_len, low, high] = *bytes.first_chunk::<8>()?;
    if !is_plain_put(flags) || usize::from(key_len) != key.len() || key_len >= 0x80 {
        return None;
    }
    let (head_len, value_len) = plain_value_len(low, high)?;
    let frame = bytes.get(..head_len + key.len() + value_len)?;
    let stored = frame.get(head_len..head_len + key.len())?;
    (stored == key).then_some((frame, head_len + key.len()))
}

/// The length of the head and of a short value, given the two bytes behind a short key's length.
#[inline]
fn plain_value_len(low: u8, high: u8) -> Option<(usize, usize)> {
    if low < 0x80 {
        Some((LENGTHS_AT + 2, usize::from(low)))
    } else if high < 0x80 {
        let value_len = usize::from(low & 0x7f) | usize::from(high) << 7;
        Some((LENGTHS_AT + 3, value_len))
    } else {
        None
    }
}

/// Whether these are the flags of a record without any optional field.
#[inline]
pub(crate) fn is_plain_put(flags: u8) -> bool {
    flags & !BATCH == Kind::Put as u8
}

fn too_large(what: &'static str, len: usize, max: usize) -> FormatError {
    FormatError::TooLarge {
        what,
        len: len as u64,
        max: max as u64,
    }
}

#[cfg(test)]
mod tests;
