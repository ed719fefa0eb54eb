//! Variable-length integers: seven bits a byte, least significant first (LEB128).
//!
//! Only the shortest form is accepted, so a value has one encoding.

use crate::error::FormatError;

/// Longest encoding of a `u64`.
pub(crate) const VARINT_MAX: usize = 10;

/// Bytes that `value` takes.
#[inline]
pub(crate) const fn varint_len(value: u64) -> usize {
    // 1 + floor(bits / 7) without a division by a loop.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Decodes one varint at the front of `bytes`; returns it and its length.
///
/// `what` names the structure in errors: [`FormatError::Truncated`] if the bytes end
/// inside the varint, [`FormatError::Malformed`] if no byte behind them could make it one.
#[inline]
pub(crate) fn varint(bytes: &[u8], what: &'static str) -> Result<(u64, usize), FormatError> {
    match bytes {
        [a, ..] if *a < 0x80 => Ok((u64::from(*a), 1)),
        [a, b, ..] if *b < 0x80 => {
            if *b == 0 {
                return Err(FormatError::Malformed(what));
            }
            Ok((u64::from(*a & 0x7f) | u64::from(*b) << 7, 2))
        }
        _ => varint_long(bytes, what),
    }
}

fn varint_long(bytes: &[u8], what: &'static str) -> Result<(u64, usize), FormatError> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(VARINT_MAX).enumerate() {
        let part = u64::from(byte & 0x7f);
        let shift = at as u32 * 7;
        let shifted = part << shift;
        if shifted >> shift != part {
            return Err(FormatError::Malformed(what));
        }
        value |= shifted;
        if *byte < 0x80 {
            // A zero last byte would be a longer form of a shorter number.
            return if *byte != 0 || at == 0 {
                Ok((value, at + 1))
            } else {
                Err(FormatError::Malformed(what))
            };
        }
    }
    if bytes.len() < VARINT_MAX {
        Err(FormatError::Truncated(what))
    } else {
        Err(FormatError::Malformed(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Writer;
    use proptest::prelude::*;

    fn encode(value: u64) -> Vec<u8> {
        let mut buffer = [0; VARINT_MAX];
        let mut writer = Writer::new(&mut buffer);
        writer.varint(value).unwrap();
        let len = writer.position();
        buffer[..len].to_vec()
    }

    #[test]
    fn known_encodings() {
        assert_eq!(encode(0), [0]);
        assert_eq!(encode(127), [127]);
        assert_eq!(encode(128), [0x80, 1]);
        assert_eq!(encode(16_384), [0x80, 0x80, 1]);
        assert_eq!(encode(u64::MAX).len(), VARINT_MAX);
    }

    #[test]
    fn a_longer_form_of_a_number_is_refused() {
        let malformed = Err(FormatError::Malformed("test"));
        assert_eq!(varint(&[0x80, 0], "test"), malformed);
        assert_eq!(varint(&[0x81, 0x80, 0], "test"), malformed);
        assert_eq!(varint(&[0xff; 10], "test"), malformed);
        assert_eq!(varint(&[0xff; 11], "test"), malformed);
    }

    #[test]
    fn bytes_that_end_inside_a_varint_are_truncated_and_not_malformed() {
        let longest = encode(u64::MAX);
        for len in 0..longest.len() {
            let truncated = Err(FormatError::Truncated("test"));
            assert_eq!(varint(&longest[..len], "test"), truncated, "length {len}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(value: u64, shift in 0_u32..64, tail: Vec<u8>) {
            let value = value >> shift;
            let mut bytes = encode(value);
            let len = bytes.len();
            prop_assert_eq!(len, varint_len(value));
            bytes.extend(tail);
            prop_assert_eq!(varint(&bytes, "test"), Ok((value, len)));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes: Vec<u8>) {
            if let Ok((value, len)) = varint(&bytes, "test") {
                prop_assert_eq!(encode(value), &bytes[..len]);
            }
        }
    }
}
