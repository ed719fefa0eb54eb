//! Encrypted journals: changing the key, and losing power meanwhile.
#![cfg(feature = "encrypt")]

use std::sync::Arc;

use emdb_journal::{
    Encryption, EncryptionInput, Error, FrameSpec, Journal, Kind, Medium, Opening, Options,
    SimulatedMedium,
};

fn key(byte: u8) -> Encryption {
    Encryption::new(EncryptionInput::RawKey([byte; 32]))
}

fn open(disk: &Arc<SimulatedMedium>, byte: u8) -> Result<(Journal, Vec<Vec<u8>>), Error> {
    let opening =
        Opening::new_encrypted(Box::new(disk.after_kill()), Options::default(), &key(byte))?;
    let mut keys = Vec::new();
    opening.replay(16_384, &mut |replayed| {
        keys.push(replayed.frame.key.to_vec());
        Ok::<_, Error>(())
    })?;
    Ok((opening.finish()?, keys))
}

#[test]
fn losing_power_while_the_key_changes_leaves_the_old_or_the_new_one() {
    let disk = Arc::new(SimulatedMedium::new());
    let opening = Opening::new_encrypted(Box::new(Arc::clone(&disk)), Options::default(), &key(1));
    let journal = opening.unwrap().finish().unwrap();
    for byte in 0..20 {
        journal
            .append(&FrameSpec::new(Kind::Put, &[byte], b"value"))
            .unwrap();
    }
    journal.close().unwrap();
    let before = disk.durable_bytes();

    let change = |disk: &Arc<SimulatedMedium>| {
        let medium: Box<dyn Medium> = Box::new(Arc::clone(disk));
        Opening::new_encrypted(medium, Options::default(), &key(1))?.change_key(&key(2))
    };
    let counted = Arc::new(SimulatedMedium::with_bytes(&before));
    change(&counted).unwrap();
    let (mut old, mut new) = (0, 0);
    for call in 0..counted.calls() {
        // Power is lost at this call, and with it any of the sectors written before.
        for kept in [0, 1, 100, 512] {
            let disk = Arc::new(SimulatedMedium::with_bytes(&before));
            disk.fail_call(call, std::io::ErrorKind::Other);
            assert!(change(&disk).is_err());
            let left = Arc::new(SimulatedMedium::with_bytes(&disk.crash(|_| kept)));
            let found = match open(&left, 1) {
                Ok(found) => {
                    old += 1;
                    assert!(matches!(open(&left, 2), Err(Error::KeyMismatch)));
                    found
                }
                Err(Error::KeyMismatch) => {
                    new += 1;
                    open(&left, 2).unwrap()
                }
                Err(error) => panic!("{error}"),
            };
            assert_eq!(found.1.len(), 20);
        }
    }
    assert!(old > 0 && new > 0, "{old} {new}");
}

#[test]
fn a_change_of_the_key_that_was_cut_short_is_finished_by_the_next_opening() {
    let disk = Arc::new(SimulatedMedium::new());
    let medium: Box<dyn Medium> = Box::new(Arc::clone(&disk));
    let opening = Opening::new_encrypted(medium, Options::default(), &key(1));
    opening.unwrap().finish().unwrap().close().unwrap();
    let old = disk.durable_bytes();
    let medium: Box<dyn Medium> = Box::new(Arc::clone(&disk));
    let mut opening = Opening::new_encrypted(medium, Options::default(), &key(1)).unwrap();
    opening.change_key(&key(2)).unwrap();
    let new = disk.durable_bytes();

    // One slot says the new key, the other still the old one.
    for slot in [0, 8192] {
        let mut mixed = new.clone();
        mixed[slot..slot + 4096].copy_from_slice(&old[slot..slot + 4096]);
        let disk = Arc::new(SimulatedMedium::with_bytes(&mixed));
        let medium: Box<dyn Medium> = Box::new(Arc::clone(&disk));
        Opening::new_encrypted(medium, Options::default(), &key(2)).unwrap();
        for damaged in [0, 8192] {
            let mut bytes = disk.durable_bytes();
            bytes[damaged + 100] ^= 1;
            let copy = Arc::new(SimulatedMedium::with_bytes(&bytes));
            assert!(matches!(open(&copy, 1), Err(Error::KeyMismatch)));
            open(&copy, 2).unwrap();
        }
    }
}

/// Power was lost while the second header was written: its checksum was wrong, so nobody looked
/// at it, and what the old key opens stayed in it.
#[test]
fn a_torn_header_does_not_keep_what_the_old_key_opens() {
    let disk = Arc::new(SimulatedMedium::new());
    let medium: Box<dyn Medium> = Box::new(Arc::clone(&disk));
    let opening = Opening::new_encrypted(medium, Options::default(), &key(1));
    opening.unwrap().finish().unwrap().close().unwrap();
    let old = disk.durable_bytes();
    let medium: Box<dyn Medium> = Box::new(Arc::clone(&disk));
    let mut opening = Opening::new_encrypted(medium, Options::default(), &key(1)).unwrap();
    opening.change_key(&key(2)).unwrap();
    let new = disk.durable_bytes();

    for slot in [0, 8192] {
        // The first key slot, from its salt on.
        let wrapped = &old[slot + 120..slot + 216];
        let mut torn = new.clone();
        torn[slot..slot + 512].copy_from_slice(&old[slot..slot + 512]);
        let disk = Arc::new(SimulatedMedium::with_bytes(&torn));
        let medium: Box<dyn Medium> = Box::new(Arc::clone(&disk));
        drop(Opening::new_encrypted(medium, Options::default(), &key(2)).unwrap());
        let left = disk.durable_bytes();
        assert!(left.windows(wrapped.len()).all(|found| found != wrapped));
        open(&disk, 2).unwrap();
    }
}
