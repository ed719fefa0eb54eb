//! Damaged, truncated, lost and foreign files: an error or the right value, never a
//! wrong one, a panic, or a record that is silently missing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

mod long;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use emdb::{Emdb, Error, VerifyReads};
use emdb_format::CheckpointHead;
use emdb_journal::SimulatedMedium;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The files of a database that was closed cleanly, and what is in them.
struct Stored {
    journal: Vec<u8>,
    sidecar: Option<Vec<u8>>,
    root: Map,
    named: Map,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A database with replaced and removed records, a batch, a namespace, a large value,
/// and, if asked for, a checkpoint in the middle.
fn stored(checkpoint: bool) -> Stored {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let (mut root, mut named) = (Map::new(), Map::new());
    let db = Emdb::open(&path).unwrap();
    let space = db.namespace("named").unwrap();
    let mut insert = |key: String, value: Vec<u8>| {
        db.insert(&key, &value).unwrap();
        root.insert(key.into_bytes(), value);
    };
    for number in 0..40_u8 {
        insert(format!("key{number}"), vec![number; 10]);
        insert(format!("key{}", number / 2), vec![number; 7]);
    }
    insert("large".to_owned(), vec![9; 17_000]);
    insert(String::new(), Vec::new());
    db.remove("key3").unwrap();
    root.remove(&b"key3"[..]);
    space.insert("in", "named").unwrap();
    named.insert(b"in".to_vec(), b"named".to_vec());
    if checkpoint {
        db.checkpoint().unwrap();
    }
    for number in 0..10_u8 {
        root.insert(vec![number], vec![number; 30]);
    }
    db.insert_many((0..10_u8).map(|number| ([number], [number; 30])))
        .unwrap();
    db.close().unwrap();
    Stored {
        journal: fs::read(&path).unwrap(),
        sidecar: fs::read(beside(&path, ".meta")).ok(),
        root,
        named,
    }
}

/// What came of reading damaged files.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    /// Opened; some reads may have given errors.
    Errors,
    Intact,
}

impl Stored {
    fn disk(&self) -> SimulatedMedium {
        SimulatedMedium::with_bytes(&self.journal).with_sidecar(self.sidecar.clone())
    }

    /// Opens the disk and reads everything in every way.
    fn check(&self, disk: SimulatedMedium, read_only: bool) -> Outcome {
        let opened = Emdb::builder()
            .read_only(read_only)
            .build_on(Box::new(Arc::new(disk)));
        let db = match opened {
            Ok(db) => db,
            Err(Error::Corrupted { .. } | Error::MagicMismatch | Error::VersionMismatch { .. }) => {
                return Outcome::Refused;
            }
            // Damaged sizes and flags may ask for what this version does not have.
            Err(Error::EncryptionError(_)) => return Outcome::Refused,
            Err(error) => panic!("unexpected {error:?}"),
        };
        let mut intact = true;
        let mut damage = |error: Error| {
            assert!(matches!(error, Error::Corrupted { .. }), "{error:?}");
            intact = false;
        };
        for (key, value) in &self.root {
            match db.get(key) {
                Ok(found) => assert_eq!(found.as_ref(), Some(value), "{key:?}"),
                Err(error) => damage(error),
            }
            match db.contains_key(key) {
                Ok(found) => assert!(found, "{key:?}"),
                Err(error) => damage(error),
            }
        }
        for absent in ["key3", "never"] {
            match db.get(absent) {
                Ok(found) => assert_eq!(found, None),
                Err(error) => damage(error),
            }
        }
        let keys: Vec<_> = self.root.keys().collect();
        match db.get_many(&keys) {
            Ok(found) => assert!(found.iter().flatten().eq(self.root.values())),
            Err(error) => damage(error),
        }
        let walked: Result<Map, _> = db.try_iter().unwrap().collect();
        match walked {
            Ok(walked) => assert_eq!(walked, self.root),
            Err(error) => damage(error),
        }
        match db.open_namespace("named") {
            Ok(Some(space)) => match space.try_iter().unwrap().collect::<Result<Map, _>>() {
                Ok(walked) => assert_eq!(walked, self.named),
                Err(error) => damage(error),
            },
            other => panic!("the namespace is missing: {other:?}"),
        }
        let verified = db.verify();
        assert_eq!(db.len().unwrap(), self.root.len());
        match verified {
            Ok(_) if intact => Outcome::Intact,
            Ok(_) => panic!("verify found nothing where reads did"),
            Err(_) => Outcome::Errors,
        }
    }
}

fn stride(default: usize) -> usize {
    std::env::var("EMDB_TEST_CASES").map_or(default, |_| 1)
}

#[test]
fn a_flipped_bit_in_the_journal_is_an_error_or_harmless() {
    for checkpoint in [false, true] {
        let stored = stored(checkpoint);
        // All bytes of the small records; a sample of the headers and the large value.
        let dense = 16 << 10;
        let mut refused = 0;
        for at in (0..stored.journal.len()).step_by(stride(2)) {
            let large = stored.journal[at..].starts_with(&[9; 20]);
            let header = at < dense;
            if (large || header) && at % stride(62) != 0 && at % 8192 > 200 {
                continue;
            }
            let mut damaged = stored.disk_with(|journal| journal[at] ^= 1 << (at % 8));
            damaged = damaged.with_sidecar(stored.sidecar.clone());
            if stored.check(damaged, at % 4 == 0) != Outcome::Intact {
                refused += 1;
            }
        }
        assert!(refused > 500, "{refused}");
    }
}

impl Stored {
    fn disk_with(&self, change: impl FnOnce(&mut Vec<u8>)) -> SimulatedMedium {
        let mut journal = self.journal.clone();
        change(&mut journal);
        SimulatedMedium::with_bytes(&journal)
    }
}

#[test]
fn every_bit_of_a_tiny_database_is_covered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::open(&path).unwrap();
    db.namespace("named").unwrap();
    db.insert("a", "1").unwrap();
    db.insert("b", "2").unwrap();
    db.close().unwrap();
    let stored = Stored {
        journal: fs::read(&path).unwrap(),
        sidecar: None,
        root: Map::from([
            (b"a".to_vec(), b"1".to_vec()),
            (b"b".to_vec(), b"2".to_vec()),
        ]),
        named: Map::new(),
    };
    let first = emdb_format_first(&stored);
    for at in first..stored.journal.len() {
        for bit in 0..8 {
            let damaged = stored.disk_with(|journal| journal[at] ^= 1 << bit);
            stored.check(damaged, false);
        }
    }
}

/// Where records begin: behind the two header slots.
fn emdb_format_first(stored: &Stored) -> usize {
    assert!(stored.journal.len() > 16 << 10);
    16 << 10
}

#[test]
fn a_truncated_journal_is_refused() {
    for checkpoint in [false, true] {
        let stored = stored(checkpoint);
        for len in 1..stored.journal.len() {
            let dense = len > stored.journal.len() - 600 || len % 4096 < 8;
            if !dense && len % stride(97) != 0 {
                continue;
            }
            let damaged = stored
                .disk_with(|journal| journal.truncate(len))
                .with_sidecar(stored.sidecar.clone());
            assert_eq!(stored.check(damaged, false), Outcome::Refused, "{len}");
        }
    }
}

#[test]
fn a_flipped_bit_in_the_checkpoint_loses_nothing() {
    let stored = stored(true);
    let sidecar = stored.sidecar.clone().unwrap();
    for read_only in [false, true] {
        for at in (0..sidecar.len()).step_by(stride(19)) {
            let mut damaged = sidecar.clone();
            damaged[at] ^= 1 << (at % 8);
            let disk = stored.disk().with_sidecar(Some(damaged));
            assert_eq!(stored.check(disk, read_only), Outcome::Intact, "byte {at}");
        }
    }
}

#[test]
fn a_truncated_or_lost_checkpoint_loses_nothing() {
    let stored = stored(true);
    let sidecar = stored.sidecar.clone().unwrap();
    for read_only in [false, true] {
        for len in (0..sidecar.len()).step_by(stride(29)) {
            let disk = stored.disk().with_sidecar(Some(sidecar[..len].to_vec()));
            assert_eq!(stored.check(disk, read_only), Outcome::Intact, "{len}");
        }
        let disk = stored.disk().with_sidecar(None);
        assert_eq!(stored.check(disk, read_only), Outcome::Intact);
        let zeros = vec![0; sidecar.len()];
        let disk = stored.disk().with_sidecar(Some(zeros));
        assert_eq!(stored.check(disk, read_only), Outcome::Intact);
    }
}

#[test]
fn a_checkpoint_of_a_release_that_hashes_otherwise_is_ignored() {
    let stored = stored(true);
    let sidecar = stored.sidecar.clone().unwrap();
    for difference in [0, 1] {
        let mut head = CheckpointHead::decode_file(&sidecar).unwrap();
        let trailer_len = CheckpointHead::trailer(0).len();
        let mut changed = sidecar[..sidecar.len() - trailer_len - head.encoded_len()].to_vec();
        let offset = changed.len() as u64;
        head.hash_check ^= difference;
        changed.extend(head.encode().unwrap());
        changed.extend(CheckpointHead::trailer(offset));
        let disk = Arc::new(stored.disk().with_sidecar(Some(changed)));
        let db = Emdb::builder()
            .build_on(Box::new(Arc::clone(&disk)))
            .unwrap();
        // What is ignored is emptied, lest it be believed one day.
        let is_ignored = disk.sidecar_bytes().unwrap().is_empty();
        assert_eq!(is_ignored, difference != 0);
        let found: Map = db.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(found, stored.root);
    }
}

#[test]
fn a_checkpoint_from_earlier_or_from_another_database_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let mut expected = Map::new();
    let mut sidecars = vec![stored(true).sidecar.unwrap()];
    for round in 0..5_u32 {
        let db = Emdb::open(&path).unwrap();
        for number in 0..200_u32 {
            let key = (number * (round + 1) % 333).to_le_bytes();
            if number % 7 == 0 {
                db.remove(key).unwrap();
                expected.remove(&key[..]);
            } else {
                db.insert(key, round.to_le_bytes()).unwrap();
                expected.insert(key.to_vec(), round.to_le_bytes().to_vec());
            }
        }
        if round == 2 {
            db.clear().unwrap();
            expected.clear();
        }
        db.checkpoint().unwrap();
        sidecars.push(fs::read(beside(&path, ".meta")).unwrap());
        db.close().unwrap();
    }
    for sidecar in sidecars {
        fs::write(beside(&path, ".meta"), sidecar).unwrap();
        let db = Emdb::open(&path).unwrap();
        let found: Map = db.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(found, expected);
        for key in expected.keys() {
            assert!(db.contains_key(key).unwrap());
        }
        db.verify().unwrap();
    }
}

#[test]
fn a_damaged_checkpoint_does_not_stop_writing() {
    let stored = stored(true);
    let sidecar = stored.sidecar.clone().unwrap();
    for at in (0..sidecar.len()).step_by(stride(11)) {
        let mut damaged = sidecar.clone();
        damaged[at] ^= 0x55;
        let disk = Arc::new(stored.disk().with_sidecar(Some(damaged)));
        let db = Emdb::builder().build_on(Box::new(disk)).unwrap();
        let mut expected = stored.root.clone();
        for (number, key) in stored.root.keys().enumerate() {
            if number % 2 == 0 {
                db.insert(key, "new").unwrap();
                expected.insert(key.clone(), b"new".to_vec());
            } else {
                assert_eq!(db.remove(key).unwrap(), expected.remove(key));
            }
        }
        db.insert_many([("x", "1"), ("y", "2")]).unwrap();
        expected.insert(b"x".to_vec(), b"1".to_vec());
        expected.insert(b"y".to_vec(), b"2".to_vec());
        let found: Map = db.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(found, expected, "byte {at}");
        assert_eq!(db.len().unwrap(), expected.len());
        db.verify().unwrap();
    }
}

/// Every key of the default namespace is read inside of the iterator of `insert_many`
/// into another one, by `read`, whatever part of the checkpoint is damaged.
fn check_reads_inside_of_a_batch(
    read: impl Fn(&Emdb, Vec<u8>) -> emdb::Result<Option<Vec<u8>>> + Send + Sync + 'static,
) {
    let mut stored = stored(true);
    // Up to its end, so that opening replays nothing and meets no damage yet.
    let disk = Arc::new(stored.disk());
    let db = Emdb::builder()
        .build_on(Box::new(Arc::clone(&disk)))
        .unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    stored.journal = disk.durable_bytes();
    let sidecar = disk.sidecar_bytes().unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for at in (0..sidecar.len()).step_by(stride(701)) {
            let mut damaged = sidecar.clone();
            damaged[at] ^= 0x55;
            let disk = Arc::new(stored.disk().with_sidecar(Some(damaged)));
            let db = Emdb::builder().build_on(Box::new(disk)).unwrap();
            let named = db.namespace("named").unwrap();
            // More than is pulled before the write side is taken.
            let filler = (0..3_u8).map(|number| (vec![number], vec![0; 700_000]));
            let reads = stored.root.iter().map(|(key, value)| {
                let found = read(&db, key.clone()).unwrap();
                assert_eq!(found.as_ref(), Some(value), "byte {at}");
                (key.clone(), value.clone())
            });
            named.insert_many(filler.chain(reads)).unwrap();
            db.verify().unwrap();
        }
        done.send(()).unwrap();
    });
    // Longer than it takes, so that a hang fails instead of lasting for ever.
    let ended = ended.recv_timeout(std::time::Duration::from_secs(120));
    assert_eq!(ended, Ok(()));
}

#[test]
fn a_damaged_checkpoint_does_not_stop_reading_inside_of_a_batch() {
    check_reads_inside_of_a_batch(|db, key| db.get(key));
}

#[test]
fn a_damaged_checkpoint_does_not_stop_a_thread_that_a_batch_waits_for() {
    // As where records come through a channel from a thread that reads.
    check_reads_inside_of_a_batch(|db, key| {
        std::thread::scope(|scope| scope.spawn(|| db.get(key)).join().unwrap())
    });
}

#[test]
fn a_damaged_checkpoint_does_not_stop_reading_after_a_failed_sync() {
    let stored = stored(true);
    let sidecar = stored.sidecar.clone().unwrap();
    for at in (0..sidecar.len()).step_by(stride(211)) {
        let mut damaged = sidecar.clone();
        damaged[at] ^= 0x55;
        let disk = Arc::new(stored.disk().with_sidecar(Some(damaged)));
        let db = Emdb::builder()
            .build_on(Box::new(Arc::clone(&disk)))
            .unwrap();
        db.insert("key0", stored.root[&b"key0"[..]].clone())
            .unwrap();
        disk.fail_call(disk.calls(), std::io::ErrorKind::Other);
        db.flush().unwrap_err();
        assert!(matches!(db.insert("x", "y"), Err(Error::Poisoned)));
        for (key, value) in &stored.root {
            assert_eq!(db.get(key).unwrap().as_ref(), Some(value), "byte {at}");
        }
        let found: Map = db.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(found, stored.root, "byte {at}");
    }
}

#[test]
fn damage_while_open_is_found_by_verify_and_by_reads_that_always_verify() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Emdb::builder()
        .path(&path)
        .verify_reads(VerifyReads::Always)
        .build()
        .unwrap();
    db.insert("key", "unmistakable").unwrap();
    db.flush().unwrap();
    assert!(db.get("key").unwrap().is_some());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(12)
        .position(|part| part == b"unmistakable")
        .unwrap();
    bytes[at] ^= 1;
    overwrite(&path, &bytes);
    assert!(matches!(db.get("key"), Err(Error::Corrupted { .. })));
    assert!(matches!(db.verify(), Err(Error::Corrupted { .. })));
}

/// What a scan says of a record that is damaged after `read_before` was called, and what
/// it shows of it: a value, or damage.
fn scan_of_damaged(mode: VerifyReads, backwards: bool, read_before: fn(&Emdb)) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let builder = Emdb::builder().path(&path).enable_range_scans(true);
    let db = builder.verify_reads(mode).build().unwrap();
    for (key, value) in [("a", "before"), ("key", "unmistakable"), ("z", "behind")] {
        db.insert(key, value).unwrap();
    }
    db.flush().unwrap();
    read_before(&db);
    let mut bytes = fs::read(&path).unwrap();
    // That of the newest version.
    let at = bytes.windows(12).rposition(|part| part == b"unmistakable");
    bytes[at.unwrap()] ^= 1;
    overwrite(&path, &bytes);
    let mut seen = Vec::new();
    let visit = |_: &[u8], value: &[u8]| {
        seen.push(value.to_vec());
        ControlFlow::Continue(())
    };
    let scanned = match backwards {
        false => db.scan(.., visit),
        true => db.scan_rev(.., visit),
    };
    let mut iterated = db.range_iter(..).unwrap();
    match scanned {
        Ok(()) => {
            assert_eq!(seen.len(), 3);
            assert_eq!(iterated.by_ref().count(), 3);
            assert!(iterated.error().is_none());
            Some(seen.swap_remove(1))
        }
        Err(error) => {
            assert!(matches!(error, Error::Corrupted { .. }), "{error:?}");
            assert_eq!(seen.len(), 1, "the records before were visited");
            assert_eq!(iterated.by_ref().count(), 1);
            assert!(matches!(iterated.error(), Some(Error::Corrupted { .. })));
            None
        }
    }
}

fn scan_everything(db: &Emdb) {
    assert_eq!(db.range(..).unwrap().len(), 3);
}

#[test]
fn a_scan_verifies_a_record_as_often_as_reads_are_to_be_verified() {
    for backwards in [false, true] {
        let scan = |mode, before| scan_of_damaged(mode, backwards, before);
        assert_eq!(scan(VerifyReads::Once, |_| ()), None);
        assert_eq!(scan(VerifyReads::Always, |_| ()), None);
        assert_eq!(scan(VerifyReads::Always, scan_everything), None);
        // Believed once it was verified, as a read of the key would.
        let damaged = b"tnmistakable";
        let once = scan(VerifyReads::Once, scan_everything);
        assert_eq!(once.as_deref(), Some(&damaged[..]));
        let never = scan(VerifyReads::Never, |_| ());
        assert_eq!(never.as_deref(), Some(&damaged[..]));
    }
}

#[test]
fn a_scan_verifies_what_replaced_a_verified_record() {
    let replaced = |db: &Emdb| {
        scan_everything(db);
        db.insert("key", "unmistakable").unwrap();
        db.flush().unwrap();
    };
    let again = |db: &Emdb| {
        scan_everything(db);
        db.remove("key").unwrap();
        db.insert("key", "unmistakable").unwrap();
        db.flush().unwrap();
    };
    for backwards in [false, true] {
        assert_eq!(
            scan_of_damaged(VerifyReads::Once, backwards, replaced),
            None
        );
        assert_eq!(scan_of_damaged(VerifyReads::Once, backwards, again), None);
    }
}

/// Changes the bytes in place, so that whoever has the file open sees it.
fn overwrite(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_refused_file_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let intact = stored(true);
    let mut damaged = intact.journal.clone();
    let at = damaged.len() - 200;
    damaged[at] ^= 4;
    for bytes in [
        b"some notes of mine\n".to_vec(),
        vec![0x7f; 40_000],
        vec![b'x'],
        vec![0; 100],
        damaged,
        intact.journal[..intact.journal.len() - 100].to_vec(),
    ] {
        fs::write(&path, &bytes).unwrap();
        for read_only in [false, true] {
            let opened = Emdb::builder().path(&path).read_only(read_only).build();
            assert!(
                matches!(opened, Err(Error::MagicMismatch | Error::Corrupted { .. })),
                "{opened:?}"
            );
            assert!(fs::read(&path).unwrap() == bytes);
        }
        assert!(!beside(&path, ".lock").exists());
    }
    fs::write(&path, b"some notes of mine, long enough to have a magic").unwrap();
    assert!(matches!(Emdb::open(&path), Err(Error::MagicMismatch)));
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let stored = stored(false);
    let magic = stored.journal[..8].to_vec();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    // The version stands behind the magic, in both slots.
    let mut bytes = stored.journal.clone();
    for slot in [0, 8 << 10] {
        if bytes[slot..].starts_with(&magic) {
            bytes[slot + VERSION_AT..slot + VERSION_AT + 4].copy_from_slice(&99_u32.to_le_bytes());
        }
    }
    fs::write(&path, &bytes).unwrap();
    let opened = Emdb::open(&path);
    assert!(
        matches!(opened, Err(Error::VersionMismatch { found: 99, .. })),
        "{opened:?}"
    );
    assert!(fs::read(&path).unwrap() == bytes);
}

/// Offset of the version in a header slot.
const VERSION_AT: usize = 8;

/// A kill while a large checkpoint was being written had the next opening replay all of the
/// journal, although the checkpoint before was there and whole.
#[test]
fn a_checkpoint_that_is_never_finished_leaves_the_one_before_in_use() {
    let disk = Arc::new(SimulatedMedium::new());
    let open = |disk: &Arc<SimulatedMedium>| {
        let medium = Box::new(Arc::clone(disk));
        Emdb::builder().build_on(medium).unwrap()
    };
    let db = open(&disk);
    db.insert("first", "value").unwrap();
    db.checkpoint().unwrap();
    let checkpoint = disk.sidecar_bytes();
    db.insert("second", "value").unwrap();
    let before = disk.after_kill();
    let mut unfinished = 0;
    for call in 0.. {
        let mut disk = Arc::new(before.after_kill());
        // Killed at this call, and once more after that.
        for records in 2..5 {
            let db = open(&disk);
            assert_eq!(db.len().unwrap(), records);
            assert_eq!(disk.sidecar_bytes(), checkpoint, "call {call}");
            db.insert(records.to_string(), "value").unwrap();
            disk.fail_call(disk.calls() + call, std::io::ErrorKind::Other);
            if db.checkpoint().is_ok() {
                assert!(unfinished > 3 * 3);
                return;
            }
            unfinished += 1;
            disk = Arc::new(disk.after_kill());
        }
    }
}
