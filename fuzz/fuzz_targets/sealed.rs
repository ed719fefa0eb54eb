//! Any bytes as a sealed frame: no panic, and what parses is laid out as the writer would.
//!
//! The cipher is none: the head is taken for an opened one, as whoever has the key may have
//! sealed it.
#![no_main]

use emdb_format::{AnyFrame, EpochMark, FrameSpec, Kind, SealedFrame, Stamp};
use libfuzzer_sys::fuzz_target;

const LSN: u64 = 77_777;
/// The checksum of a frame, which the fuzzer does not guess.
const CRC_LEN: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let stamp = Stamp::new(&[3; 16], 9);
    let _ = EpochMark::decode(bytes);
    if let Ok(frame) = AnyFrame::parse(bytes) {
        assert!(frame.len() <= bytes.len());
        let _ = frame.verify(stamp, LSN);
    }
    let Ok(sealed) = SealedFrame::parse(bytes) else {
        let _ = SealedFrame::small(bytes);
        return;
    };
    let layout = *sealed.layout();
    let head = sealed.part(layout.head());
    if let Some((small, tag)) = SealedFrame::small(bytes) {
        assert_eq!((small, &tag[..]), (head, sealed.part(layout.head_tag())));
    }

    // Checksums made right are right.
    let mut finished = sealed.bytes().to_vec();
    assert!(layout.finish(&mut finished, stamp, LSN).is_ok());
    let parsed = SealedFrame::parse(&finished).expect("only checksums have changed");
    assert_eq!(parsed.verify(stamp, LSN), Ok(()));

    let value = layout.value().map(|value| sealed.part(value));
    let Ok(frame) = sealed.frame(head, value) else {
        return;
    };
    if let Some(value) = SealedFrame::plain_value(head, frame.key) {
        assert_eq!((frame.kind, value), (Kind::Put, frame.value));
    }
    let without = sealed
        .frame(head, None)
        .expect("only the value is left out");
    assert_eq!(without.value_len(), frame.value.len());
    let spec = FrameSpec {
        kind: frame.kind,
        batch: frame.batch,
        namespace: frame.namespace,
        expires_at_ms: frame.expires_at_ms,
        previous: frame.previous,
        key: frame.key,
        value: frame.value,
    };
    assert_eq!(spec.sealed_layout(), Ok(layout));
    let mut again = finished.clone();
    for range in [Some(layout.head()), layout.value()].into_iter().flatten() {
        again[range].fill(0xaa);
    }
    assert_eq!(spec.store_unsealed(&layout, &mut again), Ok(()));
    assert_eq!(again[CRC_LEN..], finished[CRC_LEN..]);
});
