//! Epochs that are full, and sidecars whose writing fails: what is sealed, is sealed once.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use emdb_crypto::audit;

use super::*;
use crate::{Journal, Kind, Opening, Options, SimulatedMedium};

type Records = Vec<(Vec<u8>, usize)>;

/// Opens a journal whose epochs are short; gives what is in it.
fn open(disk: &Arc<SimulatedMedium>, epoch_bytes: u64) -> (Journal, Records) {
    let encryption = Encryption::new(EncryptionInput::RawKey([1; 32]));
    let medium = Box::new(Arc::clone(disk));
    let mut opening = Opening::new_encrypted(medium, Options::default(), &encryption).unwrap();
    opening.seal_mut().unwrap().epoch_bytes = epoch_bytes;
    let mut records = Records::new();
    let replayed = opening.replay(FIRST_POSITION, &mut |replayed| {
        let frame = replayed.frame;
        records.push((frame.key.to_vec(), frame.value_len()));
        Ok::<(), Error>(())
    });
    replayed.unwrap();
    (opening.finish().unwrap(), records)
}

fn epochs(journal: &Journal) -> usize {
    journal.seal().unwrap().epochs.count()
}

fn check(disk: &SimulatedMedium, mut expected: Records, in_order: bool) {
    let disk = Arc::new(disk.after_kill());
    let (journal, mut found) = open(&disk, 1 << 20);
    if !in_order {
        found.sort();
        expected.sort();
    }
    assert!(found == expected);
    drop(journal);
    assert_eq!(audit::repeated(), []);
}

#[test]
fn a_full_epoch_ends_for_all_who_append() {
    let disk = Arc::new(SimulatedMedium::new());
    let (journal, _) = open(&disk, 1500);
    let expected: Records = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3_u8)
            .map(|thread| {
                let journal = &journal;
                scope.spawn(move || {
                    let append = |number: u8| {
                        let (key, value) = ([thread, number], vec![0; usize::from(number)]);
                        let spec = FrameSpec::new(Kind::Put, &key, &value);
                        journal.append(&spec).unwrap();
                        (key.to_vec(), value.len())
                    };
                    (0..200).map(append).collect::<Records>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(epochs(&journal) > 40, "{}", epochs(&journal));
    check(&disk, expected, false);
}

#[test]
fn a_full_epoch_ends_within_a_batch() {
    for len in [0, 100, 700, 20_000] {
        let disk = Arc::new(SimulatedMedium::new());
        let (journal, _) = open(&disk, 2000.max(len as u64 + 1000));
        let value = vec![0; len];
        let mut expected = Records::new();
        for round in 0..3_u8 {
            let mut batch = journal.begin("test").unwrap();
            let mark = batch.mark();
            let put = |batch: &mut crate::Batch, number: u8| {
                let key = [round, number];
                let spec = FrameSpec::new(Kind::Put, &key, &value);
                batch.append(&spec).unwrap();
                (key.to_vec(), len)
            };
            for number in 0..40 {
                put(&mut batch, number);
            }
            batch.discard_from(&mark).unwrap();
            let records: Records = (40..80).map(|number| put(&mut batch, number)).collect();
            if round == 1 {
                drop(batch);
            } else {
                batch.commit(|| {}).unwrap();
                expected.extend(records);
            }
            let key = [round];
            journal
                .append(&FrameSpec::new(Kind::Put, &key, b""))
                .unwrap();
            expected.push((key.to_vec(), 0));
        }
        assert!(epochs(&journal) > 3);
        check(&disk, expected, true);
    }
}

/// What a batch closes with is in the same epoch, or in the next one.
#[test]
fn an_epoch_may_end_at_any_place_of_a_batch() {
    for epoch_bytes in 1200..1500 {
        let disk = Arc::new(SimulatedMedium::new());
        let (journal, _) = open(&disk, epoch_bytes);
        let mut batch = journal.begin("test").unwrap();
        let mut expected = Records::new();
        for number in 0..40_u8 {
            let spec = FrameSpec::new(Kind::Put, std::slice::from_ref(&number), &[0; 20]);
            batch.append(&spec).unwrap();
            expected.push((vec![number], 20));
        }
        batch.commit(|| {}).unwrap();
        check(&disk, expected, true);
    }
}

#[test]
fn an_epoch_that_cannot_begin_on_a_full_disk_begins_once_there_is_room() {
    let disk = Arc::new(SimulatedMedium::new());
    let (journal, _) = open(&disk, 1500);
    let mut expected = Records::new();
    let mut append = |expect: bool, number: u32| {
        let key = number.to_le_bytes();
        let spec = FrameSpec::new(Kind::Put, &key, &[0; 60]);
        let appended = match number % 4 {
            0 => journal.begin("test").and_then(|mut batch| {
                batch.append(&spec)?;
                batch.commit(|| {}).map(Some)
            }),
            // Taken back, which needs room, too.
            1 => journal.begin("test").and_then(|mut batch| {
                batch.append(&spec)?;
                Ok(None)
            }),
            _ => journal.append(&spec).map(Some),
        };
        match appended {
            Ok(None) => return,
            Ok(Some(_)) => expected.push((key.to_vec(), 60)),
            Err(Error::Io { source, .. }) => assert_eq!(source.kind(), ErrorKind::StorageFull),
            Err(error) => panic!("{error:?}"),
        }
        assert!(!expect || expected.last().unwrap().0 == key);
    };
    append(true, 0);
    disk.set_capacity(Some(disk.live_bytes().len() as u64));
    for number in 1..2000 {
        append(false, number);
    }
    disk.set_capacity(None);
    for number in 2000..2100 {
        append(true, number);
    }
    check(&disk, expected, true);
}

/// A part sealed in place twice is plaintext again.
#[test]
fn a_part_of_a_sidecar_is_sealed_once_whatever_fails() {
    struct Failing {
        written: Vec<u8>,
        calls: usize,
        fails: usize,
    }
    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls == self.fails {
                return Err(ErrorKind::Other.into());
            }
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let disk = Arc::new(SimulatedMedium::new());
    let (journal, _) = open(&disk, 1 << 20);
    let secret = b"planted ".repeat(400_000);
    for fails in 1..12 {
        let mut out = Failing {
            written: Vec::new(),
            calls: 0,
            fails,
        };
        let _ = journal
            .seal()
            .unwrap()
            .write_sidecar(FIRST_POSITION, &mut out, &mut |out| {
                // Goes on after an error, which it must not.
                for piece in secret.chunks(100_000) {
                    let _ = out.write_all(piece);
                }
                Ok(())
            });
        let found = out
            .written
            .windows(16)
            .any(|window| window == b"planted planted ");
        assert!(!found, "after a failure of call {fails}");
    }
    assert_eq!(audit::repeated(), []);
}

/// A sidecar with so many bytes: itself, and what is in it.
fn sidecar(journal: &Journal, len: usize) -> (Vec<u8>, Vec<u8>) {
    let contents: Vec<u8> = (0..len).map(|at| (at * 31 % 251) as u8).collect();
    let mut sealed = Vec::new();
    let write = &mut |out: &mut dyn Write| {
        contents
            .chunks(100_000)
            .try_for_each(|piece| out.write_all(piece))
    };
    let seal = journal.seal().unwrap();
    seal.write_sidecar(journal.published(), &mut sealed, write)
        .unwrap();
    (sealed, contents)
}

const MIB: usize = 1 << 20;

#[test]
fn every_piece_of_a_sealed_sidecar_is_what_was_written_there() {
    let disk = Arc::new(SimulatedMedium::new());
    let (journal, _) = open(&disk, 1 << 20);
    // The contents begin 4,096 bytes into the first part.
    let ends = [0, MIB - 4096, 4 * MIB - 4096];
    for len in [1, MIB - 4096, MIB - 4095, 5 * MIB] {
        let (sealed, contents) = sidecar(&journal, len);
        let mut opened = journal.seal().unwrap().open_sidecar(&sealed).unwrap();
        assert_eq!(opened.contents_len(), len);
        let places = ends
            .iter()
            .flat_map(|end| [end.saturating_sub(1), *end, end + 1]);
        let places: Vec<_> = places.filter(|at| *at < len).chain([len]).collect();
        for (number, start) in places.iter().enumerate() {
            for end in &places[number..] {
                let piece = *start..*end;
                let expected = &contents[piece.clone()];
                assert!(opened.read(&sealed, piece.clone()).unwrap() == expected);
                let own = opened.open(&sealed, piece.clone()).unwrap();
                assert!(own[..piece.len()] == *expected, "{piece:?} of {len}");
            }
        }
        for piece in [0..len + 1, len + 1..len + 1, len..usize::MAX] {
            assert!(opened.read(&sealed, piece.clone()).is_none());
            assert!(opened.open(&sealed, piece).is_none());
        }
    }
}

#[test]
fn a_changed_part_of_a_sealed_sidecar_is_never_handed_out() {
    let disk = Arc::new(SimulatedMedium::new());
    let (journal, _) = open(&disk, 1 << 20);
    let len = 3 * MIB + MIB / 2;
    let (sealed, contents) = sidecar(&journal, len);
    let seal = journal.seal().unwrap();
    for part in 0..4 {
        let mut forged = sealed.clone();
        forged[24 + part * (MIB + 16) + 5000] ^= 1;
        let opened = seal.open_sidecar(&forged);
        // The first one says what else is there, the last one that there is no more.
        assert_eq!(opened.is_some(), part == 1 || part == 2);
        let Some(mut opened) = opened else { continue };
        let changed = part * MIB - 4096..(part + 1) * MIB - 4096;
        for start in (0..len).step_by(MIB / 2) {
            for end in (start + 1..len).step_by(MIB) {
                let is_sound = end <= changed.start || start >= changed.end;
                let expected = is_sound.then(|| &contents[start..end]);
                let read = opened.read(&forged, start..end);
                assert!(read.as_deref() == expected);
                let own = opened.open(&forged, start..end);
                assert!(own.as_deref() == expected);
            }
        }
    }
    for len in 0..sealed.len() {
        // Everywhere near a part's end, and here and there.
        let near = (len.max(24) - 24) % (MIB + 16);
        if near < 20 || len.is_multiple_of(500_009) {
            assert!(seal.open_sidecar(&sealed[..len]).is_none(), "{len}");
        }
    }
}
