//! Maps that are used up: a larger one takes over, and nobody loses what they hold.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::probe::Probe;
use common::{open, put};
use emdb_journal::{Error, FileMedium, Journal, OpenMode, Opened, PinnedBytes};
use tempfile::TempDir;

fn small_maps() -> (TempDir, Journal) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let medium = FileMedium::open(&path, OpenMode::Create).unwrap();
    let probe = Probe::new(medium, |_| Ok(())).small_maps();
    (directory, open(probe).unwrap().0)
}

fn value(number: usize) -> Vec<u8> {
    vec![number as u8 + 1; 3_000 + number]
}

#[test]
fn pinned_bytes_outlive_the_map_and_the_journal() {
    let (directory, journal) = small_maps();
    let mut pins: Vec<PinnedBytes> = Vec::new();
    for number in 0..200 {
        let lsn = journal.append(&put(b"k", &value(number))).unwrap();
        let opened = Opened::new();
        let frame = journal.frame(lsn.get(), &opened).unwrap();
        pins.push(journal.pin(frame.value).unwrap());
    }
    for (number, pin) in pins.iter().enumerate() {
        assert_eq!(**pin, value(number), "{number}");
    }
    drop(journal);
    directory.close().unwrap();
    for (number, pin) in pins.iter().enumerate() {
        assert_eq!(**pin, value(number), "{number}");
    }
    let copy = pins[100].clone();
    drop(pins);
    assert_eq!(*copy, value(100));
}

#[test]
fn bytes_read_before_the_map_was_replaced_can_still_be_pinned() {
    // Otherwise a get_zerocopy that meets a growing journal says it is corrupted.
    let (_directory, journal) = small_maps();
    let lsn = journal.append(&put(b"k", &value(7))).unwrap();
    let opened = Opened::new();
    let frame = journal.frame(lsn.get(), &opened).unwrap();
    for number in 0..100 {
        journal.append(&put(b"k", &value(number))).unwrap();
    }
    journal.verify(lsn.get(), &frame).unwrap();
    assert_eq!(*journal.pin(frame.value).unwrap(), value(7));
    let foreign = journal.pin(&value(7)).err().unwrap();
    assert!(matches!(foreign, Error::Corrupted { .. }));
}

#[test]
fn readers_and_writers_go_on_while_maps_are_replaced() {
    let (_directory, journal) = small_maps();
    let journal = &journal;
    std::thread::scope(|scope| {
        for thread in 0..3_usize {
            scope.spawn(move || {
                let mut last = None;
                for number in 0..150 {
                    let bytes = value(number + thread);
                    let lsn = journal.append(&put(b"k", &bytes)).unwrap().get();
                    let opened = Opened::new();
                    let frame = journal.frame(lsn, &opened).unwrap();
                    journal.verify(lsn, &frame).unwrap();
                    let pin = journal.pin(frame.value).unwrap();
                    assert_eq!(*pin, bytes);
                    if let Some((old, expected)) = last.replace((pin, bytes)) {
                        assert_eq!(*old, expected);
                    }
                }
            });
        }
    });
    let mut count = 0;
    let result: Result<(), Error> = journal.replay(16_384, &mut |_| {
        count += 1;
        Ok(())
    });
    result.unwrap();
    assert_eq!(count, 450);
}

/// If it were in use before that, whoever stores just then into space that is prepared already
/// would be killed.
#[cfg(unix)]
#[test]
fn a_larger_map_is_not_used_before_it_can_be_stored_into() {
    use std::sync::atomic::Ordering;

    use common::replay;
    use emdb_journal::Store;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let medium = FileMedium::open(&path, OpenMode::Create).unwrap();
    let probe = Probe::new(medium, |_| Ok(()))
        .storing(Store::Mapped)
        .small_maps();
    let read_only = probe.read_only_maps();
    let journal = open(probe).unwrap().0;
    journal.append(&put(b"first", b"")).unwrap();
    read_only.store(true, Ordering::Relaxed);
    let mut stored = vec![(b"first".to_vec(), Vec::new())];
    for number in 0..20 {
        // The small ones find room in what is prepared already.
        for value in [value(number).repeat(8), value(number)[..10].to_vec()] {
            match journal.append(&put(b"k", &value)) {
                Ok(_) => stored.push((b"k".to_vec(), value)),
                Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
            }
        }
    }
    assert!((20..40).contains(&stored.len()), "{}", stored.len());
    read_only.store(false, Ordering::Relaxed);
    journal.append(&put(b"last", &value(100))).unwrap();
    stored.push((b"last".to_vec(), value(100)));
    assert!(replay(&journal).unwrap() == stored);
}
