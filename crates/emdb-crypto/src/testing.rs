//! What the tests of several modules share.

/// The bytes that `text` spells in hex; blanks do not count.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let pairs = digits.chunks_exact(2);
    assert!(pairs.remainder().is_empty());
    pairs
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

/// The same as an array.
pub(crate) fn array<const LEN: usize>(text: &str) -> [u8; LEN] {
    unhex(text).try_into().unwrap()
}

/// The other way round.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
