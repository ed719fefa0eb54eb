//! Any bytes as a header slot: no panic, and what decodes encodes to the same bytes.
//!
//! The bytes are tried as they are, and once more as the front of a slot whose
//! magic, version and checksum are right.
#![no_main]

use emdb_format::{FORMAT_VERSION, HEADER_SLOT_BYTES, Header};
use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8; 8] = b"emdb\x00\r\n\x1a";
const CRC_AT: usize = HEADER_SLOT_BYTES - 4;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);

    let mut slot = Vec::with_capacity(HEADER_SLOT_BYTES);
    slot.extend(MAGIC);
    slot.extend(FORMAT_VERSION.to_le_bytes());
    slot.extend(bytes);
    slot.resize(CRC_AT, 0);
    let crc = crc32c::crc32c(&slot);
    slot.extend(crc.to_le_bytes());
    check(&slot);
});

fn check(bytes: &[u8]) {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(header.encode()[..], bytes[..HEADER_SLOT_BYTES]);
    }
}
