//! Bounds-checked little-endian reading and writing: the only integer code.

use crate::error::FormatError;
use crate::varint::varint;

/// Reads fields off the front of a byte slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// `what` names the structure in errors.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(FormatError::Truncated(self.what))?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(FormatError::Truncated(self.what))?;
        self.rest = tail;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, FormatError> {
        let (value, len) = varint(self.rest, self.what)?;
        self.take(len)?;
        Ok(value)
    }

    #[inline]
    pub(crate) fn varint_u32(&mut self) -> Result<u32, FormatError> {
        u32::try_from(self.varint()?).map_err(|_| FormatError::Malformed(self.what))
    }

    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Fails unless everything was read.
    pub(crate) fn end(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FormatError::Malformed(self.what))
        }
    }
}

/// Writes fields to the front of a byte slice.
pub(crate) struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let end = self.at.saturating_add(bytes.len());
        self.bytes
            .get_mut(self.at..end)
            .ok_or(FormatError::Truncated("output buffer"))?
            .copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    #[inline]
    pub(crate) fn u8(&mut self, value: u8) -> Result<(), FormatError> {
        self.put(&value.to_le_bytes())
    }

    #[inline]
    pub(crate) fn u32(&mut self, value: u32) -> Result<(), FormatError> {
        self.put(&value.to_le_bytes())
    }

    #[inline]
    pub(crate) fn u64(&mut self, value: u64) -> Result<(), FormatError> {
        self.put(&value.to_le_bytes())
    }

    #[inline]
    pub(crate) fn varint(&mut self, mut value: u64) -> Result<(), FormatError> {
        while value >= 0x80 {
            self.u8((value & 0x7f) as u8 | 0x80)?;
            value >>= 7;
        }
        self.u8(value as u8)
    }

    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.at
    }
}
