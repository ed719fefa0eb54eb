//! Golden bytes of format version 1: hex in, value out, same hex back.
//!
//! The hex comes from a second implementation, which shares no code with this crate.
//! It never changes: a change of the format gets a new version and golden bytes of
//! its own, and these must go on to be read.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use emdb_format::{
    BatchSum, CatalogChange, CheckpointHead, CheckpointSpace, Commit, Discard, FormatError, Frame,
    FrameSpec, Header, Kind, Marker, Previous, Sealing, Stamp, marker_frame_len,
};

const DATABASE_ID: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const GENERATION: u64 = 1;
const MARKER_TAG: [u8; 16] = [
    0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
];
const HASH_SEED: [u8; 16] = [
    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
];
/// LSN of position 0.
const BASE: u64 = 1 << 40;
/// Position of the first frame.
const FIRST: u64 = 16_384;
/// 2026-01-01 00:00:00 UTC.
const NEW_YEAR_MS: u64 = 1_767_225_600_000;

fn stamp() -> Stamp {
    Stamp::new(&DATABASE_ID, GENERATION)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn encode(spec: &FrameSpec<'_>, position: u64) -> Vec<u8> {
    let mut bytes = vec![0; spec.encoded_len().unwrap()];
    let len = spec
        .encode_into(&mut bytes, stamp(), BASE + position)
        .unwrap();
    assert_eq!(len, bytes.len());
    bytes
}

/// Parses a frame that stands at `position`, compares it and encodes it again.
fn check_bytes(bytes: &[u8], position: u64, expected: &FrameSpec<'_>) {
    let frame = Frame::parse(bytes).unwrap();
    assert_eq!(frame.len(), bytes.len());
    assert_eq!(frame.verify_head(stamp(), BASE + position), Ok(()));
    assert_eq!(frame.verify(stamp(), BASE + position), Ok(()));
    assert_eq!(frame.kind, expected.kind);
    assert_eq!(frame.batch, expected.batch);
    assert_eq!(frame.namespace, expected.namespace);
    assert_eq!(frame.expires_at_ms, expected.expires_at_ms);
    assert_eq!(frame.previous, expected.previous);
    assert_eq!(frame.key, expected.key);
    assert_eq!(frame.value, expected.value);
    let parsed = FrameSpec {
        kind: frame.kind,
        batch: frame.batch,
        namespace: frame.namespace,
        expires_at_ms: frame.expires_at_ms,
        previous: frame.previous,
        key: frame.key,
        value: frame.value,
    };
    assert!(encode(&parsed, position) == bytes, "encoding changed");
}

fn check(golden: &str, position: u64, expected: &FrameSpec<'_>) {
    assert_eq!(
        hex(&encode(expected, position)),
        hex(&unhex(golden)),
        "encoding changed"
    );
    check_bytes(&unhex(golden), position, expected);
}

/// The value of the large frames: every byte value, and a shift each 256 bytes.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

#[test]
fn checksums_start_from_the_stamp_and_the_lsn() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    // The checksum of nothing is the value that it starts from.
    assert_eq!(stamp().checksum(b""), 0x87da_aca5);
    assert_eq!(stamp().checksum_at(0, b""), 0x87da_aca5);
    assert_eq!(stamp().checksum_at(16_384, b""), 0x59b4_f377);
    assert_eq!(stamp().checksum_at(BASE + 16_384, b""), 0xaf30_d877);
}

#[test]
fn plain_put() {
    check(
        "ce2911c6 01 03 05 6b6579 76616c7565",
        FIRST,
        &FrameSpec::new(Kind::Put, b"key", b"value"),
    );
}

#[test]
fn put_of_nothing_under_the_empty_key() {
    check(
        "f014b071 01 00 00",
        FIRST,
        &FrameSpec::new(Kind::Put, b"", b""),
    );
}

#[test]
fn tombstone() {
    check(
        "a29dd522 02 03 00 6b6579",
        FIRST,
        &FrameSpec::new(Kind::Tombstone, b"key", b""),
    );
}

#[test]
fn tombstone_with_its_previous_version() {
    check(
        "04a5d005 42 03 00 808001 01 6b6579",
        FIRST,
        &FrameSpec {
            previous: Some(Previous {
                position: 16_384,
                rank: 1,
                jump: 16_384,
            }),
            ..FrameSpec::new(Kind::Tombstone, b"key", b"")
        },
    );
}

#[test]
fn put_with_every_field_and_rank_one() {
    check(
        "e04827de 79 0b 03 ac02 80d0eab6b733 808004 01 757365723a303030313233 416461",
        70_000,
        &FrameSpec {
            kind: Kind::Put,
            batch: true,
            namespace: 300,
            expires_at_ms: Some(NEW_YEAR_MS),
            previous: Some(Previous {
                position: 65_536,
                rank: 1,
                jump: 65_536,
            }),
            key: b"user:000123",
            value: b"Ada",
        },
    );
}

#[test]
fn put_with_every_field_and_rank_three() {
    check(
        "3b66a3ba 71 0b 03 ac02 80d0eab6b733 808004 03 e0e302 757365723a303030313233 416461",
        70_000,
        &FrameSpec {
            kind: Kind::Put,
            batch: false,
            namespace: 300,
            expires_at_ms: Some(NEW_YEAR_MS),
            previous: Some(Previous {
                position: 65_536,
                rank: 3,
                jump: 20_000,
            }),
            key: b"user:000123",
            value: b"Ada",
        },
    );
}

#[test]
fn the_longest_value_without_a_checksum_of_its_own() {
    let value = pattern(16_384);
    let spec = FrameSpec::new(Kind::Put, b"large", &value);
    let mut golden = unhex("c859cb9a 01 05 808001 6c61726765");
    golden.extend_from_slice(&value);
    assert_eq!(golden.len(), 16_398);
    assert_eq!(crc32c::crc32c(&encode(&spec, FIRST)), 0x3d7c_af2b);
    check_bytes(&golden, FIRST, &spec);
    assert!(!Frame::parse(&golden).unwrap().has_large_value());
}

#[test]
fn one_byte_more_has_a_checksum_of_its_own() {
    let value = pattern(16_385);
    let spec = FrameSpec::new(Kind::Put, b"large", &value);
    let mut golden = unhex("2c655140 01 05 818001 2a68f7df 6c61726765");
    golden.extend_from_slice(&value);
    assert_eq!(golden.len(), 16_403);
    assert_eq!(crc32c::crc32c(&encode(&spec, FIRST)), 0xbdae_55c3);
    check_bytes(&golden, FIRST, &spec);
    assert!(Frame::parse(&golden).unwrap().has_large_value());

    // The frame's own checksum does not cover the value, the second one does.
    *golden.last_mut().unwrap() ^= 1;
    let damaged = Frame::parse(&golden).unwrap();
    assert_eq!(damaged.verify_head(stamp(), BASE + FIRST), Ok(()));
    assert_eq!(
        damaged.verify(stamp(), BASE + FIRST),
        Err(FormatError::Checksum("value"))
    );
}

#[test]
fn batch_of_two_records_of_which_the_second_is_discarded() {
    let put = |key, value| FrameSpec {
        batch: true,
        ..FrameSpec::new(Kind::Put, key, value)
    };
    let discard = Discard { from: 16_393 };
    assert_eq!(hex(&discard.encode()), "0940000000000000");
    assert_eq!(Discard::decode(&discard.encode()), Ok(discard));
    let discard_value = discard.encode();
    let discard_frame = FrameSpec {
        batch: true,
        ..FrameSpec::new(Kind::Discard, b"", &discard_value)
    };
    let run = [
        ("f83cea8e 09 01 01 61 31", 16_384, put(b"a", b"1")),
        ("b17ae85c 09 01 01 62 32", 16_393, put(b"b", b"2")),
        ("ac3b94ce 0c 00 08 0940000000000000", 16_402, discard_frame),
    ];
    let mut sum = BatchSum::default();
    for (golden, position, spec) in &run {
        check(golden, *position, spec);
        sum.add(Frame::parse(&unhex(golden)).unwrap().checksum());
    }

    let commit = Commit { count: 1, sum };
    assert_eq!(hex(&commit.encode()), "010000000000000049be32eb");
    assert_eq!(Commit::decode(&commit.encode()), Ok(commit));
    let commit_value = commit.encode();
    check(
        "5e9263fb 0b 00 0c 0100000000000000 49be32eb",
        16_417,
        &FrameSpec {
            batch: true,
            ..FrameSpec::new(Kind::Commit, b"", &commit_value)
        },
    );
}

#[test]
fn catalog_changes() {
    let cases = [
        (
            "bdfc2d24 05 05 02 7573657273 01 01",
            CatalogChange::Create(1),
        ),
        (
            "93053be4 05 05 03 7573657273 02 ac02",
            CatalogChange::Clear(300),
        ),
        (
            "ed977a41 05 05 03 7573657273 03 ac02",
            CatalogChange::Drop(300),
        ),
    ];
    for (golden, change) in cases {
        let value = change.encode();
        check(
            golden,
            FIRST,
            &FrameSpec::new(Kind::Catalog, b"users", &value),
        );
        let bytes = unhex(golden);
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(CatalogChange::decode(frame.value), Ok(change));
    }
}

#[test]
fn marker_in_its_filler_frame() {
    const POSITION: u64 = 16_403;
    const PADDING: usize = 38;
    const MARKER_AT: u64 = 16_448;
    let golden = format!(
        "16ad57df 06 26 40 {} {}",
        "00".repeat(PADDING),
        "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 4040000000010000 0040000000010000
         00000000000000000000000000000000000000000000000000000000 cf0e6f37"
    );
    let bytes = unhex(&golden);
    assert_eq!(marker_frame_len(POSITION), bytes.len());

    let mut encoded = vec![0; bytes.len()];
    let made = Marker::at(BASE, POSITION, BASE + FIRST);
    let len = made.encode_frame(&mut encoded, &MARKER_TAG, stamp(), BASE, POSITION);
    assert_eq!(len, Ok(bytes.len()));
    assert_eq!(hex(&encoded), hex(&bytes));

    let marker = Marker {
        lsn: BASE + MARKER_AT,
        synced: BASE + FIRST,
        code: [0; 16],
    };
    let value = marker.encode(&MARKER_TAG, stamp());
    check(
        &golden,
        POSITION,
        &FrameSpec::new(Kind::Filler, &[0; PADDING], &value),
    );
    assert_eq!(
        Marker::decode(&value, &MARKER_TAG, stamp(), BASE + MARKER_AT),
        Some(marker)
    );
}

/// A header slot: its first 336 bytes, zeros, and the checksum.
fn slot(front: &str, crc: &str) -> Vec<u8> {
    let mut bytes = unhex(front);
    bytes.resize(4092, 0);
    bytes.extend(unhex(crc));
    bytes
}

fn plain_header() -> Header {
    Header {
        sequence: 6,
        database_id: DATABASE_ID,
        generation: GENERATION,
        base_lsn: BASE,
        confirmed: 20_000,
        hash_seed: HASH_SEED,
        marker_tag: MARKER_TAG,
        sealing: Sealing::default(),
        checkpoint: [0; 16],
        checkpoint_before: [0; 16],
    }
}

const PLAIN_FRONT: &str = "656d6462000d0a1a 01000000 00000000 0600000000000000
    000102030405060708090a0b0c0d0e0f 0100000000000000 0000000000010000 204e000000000000
    101112131415161718191a1b1c1d1e1f a0a1a2a3a4a5a6a7a8a9aaabacadaeaf";

#[test]
fn header_of_a_plaintext_database() {
    let golden = slot(PLAIN_FRONT, "3bf687a9");
    assert!(Header::decode(&golden) == Ok(plain_header()));
    assert_eq!(hex(&plain_header().encode()), hex(&golden));
}

#[test]
fn header_of_a_sealed_database() {
    let header = Header {
        sealing: Sealing {
            cipher: 1,
            key_slots: [[0x22; 112], [0x33; 112]],
            epoch: [0x55; 16],
            code: [0x44; 32],
        },
        ..plain_header()
    };
    let front = format!(
        "{PLAIN_FRONT} 01 00000000000000 {} {} {} {} {}",
        "22".repeat(112),
        "33".repeat(112),
        "00".repeat(40),
        "55".repeat(16),
        "00".repeat(4060 - 384),
    );
    let golden = slot(&format!("{front} {}", "44".repeat(32)), "9c087254");
    assert_eq!(hex(&header.authenticated()), hex(&golden[..4060]));
    assert!(Header::decode(&golden) == Ok(header));
    assert_eq!(hex(&header.encode()), hex(&golden));
}

#[test]
fn checkpoint_head() {
    let head = CheckpointHead {
        database_id: DATABASE_ID,
        generation: GENERATION,
        replay_from: 20_000,
        next_namespace: 301,
        dead_bytes: 77,
        nonce: *b"0123456789:;<=>?",
        hash_check: 0x1817_1615_1413_1211,
        spaces: vec![
            CheckpointSpace {
                name: String::new(),
                id: 0,
                records: 5,
                logical_bytes: 600,
                image_offset: 4096,
                image_len: 8192,
                order_offset: 12_288,
                order_len: 700,
            },
            CheckpointSpace {
                name: "users".to_owned(),
                id: 300,
                records: 7,
                logical_bytes: 800,
                image_offset: 16_384,
                image_len: 4096,
                order_offset: 20_480,
                order_len: 0,
            },
        ],
    };
    let golden = unhex(
        "656d646263320d0a 01000000 c6000000 000102030405060708090a0b0c0d0e0f 0100000000000000
         204e000000000000 2d010000 4d00000000000000
         303132333435363738393a3b3c3d3e3f 1112131415161718 02000000
         00 00 0500000000000000 5802000000000000 0010000000000000 0020000000000000
         0030000000000000 bc02000000000000
         05 7573657273 ac02
         0700000000000000 2003000000000000 0040000000000000 0010000000000000
         0050000000000000 0000000000000000
         51dce9fc",
    );
    assert_eq!(CheckpointHead::decode(&golden), Ok(head.clone()));
    assert_eq!(hex(&head.encode().unwrap()), hex(&golden));
}
