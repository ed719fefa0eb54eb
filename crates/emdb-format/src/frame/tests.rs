//! Frames: round trips, damage, limits.

use super::*;
use proptest::prelude::*;

fn previous() -> impl Strategy<Value = Option<Previous>> {
    proptest::option::of((1_u64..POSITION_MAX, 1_u8..40, any::<u64>()).prop_map(
        |(position, rank, jump)| Previous {
            position,
            rank,
            jump: if rank == 1 {
                position
            } else {
                jump % (position + 1)
            },
        },
    ))
}

proptest! {
    #[test]
    fn round_trip(
        tombstone: bool,
        batch: bool,
        namespace: u32,
        expires_at_ms: Option<u64>,
        previous in previous(),
        key in proptest::collection::vec(any::<u8>(), 0..300),
        value in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            proptest::collection::vec(any::<u8>(), 16_380..16_390),
        ],
        lsn: u64,
        tail: Vec<u8>,
    ) {
        let stamp = Stamp::new(&[1; 16], 2);
        let kind = if tombstone { Kind::Tombstone } else { Kind::Put };
        let spec = FrameSpec { kind, batch, namespace, expires_at_ms, previous, key: &key, value: &value };
        let mut bytes = vec![0; spec.encoded_len().unwrap()];
        prop_assert_eq!(spec.encode_into(&mut bytes, stamp, lsn).unwrap(), bytes.len());
        let len = bytes.len();
        bytes.extend(tail);
        let frame = Frame::parse(&bytes).unwrap();
        prop_assert_eq!(frame.len(), len);
        prop_assert_eq!(frame.kind, kind);
        prop_assert_eq!(frame.batch, batch);
        prop_assert_eq!(frame.namespace, namespace);
        prop_assert_eq!(frame.expires_at_ms, expires_at_ms);
        prop_assert_eq!(frame.previous, previous);
        prop_assert_eq!(frame.key, &key[..]);
        prop_assert_eq!(frame.value, &value[..]);
        if let Some((plain_key, plain)) = Frame::plain_record(&bytes) {
            prop_assert_eq!(plain_key, frame.key);
            prop_assert_eq!(plain, frame.value);
            prop_assert!(frame.namespace == 0 && frame.expires_at_ms.is_none());
            prop_assert!(frame.previous.is_none() && frame.kind == Kind::Put);
        }
        let verified = Frame::verified_plain_record(&bytes, stamp, lsn);
        prop_assert_eq!(verified, Frame::plain_record(&bytes));
        prop_assert_eq!(Frame::verified_plain_record(&bytes, stamp, lsn ^ 1), None);
        if let Some(plain) = Frame::plain_value(&bytes, &key) {
            prop_assert_eq!(plain, &value[..]);
            prop_assert!(!tombstone && namespace == 0 && previous.is_none());
            prop_assert!(expires_at_ms.is_none());
        } else {
            let plain = !tombstone && namespace == 0 && previous.is_none();
            let small = key.len() < 128 && value.len() < 16_384;
            prop_assert!(!(plain && small && expires_at_ms.is_none()));
        }
        prop_assert!(frame.verify(stamp, lsn).is_ok());
        prop_assert!(frame.verify(stamp, lsn ^ 1).is_err());
        prop_assert!(frame.verify(Stamp::new(&[1; 16], 3), lsn).is_err());
        prop_assert!(frame.verify(Stamp::new(&[2; 16], 2), lsn).is_err());
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        let key = bytes.get(7..12).unwrap_or(&[]);
        let plain = Frame::plain_value(&bytes, key);
        if let Ok(frame) = Frame::parse(&bytes) {
            prop_assert!(plain.is_none_or(|value| value == frame.value && key == frame.key));
            prop_assert!(frame.len() <= bytes.len());
            let _ = frame.verify(Stamp::new(&[1; 16], 2), 5);
        }
    }

    #[test]
    fn a_flipped_bit_never_passes(bit in 0_usize..190 * 8, large: bool) {
        let stamp = Stamp::new(&[1; 16], 2);
        let value = vec![7; if large { 20_000 } else { 150 }];
        let spec = FrameSpec { namespace: 3, ..FrameSpec::new(Kind::Put, &[5; 24], &value) };
        let mut bytes = vec![0; spec.encoded_len().unwrap()];
        spec.encode_into(&mut bytes, stamp, 99).unwrap();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(frame) = Frame::parse(&bytes) {
            prop_assert!(frame.verify(stamp, 99).is_err());
        }
    }
}

#[test]
fn a_plain_record_has_at_most_eight_bytes_of_overhead() {
    let spec = FrameSpec::new(Kind::Put, &[0; 24], &[0; 150]);
    assert!(spec.encoded_len().unwrap() <= 24 + 150 + 8);
    let spec = FrameSpec::new(Kind::Put, &[0; 24], &[0; VALUE_INLINE_MAX - 1]);
    assert!(spec.encoded_len().unwrap() <= 24 + VALUE_INLINE_MAX - 1 + 8);
}

#[test]
fn the_limits_themselves_are_allowed_and_one_more_is_not() {
    let key = vec![0; KEY_LEN_MAX + 1];
    assert!(
        FrameSpec::new(Kind::Put, &key[..KEY_LEN_MAX], b"")
            .encoded_len()
            .is_ok()
    );
    assert!(matches!(
        FrameSpec::new(Kind::Put, &key, b"").encoded_len(),
        Err(FormatError::TooLarge { what: "key", .. })
    ));
}

#[test]
fn prepared_space_is_no_frame() {
    assert!(matches!(Frame::parse(&[0; 64]), Err(FormatError::Empty)));
    assert!(matches!(Frame::parse(&[]), Err(FormatError::Truncated(_))));
}

#[test]
fn a_walk_back_over_n_versions_is_logarithmic() {
    // links[i] is the link of version i; positions are 10 apart.
    let mut links: Vec<Option<Previous>> = vec![None];
    for version in 1..100_000_usize {
        let back = links[version - 1];
        let jump = back.and_then(|link| links[(link.jump / 10 - 1) as usize]);
        links.push(Some(Previous::link(version as u64 * 10, back, jump)));
    }
    for target in [0, 1, 2, 777, 50_000, 99_998, 99_999] {
        let (mut at, mut steps) = (links.len() - 1, 0);
        while at > target {
            let link = links[at].unwrap();
            let jump = (link.jump / 10 - 1) as usize;
            at = if jump >= target {
                jump
            } else {
                (link.position / 10 - 1) as usize
            };
            steps += 1;
        }
        assert_eq!(at, target);
        assert!(steps <= 60, "{steps} steps to version {target}");
    }
}

#[test]
fn every_cut_of_a_frame_is_truncated_and_not_malformed() {
    // A key length of two bytes, a value length of three, and every optional field.
    let (key, value) = (vec![1; 200], vec![2; 20_000]);
    let spec = FrameSpec {
        namespace: 300,
        expires_at_ms: Some(1 << 40),
        previous: Some(Previous {
            position: 1 << 30,
            rank: 2,
            jump: 1 << 20,
        }),
        ..FrameSpec::new(Kind::Put, &key, &value)
    };
    let mut bytes = vec![0; spec.encoded_len().unwrap()];
    spec.encode_into(&mut bytes, Stamp::new(&[7; 16], 1), 16_384)
        .unwrap();
    for len in 0..bytes.len() {
        let parsed = Frame::parse(&bytes[..len]);
        assert!(
            matches!(parsed, Err(FormatError::Truncated(_))),
            "length {len}: {parsed:?}"
        );
    }
}
