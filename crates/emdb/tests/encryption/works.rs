//! Everything that a database does, encrypted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use emdb::{Cipher, Emdb, Error};
use emdb_journal::SimulatedMedium;

use crate::{Map, keyed, kill, open, state};

const LENS: [usize; 6] = [0, 1, 16_383, 16_384, 16_385, 1 << 20];

fn value(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

fn check_values(db: &Emdb) {
    for len in LENS {
        let (key, value) = (len.to_string(), value(len));
        assert_eq!(db.get(&key).unwrap().as_ref(), Some(&value));
        assert!(db.contains_key(&key).unwrap());
        let borrowed = db.get_zerocopy(&key).unwrap().unwrap();
        assert!(borrowed == value);
        assert_eq!(db.get_with(&key, <[u8]>::len).unwrap(), Some(len));
    }
    let keys = LENS.map(|len| len.to_string());
    let found = db.get_many(&keys).unwrap();
    assert!(found.into_iter().map(Option::unwrap).eq(LENS.map(value)));
    let walked: BTreeSet<_> = db.keys().unwrap().collect();
    assert_eq!(walked, keys.map(String::into_bytes).into());
    let walked: Map = db.try_iter().unwrap().collect::<Result<_, _>>().unwrap();
    assert!(
        walked
            .values()
            .map(Vec::len)
            .eq([0, 1, 1 << 20, 16_383, 16_384, 16_385])
    );
    assert_eq!(db.len().unwrap(), LENS.len());
    assert!(db.stats().unwrap().encrypted);
    db.verify().unwrap();
}

#[test]
fn values_of_every_size_come_back() {
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        for checkpoint in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("db");
            let db = keyed().cipher(cipher).path(&path).build().unwrap();
            for len in LENS {
                db.insert(len.to_string(), "replaced").unwrap();
                db.insert(len.to_string(), value(len)).unwrap();
            }
            check_values(&db);
            if checkpoint {
                db.checkpoint().unwrap();
            }
            db.close().unwrap();
            check_values(&keyed().path(&path).build().unwrap());
            let db = keyed().path(&path).read_only(true).build().unwrap();
            check_values(&db);
        }
    }
}

#[test]
fn a_database_in_memory_can_be_encrypted() {
    let db = keyed().enable_range_scans(true).build().unwrap();
    for len in LENS {
        db.insert(len.to_string(), value(len)).unwrap();
    }
    check_values(&db);
    assert_eq!(db.range("0".."16384").unwrap().len(), 4);
}

#[test]
fn a_borrowed_value_outlives_its_database() {
    let db = keyed().build().unwrap();
    db.insert("key", "value").unwrap();
    db.insert("large", value(20_000)).unwrap();
    let kept = ["key", "large"].map(|key| db.get_zerocopy(key).unwrap().unwrap());
    db.clear().unwrap();
    db.close().unwrap();
    assert_eq!(&kept[0][..], b"value");
    assert_eq!(&kept[1][..], value(20_000));
}

#[test]
fn thirty_openings_lose_nothing() {
    for checkpoint in [false, true] {
        let disk = Arc::new(SimulatedMedium::new());
        let mut disk = disk;
        let mut expected = Map::new();
        for round in 0..30_u8 {
            let db = open(&disk);
            assert_eq!(state(&db).unwrap()[""], expected, "round {round}");
            for number in 0..3_u8 {
                let key = vec![round.wrapping_mul(7) % 20, number];
                db.insert(&key, [round; 9]).unwrap();
                expected.insert(key, vec![round; 9]);
            }
            if checkpoint && round % 4 == 1 {
                db.checkpoint().unwrap();
            }
            match round % 3 {
                0 => db.close().unwrap(),
                1 => kill(db),
                _ => {
                    db.flush().unwrap();
                    kill(db);
                }
            }
            disk = Arc::new(disk.after_kill());
        }
        let db = open(&disk);
        assert_eq!(state(&db).unwrap()[""], expected);
        db.verify().unwrap();
    }
}

#[test]
fn transactions_and_snapshots_see_what_they_should() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = open(&disk);
    db.insert("a", "1").unwrap();
    db.insert("large", value(20_000)).unwrap();
    let before = db.snapshot().unwrap();
    let tx = db.begin().unwrap();
    tx.insert("a", "2").unwrap();
    let savepoint = tx.savepoint().unwrap();
    tx.insert("a", "3").unwrap();
    tx.remove("large").unwrap();
    assert_eq!(tx.get("large").unwrap(), None);
    assert_eq!(db.get("a").unwrap().unwrap(), b"1");
    tx.rollback_to(savepoint).unwrap();
    assert_eq!(tx.get("a").unwrap().unwrap(), b"2");
    assert_eq!(tx.get("large").unwrap().unwrap(), value(20_000));
    tx.namespace("named")
        .unwrap()
        .insert("in", value(17_000))
        .unwrap();
    tx.commit().unwrap();
    let tx = db.begin().unwrap();
    tx.insert("a", "4").unwrap();
    tx.remove("large").unwrap();
    tx.rollback().unwrap();
    for number in 5..40_u8 {
        db.insert("a", [number]).unwrap();
    }
    db.remove("large").unwrap();
    assert_eq!(before.get("a").unwrap().unwrap(), b"1");
    assert_eq!(before.get("large").unwrap().unwrap(), value(20_000));
    assert_eq!(before.len().unwrap(), 2);
    drop(before);
    let expected = state(&db).unwrap();
    assert_eq!(expected[""], Map::from([(b"a".to_vec(), vec![39])]));
    assert_eq!(expected["named"][&b"in"[..]], value(17_000));
    db.verify().unwrap();
    kill(db);
    let db = open(&Arc::new(disk.after_kill()));
    assert_eq!(state(&db).unwrap(), expected);
    assert!(db.drop_namespace("named").unwrap());
    db.clear().unwrap();
    assert_eq!(state(&db).unwrap()[""], Map::new());
}

#[test]
fn ranges_are_in_order_after_opening() {
    let disk = Arc::new(SimulatedMedium::new());
    for checkpoint in [false, true] {
        let db = open(&disk);
        for number in 0..1000_u32 {
            let key = format!("{:04}", number * 7919 % 1000);
            db.insert(key, number.to_string()).unwrap();
        }
        assert!(db.pop_first().unwrap().is_some());
        if checkpoint {
            db.checkpoint().unwrap();
        }
        db.close().unwrap();
        let db = open(&disk);
        let keys: Vec<_> = db.range(..).unwrap().into_iter().map(|it| it.0).collect();
        assert_eq!(keys.len(), 999);
        assert!(keys.is_sorted());
        assert_eq!(db.range_prefix("00").unwrap().len(), 99);
        db.verify().unwrap();
        drop(db);
    }
}

#[cfg(feature = "ttl")]
#[test]
fn records_expire() {
    use emdb::Ttl;
    let disk = Arc::new(SimulatedMedium::new());
    let open = |now: u64| {
        let builder = keyed().clock(move || now);
        builder.build_on(Box::new(Arc::clone(&disk))).unwrap()
    };
    let db = open(1000);
    db.insert_with_ttl("goes", value(20_000), Ttl::ExpiresAt(1500))
        .unwrap();
    db.insert_with_ttl("stays", "value", Ttl::ExpiresAt(9000))
        .unwrap();
    assert_eq!(db.expires_at("goes").unwrap(), Some(1500));
    assert_eq!(db.len().unwrap(), 2);
    db.close().unwrap();
    let db = open(1500);
    assert_eq!(db.get("goes").unwrap(), None);
    assert!(db.persist("stays").unwrap());
    assert_eq!(db.sweep_expired(), 1);
    db.verify().unwrap();
    drop(db);
    assert_eq!(open(10_000).get("stays").unwrap().unwrap(), b"value");
}

#[cfg(feature = "nested")]
#[test]
fn nested_groups_are_found_and_deleted() {
    let db = keyed().build().unwrap();
    let user = db.focus("user");
    user.set("name", "ada").unwrap();
    user.focus("address").set("town", value(20_000)).unwrap();
    db.insert("users", "2").unwrap();
    assert_eq!(db.group("user").unwrap().count(), 2);
    assert_eq!(db.delete_group("user").unwrap(), 2);
    assert_eq!(db.len().unwrap(), 1);
}

/// Writers of single records, of batches, of transactions that are rolled back, and readers.
#[test]
fn threads_write_and_read_at_the_same_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = keyed().path(&path).build().unwrap();
    let stop = AtomicBool::new(false);
    let large = |number: u32| {
        if number.is_multiple_of(50) {
            17_000
        } else {
            30
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u8)
            .map(|thread| {
                let db = &db;
                scope.spawn(move || {
                    for number in 0..600_u32 {
                        let byte = number as u8;
                        let key = [&[thread], &(number % 100).to_le_bytes()[..]].concat();
                        db.insert(key, vec![byte; large(number)]).unwrap();
                        if number % 20 == 0 {
                            let many = (0..20_u8).map(|at| ([thread, at], [byte; 40]));
                            db.insert_many(many).unwrap();
                        }
                        if number % 33 == 0 {
                            let tx = db.begin().unwrap();
                            tx.insert([thread, 0], "never").unwrap();
                            tx.rollback().unwrap();
                            db.flush().unwrap();
                        }
                        if number % 200 == 150 {
                            db.checkpoint().unwrap();
                        }
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for thread in 0..2_u8 {
                        if let Some(found) = db.get([thread, 0]).unwrap() {
                            assert!(
                                found.len() == 40 && found.iter().all(|byte| *byte == found[0])
                            );
                        }
                        // A batch is there as a whole.
                        let snapshot = db.snapshot().unwrap();
                        let all: BTreeSet<_> = (0..20_u8)
                            .map(|at| snapshot.get([thread, at]).unwrap())
                            .collect();
                        assert_eq!(all.len(), 1);
                    }
                    for record in db.try_iter().unwrap() {
                        let (_, value) = record.unwrap();
                        assert!(value.iter().all(|byte| *byte == value[0]));
                    }
                }
            });
        }
        let ended: Vec<_> = writers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        stop.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    assert_eq!(db.len().unwrap(), 2 * (100 + 20));
    let expected = state(&db).unwrap();
    db.verify().unwrap();
    db.close().unwrap();
    let db = keyed().path(&path).build().unwrap();
    assert_eq!(state(&db).unwrap(), expected);
    assert!(matches!(db.range(..), Err(Error::InvalidConfig(_))));
}

/// The sweep decrypted all of a large value only to remove it: with the value damaged, it
/// could never be swept.
#[cfg(feature = "ttl")]
#[test]
fn a_large_value_is_not_opened_to_be_swept() {
    let disk = Arc::new(SimulatedMedium::new());
    let db = keyed().build_on(Box::new(Arc::clone(&disk))).unwrap();
    db.insert_with_ttl("large", value(40_000), emdb::Ttl::ExpiresAt(1))
        .unwrap();
    // So that opening does not read the record.
    db.checkpoint().unwrap();
    db.close().unwrap();
    let mut bytes = disk.live_bytes();
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    let disk = SimulatedMedium::with_bytes(&bytes).with_sidecar(disk.sidecar_bytes());
    let db = keyed().build_on(Box::new(disk)).unwrap();
    assert_eq!(db.sweep_expired(), 1);
    assert!(db.is_empty().unwrap());
}

/// Indexes that are large are opened by several threads, each into memory of its own.
#[test]
fn large_checkpoints_are_opened_and_trusted() {
    for with_ranges in [false, true] {
        let disk = Arc::new(SimulatedMedium::new());
        let builder = || keyed().enable_range_scans(with_ranges);
        let db = builder().build_on(Box::new(Arc::clone(&disk))).unwrap();
        let key = |number: u32| format!("{number:08}").into_bytes();
        let counts = [("larger", 150_000_u32), ("small", 10), ("large", 120_000)];
        for (name, count) in counts {
            let space = db.namespace(name).unwrap();
            space
                .insert_many((0..count).map(|number| (key(number), "")))
                .unwrap();
        }
        db.close().unwrap();
        let sidecar = disk.sidecar_bytes().unwrap();
        assert!(sidecar.len() > 3 << 20);
        // Who reads the journal would be told.
        let mut bytes = disk.live_bytes();
        bytes[20_000] ^= 1;
        let disk = SimulatedMedium::with_bytes(&bytes);
        assert!(builder().build_on(Box::new(disk)).is_err());

        let disk = SimulatedMedium::with_bytes(&bytes).with_sidecar(Some(sidecar));
        let db = builder().build_on(Box::new(disk)).unwrap();
        for (name, count) in counts {
            let space = db.namespace(name).unwrap();
            assert_eq!(space.len().unwrap(), count as usize);
            // The damaged record is one of the first.
            for number in (count / 2..=count).step_by(7) {
                assert_eq!(space.contains_key(key(number)).unwrap(), number < count);
            }
            if with_ranges {
                let last = count - 5..count;
                let found = space.range(key(last.start)..).unwrap();
                assert!(found.into_iter().map(|(key, _)| key).eq(last.map(key)));
            }
        }
    }
}

/// A helper seals what a long transaction writes, some time after that is in the index.
#[test]
fn a_long_transaction_is_hidden_and_whole_while_others_read() {
    const KEYS: u32 = 20_000;
    let key = |number: u32| number.to_le_bytes();
    let db = keyed().enable_range_scans(true).build().unwrap();
    db.insert_many((0..KEYS).map(|number| (key(number), [1; 150])))
        .unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2_u32 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let mut number = thread;
                while !stop.load(Ordering::Relaxed) {
                    number = (number + 7919) % KEYS;
                    let found = db.get(key(number)).unwrap().unwrap();
                    assert!(found == [1; 150]);
                    assert!(db.get(key(number + KEYS)).unwrap().is_none());
                    let from = key(number);
                    let (_, first) = db.range_iter(from..).unwrap().next().unwrap();
                    assert!(first[..] == [1; 150]);
                }
            });
        }
        let written = db.transaction(|tx| {
            tx.insert_many((0..2 * KEYS).map(|number| (key(number), [2; 150])))?;
            let savepoint = tx.savepoint()?;
            for number in (0..2 * KEYS).rev() {
                tx.insert(key(number), [3; 150])?;
                // Sealed already, or about to be.
                let at = number + number % 40;
                if at < 2 * KEYS && number % 10 == 0 {
                    assert_eq!(tx.get(key(at))?.as_deref(), Some(&[3; 150][..]));
                }
            }
            tx.rollback_to(savepoint)?;
            for number in 0..100 {
                // The same few keys again and again.
                tx.insert(key(number % 5), [4; 150])?;
                assert_eq!(tx.get(key(number % 5))?.as_deref(), Some(&[4; 150][..]));
            }
            stop.store(true, Ordering::Relaxed);
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        written.unwrap();
    });
    for number in 0..2 * KEYS {
        let byte = if number < 5 { 4 } else { 2 };
        assert_eq!(
            db.get(key(number)).unwrap().as_deref(),
            Some(&[byte; 150][..])
        );
    }
    db.verify().unwrap();
}

/// What a transaction wrote is not sealed yet when the journal is poisoned: it must still be
/// possible to undo it, so that reads go on.
#[test]
fn a_sync_that_fails_during_a_transaction_leaves_what_was_committed_readable() {
    for count in [10, 30_000_u32] {
        let disk = Arc::new(SimulatedMedium::new());
        let db = keyed().build_on(Box::new(Arc::clone(&disk))).unwrap();
        let key = |number: u32| number.to_le_bytes();
        db.insert_many((0..count).map(|number| (key(number), "old")))
            .unwrap();
        let tx = db.begin().unwrap();
        for number in 0..count {
            tx.insert(key(number), [7; 60]).unwrap();
        }
        disk.fail_call(disk.calls(), std::io::ErrorKind::Other);
        assert!(db.flush().is_err());
        assert!(tx.commit().is_err());
        for number in 0..count {
            assert_eq!(db.get(key(number)).unwrap().as_deref(), Some(&b"old"[..]));
        }
    }
}

/// An overwrite had the whole of a large value decrypted, only to let go of it: with the value
/// damaged, the record could not even be replaced.
#[test]
fn a_large_value_is_not_opened_to_be_overwritten() {
    for overwrite in [
        |db: &Emdb| db.insert("large", "small"),
        |db: &Emdb| db.insert_many([("large", "small"), ("other", "x")]),
        |db: &Emdb| db.transaction(|tx| tx.insert("large", "small")),
        |db: &Emdb| db.transaction(|tx| tx.insert("large", vec![1; 20_000])),
    ] {
        let disk = Arc::new(SimulatedMedium::new());
        let db = keyed().build_on(Box::new(Arc::clone(&disk))).unwrap();
        db.insert("large", value(40_000)).unwrap();
        // So that opening does not read the record.
        db.checkpoint().unwrap();
        db.close().unwrap();
        let mut bytes = disk.live_bytes();
        let last = bytes.len() - 100;
        bytes[last] ^= 1;
        let disk = SimulatedMedium::with_bytes(&bytes).with_sidecar(disk.sidecar_bytes());
        let db = keyed().build_on(Box::new(disk)).unwrap();
        assert!(matches!(db.get("large"), Err(Error::Corrupted { .. })));
        overwrite(&db).unwrap();
        assert!(db.get("large").unwrap().is_some());
    }
}
