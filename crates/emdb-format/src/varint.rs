//! Variable-length integers: seven bits a byte, least significant first (LEB128).
//!
//! Only the shortest form is accepted, so a value has one encoding.

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
#[inline]
pub(crate) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    match bytes {
        [a, ..] if *a < 0x80 => Some((u64::from(*a), 1)),
        [a, b, ..] if *b < 0x80 => {
            if *b == 0 {
                return None;
            }
            Some((u64::from(*a & 0x7f) | u64::from(*b) << 7, 2))
        }
        _ => varint_long(bytes),
    }
}

fn varint_long(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(VARINT_MAX).enumerate() {
        let part = u64::from(byte & 0x7f);
        let shift = u32::try_from(at).ok()? * 7;
        let shifted = part.checked_shl(shift)?;
        if shifted >> shift != part {
            return None;
        }
        value |= shifted;
        if *byte < 0x80 {
            // A zero last byte would be a longer form of a shorter number.
            return (*byte != 0 || at == 0).then_some((value, at + 1));
        }
    }
    None
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
        assert_eq!(varint(&[0x80, 0]), None);
        assert_eq!(varint(&[0x81, 0x80, 0]), None);
        assert_eq!(varint(&[0xff; 11]), None);
        assert_eq!(varint(&[]), None);
        assert_eq!(varint(&[0x80]), None);
    }

    proptest! {
        #[test]
        fn round_trip(value: u64, shift in 0_u32..64, tail: Vec<u8>) {
            let value = value >> shift;
            let mut bytes = encode(value);
            let len = bytes.len();
            prop_assert_eq!(len, varint_len(value));
            bytes.extend(tail);
            prop_assert_eq!(varint(&bytes), Some((value, len)));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes: Vec<u8>) {
            if let Some((value, len)) = varint(&bytes) {
                prop_assert_eq!(encode(value), &bytes[..len]);
            }
        }
    }
}
