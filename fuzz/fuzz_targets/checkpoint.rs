//! Any bytes as a checkpoint head: no panic, and what decodes encodes to the same bytes.
//!
//! The bytes are tried as they are, and once more as the body of a head whose
//! magic, version, length and checksum are right.
#![no_main]

use emdb_format::{CheckpointHead, FORMAT_VERSION};
use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8; 8] = b"emdbc2\r\n";
/// Magic, version and length before the body, the checksum behind it.
const AROUND_LEN: usize = 8 + 4 + 4 + 4;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);

    let mut head = Vec::with_capacity(AROUND_LEN + bytes.len());
    head.extend(MAGIC);
    head.extend(FORMAT_VERSION.to_le_bytes());
    head.extend(((AROUND_LEN + bytes.len()) as u32).to_le_bytes());
    head.extend(bytes);
    let crc = crc32c::crc32c(&head);
    head.extend(crc.to_le_bytes());
    check(&head);
});

fn check(bytes: &[u8]) {
    if let Ok(head) = CheckpointHead::decode(bytes) {
        let again = head.encode().expect("what was decoded fits");
        assert_eq!(again.len(), head.encoded_len());
        assert_eq!(again[..], bytes[..again.len()]);
    }
}
