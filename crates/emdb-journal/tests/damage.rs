//! Damage: what a flipped bit, a cut or another program left is refused or harmless.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::sync::Arc;

use common::{Record, disk, open, put, records_of, simulated};
use emdb_format::{Header, Sealing};
use emdb_journal::{Error, FileMedium, OpenMode};

/// A cleanly closed journal and its records.
fn closed() -> (Vec<u8>, Vec<Record>) {
    let (medium, journal) = simulated();
    journal.append(&put(b"a", b"first")).unwrap();
    let mut batch = journal.begin("test").unwrap();
    batch.append(&put(b"b", b"second")).unwrap();
    batch.append(&put(b"c", &[3; 40])).unwrap();
    batch.commit(|| {}).unwrap();
    journal.sync().unwrap();
    journal.append(&put(b"d", b"fourth")).unwrap();
    drop(journal);
    let bytes = medium.durable_bytes();
    let records = records_of(&bytes).unwrap();
    assert_eq!(records.len(), 4);
    (bytes, records)
}

fn check_flipped(bytes: &mut [u8], bit: usize, records: &[Record]) -> bool {
    bytes[bit / 8] ^= 1 << (bit % 8);
    let opened = records_of(bytes);
    bytes[bit / 8] ^= 1 << (bit % 8);
    match opened {
        Ok(found) => {
            assert_eq!(found, records, "bit {bit}");
            true
        }
        Err(_) => false,
    }
}

#[test]
fn flipped_bit_of_a_closed_journal_is_refused_or_harmless() {
    let (mut bytes, records) = closed();
    for at in 0..16_384 {
        // Every bit of the fields, one bit of every byte that is always zero.
        let bits = if at % 8_192 < 400 {
            0..8
        } else {
            at % 8..at % 8 + 1
        };
        for bit in bits {
            check_flipped(&mut bytes, at * 8 + bit, &records);
        }
    }
    for bit in 16_384 * 8..bytes.len() * 8 {
        let harmless = check_flipped(&mut bytes, bit, &records);
        assert!(!harmless, "bit {bit} of a frame went unnoticed");
    }
}

#[test]
fn closed_journal_cut_anywhere_is_refused() {
    let (bytes, _) = closed();
    for len in (1..bytes.len()).filter(|len| *len > 16_000 || len % 7 == 0) {
        assert!(records_of(&bytes[..len]).is_err(), "length {len}");
    }
    // Nothing at all counts as a new journal.
    assert_eq!(records_of(&[]).unwrap(), []);
}

#[test]
fn damage_to_one_header_slot_leaves_the_other() {
    let (mut bytes, records) = closed();
    for slot in [0..4096, 8192..8192 + 4096] {
        let whole = bytes[slot.clone()].to_vec();
        bytes[slot.clone()].fill(0xff);
        assert_eq!(records_of(&bytes).unwrap(), records);
        bytes[slot].copy_from_slice(&whole);
    }
}

fn check_untouched(bytes: &[u8], expected: impl Fn(&Error) -> bool) {
    let medium = disk(bytes);
    let error = open(Arc::clone(&medium)).err().unwrap();
    assert!(expected(&error), "{error}");
    assert_eq!(medium.live_bytes(), bytes);
    assert_eq!(medium.calls(), 0);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    let medium = FileMedium::open(&path, OpenMode::Create).unwrap();
    let error = open(medium).err().unwrap();
    assert!(expected(&error), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let names: Vec<_> = directory.path().read_dir().unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn foreign_file_is_refused_and_left_untouched() {
    let is_foreign = |error: &Error| matches!(error, Error::MagicMismatch);
    check_untouched(b"x", is_foreign);
    check_untouched(b"PK\x03\x04 something else", is_foreign);
    check_untouched(&[0; 40_000], is_foreign);
    check_untouched(&[0xff; 40_000], is_foreign);
}

#[test]
fn newer_version_is_refused_and_left_untouched() {
    let (mut bytes, _) = closed();
    bytes[8] = 2;
    bytes[8192 + 8] = 2;
    check_untouched(&bytes, |error| {
        matches!(
            error,
            Error::VersionMismatch {
                found: 2,
                expected: 1
            }
        )
    });
}

fn crc32c(bytes: &[u8]) -> u32 {
    let reflected = 0x82f6_3b78;
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { reflected } else { 0 }
        })
    })
}

#[test]
fn whole_slot_of_another_version_is_refused_beside_a_valid_one() {
    // Otherwise an older emdb opens what a newer one has written, and destroys it.
    let (bytes, records) = closed();
    for (at, version) in [(0, 2), (8192, 2), (0, 7), (8192, 0)] {
        let mut bytes = bytes.clone();
        bytes[at + 8] = version;
        // A flipped bit in a slot leaves the other one.
        assert_eq!(records_of(&bytes).unwrap(), records);
        let crc = crc32c(&bytes[at..at + 4092]);
        bytes[at + 4092..at + 4096].copy_from_slice(&crc.to_le_bytes());
        check_untouched(
            &bytes,
            |error| matches!(error, Error::VersionMismatch { found, .. } if *found == u32::from(version)),
        );
    }
}

#[test]
fn sealed_journal_is_refused_and_left_untouched() {
    let (mut bytes, _) = closed();
    for at in [0, 8192] {
        let header = Header::decode(&bytes[at..at + 4096]).unwrap();
        let sealing = Sealing {
            cipher: 1,
            ..Sealing::default()
        };
        let sealed = Header { sealing, ..header }.encode();
        bytes[at..at + 4096].copy_from_slice(&sealed);
    }
    check_untouched(&bytes, |error| matches!(error, Error::Sealed));
}
