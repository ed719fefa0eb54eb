//! Any bytes as a frame: no panic, and what parses encodes to the same bytes.
#![no_main]

use emdb_format::{CatalogChange, Commit, Discard, Frame, FrameSpec, Marker, Stamp};
use libfuzzer_sys::fuzz_target;

const LSN: u64 = 77_777;
const TAG: [u8; 16] = [0xab; 16];
/// The checksum of a frame, which the fuzzer does not guess.
const CRC_LEN: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let stamp = Stamp::new(&[3; 16], 9);
    let _ = Marker::decode(bytes, &TAG, stamp, LSN);
    round_trip(bytes, Commit::decode, |commit| commit.encode().to_vec());
    round_trip(bytes, Discard::decode, |discard| discard.encode().to_vec());
    round_trip(bytes, CatalogChange::decode, CatalogChange::encode);

    let Ok(frame) = Frame::parse(bytes) else {
        return;
    };
    assert!(frame.len() <= bytes.len());
    let _ = frame.verify(stamp, LSN);
    let spec = FrameSpec {
        kind: frame.kind,
        batch: frame.batch,
        namespace: frame.namespace,
        expires_at_ms: frame.expires_at_ms,
        previous: frame.previous,
        key: frame.key,
        value: frame.value,
    };
    assert_eq!(spec.encoded_len(), Ok(frame.len()));
    let mut again = vec![0; frame.len()];
    assert_eq!(spec.encode_into(&mut again, stamp, LSN), Ok(frame.len()));
    if !frame.has_large_value() {
        assert_eq!(again[CRC_LEN..], bytes[CRC_LEN..frame.len()]);
    }
    let parsed = Frame::parse(&again);
    assert!(parsed.is_ok_and(|frame| frame.verify(stamp, LSN).is_ok()));
});

fn round_trip<T, E>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    if let Ok(value) = decode(bytes) {
        assert_eq!(encode(&value), bytes);
    }
}
